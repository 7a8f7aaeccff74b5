"""Whether predicting output lengths is worth it: what `driftsim value` says of shipped traces and of Azure's lengths.

python -m experiments.value_of_prediction                 # all of it
python -m experiments.value_of_prediction --store FOLDER  # keep the runs there, and go on from them
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim import ValueResult, value
from driftsim.formatting import between, markdown
from driftsim.statistics import Interval
from driftsim.worth.wording import BINDS
from experiments.arguments import folder
from experiments.azure import azure
from experiments.league.workloads import h200

ROOT = Path(__file__).resolve().parent.parent
STORED = Path(__file__).with_suffix("")
KEPT = ("value.csv", "beyond.csv", "value.svg", "value.png")
LOAD, POLICY = 0.9, "sjf"
ASKED: dict[str, Any] = {"policies": ("sjf", "boost"), "replications": 8}
AZURE = "Azure, fitted"
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {  # a shipped trace or ``AZURE``, and what is asked besides
    "chat-cpu": ("smollm2-cpu-drift", {}),
    "chat-gpu": ("qwen1.8b-h200-load-0.8", {"limits": ("slots",)}),
    "chat-azure": (AZURE, {"limits": ("slots",)}),
}


def main(store: Path | None = None) -> None:
    """Answer every question, and keep what is printed, the rows and the figure."""
    STORED.mkdir(exist_ok=True)
    for name, (what, more) in QUESTIONS.items():
        asked: dict[str, Any] = {**ASKED, **more, "store": store}
        keep(value(azure(400), h200(), **asked) if what == AZURE else value(ROOT / "traces" / what, **asked), name)


def keep(result: ValueResult, name: str) -> None:
    """Write ``result`` as ``name`` into the folder of what is stored."""
    with tempfile.TemporaryDirectory() as aside:
        out = result.write(Path(aside) / "out")
        for file in KEPT:
            shutil.copy(out / file, STORED / f"{name}-{file}")
    (STORED / f"{name}.txt").write_text(f"{result}\n")


def text_block(name: str) -> str:
    """What was printed of the question ``name``."""
    return f"```text\n{(STORED / f'{name}.txt').read_text()}```\n"


@cache
def rows(name: str) -> pd.DataFrame:
    """The stored rows of the question ``name``."""
    return pd.read_csv(STORED / f"{name}-value.csv")


def _change(row: Any, measure: str = "mean") -> Interval:
    return Interval(*(row[f"{measure}_change{end}"] for end in ("", "_low", "_high")))


def _told(name: str) -> Iterator[tuple[str, Any, Any]]:
    """Of each limit at ``LOAD`` under ``POLICY``: the truth, and the best real estimator."""
    busy = rows(name)[rows(name)["load"] == LOAD]
    for limit, own in busy.groupby("limit", sort=False):
        used = own[own["policy"] == POLICY]
        real = used[used["sigma"].isna()].sort_values("mean_change", kind="stable")
        yield str(limit), used[used["sigma"] == 0].iloc[0], real.iloc[0]


def block() -> str:
    """One row for each trace and limit."""
    headings = [
        "workload",
        "what binds",
        "mean, truth",
        "P99, truth",
        "estimator",
        "its log error",
        "mean",
        "order regret",
    ]
    table = [
        [
            what if what == AZURE else f"`{what}`", BINDS[limit].removesuffix(" bind"), between(_change(truth)),  # type: ignore[index]
            between(_change(truth, "p99")), real["estimator"], f"{real['log_error']:.2f}", between(_change(real)),
            f"{100 * real['order_regret']:+.1f} %",
        ]
        for name, (what, _) in QUESTIONS.items() for limit, truth, real in _told(name)
    ]  # fmt: skip
    return markdown(headings, table, left=2)


def answer() -> str:
    """What real estimators gain on these workloads, in a sentence."""
    found = [(limit, truth, real) for name in QUESTIONS for limit, truth, real in _told(name)]
    sure = [real for _, _, real in found if real["mean_change_high"] < 0]
    kept = [real["mean_change"] / truth["mean_change"] for _, truth, real in found if truth["mean_change"] < 0]
    real = [real["mean_change"] for _, _, real in found]
    return (
        f"For the mean latency at {LOAD:g} of a backlog's rate, in {len(sure)} of {len(found)} cases surely: "
        f"the best real estimator changes it by {100 * max(real):+.0f} to {100 * min(real):+.0f} %, "
        f"{100 * min(kept):.0f} to {100 * max(kept):.0f} % of what the true lengths would."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="experiments.value_of_prediction", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--store", type=folder, help="folder that keeps the runs")
    main(parser.parse_args().store)
