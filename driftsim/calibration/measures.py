"""What a simulated life is held to: means and percentiles of latencies, early and late in a run, and each one's pace.

One rule: a measure that queueing amplifies counts as much less, so that its error is the error of a step's time that
makes it. So a saturated run, whose waits all tell one number, its capacity, does not drown what tells of single steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from driftsim.calibration.lives import PairedRun
from driftsim.calibration.overlap import integral
from driftsim.metrics import e2e, makespan, tpot, ttft
from driftsim.rows import Columns

PERCENTS = (10, 25, 50, 75, 90, 95, 99)
PARTS = 2  # of a run, in the order of arrival
GROUPS = 4  # of a part, by what a time is made of
OF_A_LATENCY = 1 + len(PERCENTS)
OF_A_PART = 3 * OF_A_LATENCY + 5 * GROUPS
DRAWS = 30
MEASURES = PARTS * OF_A_PART + 1
PART_OF = np.append(np.repeat(np.arange(PARTS), OF_A_PART), PARTS - 1)  # the makespan is of the last


class Group(NamedTuple):
    """Requests of a run whose latencies make measures: the ``place`` of the first of them, which latency (of TTFT, TPOT
    and E2E), the rows of the requests, the percentiles that are among the measures, and what was recorded of them."""

    place: int
    latency: int
    rows: np.ndarray
    percents: tuple[int, ...]
    recorded: np.ndarray


def errors(life: PairedRun) -> np.ndarray:
    """The logarithm of simulated over recorded, of each measure; (measures,), NaN for one that there is not.

    Of each part of the run: mean and percentiles of TTFT, TPOT and E2E; the mean TTFT of long and of short prompts, the
    mean TPOT of those that ran with many and with few, with those of long and of short contexts, and beside many and
    few prefills and prompt tokens. Of a run that is there to its end, the makespan. Over the requests that had come so
    far within the recorded part. From ``MEASURES`` on, the TPOT of each request, in the order of arrival.
    """
    found = np.full(MEASURES, np.nan)
    ours, theirs = _latencies(life)
    for group in _groups(life, ours, theirs):
        own = np.log(_statistics(ours[group.latency][group.rows], group.percents) / group.recorded)
        found[group.place : group.place + len(own)] = own
    if life.part.until == np.inf:
        found[-1] = np.log(makespan(life.simulated) / makespan(life.part.trace.requests))
    return np.concatenate([found, _paces(life, ours, theirs)])


def spreads(life: PairedRun) -> np.ndarray:
    """How far each of ``errors`` would be off by the phases in which requests met steps alone; (measures,).

    The standard deviation over a bootstrap of the requests, each with both its sides (Efron 1979); of the TPOT of each
    request, a robust one over all of them.
    """
    random = np.random.default_rng(0)
    found = np.zeros(MEASURES)
    ours, theirs = _latencies(life)
    for group in _groups(life, ours, theirs):
        drawn = group.rows[random.integers(0, len(group.rows), (DRAWS, len(group.rows)))]
        own, recorded = (_statistics(side[group.latency][drawn], group.percents) for side in (ours, theirs))
        logs = np.log(own / recorded)
        found[group.place : group.place + len(logs)] = logs.std(axis=1)
    paces = _paces(life, ours, theirs)
    pace = 1.4826 * np.nanmedian(np.abs(paces - np.nanmedian(paces))) if (~np.isnan(paces)).any() else 0.0
    return np.concatenate([found, np.full(len(paces), pace)])


def _latencies(life: PairedRun) -> tuple[np.ndarray, np.ndarray]:
    """Simulated and recorded TTFT, TPOT and E2E (s) of each request, (latencies, requests)."""
    names = ("arrival_s", "first_token_s", "finish_s", "output_tokens")
    sides = (
        Columns({name: table[name].to_numpy(dtype=float, na_value=np.nan) for name in names})
        for table in (life.simulated, life.recorded)
    )
    ours, theirs = (np.array([latency(side) for latency in (ttft, tpot, e2e)]) for side in sides)
    return ours, theirs


def _paces(life: PairedRun, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The logarithm of simulated over recorded time per output token of each request, in the order of arrival."""
    rows = life.recorded
    done = life.finished & (rows["finish_s"] <= life.part.until).to_numpy()
    known = done & (ours[1] > 0) & (theirs[1] > 0)
    found = np.full(len(rows), np.nan)
    found[known] = np.log(ours[1][known] / theirs[1][known])
    return found[np.argsort(rows["arrival_s"].to_numpy(dtype=float), kind="stable")]


