"""A mapping to start from, for a table that nobody has described: guesses with their reasons, as TOML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from driftsim.errors import InputError
from driftsim.formats.endings import ending
from driftsim.formats.guesses import NAMES, Guess, guesses
from driftsim.formats.imports import recognised
from driftsim.formats.source import Source, lists_in, read_json, read_source
from driftsim.formats.values import texts
from driftsim.trace.schema import FINISH_REASONS, LIFE_TIMES, REQUEST_COLUMNS, TIER_NAMES

GLOSSES = {column.name: column.gloss for column in REQUEST_COLUMNS}
NEEDED = ("prompt_tokens", "output_tokens", "arrival_s")
WANTED = ("first_token_s", "finish_s", "finish_reason", "tenant", "tier")  # told even where nothing looks like them
TIER_WORDS = {
    "premium": "premium gold high critical urgent interactive realtime vip enterprise paid p0 0",
    "batch": "batch low background bulk offline free best_effort best-effort sheddable p2 2",
}
MOST_WORDS = 12  # that a map lists


def suggestion(file: Path) -> str:
    """A mapping for ``file`` as TOML, each guess with its reason. Raises ``InputError`` if it holds no table.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("created_at,in_tokens,out_tokens\\n0.5,20,7\\n1.5,30,9\\n"), file.flush()
    ...     print(*(line for line in suggestion(Path(file.name)).splitlines() if line.startswith('arrival_s = "c')))
    arrival_s = "created_at"  # by its name; s, a guess: requests would come every 1 s
    """
    known = _known(file)
    records = _records_path(file)
    try:
        source = read_source(file, records)
    except InputError as error:
        raise InputError(known or str(error)) from None
    found = {ours: guess for ours, guess in guesses(source).items() if _writable(guess.theirs)}
    if not found:
        raise InputError(
            f"{file}: nothing in it looks like a request; it has {_shown(source.listed()) or 'no column'}: write a "
            "mapping by hand"
        )
    parts = [
        f"# A mapping for {_shown(file.name)}, guessed: read it, correct it, and then",
        f"# driftsim import {_shown(file.name)} --mapping THIS.toml --out FOLDER",
        *([f"# {known}"] if known else []),
        *([f"records = {_quoted(records)}  # where the requests are: {source.count} of them"] if records else []),
        *_model(source),
        *_tables(found),
        *_maps(source, found),
        *_unused(source, found),
    ]
    return "\n".join(parts) + "\n"


def _known(file: Path) -> str:
    """A sentence if driftsim knows the file's format, whose reader takes more from it than a mapping can."""
    try:
        form = recognised(file)
    except InputError:
        return ""
    name = _shown(file.name)
    return f"{name} looks like the format {form}, which needs no mapping: driftsim import {name} --out FOLDER"


def _records_path(file: Path) -> str | None:
    """The path to the longest list of records, in a JSON document that is none itself."""
    if file.suffix.lower() != ".json" or not file.is_file():
        return None
    document = read_json(file)
    if not isinstance(document, dict):
        return None
    try:
        read_source(file)
    except InputError:
        places = lists_in(document)
        return places[0].rpartition(" (")[0] if places else None
    return None


def _tables(found: dict[str, Guess]) -> list[str]:
    """The tables ``columns``, ``durations`` and ``units``; what a loader would refuse stands as a comment."""
    clock = "arrival_s" in found
    durations = {ours: guess for ours, guess in found.items() if guess.duration}
    columns = {ours: guess for ours, guess in found.items() if not guess.duration}
    lines = ["", "[columns]"]
    for ours in NAMES:
        if ours in columns:
            lines.append(_line(ours, columns[ours]))
        elif ours in (*NEEDED, *WANTED) and ours not in durations:
            need = "needed, and nothing looks like it" if ours in NEEDED else "nothing looks like it"
            lines.append(f'# {ours} = "..."  # {need}: {GLOSSES[ours]}')
    lines += ["", "[durations]  # times since the arrival"]
    lines += [("" if clock else "# ") + _line(ours, guess) for ours, guess in durations.items()]
    lines += ["", "[units]"]
    lines += [f'{ours} = "{guess.unit}"' for ours, guess in found.items() if ours in LIFE_TIMES and guess.unit]
    return lines


def _line(ours: str, guess: Guess) -> str:
    return f"{ours} = {_quoted(guess.theirs)}  # {'; '.join(guess.why)}"


def _model(source: Source) -> list[str]:
    """The model, where a column tells one for all rows."""
    for name in source.names:
        if name.rpartition(".")[2].lower() in ("model", "model_name", "model_id"):
            models = {model for model in texts(source.cells(name) or [])[0] if model}
            if len(models) == 1 and _writable(model := models.pop()):
                return [f"model = {_quoted(model)}  # column {_shown(name)!r} says so in every row"]
    return ['# model = "..."', '# hardware = "..."']


def _maps(source: Source, found: dict[str, Guess]) -> list[str]:
    """Maps for the words that are not ours: tiers as guessed, endings to be filled in."""
    lines = list[str]()
    if "tier" in found:
        words = [word for word in _words(source, found["tier"]) if word not in TIER_NAMES]
        lines += ["", "[maps.tier]  # guesses"] if words else []
        lines += [f'{_quoted(word)} = "{_tier(word)}"' for word in words]
    if "finish_reason" in found:
        strange = [word for word in _words(source, found["finish_reason"])
                   if word not in FINISH_REASONS and ending(word) is None]  # fmt: skip
        lines += (
            ["", "[maps.finish_reason]  # words that nobody knows: stop, length, abort, error or rejected?"]
            if (strange)
            else []
        )
        lines += [f'# {_quoted(word)} = "stop"' for word in strange[:MOST_WORDS]]
    return lines


def _words(source: Source, guess: Guess) -> list[str]:
    return sorted({word for word in texts(source.cells(guess.theirs) or [])[0] if word and _writable(word)})


def _tier(word: str) -> str:
    own = word.lower().replace(" ", "_")
    return next((tier for tier, words in TIER_WORDS.items() if own in words.split()), "standard")


def _unused(source: Source, found: dict[str, Guess]) -> list[str]:
    used = {guess.theirs for guess in found.values()}
    names = [_shown(name) for name in source.names if name not in used]
    return ["", f"# not used: {', '.join(names[:40])}" + (" ..." if len(names) > 40 else "")] if names else []


def _writable(text: str) -> bool:
    """Whether TOML can hold ``text``: no halves of characters."""
    return all(not 0xD800 <= ord(one) <= 0xDFFF for one in text)


def _quoted(text: Any) -> str:
    return json.dumps(str(text), ensure_ascii=False).replace("\x7f", "\\u007f")


def _shown(name: str) -> str:
    """``name`` as a comment may hold it."""
    return "".join(one if one.isprintable() else "?" for one in name)
