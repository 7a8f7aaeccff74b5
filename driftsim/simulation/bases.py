"""Bases of estimates that are fitted to a recorded run: the whole table, or the categories that a table lacks.

What a base was fitted on is not scored. Where nothing is recorded, nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from driftsim.errors import InputError, TraceError
from driftsim.scheduling.admission import Admission, check_admission
from driftsim.scheduling.classify import FALLBACK
from driftsim.trace.schema import FINISHED
from driftsim.trace.trace import Trace
from driftsim.workloads.table import as_admission_sees
from driftsim.workloads.workload import Workload


class Fitted(NamedTuple):
    """An admission whose every category has a base, the rows that this used up, and the workload, which notes it."""

    admission: Admission
    used: frozenset[int]
    workload: Workload


def with_bases(admission: Admission | None, workload: Workload, recorded: Trace | None) -> Fitted:
    """``admission`` with the bases that it asks for (``fit``) or lacks, fitted to the run ``recorded``, if one was.

    Raises ``InputError`` where a fit is asked for and nothing is recorded, and as ``fit_base`` does.
    """
    admission = Admission() if admission is None else admission
    check_admission(admission)
    if admission.base != "fit":
        return with_own_bases(admission, workload, recorded)
    if recorded is None:
        raise InputError("base 'fit' is fitted to a recorded trace; give base_table with another base")
    return Fitted(*fit_base(recorded, admission), workload)


def with_own_bases(admission: Admission, workload: Workload, recorded: Trace | None) -> Fitted:
    """``admission`` with a base for every category of the workload, of a table that lacks some.

    These are fitted to the first ``base_fit_n`` requests of each to finish, or to fewer where there are fewer.
    """
    lacking = set(workload.offered[admission.category_column]) - {None, ""} if recorded is not None else set()
    lacking = {category for category in lacking if admission.category_seen(category) != category}
    if recorded is None or not lacking:
        return Fitted(admission, frozenset(), workload)
    fitted, used = _fitted(recorded, admission, lacking, admission.base_fit_n, fewest=1)
    table = {name: round(fitted.base_table[name], 1) for name in sorted(lacking)}
    note = f"the base table lacks {_listed(lacking)}: fitted on {len(used)} requests, which are not scored: {table}"
    return Fitted(fitted, used, replace(workload, notes=(*workload.notes, note)))


def _listed(categories: Collection[str]) -> str:
    return f"the {'category' if len(categories) == 1 else 'categories'} {', '.join(sorted(categories))}"


def fit_base(trace: Trace, admission: Admission) -> tuple[Admission, frozenset[int]]:
    """``admission`` with the base table fitted to ``trace``, and the rows that the fit used up.

    Per category that admission sees, of any name, the mean observed length of the first ``base_fit_n`` to finish as
    recorded. A category that never occurs keeps the table's value. Raises ``TraceError`` where a category has fewer.
    """
    return _fitted(trace, admission, None, admission.base_fit_n, fewest=admission.base_fit_n)


def _fitted(
    trace: Trace, admission: Admission, wanted: Collection[str] | None, most: int, fewest: int
) -> tuple[Admission, frozenset[int]]:
    """The same for the categories ``wanted``, of any number of requests from ``fewest`` to ``most``."""
    whole, _ = as_admission_sees(trace.requests)
    rows = whole[whole["finish_reason"].isin(FINISHED)].sort_values("finish_s", kind="stable")
    categories = rows[admission.category_column].fillna(FALLBACK)
    if wanted is not None:
        rows = rows[categories.isin(wanted)]
    lengths = pd.Series(admission.unit.lengths(rows["output_tokens"], rows["output_words"]), index=rows.index)
    if lengths.isna().any():
        raise TraceError("whitespace accounting needs output_words, which some rows lack; give --words-per-token")
    table, used = dict(admission.base_table), list[int]()
    for category, indices in rows.groupby(categories[rows.index]).groups.items():
        first = indices[:most]
        if len(first) < fewest:
            raise TraceError(
                f"base 'fit' needs {fewest} finished requests per category, {category!r} has {len(first)}; lower "
                "--base-fit-n or choose another --base"
            )
        table[str(category)] = float(lengths[first].mean())
        used.extend(int(row) for row in first)
    return admission.changed(base_table=table), frozenset(used)
