"""SLOs: who goes by which, who met it, by which limit the others missed it, and where that is told."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import driftsim as ds
from driftsim import glossary
from driftsim.comparison import slos as slos_of
from driftsim.comparison.plan import BASELINE
from driftsim.comparison.report import flat_rows
from driftsim.comparison.wording import setting_words
from driftsim.errors import InputError, TraceError
from driftsim.goodput import CAUSES, longest_gaps
from driftsim.metrics import judged
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.slo import Slo, slo_rules
from driftsim.sweeps.store import Store
from driftsim.trace.header import Phase
from driftsim.trace.steps import step_ends
from driftsim.trace.trace import Trace
from driftsim.whose import rule_of
from tests.commands import driftsim
from tests.strategies import engine, profile, workload, workloads
from tests.test_definitions import random_trace
from tests.test_laws import scenarios

WRONG = {
    "gold:ttft=1s": "no request has the tenant or tier 'gold'; the tenants are a, b, the tiers are batch, premium",
    "tenant:premium:ttft=1s": "no request has the tenant 'premium'",
    "premium:ttft=1": "ttft=1 has no unit; write ttft=1s or ttft=50ms",
    "premium:ttft=1m": "ttft=1m is no time in s or ms",
    "premium:ttft=-1s": "ttft=-1s is no limit; it must be above 0",
    "premium:ttft=0ms": "ttft=0ms is no limit; it must be above 0",
    "premium:ttft=1e999s": "ttft=1e999s is no limit",
    "premium:ttft=nans": "ttft=nans is no time in s or ms",
    "premium:ttfb=1s": "unknown limit 'ttfb'; choose among ttft, tpot, itl, e2e",
    "premium:ttft=1s,ttft=2s": "limits ttft twice; keep one",
    "premium": "'premium' is no limit; write NAME:limit=VALUE,...",
    "premium:": "'' is no limit; write NAME:limit=VALUE,...",
    "": "'' is no limit; write NAME:limit=VALUE,...",
    ":e2e=1s": "names nobody before the colon",
}


def row_by_row(trace: Trace, slos: Sequence[Slo], phase: str = "all") -> list[tuple[str, str]]:
    """The SLO of each request and what it missed, from the definitions, in plain loops."""
    told = []
    rows: list[Any] = list(trace.requests.itertuples())
    for row in rows:
        if phase not in ("all", row.phase):
            continue
        own = None
        for kind, name in (("tenant", row.tenant), ("tier", row.tier), ("", "*")):
            named = (name, f"{kind}:{name}")
            own = own or next((slo for slo in slos if slo.who in named and (kind or slo.who == "*")), None)
        if own is None:
            told.append(("", ""))
        elif row.finish_reason not in ("stop", "length"):
            told.append((str(own), "unfinished"))
        else:
            times = {"ttft": row.first_token_s - row.arrival_s, "e2e": row.finish_s - row.arrival_s}
            if row.output_tokens > 1:
                times["tpot"] = (row.finish_s - row.first_token_s) / (row.output_tokens - 1)
            late = [name for name in ("ttft", "tpot", "e2e")
                    if name in own.limits and not times.get(name, 0.0) <= own.limits[name]]  # fmt: skip
            told.append((str(own), ", ".join(late) or "met"))
    return told


limits = st.sampled_from([0.25, 0.5, 1.0, 2.0, 6.0])
slos_of_some = st.lists(
    st.builds(
        Slo,
        who=st.sampled_from(["a", "b", "tenant:c", "premium", "tier:batch", "*"]),
        ttft_s=limits,
        tpot_s=st.none() | limits,
        e2e_s=st.none() | limits,
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda slo: slo.who,
)


@given(st.integers(0, 40), slos_of_some)
def test_every_request_met_missed_or_has_none_as_its_definition_says(seed: int, slos: list[Slo]) -> None:
    trace = random_trace(seed)
    told = row_by_row(trace, slos)
    found = ds.slo_outcomes(trace, slos)
    assert found["slo"].tolist() == [slo for slo, _ in told]
    assert found["missed_by"].tolist() == [what if what != "met" else "" for _, what in told]
    assert found["met"].isna().tolist() == [slo == "" for slo, _ in told]
    assert (found["met"].fillna(False)).tolist() == [what == "met" for _, what in told]


@given(st.integers(0, 40), slos_of_some, st.sampled_from(["all", "two"]))
def test_the_counts_and_rates_are_those_of_the_requests(seed: int, slos: list[Slo], phase: str) -> None:
    trace = random_trace(seed)
    told = row_by_row(trace, slos, phase)
    rows: list[Any] = [row for row in trace.requests.itertuples() if phase in ("all", row.phase)]
    found = judged(trace, slos, phase)
    assert found is not None
    counts = found.counts()
    met = [row for row, (_, what) in zip(rows, told, strict=True) if what == "met"]
    ends = [row.finish_s for row in rows if not math.isnan(row.finish_s)]
    span = max(ends) - min(row.arrival_s for row in rows)
    assert counts["slo_met"] == len(met)
    assert counts["without_slo"] == sum(slo == "" for slo, _ in told)
    offered = len(rows) - counts["without_slo"]
    wanted = [len(met) / offered, len(met) / span, sum(row.output_tokens for row in met) / span]
    names = ["attainment", "goodput", "token_goodput"]
    assert [counts[name] for name in names] == pytest.approx(wanted if offered else [math.nan] * 3, nan_ok=True)
    for cause in CAUSES:
        assert counts[f"missed_{cause}"] == sum(cause in what.split(", ") for _, what in told)


@given(scenarios(), workloads(25, patient=False), slos_of_some)
def test_offered_is_met_and_missed_and_without_an_slo_for_all_each_tier_and_each_tenant(
    scenario: Scenario, made: ds.Workload, slos: list[Slo]
) -> None:
    present = {*made.table["tenant"], *made.table["tier"]}
    slos = [slo for slo in slos if slo.who.rpartition(":")[2] in present or slo.who == "*"]
    if scenario.barrier is not None:
        slos = [slo.changed(ttft_s=None, tpot_s=None) for slo in slos if slo.e2e_s is not None]
    summary = ds.summary(simulate(scenario, made), slos=slos)
    if not slos:
        assert "slo_met" not in summary
        return
    kinds = ("slo_met", "slo_missed", "without_slo")
    for name, parts in (("requests", "per_tier"), (None, "per_tenant")):
        for kind in kinds:
            assert sum(own[kind] for own in summary[parts].values()) == summary[kind]
        for own in summary[parts].values():
            assert name is None or sum(own[kind] for kind in kinds) == own[name]
        rates = [own["goodput"] for own in summary[parts].values() if not math.isnan(own["goodput"])]
        assert sum(rates) == pytest.approx(0.0 if math.isnan(summary["goodput"]) else summary["goodput"])
    assert sum(summary[kind] for kind in kinds) == summary["requests"]


def test_who_was_turned_away_gave_up_or_failed_missed_the_slo() -> None:
    """Four offered requests: one in time, one rejected, one given up, one that outgrew the cache."""
    server = profile(engine(max_num_seqs=1, kv_blocks=5, block_size=16, max_model_len=600))
    made = workload([0.0, 0.1, 0.2, 0.3], [2, 2, 2, 90], prompt_tokens=[8, 599, 8, 8], max_tokens=[4, 1, 4, 100],
                    patience_s=[math.nan, math.nan, 0.0, math.nan])  # fmt: skip
    run = simulate(Scenario(profile=server, slos=slo_rules("e2e=10s")), made)
    assert set(run.requests["finish_reason"]) == {"stop", "rejected", "abort", "error"}
    summary = ds.summary(run)
    assert (summary["slo_met"], summary["slo_missed"], summary["missed_unfinished"]) == (1, 3, 3)
    assert summary["attainment"] == 0.25
    assert summary["goodput"] == pytest.approx(1 / summary["makespan_s"])


def test_where_nothing_passes_goodput_is_zero_and_not_unknown() -> None:
    run = simulate(Scenario(profile=profile(engine(kv_blocks=3))), workload([0.0, 0.0], [5, 5], prompt_tokens=[90, 90]))
    assert run.requests["finish_s"].isna().all()
    summary = ds.summary(run, slos="e2e=1s")
    assert (summary["attainment"], summary["goodput"], summary["token_goodput"]) == (0.0, 0.0, 0.0)


def test_a_single_token_has_no_time_per_token_to_miss_and_an_unknown_first_token_meets_no_limit() -> None:
    run = simulate(Scenario(profile=profile()), workload([0.0, 5.0], [1, 9]))
    assert ds.summary(run, slos="tpot=1ms")["missed_tpot"] == 1
    hidden = Trace(run.header, run.requests.assign(first_token_s=np.nan))
    assert ds.summary(hidden, slos="ttft=9s,tpot=9s")["missed_ttft"] == 2


def test_attainment_is_the_share_that_m_d_1_says() -> None:
    """P(wait <= t) of M/D/1 (Erlang 1909), at a limit between two multiples of the service time."""
    load, service, limit = 0.6, 0.010, 0.0345
    arrivals = np.cumsum(np.random.default_rng(5).exponential(service / load, 60_000))
    run = simulate(Scenario(profile=profile(engine(max_num_seqs=1))), workload(arrivals.tolist(), [1] * len(arrivals)))
    wait, rate = limit - service, load / service
    terms = [(-rate * (wait - k * service)) ** k / math.factorial(k) * math.exp(rate * (wait - k * service))
             for k in range(int(wait / service) + 1)]  # fmt: skip
    theory = (1 - load) * sum(terms)
    assert ds.summary(run, slos=f"e2e={limit}s")["attainment"] == pytest.approx(theory, abs=0.01)


# -- who goes by which


def test_a_tenants_own_slo_goes_before_its_tiers_and_that_before_everybodys() -> None:
    slos = slo_rules(["e2e=4s", "premium:e2e=1s", "acme:e2e=9s"])
    tenants, tiers = np.array(["acme", "b", "b"], dtype=object), np.array(["premium", "premium", "batch"], dtype=object)
    assert rule_of(slos, tenants, tiers).tolist() == [2, 1, 0]
    assert rule_of(slos[1:], tenants, tiers).tolist() == [1, 0, -1]


def test_a_tenant_and_a_tier_of_one_name_are_told_apart() -> None:
    made = workload([0.0] * 4, [2] * 4, tenant=["premium", "premium", "b", "b"], tier=["batch"] * 2 + ["premium"] * 2)
    run = simulate(Scenario(profile=profile()), made)
    for who, row in (("tenant", 0), ("tier", 2)):
        assert ds.slo_outcomes(run, f"{who}:premium:e2e=1s")["slo"].ne("").tolist() == [row == 0] * 2 + [row == 2] * 2
    with pytest.raises(InputError, match="a tenant and a tier are called 'premium', and their requests differ; write "):
        ds.slo_outcomes(run, "premium:e2e=1s")


@pytest.mark.parametrize("twice", [["a:e2e=1s", "a:ttft=1s"], ["e2e=1s", "ttft=1s"], ["a:e2e=1s", "tenant:a:ttft=1s"]])
def test_nobody_has_two_slos(twice: list[str]) -> None:
    with pytest.raises(InputError, match="two SLOs; put all limits into one"):
        slo_rules(twice)


@given(slos_of_some)
def test_an_slo_is_written_as_it_is_read(slos: list[Slo]) -> None:
    assert slo_rules([str(slo) for slo in slos]) == tuple(slos)
    assert slo_rules([slo.model_dump() for slo in slos]) == tuple(slos)


# -- between tokens


@settings(max_examples=settings().max_examples // 2)
@given(scenarios(), workloads(20))
def test_the_longest_gap_bounds_the_mean_gap_and_all_gaps_add_up(scenario: Scenario, made: ds.Workload) -> None:
    if scenario.barrier is not None:
        return
    run = simulate(scenario, made, step_requests=True)
    gaps = longest_gaps(run)
    rows: list[Any] = list(run.requests.itertuples())
    for gap, row in zip(gaps.tolist(), rows, strict=True):
        if row.finish_reason not in ("stop", "length") or row.output_tokens < 2:
            continue
        whole = row.finish_s - row.first_token_s
        if np.isnan(gap):  # what the cache still held, no step tells; a last token in flight needed nothing of it
            assert row.preemptions
            assert run.header.engine.enable_prefix_caching
            continue
        assert whole / (row.output_tokens - 1) - 1e-9 <= gap <= whole + 1e-9
        if row.output_tokens == 2:
            assert gap == pytest.approx(whole)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_long_prompt_of_another_makes_the_gap_that_an_itl_limit_catches_and_tpot_does_not(asynchronous: bool) -> None:
    """20 tokens at 10 ms, in the midst of which a prompt takes 60 ms more: the mean is below 15 ms, one gap is 70."""
    slow = profile(engine(max_num_seqs=4, async_scheduling=asynchronous), prefill_token_s=0.001)
    made = workload([0.0, 0.05], [20, 1], prompt_tokens=[8, 60], tenant=["chat", "long"])
    run = ds.simulate(made, profile=slow, slos="chat:tpot=20ms,itl=40ms")
    assert ds.slo_outcomes(run)["missed_by"].tolist() == ["itl", ""]
    assert run.steps is not None
    first = run.steps["request_ids"].map(lambda names: "r0" in names)
    ends = step_ends(run.steps)[first.to_numpy()][:20]
    assert longest_gaps(run)[0] == pytest.approx(np.diff(ends).max())


def test_what_a_preempted_request_computes_again_shows_no_token_before_it_is_whole() -> None:
    """Tokens are computed again 8 a step; the gap ends with the last of these steps."""
    small = profile(engine(kv_blocks=13, block_size=4, max_num_seqs=6, max_num_batched_tokens=8))
    prompts = [9, 13, 7, 11, 16, 5]
    run = ds.simulate(workload([0.01 * row for row in range(6)], [20] * 6, prompt_tokens=prompts), profile=small,
                      step_requests=True)  # fmt: skip
    assert run.steps is not None
    steps: list[Any] = list(run.steps.itertuples())
    ends, gaps = step_ends(run.steps), longest_gaps(run)
    told = 0
    for row, prompt in enumerate(prompts):
        name = f"r{row}"
        lost = [place for place, step in enumerate(steps) if name in step.preempted_ids]
        if len(lost) != 1:
            continue
        own = [(place, step.request_tokens[list(step.request_ids).index(name)])
               for place, step in enumerate(steps) if name in step.request_ids]  # fmt: skip
        before = [place for place, _ in own if place < lost[0]]
        shown = sum(tokens for place, tokens in own if place < lost[0]) - prompt + 1
        if shown < 1:  # lost in the midst of its prompt
            continue
        again, whole = [place for place, _ in own if place >= lost[0]], 0
        sizes = dict(own)
        while whole < prompt + shown:
            whole += sizes[again[0]]
            last = again.pop(0)
        assert whole == prompt + shown
        assert len(again) == 20 - shown - 1  # of the tokens that are left, each has a step
        assert gaps[row] >= ends[last] - ends[before[-1]] - 1e-9
        told += last > lost[0] and gaps[row] == pytest.approx(ends[last] - ends[before[-1]])
    assert told > 0


def test_a_limit_between_tokens_needs_steps_that_name_requests(tmp_path: Path) -> None:
    plain = ds.simulate(workload([0.0], [9]), profile=profile(), steps=True)
    with pytest.raises(TraceError, match=r"limits itl, .*--step-requests"):
        ds.summary(plain, slos="itl=1s")
    result = ds.compare(workload([0.0] * 9, [9] * 9), profile=profile(engine(max_num_seqs=2)), policies=["fifo"],
                        estimators=["static"], replications=1, slos="itl=15ms", jobs=1)  # fmt: skip
    assert result.rows()[0]["attainment"] == 1.0
    assert "slo.csv" in {file.name for file in result.write(tmp_path / "out").iterdir()}


# -- where it is said, and where nothing is


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace ``t`` of two tenants and two tiers on a busy server, and its profile ``p.json``."""
    folder = tmp_path_factory.mktemp("slo")
    draw = np.random.default_rng(3)
    made = workload(np.cumsum(draw.exponential(0.08, 60)).tolist(), draw.integers(1, 30, 60).tolist(),
                    tenant=["a", "b", "b"] * 20, tier=["premium", "premium", "batch"] * 20)  # fmt: skip
    known = profile(engine(max_num_seqs=2))
    simulate(Scenario(profile=known), made, record_steps=True).write(folder / "t")
    known.save(folder / "p.json")
    (folder / "s.toml").write_text('trace = "t"\nprofile = "p.json"\n')
    return folder


