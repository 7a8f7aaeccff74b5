"""Taking the study apart: every switch against every other, on the same workloads, seed by seed.

    python -m experiments.paper.factorial --store out/factorial   # resumable; then rows and tables beside this file

The runs are those of ``driftsim sweep``: kill it, and the same command goes on. Requests are 0.6 of DriftSched's,
phases and all, so that thousands of runs take minutes. Load is the stress phase's arrival rate over what the engine can
serve of that very workload, so that both engines are pressed alike.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from driftsim import Admission, Barrier, ScenarioSpec, Store
from driftsim.cli.terminal import sweep_progress
from driftsim.request import TIERS
from driftsim.simulation.capacity import capacity as capacity_of
from driftsim.simulation.run import simulate
from driftsim.sweeps.effects import Design, Scale
from driftsim.sweeps.runner import sweep
from driftsim.sweeps.tasks import plan, spec_key
from experiments.arguments import count, folder, own_folder
from experiments.paper import followed
from experiments.paper.setup import profile, scenario, workload
from experiments.paper.study import store as write

HERE = Path(__file__).parent
SCALE = 0.6  # of DriftSched's 3,000 requests
SEEDS = 5
STRESS_RATE = 1 / 0.0175  # requests / s: gaps are uniform from 5 to 30 ms
FACTORS: dict[str, tuple[str, ...]] = {
    "engine": ("continuous", "barrier"),
    "policy": ("fifo", "priority", "weighted", "aging", "sjf"),
    "correction": ("off", "base", "estimate", "pooled", "oracle"),
    "accounting": ("tokenizer", "whitespace"),
    "safety": ("off", "on"),
    "label": ("stripped", "seen"),
    "caps": ("natural", "reference"),
    "mix": ("even", "reference"),
    "load": ("0.8", "3"),
}
# A true length needs neither a table nor a label nor a factor, so the oracle comes once; and so do the policies that
# heed no estimate, of which FIFO alone is crossed with everything, to be what SJF is compared with.
PLAIN = {"accounting": "tokenizer", "safety": "off", "label": "stripped"}
HEEDLESS = ("priority", "weighted", "aging")
LATENCIES = ("e2e_mean_s", "e2e_p50_s", "e2e_p99_s")
ERRORS = ("mae", "kendall_tau")
TRUTH_FREE = ("correction", "accounting", "safety", "label")  # what FIFO does not heed


def cells() -> Iterator[dict[str, str]]:
    """Every combination of levels that means something of its own."""
    for levels in itertools.product(*FACTORS.values()):
        cell = dict(zip(FACTORS, levels, strict=True))
        plain = all(cell[name] == level for name, level in PLAIN.items())
        once = cell["correction"] == "oracle" or cell["policy"] in HEEDLESS
        if not once or (plain and (cell["policy"] not in HEEDLESS or cell["correction"] == "off")):
            yield cell


def spec(cell: dict[str, str], seed: int, folder: Path) -> ScenarioSpec:
    """The run of ``cell`` on the workload of ``seed`` that lies in ``folder``."""
    estimators = {"off": "static", "base": "ema", "estimate": "ema"}
    return ScenarioSpec(
        trace=str(folder / place(cell["caps"], cell["mix"], seed)),
        profile=str(folder / "profile.json"),
        policy=cell["policy"],
        estimator=estimators.get(cell["correction"], cell["correction"]),
        admission=Admission(
            accounting=cell["accounting"],  # type: ignore[arg-type]
            label=cell["label"],  # type: ignore[arg-type]
            safety=Admission().safety if cell["safety"] == "on" else dict.fromkeys(TIERS, 1.0),
            feedback="estimate" if cell["correction"] == "estimate" else "base",
        ),
        barrier=Barrier() if cell["engine"] == "barrier" else None,
        rate_scale=round(float(cell["load"]) * capacity(cell["engine"], cell["caps"], cell["mix"]) / STRESS_RATE, 4),
    )


@cache
def capacity(engine: str, caps: str, mix: str, scale: float = SCALE) -> float:
    """Requests a second that ``engine`` serves of a workload that is all there at time 0, first come, first served."""
    made = workload(0, caps, mix, scale=scale)
    return capacity_of(made, scenario("fifo", "static", "tokenizer", barrier=engine == "barrier"))


def place(caps: str, mix: str, seed: int) -> str:
    """The name of a workload's folder."""
    return f"{caps}-caps-{mix}-mix-{seed}"


