"""The verb ``capture``: run a workload through a real engine and record traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from driftsim.cli.arrivals import Arrivals, ArrivalSetting, Cv, MaxOutstanding, Rate, Think, Users, process_of
from driftsim.cli.options import PlaceOption, RetriesOption, ShedOption, SlosOfTrace, argument, names, refuse
from driftsim.cli.terminal import progress, say
from driftsim.errors import InputError, RunError
from driftsim.live.kinds import CapTable, EngineKind, Order, WorkloadName
from driftsim.scheduling.names import Unit


def capture(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder of the trace; of several runs, of their folders POLICY-REPEAT.")],
    engine: Annotated[EngineKind, typer.Option(help="vLLM in this process, or any OpenAI-compatible server.")] = "vllm",
    model: Annotated[
        str | None, typer.Option(help="Folder or name [default: packaged SmolLM2-135M; of a server, its first].")
    ] = None,
    load_format: Annotated[
        str | None, typer.Option(help="vllm: dummy runs any model's config without its weights, for timing.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="openai: the server, http://HOST:PORT/v1; key in OPENAI_API_KEY.")
    ] = None,
    timeout: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME:]TIME",
            help="How long clients of a tenant or tier wait for the end of an answer, premium:30s; without NAME, all. "
            "Repeat it. openai: a number alone is the longest wait for an answer, s; beyond is an error [600].",
        ),
    ] = None,
    retries: RetriesOption = None,
    shed: ShedOption = None,
    slo: SlosOfTrace = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="openai: model folder to count prompts with, if the server cannot.")
    ] = None,
    workload: Annotated[
        WorkloadName, typer.Option(help="Two phases: DriftSched's, or its variant with more drift.")
    ] = "drift",
    learning: Annotated[int | None, typer.Option(min=1, help="Requests of the learning phase.")] = None,
    stress: Annotated[int | None, typer.Option(min=1, help="Requests of the stress phase, after a drain.")] = None,
    learning_gap: Annotated[
        tuple[float, float] | None, typer.Option(help="Gaps between arrivals, uniform: low high, s.")
    ] = None,
    stress_gap: Annotated[tuple[float, float] | None, typer.Option(help="The same in the stress phase.")] = None,
    caps: Annotated[
        CapTable | None, typer.Option(help="max_tokens: most answers end by themselves, or DriftSched's.")
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
    arrivals: Arrivals = None,
    rate: Rate = None,
    cv: Cv = 3.0,
    users: Users = None,
    think: Think = 0.0,
    max_outstanding: MaxOutstanding = None,
    arrival_setting: ArrivalSetting = None,
    policies: Annotated[
        str, typer.Option("--policies", "--policy", help="Comma-separated; several run in turn, interleaved.")
    ] = "fifo",
    estimator: Annotated[str, typer.Option(help="static, or ema: bias correction, live.")] = "static",
    accounting: Annotated[Unit, typer.Option(help="Unit of estimates.")] = "tokenizer",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each policy: rounds, each of all the policies.")] = 1,
    order: Annotated[
        Order, typer.Option(help="Of the policies within a round: a balanced Latin square, drawn anew, or as given.")
    ] = "latin",
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, help="Requests inside the engine [default: its slots].")
    ] = None,
    place: PlaceOption = "front",
    scheduling_policy: Annotated[
        Literal["fcfs", "priority"] | None,
        typer.Option(help="The engine's own order; of a server, as it was started [default: fcfs]."),
    ] = None,
    tiers: Annotated[
        str | None, typer.Option(help="Most urgent first: name[:weight[:safety]],... [default: those published].")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling.")] = 0.7,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, prompts, tiers and the engine.")] = 0,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="Requests in one batch.")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(min=1, help="Token budget of one step.")] = None,
    max_model_len: Annotated[int | None, typer.Option(min=2, help="Prompt plus output, tokens.")] = None,
    kv_blocks: Annotated[int | None, typer.Option(min=2, help="KV blocks [default: what fits].")] = None,
    prefix_caching: Annotated[
        bool | None,
        typer.Option(
            "--prefix-caching/--no-prefix-caching",
            help="Equal beginnings of prompts share KV blocks [default: off; of a server, as it tells].",
        ),
    ] = None,
    engine_arg: Annotated[
        list[str] | None, typer.Option(help="vllm: any other engine argument, NAME=VALUE; repeat it.")
    ] = None,
) -> None:
    """Run a workload through a real engine and record a trace; several policies in turn, to measure what they change.

    Gaps default to 0.5-1.0 s and 0.2-1.0 s (drift) or DriftSched's 0.05-0.15 s and 0.005-0.03 s (reference); counts to
    150 and 350, or DriftSched's 1000 and 2000. On a CPU the engine defaults to 16 slots, 512 tokens a step, 2048 a
    request. Ctrl-C, a crash or a kill leaves a readable trace; the same command goes on with the runs that are missing.
    """
    from driftsim.live.capture import capture as run_capture
    from driftsim.live.choices import EngineChoice, WorkloadChoice
    from driftsim.scheduling.admission import Admission

    _refuse_idle(context, engine, prompts, replay)
    if force_lengths and replay is None:
        raise InputError("--force-lengths needs --replay TRACE: only a trace knows the lengths")
    timeouts, waiting = _timeouts(context, engine, timeout or [])
    limits = {
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_model_len": max_model_len,
    }
    live = EngineChoice(
        kind=engine,
        model=model,
        base_url=base_url,
        settings={name: value for name, value in limits.items() if value is not None},
        kv_blocks=kv_blocks,
        prefix_caching=prefix_caching,
        load_format=load_format,
        arguments=dict(argument("--engine-arg", text, "block_size=32") for text in engine_arg or []),
        tokenizer=tokenizer,
        scheduling_policy=scheduling_policy,
        temperature=temperature,
        **waiting,
        seed=seed,
    )
    process = process_of(context)
    chosen = WorkloadChoice(
        named=workload,
        learning=learning,
        stress=stress,
        learning_gap=learning_gap,
        stress_gap=stress_gap,
        caps=caps,
        prompts=prompts,
        max_tokens=max_tokens,
        replay=replay,
        requests=requests,
        arrivals=process,
        seed=seed,
    )
    with progress("starting the engine") as reporter:

        def begun(number: int, run: Any, requests: int) -> None:
            count = f" (run {number + 1} of {repeats * len(names(policies))})" if run.folder != out else ""
            reporter.restart(run.plan.policy + count, requests)

        def advance(now: Any) -> None:
            speed = now.output_tokens / now.elapsed_s if now.elapsed_s else 0.0
            note = f"{now.running} running, {now.waiting} waiting, {speed:.0f} tokens/s"
            reporter.update(now.done, note=note)

        runs = run_capture(
            out,
            engine=live,
            workload=chosen,
            policies=names(policies),
            estimator=estimator,
            admission=Admission(accounting=accounting),
            repeats=repeats,
            order=order,
            max_in_flight=max_in_flight,
            tiers=() if tiers is None else tiers,
            slos=slo or (),
            timeouts=timeouts,
            retries=retries,
            shed=shed or (),
            place=place,
            force_lengths=force_lengths,
            seed=seed,
            begun=begun,
            progress=advance,
        )
    _report(out, runs)


def _timeouts(context: typer.Context, engine: EngineKind, given: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The timeouts of clients, and the longest wait for a server's answer, if a number alone gives one (s)."""
    named, waiting = [], dict[str, Any]()
    for text in given:
        try:
            waiting["timeout_s"] = float(text)
        except ValueError:
            named.append(text)
            continue
        if engine == "vllm":
            refuse(context, "a number alone is for --engine openai, which waits for a server", "timeout")
        if not 0.001 <= waiting["timeout_s"] <= 1e9:
            raise InputError(f"--timeout {text}: must be at least 0.001 s and at most 1e9 s")
    return named, waiting


