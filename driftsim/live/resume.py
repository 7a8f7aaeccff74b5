"""A session that was cut short goes on: complete runs are kept, a run that was cut is set aside and recorded anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from driftsim.errors import TraceError
from driftsim.files import check_place
from driftsim.live.plan import CapturePlan
from driftsim.trace.header import Turn
from driftsim.trace.journal import REMAINS, is_being_recorded
from driftsim.trace.schema import OFFERED
from driftsim.trace.trace import Trace, read
from driftsim.workloads.workload import Workload


@dataclass(frozen=True, slots=True)
class CaptureRun:
    """One run of a session: how, and into which folder."""

    folder: Path
    plan: CapturePlan


def check_places(runs: Sequence[CaptureRun]) -> None:
    """Raise as ``check_place`` does unless every run's folder is free or holds a recorded run, and not all complete."""
    missing = [run for run in runs if not is_complete(run.folder)]
    for run in missing:
        if _is_cut(run.folder):
            _check_plan(run, read(run.folder))
        elif not _is_begun(run.folder):
            check_place(run.folder)
        _check_over(run.folder)
    if not missing:
        raise TraceError(f"{runs[0].folder}: holds a complete trace already; choose another folder or remove it")


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` holds a trace whose run came to its end."""
    return (folder / "header.json").is_file() and read(folder).header.ended == "complete"


def kept(run: CaptureRun, workload: Workload) -> Trace:
    """The trace that is there already, from an earlier session. Raises ``TraceError`` where it is of something else."""
    trace = read(run.folder)
    _check_same(run, trace, workload)
    return trace


def set_aside(run: CaptureRun, workload: Workload) -> str:
    """Rename a run that was cut short, as ``.NAME.cut-1`` beside it, and say so; an empty text where there is none.

    Raises ``TraceError`` where the folder holds a run of something else, or one that is still recorded.
    """
    if not (_is_cut(run.folder) or _is_begun(run.folder)):
        return ""
    _check_over(run.folder)
    told = "an earlier start, which recorded nothing,"
    if _is_cut(run.folder):
        trace = read(run.folder)
        _check_same(run, trace, workload)
        ended = int(trace.requests["finish_reason"].notna().sum())
        told = f"an earlier run that was cut short after {ended} of {len(workload)} requests"
    number = 1
    while (aside := run.folder.with_name(f".{run.folder.name}.cut-{number}")).exists():
        number += 1
    run.folder.rename(aside)
    return f"{told} is kept beside this one as {aside.name}"


def _is_cut(folder: Path) -> bool:
    if not (folder / "header.json").is_file():
        return False
    header = read(folder).header
    return header.kind == "captured" and header.ended != "complete"


def _is_begun(folder: Path) -> bool:
    """Whether ``folder`` holds what is left of a run that was killed before its first request."""
    if not folder.is_dir():
        return False
    names = {file.name for file in folder.iterdir()}
    return bool(names) and names <= set(REMAINS)


def _check_over(folder: Path) -> None:
    if is_being_recorded(folder):
        raise TraceError(f"{folder}: another capture records there now; wait for its end or choose another folder")


def _check_same(run: CaptureRun, trace: Trace, workload: Workload) -> None:
    """Raise ``TraceError`` unless ``trace`` holds requests of ``workload``, run as ``run`` would be."""
    talks = "parent" in workload.table  # whose later turns repeat what was answered
    told = {"prompt_tokens", "prompt_words"} if talks else {"prompt_tokens"}  # a server may count them its own way
    columns = [column.name for column in OFFERED if column.name not in told]
    ours = workload.offered[columns]
    if talks or trace.header.ended != "complete":  # it has the requests that had arrived
        ours = ours[ours["request_id"].isin(trace.requests["request_id"])].reset_index(drop=True)
    same = trace.requests[columns].reset_index(drop=True).astype(str).equals(ours.astype(str))
    if not same or trace.header.tiers != (run.plan.tiers or workload.tiers):
        raise _another(run)
    _check_plan(run, trace)


def _check_plan(run: CaptureRun, trace: Trace) -> None:
    """Raise ``TraceError`` unless ``trace`` was recorded with the policy, seed, SLOs and turn of ``run``."""
    header = trace.header
    admission = {"policy": run.plan.policy, "estimator": run.plan.estimator}
    placed = header.admission.get("place", "front") == run.plan.placed
    same = (header.seed, header.slos) == (run.plan.seed, run.plan.slos)
    if not same or not placed or not admission.items() <= header.admission.items():
        raise _another(run)
    if header.turn != run.plan.turn and not (header.turn is None and _is_fixed(run.plan.turn)):
        raise TraceError(
            f"{run.folder}: ran {_told(header.turn)}, not {_told(run.plan.turn)}; go on with the --order, --seed and "
            "--policies of the session that was cut short, or choose another folder"
        )


def _another(run: CaptureRun) -> TraceError:
    return TraceError(f"{run.folder}: holds another trace; choose another folder or remove it")


def _is_fixed(turn: Turn | None) -> bool:
    """Whether a run has the position that a trace has which does not tell it: all had one order, before it was told."""
    return turn is None or turn.order == "fixed"


def _told(turn: Turn | None) -> str:
    return "in an order that it does not tell" if turn is None else f"in position {turn.position} ({turn.order} order)"
