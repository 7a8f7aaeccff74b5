"""Goodput is what was served within the SLOs, a second: each offered request met its SLO, missed it, or has none.

A request meets its SLO if it finished within every limit (``request_goodput`` of vLLM, vllm/benchmarks/serve.py); the
share that does is the attainment (DistServe, Zhong et al. 2024). vLLM's are of what it served; here, who did not
finish missed, since who was turned away was not served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from driftsim.errors import TraceError
from driftsim.slo import LIMITS, AnySlos, Slo, rule_of, slos_for
from driftsim.tenants import largest, parts
from driftsim.trace.schema import LARGEST_COUNT, STEP_REQUEST_COLUMNS
from driftsim.trace.steps import step_ends
from driftsim.trace.trace import Trace

UNFINISHED = "unfinished"
CAUSES = (*LIMITS, UNFINISHED)
PER_TOKEN = ("tpot", "itl")  # of these, a single output token has none, and keeps every limit


@dataclass(frozen=True, eq=False)
class Judged:
    """What became of each offered request, arrays of shape (requests,).

    rule: the place of its SLO, -1 where it has none. missed: by limit, and ``unfinished``, whether it missed that; of
    one that did not finish, that alone. span: seconds from the first arrival to the last finish, of all.
    """

    rule: np.ndarray
    missed: dict[str, np.ndarray]
    output_tokens: np.ndarray
    span: float

    @property
    def has(self) -> np.ndarray:
        """Whether the request has an SLO."""
        return self.rule >= 0

    @property
    def met(self) -> np.ndarray:
        """Whether it met its SLO."""
        met: np.ndarray = self.has & ~np.any(list(self.missed.values()), axis=0)
        return met

    @property
    def codes(self) -> np.ndarray:
        """A number for each request, see ``missed_by``: -1 without an SLO, 0 if it met it, else a bit a cause."""
        bits = sum(missed.astype(np.int8) << place for place, missed in enumerate(self.missed.values()))
        return np.where(self.has, bits, -1).astype(np.int8)

    def counts(self, own: np.ndarray | None = None) -> dict[str, Any]:
        """The metrics of ``glossary.SLO``, of all or of the requests of the mask ``own``; NaN where none has an SLO.

        The time is that of the whole run, so that the goodput of all is the sum over its parts.
        """
        mask = np.ones(len(self.rule), dtype=bool) if own is None else own
        has, met = self.has & mask, self.met & mask
        offered, good = int(has.sum()), int(met.sum())
        return {
            "slo_met": good,
            "slo_missed": offered - good,
            "without_slo": int(mask.sum()) - offered,
            "attainment": good / offered if offered else np.nan,
            "goodput": self._rate(good, offered),
            "token_goodput": self._rate(float(self.output_tokens[met].sum()), offered),
            **{f"missed_{cause}": int((missed & mask).sum()) for cause, missed in self.missed.items()},
        }

    def _rate(self, amount: float, offered: int) -> float:
        """``amount`` a second; 0 where nothing of what was ``offered`` was good, however long that took."""
        if not offered:
            return np.nan
        if not amount:
            return 0.0
        return amount / self.span if self.span > 0 else np.nan

    def by_tenant(self, tenants: np.ndarray, named: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """``counts`` of each of the tenants ``named`` and of all others; ``tenants`` are the requests', (requests,).

        Without names, those of the largest.
        """
        names = largest(pd.Series(tenants, dtype=object)) if named is None else named
        return {name: self.counts(own) for name, own in parts(tenants, names).items()}


def missed_by(code: int) -> str:
    """The limits that a request with this ``code`` missed.

    >>> missed_by(0b01001), missed_by(0), missed_by(-1)
    ('ttft, e2e', '', '')
    """
    return ", ".join(cause for place, cause in enumerate(CAUSES) if code > 0 and code >> place & 1)


def with_slos(trace: Trace, slos: Sequence[Slo]) -> Trace:
    """``trace`` with these ``slos`` in its header, and no others."""
    return replace(trace, header=trace.header.model_copy(update={"slos": tuple(slos)}))


def with_given(trace: Trace, slos: AnySlos) -> Trace:
    """``trace`` with ``slos``, if any are given, in place of its header's. Raises as ``slos_for`` does."""
    rules = slos_for(slos, trace.requests)
    return with_slos(trace, rules) if rules else trace


def judge(slos: Sequence[Slo], rows: Any, done: np.ndarray, latencies: Mapping[str, np.ndarray], span: float) -> Judged:
    """Hold the offered requests ``rows``, of which those of ``done`` finished, against their ``slos``.

    latencies: by name of a limit, in seconds, (requests,). One that is not known does not keep its limit.
    """
    rule = rule_of(slos, np.asarray(rows["tenant"], dtype=object), np.asarray(rows["tier"], dtype=object))
    tokens = np.asarray(rows["output_tokens"], dtype=float)
    missed = {}
    for name in LIMITS:
        limits = np.array([*(slo.limits.get(name, np.inf) for slo in slos), np.inf])[rule]  # -1 is the last: no limit
        if np.isinf(limits).all():
            missed[name] = np.zeros(len(rule), dtype=bool)
            continue
        kept = np.isinf(limits) | (np.asarray(latencies[name], dtype=float) <= limits)
        missed[name] = done & ~(kept | (tokens <= 1) if name in PER_TOKEN else kept)
    missed[UNFINISHED] = (rule >= 0) & ~done
    return Judged(rule, missed, tokens, span)


def longest_gaps(trace: Trace) -> np.ndarray:
    """The longest time between two tokens in a row of each request (s), (requests,); NaN for fewer than two tokens.

    A token appears as the step that computed it ends. That step brings the tokens computed up to the prompt and all
    tokens before; after a preemption they are computed anew, but for what a prefix cache still holds, which no step
    tells: NaN then, and where the steps do not tell of all tokens.
    Raises ``TraceError`` where the steps do not name their requests.
    """
    steps = trace.steps
    if steps is None or STEP_REQUEST_COLUMNS[0].name not in steps:
        raise TraceError(
            f"{trace.name}: an SLO limits itl, and the trace has no steps that name their requests; record them "
            "(--step-requests), or limit tpot"
        )
    ids = trace.requests["request_id"].tolist()
    prompts = dict(zip(ids, trace.requests["prompt_tokens"].tolist(), strict=True))
    outputs = dict(zip(ids, trace.requests["output_tokens"].fillna(0).tolist(), strict=True))
    computed, shown = dict.fromkeys(ids, 0), dict.fromkeys(ids, 0)
    if "cached_tokens" in trace.requests:
        computed |= dict(zip(ids, trace.requests["cached_tokens"].fillna(0).tolist(), strict=True))
    lost = -LARGEST_COUNT if trace.header.engine.enable_prefix_caching else 0
    last, longest = dict[str, float](), dict[str, float]()
    columns = (steps[column.name] for column in STEP_REQUEST_COLUMNS)
    for end, (named, counts, victims) in zip(step_ends(steps).tolist(), zip(*columns, strict=True), strict=True):
        for victim in victims:
            computed[victim] = lost
        for name, count in zip(named, counts, strict=True):
            computed[name] += count
            if computed[name] < prompts[name] + shown[name] or shown[name] >= outputs[name]:
                continue  # a part of a prompt, or a token beyond the end, which async scheduling may compute
            shown[name] += 1
            if name in last:
                longest[name] = max(longest.get(name, 0.0), end - last[name])
            last[name] = end
    told = (longest.get(name, np.nan) if shown[name] == outputs[name] else np.nan for name in ids)
    return np.fromiter(told, dtype=float, count=len(ids))
