"""vLLM in this process, as an engine behind the dispatcher; which beside ``scheduler`` alone imports vllm.

All times are ``time.monotonic()`` seconds, which on Linux is one clock for every process of the host: the engine
core's time stamps and ours compare directly (vllm/v1/metrics/stats.py, RequestStateStats).
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import mmap
import os
import signal
import tempfile
import time
from array import array
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from vllm import SamplingParams
from vllm import __version__ as vllm_version
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import RequestStateStats

from driftsim.errors import InputError
from driftsim.live.engine import Outcome, conversation
from driftsim.live.masking import masked
from driftsim.live.orders import NAME, ORDERS, Orders, carried
from driftsim.live.sharing import Beginning, Hashes
from driftsim.request import Job, Request
from driftsim.trace.schema import STEP_COLUMNS
from driftsim.trace.settings import NEWER, EngineSettings
from driftsim.workloads.prompts import stand_in, synthetic

ASKED = ("watermark", *NEWER)  # settings of the schedule that some versions know
TURNED_AWAY = ("QueueOverflowError", "MaxQueuedTokensError")  # by the limits of its queue; not every version has them
TELLS_PREEMPTIONS = hasattr(RequestStateStats(), "num_preemptions")  # not in 0.24
STEPS_LINK = "DRIFTSIM_STEPS_LINK"  # environment variable: a symbolic link to the file that steps go to
NOWHERE = "/dev/null"
STEP_NAMES = ",".join(column.name for column in STEP_COLUMNS) + "\n"
CLOCKS = (
    "seconds since the run began, CLOCK_MONOTONIC of one host; arrival_s: due at the dispatcher; dispatch_s: handed to "
    "the engine; queued_s: received by the engine core, at a step boundary; scheduled_s: start of the first step that "
    "computed it; first_token_s, finish_s: end of the step that produced the token"
)


class MappedFile:
    """A new file that grows by a copy into memory: no call of the system a line, and a killed process loses none.

    Its space is taken before it is used, 1 MiB at a time, so that a full disk is an ``OSError`` and nothing worse. What
    is not used yet is zeros behind the last line.
    """

    STRIDE = 1 << 20

    def __init__(self, name: str) -> None:
        self._handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self._size = self._used = 0

    def append(self, data: bytes) -> None:
        """Add ``data``. Raises ``OSError`` where the disk is full."""
        end = self._used + len(data)
        if end > self._size:
            os.posix_fallocate(self._handle, self._size, self.STRIDE)
            self._size += self.STRIDE
            self._map = mmap.mmap(self._handle, self._size)
        self._map[self._used : end] = data
        self._used = end


class Traced:
    """Writes one row per step; runs in the engine core's process, mixed into a scheduler of vLLM.

    A decode is one new token after the whole prompt; anything else is a prefill chunk. A step's duration is its
    completion (end of ``update_from_output``, which stamps the tokens) minus the later of its own start and the
    previous completion; with async scheduling the next step is scheduled before this one completes. Each row is handed
    to the operating system as it is made, so that a killed engine loses none. Where rows go is looked up as the engine
    leaves idleness.
    """

    made_way: frozenset[str] = frozenset()  # those whom a policy inside preempted, whether vLLM counts them or not

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The terminal's Ctrl-C is the harness's to handle; and where the harness dies, its engine goes with it.
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        self._traced: dict[int, list[Any]] = {}
        self._partial: set[str] = set()  # those who are not through their prompt
        self._completed = 0.0
        self._target, self._idle = NOWHERE, True
        self._file: MappedFile | None = None
        self._blocks = self.kv_cache_manager.block_pool.num_gpu_blocks - 1  # type: ignore[attr-defined]  # less null

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Schedule, and note what was scheduled."""
        start = time.monotonic()
        output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        if not output.total_num_scheduled_tokens:
            return output
        prefill, requests, decode, context, attention = self._composition(output)
        used = self._blocks - self.kv_cache_manager.block_pool.get_num_free_blocks()  # type: ignore[attr-defined]
        preempted = len(self.made_way.union(output.preempted_req_ids or ()))
        self._traced[id(output)] = [
            start, 0.0, prefill, requests, decode, context, attention,
            len(self.running), len(self.waiting), used, preempted,  # type: ignore[attr-defined]
        ]  # fmt: skip
        return output

    def _composition(self, output: Any) -> tuple[int, int, int, int, float]:
        """Prefill tokens and requests, decode requests, context tokens and prefill attention of the step.

        Where nobody but newcomers prefills, as in most steps, vLLM's own lists tell the decodes' contexts at once.
        """
        scheduled, fresh, cached = output.num_scheduled_tokens, output.scheduled_new_reqs, output.scheduled_cached_reqs
        if self._partial:
            self._partial -= output.finished_req_ids
            self._partial.difference_update(output.preempted_req_ids or ())
        beyond = output.total_num_scheduled_tokens - len(scheduled)  # tokens beyond one a request
        new_ones = sum(scheduled[one.req_id] for one in fresh)
        if self._partial or cached.resumed_req_ids or beyond != new_ones - len(fresh):
            return self._counted(scheduled)
        attention = 0.0
        for one in fresh:
            request, new = self.requests[one.req_id], scheduled[one.req_id]  # type: ignore[attr-defined]
            attention += new * (request.num_computed_tokens - new + (new + 1) / 2)
            if request.num_computed_tokens < request.num_prompt_tokens:
                self._partial.add(one.req_id)
        decode = len(cached.req_ids)
        return new_ones, len(fresh), decode, sum(cached.num_computed_tokens) + decode, attention

    def _counted(self, scheduled: dict[str, int]) -> tuple[int, int, int, int, float]:
        """The same, request by request."""
        prefill = requests = decode = context = 0
        attention = 0.0
        for name, new in scheduled.items():
            request = self.requests[name]  # type: ignore[attr-defined]
            computed = request.num_computed_tokens - new  # schedule() has advanced it already
            if new == 1 and computed >= request.num_prompt_tokens:
                decode += 1
                context += computed + 1
                self._partial.discard(name)
                continue
            prefill += new
            requests += 1
            attention += new * (computed + (new + 1) / 2)
            if request.num_computed_tokens < request.num_tokens:
                self._partial.add(name)
            else:
                self._partial.discard(name)
        return prefill, requests, decode, context, attention

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Update, and complete the step's row."""
        result = super().update_from_output(scheduler_output, model_runner_output)  # type: ignore[misc]
        row = self._traced.pop(id(scheduler_output), None)
        if row is not None:
            now = time.monotonic()
            row[1] = now - max(row[0], self._completed)
            self._completed = now
            self._write(row)
        return result

    def _write(self, row: list[Any]) -> None:
        if self._idle:
            self._open()
        self._idle = not (self.running or self.waiting)  # type: ignore[attr-defined]
        if self._file is not None:
            try:
                self._file.append((",".join(map(repr, row)) + "\n").encode())
            except OSError:  # a full disk ends the recording of steps, not the engine
                self._file = None

    def _open(self) -> None:
        target = os.readlink(os.environ[STEPS_LINK])
        if target != self._target:
            self._target, self._file = target, None
            if target != NOWHERE:
                self._file = MappedFile(target)
                self._file.append(STEP_NAMES.encode())


