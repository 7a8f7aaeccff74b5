"""Telemetry samples how busy the machine is, by us and by others, while an engine is measured.

Another runnable process makes a CPU engine's steps three to five times longer, so a capture records foreign load and
is marked as disturbed where it was too high. Where there is a GPU, its state is sampled with it.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pandas as pd
import psutil

from driftsim.trace.header import MachineLoad

FOREIGN_CPU_LIMIT = 0.05  # cores of two, mean over a capture; a larger machine bears as large a share of its own
CPU_COLUMNS = ("time_s", "busy_cpu", "own_cpu", "foreign_cpu", "steal_cpu")  # cores
GPU_COLUMNS = (
    "gpu_utilization_percent",
    "gpu_memory_used_mib",
    "gpu_power_w",
    "gpu_temperature_c",
    "gpu_sm_clock_mhz",
    "gpu_memory_clock_mhz",
    "gpu_performance_state",
)
CPU_INTERVAL_S, GPU_INTERVAL_S = 1.0, 0.2
FAMILY_S = 10.0  # how often our process tree is looked up anew: reading all of /proc is the dear part


def foreign_limit(cores: int) -> float:
    """The mean foreign load (cores) from which on a capture on a machine of ``cores`` counts as disturbed.

    >>> foreign_limit(2), foreign_limit(16)
    (0.05, 0.4)
    """
    return round(FOREIGN_CPU_LIMIT * max(1.0, cores / 2), 4)


class Monitor:
    """A thread that samples the machine: all CPU use, our process tree's share, the rest, and the first visible GPU.

    ``own`` names processes that belong to us though they are no children, such as a server on this host; ``sink`` is
    handed column names and values of every sample. Use as a context manager; ``table`` and ``load`` tell what happened
    between enter and exit.
    """

    def __init__(
        self,
        own: Sequence[int] = (),
        sink: Callable[[Sequence[str], Sequence[float]], None] = lambda names, values: None,
    ) -> None:
        self._gpu = Gpu.first()
        self.interval_s = CPU_INTERVAL_S if self._gpu is None else GPU_INTERVAL_S
        self.columns = CPU_COLUMNS if self._gpu is None else CPU_COLUMNS + GPU_COLUMNS
        self.notes: tuple[str, ...] = ()
        self._family = _Family((os.getpid(), *own))
        self._sink = sink
        self._samples: list[tuple[float, ...]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def latest(self) -> float:
        """When the last sample was made (monotonic, s); minus infinity before the first."""
        return self._samples[-1][0] if self._samples else -math.inf

    def table(self, start: float) -> pd.DataFrame:
        """Samples with ``time_s`` counted from ``start`` (monotonic, s) and loads in cores; those before it are cut."""
        table = pd.DataFrame(self._samples, columns=list(self.columns), dtype=float)
        table["time_s"] -= start
        return table[table["time_s"] >= 0].reset_index(drop=True)

    def load(self, start: float) -> MachineLoad:
        """Means since ``start``."""
        table = self.table(start)
        foreign = table["foreign_cpu"]
        mean = float(foreign.mean()) if len(table) else 0.0
        cores = os.cpu_count() or 1
        limit = foreign_limit(cores)
        return MachineLoad(
            cpu_count=cores,
            own_cpu_mean=round(float(table["own_cpu"].mean()) if len(table) else 0.0, 4),
            foreign_cpu_mean=round(mean, 4),
            foreign_cpu_max=round(float(foreign.max()) if len(table) else 0.0, 4),
            foreign_cpu_limit=limit,
            disturbed=mean > limit,
        )

    def _run(self) -> None:
        then, busy, steal, own = self._reading()
        while not self._stop.wait(self.interval_s):
            now, busy_now, steal_now, own_now = self._reading()
            span = now - then
            # The kernel's counters go back by a tick now and then.
            used, ours, stolen = (max(0.0, part / span) for part in (busy_now - busy, own_now - own, steal_now - steal))
            sample: tuple[float, ...] = (now, used, ours, max(0.0, used - ours), stolen)
            if self._gpu is not None:
                sample += self._gpu.sample()
            self._samples.append(sample)
            try:
                self._sink(self.columns, sample)
            except OSError as error:
                self._sink = lambda names, values: None
                self.notes = (f"telemetry could not be written while recording: {error.strerror}",)
            then, busy, steal, own = now, busy_now, steal_now, own_now

    def _reading(self) -> tuple[float, float, float, float]:
        """The time (s), and the CPU seconds of everybody, those stolen, and ours, all of the same moment.

        Ours are read before and after the others: what we use in between, and looking us up is dear, would else count
        as foreign on a machine that lets us wait.
        """
        self._family.look_up()
        before = self._family.cpu_s()
        now, (busy, steal) = time.monotonic(), _busy()
        return now, busy, steal, (before + self._family.cpu_s()) / 2


class _Family:
    """The CPU seconds of processes and all their descendants, those that have ended included."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots
        self._members: dict[int, psutil.Process] = {}
        self._used: dict[int, float] = {}
        self._looked_up = -FAMILY_S

    def look_up(self) -> None:
        """Find the members anew, where the last time was a while ago."""
        now = time.monotonic()
        if now - self._looked_up >= FAMILY_S or len(self._members) == len(self._roots):
            self._looked_up = now
            for root in self._roots:
                with suppress(psutil.Error):
                    process = psutil.Process(root)
                    for member in [process, *process.children(recursive=True)]:
                        self._members.setdefault(member.pid, member)

    def cpu_s(self) -> float:
        """What they used so far."""
        for pid, member in list(self._members.items()):
            try:
                times = member.cpu_times()
                self._used[pid] = times.user + times.system
            except psutil.Error:
                del self._members[pid]
        return sum(self._used.values())


def _busy() -> tuple[float, float]:
    """CPU seconds of everybody since boot, and those stolen by the hypervisor."""
    times = psutil.cpu_times()
    busy = times.user + times.nice + times.system + times.irq + times.softirq
    return busy, times.steal


class Gpu:
    """The first GPU that this process may use, through NVML."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    @classmethod
    def first(cls) -> Gpu | None:
        """None where there is no GPU, or no library (nvidia-ml-py) to ask it."""
        nvml = _nvml()
        if nvml is None:
            return None
        try:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
            return cls(nvml, nvml.nvmlDeviceGetHandleByIndex(int(visible) if visible.isdigit() else 0))
        except nvml.NVMLError:
            return None

    @property
    def name(self) -> str:
        """What its maker calls it."""
        name = self._nvml.nvmlDeviceGetName(self._handle)
        return name.decode() if isinstance(name, bytes) else str(name)

    def sample(self) -> tuple[float, ...]:
        """``GPU_COLUMNS``; NaN where the device does not tell."""
        nvml, handle = self._nvml, self._handle
        asked: tuple[Callable[[], float], ...] = (
            lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
            lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20,
            lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            lambda: nvml.nvmlDeviceGetPerformanceState(handle),
        )
        return tuple(map(self._told, asked))

    def _told(self, ask: Callable[[], float]) -> float:
        try:
            return float(ask())
        except self._nvml.NVMLError:
            return float("nan")


def gpus() -> list[str]:
    """The name of the GPU that telemetry would sample, if there is one."""
    gpu = Gpu.first()
    return [] if gpu is None else [gpu.name]


def _nvml() -> Any:
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
