"""Workloads that nobody recorded: their laws against known truth, their streams, and their way through a grid.

A tolerance is five standard errors of what is estimated, unless it says why not; seeds are fixed, so that a test that
passes goes on to pass.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.errors import InputError
from driftsim.request import Tier
from driftsim.simulation.capacity import capacity
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec, build_workload
from driftsim.sweeps.grid import load_grid
from driftsim.sweeps.store import Store
from driftsim.trace.trace import digest, read
from driftsim.workloads.generated import Tenant, WorkloadSpec
from driftsim.workloads.lengths import Lengths, RecordedLengths
from driftsim.workloads.processes import Process
from driftsim.workloads.table import stream
from driftsim.workloads.workload import COLUMNS, Workload
from tests.commands import driftsim
from tests.strategies import engine, profile

MANY = 200_000


def offsets(seed: int = 1, count: int = MANY, **process: Any) -> np.ndarray:
    return Process(**process).offsets(count, stream(seed, "arrivals"))


def counts(times: np.ndarray, width: float, every: float) -> np.ndarray:
    """Arrivals in windows of ``width`` that begin ``every`` so many seconds."""
    starts = np.arange(0, times[-1] - width, every)
    return np.searchsorted(times, starts + width) - np.searchsorted(times, starts)


def lengths(seed: int = 1, **law: Any) -> np.ndarray:
    return Lengths(**law).draw(MANY, stream(seed, "lengths"))


# The laws of arrivals.


def test_poisson_gaps_are_exponential_and_counts_as_dispersed_as_their_mean() -> None:
    times = offsets(kind="poisson", rate=4.0)
    gaps = np.diff(times, prepend=0.0)
    assert gaps.mean() == pytest.approx(0.25, rel=5 / math.sqrt(MANY))
    assert gaps.var() == pytest.approx(0.25**2, rel=5 * math.sqrt(8 / MANY))  # the fourth moment is 9 variances squared
    inside = counts(times, 5.0, 5.0)
    assert inside.var() / inside.mean() == pytest.approx(1.0, abs=5 * math.sqrt(2 / len(inside)))


def test_gamma_gaps_have_the_coefficient_of_variation_asked_for() -> None:
    gaps = np.diff(Workload.gamma(rate=2.0, cv=1.5, requests=MANY, prompt_tokens=1, output_tokens=1).table["offset_s"])
    assert gaps.mean() == pytest.approx(0.5, rel=5 * 1.5 / math.sqrt(MANY))
    assert gaps.std() / gaps.mean() == pytest.approx(1.5, rel=0.03)


@pytest.mark.parametrize(("factor", "width"), [(4.0, 20.0), (6.0, 5.0), (2.0, 60.0)])
def test_an_mmpp_has_the_rate_and_the_dispersion_of_the_formula(factor: float, width: float) -> None:
    rate, burst, calm = 2.0, 10.0, 50.0
    times = offsets(count=2_000_000, kind="mmpp", rate=rate, burst_factor=factor, burst_s=burst, calm_s=calm)
    share, turn = burst / (burst + calm), 1 / burst + 1 / calm
    gap = factor * rate - rate * (1 - share * factor) / (1 - share)
    limit = 2 * share * (1 - share) * gap**2 / (rate * turn)
    dispersion = 1 + limit * (1 - (1 - math.exp(-turn * width)) / (turn * width))
    assert len(times) / times[-1] == pytest.approx(rate, rel=5 * math.sqrt((1 + limit) / len(times)))
    inside = counts(times, width, width + 6 / turn)  # so far apart that one window hardly knows of the next
    assert dispersion > 1.5
    # Counts are skewed, with a kurtosis of up to about 6: the standard error of a variance is sqrt((6 + 2) / n).
    assert inside.var() / inside.mean() == pytest.approx(dispersion, rel=5 * math.sqrt(8 / len(inside)))


def test_an_mmpp_without_bursts_and_a_day_without_a_swing_are_poisson() -> None:
    plain = offsets(kind="poisson", rate=2.0, count=5000)
    assert np.allclose(offsets(kind="mmpp", rate=2.0, burst_factor=1.0, count=5000), plain)
    assert np.allclose(offsets(kind="diurnal", rate=2.0, amplitude=0.0, count=5000), plain)


def test_the_calm_between_the_largest_bursts_is_silent() -> None:
    """Then arrivals are an interrupted Poisson process: gaps of bursts, and now and then one of a calm."""
    gaps = np.diff(offsets(kind="mmpp", rate=10.0, burst_factor=6.0, count=1_000_000))
    assert (gaps < 1.0).mean() > 0.99
    calms = gaps[gaps > 5.0]
    assert calms.mean() == pytest.approx(55.0, rel=5 / math.sqrt(len(calms)))  # memoryless: 5 s and another calm


def test_a_day_has_the_integrated_rate_of_its_formula() -> None:
    rate, swing, period = 5.0, 0.9, 100.0
    times = offsets(kind="diurnal", rate=rate, amplitude=swing, period_s=period)
    angle = 2 * np.pi * times / period
    integrated = rate * (times + swing * period / (2 * np.pi) * (1 - np.cos(angle)))
    expected = np.cumsum(stream(1, "arrivals").exponential(1.0, MANY))
    assert np.allclose(integrated, expected, rtol=1e-12, atol=1e-9)
    first_half = float((angle % (2 * np.pi) < np.pi).mean())
    assert first_half == pytest.approx(0.5 + swing / np.pi, abs=5 * 0.5 / math.sqrt(MANY))


@pytest.mark.parametrize("kind", ["poisson", "gamma", "mmpp", "diurnal"])
def test_twice_the_rate_presses_the_same_arrivals_in_the_mean(kind: str) -> None:
    for rate in (1.0, 2.0):
        day: dict[str, Any] = {"period_s": 50.0} if kind == "diurnal" else {}
        times = offsets(kind=kind, rate=rate, **day)
        assert (np.diff(times) >= 0).all()
        assert len(times) / times[-1] == pytest.approx(rate, rel=0.08)


# The laws of lengths.


def test_lognormal_lengths_have_the_mean_and_the_spread_asked_for() -> None:
    drawn = lengths(kind="lognormal", mean=400, cv=0.8)
    assert drawn.mean() == pytest.approx(400, rel=5 * 0.8 / math.sqrt(MANY))
    assert drawn.std() / drawn.mean() == pytest.approx(0.8, rel=0.03)


def test_geometric_lengths_are_memoryless() -> None:
    drawn = lengths(kind="geometric", mean=50)
    assert drawn.mean() == pytest.approx(50, rel=5 / math.sqrt(MANY))
    long = drawn[drawn > 100]
    assert (long - 100).mean() == pytest.approx(50, rel=5 / math.sqrt(len(long)))
    assert (lengths(kind="geometric", mean=1) == 1).all()


def test_uniform_and_empirical_lengths_are_each_as_likely_as_said() -> None:
    values, found = np.unique(lengths(kind="uniform", low=3, high=7), return_counts=True)
    assert values.tolist() == [3, 4, 5, 6, 7]
    assert np.allclose(found / MANY, 0.2, atol=5 * 0.4 / math.sqrt(MANY))
    drawn = lengths(kind="empirical", values=[5, 9, 9, 9])
    assert set(drawn.tolist()) == {5, 9}
    assert (drawn == 9).mean() == pytest.approx(0.75, abs=5 * 0.44 / math.sqrt(MANY))


def test_lengths_end_at_their_clips() -> None:
    drawn = lengths(kind="lognormal", mean=100, cv=3.0, low=20, high=500)
    assert (drawn.min(), drawn.max()) == (20, 500)
    assert lengths(kind="lognormal", mean=10**7, cv=100).max() <= 10**7
    assert Lengths(kind="empirical", values=(7, 99), high=50).longest == 50
    assert Lengths(kind="lognormal", mean=7, cv=1).longest is None


@pytest.mark.parametrize(
    ("law", "what"),
    [
        ({"kind": "lognormal", "mean": 5}, "lognormal lengths need cv"),
        ({"kind": "constant", "value": 5, "cv": 1.0}, "constant lengths have no cv"),
        ({"kind": "uniform", "low": 9, "high": 5}, "from low 9 to high 5"),
        ({"kind": "constant", "value": 0}, "value: Input should be greater than or equal to 1"),
        ({"kind": "empirical", "values": []}, "values: Tuple should have at least 1 item"),
        ({"kind": "normal"}, "kind: Input should be 'constant'"),
        ({"kind": "constant", "value": 5, "sigma": 1}, "sigma: unknown key"),
    ],
)
def test_lengths_that_make_no_sense_are_refused(law: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        Lengths(**law)


# Whole workloads.


def small(seed: int = 0, **changes: Any) -> Workload:
    values: dict[str, Any] = {"kind": "poisson", "rate": 5.0, "requests": 200, "prompt_tokens": 20}
    values["output_tokens"] = {"kind": "geometric", "mean": 10}
    return Workload.generated(WorkloadSpec.of(values | changes), seed)


def test_the_same_seed_draws_the_same_workload_and_another_does_not() -> None:
    assert small().table.equals(small().table)
    assert list(small().table.columns) == COLUMNS
    for name in ("offset_s", "output_tokens"):
        assert not small().table[name].equals(small(seed=1).table[name])


def test_arrivals_and_lengths_are_streams_of_their_own() -> None:
    def columns(made: Workload) -> tuple[list[float], list[int], list[int]]:
        return (
            made.table["offset_s"].tolist(),
            made.table["prompt_tokens"].tolist(),
            made.table["output_tokens"].tolist(),
        )

    times, prompts, outputs = columns(small(prompt_tokens={"kind": "uniform", "high": 90}))
    pressed = columns(small(kind="gamma", rate=9.0, prompt_tokens={"kind": "uniform", "high": 90}))
    assert pressed[1:] == (prompts, outputs)
    assert pressed[0] != times
    assert columns(small(prompt_tokens=7))[::2] == (times, outputs)
    assert columns(small(output_tokens=7, prompt_tokens={"kind": "uniform", "high": 90}))[:2] == (times, prompts)


def test_a_tenant_is_left_alone_by_what_another_does() -> None:
    def chat(**other: Any) -> pd.DataFrame:
        tenants = [Tenant(name="chat", rate=2.0), Tenant(name="jobs", **{"rate": 1.0} | other)]
        table = Workload.mixed(tenants=tenants, requests=300, prompt_tokens=9, output_tokens=spread).table
        return table[table["tenant"] == "chat"][["offset_s", "output_tokens"]].head(90).reset_index(drop=True)

    spread = Lengths(kind="lognormal", mean=30, cv=1)
    assert chat().equals(chat(rate=3.0))
    assert chat().equals(chat(output_tokens=500, tier="batch"))


def test_a_limit_covers_the_output_and_tells_nothing_of_it() -> None:
    table = small().table
    assert table["max_tokens"].nunique() == 1
    assert table["max_tokens"].iloc[0] == table["output_tokens"].max()
    assert table["stops"].all()
    lower = small(max_tokens=5).table
    assert (lower["output_tokens"] == table["output_tokens"].clip(upper=5)).all()
    assert (lower["stops"] == (table["output_tokens"] <= 5)).all()
    assert small(output_tokens={"kind": "lognormal", "mean": 5, "cv": 1, "high": 77}).table["max_tokens"].eq(77).all()


def test_nobody_knows_the_words_of_what_was_drawn() -> None:
    made = small()
    spec = ScenarioSpec.model_validate({"workload": plain(), "profile": "p", "admission": {"accounting": "whitespace"}})
    with pytest.raises(InputError, match="whitespace accounting needs prompt_words"):
        simulate(Scenario(profile=profile(), admission=spec.admission), made)


def test_tenants_get_their_shares() -> None:
    tenants = (Tenant(name="chat", tier=Tier.PREMIUM, share=3), Tenant(name="jobs", tier=Tier.BATCH, category="report"))
    made = Workload.poisson(rate=1.0, requests=MANY, prompt_tokens=1, output_tokens=1, tenants=tenants)
    shares = made.table["tenant"].value_counts(normalize=True)
    assert shares["chat"] == pytest.approx(0.75, abs=5 * 0.44 / math.sqrt(MANY))
    jobs = made.table[made.table["tenant"] == "jobs"]
    assert (set(jobs["tier"]), set(jobs["category"])) == ({"batch"}, {"report"})
    assert set(jobs["predicted_category_unlabelled"]) == {"report"}


def test_tenants_with_rates_of_their_own_are_merged_by_time() -> None:
    tenants = [Tenant(name="chat", rate=3.0), Tenant(name="burst", arrivals=Process(kind="gamma", rate=1.0))]
    table = Workload.mixed(tenants=tenants, requests=20_000, prompt_tokens=9, output_tokens=9).table
    assert table["offset_s"].is_monotonic_increasing
    assert len(table) / table["offset_s"].iloc[-1] == pytest.approx(4.0, rel=0.05)
    assert (table["tenant"] == "chat").mean() == pytest.approx(0.75, abs=0.03)


def test_a_tenant_sends_no_more_than_its_requests() -> None:
    backlog = Tenant(name="jobs", arrivals=Process(kind="backlog"), requests=40)
    made = Workload.mixed(
        tenants=[backlog, Tenant(name="chat", rate=1.0)], requests=100, prompt_tokens=9, output_tokens=9
    )
    jobs = made.table[made.table["tenant"] == "jobs"]
    assert len(jobs) == 40
    assert (jobs["offset_s"] == 0).all()
    assert list(jobs.index) == list(range(40))


def test_one_name_twice_is_one_tenant_with_a_mix() -> None:
    tenants = [Tenant(name="a", category="report", output_tokens=90), Tenant(name="a", category="summary")]
    table = Workload.backlog(requests=500, prompt_tokens=9, output_tokens=9, tenants=tenants).table
    assert set(table["tenant"]) == {"a"}
    assert (table.loc[table["category"] == "report", "output_tokens"] == 90).all()


def test_what_is_drawn_from_a_trace_keeps_its_rows_together(shipped: Path) -> None:
    recorded = read(shipped)
    made = Workload.from_trace(recorded, requests=2000, arrivals=Process(kind="poisson", rate=1.0))
    names = ["prompt_tokens", "output_tokens", "max_tokens", "category", "tenant", "tier", "output_words"]
    source = recorded.requests.iloc[made.table["source"].to_numpy()].reset_index(drop=True)
    pd.testing.assert_frame_equal(made.table[names], source[names], check_dtype=False)
    assert (made.table["stops"] == (source["finish_reason"] == "stop")).all()
    assert made.table["source"].nunique() > 350  # of 360: each is missed with a probability of exp(-5.6)


def test_a_category_draws_its_own_rows_of_a_trace_and_a_limit_cuts_them(shipped: Path) -> None:
    tenant = Tenant(name="reports", category="report", trace=read(shipped), max_tokens=30)  # type: ignore[arg-type]
    table = Workload.backlog(requests=300, prompt_tokens=1, output_tokens=1, tenants=[tenant]).table
    source = read(shipped).requests.iloc[table["source"].to_numpy()].reset_index(drop=True)
    assert set(source["category"]) == {"report"}
    assert (table["output_tokens"] == source["output_tokens"].clip(upper=30)).all()
    assert not table["stops"][source["output_tokens"] > 30].any()
    assert (table["output_words"] <= source["output_words"]).all()
    with pytest.raises(InputError, match="no request of category 'poem' to draw from; it has definition"):
        RecordedLengths.from_trace(read(shipped)).of_category("poem")


def test_a_run_in_memory_can_be_drawn_from() -> None:
    run = simulate(Scenario(profile=profile()), small())
    made = Workload.from_trace(run, requests=50, arrivals=Process(kind="backlog"))
    assert set(made.table["output_tokens"]) <= set(run.requests["output_tokens"])
    with pytest.raises(InputError, match="in memory only; write it to a folder first"):
        Tenant(name="a", trace=run)  # type: ignore[arg-type]


def test_a_workload_tells_itself_in_a_line() -> None:
    assert repr(small()) == "poisson: 200 requests in 1 phase, 4.92 requests/s; tenant default"
    closed = Workload.closed(users=8, requests=20, think_s=1.0, prompt_tokens=9, output_tokens=9)
    assert str(closed) == "closed: 20 requests in 1 phase, 8 users; tenant default"
    assert "a backlog" in repr(Workload.backlog(requests=2, prompt_tokens=9, output_tokens=9))
    tenants = [Tenant(name=f"t{number}") for number in range(9)]
    many = Workload.backlog(requests=200, prompt_tokens=9, output_tokens=9, tenants=tenants)
    assert repr(many).endswith(" and 4 more")
    assert repr(small()) in small()._repr_html_()
    assert small().frame().equals(small().table)


# Through the engine.


def test_a_closed_loop_has_never_more_outstanding_than_users() -> None:
    made = Workload.closed(users=5, think_s=0.05, requests=300, prompt_tokens=9, output_tokens=20)
    rows = simulate(Scenario(profile=profile(engine(max_num_seqs=8))), made).requests
    events = pd.concat([pd.Series(1, index=rows["arrival_s"]), pd.Series(-1, index=rows["finish_s"])])
    outstanding = events.sort_index(kind="stable").groupby(level=0).sum().cumsum()
    assert outstanding.max() == 5


def test_waiting_time_matches_m_d_1() -> None:
    load, service = 0.7, 0.010  # one step, one token, one slot
    made = Workload.poisson(rate=load / service, requests=100_000, prompt_tokens=1, output_tokens=1, seed=3)
    rows = simulate(Scenario(profile=profile(engine(max_num_seqs=1)), refill_lag=False), made).requests
    waits = (rows["finish_s"] - rows["arrival_s"]).to_numpy(dtype=float) - service
    assert waits.mean() == pytest.approx(load * service / (2 * (1 - load)), rel=0.05)  # Pollaczek-Khinchine


def test_capacity_is_slots_over_service() -> None:
    made = Workload.backlog(requests=400, prompt_tokens=1, output_tokens=10)
    scenario = Scenario(profile=profile(engine(max_num_seqs=4)), refill_lag=False)
    assert capacity(made, scenario) == pytest.approx(4 / (10 * 0.010), rel=0.01)


# What is refused.


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"rate": None}, "poisson arrivals need a rate"),
        ({"kind": None, "rate": None}, "the workload has no arrivals; give it a kind"),
        ({"kind": None}, "rate belongs to arrivals of some kind"),
        ({"requests": None}, "never ends; give it requests"),
        ({"requests": 10**8}, "requests: Input should be less than or equal to 10000000"),
        ({"rate": 1e-9}, "last too long"),
        ({"kind": "closed", "rate": None, "users": 201}, "201 users but 200 requests"),
        ({"kind": "closed", "rate": None, "users": 10**7}, "at most 1,000,000"),
        ({"amplitude": 0.5}, "amplitude belongs to diurnal arrivals"),
        ({"kind": "diurnal", "amplitude": 1.0}, "amplitude of 0 to below 1"),
        ({"kind": "mmpp", "burst_factor": 7.0}, "burst_factor must be 1 to 6, got 7"),
        ({"kind": "mmpp", "burst_s": 1e-9, "calm_s": 1e-9, "burst_factor": 1.5}, "switches between burst and calm"),
        ({"output_tokens": None}, "the workload has no output_tokens"),
        ({"output_tokens": 0}, "output_tokens.value: Input should be greater"),
        ({"trace": "t"}, "prompt_tokens and trace are two sources"),
        ({"burst": 2}, "burst: unknown key"),
        ({"tenants": [{"name": "a"}, {"name": "a"}]}, "tenant 'a' is there twice"),
        ({"tenants": [{"name": "a", "rate": 1.0}]}, "tenant 'a' and the workload both have arrivals"),
        ({"kind": None, "rate": None, "tenants": [{"name": "a", "rate": 1.0}, {"name": "b"}]}, "no arrivals"),
        ({"tenants": [{"name": "a", "tier": ""}]}, "tenants.0.tier: a tier's name must be printable and not empty"),
    ],
)
def test_a_workload_that_makes_no_sense_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        small(**changes)


@pytest.mark.parametrize(
    ("tenant", "what"),
    [
        ({"rate": 1.0, "arrivals": Process(kind="poisson", rate=1.0)}, "has a rate and arrivals"),
        ({"rate": 1.0, "share": 2.0}, "has a share and arrivals of its own"),
        ({"requests": 5}, "has requests but neither rate nor arrivals"),
        ({"arrivals": Process(kind="closed", users=2)}, "cannot be merged"),
        ({"arrivals": Process(kind="backlog")}, "a backlog without end"),
        ({"share": 0.0}, "share: Input should be greater than 0"),
    ],
)
def test_a_tenant_that_makes_no_sense_is_refused(tenant: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        Tenant(name="a", **tenant)


def test_seeds_are_counted_from_0() -> None:
    with pytest.raises(InputError, match="a seed is a whole number from 0, got -1"):
        small(seed=-1)


# In a scenario and in a grid.


def plain(**changes: Any) -> dict[str, Any]:
    return {"kind": "poisson", "rate": 5.0, "requests": 60, "prompt_tokens": 20, "output_tokens": 10} | changes


def spec(**changes: Any) -> ScenarioSpec:
    return ScenarioSpec.of({"workload": plain(), "profile": "p.json"} | changes)


def key(one: ScenarioSpec, **digests: str) -> str:
    return one.key(one.source_digest(digests), "b")


def test_the_key_of_a_workload_is_pinned() -> None:
    """And it is its content: what has its default may be said or not."""
    assert key(spec()) == "bca11c9c89ccb9ece6957d54df4c4402"
    assert key(spec(workload=plain(think_s=0.0, tenants=[]))) == key(spec())
    others = [plain(rate=6.0), plain(requests=61), plain(kind="gamma"), plain(output_tokens=11), plain(max_tokens=9)]
    others += [plain(tenants=[{"name": "a"}]), plain(tenants=[{"name": "a", "tier": "batch"}])]
    assert len({key(spec(workload=other)) for other in others} | {key(spec()), key(spec(seed=1))}) == 9


def test_a_trace_that_is_drawn_from_counts_by_its_content() -> None:
    drawn = {"kind": "backlog", "requests": 5}
    one, other = (spec(workload=drawn | {"trace": place}) for place in ("x", "y"))
    assert key(one, x="1") == key(other, y="1") != key(other, y="2")
    nested = spec(workload=drawn | {"tenants": [{"name": "a", "trace": "x"}]})
    assert nested.traces == ["x"]
    assert nested.placed("run/{}".format).traces == ["run/x"]
    assert key(nested, x="1") != key(nested, x="2")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"trace": "t"}, "give trace = FOLDER to replay or a table workload to draw, one of the two"),
        ({"profile": None}, "a workload has no steps to fit a profile to; give profile"),
        ({"rate_scale": 2.0}, "rate_scale changes a recorded trace; set workload.rate instead"),
        ({"requests": 5}, "requests changes a recorded trace; set workload.requests"),
        ({"arrivals": {"kind": "backlog"}}, "arrivals changes a recorded trace; set workload.kind"),
        ({"workload": plain(rate=0.0)}, "workload: poisson arrivals need a rate above 0"),
    ],
)
def test_a_scenario_has_one_source_of_requests(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        spec(**changes)


SCENARIO = """
profile = "p.json"
policy = "sjf"
[workload]
kind = "mmpp"
rate = 5.0
requests = 80
prompt_tokens = 20
output_tokens = { kind = "lognormal", mean = 10, cv = 1.0, high = 40 }
[[workload.tenants]]
name = "chat"
tier = "premium"
share = 3
[[workload.tenants]]
name = "jobs"
tier = "batch"
trace = "run"
category = "report"
max_tokens = 100
"""


@pytest.fixture
def folder(tmp_path: Path, shipped: Path) -> Path:
    """A folder with a profile, and a trace that scenarios there call ``run``."""
    profile(engine(max_model_len=2048)).save(tmp_path / "p.json")
    (tmp_path / "run").symlink_to(shipped)
    return tmp_path


def test_the_command_runs_a_workload_that_is_written_down(folder: Path) -> None:
    (folder / "s.toml").write_text(SCENARIO)
    run = driftsim("simulate", folder / "s.toml", "--out", folder / "out")
    assert run.returncode == 0, run.stderr
    rows = read(folder / "out").requests
    assert len(rows) == 80
    assert set(rows["tenant"]) == {"chat", "jobs"}
    assert set(rows.loc[rows["tenant"] == "jobs", "category"]) == {"report"}
    assert driftsim("simulate", folder / "s.toml", "--out", folder / "again").returncode == 0
    assert digest(folder / "out") == digest(folder / "again")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("rate = 5.0", "rate = 0", "poisson"),
        ("requests = 80", "request = 80", "request: unknown key"),
        ('profile = "p.json"', "", "give profile = FILE"),
        ('profile = "p.json"', 'profile = "p.json"\ntrace = "run"', "one of the two"),
        ('trace = "run"', 'trace = "nowhere"', "no such trace folder"),
        ('category = "report"', 'category = "poem"', "no request of category 'poem'"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(folder: Path, old: str, new: str, what: str) -> None:
    (folder / "s.toml").write_text(SCENARIO.replace('"mmpp"', '"poisson"').replace(old, new, 1))
    run = driftsim("simulate", folder / "s.toml", "--out", folder / "out")
    assert run.returncode == 2
    assert what in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


GRID = """
replications = 2
[base]
profile = "p.json"
[base.workload]
kind = "poisson"
requests = 40
prompt_tokens = 20
output_tokens = { kind = "geometric", mean = 10 }
tenants = [{ name = "chat" }, { name = "jobs", trace = "run" }]
[grid]
"workload.rate" = [1, 4]
"workload.tenants.chat.share" = [1, 2]
policy = ["fifo", "sjf"]
"""


def test_a_grid_reaches_into_a_workload_and_rows_say_where(folder: Path) -> None:
    (folder / "g.toml").write_text(GRID)
    run = driftsim("sweep", folder / "g.toml", "--store", folder / "store", "--jobs", 1)
    assert run.returncode == 0, run.stderr
    rows = Store.open(folder / "store").table()
    assert not rows["failed"].any()
    assert len(rows) == rows["key"].nunique() == 16
    assert set(rows["workload.rate"]) == {1.0, 4.0}
    assert set(rows["workload.tenants.chat.share"]) == {1.0, 2.0}
    assert set(rows["workload.output_tokens.mean"]) == {10.0}
    assert not {"workload.cv", "workload.think_s", "workload.burst_s", "trace"} & set(rows.columns)
    for _, draws in rows[rows["policy"] == "fifo"].groupby(["workload.rate", "workload.tenants.chat.share"]):
        assert draws["e2e_mean_s"].nunique() == 2  # each replication is a draw of its own
    shown = driftsim("show", folder / "store", "--paired", "policy=fifo/policy=sjf")
    assert shown.returncode == 0, shown.stderr


def test_a_replication_of_a_workload_is_another_seed(folder: Path) -> None:
    third, seed = spec(replication=3, seed=4), spec(seed=7)
    assert build_workload(third).table.equals(build_workload(seed).table)


def test_a_key_of_one_run_does_not_reach_the_next(tmp_path: Path) -> None:
    base = GRID.split("[grid]")[0].replace("replications = 2", "")
    more = '[[list]]\n"workload.rate" = 1\n"workload.output_tokens.mean" = 99\n[[list]]\n"workload.rate" = 1\n'
    (tmp_path / "g.toml").write_text(base + more)
    laws = [one.workload.output_tokens for one in load_grid(tmp_path / "g.toml") if one.workload]
    assert [law.mean for law in laws if isinstance(law, Lengths)] == [99.0, 10.0]


@pytest.mark.parametrize(
    ("axis", "what"),
    [
        (
            '"workload.rate" = [0]',
            "run 0 (workload.rate = 0, replication = 0): workload: poisson arrivals need a rate",
        ),
        ('"workload.speed" = [1]', "workload.speed: unknown key"),
        (
            '"workload.tenants.ghost.share" = [1]',
            "workload.tenants.ghost.share: none is named 'ghost' there, of chat, jobs",
        ),
        ('"workload.tenants.chat" = [1]', "'chat' is one of a list of tables; name a key of it"),
        ("rate_scale = [2]\n'workload.rate' = [1]", "rate_scale changes a recorded trace; set workload.rate instead"),
    ],
)
def test_what_is_wrong_with_a_grid_is_one_line(folder: Path, axis: str, what: str) -> None:
    (folder / "g.toml").write_text(GRID.split("[grid]")[0] + f"[grid]\n{axis}\n")
    run = driftsim("sweep", folder / "g.toml", "--store", folder / "store")
    assert run.returncode == 2
    assert what in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_a_run_that_failed_can_be_run_again(folder: Path) -> None:
    text = GRID.replace('policy = ["fifo", "sjf"]', "noise = [true]").replace("replications = 2", "")
    (folder / "g.toml").write_text(text)
    run = driftsim("sweep", folder / "g.toml", "--store", folder / "store", "--jobs", 1)
    rows = Store.open(folder / "store").table()
    assert rows["failed"].all(), run.stderr
    again = rows["reproduce"].iloc[0].split()
    assert driftsim(*again[1:3], "--out", folder / "again").stderr.startswith("driftsim: the profile has no noise")
