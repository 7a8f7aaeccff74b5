"""The columns of a store: whatever rows hold, a column is of numbers, of truth values or of texts.

Rows of other versions and other specs have other columns and other types: of columns there is the union, and what is
mixed becomes the wider type, text at last.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd


def of_one_kind(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` whose columns hold numbers, truth values or texts, each one of these: what is mixed becomes text.

    >>> of_one_kind(pd.DataFrame({"kv_blocks": [200, "auto"], "seed": [1, None]})).to_dict("list")
    {'kv_blocks': ['200', 'auto'], 'seed': [1.0, nan]}
    """
    changed: dict[str, pd.Series] = {}
    for name in map(str, table):
        values = table[name]
        if not pd.api.types.is_object_dtype(values):
            continue
        kinds = {type(value) for value in values[values.notna()]}
        if kinds and kinds <= {int, float}:
            changed[name] = values.map(_as_float, na_action="ignore").astype(float)
        elif kinds - {str} and kinds != {bool}:
            changed[name] = values.map(_as_text, na_action="ignore")
    return table.assign(**changed) if changed else table


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows without what they do not have, in plain types."""
    columns = {name: table[name].tolist() for name in table.columns}
    return [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None and value == value}
        for row in zip(*columns.values(), strict=True)
    ]


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond all floats
        return math.inf if value > 0 else -math.inf


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
