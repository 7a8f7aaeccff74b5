"""Rows of a sweep differ where their runs differ: traces, profiles, lists, tables, plug-ins."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftsim.simulation.dotted import nested
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sweeps import cautions, results
from driftsim.sweeps import rows as reading
from driftsim.sweeps.asked import Task, parameters
from driftsim.sweeps.naming import shortest, with_names
from driftsim.sweeps.store import Store
from driftsim.sweeps.tasks import Inputs, spec_key
from tests.commands import driftsim
from tests.strategies import engine, profile, workload

TRACED: dict[str, list[Any]] = {
    "trace": ["a/t", "b/t", "c"],
    "profile": [None, "p.json", "x/p.json", "own"],
    "rate_scale": [1.0, 2.0],
    "requests": [None, 5],
    "arrivals": [
        None,
        {"kind": "backlog"},
        {"kind": "poisson", "rate": 2.0},
        {"kind": "gamma", "rate": 2.0, "cv": 2.0},
        {"kind": "poisson", "rate": 2.0, "max_outstanding": 3},
        {"kind": "closed", "users": 3, "think_s": 1.0},
    ],
}
LAWS: list[Any] = [
    9,
    {"kind": "uniform", "high": 9},
    {"kind": "uniform", "high": 9, "low": 2},
    {"kind": "empirical", "values": [1, 2, 9]},
    {"kind": "empirical", "values": [1, 3, 9]},
]
CHAT, JOBS = {"name": "chat", "share": 2}, {"name": "jobs", "category": "report", "output_tokens": 7}
DRAWN: dict[str, list[Any]] = {
    "workload.kind": ["poisson", "gamma"],
    "workload.rate": [1.0, 2.0],
    "workload.cv": [3.0, 2.0],
    "workload.requests": [5, 6],
    "workload.prompt_tokens": LAWS,
    "workload.output_tokens": LAWS,
    "workload.tenants": [
        [],
        [CHAT],
        [CHAT, JOBS],
        [JOBS, CHAT],
        [CHAT | {"tier": "gold"}, JOBS],
        [CHAT | {"trace": "a/t"}],
        [CHAT | {"trace": "b/t"}],
    ],
    "profile": ["p.json", "x/p.json"],
}
COMMON: dict[str, list[Any]] = {
    "policy": ["fifo", "sjf"],
    "estimator": ["static", "ema"],
    "admission": [
        {},
        {"alpha": 0.2},
        {"base_table": {"short_qa": 64.0}},
        {"base_table": {"short_qa": 64.0, "x": 2.0}},
        {"safety": {"premium": 2.0}},
        {"clamp_at_max_tokens": True},
    ],
    "engine": [{}, {"kv_blocks": 100}, {"kv_blocks": 200}, {"assumed": ["a", "b"]}, {"assumed": ["a"]}],
    "max_in_flight": [None, 4],
    "tiers": [
        [],
        ["gold", "tin"],
        ["tin", "gold"],
        [{"name": "gold", "weight": 2}, "tin"],
        ["gold,tin"],
        ["gold", "tin", "x"],
        [{"name": "gold", "safety": 2.0}, "tin"],
        [{"name": "gold", "max_in_flight": 2}, "tin"],
    ],
    "refill_lag": [True, False],
    "noise": [False, True],
    "barrier": [None, {}, {"fill_s": 0.02}, {"batch_size": 8}],
    "phase": ["all", "second"],
    "steps": [False, True],
    "seed": [0, 1],
    "replication": [0, 1],
}


def digest_of(path: object) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()


def row_of(spec: ScenarioSpec) -> dict[str, Any]:
    """What a sweep would say of a run of ``spec``; paths hold different contents."""
    inputs = Inputs(digests={path: digest_of(path) for path in spec.traces})
    inputs.fits[spec.trace, spec.profile] = digest_of((spec.profile or spec.trace, "profile"))
    task = Task(spec_key(spec, inputs), spec, spec.source_digest(inputs.digests), inputs.fits[spec.trace, spec.profile])
    return {"key": task.key, **parameters(task)}


def spec_of(flat: dict[str, Any]) -> ScenarioSpec:
    return ScenarioSpec.model_validate(nested({name: value for name, value in flat.items() if value is not None}))


def plainest(known: dict[str, list[Any]]) -> dict[str, Any]:
    return {name: values[0] for name, values in known.items()}


@st.composite
def specs(draw: st.DrawFn) -> ScenarioSpec:
    """A run that differs from the plainest in up to four keys, so that pairs differ in few."""
    known = (DRAWN if draw(st.booleans()) else TRACED) | COMMON
    names = draw(st.lists(st.sampled_from(sorted(known)), max_size=4, unique=True))
    return spec_of(plainest(known) | {name: draw(st.sampled_from(known[name])) for name in names})


def check_that_they_are_told_apart(one: ScenarioSpec, other: ScenarioSpec) -> None:
    table = with_names(pd.DataFrame([row_of(one), row_of(other)]))
    differing = reading.varying(table)
    if table["key"].nunique() == 1:
        assert not differing
        return
    assert differing, (one, other)
    shown = table[differing].astype(object).where(table[differing].notna(), "none").astype(str)
    assert len(shown.drop_duplicates()) == 2


@pytest.mark.parametrize("known", [TRACED | COMMON, DRAWN], ids=["replayed", "drawn"])
def test_two_values_of_any_key_are_told_apart(known: dict[str, list[Any]]) -> None:
    base = plainest(known)
    for name, values in known.items():
        for one, other in itertools.combinations(values, 2):
            check_that_they_are_told_apart(spec_of(base | {name: one}), spec_of(base | {name: other}))


@settings(max_examples=50, deadline=None)
@given(specs(), specs())
def test_runs_of_two_keys_differ_in_a_column_that_is_shown(one: ScenarioSpec, other: ScenarioSpec) -> None:
    check_that_they_are_told_apart(one, other)


def test_the_key_of_a_run_is_what_it_was_before_rows_had_names() -> None:
    spec = ScenarioSpec(trace="a/t", policy="sjf", replication=1)
    assert spec.key("t" * 64, "p" * 64) == "734db132bc1628335667df2057f15871"


def test_a_name_is_the_shortest_end_of_the_path_that_no_other_has() -> None:
    assert shortest(["x/a/t", "x/b/t", "x/c"]) == {"x/a/t": "a/t", "x/b/t": "b/t", "x/c": "c"}
    assert shortest(["t", "a/t", "./a/../t"]) == {"t": "t", "a/t": "a/t", "./a/../t": "t"}
    assert shortest(["", "."]) == {"": "", ".": "."}


def test_one_name_is_one_content_and_old_rows_have_the_beginning_of_the_digest() -> None:
    first, second, profile_ = (digest_of(name) for name in "abp")
    base = {"failed": False, "policy": "fifo", "profile_digest": profile_}
    changed = with_names(
        pd.DataFrame(
            [
                {"key": "1", **base, "trace": "x/t", "trace_digest": first, "profile": "own"},
                {
                    "key": "2",
                    **base,
                    "trace": "x/t",
                    "trace_digest": second,
                    "profile": "own",
                },  # the folder was written anew
                {"key": "3", **base, "trace": "/old/x/t", "trace_digest": first, "profile": "own"},
            ]
        )
    )
    assert changed["trace"].tolist() == [f"t ({first[:8]})", f"t ({second[:8]})", f"t ({first[:8]})"]
    assert set(changed["profile"]) == {"own"}
    old = with_names(
        pd.DataFrame([{"key": "1", **base, "trace_digest": first}, {"key": "2", **base, "trace_digest": second}])
    )
    assert old["trace"].tolist() == [first[:8], second[:8]]
    assert set(old["profile"]) == {profile_[:8]}
    assert reading.varying(old) == ["trace"]
    refitted = changed.assign(trace="t", trace_digest=first, profile_digest=[first, second, first])
    assert with_names(refitted)["profile"].nunique() == 2


def test_a_later_part_of_a_store_may_have_keys_that_the_first_had_not(tmp_path: Path) -> None:
    later: list[dict[str, Any]] = [{}, {"engine.kv_blocks": 100}, {"engine.kv_blocks": "few"}]
    for number, more in enumerate(later):
        with Store.open(tmp_path / "s", create=True) as store:
            store.append(
                [{"key": str(number), "failed": False, "policy": "fifo", **more, "offered": 1, "e2e_mean_s": 1.0}]
            )
    table = Store.open(tmp_path / "s").table()
    assert reading.varying(table) == ["engine.kv_blocks"]
    with Store.open(tmp_path / "s") as store:  # one journal with both kinds
        store.append(
            [
                {"key": f"x{number}", "failed": False, "engine.a": value}
                for number, value in enumerate([1, "b", None, [2]])
            ]
        )
    assert Store.open(tmp_path / "s").table()["engine.a"].dropna().tolist() == ["1", "b", "[2]"]


def test_tiers_are_one_column_unless_one_key_of_them_differs() -> None:
    def shown(*tiers: list[Any]) -> list[str]:
        made = [row_of(ScenarioSpec.model_validate({"trace": "a/t", "tiers": rules})) for rules in tiers]
        return reading.varying(pd.DataFrame(made))

    assert shown(["gold", "tin"], ["tin", "gold"]) == ["tiers"]
    assert shown([{"name": "gold", "max_in_flight": 1}, "tin"], [{"name": "gold", "max_in_flight": 2}, "tin"]) == [
        "tiers.gold.max_in_flight"
    ]


# -- a real sweep over two traces and two profiles of one name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a grid over traces a/t and b/t, the latter far slower, and over profiles of one file name."""
    folder = tmp_path_factory.mktemp("two")
    known = profile(engine(max_num_seqs=2))
    for name, gap in (("a", 0.3), ("b", 0.02)):
        draw = np.random.default_rng(3)
        made = workload(
            np.cumsum(draw.exponential(gap, 30)).tolist(),
            draw.integers(1, 40, 30).tolist(),
            predicted_category=["short_qa"] * 30,
            prompt_tokens=draw.integers(4, 12, 30),
        )
        simulate(Scenario(profile=known), made, record_steps=True).write(folder / name / "t")
        known.changed(intercept_s=known.intercept_s * (1 + (name == "b"))).save(folder / name / "p.json")
    (folder / "g.toml").write_text(
        'replications = 4\n[grid]\ntrace = ["a/t", "b/t"]\nprofile = ["a/p.json", "b/p.json"]\n'
        'policy = ["fifo", "sjf"]\nestimator = ["static", "oracle"]\n'
    )
    assert driftsim("sweep", folder / "g.toml", "--store", folder / "s", "--jobs", 1).returncode == 0
    return folder


