"""Azure's LLM inference traces of 2023 and 2024 (Azure/AzurePublicDataset): arrivals and lengths, no timings."""

from __future__ import annotations

from pathlib import Path

from driftsim.errors import InputError
from driftsim.formats.found import Found
from driftsim.formats.source import read_source

COLUMNS = {"arrival_s": "TIMESTAMP", "prompt_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"}


def read(file: Path) -> Found:
    """What is found in ``file``. Raises ``InputError`` if a column is missing."""
    source = read_source(file)
    for name in COLUMNS.values():
        if source.cells(name) is None:
            raise InputError(f"{file}: lacks column {name!r}; Azure's traces have {', '.join(COLUMNS.values())}")
    return Found(
        source=source, cells={ours: source.cells(theirs) or [] for ours, theirs in COLUMNS.items()}, names=COLUMNS
    )
