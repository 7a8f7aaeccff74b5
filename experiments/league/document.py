"""What is kept of the league, and what the documents show of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments.league.table import Table, as_markdown, named
from experiments.league.workloads import FIXTURES, LOADS, VERSION

STORED = Path(__file__).with_name("table.csv")


def keep(table: Table) -> None:
    """Write ``table`` beside this file."""
    table.frame().to_csv(STORED, index=False)


def stored() -> pd.DataFrame:
    """The table that was kept."""
    return pd.read_csv(STORED)


def block() -> str:
    """The table, as Markdown."""
    return as_markdown(stored())


def workloads_block() -> str:
    """The workloads, as a list."""
    loads = ", ".join(f"{load:g}" for load in LOADS)
    lines = [f"* `{name}`: {fixture.about}\n" for name, fixture in FIXTURES.items()]
    return f"Version {VERSION}, at {loads} of the rate at which the engine serves a backlog:\n\n{''.join(lines)}"


def answer() -> str:
    """Who leads, and who cannot be told from it, in a sentence."""
    ranked = stored()[lambda frame: ~frame["told_the_truth"]]
    said = []
    for measure, what in (("mean", "mean latency"), ("p99", "P99"), ("within", "requests within their SLO")):
        best = ranked[ranked[f"{measure}_rank"] == 1].iloc[0]
        with_ = "" if best["estimator"] == "any" else f" with {best['estimator']}"
        ties = int(ranked[f"{measure}_tied"].sum()) - 1
        said.append(f"{what}: {named(best)}{with_}, with {ties} of {len(ranked) - 1} others tied")
    return f"Best in {'; in '.join(said)}."
