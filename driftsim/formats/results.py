"""Results that a benchmark appends to one file, an object each, of which one is chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from driftsim.errors import InputError
from driftsim.formats.source import read_text, shown_kind


def documents(file: Path) -> list[dict[str, Any]]:
    """The objects in ``file``: one, a list of them, or one a line. Raises ``InputError`` if it holds none."""
    text = read_text(file)
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _by_line(file, text, str(error) or "nested too deep")
    found = whole if isinstance(whole, list) else [whole]
    if not found or not all(isinstance(one, dict) for one in found):
        kind = shown_kind(found[0]) if found else "nothing"
        raise InputError(f"{file}: is no result of a benchmark, which is a JSON object, but {kind}")
    return found


def _by_line(file: Path, text: str, problem: str) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            if not found:
                raise InputError(f"{file}: is not JSON ({problem})") from None
            raise InputError(f"{file}: line {number} is not JSON; the result was cut short, remove the line") from None
        if not isinstance(document, dict):
            raise InputError(f"{file}: line {number} is {shown_kind(document)}, not a result")
        found.append(document)
    if not found:
        raise InputError(f"{file}: is empty; it holds no result")
    return found


def chosen(file: Path, result: int | None) -> dict[str, Any]:
    """The result ``result`` of those in ``file``, counted from 1. Raises ``InputError`` if none is meant."""
    found = documents(file)
    if result is None:
        if len(found) > 1:
            raise InputError(f"{file}: holds {len(found)} results; choose one with --result 1 to --result {len(found)}")
        return found[0]
    if not 1 <= result <= len(found):
        raise InputError(f"{file}: holds {len(found)} results, there is no result {result}")
    return found[result - 1]
