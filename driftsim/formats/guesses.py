"""What the columns of an unknown table may be: guessed by name, held against their values, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from driftsim.formats.source import Source
from driftsim.formats.values import counts, is_nothing, texts, times
from driftsim.trace.schema import LIFE_TIMES

ENOUGH = 0.8  # share of the filled cells that must read as what the name says
TOKENS = r"(tok(en)?s?|len(gth)?s?|size)"
WHEN = r"(_(at|time|ts|timestamp))?"
NUMBER = r"(n(um(ber)?)?_)?(of_)?"
NAMES: dict[str, tuple[str, ...]] = {  # our column = patterns of another's name, the surest first
    "request_id": (r"(x_)?(request|req)_?(id|uuid)", r"(trace|call|span|chat)_id", r"id|uuid|name|key"),
    "prompt_tokens": (
        rf"{NUMBER}(prompt|input|context|request|in)_(n_)?{TOKENS}(_(count|len(gth)?|in))?",
        r"isl|input_(sequence_)?len(gth)?|tokens_in|prompt_n",
        r"in|input|prompt|context",
    ),
    "output_tokens": (
        rf"{NUMBER}(output|completion|generated|generation|response|gen|out)_(n_)?{TOKENS}(_(count|len(gth)?|out))?",
        r"osl|output_(sequence_)?len(gth)?|tokens_out|completion_n",
        r"out|output|completion|generated",
    ),
    "max_tokens": (r"max_(new_|completion_|output_)?tokens", r"(output|token)_limit"),
    "arrival_s": (
        rf"arriv(al|ed){WHEN}",
        rf"(request_)?(start(ed)?|sent|send|submit(ted)?){WHEN}",
        rf"(created|received|requested|enqueued|queued){WHEN}",
        r"(request_)?(time_?stamp|datetime|date_time)|ts|(event_|request_)?time|date|at",
        r"t|t0|t_0|offset",
    ),
    "dispatch_s": (rf"dispatch(ed)?{WHEN}",),
    "scheduled_s": (rf"(scheduled|schedule|scheduling){WHEN}",),
    "first_token_s": (
        rf"ttft|time_to_first_token|first_token(_latency)?{WHEN}",
        rf"first_(byte|chunk){WHEN}|ttfb",
    ),
    "finish_s": (
        rf"(request_)?(end(ed)?|finish(ed)?|completed|completion|done|last_(token|chunk)){WHEN}",
        r"(request_)?(e2e|end_to_end)(_(latency|time))?|(request_|total_)?(latency|duration)|took|elapsed(_time)?",
        r"(total|response|processing|request|api)_time",
    ),
    "tenant": (
        r"tenant(_(id|name))?",
        r"(customer|user|account|org(anization)?|client|team|project)(_(id|name))?|api_key(_(id|hash))?",
    ),
    "tier": (r"(service_)?tier|slo_class|service_class|priority(_class)?|qos|plan",),
    "category": (r"category|task(_type)?|kind|(request|log|job|workload)_type|type",),
    "finish_reason": (r"(finish|stop)_reason", r"(final_|request_)?status(_code)?|outcome|success|state|result|ok"),
    "error": (r"error_(message|msg)", r"error(_(type|code))?|exception|failure"),
    "preemptions": (r"(num_)?preemptions?",),
    "cached_tokens": (r"(num_)?cached_(prompt_|input_)?tokens|(prompt_)?cache_(read|hit)_(input_)?tokens",),
    "session": (r"(session|conversation)(_(id|uuid))?", r"(thread|program)_(id|uuid)"),
}
DURATION = re.compile(
    r"ttft|time_to|latency|duration|e2e|end_to_end|took|elapsed|(total|response|processing|api)_time|ttfb"
)
NAMED_UNITS = {
    "s": r"s|secs?|seconds?", "ms": r"ms|msecs?|millis(econds?)?", "us": r"us|µs|usecs?|micros(econds?)?",
    "ns": r"ns|nsecs?|nanos(econds?)?",
}  # fmt: skip
EPOCHS = {"s": (1e9, 1e11), "ms": (1e12, 1e14), "us": (1e15, 1e17), "ns": (1e18, 1e20)}  # since 1970, from 2001 on
UNIT_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(slots=True)
class Guess:
    """Column ``theirs`` for a column of ours; a time may be a ``duration`` and have a ``unit``; ``why`` says so."""

    theirs: str
    why: list[str] = field(default_factory=list)
    duration: bool = False
    unit: str | None = None
    moments: np.ndarray = field(default_factory=lambda: np.empty(0))  # bare numbers of a time, before its unit
    dated: bool = False


def plain(name: str) -> tuple[str, str | None]:
    """``name`` in lower case with _ between its words, without its unit, and that unit.

    >>> plain("ContextTokens"), plain("TTFT (ms)"), plain("latency_ns"), plain("metrics.e2e.seconds")
    (('context_tokens', None), ('ttft', 'ms'), ('latency', 'ns'), ('metrics_e2e', 's'))
    """
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    words = [word for word in re.split(r"[^a-z0-9µ]+", spaced.lower()) if word]
    for unit, pattern in NAMED_UNITS.items():
        if len(words) > 1 and re.fullmatch(pattern, words[-1]):
            return "_".join(words[:-1]), unit
    return "_".join(words), None


def guesses(source: Source) -> dict[str, Guess]:
    """For each column of ours that some column of ``source`` looks like, the likeliest, no column twice."""
    columns = {name: source.cells(name) or [] for name in source.names}
    cells = {name: values for name, values in columns.items() if _scalar(values)}
    ranked = sorted(
        (rank, len(theirs), ours, theirs)
        for ours, patterns in NAMES.items()
        for theirs in cells
        if (rank := _rank(theirs, patterns)) is not None
        and reads_as(ours, cells[theirs])
        and not (ours == "category" and "error" in theirs.lower())
    )
    found: dict[str, Guess] = {}
    used = set[str]()
    for _, _, ours, theirs in ranked:
        if ours not in found and theirs not in used:
            found[ours] = Guess(theirs, ["by its name"])
            used.add(theirs)
    for ours in LIFE_TIMES:
        if ours in found:
            _describe(found[ours], cells[found[ours].theirs])
    outputs = counts(cells[found["output_tokens"].theirs])[0] if "output_tokens" in found else np.empty(0)
    _time_kinds(found)
    _units(found, outputs)
    return found


def _scalar(cells: Sequence[Any]) -> bool:
    filled = [cell for cell in cells if not is_nothing(cell)]
    return bool(filled) and not any(isinstance(cell, list | dict) for cell in filled[:1000])


def _rank(name: str, patterns: Sequence[str]) -> int | None:
    """Which of ``patterns`` the name fits: its last part, or the last two or three together; a path ranks later."""
    parts = name.split(".")
    for rank, pattern in enumerate(patterns):
        for depth in (1, 2, 3):
            tail, _ = plain(".".join(parts[-depth:]))
            for one in (tail, re.sub(r"_(value|avg|mean)$", "", tail)):
                if depth <= len(parts) and re.fullmatch(pattern, one):
                    return 10 * rank + depth - 1
    return None


def reads_as(ours: str, cells: Sequence[Any]) -> bool:
    """Whether most ``cells`` can be values of our column ``ours``."""
    filled = [cell for cell in cells if not is_nothing(cell)]
    if ours.endswith("_tokens") or ours == "preemptions":
        return len(counts(filled)[1]) <= (1 - ENOUGH) * len(filled)
    if ours in LIFE_TIMES:
        return len(times(filled)[1]) <= (1 - ENOUGH) * len(filled)
    if ours == "tier":
        return len({*texts(filled)[0]}) <= 12
    return True


def _describe(guess: Guess, cells: Sequence[Any]) -> None:
    """What the cells of a time are: dates, texts with units of their own, or bare numbers."""
    guess.moments, _ = times(cells)
    bare = [cell for cell in cells if not is_nothing(cell)][:1000]
    guess.dated = any(isinstance(cell, str) and not re.fullmatch(r"[-+\d.eE_ ]+", cell) for cell in bare) or not all(
        isinstance(cell, str | int | float | np.integer | np.floating) for cell in bare
    )
    guess.unit = plain(guess.theirs)[1]
    if guess.dated:
        guess.unit = None
        guess.why.append("its values bring their unit or are dates")
    elif guess.unit:
        guess.why.append(f"its name says {guess.unit}")


def _time_kinds(found: dict[str, Guess]) -> None:
    """Which times are moments and which durations since the arrival."""
    arrival = found.get("arrival_s")
    for ours in ("dispatch_s", "scheduled_s", "first_token_s", "finish_s"):
        guess = found.get(ours)
        if guess is None:
            continue
        named = DURATION.search(plain(guess.theirs)[0]) is not None
        middle = float(np.nanmedian(guess.moments)) if np.isfinite(guess.moments).any() else 0.0
        since_1970 = any(low <= abs(middle) < high for low, high in EPOCHS.values())
        guess.duration = named and not since_1970 and not (guess.dated and middle > EPOCHS["s"][0])
        if not named and not since_1970 and arrival is not None and not guess.dated:
            guess.duration = not _follows(guess.moments, arrival.moments)
        guess.why.append("a duration" if guess.duration else "a moment")


def _follows(moments: np.ndarray, arrival: np.ndarray) -> bool:
    """Whether ``moments`` lie after the arrivals and spread as they do, so that they are of one clock."""
    with np.errstate(invalid="ignore"):
        after = moments >= arrival
    known = np.isfinite(moments) & np.isfinite(arrival)
    if known.sum() < 2:
        return bool(after.all())
    return bool(after[known].mean() >= ENOUGH and np.ptp(moments[known]) >= 0.3 * np.ptp(arrival[known]))


def _units(found: dict[str, Guess], outputs: np.ndarray) -> None:
    """Units of the times whose names say none: by their size, the pace of the tokens, or the gaps of the arrivals."""
    arrival = found.get("arrival_s")
    for ours, guess in found.items():
        if ours in LIFE_TIMES and guess.unit is None and not guess.dated:
            guess.unit, why = _by_size(guess) or _by_pace(guess, arrival, outputs) or ("", "")
            if why:
                guess.why.append(why)
    known = [guess for ours, guess in found.items() if ours in LIFE_TIMES and guess.unit and not guess.duration]
    for ours, guess in found.items():
        if ours in LIFE_TIMES and not guess.unit and not guess.dated:
            if known and not guess.duration:
                guess.unit = known[0].unit
                guess.why.append(f"{guess.unit}, as {known[0].theirs!r}")
            else:
                guess.unit, why = (
                    _by_gaps(guess) if ours == "arrival_s" else ("s", "s, a guess: nothing tells its unit")
                )
                guess.why.append(why)


def _by_size(guess: Guess) -> tuple[str, str] | None:
    middle = float(np.nanmedian(guess.moments)) if np.isfinite(guess.moments).any() else 0.0
    unit = next((unit for unit, (low, high) in EPOCHS.items() if low <= middle < high), None)
    return None if unit is None or guess.duration else (unit, f"{unit}: as large as the time since 1970")


def _by_pace(guess: Guess, arrival: Guess | None, outputs: np.ndarray) -> tuple[str, str] | None:
    """The unit in which a token takes from 0.5 ms to half a second, if it is one."""
    passed = guess.moments
    if not guess.duration:
        if arrival is None or arrival is guess or arrival.unit or arrival.dated:
            return None
        passed = guess.moments - arrival.moments
    with np.errstate(invalid="ignore", divide="ignore"):
        known = len(outputs) == len(passed)
        pace = passed / (np.maximum(outputs, 1.0) if known else 1.0)
    if plain(guess.theirs)[0].startswith(("ttft", "time_to_first", "first_")):
        pace = passed / 10  # a first token takes as long as some others
    pace = pace[np.isfinite(pace) & (pace > 0)]
    if not len(pace):
        return None
    middle = float(np.median(pace))
    unit = next((unit for unit, scale in UNIT_S.items() if 5e-4 <= middle * scale < 0.5), None)
    if unit is None:
        return None
    of = "a token" if known else "an answer, whose length nothing tells,"
    return unit, f"{unit}{'' if known else ', a guess'}: {of} would take {1000 * middle * UNIT_S[unit]:.3g} ms"


def _by_gaps(guess: Guess) -> tuple[str, str]:
    moments = np.sort(guess.moments[np.isfinite(guess.moments)])
    gap = float(moments[-1] - moments[0]) / (len(moments) - 1) if len(moments) > 1 else 0.0
    unit = next((unit for unit, scale in UNIT_S.items() if gap * scale <= 20), "ns")
    return unit, f"{unit}, a guess: requests would come every {gap * UNIT_S[unit]:.3g} s"
