"""Requests that did not finish are load: simulated as far as it is known, and told where it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from driftsim.metrics import summary
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.trace import Trace
from driftsim.validation.validation import on_model_steps
from driftsim.workloads.replay import as_recorded, replay
from driftsim.workloads.unfinished import caveats
from driftsim.workloads.workload import Workload
from tests.strategies import profiles, workload, workloads
from tests.test_laws import scenarios
from tests.test_loops import PLAIN, model, served


def overloaded(patience_s: float = 6.0) -> Trace:
    """A run in which clients wait for so long, and no longer; limits lie far above the outputs."""
    made = Workload.poisson(rate=14.0, requests=400, max_tokens=400, **PLAIN)
    table = made.table.assign(patience_s=patience_s)
    known = model().changed(engine=model().engine.changed(max_num_seqs=8))
    return simulate(Scenario(profile=known, policy="stock"), replace(made, table=table))


def errors(trace: Trace) -> dict[tuple[str, str], float]:
    known = model().changed(engine=trace.header.engine)
    return {(row["metric"], row["stat"]): row["error"] for row in on_model_steps("t", trace, known).rows()}


def test_who_gives_up_frees_what_it_held_and_is_counted() -> None:
    trace = overloaded()
    rows = trace.requests
    given_up = rows[rows["finish_reason"] == "abort"]
    assert len(given_up) > 50
    waited = (given_up["finish_s"] - given_up["arrival_s"]).to_numpy()
    assert waited.min() >= 6.0 - 1e-9
    assert waited.max() < 6.2  # at the next boundary of a step
    assert given_up["dispatch_s"].notna().all()  # stock hands everything on at once
    finished = trace.finished
    assert (finished["finish_s"] - finished["arrival_s"]).max() <= 6.2


def test_who_gives_up_in_the_queue_never_reaches_the_engine() -> None:
    made = workload([0.0, 0.0, 0.0], [100, 5, 5], patience_s=[np.nan, 0.1, np.nan])
    known = model().changed(engine=model().engine.changed(max_num_seqs=1))
    rows = simulate(Scenario(profile=known), made).requests
    assert list(rows["finish_reason"] == "abort") == [False, True, False]
    assert rows["finish_s"][1] == pytest.approx(0.1)
    assert pd.isna(rows["dispatch_s"][1])
    assert rows["output_tokens"][1] == 0


def test_infinite_patience_ends_with_the_known_output_as_given_up() -> None:
    rows = served(workload([0.0], [5], patience_s=[np.inf])).requests
    assert (rows["finish_reason"][0], rows["output_tokens"][0]) == ("abort", 5)


@given(scenarios(), workloads(patient=False))
def test_nobody_is_lost_where_clients_give_up(scenario: Scenario, made: Workload) -> None:
    rows = simulate(scenario, made).requests
    assert rows["finish_reason"].notna().all()
    impatient = np.isfinite(made.table["patience_s"].astype(float).to_numpy())
    infinite = np.isinf(made.table["patience_s"].astype(float).to_numpy())
    may_abort = impatient | infinite
    assert (rows["finish_reason"] != "abort").to_numpy()[~may_abort].all()


@given(workloads(), profiles())
def test_patience_that_outlasts_the_run_changes_nothing(made: Workload, known: Any) -> None:
    scenario = Scenario(profile=known, policy="sjf")
    patient = simulate(scenario, made).requests
    waiting = simulate(scenario, replace(made, table=made.table.assign(patience_s=1e6))).requests
    pd.testing.assert_frame_equal(patient, waiting)


def test_the_load_of_time_outs_is_simulated_where_their_times_are_known() -> None:
    trace = overloaded()
    assert abs(errors(trace)["e2e", "mean"]) < 0.03
    assert abs(errors(trace)["ttft", "mean"]) < 0.05
    finished = trace.requests["finish_reason"].isin(["stop", "length"])
    without = replace(trace, requests=trace.requests[finished].reset_index(drop=True))
    without = replace(without, header=without.header.changed(ended="interrupted"))
    assert errors(without)["ttft", "mean"] < -0.3  # what leaving them out would have said


def test_load_that_is_not_known_is_told_by_its_share() -> None:
    trace = overloaded()
    lost = trace.requests["finish_reason"] == "abort"
    empty = trace.requests.assign(
        finish_s=trace.requests["finish_s"].mask(lost), output_tokens=trace.requests["output_tokens"].mask(lost)
    )
    unknown = replace(trace, requests=empty)
    count = int(lost.sum())
    said = f"{count} of 400 requests ({100 * count / 400:.0f} %) have no known output and are not simulated"
    assert any(said in caveat for caveat in caveats(unknown))
    assert len(replay(unknown)) == 400 - count
    assert any(said in note for note in simulate(Scenario(profile=model()), replay(unknown)).header.notes)


def test_what_was_streamed_is_simulated_where_nobody_knows_when_it_was_given_up() -> None:
    trace = overloaded()
    lost = trace.requests["finish_reason"] == "abort"
    table = trace.requests.assign(finish_s=trace.requests["finish_s"].mask(lost))
    made = as_recorded(replace(trace, requests=table))
    streamed = table["output_tokens"][lost & (table["output_tokens"] >= 1)]
    partial = made.table[np.isinf(made.table["patience_s"].astype(float))]
    assert sorted(partial["output_tokens"]) == sorted(streamed)
    again = summary(simulate(Scenario(profile=model(), policy="stock"), made))
    assert again["finished"] == len(trace.finished)


def test_a_request_that_the_server_turned_away_is_no_load() -> None:
    trace = overloaded()
    rows = trace.requests
    turned = rows["finish_reason"] == "abort"
    names = ["dispatch_s", "queued_s", "scheduled_s", "first_token_s", "finish_s", "output_tokens"]
    table = rows.assign(finish_reason=rows["finish_reason"].mask(turned, "rejected"),
                        **{name: rows[name].mask(turned) for name in names})  # fmt: skip
    made = replay(replace(trace, requests=table))
    assert len(made) == 400 - int(turned.sum())
    assert any("failed without a token and are not simulated" in note for note in made.notes)
