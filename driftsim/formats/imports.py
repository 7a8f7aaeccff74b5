"""Other people's runs become traces: each format has a reader, and a file is recognised by what is in it.

Strict about what is not understood, tolerant of what is merely missing; what could not be read, or had to be guessed,
travels in the trace's header, and every verb that uses the trace says it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from pathlib import Path
from typing import get_args

from driftsim.errors import InputError, check_whole
from driftsim.formats import (
    aiperf,
    azure,
    bailian,
    blis,
    burstgpt,
    guidellm,
    inference_perf,
    llmperf,
    servegen,
    sglang,
    timed_trace,
    vllm_bench,
)
from driftsim.formats.assemble import assemble
from driftsim.formats.found import Found
from driftsim.formats.head import Head, head_of
from driftsim.formats.mapping import Mapping as TableMapping
from driftsim.formats.mapping import check_mapping, completed, load_mapping, read_mapped
from driftsim.formats.rebuilt import Asked
from driftsim.formats.timed_trace import Unit
from driftsim.goodput import with_given
from driftsim.progress import OnProgress, no_progress
from driftsim.slo import AnySlos, slo_rules
from driftsim.trace.settings import LARGEST_BLOCK
from driftsim.trace.trace import Trace

STAGES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a user may say of a file: which of several results, and what a format leaves open."""

    mapping: TableMapping | None = None
    result: int | None = None
    rate: float | None = None
    users: int | None = None
    unit: Unit | None = None
    hash_tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("users", self.users), ("result", self.result), ("hash_tokens", self.hash_tokens)):
            if value is not None:
                check_whole(name, value)
                if value < 1:
                    raise InputError(f"{name} must be at least 1, got {value}")
        if self.hash_tokens is not None and self.hash_tokens > LARGEST_BLOCK:
            raise InputError(f"hash_tokens must be at most {LARGEST_BLOCK}, got {self.hash_tokens}")
        if self.rate is not None and not (
            isinstance(self.rate, Real) and not isinstance(self.rate, bool) and 1e-9 <= self.rate <= 1e9
        ):
            raise InputError(f"rate must be a number above 0 (requests a second), got {self.rate!r:.80}")
        if self.unit is not None and self.unit not in get_args(Unit):
            raise InputError(f"unknown unit {self.unit!r:.80}; choose one of {', '.join(get_args(Unit))}")

    @property
    def arrivals(self) -> Asked:
        """What is said of the arrivals."""
        return Asked(rate=self.rate, users=self.users)


@dataclass(frozen=True, slots=True)
class Format:
    """A format: what it is called in a sentence, how it is read, how a file of it is known, which choices it takes."""

    title: str
    read: Callable[[Path, Choices], Found]
    fits: Callable[[Head], bool]
    takes: tuple[str, ...] = ()


def _table(file: Path, choices: Choices) -> Found:
    if choices.mapping is None:
        raise InputError(
            f"{file}: a table needs --mapping FILE.toml, which says what its columns are; "
            "driftsim import FILE --suggest writes one to start from"
        )
    return read_mapped(file, choices.mapping)


