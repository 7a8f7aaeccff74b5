"""What a gateway has learned is not stored: a start learns it anew from the rows that were recorded.

So it holds for every estimator, a user's own, too, and a kill loses no more than it loses of the record.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim.request import Job, Request, Tier
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.estimators import Estimator
from driftsim.trace.schema import CENSORED, FINISHED, GIVEN_UP
from driftsim.trace.segments import newest

MOST_ROWS = 5_000  # requests that are learned from again
MOST_TRACES = 200  # that are looked through for these


def learn_anew(estimator: Estimator, admission: Admission, folder: Path) -> int:
    """Tell ``estimator`` of the last requests recorded in ``folder``, in the order of their ends; how many these were.

    Their times are before 0, at which the gateway starts.
    """
    parts: list[pd.DataFrame] = []
    found = 0
    for trace in islice(newest(folder), MOST_TRACES):
        rows = trace.requests
        rows = rows[rows["finish_reason"].isin((*FINISHED, *GIVEN_UP)) & rows["finish_s"].notna()]
        rows = rows[rows["output_tokens"].fillna(0) > 0]
        parts.insert(0, rows.sort_values("finish_s", kind="stable"))
        found += len(rows)
        if found >= MOST_ROWS:
            break
    if not found:
        return 0
    rows = pd.concat(parts).tail(MOST_ROWS)
    for place, row in enumerate(rows.itertuples(index=False)):
        _observe(estimator, admission, row, float(place - len(rows)))
    return len(rows)


def _observe(estimator: Estimator, admission: Admission, row: Any, now: float) -> None:
    spoken = _count(row.output_words)
    if admission.unit.unit == "whitespace" and admission.unit.words_per_token is None and spoken is None:
        return
    request = Request(
        id=str(row.request_id),
        tenant=str(row.tenant),
        tier=Tier(str(row.tier)),
        category="",
        arrival=now,
        prompt_tokens=int(row.prompt_tokens),
        prompt_words=_count(row.prompt_words),
        max_tokens=int(row.max_tokens),
    )
    category = admission.category_seen(getattr(row, admission.category_column))
    job = Job(request, category, _count(row.estimate) or 0, _count(row.budget) or 0)
    if not pd.isna(row.bias):
        job.bias = float(row.bias)
    length = admission.unit.length(int(row.output_tokens), spoken)
    estimator.observe(job, length, row.finish_reason in CENSORED, now)


def _count(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)
