"""What load the shipped trace's engine takes within an SLO: by policy, and with more slots. Kept beside this file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pandas as pd

from driftsim import CapacityResult, capacity
from driftsim.formatting import between
from driftsim.statistics import Interval
from experiments.arguments import plain

ROOT = Path(__file__).resolve().parent.parent
STORED = Path(__file__).with_suffix("")
TRACE = "traces/smollm2-cpu-drift"
POLICIES = ("fifo", "priority", "weighted", "sjf", "aging")
SLOTS = (16, 32, 64)
KEPT = ("capacity.csv", "loads.csv", "capacity.svg", "capacity.png")
SLO, LOOSE, SHARE = "ttft=2s", "ttft=20s", 0.8
SEARCHES = ("policies", "slots", "share")


def main() -> None:
    """Search, and keep what is printed, the rows and the figure."""
    STORED.mkdir(exist_ok=True)
    keep(capacity(ROOT / TRACE, slos=SLO, policies=POLICIES), "policies")
    keep(capacity(ROOT / TRACE, slos=SLO, axes={"engine.max_num_seqs": SLOTS}), "slots")
    keep(capacity(ROOT / TRACE, slos=LOOSE, target=SHARE, policies=("fifo", "sjf")), "share")


def keep(result: CapacityResult, name: str) -> None:
    """Write ``result`` as ``name`` into the folder of what is stored."""
    with tempfile.TemporaryDirectory() as aside:
        out = result.write(Path(aside) / "out")
        for file in KEPT:
            shutil.copy(out / file, STORED / f"{name}-{file}")
    (STORED / f"{name}.txt").write_text(f"{result}\n")


def block(name: str) -> str:
    """What was printed of the search ``name``."""
    return f"```text\n{(STORED / f'{name}.txt').read_text()}```\n"


def answer() -> str:
    """The capacity of the first policy, its interval, and the best of the others, in a sentence."""
    first, *others = pd.read_csv(STORED / "policies-capacity.csv").to_dict("records")
    best = max(others, key=lambda row: float(row["change"]))
    change = Interval(best["change"], best["change_low"], best["change_high"])
    return (
        f"{first['rate']:.3g} requests/s [{first['rate_low']:.3g}, {first['rate_high']:.3g}] under {first['policy']}, "
        f"with 99 % within {SLO}; {best['policy']} changes that most, by {between(change)}."
    )


if __name__ == "__main__":
    plain("experiments.capacity", __doc__)
    main()
