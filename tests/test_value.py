"""What predictions are worth: the analytic gain of a known queue, a brute-force recomputation, and what a user sees."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import driftsim as ds
from driftsim.comparison.plan import Setting
from driftsim.scheduling.shedding import shed_rules
from driftsim.statistics import Interval
from driftsim.valuing import value
from driftsim.workloads.generated import Tenant, WorkloadSpec
from driftsim.workloads.lengths import Lengths
from driftsim.worth.answers import Answers, beyond
from driftsim.worth.engines import Bench
from driftsim.worth.plan import FIFO, LIMITS, noisy
from driftsim.worth.run import Cell
from tests.commands import driftsim
from tests.strategies import engine, profile

STEP_S = 0.010
OUTPUTS = Lengths.of({"kind": "geometric", "mean": 20, "high": 200})
WORK = WorkloadSpec(kind="poisson", rate=1.0, requests=120, prompt_tokens=8, output_tokens=OUTPUTS)
SMALL = profile(engine(max_num_seqs=2))
ONE = profile(engine(max_num_seqs=1))
QUICK: dict[str, Any] = {
    "policies": "sjf", "estimators": "static", "sigmas": [1], "loads": [0.9], "limits": ["slots"], "replications": 3,
    "jobs": 1,
}  # fmt: skip


# -- known truths


@cache
def sizes() -> np.ndarray:
    """Services of ``OUTPUTS`` as they occur, in seconds: a step for each token."""
    drawn = ds.Workload.generated(WORK.changed(requests=30_000), 77)
    services: np.ndarray = STEP_S * drawn.table["output_tokens"].to_numpy(dtype=float)
    return services


def analytic(rate: float, sigma: float) -> float:
    """The relative change of the mean time in M/G/1 from FIFO to SJF by sizes that are blurred by ``sigma``.

    FIFO: Pollaczek and Khinchine. Nonpreemptive SJF by predicted sizes y is a queue with priorities (Cobham 1954;
    Mitzenmacher 2019): the mean wait of y is W0 / ((1 - rho(<y)) (1 - rho(<=y))), rho of the true sizes.
    """
    truth = sizes()
    noise = np.exp(sigma * np.random.default_rng(5).standard_normal(len(truth)))
    said = np.round(truth / STEP_S * noise)
    rest = rate * float((truth**2).mean()) / 2
    load = rate * float(truth.mean())
    fifo = rest / (1 - load) + truth.mean()
    order = np.argsort(said, kind="stable")
    upto = np.cumsum(truth[order]) * rate / len(truth)
    first = np.searchsorted(said[order], said[order], side="left")
    last = np.searchsorted(said[order], said[order], side="right") - 1
    below = np.concatenate([[0.0], upto])[first]
    wait = rest / ((1 - below) * (1 - upto[last]))
    return float((wait.mean() + truth.mean()) / fifo - 1)


class Blind:
    """Estimates that have nothing to do with lengths."""

    def __init__(self, admission: ds.Admission) -> None:
        pass

    def estimate(self, request: ds.Request, category: str, now: float) -> ds.Estimate:
        drawn = hashlib.sha256(f"{request.id} {request.arrival}".encode()).digest()
        return ds.Estimate(1 + int.from_bytes(drawn[:4]) % 1000, 1.0)

    def observe(self, job: ds.Job, output_length: int, censored: bool, now: float) -> None:
        pass


def m_g_1(requests: int, replications: int) -> ds.ValueResult:
    more = {"sigmas": [1, 10], "loads": [0.02, 0.8], "estimators": Blind, "replications": replications}
    return value(WORK.changed(requests=requests), ONE, **QUICK | more)


@pytest.fixture(scope="module")
def queue() -> ds.ValueResult:
    return m_g_1(1200, 6)


def check_m_g_1(found: ds.ValueResult, tolerance: float) -> None:
    cell = Cell("slots", 0.8)
    rate = found.valuation.rate(cell)
    for sigma in (0.0, 1.0, 10.0):
        truth = analytic(rate, sigma)
        change = found.answers.change(cell, Setting("sjf", noisy(sigma)))
        assert change.low <= truth <= change.high, (sigma, truth, change)
        assert change.value == pytest.approx(truth, abs=tolerance)


def test_the_gain_of_m_g_1_is_the_analytic_one_at_any_quality(queue: ds.ValueResult) -> None:
    check_m_g_1(queue, 0.06)


@pytest.mark.nightly
def test_the_gain_of_m_g_1_is_the_analytic_one_in_long_runs() -> None:
    check_m_g_1(m_g_1(20_000, 10), 0.02)


def test_useless_predictions_leave_the_mean_as_it_is_under_fifo(queue: ds.ValueResult) -> None:
    """Whatever order does not look at sizes: Kleinrock's conservation law."""
    useless = queue.answers.change(Cell("slots", 0.8), Setting("sjf", queue.valuation.plan.estimators[0]))
    perfect = queue.answers.change(Cell("slots", 0.8), Setting("sjf", noisy(0.0)))
    assert perfect.high < -0.2
    assert useless.low <= 0 <= useless.high


