"""Which assumption moves a claim? The study again, with answers of other lengths, and with more words a token.

Our length model is of a smaller model than DriftSched's: how long the answers are and how many words a token
makes is what it must assume. Every reading of every claim is taken on every workload under every assumption.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from driftsim.statistics import mean_interval
from experiments.paper.claims import CLAIMS
from experiments.paper.setup import Assumed
from experiments.paper.study import RUNS, rows_of

NEVER_ENDING = 1000.0
PUBLISHED_WORDS = 0.72  # a token, about, in DriftSched's outputs
AS_CAPTURED = "as captured"
ASSUMPTIONS = {
    "half as long": Assumed(0.5),
    "all at the cap": Assumed(NEVER_ENDING),
    f"{PUBLISHED_WORDS} words a token": Assumed(1.0, PUBLISHED_WORDS),
}
ASKED = tuple(run for run in RUNS if run.engine == "barrier")


def readings(study: pd.DataFrame, jobs: int = -1) -> pd.DataFrame:
    """Every reading under each assumption, that of ``study``'s rows first: assumption, claim, reading, seed, value."""
    asked = [(int(seed), name) for name in ASSUMPTIONS for seed in study["seed"].unique()]
    made = Parallel(n_jobs=jobs)(delayed(_of_seed)(*each) for each in asked)
    return pd.concat([taken(study, AS_CAPTURED), *made], ignore_index=True)


def taken(rows: pd.DataFrame, assumption: str) -> pd.DataFrame:
    """Every reading of the runs in ``rows``, by seed."""
    found = [
        {"assumption": assumption, "claim": claim.name, "reading": reading.name, "seed": seed, "value": value}
        for claim in CLAIMS
        for reading in claim.readings
        for seed, value in reading.statistic(rows).items()
    ]
    return pd.DataFrame(found)


def _of_seed(seed: int, name: str) -> pd.DataFrame:
    return taken(pd.DataFrame([row for run in ASKED for row in rows_of(run, seed, ASSUMPTIONS[name])]), name)


def table(readings: pd.DataFrame) -> pd.DataFrame:
    """The mean over the seeds of every reading under each assumption, with its 95 % interval over the seeds."""
    found: list[dict[str, Any]] = []
    for (assumption, claim, reading), part in readings.groupby(["assumption", "claim", "reading"], sort=False):
        value, low, high = mean_interval(part["value"].to_numpy())
        found.append(
            {"assumption": assumption, "claim": claim, "reading": reading, "ours": value, "low": low, "high": high}
        )
    return pd.DataFrame(found)
