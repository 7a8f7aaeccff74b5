"""A request is what a client sent; a job is that request inside the system. Neither knows its true output length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from driftsim.errors import InputError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_MADE: dict[tuple[str, int | None], Tier] = {}


class Tier(str):
    """Service tier of a request: its name, which may be any, and its ``rank`` in the order of urgency, from 1.

    The three published tiers have their published ranks. Any other has the rank that it is given; without one, reading
    ``rank`` raises ``InputError``. ``priority`` is the rank, or 0 where there is none: the number that an engine gets.
    Two tiers are equal if their names are; equal names and ranks are one object.

    >>> [(tier, tier.rank) for tier in (Tier.PREMIUM, Tier("standard"), Tier("batch"), Tier("gold", 1))]
    [('premium', 1), ('standard', 2), ('batch', 3), ('gold', 1)]
    >>> Tier("gold").rank
    Traceback (most recent call last):
    driftsim.errors.InputError: the tier 'gold' has no place in an order; name all tiers, the most urgent first: \
--tiers gold,..., or tiers = [...]
    """

    __slots__ = ("priority", "rank")
    PREMIUM: ClassVar[Tier]
    STANDARD: ClassVar[Tier]
    BATCH: ClassVar[Tier]
    priority: int
    rank: int

    def __new__(cls, name: str, rank: int | None = None) -> Tier:
        """The tier ``name``. Raises ``InputError`` for an empty or unprintable one."""
        name = str(name)
        rank = _PUBLISHED.get(name) if rank is None else rank
        if (name, rank) not in _MADE:
            if not is_tier_name(name):
                raise InputError(f"a tier's name must be printable and not empty, got {name!r:.80}")
            made = super().__new__(cls, name)
            made.priority = rank or 0
            if rank is not None:
                made.rank = rank
            _MADE[name, rank] = made
        return _MADE[name, rank]

    def __getattr__(self, name: str) -> Any:
        if name != "rank":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise InputError(
            f"the tier {str(self)!r} has no place in an order; name all tiers, the most urgent first: "
            f"--tiers {self},..., or tiers = [...]"
        )

    @property
    def value(self) -> str:
        """The name as a plain string."""
        return str(self)

    def __reduce__(self) -> tuple[type[Tier], tuple[str, int | None]]:
        return Tier, (str(self), self.priority or None)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(), serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


def is_tier_name(name: str) -> bool:
    """Whether a tier may be called so: any text that is printable and not empty.

    >>> is_tier_name("Großkunden, Wien"), is_tier_name(""), is_tier_name("a\\nb")
    (True, False, False)
    """
    return name != "" and name.isprintable()


_PUBLISHED = {"premium": 1, "standard": 2, "batch": 3}  # DriftSched's priority bases
TIERS: tuple[Tier, ...] = tuple(map(Tier, _PUBLISHED))  # the published three, most urgent first
Tier.PREMIUM, Tier.STANDARD, Tier.BATCH = TIERS


# Not frozen: a run builds one for each request, and a frozen one takes several times as long. Treat it as if it were.
@dataclass(slots=True, unsafe_hash=True)
class Request:
    """What a client sent: who, what kind, how long a prompt, and how much output it allows.

    ``category`` is the author's label and may be empty. A replayed trace carries lengths, never text, so ``prompt``
    is None there. The true output length is deliberately absent: it travels beside the request. ``stretches`` tell with
    whom it shares its beginning: pairs of the request that was the first to have these tokens, as a number, and the
    token of this prompt up to which they are the same; the last pair is the request itself, and none at all says that
    nobody knows. ``choice`` of a request that asks for several answers (its ``n``), each a row: the number of its first
    row, which of the answers this is, from 0, and how many they are.
    ``session`` is what it is a turn of, "" where nobody says, and ``turn`` its number there, from 1.
    ``history`` is what was said before its prompt, prompts and answers by turns, in a live conversation alone.

    >>> Request("r1", "acme", Tier.BATCH, "report", 0.5, prompt_tokens=100, prompt_words=None, max_tokens=64).tier.rank
    3
    """

    id: str
    tenant: str
    tier: Tier
    category: str
    arrival: float  # s since the run began
    prompt_tokens: int
    prompt_words: int | None
    max_tokens: int
    prompt: str | None = None
    stretches: tuple[tuple[int, int], ...] = ()
    choice: tuple[int, int, int] | None = None
    session: str = ""
    turn: int = 0
    history: tuple[str, ...] = field(default=(), repr=False)


@dataclass(slots=True, eq=False)
class Job:
    """A request inside the system, with all that an online policy may look at.

    ``estimate`` is the expected output length and ``budget`` is prompt length plus estimate, both in the unit of the
    accounting in use; ``first_estimate`` is the estimate before any output. ``quantiles`` are those of the output
    length at the levels of the estimator, if it has any.
    ``prompt_served`` and ``output_served`` are the service that its session has got so far: the
    tokens of the prompts and of the outputs of those of its turns that had ended when this one arrived. ``made`` and
    ``preempted`` are its output so far and its preemptions, kept where the policy stands inside the engine. Two jobs
    are never equal: a job is itself, whatever its numbers.

    >>> request = Request("r1", "acme", Tier.PREMIUM, "", 0.0, 100, None, 64)
    >>> job = Job(request, predicted_category="short_qa", estimate=70, budget=170)
    >>> job.priority, job.bias
    (0, 1.0)
    """

    request: Request
    predicted_category: str
    estimate: int
    budget: int
    bias: float = 1.0
    scheduling_class: str = ""
    index: int = -1  # row of the request in its workload
    priority: int = 0  # for an engine that schedules by priority: smaller goes first
    prompt_served: int = 0  # tokens
    output_served: int = 0  # tokens
    quantiles: tuple[int, ...] = ()
    made: int = 0  # in the accounting's unit, as of when the policy was last told
    preempted: int = 0
    first_estimate: int = 0
