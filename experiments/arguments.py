"""What the commands of the experiments accept; anything else is one line and exit code 2."""

from __future__ import annotations

import argparse
import math
from pathlib import Path


def plain(command: str, document: str | None) -> None:
    """The ``command`` of this ``document`` takes no argument but --help; nothing begins by mistake."""
    argparse.ArgumentParser(prog=command, description=str(document).split("\n", 1)[0]).parse_args()


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def amount(text: str) -> float:
    """A number above 0 that has an end."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return found


def folder(text: str) -> Path:
    """A folder, made now, so that nothing is computed for a place that cannot be written."""
    place = Path(text)
    try:
        place.mkdir(parents=True, exist_ok=True)
        probe = place / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: cannot be written ({error.strerror}); choose another") from None
    return place


def own_folder(text: str) -> Path:
    """A folder that is new, empty, or holds the workloads and rows of an earlier run, and nothing else."""
    place = folder(text)
    foreign = sorted(one.name for one in place.iterdir() if one.name not in ("workloads", "rows"))
    if foreign:
        raise argparse.ArgumentTypeError(f"{text}: holds {foreign[0]}, which is none of ours; choose another folder")
    return place
