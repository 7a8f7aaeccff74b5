"""A timeline that Perfetto opens: the requests and the steps of runs, side by side, in Chrome's trace event format.

Each trace is a process, aligned at its own start. A request is a strip of slices, one a stage, in a lane of its tenant;
the engine's steps are slices of one track beside counters. Times are whole microseconds.
Source: the Trace Event Format (https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU).
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.files import write_file
from driftsim.formats.lanes import packed
from driftsim.formats.pauses import begins, names_requests, pauses
from driftsim.formats.stages import Life, last_known, lives, recorded_until
from driftsim.formats.window import Chosen, View, choose
from driftsim.metrics import is_finished, queue_depth, service_start
from driftsim.trace.schema import FINISHED
from driftsim.trace.steps import step_ends
from driftsim.trace.trace import Trace
from driftsim.version import __version__

Event = dict[str, Any]
Lane = tuple[tuple[int, str], int]  # its group, sorted by number and name, and its number in the group
Watch = Callable[[int, int], None]  # gets what is done, of how much
LANES = 500  # of one trace; more cannot be read
SPILLED = (1, "taken up later")  # group of those for whose wait there was no lane
STEPS_TRACK = "engine steps"
TOLD = (
    "tenant", "tier", "phase", "category", "prompt_tokens", "max_tokens", "output_tokens", "estimate", "budget",
    "finish_reason", "preemptions", "batch_id", "error",
)  # fmt: skip  # columns that the slices of a request show, where they say something
COUNTERS = {  # name and series, which Perfetto shows as one name
    "kv_blocks_used": ("KV blocks", "used"),
    "running": ("running", "requests"),
    "waiting": ("waiting in the engine", "requests"),
}
QUEUE, TOKENS = ("waiting in all", "requests"), ("tokens a step", "computed")
ALL_OF_IT = View()
WRITE_EVERY = 2_000  # events between two calls of the watcher


@dataclass(frozen=True, slots=True)
class Timeline:
    """The file as text, and what is not in it, a sentence each."""

    text: str
    notes: tuple[str, ...]

    @property
    def content(self) -> bytes:
        """The file."""
        return self.text.encode()


def perfetto(traces: Sequence[Trace], view: View = ALL_OF_IT, watch: Watch = lambda done, total: None) -> Timeline:
    """``traces`` as a timeline for Perfetto; the same traces give the same bytes.

    ``view``: which part of each. ``watch`` is called with the events done and how many there are, roughly.
    Raises ``InputError`` where the window of a trace holds nothing.

    >>> from driftsim.trace.trace import read
    >>> made = perfetto([read("traces/smollm2-cpu-backlog")])
    >>> sorted({event["ph"] for event in json.loads(made.content)["traceEvents"]})
    ['C', 'M', 'X']
    """
    drawings = [_Drawing(trace, place, view) for place, trace in enumerate(traces, start=1)]
    total = sum(drawing.size for drawing in drawings)
    lines = []
    for drawing in drawings:
        for event in drawing.events():
            lines.append(json.dumps(event, separators=(",", ":"), allow_nan=False))
            if len(lines) % WRITE_EVERY == 0:
                watch(min(len(lines), total), total)
    watch(total, total)
    notes = tuple(note for drawing in drawings for note in drawing.notes)
    about = json.dumps({"driftsim": __version__, "notes": notes})
    events = ",\n".join(lines)
    return Timeline(f'{{"displayTimeUnit":"ms","otherData":{about},"traceEvents":[\n{events}\n]}}\n', notes)


def write_timeline(made: Timeline, file: Path) -> None:
    """Write ``made`` as ``file``, whole or not at all; compressed where its name ends in ``.gz``.

    Raises ``InputError`` for a name that Perfetto would not know and ``OSError`` where it cannot be written.
    """
    check_suffix(file)
    write_file(file, gzip.compress(made.content, mtime=0) if file.suffix.lower() == ".gz" else made.content)


def is_timeline(begin: str) -> bool:
    """Whether a file that begins with ``begin`` is one of ours."""
    return begin.startswith('{"displayTimeUnit":"ms","otherData":{"driftsim"')


def check_suffix(file: Path) -> None:
    """Raise ``InputError`` unless ``file`` ends in ``.json`` or ``.json.gz``."""
    if not file.name.lower().endswith((".json", ".json.gz")):
        raise InputError(f"{file}: a timeline is written as JSON; name it {file.stem}.json or {file.stem}.json.gz")


def process_name(trace: Trace) -> str:
    """Name, policy and estimator, and kind of a trace.

    >>> from driftsim.trace.trace import read
    >>> process_name(read("traces/smollm2-cpu-drift"))
    'smollm2-cpu-drift: fifo/static, captured'
    """
    admission = trace.header.admission
    switches = "/".join(str(admission[name]) for name in ("policy", "estimator") if name in admission)
    return f"{trace.name}: {', '.join(part for part in (switches, trace.header.kind) if part)}"


@dataclass(eq=False)
class _Drawing:
    """One trace on its way into the file, as process ``pid``."""

    trace: Trace
    pid: int
    view: View
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        trace, table = self.trace, self.trace.requests
        self.until = recorded_until(trace)
        waited = service_start(table)
        served = table["first_token_s"].notna() | is_finished(table)  # though nobody tells since when
        never = np.isnan(waited) & ~served.to_numpy()
        self.queue = queue_depth(table, np.where(never, last_known(table, self.until), waited))
        self.chosen: Chosen = choose(trace, self.view, self.queue[0])
        if self.chosen.left_out:
            self.notes.append(self.chosen.left_out)
        if trace.steps is None:
            self.notes.append(
                f"{trace.name}: has no steps, so they and the KV cache are not drawn; driftsim simulate --steps, or "
                "steps = true in the scenario, records them, and so does driftsim capture --engine vllm"
            )
        steps = self.chosen.steps
        self.size = (
            4 * len(self.chosen.requests) + 5 * (steps.stop - steps.start) + len(self.queue[0][self.chosen.queue])
        )

    def events(self) -> Iterator[Event]:
        """All of the process, names first."""
        yield self._named("process_name", self.pid, name=process_name(self.trace))
        yield self._named("process_sort_index", self.pid, sort_index=self.pid)
        yield from self._steps()
        yield from self._queue()
        yield from self._requests()

    def _named(self, what: str, tid: int, **args: Any) -> Event:
        return {"ph": "M", "name": what, "pid": self.pid, "tid": tid, "args": args}

    def _track(self, name: str, place: int) -> Iterator[Event]:
        """A track of the process, in its ``place``, which is its number as well."""
        yield self._named("thread_name", self._tid(place), name=name)
        yield self._named("thread_sort_index", self._tid(place), sort_index=place)

    def _tid(self, place: int) -> int:
        """Numbers of tracks differ between processes too; 1 in a million is no process's number."""
        return 1_000_000 * self.pid + place

    def _slice(self, name: str, category: str, place: int, begin: float, end: float, args: Mapping[str, Any]) -> Event:
        start = _micros(begin)
        return {
            "ph": "X", "name": name, "cat": category, "pid": self.pid, "tid": self._tid(place), "ts": start,
            "dur": _micros(end) - start, "args": args,
        }  # fmt: skip

    def _count(self, counter: tuple[str, str], moment: float, value: int) -> Event:
        name, series = counter
        return {"ph": "C", "name": name, "pid": self.pid, "ts": _micros(moment), "args": {series: value}}

    # -- steps and counters

    def _steps(self) -> Iterator[Event]:
        steps = self.trace.steps
        if steps is None:
            return
        ends = step_ends(steps).tolist()
        part = self.chosen.steps
        spans = list(zip(begins(steps, ends)[part], ends[part], strict=True))
        shown = steps.iloc[part]
        yield from self._track(STEPS_TRACK, 0)
        lists = ("request_ids", "request_tokens", "preempted_ids") if names_requests(steps) else ()
        plain = [name for name in shown if name not in (*lists, "start_s", "duration_s")]
        numbers: list[Any] = shown[plain].to_dict("records")
        for index, ((begin, end), args) in enumerate(zip(spans, numbers, strict=True)):
            args = {"step": part.start + index, **args}
            if lists:
                ids, tokens, preempted = (shown[name].iloc[index].tolist() for name in lists)
                args |= {"requests": dict(zip(ids, tokens, strict=True)), "preempted_requests": preempted}
            yield self._slice("step", "step", 0, begin, end, args)
        starts = shown["start_s"].tolist()
        for column, counter in COUNTERS.items():
            yield from self._counted(counter, starts, shown[column].tolist())
        yield from self._counted(TOKENS, starts, (shown["prefill_tokens"] + shown["decode_requests"]).tolist())

    def _queue(self) -> Iterator[Event]:
        moments, depth = (column[self.chosen.queue].tolist() for column in self.queue)
        yield from self._counted(QUEUE, moments, depth)

    def _counted(self, counter: tuple[str, str], moments: list[float], values: list[int]) -> Iterator[Event]:
        """A counter, which is told as it changes."""
        before = None
        for moment, value in zip(moments, values, strict=True):
            if value != before:
                yield self._count(counter, moment, value)
            before = value

    # -- requests

    def _requests(self) -> Iterator[Event]:
        trace, table = self.trace, self.trace.requests.iloc[self.chosen.requests]
        tells_start = bool(trace.requests["scheduled_s"].notna().any())
        found = list(lives(table, self.until, tells_start, pauses(trace.steps, table)))
        lanes = _lanes(table["tenant"].tolist(), found)
        self.notes += self._lacking(table, found, lanes)
        places = {}
        for place, lane in enumerate(sorted({lane for lane in lanes if lane is not None}), start=1):
            places[lane] = place
            group, number = lane
            yield from self._track(f"{group[1]} {number + 1}", place)
        for life, own, args in zip(found, lanes, self._args(table), strict=True):
            if own is not None:
                yield from self._life(life, places[own], args, spilled=own[0] == SPILLED)

    def _life(self, life: Life, place: int, args: Mapping[str, Any], spilled: bool) -> Iterator[Event]:
        for stage in life.stages[1:] if spilled else life.stages:
            yield self._slice(stage.name, "request", place, stage.begin, stage.end, args)
        if life.ended not in FINISHED or not life.stages:
            yield {
                "ph": "i", "s": "t", "name": life.ended, "cat": "request", "pid": self.pid, "tid": self._tid(place),
                "ts": _micros(life.end), "args": args,
            }  # fmt: skip

    def _lacking(self, table: pd.DataFrame, found: list[Life], lanes: list[Lane | None]) -> Iterator[str]:
        """What the strips do not show."""
        name, steps = self.trace.name, self.trace.steps
        hidden = 0 if names_requests(steps) else int(table["preemptions"].fillna(0).sum())
        if hidden:
            yield (
                f"{name}: {hidden:,} preemptions are counted but not drawn, since nothing says when they were; of a "
                "simulated run, driftsim simulate --step-requests, or step_requests = true in the scenario, records it"
            )
        waits = sum(lane is not None and lane[0] == SPILLED for lane in lanes)
        lost = Counter(life.ended for life, lane in zip(found, lanes, strict=True) if lane is None)
        if waits or lost:
            ways = ", ".join(f"{count:,} {reason}" for reason, count in sorted(lost.items()))
            also = f", and {lost.total():,} requests are not drawn at all ({ways})" if lost else ""
            yield (
                f"{name}: more than {LANES} requests were there at once; the wait of {waits:,} is not drawn{also}; "
                "lower --limit, or choose another window with --from and --to"
            )

    def _args(self, table: pd.DataFrame) -> Iterator[dict[str, Any]]:
        """What the slices of each request show besides its times."""
        columns = {name: table[name] for name in TOLD if name in table and table[name].notna().any()}
        names = table["request_id"].tolist()
        lists = [column.astype(object).where(column.notna(), None).tolist() for column in columns.values()]
        times = {"waited_s": service_start(table), "ttft_s": table["first_token_s"], "e2e_s": table["finish_s"]}
        since = [
            np.round(np.asarray(moments) - table["arrival_s"].to_numpy(), 6).tolist() for moments in times.values()
        ]
        keys = (*columns, *times)
        for name, *values in zip(names, *lists, *since, strict=True):
            told = zip(keys, values, strict=True)
            yield {"request": name, **{key: value for key, value in told if value is not None and value == value}}


def _lanes(tenants: list[str], found: Sequence[Life]) -> list[Lane | None]:
    """The lane of each life, among those of its tenant; where all lanes are full, that of its life without the wait."""
    placed = packed([((0, tenant), life.begin, life.end) for tenant, life in zip(tenants, found, strict=True)], LANES)
    late = [index for index, life in enumerate(found) if placed[index] is None and len(life.stages) > 1]
    spilled = packed([(SPILLED, found[index].stages[1].begin, found[index].end) for index in late], LANES)
    for index, lane in zip(late, spilled, strict=True):
        placed[index] = lane
    return placed


def _micros(moment: float) -> int:
    """A moment in whole microseconds."""
    return round(moment * 1e6)
