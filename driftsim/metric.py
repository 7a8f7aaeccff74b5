"""What a metric is: its name, unit, meaning and direction; and those that tell how requests ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from driftsim.trace.schema import LENGTH

Better = Literal["lower", "higher", ""]


@dataclass(frozen=True, slots=True)
class Metric:
    """One key of a result: its name, its unit, what it means, which direction is better (if one is), its kind."""

    name: str
    unit: str
    meaning: str
    better: Better = ""
    kind: Literal["float", "int", "bool", "str", "table"] = "float"


_ENDED = {
    "timed_out": "Requests whose client waited no longer, at the last attempt.",
    "aborted": "Requests that their client gave up otherwise. Offered are those that finished, were rejected, timed "
    "out, were aborted or ended with an error.",
    "attempts": "How often requests were sent, the first time included.",
    "attempts_timed_out": "Attempts whose client waited no longer.",
    "attempts_rejected": "Attempts that were turned away.",
    "attempts_errors": "Attempts that ended with an error.",
}
CLIENTS: tuple[Metric, ...] = tuple(  # of a summary, where clients give up or send again, or the queue has limits
    Metric(name, name.partition("_")[0] if "attempts" in name else "requests", meaning,
           "" if name == "attempts" else "lower", "int") for name, meaning in _ENDED.items()
)  # fmt: skip
LIMITS: tuple[Metric, ...] = (  # of a sweep's rows, where limits were asked for; all are shares of the time of steps
    Metric("waiting_share", "", "Share of the time of steps in which a request waited to be computed."),
    Metric(
        "slots_share",
        "",
        "Share of the time of steps in which a request waited and every slot was taken: max_num_seqs of the engine, or "
        "max_in_flight of the dispatcher where that is lower.",
    ),
    Metric(
        "kv_share",
        "",
        "Share of the time of steps in which KV blocks were short: a request was preempted, or one waited inside the "
        "engine though a slot and token budget were left, or one waited and 95 % of the blocks were used.",
    ),
    Metric("budget_share", "", "Share of the time of steps that computed as many tokens as a step may."),
    Metric(
        "prefill_share",
        "",
        "Share of the time of steps that prefills took: what each step took beyond the same step without its prompts.",
    ),
)
_COST = {
    "busy_s": ("s", "Time in which an engine served somebody, summed over the replicas."),
    "busy_share": ("", "That time as a share of all engines' time, from the run's beginning to its last end."),
    "energy_j": ("J", "Energy that the engines drew, by their busy and idle power; without an idle power, while busy."),
    "energy_per_kilotoken_j": ("J", "The same for 1,000 output tokens."),
    "energy_per_good_request_j": ("J", "The same for a request that met its SLO; where there are SLOs."),
    "money": ("", "Price of the engines' time, in the currency in which an hour's was given."),
    "money_per_kilotoken": ("", "The same for 1,000 output tokens."),
    "money_per_good_request": ("", "The same for a request that met its SLO; where there are SLOs."),
}
COSTS: tuple[Metric, ...] = tuple(  # of a summary, where the power or the price of the engine is known
    Metric(name, unit, meaning, "" if name.startswith("busy") else "lower") for name, (unit, meaning) in _COST.items()
)
STATISTICS = {"mean": "Mean", "p50": "Median", "p90": "90th percentile", "p99": "99th percentile"}
SESSION_NAMES = {
    "session": "time of a session, from the arrival of its first turn to its last finish, gaps included",
    "session_active": "part of that time in which a turn of the session was under way, so without its gaps",
}
SESSION_STATISTICS = ("mean", "p50", "p99")
SESSIONS: tuple[Metric, ...] = (  # of a summary, where requests belong to sessions
    Metric("sessions", "sessions", "Sessions of which a turn was sent.", kind="int"),
    Metric("sessions_cut_short", "sessions", "Sessions of which a turn did not finish.", "lower", "int"),
    Metric("turns_mean", "requests", "Mean number of turns of a session that were sent."),
    *(
        Metric(f"{name}_{stat}_s", "s", f"{STATISTICS[stat]} of the {meaning}; of sessions not cut short.", "lower")
        for name, meaning in SESSION_NAMES.items()
        for stat in SESSION_STATISTICS
    ),
)
SESSION_METRICS = tuple(f"{name}_{stat}" for name in SESSION_NAMES for stat in SESSION_STATISTICS)
ESTIMATION: tuple[Metric, ...] = (  # of ``estimation``, and a row for each setting of a comparison
    Metric("log_error", "", "Mean of |ln(estimate / output)|: twice and half as long count alike.", "lower"),
    Metric("log_bias", "", "Mean of ln(estimate / output): above 0, estimates are too long."),
    Metric("coverage_nominal", "", "Share of the outputs that the interval should hold; of one quantile, its level."),
    Metric("coverage", "", "Share of the outputs that it did hold; of one quantile, that did not exceed it."),
    Metric("width", LENGTH, "Mean width of the interval.", "lower"),
    Metric("pinball", LENGTH, "Mean pinball loss of its ends (Koenker and Bassett 1978), least at the truth.", "lower"),
    Metric(
        "recovered", "", "Whether the estimates followed the first injected shift of lengths half-way; none: no shift.",
        "", "bool",
    ),
    Metric(
        "recovery_requests", "requests",
        "Requests of the shift that were estimated until then; infinite, in JSON null, if never.", "lower",
    ),
    Metric("recovery_s", "s", "Time from the first of them until then.", "lower"),
)  # fmt: skip
ALONE = " Alone, it finds as much of its prompt in the prefix cache as it did, and a barrier's worker awake."
_SLOWDOWNS: tuple[Metric, ...] = tuple(
    Metric(
        f"slowdown_{stat}",
        "",
        f"{STATISTICS[stat]} of the slowdown, over finished requests: end-to-end latency over what the request would "
        "take alone on this engine; 1 is alone (slowdown of Harchol-Balter 2013, stretch of Bender et al. 1998)."
        f"{ALONE if stat == 'mean' else ''}",
        "lower",
    )
    for stat in ("mean", "p50", "p99")
)
FAIRNESS: tuple[Metric, ...] = (  # of a summary, where fairness was asked for
    *_SLOWDOWNS,
    Metric(
        "jain_slowdown",
        "",
        "Jain's fairness index (Jain, Chiu and Hawe 1984) over the tenants' mean speeds: 1 is equal. The speed of a "
        "request is the reciprocal of its slowdown, 1 as fast as alone, and 0 if it did not finish; so is that of a "
        "tenant of whom nothing finished.",
        "higher",
    ),
    Metric(
        "slowdown_worst",
        "",
        "Largest of the tenants' mean slowdowns (of the largest tenants, where there are more than 12), each over its "
        "finished requests; a tenant of whom nothing finished has none.",
        "lower",
    ),
    Metric(
        "service_gap",
        "weighted tokens",
        "Largest difference of service between two tenants (of the largest, where there are more than 12) over any "
        "time in which both had requests waiting: what the bound of VTC is of (Sheng et al. 2024). 1 a prompt token, "
        "2 an output token. Of a phase: between its first arrival and its last finish, in service of all requests.",
        "lower",
    ),
)
TENANT_FAIRNESS: tuple[Metric, ...] = (  # of each tenant, likewise
    *_SLOWDOWNS,
    Metric(
        "backlogged_s",
        "s",
        "Time during which a request of the tenant waited to be begun; to the run's end where none was. Of a phase: "
        "between its first arrival and its last finish, whatever phase the request is of.",
    ),
    Metric(
        "backlogged_share",
        "",
        "Share of all service in that time that was the tenant's, in weighted tokens; what generalised processor "
        "sharing guarantees is of this time (Parekh and Gallager 1993).",
    ),
)
REPLICA: tuple[Metric, ...] = (  # of each replica, where there are several
    Metric("requests", "requests", "Requests that the replica had last.", kind="int"),
    Metric("finished", "requests", "Requests that it finished.", "higher", "int"),
    Metric("busy_share", "", "Share of the run's time in which a request was inside it, served or cut short."),
    Metric("e2e_mean_s", "s", "Mean end-to-end latency of the requests that it finished.", "lower"),
)
