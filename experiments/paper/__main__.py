"""python -m experiments.paper [--seeds 30] [--out FOLDER]: every table and figure of the study, from nothing.

Without --out: 30 seeds, the number of the stored tables, go to experiments/paper, any other number to out/paper-SEEDS.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from driftsim.cli.terminal import progress
from experiments.arguments import count, folder
from experiments.paper import engines, estimators, factorial, figures, load, real, sensitivity, study, verdicts
from experiments.paper.setup import held_out

HERE = Path(__file__).parent
STORED_SEEDS = 30
FEW = 5  # seeds that the side studies take at most; of three they take two


def main() -> None:
    """Run everything and write it."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--seeds", type=count, default=STORED_SEEDS, help="workloads that everything is repeated on")
    parser.add_argument("--out", type=folder, help="folder of tables and figures")
    asked = parser.parse_args()
    out = asked.out or (HERE if asked.seeds == STORED_SEEDS else Path("out") / f"paper-{asked.seeds}")
    make(asked.seeds, out)


def make(seeds: int, out: Path) -> None:
    """Every table and figure of ``seeds`` workloads into ``out``."""
    begin, few = time.monotonic(), min(seeds, max(2, seeds - 1), FEW)
    out.mkdir(parents=True, exist_ok=True)
    with progress("the study", seeds) as reporter:
        rows = study.rows(seeds, reporter.advance)
    sources: tuple[Callable[[], Any], ...] = (study.drawn, estimators.on_traces, real.table, factorial.stored_tables)
    drawn, traces, measured, effects = Parallel(n_jobs=-1)(delayed(each)() for each in sources)
    tables = {"rows": rows, **drawn, "length_model": held_out(), "estimators_on_traces": traces, "real": measured}
    print(f"{len(rows)} rows of the study after {time.monotonic() - begin:.0f} s", file=sys.stderr)
    readings = sensitivity.readings(rows)
    print(f"{len(readings)} readings of the claims after {time.monotonic() - begin:.0f} s", file=sys.stderr)
    tables |= {
        "readings": readings,
        "sensitivity": sensitivity.table(readings),
        "load": load.gains(load.rows(few)),
        "estimators_on_workload": estimators.on_workload(few),
    }
    study.store(tables, out)
    documents = {"claims": verdicts.claims(readings), "engines": engines.left_on_a_continuous_engine(rows)}
    for name, content in documents.items():
        (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    study.store(effects, out / "factorial")
    figures.save_all(out)
    for claim in documents["claims"]:
        told = "" if claim["paper"] is None else f" (paper {claim['paper']:+.3f})"
        print(f"{claim['holds']:>14}  {claim['ours']:+.3f}{told}  {claim['claim']}: {claim['reading']}")
    print(verdicts.count(documents["claims"]))
    print(f"{time.monotonic() - begin:.0f} s; tables and figures in {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
