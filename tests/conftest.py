"""Test settings: hypothesis is deterministic in CI and digs deeper in the nightly profile."""

from __future__ import annotations

import gc
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True, suppress_health_check=QUIET)
settings.register_profile(
    "mutants", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate]
)  # seen is enough
settings.register_profile("nightly", max_examples=2000, deadline=None, suppress_health_check=QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

ROOT = Path(__file__).resolve().parent.parent
# Processes that tests start find our modules compiled, even where Python is told to compile them each time anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
SHIPPED = sorted(path.parent for path in (ROOT / "traces").rglob("header.json"))
REPEATED = re.compile(r"(policies|places)/[\w-]+-[2-9]$|-again$")
ONE_OF_EACH = [path for path in SHIPPED if not REPEATED.search(str(path))]


gc.disable()  # until all tests are collected: modules and tests are no garbage


def pytest_collection_finish() -> None:
    """Let the collector look at what tests make only; each look at all modules would take a third of a second."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The trace that the demo replays."""
    return ROOT / "traces" / "smollm2-cpu-drift"


@pytest.fixture(autouse=True)
def _quick_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded run waits for a sample of telemetry; tests need not wait for a second."""
    monkeypatch.setattr("driftsim.live.telemetry.CPU_INTERVAL_S", 0.05)


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not say how many ``jobs`` gets none: workers take seconds to start; tests of them ask for two."""
    monkeypatch.setattr("driftsim.workers.cpu_count", lambda: 1)
