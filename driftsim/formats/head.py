"""The head of a file: enough of it to know what wrote it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftsim.errors import InputError
from driftsim.formats.source import MISSING, SUFFIXES, follow, read_source, read_text


@dataclass(frozen=True, slots=True)
class Head:
    """What a file begins with: its first ``record``, and whether that is the whole of a JSON ``document``."""

    file: Path
    record: dict[str, Any]
    document: bool = False

    def has(self, *paths: str) -> bool:
        """Whether every one of ``paths`` is there."""
        return all(follow(self.record, path) is not MISSING for path in paths)

    def __str__(self) -> str:
        names = list(self.record)
        listed = ", ".join(" ".join(name.split())[:40] for name in names[:8]) + (" ..." if len(names) > 8 else "")
        return f"{'a JSON document' if self.document else 'a table'} with {listed or 'nothing'}"


def head_of(file: Path) -> Head:
    """The head of ``file``. Raises ``InputError`` where there is no such file, or nothing in it can be read."""
    suffix = file.suffix.lower()
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file in it")
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if suffix not in SUFFIXES:
        raise InputError(f"{file}: of what kind? rename it to one of {', '.join(SUFFIXES)}")
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _of_json(file)
    source = read_source(file)
    return Head(file, {name: (cells[0] if cells else None) for name, cells in source.columns.items()})


def _of_json(file: Path) -> Head:
    text = read_text(file).strip()
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        first = next((line for line in text.splitlines() if line.strip()), "")
        try:
            record = json.loads(first)
        except (ValueError, RecursionError):
            raise InputError(f"{file}: is not JSON ({str(error) or 'nested too deep'})") from None
        return Head(file, record if isinstance(record, dict) else {}, _is_result(record))
    if isinstance(whole, list):
        record = whole[0] if whole else {}
        return Head(file, record if isinstance(record, dict) else {}, _is_result(record))
    return Head(file, whole if isinstance(whole, dict) else {}, True)


def _is_result(record: Any) -> bool:
    """Whether a record holds lists, as the result of a benchmark does, rather than one request."""
    return isinstance(record, dict) and any(isinstance(value, list) for value in record.values())
