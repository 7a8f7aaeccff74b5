"""Who waits inside the engine, in vLLM's two orders (vllm/v1/core/sched/request_queue.py)."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Protocol

from driftsim.engine.sequence import Sequence
from driftsim.request import Job


class Waiting(Protocol):
    """A queue of sequences; its head is looked at before it is taken."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence]: ...

    def __getitem__(self, place: int, /) -> Sequence:
        """The head, at 0."""
        ...

    def popleft(self) -> Sequence:
        """Take the head."""
        ...

    def extend(self, sequences: Iterable[Sequence], /) -> None:
        """Newcomers."""
        ...

    def appendleft(self, sequence: Sequence, /) -> None:
        """One that was preempted."""
        ...

    def remove(self, sequence: Sequence, /) -> None:
        """One that leaves without being served."""
        ...


class ByRank:
    """Smallest priority first, ties by arrival; a preempted sequence has no place of its own at the front."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[Any, ...], Sequence]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Sequence]:
        return (sequence for _, sequence in sorted(self._heap, key=lambda pair: pair[0]))

    def __getitem__(self, place: int) -> Sequence:
        assert place == 0, "only the head can be looked at"
        return self._heap[0][1]

    def popleft(self) -> Sequence:
        """Take the head."""
        return heapq.heappop(self._heap)[1]

    def extend(self, sequences: Iterable[Sequence]) -> None:
        """Newcomers."""
        for sequence in sequences:
            self.appendleft(sequence)

    def appendleft(self, sequence: Sequence) -> None:
        """One more, wherever its priority puts it."""
        heapq.heappush(self._heap, (sequence.rank, sequence))

    def remove(self, sequence: Sequence) -> None:
        """One that leaves without being served."""
        self._heap.remove((sequence.rank, sequence))
        heapq.heapify(self._heap)


def waiting_queue(scheduling_policy: str) -> Waiting:
    """An empty queue of the engine's scheduling policy."""
    return ByRank() if scheduling_policy == "priority" else deque[Sequence]()


def sequences_of(jobs: list[Job], running: Iterable[Sequence], waiting: Iterable[Sequence]) -> list[Sequence]:
    """Those of ``jobs`` that are still in the engine, in the order of ``jobs``."""
    if len(jobs) == 1:
        job = jobs[0]
        for sequence in running:
            if sequence.job is job:
                return [sequence]
    order = {id(job): place for place, job in enumerate(jobs)}
    there = list[Sequence]()
    for sequence in chain(running, waiting):
        if id(sequence.job) in order:
            there.append(sequence)
            if len(there) == len(order):  # soon: who gives up first has mostly run longest
                break
    return sorted(there, key=lambda sequence: order[id(sequence.job)])
