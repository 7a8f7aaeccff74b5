"""How the engine's decisions were held against vLLM's own, version by version: what every report says of it.

``conformance.json`` is written by tests/live/conformance.py (``make conformance``), which drives vLLM's schedulers and
this engine side by side on random workloads. An entry holds a digest of the engine's files as they were by then.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from driftsim.engine.scheduler import MIRRORED_VLLM
from driftsim.engine.versions import numbered

FILE = "conformance.json"


@cache
def runs() -> dict[str, dict[str, Any]]:
    """What was run, by ``major.minor`` of vLLM: its version, by kind of workload their counts, and the digest."""
    found: dict[str, dict[str, Any]] = json.loads((files("driftsim.engine") / FILE).read_text(encoding="utf-8"))
    return found


@cache
def digest() -> str:
    """The first digits of a SHA-256 over the engine's files, this one left out."""
    whole = hashlib.sha256()
    for file in sorted(files("driftsim.engine").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py") and file.name != "conformance.py":
            whole.update(file.read_bytes())
    return whole.hexdigest()[:16]


def conformance(version: str) -> str:
    """What was run of the engine against vLLM ``version``, in a line; of the mirrored one where it is no version.

    >>> conformance("0.18.1")
    'nothing was run against vLLM 0.18'
    """
    number = numbered(version) or numbered(MIRRORED_VLLM)
    name = ".".join(map(str, number or ()))
    entry = runs().get(name)
    if entry is None:
        return f"nothing was run against vLLM {name}"
    kinds = entry["kinds"].values()
    workloads, decisions, differ = (sum(kind[key] for kind in kinds) for key in ("workloads", "decisions", "differing"))
    told = f"vLLM {entry['version']}, {workloads} workloads ({decisions:,} steps"
    line = (
        f"in {differ} of them not conformant with {told})" if differ else f"conformant with {told}, each decided alike)"
    )
    if entry["engine"] != digest():
        line += "; the engine was changed since"
    return line if numbered(version) else f"{line}; of which version this engine is, nothing tells"