class TracedScheduler(Traced, Scheduler):
    """vLLM's scheduler, which also writes one row per step."""


class TracedAsyncScheduler(Traced, AsyncScheduler):
    """Likewise, of async scheduling."""


class _SilentLogger(StatLoggerBase):
    """Its presence makes the engine stamp every request (RequestOutput.metrics)."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None: ...

    def record(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is logged."""

    def log_engine_initialized(self) -> None:
        """Nothing is logged."""


class VllmEngine:
    """An ``AsyncLLM`` as a ``LiveEngine``; ``on_outcome`` is called once for every job submitted.

    Start it inside a running event loop. ``settings`` and ``arguments`` are as the engine resolved them. ``model`` is a
    folder or a name; of a folder without a tokenizer (``load_format="dummy"`` needs a config alone) only synthetic
    prompts can be served. ``hosts``: policies are to stand inside it.
    """

    clocks = CLOCKS
    own_processes: tuple[int, ...] = ()  # the engine core is our child
    notes: tuple[str, ...] = ()

    def __init__(
        self, model: Path | str, temperature: float = 0.7, *, hosts: bool = False, **engine_arguments: Any
    ) -> None:
        self.model = str(model)
        self.temperature = temperature
        self.failure: str | None = None
        self.on_outcome: Callable[[Outcome], None] = lambda outcome: None
        self._asked, self._hosts = engine_arguments, hosts
        self._llm: AsyncLLM | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._token_ids: dict[str, array[int]] = {}
        self._hashes = Hashes()
        self._folder = tempfile.TemporaryDirectory(prefix="driftsim-")
        self._link = Path(self._folder.name) / "steps"
        self._run: int | None = None  # the number of a run with a policy inside
        self._orders = Path(self._folder.name) / "orders.json"

    async def start(self) -> None:
        """Start the engine core; takes 15 to 40 s on a CPU. Raises what vLLM raises."""
        self._link.symlink_to(NOWHERE)
        os.environ[STEPS_LINK] = str(self._link)
        defaults: dict[str, Any] = {}
        if current_platform.is_cpu():
            defaults = {"dtype": "bfloat16", "enforce_eager": True}
            for name, value in CPU_ENVIRONMENT.items():
                os.environ.setdefault(name, value)
        folder = Path(self.model)
        if folder.is_dir():
            os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing needs fetching
        if folder.is_dir() and not any(folder.glob("tokenizer*")):
            defaults["skip_tokenizer_init"] = True
        arguments = AsyncEngineArgs(model=self.model, disable_log_stats=True, **defaults | self._asked)
        config = arguments.create_engine_config()
        asynchronous = config.scheduler_config.async_scheduling  # resolved: vLLM decides where nobody asked
        os.environ[ORDERS] = str(self._orders)
        kind = "Async" if asynchronous else ""
        home = ("scheduler.Inside" if self._hosts else "vllm.Traced") + f"{kind}Scheduler"
        config.scheduler_config.scheduler_cls = f"{__package__}.{home}"
        self._llm = AsyncLLM.from_vllm_config(config, stat_loggers=[_SilentLogger], disable_log_stats=True)
        self._tokenizer = None if arguments.skip_tokenizer_init else self._llm.get_tokenizer()
        self._vocabulary = config.model_config.get_vocab_size()
        self.settings = _settings(config)
        self.arguments = {"model": Path(self.model).name, "temperature": self.temperature} | _resolved(config)
        if not TELLS_PREEMPTIONS:
            self.notes += (f"vLLM {vllm_version} does not tell which requests were preempted; the steps count them",)

    async def warm_up(self) -> None:
        """Run every code path once, full batches included, so that the first recorded steps are like the others."""
        llm = self._running()
        longest = self.settings.max_model_len - 17

        async def one(number: int) -> None:
            parameters = SamplingParams(max_tokens=16, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY)
            name = f"warm-up {number}"
            prompt = {"prompt_token_ids": synthetic(name, min(longest, 5 + 4 * number), self._vocabulary)}
            async for _ in llm.generate(prompt, parameters, request_id=name):
                pass

        await asyncio.gather(*map(one, range(self.settings.max_num_seqs)))

    async def forget(self) -> bool | None:
        """Let no block be found again that an earlier run or the warm-up computed."""
        if not self.settings.enable_prefix_caching:
            return True
        try:
            emptied: bool | None = await self._running().reset_prefix_cache()  # older ones do not say
            return emptied
        except EngineDeadError:
            return None

    def count_tokens(self, prompt: str) -> int:
        """Tokens of ``prompt`` with the chat template around it."""
        return len(self.token_ids(prompt))

    def token_ids(self, prompt: str) -> array[int]:
        """The prompt as the engine will see it: chat template applied, where the model has one, tokenised, once."""
        if prompt not in self._token_ids:
            if self._tokenizer is None:
                raise InputError(f"{self.model}: has no tokenizer, so prompts cannot be sent; use --replay TRACE")
            text = prompt
            if getattr(self._tokenizer, "chat_template", None):
                message = [{"role": "user", "content": prompt}]
                text = self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
            self._token_ids[prompt] = array("i", self._tokenizer(text, add_special_tokens=text is prompt)["input_ids"])
        return self._token_ids[prompt]

    def _conversation_ids(self, request: Request) -> list[int]:
        """A turn as the engine will see it: all that was said before it, and its prompt."""
        assert self._tokenizer is not None  # or its first turn had failed
        if not getattr(self._tokenizer, "chat_template", None):
            text = "\n".join((*request.history, request.prompt or ""))
            return list(self._tokenizer(text, add_special_tokens=True)["input_ids"])
        said = conversation(request)
        text = self._tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def room(self) -> int:
        """vLLM queues whatever it is given."""
        return 1_000_000

    def submit(self, job: Job, true_length: int | None) -> None:
        """Send ``job``; ``true_length``, if given, is forced (no end-of-sequence stop)."""
        self._go(self._serve(job, true_length))

    def abort(self, job: Job) -> None:
        """Ask vLLM to drop the job; its outcome follows."""
        self._go(self._running().abort(job.request.id))

    def trace_steps(self, file: Path) -> bool:
        """Steps go into ``file`` from when the engine next leaves idleness."""
        aside = self._link.with_suffix(".next")
        aside.symlink_to(file.resolve())
        aside.replace(self._link)
        return True

    def stand(self, orders: Orders) -> Path:
        """Let the policy that ``orders`` name decide inside the engine's core from the next request on; the file that
        its estimates go to."""
        self._run, estimates = orders.run, self._orders.with_name(f"estimates-{orders.run}.csv")
        orders.changed(estimates=str(estimates)).write(self._orders)
        return estimates

    async def shutdown(self) -> None:
        """Stop the engine core, by force where it lingers: what it recorded is on disk."""
        for task in self._tasks:
            task.cancel()
        if self._llm is not None:
            if self._llm.output_handler is not None:
                self._llm.output_handler.cancel()  # else it reports the end of the engine core as an accident
            await asyncio.to_thread(self._llm.shutdown, 0.0)
            self._llm = None
            gc.collect()  # while the interpreter is whole: AsyncLLM.__del__ complains at its exit
        for child in psutil.Process().children(recursive=True):
            child.kill()
        self._folder.cleanup()

    def _running(self) -> AsyncLLM:
        assert self._llm is not None, "start() comes first"
        return self._llm

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, job: Job, true_length: int | None) -> None:
        request = job.request
        parameters = SamplingParams(
            temperature=self.temperature,
            max_tokens=true_length or request.max_tokens,
            ignore_eos=true_length is not None,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=None if self._run is None else {NAME: carried(job, self._run)},
        )
        last = None
        ids: list[int] = []
        try:
            if request.prompt is None:
                ids = stand_in(request, self._vocabulary)
            else:
                ids = list(self._conversation_ids(request) if request.history else self.token_ids(request.prompt))
            rank = job.priority if self.settings.scheduling_policy == "priority" else 0
            prompt = {"prompt_token_ids": ids}
            async for output in self._running().generate(prompt, parameters, request_id=request.id, priority=rank):
                last = output
            outcome = Outcome(job, "error", error="vLLM gave no output") if last is None else self._outcome(job, last)
            outcome = replace(outcome, prompt_tokens=len(ids)) if request.history else outcome
        except EngineDeadError:
            self.failure = "the engine core died"
            outcome = Outcome(job, "error", error=self.failure)
        except Exception as error:  # whatever vLLM raises belongs to this request's row
            said = masked(str(error), secrets=[request.prompt or ""], ids=ids)
            reason = "rejected" if type(error).__name__ in TURNED_AWAY else "error"
            outcome = Outcome(job, reason, error=f"{type(error).__name__}: {said}")
        shown = [] if last is None else last.outputs[0].token_ids
        blocks = self._hashes.blocks([*ids, *shown], self.settings.block_size)
        self.on_outcome(replace(outcome, beginning=Beginning(blocks)))

    def _outcome(self, job: Job, last: Any) -> Outcome:
        completion, times = last.outputs[0], last.metrics
        is_known = self.settings.enable_prefix_caching and times.first_token_ts  # told with the first token
        return Outcome(
            job,
            completion.finish_reason or "error",
            queued=times.queued_ts,
            scheduled=times.scheduled_ts or None,
            first_token=times.first_token_ts or None,
            finish=times.last_token_ts or None,
            output_tokens=len(completion.token_ids),
            output_words=len(completion.text.split()),
            preemptions=times.num_preemptions if TELLS_PREEMPTIONS else 0,
            cached_tokens=last.num_cached_tokens if is_known else None,
            stop_string=isinstance(completion.stop_reason, str),
            answer=completion.text,
        )