FORMATS: Mapping[str, Format] = {
    "csv": Format(
        "a table (CSV, JSON, JSON Lines or Parquet) with a mapping", _table, lambda head: False, ("mapping",)
    ),
    "vllm-bench": Format(
        "the result of vllm bench serve --save-result --save-detailed",
        lambda file, choices: vllm_bench.read(file, choices.result),
        lambda head: head.document and head.has("input_lens", "output_lens", "ttfts") and not sglang.fits(head),
        ("result",),
    ),
    "azure": Format(
        "Azure's public traces of LLM inference",
        lambda file, choices: azure.read(file),
        lambda head: head.has("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    ),
    "sglang": Format(
        "the result of sglang.bench_serving --output-details",
        lambda file, choices: sglang.read(file, choices.result, choices.arrivals),
        sglang.fits,
        ("result", "rate", "users"),
    ),
    "guidellm": Format(
        "the JSON report of guidellm benchmark",
        lambda file, choices: guidellm.read(file, choices.result),
        guidellm.fits,
        ("result",),
    ),
    "inference-perf": Format(
        "per_request_lifecycle_metrics.json of inference-perf",
        lambda file, choices: inference_perf.read(file),
        inference_perf.fits,
    ),
    "aiperf": Format("profile_export.jsonl of AIPerf", lambda file, choices: aiperf.read(file), aiperf.fits),
    "llmperf": Format(
        "*_individual_responses.json of LLMPerf",
        lambda file, choices: llmperf.read(file, choices.arrivals),
        llmperf.fits,
        ("rate", "users"),
    ),
    "blis": Format("a trace of BLIS (TraceV2)", lambda file, choices: blis.read(file), blis.fits),
    "burstgpt": Format(
        "BurstGPT's traces",
        lambda file, choices: burstgpt.read(file),
        lambda head: head.has(*burstgpt.COLUMNS.values()),
    ),
    "bailian": Format(
        "Alibaba's traces of Qwen on Bailian",
        lambda file, choices: bailian.read(file, choices.unit, choices.hash_tokens),
        bailian.fits,
        ("unit", "hash_tokens"),
    ),
    "mooncake": Format(
        "Mooncake's traces",
        lambda file, choices: timed_trace.read(file, choices.unit, choices.hash_tokens, mooncakes=True),
        lambda head: False,  # its keys are those of timed-trace, which tells the two apart
        ("unit", "hash_tokens"),
    ),
    "timed-trace": Format(
        "what vLLM's timed_trace dataset reads",
        lambda file, choices: timed_trace.read(file, choices.unit, choices.hash_tokens),
        lambda head: timed_trace.fits(head) and not bailian.fits(head),
        ("unit", "hash_tokens"),
    ),
    "servegen": Format("ServeGen's data, which hold no requests", lambda file, choices: servegen.read(file),
                       lambda head: servegen.is_chunk(head.file)),
}  # fmt: skip


def import_trace(
    file: Path | str,
    form: str | None = None,
    *,
    mapping: TableMapping | Path | str | None = None,
    strict: bool = False,
    result: int | None = None,
    rate: float | None = None,
    users: int | None = None,
    unit: Unit | None = None,
    hash_tokens: int | None = None,
    slos: AnySlos = (),
    progress: OnProgress = no_progress,
) -> Trace:
    """The run in ``file``, a file of another tool, as a trace.

    form: one of ``FORMATS``; without one, the file is recognised by what is in it. mapping: an object or a TOML file:
    what the columns of a table are; of a known format, what it leaves out: engine, model, hardware, tiers. strict:
    refuse a file with a row that cannot be read, which else costs that row. result: which of several results in the
    file, from 1. rate, users: how requests arrived whose start times the file lost, drawn at ``rate`` requests a second
    or sent by so many ``users``. unit: of the times in a trace that leaves it open, ``s`` or ``ms``. slos: what the
    requests are promised, for the header. progress: called with the stages done, of reading, assembling and checking.

    Raises ``InputError`` naming file, row, column, value and remedy.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     names, day = "TIMESTAMP,ContextTokens,GeneratedTokens", "2024-05-10"
    ...     _ = file.write(f"{names}\\n{day} 00:00:00,374,44\\n{day} 00:00:02,396,109"), file.flush()
    ...     trace = import_trace(file.name)
    >>> trace.requests["arrival_s"].tolist()
    [0.0, 2.0]
    """
    file = Path(file)
    if form is not None and form not in FORMATS:
        raise InputError(f"unknown format {form!r}; choose one of {', '.join(FORMATS)}")
    if isinstance(mapping, Path | str):
        given: TableMapping | None = load_mapping(Path(mapping))
    elif (given := mapping) is not None:
        check_mapping(given, "the mapping")
    choices = Choices(mapping=given, result=result, rate=rate, users=users, unit=unit, hash_tokens=hash_tokens)
    form = form or ("csv" if given is not None and given.names_columns else recognised(file))
    for name in (field.name for field in fields(choices) if field.name != "mapping"):
        if getattr(choices, name) is not None and name not in FORMATS[form].takes:
            raise InputError(f"{file}: --{name.replace('_', '-')} says nothing about the format {form}; drop it")
    promised = slo_rules(slos)  # before the file is read
    progress(0, STAGES)
    found = FORMATS[form].read(file, choices)
    progress(1, STAGES)
    if given is not None and form != "csv":
        if given.names_columns:
            raise InputError(f"{file}: the format {form} has columns of its own; the mapping must not name any")
        found = completed(found, given)
    trace = with_given(assemble(found, strict=strict), promised)
    progress(2, STAGES)
    trace.check(str(file))
    progress(3, STAGES)
    return trace


def recognised(file: Path) -> str:
    """The name of the format of ``file``. Raises ``InputError`` that says what was seen where no format fits."""
    if servegen.is_chunk(file) and file.is_file():  # its table has no header, so it has no head
        return "servegen"
    head = head_of(file)
    fitting = [name for name, form in FORMATS.items() if form.fits(head)]
    if fitting:
        return fitting[0]
    raise InputError(
        f"{file}: is none of the formats {', '.join(FORMATS)}; it is {head}. Write a mapping for it: "
        f"driftsim import {file} --suggest begins one"
    )