@pytest.mark.parametrize("verb", ["compare", "simulate", "sweep", "check", "python"])
@pytest.mark.parametrize(("text", "told"), WRONG.items())
def test_what_is_no_slo_gets_one_line_and_exit_2(place: Path, tmp_path: Path, verb: str, text: str, told: str) -> None:
    (place / "g.toml").write_text(f'base = {{ trace = "t", profile = "p.json", slos = {json.dumps([text])} }}\n')
    arguments: dict[str, tuple[Any, ...]] = {
        "compare": ("compare", place / "t", "--profile", place / "p.json", "--slo", text, "--replications", 1),
        "simulate": ("simulate", place / "s.toml", "--slo", text, "--out", tmp_path / "o"),
        "sweep": ("sweep", place / "g.toml", "--store", tmp_path / "s", "--jobs", 1),
        "check": ("check", "--captured", place / "t", "--beside", place / "t", "--slo", text),
    }
    if verb == "python":
        with pytest.raises(InputError) as raised:
            ds.summary(ds.read(place / "t"), slos=[text])
        assert told in str(raised.value)
        return
    run = driftsim(*arguments[verb])
    assert (run.returncode, run.stdout) == (2, "")
    assert told in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_an_engine_that_shows_no_token_before_the_last_has_no_limit_on_the_first(place: Path) -> None:
    run = driftsim("compare", place / "t", "--profile", place / "p.json", "--engine", "barrier", "--slo", "ttft=1s")
    assert run.returncode == 2
    assert "the barrier's worker shows no token before the last; limit e2e alone" in run.stderr
    (place / "b.toml").write_text('base = { trace = "t", profile = "p.json", barrier = {}, slos = "ttft=1s" }\n')
    assert "limit e2e alone" in driftsim("sweep", place / "b.toml", "--store", place / "none").stderr
    with pytest.raises(InputError, match="limit e2e alone"):
        Scenario(profile=profile(), barrier=ds.Barrier(), slos=slo_rules("itl=1s"))


