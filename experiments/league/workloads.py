"""The fixed, versioned workloads of the league, each with its engine and its SLO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from driftsim import (
    Lengths,
    Process,
    Profile,
    ScenarioSpec,
    Seconds,
    Session,
    SystemPrompts,
    Tenant,
    Tier,
    WorkloadSpec,
    calibrate,
)  # fmt: skip
from driftsim.drift import drift_rules
from driftsim.slo import slo_rules
from experiments.azure import azure

ROOT = Path(__file__).resolve().parent.parent.parent
VERSION = 2  # one more with any change below: ranks of two versions are of different leagues
LOADS = (0.8, 0.95, 1.1)  # shares of the rate at which the engine serves a backlog
GIVEN = "given"


@dataclass(frozen=True)
class Fixture:
    """A workload of the league. ``spec`` makes its scenario, ``profile`` that of its engine, None fits the trace's."""

    about: str
    spec: Callable[[], ScenarioSpec]
    profile: Callable[[], Profile | None] = lambda: None


@cache
def h200() -> Profile:
    """A 1.8B model on an H200, 16 slots, fitted to two recorded loads."""
    return calibrate(*(ROOT / "traces" / f"qwen1.8b-h200-load-{load}" for load in ("0.5", "0.95")))


def _recorded(name: str, slo: str) -> ScenarioSpec:
    return ScenarioSpec(trace=str(ROOT / "traces" / name), slos=slo_rules(slo))


def _lengths(mean: float, cv: float, high: int) -> Lengths:
    return Lengths(kind="lognormal", mean=mean, cv=cv, low=1, high=high)


def _bursty() -> ScenarioSpec:
    """A steady chat, a search that calls often, and a batch tenant whose long requests come in bursts."""
    burst = Process(kind="mmpp", rate=1.0, burst_factor=4.5, burst_s=5.0, calm_s=20.0)
    chat, search, batch = (
        Tenant(
            name="chat", tier=Tier.PREMIUM, category="short_qa", rate=3.0, prompt_tokens=_lengths(200, 1, 1000),
            output_tokens=_lengths(150, 1, 800),
        ),
        Tenant(
            name="search", category="summary", rate=2.0, prompt_tokens=_lengths(900, 0.5, 2000),
            output_tokens=_lengths(60, 1, 400),
        ),
        Tenant(
            name="reports", tier=Tier.BATCH, category="report", arrivals=burst, prompt_tokens=_lengths(400, 1, 1500),
            output_tokens=_lengths(600, 0.7, 1500),
        ),
    )  # fmt: skip
    work = WorkloadSpec(tenants=(chat, search, batch), requests=400)
    return ScenarioSpec(workload=work, profile=GIVEN, slos=slo_rules("ttft=500ms"))


def _drifting() -> ScenarioSpec:
    """Two categories; the outputs of one become three times as long half-way."""
    tenants = tuple(
        Tenant(name=name, tier=tier, category=category, share=1.0, output_tokens=_lengths(mean, 1, 1500))
        for name, tier, category, mean in (
            ("a", Tier.PREMIUM, "short_qa", 120), ("b", Tier.STANDARD, "technical", 300),
        )
    )  # fmt: skip
    work = WorkloadSpec(kind="poisson", rate=1.0, requests=400, prompt_tokens=_lengths(300, 1, 1500), tenants=tenants)
    return ScenarioSpec(
        workload=work, profile=GIVEN, slos=slo_rules("ttft=500ms"), drift=drift_rules("tenant=a:factor=3:at=50%")
    )


def _agents() -> ScenarioSpec:
    """Agents of two tenants: turns that wait for a tool, prompts that repeat what came before, a cache for them."""
    agent = Session(
        kind="agent", turns=Lengths(kind="geometric", mean=5, high=10), gap_s=Seconds(kind="exponential", mean=0.5),
        added_tokens=_lengths(80, 0.7, 200),
    )  # fmt: skip
    tenants = (
        Tenant(name="coders", tier=Tier.STANDARD, category="technical", share=1.0, output_tokens=_lengths(150, 1, 600)),
        Tenant(name="desk", tier=Tier.PREMIUM, category="short_qa", share=2.0, output_tokens=_lengths(60, 1, 300)),
    )
    work = WorkloadSpec(
        kind="poisson", rate=1.0, requests=160, prompt_tokens=_lengths(300, 0.7, 800), tenants=tenants, session=agent,
        system=SystemPrompts(count=2, tokens=Lengths(kind="constant", value=256)),
    )  # fmt: skip
    return ScenarioSpec(
        workload=work, profile=GIVEN, slos=slo_rules("ttft=500ms"), engine={"enable_prefix_caching": True}
    )


def _azure() -> ScenarioSpec:
    """The arrivals and lengths of Azure's chat service, fitted; all of one tenant and one category."""
    return ScenarioSpec(workload=azure(400, category="short_qa"), profile=GIVEN, slos=slo_rules("ttft=1s"))


FIXTURES: dict[str, Fixture] = {
    "chat-cpu": Fixture(
        "smollm2-cpu-drift: a small model on a CPU, recorded arrivals in two phases",
        lambda: _recorded("smollm2-cpu-drift", "ttft=20s"),
    ),
    "chat-gpu": Fixture(
        "qwen1.8b-h200-load-0.8: a 1.8B model on an H200, recorded arrivals",
        lambda: _recorded("qwen1.8b-h200-load-0.8", "ttft=500ms"),
    ),
    "bursty": Fixture("three tenants on that H200, the one with long outputs in bursts", _bursty, h200),
    "drifting": Fixture("two tenants on that H200, the outputs of one three times as long half-way", _drifting, h200),
    "azure": Fixture("Azure's chat service on that H200, by fitted laws: one tenant, long prompts", _azure, h200),
    "agents": Fixture("agents of two tenants on that H200, with prefix caching", _agents, h200),
}
