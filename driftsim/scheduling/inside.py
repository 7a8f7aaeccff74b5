"""A policy inside the engine: the dispatcher's other half stands where the engine keeps those who wait.

It is the same object inside the simulated engine (engine/inside.py) and inside vLLM's scheduler (live/scheduler.py).
Both ask it the same questions at the same moments: who is first of those who wait, who makes way for him, and who goes
when the KV blocks run out. ``now`` is seconds since the run began.

A policy may have more than ``Policy`` for this place; one without any of it orders those who wait, and nothing else.
``peek(now)``: the job that ``pop`` would give. Without it a choice, once made, stands until the job is admitted.
``preempts(running, waiting, now)``: whether the running job should make way for the waiting one. The place sets limits,
which a policy may have as ``most_preemptions`` and ``preemptible_share``. ``steady``: it promises that a ``preempts``
that said no for two jobs says no as long as the one runs and the other waits, that nobody preempts a job that was
chosen before him, and that nobody preempts whom one who stands before him in the queue may not; so after a no nobody is
asked until somebody else is first by having come. ``expendable(job, now)``: of those who run, the
job with the largest goes first when KV blocks run out, ties by the latest arrival, and among those who may make way.
``admits(head, running, room, now)``: whether the head may go in now, beside those who run; it is asked of each head
in turn, where slots and token budget are left and somebody runs, and a no ends the step's admissions. It changes
nothing.
``progress(job, tokens, now)`` of a policy hears of a running job's output before it is asked about it; that of an
estimator returns the ``Estimate`` of its whole output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from driftsim.errors import InputError
from driftsim.request import Job
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.dispatcher import Departure, Dispatcher
from driftsim.scheduling.estimate import Estimator
from driftsim.scheduling.queues import MOST_PREEMPTIONS, PREEMPTIBLE_SHARE, Policy, looks_ahead
from driftsim.scheduling.room import Load, Room

Runner: TypeAlias = tuple[Job, Any]  # a running job, and what the engine knows it by


class Inside(Dispatcher):
    """Admit at arrival in the engine's core, queue, choose, and learn at the finish.

    ``on_admit`` hears of each job once it has its estimate.
    """

    def __init__(
        self,
        policy: Policy,
        estimator: Estimator,
        admission: Admission,
        on_admit: Callable[[Job], None] = lambda job: None,
    ) -> None:
        super().__init__(policy, estimator, admission)
        if admission.accounting != "tokenizer" and admission.words_per_token is None:
            raise InputError(
                "an engine's core sees tokens and no words, so a policy inside it cannot count words; take "
                "--accounting tokenizer, or give --words-per-token"
            )
        self._on_admit = on_admit
        self._peek: Callable[[float], Job] | None = policy.peek if looks_ahead(policy) else None  # type: ignore[attr-defined]
        self._choice: Job | None = None  # of a policy that cannot tell whom it would choose
        self._preempts: Callable[[Job, Job, float], bool] = getattr(policy, "preempts", _never)
        self._expendable: Callable[[Job, float], float] | None = getattr(policy, "expendable", None)
        self._admits: Callable[[Load, Sequence[Load], Room, float], bool] | None = getattr(policy, "admits", None)
        self._hears: Callable[[Job, int, float], None] | None = getattr(policy, "progress", None)
        self._estimates_anew = getattr(estimator, "progress", None)
        self._most: int = getattr(policy, "most_preemptions", MOST_PREEMPTIONS)
        self._share: float = getattr(policy, "preemptible_share", PREEMPTIBLE_SHARE)
        self.preempting = self._preempts is not _never
        self.chooses_victim = self._expendable is not None
        self.holds_back = self._admits is not None
        if self.holds_back and not self._counts_tokens:
            raise InputError(
                f"policy {type(policy).__name__} holds the head back by KV blocks, so lengths must be tokens; take "
                "--accounting tokenizer"
            )
        self.steady = bool(getattr(policy, "steady", False)) and self._estimates_anew is None
        self.only_counts = self._hears is None and self._estimates_anew is None and self._counts_tokens
        self.settled = False  # whether nobody makes way for those who wait now, nor will for anybody behind them

    def come(self, job: Job, now: float) -> None:
        """``job`` arrives at the engine's core: estimate it, and let it wait."""
        if job.request.session:
            job.prompt_served, job.output_served = self._by_session.get(job.request.session, (0, 0))
        self._estimate(job, now)
        self._on_admit(job)
        self.enqueue(job, now)
        if self.settled and (self._peek is None or self.head(now) is job):
            self.settled = False

    def head(self, now: float) -> Job:
        """Whom the policy would let go first. Raises ``IndexError`` when nobody waits."""
        while True:
            job = self._choice
            if job is None:
                if self._peek is not None:
                    job = self._peek(now)
                else:
                    job = self._choice = self.policy.pop(now)
            if id(job) not in self._withdrawn:
                return job
            self._drop(job, now)

    def take(self, now: float) -> Job:
        """The same, who is admitted and waits no more."""
        job = self.head(now)
        self._pop(job, now)
        self.in_flight[id(job)] = self.dispatched
        self.dispatched += 1
        if self._waiting is not None:
            del self._waiting[id(job)]
        return job

    def come_back(self, job: Job, now: float) -> None:
        """``job`` was preempted and waits again; its output so far is kept, what was charged for it is not."""
        job.preempted += 1
        self.put_back(job, now)

    def put_back(self, job: Job, now: float) -> None:
        """``job`` was taken and waits all the same."""
        self.settled = False
        self.recall(job, now)
        self.enqueue(job, now, again=True)

    def passes(self, job: Job, now: float) -> bool:
        """Whether ``job``, which has just come, is first now: whoever was first before may be tried no more."""
        if self._peek is None:
            return self._choice is None
        return self.head(now) is job

    def tell(self, job: Job, tokens: int, now: float) -> None:
        """The running ``job`` has made so many output tokens by now."""
        made = tokens if self._counts_tokens else self.admission.unit.length(tokens, None)
        if made == job.made:
            return
        job.made = made
        if self._hears is not None:
            self._hears(job, made, now)
        if self._estimates_anew is not None:
            self._take_over(job, self._estimates_anew(job, made, now).length)

    def displaced(
        self, head: Job, running: Iterable[Runner], slots: int, blocks: int, held: Callable[[Any], int], now: float
    ) -> list[Any]:
        """Who makes way for ``head``, first the most expendable; nobody unless that is enough.

        ``running``: all of them, in order of admission. ``slots``, ``blocks``: how many of these are missing; ``held``:
        how many blocks one gives up. Where it is ``settled``, nobody need be asked.
        """
        preempts, most, share = self._preempts, self._most, self._share
        may = [
            one
            for one in running
            if (job := one[0]).preempted < most and job.made < share * job.first_estimate and preempts(job, head, now)
        ]
        if not may:
            self.settled = self.steady
            return []
        may.reverse()
        if self._expendable is not None:
            expendable = self._expendable
            may.sort(key=lambda one: expendable(one[0], now), reverse=True)  # stable: ties by the latest admission
        gone = []
        for _, thing in may:
            if slots <= 0 and blocks <= 0:
                break
            gone.append(thing)
            slots -= 1
            blocks -= held(thing)
        return gone if slots <= 0 and blocks <= 0 else []

    def admits(self, uncomputed: int, running: Sequence[Load], room: Room, now: float) -> bool:
        """Whether the head, of which so much must be computed, may go in beside those who run, told of before."""
        assert self._admits is not None
        return self._admits(Load(self.head(now), uncomputed), running, room, now)

    def expendable(self, job: Job, now: float) -> float:
        """How soon the running ``job`` goes when KV blocks run out: the largest first."""
        assert self._expendable is not None
        return self._expendable(job, now)

    def finished(self, departures: Sequence[Departure], now: float) -> None:
        """Learn from ``departures``. Raises nothing for who is not here."""
        inside = [one for one in departures if id(one.job) in self.in_flight]
        for one in departures:
            # vLLM delivers the last token of a request that it has preempted meanwhile, and which so waited.
            if one.output_length is not None and id(one.job) not in self.in_flight:
                self.estimator.observe(one.job, one.output_length, one.censored, now)
        super().finished(inside, now)
        if self._waiting is not None:  # estimates were refreshed, and with them the order
            self.settled = False

    def _estimate(self, job: Job, now: float) -> None:
        super()._estimate(job, now)
        if job.made and self._estimates_anew is not None:
            self._take_over(job, self._estimates_anew(job, job.made, now).length)

    def _take_over(self, job: Job, length: int) -> None:
        """The whole output of ``job`` is now expected to be so long."""
        job.budget += length - job.estimate
        job.estimate = length

    def _pop(self, job: Job, now: float) -> None:
        """Take ``job``, the head, out of the policy's queue."""
        if self._choice is not None:
            self._choice = None
        elif (given := self.policy.pop(now)) is not job:
            raise InputError(
                f"policy {type(self.policy).__name__}: pop() gave request {given.request.id}, and peek() had said "
                f"{job.request.id}; let both say the same, or leave peek() out"
            )

    def _drop(self, job: Job, now: float) -> None:
        """``job``, the head, has left: nobody waits for it any more."""
        self._pop(job, now)
        self._withdrawn.remove(id(job))
        if self._served is not None:
            self._served(job, None, now)


def _never(running: Job, waiting: Job, now: float) -> bool:
    """Nobody makes way."""
    return False
