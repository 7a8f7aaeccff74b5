"""A drift is a change of requests that one injects: of whom, what, how much, and from when on.

It is written ``KIND:key=value:key=value``, as ``tenant=a:factor=2:at=600s``; without a kind, it is a step. ``KINDS``
says what each does and takes. Output lengths change; no output gets longer than the request's ``max_tokens``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, TypeAlias, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.request import is_tier_name

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["step", "ramp", "season", "mix", "model", "caps", "words"]
KINDS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {  # what it does, what it needs, what it may have
    "step": ("Outputs are `factor` times as long from `at` on.", ("factor",), ()),
    "ramp": ("The factor grows from 1 at `at` to `factor`, `over` later, and stays.", ("factor", "over"), ()),
    "season": (
        "From `at` on the factor swings between `factor` and 1 / `factor`, once each `period`.",
        ("factor", "period"),
        (),
    ),
    "mix": (
        "From `at` on, each other request becomes, with the probability `share`, one drawn from these.",
        ("share",),
        (),
    ),
    "model": (
        "A new model answers from `at` on: each output gets a factor of its own, lognormal with the median `factor` "
        "and `sigma` of its logarithm.",
        (),
        ("factor", "sigma"),
    ),
    "caps": ("`max_tokens` is `cap` from `at` on.", ("cap",), ()),
    "words": (
        "From `at` on estimators are told words for tokens (or tokens, where admission counts words); `factor` words a "
        "token where words are not known.",
        (),
        ("factor",),
    ),
}
WHO = ("tenant", "tier", "category")
DEFAULTS = {"model": {"factor": 1.0, "sigma": 0.5}, "words": {"factor": 0.75}}
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
FORM = "KIND:key=value:..., as tenant=a:factor=2:at=600s; the kinds are " + ", ".join(KINDS)
LARGEST = 1e9
MOST_NAMED = 5
_PLACE = re.compile(r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?P<unit>[^\d\s]*)")


class Place(NamedTuple):
    """A place in a run: seconds since it began, or a share of its requests."""

    value: float
    is_share: bool

    @classmethod
    def of(cls, text: str) -> Self:
        """The place that ``text`` says, ``600s`` or ``50%``. Raises ``InputError``."""
        found = _PLACE.fullmatch(text.strip())
        if found is None or found["unit"] not in (*UNITS, "%"):
            why = (
                "has no unit" if found is not None and not found["unit"] else "is no time and no share of the requests"
            )
            raise InputError(f"{text!r:.40} {why}; write 600s, 10min, 1h or 50%")
        value = float(found["number"])
        if not 0 <= value <= (100 if found["unit"] == "%" else LARGEST):
            raise InputError(f"{text!r:.40} cannot be; a time is from 0 to 1e9 s, a share from 0 to 100 %")
        return cls(value / 100, True) if found["unit"] == "%" else cls(value * UNITS[found["unit"]], False)

    def __str__(self) -> str:
        return f"{100 * self.value:.12g}%" if self.is_share else f"{self.value:.12g}s"


def _place(text: str) -> str:
    return str(Place.of(text))


def _key(what: str, **bounds: Any) -> Any:
    return Field(default=None, description=what, **bounds)


def _name(text: str) -> str:
    if not is_tier_name(text):
        raise InputError(f"a name is printable and not empty, got {text!r:.80}")
    return text


Name: TypeAlias = Annotated[str, AfterValidator(_name)]
Position: TypeAlias = Annotated[str, AfterValidator(_place)]


class Drift(Record):
    """One change; what it takes hangs on its kind.

    >>> str(Drift(tenant="a", factor=2, at="10min"))
    'tenant=a:factor=2:at=600s'
    """

    kind: Kind = Field(default="step", description="What changes, and how.")
    tenant: Name | None = _key("Tenant whose requests these are; none: of any.")
    tier: Name | None = _key("Tier of these requests; none: of any.")
    category: Name | None = _key("Category of these requests, the authors' or else the predicted one; none: of any.")
    at: Position = Field(
        default="0s", description="When it begins, in the run's time or as a share of its requests: `600s`, `50%`."
    )
    factor: float | None = _key("Factor of the output length.", gt=0, le=1e6)
    over: Position | None = _key("How long a ramp takes, in the unit of `at`.")
    period: Position | None = _key("Length of a season, in the unit of `at`.")
    sigma: float | None = _key("Standard deviation of the logarithm of the factors of single requests.", ge=0, le=10)
    share: float | None = _key("Share of the other requests that become ones of these.", gt=0, le=1)
    cap: int | None = _key("The new `max_tokens`.", ge=1, le=10**9, json_schema_extra={"unit": "tokens"})

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        _, needed, more = KINDS[self.kind]
        keys = ("factor", "over", "period", "sigma", "share", "cap")
        for key in needed:
            if getattr(self, key) is None:
                raise InputError(f"a drift of the kind {self.kind} needs {key}; write {FORM}")
        for key in keys:
            if getattr(self, key) is not None and key not in (*needed, *more):
                takes = ", ".join([*needed, *more])
                raise InputError(
                    f"a drift of the kind {self.kind} has no {key}; it takes {takes}, {', '.join(WHO)}, at"
                )
        if self.kind == "mix" and not any(getattr(self, name) for name in WHO):
            raise InputError(f"a drift of the kind mix needs to know towards whom; give one of {', '.join(WHO)}")
        start = self.start
        for key in ("over", "period"):
            text = getattr(self, key)
            if text is not None and (Place.of(text).is_share != start.is_share or not Place.of(text).value):
                raise InputError(
                    f"{key}={text} does not go with at={self.at}; give both as times, or both in %, above 0"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_idle_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in plain(self).items() if value is not None}

    @property
    def start(self) -> Place:
        """When it begins; the beginning of the run is no time or share in particular, so there the others tell."""
        start = Place.of(self.at)
        others = [Place.of(text) for text in (self.over, self.period) if text is not None]
        return start if start.value or not others else Place(0.0, others[0].is_share)

    def value(self, key: str) -> float:
        """The value of ``key``, or its default for this kind."""
        value = getattr(self, key)
        return float(DEFAULTS[self.kind][key] if value is None else value)

    def strength(self, since: np.ndarray) -> np.ndarray:
        """How far it is at places ``since`` its beginning, (requests,): the exponent of the factor; before it, 0."""
        begun = since >= 0
        if self.kind == "ramp":
            found = np.clip(since / Place.of(str(self.over)).value, 0, 1)
        elif self.kind == "season":
            found = np.sin(2 * math.pi * since / Place.of(str(self.period)).value)
        else:
            found = np.ones(len(since))
        return np.where(begun, found, 0.0)

    def __str__(self) -> str:
        said: list[str] = [] if self.kind == "step" else [self.kind]
        for name in (*WHO, "factor", "sigma", "share", "cap", "at", "over", "period"):
            value = getattr(self, name)
            if value is not None and (name, value) != ("at", "0s"):
                said.append(f"{name}={f'{value:.12g}' if isinstance(value, float) else value}")
        return ":".join(said)


class Injected(Drift):
    """A drift that was injected into a run, and what it came to."""

    requests: int = Field(
        default=0, ge=0, description="Requests that it changed.", json_schema_extra={"unit": "requests"}
    )
    first_request: Name | None = _key("Name of the first request, in the workload's order, from which on it held.")
    realised: float | None = _key(
        "Geometric mean of the factors that outputs really got, with caps and rounding, while it held.", gt=0, le=1e12
    )


def in_words(drift: Injected) -> str:
    """What was injected, and what came of it.

    >>> in_words(Injected(tenant="a", factor=2, at="600s", requests=40, realised=1.9))
    'tenant=a:factor=2:at=600s (40 requests changed, outputs x 1.9)'
    """
    came = "" if drift.realised is None or drift.kind == "words" else f", outputs x {drift.realised:.3g}"
    return f"{drift} ({drift.requests} requests changed{came})"


def _written(text: str) -> dict[str, Any]:
    """The drift that ``KIND:key=value:...`` stands for, as a table."""
    values: dict[str, Any] = {}
    for place, part in enumerate(text.split(":")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals and not place and name in KINDS:
            values["kind"] = name
            continue
        if not equals or not value:
            raise InputError(f"drift {text!r:.80}: {part.strip()!r:.40} is no key=value; write {FORM}")
        if name not in Drift.model_fields:
            known = ", ".join(Drift.model_fields)
            raise InputError(f"drift {text!r:.80}: unknown key {name!r:.40}; choose among {known}")
        if name in values:
            raise InputError(f"drift {text!r:.80}: gives {name} twice; keep one")
        values[name] = value
    return values


def _named(text: str) -> Drift:
    values = _written(text)
    try:
        return Drift.of(values)
    except InputError as error:
        raise InputError(f"drift {text!r:.80}: {error}") from None


def _as_drifts(value: Any) -> Any:
    """A list of drifts, of one, or of a list that may hold texts, too."""
    if isinstance(value, str | Drift):
        value = [value]
    if isinstance(value, list | tuple):
        return tuple(_named(one) if isinstance(one, str) else one for one in value)
    return value


Drifts: TypeAlias = Annotated[tuple[Drift, ...], BeforeValidator(_as_drifts)]
AnyDrifts: TypeAlias = str | Drift | Iterable[str | Drift | dict[str, Any]]


class _Listed(Record):
    drift: Drifts = ()


def drift_rules(drifts: AnyDrifts) -> tuple[Drift, ...]:
    """The drifts of ``drifts``: one or several, each a ``Drift``, a table or a text. Raises ``InputError``.

    >>> [str(one) for one in drift_rules(["tenant=a:factor=2:at=10min", "ramp:factor=0.5:at=20%:over=50%"])]
    ['tenant=a:factor=2:at=600s', 'ramp:factor=0.5:at=20%:over=50%']
    """
    if isinstance(drifts, str | Drift):
        listed: list[Any] = [drifts]
    elif isinstance(drifts, Iterable) and not isinstance(drifts, dict):
        listed = list(drifts)
    else:
        raise InputError(f"drifts are a list, not {drifts!r:.80}; write {FORM}")
    return _Listed.of({"drift": [_named(one) if isinstance(one, str) else one for one in listed]}).drift


def selected(drift: Drift, table: pd.DataFrame) -> np.ndarray:
    """Which requests of ``table`` are those of ``drift``, as a mask, (requests,)."""
    own = np.ones(len(table), dtype=bool)
    for name in WHO:
        wanted = getattr(drift, name)
        if wanted is not None:
            own &= _names(table, name) == wanted
    return own


def _names(table: pd.DataFrame, name: str) -> np.ndarray:
    column = table[name]
    if name == "category" and column.isna().any():
        column = column.fillna(table["predicted_category"])
    return column.to_numpy(dtype=object)


def check_drifts(
    drifts: Sequence[Drift], table: pd.DataFrame, besides: Mapping[str, Collection[str]] = MappingProxyType({})
) -> None:
    """Raise ``InputError`` for a drift of nobody among the requests of ``table``.

    ``besides``: tenants, tiers and categories that there are, though a draw may lack them.
    """
    for drift in drifts:
        for name in WHO:
            wanted = getattr(drift, name)
            if wanted in besides.get(name, ()):
                continue
            known = sorted({str(one) for one in _names(table, name) if isinstance(one, str)})
            if wanted is not None and wanted not in known:
                more = f" and {len(known) - MOST_NAMED} more" if known[MOST_NAMED:] else ""
                there = f"{', '.join(known[:MOST_NAMED])}{more}" if known else "none"
                raise InputError(
                    f"drift {str(drift)!r:.80}: no request has the {name} {wanted!r:.40}; there is {there}"
                )
        if not besides and not selected(drift, table).any():
            raise InputError(f"drift {str(drift)!r:.80}: no request has all of its tenant, tier and category")


assert set(KINDS) == set(get_args(Kind))
