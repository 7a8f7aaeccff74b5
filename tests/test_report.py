"""What a comparison computes and prints, from summaries made up so that every number is another one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from driftsim.comparison.checks import Check, held_out_check
from driftsim.comparison.comparison import CALIBRATED, Comparison
from driftsim.comparison.plan import BASELINE, ComparisonPlan, Setting, settings_of
from driftsim.comparison.report import columns, effects, legend, provenance, table, tiers
from driftsim.comparison.runs import compare, draws_of, measured_by_phase
from driftsim.comparison.tenants import tenant_latencies
from driftsim.comparison.verdict import answer, errors, recommended
from driftsim.latency.noise import Noise
from driftsim.metrics import summary
from driftsim.scheduling.admission import Admission
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Barrier
from driftsim.statistics import DayEstimate
from driftsim.trace.header import Phase
from driftsim.workloads.resampling import resample
from driftsim.workloads.workload import Workload
from tests.strategies import engine, profile, workload

PROFILE = profile(engine(max_num_seqs=2), decode_request_s=0.001)
SJF, EMA, ORACLE = Setting("sjf", "static"), Setting("sjf", "ema"), Setting("sjf", "oracle")
PLAN = ComparisonPlan(
    profile=PROFILE,
    settings=(*settings_of(["fifo", "sjf"], ["static", "ema"]), Setting("sjf", "oracle")),
    replications=5,
)
LATENCIES = [f"{name}_{stat}_s" for name in ("e2e", "ttft", "tpot") for stat in ("mean", "p50", "p90", "p99")]
FLOATS = ("mae", "rmse", "kendall_tau", "kendall_tau_estimate", "jain_index", *LATENCIES)


def crowd(count: int = 24) -> Workload:
    random = np.random.default_rng(3)
    return workload(
        np.cumsum(random.exponential(0.03, count)).tolist(), random.integers(1, 30, count).tolist(),
        tier=random.choice(["premium", "batch"], count), tenant=random.choice(["a", "b"], count),
        predicted_category=random.choice(["short_qa", "report"], count),
    )  # fmt: skip


def made_up(plan: ComparisonPlan = PLAN, days: int = 1, noise: float = 0.01, **gains: float) -> Comparison:
    """A comparison whose metrics are unlike for every setting and name; ``gains``: factors of a setting's latencies."""
    work, random = crowd(), np.random.default_rng(1)
    run = simulate(plan.scenario(BASELINE), work)
    draws = draws_of(plan, days)
    summaries: dict[Setting, list[dict[str, Any]]] = {}
    for place, setting in enumerate(plan.settings):
        gain = gains.get(f"{setting.policy}_{setting.estimator}", 1 + 0.07 * place)
        summaries[setting] = []
        for draw in draws:
            shift = {"recorded": 1.03, "local": 1.0, "circular": 1.1, "model": 0.9}[draw.kind]
            row = summary(run, plan.admission)
            for number, name in enumerate(FLOATS):
                # Latencies lie far apart, so that no two print alike; what should be large falls where those rise.
                value = 0.9 / (1 + number + 0.2 * place) if number in (2, 3, 4) else (1.3 + 0.37 * number) * gain
                row[name] = value * shift * math.exp(noise * random.normal())
            for number, tier in enumerate(row["per_tier"].values(), start=1):
                tier |= {"e2e_mean_s": number + 0.1, "e2e_p50_s": number + 0.2, "e2e_p90_s": number + 0.3,
                         "e2e_p99_s": number + 0.4, "requests": 10 * number, "finished": 10 * number - 3}  # fmt: skip
            row["per_tenant"] = {
                name: {
                    "finished": 9,
                    "e2e_mean_s": (1.0 if setting == BASELINE else factor) * math.exp(0.001 * random.normal()),
                }
                for name, factor in (("a", 0.5), ("b", 1.25))
            }
            summaries[setting].append(row)
    return Comparison(plan, (work,) * days, tuple(draws), summaries, dict.fromkeys(plan.settings, run))


