"""The index of the experiments: question, command, the answer in one sentence, where it is shown; for the READMEs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from driftsim.formatting import markdown
from driftsim.formatting import signed_percent as percent
from driftsim.validation.equivalence import MARGIN, Verdict
from experiments import capacity, estimation_error, gateway_cost, gpu, in_flight, value_of_prediction
from experiments.league import document as league
from experiments.paper import answers as paper
from experiments.paper import verdicts
from experiments.paper.tables import between, documents, find

HERE = Path(__file__).parent


def block() -> str:
    """The index as a Markdown table."""
    rows = [(question, f"`{command}`", answer(), f"[{where}]({where})") for question, command, answer, where in (
        ("Which scheduler for the recorded run, and is correcting worth it?", "make demo", _demo,
         "which_scheduler/e2e_by_scheduler.png"),
        ("How wrong are the estimates, off and on, in both accountings and under each base?",
         "python -m experiments.estimation_error", _errors, "estimation_error/rows.csv"),
        ("What does each policy change on the real engine?", "python -m experiments.measured_policies", _measured,
         "measured_policies/rows.csv"),
        ("How far can a simulation be trusted?", "python -m experiments.accuracy", _accuracy, "accuracy/cells.csv"),
        ("How well is a GPU predicted?", "python -m experiments.gpu", gpu.answer, "gpu/held_out.csv"),
        ("How good is a profile from a datasheet?", "python -m experiments.first_principles", _datasheet,
         "first_principles/l4.json"),
        ("What load does the recorded engine take within an SLO?", "python -m experiments.capacity", capacity.answer,
         "capacity/policies-capacity.png"),
        ("Is predicting output lengths worth it?", "python -m experiments.value_of_prediction",
         value_of_prediction.answer, "value_of_prediction/chat-cpu-value.png"),
        ("Which policy, with which estimator, ranks first on workloads that stay the same?",
         "python -m experiments.league", league.answer, "league/README.md"),
        ("Does estimating anew in flight help SRPT inside the engine?", "python -m experiments.in_flight",
         in_flight.answer, "in_flight/rows.csv"),
        ("What does capturing cost?", "python -m experiments.capture_overhead", _overhead,
         "capture_overhead/costs.json"),
        ("What does the gateway cost?", "python -m experiments.gateway_cost", gateway_cost.answer,
         "gateway_cost/costs.json"),
        ("What does a sweep cost?", "python -m experiments.sweep_cost", _sweep, "sweep_cost/costs.json"),
        ("Have latency or error become worse?", "make check", _gate, "gate/baseline.json"),
        ("How fast is the simulator, beside others?", "make bench", _speed, "speed/results.json"),
        ("Do the published claims hold?", "make paper", _claims, "paper/README.md"),
        ("Where does each published effect come from?", "python -m experiments.paper.factorial",
         lambda: dict(paper.answers())["How much of SJF's gain is the barrier's?"].split(". ")[1] + ".",
         "paper/figures/main_effects.png"),
        ("Is there a better correction?", "make paper",
         lambda: dict(paper.answers())["And a better correction?"].split(". ")[0] + ".",
         "paper/estimators_on_traces.csv"),
    )]  # fmt: skip
    return markdown(("question", "command", "answer", "shown in"), rows, left=4)


def _json(name: str) -> Any:
    return json.loads((HERE / name).read_text())


def _demo() -> str:
    said: list[str] = _json("which_scheduler/comparison.json")["answer"][:2]
    parts = [line.partition(": ")[2] for line in said]
    return f"{parts[0].split('. ')[0]}. {parts[1].split('; ')[0]}."


def _errors() -> str:
    rows = pd.read_csv(estimation_error.STORED)
    plain, caps = (find(rows, accounting="tokenizer", base=base) for base in ("reference", "caps"))
    return (
        f"By {plain['mae_off']:.0f} tokens on average under DriftSched's base, which the correction changes by "
        f"{percent(plain['mae_change'])}; under the caps by {caps['mae_off']:.0f}, changed by "
        f"{percent(caps['mae_change'])}."
    )


def _measured() -> str:
    rows = pd.read_csv(HERE / "measured_policies" / "rows.csv")
    one, other = (find(rows, policy="sjf", metric=metric) for metric in ("e2e_p50_s", "e2e_p99_s"))

    def at_one_speed(row: Any) -> str:
        return between(row["adjusted"], row["adjusted_low"], row["adjusted_high"])

    return (
        f"SJF the median E2E by {at_one_speed(one)} and the P99 by {at_one_speed(other)} against FIFO, at one speed of "
        "the host."
    )


def _accuracy() -> str:
    cells, changes = (pd.read_csv(HERE / "accuracy" / f"{name}.csv") for name in ("cells", "changes"))
    counts = {verdict: int((changes["verdict"] == verdict).sum()) for verdict in get_args(Verdict)}
    return (
        f"The level is off by {100 * cells['error'].abs().median():.1f} % in the median, "
        f"{100 * cells['error'].abs().max():.1f} % at most. Of {len(changes)} changes against FIFO "
        f"{counts['equivalent']} are within a factor of {math.exp(MARGIN):.2f} of the measured ones, "
        f"{counts['different']} are not, {counts['undetermined']} cannot be told."
    )


def _datasheet() -> str:
    rows = pd.DataFrame(_json("first_principles/l4.json")["rows"])
    rows = rows[~rows["fitted"] & (rows["metric"] != "KV cache (tokens)")]
    worst = rows.groupby("metric")["error"].apply(lambda errors: errors.abs().max())
    return (
        f"On runs that it was not fitted to, TPOT is off by {100 * worst['tpot_ms']:.0f} % at most, TTFT by "
        f"{100 * worst['ttft_ms']:.0f} %."
    )


def _overhead() -> str:
    found = _json("capture_overhead/costs.json")
    return f"{found['step_hook_us']:.0f} us a step and {found['recorder_us']:.0f} us a request."


def _sweep() -> str:
    found = _json("sweep_cost/costs.json")
    return (
        f"{found['runs']:,} runs of {found['requests_a_run']:,} requests take {found['wall_s']:.0f} s on two cores; "
        f"{found['overhead_ms']:.1f} ms a run go beside the simulation."
    )


def _gate() -> str:
    return f"{len(_json('gate/baseline.json')['runs'])} runs are held to a baseline; the command says."


def _speed() -> str:
    found = _json("speed/results.json")
    return (
        f"{found['engine_rps_095']:,} requests/s at 0.95 of saturation, {found['units_095']} bare SimPy timeouts each."
    )


def _claims() -> str:
    return verdicts.count(documents("claims"))
