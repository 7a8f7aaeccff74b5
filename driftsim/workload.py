"""A workload is a list of phases and the requests in them; what each request will turn out to be travels beside it.

The same object drives simulation and capture. ``Arrivals`` says when each request arrives; it is told the time and of
every departure, because a phase may wait for the system to drain and a closed phase for its users.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from driftsim.classify import CATEGORIES, known_category, label, predict_category, strip_label
from driftsim.request import Request, Tier
from driftsim.topics import TOPICS
from driftsim.trace import FINISHED, Phase, Trace, WorkloadInfo

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

    def categories(self, column: str) -> list[str]:
        """The category of each request in ``column``, one of the classifier's four; any other counts as short_qa."""
        return [known_category(category) for category in self.table[column]]

    def unknown_categories(self, column: str) -> int:
        """How many requests have none of the classifier's categories in ``column``."""
        return int((~self.table[column].isin(CATEGORIES)).sum())

    def requests(self) -> Callable[[int, float], Request]:
        """A function from row and arrival time (s) to the request."""
        columns = [self.table[name].tolist() for name in ("request_id", "tenant", "category")]
        ids, tenants, categories = columns
        tiers = [Tier(tier) for tier in self.table["tier"]]
        prompts, caps = self.table["prompt_tokens"].tolist(), self.table["max_tokens"].tolist()
        words = [None if pd.isna(count) else int(count) for count in self.table["prompt_words"]]
        texts = self.prompts

        def build(row: int, arrival: float) -> Request:
            text = texts[row] if texts else None
            return Request(
                ids[row], tenants[row], tiers[row], categories[row] or "", arrival,
                prompts[row], words[row], caps[row], text,
            )  # fmt: skip

        return build


