"""Steps that name their requests: the run stays what it was, and what the steps say adds up to what they count."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

import driftsim as ds
from driftsim.errors import TraceError
from driftsim.formats.pauses import pauses
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec
from driftsim.trace.schema import FINISHED, STEP_COLUMNS, STEP_REQUEST_COLUMNS
from driftsim.trace.trace import Trace, read
from driftsim.workloads.workload import Workload
from tests.commands import driftsim
from tests.strategies import engine, profile, workload, workloads
from tests.test_laws import scenarios

PLAIN = [column.name for column in STEP_COLUMNS]
NAMED = [column.name for column in STEP_REQUEST_COLUMNS]


def crowded(*, asynchronous: bool = False) -> Trace:
    """Six requests of 4 to 9 blocks share 12: some are preempted."""
    small = profile(engine(kv_blocks=13, block_size=4, max_num_seqs=6, async_scheduling=asynchronous), gap_s=0.0001)
    made = workload([0.01 * row for row in range(6)], [20] * 6, prompt_tokens=[9, 13, 7, 11, 16, 5])
    return simulate(Scenario(profile=small), made, step_requests=True)


@settings(max_examples=settings().max_examples // 2)
@given(scenarios(), workloads(25, patient=False))
def test_naming_the_requests_changes_nothing_and_adds_up(scenario: Scenario, workload: Workload) -> None:
    plain = simulate(scenario, workload, record_steps=True)
    named = simulate(scenario, workload, step_requests=True)
    assert plain.steps is not None
    assert named.steps is not None
    assert named.header == plain.header
    pd.testing.assert_frame_equal(named.requests, plain.requests, check_exact=True)
    pd.testing.assert_frame_equal(named.steps[PLAIN], plain.steps, check_exact=True)
    named.check("t")  # counts, sums and ids
    taken = Counter(name for names in named.steps["preempted_ids"] for name in names)
    counted = named.requests.set_index("request_id")["preemptions"].fillna(0)
    assert all(times <= counted[name] for name, times in taken.items())
    assert set(named.requests["request_id"][named.requests["scheduled_s"].notna()]) == {
        name for names in named.steps["request_ids"] for name in names
    }


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_request_is_computed_whole(asynchronous: bool) -> None:
    """Its prompt and all outputs but the last, and again what it lost; it is scheduled as its first step begins."""
    trace = crowded(asynchronous=asynchronous)
    assert trace.steps is not None
    assert trace.requests["preemptions"].sum() > 0
    long = trace.steps.explode(["request_ids", "request_tokens"]).groupby("request_ids")
    tokens, first = long["request_tokens"].sum(), long["start_s"].min()
    for row in trace.requests.to_dict("records"):
        name = row["request_id"]
        whole = row["prompt_tokens"] + row["output_tokens"] - 1
        in_vain = asynchronous  # async scheduling computes one step more of a request that ends by itself
        if not row["preemptions"]:
            assert whole <= tokens[name] <= whole + in_vain
        else:
            assert tokens[name] > whole
        assert first[name] == row["scheduled_s"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_pause_begins_and_ends_with_steps(asynchronous: bool) -> None:
    trace = crowded(asynchronous=asynchronous)
    assert trace.steps is not None
    found = pauses(trace.steps, trace.requests)
    counts = trace.requests.set_index("request_id")["preemptions"]
    assert {name: len(those) for name, those in found.items()} == counts[counts > 0].to_dict()
    for name, those in found.items():
        inside = trace.steps["request_ids"].map(lambda names, name=name: name in names)
        own = trace.steps[inside]
        for pause in those:
            assert pause.preempted_s < pause.resumed_s < pause.computed_s
            assert not own["start_s"].between(pause.preempted_s, pause.resumed_s, inclusive="left").any()
            assert pause.resumed_s in set(own["start_s"])
            again = own[own["start_s"].between(pause.resumed_s, pause.computed_s, inclusive="left")]
            counted = [
                dict(zip(ids, n, strict=True))[name]
                for ids, n in zip(again["request_ids"], again["request_tokens"], strict=True)
            ]
            if not asynchronous:  # there the next step is scheduled before this one is complete
                before = trace.requests.set_index("request_id").loc[name]
                assert sum(counted) >= before["prompt_tokens"]


def test_they_come_back_from_the_disk(tmp_path: Path) -> None:
    trace = crowded()
    back = read(trace.write(tmp_path / "t"))
    assert back.steps is not None
    assert trace.steps is not None
    assert list(back.steps) == PLAIN + NAMED
    pd.testing.assert_frame_equal(back.steps, trace.steps, check_exact=True)
    assert (
        back.write(tmp_path / "again").joinpath("steps.parquet").read_bytes()
        == (tmp_path / "t" / "steps.parquet").read_bytes()
    )


def cut(lists: pd.Series) -> pd.Series:
    return lists.map(lambda part: part[:-1])


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("request_ids", cut, "row 0: request_ids are not as many as prefill_requests and decode_requests"),
        ("request_tokens", cut, "row 0: request_tokens are not one for each of request_ids"),
        ("request_tokens", lambda lists: lists + 1, "row 0: request_tokens, summed, are not the step's tokens"),
        ("request_ids", lambda lists: lists.map(lambda part: part + "x"), "are not all in requests.parquet"),
        ("preempted_ids", lambda lists: lists.iloc[::-1].reset_index(drop=True), "are not as many as preempted"),
    ],
)  # fmt: skip
def test_what_does_not_add_up_is_named(column: str, change: object, message: str) -> None:
    trace = crowded()
    assert trace.steps is not None
    wrong = replace(trace, steps=trace.steps.assign(**{column: change(trace.steps[column])}))  # type: ignore[operator]
    with pytest.raises(TraceError) as error:
        wrong.check("t")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_has_all_of_the_columns_or_none(tmp_path: Path) -> None:
    trace = crowded()
    assert trace.steps is not None
    with pytest.raises(TraceError, match="column 'request_tokens' is missing"):
        replace(trace, steps=trace.steps.drop(columns="request_tokens")).check("t")
    folder = trace.write(tmp_path / "t")
    table = pq.read_table(folder / "steps.parquet")
    pq.write_table(table.drop_columns(["preempted_ids"]), folder / "steps.parquet")
    with pytest.raises(TraceError, match="column 'preempted_ids' is missing"):
        read(folder)
    wrong = table.set_column(table.schema.names.index("request_tokens"), "request_tokens", table["request_ids"])
    pq.write_table(wrong, folder / "steps.parquet")
    with pytest.raises(TraceError, match="column request_tokens does not hold list of int values"):
        read(folder)


def test_the_command_and_the_key_of_a_scenario_ask_for_them(shipped: Path, tmp_path: Path) -> None:
    profile().save(tmp_path / "p.json")
    (tmp_path / "s.toml").write_text(f'trace = "{shipped}"\nprofile = "p.json"\nrequests = 20\n')
    for name, asked in (
        ("key", ["--set", "step_requests=true"]),
        ("option", ["--step-requests"]),
        ("steps", ["--steps"]),
    ):
        made = driftsim("simulate", tmp_path / "s.toml", "--out", tmp_path / name, *asked)
        assert made.returncode == 0, made.stderr
    assert ds.read(tmp_path / "key").digest == ds.read(tmp_path / "option").digest
    steps = {name: ds.read(tmp_path / name).steps for name in ("option", "steps")}
    assert [list(table) for table in steps.values() if table is not None] == [PLAIN + NAMED, PLAIN]


def test_asking_for_them_leaves_the_key_as_it_is() -> None:
    spec = ScenarioSpec(trace="t")
    assert spec.changed(step_requests=True).key("a", "b") == spec.key("a", "b") == "22464651ec545434e8e8e9c07c1d9554"


def test_a_barrier_s_steps_name_their_requests() -> None:
    run = ds.simulate(
        workload([0.0] * 5, [3, 4, 5, 6, 7]), profile=profile(), engine=ds.Barrier(batch_size=2), step_requests=True
    )
    assert run.steps is not None
    run.check("t")
    together = {frozenset(names) for names in run.steps["request_ids"] if len(names) == 2}
    assert len(together) == 2
    batches = run.requests.set_index("request_id")["batch_id"]
    assert all(len({batches[name] for name in names}) == 1 for names in together)
    assert set(run.requests["finish_reason"]) <= set(FINISHED)
    assert int(np.concatenate(run.steps["request_tokens"].tolist()).sum()) == int(
        (run.steps["prefill_tokens"] + run.steps["decode_requests"]).sum()
    )
