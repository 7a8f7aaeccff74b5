"""What would do nothing, or could not be written, is refused in a line that says what to do."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from driftsim.clients import Clients, Retries
from driftsim.comparison.plan import BASELINE, ComparisonPlan, check_plans
from driftsim.errors import InputError
from driftsim.simulation.replicas import Replicas
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from tests.commands import driftsim
from tests.strategies import engine, profile, workload

PROFILE = profile(engine(max_num_seqs=1))
NOTHING_TO_SEND = "nothing to send again; give --timeout"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nothing")
    simulate(Scenario(profile=PROFILE), workload([0.0, 0.1, 0.2, 0.3], [9, 2, 5, 3])).write(folder / "run")
    PROFILE.save(folder / "p.json")
    (folder / "s.toml").write_text("trace = 'run'\nprofile = 'p.json'\n")
    (folder / "two.toml").write_text("trace = 'run'\nprofile = 'p.json'\nreplicas = { count = 2 }\n")
    (folder / "one.toml").write_text("trace = 'run'\nprofile = 'p.json'\nreplicas = { count = 1 }\n")
    return folder


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("value run --profile p.json --limits slots --requests 1", "a single request waits for nobody"),
        ("compare run --profile p.json --retries 2", NOTHING_TO_SEND),
        ("simulate s.toml --out o --router round-robin", "--router does nothing here: one engine"),
        ("simulate one.toml --out o --router-place front", "--router-place does nothing here: one engine"),
        ("compare run --profile p.json --tiers=", "tier '': is no name"),
        ("value run --profile p.json --policies sjf --estimators ema --replications 1 --tiers=", "tier '': is no name"),
        ("capacity run --profile p.json --slo e2e=9s --tiers=", "tier '': is no name"),
        ("view run run/../run --out v.json", "run: is named 2 times"),
        ("show run --csv no/rows.csv", "no/rows.csv: cannot be written; name a file in a folder that is there"),
    ],
)  # fmt: skip
def test_what_does_nothing_is_refused_in_a_line(
    words: str, says: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    run = driftsim(*words.split())
    assert (run.returncode, run.stdout) == (2, "")
    assert says in run.stderr
    assert run.stderr.count("\n") == 1
    assert not (place / "o").exists()


@pytest.mark.parametrize("words", ["two.toml", "s.toml --replicas 2", "one.toml --set replicas.count=2"])
def test_a_router_of_two_engines_is_asked_for(
    words: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    assert driftsim("simulate", *words.split(), "--router", "random", "--out", tmp_path / "o").returncode == 0


@pytest.mark.parametrize(
    ("asked", "columns", "says"),
    [
        ({}, {}, True),
        ({"clients": Clients(retries=Retries(most=0))}, {}, False),
        ({}, {"timeout_s": [None, 2.0]}, False),
        ({}, {"deadline_s": [2.0, None]}, False),
        ({}, {"timeout_s": [None, None]}, True),
        ({"shed": "wait=5s"}, {}, False),
        ({"clients": Clients(timeouts=["9s"], retries=Retries())}, {}, False),  # type: ignore[arg-type]
        ({"replicas": Replicas(count=2, failures=["0:at=1s"])}, {}, False),  # type: ignore[arg-type]
        ({"replicas": Replicas(count=2)}, {}, True),
    ],
)  # fmt: skip
def test_retries_want_a_request_that_may_fail(asked: dict[str, Any], columns: dict[str, Any], says: bool) -> None:
    made = workload([0.0, 0.1], [3, 4])
    made = replace(
        made, table=made.table.assign(**{name: pd.array(cells, dtype="Float64") for name, cells in columns.items()})
    )
    plan = ComparisonPlan(profile=PROFILE, settings=(BASELINE,), **{"clients": Clients(retries=Retries()), **asked})
    with pytest.raises(InputError, match=NOTHING_TO_SEND) if says else nullcontext():
        check_plans(plan, [made])
