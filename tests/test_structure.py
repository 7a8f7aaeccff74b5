"""The shape of the package: imports point upwards, heavy libraries stay where they belong, adding a policy is short."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from driftsim.compare import Comparing, Setting, compare, settings_of
from driftsim.policies import POLICIES, Keyed
from driftsim.request import Job
from driftsim.run import simulate
from tests.strategies import engine, profile, workload

PACKAGE = Path(__file__).resolve().parent.parent / "driftsim"
LAYERS = [
    {"request", "trace", "plugins"},
    {"lives"},
    {
        "classify",
        "accounting",
        "admission",
        "estimators",
        "policies",
        "topics",
        "workload",
        "latency",
        "metrics",
        "reference",
        "prompts",
    },
    {"dispatcher"},
    {"engine", "live"},
    {"scenario"},
    {"run"},
    {"extent", "firstprinciples", "lags", "regression", "measured", "validate", "importers"},
    {"judging"},
    {"timings"},
    {"calibrate"},
    {"compare", "simulating", "conformance"},
    {"store", "reading", "grid", "checking"},
    {"sweep", "cluster"},
    {"answer"},
    {"plots", "report"},
    {"validation_plots", "sweep_plots"},
    {"terminal"},
    {"capturing", "calibrating", "sweeping"},
    {"cli"},
]
ONLY_IN = {
    "simpy": {"engine", "run"},
    "vllm": {"live"},
    "psutil": {"live"},
    "torch": {"live"},
    "matplotlib": {"plots", "validation_plots", "sweep_plots"},
    "jinja2": {"report"},
    "typer": {"cli", "capturing", "calibrating", "sweeping"},
    "rich": {"cli", "capturing", "calibrating", "sweeping", "terminal"},
    "joblib": {"sweep"},
    "distributed": {"cluster"},
    "openai": {"live"},
    "pynvml": {"live"},
}


def modules() -> list[tuple[str, Path]]:
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in PACKAGE.rglob("*.py")]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(name: str) -> int:
    return next(depth for depth, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize(("name", "path"), [pair for pair in modules() if pair[0] != "__init__"])
def test_imports_point_only_upwards(name: str, path: Path) -> None:
    ours = {parts[1] for module in imports(path) if (parts := module.split("."))[0] == "driftsim"} - {"__version__"}
    assert all(layer(other) <= layer(name) for other in ours), ours
    if layer(name) == 0:
        assert not ours


@pytest.mark.parametrize(("library", "places"), ONLY_IN.items())
def test_a_heavy_library_is_known_in_its_place_alone(library: str, places: set[str]) -> None:
    users = {name for name, path in modules() if any(module.split(".")[0] == library for module in imports(path))}
    assert users <= places


def test_only_one_module_imports_vllm() -> None:
    users = [path.name for _, path in modules() if any(module.split(".")[0] == "vllm" for module in imports(path))]
    assert users == ["vllm.py"]


def test_the_live_tests_are_collected_where_vllm_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "vllm.py").write_text("raise ModuleNotFoundError('vllm')")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-m", "live", "-p", "no:cacheprovider", "tests/live"],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert run.returncode == 0, run.stdout[-2000:]


def test_help_answers_in_under_half_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-m", "driftsim.cli", "--help"], capture_output=True, text=True, check=True
        )
        assert "compare" in run.stdout
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.5


def test_adding_a_policy_takes_a_class_and_one_line() -> None:
    source = (PACKAGE / "policies.py").read_text()
    for kind in ("Priority", "Sjf", "Aging", "Weighted"):
        uses = [line for line in source.splitlines() if re.search(rf"\b{kind}\b", line) and '"""' not in line]
        assert len(uses) == 2, uses  # the class, and its line in POLICIES
        assert not [path for _, path in modules() if path.name != "policies.py" and kind in path.read_text()]


def test_a_policy_that_is_entered_joins_every_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lifo(Keyed):
        """Last in, first out."""

        def key(self, job: Job) -> float:
            return -job.request.arrival

    monkeypatch.setitem(POLICIES, "lifo", Lifo)
    made = workload([0.0, 0.0, 0.001, 0.002], [9, 9, 9, 9])
    plan = Comparing(
        profile=profile(engine(max_num_seqs=1)), settings=settings_of(POLICIES, ["static"]), replications=1
    )
    assert "lifo" in [row["policy"] for row in compare(made, plan, jobs=1).rows()]
    run = simulate(plan.scenario(Setting("lifo", "static")), made)
    assert list(run.requests["dispatch_index"]) == [0, 3, 2, 1]
