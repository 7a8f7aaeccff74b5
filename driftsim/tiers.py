"""Tiers are whatever the data says; their order, weights, safety factors and limits are configuration.

A configuration is a list of ``TierRule``, the most urgent first. Without one, the published three tiers have their
published order and weights, a single tier needs none, and any others have no order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.request import TIERS, Tier, is_tier_name

HEAVIEST = 1000  # slots of one tier in the weighted cycle
_PUBLISHED_WEIGHTS = dict(zip(map(str, TIERS), (5, 3, 2), strict=True))


def _named(name: str) -> str:
    if not is_tier_name(name):
        raise InputError(f"a tier's name must be printable and not empty, got {name!r:.80}")
    return name


class TierRule(Record):
    """One tier of a configuration; its place in the list is its place in the order of urgency.

    >>> TierRule(name="gold", weight=4).slots, TierRule(name="premium").slots, TierRule(name="bronze").slots
    (4, 5, 1)
    """

    name: Annotated[str, AfterValidator(_named)] = Field(description="Name of the tier.")
    weight: int | None = Field(
        default=None,
        gt=0,
        le=HEAVIEST,
        description="Slots of the tier in the cycle of the policy weighted; none: 5, 3 and 2 for premium, standard and "
        "batch, 1 for any other.",
    )
    safety: float | None = Field(
        default=None,
        gt=0,
        description="Factor of the tier's estimates, in place of the one in `admission.safety`.",
    )
    max_in_flight: int | None = Field(
        default=None,
        gt=0,
        description="Most requests of the tier inside the engine at once; none: no limit of its own.",
        json_schema_extra={"unit": "requests"},
    )

    @property
    def slots(self) -> int:
        """The weight, or the one that stands for a weight that is left out."""
        return _PUBLISHED_WEIGHTS.get(self.name, 1) if self.weight is None else self.weight


def _as_rules(value: Any) -> Any:
    """A list of rules, of a list that may hold names, too."""
    if isinstance(value, list | tuple):
        return [{"name": str(one)} if isinstance(one, str) else one for one in value]
    return value


def _distinct(rules: tuple[TierRule, ...]) -> tuple[TierRule, ...]:
    names = [rule.name for rule in rules]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"the tier {twice[0]!r} is there twice; give it one place in the order")
    return rules


TierRules: TypeAlias = Annotated[tuple[TierRule, ...], BeforeValidator(_as_rules), AfterValidator(_distinct)]
AnyTiers: TypeAlias = str | Iterable[str | TierRule | dict[str, Any]]
PUBLISHED: tuple[TierRule, ...] = tuple(TierRule(name=str(tier)) for tier in TIERS)


class _Listed(Record):
    tiers: TierRules = ()


def tier_rules(tiers: AnyTiers) -> tuple[TierRule, ...]:
    """The rules of ``tiers``, most urgent first: rules, names, tables, or one text ``name[:weight[:safety]],...``.

    Raises ``InputError`` for what is none.

    >>> [(rule.name, rule.slots, rule.safety) for rule in tier_rules("gold:5:1.2, silver:3, bronze")]
    [('gold', 5, 1.2), ('silver', 3, None), ('bronze', 1, None)]
    """
    if isinstance(tiers, str):
        listed: list[Any] = [_written(part.strip()) for part in tiers.split(",")]
    elif isinstance(tiers, Iterable) and not isinstance(tiers, dict):
        listed = list(tiers)
    else:
        raise InputError(f"tiers are a list, the most urgent first, not {tiers!r:.80}")
    return _Listed.of({"tiers": listed}).tiers


def _written(text: str) -> dict[str, Any]:
    """The rule that ``name[:weight[:safety]]`` stands for, as a table."""
    name, *numbers = text.split(":")
    try:
        values: dict[str, Any] = {"name": name}
        if numbers:
            values["weight"] = int(numbers[0])
        if numbers[1:]:
            values["safety"] = float(numbers[1])
    except ValueError:
        name = ""
    if not name or len(numbers) > 2:
        raise InputError(
            f"tier {text!r}: is no name[:weight[:safety]], with a whole weight; write gold:5:1.2, gold:5 or gold"
        )
    return values


def rules_in_force(configured: Sequence[TierRule], present: Collection[str]) -> tuple[TierRule, ...]:
    """The rules that the tiers ``present`` go by; none where nobody said their order.

    Raises ``InputError`` if rules are configured and one of those present is not among them.

    >>> [rule.name for rule in rules_in_force((), {"batch"})], rules_in_force((), {"gold", "silver"})
    (['premium', 'standard', 'batch'], ())
    """
    if configured:
        missing = sorted(set(present) - {rule.name for rule in configured})
        if missing:
            known = ", ".join(rule.name for rule in configured)
            raise InputError(f"the requests have the tier {missing[0]!r}, which is not among the tiers {known}; add it")
        return tuple(configured)
    if all(tier in TIERS for tier in present):
        return PUBLISHED
    return tuple(TierRule(name=str(tier)) for tier in present) if len(present) == 1 else ()


def ranked(rules: Sequence[TierRule], present: Iterable[str]) -> dict[str, Tier]:
    """The tiers ``present``, by name, with the ranks that ``rules`` give them; without rules, without ranks.

    >>> ranked(tier_rules("gold,silver"), {"silver"})["silver"].rank
    2
    """
    ranks: dict[str, int] = {rule.name: place for place, rule in enumerate(rules, start=1)}
    return {name: Tier(name, ranks.get(name)) for name in present}


def by_urgency(names: Iterable[str], rules: Sequence[TierRule] = ()) -> list[str]:
    """``names`` in the order of ``rules``, then the published three in theirs, then all others by name.

    >>> by_urgency(["zinc", "batch", "tin", "premium"]), by_urgency(["a", "b"], tier_rules("b,a"))
    (['premium', 'batch', 'tin', 'zinc'], ['b', 'a'])
    """
    order = {name: place for place, name in reversed(list(enumerate([*(rule.name for rule in rules), *TIERS])))}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def no_order(present: Iterable[str], who: str) -> str:
    """The line that says that ``who`` goes by tiers, but nobody said the order of those ``present``."""
    names = sorted(present)
    some = names[:5]
    more = f" and {len(names) - 5} more" if names[5:] else ""
    return (
        f"{who} by tier, and nobody said the order of the tiers {', '.join(some)}{more}; give them, the most urgent "
        f"first, with --tiers {some[-1]},{some[0]},... or tiers = [...]"
    )
