"""A workload is a list of phases and the requests in them; what each request will turn out to be travels beside it.

The same object drives simulation and capture. ``Arrivals`` says when each request arrives; it is told the time and of
every departure, because a phase may wait for the system to drain and a closed phase for its users. A trace is replayed
here; the reference's workload is in ``reference``, one from a file of prompts in ``prompts``.
"""

from __future__ import annotations

import heapq
import zlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from driftsim.classify import CATEGORIES, known_category, predict_category, strip_label
from driftsim.lives import OFFERED
from driftsim.request import Request, Tier, quick_request
from driftsim.trace import FINISHED, Phase, Trace, WorkloadInfo, typed

# Columns of a workload's table. output_* are the truth, NA where nobody knows it yet; offset_s counts from the
# phase's start; ``stops`` tells that it ends by itself, not at a limit; ``source`` is the row of the recorded request
# that this one is or was resampled from.
COLUMNS = [
    "request_id",
    "tenant",
    "tier",
    "phase",
    "category",
    "predicted_category",
    "predicted_category_unlabelled",
    "prompt_tokens",
    "prompt_words",
    "max_tokens",
    "offset_s",
    "output_tokens",
    "output_words",
    "stops",
    "source",
]


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream ``name`` of ``seed``: changing how one stream is used leaves the others alone."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests in order of arrival, phase by phase; ``table`` has ``COLUMNS``, ``prompts`` the texts where known."""

    info: WorkloadInfo
    table: pd.DataFrame
    prompts: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counted = [phase.requests for phase in self.info.phases]
        names = [phase.name for phase in self.info.phases]
        found = [name for name, count in zip(names, counted, strict=True) for _ in range(count)]
        if len(set(names)) < len(names) or list(self.table["phase"]) != found:
            raise ValueError(f"workload rows must stand phase by phase, with the phases' counts {counted}")

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def offered(self) -> pd.DataFrame:
        """What a trace's request table holds of these requests before a run begins, in its dtypes."""
        return typed(self.table[[column.name for column in OFFERED]], OFFERED, "workload")

    @cached_property
    def output_words(self) -> pd.Series:
        """The words of each output, by row; missing where they were not recorded."""
        return self.table["output_words"].astype("Int64").reset_index(drop=True)

    @cached_property
    def _prompt_numbers(self) -> tuple[array[int], ...]:
        """Prompt tokens, ``max_tokens`` and prompt words by row; -1 where words are missing."""
        numbers = (
            self.table[name].astype("Int64").fillna(-1) for name in ("prompt_tokens", "max_tokens", "prompt_words")
        )
        return tuple(array("q", column.to_numpy(dtype=np.int64)) for column in numbers)

    def categories(self, column: str) -> list[str]:
        """The category of each request in ``column``, one of the classifier's four; any other counts as short_qa."""
        names = self.offered[column].tolist()
        known = {name: known_category(name) for name in set(names)}
        return [known[name] for name in names]

    def unknown_categories(self, column: str) -> int:
        """How many requests have none of the classifier's categories in ``column``."""
        return int((~self.table[column].isin(CATEGORIES)).sum())

    def requests(self) -> Callable[[int, float], Request]:
        """A function from row and arrival time (s) to the request."""
        ids, tenants, categories = (self.offered[name].tolist() for name in ("request_id", "tenant", "category"))
        known = {tier.value: tier for tier in Tier}
        tiers = [known[tier] for tier in self.offered["tier"].tolist()]
        prompts, caps, words = self._prompt_numbers
        texts = self.prompts

        def build(row: int, arrival: float) -> Request:
            text = texts[row] if texts else None
            return quick_request(
                ids[row], tenants[row], tiers[row], categories[row] or "", arrival,
                prompts[row], None if words[row] < 0 else words[row], caps[row], text,
            )  # fmt: skip

        return build


