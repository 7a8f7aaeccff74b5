"""What a reader must know before trusting the numbers of a comparison, each in a sentence."""

from __future__ import annotations

from driftsim.calibration.coverage import extrapolation_warnings
from driftsim.comparison.comparison import Comparison
from driftsim.comparison.plan import BASELINE
from driftsim.engine.versions import not_compared
from driftsim.metrics import FEWEST_FOR_P99
from driftsim.outcomes import turned_away

COEFFICIENTS = {
    "intercept_s": "the time of a step that nothing shortens",
    "prefill_token_s": "the time of a step for each prompt token",
    "decode_request_s": "the time of a step for each request that decodes",
    "context_token_s": "the time of a step for each token of context",
    "prefill_attention_s": "the time of a step for the attention of prompts",
    "prefill_step_s": "the time that any prompt adds to a step",
    "launch_s": "the time that the host takes to launch a prompt",
}
NO_CHOICE = 0.001  # share of the time with two or more waiting, below which order could not matter
HEADLINES = ("e2e_mean_s", "e2e_p99_s")
UNSTEADY = "load changes within a phase: record another day"


def warnings(comparison: Comparison) -> list[str]:
    """What a reader must know before trusting the numbers."""
    plan, recorded = comparison.plan, comparison.recorded
    noted = [note for workload in comparison.days for note in workload.notes]
    sentences = [*plan.left_out, *dict.fromkeys(noted), *comparison.mismatches]
    if recorded["p99_flagged"]:
        sentences.append(f"P99 rests on {recorded['finished']} finished, fewer than {FEWEST_FOR_P99}")
    engine = plan.profile.engine
    if engine.why_not_started:
        sentences.append(engine.why_not_started)
    if strange := not_compared(engine.version):
        sentences.append(strange)
    if engine.assumed:
        sentences.append(f"the engine did not tell, and these are assumed: {', '.join(engine.assumed)}")
    sentences += [_in_words(warning.removesuffix(".")) for warning in plan.profile.warnings]
    sentences += extrapolation_warnings(plan.profile, comparison.traces[BASELINE])
    return [*_press(comparison), *sentences, *_of_requests(comparison), *_unsteady(comparison)]


def _press(comparison: Comparison) -> list[str]:
    """How to press a run harder in which no queue formed."""
    if comparison.recorded["choice_fraction"] >= NO_CHOICE or not comparison.recorded["finished"]:
        return []
    loop = {phase.kind for phase in comparison.workload.info.phases} & {"closed", "backlog"}
    how = "with more users (--arrivals closed --users N)" if loop else "with --rate-scale 2"
    return [f"no queue formed: press this run harder {how}"]


def _in_words(warning: str) -> str:
    """A warning of a profile with its coefficients named for what they are.

    >>> _in_words("decode_request_s is uncertain, 0 to 0.002 s")
    'the time of a step for each request that decodes is uncertain, 0 to 0.002 s'
    """
    for name, words in COEFFICIENTS.items():
        warning = warning.replace(name, words)
    return warning


def _of_requests(comparison: Comparison) -> list[str]:
    """Who was turned away, who outgrew the cache, whose category nobody knows, who was used up by a fit."""
    plan, recorded, sentences = comparison.plan, comparison.recorded, []
    worst = max((comparison.summaries[setting][0] for setting in plan.settings), key=lambda row: row["rejected"])
    sentences += turned_away(worst, plan.profile.engine)
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
    return sentences


def unsteady(comparison: Comparison) -> list[str]:
    """The rows with a change that counts, whose two kinds of resamples disagree about its size by more than its spread.

    On another day such a change may be of another size; where it does not count, its interval says enough.
    """
    found = []
    told = {metric: comparison.told(list(comparison.plan.settings), metric) for metric in HEADLINES}
    for setting in (group[0] for group in comparison.groups):
        moves = [
            comparison.change_of(setting, BASELINE, metric).moved for metric in HEADLINES if setting in told[metric]
        ]
        if any(moves):
            found.append(str(setting))
    return found


def _unsteady(comparison: Comparison) -> list[str]:
    rows = unsteady(comparison)
    if not rows:
        return []
    return [f"{UNSTEADY} (resamples that keep the time of day and those that do not disagree for {', '.join(rows)})"]
