"""The verbs ``calibrate``, ``validate`` and ``import``: from recorded runs to a profile, and how far to trust it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftsim.terminal import TABLE_WIDTH, Choice, RunError, about, print_table, progress, status

if TYPE_CHECKING:
    from driftsim.judging import Cell
    from driftsim.latency import Profile
    from driftsim.validate import Validation


class Source(Choice):
    """What a profile is fitted to."""

    AUTO = "auto"
    STEPS = "steps"
    REQUESTS = "requests"


def calibrate(
    traces: Annotated[list[Path], typer.Argument(help="Folders of recorded runs, best at several loads.")],
    out: Annotated[Path, typer.Option(help="File of the profile to write.")] = Path("profile.json"),
    source: Annotated[
        Source, typer.Option("--from", help="Fit the steps, or the timings of requests; auto: steps where known.")
    ] = Source.AUTO,
    until: Annotated[float | None, typer.Option(min=0, help="Fit only the first so many seconds of each run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Fit a latency profile of your GPU, model and engine to recorded runs, jointly."""
    from driftsim.calibrate import Run
    from driftsim.calibrate import calibrate as fit
    from driftsim.report import dumps
    from driftsim.trace import digest, read

    _check_file(out)
    runs = []
    for folder in traces:
        runs.append(Run(str(folder), read(folder), digest(folder)))
    with status("calibrating") as told:
        profile = fit(runs, source=source.value, until=float("inf") if until is None else until, told=told)
    profile.save(out)
    if as_json:
        typer.echo(dumps(profile.model_dump(mode="json")))
        return
    _print_profile(out, profile)


def _print_profile(out: Path, profile: Profile) -> None:
    from rich.console import Console

    fit = profile.fit
    headings = ["coefficient\n", "us\n", "95 % interval\nus"]
    cells = [
        [
            name.removesuffix("_s").replace("_", " "),
            f"{1e6 * getattr(profile, name):.4g}",
            f"{1e6 * low:.4g} to {1e6 * high:.4g}",
        ]
        for name, (low, high) in profile.intervals.items()
    ]
    console = Console(highlight=False)
    typer.echo(f"{out}: {profile.model} on {profile.hardware}, vLLM {profile.engine.version}")
    print_table(console, "", headings, cells)
    if fit is not None:
        what = "steps" if fit.source == "steps" else "requests' decode times"
        typer.echo(
            f"Fitted to {fit.rows:,} {what}: mean absolute error "
            f"{100 * fit.mean_absolute_percentage_error:.2f} %, bias {100 * fit.bias:+.2f} %."
        )
        for region in fit.regions:
            typer.echo(
                f"  {region.name}: {region.rows:,} rows, mean absolute error "
                f"{100 * region.mean_absolute_percentage_error:.2f} %, bias {100 * region.bias:+.2f} %"
            )
    for warning in profile.warnings:
        typer.echo(f"Warning: {warning}.")


class WeightType(Choice):
    """How weights are stored and multiplied."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"


def profile(
    gpu: Annotated[str, typer.Option(help="T4, L4, A10G, L40S, A100, H100, H200 or 'RTX 4090'.")],
    model: Annotated[str, typer.Option(help="Hugging Face config.json, model folder, or a name in the local cache.")],
    out: Annotated[Path, typer.Option(help="File of the profile to write.")] = Path("profile.json"),
    dtype: Annotated[WeightType, typer.Option(help="How weights are stored.")] = WeightType.BF16,
    bandwidth_efficiency: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Share of the datasheet's bandwidth that is reached.")
    ] = None,
    compute_efficiency: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Share of the datasheet's FLOP/s that is reached.")
    ] = None,
    memory_fraction: Annotated[float, typer.Option(min=0.01, max=1, help="vLLM's gpu_memory_utilization.")] = 0.9,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Slots of the engine.")] = 256,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a step at most; vLLM's default for the GPU.")
    ] = None,
    max_model_len: Annotated[int | None, typer.Option(min=2, help="Longest context; the model's, if not told.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Derive a profile of hardware that nobody has measured, from its datasheet and the model's configuration."""
    from driftsim.firstprinciples import BANDWIDTH_EFFICIENCY, COMPUTE_EFFICIENCY, Assumptions, derive, shape_of
    from driftsim.report import dumps

    _check_file(out)
    assumed = Assumptions(
        dtype=dtype.value,
        bandwidth_efficiency=BANDWIDTH_EFFICIENCY if bandwidth_efficiency is None else bandwidth_efficiency,
        compute_efficiency=COMPUTE_EFFICIENCY if compute_efficiency is None else compute_efficiency,
        memory_fraction=memory_fraction,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_model_len=max_model_len,
    )
    derived = derive(gpu, shape_of(model), assumed)
    derived.save(out)
    if as_json:
        typer.echo(dumps(derived.model_dump(mode="json")))
        return
    typer.echo(f"{out}: {derived.model} on {gpu}, derived, not measured")
    typer.echo(f"  source: {derived.derived['gpu']}")
    step, context = 1e3 * derived.intercept_s, 1e9 * derived.context_token_s
    typer.echo(f"  a step that only decodes: {step:.2f} ms and {context:.3g} ns a token of context")
    typer.echo(f"  prefill: {1e6 * derived.prefill_token_s:.1f} us a token beyond {derived.hidden_tokens} in a step")
    kv = derived.engine.usable_kv_blocks * derived.engine.block_size
    typer.echo(f"  KV cache: {derived.engine.kv_blocks:,} blocks, {kv:,} tokens")


