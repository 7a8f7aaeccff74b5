"""The hook in vLLM's scheduler: what it costs, and that it counts a step as one would by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from driftsim.trace.settings import EngineSettings
from experiments.capture_overhead import step_hook_us
from tests.live.bare import bare_scheduler
from tests.live.deciding import Theirs
from tests.live.test_conformance import case

pytestmark = pytest.mark.live


def test_the_step_hook_takes_at_most_fifty_microseconds() -> None:
    assert min(step_hook_us(1000) for _ in range(3)) <= 50


@pytest.mark.parametrize("seed", range(30))
def test_the_hook_counts_as_one_would_by_hand(seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from driftsim.live.vllm import STEPS_LINK, TracedAsyncScheduler, TracedScheduler

    (tmp_path / "link").symlink_to("/dev/null")
    monkeypatch.setenv(STEPS_LINK, str(tmp_path / "link"))
    monkeypatch.setattr("os.setpgid", lambda process, group: None)
    told: list[tuple[Any, Any]] = []

    def traced(settings: EngineSettings) -> Any:
        kind = TracedAsyncScheduler if settings.async_scheduling else TracedScheduler

        class Checked(kind):  # type: ignore[misc, valid-type]
            def _composition(self, output: Any) -> Any:
                found = super()._composition(output)
                partial = set(self._partial)
                told.append((found, self._counted(output.num_scheduled_tokens)))
                assert self._partial == partial
                return found

        return bare_scheduler(settings, Checked)

    monkeypatch.setattr("tests.live.deciding.bare_scheduler", traced)
    Theirs(case(seed)).run()
    assert len(told) > 50
    assert all(found == counted for found, counted in told)
