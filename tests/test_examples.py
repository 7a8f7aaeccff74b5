"""The examples: each prints what lies beside it, in a few lines and in a few seconds."""

from __future__ import annotations

import contextlib
import io
import runpy
import time
from pathlib import Path

import pytest

from experiments import remake

SECONDS = 10  # of CPU: a wall clock would measure who else is on the machine


@pytest.mark.parametrize("script", remake.EXAMPLES, ids=lambda script: script.stem)
def test_an_example_prints_what_lies_beside_it(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(remake.ROOT)
    printed = io.StringIO()
    begun = time.process_time()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(script.relative_to(remake.ROOT)), run_name="__main__")
    assert printed.getvalue() == script.with_suffix(".out").read_text()
    assert time.process_time() - begun < SECONDS


def test_an_example_is_a_program_of_its_own() -> None:
    """What needs no other process in the test above starts one here: imports, classes of a script, and workers."""
    script = remake.ROOT / "examples" / "own_policy.py"
    assert remake.example_output(script) == script.with_suffix(".out").read_text()


@pytest.mark.parametrize("script", remake.EXAMPLES, ids=lambda script: script.stem)
def test_an_example_is_short_and_uses_the_front_door_alone(script: Path) -> None:
    code = script.read_text()
    assert code.startswith('"""')
    lines = [line for line in code.splitlines() if line.strip()]
    assert 8 <= len(lines) <= 20
    assert "import driftsim as ds" in lines
    assert "from driftsim" not in code


def test_there_are_eight_and_the_readme_names_each() -> None:
    text = (remake.ROOT / "examples" / "README.md").read_text()
    assert len(remake.EXAMPLES) == 8
    assert all(f"[{script.name}]({script.name})" in text for script in remake.EXAMPLES)