def prepare(folder: Path, seeds: int) -> None:
    """Write the profile and the workloads, each as the trace of a run of it; what is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    profile().save(folder / "profile.json")
    for caps, mix, seed in itertools.product(FACTORS["caps"], FACTORS["mix"], range(seeds)):
        target = folder / place(caps, mix, seed)
        if not target.exists():
            made = workload(seed, caps, mix, scale=SCALE)
            simulate(scenario("fifo", "static", "tokenizer", seed), made).write(target)


def run(folder: Path, seeds: int, jobs: int = 0) -> pd.DataFrame:
    """Run what the store in ``folder`` does not have yet; a row a run: its levels, seed and metrics."""
    prepare(folder / "workloads", seeds)
    design = [(cell, seed) for seed in range(seeds) for cell in cells()]
    specs = [spec(cell, seed, folder / "workloads") for cell, seed in design]
    tasks, inputs = plan(specs)
    with Store.open(folder / "rows", create=True) as opened, sweep_progress() as watch:
        done = sweep(tasks, inputs, opened, jobs=jobs, watch=watch)
    if done.failed:
        raise SystemExit(f"{done.failed} runs failed; driftsim show {folder / 'rows'} --where failed=True says why")
    rows = Store.open(folder / "rows").table().set_index("key")
    keys = [spec_key(asked, inputs) for asked in specs]
    metrics = [
        *LATENCIES,
        *ERRORS,
        "kendall_tau_estimate",
        "choice_fraction",
        *(f"{tier}_e2e_mean_s" for tier in TIERS),
    ]
    found = rows.loc[keys, [name for name in metrics if name in rows]].reset_index(drop=True)
    return pd.concat([pd.DataFrame([cell | {"seed": seed} for cell, seed in design]), found], axis=1)


# -- effects


DESIGN = Design(FACTORS)


def scale_of(metric: str) -> Scale:
    """On which scale effects on ``metric`` are: of tau differences, of anything else ratios."""
    return "difference" if metric == "kendall_tau" else "ratio"


def asked_of(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows that ``metric`` is asked of: an oracle does not err."""
    return rows[rows["correction"] != "oracle"] if metric in ERRORS else rows


def effect(rows: pd.DataFrame, factor: str, low: str, high: str, metric: str) -> dict[str, Any]:
    """A contrast with its interval over the seeds: a relative change, or of tau a difference."""
    value, least, most = DESIGN.effect(asked_of(rows, metric), factor, low, high, metric, scale_of(metric))
    return {"metric": metric, "from": low, "to": high, "effect": value, "low": least, "high": most}


def contrasts(factor: str) -> list[tuple[str, str]]:
    """The first level of ``factor`` against each of the others."""
    return [(FACTORS[factor][0], level) for level in FACTORS[factor][1:]]


def main_effects(rows: pd.DataFrame) -> pd.DataFrame:
    """Every factor's effect on every metric, averaged over all else.

    Of what FIFO does not heed, the effects on latency are those under SJF.
    The load's effect is not told: it is what it was chosen to be.
    """
    found = []
    for factor in FACTORS:
        if factor == "load":
            continue
        for metric in (*ERRORS, *LATENCIES):
            heeding = rows[rows["policy"] == "sjf"] if factor in TRUTH_FREE and metric in LATENCIES else rows
            for low, high in contrasts(factor):
                if metric in ERRORS and (high == "oracle" or factor == "policy"):
                    continue  # an oracle does not err; and a policy changes errors only by who is learned from first
                found.append({"factor": factor, **effect(heeding, factor, low, high, metric)})
    return pd.DataFrame(found)


