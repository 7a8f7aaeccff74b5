"""Every metric of a run against its definition, written out again in plain loops over a few random requests."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from driftsim import metrics
from driftsim.scheduling.admission import Admission
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.header import Phase
from driftsim.trace.trace import Trace
from tests.strategies import profile, workload

TENANTS, TIERS, CATEGORIES = "abc", ("premium", "batch"), ("summary", "report", None)


def random_trace(seed: int, count: int = 40) -> Trace:
    """Requests with ties, waits, missing engine times, failures and two phases; nothing that an engine would do."""
    random = np.random.default_rng(seed)
    half = count // 2
    phases = (Phase(name="one", requests=half), Phase(name="two", requests=count - half))
    run = simulate(Scenario(profile=profile()), workload([0.0] * count, [2] * count, phases))
    arrival = np.sort(random.integers(10, 40, count)) / 4.0
    dispatch = arrival + random.integers(0, 8, count) / 4
    scheduled = np.where(random.random(count) < 0.2, np.nan, dispatch + random.integers(0, 4, count) / 4)
    first = dispatch + 1 + random.integers(1, 9, count) / 8
    reasons = random.choice(["stop", "length", "error", "abort", "rejected"], count, p=[0.4, 0.3, 0.1, 0.1, 0.1])
    finish = np.where(reasons == "rejected", np.nan, first + random.integers(0, 90, count) / 8)
    estimate, prompt = random.integers(1, 9, count) * 10, random.integers(1, 9, count) * 10
    table = run.requests.assign(
        arrival_s=arrival, dispatch_s=dispatch, queued_s=np.nan, scheduled_s=scheduled, first_token_s=first,
        finish_s=finish, finish_reason=reasons, estimate=estimate, prompt_tokens=prompt, budget=estimate + prompt,
        prompt_words=prompt // 2, output_tokens=random.integers(0, 6, count) * 10 + 1,
        output_words=random.integers(1, 7, count) * 6, tenant=random.choice(list(TENANTS), count),
        tier=random.choice(TIERS, count), category="summary",
        predicted_category=pd.Series(random.choice(np.array(CATEGORIES, dtype=object), count), dtype=object),
        predicted_category_unlabelled=pd.Series(random.choice(np.array(CATEGORIES, dtype=object), count), dtype=object),
        scheduling_class=random.choice(["short", "medium", "long"], count), preemptions=random.integers(0, 3, count),
    )  # fmt: skip
    for name in ("finish_reason", "tenant", "tier", "scheduling_class", "category"):
        table[name] = table[name].astype(object)
    for name in ("estimate", "prompt_tokens", "budget", "prompt_words", "output_tokens", "output_words", "preemptions"):
        table[name] = table[name].astype("Int64")
    return Trace(run.header, table)


def percentile(values: list[float], share: float) -> float:
    """By the position between the sorted values, linearly."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def tau_b(ones: list[float], others: list[float]) -> float:
    """Concordant less discordant pairs, over the geometric mean of the pairs that are no ties (Kendall 1945)."""
    score = untied_one = untied_other = 0
    for (a, x), (b, y) in itertools.combinations(zip(ones, others, strict=True), 2):
        score += (int(a > b) - int(a < b)) * (int(x > y) - int(x < y))
        untied_one += a != b
        untied_other += x != y
    return score / math.sqrt(untied_one * untied_other) if untied_one * untied_other else math.nan


def latencies(name: str, values: list[float]) -> dict[str, float]:
    shares = {"p50": 50, "p90": 90, "p99": 99}
    return {f"{name}_mean_s": sum(values) / len(values)} | {
        f"{name}_{label}_s": percentile(values, share) for label, share in shares.items()
    }


def share_of_time(intervals: list[tuple[float, float]], least: int, span: float) -> float:
    """The share of ``span`` in which at least so many of ``intervals``, all on eighths of a second, hold the moment."""
    moments = np.arange(0, 60, 1 / 8) + 1 / 16
    inside = np.zeros(len(moments), dtype=int)
    for begin, end in intervals:
        inside += (moments > begin) & (moments < end)
    return float((inside >= least).sum() / 8 / span) if intervals else 0.0


def begun(row: Any) -> float:
    return float(row.dispatch_s if math.isnan(row.scheduled_s) else row.scheduled_s)


