"""What a server says is kept without the key, without prompts and answers, and not at any length."""

from __future__ import annotations

import re
from collections.abc import Iterable

MOST = 300  # characters that are kept of what a server says
READ = 20_000  # characters of it that are looked at
PIECE = 8  # characters of a prompt or an answer by which it is known again; a shorter one is known as a whole
KEY_PIECE = 4  # characters of a key by which a part of it is known
WORD = re.compile(r"[^\W_]+")
ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


def masked(text: str, key: str = "", secrets: Iterable[str] = ()) -> str:
    """``text`` on one line, its ``key`` masked; if it repeats a piece of one of ``secrets``, only how long it is.

    >>> masked("no model for sk-1234567", key="sk-1234567")
    'no model for ***'
    >>> masked("cannot serve: Tell me of my divorce", secrets=["Tell me of my divorce"])
    '(35 characters, left out: they repeat the prompt or the answer)'
    """
    shown = "".join(sign if sign.isprintable() else " " for sign in text[:READ])
    kept = _without_key(" ".join(shown.split()), key)[:MOST]
    words = _words(ESCAPED.sub(lambda found: chr(int(found[1], 16)), kept.replace("\\n", " ")))
    if any(_repeats(words, _words(secret)) for secret in secrets):
        return f"({len(text)} characters, left out: they repeat the prompt or the answer)"
    return kept


def _without_key(text: str, key: str) -> str:
    """``text`` with every part of ``key`` of ``KEY_PIECE`` characters or more masked, in capitals or not."""
    if not key:
        return text
    if len(key) < KEY_PIECE:
        return text.replace(key, "***")
    lower, hidden = text.lower(), key.lower()
    if len(lower) != len(text):  # a few letters are longer in lower case
        text = lower
    masked = [False] * len(text)
    for place in range(len(lower) - KEY_PIECE + 1):
        if lower[place : place + KEY_PIECE] in hidden:
            masked[place : place + KEY_PIECE] = [True] * KEY_PIECE
    runs = ("\0" if hide else sign for sign, hide in zip(text, masked, strict=True))
    return re.sub("\0+", "***", "".join(runs))


def _words(text: str) -> str:
    """The words of ``text`` in lower case, a blank around each."""
    return " " + " ".join(WORD.findall(text.lower())) + " "


def _repeats(words: str, secret: str) -> bool:
    """Whether ``words`` hold a piece of ``secret``, or all of it where it is no longer than a piece."""
    if not secret.strip():
        return False
    if len(secret) <= PIECE + 2:
        return secret in words
    return any(words[place : place + PIECE] in secret for place in range(len(words) - PIECE + 1))
