"""The command ``driftsim``: its verbs, its exit codes, and one line for what the user can mend.

Exit 0: done. 1: a run or a check did not end well. 2: the input is wrong. 3: a mistake of driftsim or of a plug-in.
Heavy modules are imported inside the verbs, so that ``driftsim --help`` answers at once.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from functools import cache
from typing import Annotated, Any

import typer

from driftsim.cli.advise import advise
from driftsim.cli.calibrate import calibrate
from driftsim.cli.capacity import capacity
from driftsim.cli.capture import capture
from driftsim.cli.check import check
from driftsim.cli.columns import columns
from driftsim.cli.compare import compare
from driftsim.cli.conformance import conformance
from driftsim.cli.demo import demo
from driftsim.cli.effects import effects
from driftsim.cli.export import export
from driftsim.cli.failure import bug_report, line_of
from driftsim.cli.import_ import import_
from driftsim.cli.profile import profile
from driftsim.cli.scenario import scenario
from driftsim.cli.serve import serve
from driftsim.cli.show import show
from driftsim.cli.simulate import simulate
from driftsim.cli.sweep import sweep
from driftsim.cli.validate import validate
from driftsim.cli.value import value
from driftsim.cli.view import view
from driftsim.errors import InputError, RunError
from driftsim.text import one_line, shown_lines
from driftsim.version import __version__

app = typer.Typer(
    name="driftsim",
    help="Which scheduler for a multi-tenant LLM server, and is correcting the token-budget estimates worth it?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for verb in (
    demo, compare, capacity, value, effects, simulate, capture, calibrate, profile, validate, sweep, show, check,
    conformance, serve, advise,
):  # fmt: skip
    app.command()(verb)
app.command()(columns)
app.command()(scenario)
app.command("import")(import_)
app.command()(export)
app.command()(view)
trace = typer.Typer(help="What can be done with one trace.", no_args_is_help=True, rich_markup_mode=None)
trace.command("view")(view)
app.add_typer(trace, name="trace", hidden=True)  # the long name of `view`
TERMINATED = 143  # as a shell says it of SIGTERM
_debug = False  # whether --debug was given


def main() -> None:
    """Run the command line and exit."""
    global _debug
    _debug = False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that workers and half-written folders go too
    _ready_streams()
    try:
        _check_arguments()
        sys.exit(command()(standalone_mode=False))
    except (typer.Exit, typer.Abort) as stop:
        sys.exit(getattr(stop, "exit_code", 1))
    except RunError as error:
        _fail(one_line(str(error)), 1)
    except SystemExit as stop:
        if stop.code == TERMINATED:
            _fail("terminated", TERMINATED)
        raise
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception as error:
        usage = _usage_error(error)
        line = line_of(error) if usage is None else usage
        if line is not None:
            _fail(line, 2)
        _fail(bug_report(error, _debug), 3)


@cache
def command() -> Any:
    """The click command of ``app``, built once in a process: each verb's options take typer milliseconds."""
    return typer.main.get_command(app)


def _ready_streams() -> None:
    """Let stdout and stderr take any text: a stream that was closed takes it to nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):  # what the terminal's encoding lacks is shown as its escape
            stream.reconfigure(errors="backslashreplace")


def _check_arguments() -> None:
    """Raise ``InputError`` for an argument that is no text: results name paths, and hold text only."""
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding()
            raise InputError(
                f"the argument {argument!r} is no text in {encoding}; rename the file, or set LC_ALL"
            ) from None


def _fail(message: str, code: int) -> None:
    try:
        print(shown_lines(f"driftsim: {message}") if message else "", file=sys.stderr, flush=True)
    except OSError:  # nobody reads it; the exit code is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    sys.exit(code)


def _usage_error(error: Exception) -> str | None:
    """What click, or the click inside typer, has to say of the arguments; None for any other error."""
    format_message: Any = getattr(error, "format_message", None)
    if format_message is None:
        return None
    message = one_line(re.sub(r"\s*\n\s*", " ", str(format_message())))  # click breaks lines, and quotes names
    message = message.replace("Value error, ", "").removesuffix(".")  # pydantic's word for it, and an end in the middle
    return f"{message}; see --help" if sys.argv[1:] else str(format_message())


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"driftsim {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Print the full traceback of an internal error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every verb."""
    global _debug
    _debug = debug
