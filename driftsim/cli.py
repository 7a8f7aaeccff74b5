"""The command line: it parses, calls one function a verb, and turns the user's mistakes into one line and exit 2.

Heavy modules are imported inside the verbs, so that ``driftsim --help`` answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from driftsim import __version__
from driftsim.policies import POLICIES, STOCK

ALL_POLICIES = ",".join([STOCK, *POLICIES])
# What a capture fixes, so that the simulated engine can be held to it.
SIMULATED = {"enforce_eager": True, "enable_prefix_caching": False, "async_scheduling": False}
TABLE_WIDTH = 100  # columns that the printed tables need


class RunError(Exception):
    """A run did not come to its proper end."""


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
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in ("vllm", "torch", "psutil"):
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


class Choice(StrEnum):
    """Base class of the switches' values, so that --help lists them."""


class AccountingUnit(Choice):
    """The unit of estimates and errors."""

    TOKENIZER = "tokenizer"
    WHITESPACE = "whitespace"


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


@app.command()
def compare(
    trace: Annotated[Path, typer.Argument(help="Folder of a recorded trace.")],
    policies: Annotated[str, typer.Option(help="Comma-separated; stock is the engine's own order.")] = ALL_POLICIES,
    estimators: Annotated[
        str, typer.Option(help="Comma-separated: static, ema (bias correction), oracle.")
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

    from driftsim import report
    from driftsim.admission import REFERENCE_SAFETY, Admission
    from driftsim.compare import Comparing, check_plan, fit_base, measured_by_phase, runs_of, settings_of
    from driftsim.compare import compare as run_comparison
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
        with _about(trace):
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
        seed=seed,
    )
    with _about(trace):
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
        with _progress("replaying", runs_of(plan)) as advance:
            measured = measured_by_phase(recorded, plan) if as_recorded else None
            comparison = run_comparison(workload, plan, jobs, advance, measured)
        if folder is not None:
            report.write(comparison, provenance, folder)
    if as_json:
        from driftsim.report import document, dumps

        typer.echo(dumps(document(comparison, provenance)))
    else:
        _show(comparison, provenance)
    if out:
        typer.echo(f"written: {out / 'report.html'}, rows.csv, comparison.json and 4 figures (svg, png)", err=True)


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",")]


def _profile(file: Path | None, folder: Path, trace: Any, trace_digest: str, kv_blocks: int | None) -> Any:
    from driftsim.calibrate import fit_profile
    from driftsim.latency import load_profile

    if file:
        profile = load_profile(file)
    else:
        with _about(folder):
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


@contextmanager
def _about(trace: Path) -> Iterator[None]:
    """Name the trace in what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{trace}: {error}") from None


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
    _print_table(console, title, [f"{name}\n{unit}" for name, unit in headings], cells)
    for line in legend(comparison):
        console.print(line, style="dim")
    names, changes = effects(comparison)
    if changes:
        console.print()
        _print_table(
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


def _print_table(console: Any, title: str, headings: list[str], rows: list[list[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    shown = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="bold",
        padding=(0, 1, 0, 0),
    )
    for place, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if place < 2 else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, gone when done; yields a function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda runs: bar.advance(task, runs)


@app.command()
def calibrate(
    trace: Annotated[Path, typer.Argument(help="Folder of a recorded trace that has steps.")],
    out: Annotated[Path, typer.Option(help="File of the profile to write.")] = Path("profile.json"),
) -> None:
    """Fit a latency profile to the steps of a trace, for compare --profile."""
    from driftsim.trace import digest, read

    profile = _profile(None, trace, read(trace), digest(trace), None)
    profile.save(out)
    typer.echo(f"{out}: {_described(profile, None)}")


class Caps(Choice):
    """Tables of max_tokens by category."""

    NATURAL = "natural"
    REFERENCE = "reference"


@app.command()
def capture(
    out: Annotated[Path, typer.Option(help="Folder of the trace to write.")],
    model: Annotated[Path | None, typer.Option(help="Model folder; default: the packaged SmolLM2-135M.")] = None,
    learning: Annotated[int, typer.Option(min=1, help="Requests of the learning phase.")] = 150,
    stress: Annotated[int, typer.Option(min=1, help="Requests of the stress phase, after a drain.")] = 350,
    learning_gap: Annotated[tuple[float, float], typer.Option(help="Gaps between arrivals, uniform: low high, s.")] = (
        0.5,
        1.0,
    ),
    stress_gap: Annotated[tuple[float, float], typer.Option(help="The same in the stress phase.")] = (0.2, 1.0),
    caps: Annotated[
        Caps, typer.Option(help="max_tokens: most answers end by themselves, or the paper's.")
    ] = Caps.NATURAL,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, prompts, tiers and the engine.")] = 0,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Requests in one batch.")] = 16,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1, help="Token budget of one step.")] = 512,
    max_model_len: Annotated[int, typer.Option(min=2, help="Prompt plus output, tokens.")] = 2048,
) -> None:
    """Run the drift workload through vLLM on this machine, first in first out, and record a trace."""
    import asyncio

    from driftsim.live.model import smollm2
    from driftsim.trace import check_place
    from driftsim.workload import NATURAL_CAPS, REFERENCE_CAPS, drift_phases

    phases = drift_phases(learning, stress, learning_gap, stress_gap)
    table = NATURAL_CAPS if caps is Caps.NATURAL else dict(NATURAL_CAPS) | dict(REFERENCE_CAPS)
    settings: dict[str, Any] = {
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_model_len": max_model_len,
    }
    check_place(out)  # before minutes are spent
    trace = asyncio.run(_capture(model or smollm2(), phases, table, seed, settings))
    trace.write(out)
    load = trace.header.load
    assert load is not None
    mark = f"DISTURBED, above {load.foreign_cpu_limit}" if load.disturbed else "quiet"
    typer.echo(f"{out}: {len(trace.requests)} requests; foreign CPU {load.foreign_cpu_mean} cores ({mark})", err=True)
    if trace.header.ended != "complete":
        raise RunError(f"{out}: the run was {trace.header.ended} ({trace.header.ended_why}); what was recorded is kept")


async def _capture(model: Path, phases: Any, caps: Any, seed: int, settings: dict[str, Any]) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    from driftsim.live.recorder import Plan, record
    from driftsim.live.vllm import VllmEngine
    from driftsim.workload import reference_workload

    engine = VllmEngine(model, dtype="bfloat16", seed=seed, **SIMULATED, **settings)
    await engine.start()
    try:
        await engine.warm_up()
        workload = reference_workload(lambda prompt: len(engine.token_ids(prompt)), seed, phases, caps, name="drift")
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("capturing", total=len(workload))

            def show(done: int, running: int) -> None:
                bar.update(task, completed=done, description=f"capturing, {running} in flight")

            return await record(workload, engine, Plan(seed=seed), show)
    finally:
        await engine.shutdown()


if __name__ == "__main__":
    main()
