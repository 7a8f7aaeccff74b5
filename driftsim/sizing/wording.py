"""What a search for capacity says, in sentences."""

from __future__ import annotations

import math

import pandas as pd

from driftsim.formatting import between
from driftsim.simulation.limits import held_share
from driftsim.sizing.answers import Answer
from driftsim.sizing.plan import short_axis
from driftsim.sizing.run import Sizing
from driftsim.slo import Slo
from driftsim.sweeps.cautions import collected

BINDS = {
    "slots": "the slots",
    "kv": "the KV blocks",
    "budget": "the token budget of a step",
    "prefill": "prefills",
    "steps": "the time of the steps",
    "": "unknown",
}
FEW_TELL = 3  # draws, below which what missed is told by hardly any
LEGEND = (
    "load: the highest that holds, with every lower load that was tried holding; in brackets its 95 % interval",
    "attained: share of the offered requests with an SLO that finished within every limit of it, the mean over all "
    "replications; who was rejected, aborted or given up missed it",
    "binds: just beyond that load, the limit that was met most in the time in which somebody waited; where nobody "
    "waits, what steps take",
)


def number(value: float) -> str:
    """A load or a rate.

    >>> number(0.30661), number(128.0), number(math.nan)
    ('0.3066', '128', '?')
    """
    return "?" if math.isnan(value) else f"{value:.4g}"


def span(low: float, high: float) -> str:
    """An interval; an end that no load has shown is open.

    >>> span(0.25, 0.366), span(math.nan, 2.0), span(math.nan, math.nan)
    ('0.25 to 0.366', 'up to 2', '')
    """
    if math.isnan(low) and math.isnan(high):
        return ""
    if math.isnan(low):
        return f"up to {high:.3g}"
    return f"from {low:.3g}" if math.isnan(high) else f"{low:.3g} to {high:.3g}"


def wanted(sizing: Sizing, slos: tuple[Slo, ...]) -> str:
    """What is asked of a load: how many requests must meet which SLO."""
    return f"{100 * sizing.plan.target:g} % of the requests within {'; '.join(map(str, slos))}"


def conclusions(sizing: Sizing, answers: list[Answer], slos: tuple[Slo, ...]) -> list[str]:
    """A sentence for each case: its capacity, the interval, and what binds there."""
    return [f"{answer.case}: {_capacity(sizing, answer)}" for answer in answers] + [
        f"Asked: {wanted(sizing, slos)}, in the mean over {_replications(sizing)}."
    ]


def _replications(sizing: Sizing) -> str:
    count = sizing.plan.replications
    if sizing.plan.spec.workload is not None:
        return f"{count} draws of the workload" if count > 1 else "one draw of the workload"
    return f"{count - 1} resamples of the recorded day" if count > 2 else "the day as recorded"


def _capacity(sizing: Sizing, answer: Answer) -> str:
    at, unit = answer.at, sizing.axis.unit
    share = f"{100 * at.attained.value:.4g} %"
    if answer.state == "below":
        return (
            f"not even {_load(sizing, answer, at.load)}, the lowest load that was tried, holds: {share} of the "
            f"requests are within their SLO there; {_why(answer)}."
        )
    if answer.state == "above":
        return (
            f"every load that was tried holds, up to {_load(sizing, answer, at.load)} ({share} there); the capacity is "
            "higher: raise the highest load (--highest)."
        )
    ends = span(answer.interval.low, answer.interval.high)
    sure = f", 95 % interval {ends} {unit}" if ends else ", no interval from so few replications"
    return f"up to {_load(sizing, answer, at.load)}{sure}; {_why(answer)}."


def _load(sizing: Sizing, answer: Answer, load: float) -> str:
    """A load with its unit, and with its rate where that is another number."""
    rate = answer.unit_rate * load
    if sizing.axis.kind != "scale":
        return f"{number(load)} {sizing.axis.unit}"
    whose = "recorded rate" if sizing.plan.spec.trace is not None else "tenants' rates"
    return f"{number(load)} x the {whose}" + ("" if math.isnan(rate) else f" ({rate:.3g} requests/s)")


