"""The command line: it parses, calls one function a verb, and turns the user's mistakes into one line and exit 2.

Heavy modules are imported inside the verbs, so that ``driftsim --help`` answers at once.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from driftsim import __version__
from driftsim.calibrating import calibrate, import_, profile, validate
from driftsim.capturing import AccountingUnit, capture
from driftsim.policies import POLICIES, STOCK
from driftsim.sweeping import check, conformance, show, sweep
from driftsim.terminal import TABLE_WIDTH, Choice, RunError, about, print_table, progress

ALL_POLICIES = ",".join([STOCK, *POLICIES])
LIVE = ("vllm", "torch", "psutil", "openai")  # what only a capture needs

app = typer.Typer(
    name="driftsim",
    help="Which scheduler for a multi-tenant LLM server, and is correcting the token-budget estimates worth it?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; exit 0 when done, 1 when a check failed, 2 when the input is wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers and half-written folders go too
    try:
        sys.exit(app(standalone_mode=False))
    except (typer.Exit, typer.Abort) as stop:
        sys.exit(getattr(stop, "exit_code", 1))
    except RunError as error:
        print(f"driftsim: {error}", file=sys.stderr)
        sys.exit(1)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"driftsim: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        told = getattr(error, "format_message", None)  # a usage error, of click or of the click inside typer
        if told is None:
            raise
        print(f"driftsim: {one_line(ValueError(told()))}; see --help" if sys.argv[1:] else told(), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("driftsim: interrupted", file=sys.stderr)
        sys.exit(130)


def one_line(error: Exception) -> str:
    """What went wrong, on one line: of an OSError its file and reason."""
    if hasattr(error, "errors"):  # pydantic's
        from driftsim.trace import first_problem

        return first_problem(error)  # type: ignore[arg-type]
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in LIVE:
        return f"{error}; `make live` installs what a capture needs"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"driftsim {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Global options."""


class Base(Choice):
    """Base tables of the estimate."""

    REFERENCE = "reference"
    CAPS = "caps"
    FIT = "fit"


class Label(Choice):
    """Whether the classifier sees a prompt's label."""

    SEEN = "seen"
    STRIPPED = "stripped"


class Feedback(Choice):
    """What the correction divides by."""

    BASE = "base"
    ESTIMATE = "estimate"


class Estimates(Choice):
    """Whether waiting jobs are re-estimated."""

    FROZEN = "frozen"
    REFRESHED = "refreshed"


class Serving(Choice):
    """What serves the requests."""

    CONTINUOUS = "continuous"
    BARRIER = "barrier"


