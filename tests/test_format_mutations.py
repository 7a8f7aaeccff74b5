"""A wrong value in a file of another tool costs its row, mostly; else one line names the file."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from driftsim.errors import InputError
from driftsim.formats.imports import import_trace, recognised
from driftsim.trace.trace import read
from tests.format_files import EXAMPLES, TABLE, Example
from tests.fuzzing.mutations import nodes

MUTATIONS = min(60, settings().max_examples // 5)  # of each example: 12, in the nightly profile 60
pytestmark = pytest.mark.filterwarnings("error")  # which would be a second line, from NumPy
WHOLE = {**EXAMPLES, "table": TABLE}


def deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def values() -> list[Any]:
    """What stands where something else should."""
    return [
        None, "", " ", "x", "nan", "1e999", float("nan"), float("inf"), float("-inf"), -1, -0.0, 0, 0.5, 1e400, 10**400,
        10**12, 1e308, True, False, [], [[]], {}, {"a": 1}, [1, "2", None], deep(5), deep(200), "1" * 400, "\ud800",
        "a\nb", "2024-13-45T99:00:00", "2024-05-10", "3 weeks", "-", b"x".decode(), 2**63, -(2**63),
    ]  # fmt: skip


def mutated(content: Any, chance: random.Random) -> Any:
    """``content`` with one to three places of it replaced, removed, cut or doubled."""
    content = copy.deepcopy(content)
    for _ in range(chance.randint(1, 3)):
        paths = nodes(content)
        if not paths:
            return content
        *way, key = chance.choice(paths)
        place = content
        for step in way:
            place = place[step]
        kind = chance.random()
        if kind < 0.6:
            place[key] = chance.choice(values())
        elif kind < 0.75:
            del place[key]
        elif kind < 0.9 and isinstance(place[key], list):
            place[key] = place[key][: chance.randint(0, len(place[key]))]
        elif isinstance(place, list):
            place.insert(chance.randint(0, len(place)), place[key])
        else:
            place[chance.choice(["x", "", "a.b", "timestamp\n"])] = place[key]
    return content


def outcome(file: Path, do: Callable[[], Any]) -> Any:
    """What ``do`` gives, None where it refuses ``file`` in one line that names it; any other exception is raised."""
    try:
        return do()
    except InputError as error:
        message = str(error)
    assert "\n" not in message, message
    assert file.name in message, message
    return None


def held(file: Path, out: Path, **choices: Any) -> bool:
    """Whether the import of ``file`` gave a trace, which can be written and read."""
    trace = outcome(file, lambda: import_trace(file, **choices))
    if trace is None:
        return False
    trace.check("it")
    assert len(read(trace.write(out)).requests) == len(trace.requests)
    assert [one for one in (*trace.header.caveats, *trace.header.notes) if "\n" in one] == []
    return True


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_with_wrong_values_is_a_trace_or_one_line(name: str, tmp_path: Path) -> None:
    example, chance = WHOLE[name], random.Random(name)
    kept = 0
    for number in range(MUTATIONS):
        file = example.write(tmp_path, mutated(example.content, chance))
        form = None if number % 2 and recognisable(file, example) else example.form
        kept += held(file, tmp_path / f"out{number}", form=form, **example.choices)
    assert kept > MUTATIONS / 4  # most mistakes cost a row, not the file


def recognisable(file: Path, example: Example) -> bool:
    """Whether a changed file is still taken for the example's format, so that its choices are allowed."""
    try:
        return recognised(file) == example.form
    except InputError:
        return False