def _check_file(out: Path) -> None:
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise ValueError(f"{out}: cannot be written; name a file in a folder that is there")


def import_(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="csv (or JSON Lines, Parquet), vllm-bench, azure.")],
    file: Annotated[Path, typer.Argument(help="The file to bring in.")],
    out: Annotated[Path, typer.Option(help="Folder of the trace to write.")],
    mapping: Annotated[
        Path | None, typer.Option(help="TOML: columns, durations, units, values, offset, engine, model, hardware.")
    ] = None,
) -> None:
    """Bring another tool's run in as a trace."""
    from driftsim.importers import import_trace

    trace = import_trace(form, file, mapping)
    trace.write(out)
    typer.echo(f"{out}: {len(trace.requests)} requests", err=True)
    for note in trace.header.notes:
        typer.echo(f"Note: {note}.", err=True)


class Steps(Choice):
    """Where the durations of steps come from."""

    MODEL = "model"
    NOISE = "noise"
    MEASURED = "measured"


def validate(
    traces: Annotated[list[Path], typer.Argument(help="Folders of recorded runs; repeats of one run are recognised.")],
    profile: Annotated[Path | None, typer.Option(help="Latency profile, fitted to other runs than these.")] = None,
    steps: Annotated[
        Steps,
        typer.Option(
            help="The profile's step times; these with its noise, for an interval; or those recorded, so that only "
            "scheduling can err."
        ),
    ] = Steps.MODEL,
    seeds: Annotated[int, typer.Option(min=2, help="Runs with noise, for --steps noise.")] = 20,
    by_tenant: Annotated[bool, typer.Option("--by-tenant", help="Show each tenant's latencies, too.")] = False,
    max_error: Annotated[
        float | None, typer.Option(min=0, help="Exit 1 if an error is larger, relative: 0.05 is 5 %.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the simulated traces and the figures.")] = None,
) -> None:
    """Simulate what was measured, and show how far the two are apart."""
    from driftsim.extent import beyond
    from driftsim.judging import cells
    from driftsim.latency import load_profile
    from driftsim.report import dumps, without_nan
    from driftsim.trace import digest, read
    from driftsim.validate import TOLERANCE_S, on_measured_steps, on_model_steps, with_noise, worst

    measured = steps is Steps.MEASURED
    if measured == (profile is not None):
        raise ValueError(
            "--steps measured takes no --profile; drop one of them"
            if measured
            else f"--steps {steps.value} needs --profile, fitted to other runs than these (driftsim calibrate)"
        )
    names = [folder.name for folder in traces]
    if len(set(names)) < len(names):
        names = [str(folder).strip("/").replace("/", "-") for folder in traces]
    model = None if profile is None else load_profile(profile)
    found, warnings, intervals = [], [], []
    with progress("simulating", len(traces)) as advance:
        for name, folder in zip(names, traces, strict=True):
            recorded = read(folder)
            with about(folder):
                if model is None:
                    found.append(on_measured_steps(name, recorded))
                else:
                    found.append(on_model_steps(name, recorded, model))
                    warnings += [f"{name}: {warning}" for warning in beyond(model, found[-1].simulated)]
                    if steps is Steps.NOISE:
                        intervals += with_noise(name, recorded, model, seeds)
            advance(1)
    if out is not None:
        _keep(out, found, model)
    rows = [row for validation in found for row in validation.rows()]
    tenants = [row for validation in found for row in validation.tenants()]
    repeated = cells(found)
    exceptions = [
        {"trace": validation.name, **record}
        for validation in found
        if validation.exceptions is not None
        for record in validation.exceptions.to_dict("records")
    ]
    if model is not None:
        shared = set(model.fitted_on) & {digest(folder) for folder in traces}
        for what in ("model", "hardware"):
            others = sorted({getattr(one.recorded.header, what) for one in found} - {getattr(model, what)})
            if others:
                warnings.append(f"the profile is of {getattr(model, what)!r}, but runs are of {', '.join(others)}")
        if shared:
            warnings.append("the profile was fitted to some of these very runs: the errors flatter it")
    if as_json:
        document = {
            "rows": rows,
            "profile": None if profile is None else profile.name,
            "exceptions": exceptions,
            "tenants": tenants,
            "intervals": intervals,
            "repeats": [asdict(cell) | {"error": cell.error, "within": cell.within} for cell in repeated],
            "warnings": warnings,
        }
        typer.echo(dumps(without_nan(document)))
    else:
        _print_validation(found, tenants if by_tenant else rows, intervals, repeated, profile)
        for record in exceptions[:20]:
            typer.echo(f"  {record}")
        for warning in warnings:
            typer.echo(f"Warning: {warning}.")
    if exceptions:
        raise RunError(f"{len(exceptions)} requests are more than {1000 * TOLERANCE_S:g} ms off")
    if max_error is not None and not worst(found) <= max_error:
        raise RunError(f"the largest error, {100 * worst(found):.2f} %, is above {100 * max_error:g} %")


