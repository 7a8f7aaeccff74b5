"""Telemetry: whose CPU it was, what a GPU tells, and what it costs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from driftsim.live import telemetry
from driftsim.live.telemetry import CPU_COLUMNS, FOREIGN_CPU_LIMIT, GPU_COLUMNS, Monitor


def burn(seconds: float) -> subprocess.Popen[bytes]:
    code = f"import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: pass"
    return subprocess.Popen([sys.executable, "-c", code])


def work(seconds: float) -> None:
    """In this process, and without Python's lock, which the sampling thread needs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        hashlib.sha256(bytes(10_000_000))


def test_a_childs_work_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.2)
    start = time.monotonic()
    child = burn(0.6)
    with Monitor() as monitor:
        child.wait()
        time.sleep(0.3)
    load = monitor.load(start)
    assert load.own_cpu_mean > 0.3
    assert load.own_cpu_mean > 3 * load.foreign_cpu_mean or load.foreign_cpu_mean > FOREIGN_CPU_LIMIT


def test_our_own_work_is_not_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine on which nobody else works."""
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.5)
    monkeypatch.setattr(telemetry, "_busy", lambda: (time.process_time(), 0.0))
    start = time.monotonic()
    with Monitor() as monitor:
        work(1.7)
    load = monitor.load(start)
    assert load.own_cpu_mean > 0.15
    assert load.foreign_cpu_mean < load.own_cpu_mean / 4


def test_foreign_load_is_never_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's counter may lag behind ours: here it stands still."""
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.2)
    monkeypatch.setattr(telemetry, "_busy", lambda: (0.0, 0.0))
    start = time.monotonic()
    with Monitor() as monitor:
        work(0.7)
    load = monitor.load(start)
    assert load.own_cpu_mean > 0.05
    assert set(monitor.table(start)["foreign_cpu"]) == {0.0}
    assert (load.foreign_cpu_mean, load.foreign_cpu_max, load.disturbed) == (0.0, 0.0, False)


def test_work_of_others_marks_the_run_as_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.2)
    shell = f"{sys.executable} -c 'import time\nend = time.time() + 2\nwhile time.time() < end: pass' & exit"
    subprocess.run(["setsid", "-f", "sh", "-c", shell], check=True)  # nobody's child
    start = time.monotonic()
    with Monitor() as monitor:
        time.sleep(1.2)
    load = monitor.load(start)
    assert load.disturbed
    assert load.foreign_cpu_mean > FOREIGN_CPU_LIMIT == load.foreign_cpu_limit


def test_samples_reach_the_sink_as_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.05)
    seen: list[tuple[float, ...]] = []
    with Monitor(sink=lambda names, values: seen.append(tuple(values))) as monitor:
        time.sleep(0.3)
    assert len(seen) == len(monitor.table(0.0)) > 3
    assert list(monitor.table(0.0).columns) == list(monitor.columns)


def test_a_full_disk_ends_the_samples_file_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "CPU_INTERVAL_S", 0.05)

    def full(names: object, values: object) -> None:
        raise OSError(28, "No space left on device")

    with Monitor(sink=full) as monitor:
        time.sleep(0.3)
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
    with Monitor() as monitor:
        time.sleep(0.7)
    table = monitor.table(0.0)
    assert tuple(table.columns) == CPU_COLUMNS + GPU_COLUMNS
    assert len(table) >= 3
    assert telemetry.gpus() == ["NVIDIA L4"]
    row = table.iloc[0]
    assert list(row[list(GPU_COLUMNS)[:6]]) == [87, 3 * 1024, 71.5, 64, 1500, 1501]
    assert np.isnan(row["gpu_performance_state"])


def test_telemetry_takes_at_most_a_hundredth_of_a_core() -> None:
    code = (
        "import time, os\nfrom driftsim.live.telemetry import Monitor\n"
        "with Monitor((os.getppid(),)):\n"
        "    time.sleep(1); before = time.process_time(); time.sleep(6); print(time.process_time() - before)"
    )
    used = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert float(used) / 6 <= 0.01
