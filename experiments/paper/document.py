"""What the READMEs say of the study, from the stored tables alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim import formatting
from driftsim.formatting import markdown
from driftsim.formatting import signed_percent as percent
from driftsim.statistics import Interval

HERE = Path(__file__).parent
ENGINES = {"barrier": "the barrier", "continuous": "the continuous engine"}


def table(name: str) -> pd.DataFrame:
    """A stored table."""
    return pd.read_csv(HERE / f"{name}.csv", dtype={"load": str} if name.startswith("factorial/") else None)


def documents(name: str) -> list[dict[str, Any]]:
    """A stored list."""
    found: list[dict[str, Any]] = json.loads((HERE / f"{name}.json").read_text())
    return found


def between(value: float, low: float, high: float) -> str:
    """A fraction and its interval, as percentages; without one if there is none."""
    return formatting.between(Interval(value, low, high))


# -- blocks


def claims_block() -> str:
    """The claims table."""
    rows = [
        (row["claim"], "" if row["paper"] is None else percent(row["paper"]),
         between(row["ours"], row["low"], row["high"]), f"**{row['holds']}**", row["why"])
        for row in documents("claims")
    ]  # fmt: skip
    return markdown(("claim", "paper", "ours", "holds", "why"), rows)


def engines_block() -> str:
    """What is left on a continuous engine."""
    rows = [
        (row["effect"], *(between(row[kind], row[f"{kind}_low"], row[f"{kind}_high"]) for kind in ENGINES))
        for row in documents("engines")
    ]
    return markdown(("effect, correction off where SJF is told of", "DriftSched's worker", "continuous batching"), rows)


def short_block() -> str:
    """The published numbers, ours before its worker, and ours on a continuous engine."""
    published = {row["claim"]: row["paper"] for row in documents("claims")}
    shown = {
        "correction changes the MAE (whitespace)": "correction changes the MAE (whitespace, mean over five schedulers)",
        "SJF changes the median E2E, stress": "SJF changes the median E2E, stress phase (correction off)",
        "SJF changes the P99 E2E, stress": "SJF changes the P99 E2E, stress phase (correction off)",
    }
    by = {row["effect"]: row for row in documents("engines")}
    rows = [
        (
            name,
            percent(published[claim]),
            *(between(by[name][kind], by[name][f"{kind}_low"], by[name][f"{kind}_high"]) for kind in ENGINES),
        )
        for name, claim in shown.items()
    ]
    return markdown(("effect", "paper", "ours, its worker", "ours, continuous batching"), rows)


def sensitivity_block() -> str:
    """Every claim's statistic under each assumption."""
    stored = table("sensitivity")
    names = list(dict.fromkeys(stored["claim"]))
    assumptions = list(dict.fromkeys(stored["assumption"]))
    wide = stored.pivot(index="claim", columns="assumption", values="ours").loc[names, assumptions]
    headings = ["claim", *assumptions]
    return markdown(
        headings, [(name, *(percent(value) for value in row)) for name, row in zip(names, wide.to_numpy(), strict=True)]
    )


def lengths_block() -> str:
    """The length model beside a run that it has not seen."""
    rows = [
        (row["category"], str(row["requests"]), f"{row['measured']:.0f}", f"{row['drawn']:.0f}",
         f"{row['measured_words_per_token']:.2f}", f"{row['drawn_words_per_token']:.2f}")
        for row in table("length_model").to_dict("records")
    ]  # fmt: skip
    headings = ("category", "requests", "tokens, measured", "drawn", "words a token, measured", "drawn")
    return markdown(headings, rows)


def real_block() -> str:
    """SJF against FIFO on a real engine and in its simulation."""
    rows = [
        (
            row["statistic"],
            between(row["measured"], row["measured_low"], row["measured_high"]),
            percent(row["simulated"]),
        )
        for row in table("real").to_dict("records")
    ]
    return markdown(("SJF against FIFO, backlog of 60, vLLM on a CPU", "measured", "simulated"), rows)


