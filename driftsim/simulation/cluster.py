"""Several engines as one: a router gives each job to a replica, and replicas fail and come back.

Behind one dispatcher, the router chooses when a job goes into the engines. In front of a dispatcher for each replica,
it chooses when the request arrives. A replica that fails drops what it holds; that begins again elsewhere, or is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

from driftsim.engine.clock import ARRIVE, Clock, Moment
from driftsim.engine.sequence import Sequence as Served
from driftsim.latency.steptime import TICKS_PER_SECOND, ticks
from driftsim.request import Job, Request
from driftsim.scheduling.around import Service
from driftsim.scheduling.dispatcher import Departure, Dispatcher, Engine
from driftsim.scheduling.routing import Replica, Router
from driftsim.scheduling.shedding import Refusal
from driftsim.simulation.replicas import Failure, Replicas

Make: TypeAlias = Callable[[int, Callable[[list[Served]], None]], Engine]  # of a replica's number
ANY = 1_000_000_000


class Placement:
    """Which replica has which job, and how much each has to do."""

    def __init__(self, router: Router, services: Sequence[Service]) -> None:
        self.replicas = [Replica(number) for number in range(len(services))]
        self._router = router
        self._services = services  # of each: a fast one has less to do for the same request
        self._at: dict[int, tuple[Replica, float]] = {}  # by id(job)

    @property
    def up(self) -> list[Replica]:
        """Those that serve now, in order."""
        return [replica for replica in self.replicas if replica.up]

    def choose(self, job: Job, now: float) -> Replica:
        """Where ``job`` goes; among all replicas if none is up."""
        replica = self._router.choose(job, self.up or self.replicas, now)
        work = self._services[replica.number](job)
        replica.requests += 1
        replica.work_s += work
        self._at[id(job)] = replica, work
        return replica

    def of(self, job: Job) -> Replica:
        """Where ``job`` is."""
        return self._at[id(job)][0]

    def gone(self, job: Job) -> None:
        """``job`` is there no more."""
        replica, work = self._at.pop(id(job))
        replica.requests -= 1
        replica.work_s = replica.work_s - work if replica.requests else 0.0  # no sum of roundings stays


class Front:
    """A dispatcher for each replica, as if they were one."""

    def __init__(self, dispatchers: Sequence[Dispatcher], placement: Placement) -> None:
        self.dispatchers = dispatchers
        self.placement = placement
        self.refused: Refusal | None = None

    def _of(self, job: Job) -> Dispatcher:
        return self.dispatchers[self.placement.of(job).number]

    @property
    def in_flight(self) -> dict[int, int]:
        """By id(job), the order of dispatch from its own dispatcher, of all that are inside the engines."""
        return {name: order for one in self.dispatchers for name, order in one.in_flight.items()}

    @property
    def dispatched(self) -> int:
        """Jobs that went into the engines so far."""
        return sum(one.dispatched for one in self.dispatchers)

    @property
    def may_release(self) -> bool:
        """Whether somebody waits before a replica that is up and has room."""
        return any(self.dispatchers[replica.number].may_release for replica in self.placement.up)

    def arrive(self, request: Request, category: str, now: float, index: int = -1) -> Job:
        """Admit ``request`` to the dispatcher of the replica that the router chooses; see ``Dispatcher.arrive``."""
        job = self.dispatchers[0].admit(request, category, now, index)
        own = self.dispatchers[self.placement.choose(job, now).number]
        own.enqueue(job, now)
        self.refused = own.refused
        if own.refused is not None:
            self.placement.gone(job)
        return job

    def release(self, room: int, now: float) -> list[Job]:
        """The jobs to hand to the engines that are up, in order; those of the first replica first."""
        return [job for replica in self.placement.up for job in self.dispatchers[replica.number].release(ANY, now)]

    def holds(self, job: Job) -> bool:
        """Whether ``job`` is inside an engine."""
        return self._of(job).holds(job)

    def withdraw(self, job: Job) -> None:
        """``job``, which waits, waits no more."""
        self._of(job).withdraw(job)
        self.placement.gone(job)

    def finished(self, departures: Sequence[Departure], now: float) -> None:
        """Free the slots of ``departures`` and learn from them."""
        for number, dispatcher in enumerate(self.dispatchers):
            own = [one for one in departures if self.placement.of(one.job).number == number]
            if own:
                dispatcher.finished(own, now)
        for departure in departures:
            self.placement.gone(departure.job)

    def move(self, jobs: Iterable[Job], now: float) -> None:
        """Let ``jobs``, which wait nowhere and are in no engine, queue before other replicas."""
        for job in jobs:
            self.placement.gone(job)
            self.dispatchers[self.placement.choose(job, now).number].enqueue(job, now, again=True)


class Cluster:
    """The engines of all replicas as one engine.

    ``make`` builds the engine of a replica. ``on_leave`` hears who left for good, ``on_ready`` that somebody may be
    released again. ``limits``: most jobs inside each replica, None for no limit.
    """

    def __init__(
        self,
        env: Clock,
        make: Make,
        asked: Replicas,
        placement: Placement,
        front: Front | None,
        on_leave: Callable[[list[Served]], None],
        on_ready: Callable[[], None],
        limits: Sequence[int | None],
    ) -> None:
        self.env = env
        self.asked = asked
        self.placement = placement
        self.front = front
        self.on_leave = on_leave
        self.on_ready = on_ready
        self.limits = limits
        self.where: dict[int, int] = {}  # by row of the request, the replica that had it last
        self.moved: dict[int, int] = {}  # by row, how often a failure made it begin again
        self._make = make
        self.engines = [self._built(number) for number in range(asked.count)]
        self._inside: dict[int, tuple[Job, int | None, int]] = {}  # by id(job): with its true length, in which engine
        self._held: list[tuple[Job, int | None]] = []  # while no replica is up
        self._recalled = set[int]()  # id(job) of those whose replica failed under them
        self._dropped = set[int]()  # of these, whose client gave up meanwhile
        for failure in asked.failures:
            Moment(env, ticks(failure.at_s), ARRIVE, lambda _, failure=failure: self._fail(failure))  # type: ignore[misc]

    def _built(self, number: int) -> Engine:
        return self._make(number, partial(self._left, number))

    def room(self) -> int:
        """Jobs that the replicas that are up would take."""
        up = self.placement.up
        most = [self.limits[replica.number] for replica in up]
        if not up or None in most or self.front is not None:
            return ANY if up else 0
        return max(0, sum(limit for limit in most if limit) - sum(replica.requests for replica in up))

    def submit(self, job: Job, true_length: int | None) -> None:
        """Give ``job`` to a replica; while none is up it is held back."""
        if not self.placement.up:
            self._held.append((job, true_length))
            return
        if self.front is None:
            self.placement.choose(job, self.env.now / TICKS_PER_SECOND)
        replica = self.placement.of(job)
        if not replica.up:  # it failed while the job was on its way
            self._begin_again(job, true_length)
            return
        self.where[job.index] = replica.number
        self._inside[id(job)] = job, true_length, replica.number
        self.engines[replica.number].submit(job, true_length)

    def abort(self, job: Job) -> None:
        """Drop ``job`` where it is."""
        if id(job) in self._recalled:
            self._dropped.add(id(job))
            return
        for place, (held, length) in enumerate(self._held):
            if held is job:
                del self._held[place]
                self._leave(Served(job, length or 1), "abort", None)
                return
        if id(job) in self._inside:
            self.engines[self._inside[id(job)][2]].abort(job)

    def _leave(self, sequence: Served, reason: str, error: str | None) -> None:
        sequence.finish_reason, sequence.error, sequence.finish = reason, error, self.env.now
        self.on_leave([sequence])

    def _left(self, number: int, sequences: list[Served]) -> None:
        """``sequences`` left the engine of a replica: for good, or because it failed."""
        gone, again = list[Served](), list[tuple[Job, int | None]]()
        for sequence in sequences:
            job, length, _ = self._inside.pop(id(sequence.job))
            if id(job) not in self._recalled:
                gone.append(sequence)
            else:
                self._recalled.remove(id(job))
                if id(job) in self._dropped:
                    self._dropped.remove(id(job))
                    gone.append(sequence)
                elif self.asked.lost == "lose":
                    sequence.finish_reason, sequence.error = "error", f"replica {number} failed"
                    gone.append(sequence)
                else:
                    again.append((job, length))
            if self.front is None:
                self.placement.gone(job)
        if gone:
            self.on_leave(gone)
        for job, length in again:
            self._begin_again(job, length)

    def _begin_again(self, job: Job, length: int | None) -> None:
        """Let ``job`` go to another replica, from its beginning."""
        self.moved[job.index] = self.moved.get(job.index, 0) + 1
        if self.front is None:
            self.submit(job, length)
            return
        now = self.env.now / TICKS_PER_SECOND
        self.front.dispatchers[self.placement.of(job).number].recall(job, now)
        self.front.move([job], now)
        self.on_ready()

    def _fail(self, failure: Failure) -> None:
        """A replica goes down: what it holds leaves its engine at the end of the step under way."""
        replica = self.placement.replicas[failure.replica]
        replica.up = False
        for job in [job for job, _, number in self._inside.values() if number == replica.number]:
            self._recalled.add(id(job))
            self.engines[replica.number].abort(job)
        if self.front is not None:
            now = self.env.now / TICKS_PER_SECOND
            self.front.move(self.front.dispatchers[replica.number].drained(now), now)
            self.on_ready()
        if failure.back_s is not None:
            Moment(self.env, ticks(failure.back_s), ARRIVE, lambda _: self._come_back(replica))

    def _come_back(self, replica: Replica) -> None:
        """A replica is up again, with an empty engine and nothing in its cache."""
        self.engines[replica.number] = self._built(replica.number)
        replica.up = True
        if self.front is not None:  # who came while none was up
            for other in self.placement.replicas:
                if not other.up:
                    now = self.env.now / TICKS_PER_SECOND
                    self.front.move(self.front.dispatchers[other.number].drained(now), now)
        held, self._held = self._held, []
        for job, length in held:
            self.submit(job, length)
        self.on_ready()
