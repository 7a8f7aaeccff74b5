"""A scenario is everything that determines a simulated run, next to the workload it is run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from driftsim.clients import PATIENT, Clients
from driftsim.errors import InputError
from driftsim.latency.profile import SECONDS, Profile
from driftsim.records import Record
from driftsim.scheduling.dispatcher import Dispatching
from driftsim.simulation.replicas import ALONE, Replicas
from driftsim.slo import Slo, check_only_e2e, slo_rules
from driftsim.trace.settings import EngineSettings


@dataclass(frozen=True, kw_only=True)
class Scenario(Dispatching):
    """One setting of every switch. Behind a barrier, ``max_in_flight`` None means the worker's batch.

    ``refill_lag`` off lets an outside dispatcher refill a freed slot before the next step, as no real one can.
    ``barrier``: DriftSched's worker, which serves one batch at a time, instead of continuous batching; it
    fetches its jobs itself, so that nothing lags.
    ``noise`` draws step times around the profile's, by ``seed``. ``slos`` change nothing in a run but the order
    under a policy that goes by them; its header holds them, so that its requests are judged by them. ``clients``: when
    they give up, and whether they send again; by default as the workload says. ``replicas``: several engines, each
    with ``max_in_flight``; ``replica_profiles``: one for each, where they are not alike.

    >>> profile = Profile.plain(intercept_s=0.01, max_num_seqs=8)
    >>> Scenario(profile=profile, policy="sjf").limit, Scenario(profile=profile, policy="stock").limit
    (8, None)
    """

    profile: Profile
    refill_lag: bool = True
    noise: bool = False
    barrier: Barrier | None = None
    slos: tuple[Slo, ...] = ()
    clients: Clients = PATIENT
    replicas: Replicas = ALONE
    replica_profiles: tuple[Profile, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "slos", slo_rules(self.slos))  # frozen for everybody else
        if self.barrier is not None:
            check_only_e2e(self.slos)
        if self.barrier is not None and self.replicas:
            raise InputError("the barrier's worker has no replicas; leave replicas out, or take the continuous engine")
        if self.place != "front" and (self.barrier is not None or self.replicas):
            what = "the barrier's worker" if self.barrier is not None else "several replicas"
            raise InputError(f"{what} cannot have place {self.place}; leave one of the two out")
        if self.replica_profiles and len(self.replica_profiles) != self.replicas.count:
            have = f"{len(self.replica_profiles)} profiles for {self.replicas.count} replicas"
            raise InputError(f"there are {have}; give one for each")
        if not isinstance(self.profile, Profile):
            raise InputError(f"a Profile is needed, not {self.profile!r:.80}; load one with load_profile(FILE)")

    @property
    def engine(self) -> EngineSettings:
        """The engine's settings; one that gets priorities orders by them."""
        settings = self.profile.engine
        return settings.changed(scheduling_policy="priority") if self.placed == "priority" else settings

    @property
    def limit(self) -> int | None:
        """Jobs allowed inside the engine; None is no limit."""
        if self.barrier is not None and self.max_in_flight is None:
            return None
        return self.limit_of(self.profile.engine.max_num_seqs)


def with_engine(profile: Profile, changes: Mapping[str, Any]) -> Profile:
    """``profile`` of an engine with these ``changes``. Raises ``InputError`` for settings that cannot be."""
    if not changes:
        return profile
    try:
        settings = profile.engine.changed(**changes)
        settings.check_starts()
        return profile.changed(engine=settings)
    except (InputError, TypeError) as error:
        raise InputError(f"engine: {error}") from None


class Barrier(Record):
    """The constants of a worker that serves one batch at a time; the defaults are DriftSched's.

    >>> Barrier().batch_size, Barrier(fill_s=0.0).idle_s
    (32, 1.0)
    """

    batch_size: int = Field(default=32, gt=0, description="Largest batch.", json_schema_extra={"unit": "requests"})
    fill_s: float = Field(
        default=0.010, ge=0, description="Time that a batch waits for more requests.", json_schema_extra=SECONDS
    )
    idle_s: float = Field(
        default=1.0,
        ge=0,
        description="Time that the worker sleeps if no request waits.",
        json_schema_extra=SECONDS,
    )