class Arrivals:
    """The arrival times of a workload, in clock units of the caller's choice: ``tick(seconds)`` converts.

    Ask ``next_at`` when the next request is due, ``take`` the rows that are, and tell ``left`` of each departure.
    """

    def __init__(self, workload: Workload, tick: Callable[[float], int] | Callable[[float], float]) -> None:
        self._phases = workload.info.phases
        offsets = workload.table["offset_s"].astype(float)
        self._offsets = array("d", offsets) if tick is float else [tick(offset) for offset in offsets.tolist()]
        self._tick = tick
        self._starts: list[float] = []  # of the phases that have begun
        self._row, self._end = 0, 0  # next row to arrive, end of the current phase
        self._inside = 0
        self._users: list[float] = []  # when each idle user of a closed phase sends next
        self._closed_rows: range = range(0)
        self._due: float | None = None
        self._begin_phase(tick(0.0))

    @property
    def done(self) -> bool:
        """True once every request has arrived."""
        return self._row == len(self._offsets)

    def starts(self) -> list[float]:
        """When each phase that has begun did so, in clock units."""
        return list(self._starts)

    def next_at(self) -> float | None:
        """When the next request is due; None while that hangs on a departure, and when all have arrived."""
        return self._due

    def take(self, now: float) -> list[tuple[int, float]]:
        """The rows that arrive by ``now``, in order, each with the time at which it was due."""
        rows = []
        while (due := self._due) is not None and due <= now:
            if self._users:
                heapq.heappop(self._users)
            row = self._row
            rows.append((row, due))
            self._row = row = row + 1
            self._inside += 1
            if row == self._end:
                self._users = []
                self._begin_phase(due)
            elif self._closed_rows:
                self._look_ahead()
            else:
                self._due = self._starts[-1] + self._offsets[row]
        return rows

    def left(self, row: int, now: float) -> bool:
        """Request ``row`` has left the system; whether that decides when the next one arrives."""
        self._inside -= 1
        if self._closed_rows and row in self._closed_rows and self._row < self._closed_rows.stop:
            heapq.heappush(self._users, now + self._tick(self._phases[len(self._starts) - 1].think_s))
            self._look_ahead()
            return True
        if self._row == self._end and self._inside == 0:
            self._begin_phase(now)
            return True
        return False

    def _look_ahead(self) -> None:
        """Find when the next request is due."""
        if self._row == self._end:
            self._due = None
        elif self._closed_rows and self._row in self._closed_rows:
            self._due = self._users[0] if self._users else None
        else:
            self._due = self._starts[-1] + self._offsets[self._row]

    def _begin_phase(self, now: float) -> None:
        """Start the next phase, unless there is none or it must wait for the system to drain."""
        self._due = None
        if len(self._starts) == len(self._phases):
            return
        phase = self._phases[len(self._starts)]
        if phase.kind == "after-drain" and self._inside:
            return
        self._starts.append(now + self._tick(phase.pause_s))
        self._end = self._row + phase.requests
        if phase.kind == "closed":
            self._users = [self._starts[-1]] * phase.users
            self._closed_rows = range(self._row, self._end)
        self._look_ahead()


def described(table: pd.DataFrame, prompts: Sequence[str], count_tokens: Callable[[str], int]) -> pd.DataFrame:
    """``table`` with all of ``COLUMNS``: what can be told from ``prompts`` before an engine served them.

    ``count_tokens`` counts a prompt as the engine will see it. Output lengths are unknown, NA.
    """
    table["predicted_category"] = [predict_category(prompt) for prompt in prompts]
    table["predicted_category_unlabelled"] = [predict_category(strip_label(prompt)) for prompt in prompts]
    table["prompt_tokens"] = [count_tokens(prompt) for prompt in prompts]
    table["prompt_words"] = [len(prompt.split()) for prompt in prompts]
    table[["output_tokens", "output_words", "stops"]] = pd.NA
    table["source"] = np.arange(len(table))
    return table[COLUMNS]


