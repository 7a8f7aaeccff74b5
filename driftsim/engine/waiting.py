"""Who waits inside the engine, in vLLM's two orders (vllm/v1/core/sched/request_queue.py)."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from driftsim.engine.sequence import Sequence


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
