"""The shape of the package: imports point upwards, heavy libraries stay where they belong, adding a policy is short."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "driftsim"
LAYERS = [
    {"request", "trace"},
    {"classify", "accounting", "admission", "estimators", "policies", "topics", "workload", "latency", "metrics"},
    {"dispatcher"},
    {"engine", "live"},
    {"scenario"},
    {"run"},
    {"compare", "calibrate"},
    {"answer"},
    {"plots", "report"},
    {"cli"},
]
ONLY_IN = {
    "simpy": {"engine", "run"},
    "vllm": {"live"},
    "psutil": {"live"},
    "torch": {"live"},
    "matplotlib": {"plots"},
    "jinja2": {"report"},
    "typer": {"cli"},
    "rich": {"cli"},
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
    for kind in ("Fifo", "Priority", "Sjf", "Aging"):
        uses = [line for line in source.splitlines() if kind in line and '"""' not in line]
        assert len(uses) == 2 if kind != "Fifo" else 3  # the class, its line in POLICIES (and stock's)
    elsewhere = [path for _, path in modules() if path.name != "policies.py" and "Sjf" in path.read_text()]
    assert elsewhere == []
