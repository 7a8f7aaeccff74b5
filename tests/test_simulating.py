"""A run that is written down: in and out of TOML and JSON, and a key that is its content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftsim.simulation.spec import ScenarioSpec, build_scenario, build_workload, dump_spec, load_spec
from driftsim.trace.trace import digest, read
from tests.commands import driftsim
from tests.strategies import profile

WHOLE = """
trace = "t"
profile = "p.json"
policy = "sjf"
estimator = "ema"
max_in_flight = 8
rate_scale = 1.5
replication = 3
seed = 7
[admission]
clamp_at_max_tokens = true
[engine]
kv_blocks = 200
[arrivals]
kind = "poisson"
rate = 2
"""


def test_the_key_is_pinned() -> None:
    assert ScenarioSpec(trace="t").key("a", "b") == "22464651ec545434e8e8e9c07c1d9554"


def test_order_and_paths_do_not_change_the_key_and_everything_else_does(tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.json"
    one.write_text(WHOLE)
    spec = load_spec(one)
    other.write_text(json.dumps(dict(reversed(json.loads(dump_spec(spec)).items()))))
    again = load_spec(other)
    assert again == spec
    key = spec.key("a", "b")
    assert again.changed(trace="elsewhere", profile="q.json", steps=True).key("a", "b") == key
    different = {spec.key("x", "b"), spec.key("a", "x")}
    for change in (
        {"policy": "fifo"}, {"estimator": "static"}, {"seed": 8}, {"replication": 4}, {"rate_scale": 1.0},
        {"max_in_flight": 9}, {"refill_lag": False}, {"noise": True}, {"requests": 5}, {"phase": "x"},
        {"engine": {"kv_blocks": 201}}, {"arrivals": None}, {"admission": spec.admission.changed(alpha=0.2)},
    ):  # fmt: skip
        different.add(spec.changed(**change).key("a", "b"))
    assert len(different | {key}) == 16


def test_numbers_that_are_equal_give_one_key() -> None:
    assert ScenarioSpec(trace="t", rate_scale=2).key("a", "b") == ScenarioSpec(trace="t", rate_scale=2.0).key("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('trace = "t"\npolcy = "fifo"', "polcy: unknown key"),
        ('trace = "t"\nrate_scale = 0', "rate_scale: Input should be greater than 0"),
        ("trace = ", "not readable as TOML"),
        ("", "give trace = FOLDER to replay or a table workload to draw"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_spec(tmp_path / "s.toml")


def test_the_command_runs_what_is_written(shipped: Path, tmp_path: Path) -> None:
    profile().save(tmp_path / "p.json")
    (tmp_path / "s.toml").write_text(
        f'trace = "{shipped}"\nprofile = "p.json"\npolicy = "sjf"\nrequests = 40\nsteps = true\n'
    )
    run = driftsim("simulate", tmp_path / "s.toml", "--out", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    made = read(tmp_path / "out")
    assert len(made.requests) == 40
    assert made.steps is not None
    assert made.header.admission["policy"] == "sjf"


def test_switches_reach_the_run(shipped: Path) -> None:
    recorded = read(shipped)
    spec = ScenarioSpec.model_validate(
        {"trace": "t", "engine": {"kv_blocks": 77}, "arrivals": {"kind": "closed", "users": 3}, "requests": 20}
    )
    assert build_scenario(spec, profile()).profile.engine.kv_blocks == 77
    made = build_workload(spec, lambda _: recorded)
    assert len(made) == 20
    assert made.info.phases[0].users == 3
    with pytest.raises(ValueError, match="engine: kv_blocks"):
        build_scenario(spec.changed(engine={"kv_blocks": 0}), profile())
    with pytest.raises(ValueError, match="engine: "):
        build_scenario(spec.changed(engine={"kv_block": 5}), profile())
    other = build_workload(spec.changed(arrivals=None, requests=None, replication=2), lambda _: recorded)
    assert list(other.table["request_id"]) != list(recorded.requests["request_id"])


def test_a_scenario_is_changed_by_dotted_keys_in_its_file_and_at_the_command(tmp_path: Path) -> None:
    trace = Path("traces/smollm2-cpu-drift").resolve()
    (tmp_path / "s.toml").write_text(f'trace = "{trace}"\n"engine.max_num_seqs" = 4\n')
    one = driftsim("simulate", tmp_path / "s.toml", "--out", tmp_path / "a", "--set", "policy=sjf")
    (tmp_path / "t.toml").write_text(f'trace = "{trace}"\npolicy = "sjf"\n[engine]\nmax_num_seqs = 4\n')
    other = driftsim("simulate", tmp_path / "t.toml", "--out", tmp_path / "b")
    assert (one.returncode, other.returncode) == (0, 0)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    for text, what in (("polcy=sjf", "polcy: unknown key; the nearest is policy"), ("policy", "expected NAME=VALUE")):
        wrong = driftsim("simulate", tmp_path / "s.toml", "--out", tmp_path / "c", "--set", text)
        assert wrong.returncode == 2
        assert what in wrong.stderr
    deep = driftsim("simulate", tmp_path / "s.toml", "--out", tmp_path / "c", "--set", "engine.kv_bloks=9")
    assert "s.toml: engine: kv_bloks: unknown key; the nearest is kv_blocks" in deep.stderr
    assert not (tmp_path / "c").exists()


def test_the_keys_of_a_scenario_are_listed_and_a_file_of_one_is_checked(tmp_path: Path) -> None:
    listed = json.loads(driftsim("scenario", "--keys", "--json").stdout)
    meanings = {entry["name"]: entry["meaning"] for entry in listed}
    assert {"policy", "admission.alpha", "workload.rate", "arrivals", "max_in_flight"} <= meanings.keys()
    assert all(meanings.values())
    (tmp_path / "s.toml").write_text('trace = "t"\npolicy = "sjf"\n')
    assert json.loads(driftsim("scenario", tmp_path / "s.toml").stdout)["policy"] == "sjf"
    for arguments in ((), ("--keys", tmp_path / "s.toml"), (tmp_path / "absent.toml",)):
        assert driftsim("scenario", *arguments).returncode == 2