def gains(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """What SJF changes against FIFO, in each group of levels of ``by``: the interactions with the policy."""
    found = []
    for levels, part in rows.groupby(list(by)):
        named = dict(zip(by, levels, strict=True))
        found += [{**named, **effect(part, "policy", "fifo", "sjf", metric)} for metric in LATENCIES]
    return pd.DataFrame(found)


def corrections(rows: pd.DataFrame) -> pd.DataFrame:
    """What each correction changes against none, by engine, accounting and load: errors, ranks, latency under SJF."""
    found = []
    sorting = rows[rows["policy"] == "sjf"]
    for levels, part in sorting.groupby(["engine", "load"]):
        named = dict(zip(("engine", "load"), levels, strict=True))
        for metric in (*ERRORS, *LATENCIES):
            for low, high in contrasts("correction"):
                if metric in ERRORS and high == "oracle":
                    continue
                found.append({**named, **effect(part, "correction", low, high, metric)})
    return pd.DataFrame(found)


def interactions(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each two factors, how far the effect of one differs between the levels of the other; largest first.

    Two levels a factor: the first and the last but the oracle. Half the difference of the differences, as is usual for
    designs of two levels (Box, Hunter and Hunter 2005), in logarithms, of tau in tau.
    """
    ends = {name: (levels[0], levels[-1]) for name, levels in FACTORS.items()} | {"correction": ("off", "base")}
    found = []
    for one, other in itertools.combinations(FACTORS, 2):
        for metric in (*ERRORS, *LATENCIES):
            if metric in ERRORS and "policy" in (one, other):
                continue
            pair = (one, *ends[one]), (other, *ends[other])
            value, low, high = DESIGN.interaction(asked_of(rows, metric), *pair, metric, scale_of(metric))
            found.append({"metric": metric, "factors": f"{one} x {other}", "effect": value, "low": low, "high": high})
    table = pd.DataFrame(found)
    table["size"] = -table["effect"].abs().round(9)  # none at all is none, whatever its last digits
    return table.sort_values(["metric", "size"], kind="stable").drop(columns="size")


def payers(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean E2E by tier from FIFO to SJF, by engine and safety factor, at the higher load and without correction."""
    asked = rows[(rows["load"] == FACTORS["load"][-1]) & (rows["correction"] == "off")]
    found = []
    for (engine, safety), part in asked.groupby(["engine", "safety"]):
        for tier in TIERS:
            made = effect(part, "policy", "fifo", "sjf", f"{tier}_e2e_mean_s")
            found.append({"engine": engine, "safety": safety, "tier": tier.value, **made})
    return pd.DataFrame(found).drop(columns="metric")


def stored() -> pd.DataFrame:
    """The rows that are kept: a run each, its levels, seed and metrics."""
    return pd.read_parquet(HERE / "factorial" / "rows.parquet")


def stored_tables() -> dict[str, pd.DataFrame]:
    """The tables of the rows that are kept; the runs have a command of their own."""
    return tables(stored())


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All tables of the factorial, by name."""
    return {
        "main_effects": main_effects(rows),
        "gains": gains(rows, ("engine", "load")),
        "gains_by_caps": gains(rows[rows["load"] == FACTORS["load"][-1]], ("engine", "caps")),
        "corrections": corrections(rows),
        "interactions": interactions(rows),
        "payers": payers(rows),
        "followed": followed.table(rows, DESIGN),
        "accounted": followed.accounted(rows, DESIGN),
    }


def main() -> None:
    """Run the design, resumably, and write its rows and tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--store", type=own_folder, default="out/factorial", help="folder of workloads and rows")
    parser.add_argument("--seeds", type=count, default=SEEDS, help="workloads a cell")
    parser.add_argument("--jobs", type=count, default=0, help="processes [default: one a core]")
    parser.add_argument("--out", type=folder, default=str(HERE / "factorial"), help="folder of the tables")
    asked = parser.parse_args()
    rows = run(asked.store, asked.seeds, asked.jobs)
    write(tables(rows), asked.out)
    rows.to_parquet(asked.out / "rows.parquet", index=False)
    print(f"{len(rows)} runs; rows and tables in {asked.out}")


if __name__ == "__main__":
    main()
