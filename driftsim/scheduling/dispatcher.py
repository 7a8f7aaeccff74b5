"""The dispatcher admits requests, lets the policy choose who enters the engine, and learns from who leaves it.

It is the same object in front of a simulated and of a real engine, and it has no clock: every call is told ``now``,
in seconds since the run began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from driftsim.errors import InputError, check_whole
from driftsim.request import Job, Request, Tier
from driftsim.scheduling.admission import Admission, check_admission
from driftsim.scheduling.estimators import Estimator, estimator_name
from driftsim.scheduling.names import Place
from driftsim.scheduling.policies import STOCK, Policy, passes_over, policy_name
from driftsim.scheduling.shedding import Refusal, Shed, Shedding, shed_rules
from driftsim.tiers import TierRule, tier_rules


class Engine(Protocol):
    """What serves jobs. It tells the dispatcher's driver of first tokens and finishes in its own way."""

    def room(self) -> int:
        """Jobs it would take now."""
        ...

    def submit(self, job: Job, true_length: int | None) -> None:
        """Take ``job``; a simulated engine is told the true output length in tokens, a real one finds it out."""
        ...

    def abort(self, job: Job) -> None:
        """Drop ``job`` at the next step boundary."""
        ...


@dataclass(frozen=True, kw_only=True)
class Dispatching:
    """What stands before an engine: policy, estimator, admission, limits, tiers, and the seed of what is random.

    ``max_in_flight`` None means the engine's slots; the policy ``stock`` is FIFO with no limit at all. ``tiers``, the
    most urgent first, may be given as rules, names, or ``gold:5,silver:3``; none: those that the requests bring.
    ``shed``: limits of the queue, as rules or texts ``batch:requests=20,wait=5s``; none: everybody is let in.
    ``place``: where the policy stands; see ``driftsim.scheduling.placing``.
    """

    policy: str = "fifo"
    estimator: str = "static"
    admission: Admission = field(default_factory=Admission)
    max_in_flight: int | None = None
    tiers: tuple[TierRule, ...] = ()
    shed: tuple[Shed, ...] = ()
    seed: int = 0
    place: Place = "front"

    def __post_init__(self) -> None:
        check_whole("seed", self.seed)
        if self.max_in_flight is not None:
            check_whole("max_in_flight", self.max_in_flight)
        check_admission(self.admission)
        object.__setattr__(self, "tiers", tier_rules(self.tiers))  # frozen for everybody else
        object.__setattr__(self, "shed", shed_rules(self.shed))
        object.__setattr__(self, "policy", policy_name(self.policy))
        object.__setattr__(self, "estimator", estimator_name(self.estimator))
        if self.seed < 0:
            raise InputError(f"seed must not be negative, got {self.seed}")
        if self.place != "front":
            self._check_place()

    def _check_place(self) -> None:
        from driftsim.scheduling.placing import check_place

        check_place(
            self.place,
            self.policy,
            estimates=self.admission.estimates,
            max_in_flight=self.max_in_flight,
            tiers=self.tiers,
            shed=self.shed,
        )

    @property
    def placed(self) -> Place:
        """Where the policy stands in fact: ``stock`` leaves the order to the engine, wherever it was to stand."""
        return "front" if self.policy == STOCK else self.place

    def limit_of(self, engine_slots: int) -> int | None:
        """Jobs allowed inside an engine of ``engine_slots``; None is no limit."""
        if self.policy == STOCK or self.place != "front":
            return None
        return engine_slots if self.max_in_flight is None else self.max_in_flight

    def tier_limits(self, rules: Sequence[TierRule]) -> dict[str, int]:
        """Jobs of each tier allowed inside the engine, by the ``rules`` in force, where there is a limit."""
        if self.policy == STOCK or self.place != "front":
            return {}
        return {rule.name: rule.max_in_flight for rule in rules if rule.max_in_flight is not None}


class Departure(NamedTuple):
    """A job that left the engine. ``output_length`` is in the accounting's unit, None where it did not finish.

    ``served``: the output that was made all the same, in that unit; None where the job never ran.
    ``output_tokens`` is what it got, even where it failed.
    ``at_least``: how long the output of a job was that left unfinished, 0 where that is not known.
    """

    job: Job
    output_length: int | None
    censored: bool
    served: int | None = None
    output_tokens: int = 0
    at_least: int = 0


