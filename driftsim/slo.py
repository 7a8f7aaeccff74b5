"""A service-level objective (SLO) limits the latencies of the requests of a tenant, of a tier or of everybody.

A request goes by one SLO: its tenant's, else its tier's, else everybody's. It meets that SLO if it finished within
every limit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self, TypeAlias

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.request import is_tier_name

if TYPE_CHECKING:
    import pandas as pd

EVERYBODY = "*"
LIMITS = ("ttft", "tpot", "itl", "e2e")
UNITS = {"s": 1.0, "ms": 1e-3}
LONGEST_LIMIT_S = 1e9
MOST_NAMED = 5
FORM = "NAME:limit=VALUE,..., as premium:ttft=1s,tpot=50ms,e2e=30s; without NAME, it is everybody's"
_DURATION = re.compile(r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?P<unit>[^\d\s]*)")
_SECONDS: dict[str, Any] = {"unit": "s"}


def _named(who: str) -> str:
    name = _Who.of(who).name
    if not is_tier_name(name):
        raise InputError(f"an SLO is of a tenant or a tier, whose name is printable and not empty, got {who!r:.80}")
    return who


def _limit(what: str) -> Any:
    return Field(default=None, gt=0, le=LONGEST_LIMIT_S, description=f"Longest {what}.", json_schema_extra=_SECONDS)


class _Who(NamedTuple):
    """Whom an SLO is of: what kind of name, ``tenant``, ``tier`` or "" where that was not said, and the name."""

    kind: str
    name: str

    @classmethod
    def of(cls, who: str) -> Self:
        kind, sign, name = who.partition(":")
        return cls(kind, name) if sign and kind in ("tenant", "tier") else cls("", who)


class Slo(Record):
    """The limits of one SLO; at least one is set.

    >>> Slo(who="premium", ttft_s=1.0, tpot_s=0.05)
    Slo(who='premium', ttft_s=1.0, tpot_s=0.05, itl_s=None, e2e_s=None)
    >>> str(_)
    'premium:ttft=1s,tpot=50ms'
    """

    who: Annotated[str, AfterValidator(_named)] = Field(
        default=EVERYBODY,
        description="Name of the tenant or tier whose requests it is of; `*`: of all that have none of their own. "
        "`tenant:NAME` and `tier:NAME` tell a tenant and a tier of one name apart.",
    )
    ttft_s: float | None = _limit("time to first token, from arrival")
    tpot_s: float | None = _limit("mean time per output token after the first")
    itl_s: float | None = _limit("time between any two tokens in a row, where the steps name their requests")
    e2e_s: float | None = _limit("end-to-end latency, from arrival to the last token")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.limits:
            raise InputError(f"the SLO of {self.who!r} limits nothing; give one or more of {', '.join(LIMITS)}")
        return self

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, in seconds, by the name of the latency."""
        known = ((name, getattr(self, f"{name}_s")) for name in LIMITS)
        return {name: value for name, value in known if value is not None}

    def __str__(self) -> str:
        told = ",".join(f"{name}={_duration(value)}" for name, value in self.limits.items())
        return told if self.who == EVERYBODY else f"{self.who}:{told}"


def _duration(seconds: float) -> str:
    return f"{1000 * seconds:.12g}ms" if seconds < 1 else f"{seconds:.12g}s"


def _written(text: str) -> dict[str, Any]:
    """The SLO that ``NAME:limit=VALUE,...`` stands for, as a table."""
    who, sign, limits = text.rpartition(":")
    values: dict[str, Any] = {"who": who.strip() if sign else EVERYBODY}
    for part in limits.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InputError(f"SLO {text!r:.80}: {part.strip()!r:.40} is no limit; write {FORM}")
        if name not in LIMITS:
            raise InputError(f"SLO {text!r:.80}: unknown limit {name!r:.40}; choose among {', '.join(LIMITS)}")
        if f"{name}_s" in values:
            raise InputError(f"SLO {text!r:.80}: limits {name} twice; keep one")
        values[f"{name}_s"] = _seconds(value, name, text)
    return values


def _seconds(value: str, name: str, text: str) -> float:
    found = _DURATION.fullmatch(value)
    if found is None or found["unit"] not in UNITS:
        why = "has no unit" if found is not None and not found["unit"] else "is no time in s or ms"
        raise InputError(f"SLO {text!r:.80}: {name}={value:.40} {why}; write {name}=1s or {name}=50ms")
    seconds = float(found["number"]) * UNITS[found["unit"]]
    if not 0 < seconds <= LONGEST_LIMIT_S:
        raise InputError(f"SLO {text!r:.80}: {name}={value:.40} is no limit; it must be above 0 and at most 1e9 s")
    return seconds


def _as_slos(value: Any) -> Any:
    """A list of SLOs, of one, or of a list that may hold texts, too."""
    if isinstance(value, str | Slo):
        value = [value]
    if isinstance(value, list | tuple):
        return [_written(one) if isinstance(one, str) else one for one in value]
    return value