def test_traces_and_profiles_are_columns_that_every_view_knows(place: Path) -> None:
    def shown(*arguments: str) -> pd.DataFrame:
        out = driftsim("show", place / "s", "--metrics", "e2e_mean_s", "--json", *arguments)
        assert out.returncode == 0, out.stderr
        return pd.DataFrame(json.loads(out.stdout)["rows"])

    table = Store.open(place / "s").table()
    assert set(table["trace"]) == {"a/t", "b/t"}
    assert set(table["profile"]) == {"a/p.json", "b/p.json"}
    whole = shown()
    assert len(whole) == 16
    assert set(whole["runs"]) == {7}  # the trace as recorded, and 3 resamples of each kind
    grouped = shown("--group", "trace,profile").set_index(["trace", "profile"])["e2e_mean_s"]
    own = table[(table["trace"] == "b/t") & (table["profile"] == "a/p.json")]["e2e_mean_s"].mean()
    assert grouped["b/t", "a/p.json"] == pytest.approx(own)
    assert grouped["b/t", "b/p.json"] > grouped["a/t", "a/p.json"]
    assert shown("--where", "trace=b/t", "--group", "trace")["runs"].tolist() == [56]
    assert list(shown("--pivot", "profile,trace")) == ["profile", "a/t", "b/t"]
    paired = shown("--paired", "trace=a/t/trace=b/t").iloc[0]
    assert paired["pairs"] == 56
    assert paired["change"] > 0


