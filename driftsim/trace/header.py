"""The header of a trace: everything about a run that is not a row. What a key means stands in its description."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeAlias

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from driftsim.clients import PATIENT, Clients
from driftsim.drift import Injected
from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.slo import Slos
from driftsim.tiers import TierRules
from driftsim.trace.schema import LARGEST_COUNT, LONGEST_S
from driftsim.trace.settings import CORES, LARGEST_BLOCK, REQUESTS, SECONDS, TOKENS, EngineSettings

IDLE_KEYS = (
    "tiers",
    "slos",
    "replicas",
    "caveats",
    "turn",
    "prefixes",
    "drift",
)  # which a header lacks where they say nothing


PhaseKind: TypeAlias = Literal["open", "after-drain", "closed", "capped", "backlog", "sessions"]
LOOPS = ("closed", "capped", "sessions")  # phases whose requests wait for others to end


class Phase(Record):
    """A stretch of a workload and the rule by which its requests arrive.

    >>> Phase(name="chat", kind="closed", requests=100, users=8, think_s=2.0).users
    8
    """

    name: str = Field(description="Name of the phase, which the column `phase` of its requests holds.")
    kind: PhaseKind = Field(
        default="open",
        description="How requests arrive. `open`: at recorded offsets from the phase's start, which is when the "
        "previous phase has sent its last request. `after-drain`: likewise, but the phase starts when every earlier "
        "request has left. `backlog`: all at the phase's start. `closed`: each user sends a request, waits for its "
        "end, thinks and sends the next. `capped`: at offsets as `open`, but held back while `users` requests are out. "
        "`sessions`: first turns at offsets as `open`; a later one when all its parents have ended, `gap_s` after.",
    )
    requests: int = Field(
        gt=0, le=LARGEST_COUNT, description="Number of requests of the phase.", json_schema_extra=REQUESTS
    )
    pause_s: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_S,
        description="Time between the condition that starts the phase and its start.",
        json_schema_extra=SECONDS,
    )
    start_s: float | None = Field(
        default=None,
        ge=0,
        le=LONGEST_S,
        description="When the phase started, where that was recorded.",
        json_schema_extra=SECONDS,
    )
    users: int = Field(
        default=0,
        ge=0,
        le=LARGEST_COUNT,
        description="Users of a closed phase; of a capped one, the most requests out at once.",
    )
    think_s: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_S,
        description="Time between the end of a user's request and the next one, in a closed phase.",
        json_schema_extra=SECONDS,
    )

    @model_validator(mode="after")
    def _has_users(self) -> Self:
        if self.kind in ("closed", "capped") and self.users < 1:
            raise InputError(f"the {self.kind} phase {self.name!r} needs at least 1 user")
        return self


class WorkloadInfo(Record):
    """Where the requests of a run came from."""

    name: str = Field(description="Name of the workload.")
    loop: Literal["open", "closed"] = Field(
        default="open", description="Whether arrivals wait for nothing (open) or for answers (closed)."
    )
    phases: tuple[Phase, ...] = Field(description="Phases of the workload, in order.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise InputError(f"two phases have the same name: {', '.join(names)}")
        return self


class MachineLoad(Record):
    """How busy the machine was during a capture."""

    cpu_count: int = Field(gt=0, description="Cores of the machine.", json_schema_extra=CORES)
    own_cpu_mean: float = Field(
        ge=0, description="Mean CPU that driftsim, the engine and their children used.", json_schema_extra=CORES
    )
    foreign_cpu_mean: float = Field(ge=0, description="Mean CPU that all others used.", json_schema_extra=CORES)
    foreign_cpu_max: float = Field(ge=0, description="Largest sample of it.", json_schema_extra=CORES)
    foreign_cpu_limit: float = Field(
        ge=0, description="Largest mean at which a capture counts as undisturbed.", json_schema_extra=CORES
    )
    disturbed: bool = Field(description="Whether the mean was above that limit.")


class Turn(Record):
    """Where a run stood in a capture of several policies in turn."""

    round: int = Field(ge=1, description="Round of the run; every policy runs once in each.")
    position: int = Field(ge=1, description="Position of the run within its round.")
    order: Literal["latin", "random", "fixed"] = Field(
        description="How positions were given out: `latin`, a Latin square balanced for carry-over; `random`, drawn "
        "for each round; `fixed`, the same in every round."
    )


class Prefixes(Record):
    """What is known of the beginnings that requests share, and of the cache at the run's start."""

    block_size: int = Field(
        gt=0,
        le=LARGEST_BLOCK,
        description="Tokens by which `prefix_tokens` counts: a multiple of it is known to be shared, the rest is not.",
        json_schema_extra=TOKENS,
    )
    source: Literal["blocks", "tokens", "text", "hash_ids", "generated"] = Field(
        description="What was compared: the engine's own blocks, token ids, texts, a file's hashes of blocks, or "
        "nothing, because a generator made them."
    )
    began_cold: bool | None = Field(
        default=None, description="Whether the cache was empty at the run's start; none: nobody knows."
    )