def expected(rows: list[Any], scored: list[bool], words: bool, column: str) -> dict[str, Any]:
    """The summary of ``rows``, from the definitions."""
    done = [row for row in rows if row.finish_reason in ("stop", "length")]
    known = [row for row, counts in zip(rows, scored, strict=True) if counts and row in done]
    many = [row for row in done if row.output_tokens > 1]
    outputs = [float(row.output_words if words else row.output_tokens) for row in known]
    totals = [out + float(row.prompt_words if words else row.prompt_tokens)
              for out, row in zip(outputs, known, strict=True)]  # fmt: skip
    errors = [row.estimate - out for row, out in zip(known, outputs, strict=True)]
    within, pairs = 0.0, 0
    for group in {(getattr(row, column), row.tier) for row in known}:
        own = [place for place, row in enumerate(known) if (getattr(row, column), row.tier) == group]
        tau = tau_b([known[place].budget for place in own], [totals[place] for place in own])
        if not math.isnan(tau):
            within += tau * math.comb(len(own), 2)
            pairs += math.comb(len(own), 2)
    classes = ["short" if total <= 128 else "medium" if total <= 512 else "long" for total in totals]
    ends = [row.finish_s for row in rows if not math.isnan(row.finish_s)]
    span = max(ends) - min(row.arrival_s for row in rows)
    speeds = [[row.output_tokens / (row.finish_s - row.arrival_s) for row in done if row.tenant == name]
              for name in TENANTS]  # fmt: skip
    rates = [sum(own) / len(own) for own in speeds if own]
    waits = [begun(row) - row.arrival_s for row in done]
    return {
        "requests": len(rows), "finished": len(done), "scored": len(known),
        "rejected": sum(row.finish_reason == "rejected" for row in rows),
        "errors": sum(row.finish_reason == "error" for row in rows),
        **latencies("e2e", [row.finish_s - row.arrival_s for row in done]),
        **latencies("ttft", [row.first_token_s - row.arrival_s for row in done]),
        **latencies("tpot", [(row.finish_s - row.first_token_s) / (row.output_tokens - 1) for row in many]),
        "mae": sum(map(abs, errors)) / len(errors),
        "rmse": math.sqrt(sum(error**2 for error in errors) / len(errors)),
        "kendall_tau": tau_b([row.budget for row in known], totals),
        "kendall_tau_within": within / pairs,
        "kendall_tau_estimate": tau_b([row.estimate for row in known], outputs),
        "class_accuracy": np.mean([row.scheduling_class == own for row, own in zip(known, classes, strict=True)]),
        "queue_wait_p50_s": percentile(waits, 50), "queue_wait_p99_s": percentile(waits, 99),
        "makespan_s": span,
        "waiting_fraction": share_of_time([(row.arrival_s, begun(row)) for row in rows], 1, span),
        "choice_fraction": share_of_time([(row.arrival_s, row.dispatch_s) for row in rows], 2, span),
        "jain_index": sum(rates) ** 2 / (len(rates) * sum(rate**2 for rate in rates)),
        "preemptions": sum(row.preemptions for row in rows),
        "p99_flagged": True,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_a_summary_is_what_its_definitions_say(seed: int) -> None:
    trace = random_trace(seed)
    rows = list(trace.requests.itertuples())
    scored = np.random.default_rng(100 + seed).random(len(rows)) < 0.7
    words = seed % 2 == 1
    admission = Admission(accounting="whitespace", label="stripped") if words else Admission()
    column = "predicted_category_unlabelled" if words else "predicted_category"
    for phase in ("all", "two"):
        own = [place for place, row in enumerate(rows) if phase in ("all", row.phase)]
        found = metrics.summary(trace, admission, phase=phase, scored=scored)
        wanted = expected([rows[place] for place in own], [bool(scored[place]) for place in own], words, column)
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, nan_ok=True)


def test_each_tier_has_the_latencies_of_its_own_requests() -> None:
    trace = random_trace(8, 900)
    found = metrics.summary(trace)["per_tier"]
    assert list(found) == list(TIERS)  # the most urgent first
    for tier, own in found.items():
        mine: list[Any] = [row for row in trace.requests.itertuples() if row.tier == tier]
        done = [row.finish_s - row.arrival_s for row in mine if row.finish_reason in ("stop", "length")]
        wanted = latencies("e2e", done) | {"requests": len(mine), "finished": len(done)}
        assert {name: own[name] for name in wanted} == pytest.approx(wanted)
        assert own["p99_flagged"] == (len(done) < 300)


@pytest.mark.parametrize("finished", [299, 300])
def test_a_p99_is_flagged_below_three_hundred_finished_requests_of_the_run_or_of_a_tier(finished: int) -> None:
    count = finished + 5
    trace = simulate(Scenario(profile=profile()), workload([0.0] * count, [1] * count))
    reasons = ["stop"] * finished + ["error"] * 5
    found = metrics.summary(Trace(trace.header, trace.requests.assign(finish_reason=pd.Series(reasons, dtype=object))))
    assert found["p99_flagged"] is found["per_tier"]["standard"]["p99_flagged"] is (finished == 299)


@pytest.mark.parametrize("count", [metrics.FEW, metrics.FEW + 1])
def test_ties_leave_tau_between_its_bounds_however_many_pairs(count: int) -> None:
    random = np.random.default_rng(count)
    one = random.integers(0, 4, count).astype(float)
    other = np.where(random.random(count) < 0.8, one, random.integers(0, 9, count))
    assert metrics._tau(one, one) == pytest.approx(1.0)
    assert metrics._tau(one, -one) == pytest.approx(-1.0)
    assert metrics._tau(one, other) == pytest.approx(tau_b(one.tolist(), other.tolist()))
    assert metrics._tau(one, other) == pytest.approx(float(kendalltau(one, other).statistic))
    assert math.isnan(metrics._tau(one, np.zeros(count)))


def test_an_interval_within_another_neither_ends_nor_lengthens_their_union() -> None:
    assert metrics.intervals_union(np.array([0.0, 1.0, 5.0]), np.array([9.0, 2.0, 6.0])) == 9.0
    assert metrics.intervals_union(np.array([3.0, 0.0]), np.array([4.0, 1.0])) == 2.0


def test_who_never_waits_is_in_no_queue() -> None:
    rows = pd.DataFrame({"arrival_s": [0.0, 1.0], "scheduled_s": [0.0, 2.0], "dispatch_s": [0.0, 1.5]})
    moments, depth = metrics.queue_depth(rows)
    assert (list(moments), list(depth)) == ([1.0, 2.0], [1, 0])
