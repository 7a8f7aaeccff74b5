"""A fault is a text of the package and what replaces it; it fits while the text occurs exactly once."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "driftsim"


@dataclass(frozen=True, slots=True)
class Fault:
    """``what`` goes wrong, in words; ``file`` below ``driftsim``; ``old`` becomes ``new``.

    ``tests``: names of the test files, without folder and suffix, that should fail, the quickest first.
    """

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def planted(self, source: str) -> str:
        """``source`` with the fault in it. Raises ``ValueError`` unless the text is there exactly once."""
        found = source.count(self.old)
        if found != 1:
            raise ValueError(f"{self.file}: {self.what}: the text occurs {found} times, not once: {self.old!r}")
        if self.new == self.old:
            raise ValueError(f"{self.file}: {self.what}: changes nothing")
        return source.replace(self.old, self.new)

    def test_files(self) -> list[str]:
        """The paths of the test files below the root."""
        return [f"tests/{name}.py" for name in self.tests]


@cache
def statements(source: str) -> list[tuple[int, int]]:
    """Where each statement at the margin of ``source`` begins and ends, decorators and all."""
    begins = [0, *accumulate(map(len, source.splitlines(keepends=True)))]
    nodes: list[Any] = ast.parse(source).body
    lines = [min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))]) for node in nodes]
    return [(begins[line - 1], begins[node.end_lineno]) for line, node in zip(lines, nodes, strict=True)]


def check(fault: Fault) -> None:
    """Raise ``ValueError`` or ``SyntaxError`` unless ``fault`` fits the package and its tests are there.

    Python reads the statements that the fault changes alone, since the others stay as they are.
    """
    source = (PACKAGE / fault.file).read_text(encoding="utf-8")
    whole = fault.planted(source)
    begin = source.index(fault.old)
    touched = [place for place in statements(source) if place[0] < begin + len(fault.old) and begin < place[1]]
    first, last = (touched[0][0], touched[-1][1]) if touched else (0, len(source))
    ast.parse(whole[first : last + len(whole) - len(source)], fault.file)
    missing = [name for name in fault.test_files() if not (ROOT / name).is_file()]
    if missing or not fault.tests:
        raise ValueError(f"{fault.file}: {fault.what}: no test file {', '.join(missing) or 'is named'}")


class Table(list[Fault]):
    """The faults of an area; ``plant`` adds one."""

    def plant(self, what: str, file: str, old: str, new: str, tests: str) -> None:
        """Add a fault; ``tests`` are names with blanks between."""
        self.append(Fault(what, file, old, new, tuple(tests.split())))