def test_a_comparison_tells_it_in_rows_table_page_and_a_file_of_each_request(place: Path, tmp_path: Path) -> None:
    out = driftsim("compare", place / "t", "--profile", place / "p.json", "--policies", "fifo,sjf", "--replications", 3,
                   "--slo", "premium:ttft=200ms,e2e=800ms", "--slo", "a:e2e=400ms", "--jobs", 1, "--out",
                   tmp_path / "o", COLUMNS="200")  # fmt: skip
    assert out.returncode == 0, out.stderr
    document = json.loads((tmp_path / "o" / "comparison.json").read_text())
    rows = {(row["policy"], row["estimator"]): row for row in document["rows"]}
    fifo = rows["fifo", "static"]
    known = {metric.name for metric in (*glossary.SLO, *glossary.SLO_COMPARISON)}
    assert known <= set(fifo)
    assert document["slos"] == ["premium:ttft=200ms,e2e=800ms", "a:e2e=400ms"]
    assert 0 <= fifo["attainment_low"] <= fifo["attainment_expected"] <= fifo["attainment_high"] <= 1
    assert fifo["slo_met"] + fifo["slo_missed"] + fifo["without_slo"] == fifo["requests"] == 60
    assert fifo["per_tenant"]["a"]["slo_met"] + fifo["per_tenant"]["a"]["slo_missed"] == 20
    assert f"{100 * fifo['attainment']:.1f}" in out.stdout
    assert "Within the SLOs" in out.stdout
    each = pd.read_csv(tmp_path / "o" / "slo.csv", keep_default_na=False)
    assert (each["fifo/static"] == "met").sum() == fifo["slo_met"]
    assert (each["fifo/static"] == "").sum() == fifo["without_slo"] == (each["slo"] == "").sum()
    assert each["fifo/static"].str.contains("ttft").sum() == fifo["missed_ttft"]
    flat = pd.read_csv(tmp_path / "o" / "rows.csv")
    assert flat["tenant_a_goodput"][0] == pytest.approx(fifo["per_tenant"]["a"]["goodput"])
    page = (tmp_path / "o" / "report.html").read_text()
    assert "Within the SLOs, by tier and by tenant" in page
    assert "tenant a" in page


