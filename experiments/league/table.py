"""The table of a league: entrants in the order of their mean latency, each with its ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from driftsim.formatting import markdown
from driftsim.scheduling.estimators import is_given_the_truth
from driftsim.scheduling.names import Place
from experiments.league.ranks import Differences, Ranks, Scores, differences, ranks_of


class Entrant(NamedTuple):
    """A policy, what estimates for it, and where it stands."""

    policy: str
    estimator: str
    place: Place = "front"


FIFO = Entrant("fifo", "static")
MEASURES = {
    "mean": "mean E2E",
    "p99": "P99 E2E",
    "worst": "worst tenant",
    "within": "within SLO",
    "starved": "P99 slowdown",
}  # slowdown: E2E over that alone; its P99 is how long the unluckiest wait for their size


@dataclass(frozen=True, eq=False)
class Table:
    """What each entrant came to. The first entrant is FIFO; scores of the others are against it."""

    entrants: Sequence[Entrant]
    scores: Mapping[str, Mapping[str, Scores]]  # by measure and workload

    @cached_property
    def places(self) -> list[int]:
        """Entrants that differ: of a policy that heeds no estimate the first, whichever estimator feeds it."""
        whole = np.stack([
            np.concatenate([own.values for own in of.values()], axis=1) for of in self.scores.values()
        ], axis=1)  # fmt: skip
        kept: list[int] = []
        for place, entrant in enumerate(self.entrants):
            twins = [one for one in kept if self.entrants[one].policy == entrant.policy]
            if not any(np.array_equal(whole[one], whole[place], equal_nan=True) for one in twins):
                kept.append(place)
        return kept

    @cached_property
    def ranked(self) -> list[int]:
        """Those of ``places`` that could run in front of a server."""
        return [place for place in self.places if not is_given_the_truth(self.entrants[place].estimator)]

    def label(self, place: int) -> str:
        """The estimator of an entrant, or that any will do."""
        own = [one for one in self.places if self.entrants[one].policy == self.entrants[place].policy]
        return self.entrants[place].estimator if len(own) > 1 else "any"

    def _part(self, measure: str, places: Sequence[int]) -> Differences:
        return differences({
            name: Scores(own.kinds, own.values[list(places)]) for name, own in self.scores[measure].items()
        })  # fmt: skip

    def frame(self) -> pd.DataFrame:
        """One row for each entrant, in the order of the mean latency; those that are told the truth come last.

        Of each measure: the change against FIFO with its interval (of `within`: points of the share), the rank, its
        lowest and highest, and whether it ties the best. NaN ranks: told the truth.
        """
        bounds = [place for place in self.places if place not in self.ranked]
        rows: dict[int, dict[str, object]] = {
            place: {
                "policy": self.entrants[place].policy, "estimator": self.label(place),
                "place": self.entrants[place].place,
            } for place in self.places
        }  # fmt: skip
        for measure in MEASURES:
            ranks = ranks_of(self._part(measure, self.ranked))
            for order, place in enumerate(self.ranked):
                rows[place] |= _ranked(measure, ranks, order)
            against = self._part(measure, [0, *self.places])
            for order, place in enumerate(self.places, start=1):
                value, half = float(against.value[order, 0]), float(against.half[order, 0])
                ends = [value, value - half, value + half]
                turned = [-100 * ends[0], -100 * ends[2], -100 * ends[1]] if measure == "within" else np.expm1(ends)
                rows[place] |= dict(
                    zip((measure, f"{measure}_low", f"{measure}_high"), map(float, turned), strict=True)
                )
        frame = pd.DataFrame([rows[place] for place in [*self.ranked, *bounds]])
        frame.insert(3, "told_the_truth", [False] * len(self.ranked) + [True] * len(bounds))
        return frame.sort_values(["told_the_truth", "mean"], kind="stable", ignore_index=True)

    def __str__(self) -> str:
        return as_markdown(self.frame())


def _ranked(measure: str, ranks: Ranks, order: int) -> dict[str, object]:
    return {
        f"{measure}_rank": int(ranks.rank[order]), f"{measure}_rank_low": int(ranks.lowest[order]),
        f"{measure}_rank_high": int(ranks.highest[order]), f"{measure}_tied": bool(ranks.tied[order]),
    }  # fmt: skip


def as_markdown(frame: pd.DataFrame) -> str:
    """``frame`` as a Markdown table: of each measure the change, and the rank with its interval; = ties the best."""
    headings = ["policy", "estimator", *MEASURES.values()]
    rows = [[named(row), row["estimator"], *_cells(row)] for row in frame.to_dict("records")]
    return markdown(headings, rows, 2)


def named(row: Mapping[Any, Any]) -> str:
    """The policy of a row of the table, and where it stands unless that is in front."""
    return str(row["policy"]) if row["place"] == "front" else f"{row['policy']}, {row['place']}"


def _cells(row: Mapping[Any, Any]) -> list[str]:
    cells = []
    for measure in MEASURES:
        value = float(row[measure])
        change = f"{value:+.1f} pt" if measure == "within" else f"{100 * value:+.0f} %"
        if row["told_the_truth"]:
            cells.append(change)
            continue
        rank, low, high = (int(row[f"{measure}_rank{end}"]) for end in ("", "_low", "_high"))
        cells.append(f"{change}; {rank} [{low}, {high}]{' =' if row[f'{measure}_tied'] else ''}")
    return cells
