"""The rules of the search for a capacity, of cases known by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from driftsim.comparison.plan import Setting
from driftsim.errors import InputError
from driftsim.pressing.loads import LoadAxis
from driftsim.simulation.limits import SHARES
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sizing.answers import answers_of
from driftsim.sizing.curves import Curve, change, without_each
from driftsim.sizing.loads import GUESS, Bounds, bounds_of
from driftsim.sizing.plan import Case, SizingPlan, distinct_settings
from driftsim.sizing.result import CapacityResult
from driftsim.sizing.run import Found, Sizing, _Rounds, p99_of
from driftsim.sizing.search import Search
from driftsim.sizing.wording import _replications, _why
from driftsim.slo import slo_rules
from driftsim.statistics import student_quantile
from driftsim.workloads.generated import Tenant, WorkloadSpec
from tests.strategies import engine, profile

NAN = math.nan
FIFO, SJF = Setting("fifo", "static"), Setting("sjf", "ema")
WORK = WorkloadSpec(kind="poisson", rate=1.0, requests=40, prompt_tokens=8, output_tokens=20)
SPEC = ScenarioSpec(workload=WORK, profile="p.json")
ONE = profile(engine(max_num_seqs=1))  # 20 tokens take 0.2 s


# -- the search for a capacity


def search(held: dict[float, bool], whole: bool = False, lowest: float = 0.01, highest: float = 100.0) -> Search:
    return Search(1.0, lowest, highest, 0.01, whole, held)


def test_each_step_is_the_square_of_the_one_before() -> None:
    one = search({})
    for load in (1.0, 1.3, 2.197, 6.275):
        assert one.next() == load
        one.tell(load, True)
    assert search({1.0: False}).next() == 0.7692
    assert search({1.0: True}, whole=True).next() == 2.0
    assert search({2.0: False}, whole=True, lowest=1.0).next() == 1.0
    assert search({1.0: True, 2.0: False, 3.0: True, 4.0: True}).again == [3.0, 4.0]


@pytest.mark.parametrize(
    ("lowest", "highest", "around"),
    [
        (0.01, 100.0, [0.6703, 0.7788, 0.8869, 1.127, 1.284, 1.492]),  # exp(-0.4) to exp(0.4)
        (0.7, 1.3, [0.7, 0.7788, 0.8869, 1.127, 1.284]),  # 1.3 is near 1.284
    ],
)
def test_a_curve_is_completed_on_both_sides_of_the_capacity(lowest: float, highest: float, around: list[float]) -> None:
    one = Search(0.3, lowest, highest, 0.01, held={1.0: True, 1.01: False})
    assert one.around() == around
    assert search({1.0: True}).around() == []


def test_whole_loads_are_new_if_they_are_other_numbers() -> None:
    assert search({50.0: True, 51.0: False}, whole=True, highest=52.0).around() == [34.0, 39.0, 44.0, 52.0]


def test_a_curve_grows_beyond_its_ends_up_to_the_bounds() -> None:
    one = search({1.0: True, 2.0: False}, highest=2.0)
    assert (one.beyond(False), one.beyond(True)) == ([0.7143], [])
    assert search({1.0: True, 2.0: False}).beyond(True) == [2.8]


# -- what is asked of a capacity


def test_a_policy_of_tiers_is_searched_once() -> None:
    assert len(distinct_settings(["priority"], ["static", "ema"])) == 1


def test_an_engine_is_held_against_its_own_scheduler_on_the_first_engine() -> None:
    plan = SizingPlan(spec=SPEC, settings=(FIFO, SJF), axes={"engine.max_num_seqs": (4, 8)})
    assert plan.cases == [
        Case(FIFO), Case(FIFO, "engine.max_num_seqs", 8), Case(SJF), Case(SJF, "engine.max_num_seqs", 8),
    ]  # fmt: skip
    assert [plan.base_of(case) for case in plan.cases] == [Case(FIFO), Case(FIFO), Case(FIFO), Case(SJF)]
    named = SizingPlan(spec=SPEC.changed(engine={"max_num_seqs": 2}), axes=plan.axes)
    assert [named.spec_of(case).engine["max_num_seqs"] for case in named.cases] == [4, 8]


def test_the_ends_of_what_may_be_asked() -> None:
    assert SizingPlan(spec=SPEC, tolerance=1.0).tolerance == 1.0
    for wrong in ({"lowest": 0.0}, {"lowest": True}, {"tolerance": True}, {"axes": {"engine.kv_blocks": (9, 9)}}):
        with pytest.raises(InputError):
            SizingPlan(spec=SPEC, **wrong)


# -- where a search begins


def nowhere(path: str) -> Any:
    raise AssertionError(path)


def test_users_are_whole_numbers_within_the_bounds_and_begin_at_the_slots() -> None:
    closed = WORK.changed(kind="closed", rate=None, users=1)
    axis = LoadAxis("users", NAN)

    def bounds(spec: ScenarioSpec, lowest: float | None = None, highest: float | None = None) -> list[float]:
        one = bounds_of(axis, spec, profile(engine(max_num_seqs=3)), nowhere, lowest, highest)
        return [one.first, one.lowest, one.highest]

    spec = SPEC.changed(workload=closed)
    assert bounds(spec) == [3.0, 1.0, 4.0]  # 40 requests, 10 of each user
    assert bounds(spec, 1.5, 7.9) == [3.0, 2.0, 7.0]
    assert bounds(spec, highest=2.0) == [2.0, 1.0, 2.0]
    assert bounds(spec.changed(max_in_flight=2)) == [2.0, 1.0, 4.0]
    with pytest.raises(InputError, match="below the highest"):
        bounds(spec, 2.0, 2.0)


def test_a_factor_begins_below_what_is_served_of_a_backlog() -> None:
    mixed = WorkloadSpec(tenants=(Tenant(name="a", rate=2.0, requests=40),), prompt_tokens=8, output_tokens=20)
    one = bounds_of(LoadAxis("scale", 2.0), SPEC.changed(workload=mixed), ONE, nowhere, None, None)
    assert one.backlog == pytest.approx(5.0)
    assert one.first == pytest.approx(GUESS * 5.0 / 2.0)


# -- the runs of a search


def found(held: dict[float, bool], rows: dict[float, list[dict[str, Any]]] | None = None) -> Found:
    shares = {f"{name}_share": 0.25 for name in SHARES}
    return Found(Case(FIFO), search(held), Bounds(1.0, 0.01, 100.0, 5.0), rows or {}, shares)


def test_what_binds_is_asked_where_it_shows() -> None:
    assert found({1.0: True, 1.05: False, 1.1: False, 1.3: False}).beyond == 1.1
    assert found({1.0: True, 1.02: False, 1.05: False}).beyond == 1.05
    assert found({1.0: False, 0.5: False, 0.1: False}).beyond == 0.1


def test_a_draw_of_nobody_is_left_out_and_loads_ascend() -> None:
    rows = {2.0: [{"attainment": 0.5}, {"attainment": 0.5}], 1.0: [{"attainment": 0.75}, {}]}
    curve = found({}, rows).curve(["drawn", "drawn"], 0.9)
    assert curve.loads.tolist() == [1.0, 2.0]
    assert curve.counted.tolist() == [[0.75, 0.5]]
    assert p99_of([{"e2e_p99_s": 1.0}, {"e2e_p99_s": NAN}, {"e2e_p99_s": 3.0}], "e2e") == 2.0


class Made:
    """Runs whose attainment is a function of load and replication."""

    def __init__(self, attainment: Callable[[float, int], float]) -> None:
        self.attainment, self.asked = attainment, list[ScenarioSpec]()

    def rows(self, specs: Sequence[ScenarioSpec]) -> list[dict[str, Any]]:
        self.asked += specs
        return [self._row(spec) for spec in specs]

    def _row(self, spec: ScenarioSpec) -> dict[str, Any]:
        assert spec.workload is not None
        shares = {f"{name}_share": 0.1 * spec.replication for name in SHARES}
        return {"attainment": self.attainment(float(spec.workload.rate or 0.0), spec.replication), **shares}

    def profile(self, spec: ScenarioSpec) -> Any:
        return profile(engine(**{"max_num_seqs": 1, **spec.engine}))

    recorded = staticmethod(nowhere)


def searched(attainment: Callable[[float, int], float], **asked: Any) -> tuple[list[Found], Made]:
    plan = SizingPlan(spec=SPEC, target=0.9, **{"replications": 3, "lowest": 0.01, "highest": 100.0, **asked})
    runs = Made(attainment)
    rounds = _Rounds(plan, LoadAxis("rate", 1.0), {case: plan.spec_of(case) for case in plan.cases}, runs)  # type: ignore[arg-type]
    rounds.run()
    return list(rounds.found.values()), runs


def test_a_load_that_attains_the_target_holds_and_what_binds_is_of_several_draws() -> None:
    (one,), runs = searched(lambda load, _: 0.9 if load <= 2 else 0.5)
    assert one.load == pytest.approx(2.0, rel=0.01)
    assert [spec.replication for spec in runs.asked if spec.limits] == [0, 1, 2]
    assert one.shares["slots_share"] == pytest.approx(0.1)
    with pytest.raises(InputError, match="no measured request has an SLO"):
        searched(lambda load, _: NAN)


def test_a_curve_grows_at_the_end_that_is_short() -> None:
    misses = (0.01, 0.05, 0.24)  # of a draw each, at a load of 1: their interval is wide below
    (one,), _ = searched(lambda load, draw: 1 - (load * misses[draw] if load <= 1 else 0.9))
    (again,), _ = searched(lambda load, _: 1.0 - 0.9 * (load > 1))  # no draw differs from another
    assert max(one.search.held) == max(again.search.held)
    assert min(one.search.held) == pytest.approx(min(again.search.held) / 1.4**4, rel=0.01)


def test_each_engine_has_bounds_of_its_own() -> None:
    small, large = searched(
        lambda load, _: float(load <= 1), axes={"engine.max_num_seqs": (1, 4)}, lowest=None, highest=None
    )[0]
    assert large.bounds.backlog == pytest.approx(4 * small.bounds.backlog, rel=0.05)


# -- its interval

LOADS = np.array([1.0, 2.0])
STEADY = np.array([[1.0, 0.8]] * 2)  # crosses 0.9 in the middle
EARLY = np.array([[1.0, 0.8], [0.95, 0.8]])  # the second one at a third


def day(local: np.ndarray, circular: np.ndarray) -> Curve:
    return Curve(LOADS, 0.9, {"recorded": STEADY[:1], "local": local, "circular": circular})


def test_two_resamples_of_a_kind_are_enough_and_the_wider_kind_counts() -> None:
    curve, half = day(STEADY, EARLY), student_quantile(1) * math.log(2) / 6 / math.sqrt(2)
    assert curve.counted is curve.attained["local"]
    assert np.log(curve.interval()) == pytest.approx([math.log(2) / 2, math.log(2) / 2 - half, math.log(2) / 2 + half])
    low, _ = curve.ends()
    assert low.tolist() == pytest.approx([1 - student_quantile(1) * 0.05 / math.sqrt(2), 0.8])
    moved = change(curve, day(STEADY, STEADY))
    assert np.log1p(moved) == pytest.approx([0.0, -half, half])
    assert without_each(np.array([[1.0], [2.0], [6.0]])).tolist() == [[4.0], [3.5], [1.5]]


@pytest.mark.parametrize(
    ("local", "short"),
    [
        ([[0.95, 0.5], [0.8, 0.4]], (True, False)),
        ([[1.0, 0.95], [1.0, 0.5]], (False, True)),
        ([[1.0, 0.5], [1.0, 0.5]], (False, False)),
    ],
)
def test_a_curve_is_short_where_resamples_cross_outside(local: list[list[float]], short: tuple[bool, bool]) -> None:
    assert day(np.array(local), STEADY).short() == short


# -- what a capacity tells


def sizing_of(rows: dict[float, list[dict[str, Any]]], replications: int) -> Sizing:
    """A recorded day and its resamples, at twice the requests a second that a load is."""
    kinds = ["recorded", *["local"] * (replications - 1), *["circular"] * (replications - 1)]
    plan: Any = SimpleNamespace(
        draws=[(kind, {}) for kind in kinds], target=0.9, replications=replications, axes={},
        base_of=lambda case: Case(FIFO), spec=SimpleNamespace(workload=None, trace="t"),
    )  # fmt: skip
    held = {load: bool(np.mean([row["attainment"] for row in own]) >= 0.9) for load, own in rows.items()}
    return Sizing(plan, LoadAxis("scale", 2.0), [found(held, rows)])


def test_loads_have_rates_and_the_latencies_of_the_resamples_that_count() -> None:
    times = (1.0, 2.0, 3.0, 10.0, 20.0)
    rows = {load: [{"attainment": share, "e2e_p99_s": time} for time in times] for load, share in ((1.0, 1), (2.0, 0))}
    sizing = sizing_of(rows, 3)
    (answer,) = answers_of(sizing)
    told = answer.load_rows()
    assert [row["rate"] for row in told] == [2.0, 4.0]
    assert [row["e2e_p99_s"] for row in told] == [2.5, 2.5]  # of the two local ones
    assert _replications(sizing) == "2 resamples of the recorded day"
    assert _replications(sizing_of(rows, 2)) == "the day as recorded"
    _, (cells,) = CapacityResult(sizing, slo_rules("itl=50ms,e2e=2s"), {}).table()
    assert cells[-2:] == ["2.5", "the slots"]  # a run tells no P99 of the gaps between tokens
    answer.found.shares["waiting_share"] = 0.5
    row = answer.row()
    assert (row["load"], row["binds_at"], row["rate"]) == (1.0, 2.0, 2.0)
    assert cells[4] == "2"  # requests a second at a load of 1
    assert "all are taken in 50 % of the time in which a request waits" in _why(answer)