@app.command()
def compare(
    traces: Annotated[list[Path], typer.Argument(help="Folder of a recorded trace; with --measured, of several.")],
    measured: Annotated[
        bool, typer.Option("--measured", help="Compare captured runs of several policies with each other instead.")
    ] = False,
    policies: Annotated[str, typer.Option(help="Comma-separated; stock is the engine's own order.")] = ALL_POLICIES,
    estimators: Annotated[
        str, typer.Option(help="Comma-separated: static, ema (the paper's correction), pooled (ours), oracle.")
    ] = "static,ema",
    accounting: Annotated[AccountingUnit, typer.Option(help="Unit of lengths.")] = AccountingUnit.TOKENIZER,
    words_per_token: Annotated[float | None, typer.Option(help="Derive words where none were recorded.")] = None,
    base: Annotated[
        Base, typer.Option(help="Base of the estimate: the paper's table, each cap, or a fit.")
    ] = Base.REFERENCE,
    base_fit_n: Annotated[int, typer.Option(min=1, help="Requests per category that a fit uses up.")] = 10,
    label: Annotated[Label, typer.Option(help="The category label in a prompt, for the classifier.")] = Label.SEEN,
    feedback: Annotated[Feedback, typer.Option(help="What the correction divides by.")] = Feedback.BASE,
    estimates: Annotated[
        Estimates, typer.Option(help="Of those who wait, when something is learned.")
    ] = Estimates.FROZEN,
    safety: Annotated[bool, typer.Option(help="The paper's safety factor by tier.")] = True,
    clamp: Annotated[bool, typer.Option(help="No estimate above max_tokens.")] = False,
    phase: Annotated[str, typer.Option(help="Measure this phase only.")] = "all",
    replications: Annotated[int, typer.Option(min=1, help="The trace, and resamples of it for the intervals.")] = 20,
    rate_scale: Annotated[float, typer.Option(help="Press harder: gaps between arrivals shrink by this.")] = 1.0,
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, help="Jobs inside the engine [default: its slots].")
    ] = None,
    engine: Annotated[
        Serving, typer.Option(help="Continuous batching, or the paper's worker: one batch of 32 at a time.")
    ] = Serving.CONTINUOUS,
    kv_blocks: Annotated[
        int | None, typer.Option(min=2, help="KV blocks of the engine [default: the profile's].")
    ] = None,
    refill_lag: Annotated[bool, typer.Option(help="A freed slot misses the next step, as recorded.")] = True,
    profile: Annotated[
        Path | None, typer.Option(help="Latency profile [default: fitted to the trace's steps].")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes [default: one a core].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for rows.csv, figures and report.html.")] = None,
) -> None:
    """Replay a trace under each scheduler, with and without bias correction, and show what each does."""
    from contextlib import nullcontext

    if measured:
        _compare_measured(traces, as_json)
        return
    if len(traces) > 1:
        raise ValueError(f"one trace is replayed at a time, got {len(traces)}; --measured compares captured runs")
    trace = traces[0]

    from driftsim import report
    from driftsim.admission import REFERENCE_SAFETY, Admission
    from driftsim.compare import Comparing, check_plan, fit_base, measured_by_phase, runs_of, settings_of
    from driftsim.compare import compare as run_comparison
    from driftsim.engine.microbatch import Barrier
    from driftsim.request import Tier
    from driftsim.trace import digest, read, whole_folder
    from driftsim.workload import replay

    recorded = read(trace)
    trace_digest = digest(trace)
    admission = Admission(
        accounting=accounting.value,
        words_per_token=words_per_token,
        label=label.value,
        base=base.value,
        base_fit_n=base_fit_n,
        feedback=feedback.value,
        estimates=estimates.value,
        clamp_at_max_tokens=clamp,
        safety=dict(REFERENCE_SAFETY) if safety else dict.fromkeys(Tier, 1.0),
    )
    excluded: frozenset[int] = frozenset()
    if admission.base == "fit":
        with about(trace):
            admission, excluded = fit_base(recorded, admission)
    plan = Comparing(
        profile=_profile(profile, trace, recorded, trace_digest, kv_blocks),
        admission=admission,
        settings=settings_of(_names(policies), _names(estimators)),
        excluded=excluded,
        phase=phase,
        replications=replications,
        max_in_flight=max_in_flight,
        refill_lag=refill_lag,
        barrier=Barrier() if engine is Serving.BARRIER else None,
        seed=seed,
    )
    with about(trace):
        workload = replay(recorded, rate_scale)
        if words_per_token is not None and workload.table[["prompt_words", "output_words"]].notna().all(axis=None):
            raise ValueError("its words are recorded, so they need not be derived; drop --words-per-token")
    as_recorded = rate_scale == 1 and kv_blocks is None and profile is None
    check_plan(plan, workload)
    provenance = {
        "trace": trace.resolve().name,
        "trace_digest": trace_digest,
        "kind": recorded.header.kind,
        "profile": _described(plan.profile, profile),
        "rate_scale": rate_scale,
        **report.provenance(plan),
    }
    with whole_folder(out, replaces=report.FILES) if out else nullcontext() as folder:
        with progress("replaying", runs_of(plan)) as advance:
            as_measured = measured_by_phase(recorded, plan) if as_recorded else None
            comparison = run_comparison(workload, plan, jobs, advance, as_measured)
        if folder is not None:
            report.write(comparison, provenance, folder)
    if as_json:
        from driftsim.report import document, dumps

        typer.echo(dumps(document(comparison, provenance)))
    else:
        _show(comparison, provenance)
    if out:
        typer.echo(f"written: {out / 'report.html'}, rows.csv, comparison.json and 4 figures (svg, png)", err=True)