def test_the_best_of_each_group_of_any_column_and_how_many_are_as_good(place: Path) -> None:
    def best(metric: str, group: str = "trace,profile") -> pd.DataFrame:
        out = driftsim("show", place / "s", "--best", metric, "--group", group, "--json")
        assert out.returncode == 0, out.stderr
        return pd.DataFrame(json.loads(out.stdout)["rows"])

    found = best("e2e_mean_s")
    assert found[["trace", "profile"]].to_numpy().tolist() == [
        [t, p] for t in ("a/t", "b/t") for p in ("a/p.json", "b/p.json")
    ]
    assert set(found["policy"]) <= {"sjf", "fifo"}
    assert set(best("kendall_tau")["estimator"]) == {"oracle"}  # the larger is the better
    assert set(best("mae")["estimator"]) == {"oracle"}
    assert len(best("e2e_mean_s", "p99_flagged")) == 1
    # FIFO orders by no estimate: with both estimators it is the same run, which cannot be told apart.
    fifo = driftsim(
        "show", place / "s", "--where", "policy=fifo", "--best", "e2e_mean_s", "--group", "trace,profile", "--json"
    )
    assert {row["as_good"] for row in json.loads(fifo.stdout)["rows"]} == {1.0}
    assert (
        "Best is the largest kendall_tau; as_good counts other settings"
        in driftsim("show", place / "s", "--best", "kendall_tau").stdout
    )