def places(comparison: Comparison, kind: str, day: int = 0) -> list[int]:
    return [place for place, draw in enumerate(comparison.draws) if (draw.day, draw.kind) == (day, kind)]


def test_each_column_of_the_table_holds_the_metric_of_its_heading() -> None:
    comparison = made_up()
    headings, rows = table(comparison)
    names = [name for name, _ in headings]
    recorded = comparison.summaries[BASELINE][0]
    shown = dict(zip(names, (cell.number for cell in rows[0]), strict=True))
    expected = {
        "E2E mean": "e2e_mean_s", "E2E P50": "e2e_p50_s", "E2E P99": "e2e_p99_s", "TTFT mean": "ttft_mean_s",
        "TTFT P99": "ttft_p99_s", "TPOT mean": "tpot_mean_s", "TPOT P99": "tpot_p99_s", "MAE": "mae", "RMSE": "rmse",
        "tau": "kendall_tau", "tau of length": "kendall_tau_estimate", "Jain": "jain_index",
    }  # fmt: skip
    assert set(names) == {"policy", "estimator", "vs fifo/static", *expected}
    for name, metric in expected.items():
        assert shown[name] == pytest.approx(recorded[metric] * (1000 if name.startswith("TPOT") else 1)), name
    assert dict(headings)["TPOT P99"] == "ms"
    words = replace(comparison, plan=replace(PLAN, admission=Admission(accounting="whitespace")))
    assert {column.unit for column in columns(words) if column.metric in ("mae", "rmse")} == {"words"}
    assert {column.unit for column in columns(comparison) if column.metric in ("mae", "rmse")} == {"tokens"}


def test_the_best_is_the_smallest_latency_and_error_and_the_largest_rank_and_fairness() -> None:
    comparison = made_up(noise=0.0001)
    headings, rows = table(comparison)
    for place, (name, _) in enumerate(headings):
        cells = [row[place] for row in rows if row[1].text.split()[0] != "oracle"]
        numbers = [cell.number for cell in cells if cell.number is not None]
        marked = [cell.number for cell in cells if cell.mark == "best"]
        if name not in ("policy", "estimator", "vs fifo/static"):
            assert marked == [max(numbers) if name in ("tau", "tau of length", "Jain") else min(numbers)], name


def test_settings_are_one_row_only_if_all_their_numbers_are_equal() -> None:
    alike = made_up(noise=0.0, fifo_static=1.0, fifo_ema=1.0, sjf_static=1.0, sjf_ema=1.0)
    assert alike.summaries[SJF][0]["e2e_mean_s"] == alike.summaries[EMA][0]["e2e_mean_s"]
    assert len(alike.groups) == 5  # their ranks differ
    alike.summaries[EMA][:] = alike.summaries[SJF]
    del alike.__dict__["groups"]
    assert [SJF, EMA] in alike.groups


def test_a_tie_is_marked_as_one_and_a_change_in_doubt_stands_in_brackets() -> None:
    comparison = made_up(fifo_ema=1.0001, sjf_static=0.8, sjf_ema=0.7999)
    _, rows = table(comparison)
    by_name = {(row[0].text, row[1].text): row for row in rows}
    marks = {name: row[2].mark for name, row in by_name.items()}
    assert {marks["sjf", "static"], marks["sjf", "ema"]} == {"best", "tie"}
    assert marks["fifo", "static"] == ""
    assert by_name["fifo", "ema"][3].text.startswith("(")
    assert not by_name["sjf", "static"][3].text.startswith("(")
    assert by_name["sjf", "static"][3].number == pytest.approx(-0.2, abs=0.01)


def test_each_tier_has_its_requests_mean_median_and_tail() -> None:
    rows = tiers(made_up())
    assert rows[0] == ["fifo", "static", "premium", "10", "7", "1.10", "1.20", "1.40"]
    assert rows[1] == ["fifo", "static", "batch", "20", "17", "2.10", "2.20", "2.40"]


