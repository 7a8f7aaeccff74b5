"""Which assumption moves a claim? The study again, with answers of other lengths, and with more words a token.

Our length model is of a smaller model than DriftSched's: how long the answers are and how many words a token
makes is what it must assume.
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
ASKED = tuple(run for run in RUNS if run.engine == "barrier" and run.policy in ("fifo", "sjf"))


def table(study: pd.DataFrame, seeds: int, jobs: int = -1) -> pd.DataFrame:
    """Every claim's statistic under each assumption, that of ``study``'s rows first.

    Errors are averaged over FIFO and SJF here, whose runs are the only ones that are made again.
    """
    asked = [(seed, name) for name in ASSUMPTIONS for seed in range(seeds)]
    made = Parallel(n_jobs=jobs)(delayed(_of_seed)(*each) for each in asked)
    found: list[dict[str, Any]] = []
    same = study[study["policy"].isin(["fifo", "sjf"]) & (study["seed"] < seeds)].assign(assumption=AS_CAPTURED)
    rows = pd.concat([same, pd.DataFrame([row for part in made for row in part])])
    for name, part in rows.groupby("assumption", sort=False):
        for claim in CLAIMS:
            value, low, high = mean_interval(claim.statistic(part))
            found.append({"assumption": name, "claim": claim.name, "ours": value, "low": low, "high": high})
    return pd.DataFrame(found)


def _of_seed(seed: int, name: str) -> list[dict[str, Any]]:
    return [row | {"assumption": name} for run in ASKED for row in rows_of(run, seed, ASSUMPTIONS[name])]
