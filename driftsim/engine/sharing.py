"""What running sequences hold of a cache with prefixes, and when their blocks get keys (vllm/v1/core, vLLM 0.32).

A block gets its key when it is allocated, so that a later request of the same step finds it. With async scheduling a
token has no key before it is known, a step later. Decoding sequences take blocks by number; their blocks get keys here
when somebody may look for them, or when they are given back.
"""

from __future__ import annotations

from driftsim.engine.decoding import DecodePool
from driftsim.engine.prefixes import NOWHERE, Held, PrefixCache
from driftsim.engine.sequence import Sequence

ENDLESS = 1 << 60  # tokens


class SharedBlocks(PrefixCache):
    """The cache of an engine whose decoding sequences are ``pool``; ``pipelined``: it schedules asynchronously."""

    def __init__(self, total: int, pool: DecodePool, *, pipelined: bool) -> None:
        super().__init__(total, pool.block_size)
        self.pool = pool
        self.pipelined = pipelined
        self._ahead = 0 if pipelined else 1  # tokens of the step being scheduled that are known, of a decode
        self._live: dict[int, Sequence] = {}  # by its own stretch, who runs
        self._echoing: dict[Sequence, None] = {}  # who produces what another request had before
        self._strangers = NOWHERE

    def enter(self, sequence: Sequence) -> None:
        """Prepare ``sequence``, which the engine was just given."""
        stretches = sequence.job.request.stretches
        if not stretches:  # nobody knows what is in it, so nobody shares it
            self._strangers -= 1
            stretches = ((self._strangers, ENDLESS),)
        sequence.stretches = stretches
        sequence.held = []
        sequence.keyed = 0
        sequence.cached = NOWHERE

    def look_up(self, sequence: Sequence) -> tuple[Held, int, int, int]:
        """What the cache has of ``sequence`` while a step is scheduled; the last token is computed in any case."""
        if self._echoing:
            self._settle_all()
        most = (sequence.prompt + sequence.shown - 1) // self.size
        found = self.lookup(sequence, most)
        other = self._live.get(found[3])
        if other is not None and other is not sequence:
            before = other.keyed
            self._settle(other)
            if other.keyed > before:
                return self.look_up(sequence)
        return found

    def admit(self, sequence: Sequence, held: Held, count: int, new: int, need: int) -> None:
        """Let ``sequence`` run: it holds ``count`` found blocks and takes ``need`` for the next ``new`` tokens."""
        self.hold(held)
        if need:
            self.follow(self.blank + self.idle - need)
        sequence.held = held
        sequence.keyed = count
        sequence.joined = ENDLESS
        sequence.computed = computed = count * self.size
        if sequence.cached < 0:
            sequence.cached = computed
        stretches = sequence.stretches
        self._live[stretches[-1][0]] = sequence
        if len(stretches) > 1:
            if stretches[-2][1] > sequence.prompt:
                self._echoing[sequence] = None
            self._settle_owners(sequence, computed + new)
        self.register(sequence, (computed + new) // self.size)

    def grow(self, sequence: Sequence, tokens: int) -> None:
        """The next chunk of ``sequence`` is scheduled; it then has ``tokens`` tokens."""
        if len(sequence.stretches) > 1:
            self._settle_owners(sequence, tokens)
        self.register(sequence, tokens // self.size)

    def give_back(self, sequence: Sequence, tokens: int, known: int) -> int:
        """Free the blocks of ``sequence`` for ``tokens`` tokens, of which ``known`` are known; how many became free.

        The free queue must have been followed to this moment.
        """
        if self._echoing:
            self._settle_all(now=True)
            self._echoing.pop(sequence, None)
        own = sequence.stretches[-1][0]
        if self._live.get(own) is sequence:
            del self._live[own]
        size = self.size
        self.register(sequence, known // size)
        return self.release(sequence, -(-tokens // size))

    def known(self, sequence: Sequence, tokens: int) -> int:
        """How many of the ``tokens`` of ``sequence`` that are scheduled are known (async_scheduler.py)."""
        return tokens - 1 if self.pipelined and tokens > sequence.joined else tokens

    def sooner(self, head: Sequence, steps: int) -> int:
        """At most ``steps`` decode steps: fewer if a block that is being produced may help the waiting ``head`` sooner."""
        _, count, _, owner = self.look_up(head)
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
                self._settle(other)
            if end >= tokens:
                return

    def _settle(self, sequence: Sequence, ahead: int | None = None) -> None:
        """Register what is known of ``sequence`` in the step being scheduled."""
        if sequence.ends >= 0:
            tokens = self.pool.step + sequence.offset + (self._ahead if ahead is None else ahead)
        else:
            tokens = self.known(sequence, sequence.computed)
        self.register(sequence, tokens // self.size)

    def _settle_all(self, *, now: bool = False) -> None:
        """The same of everybody who runs, the furthest first: where two produce the same, that one was there first."""
        running = sorted(self._live.values(), key=lambda one: (-self._reach(one), one.number))
        for sequence in running:
            self._settle(sequence, (-1 if self.pipelined else 0) if now else None)

    def _reach(self, sequence: Sequence) -> int:
        return self.pool.step + sequence.offset if sequence.ends >= 0 else sequence.computed