def test_what_calibration_changes_is_held_against_static_under_the_same_policy() -> None:
    comparison = made_up(fifo_static=1.0, sjf_static=0.5, sjf_ema=0.55, noise=0.0)
    found = {(row["policy"], row["estimator"], row["metric"]): row for row in comparison.calibration()}
    assert len(found) == 3 * len(CALIBRATED)
    own = found["sjf", "ema", "e2e_mean"]
    assert (own["change"], own["this_run"], own["told"]) == (pytest.approx(0.1), pytest.approx(0.1), True)
    headings, rows = effects(comparison)
    row = next(row for row in rows if row[:2] == ["sjf", "ema"])
    assert dict(zip(headings, row, strict=True))["E2E P99"].startswith("+10.0")


def test_intervals_rest_on_the_resamples_and_a_row_says_what_is_what() -> None:
    comparison = made_up()
    values, base = comparison.values(SJF, "e2e_mean_s"), comparison.values(BASELINE, "e2e_mean_s")
    local, circular = places(comparison, "local"), places(comparison, "circular")
    changes = values / base - 1
    reach = stats.t.ppf(0.975, 3) * max(changes[local].std(ddof=1), changes[circular].std(ddof=1))
    centre = changes[local].mean()
    row = next(row for row in comparison.rows() if (row["policy"], row["estimator"]) == SJF)
    assert row["e2e_mean_s"] == values[0]
    assert row["e2e_mean_expected_s"] == pytest.approx(values[local].mean())
    assert row["e2e_mean_vs_fifo"] == pytest.approx(centre)
    assert row["e2e_mean_vs_fifo_this_run"] == pytest.approx(changes[0])
    ends = (row["e2e_mean_vs_fifo_low"], row["e2e_mean_vs_fifo_high"])
    assert ends == pytest.approx((centre - reach, centre + reach))
    tenant = comparison.change(SJF, BASELINE, "e2e_mean_s", "a")
    assert tenant.value == pytest.approx(-0.5, abs=0.01)


def test_a_change_is_real_if_it_is_sure_among_all_that_were_looked_at_and_large_enough() -> None:
    comparison = made_up(replace(PLAN, practical=0.05))

    def change(p: float) -> DayEstimate:
        return DayEstimate(float(stats.t.isf(p / 2, 7)), 1.0, 7, 0.0)

    assert comparison.real([change(0.04)], [1.0]) == [True]
    assert comparison.real([change(0.06)], [1.0]) == [False]
    assert comparison.real([change(0.04), change(0.03)], [1.0, 1.0]) == [False, False]  # 2 x 0.03
    assert comparison.real([change(0.04), change(0.02)], [1.0, 1.0]) == [True, True]
    assert comparison.real([change(0.01)], [0.049]) == [False]


def test_the_best_wins_the_local_resamples_in_which_nobody_is_better() -> None:
    comparison = made_up(noise=0.1, sjf_static=0.999, fifo_ema=1.0, sjf_ema=1.05)
    ranking = comparison.ranking("e2e_mean_s")
    assert ranking is not None
    local = places(comparison, "local")
    real = [one for one in PLAN.settings if one.estimator != "oracle"]
    numbers = {one: comparison.values(one, "e2e_mean_s")[local] for one in real}
    assert ranking.best == min(real, key=lambda one: numbers[one].mean())
    assert ranking.draws == len(local) == 4
    assert ranking.wins == sum(min(real, key=lambda one: numbers[one][place]) == ranking.best for place in range(4))
    assert 0 < ranking.wins < 4
    same = made_up(noise=0.0, fifo_static=1.0, fifo_ema=1.0, sjf_static=1.0, sjf_ema=1.0).ranking("e2e_mean_s")
    assert same is not None
    assert same.wins == same.draws  # nobody is better than equal
    bound = made_up(sjf_oracle=0.3).ranking("e2e_mean_s")
    assert bound is not None
    assert "oracle" not in {one.estimator for one in (bound.best, *bound.ties)}
    largest = comparison.ranking("jain_index", largest=True)
    assert largest is not None
    assert largest.best == max(real, key=lambda one: comparison.values(one, "jain_index")[local].mean())


