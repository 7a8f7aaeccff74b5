"""What a wheel holds: every file that the code reads is in it, and the demo runs from the package alone."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pandas as pd

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


def test_demo_compares_the_sample_and_writes_a_report(tmp_path: Path) -> None:
    run = driftsim("demo", "--out", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert "smollm2-cpu-drift, simulated" in run.stdout
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    stored = pd.read_csv(ROOT / "experiments" / "which_scheduler" / "rows.csv")
    pd.testing.assert_frame_equal(rows, stored, rtol=1e-6)
    assert "does nothing here" in driftsim("demo", "--path", "--out", tmp_path).stderr
    assert Path(driftsim("demo", "--path").stdout.strip()).name == "smollm2-cpu-drift"
