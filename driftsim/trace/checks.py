"""The checks of a trace: the first row or key that cannot be is named, with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import TraceError
from driftsim.request import is_tier_name
from driftsim.trace.header import Header
from driftsim.trace.schema import (
    FINISH_REASONS,
    FINISHED,
    GROUPS,
    LIFE_TIMES,
    LONGEST_S,
    OPTIONAL,
    REQUEST_COLUMNS,
    SAMPLED,
    STEP_COLUMNS,
    STEP_REQUEST_COLUMNS,
    TELEMETRY_COLUMNS,
)
from driftsim.trace.settings import LARGEST_BATCH, EngineSettings
from driftsim.trace.steps import step_ends

NOT_NEGATIVE = (
    "prompt_words", "output_words", "output_tokens", "preemptions", "estimate", "budget", "dispatch_index", "batch_id",
    "batch_size",
)  # fmt: skip
COLUMNS = {column.name: column for column in (*REQUEST_COLUMNS, *OPTIONAL["requests"])}
UNDER_WAY = 16  # steps; no engine schedules so many ahead
OVERLAP_TOLERANCE_S = 1e-3
CLOCK_TOLERANCE_S = 1e-6  # two clocks of one host, each rounded to a microsecond


def check(header: Header, tables: Mapping[str, pd.DataFrame], where: str) -> None:
    """Raise ``TraceError`` at the first row or key of a trace that cannot be; ``where`` names the trace in the message.

    ``tables``: by name, ``requests`` and, where recorded, ``steps``.
    """
    for name, table in tables.items():
        _check_groups(name, table, where)
    table = tables["requests"]
    for problem in request_problems(table, header):
        rows = np.flatnonzero(np.asarray(problem.bad, dtype=bool))
        if len(rows):
            row = int(rows[0])
            more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
            value = _shown(table[problem.column].iloc[row])
            column = COLUMNS[problem.column]
            gloss = f" ({column.name}: {column.gloss})" if column.unit else ""
            raise TraceError(
                f"{where}/requests.parquet: row {row}, request {table['request_id'].iloc[row]!r}: "
                f"{problem.column} is {value}: {problem.what}{more}; {problem.remedy}{gloss}"
            )
    phases = {phase.name for phase in header.workload.phases}
    unknown = sorted(set(table["phase"]) - phases)
    if unknown:
        raise TraceError(f"{where}: phase {unknown[0]!r} is in requests.parquet but not in the header's workload")
    asked = table[table["attempt"] == 1] if "attempt" in table else table
    previous = -np.inf
    for phase in header.workload.phases:
        arrivals = asked["arrival_s"][asked["phase"] == phase.name]
        first = arrivals.min()
        if len(arrivals) != phase.requests and header.ended == "complete":
            raise TraceError(
                f"{where}/header.json: phase {phase.name!r} counts {phase.requests} requests, "
                f"requests.parquet has {len(arrivals)}; correct the header"
            )
        if first < previous:
            raise TraceError(f"{where}/header.json: phase {phase.name!r} began before the one above it; reorder them")
        previous = first
        if phase.start_s is not None and first < phase.start_s - CLOCK_TOLERANCE_S:
            raise TraceError(
                f"{where}/header.json: phase {phase.name!r} has start_s {phase.start_s}, "
                f"after its first arrival at {first}; correct start_s"
            )
    if "telemetry" in tables:
        _check_telemetry(tables["telemetry"], where)
    if "steps" in tables:
        _check_steps(tables["steps"], header.engine, where)
        if set(tables["steps"]) & {column.name for column in STEP_REQUEST_COLUMNS}:
            _check_step_requests(tables["steps"], table["request_id"], where)


def _check_groups(name: str, table: pd.DataFrame, where: str) -> None:
    """Raise ``TraceError`` where a table has some columns of a group and lacks others."""
    for group in GROUPS.get(name, ()):
        lacking = [column for column in group if column.name not in table]
        if 0 < len(lacking) < len(group):
            raise TraceError(
                f"{where}/{name}.parquet: column {lacking[0].name!r} is missing ({lacking[0].gloss}); give all of "
                f"{', '.join(column.name for column in group)}, or none"
            )


@dataclass(frozen=True, slots=True)
class Problem:
    column: str
    bad: pd.Series  # boolean mask over the rows
    what: str
    remedy: str = "correct the row or remove it"


def request_problems(table: pd.DataFrame, header: Header) -> Iterator[Problem]:
    """What may be wrong with the requests of a trace, each with a mask of the rows where it is."""
    finished = table["finish_reason"].isin(FINISHED)
    own = "give every request its own id"
    yield Problem("request_id", table["request_id"].duplicated(), "a duplicate id", own)
    yield Problem("request_id", ~table["request_id"].map(str.isprintable) | (table["request_id"] == ""), "no id", own)
    yield Problem("tenant", table["tenant"] == "", "no tenant")
    tiers = set(table["tier"])
    yield Problem("tier", ~table["tier"].isin(set(filter(is_tier_name, tiers))), "no tier, whose name can be printed")
    if header.tiers:
        ordered = [rule.name for rule in header.tiers]
        what = f"not among the header's tiers {', '.join(ordered)}"
        yield Problem("tier", ~table["tier"].isin(ordered), what, "add it to the header, or correct the row")
    reasons = table["finish_reason"]
    known = reasons.isna() if header.ended != "complete" else pd.Series(False, index=table.index)
    yield Problem("finish_reason", ~(reasons.isin(FINISH_REASONS) | known), f"not one of {', '.join(FINISH_REASONS)}")
    for name in ("prompt_tokens", "max_tokens"):
        yield Problem(name, table[name] < 1, "must be at least 1")
    for name in NOT_NEGATIVE:
        yield Problem(name, (table[name] < 0).fillna(False), "must not be negative")
    bias = table["bias"]
    yield Problem("bias", (bias <= 0) | np.isinf(bias), "a factor is above 0 and finite")
    output = table["output_tokens"]
    yield Problem("output_tokens", finished & ~(output >= 1).fillna(False), "a finished request has at least 1")
    yield Problem("output_tokens", (output > table["max_tokens"]).fillna(False), "more than its max_tokens")
    yield from _time_problems(table, finished, header)
    yield from _capacity_problems(table, finished, header.engine)
    index = table["dispatch_index"]
    yield Problem("dispatch_index", index.notna() & index.duplicated(), "a duplicate index")
    if "prefix_row" in table:
        yield from _prefix_problems(table)
    for name in ("estimate_low", "estimate_high"):
        if name in table:
            yield Problem(name, (table[name] < 0).fillna(False), "a length is not negative")
    if "cached_tokens" in table:
        cached = table["cached_tokens"]
        wrong = (cached < 0) | (cached > table["prompt_tokens"])
        yield Problem("cached_tokens", wrong.fillna(False), "not from 0 to prompt_tokens")
    if "stop_string" in table:
        yield Problem("stop_string", ~table["stop_string"].isin([0, 1]).fillna(True), "neither 0 nor 1")
        by_limit = (table["stop_string"] == 1).fillna(False) & (reasons != "stop")
        yield Problem("stop_string", by_limit, "1, but its finish_reason is not stop")
    if "choice_of" in table:
        whose = table["choice_of"].fillna("")
        for name in ("prompt_tokens", "phase", "tenant"):
            other = table[name] != table[name].groupby(whose).transform("first")
            yield Problem(name, (whose != "") & other, "not that of the other answers to its request, by choice_of")
    if "session" in table:
        yield from _session_problems(table)
    if "timeout_s" in table:
        timeout = table["timeout_s"]
        yield Problem(
            "timeout_s", (timeout <= 0) | (timeout > LONGEST_S), f"a timeout is above 0, at most {LONGEST_S:g} s"
        )
    if "deadline_s" in table:
        late = (table["deadline_s"] <= table["arrival_s"]) | (table["deadline_s"] > LONGEST_S)
        yield Problem("deadline_s", late, f"a deadline is after the arrival, at most {LONGEST_S:g} s")
    if "attempt" in table:
        yield from _attempt_problems(table)
    if "replica" in table:
        yield Problem("replica", (table["replica"] < 0).fillna(False), "must not be negative")
        yield Problem("moved", table["moved"] < 0, "must not be negative")


def _prefix_problems(table: pd.DataFrame) -> Iterator[Problem]:
    """What may be wrong with what the requests share; a prefix may reach into both outputs."""
    rows = table["prefix_row"].to_numpy(dtype=float, na_value=np.nan)
    tokens = table["prefix_tokens"].to_numpy(dtype=float, na_value=np.nan)
    there = ~np.isnan(rows)
    here = np.arange(len(table))
    yield Problem("prefix_row", pd.Series(there & ~((rows >= 0) & (rows < here))), "not an earlier row")
    what = "with a prefix_row, it must be at least 1; without, empty"
    yield Problem("prefix_tokens", pd.Series(np.where(there, ~(tokens >= 1), ~np.isnan(tokens))), what)
    lengths = (table["prompt_tokens"] + table["output_tokens"].fillna(0)).to_numpy(dtype=float)
    shorter = np.minimum(lengths, lengths[np.where(there & (rows >= 0) & (rows < here), rows, 0).astype(int)])
    yield Problem("prefix_tokens", pd.Series(tokens > shorter), "longer than the prompts and outputs that share it")


def _session_problems(table: pd.DataFrame) -> Iterator[Problem]:
    """What may be wrong with the turns of sessions."""
    later = [any(not 0 <= one < row for one in parents) for row, parents in enumerate(table["parent"])]
    yield Problem("parent", pd.Series(later), "not all are earlier rows")
    gap = table["gap_s"]
    yield Problem("gap_s", (gap < 0) | (gap > LONGEST_S), f"a gap is from 0 to {LONGEST_S:g} s")


def _attempt_problems(table: pd.DataFrame) -> Iterator[Problem]:
    """What may be wrong with requests that were sent again."""
    attempt, first = table["attempt"], table["retry_of"]
    yield Problem("attempt", attempt < 1, "attempts count from 1")
    firsts = set(table["request_id"][attempt == 1])
    what = "not the id of a first attempt, or not empty for one"
    yield Problem("retry_of", first.notna().where(attempt == 1, ~first.isin(firsts)), what)
    again = pd.DataFrame({"first": first.fillna(table["request_id"]), "attempt": attempt}).duplicated()
    yield Problem("attempt", again, "there twice")


def _time_problems(table: pd.DataFrame, finished: pd.Series, header: Header) -> Iterator[Problem]:
    arrival = table["arrival_s"]
    yield Problem("arrival_s", ~np.isfinite(arrival), "every request has an arrival time")
    for name in LIFE_TIMES:
        wrong = (table[name] > LONGEST_S) | (table[name] < 0)
        yield Problem(name, wrong, f"times are finite and not negative, at most {LONGEST_S:g} s")
    if not (header.kind == "imported" and table["finish_s"].isna().all()):  # arrivals and lengths alone are a workload
        yield Problem("finish_s", finished & table["finish_s"].isna(), "a finished request has a finish time")
    latest = arrival
    for earlier, later in pairwise(LIFE_TIMES):
        what = f"before its {earlier}" if later != "finish_s" else f"before its {earlier}: tokens after the finish"
        yield Problem(later, table[later] < latest - CLOCK_TOLERANCE_S, what)
        latest = table[later].fillna(latest)


def _capacity_problems(table: pd.DataFrame, finished: pd.Series, engine: EngineSettings) -> Iterator[Problem]:
    remedy = "correct the header's engine settings or remove the row"
    prompt = table["prompt_tokens"]
    limit = engine.max_model_len
    yield Problem("prompt_tokens", finished & (prompt >= limit), f"does not fit max_model_len {limit}", remedy)
    room = engine.usable_kv_blocks * engine.block_size
    if engine.slides:  # what is behind the window needs no block
        return
    yield Problem("prompt_tokens", finished & (prompt > room), f"larger than the KV cache of {room} tokens", remedy)
    total = (prompt + table["output_tokens"] > limit).fillna(False)
    yield Problem("output_tokens", finished & total, f"with its prompt more than max_model_len {limit}", remedy)


def _check_steps(steps: pd.DataFrame, engine: EngineSettings, where: str) -> None:
    slots = LARGEST_BATCH if "max_num_seqs" in engine.assumed else engine.max_num_seqs
    values = steps[[column.name for column in STEP_COLUMNS]].to_numpy(dtype=float)
    bad = ~np.isfinite(values) | (values < 0)
    bad[:, 1] |= values[:, 1] == 0  # a step takes time
    bad[:, :2] |= values[:, :2] > LONGEST_S
    if bad.any():
        row, column = (int(index[0]) for index in np.nonzero(bad))
        broken = STEP_COLUMNS[column]
        raise TraceError(
            f"{where}/steps.parquet: row {row}: {broken.name} is {_shown(values[row, column])} ({broken.gloss}); "
            "the value must be finite and not negative, a duration above 0"
        )
    back = np.flatnonzero(np.diff(steps["start_s"].to_numpy()) < 0)
    if len(back):
        raise TraceError(f"{where}/steps.parquet: row {int(back[0]) + 1}: start_s goes backwards; sort the steps")
    prefills, tokens = steps["prefill_requests"], steps["prefill_tokens"]
    laws: dict[str, Any] = {  # what is wrong, and a mask of the rows where it is
        "more requests computed than running": prefills + steps["decode_requests"] > steps["running"],
        f"more requests than the {slots} that the engine holds": steps["running"] > slots,
        "prompt tokens of no prompt": (tokens < prefills) | ((prefills == 0) & (tokens > 0)),
        f"began before a step ended that came {UNDER_WAY} earlier; durations are seconds": _overlapping(steps),
    }
    for what, wrong in laws.items():
        if len(rows := np.flatnonzero(wrong)):
            raise TraceError(f"{where}/steps.parquet: row {int(rows[0])}: {what}; correct the step")


def _overlapping(steps: pd.DataFrame) -> np.ndarray:
    """Where a step begins though ``UNDER_WAY`` others are not done: one waits for the other, so the ends add up.

    Each replica has steps of its own.
    """
    if "replica" in steps:
        parts = [_overlapping(own.drop(columns="replica")) for _, own in steps.groupby("replica", sort=False)]
        order = np.concatenate([own.index.to_numpy() for _, own in steps.groupby("replica", sort=False)])
        return np.concatenate(parts)[np.argsort(order)] if len(parts) else np.zeros(0, dtype=bool)
    late = np.zeros(len(steps), dtype=bool)
    late[UNDER_WAY:] = steps["start_s"].to_numpy()[UNDER_WAY:] < step_ends(steps)[:-UNDER_WAY] - OVERLAP_TOLERANCE_S
    return late


def _check_telemetry(samples: pd.DataFrame, where: str) -> None:
    """Raise ``TraceError`` at the first sample that no machine gives."""
    for name in (column.name for column in TELEMETRY_COLUMNS if column.name in samples):
        values = samples[name].to_numpy(dtype=float)
        wrong = ~np.isfinite(values) if name in {column.name for column in SAMPLED} else np.isinf(values)
        wrong |= (values < 0) & (name != "gpu_temperature_c")
        if len(rows := np.flatnonzero(wrong)):
            raise TraceError(
                f"{where}/telemetry.parquet: row {int(rows[0])}: {name} is {_shown(values[rows[0]])}, which cannot be; "
                "correct the row or remove the file"
            )
    if (np.diff(samples["time_s"].to_numpy()) < 0).any():
        raise TraceError(f"{where}/telemetry.parquet: time_s goes backwards; sort the samples")


def _check_step_requests(steps: pd.DataFrame, known: pd.Series, where: str) -> None:
    """Hold the requests that the steps name against the counts of the steps and the ids ``known``."""
    ids, tokens, preempted = (steps[column.name] for column in STEP_REQUEST_COLUMNS)
    names = set(known)
    computed = steps["prefill_requests"] + steps["decode_requests"]
    sums = np.array([part.sum() for part in tokens], dtype=float)
    unknown = [any(name not in names for part in parts for name in part) for parts in zip(ids, preempted, strict=True)]
    laws = {
        "request_ids": (ids.map(len) != computed, "not as many as prefill_requests and decode_requests"),
        "request_tokens": (ids.map(len) != tokens.map(len), "not one for each of request_ids"),
        "request_tokens, summed,": (
            sums != steps["prefill_tokens"] + steps["decode_requests"],
            "not the step's tokens",
        ),
        "preempted_ids": (preempted.map(len) != steps["preempted"], "not as many as preempted"),
        "request_ids or preempted_ids": (np.array(unknown, dtype=bool), "not all in requests.parquet"),
    }
    for name, (bad, what) in laws.items():
        rows = np.flatnonzero(bad)
        if len(rows):
            raise TraceError(
                f"{where}/steps.parquet: row {int(rows[0])}: {name} are {what}; correct the row, or remove the columns "
                + ", ".join(column.name for column in STEP_REQUEST_COLUMNS)
            )


def _shown(value: object) -> str:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return "empty" if value is None or value is pd.NA or value != value else repr(value)
