"""The policies by name.

Adding one: a class with its source and a ``key``, in the module of its family, and its line in ``POLICIES``. The
smallest key goes first, ties by arrival.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from driftsim.errors import InputError
from driftsim.scheduling.names import spelled
from driftsim.scheduling.parameters import canonical, values_of
from driftsim.scheduling.plugins import declared, declared_names, instance, is_plugin, plugin
from driftsim.scheduling.published import Aging, Fifo, Priority, Sjf, Weighted
from driftsim.scheduling.queues import Heeds, Keyed, Policy, passes_over

if TYPE_CHECKING:
    from driftsim.tiers import TierRule

__all__ = ["Aging", "Fifo", "Keyed", "Policy", "Priority", "Sjf", "Weighted", "passes_over"]

POLICIES: dict[str, type[Policy]] = {
    "fifo": Fifo,
    "priority": Priority,
    "weighted": Weighted,
    "sjf": Sjf,
    "aging": Aging,
}
BASELINE = "fifo"
STOCK = "stock"  # the engine's own order: FIFO with no limit in flight


def policy_class(name: str) -> type[Policy]:
    """The class that ``name`` stands for: ours, a declared one, or one that it says the place of.

    Parameters behind the name are not looked at. Raises ``InputError`` if there is none, or it is no policy.
    """
    name = spelled(name).base
    if is_plugin(name):
        kind = plugin(name)
    elif name in POLICIES or name == STOCK:
        return POLICIES.get(name, Fifo)
    elif name in declared_names("policy"):
        kind = declared("policy")[name]
    else:
        known = ", ".join([STOCK, *POLICIES, *declared_names("policy")])
        raise InputError(f"unknown policy {name!r}; choose one of {known}, or give module:Class")
    missing = [method for method in ("push", "pop", "__len__") if not hasattr(kind, method)]
    if missing:
        raise InputError(f"{name}: is no policy, it has no {missing[0]}(); see driftsim.Policy")
    return kind


def policy_name(name: str) -> str:
    """The canonical spelling of the policy ``name``. Raises ``InputError`` for parameters that it does not take.

    >>> policy_name("sjf?"), policy_name("fifo")
    ('sjf', 'fifo')
    """
    return canonical(name, policy_class)


def make_policy(name: str, rules: Sequence[TierRule] = ()) -> Policy:
    """A fresh policy for tiers that go by ``rules``. Raises ``InputError`` for an unknown name or parameter.

    A policy that wants more of the tiers than the rank in each request has a class method ``of_tiers(rules)``.
    """
    kind = policy_class(name)
    told = values_of(name, kind)
    if rules and hasattr(kind, "of_tiers"):
        made: Policy = kind.of_tiers(rules, **told)
        return made
    return instance(name, kind, **told)


def goes_by_tier(name: str) -> bool:
    """Whether the policy ``name`` says that it goes by tier; one of the user's own may do so and not say it."""
    return getattr(policy_class(name), "heeds", "") == "tier"


def alone_by(name: str) -> Heeds:
    """What, besides the arrival, alone decides the order of the policy ``name``; "" if that is not known."""
    found: Heeds = vars(policy_class(name)).get("heeds", "")  # what a class inherits says nothing of its own key
    return found


def check_order(name: str, rules: Sequence[TierRule], present: Iterable[str], engine_policy: str = "fcfs") -> None:
    """Raise ``InputError`` if the policy ``name``, or the engine's own, goes by tiers whose order nobody said."""
    if not rules and (engine_policy == "priority" or goes_by_tier(name)):
        from driftsim.tiers import no_order

        who = "the engine's scheduling policy 'priority' orders" if engine_policy == "priority" else f"{name} orders"
        raise InputError(no_order(present, who))
