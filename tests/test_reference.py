"""Every name that a user reads or writes has a meaning, and the pages and errors take it from there."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

import driftsim as ds
from driftsim import glossary, reference
from driftsim.cli import app
from driftsim.comparison.report import flat_rows
from driftsim.errors import InputError, TraceError
from driftsim.live.telemetry import CPU_COLUMNS, GPU_COLUMNS
from driftsim.sweeps.gated import BETTER, GATED
from driftsim.trace.schema import REQUEST_COLUMNS, STEP_COLUMNS, TELEMETRY_COLUMNS
from driftsim.trace.trace import Trace
from tests.commands import driftsim
from tests.strategies import engine, profile, workload

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = """
from driftsim import Keyed

class Broken(Keyed):
    def key(self, job):
        raise RuntimeError("no")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small trace ``t`` that has all tiers, its profile and a plug-in that fails."""
    folder = tmp_path_factory.mktemp("reference")
    made = workload(
        np.arange(0.0, 0.3, 0.01).tolist(),
        [4, 9, 2] * 10,
        tier=["premium", "standard", "batch"] * 10,
    )
    known = profile(engine(max_num_seqs=2))
    ds.simulate(made, profile=known, steps=True).write(folder / "t")
    known.save(folder / "p.json")
    (folder / "broken.py").write_text(PLUGIN)
    return folder


@pytest.fixture(scope="module")
def compared(run: Path) -> ds.Comparison:
    return ds.compare(
        run / "t",
        profile=run / "p.json",
        policies=["fifo"],
        estimators=["static", "ema"],
        replications=3,
        jobs=1,
    )


@pytest.fixture(scope="module")
def swept(run: Path) -> pd.DataFrame:
    (run / "g.toml").write_text(
        'base = { trace = "t", profile = "p.json", barrier = {}, engine = { max_num_seqs = 3 } }\n'
        f'grid = {{ policy = ["fifo", "{run}/broken.py:Broken"] }}\n'
    )
    return ds.sweep(run / "g.toml", run / "store", jobs=1)


def names(table: str) -> set[str]:
    return {entry.name for entry in reference.TABLES[table]}


def names_of(*metrics: glossary.Metric) -> set[str]:
    return {metric.name for metric in metrics}


def generator() -> ModuleType:
    """``docs/generate.py``, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- the tables


@pytest.mark.parametrize("table", reference.TABLES)
def test_every_name_has_a_kind_and_a_meaning_that_is_a_sentence(table: str) -> None:
    for entry in reference.TABLES[table]:
        assert entry.kind, entry.name
        assert entry.meaning.endswith("."), entry
        assert not entry.meaning[0].islower() or ":" in entry.meaning, entry  # as in "gamma: ...", of a law's key


@pytest.mark.parametrize("table", reference.TABLES)
def test_no_name_stands_twice(table: str) -> None:
    listed = [entry.name for entry in reference.TABLES[table]]
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("table", reference.TABLES)
def test_the_unit_is_the_one_that_the_name_ends_in(table: str) -> None:
    ends = {"_s": "s", "_tokens": "tokens", "_words": "words", "_cpu": "cores", "_blocks": "blocks"}
    for entry in reference.TABLES[table]:
        for end, unit in ends.items():
            if entry.name.endswith(end) and entry.kind.startswith(("int", "float")):
                assert entry.unit == unit, entry.name


def test_the_columns_are_those_of_a_trace(run: Path) -> None:
    trace = ds.read(run / "t")
    assert trace.steps is not None
    assert list(trace.requests) == [column.name for column in REQUEST_COLUMNS]
    assert list(trace.steps) == [column.name for column in STEP_COLUMNS]
    assert [column.name for column in TELEMETRY_COLUMNS] == [*CPU_COLUMNS, *GPU_COLUMNS]


def test_the_keys_of_a_summary_are_those_of_the_glossary(run: Path) -> None:
    summary = ds.summary(ds.read(run / "t"))
    assert list(summary) == [metric.name for metric in glossary.SUMMARY]
    for tier in summary["per_tier"].values():
        assert set(tier) == names_of(*glossary.PER_TIER)


def test_the_keys_of_a_comparison_are_those_of_the_glossary(compared: ds.Comparison) -> None:
    known = names_of(*glossary.SUMMARY, *glossary.COMPARISON) - {
        "same_as_fifo",
        "per_replica",
    }  # for which no row has a reason
    for row in compared.rows():
        assert set(row) == known
    for row in flat_rows(compared):
        assert set(row) == (known | names_of(*glossary.TIERS)) - {"per_tier", "per_tenant"}


def test_the_keys_of_a_sweep_are_those_of_the_glossary_and_the_scenario(swept: pd.DataFrame) -> None:
    assert swept["failed"].tolist().count(True) == 1
    tables = {name for name in names("scenario") if name.partition(".")[0] in ("engine", "admission")}
    for name in set(map(str, swept)) - names_of(*glossary.SUMMARY, *glossary.SWEEP, *glossary.TIERS):
        assert name in names("scenario") or name.rpartition(".")[0] in tables, name
    missing = names_of(*glossary.SUMMARY, *glossary.SWEEP, *glossary.TIERS) - set(map(str, swept))
    flags = {metric.name for metric in glossary.TIERS if metric.name.endswith("p99_flagged")}  # of rows.csv alone
    assert missing == {"requests", "per_tier"} | flags


