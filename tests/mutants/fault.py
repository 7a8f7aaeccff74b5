"""A fault is a text of the package and what replaces it; it fits while the text occurs exactly once."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

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


def check(fault: Fault) -> None:
    """Raise ``ValueError`` or ``SyntaxError`` unless ``fault`` fits the package and its tests are there."""
    source = (PACKAGE / fault.file).read_text(encoding="utf-8")
    ast.parse(fault.planted(source), fault.file)
    missing = [name for name in fault.test_files() if not (ROOT / name).is_file()]
    if missing or not fault.tests:
        raise ValueError(f"{fault.file}: {fault.what}: no test file {', '.join(missing) or 'is named'}")


class Table(list[Fault]):
    """The faults of an area; ``plant`` adds one."""

    def plant(self, what: str, file: str, old: str, new: str, tests: str) -> None:
        """Add a fault; ``tests`` are names with blanks between."""
        self.append(Fault(what, file, old, new, tuple(tests.split())))
