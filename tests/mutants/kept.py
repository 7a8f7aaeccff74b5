"""What was seen before: a caught fault is not run again while its file and its tests stay as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.mutants.fault import PACKAGE, ROOT, Fault

PLACE = ROOT / "out" / "mutants.jsonl"


def key_of(fault: Fault | None, files: Sequence[str]) -> str:
    """A digest of all that ``fault`` and the tests in ``files`` are; without a fault, of the whole package, too."""
    digest = hashlib.sha256()
    sources = [ROOT / name for name in ("tests/conftest.py", *files)]
    if fault is None:
        sources += sorted(PACKAGE.rglob("*.py"))
    else:
        digest.update(fault.planted((PACKAGE / fault.file).read_text(encoding="utf-8")).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


class Kept:
    """The tasks that ended well, one a line of ``place``; a line that was cut short costs that line."""

    def __init__(self, place: Path = PLACE) -> None:
        self._place, self._keys = place, set[str]()
        with suppress(FileNotFoundError):
            for line in place.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    self._keys.add(json.loads(line)["key"])

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str, told: str) -> None:
        """Keep ``key``; ``told`` says to a reader of the file what it was."""
        self._keys.add(key)
        self._place.parent.mkdir(parents=True, exist_ok=True)
        with self._place.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "told": told}) + "\n")

    def clear(self) -> None:
        """Forget all."""
        self._keys.clear()
        self._place.unlink(missing_ok=True)
