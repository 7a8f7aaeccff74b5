"""A sentence that several readers say of what a file tells and a replay cannot keep."""

from __future__ import annotations

import numpy as np

HELD_S = 0.005  # a request that left its client so soon after it was due was not held back


def held_back(waited_s: np.ndarray, name: str) -> list[str]:
    """A caveat if clients held requests back: ``waited_s`` is how long, NaN where not told, ``name`` what tells it."""
    held = waited_s > HELD_S
    if not held.any():
        return []
    return [
        f"the client held back {int(held.sum())} of {len(waited_s)} requests, at most for "
        f"{float(waited_s[held].max()):.3g} s ({name}): each counts from when it was sent"
    ]
