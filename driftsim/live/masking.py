"""What a server says is kept without the key, without prompts and answers, and not at any length."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 300  # characters that are kept of what a server says
READ = 20_000  # characters of it that are looked at
PIECE = 8  # characters of a prompt or an answer by which it is known again


def masked(text: str, key: str = "", secrets: Iterable[str] = ()) -> str:
    """``text`` on one line, its ``key`` masked; if it repeats a piece of one of ``secrets``, only how long it is.

    >>> masked("no model for sk-1234567", key="sk-1234567")
    'no model for ***'
    >>> masked("cannot serve: Tell me of my divorce", secrets=["Tell me of my divorce"])
    '(35 characters, left out: they repeat the prompt or the answer)'
    """
    plain = " ".join(text[:READ].split())
    if key:
        plain = plain.replace(key, "***")
    pieces = _pieces(plain)
    if any(not pieces.isdisjoint(_pieces(" ".join(secret.split()))) for secret in secrets):
        return f"({len(text)} characters, left out: they repeat the prompt or the answer)"
    return plain[:MOST]


def _pieces(text: str) -> set[str]:
    """Every ``PIECE`` of ``text``; a shorter text is known by nothing."""
    return {text[place : place + PIECE] for place in range(len(text) - PIECE + 1)}