class Arrivals:
    """The arrival times of a workload, in clock units of the caller's choice: ``tick(seconds)`` converts.

    Ask ``next_at`` when the next request is due, ``take`` the rows that are, and tell ``left`` of each departure.
    """

    def __init__(self, workload: Workload, tick: Callable[[float], int] | Callable[[float], float]) -> None:
        self._phases = workload.info.phases
        self._offsets = [tick(offset) for offset in workload.table["offset_s"].tolist()]
        self._tick = tick
        self._starts: list[float] = []  # of the phases that have begun
        self._row, self._end = 0, 0  # next row to arrive, end of the current phase
        self._inside = 0
        self._users: list[float] = []  # when each idle user of a closed phase sends next
        self._closed_rows: range = range(0)
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
        if self._row == self._end:
            return None
        if self._phases[len(self._starts) - 1].kind == "closed":
            return self._users[0] if self._users else None
        return self._starts[-1] + self._offsets[self._row]

    def take(self, now: float) -> list[tuple[int, float]]:
        """The rows that arrive by ``now``, in order, each with the time at which it was due."""
        rows = []
        while (due := self.next_at()) is not None and due <= now:
            if self._phases[len(self._starts) - 1].kind == "closed":
                heapq.heappop(self._users)
            rows.append((self._row, due))
            self._row += 1
            self._inside += 1
            if self._row == self._end:
                self._begin_phase(due)
        return rows

    def left(self, row: int, now: float) -> None:
        """Request ``row`` has left the system."""
        self._inside -= 1
        if row in self._closed_rows and self._row < self._closed_rows.stop:
            heapq.heappush(self._users, now + self._tick(self._phases[len(self._starts) - 1].think_s))
        if self._row == self._end and self._inside == 0:
            self._begin_phase(now)

    def _begin_phase(self, now: float) -> None:
        """Start the next phase, unless there is none or it must wait for the system to drain."""
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


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A phase to draw: how many requests, the gaps between them (uniform, s) and the mix of categories (weights)."""

    phase: Phase
    gap_low: float
    gap_high: float
    mix: Mapping[str, float]

    def __post_init__(self) -> None:
        if not 0 <= self.gap_low <= self.gap_high:
            raise ValueError(f"gaps need 0 <= low <= high, got {self.gap_low} and {self.gap_high}")
        unknown = set(self.mix) - set(TEMPLATES)
        if unknown:
            raise ValueError(f"unknown category {sorted(unknown)[0]!r}; choose among {', '.join(TEMPLATES)}")


# In the spirit of the reference's prompts, five a category; {} is a topic. Some lack their category's keywords or hold
# another's, so that it matters whether the classifier sees the label. The last two categories are ours: their answers
# are short in the middle and long in the tail, so that estimates by category drift.
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "short_qa": (
        "What is {} and why is it important?",
        "Why do people use {}?",
        "What problem does {} solve?",
        "When would you choose {}?",
        "Who benefits most from {}?",
    ),
    "summary": (
        "Summarize {} architecture and its key components.",
        "Give a summary of how {} works.",
        "Outline {} in a few short paragraphs.",
        "Write a summary of {} for a new colleague.",
        "What changed in {} over the years? Keep it short.",
    ),
    "technical": (
        "Explain the internal architecture of {}.",
        "Explain with code how a program uses {}.",
        "Describe the design choices behind {} and their trade-offs.",
        "Explain step by step how {} handles failures.",
        "Walk through the technical steps of setting up {}.",
    ),
    "report": (
        "Write a detailed report on {}, including architecture, performance, scalability and security.",
        "Prepare a comprehensive report about running {} in production.",
        "Compare {} with its alternatives at length, with sections and a conclusion.",
        "Write a long review of {}: history, design, operations and risks.",
        "Produce a detailed report on the costs and benefits of {}.",
    ),
    "definition": (
        "Define {} briefly.",
        "Give a brief definition of {}.",
        "Define {} for a beginner, briefly.",
        "What does the term {} mean? Be brief.",
        "Briefly, how would you define {}?",
    ),
    "one_sentence": (
        "In one sentence, what is {}?",
        "Describe {} in one sentence.",
        "In a single sentence, why does {} matter?",
        "Name one use of {} in one sentence.",
        "Explain {} in one sentence.",
    ),
}
REFERENCE_CAPS: Mapping[str, int] = {"short_qa": 64, "summary": 256, "technical": 384, "report": 512}
# Caps at which most outputs end by themselves, so that drift can be seen (the reference's hide it: its trap 3).
NATURAL_CAPS: Mapping[str, int] = {
    "short_qa": 384, "summary": 768, "technical": 1024, "report": 1024, "definition": 384, "one_sentence": 768,
}  # fmt: skip
REFERENCE_PHASES = (
    Drawn(
        phase=Phase(name="learning", requests=1000),
        gap_low=0.050,
        gap_high=0.150,
        mix={"short_qa": 40, "summary": 25, "technical": 25, "report": 10},
    ),
    Drawn(
        phase=Phase(name="stress", kind="after-drain", requests=2000, pause_s=15.0),
        gap_low=0.005,
        gap_high=0.030,
        mix={"short_qa": 10, "summary": 20, "technical": 40, "report": 30},
    ),
)


def drift_phases(
    learning: int, stress: int, learning_gap: tuple[float, float], stress_gap: tuple[float, float]
) -> tuple[Drawn, Drawn]:
    """The reference's two phases with its drain between them, over all six categories, at a load of one's choice.

    Gaps are the low and high end of a uniform distribution, in seconds.
    """
    return (
        Drawn(
            phase=Phase(name="learning", requests=learning),
            gap_low=learning_gap[0],
            gap_high=learning_gap[1],
            mix={"short_qa": 30, "summary": 15, "technical": 15, "report": 10, "definition": 15, "one_sentence": 15},
        ),
        Drawn(
            phase=Phase(name="stress", kind="after-drain", requests=stress, pause_s=5.0),
            gap_low=stress_gap[0],
            gap_high=stress_gap[1],
            mix={"short_qa": 10, "summary": 20, "technical": 25, "report": 15, "definition": 15, "one_sentence": 15},
        ),
    )


def reference_workload(
    count_tokens: Callable[[str], int],
    seed: int,
    phases: tuple[Drawn, ...] = REFERENCE_PHASES,
    caps: Mapping[str, int] = REFERENCE_CAPS,
    name: str = "reference",
) -> Workload:
    """The reference's workload (arXiv 2606.02982): templates over topics, three tenants that are the three tiers.

    ``count_tokens`` counts a prompt as the engine will see it. Output lengths are unknown until an engine served it.
    """
    random = stream(seed, "workload")
    rows = [row for drawn in phases for row in _draw(drawn, random)]
    table = pd.DataFrame(rows)
    table["request_id"] = [f"r{number:05d}" for number in range(len(table))]
    columns = zip(table["tenant"], table["category"], table["prompt"], strict=True)
    prompts = [label(number, tenant, category) + text for number, (tenant, category, text) in enumerate(columns)]
    table["predicted_category"] = [predict_category(prompt) for prompt in prompts]
    table["predicted_category_unlabelled"] = [predict_category(strip_label(prompt)) for prompt in prompts]
    table["prompt_tokens"] = [count_tokens(prompt) for prompt in prompts]
    table["prompt_words"] = [len(prompt.split()) for prompt in prompts]
    table["max_tokens"] = [caps[category] for category in table["category"]]
    table[["output_tokens", "output_words", "stops"]] = pd.NA
    table["source"] = np.arange(len(table))
    info = WorkloadInfo(name=name, phases=tuple(drawn.phase for drawn in phases))
    return Workload(info=info, table=table[COLUMNS], prompts=tuple(prompts))


def _draw(drawn: Drawn, random: np.random.Generator) -> Iterator[dict[str, object]]:
    categories = list(drawn.mix)
    weights = np.array([drawn.mix[category] for category in categories], dtype=float)
    offset = 0.0
    for _ in range(drawn.phase.requests):
        offset += random.uniform(drawn.gap_low, drawn.gap_high)
        category = str(random.choice(categories, p=weights / weights.sum()))
        tier = list(Tier)[random.integers(3)].value
        template = TEMPLATES[category][random.integers(len(TEMPLATES[category]))]
        yield {
            "tenant": tier,
            "tier": tier,
            "phase": drawn.phase.name,
            "category": category,
            "offset_s": offset,
            "prompt": template.format(TOPICS[random.integers(len(TOPICS))]),
        }
