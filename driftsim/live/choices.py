"""What a capture is to run: which engine, and which workload. What is wrong with a choice is found before the engine
starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from driftsim.errors import InputError
from driftsim.live.engine import LiveEngine
from driftsim.live.kinds import CapTable, EngineKind, WorkloadName
from driftsim.slo import Slo
from driftsim.trace.trace import read
from driftsim.workloads.arrivals import Process, arriving
from driftsim.workloads.driftsched import (
    DRIFTSCHED_CAPS,
    NATURAL_CAPS,
    drift_phases,
    driftsched_phases,
    driftsched_workload,
)
from driftsim.workloads.prompts import prompt_workload, read_prompts
from driftsim.workloads.replay import first, replay
from driftsim.workloads.workload import Workload

# What the CPU build of vLLM runs well on a few cores; on a GPU its own defaults stand.
CPU_SETTINGS = {"max_num_seqs": 16, "max_num_batched_tokens": 512, "max_model_len": 2048}
MakeWorkload = Callable[[Callable[[str], int]], Workload]  # from a counter of tokens


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """vLLM in this process, or any OpenAI-compatible server at ``base_url``.

    model: folder or name; None is the packaged SmolLM2-135M, of a server its first model. settings: ``max_num_seqs``,
    ``max_num_batched_tokens``, ``max_model_len``. prefix_caching: whether prompts with a common beginning share its
    blocks; None is off, of a server what it tells. load_format: ``dummy`` runs a model's config without its weights.
    arguments: any other of vLLM's engine arguments. tokenizer: a model folder to count prompts with, where the server
    cannot. timeout_s: the longest wait for one whole answer of a server. scheduling_policy: the engine's own
    order, fcfs or priority; None is fcfs, of a server as well: it does not tell. hosts: policies are to stand inside.

    >>> EngineChoice(kind="openai").open()
    Traceback (most recent call last):
    driftsim.errors.InputError: --engine openai needs --base-url, http://localhost:8000/v1 for instance
    """

    kind: EngineKind = "vllm"
    model: str | None = None
    base_url: str | None = None
    settings: Mapping[str, int] = field(default_factory=dict)
    kv_blocks: int | None = None
    prefix_caching: bool | None = None
    load_format: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Path | None = None
    temperature: float = 0.7
    timeout_s: float = 600.0
    scheduling_policy: str | None = None
    hosts: bool = False
    seed: int = 0

    def open(self) -> LiveEngine:
        """The engine, not yet started. Raises ``InputError`` for a choice that cannot be."""
        return self._server() if self.kind == "openai" else self._vllm()

    def _server(self) -> LiveEngine:
        if self.base_url is None:
            raise InputError("--engine openai needs --base-url, http://localhost:8000/v1 for instance")
        if self.load_format or self.arguments:
            raise InputError("--load-format and --engine-arg are for --engine vllm; a server has its own")
        from driftsim.live.http import HttpEngine

        known: dict[str, Any] = {**self.settings, **({"kv_blocks": self.kv_blocks} if self.kv_blocks else {})}
        known |= {} if self.scheduling_policy is None else {"scheduling_policy": self.scheduling_policy}
        known |= {} if self.prefix_caching is None else {"enable_prefix_caching": self.prefix_caching}
        return HttpEngine(
            self.base_url,
            self.model,
            tokenizer=self.tokenizer,
            temperature=self.temperature,
            timeout_s=self.timeout_s,
            known=known,
        )

    def _vllm(self) -> LiveEngine:
        if self.base_url or self.tokenizer:
            raise InputError("--base-url and --tokenizer are for --engine openai")
        model = self.model
        if model is not None and model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
            raise InputError(f"--model {model}: no such folder")

        from driftsim.live.model import smollm2
        from driftsim.live.vllm import VllmEngine, is_cpu

        arguments: dict[str, Any] = {"seed": self.seed, "enable_prefix_caching": bool(self.prefix_caching)}
        arguments |= CPU_SETTINGS if is_cpu() else {}
        arguments |= {**self.settings, **({"num_gpu_blocks_override": self.kv_blocks} if self.kv_blocks else {})}
        arguments |= {"load_format": self.load_format} if self.load_format else {}
        arguments |= {"scheduling_policy": self.scheduling_policy} if self.scheduling_policy else {}
        arguments |= dict(self.arguments)
        return VllmEngine(model or smollm2(), self.temperature, hosts=self.hosts, **arguments)


@dataclass(frozen=True, kw_only=True)
class WorkloadChoice:
    """A named workload, a file of prompts, or the requests of a trace.

    named: DriftSched's two phases (``reference``), or their variant with more drift; learning, stress, learning_gap,
    stress_gap: their requests, and the ends of their uniform gaps (s). caps: the table of max_tokens. prompts: a file
    of JSON Lines. max_tokens: of prompts that set none. replay: a trace's folder. requests: only the first so many.
    arrivals: instead of the workload's own.

    >>> make = WorkloadChoice(named="reference", learning=3, stress=2).prepare()
    >>> len(make(lambda text: len(text.split())))
    5
    """

    named: WorkloadName = "drift"
    learning: int | None = None
    stress: int | None = None
    learning_gap: tuple[float, float] | None = None
    stress_gap: tuple[float, float] | None = None
    caps: CapTable | None = None
    prompts: Path | None = None
    max_tokens: int = 512
    replay: Path | None = None
    requests: int | None = None
    arrivals: Process | None = None
    seed: int = 0

    def prepare(self) -> MakeWorkload:
        """A function from a counter of tokens to the workload. Raises ``InputError`` for what is wrong with a file."""
        make = self._maker()

        def built(count_tokens: Callable[[str], int]) -> Workload:
            workload = make(count_tokens)
            return workload if self.arrivals is None else arriving(workload, self.arrivals, self.seed)

        return built

    def promised(self) -> tuple[Slo, ...]:
        """The SLOs of the trace that is replayed; none of another workload. Raises ``InputError``."""
        self._check()
        return () if self.replay is None else read(self.replay).header.slos

    def _check(self) -> None:
        """Raise ``InputError`` for choices that exclude each other."""
        if self.prompts is not None and self.replay is not None:
            raise InputError("--prompts and --replay are two workloads; give one")
        own = ("learning", "stress", "learning_gap", "stress_gap", "caps")
        given = [name for name in own if getattr(self, name) is not None]
        if given and (self.prompts is not None or self.replay is not None):
            option = given[0].replace("_", "-")
            raise InputError(f"--{option} belongs to --workload; drop it, or --prompts and --replay")

    def _maker(self) -> MakeWorkload:
        self._check()
        if self.prompts is not None:
            name, texts = self.prompts.stem, read_prompts(self.prompts)
            return lambda count: prompt_workload(texts, self.requests, self.max_tokens, name, count)
        if self.replay is not None:
            again = self._first(replay(read(self.replay)))
            again = replace(again, notes=tuple(f"of the replayed trace: {note}" for note in again.notes))
            return lambda count: again
        return self._named()

    def _named(self) -> MakeWorkload:
        phases = drift_phases if self.named == "drift" else driftsched_phases
        drawn: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("learning", "stress", "learning_gap", "stress_gap")
            if getattr(self, name) is not None
        }
        chosen = phases(**drawn)
        natural = self.caps == "natural" if self.caps else self.named == "drift"
        caps = NATURAL_CAPS if natural else dict(NATURAL_CAPS) | dict(DRIFTSCHED_CAPS)
        return lambda count: self._first(driftsched_workload(count, self.seed, chosen, caps, name=self.named))

    def _first(self, workload: Workload) -> Workload:
        return workload if self.requests is None else first(workload, self.requests)
