"""A mapping says how somebody's table reads as a trace's requests; a table of any shape is read by one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from driftsim.errors import InputError
from driftsim.formats.beginnings import Hashes
from driftsim.formats.found import Found
from driftsim.formats.sessions import Sessions
from driftsim.formats.source import Source, read_source
from driftsim.records import Record
from driftsim.tiers import TierRules
from driftsim.trace.loops import Told
from driftsim.trace.schema import CACHED_COLUMN, LIFE_TIMES, REQUEST_COLUMNS, SESSION_COLUMNS
from driftsim.trace.settings import LARGEST_BLOCK

NAMES = tuple(column.name for column in (*REQUEST_COLUMNS, CACHED_COLUMN))
RELATIONS = (*(column.name for column in SESSION_COLUMNS), "hash_ids")  # what a mapping may name besides, in columns
PREFIX_IDS = ("hash_ids", "cached_tokens", "prefix_group", "prefix_length")  # what tells of equal beginnings


class Mapping(Record):
    """How a table of somebody else's reads as a trace's requests; written as TOML."""

    columns: dict[str, str] = Field(
        default={},
        description="Our column = the column of the table that holds it, or the path to it in a record, such as "
        "`metrics.ttft.value`. `parent` holds a request_id or a list of them, or rows from 0 where no request_id is "
        "mapped; `hash_ids` lists of the ids of a prompt's blocks.",
    )
    durations: dict[str, str] = Field(
        default={}, description="Our time = the column of the table that holds the time passed since the arrival."
    )
    units: dict[str, Literal["s", "ms", "us", "ns"]] = Field(
        default={}, description="Our time = the unit in which the table gives it; `all` stands for every time."
    )
    values: dict[str, str | int | float] = Field(default={}, description="Our column = one value for every row.")
    maps: dict[str, dict[str, str]] = Field(
        default={}, description="Our column = a table of the words that the file has for it, and ours for each."
    )
    hash_tokens: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_BLOCK,
        description="Tokens that one of the `hash_ids` stands for.",
        json_schema_extra={"unit": "tokens"},
    )
    records: str | None = Field(
        default=None, description="Path to the list of requests in a JSON document, such as `benchmarks.0.requests`."
    )
    offset: float | Literal["first"] = Field(
        default="first",
        description="Time that becomes 0; `first` is the first arrival.",
        json_schema_extra={"unit": "s"},
    )
    engine: dict[str, Any] = Field(
        default={}, description="Engine settings, as the header names them; vLLM's defaults stand for the others."
    )
    model: str = Field(default="unknown", description="Model that served the requests.")
    hardware: str = Field(default="unknown", description="Hardware that served the requests.")
    max_in_flight: int | None = Field(
        default=None,
        gt=0,
        description="Most requests that were inside the engine at once; none if nothing limited them.",
        json_schema_extra={"unit": "requests"},
    )
    tiers: TierRules = Field(
        default=(), description="Tables of the tiers, the most urgent first, or their names alone."
    )
    users: int | None = Field(
        default=None,
        gt=0,
        description="Users who each waited for an answer before they sent again; none: the arrivals tell.",
    )

    @property
    def names_columns(self) -> bool:
        """Whether the mapping says what the columns of a table are, rather than what a known format leaves out."""
        return bool(self.columns or self.durations or self.records)


def completed(found: Found, mapping: Mapping) -> Found:
    """``found`` in a file of a known format, with what ``mapping`` says besides of the run and its engine."""
    own = {name: getattr(mapping, name) for name in ("model", "hardware") if getattr(mapping, name) != "unknown"}
    told = found.told if mapping.users is None else Told(users=mapping.users, by_user=True)
    return replace(
        found,
        engine={**found.engine, **mapping.engine},
        values={**found.values, **mapping.values},
        maps={**found.maps, **mapping.maps},
        tiers=mapping.tiers or found.tiers,
        max_in_flight=mapping.max_in_flight or found.max_in_flight,
        told=told,
        **own,
    )


def load_mapping(file: Path) -> Mapping:
    """The mapping in ``file``. Raises ``InputError`` naming file, key and what is wrong with it."""
    mapping = Mapping.from_file(file, "mapping", form="toml")
    check_mapping(mapping, str(file))
    return mapping


def check_mapping(mapping: Mapping, where: str) -> None:
    """Raise ``InputError`` at the first key of ``mapping`` that no trace has; ``where`` names the mapping."""
    keys = (*mapping.columns, *mapping.durations, *mapping.values, *mapping.maps, *mapping.units)
    for ours in keys:
        if ours not in (*NAMES, *RELATIONS) and not (ours == "all" and ours in mapping.units):
            near = get_close_matches(ours, (*NAMES, *RELATIONS), n=1)
            meant = f" (the nearest is {near[0]})" if near else ""
            known = ", ".join((*NAMES, *RELATIONS))
            raise InputError(f"{where}: {ours!r} is no column of a trace{meant}; choose among {known}")
    for ours in (*mapping.durations, *mapping.values, *mapping.maps):
        if ours in RELATIONS:
            raise InputError(f"{where}: {ours} stands in columns; nothing else can give it")
    if ("hash_ids" in mapping.columns) != (mapping.hash_tokens is not None):
        raise InputError(f"{where}: hash_ids and hash_tokens belong together: the tokens that one id stands for")
    for ours in mapping.units:
        if ours not in ("all", "gap_s", *LIFE_TIMES):
            raise InputError(f"{where}: units.{ours}: {ours} is no time; times are {', '.join((*LIFE_TIMES, 'gap_s'))}")
    for ours in mapping.durations:
        ends_alone = ours == "finish_s" and "finish_s" in mapping.columns and "arrival_s" not in mapping.columns
        if ours not in LIFE_TIMES[1:] or ("arrival_s" not in mapping.columns and "finish_s" not in mapping.columns):
            raise InputError(
                f"{where}: durations are times since arrival_s, which must be mapped, or finish_s beside how long it "
                f"took; {ours!r} cannot be one"
            )
        if ours in mapping.columns and not ends_alone:
            raise InputError(f"{where}: {ours} is given twice, in columns and in durations; leave one out")


def read_mapped(file: Path, mapping: Mapping) -> Found:
    """What is found in the table ``file`` by its ``mapping``. Raises ``InputError`` naming file and key."""
    source = read_source(file, mapping.records)
    named = {ours: _cells(source, theirs) for ours, theirs in mapping.columns.items()}
    cells = {ours: column for ours, column in named.items() if ours not in RELATIONS}
    hashes = None if mapping.hash_tokens is None else Hashes(cells=named["hash_ids"], size=mapping.hash_tokens)
    durations = {ours: _cells(source, theirs) for ours, theirs in mapping.durations.items()}
    if "arrival_s" not in cells and not ("finish_s" in cells and "finish_s" in durations):
        raise InputError(
            f"{file}: arrival_s is not mapped (s; when the request arrived at the dispatcher); a trace needs it, or "
            "finish_s in columns and in durations"
        )
    used = {*mapping.columns.values(), *mapping.durations.values()}
    unused = [name for name in source.names if name not in used]
    left_out = [f"columns of {file.name} that were not mapped: {', '.join(unused)}"] if unused else []
    return Found(
        source=source,
        cells=cells,
        durations=durations,
        names={**mapping.columns, **mapping.durations},
        units=dict(mapping.units),
        maps=mapping.maps,
        values=mapping.values,
        beginnings=hashes,
        sessions=_sessions(named, mapping),
        guessed=unread_prefixes(source, used),
        left_out=left_out,
        offset=mapping.offset,
        engine=mapping.engine,
        model=mapping.model,
        hardware=mapping.hardware,
        max_in_flight=mapping.max_in_flight,
        tiers=mapping.tiers,
        told=Told(users=mapping.users, by_user=True),
    )


def _sessions(named: dict[str, list[Any]], mapping: Mapping) -> Sessions | None:
    """The sessions that the ``named`` columns tell, if they do."""
    if "session" not in named and "parent" not in named:
        return None
    return Sessions(
        names=named.get("session"),
        parents=named.get("parent"),
        ids=named.get("request_id"),
        gaps=named.get("gap_s"),
        unit=mapping.units.get("gap_s", mapping.units.get("all", "s")),
    )


def _cells(source: Source, name: str) -> list[Any]:
    cells = source.cells(name)
    if cells is None:
        near = get_close_matches(name, source.names, n=1)
        meant = f" (the nearest is {near[0]})" if near else ""
        raise InputError(
            f"column {name!r} of the mapping is not in {source.file}{meant}; it has {source.listed() or 'none'}"
        )
    return cells


def unread_prefixes(source: Source, read: Collection[str] = ()) -> list[str]:
    """A caveat if the file tells which prompts begin alike in a column that is none of those that are ``read``."""
    told = [name for name in source.names if name.rpartition(".")[2] in PREFIX_IDS and name not in read]
    if not told:
        return []
    cells = source.cells(told[0]) or []
    if cells and all(
        cell is None or isinstance(cell, list) for cell in cells
    ):  # hashes: two prompts share one, or none
        firsts = [str(cell[0]) for cell in cells if cell]
        if len(set(firsts)) == len(firsts):
            return []
    if not any(cell not in (None, "", "[]", 0, "0") and cell != [] for cell in cells):
        return []
    return [
        f"it tells of shared prefixes ({told[0]}), which are not read: every prompt is computed whole, so TTFT is an "
        "upper bound where the engine cached them"
    ]
