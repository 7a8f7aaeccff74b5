"""What the header of a recorded trace says of the gateway and of the servers behind it."""

from __future__ import annotations

from functools import cache

from driftsim.gateway.config import GatewayConfig
from driftsim.gateway.recording import PHASE
from driftsim.live.machine import hardware, software
from driftsim.scheduling.admission import Admission
from driftsim.trace.header import Header, Phase, WorkloadInfo
from driftsim.trace.settings import EngineSettings
from driftsim.version import __version__

CLOCKS = (
    "seconds since the trace began, CLOCK_MONOTONIC of the gateway; arrival_s: body received and counted; dispatch_s: "
    "released to a server; first_token_s: first text received, of streams alone; finish_s: end of the answer received; "
    "scheduled_s, queued_s: first_token_s less the times that the server tells of itself (vLLM's "
    "--enable-per-request-metrics); empty where it tells none"
)
NOTES = (
    "a request for several answers is one row, whose lengths are those of all of them",
    "answers without a stream have no first_token_s",
)


@cache
def _machine() -> tuple[str, dict[str, str]]:
    return hardware(), software()


def heading(
    config: GatewayConfig, admission: Admission, settings: EngineSettings, model: str, limit: int | None
) -> Header:
    """The header of a trace that begins now: of servers with these ``settings``, before which ``limit`` holds."""
    assumed = f"the server does not tell {', '.join(settings.assumed)}: assumed" if settings.assumed else ""
    machine, versions = _machine()
    return Header(
        kind="captured",
        driftsim_version=__version__,
        engine=settings,
        engine_arguments={"api": "openai, through driftsim serve", "upstreams": len(config.upstreams)},
        model=model,
        hardware=machine,
        software=versions,
        workload=WorkloadInfo(name="gateway", phases=(Phase(name=PHASE, requests=1),)),
        admission={
            "policy": config.policy,
            "estimator": config.estimator,
            **admission.model_dump(mode="json"),
            "shed": [str(rule) for rule in config.shed],
        },
        max_in_flight=limit,
        tiers=config.tiers,
        slos=config.slos,
        clocks=CLOCKS,
        notes=(*NOTES, *([assumed] if assumed else [])),
    )