class Header(Record):
    """Everything about a run that is not a row. Simulated headers hold no wall-clock time."""

    schema_version: Literal[1] = Field(default=1, description="Version of the trace's schema.")
    kind: Literal["captured", "simulated", "imported"] = Field(description="Where the trace came from.")
    driftsim_version: str = Field(description="Version of driftsim that wrote the trace.")
    ended: Literal["recording", "complete", "interrupted", "failed"] = Field(
        default="complete", description="How the run ended; `recording`: it goes on, or it was killed."
    )
    ended_why: str = Field(default="", description="Why a run ended that was interrupted or failed.")
    engine: EngineSettings = Field(description="Settings of the engine that decide its schedule.")
    engine_arguments: dict[str, Any] = Field(default={}, description="Arguments that the engine was started with.")
    model: str = Field(default="unknown", description="Model that served the requests.")
    hardware: str = Field(default="unknown", description="Hardware that served the requests.")
    software: dict[str, str] = Field(default={}, description="Versions of the software that ran.")
    workload: WorkloadInfo = Field(description="Where the requests came from.")
    admission: dict[str, Any] = Field(
        default={}, description="Policy, estimator and every switch of admission, by the names of a scenario's keys."
    )
    max_in_flight: int | None = Field(
        default=None,
        gt=0,
        description="Most requests that the dispatcher let into the engine at once; none: no limit, the engine's own "
        "order.",
        json_schema_extra=REQUESTS,
    )
    tiers: TierRules = Field(
        default=(),
        description="Rules of the tiers, the most urgent first; none where nobody gave any, and then the header lacks "
        "the key.",
    )
    slos: Slos = Field(
        default=(),
        description="SLOs of tenants and tiers, as tables or as texts `premium:ttft=1s,e2e=30s`; none where nobody "
        "gave any, and then the header lacks the key.",
    )
    replicas: dict[str, Any] = Field(
        default={},
        description="Replicas of the engine, as a scenario says them; of a single one, the header lacks the key.",
    )
    clients: Clients = Field(
        default=PATIENT,
        description="When clients give up, and whether they send again; where they wait for ever, the header lacks the "
        "key.",
    )
    seed: int | None = Field(default=None, description="Seed of everything random in the run.")
    profile_digest: str | None = Field(default=None, description="SHA-256 of the profile of a simulated run.")
    clocks: str = Field(default="", description="What the times count from, and whose clock they are.")
    captured_at: str | None = Field(default=None, description="Date and time at which a captured run began.")
    turn: Turn | None = Field(
        default=None,
        description="Where a run stood in a capture of several; none where it ran alone or before this was written "
        "down, and then the header lacks the key.",
    )
    load: MachineLoad | None = Field(default=None, description="How busy the machine was during a capture.")
    prefixes: Prefixes | None = Field(
        default=None,
        description="What is known of the beginnings that requests share; none where nothing is, and then the header "
        "lacks the key.",
    )
    drift: tuple[Injected, ...] = Field(
        default=(),
        description="Drift that was injected into the workload; none where none was, and then the header lacks the "
        "key.",
    )
    notes: tuple[str, ...] = Field(default=(), description="What a reader of the trace must know.")
    caveats: tuple[str, ...] = Field(
        default=(), description="What an import dropped, changed or guessed; every verb that uses the trace says it."
    )

    @model_serializer(mode="wrap")
    def _without_idle_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A header that has no tiers, caveats and the like is written as it was before there were keys for them."""
        written: dict[str, Any] = plain(self)
        if not self.clients:
            written.pop("clients", None)
        return {key: value for key, value in written.items() if value or key not in IDLE_KEYS}

    def as_json(self) -> str:
        """The header as its file holds it."""
        return self.model_dump_json(indent=1) + "\n"
