"""Drift is injected into a workload: lengths, caps or the mix change from some request on, the same for every policy.

What is random is drawn for every request, from a stream of its own for each drift: so two strengths of one drift, or
two policies, see the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from driftsim.drift import Drift, Injected, selected
from driftsim.errors import InputError
from driftsim.trace.schema import LARGEST_COUNT
from driftsim.workloads.table import stream
from driftsim.workloads.workload import Workload

KEPT = ("request_id", "phase", "offset_s", "session", "parent", "gap_s")  # of a request that becomes another


def drifting(workload: Workload, drifts: Sequence[Drift], seed: int = 0) -> Workload:
    """``workload`` with ``drifts`` in it, one after the other, and their labels; without any, itself.

    Raises ``InputError`` where nobody can know, before the run, which requests come after a time.

    >>> made = Workload.poisson(rate=2.0, requests=100, prompt_tokens=9, output_tokens=50, max_tokens=80)
    >>> from driftsim.drift import drift_rules
    >>> late = drifting(made, drift_rules("factor=2:at=50%")).table["output_tokens"]
    >>> late.iloc[[0, 49, 50, 99]].tolist()
    [50, 50, 80, 80]
    """
    for drift in drifts:
        workload = _with(workload, drift, seed, f"drift {len(workload.drift)} {drift.kind}")
    return workload


def _with(workload: Workload, drift: Drift, seed: int, name: str) -> Workload:
    since = _since(workload, drift)
    old = workload.table
    own, random = selected(drift, old), stream(seed, name)
    if drift.kind == "mix":
        table, changed = _mixed(old, own, (since >= 0) & ~own, drift.value("share"), random)
        held = since >= 0
    else:
        held = own & (since >= 0)
        table = _changed(old, drift, held, drift.strength(since), random)
        changed = held & _differs(old, table)
    told = Injected.of(
        {name: getattr(drift, name) for name in Drift.model_fields}
        | {
            "requests": int(changed.sum()),
            "first_request": None if not held.any() else str(old["request_id"].iloc[int(held.argmax())]),
            "realised": _realised(old, table, held) if drift.kind != "mix" else None,
        }
    )
    return replace(workload, table=table, drift=(*workload.drift, told))


def _differs(old: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    names = [name for name in ("output_tokens", "max_tokens", "words_per_token") if name in table]
    found = np.zeros(len(table), dtype=bool)
    for name in names:
        before = old[name].to_numpy(dtype=float) if name in old else np.full(len(old), np.nan)
        after = table[name].to_numpy(dtype=float)
        found |= (before != after) & ~(np.isnan(before) & np.isnan(after))
    return found


def _realised(old: pd.DataFrame, table: pd.DataFrame, held: np.ndarray) -> float | None:
    """The geometric mean of the factors that the outputs of the rows ``held`` got; None where there are none."""
    if not held.any():
        return None
    before, after = (one["output_tokens"].to_numpy(dtype=float)[held] for one in (old, table))
    return float(np.exp(np.log(np.maximum(after, 1) / np.maximum(before, 1)).mean()))


def _changed(
    old: pd.DataFrame, drift: Drift, held: np.ndarray, strength: np.ndarray, random: np.random.Generator
) -> pd.DataFrame:
    """The table with other lengths, caps or units of the rows ``held``, at the ``strength`` of each."""
    if drift.kind == "words":
        told = old["words_per_token"].to_numpy(dtype=float) if "words_per_token" in old else np.full(len(old), np.nan)
        return old.assign(words_per_token=np.where(held, drift.value("factor"), told))
    if drift.kind == "caps":
        caps = np.where(held, int(drift.value("cap")), old["max_tokens"].to_numpy(dtype=np.int64))
        return _lengthened(old.assign(max_tokens=caps), np.ones(len(old)), held)
    if drift.kind == "model":
        factors = drift.value("factor") * np.exp(drift.value("sigma") * random.standard_normal(len(old)))
    else:
        factors = drift.value("factor") ** strength
    return _lengthened(old, factors, held)


def _lengthened(table: pd.DataFrame, factors: np.ndarray, held: np.ndarray) -> pd.DataFrame:
    """``table`` whose outputs are ``factors`` as long in the rows ``held``, from 1 to ``max_tokens``, words alike.

    An output that reaches its cap ends there; one that was cut off and is shorter now ends by itself.
    """
    before = table["output_tokens"].to_numpy(dtype=float)
    caps = table["max_tokens"].to_numpy(dtype=float)
    wanted = np.rint(before * factors)
    after = np.where(held, np.clip(wanted, 1, caps), before)
    stops = table["stops"].fillna(False).to_numpy(dtype=bool)
    stops = np.where(held & (wanted > caps), False, np.where(held & (after < before), True, stops))
    words = table["output_words"].astype("Float64") * (after / np.maximum(before, 1))
    words = (
        words.round()
        .clip(lower=1)
        .astype("Int64")
        .where(pd.Series(after != before, table.index), table["output_words"])
    )
    return table.assign(
        output_tokens=after.astype(np.int64), output_words=words, stops=np.where(held, stops, table["stops"])
    )


def _mixed(
    old: pd.DataFrame, own: np.ndarray, others: np.ndarray, share: float, random: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray]:
    """The table in which a ``share`` of the ``others`` became requests drawn from ``own``, and which did."""
    drawn, whose = random.random(len(old)), random.random(len(old))
    changed = others & (drawn < share) & own.any()
    donors = np.flatnonzero(own)
    rows = np.arange(len(old))
    rows[changed] = donors[(whose[changed] * len(donors)).astype(int)]
    table = old.take(rows).reset_index(drop=True).set_axis(old.index)
    for name in KEPT:
        if name in old:
            table[name] = old[name]
    if "stretches" in table:  # what it shares with others stays shared; its own text is a new one
        texts = [
            (*whole[:-1], (2 * LARGEST_COUNT + row, whole[-1][1])) if changed[row] and whole else whole
            for row, whole in enumerate(table["stretches"].tolist())
        ]
        table["stretches"] = pd.Series(texts, table.index, dtype=object)
    return table, changed


def _since(workload: Workload, drift: Drift) -> np.ndarray:
    """How far each request is behind the beginning of ``drift``, (requests,): in seconds, or a share of the requests.

    Negative before it. Raises ``InputError`` for a time at which nobody knows who arrives.
    """
    start = drift.start
    if start.is_share:
        return np.arange(len(workload)) / len(workload) - start.value + 1e-12
    due, known = due_times(workload)
    before = np.flatnonzero(~known & (due < start.value))
    shape = np.flatnonzero(~known & (due >= start.value)) if drift.kind in ("ramp", "season") else before[:0]
    for rows in (before, shape):
        if len(rows):
            row = int(rows[0])
            phase = workload.table["phase"].iloc[row]
            share = f"at={max(1, round(100 * row / len(workload)))}%"
            raise InputError(
                f"drift {str(drift)!r:.80}: requests of the phase {phase!r} wait for others to end, so nobody knows "
                f"which of them come after {start}; give a share of the requests, such as {share}"
            )
    return due - start.value


def due_times(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """When each request is due, in seconds, and whether that is known before the run; else it is not earlier."""
    offsets = workload.table["offset_s"].to_numpy(dtype=float)
    due, known = np.zeros(len(offsets)), np.zeros(len(offsets), dtype=bool)
    later = np.zeros(len(offsets), dtype=bool)
    if "parent" in workload.table:
        later = workload.table["parent"].map(len).to_numpy() > 0
    row, last, sure = 0, 0.0, True
    for phase in workload.info.phases:
        rows = slice(row, row + phase.requests)
        sure &= phase.kind != "after-drain" or row == 0
        begin = last + phase.pause_s
        if phase.kind == "closed":
            due[rows], known[rows] = begin, False
            sure = False
        else:
            due[rows] = np.where(later[rows], begin, begin + offsets[rows])
            known[rows] = sure & ~later[rows]
            sure &= not later[rows].any()
        last = float(due[rows].max())
        row = rows.stop
    return due, known
