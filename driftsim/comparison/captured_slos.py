"""What captured runs kept within the SLOs that their headers hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from driftsim.comparison.capture_checks import Named, Setting
from driftsim.goodput import with_slos

WITHIN = "Within the SLOs of the traces, measured: mean ± standard deviation over the runs"


def one_promise(traces: Sequence[Named]) -> tuple[list[Named], list[str]]:
    """``traces`` as they can be compared: without SLOs where they were promised different ones; and a line on that."""
    if len({trace.header.slos for _, trace in traces}) == 1:
        return list(traces), []
    differ = "the traces have different SLOs, so what was kept within them is not compared"
    return [(name, with_slos(trace, ())) for name, trace in traces], [differ]


def rows_within(summaries: Mapping[Setting, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each policy: mean and standard deviation, over its runs, of attainment and goodput (requests/s).

    Empty where the runs have no SLO.
    """
    if not all("attainment" in row for runs in summaries.values() for row in runs):
        return []
    return [
        {"policy": policy, "estimator": estimator}
        | {name: value for metric in ("attainment", "goodput") for name, value in _over(runs, metric).items()}
        for (policy, estimator), runs in summaries.items()
    ]


def _over(runs: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    values = np.array([float(row[metric]) for row in runs])
    return {metric: float(values.mean()), f"{metric}_sd": float(values.std(ddof=1)) if len(values) > 1 else np.nan}


def table_within(rows: Sequence[Mapping[str, Any]], named: Sequence[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Headings and lines of a table of ``rows``; ``named`` begin the lines."""
    headings = ["policy\n", "estimator\n", "runs\n", "attainment\n%", "goodput\nrequests/s"]
    lines = [
        [*begin, f"{100 * row['attainment']:.1f} ± {100 * row['attainment_sd']:.1f}",
         f"{row['goodput']:.3g} ± {row['goodput_sd']:.2g}"]
        for begin, row in zip(named, rows, strict=True)
    ]  # fmt: skip
    return headings, lines
