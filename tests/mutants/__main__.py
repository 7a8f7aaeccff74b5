"""Plant every fault in a copy of the repository, one by one, and run the tests that should fail: ``make mutants``.

Each fault has a process of its own, forked from this one, which has loaded the libraries but nothing of the package.
What ended well is kept in ``out/mutants.jsonl``, so that a run that was ended goes on where it was; see ``kept``.
Exit code 1 if a fault survives, 2 if one does not fit the code any more, or its tests fail without it.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from py_compile import PycInvalidationMode

from experiments.arguments import amount, count
from tests.mutants.fault import ROOT, Fault, check
from tests.mutants.kept import Kept, key_of
from tests.mutants.table import FAULTS

COPIED = ("driftsim", "tests")
LEFT_OUT = {".git", ".venv", ".hypothesis", ".pytest_cache", ".mypy_cache", ".ruff_cache", "out", "build", *COPIED}
LIBRARIES = (
    "pytest", "hypothesis.strategies", "numpy", "pandas", "scipy.stats", "scipy.optimize",
    "pydantic", "pyarrow.parquet", "simpy", "typer.testing", "rich.console", "rich.table", "jinja2",
    "matplotlib.figure",
)  # fmt: skip
PYTEST = ("-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-header", "--tb=line", "-rfE")
PASSED, FAILED, UNREADABLE = 0, 1, 2  # pytest's exit codes; unreadable: a test file could not be imported
ELSEWHERE = 99  # of ours: the tests would not import the copy
LOOK_S = 0.05
Task = tuple[Fault | None, tuple[str, ...]]  # a fault or none, and test files


@dataclass(frozen=True, slots=True)
class Job:
    """Tests to run in a copy of the repository, with a fault planted there or with none."""

    copy: Path
    fault: Fault | None
    files: tuple[str, ...]

    @property
    def log(self) -> Path:
        """Where what pytest prints goes."""
        return self.copy.with_suffix(".log")


def make_copy(place: Path) -> Path:
    """A repository in ``place`` whose package and tests are copies and whose other parts are links to ours."""
    place.mkdir()
    for part in ROOT.iterdir():
        if part.name in COPIED:
            shutil.copytree(part, place / part.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif part.name not in LEFT_OUT and not part.name.endswith(".egg-info"):
            (place / part.name).symlink_to(part)
    # Byte code goes by the content of its source: two versions of a file may have one time and one size.
    for name in COPIED:
        compileall.compile_dir(place / name, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    return place


@contextmanager
def planted(job: Job) -> Iterator[None]:
    """The fault of ``job`` in its copy, for the length of the block."""
    if job.fault is None:
        yield
        return
    file = job.copy / "driftsim" / job.fault.file
    source = file.read_text(encoding="utf-8")
    file.write_text(job.fault.planted(source), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(source, encoding="utf-8")


def test_in_child(job: Job) -> int:
    """Run the tests of ``job`` in this process, which was forked for it; pytest's exit code."""
    os.setsid()  # so that whatever the tests start can be ended with them
    told = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(told, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name in [name for name in sys.modules if name.partition(".")[0] in COPIED]:
        del sys.modules[name]
    os.chdir(job.copy)
    os.environ.update(PYTHONPATH=str(job.copy), PYTHONDONTWRITEBYTECODE="1", HYPOTHESIS_PROFILE="mutants")
    sys.dont_write_bytecode = True
    sys.path[:] = [str(job.copy), *(place for place in sys.path if place not in ("", str(ROOT)))]
    importlib.invalidate_caches()
    found = importlib.util.find_spec("driftsim")
    if found is None or not str(found.origin).startswith(str(job.copy)):
        return ELSEWHERE
    import pytest

    code = PASSED
    for name in job.files:  # one after the other: the quickest first, and no later one is even imported
        code = int(pytest.main([*PYTEST, name]))
        if code != PASSED:
            break
    return code


def run(job: Job, limit_s: float) -> Iterator[int | None]:
    """Run ``job``; nothing for as long as it runs, then pytest's exit code, or -1 where it took longer than allowed."""
    end = time.monotonic() + limit_s
    with planted(job):
        child = os.fork()
        if child == 0:
            code = ELSEWHERE
            try:
                code = test_in_child(job)
            finally:
                sys.stdout.flush()
                os._exit(code)
        while True:
            gone, status = os.waitpid(child, os.WNOHANG)
            late = time.monotonic() > end
            if not gone and late:
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
            if gone or late:
                break
            yield None
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what the tests have left behind
    yield os.waitstatus_to_exitcode(status) if gone else -1


def fate(job: Job, code: int, limit_s: float) -> tuple[str, str]:
    """``caught``, ``survived``, ``late`` or ``error``, and by which test, or why."""
    told = job.log.read_text(errors="replace")
    if code == PASSED:
        return ("survived" if job.fault else "passed"), " ".join(job.files)
    if code == -1:
        return "late", f"no end within {limit_s:g} s, which may be the machine's: raise --limit"
    if code in (FAILED, UNREADABLE):
        lines = [line for line in told.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        return "caught", lines[0][:150] if lines else "pytest failed"
    if code < 0:
        return "caught", f"the tests' process died of signal {-code}"
    return "error", f"exit code {code}: {told[-500:]}"


def well(fault: Fault | None) -> str:
    """How the run of ``fault``, or of tests without one, should end."""
    return "caught" if fault else "passed"


def name_of(fault: Fault | None, files: Sequence[str]) -> str:
    return f"{fault.file}: {fault.what}" if fault else f"without a fault: {' '.join(files)}"


def run_all(tasks: Sequence[Task], copies: list[Path], limit_s: float, kept: Kept) -> Counter[str]:
    """How many of ``tasks`` had which fate; each is told as it is known, and what is ``kept`` is not run."""
    keys = {task: key_of(*task) for task in tasks}
    left = [task for task in reversed(tasks) if keys[task] not in kept]
    free, count = list(copies), Counter[str]()
    if before := len(tasks) - len(left):
        print(f"{before} of {len(tasks)} ended well before; their files are unchanged", flush=True)
    under_way: list[tuple[Job, Iterator[int | None], float]] = []
    while left or under_way:
        while left and free:
            fault, files = left.pop()
            job = Job(free.pop(), fault, files)
            under_way.append((job, run(job, limit_s), time.monotonic()))
        for one in list(under_way):
            job, running, begin = one
            if (code := next(running)) is None:
                continue
            with suppress(StopIteration):
                next(running)
            under_way.remove(one)
            free.append(job.copy)
            result, why = fate(job, code, limit_s)
            count[result] += 1
            told = name_of(job.fault, job.files)
            if result == well(job.fault):
                kept.add(keys[job.fault, job.files], told)
            took = time.monotonic() - begin
            print(f"{before + count.total()}/{len(tasks)} {result}: {told} ({took:.0f} s; {why})", flush=True)
        time.sleep(LOOK_S)
    count[well(tasks[0][0])] += before
    return count


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="TEXT", help="faults whose file or description holds one of these")
    parser.add_argument("--jobs", type=count, default=os.cpu_count() or 1, metavar="N", help="at once (one a core)")
    parser.add_argument("--limit", type=amount, default=300.0, metavar="S", help="seconds for the tests of a fault")
    parser.add_argument("--unchecked", action="store_true", help="do not first run the tests without a fault")
    parser.add_argument("--anew", action="store_true", help="run also what an earlier run has seen to end well")
    parser.add_argument("--first", action="store_true", help="run only the first of the test files of each fault")
    parser.add_argument("--list", action="store_true", help="list the faults and run nothing")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    chosen = [
        fault
        for fault in FAULTS
        if not options.only or any(text in f"{fault.file}: {fault.what}" for text in options.only)
    ]
    if options.first:
        chosen = [replace(fault, tests=fault.tests[:1]) for fault in chosen]
    for fault in chosen:
        try:
            check(fault)
        except (ValueError, SyntaxError, OSError) as error:
            print(f"stale: {error}", file=sys.stderr)
            return 2
        if options.list:
            print(f"{fault.file}: {fault.what} [{' '.join(fault.tests)}]")
    if not chosen:
        print(f"no fault's file or description holds {' or '.join(options.only)}; --list names them", file=sys.stderr)
        return 2
    if options.list:
        return 0
    for name in LIBRARIES:
        with suppress(ImportError):  # what is missing, the tests will tell
            importlib.import_module(name)
    kept = Kept()
    if options.anew:
        kept.clear()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        place = Path(folder).resolve()
        copies = [make_copy(place / f"copy-{number}") for number in range(min(options.jobs, len(chosen)))]
        if not options.unchecked:
            bare: list[Task] = [(None, (name,)) for name in sorted({n for f in chosen for n in f.test_files()})]
            if run_all(bare, copies, 10 * options.limit, kept)[well(None)] < len(bare):
                print("the tests above fail without a fault", file=sys.stderr)
                return 2
        count = run_all([(fault, tuple(fault.test_files())) for fault in chosen], copies, options.limit, kept)
    told = ", ".join(f"{count[name]} {name}" for name in ("caught", "survived", "late", "error"))
    print(f"{len(chosen)} faults: {told}")
    return 2 if count["error"] else int(count["caught"] < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
