"""The verdict: what a comparison says, in five lines that a reader understands who knows no short name of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from driftsim.comparison.checks import Check
from driftsim.comparison.comparison import Comparison, Ranking
from driftsim.comparison.notes import NO_CHOICE, UNSTEADY, unsteady
from driftsim.comparison.plan import BASELINE, Setting
from driftsim.comparison.sameness import complexity
from driftsim.comparison.slos import slos_beside, within
from driftsim.comparison.wording import listed, moved, policy_words, sentence, setting_words
from driftsim.goodput import with_slos
from driftsim.metrics import FEWEST_FOR_P99, summary
from driftsim.scheduling.estimators import is_deployable
from driftsim.statistics import Interval, student_quantile

BELIEVED = 0.5  # error of the mean E2E of a check, above which nothing is concluded
CHECKED = (("e2e_mean_s", "mean latency"), ("e2e_p99_s", "slowest 1 %"))  # what the verdict quotes of a check
MEAN_AND_TAIL = tuple(metric for metric, _ in CHECKED)
CLOSE = 0.1  # error of the mean E2E of a check, above which the model is the first thing to mend
MOST_DAYS = 30
LABELS = ("What to do", "Gain and cost", "How sure", "Trust", "Next")


@dataclass(frozen=True)
class Verdict:
    """The five lines, without their labels; "" where there is nothing to say. ``recommended``: the setting, if any."""

    do: str
    gain: str = ""
    sure: str = ""
    trust: str = ""
    next: str = ""

    def lines(self) -> list[str]:
        """The lines that say something, each after its label."""
        return [f"{label}: {text}" for label, text in zip(LABELS, astuple(self), strict=True) if text]


def answer(comparison: Comparison) -> list[str]:
    """The lines of the verdict, each after its label."""
    return verdict(comparison).lines()


def verdict(comparison: Comparison) -> Verdict:
    """What to do, what it gains and who pays, how sure that is, how far to trust it, what to record next."""
    recorded = comparison.recorded
    if not recorded["finished"]:
        why = f"{recorded['rejected']} rejected, {recorded['errors']} ended with an error"
        return Verdict(f"No conclusion: no request finished ({why}).")
    trust, checks = _trust(comparison), all_checks(comparison)
    if max([_off(check) for check in checks], default=0.0) > BELIEVED:
        return Verdict(
            f"No conclusion: the simulation is more than {100 * BELIEVED:.0f} % off in its mean latency.",
            trust=trust,
            next="Look for another unit of the recorded times, for a profile of another engine, or for load that the "
            "trace does not hold.",
        )
    if recorded["choice_fraction"] < NO_CHOICE:
        return Verdict(
            "Nothing: no queue formed, so order could not matter. "
            f"Somebody waited {100 * recorded['waiting_fraction']:.0f} % of the time, two or more at once "
            f"{100 * recorded['choice_fraction']:.0f} %.",
            gain=_correction(comparison, BASELINE),
            trust=trust,
            next="Record a busier hour, or press this one harder; a note says how.",
        )
    ranking, chosen = comparison.ranking("e2e_mean_s"), recommended(comparison)
    if ranking is None:
        return Verdict(
            "No advice: everything compared knows what nobody can know.", gain=_bound(comparison), trust=trust
        )
    return Verdict(
        do=f"{_advice(comparison, chosen, ranking)} {_correction(comparison, chosen)}".strip(),
        gain=" ".join(filter(None, (_gain(comparison, chosen), _bound(comparison), within(comparison, chosen)))),
        sure=_sure(comparison, ranking, chosen),
        trust=trust,
        next=_next(comparison, chosen, _off(checks[0]) if checks else 0.0),
    )


def recommended(comparison: Comparison) -> Setting:
    """The simplest setting that cannot be told from the best, if that lowers the mean E2E beyond doubt; else FIFO.

    Without intervals, for want of replications, the best itself.
    """
    ranking = comparison.ranking("e2e_mean_s")
    if ranking is None:
        return BASELINE
    changes = {one: comparison.change_of(one, BASELINE, "e2e_mean_s") for one in [ranking.best, *ranking.ties]}
    if math.isnan(changes[ranking.best].error):
        lowers = changes[ranking.best].centre <= -comparison.plan.practical
        return ranking.best if lowers else BASELINE
    told = comparison.told(list(comparison.plan.settings), "e2e_mean_s")
    better = [one for one, change in changes.items() if one in told and change.centre < 0]
    return min(better, key=complexity) if better else BASELINE


def findings(comparison: Comparison) -> dict[str, Any]:
    """What the verdict rests on, for a program: the advice, the best, and what cannot be told from the best."""
    ranking = comparison.ranking("e2e_mean_s")
    if ranking is None:
        return {}
    return {
        "recommended": str(recommended(comparison)),
        "best": str(ranking.best),
        "not_told_from_best": [str(setting) for setting in ranking.ties],
        "best_on_resampled_days": [ranking.wins, ranking.draws],
        "load_changes_within_a_phase": unsteady(comparison),
    }


def _nearest(comparison: Comparison) -> Setting:
    """The deployable setting, other than FIFO, with the lowest mean E2E."""
    ranking = comparison.ranking("e2e_mean_s")
    assert ranking is not None
    others = [one for one in [ranking.best, *ranking.ties] if one.policy != BASELINE.policy]
    return min(others, key=lambda one: comparison.value(one, "e2e_mean_s").value) if others else BASELINE


def _advice(comparison: Comparison, chosen: Setting, ranking: Ranking) -> str:
    if len({setting.policy for setting in comparison.plan.settings}) == 1:
        return ""
    if chosen != BASELINE:
        return sentence(setting_words(chosen, estimator=chosen.estimator != "static"))
    before = "Stay with first come, first served: no other order lowers the mean latency"
    return f"{before} measurably." if ranking.draws else f"{before}."


def _correction(comparison: Comparison, chosen: Setting) -> str:
    """Is correcting worth it: under the chosen policy, or under the one whose latency it moves most."""
    pairs = {one: static for one, static in comparison.calibrated.items() if one.estimator != "oracle"}
    if not pairs:
        return ""
    own = [one for one in pairs if one.policy == chosen.policy]
    effects = {one: comparison.change_of(one, pairs[one], "e2e_mean_s") for one in pairs}
    heeded = [one for one in (own or list(pairs)) if effects[one].centre] or list(pairs)
    moves = max(heeded, key=lambda one: abs(effects[one].centre))
    error, mean = comparison.change(moves, pairs[moves], "mae"), effects[moves].interval
    said = f"the error of the estimates {moved(error)}"
    if not mean.value and not effects[moves].this_run:
        return f"Correcting the estimates buys nothing: no order compared heeds them ({said})."
    under = "" if moves.policy == chosen.policy else f" if you {policy_words(moves.policy)}"
    if moves not in comparison.told_of_calibration("e2e_mean_s"):
        latency = f"the mean latency {moved(mean)}, which {_doubt(mean, comparison)}"
        return f"Correcting the estimates is not worth it{under}: {said}, {latency}."
    worth = "is worth it" if mean.value < 0 else "does harm"
    return f"Correcting the estimates {worth}{under}: {said}, the mean latency {moved(mean)}."


def _doubt(change: Interval, comparison: Comparison) -> str:
    if math.isnan(change.low):
        return "one run alone cannot prove"
    return "cannot be told from no change" if abs(change.value) >= comparison.plan.practical else "is too little"


def _gain(comparison: Comparison, chosen: Setting) -> str:
    """What ``chosen`` changes against FIFO: the mean, the tail, and who pays, tenants by name."""
    whom = "The" if chosen != BASELINE else f"If you {policy_words(_nearest(comparison).policy)}, the"
    chosen = chosen if chosen != BASELINE else _nearest(comparison)
    if chosen == BASELINE:
        return ""
    mean, tail = (comparison.change(chosen, BASELINE, metric) for metric in MEAN_AND_TAIL)
    before, after = (comparison.summaries[one][0]["e2e_mean_s"] for one in (BASELINE, chosen))
    return (
        f"{whom} mean latency {moved(mean)} against first come, first served ({before:.3g} s to {after:.3g} s in this "
        f"run); what the slowest 1 % exceed {moved(tail)}. {_tenants(comparison, chosen)}"
    )


def _bound(comparison: Comparison) -> str:
    """How much perfect estimates would gain, where an estimator that knows all was among those compared."""
    bounds = [group[0] for group in comparison.groups if not is_deployable(group[0].estimator)]
    bounds = [setting for setting in bounds if setting.policy not in ("fifo", "stock")]
    if not bounds:
        return ""
    least = min(bounds, key=lambda setting: comparison.value(setting, "e2e_mean_s").value)
    change = comparison.change(least, BASELINE, "e2e_mean_s")
    return f"If every length were known, which nobody can, it {moved(change)}: a bound."


def _tenants(comparison: Comparison, chosen: Setting) -> str:
    """Who gains and who pays, beyond doubt, by name: in mean E2E, and whose P99 rises; all judged together."""
    names = [name for name, row in comparison.recorded["per_tenant"].items() if row["finished"]]
    if len(names) == 1:
        return f"There is one tenant, {names[0]}."
    asked = [(metric, name) for metric in MEAN_AND_TAIL for name in names]
    changes = [comparison.change_of(chosen, BASELINE, metric, name) for metric, name in asked]
    sizes = [abs(change.centre) for change in changes]
    sure = [size > 0 for size in sizes] if comparison.recorded_only else comparison.real(changes, sizes)
    known = {one: change.centre for one, change, told in zip(asked, changes, sure, strict=True) if told}
    mean, tail = (
        {name: known[metric, name] for name in names if (metric, name) in known}
        for metric in ("e2e_mean_s", "e2e_p99_s")
    )
    if not known:
        return "No tenant gains or pays measurably."
    gains, pays = _named(mean, falls=True), _named(mean, falls=False)
    parts = [f"{listed(gains)} {'gain' if len(gains) > 1 else 'gains'}"] if gains else []
    parts += [f"{listed(pays)} {'pay' if len(pays) > 1 else 'pays'}"] if pays else ["no tenant pays measurably"]
    late = _named(tail, falls=False)
    rises = f" What the slowest 1 % exceed rises for {listed(late)}." if late else ""
    return f"By tenant, mean latency: {'; '.join(parts)}.{rises}"


def _named(changes: Mapping[str, float], *, falls: bool) -> list[str]:
    """The tenants whose latency falls, or rises, each with by how much; the largest change first."""
    order = sorted(changes, key=changes.__getitem__, reverse=not falls)
    return [f"{name} ({100 * changes[name]:+.0f} %)" for name in order if (changes[name] < 0) == falls]


def _sure(comparison: Comparison, ranking: Ranking, chosen: Setting) -> str:
    """In how many resampled days the best is the best, and what cannot be told from it."""
    if not ranking.draws:
        return "Not at all: one run has no interval; ask for 3 replications or more."
    days = f"on {ranking.wins} of {ranking.draws} resampled days"
    best = setting_words(ranking.best)
    if chosen not in (ranking.best, BASELINE):
        return (
            f"The lowest mean latency {days} had another way: {best}. It cannot be told from the advice, which is "
            "simpler."
        )
    if chosen == BASELINE:
        return f"{sentence(best)[:-1]} had the lowest mean latency {days}; that may be an accident."
    ties = [setting_words(one) for one in ranking.ties]
    rest = f"Cannot be told from it: {listed(ties)}" if ties else "Every other way is worse beyond doubt"
    return f"It had the lowest mean latency {days}. {rest}."


def _trust(comparison: Comparison) -> str:
    """How far the simulation can be trusted here."""
    checks = all_checks(comparison)
    if not checks:
        said = ["Nothing measured could be held against the simulation: believe the changes, not the seconds."]
    else:
        said = [sentence(errors(checks[0]))]
    parts = [check for check in checks[1:] if _off(check)]
    if parts:
        worst = max(parts, key=_off)
        error = worst.simulated["e2e_mean_s"] / worst.measured["e2e_mean_s"] - 1
        said.append(
            f"The worst of its parts is {worst.what.partition(' against')[0]}: mean latency {100 * error:+.1f} %."
        )
    chosen = recommended(comparison)
    wide = None if chosen == BASELINE else comparison.change_with_model(chosen, BASELINE, "e2e_mean_s")
    if checks and (beside := slos_beside(checks[0])):
        said.append(beside)
    if wide is not None:
        said.append(f"With the error of the latency model in it, the mean latency {moved(wide)}.")
    return " ".join(said)


def all_checks(comparison: Comparison) -> list[Check]:
    """The checks of the comparison, and the recorded run, or each of its phases, beside its own simulation."""
    slos = comparison.plan.checked_slos
    own = [
        Check(
            f"{'the recorded run' if phase == 'all' else f'its phase {phase}'} against its own simulation",
            measured,
            summary(with_slos(comparison.traces[BASELINE], slos), comparison.plan.admission, phase=phase),
        )
        for phase, measured in (comparison.measured or {}).items()
    ]
    return [*own, *comparison.checks]


def errors(check: Check) -> str:
    """How far the simulated latencies of ``check`` are from the measured ones, or why nothing could be compared."""
    if check.failed:
        return f"no check, {check.what}: {check.failed}"
    parts = []
    for metric, name in CHECKED:
        real, ours = check.measured[metric], check.simulated[metric]
        if not math.isnan(real):
            parts.append(f"{name} {100 * (ours / real - 1):+.1f} % ({real:.3g} s measured, {ours:.3g} s simulated)")
    return f"{check.what}: {', '.join(parts)}"


def _off(check: Check) -> float:
    """The error of the mean E2E of ``check``, relative to the smaller side; 0 if it failed."""
    if check.failed:
        return 0.0
    sides = sorted((check.measured["e2e_mean_s"], check.simulated["e2e_mean_s"]))
    return float(sides[1] / sides[0] - 1) if sides[0] > 0 else 0.0


def _next(comparison: Comparison, chosen: Setting, off: float) -> str:
    """The one thing to record that would make the answer surer."""
    if str(chosen) in unsteady(comparison):
        return f"{sentence(UNSTEADY)[:-1]} (compare takes several)."
    if off > CLOSE:
        return "The simulation is more than 10 % off: calibrate on a run at this load, then compare again."
    if comparison.recorded_only:
        return "Nothing to record yet: ask for intervals (3 replications or more)."
    if chosen == BASELINE and (days := _days_needed(comparison, _nearest(comparison))):
        return days
    if comparison.recorded["finished"] < FEWEST_FOR_P99:
        return f"For the slowest 1 %, record at least {FEWEST_FOR_P99} requests a day."
    if not comparison.checks and not comparison.measured:
        return "Record a run on the engine itself, so that the seconds can be checked."
    return "Nothing more for this question. Another day would tell how much of it is this day's own."


def _days_needed(comparison: Comparison, nearest: Setting) -> str:
    """How many days like this one would tell the nearest setting from FIFO."""
    change = comparison.change_of(nearest, BASELINE, "e2e_mean_s")
    if abs(change.centre) < comparison.plan.practical or not change.error > 0:
        return ""
    for count in range(2, MOST_DAYS + 1):
        error = change.error * math.sqrt(len(comparison.days) / count)
        if student_quantile(count - 1) * error < abs(change.centre):
            return f"To tell whether another order is better, record about {count} days like this one."
    return f"Not even {MOST_DAYS} days like this one would tell the orders apart."
