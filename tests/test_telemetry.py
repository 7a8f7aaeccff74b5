"""Telemetry: whose CPU it was, what a GPU tells, and what it costs."""

from __future__ import annotations

import hashlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from driftsim.live import telemetry
from driftsim.live.telemetry import CPU_COLUMNS, GPU_COLUMNS, Monitor, foreign_limit

PATIENCE_S = 120.0  # for what comes in a moment where nobody else works


class Samples:
    """A sink that can be waited at: what a sample tells depends on the machine, that one comes does not."""

    def __init__(self) -> None:
        self.seen: queue.Queue[tuple[float, ...]] = queue.Queue()

    def __call__(self, names: Sequence[str], values: Sequence[float]) -> None:
        self.seen.put(tuple(values))

    def wait(self, count: int = 1) -> float:
        """Return once ``count`` more samples have been made; the time of the last (monotonic, s)."""
        return [self.seen.get(timeout=PATIENCE_S) for _ in range(count)][-1][0]

    def wait_past(self, moment: float) -> None:
        """Return once a sample is of a later time than ``moment``, and so covers all until then."""
        while self.wait() <= moment:
            pass


def cpu_s(monitor: Monitor, column: str, start: float) -> float:
    """The CPU seconds that the samples after the one at ``start`` tell of."""
    table = monitor.table(start)
    return float((table[column].to_numpy()[1:] * np.diff(table["time_s"])).sum())


BURN = """
import sys, time
sys.stdin.readline()
end = time.process_time() + 0.6
while time.process_time() < end: pass
print("done", flush=True)
sys.stdin.readline()
"""


def work(seconds: float, turn: threading.Lock) -> None:
    """Use CPU seconds in this process, without Python's lock, which the sampling thread needs; only in our turn."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        with turn:
            hashlib.sha256(bytes(10_000_000))


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> threading.Lock:
    """Held while the counters are read: what is used between two of them would be ascribed by chance."""
    lock, read = threading.Lock(), Monitor._reading

    def alone(monitor: Monitor) -> tuple[float, float, float, float]:
        with lock:
            return read(monitor)

    monkeypatch.setattr(Monitor, "_reading", alone)
    return lock


def test_a_childs_work_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine on which nobody else works."""
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.1)
    samples = Samples()
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        its = psutil.Process(child.pid)
        monkeypatch.setattr(telemetry, "_busy", lambda: (time.process_time() + sum(its.cpu_times()[:2]), 0.0))
        with Monitor(sink=samples) as monitor:
            start = samples.wait()
            child.stdin.write(b"go\n")
            child.stdin.flush()
            assert child.stdout.readline() == b"done\n"
            samples.wait_past(time.monotonic())
        child.stdin.close()
    assert cpu_s(monitor, "own_cpu", start) > 0.5
    assert cpu_s(monitor, "foreign_cpu", start) < 0.2


def test_our_own_work_is_not_foreign(monkeypatch: pytest.MonkeyPatch, turn: threading.Lock) -> None:
    """On a machine on which nobody else works."""
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.1)
    monkeypatch.setattr(telemetry, "_busy", lambda: (time.process_time(), 0.0))
    samples = Samples()
    with Monitor(sink=samples) as monitor:
        start = samples.wait()
        work(0.6, turn)
        samples.wait_past(time.monotonic())
    own = cpu_s(monitor, "own_cpu", start)
    assert own > 0.5
    assert cpu_s(monitor, "foreign_cpu", start) < own / 4


def test_foreign_load_is_never_negative(monkeypatch: pytest.MonkeyPatch, turn: threading.Lock) -> None:
    """The machine's counter may lag behind ours: here it stands still."""
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.1)
    monkeypatch.setattr(telemetry, "_busy", lambda: (0.0, 0.0))
    samples = Samples()
    with Monitor(sink=samples) as monitor:
        start = samples.wait()
        work(0.2, turn)
        samples.wait_past(time.monotonic())
    assert cpu_s(monitor, "own_cpu", start) > 0.1
    assert set(monitor.table(start)["foreign_cpu"]) == {0.0}
    load = monitor.load(start)
    assert (load.foreign_cpu_mean, load.foreign_cpu_max, load.disturbed) == (0.0, 0.0, False)