def _keep(out: Path, found: list[Validation], profile: Profile | None) -> None:
    """Write the simulated traces, and figures that set them beside the measured ones."""
    from driftsim.plots import save
    from driftsim.validation_plots import validation_figures

    for validation in found:
        folder = validation.simulated.write(out / validation.name, overwrite=True)
        for name, figure in validation_figures(validation.recorded, validation.simulated, profile).items():
            save(figure, folder.parent, f"{validation.name}-{name}")


def _print_validation(
    found: list[Validation],
    rows: list[dict[str, Any]],
    intervals: list[dict[str, Any]],
    repeated: list[Cell],
    profile: Path | None,
) -> None:
    from rich.console import Console

    from driftsim.validate import TOLERANCE_S

    console = Console(highlight=False)
    console.width = max(console.width, TABLE_WIDTH)
    drawn = {(row["trace"], row["metric"], row["stat"]): row for row in intervals}
    lines = []
    for row in rows:
        if row["metric"] == "makespan" and row["stat"] != "mean":
            continue
        between = drawn.get((row["trace"], row["metric"], row["stat"]))
        lines.append(
            [
                f"{row['trace']} {row['tenant']}" if "tenant" in row else row["trace"],
                row["metric"] if row["metric"] == "makespan" else f"{row['metric']} {row['stat']}",
                f"{row['measured']:.4f}",
                f"{row['simulated']:.4f}",
                *([f"{between['low']:.4f} to {between['high']:.4f}"] if between else [""] if drawn else []),
                f"{100 * row['error']:+.2f} %",
            ]
        )
    headings = [
        "trace\n",
        "metric\n",
        "measured\ns",
        "simulated\ns",
        *(["95 % interval\ns"] if drawn else []),
        "error\n",
    ]
    title = "Simulated on the recorded steps" if profile is None else f"Simulated with {profile}"
    print_table(console, title, headings, lines)
    for validation in found if profile is None else []:
        count = len(validation.recorded.requests)
        off = 0 if validation.exceptions is None else len(validation.exceptions)
        console.print(
            f"{validation.name}: {count - off} of {count} requests within {1000 * TOLERANCE_S:g} ms at the first "
            f"and last token; {100 * (validation.steps_alike or 0):.2f} % of the steps composed alike",
            markup=False,
        )
    if repeated:
        print_table(
            console,
            "Against repeats of the same run: could the simulated value be a further one?",
            ["run\n", "metric\n", "repeats\n", "measured\ns", "simulated\ns", "error\n", "noise floor\n",
             "interval\nhigh / low", "p\nHolm"],
            [
                [cell.name, cell.metric if cell.metric == "makespan" else f"{cell.metric} {cell.stat}",
                 str(cell.repeats), f"{cell.measured:.4f}", f"{cell.simulated:.4f}", f"{100 * cell.error:+.1f} %",
                 f"{100 * cell.spread:.1f} %", f"{cell.width:.2f}", f"{cell.p:.2f}{'' if cell.within else ' !'}"]
                for cell in repeated
            ],
        )  # fmt: skip
        inside = sum(cell.within for cell in repeated)
        console.print(
            f"{inside} of {len(repeated)} simulated values may be a further run (95 %, Holm over all of them); "
            "where high / low is large, that proves little.",
            markup=False,
        )