@dataclass(frozen=True, kw_only=True)
class Process:
    """How requests arrive.

    ``poisson``, ``uniform`` (gaps of 0.5 to 1.5 of the mean) and ``gamma`` (bursty, gaps with coefficient of variation
    ``cv``) at ``rate`` requests a second; ``closed``: each of ``users`` waits for an answer and ``think_s`` before the
    next request; ``backlog``: all at time 0.
    """

    kind: Literal["poisson", "uniform", "gamma", "closed", "backlog"]
    rate: float | None = None  # requests / s
    cv: float = 3.0
    users: int | None = None
    think_s: float = 0.0

    def __post_init__(self) -> None:
        open_loop = self.kind in ("poisson", "uniform", "gamma")
        if open_loop != (self.rate is not None) or (self.rate is not None and not 0 < self.rate < 1e9):
            raise ValueError(f"{self.kind} arrivals need {'a rate above 0' if open_loop else 'no rate'}")
        if (self.kind == "closed") != (self.users is not None) or (self.users is not None and self.users < 1):
            raise ValueError(f"{self.kind} arrivals need {'at least 1 user' if self.kind == 'closed' else 'no users'}")
        if not self.cv > 0 or not self.think_s >= 0:
            raise ValueError(f"cv must be above 0 and the think time not negative, got {self.cv} and {self.think_s}")

    def offsets(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Arrival times of ``count`` requests, seconds since the phase began; zeros where nothing paces them."""
        if self.rate is None:
            return np.zeros(count)
        draws = {
            "poisson": lambda: random.exponential(1.0, count),
            "uniform": lambda: random.uniform(0.5, 1.5, count),
            "gamma": lambda: random.gamma(1 / self.cv**2, self.cv**2, count),
        }
        return np.asarray(np.cumsum(draws[self.kind]() / self.rate))


def arriving(workload: Workload, process: Process, seed: int) -> Workload:
    """The requests of ``workload``, in their order, in one phase with arrivals by ``process``."""
    kind: Any = process.kind if process.kind in ("closed", "backlog") else "open"
    phase = Phase(
        name=process.kind, kind=kind, requests=len(workload), users=process.users or 0, think_s=process.think_s
    )
    offsets = process.offsets(len(workload), stream(seed, "arrivals"))
    loop: Any = "closed" if process.kind == "closed" else "open"
    return replace(
        workload,
        info=WorkloadInfo(name=f"{workload.info.name}, {process.kind}", loop=loop, phases=(phase,)),
        table=workload.table.assign(phase=process.kind, offset_s=offsets),
    )


def first(workload: Workload, count: int) -> Workload:
    """The first ``count`` requests of ``workload``; phases that are left with none go. Raises if it has fewer."""
    if not 1 <= count <= len(workload):
        raise ValueError(f"the workload has {len(workload)} requests, {count} were asked for")
    left, phases = count, []
    for phase in workload.info.phases:
        if left > 0:
            phases.append(phase.changed(requests=min(left, phase.requests)))
            left -= phase.requests
    prompts = workload.prompts[:count] if workload.prompts else None
    info = workload.info.changed(phases=tuple(phases))
    return replace(workload, info=info, table=workload.table.head(count), prompts=prompts)


def replay(trace: Trace, rate_scale: float = 1.0) -> Workload:
    """The workload that ``trace`` recorded: its arrivals, lengths, categories and tenants.

    ``rate_scale`` above 1 presses it harder: gaps between arrivals shrink by that factor, pauses between phases stay.
    Requests whose true output length is unknown (aborted, failed, rejected, unfinished) are left out and noted.
    Raises ``ValueError`` for a rate scale on a workload that has no arrival rate (closed loop or backlog).
    """
    if not 1e-6 <= rate_scale <= 1e6:
        raise ValueError(f"rate scale must be above 0 (1e-6 to 1e6), got {rate_scale}")
    rateless = [phase for phase in trace.header.workload.phases if phase.kind in ("closed", "backlog")]
    if rate_scale != 1 and rateless:
        raise ValueError(f"phase {rateless[0].name!r} is {rateless[0].kind} and has no arrival rate to scale")
    whole = trace.requests.reset_index(names="source")
    known = whole[whole["finish_reason"].isin(FINISHED)]
    parts, phases = [], []
    previous = 0.0  # last arrival of the phase before
    for phase in trace.header.workload.phases:
        rows = known[known["phase"] == phase.name].sort_values("arrival_s", kind="stable")
        if rows.empty:
            continue
        arrivals = rows["arrival_s"].to_numpy()
        start = _phase_start(phase, previous, float(arrivals[0]))
        scale = 0.0 if phase.kind in ("closed", "backlog") else 1 / rate_scale
        stops = rows["finish_reason"] == "stop"
        parts.append(rows.assign(offset_s=np.maximum(arrivals - start, 0.0) * scale, stops=stops))
        phases.append(phase.changed(requests=len(rows), start_s=None))
        previous = float(arrivals[-1])
    if not parts:
        raise ValueError("the trace has no finished request to replay")
    notes = []
    if len(whole) > len(known):
        notes.append(f"{len(whole) - len(known)} requests without a known output length were left out of the replay")
    if trace.header.load is not None and trace.header.load.disturbed:
        notes.append("the machine was disturbed while this trace was recorded: its step times are unreliable")
    if trace.header.ended != "complete":
        notes.append(f"the recorded run did not end properly: {trace.header.ended} {trace.header.ended_why}".rstrip())
    return Workload(
        info=trace.header.workload.changed(phases=tuple(phases)),
        table=pd.concat(parts, ignore_index=True)[COLUMNS],
        notes=tuple(notes),
    )


def as_recorded(trace: Trace) -> Workload:
    """The requests of ``trace``, each at the time at which it arrived, whatever rule that followed.

    Requests whose output length is unknown are left out, as ``replay`` does. Raises ``ValueError`` if none is left.
    """
    made = replay(trace)
    times = trace.requests["arrival_s"].to_numpy()[made.table["source"].to_numpy()]
    order = np.argsort(times, kind="stable")
    name = "recorded"
    table = made.table.assign(offset_s=times, phase=name).iloc[order].reset_index(drop=True)
    phases = (Phase(name=name, requests=len(table)),)
    return replace(made, info=WorkloadInfo(name=made.info.name, phases=phases), table=table)


def _phase_start(phase: Phase, previous: float, first: float) -> float:
    """When a recorded phase started, in seconds: an open one follows from the phase before, others recorded theirs."""
    if phase.kind == "open":
        return min(previous + phase.pause_s, first)
    return first if phase.start_s is None else phase.start_s


def resample(workload: Workload, seed: int, replication: int) -> Workload:
    """A block bootstrap of ``workload`` within its phases; replication 0 is the workload itself.

    Blocks of consecutive requests (of the square root of the phase's length, wrapping around) are drawn with
    replacement, each request with the gap before it, so that bursts and their mix survive (Politis and Romano 1992,
    circular block bootstrap).
    """
    if replication == 0:
        return workload
    random = stream(seed, f"resample-{replication}")
    table = workload.table
    parts, first = [], 0
    for phase in workload.info.phases:
        count = phase.requests
        length = max(1, round(count**0.5))
        starts = random.integers(0, count, size=-(-count // length))
        picks = ((starts[:, None] + np.arange(length)) % count).ravel()[:count]
        gaps = np.diff(table["offset_s"].to_numpy()[first : first + count], prepend=0.0)
        part = table.iloc[first + picks].copy()
        part["offset_s"] = np.cumsum(gaps[picks])
        parts.append(part)
        first += count
    drawn = pd.concat(parts, ignore_index=True)
    drawn["request_id"] = [f"{name}~{row}" for row, name in enumerate(drawn["request_id"])]
    return replace(workload, table=drawn)
