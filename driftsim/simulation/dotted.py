"""Dotted keys: ``engine.kv_blocks`` in place of a table ``engine``, in a scenario, a grid or an option."""

from __future__ import annotations

import copy
from typing import Any

from driftsim.errors import InputError
from driftsim.scheduling.admission import Admission


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as tables; tables that have defaults inside, as ``admission.safety``, keep the others.

    In a list of tables, a key reaches the one of that name: ``workload.tenants.chat.rate``.
    """
    found: dict[str, Any] = {}
    for name, value in copy.deepcopy(flat).items():
        *path, last = name.split(".")
        place: Any = found
        for depth, part in enumerate(path):
            if part not in place and path[: depth + 1] in (["admission", "safety"], ["admission", "base_table"]):
                place[part] = Admission().model_dump(mode="json")[part]
            place = _below(place, part, name)
        if isinstance(place, list):
            raise InputError(f"{name}: {last!r} is one of a list of tables; name a key of it, as {name}.KEY")
        if isinstance(value, dict) and isinstance(place.get(last), dict):
            place[last] = place[last] | value
        elif isinstance(place.get(last), dict):
            raise InputError(f"{name}: is a table, {value!r} is none")
        else:
            place[last] = value
    return found


def _below(place: Any, part: str, name: str) -> Any:
    """The table, or the list of tables, ``part`` of ``place``; ``name`` is the whole key."""
    if isinstance(place, list):
        named = [table for table in place if isinstance(table, dict) and table.get("name") == part]
        if len(named) != 1:
            known = ", ".join(str(table.get("name")) for table in place if isinstance(table, dict))
            raise InputError(f"{name}: {'none is' if not named else 'several are'} named {part!r} there, of {known}")
        return named[0]
    below = place.setdefault(part, {})
    if not isinstance(below, dict | list):
        raise InputError(f"{name}: {part} is {below!r}, not a table")
    return below
