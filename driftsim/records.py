"""A record is a value that crosses a file boundary: validated, frozen, and strict about unknown keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from driftsim.errors import InputError


class Record(BaseModel):
    """A value that crosses a file boundary: validated, frozen, and strict about keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The record with these ``values``. Raises ``InputError`` naming the key, its value and what is wrong."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise InputError(first_problem(error)) from None

    def changed(self, **values: Any) -> Self:
        """A copy with other ``values``, validated, and with nothing cached from this one. Raises as ``of`` does."""
        return self.of({name: getattr(self, name) for name in type(self).model_fields} | values)


def first_problem(error: ValidationError) -> str:
    """The first complaint of a pydantic validation, as ``key: what is wrong (got value)``."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"]) or "document"
    extra = f"; {error.error_count() - 1} more" if error.error_count() > 1 else ""
    got = "" if problem["type"] == "missing" else f" (got {problem['input']!r:.80})"
    return f"{key}: {problem['msg']}{got}{extra}"
