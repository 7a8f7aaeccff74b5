"""The rules of what predictions are worth: engines on which a limit binds, and tables of cases known by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from driftsim.comparison.plan import Setting
from driftsim.errors import InputError
from driftsim.pressing.loads import LoadAxis
from driftsim.scheduling.shedding import shed_rules
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec
from driftsim.valuing import value
from driftsim.workloads.generated import WorkloadSpec
from driftsim.worth.answers import Answers, over_draws
from driftsim.worth.engines import Bench, Engine
from driftsim.worth.plan import FIFO, LABELS, ValuePlan, noisy
from driftsim.worth.result import ValueResult
from driftsim.worth.run import Cell, Valuation, _pressed, needed
from driftsim.worth.wording import conclusions
from tests.strategies import engine, profile, workload

NAN = math.nan
SJF = Setting("sjf", "ema")
WORK = WorkloadSpec(kind="poisson", rate=1.0, requests=40, prompt_tokens=8, output_tokens=20)
SPEC = ScenarioSpec(workload=WORK, profile="p.json")

# -- engines


def bench(outputs: list[int], kind: type[Bench] = Bench, **settings: Any) -> Bench:
    """Prompts of 8 tokens; a request may have 64 tokens, or as many as it has."""
    return kind(SPEC, profile(engine(**settings)), workload([0.0] * len(outputs), outputs))


def test_the_first_cache_is_roomy_or_holds_what_the_slots_hold_in_the_mean() -> None:
    assert bench([8, 8]).first("slots") == {"kv_blocks": 1000}
    assert bench([8, 8], kv_blocks=10).first("slots") == {"kv_blocks": 4 * 5 + 1}  # 72 tokens, 16 a block, one empty
    assert bench([8, 8]).first("kv") == {"max_model_len": 72, "kv_blocks": 5 + 1}  # the longest and one empty
    assert bench([72, 72]).first("kv")["kv_blocks"] == 4 * 5 + 1
    assert bench([72, 72], kv_blocks=10).first("kv")["kv_blocks"] == 10
    assert bench([8, 8], max_model_len=64).longest == 64


def test_the_least_of_a_limit_is_that_with_which_the_engine_starts() -> None:
    one = bench([8, 8])
    assert [one.least(limit) for limit in ("slots", "kv", "prefill")] == [1, 6, 4]
    whole = bench([8, 8], enable_chunked_prefill=False, max_num_batched_tokens=512)
    assert whole.least("prefill") == 512


class Told(Bench):
    """A bench where only the least cache binds."""

    def gains(self, changes: dict[str, int]) -> dict[Any, float]:
        return {"slots": 0.0, "kv": 0.2 if self.value("kv", changes) == 6 else 0.0, "prefill": 0.0}


class Counted(Bench):
    """A bench that serves as many requests a second as it has slots."""

    def rate(self, changes: dict[str, int]) -> float:
        return float(self.value("slots", changes))


def test_a_limit_is_halved_down_to_its_least_and_no_further() -> None:
    made = bench([72, 72], Told, kv_blocks=10).engine("kv")
    assert made is not None
    assert made.changes == {"max_model_len": 80, "kv_blocks": 6}
    assert bench([8, 8], Told).engine("slots") is None  # what gains nothing does not bind


def test_slots_are_never_more_than_the_budget() -> None:
    assert bench([8, 8], Counted).gains({"max_num_seqs": 40}) == {"slots": 64 / 40 - 1, "kv": 0.0, "prefill": 0.0}


def test_what_is_asked_of_predictions() -> None:
    plan = ValuePlan(spec=SPEC, loads=(0.9, 0.3), estimators=("ema", "ema"), sigmas=(1.0,))
    assert plan.loads == (0.3, 0.9)
    assert plan.predictors == [noisy(0.0), noisy(1.0), "ema"]
    assert ValuePlan(spec=SPEC.changed(shed=shed_rules("defer=5s"))).admits_by_estimates
    assert not ValuePlan(spec=SPEC.changed(shed=shed_rules("requests=5"))).admits_by_estimates
    for wrong, message in (
        ({"loads": (0.3, 0.3)}, "each load once"), ({"loads": (0.0,)}, "a load must be"),
        ({"margin": 0.0}, "the margin is a share"), ({"policies": ("priority",)}, "heeds no prediction"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            ValuePlan(spec=SPEC, **wrong)
    with pytest.raises(InputError, match="leave the barrier out"):
        ValuePlan(spec=ScenarioSpec.of({"workload": WORK, "profile": "p.json", "barrier": {}}))


def test_requests_that_come_all_at_once_have_no_rate() -> None:
    trace = simulate(Scenario(profile=profile()), workload([0.0, 0.0], [3, 3]))
    with pytest.raises(InputError, match="these requests have no rate"):
        value(trace, profile(), policies="sjf", loads=[0.9], replications=1, jobs=1)


def test_an_interval_of_a_day_rests_on_both_kinds_of_resamples() -> None:
    kinds = ["recorded", "local", "local", "circular", "circular"]
    assert over_draws(kinds, np.array([0.0, 0.0, 0.0, -1.0, 1.0])).high > 1
    assert math.isnan(over_draws(kinds, np.array([NAN, 0.0, 1.0, -1.0, 1.0])).value)


@pytest.fixture(scope="module")
def answers() -> Answers:
    """Two draws at one load; ``ema`` gains in one and loses in the other, and the P99 and the worst tenant differ."""
    plan = ValuePlan(
        spec=SPEC, policies=("sjf",), estimators=("ema",), sigmas=(1.0, 2.0), loads=(0.3, 0.9, 1.1), limits=("slots",),
        replications=2,
    )  # fmt: skip

    def rows(means: tuple[float, float], error: float) -> list[dict[str, Any]]:
        return [
            {"e2e_mean_s": mean, "e2e_p99_s": mean**2, "slowdown_mean": 1.0, "tenant_a_slowdown_mean": mean**4,
             "log_error": error}
            for mean in means
        ]  # fmt: skip

    made = {
        FIFO: rows((10.0, 10.0), 0.0),
        LABELS: rows((10.0, 10.0), 0.0),
        Setting("sjf", noisy(0.0)): rows((5.0, 5.0), 0.0),
        Setting("sjf", noisy(1.0)): rows((8.0, 8.0), 0.8),
        Setting("sjf", noisy(2.0)): rows((12.0, 12.0), 1.6),
        Setting("fifo", noisy(1.0)): rows((10.0, 10.0), 0.8),
        SJF: rows((5.0, 12.0), 0.4),
    }
    calm = {setting: rows((10.0, 10.0), 0.1) for setting in made}
    cells = {Cell("slots", 0.3): calm, Cell("slots", 0.9): made, Cell("slots", 1.1): made}
    engines: Any = {"slots": Engine("slots", {}, 4.0, {"slots": 0.2})}
    return Answers(Valuation(plan, LoadAxis("rate", 1.0), 3.0, engines, [], cells))


def test_the_tables_of_a_valuation_tell_each_number_once_and_in_its_column(answers: Answers) -> None:
    result = ValueResult(answers.valuation, {})
    _, rows = result.table()
    assert [row[1:3] for row in rows] == [
        ["sjf", "up to 0.3"], ["sjf", "0.9"], ["sjf", "1.1"], [LABELS.policy, "0.9"], [LABELS.policy, "1.1"],
    ]  # fmt: skip
    assert rows[1][4:6] == ["-75 %", "-94 %"]  # of the square and of its square, of a half
    _, told = result.of_estimators("slots")
    assert [(cells[0], cells[2]) for cells in told] == [
        (noisy(0.0), "0.00"), ("ema", "0.40"), (noisy(1.0), "0.80"), (noisy(2.0), "1.60"),
    ]  # fmt: skip
    assert [cells[1] for cells in told] == ["blurred, sigma 0", "no", "blurred, sigma 1", "blurred, sigma 2"]
    assert told[2][6:8] == ["+60.0 %", "+0.0 %"]  # all of it through a wrong order


def test_a_row_has_a_sigma_where_predictions_are_used_and_no_like_of_one(answers: Answers) -> None:
    cell = Cell("slots", 0.9)
    row = answers.row(cell, Setting("sjf", noisy(1.0)))
    assert (row["sigma"], row["p99"]) == (1.0, 64.0)
    assert math.isnan(row["like_sigma"])
    assert math.isnan(answers.row(cell, Setting("fifo", noisy(1.0)))["sigma"])
    pressed = _pressed(SPEC, answers.valuation.axis, Engine("kv", {"kv_blocks": 9}, 4.0, {}), 0.5)
    assert (pressed.fairness, pressed.estimation, pressed.engine) == (True, True, {"kv_blocks": 9})
    assert answers.valuation.rate(cell) == pytest.approx(0.9 * 4.0)  # turns of sessions and all
    assert needed("tenant_a_slowdown_mean")
    assert not needed("tenant_a_e2e_mean_s")


def test_a_doubtful_gain_is_not_worth_it(answers: Answers) -> None:
    assert answers.change(Cell("slots", 0.9), SJF).value < 0
    assert conclusions(answers)[0].startswith("Worth it: not shown.")
