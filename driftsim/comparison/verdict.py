"""The answer: what a comparison says, in sentences, and what a reader must know before trusting it."""

from __future__ import annotations

import math

from driftsim.calibration.coverage import extrapolation_warnings
from driftsim.comparison.checks import Check
from driftsim.comparison.comparison import BASELINE, Comparison, Setting
from driftsim.engine.scheduler import MIRRORED_VLLM
from driftsim.formatting import give_or_take
from driftsim.metrics import FEWEST_FOR_P99, summary
from driftsim.outcomes import turned_away
from driftsim.statistics import Interval

WORTH_SAYING = 0.01  # a shift of a relative change, below which it is not mentioned
NO_CHOICE = 0.001  # share of the time with two or more waiting, below which order could not matter
BELIEVED = 0.5  # error of the mean E2E of a check, above which nothing is concluded
CHECKED = (("e2e_mean_s", "mean E2E"), ("e2e_p99_s", "P99"), ("ttft_mean_s", "mean TTFT"))


def answer(comparison: Comparison) -> list[str]:
    """Did order matter, which policy, is correcting worth it, and how well is the recorded run itself simulated."""
    if not comparison.recorded["finished"]:
        recorded = comparison.recorded
        return [f"No request finished: {recorded['rejected']} rejected, {recorded['errors']} ended with an error."]
    checks = _checks(comparison)
    said = [_errors(check) for check in checks]
    if off := [check.what for check in checks if _off(check) > BELIEVED]:
        return [
            f"No conclusion: {off[0]} is more than {100 * BELIEVED:.0f} % off in its mean E2E. Look for another unit "
            "of its times, another profile than this engine's, or load that the trace does not hold.",
            *said,
        ]
    return [_waiting(comparison), *_policies(comparison), *_calibration(comparison), *said]


def warnings(comparison: Comparison) -> list[str]:
    """What a reader must know before trusting the numbers."""
    plan, recorded = comparison.plan, comparison.recorded
    sentences = [*plan.left_out, *comparison.workload.notes, *comparison.mismatches]
    if recorded["p99_flagged"]:
        sentences.append(f"P99 rests on {recorded['finished']} finished, fewer than {FEWEST_FOR_P99}")
    if plan.profile.engine.why_not_started:
        sentences.append(plan.profile.engine.why_not_started)
    version = plan.profile.engine.version
    if version != MIRRORED_VLLM:
        sentences.append(
            f"the engine mirrors vLLM {MIRRORED_VLLM}; this trace is from {version}, not checked against it"
        )
    if plan.profile.engine.assumed:
        sentences.append(f"the engine did not tell, and these are assumed: {', '.join(plan.profile.engine.assumed)}")
    sentences += [warning.removesuffix(".") for warning in plan.profile.warnings]
    sentences += extrapolation_warnings(plan.profile, comparison.traces[BASELINE])
    worst = max((comparison.summaries[setting][0] for setting in plan.settings), key=lambda row: row["rejected"])
    sentences += turned_away(worst)
    outgrew = max(comparison.summaries[setting][0]["errors"] for setting in plan.settings)
    if outgrew:
        sentences.append(
            f"{outgrew} of {recorded['requests']} requests outgrew its KV cache; latencies are of the others"
        )
    unknown = comparison.workload.unknown_categories(plan.admission)
    if unknown:
        sentences.append(f"{unknown} requests have none of the classifier's categories and count as short_qa")
    if plan.admission.base == "fit":
        table = {name: round(value, 1) for name, value in sorted(plan.admission.base_table.items())}
        sentences.append(f"base table fitted on {len(plan.excluded)} requests, which are not scored: {table}")
    return sentences + _shifted(comparison)


def _waiting(comparison: Comparison) -> str:
    share, choice = comparison.recorded["waiting_fraction"], comparison.recorded["choice_fraction"]
    said = f"Under FIFO somebody waited {100 * share:.0f} % of the time, two or more at once {100 * choice:.0f} %."
    if choice < NO_CHOICE:
        kinds = {phase.kind for phase in comparison.workload.info.phases}
        harder = "more users (--arrivals closed --users N)" if kinds & {"closed", "backlog"} else "--rate-scale"
        said += f" No queue formed, so order could not matter: press harder with {harder}, or look elsewhere."
    return said


def _policies(comparison: Comparison) -> list[str]:
    settings = comparison.plan.settings
    if len({setting.policy for setting in settings}) == 1:
        return []
    best, _ = comparison.best("e2e_mean_s")
    assert best is not None  # somebody finished
    mean, tail = (comparison.change(best, BASELINE, metric) for metric in ("e2e_mean_s", "e2e_p99_s"))
    if mean.value < 0 and not mean.spans_zero:
        return [
            f"Policy: {best} has the lowest mean E2E, {give_or_take(mean)} against fifo/static; its P99 "
            f"{give_or_take(tail)}.",
            _tiers(comparison, best),
        ]
    others = [setting for setting in settings if setting.policy != "fifo"]
    nearest = min(others, key=lambda setting: comparison.values(setting, "e2e_mean_s")[0])
    change = give_or_take(comparison.change(nearest, BASELINE, "e2e_mean_s"))
    return [f"Policy: none lowers the mean E2E of fifo/static measurably; the nearest is {nearest}, {change}."]