def test_intervals_begin_with_three_replications() -> None:
    for count in (2, 3):
        comparison = made_up(replace(PLAN, replications=count))
        assert comparison.recorded_only is (count == 2)
        assert math.isnan(comparison.change(SJF, BASELINE, "e2e_mean_s").low) is (count == 2)


def test_advice_is_what_lowers_the_latency_beyond_doubt() -> None:
    assert recommended(made_up(sjf_static=0.8, sjf_ema=0.8, fifo_ema=1.3)) == SJF
    assert recommended(made_up(sjf_static=1.2, sjf_ema=1.2, fifo_ema=1.3)) == BASELINE
    doubtful = made_up(noise=0.2, sjf_static=0.9, sjf_ema=0.9, fifo_ema=1.3)
    ranking = doubtful.ranking("e2e_mean_s")
    assert ranking is not None
    assert ranking.best in (SJF, EMA)
    assert recommended(doubtful) == BASELINE
    worse = made_up(noise=0.001, sjf_static=1.2)
    assert recommended(replace(worse, plan=replace(PLAN, settings=(SJF,)))) == BASELINE  # the only one, and no gain
    alone = replace(PLAN, replications=1)
    assert recommended(made_up(alone, noise=0.0, sjf_static=0.995, sjf_ema=1.1, fifo_ema=1.1)) == BASELINE
    assert recommended(made_up(alone, noise=0.0, sjf_static=0.985, sjf_ema=1.1, fifo_ema=1.1)) == SJF


def test_the_verdict_names_who_gains_who_pays_and_both_seconds() -> None:
    comparison = made_up(fifo_static=1.0, sjf_static=0.8, sjf_ema=0.8, fifo_ema=1.3)
    do, gain, *_ = answer(comparison)
    before, after = (comparison.values(one, "e2e_mean_s")[0] for one in (BASELINE, SJF))
    assert f"({before:.3g} s to {after:.3g} s in this run)" in gain
    assert "a (-50 %) gains" in gain
    assert "b (+25 %) pays" in gain
    assert "Correcting the estimates is not worth it" in do
    harm = made_up(fifo_static=1.0, sjf_static=0.8, sjf_ema=0.9, fifo_ema=1.3)
    assert "Correcting the estimates does harm" in answer(harm)[0]
    worth = made_up(fifo_static=1.0, sjf_static=0.8, sjf_ema=0.7, fifo_ema=1.3)
    assert "Correcting the estimates is worth it" in answer(worth)[0]


def test_a_check_says_by_how_much_the_simulation_is_off_which_way_and_which_side_is_which() -> None:
    check = Check("a run", {"e2e_mean_s": 2.0, "e2e_p99_s": 10.0}, {"e2e_mean_s": 3.0, "e2e_p99_s": 8.0})
    assert errors(check) == (
        "a run: mean latency +50.0 % (2 s measured, 3 s simulated), slowest 1 % -20.0 % (10 s measured, 8 s simulated)"
    )
    plain = made_up(sjf_static=0.8)
    for ours, believed in ((3.02, False), (2.98, True), (1.32, False), (1.35, True)):
        close = Check("a run", {"e2e_mean_s": 2.0, "e2e_p99_s": 1.0}, {"e2e_mean_s": ours, "e2e_p99_s": 1.0})
        told = answer(replace(plain, checks=(close,)))
        assert told[0].startswith("What to do: No conclusion") is not believed, ours


def test_the_legend_tells_how_often_somebody_waited_and_how_often_two_did() -> None:
    comparison = made_up()
    comparison.summaries[BASELINE][0].update(waiting_fraction=0.62, choice_fraction=0.31)
    assert legend(comparison)[-1] == "under FIFO somebody waited 62 % of the time, two or more at once 31 %"


