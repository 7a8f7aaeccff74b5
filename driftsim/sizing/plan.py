"""What a search for capacity is of: schedulers and engines, each of which it asks for the load that it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from driftsim.comparison.plan import Setting, settings_of
from driftsim.errors import InputError, check_whole
from driftsim.pressing.draws import Draw, draws_of
from driftsim.scheduling.policies import BASELINE, STOCK, alone_by
from driftsim.simulation.dotted import nested
from driftsim.simulation.spec import ScenarioSpec

REPLICATIONS = 20
LEAST_TOLERANCE = 0.001


@dataclass(frozen=True)
class Case:
    """One search: a scheduler on an engine; ``axis`` is the key of a scenario that has another ``value``, if one has.

    >>> str(Case(Setting("sjf", "ema"), "engine.max_num_seqs", 64)), str(Case(Setting("fifo", "static")))
    ('sjf/ema, max_num_seqs 64', 'fifo/static')
    """

    setting: Setting
    axis: str = ""
    value: Any = None

    def __str__(self) -> str:
        return f"{self.setting}, {short_axis(self.axis)} {self.value}" if self.axis else str(self.setting)


def short_axis(axis: str) -> str:
    """An axis without the table that its key lies in; but the count of replicas says of what.

    >>> short_axis("engine.kv_blocks"), short_axis("replicas.count")
    ('kv_blocks', 'replicas')
    """
    return "replicas" if axis == "replicas.count" else axis.rpartition(".")[2]


DRAWN = "every search has the same requests, and draws them itself"
SET = {
    "policy": "--policies names those", "estimator": "--estimators names those",
    "rate_scale": "the load is what is searched", "arrivals": "the load is what is searched",
    "slos": "every search has the same SLOs", **dict.fromkeys(
        ("trace", "workload", "requests", "replication", "resampling", "seed", "warm_up", "cool_down", "phase"), DRAWN
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SizingPlan:
    """What to search for, and how well.

    spec: what all runs have in common. axes: by key of a scenario, the values that it takes; the first of each is what
    the others are held against, one axis at a time. replications: the recorded day and one less resamples of either
    kind, or draws of the workload. lowest, highest: loads beyond which nothing is tried (default: around what the
    engine serves of a backlog). tolerance: relative distance from the answer to a load that failed.
    """

    spec: ScenarioSpec
    settings: tuple[Setting, ...] = (Setting(BASELINE, "static"),)
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    target: float = 0.99
    replications: int = REPLICATIONS
    lowest: float | None = None
    highest: float | None = None
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        check_whole("replications", self.replications)
        if self.replications < 1:
            raise InputError(f"replications must be at least 1, got {self.replications}")
        if not _between(self.target, 0, 1):
            raise InputError(f"the target is a share above 0 and below 1, such as 0.99, got {self.target!r:.40}")
        if not _between(self.tolerance, LEAST_TOLERANCE, 1, ends=True):
            raise InputError(
                f"the tolerance must be {LEAST_TOLERANCE:g} to 1, such as 0.01, got {self.tolerance!r:.40}"
            )
        for name in ("lowest", "highest"):
            load = getattr(self, name)
            if load is not None and not _between(load, 0, 1e9):
                raise InputError(f"the {name} load must be above 0 (and below 1e9), got {load!r:.40}")
        for axis, values in self.axes.items():
            if (part := axis.partition(".")[0]) in SET:
                raise InputError(
                    f"{axis} is no axis: {SET[part]}; hold engines or switches of admission against others"
                )
            if not values or len(set(map(repr, values))) < len(values):
                raise InputError(f"{axis} needs values, each once, got {list(values)!r:.80}")

    @property
    def cases(self) -> list[Case]:
        """The searches: of each scheduler its base, then one case for each further value of each axis."""
        others = [(axis, value) for axis, values in self.axes.items() for value in values[1:]]
        return [Case(setting, *other) for setting in self.settings for other in [("", None), *others]]

    def base_of(self, case: Case) -> Case:
        """What ``case`` is held against: its scheduler on the first engine, or the first scheduler."""
        return Case(case.setting if case.axis else self.settings[0])

    def spec_of(self, case: Case) -> ScenarioSpec:
        """The scenario of ``case``, at no load in particular. Raises ``InputError`` for a value that cannot be."""
        changes = {axis: values[0] for axis, values in self.axes.items()} | (
            {case.axis: case.value} if case.axis else {}
        )
        plain = self.spec.model_dump(exclude_defaults=True)
        try:
            made = ScenarioSpec.of(nested(plain | changes)) if changes else self.spec
        except InputError as error:
            raise InputError(f"{', '.join(f'{axis} = {value}' for axis, value in changes.items())}: {error}") from None
        return made.changed(policy=case.setting.policy, estimator=case.setting.estimator)

    @property
    def draws(self) -> list[Draw]:
        """The kind of each replication, and the keys of a scenario that draw it."""
        return draws_of(self.spec, self.replications)


def _between(value: Any, low: float, high: float, ends: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return low <= value <= high if ends else low < value < high


def distinct_settings(policies: Iterable[str], estimators: Iterable[str]) -> tuple[Setting, ...]:
    """Every policy with every estimator; a policy that heeds no estimate comes once, with the first.

    >>> [str(one) for one in distinct_settings(["fifo", "sjf"], ["static", "ema"])]
    ['fifo/static', 'sjf/static', 'sjf/ema']
    """
    return tuple(_distinct(settings_of(policies, estimators)))


def _distinct(settings: Iterable[Setting]) -> Iterator[Setting]:
    seen = set[str]()
    for setting in settings:
        blind = setting.policy in (STOCK, BASELINE) or alone_by(setting.policy) == "tier"
        if not (blind and setting.policy in seen):
            yield setting
        seen.add(setting.policy)