def _tiers(comparison: Comparison, best: Setting) -> str:
    """Who gains and who pays."""
    before, after = (comparison.summaries[setting][0]["per_tier"] for setting in (BASELINE, best))
    changes = [f"{tier} {before[tier]['e2e_mean_s']:.1f} to {after[tier]['e2e_mean_s']:.1f} s" for tier in before]
    return f"By tier, mean E2E from fifo/static to {best}: {', '.join(changes)}."


def _calibration(comparison: Comparison) -> list[str]:
    said = []
    settings = comparison.plan.settings
    for estimator in dict.fromkeys(setting.estimator for setting in settings if setting.estimator != "static"):
        pairs = {setting: Setting(setting.policy, "static") for setting in settings if setting.estimator == estimator}
        pairs = {setting: static for setting, static in pairs.items() if static in comparison.summaries}
        if pairs:
            said.append(_effect(comparison, estimator, pairs))
    return said


def _effect(comparison: Comparison, estimator: str, pairs: dict[Setting, Setting]) -> str:
    """What ``estimator`` changes, under the policy whose latency it moves most; most policies heed no estimate."""
    effects = {setting: abs(comparison.change(setting, pairs[setting], "e2e_mean_s").value) for setting in pairs}
    setting = max(effects, key=effects.__getitem__)
    error, mean = (comparison.change(setting, pairs[setting], metric) for metric in ("mae", "e2e_mean_s"))
    said = f"Calibration: {estimator} changes the MAE by {give_or_take(error)}{_told(error)}"
    if not effects[setting]:
        return f"{said}; no policy compared lets an estimate change its order, so it cannot change latency."
    if mean.spans_zero or math.isnan(mean.low):
        verdict = "buys no measurable latency"
    else:
        verdict = "lowers latency" if mean.value < 0 else "costs latency"
    return f"{said}; under {setting.policy} it {verdict}: mean E2E {give_or_take(mean)}{_told(mean)}."


def _told(change: Interval) -> str:
    return " (cannot be told from no effect)" if change.spans_zero else ""


def _checks(comparison: Comparison) -> list[Check]:
    """The checks of the comparison, and the recorded run, or each of its phases, beside its own simulation."""
    own = [
        Check(
            f"{'the recorded run' if phase == 'all' else f'its phase {phase}'} against its own simulation",
            measured,
            summary(comparison.traces[BASELINE], comparison.plan.admission, phase=phase),
        )
        for phase, measured in (comparison.measured or {}).items()
    ]
    return [*own, *comparison.checks]


def _errors(check: Check) -> str:
    """A sentence with the errors of ``check``, or with why there are none."""
    parts = []
    for metric, name in () if check.failed else CHECKED:
        real, ours = check.measured[metric], check.simulated[metric]
        if not math.isnan(real):
            parts.append(f"{name} {real:.2f} s measured, {ours:.2f} s simulated ({100 * (ours / real - 1):+.1f} %)")
    return f"Check, {check.what}: {check.failed or '; '.join(parts)}."


def _off(check: Check) -> float:
    """The error of the mean E2E of ``check``, relative to the smaller side; 0 if it failed."""
    if check.failed:
        return 0.0
    sides = sorted((check.measured["e2e_mean_s"], check.simulated["e2e_mean_s"]))
    return float(sides[1] / sides[0] - 1) if sides[0] > 0 else 0.0


def _shifted(comparison: Comparison) -> list[str]:
    """Where the resampled workloads lie to one side of the recorded one, an interval around that one misleads."""
    shifts = []
    for setting in comparison.plan.settings:
        pairs = [(BASELINE, "e2e_mean_s"), (BASELINE, "e2e_p99_s")]
        if setting.estimator != "static":
            pairs.append((Setting(setting.policy, "static"), "mae"))
        for against, metric in pairs:
            if against not in comparison.summaries or comparison.plan.replications < 3:
                continue
            changes = comparison.values(setting, metric) / comparison.values(against, metric) - 1
            mean = changes[1:].mean()
            if abs(mean - changes[0]) > max(changes[1:].std(ddof=1), WORTH_SAYING):
                name = metric.removesuffix("_s")
                shifts.append(f"{setting} {name} {100 * mean:+.1f} % instead of {100 * changes[0]:+.1f} %")
    if not shifts:
        return []
    return [f"resampled runs lie, on average, more than their spread from the recorded one in {'; '.join(shifts)}"]
