"""Some of the requests of a run, whose rows are counted anew wherever a row is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from driftsim.trace.prefixes import lengths_of, prefix_columns, prefixes, stretches_in
from driftsim.trace.trace import Trace


def taken(table: pd.DataFrame, places: Sequence[int] | np.ndarray) -> pd.DataFrame:
    """The rows of a requests ``table`` at ``places``, in that order, none of them twice.

    What they share they share as before. A parent that is not taken, or comes later, is none.

    >>> table = pd.DataFrame({"parent": [[], [0], [0, 1]]})
    >>> taken(table, [0, 2])["parent"].tolist()
    [[], [0]]
    """
    places = np.asarray(places, dtype=int)
    kept = table.take(places).reset_index(drop=True)
    now = {was: place for place, was in enumerate(places.tolist())}
    if "parent" in kept:
        old = kept["parent"].tolist()
        parents = [[now[one] for one in before if now.get(one, place) < place] for place, before in enumerate(old)]
        kept["parent"] = pd.Series(parents, dtype=object)
    if "prefix_row" in kept:
        whose = stretches_in(table)
        kept = kept.assign(**prefix_columns(*prefixes(whose[place] for place in places.tolist()), lengths_of(kept)))
    return kept


def only(trace: Trace, kept: pd.Series | np.ndarray) -> Trace:
    """The requests of ``trace`` where the mask ``kept`` holds; its header counts them, its other tables are whole."""
    if np.all(kept):
        return trace
    requests = taken(trace.requests, np.flatnonzero(kept))
    counts = requests["phase"].value_counts()
    phases = [phase for phase in trace.header.workload.phases if phase.name in counts]
    phases = [phase.changed(requests=int(counts[phase.name])) for phase in phases]
    workload = trace.header.workload.changed(phases=tuple(phases))
    return replace(trace, header=trace.header.changed(workload=workload), requests=requests)
