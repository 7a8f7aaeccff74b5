"""A run that is asked for, and what is asked of it, as flat columns with plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from driftsim.scheduling.plugins import is_plugin
from driftsim.simulation.spec import ScenarioSpec
from driftsim.slo import Slo
from driftsim.sweeps.naming import OWN, SHORT
from driftsim.tiers import TierRule
from driftsim.version import __version__

KEPT_DIGESTS = 1000


class Task:
    """A run to do: its key, what it is, and the digests of what it needs; a workload's stands for a trace's.

    ``specs``: the spec itself, or many of them, of which it is the one at ``number`` and is made when it is looked at.
    """

    __slots__ = ("_number", "_specs", "key", "profile", "trace")

    def __init__(
        self, key: str, specs: ScenarioSpec | Sequence[ScenarioSpec], trace: str, profile: str, number: int = 0
    ) -> None:
        self.key, self.trace, self.profile = key, trace, profile
        self._specs, self._number = specs, number

    @property
    def spec(self) -> ScenarioSpec:
        """What is run."""
        return self._specs if isinstance(self._specs, ScenarioSpec) else self._specs[self._number]

    def __reduce__(self) -> tuple[type[Task], tuple[Any, ...]]:
        return Task, (self.key, self.spec, self.trace, self.profile)


def parameters(task: Task) -> dict[str, Any]:
    """What was asked for, flat; plain values only. Tasks of two keys differ here, paths counting as what they hold."""
    spec = task.spec
    found: dict[str, Any] = {
        "trace_digest": task.trace,
        "profile_digest": task.profile,
        "driftsim_version": __version__,
    }
    if is_plugin(spec.policy) or is_plugin(spec.estimator):
        sources = spec.identity(task.trace, task.profile)["plugins"]
        found["plugins"] = " ".join(source[:SHORT] for source in sources.values())
    plain = spec.model_dump(
        mode="json",
        exclude={
            "steps": True,
            "slos": True,
            "clients": True,
            "drift": True,
            "shed": True,
            "replicas": True,
            "place": spec.place == "front",
            **_unasked(spec),
            "workload": _unused(spec),
        },
    )
    for name, value in (plain | {"profile": OWN if spec.profile is None else spec.profile}).items():
        found |= dict(_flat(name, value))
    if spec.slos:
        found["slos"] = told_slos(spec.slos)
    if spec.drift:
        found["drift"] = "; ".join(map(str, spec.drift))
    if spec.clients.timeouts:
        found["clients.timeouts"] = "; ".join(map(str, spec.clients.timeouts))
    if spec.clients.retries is not None:
        found |= dict(_flat("clients.retries", spec.clients.retries.model_dump(mode="json")))
    if spec.replicas:
        for name, value in spec.replicas.model_dump(mode="json").items():
            listed = "; ".join(map(str, getattr(spec.replicas, name))) if isinstance(value, list) else value
            found[f"replicas.{name}"] = listed
    if spec.shed:
        found["shed"] = "; ".join(map(str, spec.shed))
    if spec.tiers:
        found["tiers"] = ",".join(map(_rule, spec.tiers))
    return found


def told_slos(slos: Sequence[Slo]) -> str:
    return "; ".join(map(str, slos))


def _unasked(spec: ScenarioSpec) -> dict[str, bool]:
    """The keys about what is measured that say nothing: rows of an older driftsim have no such column."""
    return {name: not getattr(spec, name) for name in ("fairness", "estimation", "limits", "warm_up", "cool_down")}


def _unused(spec: ScenarioSpec) -> set[str]:
    """The keys of the workload that have their default and mean nothing for its kind of arrivals."""
    if spec.workload is None:
        return set()
    fields = type(spec.workload).model_fields
    return {name for name in spec.workload.unused if getattr(spec.workload, name) == fields[name].default}


def _rule(rule: TierRule) -> str:
    """``rule`` as a short text: name, weight, safety, most in flight, as far as they are said."""
    name = rule.name if rule.name.isidentifier() else json.dumps(rule.name)
    said = ["" if one is None else f"{one:g}" for one in (rule.weight, rule.safety, rule.max_in_flight)]
    return ":".join([name, *said]).rstrip(":")


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The plain values below ``value``, by dotted name; tiers and tenants by theirs, other lists as one text."""
    if name == "workload.tenants":
        value = _by_label(value)
        if value:
            yield name, _listed(list(value))
    elif name == "tiers":
        value = {rule["name"]: {"rank": rank, **rule} for rank, rule in enumerate(value, start=1)}
    if isinstance(value, dict):
        for below, inner in value.items():
            yield from _flat(f"{name}.{below}", inner)
    elif isinstance(value, list | tuple):
        yield name, _listed(value)
    elif value is not None:
        yield name, value


def _listed(values: Sequence[Any]) -> str:
    """A list as one text: its items, with commas; as JSON where that would not be clear."""
    plain = all(isinstance(one, str) and one and not set(one) & set(',"[') for one in values)
    return ", ".join(values) if plain else json.dumps(values)


def _by_label(tenants: list[dict[str, Any]]) -> dict[str, Any]:
    names = [tenant["name"] for tenant in tenants]
    return {
        name if names.count(name) == 1 else f"{name}/{tenant['category']}": tenant
        for name, tenant in zip(names, tenants, strict=True)
    }