def test_as_good_is_the_paired_interval_of_the_difference() -> None:
    from driftsim.sweeps.best import best_settings

    draw = np.random.default_rng(0)
    day = draw.normal(0, 50, 12)  # what all settings share: it cancels in pairs
    made = [
        {
            "key": f"{name}{number}",
            "policy": name,
            "replication": number,
            "e2e_mean_s": 100 + mean + day[number] + draw.normal(0, 1),
        }
        for name, mean in (("fifo", 0.0), ("sjf", 0.1), ("aging", 30.0), ("priority", 0.2))
        for number in range(12)
    ]
    found = best_settings(pd.DataFrame(made), [], "e2e_mean_s").iloc[0]
    assert found["policy"] != "aging"
    assert found["as_good"] == 2
    short = [row for row in made if row["replication"] < 2]  # a recorded run and one resample: nobody can say
    assert np.isnan(best_settings(pd.DataFrame(short), [], "e2e_mean_s").iloc[0]["as_good"])
    once = [row for row in made if row["replication"] < 1]
    assert "as_good" not in best_settings(pd.DataFrame(once), [], "e2e_mean_s")


def test_what_a_mean_is_over_is_said(place: Path) -> None:
    told = driftsim("show", place / "s", "--group", "policy").stdout
    assert "Means over trace, profile, estimator as well: --group shows them apart." in told
    assert "Means over" not in driftsim("show", place / "s").stdout
    document = json.loads(driftsim("show", place / "s", "--pivot", "trace,policy", "--json").stdout)
    assert document["averaged_over"] == ["profile", "estimator"]
    alike = pd.DataFrame(
        [
            {"key": "1", "policy": "fifo", "seed": 1},
            {"key": "2", "policy": "fifo", "seed": 1},
            {"key": "3", "policy": "fifo", "seed": 2},
        ]
    )
    assert reading.untold(alike) == 1


# -- warnings


def test_warnings_travel_with_the_rows_and_are_shown_once(place: Path, tmp_path: Path) -> None:
    table = Store.open(place / "s").table()
    assert table["warnings"].str.contains("P99 rests on 30 finished requests, fewer than 300").all()
    told = driftsim("show", place / "s", "--csv", tmp_path / "rows.csv").stdout
    assert told.count("Warning, 112 of 112 runs: P99 rests on 30 finished requests, fewer than 300.") == 1
    document = json.loads(driftsim("show", place / "s", "--json").stdout)
    assert {"text": "P99 rests on 30 finished requests, fewer than 300", "runs": 112} in document["warnings"]
    assert pd.read_csv(tmp_path / "rows.csv")["warnings"].tolist() == table["warnings"].tolist()


def test_warnings_that_differ_in_numbers_are_one_and_many_are_counted() -> None:
    texts = [f"simulated up to {number:,} KV tokens" for number in (900, 1900, 1900)]
    found = cautions.collected(pd.DataFrame({"warnings": [*texts, "", None]}))
    assert found == [cautions.Caution("simulated up to 1,900 KV tokens", 3, True)]
    assert cautions.lines(found, 5) == ["Warning, 3 of 5 runs: simulated up to 1,900 KV tokens (numbers differ)."]
    many = [cautions.Caution("x" * number, 1, False) for number in range(1, 12)]
    assert len(cautions.lines(many, 5)) == 9
    assert cautions.lines(many, 5)[-1].startswith("3 more warnings")


