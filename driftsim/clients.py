"""What clients do who wait: they give a request up after a time, and send it again if it failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.whose import EVERYBODY, check_distinct, check_name, duration, seconds

LONGEST_WAIT_S = 1e9
MOST_RETRIES = 20
FORM = "[NAME:]TIME, as 30s, 500ms or premium:30s"


class Timeout(Record):
    """How long the clients of a tenant, of a tier or of everybody wait for the end of an answer.

    >>> str(Timeout(who="premium", after_s=30.0))
    'premium:30s'
    """

    who: Annotated[str, AfterValidator(lambda who: check_name(who, "a timeout"))] = Field(
        default=EVERYBODY, description="Tenant or tier whose requests time out; `*`: all that have no timeout."
    )
    after_s: float = Field(
        gt=0,
        le=LONGEST_WAIT_S,
        description="Time after which the client drops the request, from when it was sent.",
        json_schema_extra={"unit": "s"},
    )

    def __str__(self) -> str:
        told = duration(self.after_s)
        return told if self.who == EVERYBODY else f"{self.who}:{told}"


class Retries(Record):
    """How a client sends a request again that timed out or that the server turned away; the defaults are openai's.

    The client waits ``first_s`` x 2^k before retry k, from 0, at most ``longest_s``, less up to ``jitter`` of that by
    chance; or as long as the server says (``Retry-After``), and not at all if that is more than two minutes
    (openai-python 3.57, ``_base_client.py``, ``_calculate_retry_timeout`` and ``_should_retry``). A client that gave up
    for another reason, and a prompt that can never fit, are not tried again.

    >>> Retries().wait(0, 0.0), Retries().wait(5, 1.0)
    (0.5, 6.0)
    """

    most: int = Field(default=2, ge=0, le=MOST_RETRIES, description="Most times that one request is sent again.")
    first_s: float = Field(
        default=0.5, ge=0, le=3600, description="Wait before the first retry.", json_schema_extra={"unit": "s"}
    )
    longest_s: float = Field(
        default=8.0, ge=0, le=3600, description="Longest wait before a retry.", json_schema_extra={"unit": "s"}
    )
    jitter: float = Field(default=0.25, ge=0, le=1, description="Largest share by which a wait is shorter, by chance.")

    def wait(self, number: int, chance: float, told_s: float | None = None) -> float | None:
        """Seconds before retry ``number``, from 0; None: there is none.

        ``chance`` is drawn from 0 to 1, ``told_s`` is the server's word.
        """
        if told_s is not None and told_s > 0:
            return told_s if told_s <= LONGEST_TOLD_S else None
        return min(self.first_s * 2.0**number, self.longest_s) * (1 - self.jitter * chance)


LONGEST_TOLD_S = 120.0


def _written(text: str) -> dict[str, Any]:
    """The timeout that ``[NAME:]TIME`` stands for, as a table."""
    who, sign, time = text.rpartition(":")
    try:
        return {"who": who.strip() if sign else EVERYBODY, "after_s": seconds(time, LONGEST_WAIT_S)}
    except InputError as error:
        raise InputError(f"timeout {text!r:.80}: {time.strip()!r:.40} {error}; write {FORM}") from None


def _as_timeouts(value: Any) -> Any:
    """A list of timeouts, of one, or of a list that may hold texts, too."""
    if isinstance(value, str | Timeout):
        value = [value]
    if isinstance(value, list | tuple):
        return [_written(one) if isinstance(one, str) else one for one in value]
    return value


def _distinct(timeouts: tuple[Timeout, ...]) -> tuple[Timeout, ...]:
    check_distinct(timeouts, "timeouts")
    return timeouts


Timeouts: TypeAlias = Annotated[tuple[Timeout, ...], BeforeValidator(_as_timeouts), AfterValidator(_distinct)]
AnyTimeouts: TypeAlias = str | Timeout | Iterable[str | Timeout | dict[str, Any]]
AnyRetries: TypeAlias = int | Retries | None


class Clients(Record):
    """What the clients of a run do; by default they wait for ever and send nothing twice.

    >>> bool(Clients()), Clients(timeouts=["30s"], retries=Retries()).words
    (False, '30s, 2 retries')
    """

    timeouts: Timeouts = Field(
        default=(),
        description="Timeouts, as tables or as texts `premium:30s`; without a name, everybody's. A tenant's own goes "
        "before its tier's, and any before the trace's column `timeout_s`.",
    )
    retries: Retries | None = Field(default=None, description="Whether and how requests are sent again; none: never.")

    def __bool__(self) -> bool:
        return bool(self.timeouts) or self.retries is not None

    def over(self, others: Clients) -> Clients:
        """These, and what they leave open as the ``others`` do."""
        retries = others.retries if self.retries is None else self.retries
        return Clients(timeouts=self.timeouts or others.timeouts, retries=retries)

    @property
    def words(self) -> str:
        """What they do, shortly."""
        said = list(map(str, self.timeouts))
        if self.retries is not None:
            said.append(f"{self.retries.most} retr{'y' if self.retries.most == 1 else 'ies'}")
        return ", ".join(said)


PATIENT = Clients()  # they wait for ever, and send nothing twice


def clients_of(timeouts: AnyTimeouts = (), retries: AnyRetries = None) -> Clients:
    """Clients with these ``timeouts`` and ``retries``, a number or a rule. Raises ``InputError`` for what is none.

    >>> clients_of(["premium:30s", "1000ms"], 2).words
    'premium:30s, 1s, 2 retries'
    """
    listed: Sequence[Any] = [timeouts] if isinstance(timeouts, str | Timeout) else list(timeouts)
    rule = {"most": retries} if isinstance(retries, int) else retries
    return Clients.of({"timeouts": listed, "retries": rule})
