"""Accounting is the unit in which admission counts lengths: the model's tokens or whitespace words.

Engines always count tokens; only estimates, errors and scheduling classes follow the accounting.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from driftsim.errors import InputError
from driftsim.scheduling.names import Unit

if TYPE_CHECKING:
    import pandas as pd


def count_words(text: str) -> int:
    """Whitespace-separated words.

    >>> count_words("What is  DNS?")
    3
    """
    return len(text.split())


def token_counter(model: Path | str, chat: bool = False) -> Callable[[str], int]:
    """A function from text to its number of tokens; the rest as ``encoder`` has it."""
    encode = encoder(model, chat)
    return lambda text: len(encode(text))


def encoder(model: Path | str, chat: bool = False) -> Callable[[str], list[int]]:
    """A function from text to its token ids, by the tokenizer in the folder ``model``; nothing is fetched.

    ``chat`` takes the text as a user's message, with the chat template around it where the model has one.

    Raises ``InputError`` if the folder holds no tokenizer, or transformers (extra ``tokenizer``) is not installed.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that torch is missing, which nobody needs here
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise InputError("counting tokens needs transformers; pip install 'driftsim[tokenizer]'") from None
    if not Path(model).is_dir():
        raise InputError(f"{model}: no such model folder; name one that holds tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True)
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0].rstrip(": ")
        raise InputError(f"{model}: no tokenizer could be loaded ({why}); name a folder with tokenizer.json") from None
    if not (chat and getattr(tokenizer, "chat_template", None)):
        return lambda text: list(tokenizer.encode(text, add_special_tokens=False))

    def encode(text: str) -> list[int]:
        message = [{"role": "user", "content": text}]
        whole = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return list(tokenizer.encode(whole, add_special_tokens=False))

    return encode


@dataclass(frozen=True, slots=True)
class Accounting:
    """Selects the unit; ``words_per_token`` derives words from tokens where a trace recorded none."""

    unit: Unit = "tokenizer"
    words_per_token: float | None = None

    def __post_init__(self) -> None:
        if self.unit not in ("tokenizer", "whitespace"):
            raise InputError(f"unknown accounting {self.unit!r}; choose one of tokenizer, whitespace")
        if self.words_per_token is not None and self.words_per_token <= 0:
            raise InputError(f"words per token must be above 0, got {self.words_per_token}")
        if self.words_per_token is not None and self.unit != "whitespace":
            raise InputError("words per token is for the accounting 'whitespace' only")

    @property
    def name(self) -> str:
        """The unit, marked where it was derived and not counted."""
        return f"{self.unit} (derived)" if self.words_per_token is not None else self.unit

    def lengths(self, tokens: pd.Series | np.ndarray, words: pd.Series | np.ndarray) -> np.ndarray:
        """Lengths in this unit, as floats shaped like ``tokens``; NaN where it is not known."""
        counted = words if self.unit == "whitespace" and self.words_per_token is None else tokens
        lengths: np.ndarray
        if isinstance(counted, np.ndarray):
            lengths = counted.astype(float)
        else:
            lengths = counted.to_numpy(dtype=float, na_value=np.nan)
        return np.rint(lengths * self.words_per_token) if self.words_per_token is not None else lengths

    def length(self, tokens: int, words: int | None) -> int:
        """One length in this unit. Raises ``InputError`` where words are asked for and neither known nor derivable."""
        if self.unit == "tokenizer":
            return tokens
        if self.words_per_token is not None:
            return round(tokens * self.words_per_token)
        if words is None:
            raise InputError("whitespace accounting needs word counts, which this trace lacks; give --words-per-token")
        return words