def _refuse_idle(context: typer.Context, engine: EngineKind, prompts: Path | None, replay: Path | None) -> None:
    """Refuse options that do nothing in this call."""
    if prompts is None:
        refuse(context, "only --prompts FILE has prompts that set no limit of their own", "max_tokens")
    else:
        refuse(context, "--prompts is another workload", "workload")
    if replay is not None:
        refuse(context, "--replay is another workload", "workload")


def _report(out: Path, runs: list[tuple[Path, Any]]) -> None:
    """Say how the runs went. Raises ``RunError`` where the last one did not end well, or nothing finished."""
    for folder, trace in runs:
        load = trace.header.load
        mark = f"DISTURBED, above {load.foreign_cpu_limit}" if load.disturbed else "quiet"
        errors = int((trace.requests["finish_reason"] == "error").sum())
        failed = f", {errors} with an error" if errors else ""
        cpu = f"foreign CPU {load.foreign_cpu_mean} cores ({mark})"
        say(f"{folder}: {len(trace.requests)} requests{failed}; {cpu}", err=True)
        for note in trace.header.notes:
            say(f"Note: {note}.", err=True)
    folder, last = runs[-1]
    if last.header.ended != "complete":
        ended = f"{last.header.ended} ({last.header.ended_why})"
        raise RunError(f"{folder}: the run was {ended}; what was recorded is kept")
    if not any(len(trace.finished) for _, trace in runs):
        why = next((error for error in last.requests["error"] if error), "no reason given")
        raise RunError(f"{out}: not one request finished ({why})")