def test_at_a_very_low_load_nothing_matters(queue: ds.ValueResult) -> None:
    assert queue.answers.calm("slots", "sjf") == 0.02
    assert "Up to a load of 0.02 no prediction changes the mean by more than 5 %" in queue.answer()[1]


def test_a_load_is_calm_only_if_every_lower_one_is(queue: ds.ValueResult) -> None:
    class Widths(Answers):
        widths: dict[float, float]

        def curve(self, cell: Cell, policy: str, measure: str = "mean", base: Setting = FIFO) -> list[Interval]:
            return [Interval(0.0, -self.widths[cell.load], self.widths[cell.load])]

    for low, high, expected in (
        (0.01, 0.01, 0.8),
        (0.01, 0.2, 0.02),
        (0.2, 0.01, math.nan),
        (math.nan, 0.01, math.nan),
    ):
        made = Widths(queue.valuation)
        object.__setattr__(made, "widths", {0.02: low, 0.8: high})
        assert made.calm("slots", "sjf") == pytest.approx(expected, nan_ok=True)


def test_the_error_of_noise_is_its_mean_absolute_logarithm(queue: ds.ValueResult) -> None:
    error = queue.answers.error(Cell("slots", 0.8), Setting("sjf", noisy(1.0)))
    assert error == pytest.approx(math.sqrt(2 / math.pi), rel=0.05)  # but for rounding to whole tokens


# -- by brute force

TWO = WorkloadSpec(
    tenants=(
        Tenant(name="a", rate=1.0, requests=60, output_tokens=OUTPUTS),
        Tenant(name="b", rate=1.0, requests=60, output_tokens=5),
    ),
    prompt_tokens=8, output_tokens=5,
)  # fmt: skip


def measured(spec: WorkloadSpec, number: int, policy: str, estimator: str) -> dict[str, float]:
    """The measures of one run of one slot, by nothing but ``ds.simulate`` and pandas."""
    run = ds.simulate(ds.Workload.generated(spec, number), policy=policy, estimator=estimator, profile=ONE, seed=number)
    rows = run.requests.sort_values("arrival_s", kind="stable").iloc[12:-6]  # a tenth, and a twentieth
    times = rows["finish_s"] - rows["arrival_s"]
    slowdowns = times / (STEP_S * rows["output_tokens"].astype(float))
    ratios = rows["estimate"].clip(lower=1).astype(float) / rows["output_tokens"].astype(float)
    return {
        "mean": times.mean(), "p99": float(np.percentile(times, 99)),
        "worst": slowdowns.groupby(rows["tenant"]).mean().max(), "log_error": float(np.abs(np.log(ratios)).mean()),
    }  # fmt: skip


