"""What a client asks for, read from the body of its request; the body itself is passed on as it came, byte for byte.

Three fields may be added on the way: the usage of a stream, which is what an estimate is corrected by, a priority, and
a salt of the server's prefix cache. They are written into the text, so that every other field stays as it was written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from driftsim.errors import InputError
from driftsim.scheduling.accounting import count_words
from driftsim.trace.schema import LARGEST_COUNT

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
LIMITS = {CHAT: ("max_completion_tokens", "max_tokens"), PLAIN: ("max_tokens",)}  # the first that is set counts
MOST_ITEMS, MOST_NESTED = 2_000_000, 250_000  # commas and brackets of a body: each may take a hundred bytes once read
MOST_CHOICES = 1000
_VALUE = json.JSONDecoder().raw_decode
_BLANK = " \t\n\r"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an answer. ``text`` is what it says, of so many ``words``, for classifying; it is not kept."""

    fields: dict[str, Any] = field(repr=False)
    written: str = field(repr=False)
    text: str = field(repr=False)
    words: int
    ids: int  # tokens of a prompt that came as token ids
    stream: bool
    wants_usage: bool
    max_tokens: int | None
    choices: int

    def sent(self, priority: int | None = None, salt: str = "") -> bytes:
        """The body to send: the client's, with usage asked for if it streams, with ``priority`` and ``cache_salt``."""
        written = self.written
        if self.stream and not self.wants_usage:
            options = self.fields.get("stream_options")
            told = {**options, "include_usage": True} if isinstance(options, dict) else {"include_usage": True}
            written = _with(written, "stream_options", told, "stream_options" in self.fields)
        if priority is not None:
            written = _with(written, "priority", priority, "priority" in self.fields)
        if salt:
            written = _with(written, "cache_salt", salt, "cache_salt" in self.fields)
        return written.encode()


def asked(body: bytes, path: str = CHAT) -> Asked:
    """What ``body``, sent to ``path``, asks for: fields that a server does not read there count for nothing.

    Raises ``InputError`` for what no server could answer, without repeating any of it.
    """
    if body.count(b",") > MOST_ITEMS or body.count(b"[") + body.count(b"{") > MOST_NESTED:
        raise InputError("the body holds too many values")
    try:
        written = body.decode()
        fields = json.loads(written)
    except UnicodeDecodeError:
        raise InputError("the body is no UTF-8") from None
    except (ValueError, RecursionError):
        raise InputError("the body is no JSON that can be read") from None
    if not isinstance(fields, dict):
        raise InputError("the body is no JSON object")
    options = fields.get("stream_options")
    texts, ids = _messages(fields) if path == CHAT else _prompt(fields)
    text = "\n".join(texts)
    return Asked(
        fields=fields,
        written=written,
        text=text,
        words=count_words(text),
        ids=ids,
        stream=fields.get("stream") is True,
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
        max_tokens=next((count for name in LIMITS[path] if (count := _whole(fields.get(name)))), None),
        choices=min(_whole(fields.get("n")) or 1, MOST_CHOICES) * (1 if path == CHAT else _prompts(fields)),
    )


def _messages(fields: dict[str, Any]) -> tuple[list[str], int]:
    """The texts of messages, which have no token ids in place of text."""
    messages = fields.get("messages")
    contents = (
        [message.get("content") for message in messages if isinstance(message, dict)]
        if isinstance(messages, list)
        else []
    )
    return [text for content in contents for text in _parts(content)], 0


def _prompt(fields: dict[str, Any]) -> tuple[list[str], int]:
    """The texts of a prompt, and how many token ids it has in place of text."""
    prompt = fields.get("prompt")
    if isinstance(prompt, str):
        return [prompt], 0
    if isinstance(prompt, list):
        nested = [part for part in prompt if isinstance(part, list)]
        ids = sum(isinstance(one, int) for one in prompt) + sum(len(part) for part in nested)
        return [part for part in prompt if isinstance(part, str)], ids
    return [], 0


def _parts(content: Any) -> list[str]:
    """The texts of a message's content, which may come in parts, of which pictures and sounds have no text."""
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    texts = [part if isinstance(part, str) else part.get("text") for part in parts if isinstance(part, str | dict)]
    return [text for text in texts if isinstance(text, str)]


def _prompts(fields: dict[str, Any]) -> int:
    """How many prompts one request holds: a list of texts or of lists of ids is one for each."""
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        return len(prompt)
    return 1


def _whole(value: Any) -> int | None:
    """``value`` if it is a count that can be."""
    return value if type(value) is int and 0 < value <= LARGEST_COUNT else None


def _with(written: str, name: str, value: Any, is_there: bool) -> str:
    """``written``, a JSON object, with ``value`` under ``name``: in each place of that name, else as its first field.

    >>> _with('{"a": 1e2, "b":[]}', "c", 3, False), _with('{"c" : {"x": 1},"b":2}', "c", 3, True)
    ('{"c":3,"a": 1e2, "b":[]}', '{"c" : 3,"b":2}')
    """
    text = json.dumps(value, separators=(",", ":"))
    if not is_there:
        begin = written.index("{") + 1
        comma = "" if written[begin:].lstrip(_BLANK).startswith("}") else ","
        return f"{written[:begin]}{json.dumps(name)}:{text}{comma}{written[begin:]}"
    for begin, end in reversed(_places(written, name)):
        written = written[:begin] + text + written[end:]
    return written


def _places(written: str, name: str) -> list[tuple[int, int]]:
    """Where the values of ``name`` stand in the outermost object of ``written``, which is JSON."""
    found, place = [], _after_blanks(written, written.index("{") + 1)
    while written[place] != "}":
        key, place = scanstring(written, place + 1, True)
        begin = _after_blanks(written, _after_blanks(written, place) + 1)  # behind the colon
        _, end = _VALUE(written, begin)
        if key == name:
            found.append((begin, end))
        place = _after_blanks(written, end)
        if written[place] == ",":
            place = _after_blanks(written, place + 1)
    return found


def _after_blanks(text: str, place: int) -> int:
    while text[place] in _BLANK:
        place += 1
    return place
