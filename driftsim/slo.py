"""A service-level objective (SLO) limits the latencies of the requests of a tenant, of a tier or of everybody.

A request goes by one SLO: its tenant's, else its tier's, else everybody's. It meets that SLO if it finished within
every limit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from driftsim.errors import InputError
from driftsim.records import Record
from driftsim.whose import EVERYBODY, check_distinct, check_name, check_present, duration, limits_in, seconds

if TYPE_CHECKING:
    import pandas as pd

LIMITS = ("ttft", "tpot", "itl", "e2e")
LONGEST_LIMIT_S = 1e9
FORM = "NAME:limit=VALUE,..., as premium:ttft=1s,tpot=50ms,e2e=30s; without NAME, it is everybody's"
_SECONDS: dict[str, Any] = {"unit": "s"}


def _limit(what: str) -> Any:
    return Field(default=None, gt=0, le=LONGEST_LIMIT_S, description=f"Longest {what}.", json_schema_extra=_SECONDS)


class Slo(Record):
    """The limits of one SLO; at least one is set.

    >>> Slo(who="premium", ttft_s=1.0, tpot_s=0.05)
    Slo(who='premium', ttft_s=1.0, tpot_s=0.05, itl_s=None, e2e_s=None)
    >>> str(_)
    'premium:ttft=1s,tpot=50ms'
    """

    who: Annotated[str, AfterValidator(lambda who: check_name(who, "an SLO"))] = Field(
        default=EVERYBODY,
        description="Name of the tenant or tier whose requests it is of; `*`: of all that have none of their own. "
        "`tenant:NAME` and `tier:NAME` tell a tenant and a tier of one name apart.",
    )
    ttft_s: float | None = _limit("time to first token, from arrival")
    tpot_s: float | None = _limit("mean time per output token after the first")
    itl_s: float | None = _limit("time between any two tokens in a row, where the steps name their requests")
    e2e_s: float | None = _limit("end-to-end latency, from arrival to the last token")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.limits:
            raise InputError(f"the SLO of {self.who!r} limits nothing; give one or more of {', '.join(LIMITS)}")
        return self

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, in seconds, by the name of the latency."""
        known = ((name, getattr(self, f"{name}_s")) for name in LIMITS)
        return {name: value for name, value in known if value is not None}

    def __str__(self) -> str:
        told = ",".join(f"{name}={duration(value)}" for name, value in self.limits.items())
        return told if self.who == EVERYBODY else f"{self.who}:{told}"


def _written(text: str) -> dict[str, Any]:
    """The SLO that ``NAME:limit=VALUE,...`` stands for, as a table."""
    who, limits = limits_in(text, "SLO", FORM, LIMITS)
    if not who:
        raise InputError(f"SLO {text!r:.80}: names nobody before the colon (got ''); write {FORM}")
    return {"who": who, **{f"{name}_s": _seconds(value, name, text) for name, value in limits.items()}}


def _seconds(value: str, name: str, text: str) -> float:
    try:
        return seconds(value, LONGEST_LIMIT_S)
    except InputError as error:
        raise InputError(f"SLO {text!r:.80}: {name}={value:.40} {error}; write {name}=1s or {name}=50ms") from None


def _as_slos(value: Any) -> list[Any]:
    """A list of SLOs, of one or several that may be texts, too. Raises ``InputError`` for what is neither."""
    if isinstance(value, str | Slo):
        value = [value]
    if not isinstance(value, Iterable) or isinstance(value, dict):
        raise InputError(f"SLOs are a list, not {value!r:.80}; write {FORM}")
    return [_written(one) if isinstance(one, str) else one for one in value]


def _distinct(slos: tuple[Slo, ...]) -> tuple[Slo, ...]:
    check_distinct(slos, "SLOs")
    return slos


Slos: TypeAlias = Annotated[tuple[Slo, ...], BeforeValidator(_as_slos), AfterValidator(_distinct)]
AnySlos: TypeAlias = str | Slo | Iterable[str | Slo | dict[str, Any]]


def slo_rules(slos: AnySlos) -> tuple[Slo, ...]:
    """The SLOs of ``slos``: one or several, each an ``Slo``, a table or a text ``NAME:limit=VALUE,...``.

    Raises ``InputError`` for what is none, and for two of one name.

    >>> [str(slo) for slo in slo_rules(["premium:ttft=1000ms,e2e=30s", "tpot=.05s"])]
    ['premium:ttft=1s,e2e=30s', 'tpot=50ms']
    """
    return _distinct(tuple(one if isinstance(one, Slo) else Slo.of(one) for one in _as_slos(slos)))


def slos_for(slos: AnySlos, table: pd.DataFrame) -> tuple[Slo, ...]:
    """``slo_rules`` of ``slos``, each of which is of some request in ``table``. Raises as ``check_slos`` does, too."""
    rules = slo_rules(slos)
    check_slos(rules, table["tenant"], table["tier"])
    return rules


def needs_itl(slos: Sequence[Slo]) -> bool:
    """Whether one of ``slos`` limits the time between tokens, for which a run records the requests of its steps."""
    return any(slo.itl_s is not None for slo in slos)


def check_slos(slos: Sequence[Slo], tenants: Collection[str], tiers: Collection[str]) -> None:
    """Raise ``InputError`` for SLOs of nobody among the requests, whose ``tenants`` and ``tiers`` are given row by row.

    Also for a name that is a tenant's and a tier's, if these have different requests.
    """
    check_present(slos, "SLO", tenants, tiers)


def check_only_e2e(slos: Sequence[Slo]) -> None:
    """Raise ``InputError`` for SLOs that an engine cannot keep or miss that shows no token before the last."""
    for slo in slos:
        if slo.limits.keys() - {"e2e"}:
            raise InputError(
                f"SLO {str(slo)!r:.80}: the barrier's worker shows no token before the last; limit e2e alone; "
                "--slo e2e=30s, or slos in a scenario, goes before the trace's own"
            )
