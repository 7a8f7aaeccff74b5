"""The files for CI systems: they parse, and every shell command in them does what it is there for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from driftsim.sweeps.baseline import make_baseline
from tests.test_sweep import place

__all__ = ["place"]
ROOT = Path(__file__).resolve().parent.parent
CI = ROOT / "examples" / "ci"
yaml: Any = pytest.importorskip("yaml")
GRID = """
[base]
trace = "t"
profile = "p.json"
[grid]
policy = ["fifo", "sjf"]
"""


def github() -> tuple[dict[str, str], list[str], list[str]]:
    """Variables, the commands that run, and those that run after a failure, too."""
    workflow = yaml.safe_load((CI / "github.yml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    assert steps[0]["uses"].startswith("actions/checkout@")
    assert set(workflow) == {"name", True, "env", "jobs"}  # YAML 1.1 takes the key `on` for a truth
    assert set(workflow[True]) == {"pull_request", "push"}
    uploaded = [step["with"]["path"].split() for step in steps if "upload-artifact" in step.get("uses", "")]
    assert uploaded == [["driftsim.xml", "driftsim.md"]]
    ran = [(step["run"], step.get("if")) for step in steps if "run" in step]
    return workflow["env"], [run for run, when in ran if when is None], [run for run, when in ran if when == "always()"]


def gitlab() -> tuple[dict[str, str], list[str], list[str]]:
    """The same for GitLab."""
    [job] = yaml.safe_load((CI / "gitlab.yml").read_text()).values()
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"] == {"junit": "driftsim.xml"}
    assert job["artifacts"]["paths"] == ["driftsim.md", "driftsim.xml"]
    return job["variables"], job["script"], job["after_script"]


FILES = {"github": github, "gitlab": gitlab}


def test_every_file_for_ci_is_tested() -> None:
    assert sorted(FILES) == sorted(file.stem for file in CI.glob("*.yml"))


@pytest.mark.parametrize("system", FILES)
def test_the_baseline_of_a_clone_is_there(system: str) -> None:
    variables, _, _ = FILES[system]()
    assert (ROOT / variables["BASELINE"]).is_file()


@pytest.mark.parametrize("system", FILES)
@pytest.mark.parametrize("factor", [1.0, 1.2], ids=["as it was", "worse"])
def test_every_command_of_a_file_runs(system: str, factor: float, place: Path, tmp_path: Path) -> None:
    """In a folder with a small baseline; `make` is asked for its plan, since its targets are what our own CI runs."""
    for name in ("t", "p.json"):
        (tmp_path / name).symlink_to(place / name)
    (tmp_path / "g.toml").write_text(GRID)
    made = make_baseline(tmp_path / "b.json", tmp_path / "g.toml", reason="small", jobs=1)
    runs = [
        run.changed(metrics={name: value / factor if name.endswith("_s") else value
                             for name, value in run.metrics.items()})
        for run in made.runs
    ]  # fmt: skip
    made.changed(runs=runs).save(tmp_path / "b.json")
    script(tmp_path / ".venv" / "bin" / "driftsim", f'exec "{sys.executable}" -m driftsim.cli "$@" --jobs 1')
    script(tmp_path / "bin" / "make", f'exec "{shutil.which("make")}" --dry-run --directory "{ROOT}" "$@"')
    _, commands, after = FILES[system]()
    codes = [ran(command, tmp_path) for command in commands]
    assert codes == [0, 0 if factor == 1 else 1]
    assert [ran(command, tmp_path) for command in after] == [0] * len(after)
    suite = ElementTree.parse(tmp_path / "driftsim.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("2", "0" if factor == 1 else "2")
    summary = (tmp_path / "driftsim.md").read_text()
    assert summary.startswith(f"### driftsim check {'passes' if factor == 1 else 'fails'}")
    if system == "github":
        assert (tmp_path / "summary").read_text() == summary


@pytest.mark.parametrize("system", FILES)
def test_what_runs_after_a_failure_runs_where_nothing_was_written(system: str, tmp_path: Path) -> None:
    _, _, after = FILES[system]()
    assert [ran(command, tmp_path) for command in after] == [0] * len(after)


def script(file: Path, line: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)


def ran(command: str, folder: Path) -> int:
    """The exit code of ``command``, as the systems run it."""
    found = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "BASELINE": "b.json",
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
    }  # fmt: skip
    run = subprocess.run(
        ["bash", "-e", "-c", command], cwd=folder, env={**os.environ, **found}, capture_output=True, check=False
    )
    return run.returncode
