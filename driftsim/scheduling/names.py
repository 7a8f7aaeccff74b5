"""Names that users write for how requests are counted, estimated and ordered."""

from __future__ import annotations

from typing import Literal, NamedTuple

Unit = Literal["tokenizer", "whitespace"]
Label = Literal["seen", "stripped"]
Base = Literal["reference", "caps", "fit"]
Feedback = Literal["base", "estimate"]
Estimates = Literal["frozen", "refreshed"]
Place = Literal["front", "priority", "inside"]
DEFAULT_POLICIES = ("stock", "fifo", "priority", "weighted", "sjf", "aging")  # what is compared if nothing is named


class Spelled(NamedTuple):
    """A name in its two halves: what it names, and the text of its parameters."""

    base: str
    query: str


def spelled(name: str) -> Spelled:
    """The halves of ``name``: what is before its last ``?``, and what is after, if that can be parameters.

    >>> spelled("vtc?weight=2"), spelled("sjf"), spelled("a?b.py:Mine")
    (Spelled(base='vtc', query='weight=2'), Spelled(base='sjf', query=''), Spelled(base='a?b.py:Mine', query=''))
    """
    base, mark, query = name.rpartition("?")
    return Spelled(base, query) if mark and not set(query) & set(":/") else Spelled(name, "")


def in_a_path(name: str) -> str:
    """A canonical name as part of a file's name: of a plug-in, its class; the signs of the parameters made harmless.

    >>> in_a_path("mine.py:Mine?b=2&c=1"), in_a_path("sjf")
    ('Mine_b=2_c=1', 'sjf')
    """
    return name.rpartition(":")[2].replace("?", "_").replace("&", "_")
