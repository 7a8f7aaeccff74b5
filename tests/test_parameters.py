"""A policy's and an estimator's parameters stand in its name: one spelling for one setting, everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from driftsim.comparison.plan import settings_of
from driftsim.live.plan import CapturePlan
from driftsim.live.session import interleaved
from driftsim.scheduling import plugins
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import estimator_name, make_estimator
from driftsim.scheduling.parameters import canonical, values_of
from driftsim.scheduling.policies import make_policy, policy_name
from driftsim.simulation.spec import ScenarioSpec
from tests.commands import driftsim
from tests.test_sweep import place

__all__ = ["place"]
MINE = '''
from typing import Annotated

from pydantic import Field

from driftsim.scheduling.estimators import Estimate, Static
from driftsim.scheduling.policies import Keyed


class Mixed(Keyed):
    """The budget to some power, less the age."""

    def __init__(self, *, power: Annotated[float, Field(gt=0, le=4, description="Power.")] = 1.0, turn: bool = False):
        super().__init__()
        self.power, self.turn = power, turn

    def key(self, job):
        return (-1 if self.turn else 1) * job.budget**self.power


class Always(Static):
    """Always the same number of tokens."""

    def __init__(self, admission, *, tokens: int = 50):
        super().__init__(admission)
        self.tokens = tokens

    def estimate(self, request, category, now):
        return Estimate(self.tokens, 1.0)
'''


class Told:
    def __init__(
        self, *, weight: Annotated[float, Field(gt=0)] = 2.0, count: int = 3, loud: bool = False, plain: Any = "x"
    ) -> None: ...


def name_of(query: str) -> str:
    return canonical(f"told?{query}", lambda _: Told)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "told"),
        ("weight=2", "told"),
        ("weight=2.00&count=3", "told"),
        ("weight=3&count=4", "told?count=4&weight=3"),
        ("weight=1e-1", "told?weight=0.1"),
        ("loud=1", "told?loud=true"),
        ("loud=no", "told"),
    ],
)
def test_one_setting_has_one_name(query: str, expected: str) -> None:
    assert name_of(query) == expected


@given(st.floats(1e-9, 1e9), st.integers(-1000, 1000), st.booleans())
def test_the_canonical_name_stands_for_the_same_values_and_for_itself(weight: float, count: int, loud: bool) -> None:
    name = name_of(f"count={count}&weight={weight!r}&loud={loud}")
    assert canonical(name, lambda _: Told) == name
    assert {"weight": 2.0, "count": 3, "loud": False} | values_of(name, Told) == {
        "weight": weight, "count": count, "loud": loud,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("weights=2", "unknown parameter 'weights'; did you mean 'weight'? it takes weight (2), count (3)"),
        ("zzz=2", "unknown parameter 'zzz'; it takes weight (2)"),
        ("weight=-1", "weight: Input should be greater than 0 (got '-1'); it takes weight (2)"),
        ("weight=nan", "weight: Input should be a finite number"),
        ("count=many", "count: Input should be a valid integer"),
        ("weight=1&weight=1", "the parameter 'weight' is given twice; keep one"),
        ("weight", "'weight' is no key=value; write name?key=value&key=value"),
        ("weight=", "is no key=value"),
        ("weight=1&", "'' is no key=value"),
    ],
)
def test_what_is_wrong_with_a_parameter_is_said_in_a_line(query: str, message: str) -> None:
    with pytest.raises(ValueError, match="told") as raised:
        name_of(query)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_policy_without_parameters_says_so() -> None:
    with pytest.raises(ValueError, match=r"sjf\?x=1: unknown parameter 'x'; it takes none"):
        make_policy("sjf?x=1")
    with pytest.raises(ValueError, match=r"ema\?x=1: unknown parameter 'x'; it takes none"):
        make_estimator("ema?x=1", Admission(), {})
    assert (policy_name("sjf?"), policy_name("stock?"), estimator_name("oracle?")) == ("sjf", "stock", "oracle")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


def test_a_plug_in_takes_parameters(mine: Path) -> None:
    policy: Any = make_policy(f"{mine}:Mixed?power=2&turn=yes")
    assert (policy.power, policy.turn) == (2.0, True)
    estimator: Any = make_estimator(f"{mine}:Always?tokens=7", Admission(alpha=0.3), {})
    assert (estimator.tokens, estimator.admission.alpha) == (7, 0.3)


def test_every_verb_takes_and_shows_the_one_name(place: Path, mine: Path, tmp_path: Path) -> None:
    policy, estimator = f"{mine}:Mixed", f"{mine}:Always"
    told = driftsim(
        "compare", place / "t", "--policies", f"fifo?,{policy}?turn=1&power=2.0", "--estimators",
        f"static,{estimator}?tokens=9", "--replications", 1, "--jobs", 1, "--json",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    rows = json.loads(told.stdout)["rows"]
    assert {row["policy"] for row in rows} == {"fifo", f"{policy}?power=2&turn=true"}
    assert {row["estimator"] for row in rows} == {"static", f"{estimator}?tokens=9"}
    grid = f'[base]\ntrace = "{place}/t"\n[grid]\npolicy = ["{policy}?power=2", "{policy}?power=2.0&turn=0"]\n'
    (tmp_path / "g.toml").write_text(grid)
    swept = driftsim("sweep", tmp_path / "g.toml", "--store", tmp_path / "s", "--jobs", 1)
    assert swept.returncode == 0, swept.stderr
    table = driftsim("show", tmp_path / "s", "--json")
    assert table.stdout.count("Mixed?power=2") >= 1
    assert "turn" not in table.stdout
    wrong = driftsim("compare", place / "t", "--policies", f"{policy}?pwr=2", "--replications", 1)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "unknown parameter 'pwr'; did you mean 'power'? it takes power (1), turn (false)" in wrong.stderr


def test_one_setting_has_one_key(mine: Path) -> None:
    def key(policy: str) -> str:
        return ScenarioSpec(trace="t", policy=policy).key("a", "b")

    assert key("sjf") == key("sjf?")
    assert key(f"{mine}:Mixed?power=2&turn=1") == key(f"{mine}:Mixed?turn=true&power=2.0")
    assert key(f"{mine}:Mixed?power=2") != key(f"{mine}:Mixed?power=3") != key(f"{mine}:Mixed")
    with pytest.raises(ValueError, match="policy: .*unknown parameter 'x'"):
        ScenarioSpec(trace="t", policy="sjf?x=1")


def test_data_may_name_a_plug_in_that_was_named_with_other_parameters(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "_named", set())
    with pytest.raises(ValueError, match="a header names the plug-in"):
        plugins.check_trusted(f"{mine}:Mixed?power=2", "a header")
    plugins.plugin_name(f"{mine}:Mixed?power=3")
    plugins.check_trusted(f"{mine}:Mixed?power=2", "a header")


def test_settings_that_are_one_are_compared_once(mine: Path) -> None:
    found = settings_of(["sjf", "sjf?", f"{mine}:Mixed?power=1"], ["static", "static?"])
    assert [str(one) for one in found] == ["sjf/static", f"{mine}:Mixed/static"]


def test_a_folder_of_a_capture_has_no_sign_that_a_shell_reads(mine: Path) -> None:
    plans = [CapturePlan(policy=f"{mine}:Mixed?turn=1&power=2"), CapturePlan(policy="fifo")]
    runs = interleaved(Path("out"), plans, 1, "fixed")
    assert [run.folder.name for run in runs] == ["Mixed_power=2_turn=true-1", "fifo-1"]
