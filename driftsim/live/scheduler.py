"""vLLM's schedulers with a policy of ours inside: it orders those who wait, may preempt, and chooses victims.

Everything else is vLLM's: these classes ask the policy what the simulated engine asks it (driftsim/engine/inside.py),
at the same moments; tests/live/test_inside.py holds the two against each other, decision by decision. They run in the
process of the engine's core, by vLLM's option ``scheduler_cls``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import RequestQueue, SchedulingPolicy
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from driftsim.live.orders import NAME, ORDERS, Orders, job_of, noted, stranger
from driftsim.live.vllm import MappedFile, Traced
from driftsim.request import Job
from driftsim.scheduling.dispatcher import Departure
from driftsim.scheduling.inside import Inside, Runner
from driftsim.scheduling.room import Load, Room, least_chunk


class PolicyQueue(RequestQueue):  # type: ignore[misc]  # vLLM has no types for mypy
    """vLLM's queue of waiting requests in the order of the policy in ``place``.

    Those who make way in a step wait again once it is scheduled: else they could be admitted in it. While there is a
    ``gate``, nobody waits whom it does not let in.
    """

    def __init__(self, place: Inside, now: Callable[[], float], job_of_request: Callable[[Any], Job]) -> None:
        self.place, self._now, self._job = place, now, job_of_request
        self._of: dict[int, Any] = {}  # id(job) -> request
        self._aside: list[Any] = []
        self.holding = False
        self.gate: Callable[[], bool] | None = None

    def add_request(self, request: Any) -> None:
        """A newcomer."""
        job = self._job(request)
        self._of[id(job)] = request
        self.place.come(job, self._now())

    def peek_request(self) -> Any:
        """Whom the policy would let go first."""
        return self._of[id(self.place.head(self._now()))]

    def pop_request(self) -> Any:
        """The same, who waits no more."""
        return self._of.pop(id(self.place.take(self._now())))

    def prepend_request(self, request: Any) -> None:
        """One that was preempted goes where the policy puts it."""
        if self.holding:
            self._aside.append(request)
            return
        job = self._job(request)
        self._of[id(job)] = request
        self.place.come_back(job, self._now())

    def let_back(self) -> None:
        """Those who made way wait again."""
        self.holding = False
        for request in self._aside:
            self.prepend_request(request)
        self._aside.clear()

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        """Those who were taken and could not be tried yet."""
        for request in requests:
            job = self._job(request)
            self._of[id(job)] = request
            self.place.put_back(job, self._now())

    def remove_request(self, request: Any) -> None:
        """One that leaves without being served."""
        job = self._job(request)
        if self._of.pop(id(job), None) is not None:
            self.place.withdraw(job)

    def remove_requests(self, requests: Iterable[Any]) -> None:
        """Several of them."""
        for request in requests:
            self.remove_request(request)

    def __bool__(self) -> bool:
        return bool(self._of) and (self.gate is None or self.gate())

    def __len__(self) -> int:
        return len(self._of) + len(self._aside)

    def __iter__(self) -> Iterator[Any]:
        return iter([*self._of.values(), *self._aside])


class PolicyInside:
    """Mixed into a scheduler of vLLM: asks the policy that the orders of the run name.

    ``clock`` tells the seconds since the run began.
    """

    running: list[Any]
    waiting: Any
    made_way: frozenset[str]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._jobs: dict[str, Job] = {}
        self._over: list[Any] = []  # requests that have finished, and of which the policy has not heard
        self._frozen: float | None = None  # now, while a step is scheduled
        self._estimates: MappedFile | None = None
        self._orders = Orders(run=-1)
        self.clock: Callable[[], float] = lambda: time.monotonic() - self._orders.began
        specs = [group.kv_cache_spec for group in self.kv_cache_config.kv_cache_groups]  # type: ignore[attr-defined]
        windows = [getattr(spec, "sliding_window", None) or 0 for spec in specs]
        slides = any(0 < window < self.max_model_len for window in windows)  # type: ignore[attr-defined]
        caches = self.kv_cache_manager.enable_caching  # type: ignore[attr-defined]
        self._counts_blocks = not (slides or caches or len(specs) > 1)
        self.stand(self._orders.place())

    def stand(self, place: Inside) -> None:
        """Let the policy in ``place`` decide from now on; nobody may wait."""
        assert not len(self.waiting), "requests of another run wait"
        self.place = place
        self.waiting = PolicyQueue(place, self._now, self._job_of)
        # By priority vLLM lets anybody be a victim; the priority of each is then what the policy says of it.
        self.policy = SchedulingPolicy.PRIORITY if place.chooses_victim else SchedulingPolicy.FCFS

    def _now(self) -> float:
        return self.clock() if self._frozen is None else self._frozen

    def _job_of(self, request: Any) -> Job:
        return self._jobs[request.request_id]

    def add_request(self, request: Any) -> None:
        """Take ``request`` in; the first of a run brings the orders of the run into force."""
        told = (request.sampling_params.extra_args or {}).get(NAME) if request.sampling_params is not None else None
        if told is not None and told["run"] != self._orders.run:
            self._take_orders()
        job = stranger(request.request_id, request.num_prompt_tokens, request.max_tokens)
        self._jobs[request.request_id] = job if told is None else job_of(told)
        super().add_request(request)  # type: ignore[misc]

    def _take_orders(self) -> None:
        self._orders = Orders.model_validate_json(Path(os.environ[ORDERS]).read_text(encoding="utf-8"))
        self._estimates = MappedFile(self._orders.estimates) if self._orders.estimates else None
        self.stand(self._orders.place(self._note))

    def _note(self, job: Job) -> None:
        if self._estimates is not None:
            self._estimates.append(noted(job).encode())

    # -- decisions

    def schedule(self, *arguments: Any, **keywords: Any) -> Any:
        """Schedule a step, after the first of the waiting has had way made for it."""
        self._frozen = self.clock()
        self.made_way = frozenset()
        gone = self._make_way() if self.place.preempting and self.waiting else 0
        if self.place.chooses_victim:
            self._rank_victims()
        self.waiting.gate = self._lets_in if self.place.holds_back else None
        output = super().schedule(*arguments, **keywords)  # type: ignore[misc]
        self.waiting.gate = None
        if gone:
            self.waiting.let_back()
        self._frozen = None
        return output

    @property
    def _slots(self) -> int:
        return int(getattr(self, "max_num_active_reqs", None) or self.max_num_running_reqs)  # type: ignore[attr-defined]

    @property
    def _room(self) -> Room:
        """The whole cache, less vLLM's null block."""
        threshold = self.scheduler_config.long_prefill_token_threshold  # type: ignore[attr-defined]
        chunk = least_chunk(self.max_num_scheduled_tokens, self._slots, threshold)  # type: ignore[attr-defined]
        return Room(self.kv_cache_config.num_blocks - 1, int(self.block_size), chunk)  # type: ignore[attr-defined]

    def _lets_in(self) -> bool:
        """Whether the policy lets the head in beside those who run; whoever would be alone goes in.

        vLLM asks before it looks at the slots, and the simulated engine after that.
        """
        if not self.running or len(self.running) >= self._slots:
            return True
        running = []
        for request in self.running:
            self.place.tell(self._job_of(request), made(request), self._now())
            running.append(Load(self._job_of(request), _uncomputed(request)))
        return self.place.admits(_uncomputed(self.waiting.peek_request()), running, self._room, self._now())

    def _make_way(self) -> int:
        """Preempt for the first of the waiting, if it lacks a slot or KV blocks and the policy says so; how many."""
        if self.place.settled:
            return 0
        head = self.waiting.peek_request()
        slots, blocks = len(self.running) + 1 - self._slots, self._missing_blocks(head)
        if slots <= 0 and blocks <= 0:
            return 0
        gone = self.place.displaced(self._job_of(head), self._runners(), slots, blocks, self._held, self._now())
        self.waiting.holding = bool(gone)
        self.made_way = frozenset(request.request_id for request in gone)
        for request in gone:
            self.running.remove(request)
            self._preempt_request(request, time.monotonic())
        return len(gone)

    def _missing_blocks(self, head: Any) -> int:
        """KV blocks that ``head`` lacks as a whole, if each of the running gets one more; see the simulated engine."""
        if not self._counts_blocks or not self.running:
            return 0
        manager: Any = self.kv_cache_manager  # type: ignore[attr-defined]
        watermark = getattr(manager, "watermark_blocks", 0)
        needed = self._blocks_of(head.num_tokens) + watermark + len(self.running)
        return int(needed - manager.block_pool.get_num_free_blocks())

    def _blocks_of(self, tokens: int) -> int:
        return -(-tokens // int(self.block_size))  # type: ignore[attr-defined]

    def _runners(self) -> list[Runner]:
        """Who may make way: all but those whose last token is being computed; each is told of first."""
        runners = []
        for request in self.running:
            tokens = made(request)
            if tokens < request.max_tokens and request.num_prompt_tokens + tokens < self.max_model_len:  # type: ignore[attr-defined]
                job = self._job_of(request)
                self.place.tell(job, tokens, self._now())
                runners.append((job, request))
        return runners

    def _held(self, request: Any) -> int:
        return self._blocks_of(request.num_computed_tokens)

    def _rank_victims(self) -> None:
        """Let vLLM preempt whom the policy says, where KV blocks may run out in this step."""
        free = self.kv_cache_manager.block_pool.get_num_free_blocks()  # type: ignore[attr-defined]
        budget = self.scheduler_config.max_num_batched_tokens  # type: ignore[attr-defined]
        if free >= 2 * len(self.running) + self._blocks_of(budget):
            return
        for request in self.running:
            job = self._job_of(request)
            self.place.tell(job, made(request), self._now())
            request.priority = self.place.expendable(job, self._now())

    def _preempt_request(self, request: Any, *arguments: Any, **keywords: Any) -> None:
        self.place.tell(self._job_of(request), made(request), self._now())
        super()._preempt_request(request, *arguments, **keywords)  # type: ignore[misc]

    # -- what the policy hears

    def update_from_output(self, *arguments: Any, **keywords: Any) -> Any:
        """Update, and let the policy learn of who has finished."""
        result = super().update_from_output(*arguments, **keywords)  # type: ignore[misc]
        self._learn()
        return result

    def finish_requests(self, *arguments: Any, **keywords: Any) -> Any:
        """Let requests go that were given up, and let the policy hear of them."""
        result = super().finish_requests(*arguments, **keywords)  # type: ignore[misc]
        self._learn()
        return result

    def _free_request(self, request: Any, *arguments: Any, **keywords: Any) -> Any:
        self._over.append(request)
        return super()._free_request(request, *arguments, **keywords)  # type: ignore[misc]

    def _learn(self) -> None:
        if not self._over:
            return
        over, self._over = self._over, []
        self.place.finished([self._departure(request) for request in over], self._now())
        for request in over:
            del self._jobs[request.request_id]

    def _departure(self, request: Any) -> Departure:
        job, tokens = self._job_of(request), request.num_output_tokens
        length = self.place.admission.unit.length(tokens, None)
        if request.status not in (RequestStatus.FINISHED_STOPPED, RequestStatus.FINISHED_LENGTH_CAPPED):
            return Departure(job, None, True, length, tokens, length)
        longest = self.max_model_len - request.num_prompt_tokens  # type: ignore[attr-defined]
        # A forced length ends at a limit as well, but not at the request's own.
        capped = request.status == RequestStatus.FINISHED_LENGTH_CAPPED
        return Departure(job, length, capped and tokens >= min(job.request.max_tokens, longest), output_tokens=tokens)


def made(request: Any) -> int:
    """The output tokens of ``request`` after all steps that were scheduled."""
    return int(request.num_output_tokens + request.num_output_placeholders)


def _uncomputed(request: Any) -> int:
    """The tokens of ``request`` to compute before the one that its next token follows on."""
    return max(0, int(request.num_tokens - request.num_computed_tokens - 1))


class InsideScheduler(Traced, PolicyInside, Scheduler):  # type: ignore[misc]
    """vLLM's scheduler with a policy inside, which writes one row per step."""


class InsideAsyncScheduler(Traced, PolicyInside, AsyncScheduler):  # type: ignore[misc]
    """Likewise, of async scheduling."""