def test_a_brute_force_run_confirms_every_number() -> None:
    found = value(TWO, ONE, **QUICK)
    for row in found.frame().to_dict("records"):
        load = row["rate"] / 2
        pressed = TWO.changed(tenants=tuple(one.changed(rate=load * (one.rate or 0.0)) for one in TWO.tenants))
        own = [measured(pressed, number, row["policy"], row["estimator"]) for number in range(3)]
        fifo = [measured(pressed, number, "fifo", "static") for number in range(3)]
        for name in ("mean", "p99", "worst"):
            assert row[name] == pytest.approx(np.mean([one[name] for one in own]))
            logs = np.array([math.log(one[name] / other[name]) for one, other in zip(own, fifo, strict=True)])
            half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
            ends = [math.expm1(logs.mean() + part) for part in (0, -half, half)]
            assert [row[f"{name}_change{end}"] for end in ("", "_low", "_high")] == pytest.approx(ends)
        if row["policy"] == "sjf":
            assert row["log_error"] == pytest.approx(np.mean([one["log_error"] for one in own]))


def test_the_load_is_a_share_of_what_a_backlog_is_served_at() -> None:
    """While somebody waits, each of two slots gives a token a step."""
    found = value(WORK, SMALL, **QUICK)
    mean = float(ds.Workload.generated(WORK).table["output_tokens"].mean())
    assert found.frame()["rate"].iloc[0] == pytest.approx(0.9 * 2 / (STEP_S * mean), rel=0.01)


def test_turns_of_sessions_count_as_load() -> None:
    session = ds.Session(kind="chat", turns=4, gap_s=ds.Seconds(kind="constant", value=0.1), added_tokens=4)
    chats = WorkloadSpec(kind="poisson", rate=1.0, requests=40, prompt_tokens=8, output_tokens=20, session=session)
    found = value(chats, SMALL, **QUICK | {"replications": 1})
    rate = found.frame()["rate"].iloc[0]
    pressed = found.valuation.rows[Cell("slots", 0.9)][FIFO][0]
    assert rate == pytest.approx(0.9 * found.valuation.engines["slots"].backlog, rel=1e-3)
    assert pressed["offered"] == 136  # of 160 turns, but for the first tenth and the last twentieth
    assert pressed["offered"] / pressed["makespan_s"] == pytest.approx(rate, rel=0.35)


def test_no_noise_is_the_oracle_bit_for_bit() -> None:
    found = value(WORK, SMALL, **QUICK | {"policies": ["sjf", "cost-sjf", "boost"], "estimators": "oracle"})
    frame = found.frame().drop(columns=["estimator", "sigma", "like_sigma"])
    for policy in ("sjf", "cost-sjf", "boost"):
        own = found.frame()["policy"] == policy
        one, other = (
            frame[own & (found.frame()["estimator"] == name)].reset_index(drop=True)
            for name in ("noisy?sigma=0", "oracle")
        )
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_the_same_question_has_the_same_answer() -> None:
    one, other = (value(WORK, SMALL, **QUICK) for _ in range(2))
    assert json.dumps(one.document()) == json.dumps(other.document())
    assert str(one) == str(other)


def test_an_estimator_lies_where_noise_of_the_same_effect_does() -> None:
    """A blurred truth among the estimators finds its own sigma between those of the curve."""
    found = value(
        WORK.changed(requests=1000), ONE,
        **QUICK | {"sigmas": [0.5, 1, 1.5, 2], "estimators": ["noisy?sigma=1.25", "static"], "replications": 4},
    )  # fmt: skip
    cell = Cell("slots", 0.9)
    assert found.answers.like_sigma(cell, Setting("sjf", "noisy?sigma=1.25")) == pytest.approx(1.25, abs=0.15)


# -- where FIFO wins

ends = st.lists(st.floats(-1, 1, allow_nan=False), min_size=3, max_size=3).map(sorted)


