"""What the READMEs say of the study, from the stored tables alone."""

from __future__ import annotations

from typing import Any

from driftsim.formatting import markdown
from driftsim.formatting import signed_percent as percent
from experiments.paper.answers import answers, counted_once
from experiments.paper.estimators import ESTIMATORS
from experiments.paper.sensitivity import AS_CAPTURED, ASSUMPTIONS
from experiments.paper.tables import ENGINES, between, documents, table
from experiments.paper.verdicts import RULE, count


def claims_block() -> str:
    """The claims, each by the reading that is judged and then by its others, and the rule."""
    rows = []
    for claim in documents("claims"):
        published = "" if claim["paper"] is None else percent(claim["paper"])
        rows.append(
            (
                f"**{claim['claim']}**: {claim['reading']}",
                published,
                *_judged(claim),
                f"**{claim['holds']}**",
                claim["why"],
            )
        )
        rows += [(f"other reading: {other['reading']}", "", *_judged(other), "", "") for other in claim["others"]]
    headings = ("claim: what is measured", "paper", "ours", "over lengths", "direction", "holds", "why")
    return f"{markdown(headings, rows)}\n{RULE}\n"


def _judged(reading: dict[str, Any]) -> tuple[str, str, str]:
    """A reading: its value over the seeds, its interval over lengths, its direction."""
    wide = f"[{100 * reading['lengths_low']:+.1f}, {100 * reading['lengths_high']:+.1f}]"
    return between(reading["ours"], reading["low"], reading["high"]), wide, reading["direction"]


def count_block() -> str:
    """How many claims hold."""
    return f"{count(documents('claims'))}\n"


def engines_block() -> str:
    """What is left on a continuous engine."""
    rows = [
        (row["effect"], *(between(row[kind], row[f"{kind}_low"], row[f"{kind}_high"]) for kind in ENGINES))
        for row in documents("engines")
    ]
    return markdown(
        ("effect; SJF with the correction off where nothing is said", "DriftSched's worker", "continuous batching"),
        rows,
    )


def short_block() -> str:
    """The published numbers, ours before its worker, and ours on a continuous engine."""
    published = {row["claim"]: row["paper"] for row in documents("claims")}
    shown = {
        "correction changes the MAE (whitespace)": "the correction lowers the MAE of the estimates",
        "SJF changes the median E2E, stress (correction on)": "SJF lowers the median E2E under sustained contention",
        "SJF changes the P99 E2E, stress (correction on)": "SJF lowers the P99 E2E under sustained contention",
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
    """What is judged of every claim, under each assumption."""
    stored, assumptions = table("sensitivity"), [AS_CAPTURED, *ASSUMPTIONS]
    rows = []
    for claim in documents("claims"):
        mine = stored[(stored["claim"] == claim["claim"]) & (stored["reading"] == claim["reading"])]
        by = mine.set_index("assumption")[["ours", "low", "high"]]
        rows.append((claim["claim"], *(between(*by.loc[name]) for name in assumptions)))
    return markdown(("claim", *assumptions), rows)


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
    """The corrections side by side, on traces, each comparison once, and in DriftSched's workload."""
    shown = [
        ("study, " + row["engine"] + f", {row['caps']} caps", row, "reference")
        for row in table("estimators_on_workload").to_dict("records")
    ]
    stored = table("estimators_on_traces")
    for _, same in stored.groupby("comparison", sort=False):
        traces, bases = (list(dict.fromkeys(same[name])) for name in ("trace", "base"))
        shown.append((", ".join(f"`{trace}`" for trace in traces), same.iloc[0].to_dict(), ", ".join(bases)))
    rows = [
        (name, row["accounting"], base, *(f"{row[f'mae_{each}']:.0f}" for each in ESTIMATORS),
         f"{row['leave_one_out']:.0f}", between(row["change"], row["low"], row["high"]),
         *(f"{row[f'{tau}_{each}']:.3f}" for tau in ("tau", "tau_length") for each in ESTIMATORS))
        for name, row, base in shown
    ]  # fmt: skip
    headings = ("requests", "accounting", "base", "MAE static", "ema", "pooled", "others' median", "pooled against ema",
                "tau static", "ema", "pooled", "tau of length static", "ema", "pooled")  # fmt: skip
    return f"{markdown(headings, rows, left=3)}\n{counted_once()}\n"


def answers_block() -> str:
    """The questions of the factorial, answered in sentences."""
    return "".join(f"* **{question}** {answer}\n" for question, answer in answers())
