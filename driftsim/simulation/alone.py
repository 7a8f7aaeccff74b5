"""How long a request of each size takes alone on an engine: simulated one at a time, with nobody else there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from driftsim.metrics import e2e
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.classify import FALLBACK
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.trace.header import WorkloadInfo
from driftsim.workloads.processes import Process
from driftsim.workloads.table import workload_table
from driftsim.workloads.workload import Workload

PAUSE_S = 10.0  # between a request and the next: longer than any engine takes to come to rest
SIZE = ("prompt_tokens", "output_tokens")


def sizes_of(table: pd.DataFrame) -> set[tuple[int, int]]:
    """Prompt and output tokens of the requests in ``table``, each size once; not of those whose output is unknown."""
    known = table[[*SIZE]].dropna().astype(int)
    return {(prompt, output) for prompt, output in known.itertuples(index=False) if output > 0}


def alone_times(sizes: Iterable[tuple[int, int]], scenario: Scenario) -> dict[tuple[int, int], float]:
    """End-to-end latency (s) of each of ``sizes``, prompt and output tokens, alone on the engine of ``scenario``.

    Whatever the scenario's policy, since nobody waits; step times are without noise. A size that the engine rejects is
    left out. Behind a barrier, the time is in it until the worker looks again.
    """
    ordered = sorted(sizes)
    if not ordered:
        return {}
    process = Process(kind="closed", users=1, think_s=PAUSE_S)
    phases = (process.phase(len(ordered)),)
    prompts, outputs = (list(column) for column in zip(*ordered, strict=True))
    table = workload_table(
        phases, prompt_tokens=prompts, output_tokens=outputs, max_tokens=outputs, stops=False, category=FALLBACK
    )
    one_by_one = Workload(WorkloadInfo(name="alone", loop="closed", phases=phases), table)
    plain = replace(
        scenario, policy="fifo", estimator="static", admission=Admission(), tiers=(), max_in_flight=None, noise=False,
        slos=(),
    )  # fmt: skip
    rows = simulate(plain, one_by_one).requests
    done = rows["finish_reason"].isin(["stop", "length"]).tolist()
    times = e2e(rows).tolist()
    return {size: time for size, time, finished in zip(ordered, times, done, strict=True) if finished}
