"""The questions of the study, answered in sentences, every number from the stored tables."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from driftsim.formatting import signed_percent as percent
from experiments.paper import estimators
from experiments.paper.factorial import FACTORS
from experiments.paper.tables import ENGINES, between, documents, find, table


def answers() -> list[tuple[str, str]]:
    """Each question and its answer, every number from the stored tables."""
    return [(question, answer()) for question, answer in QUESTIONS.items()]


def _effect(row: pd.Series, name: str = "effect") -> str:
    return between(
        row[name],
        row["low" if name == "effect" else f"{name}_low"],
        row["high" if name == "effect" else f"{name}_high"],
    )


def _barrier() -> str:
    gains, study = table("factorial/gains"), {row["effect"]: row for row in documents("engines")}
    high = sorted(gains["load"].unique())[-1]
    found = {
        (engine, metric): _effect(find(gains, engine=engine, load=high, metric=metric))
        for engine in ENGINES
        for metric in ("e2e_mean_s", "e2e_p99_s")
    }
    p99 = study["SJF changes the P99 E2E, all"]
    return (
        f"Pressed alike (load {high} of what each can serve), SJF changes the mean E2E by "
        f"{found['barrier', 'e2e_mean_s']} before the barrier and by {found['continuous', 'e2e_mean_s']} on a "
        "continuous engine; the P99 by "
        f"{found['barrier', 'e2e_p99_s']} and {found['continuous', 'e2e_p99_s']}. At DriftSched's own rates the gain "
        f"in P99 is the barrier's alone: {percent(p99['barrier'])} there, {percent(p99['continuous'])} without it. "
        "Sorting makes batches of like lengths, and only a barrier makes anybody wait for the longest of a batch."
    )


def _words() -> str:
    share = next(row for row in documents("claims") if row["claim"].startswith("most of the drift"))
    capped = find(table("sensitivity"), assumption="all at the cap", claim=share["claim"])
    everywhere = find(table("factorial/main_effects"), factor="correction", metric="mae", to="base")
    words, tokens = (find(table("factorial/accounted"), accounting=unit) for unit in ("whitespace", "tokenizer"))
    return (
        f"{100 * share['ours']:.0f} % [{100 * share['low']:.1f}, {100 * share['high']:.1f}] with our length model; "
        f"{100 * capped['ours']:.0f} % if every answer runs into its cap, which is what DriftSched's "
        f"finding amounts to; from {100 * share['lengths_low']:.0f} to {100 * share['lengths_high']:.0f} % over all "
        f"length models. Averaged over all switches, DriftSched's correction changes the MAE by {_effect(everywhere)}: "
        f"by {percent(words['effect'])} where words are counted and by {percent(tokens['effect'])} where tokens are, "
        f"so that {100 * words['share']:.0f} % of it, in logarithms, is the words'."
    )


def _mae() -> str:
    stored = table("factorial/corrections")
    parts = []
    for engine, told in ENGINES.items():
        for load in sorted(stored["load"].unique()):
            error, latency = (
                find(stored, engine=engine, load=load, metric=metric, to="base") for metric in ("mae", "e2e_p50_s")
            )
            parts.append(
                f"{told}, load {load}: MAE {percent(error['effect'])}, median E2E under SJF {_effect(latency)}"
            )
    tau = find(table("factorial/main_effects"), factor="correction", metric="kendall_tau", to="base")
    row = next(row for row in documents("engines") if row["effect"].endswith("of SJF (whitespace)"))
    bought = [between(row[engine], row[f"{engine}_low"], row[f"{engine}_high"]) for engine in ENGINES]
    return (
        "Not reliably, and not by the error. In the factorial: "
        + "; ".join(parts)
        + f". At DriftSched's own rates the median under SJF changes by {bought[0]} before the barrier and by "
        f"{bought[1]} on a continuous engine, counting words. One factor a category cannot reorder within category and "
        f"tier, and what it learns late it applies unevenly: Kendall's tau changes by {tau['effect']:+.3f} "
        f"[{tau['low']:+.3f}, {tau['high']:+.3f}]."
    )


def _followed() -> str:
    stored, high = table("factorial/followed"), FACTORS["load"][-1]
    every, published = (find(stored, correction=name) for name in ("all", "base"))
    order = abs(every["with_kendall_tau"]) > abs(every["with_mae"])
    return (
        f"Their {'order' if order else 'error'}. At load {high} DriftSched's correction lowers the MAE in "
        f"{published['lower_mae']} of {published['cells']} cells of the factorial, and in "
        f"{published['of_them_slower']} of these, {100 * published['of_them_slower'] / published['lower_mae']:.0f} %, "
        f"SJF's mean E2E gets *worse*. Over the {every['cells']} cells of all three corrections the change of SJF's "
        f"mean E2E goes with that of the MAE by a rank correlation (Spearman's) of {every['with_mae']:+.2f}, with that "
        f"of Kendall's tau of the budgets by {every['with_kendall_tau']:+.2f}, of the estimates alone by "
        f"{every['with_kendall_tau_estimate']:+.2f}."
    )


def _payers() -> str:
    stored = table("factorial/payers")
    tiers = {
        (safety, tier): percent(find(stored, engine="continuous", safety=safety, tier=tier)["effect"])
        for safety in ("on", "off")
        for tier in ("premium", "standard", "batch")
    }
    loads = table("load")
    top = loads[loads["engine"] == "continuous"].iloc[-1]
    told = {
        safety: ", ".join(f"{tier} {tiers[safety, tier]}" for tier in ("premium", "standard", "batch"))
        for safety in ("on", "off")
    }
    return (
        f"Whoever writes long: on a continuous engine at load {top['load']:g} the longest tenth wait "
        f"{_effect(top, 'long')} longer and the P99 is {_effect(top, 'p99')}. By tier, mean E2E with the "
        f"safety factor: {told['on']}; without it: "
        f"{told['off']}. The factor that should protect premium makes it look longer, so that SJF serves it later."
    )


def _load() -> str:
    loads = table("load")
    parts = []
    for engine in ("barrier", "continuous, 32 in flight", "continuous"):
        mine = loads[loads["engine"] == engine]
        clear = mine[(mine["mean_high"] < -0.01)]
        first = f"from load {clear['load'].iloc[0]:g} on" if len(clear) else "at no load tried"
        parts.append(f"{engine}: {first}")
    quiet = loads[(loads["engine"] == "continuous") & (loads["load"] == 0.8)].iloc[0]
    return (
        "Where SJF takes at least a hundredth off the mean E2E, with 95 % confidence: "
        + "; ".join(parts)
        + ". At load 0.8 "
        f"two or more wait before the continuous engine {100 * quiet['choice_fraction']:.0f} % of the time, so "
        "there is nothing to order."
    )


def _oracle() -> str:
    stored = table("factorial/corrections")
    parts = [
        f"{told}, load {load}: {_effect(find(stored, engine=engine, load=load, metric='e2e_mean_s', to='oracle'))}"
        for engine, told in ENGINES.items()
        for load in sorted(stored["load"].unique())
    ]
    return "Mean E2E under SJF, true lengths against the uncorrected estimates: " + "; ".join(parts) + "."


def _label() -> str:
    stored = table("factorial/main_effects")
    tau, latency = (find(stored, factor="label", metric=metric) for metric in ("kendall_tau", "e2e_p50_s"))
    return (
        f"It is worth more than the correction: showing it to the classifier changes tau by {tau['effect']:+.3f} "
        f"[{tau['low']:+.3f}, {tau['high']:+.3f}] and the median E2E under SJF by {_effect(latency)}."
    )


def _pooled() -> str:
    workload, stored = table("estimators_on_workload"), table("estimators_on_traces")
    traces = estimators.distinct(stored)
    best = find(workload, engine="continuous", caps="reference", accounting="tokenizer")
    worst = find(workload, engine="barrier", caps="reference", accounting="whitespace")
    worse, clear = traces[traces["change"] > 0], traces[traces["low"] > 0]
    moved = traces.assign(tau=traces["tau_pooled"] - traces["tau_ema"]).groupby("request_set")[["change", "tau"]].mean()
    ordered = int((workload["tau_pooled"] > workload["tau_ema"]).sum())
    worst_case = "in none of them" if clear.empty else f"in {len(clear)} of them"
    untaught = traces[traces["taught"] == 0]
    return (
        f"`pooled` leaves {best['mae_pooled'] / best['mae_ema']:.2f} of DriftSched's correction's MAE in DriftSched's "
        f"workload on a continuous engine in tokens and {worst['mae_pooled'] / worst['mae_ema']:.2f} before the "
        "barrier in words, where the median of the others would leave "
        f"{worst['leave_one_out'] / worst['mae_ema']:.2f}; it orders better in {ordered} of {len(workload)} settings. "
        f"On the shipped traces its MAE is lower in {len(traces) - len(worse)} of {len(traces)} comparisons, and "
        f"higher in {len(worse)}, by {percent(traces['change'].max())} at most, {worst_case} by more than chance. In "
        f"{len(untaught)} of them, {int((untaught['change'] < 0).sum())} of which it wins, all requests arrived before "
        "anything was learned: its limit at `max_tokens` and its prior made that difference, and not learning. "
        f"Averaged over the comparisons of a set of requests it is lower on {int((moved['change'] < 0).sum())} of "
        f"{len(moved)} sets, and tau is higher on {int((moved['tau'] > 0).sum())}. Its strengths and its first trust "
        "were chosen on these traces."
    )


def counted_once() -> str:
    """How many rows of the table of traces are comparisons of their own, and what hindsight says of them."""
    stored = table("estimators_on_traces")
    once = estimators.distinct(stored)
    alone = once.drop_duplicates("trace")
    alone = alone[alone["alone"] > 0]
    left_out = ", ".join(f"{row['alone']} of `{row['trace']}`" for row in alone.to_dict("records"))
    idle = int((once["best_beside"] <= once["leave_one_out"]).sum())
    return (
        f"{len(stored)} combinations of trace, accounting and base are {len(once)} comparisons of "
        f"{once['request_set'].nunique()} sets of requests: rows with the same requests and estimates are one. In "
        f"{int((once['taught'] == 0).sum())} of them all requests arrived before the first had finished. *Others' "
        f"median*: requests that are alone in their category and tenant are left out ({left_out}). On the requests "
        f"that it can be taken of, the best of the three estimators leaves no more than it in {idle} of the "
        f"{len(once)}: there is nothing to gain there by category and tenant."
    )


QUESTIONS: dict[str, Callable[[], str]] = {
    "How much of SJF's gain is the barrier's?": _barrier,
    "How much of the drift is words against tokens?": _words,
    "Does a better MAE ever buy latency?": _mae,
    "Does latency follow the estimates' error or their order?": _followed,
    "Who pays for SJF?": _payers,
    "From which load on does any of it matter?": _load,
    "What would a perfect estimate buy?": _oracle,
    "What does the label in the prompt do?": _label,
    "And a better correction?": _pooled,
}