def _compare_measured(folders: list[Path], as_json: bool) -> None:
    from dataclasses import asdict

    from rich.console import Console

    from driftsim.measured import SHOWN, Effect, measured
    from driftsim.trace import read

    result = measured([(str(folder), read(folder)) for folder in folders])
    effects = result.effects()
    if as_json:
        from driftsim.report import dumps, without_nan

        rows = [without_nan(asdict(effect)) for effect in effects]
        typer.echo(dumps({"rows": rows, "baseline": "/".join(result.baseline), "warnings": list(result.warnings)}))
        return
    cells: dict[tuple[str, str], dict[str, Effect]] = {}
    for effect in effects:
        cells.setdefault((effect.policy, effect.estimator), {})[effect.metric] = effect
    headings = ["policy\n", "estimator\n", "runs\n"]
    for metric in SHOWN:
        headings.append(metric.removesuffix("_s").replace("_", " ") + "\ns")
    values, changes = [], []
    for setting, row in cells.items():
        runs = str(len(result.summaries[setting]))
        values.append([*setting, runs, *(f"{row[metric].value:.2f} ± {row[metric].spread:.2f}" for metric in SHOWN)])
        if setting != result.baseline:
            changes.append([*setting, runs, *(_change(row[metric]) for metric in SHOWN)])
    console = Console(highlight=False)
    console.width = max(console.width, TABLE_WIDTH + 40)
    count = f"{result.requests} requests a run"
    print_table(console, f"Measured, {count}: mean ± standard deviation over the runs", headings, values)
    if changes:
        names = [heading.replace("\ns", "\n%") for heading in headings]
        title = f"Measured change against {'/'.join(result.baseline)}, round by round, 95 % interval"
        print_table(console, title, names, changes)
    for warning in result.warnings:
        console.print(f"Note: {warning}.", markup=False)


def _change(effect: Any) -> str:
    value = f"{100 * effect.change:+.1f}"
    return value if effect.low != effect.low else f"{value} [{100 * effect.low:+.1f}, {100 * effect.high:+.1f}]"


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",")]


def _profile(file: Path | None, folder: Path, trace: Any, trace_digest: str, kv_blocks: int | None) -> Any:
    from driftsim.calibrate import fit_profile
    from driftsim.latency import load_profile

    if file:
        profile = load_profile(file)
    else:
        with about(folder):
            profile = fit_profile(trace, trace_digest)
    if kv_blocks is None:
        return profile
    return profile.changed(engine=profile.engine.changed(kv_blocks=kv_blocks))


def _described(profile: Any, file: Path | None) -> str:
    """Where the latency model comes from and how well it fits what it was fitted to."""
    where = "fitted to the steps of this trace" if file is None else file.name
    if profile.fit is None:
        return where
    fit = profile.fit
    return f"{where} (MAPE {100 * fit.mean_absolute_percentage_error:.1f} %, R² {fit.r_squared:.2f})"


def _show(comparison: Any, provenance: dict[str, Any]) -> None:
    from rich.console import Console

    from driftsim.answer import answer, warnings
    from driftsim.report import effects, legend, table

    console = Console(highlight=False)
    console.width = max(console.width, TABLE_WIDTH)  # a narrow terminal wraps; it never cuts a number
    headings, rows = table(comparison, brief=True)
    marks = {"best": "[bold]{} *[/bold]", "tie": "{} ~", "": "{}  "}
    cells = [[marks[cell.mark].format(cell.text) for cell in row] for row in rows]
    title = f"{provenance['trace']}, simulated; profile {provenance['profile']}; seed {provenance['seed']}"
    print_table(console, title, [f"{name}\n{unit}" for name, unit in headings], cells)
    for line in legend(comparison):
        console.print(line, style="dim")
    names, changes = effects(comparison)
    if changes:
        console.print()
        print_table(
            console,
            "What calibration alone changes, against static (a policy that heeds no estimate: 0)",
            names,
            changes,
        )
    console.print()
    for sentence in answer(comparison):
        console.print(sentence, markup=False)
    for warning in warnings(comparison):
        console.print(f"Note: {warning}.", markup=False)


@app.command()
def simulate(
    scenario: Annotated[Path, typer.Argument(help="TOML: trace, profile, policy, estimator, admission, seed ...")],
    out: Annotated[Path, typer.Option(help="Folder of the trace to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a trace that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Run one scenario and write its trace, in the schema of a captured one."""
    from driftsim.report import dumps, without_nan
    from driftsim.simulating import run_file

    summary, warnings = run_file(scenario, out, overwrite)
    for warning in warnings:
        typer.echo(f"Warning: {warning}.", err=True)
    if as_json:
        typer.echo(dumps(without_nan(summary)))
        return
    told = ", ".join(f"{name} {summary[f'e2e_{name}_s']:.3f} s" for name in ("mean", "p50", "p99"))
    typer.echo(f"{out}: {summary['finished']} of {summary['requests']} requests finished; E2E {told}")


app.command()(capture)
app.command()(calibrate)
app.command()(profile)
app.command()(validate)
app.command()(sweep)
app.command()(show)
app.command()(check)
app.command()(conformance)
app.command("import")(import_)


if __name__ == "__main__":
    main()
