"""What is told to a user, of cases so small that the answer is known by hand."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftsim.calibration import calibrate as calibration
from driftsim.calibration import guards
from driftsim.calibration.descent import Slopes, Start
from driftsim.calibration.form import Form
from driftsim.calibration.from_requests import _usable
from driftsim.calibration.held_out import Candidate, best_of
from driftsim.calibration.runs import FEWEST_REQUESTS, FEWEST_STEPS
from driftsim.comparison import estimators
from driftsim.comparison.plan import Setting
from driftsim.errors import TraceError
from driftsim.formats.head import head_of
from driftsim.latency.roofline import shape_of
from driftsim.latency.steptime import TERMS
from driftsim.pressing.loads import LoadAxis
from driftsim.simulation.limits import SHARES
from driftsim.simulation.replicas import Replicas
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sizing.answers import answers_of
from driftsim.sizing.loads import Bounds
from driftsim.sizing.plan import Case
from driftsim.sizing.result import CapacityResult
from driftsim.sizing.run import Found, Sizing
from driftsim.sizing.search import Search
from driftsim.sizing.wording import _duration, cautions, gains
from driftsim.sweeps.asked import Task, _by_label, parameters
from driftsim.sweeps.naming import with_names

NAN = math.nan
FIFO, SJF = Setting("fifo", "static"), Setting("sjf", "ema")
CASES = [Case(FIFO), Case(SJF), Case(FIFO, "engine.max_num_seqs", 8), Case(Setting("wspt", "ema"))]


def found(case: Case, attained: dict[float, float], backlog: float = 2.5) -> Found:
    """One replication at each load, which holds where 0.9 of the requests attain."""
    search = Search(1.0, 0.1, 10.0, 0.01, held={load: share >= 0.9 for load, share in attained.items()})
    rows = {load: [{"attainment": share, "e2e_p99_s": 3 * load}] for load, share in attained.items()}
    shares = {f"{name}_share": NAN for name in SHARES}
    return Found(case, search, Bounds(1.0, 0.1, 10.0, backlog), rows, shares)


@pytest.fixture(scope="module")
def sizing() -> Sizing:
    plan: Any = SimpleNamespace(
        draws=[("drawn", {})],
        target=0.9,
        replications=1,
        axes={"engine.max_num_seqs": (4, 8)},
        base_of=lambda case: CASES[0],
        spec=SimpleNamespace(workload=None, trace="t", warm_up=0.0, cool_down=0.0),
    )
    made = [
        found(CASES[0], {1.0: 1.0, 2.0: 0.5, 3.0: 0.95, 4.0: 0.95}, backlog=1.5),
        found(CASES[1], {1.0: 1.0, 2.0: 0.8}, backlog=2.0),
        found(CASES[2], {1.0: 1.0, 2.0: 0.95}),
        found(CASES[3], {1.0: 0.5}, backlog=0.1),
    ]
    return Sizing(plan, LoadAxis("scale", 2.0), made)


def test_a_change_of_capacity_is_told_where_both_are_numbers(sizing: Sizing) -> None:
    fifo, sjf, wide, below = answers_of(sizing)
    assert [one.state for one in (fifo, sjf, wide, below)] == ["found", "found", "above", "below"]
    assert sjf.change.value == pytest.approx(2 ** (0.5 - 0.2) - 1)  # where 0.9 lies between 1 and 0.8, and 0.5
    assert all(math.isnan(one.change.value) for one in (fifo, wide, below))
    (line,) = gains(sizing, [fifo, sjf, wide, below])
    assert line.startswith("sjf/ema against fifo/static: +23.1")


def test_a_capacity_above_what_a_backlog_is_served_at_is_an_overload(sizing: Sizing) -> None:
    assert [one.is_overload for one in answers_of(sizing)] == [True, False, True, False]  # 2 > 1.5, 2 = 2, 4 > 2.5


def test_a_row_of_a_case_has_the_load_that_failed_where_the_capacity_is_a_number(sizing: Sizing) -> None:
    rows = [answer.row() for answer in answers_of(sizing)]
    assert [row["load"] for row in rows[:2]] == [1.0, 1.0]
    assert all(math.isnan(row["load"]) for row in rows[2:])
    assert [row["next_failed"] for row in rows[:2]] == [2.0, 2.0]
    assert all(math.isnan(row["next_failed"]) for row in rows[2:])
    assert [(row["at_load"], row["binds_at"]) for row in rows] == [(1.0, 2.0), (1.0, 2.0), (2.0, 2.0), (1.0, 1.0)]
    assert [row["e2e_p99_s"] for row in rows] == [3.0, 3.0, 6.0, 3.0]


def test_what_held_again_is_told_with_the_load_that_failed_below(sizing: Sizing) -> None:
    (told,) = (line for line in cautions(sizing, answers_of(sizing)) if "held again" in line)
    assert "fifo/static: attainment does not fall steadily with the load; 3 held again, above 2, which failed" in told


@pytest.mark.parametrize(("telling", "told"), [(2.9, True), (3.0, False)])
def test_few_draws_that_tell_are_told(sizing: Sizing, telling: float, told: bool) -> None:
    curve = SimpleNamespace(moved=False, has_interval=True, telling=telling, counted=range(9))
    one: Any = replace(answers_of(sizing)[1], curve=curve)  # type: ignore[arg-type]
    assert any("of about 3 of 9 draws" in line for line in cautions(sizing, [one])) is told
    curve.moved = True
    assert any("one day cannot tell" in line for line in cautions(sizing, [one]))


def test_a_case_on_the_profiles_own_engine_is_shown_with_the_first_value_of_the_axis(sizing: Sizing) -> None:
    headings, rows = CapacityResult(sizing, (), {}).table()
    place = headings.index("engine\n")
    assert [row[place] for row in rows] == ["max_num_seqs 4"] * 2 + ["max_num_seqs 8", "max_num_seqs 4"]
    assert [row[place + 1] for row in rows] == ["1", "1", "> 2", "< 1"]
    assert [row[headings.index("rate\nrequests/s")] for row in rows] == ["2", "2", "> 4", "< 2"]


@pytest.mark.parametrize(("count", "told"), [(FEWEST_STEPS - 1, "has fewer than 30 steps"), (FEWEST_STEPS, "fitted")])
def test_the_fewest_steps_are_enough_for_a_fit(count: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fitted(*_: Any) -> Any:
        raise TraceError("fitted")

    monkeypatch.setattr(calibration, "check_runs", lambda _: [])
    monkeypatch.setattr(calibration, "fit_steps", fitted)
    header = SimpleNamespace(replicas={})
    run: Any = SimpleNamespace(name="r", trace=SimpleNamespace(header=header, steps=pd.DataFrame(index=range(count))))
    with pytest.raises(TraceError, match=told):
        calibration.calibrate([run], source="steps")


def rows(outputs: list[int]) -> Any:
    """A run of requests in a row, each of which has so many output tokens, 0.1 s apart, every other one twice that."""
    begin = np.arange(len(outputs), dtype=float)
    paces = np.where(np.arange(len(outputs)) % 2, 0.2, 0.1)
    table = pd.DataFrame(
        {
            "arrival_s": begin - 0.5,
            "first_token_s": begin,
            "finish_s": begin + paces * (np.array(outputs) - 1),
            "output_tokens": outputs,
            "finish_reason": "stop",
        }
    )
    return SimpleNamespace(name="r", trace=SimpleNamespace(requests=table, finished=table))


@pytest.mark.parametrize(("short", "single"), [(1, 3), (2, 0)])
def test_an_answer_of_one_token_tells_nothing_of_decoding_and_one_of_two_does(short: int, single: int) -> None:
    warnings: list[str] = []
    _usable(rows([short] * 3 + [9] * FEWEST_REQUESTS), math.inf, warnings)
    assert [line.split()[1] for line in warnings] == [str(single)] * (single > 0)
    if single:
        with pytest.raises(TraceError, match=f"3 of {FEWEST_REQUESTS + 2} requests have a single output token"):
            _usable(rows([short] * 3 + [9] * (FEWEST_REQUESTS - 1)), math.inf, warnings)


@pytest.mark.parametrize(("tokens", "count", "apart"), [(7, 20, 0.0), (8, 20, math.log(2)), (8, 19, 0.0)])
def test_neighbours_are_compared_by_answers_of_eight_tokens_if_there_are_twenty(
    tokens: int, count: int, apart: float
) -> None:
    assert guards._unlike(rows([tokens] * count)) == pytest.approx(apart)


@pytest.mark.parametrize(
    ("source", "error", "percentiles", "moved", "told"),
    [
        ("steps", 0.6, 9.0, 9.0, ""),
        ("steps", 0.7, None, None, "a step's time is off by 70 % in the mean"),
        ("requests", 0.25, None, None, ""),
        ("requests", 0.26, None, None, "a request's decode time is off by 26 % in the mean"),
        ("requests", 0.1, 0.25, None, ""),
        ("requests", 0.1, 0.26, None, "simulated percentiles of TTFT, TPOT and E2E are off by 26 % in the mean"),
        ("requests", 0.1, None, 0.1, ""),
        ("requests", 0.1, None, 0.2, "the fit does not settle: its last round still moved a term by 20 %"),
        ("requests", 0.01, 0.2, 0.2, "the fit does not settle: its last round still moved a term by 20 %"),
        ("requests", 0.05, 0.05, 0.2, ""),
    ],
)
def test_a_fit_is_refused_beyond_what_real_engines_show(
    source: str, error: float, percentiles: float | None, moved: float | None, told: str
) -> None:
    made: Any = SimpleNamespace(fit=SimpleNamespace(source=source, mean_absolute_percentage_error=error))
    assert guards.describes(made, [], percentiles, moved) == told


def test_half_the_error_is_refused_where_neighbours_of_any_run_are_unlike() -> None:
    made: Any = SimpleNamespace(fit=SimpleNamespace(source="requests", mean_absolute_percentage_error=0.2))
    alike, unlike = rows([7] * 20), rows([9] * 20)
    assert guards.describes(made, [alike], None, None) == ""
    assert guards.describes(made, [alike, unlike], None, None).startswith("a request's decode time is off by 20 %")
    made.fit.mean_absolute_percentage_error = 0.12
    assert guards.describes(made, [unlike], None, None) == ""


@pytest.mark.parametrize(
    ("pace", "told"), [(11.0, "takes 11 s in the median"), (5e-6, "takes 5 us in the median"), (0.02, "")]
)
def test_times_that_no_engine_has_are_told_with_their_unit(pace: float, told: str) -> None:
    table = pd.DataFrame({"first_token_s": [0.0], "finish_s": [10 * pace], "output_tokens": [11]})
    run: Any = SimpleNamespace(name="r", trace=SimpleNamespace(finished=table))
    with pytest.raises(TraceError, match=told) if told else nullcontext():
        guards.check_timings(run)


@pytest.mark.parametrize(
    ("seconds", "told"), [(NAN, "an unknown time"), (99.0, "99 s"), (100.0, "1.67 min"), (600.0, "10 min")]
)
def test_a_duration_of_a_hundred_seconds_is_told_in_minutes(seconds: float, told: str) -> None:
    assert _duration(seconds) == told


def test_of_forms_that_do_as_well_graphs_count_as_a_term() -> None:
    none = np.zeros(1)
    slopes = Slopes(none, none, none, none, Start(none, none, none, none))

    def candidate(terms: int, graphs: bool, error: float) -> Candidate:
        form = Form(terms=TERMS[:terms], graphs=graphs)
        return Candidate(form, np.ones(7, bool), np.zeros(7), slopes, np.array([error, error]))

    plain, graphs, longer = candidate(4, False, 0.0101), candidate(4, True, 0.01), candidate(5, False, 0.01)
    assert best_of([graphs, plain]) is plain
    assert best_of([candidate(3, True, 0.0101), plain, longer]).error == 0.0101
    assert best_of([candidate(4, True, 0.0099), longer]).form.graphs  # as simple, and nearer
    assert best_of([candidate(5, True, 0.0099), longer]) is longer


@pytest.mark.parametrize(("digests", "name"), [(["d1", "d2"], None), (["d1", "d2", "d3"], "d3")])
def test_a_drawn_workload_needs_no_name_if_its_keys_tell_it_apart(digests: list[str], name: str | None) -> None:
    rates = [1.0, 2.0, 2.0][: len(digests)]
    table = pd.DataFrame({"trace_digest": digests, "workload.rate": rates, "trace": "a"})
    names = with_names(table)["trace"].tolist()
    assert (names[-1] is None or names[-1] != names[-1]) == (name is None)


def test_lists_of_replicas_are_one_text_and_tenants_of_one_name_are_told_apart() -> None:
    replicas = Replicas(count=2, speeds=(1.0, 0.5), failures=["0:at=1s", "1:at=2s,back=3s"])  # type: ignore[arg-type]
    asked = parameters(Task("k", ScenarioSpec(trace="t", replicas=replicas), "d", "p"))
    assert (asked["replicas.count"], asked["replicas.speeds"]) == (2, "1.0; 0.5")
    assert asked["replicas.failures"] == "0:at=1s; 1:at=2s,back=3s"
    tenants = [{"name": name, "category": kind} for name, kind in (("a", "x"), ("b", "x"), ("b", "y"))]
    assert list(_by_label(tenants)) == ["a", "b/x", "b/y"]


@pytest.mark.parametrize(
    ("text", "document"),
    [('{"a": 1}\n{"a": 2}\n', False), ('{"a": [1]}\n{"a": [2]}\n', True), ('[{"a": 1}]', False), ('{"a": 1}', True)],
)
def test_lines_that_hold_lists_are_results_and_others_are_requests(text: str, document: bool, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text(text)
    head = head_of(tmp_path / "f.jsonl")
    assert (head.document, list(head.record)) == (document, ["a"])


def test_a_model_that_names_no_longest_context_has_8192_positions(tmp_path: Path) -> None:
    config = dict.fromkeys(("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"), 64)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 8}))
    shape = shape_of(str(tmp_path / "config.json"))
    assert (shape.positions, shape.kv_heads, shape.head, shape.tied) == (8192, 8, 8, False)


@pytest.mark.parametrize(("unit", "word"), [("tokenizer", "tokens"), ("whitespace", "words")])
def test_an_error_of_estimates_has_the_unit_of_the_accounting(unit: str, word: str) -> None:
    plan = SimpleNamespace(admission=SimpleNamespace(unit=SimpleNamespace(unit=unit)), settings=[FIFO])
    comparison: Any = SimpleNamespace(plan=plan, estimation_rows=[])
    assert estimators.table(comparison)[0][:2] == ["estimator", f"MAE ({word})"]
