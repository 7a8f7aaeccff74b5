"""A record is a value that crosses a file boundary: validated, frozen, and strict about unknown keys."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from driftsim.errors import InputError

Form = Literal["json", "toml"]


def parsed_json(text: str, halves: bool = False) -> Any:
    """What the JSON in ``text`` says. Raises ``ValueError`` if it is none, or is nested deeper than Python reads.

    Half a character, as ``\\ud800`` alone, is no text that a file could hold again: refused, unless ``halves`` may be.

    >>> parsed_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deep
    """
    try:
        content = json.loads(text)
        if not halves and re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise ValueError(f"half a character, {half}, is no text; remove it or write the whole one") from None
    return content


class Record(BaseModel):
    """A value that crosses a file boundary: validated, frozen, and strict about keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    may_hold_keys: ClassVar[bool] = False  # a complaint then repeats no text: a key may stand in any wrong place

    if not TYPE_CHECKING:  # pydantic declares the parameters

        def __init__(self, **values: Any) -> None:
            """Raises ``InputError`` naming the key, its value and what is wrong."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                problem = error.errors()[0]
                cause = problem.get("ctx", {}).get("error")
                ours = isinstance(cause, InputError) and not problem["loc"]
                raise InputError(str(cause) if ours else first_problem(error, type(self))) from None

        __init__.__pydantic_base_init__ = True  # a record inside another is checked without it, as pydantic's RootModel

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Raises for a truth value where a number is wanted, as which pydantic would take it."""
        if isinstance(value, bool):
            wanted = _plain_types(cls.model_fields[str(info.field_name)].annotation)
            if bool not in wanted and wanted & {int, float}:
                raise InputError("a number is wanted, not true or false")
        return value

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The record with these ``values``. Raises ``InputError`` as the constructor does."""
        return cls(**values)

    @classmethod
    def from_file(
        cls,
        file: Path,
        noun: str,
        *,
        form: Form | None = None,
        missing: str = "",
        correct: str = "",
        prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> Self:
        """The record that is written in ``file``, JSON or TOML (default: by the file's suffix, else TOML).

        ``noun`` says what the file should be, ``missing`` what to do where there is none, ``correct`` what to do where
        the file is wrong (default: correct the ``noun``). ``prepare`` changes what was read before it is checked.

        Raises ``InputError`` naming file, key, value and remedy.
        """
        form = form or ("json" if file.suffix == ".json" else "toml")
        try:
            text = file.read_text(encoding="utf-8")
            if form == "json" and prepare is None:
                return cls.model_validate_json(text)
            content = parsed_json(text) if form == "json" else tomllib.loads(text)
            return cls.model_validate(prepare(content) if prepare and isinstance(content, dict) else content)
        except FileNotFoundError:
            raise InputError(f"{file}: no such {noun}{missing}") from None
        except ValidationError as error:
            raise InputError(f"{file}: {first_problem(error, cls)}; {correct or f'correct the {noun}'}") from None
        except InputError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{file}: not readable as {form.upper()} ({error})") from None

    def changed(self, **values: Any) -> Self:
        """A copy with other ``values``, validated, and with nothing cached from this one. Raises as ``of`` does."""
        return self.of({name: getattr(self, name) for name in type(self).model_fields} | values)


def first_problem(error: ValidationError, record: type[BaseModel] | None = None) -> str:
    """The first complaint of a pydantic validation, as ``key: what is wrong (got value)``.

    Of a key that ``record`` does not know, the nearest that it knows is named. A value of a record that may hold
    secret keys is told only where it is a number or a truth value.
    """
    problem = error.errors()[0]
    hides = record is not None and issubclass(record, Record) and record.may_hold_keys
    told = not hides or isinstance(problem["input"], int | float | None)
    got = f" (got {problem['input']!r:.80})" if told and problem["type"] != "missing" else ""
    key = ".".join(str(part) for part in problem["loc"]) or "document"
    if problem["type"] == "extra_forbidden":
        *path, last = problem["loc"]
        known = [] if record is None else _keys(record, path)
        near = get_close_matches(str(last), known, n=1)
        meant = f"the nearest is {near[0]}" if near else f"known are {', '.join(known)}" if known else "leave it out"
        return f"{key}: unknown key; {meant}{got}"
    extra = f"; {error.error_count() - 1} more" if error.error_count() > 1 else ""
    message = problem["msg"].removeprefix("Value error, ")  # what one of our own validators said
    return f"{key}: {message}{got}{extra}"


def _keys(record: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys of the record that lies at ``path`` below ``record``; none where no record lies there."""
    for part in path:
        field = record.model_fields.get(str(part))
        inner = None if field is None else _record_in(field.annotation)
        if inner is None:
            if isinstance(part, int):  # a place in a list of records
                continue
            return []
        record = inner
    return list(record.model_fields)


def _plain_types(annotation: Any) -> set[Any]:
    """The types of which ``annotation`` is one, those inside a container aside."""
    inner = get_args(annotation) if get_origin(annotation) in (Union, UnionType, Annotated) else ()
    return {annotation} if not inner else {found for one in inner for found in _plain_types(one)}


def _record_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _record_in(inner))), None)
