"""Features of vLLM that change a schedule and that the simulated engine does not know, as an engine's arguments tell.

Keys are those of ``Header.engine_arguments``: what was asked for by name, and what vLLM made of it by section.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from driftsim.text import one_line, short
from driftsim.trace.settings import EngineSettings

Tells = Callable[[Any], bool]


def _is_set(value: Any) -> bool:
    return value not in (None, False, 0, "", "none", {}, [])


def _above_one(value: Any) -> bool:
    return isinstance(value, int | float) and value > 1


SLIDING = "sliding_window"
QUEUED = ("max_num_queued_reqs", "max_num_queued_tokens")
FEATURES: tuple[tuple[tuple[str, ...], Tells, str], ...] = (
    (("speculative_config",), _is_set, "speculative decoding: steps of more than one token, lookahead blocks"),
    (
        ("enable_lora", "lora_config", "lora.max_loras"),
        _is_set,
        "LoRA: requests wait for an adapter",
    ),
    (
        ("kv_transfer_config", "ec_transfer_config", "cache.kv_offloading_size", "kv_offloading_size"),
        _is_set,
        "a KV connector or offloading: waits for remote blocks",
    ),
    (("pipeline_parallel_size", "parallel.pipeline_parallel_size"), _above_one, "pipeline parallelism: more in flight"),
    (("data_parallel_size", "parallel.data_parallel_size"), _above_one, "data parallelism: an engine for each rank"),
    (("cache.sliding_window", SLIDING), _is_set, "a sliding window: blocks behind it are freed"),
    (("scheduler.is_multimodal_model",), _is_set, "a multi-modal model: a budget and a cache for its encoder"),
    (("stream_interval", "scheduler.stream_interval"), _above_one, "a stream interval: tokens reach clients in groups"),
    (("scheduler_cls", "scheduler.scheduler_cls"), _is_set, "a scheduler of its own"),
    (QUEUED, _is_set, "limits of the queue: the server turns requests away"),
)


def _followed(engine: EngineSettings) -> set[str]:
    """The names of the features that the simulated ``engine`` follows, by its own settings."""
    followed = set(QUEUED) if engine.sheds else set[str]()
    if engine.sliding_window is not None:
        followed.add(SLIDING)
    return followed


def ignored(arguments: Mapping[str, Any], engine: EngineSettings | None = None) -> list[str]:
    """The features in use, by an engine's ``arguments``, that change the schedule and are not simulated.

    ``engine``: the settings that it is simulated with, which some of them are among.

    >>> ignored({"stream_interval": 8, "enable_lora": False})
    ['a stream interval: tokens reach clients in groups (stream_interval 8)']
    """
    found, followed = [], set[str]()
    if engine is not None:
        arguments, followed = {SLIDING: engine.sliding_window} | dict(arguments), _followed(engine)
    for names, tells, what in FEATURES:
        name = next((name for name in names if tells(arguments.get(name))), None)
        if name is not None and name.rpartition(".")[2] not in followed:
            found.append(f"{what} ({name} {short(one_line(str(arguments[name])), 60)})")
    return found