def estimators_block() -> str:
    """The corrections side by side, on traces and in DriftSched's workload."""
    shown = [
        ("study, " + row["engine"] + f", {row['caps']} caps", row, "reference")
        for row in table("estimators_on_workload").to_dict("records")
    ]
    shown += [(f"`{row['trace']}`", row, row["base"]) for row in table("estimators_on_traces").to_dict("records")]
    rows = [
        (name, row["accounting"], base, *(f"{row[f'mae_{each}']:.0f}" for each in ("static", "ema", "pooled")),
         f"{row['irreducible']:.0f}", between(row["change"], row["low"], row["high"]),
         *(f"{row[f'tau_{each}']:.3f}" for each in ("static", "ema", "pooled")))
        for name, row, base in shown
    ]  # fmt: skip
    headings = ("requests", "accounting", "base", "MAE static", "ema", "pooled", "irreducible", "pooled against ema",
                "tau static", "ema", "pooled")  # fmt: skip
    return markdown(headings, rows, left=3)


def answers_block() -> str:
    """The questions of the factorial, answered in sentences."""
    return "".join(f"* **{question}** {answer}\n" for question, answer in answers())


def answers() -> list[tuple[str, str]]:
    """Each question and its answer, every number from the stored tables."""
    return [
        ("How much of SJF's gain is the barrier's?", _barrier()),
        ("How much of the drift is words against tokens?", _words()),
        ("Does a better MAE ever buy latency?", _mae()),
        ("Who pays for SJF?", _payers()),
        ("From which load on does any of it matter?", _load()),
        ("What would a perfect estimate buy?", _oracle()),
        ("What does the label in the prompt do?", _label()),
        ("And a better correction?", _pooled()),
    ]


def _effect(row: pd.Series, name: str = "effect") -> str:
    return between(
        row[name],
        row["low" if name == "effect" else f"{name}_low"],
        row["high" if name == "effect" else f"{name}_high"],
    )


def find(stored: pd.DataFrame, **asked: Any) -> pd.Series:
    """The one row of ``stored`` whose columns are as ``asked``."""
    for column, value in asked.items():
        stored = stored[stored[column] == value]
    assert len(stored) == 1, (asked, len(stored))
    return stored.iloc[0]


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
    capped = table("sensitivity").query("assumption == 'all at the cap' and claim == @share['claim']").iloc[0]
    accounting = find(table("factorial/main_effects"), factor="correction", metric="mae", to="base")
    return (
        f"{100 * share['ours']:.0f} % [{100 * share['low']:.0f}, {100 * share['high']:.0f}] with our length model; "
        f"{100 * capped['ours']:.0f} % if every answer runs into its cap, which is what DriftSched's "
        f"finding amounts to. Averaged over all switches, DriftSched's correction changes the MAE by "
        f"{_effect(accounting)}; nearly all of that is where words are counted."
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
    workload, traces = table("estimators_on_workload"), table("estimators_on_traces")
    best = find(workload, engine="continuous", caps="reference", accounting="tokenizer")
    worst = find(workload, engine="barrier", caps="reference", accounting="whitespace")
    worse, clear = traces[traces["change"] > 0], traces[traces["low"] > 0]
    moved = traces.assign(tau=traces["tau_pooled"] - traces["tau_ema"]).groupby("trace")[["change", "tau"]].mean()
    ordered = int((workload["tau_pooled"] > workload["tau_ema"]).sum())
    worst_case = "in none of them" if clear.empty else f"in {len(clear)} of them"
    return (
        f"`pooled` leaves {best['mae_pooled'] / best['mae_ema']:.2f} of DriftSched's correction's MAE in DriftSched's "
        f"workload on a continuous engine in tokens and {worst['mae_pooled'] / worst['mae_ema']:.2f} before the "
        f"barrier in words, where hindsight itself would leave {worst['irreducible'] / worst['mae_ema']:.2f}; it "
        f"orders better in {ordered} of {len(workload)} settings. On the shipped traces its MAE is lower in "
        f"{len(traces) - len(worse)} of {len(traces)} rows, and higher in {len(worse)}, by "
        f"{percent(traces['change'].max())} at most, {worst_case} by more than chance; averaged over a trace's rows "
        f"it is lower on {int((moved['change'] < 0).sum())} of {len(moved)} traces, and tau is higher on "
        f"{int((moved['tau'] > 0).sum())}. Its strengths and its first trust were chosen on these traces."
    )
