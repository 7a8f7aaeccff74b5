"""What the harness tells the engine's core of the policy that is to stand inside it, and of each request.

The core is another process: a file, named by an environment variable, holds the orders of the run, and each request
carries what a job is made of. Code is loaded there only where these orders name it, and they are the user's own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from driftsim.records import Record
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import make_estimator
from driftsim.scheduling.inside import Inside
from driftsim.scheduling.policies import make_policy
from driftsim.slo import Slos
from driftsim.tiers import TierRules

ORDERS = "DRIFTSIM_ORDERS"  # environment variable: the file that the orders of the run are in
NAME = "driftsim"  # of what a request carries, among its extra arguments


class Orders(Record):
    """The policy, its estimator and all that they are told; ``began``: when the run did (monotonic, s)."""

    run: int = Field(default=0, description="Number of the run: each request names the one that it is of.")
    policy: str = Field(default="fifo", description="Policy inside the engine.")
    estimator: str = Field(default="static", description="Estimator that it goes by.")
    admission: Admission = Field(default=Admission(), description="Switches of admission.")
    tiers: TierRules = Field(default=(), description="Rules of the tiers in force.")
    slos: Slos = Field(default=(), description="SLOs, for a policy that goes by them.")
    seed: int = Field(default=0, description="Seed of the estimator.")
    began: float = Field(default=0.0, description="When the run began, monotonic seconds.")
    estimates: str = Field(default="", description="File that estimates are written to; none: they are not.")

    def place(self, on_admit: Callable[[Job], None] = lambda job: None) -> Inside:
        """A fresh policy and estimator, as they stand inside the engine."""
        learner = make_estimator(self.estimator, self.admission, {}, self.seed)
        return Inside(make_policy(self.policy, self.tiers, slos=self.slos), learner, self.admission, on_admit)

    def write(self, file: Path) -> None:
        """Into ``file``, at once: the core may read it at any moment."""
        aside = file.with_suffix(".next")
        aside.write_text(self.model_dump_json(), encoding="utf-8")
        aside.replace(file)


def carried(job: Job, run: int) -> dict[str, Any]:
    """What a request carries into the core: all that a policy may look at, and no text.

    >>> request = Request("r1", "acme", Tier.BATCH, "report", 0.5, prompt_tokens=100, prompt_words=None, max_tokens=64)
    >>> again = job_of(carried(Job(request, "report", 0, 0, index=7), run=1))
    >>> again.request == request, again.index, again.predicted_category
    (True, 7, 'report')
    """
    request = job.request
    return {
        "run": run,
        "row": job.index,
        "id": request.id,
        "tenant": request.tenant,
        "tier": str(request.tier),
        "rank": request.tier.priority,
        "category": request.category,
        "predicted": job.predicted_category,
        "arrival": request.arrival,
        "prompt_tokens": request.prompt_tokens,
        "prompt_words": request.prompt_words,
        "max_tokens": request.max_tokens,
        "session": request.session,
        "turn": request.turn,
    }


def job_of(told: dict[str, Any]) -> Job:
    """The job that a request's ``carried`` values make; it has no estimate yet."""
    tier = Tier(told["tier"], told["rank"] or None)
    request = Request(
        told["id"],
        told["tenant"],
        tier,
        told["category"],
        told["arrival"],
        told["prompt_tokens"],
        told["prompt_words"],
        told["max_tokens"],
        session=told["session"],
        turn=told["turn"],
    )
    return Job(request, told["predicted"], 0, 0, index=told["row"], priority=tier.priority)


def stranger(name: str, prompt_tokens: int, max_tokens: int) -> Job:
    """The job of a request that carries nothing, such as one of the warm-up."""
    return Job(Request(name, "", Tier.STANDARD, "", 0.0, prompt_tokens, None, max_tokens), "", 0, 0)


def noted(job: Job) -> str:
    """The estimate of ``job`` as a line: its row, bias, estimate, budget and scheduling class."""
    return f"{job.index},{job.bias!r},{job.estimate},{job.budget},{job.scheduling_class}\n"


def read_estimates(file: Path) -> dict[int, dict[str, Any]]:
    """By row, what ``noted`` wrote; a line that is not whole, as of a core that was killed, is left out."""
    found: dict[int, dict[str, Any]] = {}
    if not file.exists():
        return found
    for line in file.read_bytes().rstrip(b"\0").decode().splitlines(keepends=True):
        if not line.endswith("\n") or line.count(",") != 4:
            continue
        row, bias, estimate, budget, scheduling_class = line.rstrip("\n").split(",")
        found[int(row)] = {
            "bias": float(bias),
            "estimate": int(estimate),
            "budget": int(budget),
            "scheduling_class": scheduling_class,
        }
    return found
