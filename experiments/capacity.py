"""What load the shipped trace's engine takes within an SLO: by policy, and with more slots. Kept beside this file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from driftsim import CapacityResult, capacity
from experiments.arguments import plain

ROOT = Path(__file__).resolve().parent.parent
STORED = Path(__file__).with_suffix("")
TRACE = "traces/smollm2-cpu-drift"
POLICIES = ("fifo", "priority", "weighted", "sjf", "aging")
SLOTS = (16, 32, 64)
KEPT = ("capacity.csv", "loads.csv", "capacity.svg", "capacity.png")
SLO, LOOSE, SHARE = "ttft=2s", "e2e=60s", 0.9


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


if __name__ == "__main__":
    plain("experiments.capacity", __doc__)
    main()