def test_a_metric_kind_is_what_the_value_is(run: Path, compared: ds.Comparison) -> None:
    kinds = {"int": int, "float": float, "bool": bool, "str": str, "table": dict}
    for row in [ds.summary(ds.read(run / "t")), *compared.rows()]:
        for name, value in row.items():
            assert type(value) is kinds[glossary.METRICS[name].kind], name


def test_the_gate_takes_its_directions_from_the_glossary() -> None:
    assert {name: glossary.METRICS[name].better for name in BETTER} == BETTER
    assert set(GATED) <= set(BETTER)
    assert BETTER["e2e_p99_s"] == BETTER["mae"] == "lower"
    assert BETTER["finished"] == BETTER["kendall_tau"] == BETTER["jain_index"] == "higher"
    assert not {"requests", "scored", "waiting_fraction", "p99_flagged"} & set(BETTER)


# -- errors


def damaged(run: Path, folder: Path, **columns: Any) -> Path:
    """A copy of the trace whose requests have other ``columns``; None takes one away."""
    trace = ds.read(run / "t")
    trace.write(folder)
    rows = trace.requests.drop(columns=[name for name, value in columns.items() if value is None])
    given = {name: value for name, value in columns.items() if value is not None}
    rows.assign(**given).to_parquet(folder / "requests.parquet")
    return folder


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"queued_s": None}, "column 'queued_s' is missing (s; when the engine's core received the request); every"),
        ({"prompt_words": "many"}, "(words; length of the prompt in words between white space); convert it"),
        ({"arival_s": 0.0}, "'arival_s' is not in schema 1 (the nearest: arrival_s, s; when the request arrived"),
        ({"bonus": 1}, "column 'bonus' is not in schema 1; remove it"),
        ({"arrival_s": np.nan}, "arrival_s is empty (NaN), s; when the request arrived at the dispatcher; every row"),
        ({"max_tokens": 1.5}, "not a whole number below 1e+09 (tokens; largest output that the request allows)"),
        ({"prompt_tokens": 0}, "remove it (prompt_tokens: tokens; length of the prompt, as the engine's tokenizer"),
    ],
)
def test_an_error_of_a_column_says_what_it_means(
    run: Path, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError) as error:
        ds.read(damaged(run, tmp_path / "t", **columns))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_error_of_a_step_says_what_it_means(run: Path) -> None:
    trace = ds.read(run / "t")
    assert trace.steps is not None
    wrong: Trace = replace(trace, steps=trace.steps.assign(duration_s=-1.0))
    with pytest.raises(TraceError, match=r"duration_s is -1\.0 \(s; completion of the step minus"):
        wrong.check("t")


# -- the verb


@pytest.mark.parametrize("table", reference.TABLES)
def test_columns_prints_every_name_of_a_table(table: str) -> None:
    out = driftsim("columns", table)
    assert out.returncode == 0
    assert all(entry.name in out.stdout for entry in reference.TABLES[table])


def test_columns_prints_all_tables_as_one_document() -> None:
    document = json.loads(driftsim("columns", "--json").stdout)
    assert list(document) == list(reference.TABLES)
    assert document["requests"][0] == {
        "name": "request_id",
        "kind": "str",
        "unit": "",
        "meaning": "Name of the request, unique in its trace.",
    }
    assert list(json.loads(driftsim("columns", "steps", "--json").stdout)) == ["steps"]


def test_columns_names_the_nearest_table() -> None:
    out = driftsim("columns", "stepz")
    assert out.returncode == 2
    assert len(out.stderr.splitlines()) == 1
    assert "unknown table 'stepz'; did you mean 'steps'? choose one of requests, steps" in out.stderr
    with pytest.raises(InputError, match=r"unknown table 'xyz'; choose one of"):
        reference.table("xyz")


def test_columns_help_names_every_table() -> None:
    out = driftsim("columns", "--help").stdout
    assert all(table in out for table in reference.TABLES)


# -- the pages


def test_the_committed_pages_are_what_the_generator_makes(tmp_path: Path) -> None:
    made = generator()
    made.write(tmp_path)
    again = made.FOLDER
    assert {file.name for file in tmp_path.iterdir()} == set(made.PAGES)
    for file in tmp_path.iterdir():
        assert (again / file.name).read_text() == file.read_text(), f"{file.name}: run docs/generate.py"


def test_the_pages_name_every_key_verb_option_and_error() -> None:
    pages = {name: make() for name, make in generator().PAGES.items()}
    for table, page in [("requests", "columns"), ("steps", "columns"), ("telemetry", "columns"), ("header", "columns"),
                        ("scenario", "scenario"), ("grid", "scenario"), ("mapping", "scenario"),
                        ("profile", "scenario")]:  # fmt: skip
        assert all(f"| `{name}` |" in pages[f"{page}.md"] for name in names(table)), table
    tiers = names_of(*glossary.TIERS)
    assert all(f"| `{name}` |" in pages["metrics.md"] for name in names("metrics") - tiers)
    verbs = [one.name or one.callback.__name__ for one in app.app.registered_commands if one.callback]
    assert [line[3:] for line in pages["cli.md"].splitlines() if line.startswith("## ")][1:] == verbs
    for option in ("--debug", "--policies", "--no-safety", "--force-lengths", "--max-error", "--retry-failed"):
        assert f"`{option}`" in pages["cli.md"]
    for text in ("### InputError", "### TraceError", "### RunError", "| 0 | Done. |", "| 3 | A mistake of driftsim"):
        assert text in pages["errors.md"]


def test_the_names_of_the_system_are_said_plainly() -> None:
    for make in generator().PAGES.values():
        text = make()
        assert "published system" not in text
        assert "the paper" not in text
