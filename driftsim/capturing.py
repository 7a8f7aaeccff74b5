"""The verb ``capture``: options to an engine, a workload and the runs of a session."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from driftsim.policies import policy_class
from driftsim.terminal import Choice, RunError

NOT_A_TERMINAL_S = 30.0  # between lines of progress where nobody watches a bar
# What the CPU build of vLLM runs well on a few cores; on a GPU its own defaults stand.
CPU_SETTINGS = {"max_num_seqs": 16, "max_num_batched_tokens": 512, "max_model_len": 2048}


class AccountingUnit(Choice):
    """The unit of estimates and errors."""

    TOKENIZER = "tokenizer"
    WHITESPACE = "whitespace"


class EngineKind(Choice):
    """Where the requests go."""

    VLLM = "vllm"
    OPENAI = "openai"


class Named(Choice):
    """Workloads that need no file."""

    DRIFT = "drift"
    REFERENCE = "reference"


class ArrivalKind(Choice):
    """How requests arrive."""

    POISSON = "poisson"
    UNIFORM = "uniform"
    GAMMA = "gamma"
    CLOSED = "closed"
    BACKLOG = "backlog"


class Caps(Choice):
    """Tables of max_tokens by category."""

    NATURAL = "natural"
    REFERENCE = "reference"


def capture(
    out: Annotated[Path, typer.Option(help="Folder of the trace; of several runs, of their folders POLICY-REPEAT.")],
    engine: Annotated[
        EngineKind, typer.Option(help="vLLM in this process, or any OpenAI-compatible server.")
    ] = EngineKind.VLLM,
    model: Annotated[
        str | None, typer.Option(help="Folder or name [default: packaged SmolLM2-135M; of a server, its first].")
    ] = None,
    load_format: Annotated[
        str | None, typer.Option(help="vllm: dummy runs any model's config without its weights, for timing.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="openai: the server, http://HOST:PORT/v1; key in OPENAI_API_KEY.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="openai: longest wait for one whole answer, s.")] = 600.0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="openai: model folder to count prompts with, if the server cannot.")
    ] = None,
    workload: Annotated[
        Named, typer.Option(help="Two phases: the paper's, or its variant with more drift.")
    ] = Named.DRIFT,
    learning: Annotated[int | None, typer.Option(min=1, help="Requests of the learning phase.")] = None,
    stress: Annotated[int | None, typer.Option(min=1, help="Requests of the stress phase, after a drain.")] = None,
    learning_gap: Annotated[
        tuple[float, float] | None, typer.Option(help="Gaps between arrivals, uniform: low high, s.")
    ] = None,
    stress_gap: Annotated[tuple[float, float] | None, typer.Option(help="The same in the stress phase.")] = None,
    caps: Annotated[
        Caps | None, typer.Option(help="max_tokens: most answers end by themselves, or the paper's.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="JSON Lines instead: prompt, and tenant, tier, category, max_tokens.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of prompts that set none.")] = 512,
    replay: Annotated[
        Path | None, typer.Option(help="Arrivals and lengths of a trace instead, with synthetic prompts.")
    ] = None,
    force_lengths: Annotated[
        bool, typer.Option("--force-lengths", help="With --replay: outputs exactly as long as recorded.")
    ] = False,
    requests: Annotated[int | None, typer.Option(min=1, help="Only the first N; prompts are taken in turn.")] = None,
    arrivals: Annotated[
        ArrivalKind | None, typer.Option(help="Instead of the workload's own [prompts: backlog].")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Of poisson, uniform, gamma: requests / s.")] = None,
    cv: Annotated[float, typer.Option(help="gamma: coefficient of variation of the gaps; above 1 is bursty.")] = 3.0,
    users: Annotated[int | None, typer.Option(min=1, help="closed: how many send, wait, think, send again.")] = None,
    think: Annotated[float, typer.Option(min=0, help="closed: between an answer and the next request, s.")] = 0.0,
    policies: Annotated[
        str, typer.Option("--policies", "--policy", help="Comma-separated; several run in turn, interleaved.")
    ] = "fifo",
    estimator: Annotated[str, typer.Option(help="static, or ema: bias correction, live.")] = "static",
    accounting: Annotated[AccountingUnit, typer.Option(help="Unit of estimates.")] = AccountingUnit.TOKENIZER,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each policy.")] = 1,
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, help="Requests inside the engine [default: its slots].")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling.")] = 0.7,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, prompts, tiers and the engine.")] = 0,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="Requests in one batch.")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of one step.")] = None,
    max_model_len: Annotated[int | None, typer.Option(min=2, help="Prompt plus output, tokens.")] = None,
    kv_blocks: Annotated[int | None, typer.Option(min=2, help="KV blocks [default: what fits].")] = None,
    engine_arg: Annotated[
        list[str] | None, typer.Option(help="vllm: any other engine argument, NAME=VALUE; repeat it.")
    ] = None,
) -> None:
    """Run a workload through a real engine and record a trace; several policies in turn, to measure what they change.

    Gaps default to 0.5-1.0 s and 0.2-1.0 s (drift) or the paper's 0.05-0.15 s and 0.005-0.03 s (reference); counts to
    150 and 350, or the paper's 1000 and 2000. On a CPU the engine defaults to 16 slots, 512 tokens a step, 2048 a
    request. Ctrl-C, a crash or a kill leaves a readable trace; the same command goes on with the runs that are missing.
    """
    import asyncio

    from driftsim.admission import Admission
    from driftsim.estimators import ORACLE, estimator_class
    from driftsim.live.recorder import Plan
    from driftsim.live.session import capture as run_session
    from driftsim.live.session import check_places, interleaved

    if force_lengths and replay is None:
        raise ValueError("--force-lengths needs --replay TRACE: only a trace knows the lengths")
    names = list(dict.fromkeys(name.strip() for name in policies.split(",")))
    for name in names:
        policy_class(name)
    if estimator == ORACLE:
        raise ValueError(f"the estimator {ORACLE!r} is told every length, and live nobody knows them; choose another")
    estimator_class(estimator)
    admission = Admission(accounting=accounting.value)
    plans = [
        Plan(
            policy=name,
            estimator=estimator,
            admission=admission,
            max_in_flight=max_in_flight,
            force_lengths=force_lengths,
            seed=seed,
        )
        for name in names
    ]
    runs = interleaved(out, plans, repeats)
    check_places(runs)  # before minutes are spent
    drawn = {"learning": learning, "stress": stress, "learning_gap": learning_gap, "stress_gap": stress_gap}
    make = _workload_maker(workload, drawn, caps, prompts, max_tokens, replay, requests, seed)
    process = _process(arrivals, rate, cv, users, think)
    settings = {
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_model_len": max_model_len,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    live = _engine(
        engine, model, base_url, given, kv_blocks, load_format, engine_arg or [], tokenizer, temperature, timeout, seed
    )

    def made(started: Any) -> Any:
        from driftsim.workload import arriving

        built = make(started.count_tokens)
        return built if process is None else arriving(built, process, seed)

    with _watching(len(runs)) as (begun, progress):
        try:
            traces = asyncio.run(run_session(live, made, runs, begun, progress))
        except asyncio.CancelledError:
            raise RunError("stopped before anything was recorded") from None
    for run, trace in zip(runs, traces, strict=False):
        _tell(run.folder, trace)
    last = traces[-1]
    if last.header.ended != "complete":
        where = runs[len(traces) - 1].folder
        raise RunError(f"{where}: the run was {last.header.ended} ({last.header.ended_why}); what was recorded is kept")
    if not any(len(trace.finished) for trace in traces):
        why = next((error for error in last.requests["error"] if error), "no reason given")
        raise RunError(f"{out}: not one request finished ({why})")


def _tell(folder: Path, trace: Any) -> None:
    load = trace.header.load
    mark = f"DISTURBED, above {load.foreign_cpu_limit}" if load.disturbed else "quiet"
    errors = int((trace.requests["finish_reason"] == "error").sum())
    failed = f", {errors} with an error" if errors else ""
    cpu = f"foreign CPU {load.foreign_cpu_mean} cores ({mark})"
    typer.echo(f"{folder}: {len(trace.requests)} requests{failed}; {cpu}", err=True)
    for note in trace.header.notes:
        typer.echo(f"Note: {note}.", err=True)


def _workload_maker(
    named: Named,
    drawn: dict[str, Any],
    caps: Caps | None,
    prompts: Path | None,
    max_tokens: int,
    replayed: Path | None,
    requests: int | None,
    seed: int,
) -> Callable[[Callable[[str], int]], Any]:
    """A function from a counter of tokens to the workload; what is wrong with a file is found now."""
    from driftsim.workload import first

    if prompts is not None and replayed is not None:
        raise ValueError("--prompts and --replay are two workloads; give one")
    given = [name for name, value in drawn.items() if value is not None] + (["caps"] if caps else [])
    if given and (prompts is not None or replayed is not None):
        raise ValueError(f"--{given[0].replace('_', '-')} belongs to --workload; drop it, or --prompts and --replay")
    if prompts is not None:
        from driftsim.prompts import read_prompts, workload_of

        read = read_prompts(prompts)
        return lambda count: workload_of(read, requests, max_tokens, prompts.stem, count)
    if replayed is not None:
        from driftsim.trace import read as read_trace
        from driftsim.workload import replay

        again = replay(read_trace(replayed))
        again = again if requests is None else first(again, requests)
        return lambda count: again
    from driftsim.reference import NATURAL_CAPS, REFERENCE_CAPS, drift_phases, reference_phases, reference_workload

    phases = drift_phases if named is Named.DRIFT else reference_phases
    chosen = phases(**{name: value for name, value in drawn.items() if value is not None})
    natural = caps is Caps.NATURAL if caps else named is Named.DRIFT
    table = NATURAL_CAPS if natural else dict(NATURAL_CAPS) | dict(REFERENCE_CAPS)

    def make(count: Callable[[str], int]) -> Any:
        whole = reference_workload(count, seed, chosen, table, name=named.value)
        return whole if requests is None else first(whole, requests)

    return make


def _process(kind: ArrivalKind | None, rate: float | None, cv: float, users: int | None, think: float) -> Any:
    from driftsim.workload import Process

    if kind is None:
        for name, value in (("rate", rate), ("users", users)):
            if value is not None:
                raise ValueError(f"--{name} belongs to --arrivals; say which, --arrivals poisson for instance")
        return None
    return Process(kind=kind.value, rate=rate, cv=cv, users=users, think_s=think)


def _engine(
    kind: EngineKind,
    model: str | None,
    base_url: str | None,
    settings: dict[str, int],
    kv_blocks: int | None,
    load_format: str | None,
    engine_args: list[str],
    tokenizer: Path | None,
    temperature: float,
    timeout: float,
    seed: int,
) -> Any:
    if kind is EngineKind.OPENAI:
        if base_url is None:
            raise ValueError("--engine openai needs --base-url, http://localhost:8000/v1 for instance")
        if load_format or engine_args:
            raise ValueError("--load-format and --engine-arg are for --engine vllm; a server has its own")
        from driftsim.live.http import HttpEngine

        known = settings | ({"kv_blocks": kv_blocks} if kv_blocks else {})
        return HttpEngine(base_url, model, tokenizer=tokenizer, temperature=temperature, timeout_s=timeout, known=known)
    if base_url or tokenizer:
        raise ValueError("--base-url and --tokenizer are for --engine openai")
    if model is not None and model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise ValueError(f"--model {model}: no such folder")
    others = dict(_argument(text) for text in engine_args)

    from driftsim.live.model import smollm2
    from driftsim.live.vllm import VllmEngine, is_cpu

    whole: dict[str, Any] = {"seed": seed, "enable_prefix_caching": False}
    whole |= CPU_SETTINGS if is_cpu() else {}
    whole |= settings | ({"num_gpu_blocks_override": kv_blocks} if kv_blocks else {})
    whole |= {"load_format": load_format} if load_format else {}
    return VllmEngine(model or smollm2(), temperature, **whole | others)


def _argument(text: str) -> tuple[str, Any]:
    """``name=value`` as vLLM's engine arguments spell it; the value is JSON where it reads as such."""
    name, found, value = text.partition("=")
    if not found or not name.strip("-"):
        raise ValueError(f"--engine-arg {text!r}: expected NAME=VALUE, block_size=32 for instance")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = {"true": True, "false": False}.get(value.lower(), value)
    return name.strip("-").replace("-", "_"), parsed


@contextmanager
def _watching(count: int) -> Iterator[tuple[Callable[..., None], Callable[[Any], None]]]:
    """Progress on stderr: a bar where somebody watches, else a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    said: dict[str, Any] = {"at": 0.0, "name": ""}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting the engine", total=None)

        def begun(number: int, run: Any, workload: Any) -> None:
            said["name"] = run.plan.policy + (f" (run {number + 1} of {count})" if count > 1 else "")
            said["at"] = 0.0
            bar.reset(task, total=len(workload), description=said["name"])

        def progress(now: Any) -> None:
            speed = now.output_tokens / now.elapsed_s if now.elapsed_s else 0.0
            told = f"{said['name']}: {now.running} running, {now.waiting} waiting, {speed:.0f} tokens/s"
            bar.update(task, completed=now.done, description=told)
            if not console.is_terminal and now.elapsed_s - said["at"] >= NOT_A_TERMINAL_S:
                said["at"] = now.elapsed_s
                print(f"{told}, {now.done} done after {now.elapsed_s:.0f} s", file=sys.stderr, flush=True)

        yield begun, progress