# vllm/envs.py: KV space in GiB (else 92 % of memory), the executor inside the engine core (three processes on two
# cores make step times cluster at the kernel's tick), and no network.
CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{(os.cpu_count() or 1) - 1}",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


def _resolved(config: Any) -> dict[str, Any]:
    """Every plain setting of the resolved configuration that may touch timing or the schedule."""
    sections = {
        "scheduler": config.scheduler_config,
        "cache": config.cache_config,
        "model": config.model_config,
        "parallel": config.parallel_config,
    }
    named: dict[str, tuple[str, ...]] = {"model": ("dtype", "quantization", "enforce_eager", "seed", "max_model_len")}
    named["parallel"] = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    resolved: dict[str, Any] = {"load_format": str(config.load_config.load_format)}
    for section, values in sections.items():
        for name in named.get(section, sorted(vars(values))):
            value = getattr(values, name, None)
            if name.startswith("_") or name == "scheduler_cls":
                continue
            if name == "dtype":
                value = str(value)
            if value is None or isinstance(value, bool | int | float | str):
                resolved[f"{section}.{name}"] = value
    return resolved


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
        sliding_window=cache.sliding_window or None,
        prefix_cache_retention_interval=getattr(cache, "prefix_cache_retention_interval", 0),
        scheduler_reserve_full_isl=getattr(scheduler, "scheduler_reserve_full_isl", False),  # older ones do not ask
        # Not every version has these, nor what they default to.
        **{name: value for name in ASKED if (value := getattr(scheduler, name, None)) is not None},
    )


def is_cpu() -> bool:
    """Whether this vLLM runs on the CPU."""
    return bool(current_platform.is_cpu())
