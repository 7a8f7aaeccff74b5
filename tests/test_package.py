"""What a wheel holds: every file that the code reads is in it, and the demo runs from the package alone."""

from __future__ import annotations

import re
import tomllib
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

import driftsim as ds
from tests.commands import driftsim

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "driftsim"


def test_every_file_of_the_package_is_packaged() -> None:
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["driftsim"]
    packaged = {path for glob in globs for path in PACKAGE.glob(glob) if path.is_file()}
    needed = {
        path
        for path in [*PACKAGE.rglob("*"), *PACKAGE.glob("sample/*/*")]
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert packaged == needed
    assert any(path.name == "requests.parquet" for path in packaged)


def test_the_sample_is_the_shipped_trace(shipped: Path) -> None:
    assert ds.sample().digest == ds.read(shipped).digest


def stored() -> pd.DataFrame:
    """What the demo's ``rows.csv`` should be."""
    return pd.read_csv(ROOT / "experiments" / "which_scheduler" / "rows.csv")


def test_demo_compares_the_sample_and_writes_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = partial(ds.compare, replications=3)
    monkeypatch.setattr("driftsim.api.compare", few)  # the numbers of the run itself need no resamples
    run = driftsim("demo", "--out", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert "smollm2-cpu-drift, simulated" in run.stdout
    assert (tmp_path / "out" / "report.html").is_file()
    rows, known = pd.read_csv(tmp_path / "out" / "rows.csv"), stored()
    assert list(rows) == list(known)
    own = [name for name in map(str, known) if not re.search(r"_(expected|low|high)(_s)?$|_vs_fifo$", name)]
    assert {"policy", "estimator", "mae", "kendall_tau", "e2e_mean_s", "e2e_mean_vs_fifo_this_run"} <= set(own)
    pd.testing.assert_frame_equal(rows[own], known[own], rtol=1e-6)
    assert "does nothing here" in driftsim("demo", "--path", "--out", tmp_path).stderr
    assert Path(driftsim("demo", "--path").stdout.strip()).name == "smollm2-cpu-drift"


def test_every_number_of_two_schedulers_is_as_stored_intervals_among_them() -> None:
    rows, known = ds.compare(ds.sample(), policies=["fifo", "sjf"], estimators=["static"], jobs=1).frame(), stored()
    own = known[known["policy"].isin(["fifo", "sjf"]) & (known["estimator"] == "static")].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, own, rtol=1e-6, check_dtype=False)


@pytest.mark.nightly
def test_every_number_of_the_demo_is_as_stored(tmp_path: Path) -> None:
    assert driftsim("demo", "--out", tmp_path / "out").returncode == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "rows.csv"), stored(), rtol=1e-6)
