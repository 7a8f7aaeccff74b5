"""How sequences end: by themselves, at a limit, by an abort, or at a stop string, which the core does not know of.

The API server finds a stop string and tells the core by an abort (vllm/v1/engine/output_processor.py, vLLM 0.32). By
then the core has begun the next step, with async scheduling the one after it, too: the sequence keeps its slot and its
blocks for so long, though its client has its end.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import copy

from driftsim.engine.scheduler import Scheduler
from driftsim.engine.sequence import Sequence
from driftsim.trace.settings import EngineSettings


class Endings(Scheduler):
    """A scheduler whose sequences end; ``ends_late`` holds the rows of the requests that a stop string ends."""

    ends_late: Collection[int] = ()

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._longest = settings.max_model_len
        self._over: dict[Sequence, bool] = {}  # whose clients have their end; whether they had it before this turn

    def _end(self, sequence: Sequence, now: int) -> None:
        sequence.finish, sequence.finish_reason = now, "length" if sequence.shown >= sequence.most else "stop"

    def _drop(self, sequence: Sequence) -> None:
        """Abort ``sequence``, which runs or waits: it has shown what is out by now."""
        if sequence in self.running:
            unseen = self._unseen(sequence)
            self._remove(sequence, self.free)
            sequence.shown -= unseen
            if not sequence.shown:
                sequence.first_token = None
        else:
            self.waiting.remove(sequence)

    def _late_ends(self, finished: list[Sequence], now: int) -> tuple[list[Sequence], list[Sequence]]:
        """Who of those who are ``finished`` leaves the core, what it is told to abort last, and whose clients hear."""
        leaving, last, heard = list[Sequence](), list[Sequence](), list[Sequence]()
        for sequence in finished:
            if sequence.over:
                self._forget_over(sequence)
                (leaving if sequence.shown >= sequence.most else last).append(sequence)
            elif sequence.late:
                heard.append(self._let_go(sequence, sequence.shown, now))
                sequence.target += 1
                self.pool.join(sequence)
            else:
                leaving.append(sequence)
                heard.append(sequence)
        return leaving + last, heard

    def _let_go(self, sequence: Sequence, shown: int, now: int) -> Sequence:
        """The client of ``sequence`` has its end; returns what it knows, while the core goes on."""
        sequence.over = True
        self._over[sequence] = False
        ended = copy(sequence)
        ended.shown = shown
        self._end(ended, now)
        return ended

    def _drop_over(self) -> None:
        """A new turn: the core now hears of the ends that clients knew before the last one."""
        for sequence, due in list(self._over.items()):
            if not due:
                self._over[sequence] = True
                continue
            if sequence in self.running or sequence in self.waiting:
                self._drop(sequence)
            self._forget_over(sequence)

    def _forget_over(self, sequence: Sequence) -> None:
        """The core aborts ``sequence``, of whose end its client knows."""
        del self._over[sequence]
        sequence.finish_reason = "abort"
