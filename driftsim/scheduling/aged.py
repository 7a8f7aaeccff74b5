"""Policies whose order changes with time: jobs of a class stand in order of arrival, the oldest of each are compared.

So a decision takes as long as there are classes, whatever the number of jobs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Hashable
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from driftsim.request import Job, Tier
from driftsim.scheduling.around import Around
from driftsim.scheduling.queues import Heeds


class Waiting(NamedTuple):
    """A job in the queue of its class, with how fast its priority grows, as of when it came."""

    number: int  # of the push
    slope: float
    job: Job


class Classes(ABC):
    """The oldest job of the class whose oldest has the highest priority."""

    heeds: Heeds = ""
    needs: tuple[str, ...] = ()
    not_static = "its order changes with time"

    def __init__(self) -> None:
        self._queues: dict[tuple[Hashable, Tier], deque[Waiting]] = {}  # none is empty
        self._pushed = self._count = 0
        self._around = Around()

    def given(self, around: Around) -> None:
        """Take what is known of the run."""
        self._around = around

    @abstractmethod
    def class_of(self, job: Job) -> Hashable:
        """Jobs of one class leave in the order of arrival."""

    @abstractmethod
    def slope(self, job: Job) -> float:
        """How fast the priority of ``job`` grows."""

    def priority(self, head: Waiting, now: float) -> float:
        """The priority of the oldest of a class; the highest goes first."""
        return head.slope * (now - head.job.request.arrival)

    def push(self, job: Job, now: float) -> None:
        """Take ``job`` into the queue of its class."""
        place = self.class_of(job), job.request.tier
        self._queues.setdefault(place, deque()).append(Waiting(self._pushed, self.slope(job), job))
        self._pushed += 1
        self._count += 1

    def pop(self, now: float) -> Job:
        """Remove and return the job with the highest priority, ties by arrival."""
        return self.pop_below(now, ())

    def pop_below(self, now: float, full: Collection[Tier]) -> Job:
        """The same among the jobs whose tier is not ``full``. Raises ``IndexError`` when none of these waits."""
        best, first = None, (math.inf, 0.0, 0)
        for place, queue in self._queues.items():
            if place[1] not in full:
                head = queue[0]
                rank = -self.priority(head, now), head.job.request.arrival, head.number
                if best is None or rank < first:
                    best, first = place, rank
        if best is None:
            raise IndexError("pop from an empty policy")
        job = self._queues[best].popleft().job
        if not self._queues[best]:
            del self._queues[best]
        self._count -= 1
        return job

    def rekey(self) -> None:
        """A job stays in the class that it came into."""
        return

    def __len__(self) -> int:
        return self._count


class Accumulating(Classes):
    """Accumulating priority: the tier's slope times the wait, the highest first.

    The slope is the weight of the tier to a power. Slopes in fixed ratios hold the waits of the tiers in ratio at a
    high load, and nobody waits for ever. The power 0 is FIFO, a large one strict priority. Source: Kleinrock 1964,
    delay dependent priority (from memory). Trap: with equal slopes and different heads start, as DriftSched's aging has
    them, the order is FIFO with an offset.
    """

    heeds = "tier"

    def __init__(
        self,
        *,
        power: Annotated[float, Field(ge=0, le=20, description="Power of the tier's weight in its slope.")] = 1.0,
    ) -> None:
        super().__init__()
        self._power = power

    def class_of(self, job: Job) -> Hashable:
        """The tier."""
        return job.request.tier

    def slope(self, job: Job) -> float:
        """The tier's weight, to the power."""
        return float(self._around.weight(job.request.tier) ** self._power)


class Hrrn(Classes):
    """Highest response ratio next: (wait + s) / s for s seconds of service, the highest first.

    Sizes are put into classes of half a doubling; in a class the oldest goes first, though another of it may have a
    wait per size that is up to 1.41 times as high. So no decision looks at every job. Nobody waits for ever. Source:
    Brinch Hansen 1971 (from memory). Trap: an estimate that is far too small makes the ratio explode.
    """

    needs = ("profile",)

    def class_of(self, job: Job) -> Hashable:
        """The half of a doubling that the size is in."""
        return math.floor(2 * math.log2(self._size(job)))

    def slope(self, job: Job) -> float:
        """One by the seconds of service; the one that is added to the ratio of every job plays no part."""
        return 1 / self._size(job)

    def _size(self, job: Job) -> float:
        return max(1e-9, self._around.service_s(job))


