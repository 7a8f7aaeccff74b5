"""What a server tells of itself is believed as far as it can be true."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from driftsim.errors import InputError
from driftsim.live.pages import Page
from driftsim.request import Job
from driftsim.trace.schema import LARGEST_COUNT
from driftsim.trace.settings import GUESSES, EngineSettings

MOST_LABELS, LONGEST_NAME = 4_000, 1_000  # characters of a line of metrics, and of a model's name
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, which no request can hold

ACCELERATORS = (
    "nvidia[0-9]*",
    "dxg",
    "kfd",
    "dri/render*",
    "accel*",
    "davinci[0-9]*",
)  # in /dev, as vLLM may use them


def as_usual(settings: EngineSettings, is_vllm: bool, processes: Iterable[int]) -> EngineSettings:
    """``settings`` with what vLLM does by default in place of what it did not tell.

    It caches prefixes (vllm/config/cache.py), and on a CPU schedules no step while another runs (platforms/cpu.py).
    ``processes`` are those of the server, where they are on this machine.
    """
    usual: dict[str, Any] = {}
    if is_vllm:
        usual["enable_prefix_caching"] = True
    if is_vllm and _runs_on_cpu(settings.version, processes):
        usual["async_scheduling"] = False
    return settings.changed(**{name: value for name, value in usual.items() if name in settings.assumed})


def order_of(processes: Iterable[int], said: str | None) -> dict[str, str]:
    """The order of service that a vLLM among ``processes``, of this machine, was started with, where its command says.

    Raises ``InputError`` where the user ``said`` another.
    """
    for process in processes:
        with suppress(psutil.Error):
            command = psutil.Process(process).cmdline()
            found = re.search(r"--scheduling[-_]policy[= ](fcfs|priority)(?= |$)", " ".join(command))
            if found and _is_vllm(command):
                if said not in (None, found[1]):
                    raise InputError(
                        f"--scheduling-policy {said}: the server was started with {found[1]}; drop it, or start it anew"
                    )
                return {"scheduling_policy": found[1]}
    return {}


def of_assumed(settings: EngineSettings) -> tuple[str, ...]:
    """A note of what the server does not tell of its ``settings``; none where it tells all."""
    if not settings.assumed:
        return ()
    assumed = ", ".join(f"{name} ({getattr(settings, name)})" for name in settings.assumed)
    return (f"the server does not tell {assumed}: assumed, give them as options if you know them",)


def _runs_on_cpu(version: str, processes: Iterable[int]) -> bool:
    """Whether vLLM's ``version`` says so, or one of its ``processes`` runs on this machine, which has nothing else."""
    if "cpu" in version:
        return True
    here = False
    for process in processes:
        with suppress(psutil.Error):
            here = here or _is_vllm(psutil.Process(process).cmdline())
    return here and not _devices()


def _is_vllm(command: list[str]) -> bool:
    """Whether ``command`` is vLLM itself: its title, its program or its module in Python, or a script that names it.

    What only carries its name, such as a tunnel to a host that is called so, is not.
    """
    title, *arguments = [part.lower() for part in command] or [""]
    program = Path(title).name
    script = next((part for part in arguments if not part.startswith("-")), "")
    runs_python = program.startswith("python") and "vllm" in Path(script).name
    return runs_python or program == "vllm" or title.startswith("vllm::")


def _devices() -> list[str]:
    """The accelerators of this machine, as files."""
    return [file.name for name in ACCELERATORS for file in Path("/dev").glob(name)]


def cache_settings(page: Page) -> dict[str, Any]:
    """What vLLM's Prometheus ``page`` tells of its KV cache."""
    match = re.search(r"^vllm:cache_config_info\{(.*)\}", page.text if page.status == 200 else "", re.MULTILINE)
    labels = dict(re.findall(r'(\w+)="([^"]*)"', match[1][:MOST_LABELS])) if match else {}
    settings: dict[str, Any] = {}
    for name, label, least in (("kv_blocks", "num_gpu_blocks", 2), ("block_size", "block_size", 1)):
        if re.fullmatch("[0-9]{1,9}", labels.get(label, "")) and int(labels[label]) >= least:
            settings[name] = int(labels[label])
    if re.fullmatch("[1-9][0-9]{0,8}", labels.get("sliding_window", "")):
        settings["sliding_window"] = int(labels["sliding_window"])
    interval = labels.get("prefix_cache_retention_interval", "")
    if interval == "None":
        settings["prefix_cache_retention_interval"] = None
    elif re.fullmatch("[0-9]{1,9}", interval) and not int(interval) % settings.get("block_size", GUESSES["block_size"]):
        settings["prefix_cache_retention_interval"] = int(interval)
    if labels.get("enable_prefix_caching") in ("True", "False"):
        settings["enable_prefix_caching"] = labels["enable_prefix_caching"] == "True"
    return settings


def token_ids(told: Any, count: int) -> list[int] | None:
    """The token ids that vLLM's ``/tokenize`` told beside their ``count``; None where they are not so many."""
    ids = told.get("tokens") if isinstance(told, dict) else None
    if not isinstance(ids, list) or len(ids) != count:
        return None
    return ids if all(type(one) is int and 0 <= one <= LARGEST_COUNT for one in ids) else None


def counted(told: Any, most: int = LARGEST_COUNT) -> int:
    """A count that a server tells; 0 where it is none, or above ``most``, as no trace or no prompt can have it."""
    is_count = isinstance(told, int) and not isinstance(told, bool) and 1 <= told <= most
    return told if is_count else 0


def is_name(told: Any) -> bool:
    """Whether ``told`` can name a model: a text that can be sent back."""
    return isinstance(told, str) and 0 < len(told) <= LONGEST_NAME and not SURROGATE.search(told)


def listening(port: int) -> tuple[int, ...]:
    """The process that listens on ``port`` of this host: what it uses is ours, not foreign."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            at = connection.laddr  # empty where there is none
            if connection.status == psutil.CONN_LISTEN and at and at.port == port and connection.pid:
                return (connection.pid,)
    return ()


def extensions(job: Job, true_length: int | None, settings: EngineSettings) -> dict[str, Any] | None:
    """What vLLM takes beside OpenAI's own: that a length is forced, and the priority where the server orders by it."""
    told: dict[str, Any] = {} if true_length is None else {"ignore_eos": True}
    return (told | ({"priority": job.priority} if settings.scheduling_policy == "priority" else {})) or None


def is_final(error: Exception) -> bool:
    """Whether a client does not send again what got this ``error`` (openai-python, ``_should_retry``)."""
    status = getattr(error, "status_code", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in (408, 409, 429)


def retry_after(error: Exception) -> float | None:
    """The seconds after which the server wants to see the request again, by ``Retry-After`` or its finer cousin."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except (TypeError, ValueError):
            continue
        return seconds if 0 < seconds < math.inf else None
    return None
