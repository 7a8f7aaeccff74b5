"""A policy or an estimator with parameters is spelled ``name?key=value&key=value``; its constructor says what it takes.

A parameter is a keyword-only argument of the constructor with a default. Its annotation gives the type, and with
pydantic's ``Field`` the bounds, the meaning and the unit. One setting has one canonical spelling: keys sorted, defaults
left out, numbers in their shortest form. That spelling is the setting's name in keys, tables and stores.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from typing import Any, get_type_hints

from pydantic import create_model

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.scheduling.names import spelled

FORM = "name?key=value&key=value"
APART = "?&=:/,"  # characters that no value of a parameter holds


@cache
def parameters_of(kind: Callable[..., Any]) -> type[Record]:
    """What a class can be told: a record with a field for each keyword-only argument that has a default.

    Raises ``InputError`` for a class whose annotations mean nothing.

    >>> class Mine:
    ...     def __init__(self, *, weight: float = 2.0): ...
    >>> parameters_of(Mine)(weight="3").weight
    3.0
    """
    constructor = kind.__init__ if isinstance(kind, type) else kind  # type: ignore[misc]
    try:
        arguments = inspect.signature(constructor).parameters.values()
        taken = [one for one in arguments if one.kind is one.KEYWORD_ONLY and one.default is not one.empty]
        hints = get_type_hints(constructor, include_extras=True) if taken else {}
        fields: Any = {one.name: (hints.get(one.name, type(one.default)), one.default) for one in taken}
        return create_model("Parameters", __base__=Record, **fields)
    except (NameError, TypeError, ValueError) as error:
        raise InputError(f"{getattr(kind, '__qualname__', kind)}: its parameters cannot be told ({error})") from None


def values_of(name: str, kind: Callable[..., Any]) -> dict[str, Any]:
    """The values that ``name`` gives to the parameters of its class ``kind``; those that it leaves out are not there.

    Raises ``InputError`` for a parameter that is unknown, that is given twice, or that cannot have its value.

    >>> class Mine:
    ...     def __init__(self, *, weight: float = 2.0): ...
    >>> values_of("mine?weight=3", Mine)
    {'weight': 3.0}
    >>> values_of("mine?weights=3", Mine)
    Traceback (most recent call last):
    driftsim.errors.InputError: mine?weights=3: unknown parameter 'weights'; did you mean 'weight'? it takes weight (2)
    """
    query = spelled(name).query
    if not query:
        return {}
    record, given = parameters_of(kind), dict[str, str]()
    for part in query.split("&"):
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if not (key and sign and value) or set(value) & set(APART):
            raise InputError(f"{name}: {part!r:.40} is no key=value; write {FORM}")
        if key in given:
            raise InputError(f"{name}: the parameter {key!r} is given twice; keep one")
        given[key] = value
    for key in given:
        if key not in record.model_fields:
            near = get_close_matches(key, record.model_fields, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"{name}: unknown parameter {key!r:.40}; {meant}it takes {_known(record)}")
    try:
        made = record.of(given)
    except InputError as error:
        raise InputError(f"{name}: {error}; it takes {_known(record)}") from None
    return {key: getattr(made, key) for key in given}


def _known(record: type[Record]) -> str:
    """The parameters of ``record``, each with its default."""
    return ", ".join(f"{key} ({_plain(field.default)})" for key, field in record.model_fields.items()) or "none"


def _plain(value: Any) -> str:
    """A value as it is spelled."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def canonical(name: str, find: Callable[[str], Callable[..., Any]]) -> str:
    """The canonical spelling of ``name``, whose class ``find`` gives. Raises ``InputError`` as ``values_of`` does.

    A name without parameters is left as it is, and its class is not looked for.
    """
    base, query = spelled(name)
    if not query:
        return base
    kind = find(base)
    values, fields = values_of(name, kind), parameters_of(kind).model_fields
    kept = [f"{key}={_plain(values[key])}" for key in sorted(values) if values[key] != fields[key].default]
    return f"{base}?{'&'.join(kept)}" if kept else base
