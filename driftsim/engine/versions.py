"""What differs between the versions of vLLM in the decisions that are simulated: one flag a rule, from 0.19 to 0.33.

Found by comparing vLLM's sources version by version, and by driving the scheduler of each beside this engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

OLDEST, NEWEST = (0, 19), (0, 33)  # the versions whose decisions were compared


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that a version of vLLM follows; each holds from the version on that ``SINCE`` names, with its file."""

    window_cap: bool = True
    window_sparse: bool = True
    watermark: bool = True
    keyless_first: bool = True
    window_settled: bool = True
    cursor_follows_victim: bool = True
    window_retention: bool = True
    lone_prefill_uncapped: bool = True
    goes_on_after_self: bool = False
    cadence: bool = False


SCHEDULER = "v1/core/sched/scheduler.py"
SINCE: dict[str, tuple[tuple[int, int], str, str]] = {
    "window_cap": (
        (0, 20),
        "with a sliding window, admission asks for the blocks of the window and of the steps under way; before, for "
        "those of the whole prompt",
        "v1/core/single_type_kv_cache_manager.py",
    ),
    "window_sparse": (
        (0, 23),
        "with a sliding window, a block that no hit can need gets no key (a window of one token needs none), and freed "
        "blocks without a key are taken first",
        "v1/core/single_type_kv_cache_manager.py",
    ),
    "watermark": (
        (0, 24),
        "admission leaves the watermark's share of the KV blocks free",
        "v1/core/kv_cache_manager.py",
    ),
    "keyless_first": (
        (0, 24),
        "freed blocks that no prefix can find are taken first; before, in the order of freeing",
        "v1/core/block_pool.py",
    ),
    "window_settled": (
        (0, 26),
        "with a sliding window, blocks are freed behind what is computed; before, behind what is scheduled",
        "v1/core/kv_cache_manager.py",
    ),
    "cursor_follows_victim": (
        (0, 28),
        "by priority, async: a victim in front of the request at hand whose last token is in flight moves the turn; "
        "before, the next request lost its turn in that step",
        SCHEDULER,
    ),
    "window_retention": (
        (0, 29),
        "with a sliding window, `prefix_cache_retention_interval` says which blocks can be found, by default "
        "those at the ends of prompts; before, all can",
        "config/cache.py",
    ),
    "lone_prefill_uncapped": (
        (0, 31),
        "the cap on a prompt's chunk is off while one request is there alone",
        SCHEDULER,
    ),
    "goes_on_after_self": (
        (0, 33),
        "by priority: after a request that preempted itself, those behind it get their turn; before, the pass ended",
        SCHEDULER,
    ),
    "cadence": (
        (0, 33),
        "`prefill_schedule_interval` holds prefills back; before, only with data parallelism",
        SCHEDULER,
    ),
}


def numbered(version: str) -> tuple[int, int] | None:
    """Major and minor number of ``version``; None for what is no version.

    >>> numbered("0.24.0"), numbered("v0.19.1rc1"), numbered("unknown")
    ((0, 24), (0, 19), None)
    """
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return None if found is None else (int(found[1]), int(found[2]))


def rules_of(version: str) -> Rules:
    """The rules of vLLM ``version``; of the mirrored version, 0.32, where it is no version.

    >>> rules_of("0.30.2").lone_prefill_uncapped, rules_of("0.33.0").cadence, rules_of("unknown") == Rules()
    (False, True, True)
    """
    number = numbered(version)
    if number is None:
        return Rules()
    return Rules(**{field.name: number >= SINCE[field.name][0] for field in fields(Rules)})


def not_compared(version: str) -> str:
    """What a reader must know where the decisions of ``version`` were not compared with this engine's; else empty.

    >>> not_compared("0.24.0"), not_compared("1.0")
    ('', 'the engine decides as vLLM 0.19 to 0.33; this trace is from 1.0, not checked against it')
    """
    number = numbered(version)
    if number is not None and OLDEST <= number <= NEWEST:
        return ""
    oldest, newest = (".".join(map(str, end)) for end in (OLDEST, NEWEST))
    return f"the engine decides as vLLM {oldest} to {newest}; this trace is from {version}, not checked against it"
