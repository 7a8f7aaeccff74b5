"""What a server tells of itself is believed as far as it can be true."""

from __future__ import annotations

import re
from typing import Any

from driftsim.live.pages import Page
from driftsim.trace.schema import LARGEST_COUNT

MOST_LABELS, LONGEST_NAME = 4_000, 1_000  # characters of a line of metrics, and of a model's name
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, which no request can hold


def cache_settings(page: Page) -> dict[str, Any]:
    """What vLLM's Prometheus ``page`` tells of its KV cache."""
    match = re.search(r"^vllm:cache_config_info\{(.*)\}", page.text if page.status == 200 else "", re.MULTILINE)
    labels = dict(re.findall(r'(\w+)="([^"]*)"', match[1][:MOST_LABELS])) if match else {}
    settings: dict[str, Any] = {}
    for name, label, least in (("kv_blocks", "num_gpu_blocks", 2), ("block_size", "block_size", 1)):
        if re.fullmatch("[0-9]{1,9}", labels.get(label, "")) and int(labels[label]) >= least:
            settings[name] = int(labels[label])
    if labels.get("enable_prefix_caching") in ("True", "False"):
        settings["enable_prefix_caching"] = labels["enable_prefix_caching"] == "True"
    return settings


def counted(told: Any, most: int = LARGEST_COUNT) -> int:
    """A count that a server tells; 0 where it is none, or above ``most``, as no trace or no prompt can have it."""
    is_count = isinstance(told, int) and not isinstance(told, bool) and 1 <= told <= most
    return told if is_count else 0


def is_name(told: Any) -> bool:
    """Whether ``told`` can name a model: a text that can be sent back."""
    return isinstance(told, str) and 0 < len(told) <= LONGEST_NAME and not SURROGATE.search(told)
