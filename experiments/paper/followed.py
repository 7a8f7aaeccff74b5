"""Does latency follow the error of the estimates, or their order? The corrections of the factorial, cell by cell.

A cell is a combination of all other switches at the higher load, under SJF, averaged over the seeds: what a correction
changes there of the mean E2E (logarithm), of the MAE (logarithm) and of Kendall's tau (difference), against none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from driftsim.sweeps.effects import Design

LATENCY, ERROR, ORDERS = "e2e_mean_s", "mae", ("kendall_tau", "kendall_tau_estimate")
PUBLISHED = "base"
SAME = 1e-9  # in logarithms: what is less than this has not changed


def changes(rows: pd.DataFrame, design: Design) -> pd.DataFrame:
    """A row per cell and correction: latency, error, and the taus, each as its change against no correction."""
    load = design.factors["load"][-1]
    pressed = rows[(rows["policy"] == "sjf") & (rows["load"] == load) & (rows["correction"] != "oracle")]
    others = [name for name in design.factors if name not in ("policy", "load", "correction")]
    metrics = [LATENCY, ERROR, *ORDERS]
    means = pressed.groupby([*others, "correction"])[metrics].mean().reset_index()
    means[[LATENCY, ERROR]] = np.log(means[[LATENCY, ERROR]])
    off = means[means["correction"] == "off"].drop(columns="correction")
    made = means[means["correction"] != "off"].merge(off, on=others, suffixes=("", "_off"))
    for metric in metrics:
        made[metric] -= made[f"{metric}_off"]
    return made[[*others, "correction", *metrics]]


def table(rows: pd.DataFrame, design: Design) -> pd.DataFrame:
    """By correction and over all: cells, those of lower error, those of them of higher latency, rank correlations.

    ``with_*`` is Spearman's correlation, over the cells, of the change of the mean E2E with that of a metric.
    """
    made = changes(rows, design)
    parts = [("all", made), *made.groupby("correction", sort=False)]
    return pd.DataFrame([{"correction": name, **_told(part)} for name, part in parts])


def _told(cells: pd.DataFrame) -> dict[str, Any]:
    lower = cells[cells[ERROR] < -SAME]
    return {
        "cells": len(cells), "lower_mae": len(lower), "of_them_slower": int((lower[LATENCY] > SAME).sum()),
        **{f"with_{name}": float(spearmanr(cells[LATENCY], cells[name]).statistic) for name in (ERROR, *ORDERS)},
    }  # fmt: skip


def accounted(rows: pd.DataFrame, design: Design) -> pd.DataFrame:
    """What the published correction changes of the MAE where words and where tokens are counted, in logarithms.

    ``share``: of the sum of both logarithms.
    """
    asked = rows[rows["correction"] != "oracle"]
    found = []
    for unit, part in asked.groupby("accounting"):
        value, low, high = design.effect(part, "correction", "off", PUBLISHED, ERROR, "ratio")
        found.append({"accounting": unit, "effect": value, "low": low, "high": high})
    table = pd.DataFrame(found)
    logs = np.log1p(table["effect"])
    return table.assign(share=logs / logs.sum())
