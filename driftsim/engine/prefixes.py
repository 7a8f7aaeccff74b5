"""The KV cache with prefix caching: which blocks can be found again, who holds them, which are evicted next.

It mirrors vllm/v1/core/block_pool.py, single_type_kv_cache_manager.py and kv_cache_manager.py of vLLM 0.32 for a single
group of full attention. A block's key stands for all tokens up to the block's end; here a key is a place in a
*stretch*, the tokens that one request was the first to send or to produce (see ``Request.stretches``). Neighbours with
equal state are one ``Run``, so an operation costs a few runs, however long the prompt is.
"""

from __future__ import annotations

from typing import TypeAlias

from driftsim.engine.sequence import Sequence
from driftsim.trace.prefixes import ALWAYS, ENDLESS

NOWHERE, BLANK, NOBODY = -2, -3, -4  # no stretch; blocks without a key; blocks with a key that nobody asks for
Held: TypeAlias = "list[Run]"  # in order of place; what is held of each ends where the next one begins


class Run:
    """The blocks ``start`` to ``end`` of the stretch ``owner``; ``holders`` counts the sequences that hold them all.

    Without holders the run stands in the free queue, between ``before`` and ``after``, its last block first. ``rest``
    is what was cut off its end while it was held. ``copies`` are equal blocks that came later, ``first`` is the run
    that such a copy is equal to: vLLM does not merge them, and finds the first (block_pool.py, BlockHashToBlockMap).
    """

    __slots__ = ("after", "before", "copies", "end", "first", "holders", "owner", "rest", "start")

    before: Run
    after: Run

    def __init__(self, owner: int, start: int, end: int) -> None:
        self.owner = owner
        self.start = start
        self.end = end
        self.holders = 1
        self.rest: Run | None = None
        self.copies: list[Run] | None = None
        self.first: Run | None = None


