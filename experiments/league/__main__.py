"""Play the league: every policy with every estimator on the fixed workloads, and keep the table beside this file.

python -m experiments.league --store out/league                            # all of it; goes on where it was killed
python -m experiments.league --store out/league --add mine.py:LongestFirst # with a policy of yours; only printed
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from driftsim.errors import InputError
from experiments.arguments import count, folder
from experiments.league import FIELD, league
from experiments.league.document import keep


def main() -> None:
    """Play, and keep the table unless others take part."""
    parser = argparse.ArgumentParser(prog="experiments.league", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--store", type=Path, help="folder that keeps the runs")
    parser.add_argument("--add", action="append", default=[], help="a policy of yours, file.py:Class; repeat it")
    parser.add_argument("--jobs", type=count, default=0, help="local processes [one a core]")
    options = parser.parse_args()
    if options.store is not None:
        folder(str(options.store.parent))
    begin, shown = time.perf_counter(), 0.0

    def told(done: int, total: int) -> None:
        nonlocal shown
        if time.perf_counter() - shown > 5 or done == total:
            shown = time.perf_counter()
            print(f"runs: {done} of {total}, {shown - begin:.0f} s", file=sys.stderr, flush=True)

    try:
        table = league([*FIELD, *options.add], store=options.store, jobs=options.jobs, progress=told)
    except InputError as error:
        parser.error(str(error))
    print(table, end="")
    if not options.add:
        keep(table)


if __name__ == "__main__":
    main()
