"""The errors of driftsim.

``InputError`` is the user's to mend: the command line turns it into one line and exit 2. ``RunError`` is a run or a
check that did not end well: one line and exit 1. Any other exception is a mistake of driftsim or of a plug-in: exit 3.

    InputError (a ValueError)
      TraceError
    RunError
"""

from __future__ import annotations

from numbers import Integral
from typing import Any


class InputError(ValueError):
    """What the user gave cannot be used; the message says what is wrong, where, and what to do about it.

    >>> from driftsim.slo import slo_rules
    >>> slo_rules("premium")
    Traceback (most recent call last):
    driftsim.errors.InputError: SLO 'premium': 'premium' is no limit; write NAME:limit=VALUE,..., as \
premium:ttft=1s,tpot=50ms,e2e=30s; without NAME, it is everybody's
    """


class TraceError(InputError):
    """A trace, or a file that should be one, is not what it claims; the message says where, what and the remedy.

    >>> from driftsim.trace.trace import read
    >>> read("nowhere")
    Traceback (most recent call last):
    driftsim.errors.TraceError: nowhere: no such trace folder; a trace is a folder with header.json and requests.parquet
    """


def check_whole(name: str, value: Any) -> None:
    """Raise ``InputError`` unless ``value`` is a whole number, Python's or NumPy's.

    >>> check_whole("seed", "2")
    Traceback (most recent call last):
    driftsim.errors.InputError: seed must be a whole number, got '2'
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name} must be a whole number, got {value!r:.80}")


class RunError(Exception):
    """A run did not come to its proper end, or a check did not pass.

    >>> raise RunError("out/run: the run was interrupted")
    Traceback (most recent call last):
    driftsim.errors.RunError: out/run: the run was interrupted
    """
