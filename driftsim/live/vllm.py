"""vLLM in this process, as an engine behind the dispatcher; the only module that imports vllm.

All times are ``time.monotonic()`` seconds, which on Linux is one clock for every process of the host: the engine
core's time stamps and ours compare directly (vllm/v1/metrics/stats.py, RequestStateStats).
"""

from __future__ import annotations

import asyncio
import csv
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from vllm import SamplingParams
from vllm import __version__ as vllm_version
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import StatLoggerBase

from driftsim.live.recorder import Outcome
from driftsim.request import Job
from driftsim.trace import STEP_COLUMNS, EngineSettings

STEPS_FILE = "DRIFTSIM_STEPS_FILE"  # environment variable that tells the scheduler hook where to write
STEP_NAMES = tuple(column.name for column in STEP_COLUMNS)


class TracedScheduler(Scheduler):
    """vLLM's scheduler, which also writes one row per step; runs in the engine core's process.

    A decode is one new token after the whole prompt; anything else is a prefill chunk. A step's duration is its
    completion (end of ``update_from_output``, which stamps the tokens) minus the later of its own start and the
    previous completion. Rows go to the file as the engine falls idle and every 500 steps.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._traced: dict[int, list[Any]] = {}
        self._rows: list[list[Any]] = []
        self._completed = 0.0
        self._blocks = self.kv_cache_manager.block_pool.num_gpu_blocks - 1  # less the null block
        self._file = open(os.environ[STEPS_FILE], "w", newline="")  # noqa: SIM115  # lives as long as the engine
        self._writer = csv.writer(self._file)
        self._writer.writerow(STEP_NAMES)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Schedule, and note what was scheduled."""
        start = time.monotonic()
        output = super().schedule(*args, **kwargs)
        if not output.total_num_scheduled_tokens:
            self._flush()
            return output
        prefill = requests = decode = context = attention = 0
        for name, new in output.num_scheduled_tokens.items():
            request = self.requests[name]
            computed = request.num_computed_tokens - new  # schedule() has advanced it already
            if new == 1 and computed >= request.num_prompt_tokens:
                decode += 1
                context += computed + 1
            else:
                prefill += new
                requests += 1
                attention += new * (computed + (new + 1) / 2)
        pool = self.kv_cache_manager.block_pool
        used = self._blocks - pool.get_num_free_blocks()
        preempted = len(output.preempted_req_ids or ())
        self._traced[id(output)] = [
            start, 0.0, prefill, requests, decode, context, attention,
            len(self.running), len(self.waiting), used, preempted,
        ]  # fmt: skip
        return output

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Update, and complete the step's row."""
        result = super().update_from_output(scheduler_output, model_runner_output)
        row = self._traced.pop(id(scheduler_output), None)
        if row is not None:
            now = time.monotonic()
            row[1] = now - max(row[0], self._completed)
            self._completed = now
            self._rows.append(row)
            if len(self._rows) >= 500 or not (self.running or self.waiting):
                self._flush()
        return result

    def _flush(self) -> None:
        if self._rows:
            self._writer.writerows(self._rows)
            self._file.flush()
            self._rows.clear()


class _SilentLogger(StatLoggerBase):
    """Its presence makes the engine stamp every request (RequestOutput.metrics)."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None: ...

    def record(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is logged."""

    def log_engine_initialized(self) -> None:
        """Nothing is logged."""


