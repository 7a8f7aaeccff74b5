"""Alibaba's traces of Qwen on Bailian: sessions of chats with hashes of their prompts' blocks, in seconds.

alibaba-edu/qwen-bailian-usagetraces-anon, README.md: ``chat_id``, ``parent_chat_id`` (-1 in a first turn),
``timestamp`` in seconds, ``input_length``, ``output_length``, ``type``, ``turn``, ``hash_ids`` of 16 tokens each.
"""

from __future__ import annotations

from pathlib import Path

from driftsim.formats.found import Found
from driftsim.formats.head import Head
from driftsim.formats.sessions import Sessions
from driftsim.formats.source import read_source
from driftsim.formats.timed_trace import BAILIAN, COLUMNS, Unit, check_columns, found_in


def fits(head: Head) -> bool:
    """Whether ``head`` is that of such a trace."""
    return head.has("chat_id", *COLUMNS.values())


def read(file: Path, unit: Unit | None = None) -> Found:
    """What is found in ``file``: ``type`` is the category. Raises ``InputError`` if a key is missing."""
    source = read_source(file)
    check_columns(source)
    found = found_in(source, unit or "s", [], BAILIAN)
    ids = source.either("chat_id")
    found.cells = {**found.cells, "request_id": ids, "category": source.either("type")}
    found.sessions = Sessions(parents=source.either("parent_chat_id"), ids=ids)
    return found
