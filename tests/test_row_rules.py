"""The rules of what is read of a store: conditions, columns, files and views, of tables known by hand."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftsim.errors import InputError
from driftsim.glossary import SLO
from driftsim.sweeps.results import averaged_over, paired_change, view
from driftsim.sweeps.row_files import columns_of, read_rows, write_rows
from driftsim.sweeps.rows import column, drawn, names_in, needed, numbers, select, untold, varying, where
from driftsim.sweeps.store import MARK, Store, _columns, _lines

NAN = math.nan


# -- rows


@pytest.mark.parametrize(
    ("condition", "held"),
    [
        ("load<=1", [0]), ("load<1", []), ("load>=2", [1]), ("load>1", [1]), ("load!=1", [1, 2]), ("load=none", [2]),
        ("name=none", [1]), ("name!=none", [0, 2]), ("name=b", [2]), ("on=true", [0]), ("on=False", [1]),
    ],
)  # fmt: skip
def test_a_condition_holds_for_the_cells_that_it_says(condition: str, held: list[int]) -> None:
    table = pd.DataFrame({"load": [1.0, 2.0, NAN], "name": ["a", None, "b"], "on": [True, False, None]}, dtype=object)
    assert where(table.astype({"load": float}), [condition]).index.tolist() == held


def test_runs_that_all_failed_are_shown_to_who_asks_for_them() -> None:
    table = pd.DataFrame({"key": ["a", "b"], "failed": [True, True]})
    assert len(select(table, ["failed = true"], "s")) == 2
    with pytest.raises(InputError, match="all 2 runs failed"):
        select(table, [], "s")
    assert names_in(["a<=1", " b =2", "c"]) == ["a", "b"]


def test_a_value_that_is_not_there_is_another_value() -> None:
    assert varying(pd.DataFrame({"max_in_flight": [8.0, NAN], "seed": [1, 1], "mae": [1.0, 2.0]})) == ["max_in_flight"]
    tiers = pd.DataFrame({"tiers": ["a:1", "b:2"], "tiers.a.weight": [1.0, NAN], "tiers.b.weight": [NAN, 2.0]})
    assert varying(tiers) == ["tiers"]
    assert varying(tiers[["tiers"]]) == ["tiers"]
    assert varying(tiers[["tiers", "tiers.a.weight"]]) == ["tiers.a.weight"]


def test_a_row_that_is_told_as_another_one_is_counted_once() -> None:
    table = pd.DataFrame({"key": ["a", "b", "c"], "policy": ["fifo", "fifo", "sjf"]})
    assert untold(table) == 1
    assert untold(table[:2]) == 0


def test_a_row_with_any_key_of_a_workload_was_drawn() -> None:
    table = pd.DataFrame({"workload.kind": ["poisson", None], "workload.users": [None, None]}, dtype=object)
    assert drawn(table).tolist() == [True, False]


def test_a_view_rests_on_what_differs_and_on_how_runs_were_drawn() -> None:
    columns = {"workload.rate": False, "seed": False, "policy": True, "estimator": False, "noise": True, "mae": True}
    assert list(needed(columns, ["policy"])) == ["workload.rate", "seed", "policy", "noise"]
    assert needed(columns, ["speed"]) is columns


def test_what_is_infinite_has_no_mean_and_a_metric_is_asked_for_only_where_none_of_its_kind_is() -> None:
    assert numbers(pd.DataFrame({"x": [1.0, math.inf]}), "x").tolist() == pytest.approx([1.0, NAN], nan_ok=True)
    with pytest.raises(InputError, match="no run has SLOs"):
        column(pd.DataFrame({"key": []}), "gold_attainment")
    with pytest.raises(InputError, match="there are "):
        column(pd.DataFrame({SLO[0].name: []}), "gold_attainment")


# -- files


def test_a_column_has_one_value_where_no_row_can_have_another(tmp_path: Path) -> None:
    table = pd.DataFrame({"key": ["a", "b"], "failed": [False, False], "gap": [1.0, NAN], "same": [2.0, 2.0]})
    write_rows(table, tmp_path / "rows-1.parquet")
    told = {"key": None, "failed": (bool, False), "gap": None, "same": (float, 2.0)}
    assert columns_of(tmp_path / "rows-1.parquet") == told
    pq.write_table(
        pa.table({name: table[name].tolist() for name in told}), tmp_path / "other.parquet"
    )  # NaN counts as a value that is none
    assert columns_of(tmp_path / "other.parquet") == dict.fromkeys(told)
    parts: list[dict[str, Any]] = [{"a": None, "b": (int, 1), "c": (int, 1)}, {"b": (int, 1), "c": (int, 2)}]
    assert _columns(parts) == {"a": True, "b": False, "c": True}
    assert _columns(parts[:1]) == {"a": True, "b": False, "c": False}


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["key", "failed"], [["a", None], [False, False]]),
        (["key", "failed"], [["a", "b"], [0.0, 0.5]]),
        (["key", "failed"], [[1, 2], [False, False]]),
        (["key", "failed", "key"], [["a", "b"], [False, False], ["a", "b"]]),
        (["key", "failed", "x", "x"], [["a", "b"], [False, False], [1, 2], [3, 4]]),
    ],
)
def test_a_file_whose_rows_have_no_key_each_is_refused(names: list[str], values: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "rows-1.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(one) for one in values], names=names), file)
    with pytest.raises(InputError, match="remove the file"):
        read_rows(file, ["key", "failed"])
    assert read_rows(tmp_path / "gone.parquet", ["key"]) is None


def test_rows_are_written_whole_and_on_the_disk_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    table = pd.DataFrame({"key": ["a"], "failed": [False]})
    write_rows(table, tmp_path / "rows-1.parquet")
    assert len(synced) == 1

    def full(_: pd.DataFrame, file: Path, **__: Any) -> None:
        file.write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="no space"):
        write_rows(table, tmp_path / "rows-2.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["rows-1.parquet"]


def test_a_store_is_made_where_a_killed_driver_began_one_and_in_no_trace(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / f".{MARK}.half").touch()
    with Store.open(tmp_path / "s", create=True) as store:
        store.append([{"key": key, "failed": False} for key in "bca"])
        assert Store.open(tmp_path / "s").table()["key"].tolist() == ["a", "b", "c"]
    assert list(_lines(b"half a line", store)) == []
    assert store.torn == 1
    for name in ("header.json", "requests.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="lies in the trace"):
        Store.open(tmp_path / "other", create=True)
    assert not (tmp_path / "other").exists()


# -- views


def two(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"key": ["a", "b"], "failed": False, **columns})


def test_a_view_names_what_it_is_over() -> None:
    rows = two(policy="fifo", e2e_mean_s=[1.0, 3.0])
    assert view(rows, ["e2e_mean_s"]).to_dict("records") == [{"policy": "fifo", "e2e_mean_s": 2.0, "runs": 2}]
    rows = rows.assign(estimator=["ema", "static"], noise=[0.0, 0.5], max_in_flight=[8.0, NAN])
    assert averaged_over(rows, ["noise"]) == ["estimator", "max_in_flight"]
    pivot = view(rows, ["e2e_mean_s"], pivot="noise,max_in_flight")
    assert pivot.columns.tolist() == ["noise", 8.0, "none"]
    for wrong in ("noise", "noise,estimator,policy", "noise,noise"):
        with pytest.raises(InputError, match="give two columns"):
            view(rows, ["e2e_mean_s"], pivot=wrong)


def test_two_traces_are_paired_by_all_else() -> None:
    rows = two(trace=["one", "two"], trace_digest=["d1", "d2"], replication=0, policy="fifo", e2e_mean_s=[2.0, 3.0])
    (change,) = view(rows, ["e2e_mean_s"], paired="trace=one/trace=two").to_dict("records")
    assert (change["pairs"], change["change"]) == (1, 0.5)
    with pytest.raises(InputError, match="alike otherwise"):
        paired_change(rows, ["trace=one"], ["trace=two"], "e2e_mean_s")
