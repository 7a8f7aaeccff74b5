"""A request that was sent again has a row for each attempt; to its client, it is one request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from driftsim.trace.schema import ATTEMPT_COLUMNS
from driftsim.trace.subset import only
from driftsim.trace.trace import Trace

OWN = {  # columns that stay those of the first attempt: what was asked for, and when
    "request_id", "tenant", "tier", "phase", "category", "predicted_category", "predicted_category_unlabelled",
    "prompt_tokens", "prompt_words", "max_tokens", "arrival_s", "prefix_row", "prefix_tokens", "session", "parent",
    "gap_s", "timeout_s", "deadline_s",
}  # fmt: skip


def last_attempts(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The places in a requests ``table`` of the first attempts, in order, and of the last attempt of each of these."""
    attempt = table["attempt"].to_numpy()
    names = table["retry_of"].fillna(table["request_id"]).to_numpy(dtype=object)
    order = np.argsort(attempt, kind="stable")
    last = dict(zip(names[order].tolist(), order.tolist(), strict=True))
    firsts = np.flatnonzero(attempt == 1)
    return firsts, np.array([last[name] for name in names[firsts].tolist()], dtype=int)


def fates(trace: Trace, phase: str = "all") -> dict[str, int]:
    """How requests, and how their attempts, ended that did not finish: the metrics of ``glossary.CLIENTS``.

    None where the clients wait for ever, send nothing again and nobody is turned away.
    """
    if not (trace.header.clients or trace.header.admission.get("shed")):
        return {}
    sent, asked = trace.requests, per_request(trace).requests
    if phase != "all":
        sent, asked = sent[sent["phase"] == phase], asked[asked["phase"] == phase]

    def ended(rows: pd.DataFrame, reason: str) -> int:
        return int((rows["finish_reason"] == reason).sum())

    return {
        "timed_out": ended(asked, "timeout"),
        "aborted": ended(asked, "abort"),
        "attempts": len(sent),
        "attempts_timed_out": ended(sent, "timeout"),
        "attempts_rejected": ended(sent, "rejected"),
        "attempts_errors": ended(sent, "error"),
    }


def per_request(trace: Trace) -> Trace:
    """``trace`` with a row for each request, as its client saw it: sent first at ``arrival_s``, then what the last
    attempt came to. Preemptions are those of all attempts. A trace without attempts is returned as it is.

    >>> from driftsim.trace.trace import read
    >>> run = read("traces/smollm2-cpu-drift")
    >>> per_request(run) is run
    True
    """
    table = trace.requests
    if "attempt" not in table:
        return trace
    firsts, lasts = last_attempts(table)
    names = table["retry_of"].fillna(table["request_id"])
    preempted = table["preemptions"].groupby(names).sum(min_count=1)
    came = table.iloc[lasts].reset_index(drop=True)
    whole = only(trace, table["attempt"].to_numpy() == 1)
    asked = whole.requests
    columns = {
        name: asked[name] if name in OWN else came[name]
        for name in asked
        if name not in {column.name for column in ATTEMPT_COLUMNS}
    }
    columns["preemptions"] = preempted.loc[names.iloc[firsts]].astype("Int64").reset_index(drop=True)
    return replace(whole, requests=pd.DataFrame(columns))