def test_work_of_others_marks_the_run_as_disturbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.2)
    (tmp_path / "go").touch()
    shell = f"{sys.executable} -c 'import os\nwhile os.path.exists(\"{tmp_path}/go\"): pass' & exit"
    subprocess.run(["setsid", "-f", "sh", "-c", shell], check=True)  # nobody's child
    samples, start = Samples(), time.monotonic()
    with Monitor(sink=samples) as monitor:
        samples.wait(3)
        while not monitor.load(start).disturbed and time.monotonic() < start + PATIENCE_S:
            samples.wait()
    (tmp_path / "go").unlink()
    load = monitor.load(start)
    assert load.disturbed
    assert load.foreign_cpu_mean > foreign_limit(load.cpu_count) == load.foreign_cpu_limit


def test_samples_reach_the_sink_as_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.05)
    samples = Samples()
    with Monitor(sink=samples) as monitor:
        samples.wait(4)
    assert samples.seen.qsize() + 4 == len(monitor.table(0.0))
    assert list(monitor.table(0.0).columns) == list(monitor.columns)


def test_a_full_disk_ends_the_samples_file_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.05)

    def full(names: object, values: object) -> None:
        raise OSError(28, "No space left on device")

    end = time.monotonic() + PATIENCE_S
    with Monitor(sink=full) as monitor:
        while len(monitor.table(0.0)) <= 3 and time.monotonic() < end:
            time.sleep(0.01)
    assert len(monitor.table(0.0)) > 3
    assert "No space left" in monitor.notes[0]


class Nvml(SimpleNamespace):
    """What nvidia-ml-py offers, on a machine that has no such device; one figure is not told."""

    NVMLError = RuntimeError
    NVML_TEMPERATURE_GPU = NVML_CLOCK_SM = 0
    NVML_CLOCK_MEM = 1

    def __init__(self) -> None:
        def untold(handle: object) -> int:
            raise RuntimeError("not supported")

        super().__init__(
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetName=lambda handle: "NVIDIA L4",
            nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=87),
            nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=3 * 2**30),
            nvmlDeviceGetPowerUsage=lambda handle: 71_500,
            nvmlDeviceGetTemperature=lambda handle, which: 64,
            nvmlDeviceGetClockInfo=lambda handle, which: 1_500 + which,
            nvmlDeviceGetPerformanceState=untold,
        )


def test_a_gpu_is_sampled_five_times_a_second_in_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_nvml", Nvml)
    samples = Samples()
    with Monitor(sink=samples) as monitor:
        samples.wait(3)
    assert monitor.interval_s == 0.2
    table = monitor.table(0.0)
    assert tuple(table.columns) == CPU_COLUMNS + GPU_COLUMNS
    assert len(table) >= 3
    assert telemetry.gpus() == ["NVIDIA L4"]
    row = table.iloc[0]
    assert list(row[list(GPU_COLUMNS)[:6]]) == [87, 3 * 1024, 71.5, 64, 1500, 1501]
    assert np.isnan(row["gpu_performance_state"])


@pytest.mark.nightly
def test_telemetry_takes_at_most_a_hundredth_of_a_core() -> None:
    code = (
        "import time, os\nfrom driftsim.live.telemetry import Monitor\n"
        "with Monitor((os.getppid(),)):\n"
        "    time.sleep(1); before, begun = time.process_time(), time.monotonic(); time.sleep(6)\n"
        "    print((time.process_time() - before) / (time.monotonic() - begun))"
    )
    for _ in range(3):  # others on the machine make the same work dearer
        used = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        if float(used) <= 0.01:
            break
    assert float(used) <= 0.01