def _why(answer: Answer) -> str:
    """What binds, with the share that shows it."""
    shares, binds = answer.found.shares, answer.binds
    where = "there" if answer.state == "below" else "beyond it"
    if binds in ("slots", "kv", "budget"):
        part = 100 * min(1.0, shares[f"{binds}_share"] / held_share(shares))
        full = {"slots": "all are taken", "kv": "blocks are short", "budget": "steps are full"}[binds]
        verb = "binds" if binds == "budget" else "bind"
        return f"{where} {BINDS[binds]} {verb}: {full} in {part:.0f} % of the time in which a request waits"
    if binds == "prefill":
        return f"{where} prefills bind: they take {100 * shares['prefill_share']:.0f} % of the time of steps"
    if binds == "steps":
        return f"{where} no limit of the engine holds requests back: it is the time that steps take"
    return "what binds is not known: a barrier has no steps of that kind"


def gains(sizing: Sizing, answers: list[Answer]) -> list[str]:
    """A sentence for each case that is held against another: by how much the capacity changes."""
    said = []
    for answer in answers:
        if math.isnan(answer.change.value):
            continue
        base = sizing.plan.base_of(answer.case)
        if answer.case.axis:
            first = sizing.plan.axes[answer.case.axis][0]
            against = f"{short_axis(answer.case.axis)} {first}"
        else:
            against = str(base)
        said.append(f"{answer.case} against {against}: {between(answer.change)} of load.")
    return said


def cautions(sizing: Sizing, answers: list[Answer]) -> list[str]:
    """What a reader must know: how long the runs are, what they leave out, and where that is too short."""
    spec, some = sizing.plan.spec, answers[0].at
    cut = f"; the first {100 * spec.warm_up:g} % and the last {100 * spec.cool_down:g} % to arrive are left out"
    said = [
        f"each run measures {some.measured:.0f} requests, {_duration(some.span_s)} at {number(some.load)} "
        f"{sizing.axis.unit}{cut if spec.warm_up or spec.cool_down else ''}. A queue that grows shows only in time: a "
        "load holds for runs of this length"
    ]
    said += sizing.axis.kept
    over = [answer for answer in answers if answer.is_overload]
    said += [
        f"{answer.case}: its load is above what the engine serves of a backlog, {answer.found.bounds.backlog:.3g} "
        "requests/s: in longer runs queues grow without end; ask for more requests (--requests), or SLOs for all"
        for answer in over
    ]
    for answer in answers:
        if again := answer.found.search.again:
            said.append(
                f"{answer.case}: attainment does not fall steadily with the load; {number(again[0])} held again, above "
                f"{number(answer.found.search.failed or math.nan)}, which failed, and does not count"
            )
    if sizing.plan.spec.workload is not None and sizing.plan.spec.workload.traces:
        said.append(
            "the intervals are of arrivals and draws; that a recorded run has only so many requests is not in them"
        )
    for answer in answers:
        if answer.state == "found" and answer.curve.moved:
            said.append(
                f"{answer.case}: load or lengths change within a phase, and one day cannot tell how much of that is "
                "its own; another day would"
            )
    for answer in answers:
        if answer.state == "found" and answer.curve.has_interval and answer.curve.telling < FEW_TELL:
            said.append(
                f"{answer.case}: what missed at its capacity is that of about {answer.curve.telling:.0f} of "
                f"{len(answer.curve.counted)} draws, and the interval holds less often than 95 %, about 90 %; more or "
                "longer draws would tell (--replications, --requests)"
            )
    return said + _of_the_runs(answers)


def _of_the_runs(answers: list[Answer]) -> list[str]:
    """What a reader must know of the runs at the capacities."""
    rows = pd.DataFrame([row for answer in answers for row in answer.found.rows[answer.found.load]])
    return [f"{one.text.rstrip('.')} ({one.runs} of {len(rows)} runs at these loads)" for one in collected(rows)]


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "an unknown time"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds / 60:.3g} min"