def test_a_run_tells_it_and_its_header_keeps_it(place: Path, tmp_path: Path) -> None:
    out = driftsim("simulate", place / "s.toml", "--slo", "premium:e2e=300ms", "--out", tmp_path / "o")
    assert "Within the SLOs: " in out.stdout
    assert "; missed: e2e " in out.stdout
    run = ds.read(tmp_path / "o")
    assert run.header.slos == slo_rules("premium:e2e=300ms")
    header = json.loads((tmp_path / "o" / "header.json").read_text()) | {"slos": ["premium:e2e=300ms"]}
    (tmp_path / "o" / "header.json").write_text(json.dumps(header))  # as somebody writes it by hand
    assert ds.read(tmp_path / "o").header.slos == run.header.slos
    again = ds.simulate(run, profile=place / "p.json")
    assert again.header.slos == run.header.slos  # of the trace, where no other is given
    assert ds.simulate(run, profile=place / "p.json", slos="e2e=1s").header.slos == slo_rules("e2e=1s")
    document = driftsim("simulate", place / "s.toml", "--slo", "e2e=300ms", "--out", tmp_path / "p", "--json")
    assert json.loads(document.stdout)["slo_met"] == ds.summary(ds.read(tmp_path / "p"))["slo_met"]


def test_a_grid_is_ranked_by_goodput_and_the_gate_holds_it(place: Path, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(
        f'base = {{ trace = "{place}/t", profile = "{place}/p.json", slos = ["premium:e2e=400ms", {{ e2e_s = 2 }}] }}\n'
        '[grid]\npolicy = ["fifo", "sjf", "priority"]\n'
    )
    assert driftsim("sweep", tmp_path / "g.toml", "--store", tmp_path / "s", "--jobs", 1).returncode == 0
    table = Store.open(tmp_path / "s").table().set_index("policy")
    assert set(table["slos"]) == {"premium:e2e=400ms; e2e=2s"}
    assert {"premium_attainment", "tenant_a_goodput", "missed_e2e"} <= set(table)
    best = driftsim("show", tmp_path / "s", "--best", "goodput")
    assert "Best is the largest goodput." in best.stdout
    assert best.stdout.split("\n")[2].split()[0] == table["goodput"].idxmax()
    shown = driftsim("show", tmp_path / "s").stdout
    assert "attainment goodput" in " ".join(shown.split("\n")[0].split())
    options = ("--baseline", tmp_path / "b.json", "--jobs", 1)
    assert driftsim("check", tmp_path / "g.toml", *options, "--update", "--reason", "first").returncode == 0
    assert driftsim("check", *options).returncode == 0
    text = json.loads((tmp_path / "b.json").read_text())
    text["runs"][0]["metrics"]["goodput"] *= 1.1
    (tmp_path / "b.json").write_text(json.dumps(text))
    failed = driftsim("check", *options)
    assert failed.returncode == 1
    assert "goodput" in failed.stderr


def test_a_grid_may_be_over_slos_and_over_draws_that_lack_a_tenant(place: Path, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(
        f'replications = 4\n[base]\nprofile = "{place}/p.json"\n'
        '[base.workload]\nkind = "poisson"\nrate = 9\nrequests = 6\nprompt_tokens = 8\noutput_tokens = 5\n'
        'tenants = [{ name = "often", share = 9 }, { name = "seldom", tier = "batch" }]\n'
        '[grid]\nslos = [["seldom:e2e=1ms", "e2e=9s"], "batch:e2e=9s"]\n'
    )
    assert not ds.sweep(tmp_path / "g.toml", tmp_path / "s", jobs=1)["failed"].any()
    table = Store.open(tmp_path / "s").table()
    assert (table["slo_met"] + table["slo_missed"] + table["without_slo"] == table["offered"]).all()
    lacking = table["tenant_seldom_slo_met"].isna()
    assert lacking.any()
    assert not lacking.all()
    shown = driftsim("show", tmp_path / "s", "--metrics", "attainment").stdout
    assert "seldom:e2e=1ms; e2e=9s" in shown
    for wrong, told in (("rare:e2e=1s", "no request has the tenant or tier 'rare'; the tenants are often, seldom"),):
        text = (tmp_path / "g.toml").read_text().replace('"batch:e2e=9s"', f'"{wrong}"')
        (tmp_path / "w.toml").write_text(text)
        run = driftsim("sweep", tmp_path / "w.toml", "--store", tmp_path / "w")
        assert (run.returncode, told in run.stderr) == (2, True)


def test_captured_runs_are_checked_by_their_slos_and_a_share_that_falls_to_0_is_worse(
    place: Path, tmp_path: Path
) -> None:
    arguments = ("check", "--captured", place / "t", "--beside", place / "t", "--json")
    checked = driftsim(*arguments, "--slo", "e2e=500ms")
    assert {"attainment", "goodput"} <= {move["metric"] for move in json.loads(checked.stdout)["moves"]}
    assert "attainment" not in driftsim(*arguments).stdout
    slow = ds.load_profile(place / "p.json").changed(intercept_s=0.5)
    ds.simulate(place / "t", profile=slow).write(tmp_path / "slow")
    fallen = driftsim("check", "--captured", tmp_path / "slow", "--beside", place / "t", "--slo", "ttft=100ms")
    assert fallen.returncode == 1
    assert "attainment" in fallen.stderr or "attainment is gone" in fallen.stdout
    two = ("--captured", tmp_path / "slow", "--captured", place / "t", "--beside", place / "t")
    assert "attainment is 0 in a repeat" in driftsim("check", *two, "--slo", "ttft=100ms").stderr
    alone = driftsim("check", "--baseline", "b.json", "--slo", "e2e=1s")
    assert alone.returncode == 2
    assert "--slo does nothing here" in alone.stderr


def test_without_an_slo_nothing_says_a_word_of_one(place: Path, tmp_path: Path) -> None:
    out = driftsim("compare", place / "t", "--profile", place / "p.json", "--policies", "fifo", "--replications", 1,
                   "--jobs", 1, "--out", tmp_path / "o")  # fmt: skip
    (tmp_path / "g.toml").write_text(f'base = {{ trace = "{place}/t", profile = "{place}/p.json" }}\n')
    ds.sweep(tmp_path / "g.toml", tmp_path / "s", jobs=1)
    files = (tmp_path / "o" / "comparison.json", tmp_path / "o" / "rows.csv", place / "t" / "header.json")
    texts = [out.stdout, *(file.read_text() for file in files), " ".join(map(str, Store.open(tmp_path / "s").table()))]
    for text in texts:
        assert not [
            word for word in ("slos", "slo_", "goodput", "attain", "fairness", "slowdown_") if word in text.lower()
        ]
    assert not (tmp_path / "o" / "slo.csv").exists()


def test_the_keys_of_an_slo_are_those_of_the_glossary(place: Path) -> None:
    names = [metric.name for metric in glossary.SLO]
    row = ds.summary(ds.read(place / "t"), slos="e2e=1s")
    plain = ds.summary(ds.read(place / "t"))
    assert [name for name in row if name not in plain] == [*names, "per_tenant"]
    assert {name: row[name] for name in plain if name != "per_tier"} == {
        name: plain[name] for name in plain if name != "per_tier"
    }
    for own in row["per_tenant"].values():
        assert list(own) == names
    assert glossary.metric("gold_token_goodput").meaning == "`token_goodput` of the gold requests alone."
    assert glossary.metric("tenant_acme_goodput").meaning == "`goodput` of the tenant acme alone."


# -- parts, phases and settings that have little to say

SLOW = profile(engine(max_num_seqs=1))


def test_a_tenant_and_a_tier_of_one_name_have_columns_of_their_own_under_every_setting() -> None:
    """Their counts are equal under one policy and not under another; that they are other requests is so under both."""
    draw = np.random.default_rng(10)
    arrivals, outputs = np.cumsum(draw.exponential(0.05, 12)).tolist(), draw.integers(1, 30, 12).tolist()
    tenant, tier = (draw.permutation(["x", "y"] * 6).tolist() for _ in range(2))
    made = workload(arrivals, outputs, tenant=tenant, tier=tier)
    two = profile(engine(max_num_seqs=2))
    seen = set()
    for limit in range(50, 500, 50):
        result = ds.compare(made, profile=two, policies=["fifo", "sjf"], estimators=["oracle"], replications=1, jobs=1,
                            slos=f"e2e={limit}ms")  # fmt: skip
        headings, rows = slos_of.brief(result)
        assert headings[2:-1] == ["all", "tier x", "tier y", "tenant x", "tenant y"]
        for (setting, *_), cells in zip(result.groups, rows, strict=True):
            row = result.summaries[setting][0]
            shares = [row, *row["per_tier"].values(), *(row["per_tenant"][name] for name in "xy")]
            assert cells[2:-1] == [f"{100 * own['attainment']:.1f}" for own in shares]
            seen.add(row["per_tier"]["x"]["slo_met"] == row["per_tenant"]["x"]["slo_met"])
        assert len(slos_of.table(result)) == 5 * len(result.groups)
    assert seen == {True, False}
    same = workload([0.0] * 4, [5] * 4, tenant=list("xyxy"), tier=list("xyxy"))
    result = ds.compare(
        same, profile=two, policies=["fifo"], estimators=["static"], replications=1, jobs=1, slos="e2e=1s"
    )
    assert slos_of.brief(result)[0][2:-1] == ["all", "tier x", "tier y"]  # the same requests once


def test_a_share_that_is_0_under_fifo_has_no_relative_change_and_is_no_cause_of_warnings() -> None:
    """Long answers first on one slot: FIFO serves nobody in time, shortest first serves the short ones in time."""
    made = workload([0.0] * 40, [50] * 20 + [2] * 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = ds.compare(made, profile=SLOW, policies=["fifo", "sjf"], estimators=["static", "oracle"],
                            replications=5, jobs=1, slos="e2e=200ms")  # fmt: skip
        rows, text = {(row["policy"], row["estimator"]): row for row in result.rows()}, str(result)
    assert rows["fifo", "static"]["goodput"] == 0.0
    best = rows["sjf", "oracle"]
    assert best["slo_met"] == 10
    for metric in ("attainment", "goodput", "token_goodput"):
        assert all(math.isnan(value) for name, value in best.items() if name.startswith(f"{metric}_vs_fifo"))
        assert not any(math.isinf(value) for name, value in best.items() if name.startswith(metric))
    assert "inf" not in text


def test_a_phase_in_which_nobody_has_an_slo_says_so() -> None:
    phases = (Phase(name="one", requests=10), Phase(name="two", requests=10))
    made = workload((0.05 * np.arange(10)).tolist() * 2, [9] * 20, phases, tenant=["a"] * 10 + ["b"] * 10)
    known: dict[str, Any] = {"profile": profile(), "policies": ["fifo", "sjf"], "estimators": ["static"],
                             "replications": 1, "jobs": 1}  # fmt: skip
    assert slos_of.within(ds.compare(made, slos="a:e2e=1s", phase="two", **known), BASELINE) == (
        "No request has an SLO in this run."
    )
    assert slos_of.within(ds.compare(made, slos="a:e2e=1ms", **known), BASELINE) == (
        "No request met its SLO under any setting."
    )
    assert "nan" not in str(ds.compare(made, slos="a:e2e=1s", phase="two", **known))


def test_the_time_between_tokens_is_looked_at_once_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = list[Trace]()

    def look(trace: Trace) -> np.ndarray:
        looked.append(trace)
        return longest_gaps(trace)

    monkeypatch.setattr("driftsim.goodput.longest_gaps", look)
    ds.compare(workload([0.0] * 9, [9] * 9), profile=profile(engine(max_num_seqs=2)), policies=["fifo", "sjf"],
               estimators=["static"], replications=2, slos="itl=1s", jobs=1)  # fmt: skip
    assert len(looked) == 2 * 3  # settings, draws


def test_the_gaps_of_some_requests_are_those_of_the_whole_run() -> None:
    run = simulate(Scenario(profile=profile(engine(max_num_seqs=2))), workload([0.0, 0.0, 0.1], [9, 9, 9]),
                   step_requests=True)  # fmt: skip
    some = Trace(run.header, run.requests.iloc[1:], run.steps)
    assert longest_gaps(some).tolist() == longest_gaps(run)[1:].tolist()
    assert ds.summary(some, slos="itl=1s")["slo_met"] == 2


@given(st.floats(0, 1e9, exclude_min=True))
def test_any_limit_is_written_as_it_is_read(seconds: float) -> None:
    slo = Slo(e2e_s=seconds)
    assert slo_rules(str(slo)) == (slo,)


@pytest.mark.parametrize("values", [{"e2e_s": True}, {"ttft_s": False}])
def test_a_truth_value_is_no_time(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a number is wanted, not true or false"):
        slo_rules([values])
    with pytest.raises(InputError, match="idle_s: a number is wanted"):
        ds.Barrier(idle_s=True)


# -- SLOs of the trace's own header


def with_header(place: Path, folder: Path, slos: list[str]) -> Path:
    """A copy in ``folder`` of the trace ``t``, whose header has these ``slos``."""
    shutil.copytree(place / "t", folder)
    header = json.loads((folder / "header.json").read_text()) | {"slos": slos}
    (folder / "header.json").write_text(json.dumps(header))
    return folder


def test_an_slo_of_nobody_in_a_header_is_refused_as_one_of_the_command_line_is(place: Path, tmp_path: Path) -> None:
    odd = with_header(place, tmp_path / "odd", ["gold:e2e=1s"])
    (tmp_path / "g.toml").write_text(f'base = {{ trace = "odd", profile = "{place}/p.json" }}\n')
    commands: list[tuple[Any, ...]] = [
        ("check", "--captured", odd, "--beside", place / "t"),
        ("sweep", tmp_path / "g.toml", "--store", tmp_path / "s", "--jobs", 1),
        ("simulate", tmp_path / "g2.toml", "--out", tmp_path / "o"),
    ]
    (tmp_path / "g2.toml").write_text(f'trace = "odd"\nprofile = "{place}/p.json"\n')
    for command in commands:
        run = driftsim(*command)
        assert (run.returncode, len(run.stderr.splitlines())) == (2, 1)
        assert "its own SLO 'gold:e2e=1s': no request has the tenant or tier 'gold'" in run.stderr
        assert "correct its header, or give other SLOs" in run.stderr
    assert driftsim(*commands[0], "--slo", "e2e=1s").returncode == 0


def test_a_barrier_on_a_trace_with_a_limit_on_its_first_token_says_what_to_do(place: Path, tmp_path: Path) -> None:
    early = with_header(place, tmp_path / "early", ["ttft=1s"])
    command = ("compare", early, "--profile", place / "p.json", "--engine", "barrier", "--policies", "fifo",
               "--replications", 1, "--jobs", 1)  # fmt: skip
    run = driftsim(*command)
    assert run.returncode == 2
    assert "--slo e2e=30s, or slos in a scenario, goes before the trace's own" in run.stderr
    assert driftsim(*command, "--slo", "e2e=30s").returncode == 0
    (tmp_path / "b.toml").write_text(f'base = {{ trace = "early", profile = "{place}/p.json", barrier = {{}} }}\n')
    swept = driftsim("sweep", tmp_path / "b.toml", "--store", tmp_path / "s", "--jobs", 1)
    assert (swept.returncode, "goes before the trace's own" in swept.stderr) == (2, True)
    (tmp_path / "b.toml").write_text((tmp_path / "b.toml").read_text().replace("barrier", 'slos = "e2e=30s", barrier'))
    assert driftsim("sweep", tmp_path / "b.toml", "--store", tmp_path / "s", "--jobs", 1).returncode == 0


# -- which setting is best


def test_settings_are_ranked_by_goodput_only_under_the_same_slos(place: Path, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(
        f'base = {{ trace = "{place}/t", profile = "{place}/p.json" }}\n'
        '[grid]\npolicy = ["fifo", "sjf"]\nslos = ["e2e=400ms", "e2e=2s"]\n'
    )
    ds.sweep(tmp_path / "g.toml", tmp_path / "s", jobs=1)
    for metric in ("goodput", "attainment", "premium_token_goodput", "tenant_a_slo_met"):
        run = driftsim("show", tmp_path / "s", "--best", metric)
        assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 1)
        assert f"'{metric}' is judged by 2 different SLOs" in run.stderr
        assert "--group slos" in run.stderr
        assert driftsim("show", tmp_path / "s", "--best", metric, "--where", "slos=e2e=2s").returncode == 0
    grouped = driftsim("show", tmp_path / "s", "--best", "goodput", "--group", "slos").stdout
    assert "e2e=400ms" in grouped
    assert "e2e=2s" in grouped
    assert driftsim("show", tmp_path / "s", "--best", "e2e_mean_s").returncode == 0


def test_the_slos_of_two_headers_are_different_slos(place: Path, tmp_path: Path) -> None:
    for name, slo in (("strict", "e2e=400ms"), ("loose", "e2e=2s")):
        with_header(place, tmp_path / name, [slo])
    (tmp_path / "g.toml").write_text(
        f'base = {{ profile = "{place}/p.json" }}\ngrid = {{ trace = ["strict", "loose"] }}\n'
    )
    ds.sweep(tmp_path / "g.toml", tmp_path / "s", jobs=1)
    assert sorted(Store.open(tmp_path / "s").table()["slos"]) == ["e2e=2s", "e2e=400ms"]
    assert "2 different SLOs" in driftsim("show", tmp_path / "s", "--best", "goodput").stderr
    assert driftsim("show", tmp_path / "s", "--best", "goodput", "--group", "trace").returncode == 0


def test_a_metric_that_no_run_was_asked_for_says_how_to_ask(place: Path, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(f'base = {{ trace = "{place}/t", profile = "{place}/p.json" }}\n')
    ds.sweep(tmp_path / "g.toml", tmp_path / "s", jobs=1)
    slos, fairness = 'slos = "e2e=30s"', "fairness = true"
    asked = {"goodput": slos, "premium_attainment": slos, "jain_slowdown": fairness, "tenant_a_backlogged_s": fairness}
    for metric, how in asked.items():
        run = driftsim("show", tmp_path / "s", "--best", metric)
        assert run.returncode == 2
        assert f"no column '{metric}'" in run.stderr
        assert f"set {how} in the grid and sweep again" in run.stderr


def test_no_tier_has_the_columns_of_a_tenant_or_of_all() -> None:
    made = workload(
        [0.0] * 4, [5, 50, 5, 50], tenant=["a", "b", "a", "b"], tier=["tenant_a", "token", "tier_x", "gold"]
    )
    result = ds.compare(made, profile=profile(engine(max_num_seqs=1)), policies=["fifo"], estimators=["static"],
                        replications=1, jobs=1, slos="e2e=900ms")  # fmt: skip
    summary, row = result.rows()[0], flat_rows(result)[0]
    assert row["token_goodput"] == summary["token_goodput"]
    assert row["tenant_a_slo_met"] == summary["per_tenant"]["a"]["slo_met"] == 2
    labels = {"tenant_a": "tier_tenant_a", "token": "tier_token", "tier_x": "tier_tier_x", "gold": "gold"}
    for tier, label in labels.items():
        assert {name: row[f"{label}_{name}"] for name in ("slo_met", "token_goodput")} == {
            name: summary["per_tier"][tier][name] for name in ("slo_met", "token_goodput")
        }
    assert glossary.metric("tier_tenant_a_slo_met").meaning == "`slo_met` of the tenant_a requests alone."


def test_a_message_about_a_floor_or_a_name_says_each_thing_once(place: Path) -> None:
    run = driftsim("check", "--captured", place / "t", "--beside", place / "t", "--floor", "requests/s=1")
    assert run.stderr.startswith("driftsim: floors: 'requests/s' is no metric and no unit")
    with pytest.raises(InputError) as raised:
        slo_rules(":e2e=1s")
    assert str(raised.value).count("got ''") == 1


def test_what_is_best_in_this_run_is_told_of_this_run() -> None:
    """Over the resampled days, another setting has the largest mean goodput than in the run that is told of."""
    draw = np.random.default_rng(11)
    arrivals, outputs = np.cumsum(draw.exponential(0.06, 24)).tolist(), draw.integers(1, 30, 24).tolist()
    made = workload(arrivals, outputs, tier=draw.permutation(["premium", "batch"] * 12).tolist())
    result = ds.compare(made, profile=profile(engine(max_num_seqs=2)), policies=["fifo", "sjf", "priority"],
                        estimators=["ema"], replications=4, jobs=1, slos="e2e=250ms")  # fmt: skip
    rates = {setting: rows[0]["goodput"] for setting, rows in result.summaries.items()}
    best = max(rates, key=lambda setting: rates[setting])
    ranking = result.ranking("goodput", largest=True)
    assert ranking is not None
    assert BASELINE != best != ranking.best
    assert f"({rates[best]:.3g} requests/s) at best ({setting_words(best)})" in slos_of.within(result, BASELINE)
    assert "at best" not in slos_of.within(result, best)
