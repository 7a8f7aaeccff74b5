"""The simulated engine with a policy of ours inside it, as live/scheduler.py puts one inside vLLM's scheduler.

The policy orders those who wait; it may preempt a running sequence for the first of them, at most one of them a step,
before the step is scheduled; it may hold the first back; and it may choose who goes when the KV blocks run out.
Everything else is vLLM's. A decode run ends where one of these decisions could change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from driftsim.engine.continuous import ContinuousEngine
from driftsim.engine.decoding import DecodePool
from driftsim.engine.sequence import Sequence, blocks_for
from driftsim.errors import InputError
from driftsim.latency.steptime import TICKS_PER_SECOND
from driftsim.scheduling.dispatcher import Departure
from driftsim.scheduling.inside import Inside, Runner
from driftsim.scheduling.room import Load, Room, least_chunk


class ByPolicy:
    """The waiting sequences in the order of a policy; ``clock`` tells the tick of now.

    Those who make way in a step wait again once it is scheduled: else they could be admitted in it. While there is a
    ``gate``, nobody waits whom it does not let in.
    """

    def __init__(self, place: Inside, clock: Any) -> None:
        self._place, self._clock = place, clock
        self._of: dict[int, Sequence] = {}  # id(job) -> sequence
        self._aside: list[Sequence] = []
        self.holding = False
        self.gate: Callable[[], bool] | None = None

    def _now(self) -> float:
        return float(self._clock.now / TICKS_PER_SECOND)

    def __len__(self) -> int:
        return len(self._of) + len(self._aside)

    def __bool__(self) -> bool:
        return bool(self._of) and (self.gate is None or self.gate())

    def __iter__(self) -> Iterator[Sequence]:
        return iter([*self._of.values(), *self._aside])

    def __getitem__(self, place: int) -> Sequence:
        return self._of[id(self._place.head(self._now()))]

    def popleft(self) -> Sequence:
        """Take the head."""
        return self._of.pop(id(self._place.take(self._now())))

    def enter(self, sequence: Sequence, now: float) -> None:
        """A newcomer, whom the engine takes in at ``now`` seconds."""
        self._of[id(sequence.job)] = sequence
        self._place.come(sequence.job, now)

    def extend(self, sequences: Iterable[Sequence]) -> None:
        """Newcomers, but for those who entered in the middle of a decode run."""
        for sequence in sequences:
            if id(sequence.job) not in self._of:
                self.enter(sequence, self._now())

    def appendleft(self, sequence: Sequence) -> None:
        """One that was preempted goes where the policy puts it."""
        if self.holding:
            self._aside.append(sequence)
        else:
            self._of[id(sequence.job)] = sequence
            self._place.come_back(sequence.job, self._now())

    def let_back(self) -> None:
        """Those who made way wait again."""
        self.holding = False
        for sequence in self._aside:
            self.appendleft(sequence)
        self._aside.clear()

    def remove(self, sequence: Sequence) -> None:
        """One that leaves without being served."""
        del self._of[id(sequence.job)]
        self._place.withdraw(sequence.job)


class InsideEngine(ContinuousEngine):
    """A continuous engine that asks the policy in ``place``; ``departure`` tells what is learned of a sequence."""

    waiting: ByPolicy

    def __init__(self, place: Inside, departure: Callable[[Sequence], Departure], *arguments: Any) -> None:
        env, settings, step_time, gap, on_leave, *others = arguments
        super().__init__(env, settings, step_time, gap, self._gone, *others)
        if settings.scheduling_policy != "fcfs":
            raise InputError(
                f"the policy inside takes the place of the engine's own order {settings.scheduling_policy!r}; set "
                "scheduling_policy fcfs, or leave the place at front"
            )
        if self.cadence is not None:
            raise InputError("place inside is not followed with prefill_schedule_interval above 1; set it to 1")
        self.place, self._departure, self._hear = place, departure, on_leave
        self.waiting = ByPolicy(place, env)
        self.by_priority = place.chooses_victim  # then anybody may be preempted, whom vLLM walks through one by one
        self._room = Room(self.total, self._limits[2], least_chunk(self._budget, self._limits[1], self._threshold))
        self._decided = False  # whether nobody made way for the head, and nobody will before something else happens

    def _schedule(self, now: int) -> tuple[list[tuple[Sequence, int]], int]:
        self._decided = False
        gone = self._make_way(now / TICKS_PER_SECOND) if self.place.preempting and self.waiting else 0
        prefills, preempted = super()._schedule(now)
        if gone:
            self.waiting.let_back()
        return prefills, preempted + gone

    def _schedule_waiting(self, prefills: list[tuple[Sequence, int]], threshold: int, now: int) -> None:
        self.waiting.gate = self._lets_in if self.place.holds_back else None
        super()._schedule_waiting(prefills, threshold, now)
        self.waiting.gate = None

    def _lets_in(self) -> bool:
        """Whether the policy lets the head in beside those who run; whoever would be alone goes in."""
        if not self.running:
            return True
        now, place, running = self.env.now / TICKS_PER_SECOND, self.place, []
        for sequence in self.running:
            place.tell(sequence.job, made(sequence, self.pool), now)
            running.append(Load(sequence.job, _uncomputed(sequence)))
        return place.admits(_uncomputed(self.waiting[0]), running, self._room, now)

    def _make_way(self, now: float) -> int:
        """Preempt for the first of the waiting, if it lacks a slot or KV blocks and the policy says so; how many."""
        place = self.place
        if place.settled:
            return 0
        head, running = self.waiting[0], self.running
        slots = len(running) + 1 - self._limits[1]
        blocks = self._missing_blocks(head)
        if slots <= 0 and blocks <= 0:
            return 0
        gone = place.displaced(head.job, self._runners(now), slots, blocks, self._held, now)
        self._decided = place.steady and not gone
        self.waiting.holding = bool(gone)
        for sequence in gone:
            self._preempt(sequence, self.free)
        return len(gone)

    def _missing_blocks(self, head: Sequence) -> int:
        """KV blocks that ``head`` lacks as a whole, if each of the running gets one more.

        With prefix caching or a sliding window nobody knows how many would become free, and only slots count.
        """
        if self.shared is not None or not self.running:
            return 0
        return blocks_for(head.length, self._limits[2]) + self._watermark + len(self.running) - self.free

    def _runners(self, now: float) -> list[Runner]:
        """Who may make way: all but those whose last token is being computed; each is told of first."""
        place, pool, awaiting = self.place, self.pool, self.awaiting_output
        there = [one for one in self.running if one not in awaiting] if awaiting else list(self.running)
        if not place.only_counts:
            for sequence in there:
                place.tell(sequence.job, made(sequence, pool), now)
            return [(sequence.job, sequence) for sequence in there]
        step, runners = pool.step, []
        for sequence in there:  # the same without a call: this is what preemption costs
            job, ends = sequence.job, sequence.ends
            job.made = sequence.target - ends + step if ends >= 0 else sequence.shown
            runners.append((job, sequence))
        return runners

    def _held(self, sequence: Sequence) -> int:
        """KV blocks that the running ``sequence`` holds."""
        return self.pool.held(sequence) if sequence.ends >= 0 else blocks_for(sequence.computed, self._limits[2])

    def _preempt(self, victim: Sequence, spare: int, turn: tuple[int, int] = (0, 0)) -> int:
        self.place.tell(victim.job, made(victim, self.pool), self.env.now / TICKS_PER_SECOND)
        return super()._preempt(victim, spare, turn)

    def _victim(self) -> Sequence:
        if not self.place.chooses_victim:
            return super()._victim()
        now, place, pool = self.env.now / TICKS_PER_SECOND, self.place, self.pool
        for sequence in self.running:
            place.tell(sequence.job, made(sequence, pool), now)
        return max(self.running, key=lambda one: (place.expendable(one.job, now), one.rank[1]))

    # -- what ends a decode run

    def _shorten_decode_run(self, sequence: Sequence) -> None:
        """Take ``sequence`` in at the boundary at which the core does, and end the run there if it is then tried."""
        boundary = self._run_boundary()
        if boundary >= self._run_steps:
            return
        sequence.queued = tick = self._boundary_at(boundary)
        now = tick / TICKS_PER_SECOND
        self.waiting.enter(sequence, now)
        if (self.place.preempting or not self._is_full()) and self.place.passes(sequence.job, now):
            self._stop_run_after(boundary)

    def _is_full(self) -> bool:
        """Whether slots or token budget are taken by those who decode: then vLLM looks at nobody who waits."""
        tokens, slots, _ = self._limits
        return len(self.running) >= slots or self.pool.size >= tokens

    def _undisturbed(self, steps: int) -> int:
        if not self.waiting:
            return steps
        if self.place.preempting and not (self._decided or self.place.settled):
            return min(steps, 1)
        if self.place.holds_back and not self._is_full():
            return min(steps, 1)
        if self.shared is not None and not self._is_full():
            return self.shared.sooner(self.waiting[0], steps)
        return steps

    # -- what the policy hears

    def _gone(self, sequences: list[Sequence]) -> None:
        known = [one for one in sequences if one.finish_reason != "rejected" and not one.over]
        self.place.finished([self._departure(one) for one in known], self.env.now / TICKS_PER_SECOND)
        self._hear(sequences)

    def _forget_over(self, sequence: Sequence) -> None:
        """A core that is told to abort ``sequence`` does not know that it was whole."""
        super()._forget_over(sequence)
        self.place.finished([self._departure(sequence)], self.env.now / TICKS_PER_SECOND)


def made(sequence: Sequence, pool: DecodePool) -> int:
    """The output tokens of ``sequence`` after all steps that were scheduled."""
    return sequence.target - sequence.ends + pool.step if sequence.ends >= 0 else sequence.shown


def _uncomputed(sequence: Sequence) -> int:
    """The tokens of ``sequence`` to compute before the one that its next token follows on."""
    return 0 if sequence.ends >= 0 else max(0, sequence.length - sequence.computed - 1)


def inside(
    kind: type[ContinuousEngine], place: Inside, departure: Callable[[Sequence], Departure]
) -> Callable[..., InsideEngine]:
    """What makes an engine of ``kind`` that asks the policy in ``place``, which learns what ``departure`` tells."""
    made_of: Any = type(f"Inside{kind.__name__}", (InsideEngine, kind), {})
    return partial(made_of, place, departure)


def untold(sequence: Sequence) -> Departure:
    """What a core knows of ``sequence`` that has left: tokens alone."""
    job, reason, shown = sequence.job, sequence.finish_reason, sequence.shown
    if reason in ("stop", "length"):
        return Departure(job, shown, reason == "length", output_tokens=shown)
    return Departure(job, None, True, shown if sequence.scheduled is not None else None, shown, shown)