def _groups(life: PairedRun, ours: np.ndarray, theirs: np.ndarray) -> list[Group]:
    """The requests of each part of ``life`` and of its groups, whose latencies (s) are ``ours`` and ``theirs``.

    Of the hundreds of simulations of a fit, most have the same requests in the same order: then the groups are those of
    the simulation before.
    """
    known = life.finished & ~np.isnan(ours) & ~np.isnan(theirs)
    same = life.part.until, life.finished.tobytes(), known.tobytes(), tuple(life.recorded["request_id"])
    kept: dict[Any, list[Group]] = life.part.grouped
    if same not in kept:
        kept.clear()
        kept[same] = list(_grouped(life, known, theirs))
    return kept[same]


def _grouped(life: PairedRun, known: np.ndarray, theirs: np.ndarray) -> Iterator[Group]:
    """The groups of the requests whose latencies are ``known``, (latencies, requests); ``theirs`` were recorded."""
    rows = life.recorded
    begun, done = (life.finished & (rows[name] <= life.part.until).to_numpy() for name in ("first_token_s", "finish_s"))
    order = np.lexsort((rows["first_token_s"].to_numpy(dtype=float), rows["arrival_s"].to_numpy(dtype=float)))
    order = order[begun[order]]
    part = np.full(len(rows), -1)
    part[order] = np.arange(len(order)) * PARTS // max(1, len(order))
    running, context = company(rows, done)
    prefills, tokens = prefilled(rows, done)
    prompt = rows["prompt_tokens"].to_numpy(dtype=float)
    kinds = ((begun, (prompt,)), (done, (running, context, prefills, tokens)), (done, ()))
    for place, (own, covariates) in enumerate(kinds):
        for number in range(PARTS):
            chosen = np.flatnonzero(own & known[place] & (part == number))
            if not len(chosen):
                continue
            begin = number * OF_A_PART
            recorded = _statistics(theirs[place][chosen], PERCENTS)
            yield Group(begin + place * OF_A_LATENCY, place, chosen, PERCENTS, recorded)
            for turn, covariate in enumerate(covariates):
                ranked = chosen[np.argsort(covariate[chosen], kind="stable")]
                first = begin + 3 * OF_A_LATENCY + (place + turn) * GROUPS
                for group, some in enumerate(np.array_split(ranked, GROUPS)):
                    if len(some):
                        yield Group(first + group, place, some, (), _statistics(theirs[place][some], ()))


def company(rows: pd.DataFrame, done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many ran while each of ``rows`` decoded, itself among them, and the KV tokens of one of them; in the mean.

    Of those that are ``done``; NaN for the others, and for one that did not decode.
    """
    begin, end = rows["first_token_s"].to_numpy(dtype=float), rows["finish_s"].to_numpy(dtype=float)
    generated = rows["output_tokens"].to_numpy(dtype=float, na_value=np.nan) - 1
    prompt = rows["prompt_tokens"].to_numpy(dtype=float)
    keep = done & (end > begin)
    begin, end, generated, prompt = begin[keep], end[keep], generated[keep], prompt[keep]
    found = np.full((2, len(rows)), np.nan)
    if len(begin):
        rate = generated / (end - begin)
        running = integral(begin, end, np.ones(len(begin)), np.zeros(len(begin)))
        tokens = integral(begin, end, prompt - rate * begin, rate)
        met = running(end) - running(begin)
        found[:, keep] = met / (end - begin), (tokens(end) - tokens(begin)) / met
    return found[0], found[1]


def prefilled(rows: pd.DataFrame, done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of ``rows`` began to answer while each decoded, and their prompt tokens; each per token of its own.

    Of those that are ``done``; NaN for the others, and for one that did not decode.
    """
    begin, end = rows["first_token_s"].to_numpy(dtype=float), rows["finish_s"].to_numpy(dtype=float)
    generated = rows["output_tokens"].to_numpy(dtype=float, na_value=np.nan) - 1
    order = np.argsort(begin, kind="stable")
    order = order[~np.isnan(begin[order])]
    ordered = begin[order]
    found = np.full((2, len(rows)), np.nan)
    keep = done & (end > begin) & (generated > 0)
    prompt = rows["prompt_tokens"].to_numpy(dtype=float)
    for place, amount in enumerate((np.ones(len(rows)), prompt)):
        sums = np.concatenate([[0.0], np.cumsum(amount[order])])
        met = sums[np.searchsorted(ordered, end[keep], "right")] - sums[np.searchsorted(ordered, begin[keep], "right")]
        found[place, keep] = met / generated[keep]
    return found[0], found[1]


def _statistics(values: np.ndarray, percents: tuple[int, ...]) -> np.ndarray:
    """The mean and the percentiles of ``values`` (s) along their last axis, which come first."""
    found = values.mean(axis=-1)[None]
    if percents:
        found = np.concatenate([found, np.percentile(values, percents, axis=-1)])
    return np.asarray(np.maximum(found, 1e-9))
