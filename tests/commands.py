"""The command line, run in this process: what `driftsim ARGUMENTS` prints and how it exits."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from dataclasses import dataclass
from unittest import mock

from driftsim.cli.app import main


@dataclass(frozen=True)
class Run:
    returncode: int
    stdout: str
    stderr: str


def driftsim(*arguments: object, **environment: str) -> Run:
    """Runs the command; anything but an exit, a traceback for a user, is raised here too."""
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with (
            mock.patch("sys.argv", ["driftsim", *map(str, arguments)]),
            mock.patch.dict(os.environ, environment),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as exit:
        return Run(int(exit.code or 0), out.getvalue(), err.getvalue())
    finally:
        signal.signal(signal.SIGTERM, handler)
    raise AssertionError("main() returned without an exit code")
