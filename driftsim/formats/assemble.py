"""Cells that a reader found become a trace: typed, in order, with every change counted and told.

A row that cannot be read costs that row, and is counted. What an engine could not have done is either small, and is
then clamped and told, or costs the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import TraceError
from driftsim.formats.clocks import doubtful_times, refuse_unit
from driftsim.formats.endings import DONE, ending
from driftsim.formats.found import Found
from driftsim.formats.heading import header_of, printable
from driftsim.formats.relations import related
from driftsim.formats.values import NOTHING, Problems, counts, shown, texts, times, without_zone
from driftsim.trace.schema import (
    CACHED_COLUMN,
    FINISH_REASONS,
    FINISHED,
    LIFE_TIMES,
    LONGEST_S,
    REQUEST_COLUMNS,
    request_columns,
)
from driftsim.trace.tables import typed
from driftsim.trace.trace import Trace

COLUMNS = {column.name: column for column in (*REQUEST_COLUMNS, CACHED_COLUMN)}
NEEDED = ("prompt_tokens", "output_tokens", "arrival_s")
DEFAULTS = {"tenant": "default", "tier": "standard", "phase": "imported"}
CLOCKS_S = 0.05  # two clocks may disagree by this much before a row is refused
NAMED = 3  # rows that a message names
FLOATS = {"bias"}
OPTIONAL = {CACHED_COLUMN.name}  # which a trace lacks where no row tells it


def assemble(found: Found, *, strict: bool = False) -> Trace:
    """The trace of what was ``found``. Raises ``TraceError`` if no row can be read; ``strict``, if one cannot."""
    return _Assembly(found, strict).trace()


class _Assembly:
    """The rows on their way: ``columns`` by our names, and ``bad``, the rows that cannot be read, with the reason."""

    def __init__(self, found: Found, strict: bool) -> None:
        self.found, self.strict, self.file = found, strict, found.source.file
        self.count = found.source.count
        self.columns: dict[str, Any] = {}
        self.bad: dict[int, str] = {}
        self.caveats = list(found.guessed)

    def trace(self) -> Trace:
        found = self.found
        known = {*found.cells, *found.durations, *found.values}
        if "finish_s" in found.cells and "finish_s" in found.durations:
            known.add("arrival_s")
        missing = [name for name in NEEDED if name not in known]
        if missing:
            gloss = COLUMNS[missing[0]].gloss
            raise TraceError(f"{self.file}: {missing[0]} is not mapped ({gloss}); a trace needs {', '.join(NEEDED)}")
        if not self.count and not found.source.unreadable:
            raise TraceError(f"{self.file}: no request in {self.file.name}; a trace needs one request")
        self._read()
        self._name()
        reasons, told = self._reasons()
        self._forget_placeholders(~np.isin(reasons, (*FINISHED, DONE)))
        self._end(reasons, told)
        self._order()
        rows = self._kept()
        self.caveats += doubtful_times(rows)
        relations = related(found, rows)
        rows = relations.rows.reset_index(drop=True)
        noted = replace(found, left_out=[*found.left_out, *relations.notes])
        header = header_of(noted, rows, [*self.caveats, *relations.said], relations.prefixes)
        return Trace(header, typed(rows, request_columns(rows), str(self.file)))

    # -- cells to values
    def _read(self) -> None:
        found = self.found
        for name, value in found.values.items():
            self._column(name, [value] * self.count)
        for name, cells in found.cells.items():
            self._column(name, cells)
        if "arrival_s" not in self.columns:  # an end and how long it took tell the arrival
            ends, took = self.columns["finish_s"], self._times("finish_s", found.durations["finish_s"])
            self.columns["arrival_s"] = ends - took
        for name, cells in found.durations.items():
            if name not in self.columns:
                self.columns[name] = self.columns["arrival_s"] + self._times(name, cells)
        self._refuse_empty("arrival_s", np.isnan(self.columns["arrival_s"]))
        if found.beginnings is not None:
            self._refuse(found.beginnings.source, found.beginnings.problems)
        if found.sessions is not None:
            for name, problems in found.sessions.problems().items():
                self._refuse(name, problems)
        zones = [name for name in LIFE_TIMES if without_zone(found.cells.get(name, ())[:1000])]
        if zones:
            self.caveats.append(f"{', '.join(zones)}: dates without a zone are taken as UTC")

    def _column(self, name: str, cells: Sequence[Any]) -> None:
        column = COLUMNS[name]
        cells = self._mapped(name, cells)
        if name in LIFE_TIMES:
            self.columns[name] = self._times(name, cells)
        elif column.kind == "str":
            self.columns[name], _ = texts(cells)
        else:
            values, problems = times(cells) if name in FLOATS else counts(cells)
            self._refuse(name, problems)
            self.columns[name] = values

    def _times(self, name: str, cells: Sequence[Any]) -> np.ndarray:
        values, problems = times(cells, self.found.unit(name))
        self._refuse(name, problems)
        return values

    def _mapped(self, name: str, cells: Sequence[Any]) -> Sequence[Any]:
        """``cells`` with the words of another tool replaced by those that the mapping gives for them."""
        words = self.found.maps.get(name)
        if not words:
            return cells
        return [
            words.get(text, cell) if text is not None else cell
            for text, cell in zip(texts(cells)[0], cells, strict=True)
        ]

    def _refuse_empty(self, name: str, rows: np.ndarray) -> None:
        self._refuse(name, dict.fromkeys(np.flatnonzero(rows).tolist(), f"is empty ({COLUMNS[name].gloss})"))

    def _refuse(self, name: str, problems: Problems) -> None:
        """Note the rows whose ``name`` has ``problems``."""
        theirs = self.found.names.get(name)
        where = f" (column {theirs!r})" if theirs and theirs != name else ""
        for row, what in problems.items():
            self.bad.setdefault(row, f"{name} {what}{where}")

    # -- names
    def _name(self) -> None:
        for name, value in DEFAULTS.items():
            cells = self.columns.get(name, [None] * self.count)
            self.columns[name] = [value if cell is None else printable(cell) for cell in cells]
        given = self.columns.get("request_id") or [None] * self.count
        names = [f"i{row:06d}" if name is None else printable(name) for row, name in enumerate(given)]
        seen: dict[str, int] = {}
        twice = 0
        for row, name in enumerate(names):
            number = seen[name] = seen.get(name, 0) + 1
            if number > 1:
                twice += 1
                names[row] = f"{name}#{number}"
        if twice:
            self.caveats.append(f"{self._of(twice)} had the request_id of another and got a number behind it")
        self.columns["request_id"] = names

    def _of(self, count: int) -> str:
        return f"{count} of {self.count} rows"

    def _some(self, rows: np.ndarray) -> str:
        """Where the first of ``rows``, a mask or row numbers, are."""
        places = [self.found.source.place(int(row)) for row in (np.flatnonzero(rows) if rows.dtype == bool else rows)]
        return ", ".join(places[:NAMED]) + (" ..." if len(places) > NAMED else "")

    # -- how each request ended
    def _forget_placeholders(self, failed: np.ndarray) -> None:
        """Numbers that cannot be, such as 0 and -1, stand for nothing in a row of a request that ``failed``."""
        columns, arrival = self.columns, self.columns["arrival_s"]
        nothing = np.full(self.count, False)
        for name in LIFE_TIMES[1:]:
            if name in columns:
                clocks_s = 0.0 if name in self.found.durations else CLOCKS_S  # what has one clock is never below 0
                before = failed & (columns[name] < arrival - clocks_s)
                columns[name] = np.where(before, np.nan, columns[name])
                nothing |= before
        negative = failed & (columns["output_tokens"] < 0)
        columns["output_tokens"] = np.where(negative, np.nan, columns["output_tokens"])
        for row in np.flatnonzero(negative).tolist():
            if self.bad[row].startswith("output_tokens "):
                del self.bad[row]
        self._say(nothing | negative, "failed and have numbers that stand for nothing, which are left empty")

    def _end(self, reasons: np.ndarray, told: np.ndarray) -> None:
        columns = self.columns
        output = columns["output_tokens"]
        finish = np.asarray(columns.get("finish_s", np.full(self.count, np.nan)), dtype=float)
        timed = bool(np.isfinite(finish).any())
        columns["max_tokens"] = self._limits(output)
        limited = output >= columns["max_tokens"] if "max_tokens" in self.found.cells else np.full(self.count, True)
        finished = np.isin(reasons, (*FINISHED, DONE))
        none = finished & ~(output >= 1)
        self._say(none & told, "say that they ended well, but have no output: they count as failed")
        self._say(none & ~told, "have no output: they count as failed")
        unfinished = finished & ~none & timed & np.isnan(finish)
        self._say(unfinished, "have no finish time: they count as given up, with the output that they have")
        sudden = finished & ~none & ~unfinished & self._sudden()
        self._say(sudden, "were answered in no time, which no engine does: they count as failed")
        reasons[none | sudden] = "error"
        reasons[unfinished] = "abort"
        done = reasons == DONE
        reasons[done] = np.where(limited, "length", "stop")[done]
        columns["finish_reason"] = reasons
        failed = ~np.isin(reasons, FINISHED)
        columns["output_tokens"] = np.where(failed & ~(output >= 1), np.nan, output)
        self._forget_times(sudden, none)
        self._count_prompts(failed)

    def _forget_times(self, sudden: np.ndarray, none: np.ndarray) -> None:
        """A request that counts as failed has no times at which it was not served: zeros stood for them."""
        arrival = self.columns["arrival_s"]
        for name in ("first_token_s", "finish_s"):
            if name in self.columns:
                times = self.columns[name]
                self.columns[name] = np.where(sudden | (none & (times <= arrival)), np.nan, times)

    def _count_prompts(self, failed: np.ndarray) -> None:
        """Every request has a prompt of 1 token or more; of one that ``failed``, it may not have been told."""
        columns, prompt = self.columns, self.columns["prompt_tokens"]
        self._refuse_empty("prompt_tokens", np.isnan(prompt) & ~failed)
        unknown = np.isnan(prompt) & failed
        self._say(unknown, "failed and tell no prompt_tokens: each counts as a prompt of 1")
        empty = prompt == 0
        self._say(empty, "have a prompt of 0 tokens, which counts as 1: no engine computes less")
        columns["prompt_tokens"] = np.where(empty | unknown, 1, prompt)
        if "cached_tokens" in columns:
            more = columns["cached_tokens"] > columns["prompt_tokens"]
            self._say(more, "found more cached_tokens than their prompt has, which are left empty")
            columns["cached_tokens"] = np.where(more, np.nan, columns["cached_tokens"])

    def _reasons(self) -> tuple[np.ndarray, np.ndarray]:
        """How each request ended, ``DONE`` where that it ended well is all that is known, and whether that was told."""
        given = self.columns.get("finish_reason") or [None] * self.count
        known = {text: text if text in FINISH_REASONS else ending(text) for text in {*given} - {None}}
        reasons = np.array([DONE if text is None else known[text] for text in given], dtype=object)
        unknown = {
            row: f"is {shown(given[row])}, which says nothing of how the request ended; map the word with "
            f'[maps.finish_reason] {shown(given[row])} = "stop", "length", "abort" or "error"'
            for row in np.flatnonzero(pd.isna(reasons)).tolist()
        }
        self._refuse("finish_reason", unknown)
        errors = self.columns.get("error") or [None] * self.count
        errors = [
            None if text is None or text.lower() in {*NOTHING, "false", "0", "{}", "[]", "0.0"} else text
            for text in errors
        ]
        self.columns["error"] = errors
        failed = np.array([text is not None for text in errors], dtype=bool)
        reasons[failed & np.isin(reasons, np.array([*FINISHED, DONE], dtype=object))] = "error"
        return reasons, np.array([text is not None for text in given], dtype=bool)

    def _limits(self, output: np.ndarray) -> np.ndarray:
        """``max_tokens``, where not told the output, and never below the output."""
        least = np.maximum(np.nan_to_num(output, nan=1.0), 1.0)
        if "max_tokens" not in self.columns:
            self.caveats.append("max_tokens was not told: each request's output is taken for its limit")
            return np.asarray(least)
        limit = self.columns["max_tokens"]
        unknown = ~(limit >= 1)
        self._say(unknown, "have no max_tokens: the output is taken for the limit")
        limit = np.where(unknown, least, limit)
        self._say(limit < least, "have an output longer than max_tokens, which is raised to it")
        return np.asarray(np.maximum(limit, least))

    def _sudden(self) -> np.ndarray:
        """Which requests have their first token, or their last, at the very moment of their arrival."""
        arrival = self.columns["arrival_s"]
        sudden = np.zeros(self.count, dtype=bool)
        for name in ("first_token_s", "finish_s"):
            if name in self.columns:
                sudden |= self.columns[name] == arrival
        return sudden

    def _say(self, rows: np.ndarray, what: str) -> None:
        rows = rows & ~np.isin(np.arange(self.count), list(self.bad))
        if rows.any():
            self.caveats.append(f"{self._of(int(rows.sum()))} {what} ({self._some(rows)})")

    # -- times in the order of a life
    @np.errstate(invalid="ignore")  # of rows that are refused anyway
    def _order(self) -> None:
        columns = self.columns
        good = ~np.isin(np.arange(self.count), list(self.bad))
        if not good.any():
            return
        arrival = columns["arrival_s"]
        middle = float(np.median(arrival[good]))
        refuse_unit(middle, self.found.unit("arrival_s"), str(self.file))
        far = {row: f"is {abs(arrival[row] - middle):.3g} s away from the others; give its unit"
               for row in np.flatnonzero(good & (np.abs(arrival - middle) > LONGEST_S)).tolist()}  # fmt: skip
        self._refuse("arrival_s", far)
        good &= ~np.isin(np.arange(self.count), list(far))
        if not good.any():
            return
        offset = float(arrival[good].min()) if self.found.offset == "first" else self.found.offset
        latest, clamped, most = np.full(self.count, -np.inf), np.zeros(self.count, dtype=bool), 0.0
        before = "the offset"
        for name in LIFE_TIMES:
            if name not in columns:
                continue
            own = columns[name] = columns[name] - offset
            back = latest - own
            wrong = good & (back > CLOCKS_S)
            self._refuse(name, {row: f"is {back[row]:.3g} s before its {before}; the clocks do not agree"
                                for row in np.flatnonzero(wrong).tolist()})  # fmt: skip
            small = good & (back > 0) & ~wrong
            if small.any():
                clamped |= small
                most = max(most, float(back[small].max()))
                columns[name] = own = np.where(small, latest, own)
            late = good & ((own > LONGEST_S) | (own < 0))
            self._refuse(name, {row: f"is {own[row]:g} s after the offset; times lie from 0 to {LONGEST_S:g} s"
                                for row in np.flatnonzero(late).tolist()})  # fmt: skip
            latest, before = np.where(np.isnan(own), latest, own), name
        if clamped.any():
            self._say(clamped, f"had times out of order by at most {1000 * most:.3g} ms, which were set equal")

    # -- the trace
    def _kept(self) -> pd.DataFrame:
        """The readable rows by arrival, each with its number in the file as its index."""
        unreadable = {**self.found.source.unreadable}
        unreadable |= {self.found.source.place(row): why for row, why in sorted(self.bad.items())}
        total = self.count + len(self.found.source.unreadable)
        if unreadable:
            place, why = next(iter(unreadable.items()))
            if self.strict or len(unreadable) == total:
                more = f" (and {len(unreadable) - 1} more rows)" if len(unreadable) > 1 else ""
                raise TraceError(f"{self.file}: {place}: {why}{more}; correct the row or remove it")
            first = "; ".join(f"{place}: {why}" for place, why in list(unreadable.items())[:NAMED])
            self.caveats.insert(0, f"{len(unreadable)} of {total} rows could not be read and were left out: {first}"
                                   + ("; ..." if len(unreadable) > NAMED else ""))  # fmt: skip
        rows = pd.DataFrame({name: pd.Series(values) for name, values in self.columns.items()})
        rows = rows.drop(index=list(self.bad)).sort_values("arrival_s", kind="stable")
        told = {name for name in OPTIONAL if name in rows and rows[name].notna().any()}
        return rows.reindex(columns=[column.name for column in request_columns(told)])
