"""A workload is a list of phases and the requests in them; what each request will turn out to be travels beside it.

The same object drives simulation and capture. ``Arrivals`` says when each request arrives; it is told the time and of
every departure, because a phase may wait for the system to drain and a closed phase for its users. A workload is drawn
here; ``replay`` makes one of a trace, ``driftsched`` that of the published study, ``prompts`` one of a file of prompts.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

import numpy as np
import pandas as pd

from driftsim.clients import PATIENT, Clients
from driftsim.drift import Injected
from driftsim.errors import InputError
from driftsim.formatting import html_table
from driftsim.request import Request
from driftsim.scheduling.admission import Admission
from driftsim.text import for_html
from driftsim.tiers import TierRule, ranked
from driftsim.trace.header import Prefixes, WorkloadInfo
from driftsim.trace.prefixes import endless_hits, in_common
from driftsim.trace.schema import CHOICE_COLUMN, OFFERED, SESSION_COLUMNS
from driftsim.trace.tables import typed
from driftsim.trace.trace import Trace, read
from driftsim.trace.turns import session_names, turn_numbers
from driftsim.workloads.conversations import Session, SystemPrompts
from driftsim.workloads.drawn import generate
from driftsim.workloads.generated import Tenant, WorkloadSpec
from driftsim.workloads.lengths import Lengths
from driftsim.workloads.processes import Pace, Process
from driftsim.workloads.table import COLUMNS, choices_in, described, stream, workload_table

__all__ = ["COLUMNS", "Workload", "described", "stream", "workload_table"]
HTML_ROWS = 10  # requests that a notebook shows
NAMED = 5  # tenants that a line names
BLOCK = 16  # tokens, vLLM's default


class Offered(TypedDict, total=False):
    """What the requests of a drawn workload are made of; see ``WorkloadSpec``."""

    prompt_tokens: int | Lengths
    output_tokens: int | Lengths
    trace: Trace | Path | str
    max_tokens: int
    session: Session
    system: SystemPrompts


class Rows(Offered, total=False):
    """The same, the tenants who share its arrivals, and a cap on what they have out at once."""

    tenants: Sequence[Tenant]
    max_outstanding: int


@dataclass(frozen=True, eq=False, repr=False)
class Workload:
    """Requests in order of arrival, phase by phase; ``table`` has ``COLUMNS``, ``prompts`` the texts where known.

    ``tiers`` are the rules that the recorded run brings for its tiers, the most urgent first; none: nobody said any.
    ``clients``: when the recorded clients gave up, and whether they sent again. ``prefixes`` tell how it is known what
    the requests share, where it is; ``drift`` labels what was injected.

    A trace gives one by ``replay``. Without a trace, a workload is drawn: lengths are whole numbers or ``Lengths``, the
    same ``seed`` gives the same one, and arrivals and lengths are random streams of their own. ``max_tokens`` is, if
    not given, the longest output of the tenant, so that it tells nothing about a single request. Words are unknown.

    >>> Workload.poisson(rate=2.0, requests=500, prompt_tokens=500, output_tokens=200, seed=0)
    poisson: 500 requests in 1 phase, 1.98 requests/s; tenant default
    """

    info: WorkloadInfo
    table: pd.DataFrame
    prompts: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    tiers: tuple[TierRule, ...] = ()
    prefixes: Prefixes | None = None
    clients: Clients = PATIENT
    drift: tuple[Injected, ...] = ()

    def __post_init__(self) -> None:
        counted = [phase.requests for phase in self.info.phases]
        names = [phase.name for phase in self.info.phases]
        found = [name for name, count in zip(names, counted, strict=True) for _ in range(count)]
        if len(set(names)) < len(names) or list(self.table["phase"]) != found:
            raise InputError(f"workload rows must stand phase by phase, with the phases' counts {counted}")

    @classmethod
    def generated(cls, spec: WorkloadSpec, seed: int = 0, find: Callable[[str], Trace] = read) -> Self:
        """The workload that ``spec`` describes; ``find`` reads the runs that it draws from. Raises ``InputError``."""
        made = generate(spec, seed, find)
        return cls(made.info, made.table, notes=made.notes, tiers=made.tiers, prefixes=made.prefixes)

    @classmethod
    def poisson(cls, *, rate: float, requests: int, seed: int = 0, **rows: Unpack[Rows]) -> Self:
        """Poisson arrivals at ``rate`` requests a second."""
        return cls._drawn(seed, rows, kind="poisson", rate=rate, requests=requests)

    @classmethod
    def gamma(cls, *, rate: float, requests: int, cv: float = 3.0, seed: int = 0, **rows: Unpack[Rows]) -> Self:
        """Bursty arrivals: gaps by a gamma law whose coefficient of variation is ``cv``.

        >>> short = Lengths(kind="uniform", high=9)
        >>> Workload.gamma(rate=2.0, cv=2.0, requests=9, prompt_tokens=50, output_tokens=short)
        gamma: 9 requests in 1 phase, 6.24 requests/s; tenant default
        """
        return cls._drawn(seed, rows, kind="gamma", rate=rate, requests=requests, cv=cv)

    @classmethod
    def mmpp(
        cls, *, rate: float, requests: int, burst_factor: float = 4.0, burst_s: float = 10.0, calm_s: float = 50.0,
        seed: int = 0, **rows: Unpack[Rows],
    ) -> Self:  # fmt: skip
        """Bursts of ``burst_s`` seconds (mean), ``calm_s`` apart, at ``burst_factor`` times the long-run ``rate``."""
        bursts = {"burst_factor": burst_factor, "burst_s": burst_s, "calm_s": calm_s}
        return cls._drawn(seed, rows, kind="mmpp", rate=rate, requests=requests, **bursts)

    @classmethod
    def diurnal(
        cls, *, rate: float, requests: int, amplitude: float = 0.5, period_s: float = 86_400.0, seed: int = 0,
        **rows: Unpack[Rows],
    ) -> Self:  # fmt: skip
        """Poisson arrivals whose rate swings by ``amplitude`` around the mean ``rate`` every ``period_s`` seconds."""
        swing = {"amplitude": amplitude, "period_s": period_s}
        return cls._drawn(seed, rows, kind="diurnal", rate=rate, requests=requests, **swing)

    @classmethod
    def closed(cls, *, users: int, requests: int, think_s: float = 0.0, seed: int = 0, **rows: Unpack[Rows]) -> Self:
        """Each of ``users`` sends, waits for the answer, thinks for ``think_s`` seconds and sends the next."""
        return cls._drawn(seed, rows, kind="closed", users=users, requests=requests, think_s=think_s)

    @classmethod
    def backlog(cls, *, requests: int, seed: int = 0, **rows: Unpack[Rows]) -> Self:
        """All requests are there at time 0."""
        return cls._drawn(seed, rows, kind="backlog", requests=requests)

    @classmethod
    def from_trace(
        cls, trace: Trace | Path | str, *, requests: int, arrivals: Process, seed: int = 0,
        max_tokens: int | None = None, tenants: Sequence[Tenant] = (),
    ) -> Self:  # fmt: skip
        """Capture small, simulate large: requests of ``trace``, drawn with replacement, that arrive by ``arrivals``.

        Prompt, limit, output, category, tenant and tier are drawn together. The trace's own arrivals: ``replay``.

        >>> Workload.from_trace("traces/smollm2-cpu-drift", requests=5000, arrivals=Process(kind="poisson", rate=2.0))
        poisson: 5000 requests in 1 phase, 1.98 requests/s; tenants batch 36 %, premium 35 %, standard 30 %
        """
        rows = {"trace": trace, "max_tokens": max_tokens, "tenants": tenants}
        return cls._drawn(seed, rows, requests=requests, **_pace(arrivals))

    @classmethod
    def mixed(
        cls, *, tenants: Sequence[Tenant], requests: int | None = None, arrivals: Process | None = None, seed: int = 0,
        **rows: Unpack[Offered],
    ) -> Self:  # fmt: skip
        """Several tenants who share ``arrivals`` or bring their own: the first ``requests`` of all, in order of time.

        >>> chat = Tenant(name="chat", tier="premium", rate=2.0, output_tokens=Lengths(kind="geometric", mean=150))
        >>> jobs = Tenant(name="jobs", tier="batch", arrivals=Process(kind="backlog"), requests=50, output_tokens=400)
        >>> Workload.mixed(tenants=[chat, jobs], requests=250, prompt_tokens=300)
        mixed: 250 requests in 1 phase, 2.75 requests/s; tenants chat 80 %, jobs 20 %
        """
        return cls._drawn(seed, rows, tenants=tenants, requests=requests, **_pace(arrivals))

    @classmethod
    def _drawn(cls, seed: int, rows: Mapping[str, Any], **pace: Any) -> Self:
        """What ``rows`` and ``pace``, keys of a ``WorkloadSpec``, describe; a run may be in memory only."""
        values = {name: value for name, value in ({**rows, **pace}).items() if value is not None}
        memory = values.get("trace")
        if not isinstance(memory, Trace):
            return cls.generated(WorkloadSpec.of(values), seed)
        spec = WorkloadSpec.of(values | {"trace": memory.name})
        return cls.generated(spec, seed, lambda place: memory if place == memory.name else read(place))

    def __repr__(self) -> str:
        phases = self.info.phases
        counts = f"{len(self):d} requests in {len(phases)} phase{'s' * (len(phases) != 1)}"
        parts = [f"{self.info.name}: {', '.join([counts, *self._paces()])}", self._tenants(), *self._shares()]
        return "; ".join(parts)

    def _paces(self) -> list[str]:
        """How fast requests come, in words: a rate for all open phases, users, a backlog."""
        ends = np.cumsum([phase.requests for phase in self.info.phases])
        offsets = self.table["offset_s"].to_numpy(dtype=float)
        paced = [
            (phase.requests, offsets[end - 1] + phase.pause_s)
            for phase, end in zip(self.info.phases, ends, strict=True)
            if phase.kind in ("open", "after-drain")
        ]
        requests, seconds = sum(count for count, _ in paced), sum(span for _, span in paced)
        found = [f"{requests / seconds:.3g} requests/s"] if seconds else []
        if "parent" in self.table and (begins := offsets[~self.table["parent"].map(len).astype(bool)]).any():
            found.append(f"{len(begins) / begins.max():.3g} first turns/s")
        found += [f"{phase.users} users" for phase in self.info.phases if phase.kind == "closed"]
        return found + ["a backlog"] * any(phase.kind == "backlog" for phase in self.info.phases)

    def _shares(self) -> list[str]:
        """How many sessions there are and what their prompts share, in words."""
        sessions = self.table["session"].nunique() if "session" in self.table else 0
        found = [f"{sessions} session{'s' * (sessions != 1)}"] if sessions else []
        rate = self.hit_rate()
        if rate is None:
            return found
        return [*found, f"an endless cache finds {100 * rate:.1f} % of the prompt tokens, in blocks of {BLOCK}"]

    def hit_rate(self, block_size: int = BLOCK) -> float | None:
        """The share of prompt tokens that an endless cache with blocks of so many tokens finds; None: nobody knows.

        Counted on the requests themselves: each finds what those before it, in order, have sent and got. Where they
        are served at the same time, an engine finds less, since what it finds must have been computed.

        >>> from driftsim.workloads.conversations import Session
        >>> chat = Session(kind="chat", turns=2, gap_s=10.0)
        >>> Workload.poisson(rate=1.0, requests=9, prompt_tokens=100, output_tokens=60, session=chat).hit_rate()
        0.4
        """
        if "stretches" not in self.table or self.table["output_tokens"].isna().any():
            return None
        prompts, outputs = (self.table[name].astype("int64").tolist() for name in ("prompt_tokens", "output_tokens"))
        return float(endless_hits(prompts, outputs, self.table["stretches"], block_size).sum() / sum(prompts))

    def _tenants(self) -> str:
        shares = self.table["tenant"].value_counts(normalize=True)
        if len(shares) == 1:
            return f"tenant {shares.index[0]}"
        named = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.head(NAMED).items())
        return f"tenants {named}" + (f" and {len(shares) - NAMED} more" if len(shares) > NAMED else "")

    def _repr_html_(self) -> str:
        return f"<p>{for_html(repr(self))}</p>{html_table(self.table.head(HTML_ROWS))}"

    def frame(self) -> pd.DataFrame:
        """The requests, a row each, in the columns of ``COLUMNS``."""
        return self.table

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def offered(self) -> pd.DataFrame:
        """What a trace's request table holds of these requests before a run begins, in its dtypes."""
        others = (*SESSION_COLUMNS, CHOICE_COLUMN)
        known = (*OFFERED, *(column for column in others if column.name in self.table))
        return typed(self.table, known, "workload")

    def sent_in(self, run: Trace) -> np.ndarray:
        """Which of the requests stand in ``run``, a run of them, (requests,): a turn behind a failed one never came."""
        if len(run.requests) == len(self):
            return np.ones(len(self), dtype=bool)
        return np.asarray(self.table["request_id"].isin(set(run.requests["request_id"])))

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

    @cached_property
    def _turns(self) -> tuple[list[str], list[int]]:
        """Session and turn number by row; empty lists where there are no sessions."""
        if "session" not in self.table:
            return [], []
        return session_names(self.table).tolist(), turn_numbers(self.table).tolist()

    def categories(self, admission: Admission) -> list[str]:
        """The category of each request that ``admission`` sees; one without a base of its own counts as short_qa."""
        names = self.offered[admission.category_column].tolist()
        seen = {name: admission.category_seen(name) for name in set(names)}
        return [seen[name] for name in names]

    def unknown_categories(self, admission: Admission) -> int:
        """How many requests have no category that has a base of its own."""
        names = self.offered[admission.category_column].tolist()
        known = {name for name in set(names) if admission.category_seen(name) == name}
        return sum(name not in known for name in names)

    @cached_property
    def common(self) -> frozenset[int] | None:
        """The stretches that several requests share; None: what they share is not known."""
        return in_common(self.table["stretches"]) if "stretches" in self.table else None

    @cached_property
    def tier_names(self) -> frozenset[str]:
        """The tiers that the requests have."""
        return frozenset(self.offered["tier"])

    def requests(self, rules: Sequence[TierRule] = ()) -> Callable[[int, float], Request]:
        """A function from row and arrival time (s) to the request, whose tier has the rank that ``rules`` give it."""
        ids, tenants, categories = (self.offered[name].tolist() for name in ("request_id", "tenant", "category"))
        known = ranked(rules, self.tier_names)
        tiers = [known[tier] for tier in self.offered["tier"].tolist()]
        prompts, caps, words = self._prompt_numbers
        texts = self.prompts
        shared: Any = self.table["stretches"].tolist() if "stretches" in self.table else None
        choices = choices_in(self.table["choice_of"].tolist()) if "choice_of" in self.table else {}
        sessions, turns = self._turns

        def build(row: int, arrival: float) -> Request:
            text = texts[row] if texts else None
            return Request(
                ids[row], tenants[row], tiers[row], categories[row] or "", arrival,
                prompts[row], None if words[row] < 0 else words[row], caps[row], text,
            )  # fmt: skip

        def build_more(row: int, arrival: float) -> Request:
            request = build(row, arrival)
            if shared is not None:
                request.stretches = shared[row]
            if sessions:
                request.session, request.turn = sessions[row], turns[row]
            return request

        def build_choice(row: int, arrival: float) -> Request:
            request = more(row, arrival)
            request.choice = choices.get(row)
            return request

        more = build if shared is None and not sessions else build_more
        return build_choice if choices else more


def _pace(arrivals: Process | None) -> dict[str, Any]:
    return {} if arrivals is None else {name: getattr(arrivals, name) for name in ("kind", *Pace.model_fields)}