def test_a_plan_hands_all_its_switches_to_every_run() -> None:
    plan = ComparisonPlan(
        profile=PROFILE, admission=Admission(alpha=0.2), max_in_flight=1, refill_lag=False, seed=7, replications=2
    )
    scenario = plan.scenario(SJF)
    assert (scenario.policy, scenario.estimator, scenario.seed) == ("sjf", "static", 7)
    assert (scenario.max_in_flight, scenario.refill_lag, scenario.admission.alpha) == (1, False, 0.2)
    assert provenance(plan)["max_in_flight"] == 1
    assert replace(plan, refill_lag=True, barrier=Barrier()).scenario(SJF).barrier == Barrier()
    assert settings_of(["stock", "sjf"], ["static", "ema"]) == (Setting("stock", "static"), SJF, EMA)


def test_every_setting_runs_on_the_same_draws_and_each_draw_is_what_its_name_says() -> None:
    days = (crowd(), crowd(16))
    noisy = PROFILE.changed(noise=Noise(spread=0.3))
    plan = ComparisonPlan(
        profile=noisy, settings=(BASELINE, SJF), replications=3, seed=5, excluded=frozenset({0, 1, 2})
    )
    found = compare(days, plan, jobs=1)
    kinds = [(draw.kind, draw.number, draw.day) for draw in found.draws]
    assert kinds == [("recorded", 0, 0), ("recorded", 0, 1)] + [
        (kind, number, day) for kind in ("circular", "local") for number in (1, 2) for day in (0, 1)
    ]
    for place, (kind, number, day) in enumerate(kinds):
        drawn = resample(days[day], 5, number, kind) if kind in ("circular", "local") else days[day]
        scored = ~drawn.table["source"].isin([0, 1, 2]).to_numpy()
        for setting in (BASELINE, SJF):
            trace = simulate(plan.scenario(setting), drawn)
            row = dict(found.summaries[setting][place])
            tenants = row.pop("per_tenant")
            assert repr(row) == repr(summary(trace, plan.admission, scored=scored))
            assert repr(tenants) == repr(tenant_latencies(trace, list(tenants), "all"))
            if place == 0:
                assert found.traces[setting].requests.equals(trace.requests)


def test_a_capture_is_its_own_check_only_under_the_same_policy_and_limit() -> None:
    phases = (Phase(name="one", requests=3), Phase(name="two", requests=3))
    run = simulate(PLAN.scenario(BASELINE), workload([0.0] * 6, [9, 2, 7, 3, 8, 1], phases))
    captured = replace(run, header=run.header.changed(kind="captured"))
    found = measured_by_phase(captured, PLAN)
    assert found is not None
    assert list(found) == ["all", "one", "two"]
    assert [own["requests"] for own in found.values()] == [6, 3, 3]
    for other in (
        replace(captured, header=captured.header.changed(max_in_flight=1)),
        replace(captured, header=captured.header.changed(admission={"policy": "sjf"})),
        run,
    ):
        assert measured_by_phase(other, PLAN) is None
    assert measured_by_phase(captured, replace(PLAN, refill_lag=False)) is None


def test_a_check_that_holds_out_is_fitted_to_what_finished_first_and_judged_by_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = workload((np.arange(80) * 0.05).tolist(), [5] * 80)
    run = simulate(PLAN.scenario(BASELINE), work)
    captured = replace(run, header=run.header.changed(kind="captured"))
    fits: list[dict[str, Any]] = []

    def fit(runs: Any, **how: Any) -> Any:
        fits.append(how)
        return PROFILE

    monkeypatch.setattr("driftsim.comparison.checks.calibrate", fit)
    check = held_out_check(captured)
    cut = float(np.median(run.requests["finish_s"]))
    assert fits == [{"source": "requests", "until": cut}]
    assert check.failed == ""
    later = run.requests[run.requests["finish_s"] > cut]
    assert check.measured["requests"] == check.simulated["requests"] == len(later) == 40
    mean = float((later["finish_s"] - later["arrival_s"]).mean())
    assert check.measured["e2e_mean_s"] == pytest.approx(mean)
