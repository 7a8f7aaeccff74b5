"""BurstGPT: months of requests to ChatGPT and GPT-4, as CSV, without token times.

HPMLL/BurstGPT, README.md and example/src/burstgpt/workload.py: ``Timestamp`` in seconds, ``Response tokens`` 0 for a
failure; since release 2.0 also ``Session ID`` and ``Elapsed time``, the seconds from the request to its whole response.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driftsim.errors import InputError
from driftsim.formats.found import Found
from driftsim.formats.sessions import Sessions
from driftsim.formats.source import read_source
from driftsim.formats.values import texts, times

COLUMNS = {"arrival_s": "Timestamp", "prompt_tokens": "Request tokens", "output_tokens": "Response tokens"}
SESSIONS = ("Session ID", "SessionID")
ELAPSED = ("Elapsed time", "Elapsed Time")
ROUNDED_S = 0.5  # what stands for 0 where times are whole seconds


def read(file: Path) -> Found:
    """What is found in ``file``. Raises ``InputError`` if a column is missing."""
    source = read_source(file)
    for name in COLUMNS.values():
        if source.cells(name) is None:
            raise InputError(f"{file}: lacks column {name!r}; BurstGPT's traces have {', '.join(COLUMNS.values())}")
    cells = {ours: source.either(theirs) for ours, theirs in COLUMNS.items()}
    cells["category"] = source.either("Log Type")
    names = dict(COLUMNS)
    durations: dict[str, list[Any]] = {}
    said = list[str]()
    elapsed = source.either(*ELAPSED)
    if any(cell is not None for cell in elapsed):
        durations["finish_s"], rounded = _unrounded(elapsed)
        names["finish_s"] = ELAPSED[0]
        said += rounded
    models = sorted({model for model in texts(source.either("Model"))[0] if model})
    if len(models) > 1:
        said.append(f"it mixes the models {', '.join(models[:5])}: a replay serves them with one engine")
    model = models[0] if len(models) == 1 else "unknown"
    sessions = Sessions(names=source.either(*SESSIONS))
    return Found(
        source=source, cells=cells, durations=durations, names=names, model=model, sessions=sessions, guessed=said
    )


def _unrounded(elapsed: list[Any]) -> tuple[list[Any], list[str]]:
    """``elapsed`` without zeros where it is told in whole seconds, and what must be said of that."""
    values, problems = times(elapsed)
    zero = values == 0
    if problems or not zero.any() or (values[values == values] % 1 != 0).any():
        return elapsed, []
    said = f"{int(zero.sum())} of {len(elapsed)} requests took 0 whole seconds, which counts as {ROUNDED_S} s"
    return [ROUNDED_S if none else cell for none, cell in zip(zero, elapsed, strict=True)], [said]