class VllmEngine:
    """An ``AsyncLLM`` as a ``LiveEngine``; ``on_outcome`` is called once for every job submitted.

    Start it inside a running event loop. ``settings`` and ``arguments`` are as the engine resolved them.
    """

    def __init__(self, model: Path | str, temperature: float = 0.7, **engine_arguments: Any) -> None:
        self.model = str(model)
        self.temperature = temperature
        self.on_outcome: Callable[[Outcome], None] = lambda outcome: None
        self._asked = engine_arguments
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._token_ids: dict[str, list[int]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="driftsim-")

    async def start(self) -> None:
        """Start the engine core; takes 20 to 40 s on a CPU. Raises what vLLM raises."""
        os.environ[STEPS_FILE] = str(Path(self._folder.name) / "steps.csv")
        for name, value in CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        arguments = AsyncEngineArgs(
            model=self.model,
            scheduler_cls=f"{__name__}.{TracedScheduler.__name__}",
            disable_log_stats=True,
            **self._asked,
        )
        self._llm = AsyncLLM.from_engine_args(arguments, stat_loggers=[_SilentLogger])
        self._tokenizer = self._llm.get_tokenizer()
        self.settings = _settings(self._llm.vllm_config)
        self.arguments = {"model": Path(self.model).name, "temperature": self.temperature, **self._asked}

    async def warm_up(self) -> None:
        """Run every code path once, full batches included, so that the first recorded steps are like the others."""

        async def one(number: int) -> None:
            parameters = SamplingParams(max_tokens=16, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY)
            prompt = {"prompt_token_ids": self.token_ids("What is a warm-up? " * (1 + 4 * number))}
            async for _ in self._llm.generate(prompt, parameters, request_id=f"warm-up {number}"):
                pass

        await asyncio.gather(*map(one, range(self.settings.max_num_seqs)))

    def token_ids(self, prompt: str) -> list[int]:
        """The prompt as the engine will see it: chat template applied, tokenised, once."""
        if prompt not in self._token_ids:
            message = [{"role": "user", "content": prompt}]
            text = self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
            self._token_ids[prompt] = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._token_ids[prompt]

    def room(self) -> int:
        """vLLM queues whatever it is given."""
        return 1_000_000

    def submit(self, job: Job, true_length: int | None) -> None:
        """Send ``job``; ``true_length``, if given, is forced (no end-of-sequence stop)."""
        self._tasks[job.request.id] = asyncio.get_running_loop().create_task(self._serve(job, true_length))

    def abort(self, job: Job) -> None:
        """Ask vLLM to drop the job; its outcome follows."""
        self._tasks[f"abort {job.request.id}"] = asyncio.get_running_loop().create_task(self._llm.abort(job.request.id))

    def steps(self, start: float) -> pd.DataFrame:
        """The steps that began after ``start`` (monotonic s), with times counted from it."""
        table = pd.read_csv(Path(self._folder.name) / "steps.csv", on_bad_lines="skip").dropna()
        table["start_s"] -= start
        return table[table["start_s"] >= 0].reset_index(drop=True)

    async def shutdown(self) -> None:
        """Stop the engine core and remove what it wrote."""
        await asyncio.to_thread(self._llm.shutdown)
        self._folder.cleanup()

    async def _serve(self, job: Job, true_length: int | None) -> None:
        request = job.request
        parameters = SamplingParams(
            temperature=self.temperature,
            max_tokens=true_length or request.max_tokens,
            ignore_eos=true_length is not None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        try:
            prompt = {"prompt_token_ids": self.token_ids(request.prompt or "")}
            async for output in self._llm.generate(prompt, parameters, request_id=request.id):
                last = output
            outcome = _outcome(job, last)
        except Exception as error:  # whatever vLLM raises belongs to this request's row
            outcome = Outcome(job, "error", error=f"{type(error).__name__}: {error}")
        self._tasks.pop(request.id, None)
        self.on_outcome(outcome)


# vllm/envs.py: KV space in GiB (else 92 % of memory), the executor inside the engine core (three processes on two
# cores make step times cluster at the kernel's tick), and no network.
CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{(os.cpu_count() or 1) - 1}",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def _outcome(job: Job, last: Any) -> Outcome:
    completion, times = last.outputs[0], last.metrics
    return Outcome(
        job,
        completion.finish_reason or "error",
        queued=times.queued_ts,
        scheduled=times.scheduled_ts or None,
        first_token=times.first_token_ts or None,
        finish=times.last_token_ts or None,
        output_tokens=len(completion.token_ids),
        output_words=len(completion.text.split()),
        preemptions=times.num_preemptions,
    )


def _settings(config: Any) -> EngineSettings:
    scheduler, cache = config.scheduler_config, config.cache_config
    return EngineSettings(
        name="vllm",
        version=vllm_version,
        max_num_seqs=scheduler.max_num_seqs,
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        max_model_len=config.model_config.max_model_len,
        kv_blocks=cache.num_gpu_blocks,
        block_size=cache.block_size,
        enable_chunked_prefill=scheduler.enable_chunked_prefill,
        long_prefill_token_threshold=scheduler.long_prefill_token_threshold,
        scheduling_policy=scheduler.policy,
        async_scheduling=bool(scheduler.async_scheduling),
        enable_prefix_caching=bool(cache.enable_prefix_caching),
    )