def _distinct(slos: tuple[Slo, ...]) -> tuple[Slo, ...]:
    seen: list[_Who] = []
    for who in (_Who.of(slo.who) for slo in slos):
        if any(who.name == other.name and (who.kind == other.kind or not who.kind or not other.kind) for other in seen):
            whose = "everybody has" if who.name == EVERYBODY else f"{who.name!r:.80} has"
            raise InputError(f"{whose} two SLOs; put all limits into one")
        seen.append(who)
    return slos


Slos: TypeAlias = Annotated[tuple[Slo, ...], BeforeValidator(_as_slos), AfterValidator(_distinct)]
AnySlos: TypeAlias = str | Slo | Iterable[str | Slo | dict[str, Any]]


class _Listed(Record):
    slos: Slos = ()


def slo_rules(slos: AnySlos) -> tuple[Slo, ...]:
    """The SLOs of ``slos``: one or several, each an ``Slo``, a table or a text ``NAME:limit=VALUE,...``.

    Raises ``InputError`` for what is none, and for two of one name.

    >>> [str(slo) for slo in slo_rules(["premium:ttft=1000ms,e2e=30s", "tpot=.05s"])]
    ['premium:ttft=1s,e2e=30s', 'tpot=50ms']
    """
    if isinstance(slos, str | Slo):
        listed: list[Any] = [slos]
    elif isinstance(slos, Iterable) and not isinstance(slos, dict):
        listed = list(slos)
    else:
        raise InputError(f"SLOs are a list, not {slos!r:.80}; write {FORM}")
    return _Listed.of({"slos": [_written(one) if isinstance(one, str) else one for one in listed]}).slos


def slos_for(slos: AnySlos, table: pd.DataFrame) -> tuple[Slo, ...]:
    """``slo_rules`` of ``slos``, each of which is of some request in ``table``. Raises as ``check_slos`` does, too."""
    rules = slo_rules(slos)
    check_slos(rules, table["tenant"], table["tier"])
    return rules


def needs_itl(slos: Sequence[Slo]) -> bool:
    """Whether one of ``slos`` limits the time between tokens, for which a run records the requests of its steps."""
    return any(slo.itl_s is not None for slo in slos)


def check_slos(slos: Sequence[Slo], tenants: Iterable[str], tiers: Iterable[str]) -> None:
    """Raise ``InputError`` for SLOs of nobody among the requests, whose ``tenants`` and ``tiers`` are given row by row.

    Also for a name that is a tenant's and a tier's, if these have different requests.
    """
    pairs = set(zip(map(str, tenants), map(str, tiers), strict=True))
    for slo in slos:
        kind, name = _Who.of(slo.who)
        own = {
            "tenant": {pair for pair in pairs if pair[0] == name},
            "tier": {pair for pair in pairs if pair[1] == name},
        }
        if (kind and own[kind]) or slo.who == EVERYBODY:
            continue
        if kind or not (own["tenant"] or own["tier"]):
            raise InputError(f"SLO {str(slo)!r:.80}: no request has the {kind or 'tenant or tier'} {name!r:.40}; "
                             f"{_present('tenant', pairs)}, {_present('tier', pairs)}")  # fmt: skip
        if own["tenant"] and own["tier"] and own["tenant"] != own["tier"]:
            raise InputError(
                f"SLO {str(slo)!r:.80}: a tenant and a tier are called {name!r:.40}, and their requests differ; write "
                f"tenant:{name:.40} or tier:{name:.40}"
            )


def check_only_e2e(slos: Sequence[Slo]) -> None:
    """Raise ``InputError`` for SLOs that an engine cannot keep or miss that shows no token before the last."""
    for slo in slos:
        if slo.limits.keys() - {"e2e"}:
            raise InputError(
                f"SLO {str(slo)!r:.80}: the barrier's worker shows no token before the last; limit e2e alone"
            )


def _present(kind: str, pairs: Collection[tuple[str, str]]) -> str:
    names = sorted({pair[kind == "tier"] for pair in pairs})
    more = f" and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else ""
    return f"the {kind}s are {', '.join(names[:MOST_NAMED])}{more}"


def rule_of(slos: Sequence[Slo], tenants: np.ndarray, tiers: np.ndarray) -> np.ndarray:
    """The place among ``slos`` of the one that each request goes by, (requests,); -1 where it has none.

    >>> slos = slo_rules(["ttft=1s", "gold:ttft=2s", "acme:ttft=3s"])
    >>> rule_of(slos, np.array(["acme", "b", "b"]), np.array(["gold", "gold", "tin"])).tolist()
    [2, 1, 0]
    """
    found = np.full(len(tenants), -1)
    named = [(_Who.of(slo.who), place) for place, slo in enumerate(slos)]
    for kinds, names in ((("tier", ""), tiers), (("tenant", ""), tenants)):
        for who, place in named:
            if who.kind in kinds and who.name != EVERYBODY:
                found[names == who.name] = place
    for who, place in named:
        if who == ("", EVERYBODY):
            found[found < 0] = place
    return found
