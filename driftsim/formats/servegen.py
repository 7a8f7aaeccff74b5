"""The data of ServeGen, which tell rates and distributions of clients, but no request: they are known, and refused.

alibaba/ServeGen, data/*/*/: ``chunk-N-trace.csv`` has no header and a row a window (its start, rate, coefficient of
variation, distribution of gaps and its two parameters); ``chunk-N-dataset.json`` has distributions of lengths.
"""

from __future__ import annotations

import re
from pathlib import Path

from driftsim.errors import InputError
from driftsim.formats.found import Found

NAME = re.compile(r"chunk-\d+-(trace\.csv|dataset\.json)")


def is_chunk(file: Path) -> bool:
    """Whether ``file`` has the name of a part of ServeGen's data."""
    return NAME.fullmatch(file.name) is not None


def read(file: Path) -> Found:
    """Raises ``InputError`` that says what such a file is, and how to get requests from it."""
    raise InputError(
        f"{file}: is a part of ServeGen, which tells rates and distributions of a client, not requests; generate "
        "requests with servegen.construct.generate_workload, save them as a table and import that with a mapping"
    )
