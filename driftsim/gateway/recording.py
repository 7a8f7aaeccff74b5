"""What passes the gateway is recorded as traces of driftsim, by the journal of a capture; no text is ever kept.

A trace is begun anew after a time or a size; requests that are under way then stay in theirs, which is closed when the
last of them has ended. A start closes what a killed gateway left open.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim.errors import InputError, TraceError
from driftsim.files import check_outside, check_place
from driftsim.request import Job
from driftsim.trace.header import Header
from driftsim.trace.journal import REMAINS, Journal, is_being_recorded, read_journal
from driftsim.trace.marks import marked, odd_note
from driftsim.trace.schema import OFFERED
from driftsim.trace.segments import segments
from driftsim.trace.trace import read

PHASE = "gateway"
SOON_S = 0.05  # until an arrival or a release is written: a request that ends sooner takes one line


@dataclass(eq=False)
class Segment:
    """One trace that is being recorded."""

    journal: Journal
    header: Header
    begun: float  # s of the gateway's time
    rows: int = 0
    under_way: int = 0
    dispatched: int = 0
    full: bool = False


@dataclass(slots=True, eq=False)
class Slot:
    """Where a request is recorded."""

    segment: Segment = field(repr=False)
    row: int
    unwritten: dict[str, Any] = field(default_factory=dict, repr=False)


class Recorder:
    """Records into ``folder``; None records nothing. ``heading`` makes the header of a trace that begins now."""

    def __init__(
        self, folder: Path | None, heading: Callable[[], Header], *, rotate_s: float, rotate_bytes: float
    ) -> None:
        self.folder = folder
        self.problems: list[str] = []  # what could not be written, in words
        self._heading = heading
        self._rotate_s, self._rotate_bytes = rotate_s, rotate_bytes
        self._current: Segment | None = None
        self._open: list[Segment] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._unwritten: dict[Slot, None] = {}

    @property
    def is_sound(self) -> bool:
        """Whether everything could be written so far."""
        return not self.problems

    def arrived(self, job: Job, values: Mapping[str, Any], now: float, monotonic: float) -> Slot | None:
        """``job`` arrived ``now`` (s of the gateway's time), which is ``monotonic`` of the machine's clock."""
        if self.folder is None:
            return None
        segment = self._segment(now, monotonic)
        if segment is None:
            return None
        slot = Slot(segment, segment.rows)
        segment.rows += 1
        segment.under_way += 1
        request = job.request
        self._write_soon(slot, {
            "request_id": request.id, "tenant": request.tenant, "tier": str(request.tier), "phase": PHASE,
            "prompt_tokens": request.prompt_tokens, "prompt_words": request.prompt_words,
            "max_tokens": request.max_tokens, "arrival_s": now - segment.begun, "bias": job.bias,
            "scheduling_class": job.scheduling_class, "estimate": job.estimate, "budget": job.budget, **values,
        })  # fmt: skip
        return slot

    def dispatched(self, slot: Slot | None, now: float) -> None:
        """The request in ``slot`` was released."""
        if slot is not None:
            segment = slot.segment
            self._write_soon(slot, {"dispatch_s": now - segment.begun, "dispatch_index": segment.dispatched})
            segment.dispatched += 1

    def ended(self, slot: Slot | None, values: Mapping[str, Any]) -> None:
        """The request in ``slot`` is over; times among ``values`` (ending in ``_s``) are those of the gateway."""
        if slot is None:
            return
        segment = slot.segment
        for name, value in values.items():
            if value is not None:
                slot.unwritten[name] = value - segment.begun if name.endswith("_s") else value
        self._write([slot])
        segment.under_way -= 1
        self._close_if_over(segment)

    def rotate(self, now: float) -> None:
        """Begin another trace with the next request, if this one is full by ``now``."""
        segment = self._current
        if segment is None:
            return
        with suppress(OSError):
            size = (segment.journal.folder / "requests.jsonl").stat().st_size
            if now - segment.begun >= self._rotate_s or size >= self._rotate_bytes:
                self._current, segment.full = None, True
                self._close_if_over(segment)

    async def close(self) -> None:
        """Close every trace, as complete where all its requests have ended."""
        self._write(list(self._unwritten))
        if self._current is not None:
            self._current.full, self._current = True, None
        for segment in list(self._open):
            self._close(segment)
        while self._closing:
            await asyncio.gather(*self._closing)

    def _segment(self, now: float, monotonic: float) -> Segment | None:
        if self._current is None:
            assert self.folder is not None
            at = datetime.now(UTC)
            header = self._heading().changed(ended="recording", captured_at=at.isoformat(timespec="microseconds"))
            try:
                journal = Journal(_free(self.folder, at), header, _nothing_offered())
                journal.begin(monotonic)
            except (OSError, TraceError) as error:
                self._problem(error)
                return None
            self._current = Segment(journal, header, now)
            self._open.append(self._current)
        return self._current

    def _write_soon(self, slot: Slot, values: Mapping[str, Any]) -> None:
        """Write ``values`` with those of others; a request that has ended is written at once."""
        slot.unwritten.update(values)
        if not self._unwritten:
            asyncio.get_running_loop().call_later(SOON_S, lambda: self._write(list(self._unwritten)))
        self._unwritten[slot] = None

    def _write(self, slots: list[Slot]) -> None:
        for segment in {slot.segment: None for slot in slots}:
            own = [slot for slot in slots if slot.segment is segment]
            try:
                segment.journal.notes((slot.row, slot.unwritten) for slot in own)
            except OSError as error:  # a full disk stops the record, not the service
                self._problem(error)
            for slot in own:
                self._unwritten.pop(slot, None)
                slot.unwritten = {}

    def _problem(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if text not in self.problems and len(self.problems) < 20:
            self.problems.append(text)

    def _close_if_over(self, segment: Segment) -> None:
        if segment.full and not segment.under_way and segment in self._open:
            self._close(segment)

    def _close(self, segment: Segment) -> None:
        self._open.remove(segment)
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(self._finish, segment))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _finish(self, segment: Segment) -> None:
        """Turn a journal into a trace; in a thread, since that takes a while."""
        journal = segment.journal
        try:
            tables = read_journal(journal.folder)
            header = _ended(segment.header, len(tables["requests"]), segment.under_way)
            tables["requests"], odd = marked(tables["requests"], header)
            journal.close(header.changed(notes=(*header.notes, *odd_note(odd))), tables)
        except (OSError, ValueError) as error:  # the journal stays, and is readable
            self._problem(error)


def check_folder(folder: Path) -> None:
    """Raise ``InputError`` or ``OSError`` unless traces can be recorded into ``folder``, which is left as it is."""
    if "\0" in str(folder):
        raise InputError(f"record {str(folder)!r:.80} is no name of a folder; correct it")
    check_outside(folder / "new")
    if not folder.is_dir():
        check_place(folder)
        return
    try:
        Path(tempfile.mkdtemp(dir=folder)).rmdir()
    except OSError as error:
        raise OSError(error.errno, "cannot be written here: " + (error.strerror or str(error)), str(folder)) from None


def close_leftovers(folder: Path) -> int:
    """Turn the journals in ``folder`` that nobody records into any more into traces; how many these were."""
    closed = 0
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not place.is_dir() or is_being_recorded(place):
            continue
        names = {file.name for file in place.iterdir()}
        if "header.json" not in names and names and names <= set(REMAINS):  # killed before its first request
            for name in names:
                (place / name).unlink()
            place.rmdir()
    for place in segments(folder):
        with suppress(TraceError, OSError):  # what cannot be read is left as it is
            if is_being_recorded(place) or not (place / "requests.jsonl").is_file():
                continue
            read(place).write(place, overwrite=True)
            closed += 1
    return closed


def _ended(header: Header, rows: int, under_way: int) -> Header:
    phases = (header.workload.phases[0].changed(requests=max(1, rows)),)
    why = f"{under_way} requests were under way when the gateway stopped" if under_way else ""
    return header.changed(
        workload=header.workload.changed(phases=phases), ended="interrupted" if under_way else "complete", ended_why=why
    )


def _free(folder: Path, at: datetime) -> Path:
    """A folder of its own, named by the moment."""
    name, number = at.strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z", 1
    while (folder / name).exists():
        number += 1
        name = f"{name.partition('-')[0]}-{number}"
    return folder / name


def _nothing_offered() -> pd.DataFrame:
    """The offered requests of a run that knows none beforehand."""
    return pd.DataFrame({column.name: pd.Series(dtype=column.dtype) for column in OFFERED})
