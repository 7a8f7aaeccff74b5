"""What a policy sees of sessions: their names, turns and the service so far, which is known, and never the future."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import driftsim as ds
from driftsim.scheduling.dispatcher import Departure, Dispatcher
from driftsim.scheduling.estimators import make_estimator
from driftsim.scheduling.policies import make_policy
from driftsim.trace.turns import turn_numbers
from tests.strategies import engine, profile
from tests.test_sessions import sessions

ROOT = Path(__file__).resolve().parent.parent


class Sight(NamedTuple):
    """What a policy saw of a job as it came."""

    id: str
    session: str
    turn: int
    prompt_served: int
    output_served: int
    now: float


class Watching(ds.Keyed):
    """Least attained service by session; it writes down what it sees."""

    seen: ClassVar[list[Sight]] = []

    def key(self, job: ds.Job) -> float:
        return job.prompt_served + job.output_served

    def push(self, job: ds.Job, now: float) -> None:
        request = job.request
        own = request.session, request.turn, job.prompt_served, job.output_served
        self.seen.append(Sight(request.id, *own, now))
        super().push(job, now)


def watched(made: ds.Workload, **settings: Any) -> tuple[ds.Trace, list[Sight]]:
    Watching.seen.clear()
    run = ds.simulate(made, policy=Watching, profile=profile(engine(**settings)))
    return run, list(Watching.seen)


@st.composite
def trees(draw: st.DrawFn) -> ds.Workload:
    """Up to 25 turns of a few sessions, with forks, joins, turns that fail, and requests of no session."""
    count = draw(st.integers(2, 25))
    parents: list[list[int]] = []
    names: list[str | None] = []
    for row in range(count):
        before = sorted(draw(st.sets(st.integers(0, row - 1), max_size=2))) if row else []
        name = names[before[0]] if before else draw(st.sampled_from([None, "a", "b", "c"]))
        before = [one for one in before if names[one] == name]
        parents.append(before)
        names.append(name)
    gaps = draw(st.lists(st.sampled_from([0.0, 0.013, 1.0]), min_size=count, max_size=count))
    outputs = draw(st.lists(st.integers(1, 30), min_size=count, max_size=count))
    prompts = draw(st.lists(st.sampled_from([7, 8, 20, 900]), min_size=count, max_size=count))
    offsets = [0.11 * row for row in range(count)]
    return sessions(parents, gaps, outputs, session=names, prompt_tokens=prompts, offset_s=offsets)


def ended(run: ds.Trace, session: str, before: float) -> Iterator[Any]:
    rows = run.requests
    own = rows[(rows["session"] == session) & (rows["finish_s"] < before) & (rows["output_tokens"] > 0)]
    return own.itertuples()


@given(trees())
def test_a_job_knows_the_service_of_the_turns_that_have_ended_and_of_no_others(made: ds.Workload) -> None:
    run, seen = watched(made, max_num_seqs=2)
    numbers = dict(zip(made.table["request_id"], turn_numbers(made.table).tolist(), strict=True))
    names = made.table.set_index("request_id")["session"].fillna("")
    assert {sight.id for sight in seen} == set(run.requests["request_id"])
    for sight in seen:
        assert (sight.session, sight.turn) == (names[sight.id], numbers[sight.id])
        least, most = (list(ended(run, sight.session, sight.now + slack)) for slack in (-1e-9, 1e-9))
        for own, field in ((sight.prompt_served, "prompt_tokens"), (sight.output_served, "output_tokens")):
            low, high = (sum(getattr(row, field) for row in rows) for rows in (least, most))
            assert (low <= own <= high) if sight.session else own == 0


@settings(max_examples=settings().max_examples // 2)
@given(trees(), st.data())
def test_an_output_that_is_still_to_come_changes_nothing_that_was_seen_before(
    made: ds.Workload, data: st.DataObject
) -> None:
    run, seen = watched(made, max_num_seqs=2)
    row = data.draw(st.integers(0, len(made) - 1))
    name = made.table["request_id"][row]
    other = made.table.assign(output_tokens=made.table["output_tokens"].where(made.table.index != row, 40))
    again, seen_again = watched(ds.Workload(made.info, other), max_num_seqs=2)
    ends = [one.requests.set_index("request_id")["finish_s"].get(name, float("inf")) for one in (run, again)]
    until = min(end if end == end else float("inf") for end in ends)
    early, early_again = ([sight for sight in one if sight.now < until - 1e-9] for one in (seen, seen_again))
    assert early == early_again


def test_turns_that_failed_count_with_what_they_got() -> None:
    admission = ds.Admission()
    dispatcher = Dispatcher(make_policy("fifo"), make_estimator("static", admission, {}), admission)

    def sent(name: str, session: str = "s") -> ds.Job:
        request = ds.Request(name, "a", ds.Tier.STANDARD, "", 0.0, 100, None, 64, session=session)
        return dispatcher.arrive(request, "short_qa", 0.0)

    jobs = [sent("r0"), sent("r1"), sent("r2"), sent("r3", session="")]
    dispatcher.release(9, 0.0)
    dispatcher.finished(
        [Departure(jobs[0], 7, False, output_tokens=7), Departure(jobs[3], 9, False, output_tokens=9)], 1.0
    )
    dispatcher.finished([Departure(jobs[1], None, True, output_tokens=3), Departure(jobs[2], None, True)], 2.0)
    after = sent("r4")
    assert (after.prompt_served, after.output_served) == (200, 10)
    others = [sent("r5", session="t"), sent("r6", session=""), *jobs]
    assert {(one.prompt_served, one.output_served) for one in others} == {(0, 0)}


def test_least_attained_service_lets_the_session_that_got_less_go_first() -> None:
    """Two sessions with their second turns waiting for one slot: the shorter first turn decides, not the arrival."""
    made = sessions(
        [[], [], [0], [1], []], [0.0, 0.0, 0.05, 0.1, 0.0], [60, 5, 3, 3, 100],
        session=["long", "short", "long", "short", None], offset_s=[0.0, 0.0, 0.0, 0.0, 0.61],
    )  # fmt: skip
    run, _ = watched(made, max_num_seqs=1)
    order = run.requests.sort_values("dispatch_index")["request_id"].tolist()
    assert order == ["r0", "r1", "r4", "r3", "r2"]
    fifo = ds.simulate(made, policy="fifo", profile=profile(engine(max_num_seqs=1))).requests
    assert fifo.sort_values("dispatch_index")["request_id"].tolist() == ["r0", "r1", "r4", "r2", "r3"]


def test_the_example_serves_the_session_first_that_got_least_in_weighted_tokens() -> None:
    """Three sessions whose second turns wait for one slot: 100 + 2 x 4, 4 + 2 x 60 and 80 + 2 x 5 tokens so far."""
    tree = ast.parse((ROOT / "examples" / "session_policy.py").read_text())
    shown = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    names: dict[str, Any] = {"ds": ds}
    exec(compile(ast.Module([shown], []), "example", "exec"), names)
    made = sessions(
        [[], [], [], [], [0], [1], [2]], [0.0] * 4 + [0.01] * 3, [4, 60, 5, 200, 1, 1, 1],
        session=["a", "b", "c", None, "a", "b", "c"], prompt_tokens=[100, 4, 80, 8, 8, 8, 8], offset_s=[0.0] * 7,
    )  # fmt: skip
    run = ds.simulate(made, policy=names["LeastAttainedSession"], profile=profile(engine(max_num_seqs=1)))
    assert run.requests.sort_values("dispatch_index")["request_id"].tolist()[4:] == ["r6", "r4", "r5"]


def test_requests_of_no_session_have_none() -> None:
    made = ds.replay(ds.read("traces/smollm2-cpu-drift"))
    request = made.requests()(0, 0.0)
    assert (request.session, request.turn) == ("", 0)


@pytest.mark.parametrize("named", [True, False])
def test_a_session_without_parents_counts_its_turns_by_arrival(named: bool) -> None:
    table = pd.DataFrame({"session": ["a", "b", "a"] if named else None, "parent": [[], [], []]})
    assert turn_numbers(table).tolist() == ([1, 1, 2] if named else [0, 0, 0])
