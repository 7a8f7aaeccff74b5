"""What running sequences hold of a cache with prefixes, and when their blocks get keys (vllm/v1/core, vLLM 0.32).

A block gets its key when it is allocated, so that a later request of the same step finds it. With async scheduling a
token has no key before it is known, a step later. Decoding sequences take blocks by number; their blocks get keys here
when somebody may look for them, or when they are given back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

from driftsim.engine.decoding import DecodePool
from driftsim.engine.prefixes import NOBODY, NOWHERE, Held, PrefixCache
from driftsim.engine.sequence import Sequence
from driftsim.engine.versions import Rules
from driftsim.trace.prefixes import ENDLESS
from driftsim.trace.settings import EngineSettings

Unseen: TypeAlias = Callable[[Sequence], int]


class SharedBlocks(PrefixCache):
    """The cache of an engine whose decoding sequences are ``pool``.

    ``unseen``: how many tokens of a running sequence are still being computed. ``common``: the stretches that several
    sequences share; nobody asks for the blocks of the others but who was preempted. None: not known.
    """

    def __init__(
        self,
        settings: EngineSettings,
        rules: Rules,
        pool: DecodePool,
        unseen: Unseen,
        common: Collection[int] | None = None,
    ) -> None:
        super().__init__(settings.usable_kv_blocks, settings.block_size, keyless_first=rules.keyless_first)
        self.pool = pool
        self.unseen = unseen
        self._ahead = int(not settings.async_scheduling)  # of a decode run's last tokens, those that are known
        self._live: dict[int, Sequence] = {}  # by its own stretch, who runs
        self._common = common
        self._echoing: dict[Sequence, Sequence] = {}  # who produces what another request had before
        self._strangers = NOBODY

    def enter(self, sequence: Sequence) -> None:
        """Prepare ``sequence``, which the engine was just given."""
        stretches = sequence.job.request.stretches
        if stretches:
            owner = stretches[-1][0]
            sequence.owner = owner if self._common is None or owner in self._common else NOBODY
            sequence.own = stretches[-2][1] // self.size if len(stretches) > 1 else 0
        else:  # nobody knows what is in it, so nobody shares it
            self._strangers -= 1
            stretches = ((self._strangers, ENDLESS),)
            sequence.owner, sequence.own = NOBODY, 0
        sequence.stretches = stretches
        sequence.cached = NOWHERE

    def look_up(self, sequence: Sequence, free: int) -> tuple[Held, int, int, int]:
        """What the cache has of ``sequence`` while a step is scheduled and ``free`` blocks are left; see ``lookup``.

        The last token is computed in any case.
        """
        if self._echoing:
            self._settle_all()
        found = self.lookup(sequence, (sequence.prompt + sequence.shown - 1) // self.size, free)
        other = self._live.get(found[3])
        if other is not None and other is not sequence:
            before = other.listed
            self._settle(other)
            if other.listed > before:
                return self.look_up(sequence, free)
        return found

    def admit(self, sequence: Sequence, held: Held, count: int, new: int) -> None:
        """Let ``sequence`` run: it holds ``count`` found blocks and computes ``new`` tokens.

        The blocks that it takes for these leave the free queue when that is next followed.
        """
        if len(held) == 1 and (run := held[0]).end == count and run.holders:
            run.holders += 1
        else:
            self.hold(held, count)
        sequence.held = held
        sequence.keyed = sequence.listed = count
        sequence.joined = ENDLESS
        sequence.computed = computed = count * self.size
        if sequence.cached < 0:
            sequence.cached = computed
        owner = sequence.owner
        if owner != NOBODY:
            self._live[owner] = sequence
        own = sequence.own
        if own <= count:
            sequence.keyed = (computed + new) // self.size
            return
        if not self._echoing:  # else look_up() did it
            self._settle_owners(sequence, computed + new)
        if own * self.size > sequence.prompt:
            sequence.owner = sequence.stretches[-1][0]
            self._live[sequence.owner] = self._echoing[sequence] = sequence
        self.register(sequence, (computed + new) // self.size)

    def grow(self, sequence: Sequence, tokens: int) -> None:
        """The next chunk of ``sequence`` is scheduled; it then has ``tokens`` tokens."""
        if self._echoing:
            self._settle_all(before=sequence.number)
        elif len(sequence.stretches) > 1:
            self._settle_owners(sequence, tokens)
        self.register(sequence, tokens // self.size)

    def give_back(self, sequence: Sequence, tokens: int, known: int, before: int = 0) -> int:
        """Free the blocks of ``sequence`` for ``tokens`` tokens, of which ``known`` are known; how many became free.

        The free queue must have been followed to this moment; of those who run, the ones admitted before number
        ``before`` have had their turn in the step at hand.
        """
        if self._echoing:
            self._settle_all(before)
            self._echoing.pop(sequence, None)
        if sequence.owner != NOBODY:
            self._live.pop(sequence.owner, None)
        size = self.size
        return self.release(sequence, -(-tokens // size), known // size)

    def comes_again(self, sequence: Sequence) -> None:
        """``sequence`` will ask for its own blocks after this."""
        sequence.owner = sequence.stretches[-1][0]

    def part(self, before: int = 0) -> None:
        """Somebody is about to stand still while others go on: give the keys of what all produced in step."""
        if self._echoing:
            self._settle_all(before)

    def sooner(self, head: Sequence, steps: int) -> int:
        """At most ``steps`` decode steps; fewer if a block being produced may help the waiting ``head`` before."""
        _, count, _, owner = self.look_up(head, ENDLESS)
        for other in (self._live.get(owner), *self._echoing):
            if other is not None and other.ends >= 0:
                computed = self.pool.step + other.offset + self._ahead
                until = (max(count, computed // self.size) + 1) * self.size - computed
                steps = min(steps, until)
        return steps

    # -- keys of what is being produced

    def _settle_owners(self, sequence: Sequence, tokens: int) -> None:
        """Whoever produces what ``sequence`` computes in its first ``tokens`` tokens came first."""
        for owner, end in sequence.stretches[:-1]:
            other = self._live.get(owner)
            if other is not None:
                self._settle(other, int(other.number < sequence.number))
            if end >= tokens:
                return

    def _settle(self, sequence: Sequence, turn: int = 1) -> None:
        """Register what is known of ``sequence``, where a decode has been given ``turn`` tokens of the step at hand."""
        tokens = self.pool.step + sequence.offset + turn if sequence.ends >= 0 else sequence.computed
        self.register(sequence, known(sequence, tokens, self.unseen(sequence)) // self.size)
        self.list_own(sequence)

    def _settle_all(self, before: int | None = None) -> None:
        """The same of everybody who runs, the furthest first: where two produce the same, that one was there first.

        ``before``: only those who were admitted before that one have had their turn.
        """
        for sequence in self._live.values():
            self.list_own(sequence)  # who has a key by now was there before
        for sequence in sorted(self._live.values(), key=lambda one: (-self._reach(one), one.number)):
            self._settle(sequence, int(before is None or sequence.number < before))

    def _reach(self, sequence: Sequence) -> int:
        return self.pool.step + sequence.offset if sequence.ends >= 0 else sequence.computed


def known(sequence: Sequence, tokens: int, unseen: int) -> int:
    """How many of the scheduled ``tokens`` are known if ``unseen`` are still computed (async_scheduler.py).

    The tokens with which ``sequence`` began to decode are known in any case.
    """
    return tokens - unseen if tokens > sequence.joined else tokens
