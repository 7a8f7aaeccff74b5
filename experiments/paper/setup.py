"""What the published study ran (arXiv 2606.02982), as workloads and scenarios of ours.

Step times: a profile of an NVIDIA L4 with Qwen1.5-1.8B-Chat from first principles, its two efficiencies fitted to
public measurements on an L4 (experiments/first_principles.py). Output lengths: drawn from what a real model answered to
these very templates, in our captures under caps that let most answers end by themselves; then cut at DriftSched's caps.
That model is smaller than DriftSched's, so ``Assumed`` can stretch its answers. Words per token come from them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from driftsim import Admission, Barrier, Profile, Scenario, Workload, read
from driftsim.latency.roofline import Assumptions, Shape, derive
from driftsim.scheduling.classify import CATEGORIES
from driftsim.trace.schema import FINISHED
from driftsim.workloads.driftsched import DRIFTSCHED_CAPS, NATURAL_CAPS, driftsched_phases, driftsched_workload
from driftsim.workloads.workload import stream

ROOT = Path(__file__).resolve().parents[2]
NATURAL = ("smollm2-cpu-drift", "smollm2-cpu-backlog", "smollm2-cpu-low-load")  # every answer is of another request
HELD_OUT = "smollm2-cpu-reference"  # captured under DriftSched's caps; the length model does not see it
# https://huggingface.co/Qwen/Qwen1.5-1.8B-Chat/blob/main/config.json
QWEN = Shape("Qwen1.5-1.8B-Chat", 24, 2048, 5504, 16, 16, 128, 151936, False, 32768)
POLICIES = ("fifo", "priority", "weighted", "sjf", "aging")
ESTIMATORS = ("static", "ema")
ACCOUNTINGS = ("whitespace", "tokenizer")
Caps = Literal["reference", "natural"]
Mix = Literal["reference", "even"]


@cache
def profile() -> Profile:
    """DriftSched's machine: NVIDIA L4, Qwen1.5-1.8B-Chat in fp16, 0.70 of the memory, contexts up to 2048 tokens."""
    return derive("L4", QWEN, Assumptions(dtype="fp16", memory_fraction=0.7, max_model_len=2048, version="0.32.0"))


class Assumed(NamedTuple):
    """What of the answers' lengths is assumed: how many times as long as ours, and words a token if not ours."""

    verbosity: float = 1.0
    words_per_token: float | None = None


AS_CAPTURED = Assumed()


@dataclass(frozen=True, eq=False)
class Lengths:
    """Answers of a real model by category: tokens, words, and whether it ended by itself.

    ``answers`` has columns category, output_tokens, output_words, stops. An answer under a lower cap is the same answer
    cut short, its words in proportion.
    """

    answers: pd.DataFrame

    def draw(
        self, categories: pd.Series, caps: np.ndarray, random: np.random.Generator, assumed: Assumed
    ) -> pd.DataFrame:
        """An answer for each of ``categories``, changed as ``assumed`` says, and cut at ``caps`` (tokens)."""
        picks = np.zeros(len(categories), dtype=int)
        places = random.random(len(categories))
        for category, rows in self.answers.groupby("category").indices.items():
            mine = (categories == category).to_numpy()
            picks[mine] = rows[(places[mine] * len(rows)).astype(int)]
        drawn = self.answers.iloc[picks].reset_index(drop=True)
        whole = np.maximum(1, np.rint(drawn["output_tokens"] * assumed.verbosity)).astype(int)
        tokens = np.minimum(whole, caps)
        share = assumed.words_per_token or drawn["output_words"] / drawn["output_tokens"]
        words = np.rint(share * tokens).astype(int)
        stops = drawn["stops"].to_numpy() & (whole <= caps).to_numpy()
        return pd.DataFrame({"output_tokens": tokens, "output_words": words, "stops": stops})

    @property
    def words_per_token(self) -> float:
        """Of all answers together."""
        return float(self.answers["output_words"].sum() / self.answers["output_tokens"].sum())


@cache
def lengths() -> Lengths:
    """The answers that were captured under natural caps, of DriftSched's four categories."""
    rows = pd.concat([read(ROOT / "traces" / name).requests for name in NATURAL], ignore_index=True)
    rows = rows[rows["finish_reason"].isin(FINISHED) & rows["category"].isin(CATEGORIES)]
    made = rows[["category", "output_tokens", "output_words"]].astype({"output_tokens": int, "output_words": int})
    return Lengths(made.assign(stops=rows["finish_reason"] == "stop").reset_index(drop=True))


@cache
def prompt_tokens() -> tuple[float, float]:
    """Tokens of a prompt as intercept and tokens a word, least squares over our captures of the same templates."""
    rows = read(ROOT / "traces" / HELD_OUT).requests
    words = rows["prompt_words"].to_numpy(dtype=float)
    slope, intercept = np.polyfit(words, rows["prompt_tokens"].to_numpy(dtype=float), 1)
    return float(intercept), float(slope)


@cache
def workload(
    seed: int, caps: Caps = "reference", mix: Mix = "reference", scale: float = 1.0, assumed: Assumed = AS_CAPTURED
) -> Workload:
    """DriftSched's 3,000 requests, or ``scale`` of them, drawn by ``seed``; their true lengths are known to the engine.

    ``caps``: DriftSched's, which are its base table, or ours, at which most answers end by themselves. ``mix``: the
    study's shares of the categories by phase, or the same share of each throughout.
    """
    drawn = driftsched_phases(round(1000 * scale), round(2000 * scale))
    if mix == "even":
        drawn = tuple(replace(phase, mix=dict.fromkeys(CATEGORIES, 1)) for phase in drawn)  # type: ignore[assignment]
    limits: Mapping[str, int] = DRIFTSCHED_CAPS if caps == "reference" else NATURAL_CAPS
    intercept, slope = prompt_tokens()
    made = driftsched_workload(
        lambda text: round(intercept + slope * len(text.split())), seed, drawn, limits, f"study, {caps} caps, {mix} mix"
    )
    random = stream(seed, "lengths")
    outputs = lengths().draw(made.table["category"], made.table["max_tokens"].to_numpy(dtype=int), random, assumed)
    return replace(made, table=made.table.assign(**{name: outputs[name] for name in outputs.columns}))


def scenario(policy: str, estimator: str, accounting: str, seed: int = 0, barrier: bool = True) -> Scenario:
    """DriftSched's setting of every switch, before the barrier worker or a continuous engine."""
    return Scenario(
        profile=profile(),
        policy=policy,
        estimator=estimator,
        admission=Admission(accounting=accounting),  # type: ignore[arg-type]
        barrier=Barrier() if barrier else None,
        seed=seed,
    )


def held_out() -> pd.DataFrame:
    """Mean output by category under DriftSched's caps, measured in a run that the length model has not seen, and drawn.

    Columns category, requests, measured, drawn (tokens), measured_words_per_token, drawn_words_per_token.
    """
    rows = read(ROOT / "traces" / HELD_OUT).requests
    rows = rows[rows["finish_reason"].isin(FINISHED)]
    table = workload(0).table
    found = []
    for category in CATEGORIES:
        real, made = rows[rows["category"] == category], table[table["category"] == category]
        found.append({"category": category, "requests": len(real)})
        for name, part in (("measured", real), ("drawn", made)):
            found[-1] |= {
                name: float(part["output_tokens"].mean()),
                f"{name}_words_per_token": float(part["output_words"].sum() / part["output_tokens"].sum()),
            }
    return pd.DataFrame(found)