class Ewsjf(Classes):
    """Effective workload-based shortest job first.

    Queues of prompts by steps of 200 tokens, each first in, first out; of the oldest of each, the highest
    wait x (1 + 0.5 ln(prompt + 1)) x step / (floor(prompt / step) + 1) goes first. There, queues for prompts beyond
    2,000 tokens begin where the first such prompt wants, and the scores are as old as the last pass of a thread; here
    every queue is a step wide, and a score is of this moment. Source: vLLM's pull request 33392, scoring.py and
    waiting_queue.py (read), whose constants these are. Trap: it knows nothing of outputs, and the score per token falls
    with the square of the prompt, so long prompts wait long.
    """

    def __init__(
        self,
        *,
        step: Annotated[
            int, Field(ge=1, description="Width of a queue in prompt tokens.", json_schema_extra={"unit": "tokens"})
        ] = 200,
        factor: Annotated[float, Field(ge=0, description="Weight of the prompt's logarithm.")] = 0.5,
    ) -> None:
        super().__init__()
        self._step, self._factor = step, factor

    def class_of(self, job: Job) -> Hashable:
        """The step that the prompt is in."""
        return job.request.prompt_tokens // self._step

    def slope(self, job: Job) -> float:
        """The score of a second of waiting."""
        prompt = job.request.prompt_tokens
        return (1 + self._factor * math.log(prompt + 1)) * self._step / (prompt // self._step + 1)


SEEN = 256  # sizes of a category that count
LEAST_SHARE = 0.1  # of them, that end within the time an index looks at: the very smallest tell little


class Gittins(Classes):
    """Gittins index of what has not begun: the category that ends most jobs per second spent goes first.

    The index of a category is the highest P(S <= d) / E[min(S, d)] over d, for the sizes S that it had, the last 256;
    before the first it is 1 by the estimated seconds. With known sizes it is shortest job first, with increasing
    hazards shortest mean first, with decreasing ones the category comes first that most often ends soon. In front of an
    engine a job is not preempted, so its index after a while is not used. Source: Gittins 1979; Aalto, Ayesta and
    Righter 2009 (from memory). Trap: outputs that were cut short count as they came; who is of a long category may wait
    for ever.
    """

    needs = ("profile",)

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[str, deque[float]] = {}
        self._index: dict[str, float] = {}

    def class_of(self, job: Job) -> Hashable:
        """The predicted category."""
        return job.predicted_category

    def slope(self, job: Job) -> float:
        """One by the estimated seconds."""
        return 1 / max(1e-9, self._around.service_s(job))

    def priority(self, head: Waiting, now: float) -> float:
        """The index of the category, or of the head where nobody knows it yet."""
        return self._index.get(head.job.predicted_category, head.slope)

    def served(self, job: Job, tokens: int | None, now: float) -> None:
        """Learn a size."""
        if tokens is not None:
            own = self._sizes.setdefault(job.predicted_category, deque(maxlen=SEEN))
            own.append(max(1e-9, self._around.service_s(job, tokens)))
            self._index[job.predicted_category] = gittins_index(np.array(own))


def gittins_index(sizes: np.ndarray) -> float:
    """The highest share of jobs that end within a time, by the mean time that is spent on them until then, in 1/s.

    ``sizes``: seconds, as they occurred; times that fewer than a tenth end within are left out.

    >>> gittins_index(np.array([2.0, 2.0])), gittins_index(np.array([1.0, 1.0, 1.0, 97.0]))
    (0.5, 0.75)
    """
    ordered = np.sort(sizes)
    ended = np.arange(1, len(ordered) + 1)
    spent = np.cumsum(ordered) + (len(ordered) - ended) * ordered
    found = ended / spent
    return float(found[ended >= LEAST_SHARE * len(ordered)].max())
