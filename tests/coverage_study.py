"""How often the printed intervals hold the truth: days drawn by known processes, each compared as a user would.

The truth is the mean change over many fresh days. Loads are relative to what the engine serves of a backlog.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from driftsim.api import backlog_rate
from driftsim.comparison.comparison import Comparison
from driftsim.comparison.plan import BASELINE, ComparisonPlan, Setting
from driftsim.comparison.runs import compare
from driftsim.metrics import summary
from driftsim.scheduling.admission import Admission
from driftsim.simulation.run import simulate
from driftsim.statistics import Interval, student_quantile
from driftsim.trace.header import Phase
from driftsim.workloads.workload import Workload
from tests.strategies import engine, profile, workload

PROFILE = profile(
    engine(max_num_seqs=16, max_num_batched_tokens=2048, max_model_len=4096, kv_blocks=100_000),
    intercept_s=0.05, decode_request_s=0.001, prefill_token_s=1e-4,
)  # fmt: skip
CATEGORIES = ("short_qa", "summary", "technical", "report")
MEDIANS = dict(zip(CATEGORIES, (40, 120, 180, 260), strict=True))
TIERS = ("premium", "standard", "batch")
SJF, PRIORITY, EMA = Setting("sjf", "static"), Setting("priority", "static"), Setting("sjf", "ema")
SETTINGS = (BASELINE, Setting("fifo", "ema"), SJF, EMA, PRIORITY)
# what is read of a comparison: a change of a metric from one setting to another
QUESTIONS = {
    "SJF mean": (SJF, BASELINE, "e2e_mean_s"),
    "SJF P99": (SJF, BASELINE, "e2e_p99_s"),
    "MAE": (Setting("fifo", "ema"), BASELINE, "mae"),
    "ema under SJF": (EMA, SJF, "e2e_mean_s"),
    "priority": (PRIORITY, BASELINE, "e2e_mean_s"),  # no true effect on the mean: lengths do not depend on the tier
}
Gaps = Callable[[int, np.random.Generator], np.ndarray]  # of mean 1


def poisson(count: int, random: np.random.Generator) -> np.ndarray:
    return random.exponential(size=count)


def gamma(count: int, random: np.random.Generator) -> np.ndarray:
    return random.gamma(1 / 9, 9, size=count)


def mmpp(count: int, random: np.random.Generator) -> np.ndarray:
    """Bursts and calms at 1.7 and 0.3 of the mean rate, each of 30 requests on average."""
    fast = np.repeat(np.arange(count) % 2 == 0, 1 + random.geometric(1 / 30, count))[:count]
    gaps: np.ndarray = random.exponential(size=count) / np.where(fast, 1.7, 0.3) * 0.51
    return gaps


def hump(count: int, random: np.random.Generator) -> np.ndarray:
    """One peak in the middle: the rate goes from 0.5 of the mean to 1.5 and back."""
    rate = 1 - 0.5 * np.cos(2 * np.pi * np.arange(count) / count)
    gaps: np.ndarray = random.exponential(size=count) / rate * np.sqrt(0.75)
    return gaps


@dataclass(frozen=True)
class Cell:
    """A process, how many requests a day has, and its load; ``factor``: of the output lengths, along the day."""

    name: str
    gaps: Gaps
    count: int
    load: float
    factor: Callable[[int], np.ndarray] = np.ones
    peaked: bool = False  # a day has a single peak, of which one day cannot tell enough


CELLS = (
    Cell("Poisson, 0.7", poisson, 360, 0.7),
    Cell("Poisson, 0.95", poisson, 360, 0.95),
    Cell("Poisson, 1.3", poisson, 360, 1.3),
    Cell("MMPP, 0.95", mmpp, 360, 0.95),
    Cell("gamma, 0.95", gamma, 360, 0.95),
    Cell("hump, 0.95", hump, 360, 0.95, peaked=True),
    Cell("hump, 0.7, 720", hump, 720, 0.7, peaked=True),
    Cell("length step, 0.95", poisson, 360, 0.95, factor=lambda n: np.where(np.arange(n) < n / 2, 1.0, 2.25) / 1.6),
    Cell("length ramp, 0.95", poisson, 360, 0.95, factor=lambda n: np.linspace(0.6, 1.4, n)),
)


def day(cell: Cell, random: np.random.Generator) -> Workload:
    """A fresh day of ``cell``."""
    count = cell.count
    category = random.choice(CATEGORIES, count)
    median = np.array([MEDIANS[name] for name in category]) * cell.factor(count)
    output = np.clip(median * random.lognormal(0, 1, count), 1, 1024).astype(int)
    tier = random.choice(TIERS, count)
    offsets = np.cumsum(cell.gaps(count, random)) / (cell.load * rate())
    return workload(
        offsets.tolist(), output.tolist(), (Phase(name="only", requests=count),), tenant=tier, tier=tier,
        category=category, predicted_category=category, prompt_tokens=50, max_tokens=1024,
    )  # fmt: skip


@cache
def rate() -> float:
    """Requests a second that the engine serves of a backlog of such requests."""
    random = np.random.default_rng(0)
    category = random.choice(CATEGORIES, 4000)
    output = np.clip(np.array([MEDIANS[name] for name in category]) * random.lognormal(0, 1, 4000), 1, 1024)
    made = workload([0.0] * 4000, output.astype(int).tolist(), prompt_tokens=50, max_tokens=1024)
    return backlog_rate(made, PROFILE)


def truth(cell: Cell, days: int, seed: int = 10**6) -> dict[str, float]:
    """The mean change over fresh ``days``."""
    found: dict[str, list[float]] = {question: [] for question in QUESTIONS}
    plan = ComparisonPlan(profile=PROFILE, settings=SETTINGS)
    for number in range(days):
        made = day(cell, np.random.default_rng([seed, number]))
        rows = {one: summary(simulate(plan.scenario(one), made), Admission()) for one in SETTINGS}
        for question, (one, other, metric) in QUESTIONS.items():
            found[question].append(rows[one][metric] / rows[other][metric] - 1)
    return {question: float(np.mean(values)) for question, values in found.items()}


def compared(cell: Cell, number: int, replications: int = 20) -> Comparison:
    """The comparison that a user would make of one recorded day of ``cell``."""
    plan = ComparisonPlan(profile=PROFILE, settings=SETTINGS, replications=replications)
    return compare(day(cell, np.random.default_rng([1, number])), plan, jobs=1)


def printed(result: Comparison, question: str) -> Interval:
    """The interval that is printed."""
    one, other, metric = QUESTIONS[question]
    return result.change(one, other, metric)


def scattered(result: Comparison, question: str) -> Interval:
    """What must fail: the recorded value, give or take t times the deviation of circular resamples alone."""
    one, other, metric = QUESTIONS[question]
    ratios = result.ratios(one, other, metric)
    circular = ratios[[place for place, draw in enumerate(result.draws) if draw.kind == "circular"]]
    half = student_quantile(len(circular) - 1) * circular.std(ddof=1)
    return Interval(float(ratios[0]), float(ratios[0] - half), float(ratios[0] + half))


def debiased(result: Comparison, question: str) -> Interval:
    """What must fail: the same around the recorded value less the resamples' bias."""
    one, other, metric = QUESTIONS[question]
    ratios = result.ratios(one, other, metric)
    circular = ratios[[place for place, draw in enumerate(result.draws) if draw.kind == "circular"]]
    _, low, high = scattered(result, question)
    centre = 2 * ratios[0] - circular.mean()
    return Interval(float(centre), float(centre - (high - low) / 2), float(centre + (high - low) / 2))