class Dispatcher:
    """Admit, queue, release, learn. At most ``max_in_flight`` jobs are inside the engine; None means no limit.

    ``tier_limits`` says how many of a tier may be inside: a tier that is full is passed over, the others go on, and the
    order of those who go stays the policy's. ``shed`` are the limits of the queue: ``refused`` says of the last arrival
    whether it was turned away, and is then neither queued nor learned from.

    At one instant, tell it of all departures and all arrivals before asking it for jobs: then simultaneous events
    have one outcome, whatever their order.
    """

    def __init__(
        self,
        policy: Policy,
        estimator: Estimator,
        admission: Admission,
        max_in_flight: int | None = None,
        tier_limits: Mapping[str, int] | None = None,
        shed: Sequence[Shed] = (),
    ) -> None:
        if max_in_flight is not None and max_in_flight < 1:
            raise InputError(f"max_in_flight must be at least 1, got {max_in_flight}")
        self.policy = policy
        self.estimator = estimator
        self.admission = admission
        self.max_in_flight = max_in_flight
        self.in_flight: dict[int, int] = {}  # id(job) -> order of dispatch
        self.dispatched = 0
        self.refused: Refusal | None = None
        self._shedding = Shedding(shed) if shed else None
        self._withdrawn = set[int]()  # id(job) of those that still stand in the policy's queue, but wait no more
        self._served: Callable[[Job, int | None, float], None] | None = getattr(policy, "served", None)
        self._by_session = dict[
            str, tuple[int, int]
        ]()  # by session, prompt and output tokens of its turns that have ended
        self._counts_tokens = admission.accounting == "tokenizer"
        self._has_levels = bool(getattr(estimator, "levels", ()))
        self._unfinished = getattr(estimator, "observe_unfinished", None)
        self._waiting: dict[int, Job] | None = None  # id(job) -> job, kept only to refresh estimates
        if admission.estimates == "refreshed":
            if not hasattr(policy, "rekey"):
                raise InputError(f"policy {type(policy).__name__} has no rekey(), so estimates cannot be refreshed")
            self._waiting = {}
        self._limits = {Tier(tier): limit for tier, limit in (tier_limits or {}).items()}
        self._inside: dict[Tier, int] = dict.fromkeys(self._limits, 0)  # jobs in flight of each tier with a limit
        self._full: set[Tier] = set()
        if self._limits and not passes_over(policy):
            raise InputError(
                f"policy {type(policy).__name__} has no pop_below(now, full) beside its pop(), so tiers cannot have "
                "limits; give it one, or leave max_in_flight out of the tiers"
            )

    def arrive(self, request: Request, category: str, now: float, index: int = -1) -> Job:
        """Admit ``request``, of predicted ``category``, and queue it unless it is ``refused``; ``index`` is its row."""
        job = self.admit(request, category, now, index)
        self.enqueue(job, now)
        return job

    def admit(self, request: Request, category: str, now: float, index: int = -1) -> Job:
        """The job that ``request`` is, with its estimate; it is not queued yet."""
        job = Job(request, category, 0, 0, 1.0, "", index, request.tier.priority)
        if request.session:
            job.prompt_served, job.output_served = self._by_session.get(request.session, (0, 0))
        self._estimate(job, now)
        return job

    def enqueue(self, job: Job, now: float, *, again: bool = False) -> None:
        """Queue ``job`` unless it is ``refused``; one that was let in before, and waits ``again``, is not."""
        if self._shedding is not None:
            self.refused = None if again else self._shedding.refuses(job, now)
            if self.refused is not None:
                return
            if again:
                self._shedding.waits(job)
        self.policy.push(job, now)
        if self._waiting is not None:
            self._waiting[id(job)] = job

    def drained(self, now: float) -> list[Job]:
        """All jobs that wait here, in the policy's order; they wait here no more."""
        jobs = list[Job]()
        while len(self.policy):
            job = self.policy.pop(now)
            if self._served is not None:
                self._served(job, None, now)
            if id(job) in self._withdrawn:
                self._withdrawn.remove(id(job))
                continue
            if self._shedding is not None:
                self._shedding.withdrawn(job)
            jobs.append(job)
        if self._waiting is not None:
            self._waiting.clear()
        return jobs

    def recall(self, job: Job, now: float) -> None:
        """``job`` is inside the engine no more, and nothing is learned from it."""
        del self.in_flight[id(job)]
        if self._limits:
            self._count(job, -1)
        if self._shedding is not None:
            self._shedding.left(job, now)
        if self._served is not None:
            self._served(job, None, now)

    def holds(self, job: Job) -> bool:
        """Whether ``job`` is inside the engine."""
        return id(job) in self.in_flight

    def limit_anew(self, shed: Sequence[Shed], waiting: Iterable[Job], inside: Iterable[Job], now: float) -> None:
        """Go by the limits ``shed`` from ``now`` on. Jobs that were let in, ``waiting`` and ``inside``, stay so."""
        self._shedding = Shedding.over(shed, waiting, inside, now) if shed else None

    def estimated_wait(self, job: Job, now: float) -> float | None:
        """Seconds that ``job`` would wait if it came ``now``, by the limits that concern it; None: nobody knows yet."""
        return None if self._shedding is None else self._shedding.wait(job, now)

    def withdraw(self, job: Job) -> None:
        """``job``, which waits here, waits no more: its client has given up."""
        self._withdrawn.add(id(job))
        if self._shedding is not None:
            self._shedding.withdrawn(job)
        if self._waiting is not None:
            del self._waiting[id(job)]

    def finished(self, departures: Sequence[Departure], now: float) -> None:
        """Free the slots of ``departures`` and learn from them, in order of dispatch."""
        ordered, in_flight = departures, self.in_flight
        if len(departures) > 1:
            ordered = sorted(departures, key=lambda gone: in_flight[id(gone.job)])
        for departure in ordered:
            del in_flight[id(departure.job)]
            if self._limits:
                self._count(departure.job, -1)
            if self._shedding is not None:
                self._shedding.left(departure.job, now)
            if self._served is not None:
                length = departure.served if departure.output_length is None else departure.output_length
                self._served(departure.job, length, now)
            if departure.job.request.session:
                self._serve(departure)
            if departure.output_length is not None:
                self.estimator.observe(departure.job, departure.output_length, departure.censored, now)
            elif self._unfinished is not None:
                self._unfinished(departure.job, departure.at_least, now)
        if self._waiting is not None and departures:
            for job in self._waiting.values():
                self._estimate(job, now)
            self.policy.rekey()  # type: ignore[attr-defined]  # checked in the constructor

    def _serve(self, departure: Departure) -> None:
        """Note what a turn got for its session; one without any output got nothing."""
        request, tokens = departure.job.request, departure.output_tokens
        if tokens:
            prompts, outputs = self._by_session.get(request.session, (0, 0))
            self._by_session[request.session] = prompts + request.prompt_tokens, outputs + tokens

    @property
    def may_release(self) -> bool:
        """Whether somebody waits and the limit in flight has room."""
        if self.max_in_flight is not None and len(self.in_flight) >= self.max_in_flight:
            return False
        return len(self.policy) > (len(self._withdrawn) if self._withdrawn else 0)

    def release(self, room: int, now: float) -> list[Job]:
        """The jobs to hand to an engine that would take ``room`` more, in order; they count as in flight from now."""
        policy, in_flight, jobs = self.policy, self.in_flight, list[Job]()
        count = len(policy)
        choosy = bool(self._limits or self._withdrawn)
        if choosy:
            count -= len(self._withdrawn)
        if count > room:
            count = room
        if self.max_in_flight is not None and count > self.max_in_flight - len(in_flight):
            count = self.max_in_flight - len(in_flight)
        while count > 0:
            if choosy:
                chosen = self._choose(now)
                if chosen is None:
                    break
                job = chosen
            else:
                job = policy.pop(now)
            jobs.append(job)
            in_flight[id(job)] = self.dispatched
            self.dispatched += 1
            if self._shedding is not None:
                self._shedding.entered(job, now)
            if self._waiting is not None:
                del self._waiting[id(job)]
            count -= 1
        return jobs

    def _choose(self, now: float) -> Job | None:
        """The next job that still waits and whose tier has room; None if there is none."""
        pop: Callable[[float], Job] = self.policy.pop
        if self._limits:
            pop = partial(self.policy.pop_below, full=self._full)  # type: ignore[attr-defined]  # see the constructor
        while True:
            try:
                job = pop(now)
            except IndexError:
                return None
            if id(job) not in self._withdrawn:
                self._count(job, 1)
                return job
            self._withdrawn.remove(id(job))
            if self._served is not None:
                self._served(job, None, now)

    def _count(self, job: Job, more: int) -> None:
        """Note that ``job`` went into the engine (1), or left it (-1)."""
        tier = job.request.tier
        if tier in self._limits:
            self._inside[tier] += more
            (self._full.add if self._inside[tier] >= self._limits[tier] else self._full.discard)(tier)

    def _estimate(self, job: Job, now: float) -> None:
        request, admission = job.request, self.admission
        estimate = self.estimator.estimate(request, job.predicted_category, now)
        if estimate.length < 0 or not estimate.bias >= 0:
            raise InputError(f"the estimator {type(self.estimator).__name__} gave {estimate}; neither may be below 0")
        job.estimate, job.bias = estimate.length, estimate.bias
        job.first_estimate = estimate.length
        if self._has_levels:
            job.quantiles = estimate.quantiles
        prompt = request.prompt_tokens if self._counts_tokens else admission.prompt_length(request)
        job.budget = budget = prompt + estimate.length
        job.scheduling_class = admission.scheduling_class(budget)
