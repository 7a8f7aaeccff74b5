"""Telemetry samples how busy the machine is, by us and by others, while an engine is measured.

Another runnable process makes a CPU engine's steps three to five times longer, so a capture records foreign load and
is marked as disturbed where it was too high.
"""

from __future__ import annotations

import os
import threading
import time

import pandas as pd
import psutil

from driftsim.trace import MachineLoad

FOREIGN_CPU_LIMIT = 0.05  # cores, mean over a capture


class CpuMonitor:
    """A thread that samples CPU use each ``interval_s``: all of it, our process tree's share, and the rest.

    Use as a context manager; ``table`` and ``load`` then tell what happened between enter and exit.
    """

    def __init__(self, interval_s: float = 1.0) -> None:
        self.interval_s = interval_s
        self._samples: list[tuple[float, float, float, float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> CpuMonitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def table(self, start: float) -> pd.DataFrame:
        """Samples with ``time_s`` counted from ``start`` (monotonic, s) and loads in cores; those before it are cut."""
        names = ["time_s", "busy_cpu", "own_cpu", "foreign_cpu", "steal_cpu"]
        table = pd.DataFrame(self._samples, columns=names, dtype=float)
        table["time_s"] -= start
        return table[table["time_s"] >= 0].reset_index(drop=True)

    def load(self, start: float) -> MachineLoad:
        """Means since ``start``."""
        table = self.table(start)
        foreign = table["foreign_cpu"]
        mean = float(foreign.mean()) if len(table) else 0.0
        return MachineLoad(
            cpu_count=os.cpu_count() or 1,
            own_cpu_mean=round(float(table["own_cpu"].mean()) if len(table) else 0.0, 4),
            foreign_cpu_mean=round(mean, 4),
            foreign_cpu_max=round(float(foreign.max()) if len(table) else 0.0, 4),
            foreign_cpu_limit=FOREIGN_CPU_LIMIT,
            disturbed=mean > FOREIGN_CPU_LIMIT,
        )

    def _run(self) -> None:
        process = psutil.Process()
        then, (busy, steal), own = time.monotonic(), _busy(), _own(process)
        while not self._stop.wait(self.interval_s):
            now, (busy_now, steal_now), own_now = time.monotonic(), _busy(), _own(process)
            span = now - then
            used, ours = (busy_now - busy) / span, (own_now - own) / span
            self._samples.append((now, used, ours, max(0.0, used - ours), (steal_now - steal) / span))
            then, busy, steal, own = now, busy_now, steal_now, own_now


def _busy() -> tuple[float, float]:
    """CPU seconds of everybody since boot, and those stolen by the hypervisor."""
    times = psutil.cpu_times()
    busy = times.user + times.nice + times.system + times.irq + times.softirq
    return busy, times.steal


def _own(process: psutil.Process) -> float:
    """CPU seconds of our process tree."""
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        try:
            times = member.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total
