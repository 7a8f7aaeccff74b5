"""Policies that preempt: they use all that the place inside the engine offers (see inside.py)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from driftsim.request import Job
from driftsim.scheduling.queues import MOST_PREEMPTIONS, PREEMPTIBLE_SHARE, Keyed


class Srpt(Keyed):
    """Shortest remaining output first, with limited preemption.

    Inside the engine a job makes way for one with less left, until it has made the share c of its first estimate, and
    no more often than ``most`` times; when KV blocks run out, who has most left goes. In front of the engine, or as a
    priority, nobody is preempted, and it is shortest job first by the estimated output. An estimator with ``progress``,
    such as kaplan-meier, says anew at every token what is left. With c = inf, true lengths and prompts that cost
    nothing, nobody has fewer in the system at any moment. Source: Schrage 1968 (from memory); TRAIL, arXiv 2410.01035
    (abstract read; its c = 0.8, and that c is of the first estimate, from memory). Trap: who is long may wait for ever;
    a preempted job is computed again, prompt and output; whoever outlives his estimate counts as all but done, so
    estimates that are far too small let long jobs run on.
    """

    steady = True  # what is left only shrinks while a job runs

    def __init__(
        self,
        *,
        share: Annotated[
            float,
            Field(
                ge=0,
                allow_inf_nan=True,
                description="Share c of its first estimate from which on a job makes way for nobody; inf: it may.",
            ),
        ] = PREEMPTIBLE_SHARE,
        most: Annotated[
            int, Field(ge=0, description="Preemptions of a request after which it makes way for nobody.")
        ] = MOST_PREEMPTIONS,
    ) -> None:
        super().__init__()
        self.preemptible_share, self.most_preemptions = share, most

    def key(self, job: Job) -> float:
        """The output that is left by the estimate."""
        return max(0, job.estimate - job.made)

    def preempts(self, running: Job, waiting: Job, now: float) -> bool:
        """Whether the running job has more left than the waiting one."""
        left = running.estimate - running.made
        return left > 0 and left > waiting.estimate - waiting.made

    def expendable(self, job: Job, now: float) -> float:
        """What is left: whoever has most goes first."""
        return job.estimate - job.made
