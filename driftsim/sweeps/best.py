"""The best setting of a sweep, and how many others the replications cannot tell from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from driftsim.errors import InputError
from driftsim.glossary import SLO
from driftsim.glossary import metric as described
from driftsim.sweeps.rows import REPEATS, column, numbers, settings, varying
from driftsim.sweeps.spread import draws_of, half_width

AS_GOOD = "as_good"


def larger_is_better(metric: str) -> bool:
    """Whether a larger value of ``metric`` is the better one; of a column that the glossary does not know, it is not.

    >>> larger_is_better("kendall_tau"), larger_is_better("e2e_mean_s"), larger_is_better("own_column")
    (True, False, False)
    """
    try:
        return described(metric).better == "higher"
    except InputError:
        return False


def group_means(table: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Mean of each metric that is not itself among ``by``, and how many runs, for each combination of ``by``."""
    by = list(dict.fromkeys(by))
    for name in by:
        column(table, name)
    values = pd.DataFrame({name: numbers(table, name) for name in metrics if name not in by}, index=table.index)
    if not by:
        return values.mean().to_frame().T.assign(runs=len(table))
    groups = values.groupby([table[name] for name in by], dropna=False, sort=True)
    return groups.mean().assign(runs=groups.size()).reset_index()


def best_settings(table: pd.DataFrame, by: Sequence[str], metric: str) -> pd.DataFrame:
    """The setting with the best mean of ``metric`` in each group of ``by``: the least, or the largest where better.

    Where settings were run more than once, ``as_good`` counts the other settings of the group that cannot be told from
    it: the 95 % interval of their paired difference includes 0. Raises ``InputError`` for what is no result, or has no
    value in any run, or is judged by different SLOs in a group.
    """
    by = list(dict.fromkeys(by))
    others = [name for name in settings(table) if name not in by]
    if metric in (*by, *varying(table)):
        raise InputError(f"column {metric!r} is no result, so no setting is best at it; name a metric, as e2e_mean_s")
    values = numbers(table, metric)
    _check_one_slo(table, values.notna(), by, metric)
    if values.isna().all():
        raise InputError(f"column {metric!r} is empty in all {len(table)} runs, so no setting is best at it")
    sign = -1.0 if larger_is_better(metric) else 1.0
    means = group_means(table, [*by, *others], [metric])
    groups = (sign * means[metric]).groupby([means[name] for name in by] if by else np.zeros(len(means)), dropna=False)
    places = groups.apply(lambda own: own.idxmin() if own.notna().any() else -1)
    found = means.loc[[place for place in places if place >= 0]]
    again = [name for name in varying(table) if name in REPEATS]
    if again and others:
        found = found.assign(**{AS_GOOD: _as_good(table.assign(_value=values), by, others, again, means, found)})
    return found.reset_index(drop=True)


def _check_one_slo(table: pd.DataFrame, known: pd.Series, by: Sequence[str], metric: str) -> None:
    """Raise ``InputError`` where what counts as ``metric`` differs within a group of ``by``: the loosest SLOs win."""
    if "slos" not in table or not any(f"_{metric}".endswith(f"_{one.name}") for one in SLO):
        return
    rows = table[known]
    counts = rows.groupby([rows[name] for name in by] if by else np.zeros(len(rows)), dropna=False)["slos"].nunique()
    if len(counts) and counts.max() > 1:
        raise InputError(
            f"column {metric!r} is judged by {counts.max()} different SLOs, of which the loosest would be best; group "
            "by slos (--group slos), or choose one (--where slos=...)"
        )


def _as_good(
    table: pd.DataFrame, by: list[str], others: list[str], again: list[str], means: pd.DataFrame, best: pd.DataFrame
) -> list[float]:
    """For each of the ``best`` settings, how many others of its group cannot be told from it; NaN if nobody can say."""
    group = _codes(table, by)
    setting, run = _codes(table, [*by, *others]), _codes(table, again)
    values = table["_value"].to_numpy(dtype=float)
    whole = np.full((setting.max() + 1, run.max() + 1), np.nan)
    whole[setting, run] = values
    draws = draws_of(table).assign(run=run).drop_duplicates("run").set_index("run").sort_index()
    # groupby numbers settings as group_means orders them, so a place in ``means`` is a setting.
    owner = np.zeros(len(means), dtype=int)
    owner[setting] = group
    found = []
    for place in best.index:
        rivals = [other for other in np.flatnonzero(owner == owner[place]) if other != place]
        halves = [half_width(whole[other] - whole[place], draws) for other in rivals]
        gaps = [float(_mean(whole[other] - whole[place])) for other in rivals]
        known = [abs(gap) <= half for gap, half in zip(gaps, halves, strict=True) if not np.isnan(half)]
        found.append(float(sum(known)) if known or not rivals else np.nan)
    return found


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def _codes(table: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """A number for each combination of ``names``, in their sorted order."""
    if not names:
        return np.zeros(len(table), dtype=int)
    return np.asarray(table.groupby(list(names), dropna=False, sort=True).ngroup())