@given(st.lists(ends, min_size=2, max_size=6))
def test_the_sigma_beyond_which_a_rival_wins_is_the_first_that_loses(changes: list[list[float]]) -> None:
    sigmas = [float(place) for place in range(len(changes))]
    intervals = [Interval(middle, low, high) for low, middle, high in changes]
    state, found = beyond(sigmas, intervals)
    lost = [sigma for sigma, one in zip(sigmas, intervals, strict=True) if one.value > 0]
    if not any(one.value for one in intervals):
        assert state == "alike"
    elif not lost:
        assert (state, math.isnan(found.value)) == ("never", True)
    elif lost[0] == 0:
        assert (state, math.isnan(found.value)) == ("at once", True)
    else:
        assert state == "found"
        assert lost[0] - 1 <= found.value <= lost[0]
        for end, of in ((found.low, "high"), (found.high, "low")):  # where that end of the changes crosses 0
            crossed = [sigma for sigma, one in zip(sigmas, intervals, strict=True) if getattr(one, of) > 0]
            assert math.isnan(end) == (not crossed)
            assert not crossed or max(0.0, crossed[0] - 1) <= end <= crossed[0]


def test_the_interval_of_the_sigma_is_wider_than_that_of_the_change_alone() -> None:
    changes = [Interval(-0.2, -0.3, 0.1), Interval(-0.1, -0.2, 0.2), Interval(0.1, 0.05, 0.2)]
    assert beyond([0.0, 1.0, 2.0], changes) == ("found", Interval(1.5, 0.0, 1.8))


def test_the_words_say_never_at_once_and_from_where() -> None:
    found = value(WORK, ONE, **QUICK)
    rows = {(row["measure"], row["rival"]): row for row in found.beyond().to_dict("records")}
    assert rows["mean", "fifo"]["state"] == "never"
    assert rows["p99", "fifo"]["state"] == "at once"
    assert "never lower up to the highest sigma tried, 1" in found.answer()[1]
    assert "never up to 1" in str(found)


# -- regrets


def test_regrets_add_up_and_none_is_of_admission_where_estimates_turn_nobody_away() -> None:
    found = value(WORK, SMALL, **QUICK | {"policies": ["sjf", "boost?gamma=50"]})  # the second is all but FIFO
    rows = found.frame().dropna(subset=["total_regret"])
    parts = [np.log1p(rows[f"{name}_regret"]) for name in ("order", "admission", "policy")]
    assert np.allclose(sum(parts), np.log1p(rows["total_regret"]))
    assert (rows["admission_regret"] == 0).all()
    assert (rows.loc[rows["sigma"] == 0, "order_regret"] == 0).all()
    assert (rows.loc[rows["policy"] == rows["best_policy"], "policy_regret"] == 0).all()
    assert (rows["policy_regret"] >= 0).all()
    assert (rows["policy_regret"] > 0).any()  # of the policy that is not the best with the truth
    assert any("who is let in does not depend on estimates" in one for one in found.warnings())


def test_where_estimates_turn_away_their_regret_is_what_they_change_under_fifo() -> None:
    spec = ds.ScenarioSpec(workload=WORK, profile="given", shed=shed_rules("tokens=200"))
    found = value(spec, SMALL, **QUICK)
    cell, truth = Cell("slots", 0.9), Setting("fifo", noisy(0.0))
    regret = found.answers.regret(cell, Setting("sjf", "static"))
    own = found.answers.logs(cell, Setting("fifo", "static"), truth, "mean")
    assert regret.admission.value == pytest.approx(own.mean())
    assert regret.admission.value != 0
    assert regret.order.value + regret.admission.value + regret.policy.value == pytest.approx(regret.total.value)
    by_requests = ds.ScenarioSpec(workload=WORK, profile="given", shed=shed_rules("requests=9"))
    counted = value(by_requests, SMALL, **QUICK)
    without = value(WORK, SMALL, **QUICK)  # what an engine serves of a backlog has nothing to do with limits of a queue
    assert counted.valuation.engines["slots"] == without.valuation.engines["slots"]
    assert counted.answers.regret(cell, Setting("sjf", "static")).admission.value == 0


# -- what binds


@pytest.fixture(scope="module")
def bench(shipped: Path) -> Bench:
    trace = ds.read(shipped)
    spec = ds.ScenarioSpec(trace=str(shipped))
    return Bench(spec, ds.calibrate(trace), ds.replay(trace))


