"""Several replicas of an engine: how many, how fast, who routes where, and which of them fails when."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.scheduling.routing import router_name
from driftsim.whose import duration, seconds

MOST = 1000
LONGEST_S = 1e9
SECONDS: dict[str, Any] = {"unit": "s"}
FORM = "REPLICA:at=TIME[,back=TIME], as 0:at=60s,back=90s; replicas count from 0"
_FAILURE = re.compile(r"(?P<replica>\d{1,4}):at=(?P<at>[^,]+)(,back=(?P<back>[^,]+))?")


class Failure(Record):
    """A replica that goes down, and perhaps comes back, with an empty cache.

    >>> str(Failure(replica=1, at_s=60.0, back_s=90.0))
    '1:at=60s,back=90s'
    """

    replica: int = Field(ge=0, lt=MOST, description="Number of the replica, from 0.")
    at_s: float = Field(gt=0, le=LONGEST_S, description="When it goes down.", json_schema_extra=SECONDS)
    back_s: float | None = Field(
        default=None, le=LONGEST_S, description="When it is back; none: never.", json_schema_extra=SECONDS
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.back_s is not None and self.back_s <= self.at_s:
            raise InputError(f"replica {self.replica} is back at {self.back_s:g} s, before it fails at {self.at_s:g} s")
        return self

    def __str__(self) -> str:
        back = "" if self.back_s is None else f",back={duration(self.back_s)}"
        return f"{self.replica}:at={duration(self.at_s)}{back}"


def _written(text: str) -> dict[str, Any]:
    """The failure that ``REPLICA:at=TIME,back=TIME`` stands for, as a table."""
    found = _FAILURE.fullmatch(text.replace(" ", ""))
    if found is None:
        raise InputError(f"failure {text!r:.80}: write {FORM}")
    try:
        times = {f"{name}_s": seconds(found[name], LONGEST_S) for name in ("at", "back") if found[name]}
    except InputError as error:
        raise InputError(f"failure {text!r:.80}: a time {error}; write {FORM}") from None
    return {"replica": int(found["replica"]), **times}


def _as_failures(value: Any) -> Any:
    if isinstance(value, str | Failure):
        value = [value]
    if isinstance(value, list | tuple):
        return [_written(one) if isinstance(one, str) else one for one in value]
    return value


Failures: TypeAlias = Annotated[tuple[Failure, ...], BeforeValidator(_as_failures)]


class Replicas(Record):
    """Several replicas of one engine; by default one, and then nothing is routed.

    >>> Replicas(count=2, router="least-work", failures=["1:at=60s"]).words
    '2 replicas, least-work; fails 1:at=60s'
    """

    count: int = Field(default=1, ge=1, le=MOST, description="Number of replicas.")
    router: Annotated[str, AfterValidator(router_name)] = Field(
        default="least-requests", description="Router that chooses the replica of each request."
    )
    place: Literal["behind", "front"] = Field(
        default="behind",
        description="`behind` the dispatcher, which has one queue for all; or in `front` of a dispatcher for each "
        "replica, with a queue of its own. The estimator is one for all.",
    )
    speeds: tuple[Annotated[float, Field(gt=0, le=1e3)], ...] = Field(
        default=(), description="How fast each replica is, as a multiple of the profile's; none: all alike."
    )
    profiles: tuple[str, ...] = Field(
        default=(), description="File of the latency profile of each replica, in place of the run's; none: all alike."
    )
    failures: Failures = Field(default=(), description="Replicas that fail, as tables or as texts `0:at=60s,back=90s`.")
    lost: Literal["retry", "lose"] = Field(
        default="retry",
        description="What becomes of the requests inside a replica that fails: `retry`, they begin again elsewhere; "
        "`lose`, they end with an error, after which their clients may send them again.",
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.speeds and len(self.speeds) != self.count:
            raise InputError(f"there are {len(self.speeds)} speeds for {self.count} replicas; give one for each")
        if self.profiles and len(self.profiles) != self.count:
            raise InputError(f"there are {len(self.profiles)} profiles for {self.count} replicas; give one for each")
        unknown = [failure.replica for failure in self.failures if failure.replica >= self.count]
        if unknown:
            last = self.count - 1
            raise InputError(f"replica {unknown[0]} fails, and there is none: name one from 0 to {last}, or give more")
        for number in range(self.count):
            _check_apart(sorted((one for one in self.failures if one.replica == number), key=lambda one: one.at_s))
        return self

    def __bool__(self) -> bool:
        return self.count > 1 or any((self.speeds, self.failures, self.profiles))

    def placed(self, place: Callable[[str], str]) -> Self:
        """The same with every path changed by ``place``."""
        return self.changed(profiles=tuple(map(place, self.profiles))) if self.profiles else self

    @property
    def words(self) -> str:
        """What they are, shortly."""
        said = f"{self.count} replica{'s' * (self.count != 1)}, {self.router}"
        said += " in front" if self.place == "front" else ""
        said += f"; profiles {', '.join(self.profiles)}" if self.profiles else ""
        said += f"; speeds {', '.join(f'{speed:g}' for speed in self.speeds)}" if self.speeds else ""
        return said + (f"; fails {'; '.join(map(str, self.failures))}" if self.failures else "")


def _check_apart(failures: Iterable[Failure]) -> None:
    """Raise ``InputError`` if a replica fails that is down; ``failures`` of one, in order of time."""
    before: Failure | None = None
    for failure in failures:
        if before is not None and (before.back_s is None or failure.at_s < before.back_s):
            raise InputError(f"replica {failure.replica} fails at {failure.at_s:g} s, when it is down already")
        before = failure


ALONE = Replicas()
