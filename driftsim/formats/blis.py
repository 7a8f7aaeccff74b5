"""Traces of BLIS (TraceV2): a CSV of requests with times in microseconds, and a header in YAML beside it.

inference-sim/inference-sim: sim/workload/tracev2.go (columns) and replay.go (which count and time a replay takes):
``input_tokens`` lacks the shared prefix, ``server_input_tokens`` has it; 0 stands for a time that was not recorded. In
a generated trace ``output_tokens`` is what a request would produce, whether it did or not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from driftsim.errors import InputError
from driftsim.formats.beginnings import Groups
from driftsim.formats.found import Found
from driftsim.formats.head import Head
from driftsim.formats.said import held_back
from driftsim.formats.sessions import Sessions
from driftsim.formats.source import Source, read_source, read_text
from driftsim.formats.values import counts, texts, times

NEEDED = ("input_tokens", "output_tokens", "arrival_time_us")
OWN = ("send_time_us", "first_chunk_time_us", "last_chunk_time_us")
TIERS = {
    "critical": "premium",
    "standard": "standard",
    "sheddable": "standard",
    "batch": "batch",
    "background": "batch",
}
ENGINE = {"max_num_seqs": 2048, "block_size": 4096, "max_model_len": 10**8}  # settings of a header, and their bounds
LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+): *(?P<value>[^#\n]*?) *$", re.MULTILINE)


def fits(head: Head) -> bool:
    """Whether ``head`` is that of such a CSV."""
    return head.has(*NEEDED, *OWN)


def read(file: Path) -> Found:
    """What is found in ``file``: a request counts from when it was sent, as BLIS replays it.

    Raises ``InputError`` if a column is missing.
    """
    source = read_source(file)
    missing = next((name for name in NEEDED if source.cells(name) is None), None)
    if missing:
        raise InputError(f"{file}: lacks column {missing!r}; a trace of BLIS has {', '.join((*NEEDED, *OWN))}")
    header = header_beside(file)
    arrival, sent = source.either("arrival_time_us"), _recorded(source, "send_time_us")
    waited = times(sent, "us")[0] - times(arrival, "us")[0]
    output, reasons = _ends(source, header.get("mode") in ("generated", "replayed"))
    classes = [text and text.lower() for text in texts(source.either("slo_class"))[0]]
    models = {model for model in texts(source.either("model"))[0] if model}
    return Found(
        source=source,
        cells={
            "request_id": source.either("request_id"),
            "tenant": _tenants(source),
            "tier": [TIERS.get(name, name) if name else None for name in classes],
            "prompt_tokens": _prompts(source),
            "output_tokens": output,
            "arrival_s": [one if one is not None else other for one, other in zip(sent, arrival, strict=True)],
            "first_token_s": _recorded(source, "first_chunk_time_us"),
            "finish_s": _recorded(source, "last_chunk_time_us"),
            "error": source.either("error_message"),
            "finish_reason": reasons,
        },
        units={"all": "us"},
        names={"prompt_tokens": "input_tokens", "output_tokens": "output_tokens", "arrival_s": "arrival_time_us",
               "first_token_s": "first_chunk_time_us", "finish_s": "last_chunk_time_us", "tier": "slo_class"},
        engine=_engine(header),
        beginnings=_groups(source),
        sessions=Sessions(names=source.either("session_id"), turns=source.either("round_index")),
        model=header.get("model") or (models.pop() if len(models) == 1 else "unknown"),
        guessed=[
            *_tiers(classes),
            *held_back(np.asarray(waited), "send_time_us"),
        ],
    )  # fmt: skip


def _recorded(source: Source, name: str) -> list[Any]:
    """The times ``name``, None for 0, which stands for one that was not recorded."""
    return [None if cell in (0, "0", "0.0") else cell for cell in source.either(name)]


def _tenants(source: Source) -> list[Any]:
    """The tenants, or where no request has one, the clients."""
    tenants = source.either("tenant_id")
    return tenants if any(tenant is not None for tenant in tenants) else source.either("client_id")


def _prompts(source: Source) -> list[Any]:
    """The whole prompt: as the server counted it, else the input with the prefix of its group."""
    inputs = source.either("input_tokens")
    server, _ = counts(source.either("server_input_tokens"))
    own, problems = counts(inputs)
    prefix, _ = counts(source.either("prefix_length"))
    in_group = np.array([name is not None for name in texts(source.either("prefix_group"))[0]], dtype=bool)
    whole = np.where(server > 0, server, own + np.where(in_group, np.nan_to_num(prefix), 0))
    return [cell if row in problems or value != value else value
            for row, (cell, value) in enumerate(zip(inputs, whole.tolist(), strict=True))]  # fmt: skip


def _groups(source: Source) -> Groups:
    """The groups whose requests begin with the same prefix."""
    lengths, _ = counts(source.either("prefix_length"))
    return Groups(names=texts(source.either("prefix_group"))[0], lengths=np.nan_to_num(lengths, posinf=0.0).tolist())


def _ends(source: Source, planned: bool) -> tuple[list[Any], list[Any]]:
    """Outputs and endings: a request that did not end well has no output where the file tells only the ``planned``."""
    statuses = texts(source.either("status"))[0]
    told = texts(source.either("finish_reason"))[0]
    well = [status in (None, "ok") for status in statuses]
    outputs = [None if planned and not ended else cell
               for ended, cell in zip(well, source.either("output_tokens"), strict=True)]  # fmt: skip
    reasons = [reason if ended and reason else status
               for ended, reason, status in zip(well, told, statuses, strict=True)]  # fmt: skip
    return outputs, reasons


def _tiers(classes: list[str | None]) -> list[str]:
    """What the classes of BLIS were taken for, where they are not called as ours."""
    renamed = sorted({name for name in classes if name in TIERS and TIERS[name] != name})
    if not renamed:
        return []
    return ["its SLO classes count as tiers: " + ", ".join(f"{name} as {TIERS[name]}" for name in renamed)]


def header_beside(file: Path) -> dict[str, str]:
    """The plain keys of the YAML header beside ``file``, of the top and of ``server``; none where there is no header.

    Its name is the file's, with .yaml or .yml, or has ``header`` where the file's has ``data``.
    """
    names = [file.stem, re.sub("data", "header", file.stem), f"{file.stem}-header", f"{file.stem}_header", "header"]
    for name in dict.fromkeys(names):
        for suffix in (".yaml", ".yml"):
            beside = file.with_name(name + suffix)
            if beside.is_file():
                try:
                    text = read_text(beside)
                except InputError:
                    return {}
                found = {one["key"]: one["value"].strip("'\"") for one in LINE.finditer(text)}
                return found if "trace_version" in found else {}
    return {}


def _engine(header: dict[str, str]) -> dict[str, Any]:
    """The engine settings of a header that are whole numbers above 0."""
    told = {name: int(header[name]) for name in ENGINE if re.fullmatch(r"[1-9]\d{0,8}", header.get(name, ""))}
    return {name: value for name, value in told.items() if value > 1 and value <= ENGINE[name]}