@pytest.mark.parametrize("limit", LIMITS)
def test_twice_of_what_binds_serves_a_backlog_faster_and_twice_of_nothing_else_does_more(
    bench: Bench, limit: Any
) -> None:
    made = bench.engine(limit)
    assert made is not None
    keys = {"slots": "max_num_seqs", "kv": "kv_blocks", "prefill": "max_num_batched_tokens"}
    settings = bench.own.changed(**made.changes)

    def rate(**changes: int) -> float:
        own = bench.profile.changed(engine=settings.changed(**changes))
        return ds.backlog_rate(bench.sample, own)

    base = rate()
    budget = settings.max_num_batched_tokens
    more = {name: 2 * getattr(settings, key) for name, key in keys.items()}
    more["slots"] = min(more["slots"], budget)
    gains = {name: rate(**{keys[name]: amount}) / base - 1 for name, amount in more.items()}
    assert max(gains, key=lambda name: gains[name]) == limit
    assert gains[limit] >= 0.05
    assert base < made.backlog < 1.1 * base  # in whose end slots are empty


def test_what_gains_less_than_another_limit_does_not_bind(bench: Bench) -> None:
    class Told(Bench):
        def gains(self, changes: dict[str, int]) -> dict[Any, float]:
            slots = self.value("slots", changes)
            return {"slots": 0.2, "kv": 0.3 if slots == self.own.max_num_seqs else 0.1, "prefill": 0.0}

    made = Told(bench.spec, bench.profile, bench.sample).engine("slots")
    assert made is not None
    assert made.changes["max_num_seqs"] == bench.own.max_num_seqs // 2


def test_runs_are_of_the_engine_on_which_the_limit_binds() -> None:
    eight = profile(engine(max_num_seqs=8))
    found = value(WORK, eight, **QUICK | {"limits": ["kv"], "replications": 1})
    made = found.valuation.engines["kv"]
    assert made.changes["kv_blocks"] < eight.engine.kv_blocks
    own = eight.changed(engine=eight.engine.changed(**made.changes))
    rate = float(found.frame()["rate"].iloc[0])
    run = ds.simulate(ds.Workload.generated(WORK.changed(rate=rate)), policy="fifo", profile=own)
    rows = run.requests.sort_values("arrival_s", kind="stable").iloc[12:-6]
    assert found.frame()["mean"].iloc[0] == pytest.approx((rows["finish_s"] - rows["arrival_s"]).mean())


def test_a_limit_that_never_binds_is_left_out_and_said() -> None:
    short = WORK.changed(prompt_tokens=1)  # each fits what its slot needs of the budget anyway
    found = value(short, SMALL, **QUICK | {"limits": ["slots", "prefill"], "replications": 1})
    assert found.valuation.missing == ["prefill"]
    assert any("can be made to bind on no variant" in one for one in found.warnings())
    with pytest.raises(ds.InputError, match="on no variant of this engine"):
        value(short, SMALL, **QUICK | {"limits": ["prefill"]})


# -- what is asked


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"policies": "fifo"}, "heeds no prediction"),
        ({"policies": "priority"}, "heeds no prediction"),
        ({"policies": "lifo"}, "unknown policy"),
        ({"policies": []}, "nothing to feed"),
        ({"estimators": "guess"}, "unknown estimator"),
        ({"sigmas": [-1]}, "a sigma must be 0 to 10"),
        ({"sigmas": [math.nan]}, "a sigma must be"),
        ({"sigmas": [1, 1]}, "each sigma once"),
        ({"sigmas": []}, "there is no sigma"),
        ({"loads": [0]}, "a load must be"),
        ({"loads": []}, "there is no load"),
        ({"limits": ["gpu"]}, "unknown limit 'gpu'"),
        ({"limits": []}, "each once"),
        ({"margin": 0}, "the margin is a share"),
        ({"replications": 0}, "at least 1"),
        ({"warm_up": 0.6, "cool_down": 0.5}, "leave no request"),
    ],
)
def test_what_cannot_be_asked_is_one_line(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ds.InputError, match=message) as error:
        value(WORK, SMALL, **QUICK | more)
    assert "\n" not in str(error.value)


