"""The largest tenants are told apart, and all others count together: so a table of tenants stays short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

MOST = 12  # tenants that are told apart; the others count together
OTHERS = "other tenants"


def largest(tenants: pd.Series) -> tuple[str, ...]:
    """The names with most requests, those with most first; one that is called ``OTHERS`` counts with these.

    >>> largest(pd.Series(["b", "a", "b"]))
    ('b', 'a')
    """
    counts = tenants.astype(str).value_counts(sort=False)
    order = sorted((name for name in counts.index if name != OTHERS), key=lambda name: (-counts[name], name))
    return tuple(order if len(order) <= MOST else order[: MOST - 1])


def parts(tenants: Any, named: Sequence[str]) -> dict[str, np.ndarray]:
    """Which requests are of each of the tenants ``named``, and of ``OTHERS`` where there are any: masks, (requests,).

    >>> {name: own.tolist() for name, own in parts(["a", "b"], ["a"]).items()}
    {'a': [True, False], 'other tenants': [False, True]}
    """
    names = np.asarray(tenants, dtype=object).astype(str)
    found = {name: names == name for name in named}
    rest = ~np.isin(names, list(named))
    return found | ({OTHERS: rest} if rest.any() else {})
