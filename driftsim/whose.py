"""Whom a rule is of, a tenant, a tier or everybody, and durations, both as a command line or a table spells them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np

from driftsim.errors import InputError
from driftsim.request import is_tier_name

EVERYBODY = "*"
UNITS = {"s": 1, "ms": 1000}  # to a second
MOST_NAMED = 5
_DURATION = re.compile(r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?P<unit>[^\d\s]*)", re.ASCII)


class Rule(Protocol):
    """A rule that is of somebody."""

    @property
    def who(self) -> str:
        """Name of a tenant or a tier, ``*`` for everybody; ``tenant:`` or ``tier:`` before it says which."""
        ...


class Who(NamedTuple):
    """Whom a rule is of: what kind of name, ``tenant``, ``tier`` or "" where that was not said, and the name."""

    kind: str
    name: str

    @classmethod
    def of(cls, who: str) -> Self:
        """What ``who`` says.

        >>> Who.of("tier:gold"), Who.of("gold")
        (Who(kind='tier', name='gold'), Who(kind='', name='gold'))
        """
        kind, sign, name = who.partition(":")
        return cls(kind, name) if sign and kind in ("tenant", "tier") else cls("", who)

    def has(self, tenant: str, tier: str) -> bool:
        """Whether a request of ``tenant`` and ``tier`` is among these; a name without a kind may be either's."""
        if self == ("", EVERYBODY):
            return True
        return (self.kind != "tier" and self.name == tenant) or (self.kind != "tenant" and self.name == tier)


def check_name(who: str, what: str) -> str:
    """``who``, if that can be somebody. Raises ``InputError`` that says ``what`` the rule is."""
    if not is_tier_name(Who.of(who).name):
        raise InputError(f"{what} is of a tenant or a tier, whose name is printable and not empty")
    return who


def check_distinct(rules: Sequence[Rule], what: str) -> None:
    """Raise ``InputError`` where two of ``rules`` are of the same requests."""
    seen: list[Who] = []
    for who in (Who.of(rule.who) for rule in rules):
        if any(who.name == other.name and (who.kind == other.kind or not who.kind or not other.kind) for other in seen):
            whose = "everybody has" if who.name == EVERYBODY else f"{who.name!r:.80} has"
            raise InputError(f"{whose} two {what}; put all limits into one")
        seen.append(who)


def check_present(rules: Sequence[Rule], what: str, tenants: Collection[str], tiers: Collection[str]) -> None:
    """Raise ``InputError`` for ``rules`` of nobody among the requests, given row by row; ``what`` a rule is.

    Also for a name that is a tenant's and a tier's, if these have different requests.
    """
    if not rules:
        return
    tenants, tiers = (np.asarray(names, dtype=object) for names in (tenants, tiers))  # a table's own column is slow
    pairs = {(str(tenant), str(tier)) for tenant, tier in set(zip(tenants, tiers, strict=True))}
    for rule in rules:
        kind, name = Who.of(rule.who)
        own = {
            "tenant": {pair for pair in pairs if pair[0] == name},
            "tier": {pair for pair in pairs if pair[1] == name},
        }
        if (kind and own[kind]) or rule.who == EVERYBODY:
            continue
        if kind or not (own["tenant"] or own["tier"]):
            raise InputError(f"{what} {str(rule)!r:.80}: no request has the {kind or 'tenant or tier'} {name!r:.40}; "
                             f"{_present('tenant', pairs)}, {_present('tier', pairs)}")  # fmt: skip
        if own["tenant"] and own["tier"] and own["tenant"] != own["tier"]:
            raise InputError(
                f"{what} {str(rule)!r:.80}: a tenant and a tier are called {name!r:.40}, and their requests differ; "
                f"write tenant:{name:.40} or tier:{name:.40}"
            )


def _present(kind: str, pairs: Collection[tuple[str, str]]) -> str:
    names = sorted({pair[kind == "tier"] for pair in pairs})
    more = f" and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else ""
    return f"the {kind}s are {', '.join(names[:MOST_NAMED])}{more}"


def rule_of(rules: Sequence[Rule], tenants: np.ndarray, tiers: np.ndarray) -> np.ndarray:
    """The place among ``rules`` of the one that each request goes by, (requests,); -1 where it has none.

    A tenant's own goes before its tier's, and that before everybody's.

    >>> from driftsim.slo import slo_rules
    >>> slos = slo_rules(["ttft=1s", "gold:ttft=2s", "acme:ttft=3s"])
    >>> rule_of(slos, np.array(["acme", "b", "b"]), np.array(["gold", "gold", "tin"])).tolist()
    [2, 1, 0]
    """
    found = np.full(len(tenants), -1)
    named = [(Who.of(rule.who), place) for place, rule in enumerate(rules)]
    for kinds, names in ((("tier", ""), tiers), (("tenant", ""), tenants)):
        for who, place in named:
            if who.kind in kinds and who.name != EVERYBODY:
                found[names == who.name] = place
    for who, place in named:
        if who == ("", EVERYBODY):
            found[found < 0] = place
    return found


def limits_in(text: str, what: str, form: str, known: Collection[str]) -> tuple[str, dict[str, str]]:
    """Whom a rule written as ``[NAME:]limit=VALUE,...`` is of, and the text of each limit, which is one of ``known``.

    Raises ``InputError`` that says ``what`` the rule is and which ``form`` it has.

    >>> limits_in("premium:ttft=1s, e2e=30s", "SLO", "NAME:limit=VALUE", ("ttft", "e2e"))
    ('premium', {'ttft': '1s', 'e2e': '30s'})
    """
    who, sign, listed = text.rpartition(":")
    limits: dict[str, str] = {}
    for part in listed.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InputError(f"{what} {text!r:.80}: {part.strip()!r:.40} is no limit; write {form}")
        if name not in known:
            raise InputError(f"{what} {text!r:.80}: unknown limit {name!r:.40}; choose among {', '.join(known)}")
        if name in limits:
            raise InputError(f"{what} {text!r:.80}: limits {name} twice; keep one")
        limits[name] = value
    return who.strip() if sign else EVERYBODY, limits


def seconds(text: str, longest: float) -> float:
    """The duration ``text``, such as ``30s`` or ``50ms``, in seconds. Raises ``InputError`` that says what is wrong.

    >>> seconds("250ms", 1e9)
    0.25
    >>> seconds("5", 1e9)
    Traceback (most recent call last):
    driftsim.errors.InputError: has no unit
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None or found["unit"] not in UNITS:
        raise InputError("has no unit" if found is not None and not found["unit"] else "is no time in s or ms")
    value = float(found["number"]) / UNITS[found["unit"]]
    if not 0 < value <= longest:
        raise InputError(f"is no limit; it must be above 0 and at most {longest:g} s")
    return value


def duration(value: float) -> str:
    """A short text that ``seconds`` reads as exactly ``value``.

    >>> duration(0.05), duration(30.0), duration(1.0000000000000002)
    ('50ms', '30s', '1.0000000000000002s')
    """
    number, unit = (f"{1000 * value:.12g}", "ms") if value < 1 else (f"{value:.12g}", "s")
    return f"{number}{unit}" if float(number) / UNITS[unit] == value else f"{value!r}s"
