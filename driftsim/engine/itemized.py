"""Engines whose steps also name their requests: who was computed, how many tokens of each, and who was preempted.

They decide as the engines that they are made of; a run that does not ask for the names pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from driftsim.engine.continuous import ContinuousEngine
from driftsim.engine.pipelined import PipelinedEngine
from driftsim.engine.sequence import Sequence
from driftsim.trace.settings import EngineSettings


class Itemized(ContinuousEngine):
    """A continuous engine whose steps end in three lists: ids and tokens of the computed, and ids of the preempted.

    ``on_step`` gets the tuple of any step (see ``ContinuousEngine``) with ``STEP_REQUEST_COLUMNS`` behind it. Requests
    stand in order of admission.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._victims: list[str] = []
        self._items: tuple[list[str], list[int], list[str]] = ([], [], [])
        told: Callable[[tuple[Any, ...]], None] | None = self.on_step
        if told is not None:
            self.on_step = lambda step: told((*step, *self._items))

    def _preempt(self, victim: Sequence, spare: int, turn: tuple[int, int] = (0, 0)) -> int:
        self._victims.append(victim.job.request.id)
        return super()._preempt(victim, spare, turn)

    def _compute_step(self, now: int, begin: int, prefills: list[tuple[Sequence, int]], preempted: int) -> int:
        tokens = dict(prefills)
        computed = [one for one in self.running if one in tokens or one.ends >= 0]
        # A turn that preempted and then computed nothing is no step: its victims belong to none.
        victims = self._victims[len(self._victims) - preempted :]
        self._victims = []
        ids, counts = [one.job.request.id for one in computed], [tokens.get(one, 1) for one in computed]
        self._items = (ids, counts, victims)
        return super()._compute_step(now, begin, prefills, preempted)


class ItemizedPipelined(Itemized, PipelinedEngine):
    """Likewise, with async scheduling."""


def itemized_engine_for(settings: EngineSettings) -> type[ContinuousEngine]:
    """The engine that schedules as ``settings`` say and names the requests of its steps."""
    return ItemizedPipelined if settings.async_scheduling else Itemized
