"""Drift that is injected: what changes, what must not, and what is no drift."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftsim import api
from driftsim.drift import KINDS, Drift, Place, drift_rules
from driftsim.errors import InputError
from driftsim.simulation.spec import ScenarioSpec, build_workload
from driftsim.sweeps.store import Store
from driftsim.trace.header import Phase, WorkloadInfo
from driftsim.trace.trace import read
from driftsim.workloads.drifting import drifting, due_times
from driftsim.workloads.replay import replay
from driftsim.workloads.table import workload_table
from driftsim.workloads.workload import Workload
from tests.commands import driftsim
from tests.conftest import ROOT
from tests.strategies import engine, profile

TRACE = ROOT / "traces" / "smollm2-cpu-drift"


def made(count: int = 200, cap: int = 400, seed: int = 0) -> Workload:
    """A request a second, of the tenants a and b in turn."""
    random = np.random.default_rng(seed)
    outputs = np.minimum(cap, random.geometric(1 / 60, count))
    phase = Phase(name="only", requests=count)
    table = workload_table(
        [phase],
        tenant=["ab"[row % 2] for row in range(count)],
        category=["short_qa" if row % 4 < 2 else "report" for row in range(count)],
        prompt_tokens=random.integers(1, 300, count),
        max_tokens=cap,
        output_tokens=outputs,
        output_words=pd.array(np.maximum(1, outputs * 3 // 4), dtype="Int64"),
        stops=outputs < cap,
        offset_s=np.arange(count, dtype=float),
    )
    return Workload(WorkloadInfo(name="made", phases=(phase,)), table)


def outputs(workload: Workload) -> np.ndarray:
    return workload.table["output_tokens"].to_numpy(dtype=int)


def drifted(text: str, workload: Workload | None = None, seed: int = 0) -> tuple[Workload, Workload]:
    before = made() if workload is None else workload
    return before, drifting(before, drift_rules(text), seed)


# -- what changes


def test_a_step_doubles_one_tenants_outputs_from_its_time_on_up_to_the_cap() -> None:
    before, after = drifted("tenant=a:factor=2:at=100s")
    own = (np.arange(200) % 2 == 0) & (np.arange(200) >= 100)
    assert outputs(after)[~own].tolist() == outputs(before)[~own].tolist()
    assert outputs(after)[own].tolist() == np.minimum(400, 2 * outputs(before)[own]).tolist()
    cut = own & (2 * outputs(before) > 400)
    assert cut.any()
    assert not after.table["stops"].to_numpy(dtype=bool)[cut].any()  # at the cap, and might have gone on
    told = after.drift[0]
    assert (told.requests, told.first_request) == (int((outputs(before) != outputs(after)).sum()), "r100")
    realised = np.exp(np.log(outputs(after)[own] / outputs(before)[own]).mean())
    assert told.realised == pytest.approx(realised)
    assert realised < 2


def test_words_follow_tokens() -> None:
    before, after = drifted("factor=2:at=50%")
    late = slice(100, 200)
    ratio = outputs(after)[late] / outputs(before)[late]
    words = before.table["output_words"].to_numpy(dtype=float)[late]
    assert after.table["output_words"].to_numpy(dtype=float)[late] == pytest.approx(
        np.maximum(1, np.rint(words * ratio))
    )
    assert after.table["output_words"].iloc[:100].tolist() == before.table["output_words"].iloc[:100].tolist()


def test_a_ramp_grows_evenly_in_the_logarithm() -> None:
    flat = made(cap=100_000)
    flat = replace(flat, table=flat.table.assign(output_tokens=10_000))
    _, after = drifted("ramp:factor=4:at=50s:over=100s", flat)
    found = outputs(after)
    assert found[[0, 50, 100, 150, 199]].tolist() == [10_000, 10_000, 20_000, 40_000, 40_000]
    assert (np.diff(found) >= 0).all()


def test_a_season_swings_and_comes_back() -> None:
    flat = made(cap=100_000)
    flat = replace(flat, table=flat.table.assign(output_tokens=10_000))
    _, after = drifted("season:factor=2:period=40s", flat)
    found = outputs(after)
    assert found[[0, 10, 20, 30, 40]].tolist() == [10_000, 20_000, 10_000, 5_000, 10_000]
    assert np.log(found / 10_000).mean() == pytest.approx(0, abs=1e-3)


def test_the_mix_moves_towards_those_that_are_named_and_keeps_the_arrivals() -> None:
    before, after = drifted("mix:category=report:share=0.5:at=50%", made(2000))
    was, now = (one.table["category"].to_numpy() == "report" for one in (before, after))
    assert (was[:1000] == now[:1000]).all()
    assert now[1000:][was[1000:]].all()
    assert now[1000:][~was[1000:]].mean() == pytest.approx(0.5, abs=0.06)
    for name in ("request_id", "offset_s", "phase"):
        assert after.table[name].tolist() == before.table[name].tolist()
    donors = set(before.table.loc[was, ["prompt_tokens", "output_tokens"]].itertuples(index=False, name=None))
    became = after.table.loc[now & ~was, ["prompt_tokens", "output_tokens"]].itertuples(index=False, name=None)
    assert set(became) <= donors
    assert after.drift[0].requests == int((now & ~was).sum())


def test_a_new_model_has_lengths_of_its_own() -> None:
    flat = made(4000, cap=10**8)
    flat = replace(flat, table=flat.table.assign(output_tokens=10_000))
    _, after = drifted("model:factor=1.5:sigma=0.4:at=25%", flat)
    logs = np.log(outputs(after)[1000:] / 10_000)
    assert (outputs(after)[:1000] == 10_000).all()
    assert logs.mean() == pytest.approx(np.log(1.5), abs=3 * 0.4 / np.sqrt(3000))
    assert logs.std() == pytest.approx(0.4, rel=0.05)


def test_other_caps_cut_and_let_go_on_nobody_who_was_cut() -> None:
    before, after = drifted("caps:cap=50:at=50%")
    late = np.arange(200) >= 100
    assert (after.table["max_tokens"].to_numpy() == np.where(late, 50, 400)).all()
    assert (outputs(after) == np.where(late, np.minimum(outputs(before), 50), outputs(before))).all()
    cut = late & (outputs(before) > 50)
    assert not after.table["stops"].to_numpy(dtype=bool)[cut].any()
    _, wider = drifted("caps:cap=800", before)
    assert outputs(wider).tolist() == outputs(before).tolist()
    assert wider.table["stops"].tolist() == before.table["stops"].tolist()


def test_an_output_that_was_cut_and_is_shorter_now_ends_by_itself() -> None:
    before = made(cap=60)
    _, after = drifted("factor=0.5", before)
    cut = ~before.table["stops"].to_numpy(dtype=bool)
    assert cut.any()
    assert after.table["stops"].to_numpy(dtype=bool).all()


def test_words_for_tokens_mislead_the_estimator_and_nobody_else() -> None:
    plan: dict[str, Any] = {"profile": profile(engine()), "estimator": "ema", "policy": "fifo"}
    before = api.simulate(made(), **plan).requests
    after = api.simulate(made(), drift="words:at=50%", **plan).requests
    assert before["output_tokens"].tolist() == after["output_tokens"].tolist()
    assert before["finish_s"].tolist() == after["finish_s"].tolist()
    late = before["arrival_s"] > 130
    assert (after["estimate"][late] < before["estimate"][late]).mean() > 0.8
    assert before["estimate"][:100].tolist() == after["estimate"][:100].tolist()
    oracle = api.simulate(made(), drift="words:at=50%", **{**plan, "estimator": "oracle"}).requests
    assert oracle["estimate"].tolist() == outputs(made()).tolist()


# -- what must not change


def test_without_drift_nothing_changes() -> None:
    before = made()
    assert drifting(before, (), 0) is before
    spec = ScenarioSpec(trace="t", drift=())
    assert spec.key("a", "b") == ScenarioSpec(trace="t").key("a", "b")
    assert "drift" not in spec.identity("a", "b")
    run = api.simulate(made(), profile=profile(engine()))
    assert "drift" not in json.loads(run.header.as_json())


@given(st.sampled_from(["tenant=a:factor=3:at=30%", "model:at=40%", "mix:tenant=b:share=0.3", "caps:cap=9:at=10s"]),
       st.integers(0, 5))  # fmt: skip
def test_the_caps_hold_and_the_same_seed_gives_the_same_drift(text: str, seed: int) -> None:
    before, after = drifted(text, made(60, seed=seed), seed)
    assert (outputs(after) >= 1).all()
    assert (after.table["output_tokens"] <= after.table["max_tokens"]).all()
    assert after.table.equals(drifting(before, drift_rules(text), seed).table)


def test_each_drift_has_a_stream_of_its_own() -> None:
    """A step before it changes no draw of the model, and another seed changes all of them."""
    both = drifting(made(cap=10**6), drift_rules(["model:sigma=0.5", "caps:cap=100000:at=90%"]), 3)
    alone = drifting(made(cap=10**6), drift_rules(["model:sigma=0.5"]), 3)
    assert outputs(both).tolist() == outputs(alone).tolist()
    assert outputs(drifting(made(cap=10**6), drift_rules(["model:sigma=0.5"]), 4)).tolist() != outputs(alone).tolist()


def test_two_strengths_see_the_same_draws() -> None:
    flat = made(cap=10**9)
    flat = replace(flat, table=flat.table.assign(output_tokens=10**6))
    weak, strong = (np.log(outputs(drifted(f"model:sigma={sigma}", flat)[1]) / 1e6) for sigma in (0.2, 0.4))
    assert strong == pytest.approx(2 * weak, abs=1e-4)


def test_a_resample_drifts_at_the_same_time(tmp_path: Path) -> None:
    plan: dict[str, Any] = {
        "profile": profile(engine()),
        "policies": ["sjf"],
        "estimators": ["static"],
        "replications": 2,
        "jobs": 1,
    }
    plain = api.compare(made(), **plan)
    late = api.compare(made(), drift="tenant=a:factor=2:at=100s", **plan)
    for one, other in zip(plain.summaries[("sjf", "static")], late.summaries[("sjf", "static")], strict=True):  # type: ignore[index]
        assert one["mae"] != other["mae"]
    assert late.document()["drift"] == ["tenant=a:factor=2:at=100s"]
    assert "drift injected: tenant=a:factor=2:at=100s" in str(late)
    assert "drift" not in plain.document()


# -- where it may begin


def test_a_time_is_refused_where_nobody_knows_who_arrives_then() -> None:
    drift_trace = replay(read(TRACE))  # its second phase waits for the first to drain
    due, known = due_times(drift_trace)
    assert known[:120].all()
    assert not known[120:].any()
    assert (np.diff(due[:120]) >= 0).all()
    _, after = drifted("factor=2:at=100s", drift_trace)  # all of the second phase comes after that
    assert after.drift[0].requests > 200
    with pytest.raises(InputError, match="phase 'stress' wait for others .* such as at=33%"):
        drifted("factor=2:at=600s", drift_trace)
    closed = Workload.closed(users=3, requests=20, prompt_tokens=5, output_tokens=9, max_tokens=90)
    with pytest.raises(InputError, match="nobody knows"):
        drifted("factor=2:at=5s", closed)
    assert outputs(drifted("factor=2:at=50%", closed)[1]).tolist() == [9] * 10 + [18] * 10


def test_labels_travel_through_a_trace(tmp_path: Path) -> None:
    run = api.simulate(made(), profile=profile(engine()), drift=["tenant=a:factor=2:at=100s", "words:at=50%"])
    run.write(tmp_path / "t")
    again = read(tmp_path / "t")
    assert [str(one) for one in again.header.drift] == ["tenant=a:factor=2:at=100s", "words:at=50%"]
    assert replay(again).drift == again.header.drift == run.header.drift


# -- how it is written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tenant=zz:factor=2:at=50%", "no request has the tenant 'zz'; there is a, b"),
        ("tenant=a:category=poem:factor=2", "no request has the category 'poem'"),
        ("factor=2:at=600", "has no unit; write 600s"),
        ("factor=2:at=-5s", "cannot be; a time is from 0"),
        ("factor=2:at=120%", "a share from 0 to 100 %"),
        ("factor=-2:at=5s", "greater than 0"),
        ("factor=nan:at=5s", "finite|greater"),
        ("factor=2:at=soon", "is no time"),
        ("factor=2:factor=3", "gives factor twice"),
        ("at=5s", "needs factor"),
        ("ramp:factor=2:at=5s", "needs over"),
        ("ramp:factor=2:at=5s:over=5%", "give both as times"),
        ("step:factor=2:cap=5", "has no cap"),
        ("mix:share=0.5", "towards whom"),
        ("slope:factor=2", "no key=value"),
        ("factr=2", "unknown key 'factr'"),
        ("", "no key=value"),
        ("tenant=a\x1b[2J:factor=2", "a name is printable"),
    ],
)
def test_what_is_no_drift_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as found:
        api.simulate(made(), profile=profile(engine()), drift=text)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_drift_is_read_as_it_is_written(kind: str) -> None:
    given: dict[str, Any] = {"factor": 2.5, "over": "10s", "period": "40s", "share": 0.25, "cap": 70, "sigma": 0.5}
    _, needed, more = KINDS[kind]
    one = Drift.of({"kind": kind, "tenant": "a", "at": "90min"} | {name: given[name] for name in (*needed, *more)})
    assert one.at == "5400s"
    assert drift_rules(str(one)) == (one,)
    assert drift_rules(one.model_dump() and [one.model_dump()]) == (one,)


def test_places_have_units() -> None:
    assert [str(Place.of(text)) for text in ("90 s", "1.5h", "2min", "12.5%", "1e2s")] == [
        "90s", "5400s", "120s", "12.5%", "100s"
    ]  # fmt: skip


# -- the command line, scenarios and grids


def test_simulate_takes_drift_on_the_command_line_and_in_the_file(tmp_path: Path) -> None:
    scenario = tmp_path / "s.toml"
    scenario.write_text(f'trace = "{TRACE}"\npolicy = "sjf"\n')
    flagged = driftsim("simulate", scenario, "--out", tmp_path / "one", "--drift", "tenant=batch:factor=2:at=50%")
    assert flagged.returncode == 0, flagged.stderr
    assert "drift injected: tenant=batch:factor=2:at=50% (" in flagged.stdout
    scenario.write_text(f'trace = "{TRACE}"\npolicy = "sjf"\ndrift = ["tenant=batch:factor=2:at=50%"]\n')
    written = driftsim("simulate", scenario, "--out", tmp_path / "two")
    assert written.returncode == 0, written.stderr
    one, two = (tmp_path / name / "requests.parquet" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    wrong = driftsim("simulate", scenario, "--out", tmp_path / "three", "--drift", "tenant=nobody:factor=2:at=5s")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "no request has the tenant 'nobody'; there is batch, premium, standard" in wrong.stderr


def test_a_grid_varies_drift(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(
        f'[base]\ntrace = "{TRACE}"\nrequests = 60\nestimator = "ema"\n[grid]\n'
        'drift = [[], ["factor=2:at=50%"], [{tenant = "batch", factor = 3, at = "10s"}]]\n'
    )
    rows = api.sweep(grid, tmp_path / "store", jobs=1)
    assert not rows["failed"].any()
    assert sorted(rows["drift"].fillna("").tolist()) == ["", "factor=2:at=50%", "tenant=batch:factor=3:at=10s"]
    assert rows["mae"].nunique() == 3
    assert len(Store.open(tmp_path / "store").table()) == 3


@pytest.mark.parametrize("drift", ["tenant=nobody:factor=2:at=5s", "factor=2:at=600s"])
def test_a_grid_with_a_drift_of_nobody_is_refused_before_it_runs(tmp_path: Path, drift: str) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(f'[base]\ntrace = "{TRACE}"\ndrift = ["{drift}"]\n[grid]\npolicy = ["fifo", "sjf"]\n')
    with pytest.raises(InputError, match="nobody"):
        api.sweep(grid, tmp_path / "store", jobs=1)
    assert not (tmp_path / "store").exists()


def test_a_drawn_workload_may_lack_a_tenant_that_it_names() -> None:
    tenants = [{"name": "many"}, {"name": "few", "share": 1e-9}]
    plain = {
        "kind": "poisson",
        "rate": 2.0,
        "requests": 20,
        "prompt_tokens": 9,
        "output_tokens": 50,
        "tenants": tenants,
    }
    spec = ScenarioSpec.of({"workload": plain, "profile": "p.json", "drift": ["tenant=few:factor=2:at=1s"]})
    made = build_workload(spec)
    assert set(made.table["tenant"]) == {"many"}
    assert made.drift[0].requests == 0
    other = spec.changed(drift=["tenant=nobody:factor=2:at=1s"])
    with pytest.raises(InputError, match="no request has the tenant 'nobody'"):
        build_workload(other)
