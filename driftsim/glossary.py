"""The glossary says what every metric is: its unit, its meaning and which direction is better.

It covers the keys of ``metrics.summary``, of a comparison's rows and of a sweep's rows; the scenario's keys, which a
sweep's row also holds, are described where the scenario is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from math import inf

from driftsim.errors import InputError
from driftsim.goodput import UNFINISHED
from driftsim.metric import CLIENTS as CLIENTS
from driftsim.metric import COSTS as COSTS
from driftsim.metric import ESTIMATION as ESTIMATION
from driftsim.metric import FAIRNESS as FAIRNESS
from driftsim.metric import LIMITS as LIMITS
from driftsim.metric import REPLICA as REPLICA
from driftsim.metric import SESSION_METRICS as SESSION_METRICS
from driftsim.metric import SESSIONS as SESSIONS
from driftsim.metric import STATISTICS, Better
from driftsim.metric import TENANT_FAIRNESS as TENANT_FAIRNESS
from driftsim.metric import Metric as Metric
from driftsim.metrics import FEWEST_FOR_P99, LATENCIES, PERCENTILES
from driftsim.trace.schema import LENGTH, TIER_NAMES

LATENCY_NAMES = {
    "e2e": "end-to-end latency, from arrival to the last token",
    "ttft": "time to first token, from arrival",
    "tpot": "time per output token after the first",
}
ERROR_NAMES = {
    "mae": "Mean absolute error of the estimated output length",
    "rmse": "Root mean square error of the estimated output length",
}
OFFERED = Metric("requests", "requests", "Requests that were offered, whatever became of them.", kind="int")
FINISHED = Metric("finished", "requests", "Requests that ended by themselves or at their limit.", "higher", "int")
FLAGGED = Metric(
    "p99_flagged", "", f"Whether fewer than {FEWEST_FOR_P99} finished, too few for a trustworthy P99.", kind="bool"
)


def _latencies(*names: str) -> tuple[Metric, ...]:
    return tuple(
        Metric(
            f"{name}_{stat}_s",
            "s",
            f"{STATISTICS[stat]} of the {LATENCY_NAMES[name]}, over finished requests.",
            "lower",
        )
        for name in names
        for stat in ("mean", *PERCENTILES)
    )


PER_TIER: tuple[Metric, ...] = (OFFERED, *_latencies("e2e"), FINISHED, FLAGGED)
SUMMARY: tuple[Metric, ...] = (
    OFFERED,
    FINISHED,
    Metric(
        "rejected",
        "requests",
        "Requests that were turned away: they could never fit the engine, or too many waited or were there.",
        "lower",
        "int",
    ),
    Metric("errors", "requests", "Requests that ended with an error.", "lower", "int"),
    Metric("scored", "requests", "Finished requests whose estimates count in the errors of the estimates.", kind="int"),
    *(Metric(name, LENGTH, f"{meaning}, over scored requests.", "lower") for name, meaning in ERROR_NAMES.items()),
    Metric(
        "kendall_tau",
        "",
        "Kendall's rank correlation (tau-b) of the budget with prompt plus actual output: all that an order by budget "
        "can use.",
        "higher",
    ),
    Metric(
        "kendall_tau_within",
        "",
        "The same within each category and tier, averaged with the number of pairs as weights.",
        "higher",
    ),
    Metric(
        "kendall_tau_estimate",
        "",
        "Kendall's rank correlation (tau-b) of the estimated with the actual output length, over scored requests: the "
        "prompt's length, which is known, is left out.",
        "higher",
    ),
    Metric(
        "class_accuracy",
        "",
        "Share of the scored requests whose scheduling class is the one of their actual length.",
        "higher",
    ),
    *_latencies(*LATENCIES),
    FLAGGED,
    *(
        Metric(
            f"queue_wait_{stat}_s",
            "s",
            f"{STATISTICS[stat]} of the wait from arrival until first scheduled; until dispatched, where the engine "
            "does not tell.",
            "lower",
        )
        for stat in ("p50", "p99")
    ),
    Metric("makespan_s", "s", "Time from the first arrival to the last finish, over offered requests.", "lower"),
    Metric("waiting_fraction", "", "Share of the makespan during which at least one request waited to be computed."),
    Metric(
        "choice_fraction",
        "",
        "Share of the makespan during which two or more requests waited to be chosen, at the dispatcher or, with "
        "another place than front, in the engine: only then can order matter.",
    ),
    Metric(
        "jain_index",
        "",
        "Jain's fairness index over tenants, of their mean output tokens per second of end-to-end latency: 1 is equal. "
        "A tenant of whom nothing finished counts as 0.",
        "higher",
    ),
    Metric("preemptions", "", "How often the engine preempted a request, summed over all.", "lower", "int"),
    Metric("per_tier", "", "The counts and end-to-end latencies of each tier, by its name.", kind="table"),
)


CAUSE_NAMES = {
    "ttft": "whose first token came later than its SLO allows, or whose first token is not known",
    "tpot": "whose time per output token is above its SLO's limit",
    "itl": "of which a token came later after the one before than its SLO allows",
    "e2e": "whose end-to-end latency is above its SLO's limit",
    UNFINISHED: "that has an SLO and did not finish: rejected, aborted, given up, ended with an error or still running",
}
SLO: tuple[Metric, ...] = (  # of a summary, of each tier and of each tenant, where there are SLOs
    Metric("slo_met", "requests", "Offered requests that finished within every limit of their SLO.", "higher", "int"),
    Metric(
        "slo_missed",
        "requests",
        "Offered requests that have an SLO and did not meet it. With those that met it and those without one, these "
        "are all that were offered.",
        "lower",
        "int",
    ),
    Metric(
        "without_slo", "requests", "Offered requests that no SLO is for; they are in no share and no rate.", kind="int"
    ),
    Metric(
        "attainment", "", "Share of the offered requests with an SLO that met it; empty where none has one.", "higher"
    ),
    Metric(
        "goodput",
        "requests/s",
        "Requests that met their SLO, a second of the makespan of the whole run; vLLM's request_goodput, but over all "
        "that was offered.",
        "higher",
    ),
    Metric(
        "token_goodput", "tokens/s", "Output tokens of the requests that met their SLO, a second likewise.", "higher"
    ),
    *(
        Metric(f"missed_{cause}", "requests", f"Requests {text}; one may miss several limits.", "lower", "int")
        for cause, text in CAUSE_NAMES.items()
    ),
)
NO_RATIO = " Empty if on some day it goes from 0 to more."
# What a comparison gives an interval: of the SLOs, of fairness, and of fairness for each tenant.
SLO_METRICS = ("attainment", "goodput", "token_goodput")
FAIR_METRICS = ("slowdown_mean", "jain_slowdown", "slowdown_worst", "service_gap")
TENANT_FAIR_METRICS = ("slowdown_mean", "backlogged_share")
MOST = {  # where the interval of a metric must end, that of all these at 0 on the other side
    **dict.fromkeys((*SLO_METRICS, *FAIR_METRICS), inf),
    **dict.fromkeys(("attainment", "jain_slowdown", "backlogged_share"), 1.0),
}


def _of_these(metrics: Sequence[Metric], names: Sequence[str]) -> Iterator[Metric]:
    for metric in metrics:
        if metric.name in names:
            yield from _with_interval(metric.name, metric.unit, "", metric.better)


def _compared() -> Iterator[Metric]:
    """What a comparison adds to each metric that it gives an interval."""
    names = {f"{name}_{stat}": "s" for name in LATENCIES for stat in ("mean", *PERCENTILES)}
    for name, unit in (names | dict.fromkeys(ERROR_NAMES, LENGTH)).items():
        yield from _with_interval(name, unit, "_s" if unit == "s" else "", "lower")


def _with_interval(name: str, unit: str, suffix: str, better: Better) -> Iterator[Metric]:
    """The centre, the interval and the change against FIFO of the metric ``name`` + ``suffix``."""
    yield Metric(
        f"{name}_expected{suffix}",
        unit,
        f"Mean of `{name}{suffix}` over days like those recorded, the centre of its interval; `{name}{suffix}` "
        "itself is of the recorded run.",
        better,
    )
    for end, word in (("low", "Lower"), ("high", "Upper")):
        yield Metric(
            f"{name}_{end}{suffix}",
            unit,
            f"{word} end of the 95 % interval of `{name}{suffix}`; the intervals cover the workload's variation, "
            "not the model's error.",
            better,
        )
    yield Metric(
        f"{name}_vs_fifo",
        "",
        f"Relative change of `{name}{suffix}` against fifo/static on the same workload, the mean over days like "
        f"those recorded: -0.1 is 10 % less.{NO_RATIO if name in MOST else ''}",
        better,
    )
    yield Metric(f"{name}_vs_fifo_this_run", "", "The same change in the recorded run alone.", better)
    for end, word in (("low", "Lower"), ("high", "Upper")):
        yield Metric(f"{name}_vs_fifo_{end}", "", f"{word} end of the 95 % interval of that change.", better)


COMPARISON: tuple[Metric, ...] = (  # of a comparison's rows, besides those of a summary
    Metric("policy", "", "Policy that chose who enters the engine.", kind="str"),
    Metric("estimator", "", "Estimator that gave the policy its output lengths.", kind="str"),
    Metric("accounting", "", "Unit in which lengths are counted, and whether words were derived.", kind="str"),
    Metric("engine", "", "What served the requests: continuous batching, or a barrier.", kind="str"),
    Metric("phase", "", "Phase of the workload that the metrics are over, or all.", kind="str"),
    Metric("seed", "", "Seed of the resampled workloads and of the estimators.", kind="int"),
    Metric("deployable", "", "Whether the estimator could run in front of a server; if not, a bound.", kind="bool"),
    Metric("per_tenant", "", "Counts and end-to-end latencies of each of the largest tenants, by name.", kind="table"),
    Metric("per_replica", "", "What each replica served, by its number; where there are several.", kind="table"),
    Metric("same_as_fifo", "", "Why the row cannot differ from fifo on this trace; only in such rows.", kind="str"),
    *_compared(),
)
SLO_COMPARISON = tuple(_of_these(SLO, SLO_METRICS))  # of a comparison's rows, where there are SLOs
FAIR_COMPARISON = tuple(_of_these(FAIRNESS, FAIR_METRICS))  # likewise, where fairness was asked for
TENANT_FAIR_COMPARISON = tuple(_of_these(TENANT_FAIRNESS, TENANT_FAIR_METRICS))  # of each tenant there
SWEEP: tuple[Metric, ...] = (  # of a sweep's rows, besides those of a summary and the scenario's keys
    Metric("key", "", "Hash of everything that determines the run.", kind="str"),
    Metric("failed", "", "Whether the run failed.", kind="bool"),
    Metric("error", "", "Why it failed, and where.", kind="str"),
    Metric("reproduce", "", "Command that does a failed run again.", kind="str"),
    Metric("trace_digest", "", "SHA-256 of the trace that was replayed.", kind="str"),
    Metric("profile_digest", "", "SHA-256 of the latency profile.", kind="str"),
    Metric("driftsim_version", "", "Version of driftsim that did the run.", kind="str"),
    Metric("plugins", "", "Beginning of the SHA-256 of each plug-in's source; only where a run has some.", kind="str"),
    Metric("recorded_rate", "requests/s", "Arrival rate of the trace as recorded, pauses between phases aside."),
    Metric("warnings", "", "What a reader must know of the run, separated by ` | `; empty if nothing.", kind="str"),
    Metric("offered", "requests", "Requests that were offered: what a summary calls `requests`.", kind="int"),
    Metric("duration_s", "s", "Time that the simulation took."),
)


TENANT = "tenant_"  # stands before a tenant's name, so that a tier of that name has other columns
REPLICA_OF = "replica_"  # stands before a replica's number and the name of a metric
TIER = "tier_"  # stands before that of a tier whose columns would else have the names of others


def tier_label(tier: str) -> str:
    """What the columns of ``tier`` begin with in rows that are flat: its name, after ``TIER`` where others begin so.

    >>> tier_label("gold"), tier_label("tenant_a"), tier_label("token")
    ('gold', 'tier_tenant_a', 'tier_token')
    """
    others = {metric.name for metric in (*SUMMARY, *SLO, *COMPARISON, *SWEEP, *SLO_COMPARISON)}
    taken = any(f"{tier}_{metric.name}" in others for metric in (*PER_TIER, *SLO))
    return f"{TIER}{tier}" if taken or tier.startswith((TENANT, TIER, REPLICA_OF)) else tier


def of_tier(tier: str, metrics: Sequence[Metric] = PER_TIER) -> tuple[Metric, ...]:
    """The ``metrics`` of one ``tier``, of this ``tier_label``, in rows that are flat: those of a sweep and of rows.csv.

    A name that begins with ``TENANT`` is that of a tenant.
    """
    whose = f"the {tier.removeprefix(TIER)} requests"
    if tier.startswith(TENANT):
        whose = f"the tenant {tier.removeprefix(TENANT)}"
    elif re.fullmatch(f"{REPLICA_OF}[0-9]+", tier):
        whose = f"replica {tier.removeprefix(REPLICA_OF)}"
    return tuple(
        Metric(f"{tier}_{one.name}", one.unit, f"`{one.name}` of {whose} alone.", one.better, one.kind)
        for one in metrics
    )


TIERS: tuple[Metric, ...] = tuple(metric for tier in TIER_NAMES for metric in of_tier(tier))
SESSION_COMPARISON: tuple[Metric, ...] = tuple(  # likewise, where there are sessions
    metric for name in SESSION_METRICS for metric in _with_interval(name, "s", "_s", "lower")
)
_OF_RUNS = (*SUMMARY, *CLIENTS, *COSTS, *SLO, *FAIRNESS, *SESSIONS)
_EVERY = (
    *_OF_RUNS,
    *TENANT_FAIRNESS,
    *ESTIMATION,
    *LIMITS,
    *COMPARISON,
    *SLO_COMPARISON,
    *FAIR_COMPARISON,
    *TENANT_FAIR_COMPARISON,
    *SESSION_COMPARISON,
    *SWEEP,
    *TIERS,
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _EVERY}


def metric(name: str) -> Metric:
    """The metric ``name``, that of a tier or a tenant of any name included.

    Raises ``InputError`` that names the nearest.

    >>> metric("gold_e2e_mean_s").meaning
    '`e2e_mean_s` of the gold requests alone.'
    """
    if name in METRICS:
        return METRICS[name]
    for own in sorted(
        (*PER_TIER, *SLO, *TENANT_FAIRNESS, *TENANT_FAIR_COMPARISON, *REPLICA), key=lambda one: -len(one.name)
    ):  # token_goodput before goodput
        tier = name.removesuffix(f"_{own.name}")
        if tier not in ("", name):
            return of_tier(tier, [own])[0]
    near = get_close_matches(name, METRICS, n=1)
    raise InputError(f"unknown metric {name!r}; {f'did you mean {near[0]!r}? ' if near else ''}see driftsim columns")