def test_what_has_no_rate_is_refused() -> None:
    closed = WorkloadSpec(kind="closed", users=2, requests=40, prompt_tokens=8, output_tokens=8)
    with pytest.raises(ds.InputError, match="these requests have no rate"):
        value(closed, SMALL, **QUICK)
    with pytest.raises(ds.InputError, match="how its requests should arrive"):
        value("traces/smollm2-cpu-backlog", **QUICK)
    with pytest.raises(ds.InputError, match="give one"):
        value(WORK, **QUICK)
    with pytest.raises(ds.InputError, match="leave the barrier out"):
        value(ds.ScenarioSpec(workload=WORK, profile="given", barrier=ds.Barrier()), SMALL, **QUICK)


# -- runs


def test_a_valuation_goes_on_where_it_was_killed_and_comes_to_the_same(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, total: int) -> None:
        assert done <= total
        if done >= 4:
            raise KilledError

    told: list[tuple[int, int]] = []
    ask: Callable[..., ds.ValueResult] = lambda **more: value(WORK, SMALL, **QUICK | more)  # noqa: E731
    whole = ask(store=tmp_path / "whole")
    with pytest.raises(KilledError):
        ask(store=tmp_path / "cut", progress=kill)
    assert str(ask(store=tmp_path / "cut", progress=lambda *at: told.append(at))) == str(whole)
    assert told[0][0] >= 4
    assert told[-1] == (15, 15)  # five settings, three draws


def test_a_recorded_day_is_held_against_its_resamples(shipped: Path) -> None:
    found = value(shipped, **QUICK | {"requests": 60, "loads": [2.0]})
    assert [kind for kind, _ in found.valuation.plan.draws] == ["recorded", "local", "local", "circular", "circular"]
    rows = found.valuation.rows[Cell("slots", 2.0)]
    sjf, fifo = (np.array([row["e2e_mean_s"] for row in rows[one]]) for one in (Setting("sjf", "noisy?sigma=0"), FIFO))
    logs = np.log(sjf / fifo)
    assert logs.all()
    half = stats.t.ppf(0.975, 1) * max(logs[1:3].std(ddof=1), logs[3:].std(ddof=1))
    expected = [math.expm1(logs[1:3].mean() + part) for part in (0, -half, half)]
    assert list(found.answers.change(Cell("slots", 2.0), Setting("sjf", "noisy?sigma=0"))) == pytest.approx(expected)


# -- what a user sees


def test_the_command_prints_writes_and_refuses(tmp_path: Path, shipped: Path) -> None:
    out = tmp_path / "out"
    options = ["--policies", "sjf", "--estimators", "ema", "--sigmas", "0,2", "--loads", "0.9", "--limits", "slots"]
    options += ["--replications", "1", "--requests", "60", "--jobs", "1"]
    done = driftsim("value", str(shipped), *options, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "When slots bind:" in done.stdout
    assert sorted(file.name for file in out.iterdir()) == [
        "beyond.csv", "value.csv", "value.json", "value.png", "value.svg",
    ]  # fmt: skip
    written = json.loads((out / "value.json").read_text())
    assert written["provenance"]["limits"]["slots"]["backlog_rate"] > 0
    printed = json.loads(driftsim("value", str(shipped), *options, "--json").stdout)
    assert printed == written
    wrong = driftsim("value", str(shipped), *options, "--loads", "much")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "driftsim: --loads: 'much' is no number; write them as 0.3,0.6,0.9\n"


def test_the_figure_has_a_panel_for_each_limit_and_marks_each_estimator(shipped: Path) -> None:
    from driftsim.worth.figures import draw

    found = value(shipped, **QUICK | {"limits": ["slots", "kv"], "requests": 60, "replications": 1})
    figure = draw(found.answers)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["slots bind: sjf", "KV blocks bind: sjf"]
    error = found.answers.error(Cell("slots", 0.9), Setting("sjf", "static"))
    assert any(line.get_xdata()[0] == error and len(line.get_xdata()) == 1 for line in figure.axes[0].lines)  # type: ignore[arg-type, index]
