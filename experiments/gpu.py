"""How well is a GPU predicted? Runs on an H200: their decisions, and runs that the profile has not seen.

    python -m experiments.gpu        # remakes what gpu/ holds

Decisions: every shipped GPU run on its own recorded steps. Latencies: a profile fitted to three loads predicts another
load and five policies under overload; and chats and agents on a server with a prefix cache, by a profile fitted to the
lowest and the highest load, beside what the run itself would say and what the same load did when it was run again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim import Trace, read
from driftsim.calibration.calibrate import calibrate
from driftsim.calibration.runs import Run
from driftsim.formatting import markdown
from driftsim.formatting import signed_percent as percent
from driftsim.latency.profile import Profile
from driftsim.validation.validation import on_measured_steps, on_model_steps
from experiments.arguments import plain

ROOT = Path(__file__).resolve().parent.parent
TRACES = ROOT / "traces"
STORED = Path(__file__).with_suffix("")
FITTED = tuple(f"qwen1.8b-h200-{name}" for name in ("load-0.5", "load-0.95", "backlog"))
HELD_OUT = "qwen1.8b-h200-load-0.8"
POLICIES, PLACES = "qwen1.8b-h200-policies", "qwen1.8b-h200-places"
SAID = {"front": "in front", "priority": "as a priority", "inside": "inside"}
SESSIONS = tuple(f"llama8b-h200-sessions-{name}" for name in ("5", "10", "10-again", "16", "26"))
ENDS, BETWEEN = (SESSIONS[0], SESSIONS[-1]), SESSIONS[1:-1]  # fitted, and not
SHOWN = (("e2e", "mean"), ("e2e", "p99"), ("ttft", "mean"), ("tpot", "mean"), ("makespan", ""))


def gpu_runs() -> dict[str, list[Trace]]:
    """The shipped runs on a GPU, by their folder in ``traces``."""
    found: dict[str, list[Trace]] = {}
    for file in sorted(TRACES.glob("*h200*/**/header.json")):
        found.setdefault(file.relative_to(TRACES).parts[0], []).append(read(file.parent))
    return found


def fitted() -> Profile:
    """The profile of the three loads."""
    return calibrate([Run(name, read(TRACES / name)) for name in FITTED])


def decisions() -> pd.DataFrame:
    """Of each folder of GPU runs: how much was decided as recorded."""
    rows = []
    for name, traces in gpu_runs().items():
        judged = [on_measured_steps(name, trace) for trace in traces]
        rows.append(
            {
                "trace": name,
                "async_scheduling": traces[0].header.engine.async_scheduling,
                "steps": sum(len(trace.steps) for trace in traces if trace.steps is not None),
                "alike": min(one.steps_alike or 0.0 for one in judged),
                "requests": sum(len(trace.requests) for trace in traces),
                "off": sum(0 if one.exceptions is None else len(one.exceptions) for one in judged),
            }
        )
    return pd.DataFrame(rows)


def held_out(profile: Profile) -> pd.DataFrame:
    """Measured and predicted, for runs that ``profile`` has not seen; of policies the means over their runs."""
    runs = {"80 % load": [HELD_OUT]}
    for folder in (POLICIES, PLACES):
        for file in sorted((TRACES / folder).glob("*/header.json")):
            place, _, policy = file.parent.name.rpartition("-")[0].rpartition("-")
            what = f"overload, {policy}" + (f" {SAID[place]}" if place else "")
            runs.setdefault(what, []).append(f"{folder}/{file.parent.name}")
    rows = [
        {"run": run, "runs": len(names), **row}
        for run, names in runs.items()
        for row in _means(on_model_steps(name, read(TRACES / name), profile).rows() for name in names)
    ]
    return pd.DataFrame(rows)


def sessions() -> pd.DataFrame:
    """Chats and agents between the loads that were fitted: measured, and by three profiles."""
    traces = {name: read(TRACES / name) for name in SESSIONS}
    ends = calibrate([Run(name, traces[name]) for name in ENDS])
    rows = []
    for name in BETWEEN:
        by = {"ends": on_model_steps(name, traces[name], ends)}
        by["itself"] = on_model_steps(name, traces[name], calibrate([Run(name, traces[name])]))
        metrics = {(who, row["metric"], row["stat"]): row for who, judged in by.items() for row in judged.rows()}
        simulated = by["ends"].simulated.requests
        recorded = traces[name].requests
        for metric, stat in ((metric, stat or "mean") for metric, stat in SHOWN):
            known = metrics["ends", metric, stat]
            rows.append(
                {
                    "run": name, "metric": metric, "stat": stat, "measured": known["measured"],
                    "ends": known["error"], "itself": metrics["itself", metric, stat]["error"],
                    "hit_rate": recorded["cached_tokens"].sum() / recorded["prompt_tokens"].sum(),
                    "simulated_hit_rate": simulated["cached_tokens"].sum() / simulated["prompt_tokens"].sum(),
                    "launch_s": ends.launch_s,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _means(found: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    table = pd.DataFrame([row for rows in found for row in rows])
    groups = table.groupby(["metric", "stat"], sort=False, as_index=False)
    means = groups[["measured", "simulated"]].mean()
    means["spread"] = groups["measured"].std()["measured"]  # NaN of a single run
    means["error"] = means["simulated"] / means["measured"] - 1
    return [{str(key): value for key, value in row.items()} for row in means.to_dict("records")]


def _row(table: pd.DataFrame, metric: str, stat: str) -> dict[Hashable, Any]:
    return table[(table["metric"] == metric) & (table["stat"] == stat)].to_dict("records")[0]


def _spread(row: dict[Hashable, Any]) -> str:
    return "" if pd.isna(row["spread"]) else f" ± {100 * row['spread'] / row['measured']:.0f} %"


def main() -> None:
    """Recompute and store."""
    STORED.mkdir(exist_ok=True)
    decisions().to_csv(STORED / "runs.csv", index=False)
    profile = fitted()
    assert profile.fit is not None
    held_out(profile).to_csv(STORED / "held_out.csv", index=False)
    sessions().to_csv(STORED / "sessions.csv", index=False)
    error = profile.fit.mean_absolute_percentage_error
    pd.DataFrame([{"error": error, "prefill_step_s": profile.prefill_step_s}]).to_csv(STORED / "fit.csv", index=False)


def answer() -> str:
    """In a sentence."""
    runs, errors = (pd.read_csv(STORED / f"{name}.csv") for name in ("runs", "held_out"))
    mean = errors[(errors["metric"] == "e2e") & (errors["stat"] == "mean")].set_index("run")["error"]
    return (
        f"{100 * runs['alike'].min():.1f} % of {runs['steps'].sum():,} steps on an H200 composed as recorded; the mean "
        f"E2E of a load that the profile has not seen within {100 * abs(mean['80 % load']):.1f} %."
    )


def block() -> str:
    """Both tables, as Markdown."""
    runs, errors = (pd.read_csv(STORED / f"{name}.csv") for name in ("runs", "held_out"))
    fit = pd.read_csv(STORED / "fit.csv").iloc[0]
    lines = markdown(
        ("runs", "async scheduling", "steps", "composed alike", "requests", "more than 2 ms off"),
        [
            (f"`{row['trace']}`", "on" if row["async_scheduling"] else "off", f"{row['steps']:,}",
             f"{100 * row['alike']:.2f} %", f"{row['requests']:,}", str(row["off"]))
            for row in runs.to_dict("records")
        ],
        left=2,
    )  # fmt: skip
    cells = []
    for run, own in errors.groupby("run", sort=False):
        shown = [_row(own, metric, stat or "mean") for metric, stat in SHOWN]
        values = (f"{row['measured']:.3g} s{_spread(row)}, {percent(row['error'])}" for row in shown)
        cells.append((str(run), str(shown[0]["runs"]), *values))
    heads = [f"{metric.upper()} {stat}" if stat else metric for metric, stat in SHOWN]
    second = markdown(("held-out runs", "count", *heads), cells, left=1)
    told = (
        f"The profile fits the steps of its own three runs to {100 * float(fit['error']):.1f} %; a step that prefills "
        f"takes {1000 * float(fit['prefill_step_s']):.1f} ms more than one that does not. Measured, with the standard "
        "deviation over the runs, and how far off predicted:"
    )
    return f"{lines}\n{told}\n\n{second}\n{_sessions_block()}"


def _sessions_block() -> str:
    """How well chats and agents are predicted, as Markdown."""
    table = pd.read_csv(STORED / "sessions.csv")
    again = table[table["run"] == SESSIONS[2]].set_index(["metric", "stat"])["measured"]
    first = table[table["run"] == SESSIONS[1]].set_index(["metric", "stat"])["measured"]
    cells = []
    for run, own in table.groupby("run", sort=False):
        for who, said in (("ends", "the two other loads"), ("itself", "itself")):
            shown = [_row(own, metric, stat or "mean") for metric, stat in SHOWN]
            values = (f"{row['measured']:.3g} s, {percent(row[who])}" for row in shown)
            rates = f"{100 * shown[0]['hit_rate']:.1f} %, {100 * shown[0]['simulated_hit_rate']:.1f} %"
            cells.append((f"`{run}`", said, *values, rates if who == "ends" else ""))
    heads = [f"{metric.upper()} {stat}" if stat else metric for metric, stat in SHOWN]
    lines = markdown(("run", "fitted to", *heads, "hit rate, simulated"), cells, left=2)
    moved = ", ".join(
        percent(again[metric, stat or "mean"] / first[metric, stat or "mean"] - 1) for metric, stat in SHOWN
    )
    launch = 1000 * float(table["launch_s"].iloc[0])
    return (
        f"Chats and agents with a prefix cache, where the host takes {launch:.0f} ms to launch a prefill. The same "
        f"load, run again, moved by {moved} in these columns: the speed of the machine is not the same from run to "
        f"run, and near its knee a little speed is much waiting.\n\n{lines}"
    )


if __name__ == "__main__":
    plain("experiments.gpu", __doc__)
    main()
