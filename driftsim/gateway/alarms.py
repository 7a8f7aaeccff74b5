"""Alarms: what a fitted estimate or profile rests on has changed. Each is raised once and cleared once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

BAND = (0.67, 1.5)  # of output length over estimate
LEAST_COVERAGE = 0.1  # below what was asked for
STEP_BAND = (0.8, 1.25)  # of a decode step's time, from one profile to the next
CLEAR = 0.9  # of the way out of a band, on the log scale: inside of it an alarm is cleared


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm: what kind, of what, and in words."""

    kind: str
    subject: str
    text: str
    since: float  # s of the gateway's time


class Alarms:
    """Those that are raised. ``told`` hears of each that is raised or (False) cleared."""

    def __init__(self, told: Callable[[Alarm, bool], None] = lambda alarm, raised: None) -> None:
        self._told = told
        self._raised: dict[tuple[str, str], Alarm] = {}

    def __iter__(self) -> Iterator[Alarm]:
        return iter(self._raised.values())

    def estimates(self, categories: Iterable[dict[str, Any]], levels: tuple[float, ...], now: float) -> None:
        """Look at how estimates do, by category, as ``Stats.categories`` tells; ``levels`` of their intervals."""
        for row in categories:
            name, found, covered = row["category"], row["ratio"], row["coverage"]
            if found is not None:
                text = f"outputs of {name} are {found:.2f} times their estimates"
                self._judge("bias", name, outside(found, BAND, self._is_raised("bias", name)), text, now)
            if covered is not None and len(levels) > 1:
                asked = levels[-1] - levels[0]
                least = asked - LEAST_COVERAGE * (CLEAR if self._is_raised("coverage", name) else 1.0)
                text = f"{100 * covered:.0f} % of the outputs of {name} are in intervals made for {100 * asked:.0f} %"
                self._judge("coverage", name, covered < least, text, now)

    def steps(self, before: float | None, after: float | None, now: float) -> None:
        """Look at the time of a decode step (s) by the last profile and by the one ``before`` an alarm."""
        if before and after:
            change = after / before
            text = f"a decode step takes {change:.2f} times as long as it did"
            self._judge(
                "step_time", "engine", outside(change, STEP_BAND, self._is_raised("step_time", "engine")), text, now
            )

    def record(self, problems: list[str], now: float) -> None:
        """Look at what could not be recorded."""
        self._judge("record", "trace", bool(problems), f"not all is recorded: {len(problems)} problems", now)

    def _is_raised(self, kind: str, subject: str) -> bool:
        return (kind, subject) in self._raised

    def _judge(self, kind: str, subject: str, is_wrong: bool, text: str, now: float) -> None:
        key = (kind, subject)
        if is_wrong and key not in self._raised:
            self._raised[key] = Alarm(kind, subject, text, now)
            self._told(self._raised[key], True)
        elif not is_wrong and key in self._raised:
            self._told(self._raised.pop(key), False)


def outside(value: float, band: tuple[float, float], is_raised: bool) -> bool:
    """Whether ``value`` is outside of ``band``, narrower for one that ``is_raised``, lest it comes and goes.

    >>> outside(1.4, (0.5, 1.5), False), outside(1.48, (0.5, 1.5), True)
    (False, True)
    """
    low, high = (end**CLEAR if is_raised else end for end in band)
    return not low <= value <= high