def test_a_run_says_that_it_is_extrapolated_and_who_was_turned_away(place: Path, tmp_path: Path) -> None:
    from driftsim.latency.profile import Coverage, load_profile

    seen = Coverage(running=1, context_tokens=20, prefill_tokens=8)
    load_profile(place / "a" / "p.json").changed(seen=seen, warnings=("it is a guess",)).save(tmp_path / "p.json")
    (tmp_path / "g.toml").write_text(
        f'[base]\ntrace = "{place}/b/t"\nprofile = "p.json"\n[grid]\n"engine.max_model_len" = [8, 64]\n'
    )
    assert driftsim("sweep", tmp_path / "g.toml", "--store", tmp_path / "s", "--jobs", 1).returncode == 0
    table = Store.open(tmp_path / "s").table().set_index("engine.max_model_len")["warnings"]
    assert table.str.contains("it is a guess").all()
    assert "of 30 requests never fit this engine and were rejected" in table[8]
    assert "rejected" not in table[64]
    assert table.str.contains("requests at once, but the profile has seen 1: it is extrapolated").any()


# -- stores that are odd


ODD: dict[str, list[dict[str, Any]]] = {
    "one row": [{"policy": "fifo", "e2e_mean_s": 1.0, "e2e_p99_s": 2.0}],
    "all empty": [{"policy": name, "e2e_mean_s": None, "e2e_p99_s": float("nan")} for name in ("fifo", "sjf")],
    "infinite": [{"policy": name, "e2e_mean_s": float("inf"), "e2e_p99_s": float("-inf")} for name in ("fifo", "sjf")],
    "mixed": [
        {
            "policy": "fifo",
            "rate_scale": 1.0,
            "trace": "a/t",
            "trace_digest": "a" * 64,
            "profile_digest": "p" * 64,
            "e2e_mean_s": 1.0,
        },
        {
            "policy": "sjf",
            "workload.kind": "poisson",
            "workload.rate": 2.0,
            "trace_digest": "b" * 64,
            "profile_digest": "p" * 64,
            "e2e_mean_s": 2.0,
        },
        {"policy": True, "engine.x": [1, 2], "noise": "yes", "e2e_mean_s": 2.0},
        {"policy": 3, "engine.x": 5, "noise": False, "barrier.batch_size": 8, "e2e_mean_s": 0.0, "e2e_p99_s": 0.0},
    ],
    "failed": [
        {"policy": "fifo", "e2e_mean_s": 1.0},
        {"policy": "sjf", "failed": True, "error": "no"},
        {"policy": "x", "failed": True},
    ],
    "no policy": [{"e2e_mean_s": 1.0}, {"e2e_mean_s": 2.0}],
    "no results": [{"policy": "fifo"}],
    "all failed": [{"policy": "fifo", "failed": True, "error": "no"}],
}
VIEWS = (
    (),
    ("--group", "policy"),
    ("--group", "policy,policy"),
    ("--group", "e2e_mean_s"),
    ("--group", "failed"),
    ("--pivot", "policy,rate_scale"),
    ("--pivot", "engine.x,policy"),
    ("--best", "e2e_mean_s"),
    ("--best", "e2e_mean_s", "--group", "policy"),
    ("--best", "policy"),
    ("--best", "rate_scale"),
    ("--best", "absent"),
    ("--paired", "policy=fifo/policy=sjf"),
    ("--where", "policy!=sjf"),
    ("--metrics", "policy"),
    ("--metrics", "rate_scale"),
    ("--metrics", ","),
    ("--where", "failed=True"),
    ("--where", "failed!=False"),
    ("--where", "engine.x=none"),
    ("--where", "rate_scale>0.5"),
    ("--csv", "rows.csv"),
    ("--figures", "figures"),
    ("--json",),
)


