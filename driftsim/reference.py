"""The reference: every name that a user reads or writes, as tables of name, kind, unit and meaning.

It only collects: a column is described in ``trace.schema``, a metric in ``glossary``, a key in its pydantic field.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from driftsim.errors import InputError
from driftsim.formats.mapping import Mapping
from driftsim.glossary import METRICS, Metric
from driftsim.latency.profile import Profile
from driftsim.records import Record
from driftsim.scheduling.estimators import ESTIMATORS, GIVEN
from driftsim.scheduling.parameters import parameters_of
from driftsim.scheduling.policies import POLICIES
from driftsim.simulation.spec import ScenarioSpec
from driftsim.sweeps.grid import Grid
from driftsim.trace.header import Header
from driftsim.trace.schema import OPTIONAL, REQUEST_COLUMNS, STEP_COLUMNS, TELEMETRY_COLUMNS, Column

BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
PLAIN = {str: "text", bool: "true or false", type(None): "none"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One name: what kind of value it has, in which unit, what it means; a key's default, a metric's better side."""

    name: str
    kind: str
    unit: str
    meaning: str
    default: str = ""
    better: str = ""

    def filled(self) -> dict[str, str]:
        """The entry as plain values, without a default or a better side where there is none."""
        return {name: text for name, text in asdict(self).items() if text or name not in ("default", "better")}


def column_entries(columns: Sequence[Column]) -> list[Entry]:
    """A trace's ``columns``.

    >>> column_entries(REQUEST_COLUMNS)[1]
    Entry(name='tenant', kind='str', unit='', meaning='Customer that sent the request.', default='', better='')
    """
    return [
        Entry(column.name, f"{column.kind}{', may be empty' if column.nullable else ''}", column.unit, column.meaning)
        for column in columns
    ]


def metric_entries(metrics: Sequence[Metric]) -> list[Entry]:
    """Keys of a result."""
    return [Entry(one.name, one.kind, one.unit, one.meaning, better=one.better) for one in metrics]


def key_entries(record: type[Record], prefix: str = "", closed: Sequence[str] = ()) -> list[Entry]:
    """The keys of a file that holds ``record``; those of a table in it follow it, with a dot, unless it is ``closed``.

    Where a table occurs again, its keys are named once.

    >>> from driftsim.simulation.scenario import Barrier
    >>> [(key.name, key.kind, key.unit, key.default) for key in key_entries(Barrier, "barrier.")][1]
    ('barrier.fill_s', 'float ≥ 0', 's', '0.01')
    """
    return list(_keys(record, prefix, closed, {}))


def _keys(record: type[Record], prefix: str, closed: Sequence[str], seen: dict[type[Record], str]) -> Iterator[Entry]:
    """``seen``: the records whose keys have been named, and the key under which they were."""
    for name, field in record.model_fields.items():
        extra = field.json_schema_extra
        unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
        inside = [] if name in closed else list(_records(field.annotation))
        again = "".join(f"; keys as in {seen[below]}" for below in inside if below in seen)
        kind = f"{_bounded(kind_of(field.annotation), field.metadata)}{again}"
        yield Entry(f"{prefix}{name}", kind, unit, field.description or "", _default(field))
        for below in inside:
            if below not in seen:
                seen[below] = f"{prefix}{name}"
                yield from _keys(below, f"{prefix}{name}.", closed, seen)


def _records(annotation: Any) -> Iterator[type[Record]]:
    """The records that a value of type ``annotation`` holds."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        yield annotation
    for part in get_args(annotation):
        yield from _records(part)


def kind_of(annotation: Any) -> str:
    """The kind of value that a type means, in words.

    >>> kind_of(int | None), kind_of(Literal["a", "b"]), kind_of(dict[str, int]), kind_of(tuple[int, ...])
    ('int or none', 'a or b', 'table', 'list of int')
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(kind_of(parts[0]), parts[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(kind_of(part) for part in parts)
    if origin is Literal:
        return " or ".join(str(part) for part in parts)
    if origin is tuple and parts[-1] is not Ellipsis:
        return " and ".join(kind_of(part) for part in parts)
    if origin in (list, tuple):
        below = kind_of(parts[0])
        return "list of tables" if below == "table" else f"list of {below}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, Record)):
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, str):
        return "text"
    return PLAIN.get(annotation, getattr(annotation, "__name__", "any"))


def _bounded(kind: str, rules: Sequence[Any]) -> str:
    """``kind`` with the bounds that pydantic's ``rules`` set."""
    inner = [part for rule in rules for part in (rule.metadata if isinstance(rule, FieldInfo) else [rule])]
    bounds = [
        f"{sign} {getattr(rule, name):g}"
        for rule in inner
        for name, sign in BOUNDS.items()
        if getattr(rule, name, None) is not None
    ]
    main, none, _ = kind.partition(" or none")
    return f"{main} {', '.join(bounds)}{none}" if bounds else kind


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, Record) or value in ((), [], {}, ""):
        return ""
    return json.dumps(value)


def parameter_entries(kinds: typing.Mapping[str, Callable[..., Any]]) -> list[Entry]:
    """The parameters of policies or estimators, by name, each as it is spelled."""
    return [entry for name, kind in kinds.items() for entry in key_entries(parameters_of(kind), f"{name}?")]


SCENARIO = key_entries(ScenarioSpec)
TABLES: dict[str, list[Entry]] = {
    "requests": column_entries((*REQUEST_COLUMNS, *OPTIONAL["requests"])),
    "steps": column_entries((*STEP_COLUMNS, *OPTIONAL["steps"])),
    "telemetry": column_entries(TELEMETRY_COLUMNS),
    "header": key_entries(Header),
    "metrics": metric_entries(list(METRICS.values())),
    "scenario": SCENARIO,
    "grid": key_entries(Grid),
    "mapping": key_entries(Mapping),
    "profile": key_entries(Profile, closed=("engine",)),
    "policies": parameter_entries(POLICIES),
    "estimators": parameter_entries({**ESTIMATORS, **GIVEN}),
}


def table(name: str) -> list[Entry]:
    """The table ``name`` of ``TABLES``. Raises ``InputError`` that names the nearest.

    >>> table("requests")[0].meaning
    'Name of the request, unique in its trace.'
    """
    if name not in TABLES:
        near = get_close_matches(name, TABLES, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"unknown table {name!r}; {meant}choose one of {', '.join(TABLES)}")
    return TABLES[name]
