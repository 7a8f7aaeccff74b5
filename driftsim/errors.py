"""The errors of driftsim.

``InputError`` is the user's to mend: the command line turns it into one line and exit 2. ``RunError`` is a run or a
check that did not end well: one line and exit 1. Any other exception is a mistake of driftsim or of a plug-in: exit 3.

    InputError (a ValueError)
      TraceError
    RunError
"""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used; the message says what is wrong, where, and what to do about it."""


class TraceError(InputError):
    """A trace, or a file that should be one, is not what it claims; the message says where, what and the remedy."""


class RunError(Exception):
    """A run did not come to its proper end, or a check did not pass."""