@pytest.mark.parametrize("name", ODD)
def test_no_view_of_an_odd_store_ends_in_a_traceback_or_prints_nan(name: str, tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", create=True) as store:
        store.append([{"key": f"{number:032x}", "failed": False, **row} for number, row in enumerate(ODD[name])])
    for view in VIEWS:
        arguments = [str(tmp_path / one) if one in ("rows.csv", "figures") else one for one in view]
        run = driftsim("show", tmp_path / "s", *arguments)
        assert run.returncode in (0, 2), (view, run.stderr)
        assert not run.returncode or not (tmp_path / "rows.csv").exists(), view
        (tmp_path / "rows.csv").unlink(missing_ok=True)
        assert "mistake in driftsim" not in run.stderr, (view, run.stderr)
        assert len(run.stderr.splitlines()) <= 1, (view, run.stderr)
        words = set(run.stdout.lower().replace("|", " ").split())
        assert not words & {"nan", "inf", "-inf", "<na>"}, (view, run.stdout)


def test_a_metric_without_a_value_is_said(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", create=True) as store:
        store.append([{"key": f"{number:032x}", "failed": False, **row} for number, row in enumerate(ODD["all empty"])])
    assert (
        "column 'e2e_mean_s' is empty in all 2 runs" in driftsim("show", tmp_path / "s", "--best", "e2e_mean_s").stderr
    )
    assert "no column 'absent'" in driftsim("show", tmp_path / "s", "--best", "absent").stderr


def test_conditions_know_paths_truths_and_what_is_empty() -> None:
    table = pd.DataFrame(
        {
            "key": ["1", "2", "3"],
            "trace": ["a=b/t", "c", None],
            "noise": [True, False, False],
            "max_in_flight": [4, np.nan, np.nan],
        }
    )
    assert reading.where(table, ["trace=a=b/t"])["key"].tolist() == ["1"]
    assert reading.where(table, ["noise=true"])["key"].tolist() == ["1"]
    assert reading.where(table, ["max_in_flight=none"])["key"].tolist() == ["2", "3"]
    assert reading.where(table, ["max_in_flight!=none"])["key"].tolist() == ["1"]
    assert reading.where(table, ["trace!=c"])["key"].tolist() == ["1", "3"]
    assert reading.where(table, ["trace>b"])["key"].tolist() == ["2"]
    with pytest.raises(ValueError, match="give two settings"):
        results.view(table, ["key"], paired="trace=c")


ALIKE: dict[str, Any] = {"policy": "sjf", "engine.x": 1, "noise": True, "rate_scale": 1, "seed": 3, "e2e_mean_s": 1.0}
PARTS = (  # of one store; what one part has alike, or not at all, another may have otherwise
    [ALIKE | {"policy": "fifo", "mae": 1.0}, ALIKE | {"policy": "fifo", "e2e_mean_s": 2.0}],
    [ALIKE | {"engine.x": "1", "noise": 1, "rate_scale": 1.0, "warnings": "slow"}],
    [ALIKE | {"rate_scale": None, "phase": "all"}, {"policy": "sjf", "failed": True, "error": "no", "reproduce": "do"}],
)


@pytest.mark.parametrize("journals", [0, 1])
def test_a_view_is_the_same_whether_or_not_all_columns_were_read(
    tmp_path: Path, journals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers = [Store.open(tmp_path / "s", create=True) for _ in PARTS]
    for number, (driver, rows) in enumerate(zip(drivers, PARTS, strict=True)):
        driver.append([{"key": f"{place}{number:031x}", "failed": False, **row} for place, row in enumerate(rows)])
    for driver in drivers[journals:]:
        driver.close()
    shown, views = [], VIEWS[:: 1 + 3 * journals]
    for _ in range(2):
        runs = [driftsim("show", tmp_path / "s", *view) for view in views if not {"--csv", "--figures"} & {*view}]
        shown.append([(run.returncode, run.stdout, run.stderr) for run in runs])
        monkeypatch.setattr(reading, "needed", lambda columns, named: columns)
    assert shown[0] == shown[1]
    for driver in drivers[:journals]:
        driver.close()


def test_a_view_reads_what_it_shows_and_what_differs_between_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        with Store.open(tmp_path / "s", create=True) as store:
            told = {
                "engine.x": number,
                "noise": True,
                "policy": "sjf",
                "e2e_mean_s": 1.0,
                "jain_index": 1.0,
                "mae": 2.0,
            }
            store.append([{"key": f"{place}{number:031x}", "failed": False, **told} for place in range(3)])
    read = list[str]()
    whole = pd.read_parquet

    def noted(file: Path, columns: list[str]) -> pd.DataFrame:
        read.extend(columns)
        return whole(file, columns=columns)

    monkeypatch.setattr(pd, "read_parquet", noted)
    assert driftsim("show", tmp_path / "s").returncode == 0
    assert set(read) == {"key", "failed", "policy", "engine.x", "e2e_mean_s", "mae"}
    read.clear()
    assert driftsim("show", tmp_path / "s", "--metrics", "jain_index", "--where", "noise=true").returncode == 0
    assert {"noise", "jain_index"} <= set(read)