class PrefixCache:
    """``total`` blocks of ``block_size`` tokens, all free at first.

    The free queue holds ``blank`` blocks without a key, which are taken first, then ``idle`` ones with a key, the least
    recently used first: free_blocks() puts what has no key to the front. Unless ``keyless_first``: before vLLM 0.24,
    all stood in the order in which they were freed.
    """

    def __init__(self, total: int, block_size: int, *, keyless_first: bool = True) -> None:
        self.size = block_size
        self.blank = total
        self.idle = 0
        self.found: dict[int, list[Run]] = {}  # by stretch, in order of place; of equal runs the first
        # Blocks that were taken at the head of the free queue and are still in it, ``total`` at most; and evicted ones.
        self._owed = self._forgotten = 0
        self._total = total
        self._ends = Run(-1, 0, 0)  # before the first and after the last of the free runs
        self._ends.before = self._ends.after = self._ends
        self._in_order = not keyless_first
        if self._in_order:
            self._append(self._ends, Run(BLANK, 0, total))

    @property
    def evicted(self) -> int:
        """Blocks whose key was given up."""
        return self._forgotten + self._owed

    # -- what is there

    def lookup(self, sequence: Sequence, most: int, free: int = ENDLESS) -> tuple[Held, int, int, int]:
        """As many of the first ``most`` blocks of ``sequence`` as the cache has, from the first on without a gap.

        Returns what is to be held, how many blocks that is, how many of them nobody holds, and the stretch in which the
        next one was not found, ``NOWHERE`` if none was looked for. ``free`` blocks are left by now, see ``follow``.
        """
        held: Held = []
        count = idle = 0
        found, size, owner = self.found, self.size, NOWHERE
        whole = most * size
        for owner, tokens in sequence.stretches:
            end = tokens // size if tokens < whole else most
            if end <= count:
                continue
            if owner == ALWAYS:
                count = end
                continue
            runs = found.get(owner)
            if runs is None:
                break
            for run in runs:
                if run.start > count:
                    break
                last = run.end
                if last > end:
                    last = end
                if not run.holders:
                    if self._owed or free < self.blank + self.idle:  # it may be taken by now
                        self.follow(free)
                        self._evict()
                        return self.lookup(sequence, most, free)
                    idle += last - count
                held.append(run)
                count = last
                if count == end:
                    break
            if count < end or count == most:
                break
        return held, count, idle, owner if count < most else NOWHERE

    # -- taking

    def follow(self, free: int) -> None:
        """Take blocks from the head of the free queue until ``free`` are left; what has a key loses it.

        That can wait until somebody would find it (see ``lookup``).
        """
        more = self.blank + self.idle - free
        if more <= 0:
            return
        if self._in_order:
            self._take_in_order(more)
        elif more <= self.blank:
            self.blank -= more
        else:
            more -= self.blank
            self.blank = 0
            self.idle -= more
            self._owed += more
            if self._owed > self._total:
                self._evict()

    def hold(self, held: Held, count: int) -> None:
        """Let one more sequence hold ``count`` blocks, ``held``, as looked up: they leave the free queue (touch())."""
        end = count
        for run in reversed(held):
            if end < run.end:
                self._cut(run, end)
            if not run.holders:
                self.idle -= end - run.start
                run.before.after, run.after.before = run.after, run.before
            run.holders += 1
            end = run.start

    def register(self, sequence: Sequence, upto: int) -> None:
        """Give their keys to the blocks of ``sequence`` before place ``upto`` (cache_full_blocks()).

        Those of its own stretch are listed when somebody asks for them.
        """
        start = sequence.keyed
        if upto <= start:
            return
        sequence.keyed = upto
        if start >= sequence.own:
            return
        size = self.size
        for owner, tokens in sequence.stretches[:-1]:
            end = tokens // size
            if end > upto:
                end = upto
            if end > start:
                self._register(sequence.held, owner, start, end)
                start = end
        sequence.listed = start

    def list_own(self, sequence: Sequence) -> None:
        """Let the blocks of ``sequence`` that have their keys be found, those of its own stretch as well."""
        if sequence.listed < sequence.keyed:
            self._register(sequence.held, sequence.owner, sequence.listed, sequence.keyed)
            sequence.listed = sequence.keyed

    def _register(self, held: Held, owner: int, start: int, end: int) -> None:
        runs = self.found.get(owner)
        if runs is None:
            run = Run(owner, start, end)
            self.found[owner] = [run]
        else:
            last = runs[-1]
            if last.end > start:
                self._register_among(held, runs, Run(owner, start, end))
                return
            if last.end == start and last.holders == 1 and held and held[-1] is last and not last.copies:
                last.end = end
                return
            run = Run(owner, start, end)
            runs.append(run)
        held.append(run)

    def _register_among(self, held: Held, runs: list[Run], new: Run) -> None:
        """Register ``new`` where some of it is there already: that part of it becomes a copy."""
        place, start, end = 0, new.start, new.end
        while start < end:
            while place < len(runs) and runs[place].end <= start:
                place += 1
            if place == len(runs) or runs[place].start > start:  # a hole
                run = Run(new.owner, start, end if place == len(runs) else min(end, runs[place].start))
                runs.insert(place, run)
            else:
                if runs[place].start < start:
                    self._cut(runs[place], start)
                    place += 1
                there = runs[place]
                if there.end > end:
                    self._cut(there, end)
                run = Run(new.owner, start, there.end)
                run.first = there
                there.copies = [*(there.copies or ()), run]
            held.append(run)
            start = run.end

    # -- giving back

    def release(self, sequence: Sequence, blocks: int, upto: int = 0) -> int:
        """Free the ``blocks`` that ``sequence`` holds, its last first; returns how many became free (free_blocks()).

        Those before place ``upto`` have their keys by now.
        """
        keyed = sequence.keyed
        if keyed < upto:
            if keyed < sequence.own:
                self.register(sequence, upto)
            keyed = sequence.keyed = upto
        if sequence.owner in self.found:
            self.list_own(sequence)
        end = sequence.listed
        blank, idle = blocks - keyed, keyed - end
        self.blank += blank
        last = self._ends.before
        if self._in_order and blank:
            last = self._append(last, Run(BLANK, 0, blank))
        if idle:  # nobody else holds them
            owner = sequence.owner
            if owner == last.owner:
                last.end += idle
            else:
                last = self._append(last, Run(owner, end, keyed))
                if owner != NOBODY:
                    self.found[owner] = [last]
        held = sequence.held
        while held:
            run = held.pop()
            if run.end < end:
                held += pieces(run, end)
                continue
            run.holders -= 1
            if not run.holders:
                idle += run.end - run.start
                last.after, run.before = run, last
                last = run
            end = run.start
        last.after, self._ends.before = self._ends, last
        self.idle += idle
        return blank + idle

    def _append(self, last: Run, run: Run) -> Run:
        """Free ``run``, which nobody else holds, after ``last``, which is the last of the free queue."""
        run.holders = 0
        last.after, run.before = run, last
        run.after, self._ends.before = self._ends, run
        return run

    def _take_in_order(self, blocks: int) -> None:
        """Take ``blocks`` from the head of the free queue, with a key or without."""
        while blocks:
            run = self._ends.after
            taken = min(blocks, run.end - run.start)
            if run.owner != BLANK:
                self.idle -= taken
                self._owed = taken
                self._evict()
            else:
                self.blank -= taken
                run.end -= taken
                if not run.end:
                    self._ends.after, run.after.before = run.after, self._ends
            blocks -= taken

    def _evict(self) -> None:
        """Forget the blocks that were taken."""
        blocks, self._owed, ends = self._owed, 0, self._ends
        self._forgotten += blocks
        while blocks:
            run = ends.after
            length = run.end - run.start
            if length > blocks:
                if run.first is None and not run.copies:
                    run.end -= blocks
                    return
                self._cut(run, run.end - blocks)
                continue
            ends.after, run.after.before = run.after, ends
            run.after = ends  # or else whoever stood beside it once would keep all that came after
            self._forget(run)
            blocks -= length

    def _forget(self, run: Run) -> None:
        """``run`` can be found no more; of its copies the first takes its place."""
        if run.owner == NOBODY:
            return
        if run.first is not None:
            assert run.first.copies is not None
            run.first.copies.remove(run)
            return
        runs = self.found[run.owner]
        if run.copies:
            heir, *others = run.copies
            heir.first, heir.copies = None, others
            for one in others:
                one.first = heir
            runs[runs.index(run)] = heir
        elif len(runs) == 1:
            del self.found[run.owner]
        else:
            runs.remove(run)

    def _cut(self, run: Run, place: int) -> None:
        """Make two of ``run`` and of all that is equal to it, at ``place``."""
        first = run.first or run
        rest = self._cut_one(first, place)
        runs = self.found[first.owner]
        runs.insert(runs.index(first) + 1, rest)
        for copy in first.copies or ():
            part = self._cut_one(copy, place)
            part.first = rest
            rest.copies = [*(rest.copies or ()), part]

    def _cut_one(self, run: Run, place: int) -> Run:
        rest = Run(run.owner, place, run.end)
        rest.holders, rest.rest = run.holders, run.rest
        run.end, run.rest = place, rest
        if not run.holders:  # it stands before its beginning in the free queue
            rest.before, rest.after = run.before, run
            run.before.after = rest
            run.before = rest
        return rest


def pieces(run: Run, end: int) -> list[Run]:
    """What has become of a run that is held up to ``end``, in order of place."""
    found = [run]
    while run.end < end:
        assert run.rest is not None
        run = run.rest
        found.append(run)
    return found
