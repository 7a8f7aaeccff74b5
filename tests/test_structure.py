"""The shape of the package: imports point down, heavy libraries stay where they belong, adding a policy is short."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from driftsim.cli.app import command
from driftsim.comparison.plan import ComparisonPlan, Setting, settings_of
from driftsim.comparison.runs import compare
from driftsim.request import Job
from driftsim.scheduling.names import DEFAULT_POLICIES
from driftsim.scheduling.policies import POLICIES, STOCK, Keyed
from driftsim.simulation.run import simulate
from tests.queues import SLOS
from tests.strategies import engine, profile, workload

PACKAGE = Path(__file__).resolve().parent.parent / "driftsim"
# The storeys of the house, lowest first. A room imports lower storeys only; rooms on one storey do not know each other.
STOREYS = [
    {"errors", "statistics", "version"},
    {"text"},
    {"contrasts", "request", "records", "files", "formatting", "figures", "workers", "progress", "urls"},
    {"whose"},
    {"tiers", "slo", "tenants", "clients", "drift"},
    {"trace", "scheduling"},
    {"goodput", "rows", "sessions", "metric"},
    {"workloads", "latency", "metrics"},
    {"glossary", "formats", "outcomes", "tenancy", "costs", "estimates"},
    {"engine", "live", "by_replica"},
    {"testing"},
    {"simulation"},
    {"calibration"},
    {"comparison", "validation", "sweeps"},
    {"pressing"},
    {"sizing", "worth"},
    {"inputs", "reference"},
    {"sources"},
    {"profiles", "crowding", "running", "written", "planning", "valuing"},
    {"gateway"},
    {"api"},
    {"advice"},
    {"cli"},
]
ONLY_IN = {
    "simpy": {"engine"},
    "vllm": {"live"},
    "psutil": {"live"},
    "torch": {"live"},
    "matplotlib": {"figures", "comparison", "validation", "sweeps", "sizing", "worth"},
    "jinja2": {"comparison"},
    "typer": {"cli"},
    "rich": {"cli", "advice", "formatting", "comparison", "validation", "latency", "sweeps", "sizing", "worth"},
    "joblib": {"workers"},
    "distributed": {"sweeps"},
    "openai": {"live"},
    "pynvml": {"live"},
    "aiohttp": {"gateway"},
    "prometheus_client": {"gateway"},
}


def modules() -> dict[str, Path]:
    """Every file of the package but the door, by its dotted name below ``driftsim``."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            found[name] = path
    return found


MODULES = modules()


@cache
def imports(path: Path) -> frozenset[str]:
    """What a file imports, anywhere in it: at the top, in a function, for type checking."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def arrows(name: str) -> set[str]:
    """The modules of ours that module ``name`` imports."""
    found = set()
    for imported in imports(MODULES[name]):
        head, _, rest = imported.partition(".")
        if head == "driftsim":
            below = next((one for one in (rest, rest.rpartition(".")[0]) if one in MODULES), None)
            if below != name:
                found.add(below or "the door")
    return found


def storey(name: str) -> int:
    room = name.partition(".")[0]
    heights = [height for height, rooms in enumerate(STOREYS) if room in rooms]
    assert heights, f"{room} stands on no storey; give it one in STOREYS"
    return heights[0]


def test_every_import_points_down() -> None:
    wrong = [
        f"{name} -> {other}"
        for name in MODULES
        for other in sorted(arrows(name))
        if other == "the door"
        or not (name.partition(".")[0] == other.partition(".")[0] or storey(other) < storey(name))
    ]
    assert not wrong, wrong


def test_no_import_runs_in_a_circle() -> None:
    """Inside a room as well, lazy imports and those for type checking included."""
    below = {name: arrows(name) for name in MODULES}
    while leaves := [name for name, others in below.items() if not others & below.keys()]:
        for name in leaves:
            del below[name]
    assert not below, {name: sorted(others & below.keys()) for name, others in below.items()}


def test_a_planted_arrow_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def late() -> None:\n    from driftsim.sweeps.store import Store\n    Store\n")
    monkeypatch.setitem(MODULES, "trace.planted", planted)
    with pytest.raises(AssertionError, match=re.escape("trace.planted -> sweeps.store")):
        test_every_import_points_down()


def test_files_and_functions_can_be_read_in_one_sitting() -> None:
    long = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: lines for name, lines in long.items() if lines > 350 and name not in LONG} == {}


LONG = {"live.vllm"}  # one object that vLLM calls: cut in two, each half would need the other


@pytest.mark.parametrize(("library", "places"), ONLY_IN.items())
def test_a_heavy_library_is_known_in_its_place_alone(library: str, places: set[str]) -> None:
    users = {
        name.partition(".")[0]
        for name, path in MODULES.items()
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert users <= places


def test_two_modules_import_vllm() -> None:
    """The engine in this process, and the schedulers that run in vLLM's own."""
    users = [name for name, path in MODULES.items() if any(one.split(".")[0] == "vllm" for one in imports(path))]
    assert sorted(users) == ["live.scheduler", "live.vllm"]


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


@pytest.mark.parametrize(
    ("what", "heavy"),
    [  # the help answers at once, on a busy machine too; a worker takes longer for these than for all the rest
        ("from driftsim.cli.app import command; command()", "matplotlib numpy pandas pydantic scipy simpy"),
        ("import driftsim.comparison.runs, driftsim.sweeps.tasks", "matplotlib scipy.stats"),
    ],
    ids=["help", "a worker"],
)
def test_what_must_be_quick_loads_no_heavy_library(what: str, heavy: str) -> None:
    code = f"import sys; {what}\nprint(sorted({set(heavy.split())} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_command_line_is_built_once_in_a_process() -> None:
    assert command() is command()


def test_adding_a_policy_takes_a_class_and_one_line() -> None:
    texts = {module: path.read_text() for module, path in MODULES.items()}
    register = texts["scheduling.policies"]
    for kind in set(POLICIES.values()) - {POLICIES["fifo"]}:  # which is stock, too
        home, name = kind.__module__.removeprefix("driftsim."), kind.__name__
        lines = [line for line in register.splitlines() if re.search(rf"\b{name}\b", line) and '"""' not in line]
        assert len(lines) == (2 if home == "scheduling.policies" else 1), lines  # the class, its line in POLICIES
        others = {module for module, text in texts.items() if re.search(rf"\b{name}\(", text)}
        assert others <= {home}, name


def test_a_policy_that_is_entered_joins_every_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lifo(Keyed):
        """Last in, first out."""

        def key(self, job: Job) -> float:
            return -job.request.arrival

    monkeypatch.setitem(POLICIES, "lifo", Lifo)
    made = workload([0.0, 0.0, 0.001, 0.002], [9, 9, 9, 9])
    plan = ComparisonPlan(
        profile=profile(engine(max_num_seqs=1)),
        settings=settings_of(POLICIES, ["static"]),
        replications=1,
        slos=SLOS[-1:],
    )
    assert "lifo" in [row["policy"] for row in compare(made, plan, jobs=1).rows()]
    run = simulate(plan.scenario(Setting("lifo", "static")), made)
    assert list(run.requests["dispatch_index"]) == [0, 3, 2, 1]


def test_the_default_policies_are_ours_and_stay_as_they_are() -> None:
    assert {*DEFAULT_POLICIES} <= {STOCK, *POLICIES}
    assert DEFAULT_POLICIES == ("stock", "fifo", "priority", "weighted", "sjf", "aging")
