"""Progress: a long job tells whoever listens how much of it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

OnProgress: TypeAlias = Callable[[int, int], None]  # called with how many are done, and how many there are
EVERY = 1000  # requests, or runs of a plan, between two words


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


def after(told: OnProgress, before: int, total: int) -> OnProgress:
    """What a part of a job reports to: ``told`` hears it on top of what was done ``before``, of a ``total``.

    >>> after(lambda done, total: print(done, total), before=100, total=300)(5, 50)
    105 300
    """
    return lambda done, _: told(before + done, total)
