"""How wrong are the token-budget estimates, and does DriftSched's correction help? Every base, both accountings.

    python -m experiments.estimation_error            # remakes estimation_error/rows.csv

FIFO on the shipped trace; the correction learns in the order in which requests finish. Values are those of the recorded
workload, intervals 95 % over its block resamples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import kendalltau

import driftsim as ds
from experiments.arguments import plain

ROOT = Path(__file__).resolve().parent.parent
TRACE = ROOT / "traces" / "smollm2-cpu-drift"
STORED = Path(__file__).with_suffix("") / "rows.csv"
UNITS = {"tokenizer": "tokens", "whitespace": "words"}


def main() -> None:
    """Run every setting with intervals and store the rows."""
    STORED.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows(ds.read(TRACE), replications=20)).to_csv(STORED, index=False)


def rows(trace: ds.Trace, replications: int) -> list[dict[str, Any]]:
    """One row per accounting and base: MAE and RMSE with the correction off and on, and the change."""
    return [
        _row(trace, accounting, base, replications) for accounting in UNITS for base in ("reference", "caps", "fit")
    ]


def _row(trace: ds.Trace, accounting: str, base: str, replications: int) -> dict[str, Any]:
    admission = ds.Admission(accounting=accounting, base=base)  # type: ignore[arg-type]
    result = ds.compare(
        trace, policies=["fifo"], estimators=["static", "ema"], admission=admission, replications=replications
    )
    static, ema = result.plan.settings
    row: dict[str, Any] = {"accounting": accounting, "base": base, "unit": UNITS[accounting]}
    row["scored"] = result.summaries[static][0]["scored"]
    for metric in ("mae", "rmse"):
        row |= {f"{metric}_off": result.values(static, metric)[0], f"{metric}_on": result.values(ema, metric)[0]}
        change, low, high = result.change(ema, static, metric)
        row |= {f"{metric}_change": change, f"{metric}_low": low, f"{metric}_high": high}
    for name, setting in (("off", static), ("on", ema)):
        for tau in ("kendall_tau", "kendall_tau_estimate"):
            row[f"{tau}_{name}"] = result.values(setting, tau)[0]
    return row | {"kendall_tau_prompt": prompts_alone(trace, admission)}


def prompts_alone(trace: ds.Trace, admission: ds.Admission) -> float:
    """Kendall's tau-b of the prompt with prompt plus actual output: what knowing nothing of outputs gives."""
    done, unit = trace.finished, admission.unit
    prompt = unit.lengths(done["prompt_tokens"], done["prompt_words"])
    return float(kendalltau(prompt, prompt + unit.lengths(done["output_tokens"], done["output_words"])).statistic)


if __name__ == "__main__":
    plain("experiments.estimation_error", __doc__)
    main()
