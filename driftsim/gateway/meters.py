"""What Prometheus is told. Labels come from the configuration and from us alone, so that their number is bounded."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from driftsim.live.engine import Outcome
from driftsim.request import Job
from driftsim.scheduling.classify import CATEGORIES
from driftsim.tenants import OTHERS

MOST_TENANTS = 100  # that have series of their own
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
RATIOS = (0.1, 0.25, 0.5, 0.7, 0.85, 1, 1.15, 1.4, 2, 4, 10)
OTHER = "other"


class Meters:
    """The series of one gateway."""

    def __init__(self, tenants: Iterable[str]) -> None:
        self.registry = registry = CollectorRegistry()
        self._tenants: set[str] = set()
        self.knows(tenants)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"driftsim_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"driftsim_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"driftsim_{name}_seconds", text, labels, registry=registry, buckets=SECONDS)

        # Looked up for every request, each of a bounded number: prometheus_client takes a lock for that.
        self._ends = cache(counter("requests", "Requests that have ended.", "tenant", "tier", "outcome").labels)
        self._refused = counter("refused", "Requests that were turned away, by reason.", "reason")
        self._tokens = cache(counter("tokens", "Tokens of finished requests.", "tenant", "kind").labels)
        self.waiting = gauge("waiting_requests", "Requests that wait.", "tier")
        self.in_flight = gauge("in_flight_requests", "Requests inside the servers.")
        self.up = gauge("upstream_up", "1: serves, 0.5: is tried, 0: is down.", "upstream")
        self._wait = cache(seconds("queue_wait", "Time from arrival to release.", "tier").labels)
        self._ttft = cache(seconds("ttft", "Time from arrival to the first token, of streams.", "tier").labels)
        self._e2e = cache(seconds("e2e", "Time from arrival to the end of the answer.", "tier").labels)
        self._ratio = cache(Histogram(
            "driftsim_length_over_estimate", "Output length over its estimate.", ("category",), registry=registry,
            buckets=RATIOS,
        ).labels)  # fmt: skip
        self._bias = cache(gauge("bias", "Factor of the last estimate.", "category").labels)
        self.alarms = counter("alarms", "Alarms that were raised.", "kind")
        self.passed = counter("passed_through", "Requests that were passed through without a queue.")
        self.unrecorded = gauge("record_problems", "Things that could not be recorded.")

    def knows(self, tenants: Iterable[str]) -> None:
        """Tell ``tenants`` apart, as far as there is room."""
        for name in tenants:
            if len(self._tenants) < MOST_TENANTS:
                self._tenants.add(name)

    def admitted(self, job: Job) -> None:
        """``job`` was admitted, with an estimate."""
        self._bias(_category(job)).set(job.bias)

    def turned_away(self, job: Job | None, reason: str) -> None:
        """A request was turned away for that ``reason``, one of a few words of ours."""
        self._refused.labels(reason).inc()
        if job is not None:
            self._ends(self._tenant(job), str(job.request.tier), "refused").inc()

    def released(self, job: Job, waited: float) -> None:
        """``job`` was released after it had ``waited`` (s)."""
        self._wait(str(job.request.tier)).observe(waited)

    def ended(self, outcome: Outcome, ttft: float | None, e2e: float, length: int | None) -> None:
        """A job came out so; ``length`` in the unit of its estimate, None where it did not finish."""
        job = outcome.job
        tenant, tier = self._tenant(job), str(job.request.tier)
        self._ends(tenant, tier, _outcome(outcome.finish_reason)).inc()
        if ttft is not None:
            self._ttft(tier).observe(ttft)
        if length is not None:
            self._e2e(tier).observe(e2e)
            self._tokens(tenant, "prompt").inc(outcome.prompt_tokens or job.request.prompt_tokens)
            self._tokens(tenant, "output").inc(outcome.output_tokens or 0)
            if job.estimate > 0:
                self._ratio(_category(job)).observe(length / job.estimate)

    def page(self) -> bytes:
        """All series, as Prometheus reads them."""
        return generate_latest(self.registry)

    def _tenant(self, job: Job) -> str:
        return job.request.tenant if job.request.tenant in self._tenants else OTHERS


def _category(job: Job) -> str:
    return job.predicted_category if job.predicted_category in CATEGORIES else OTHER


def _outcome(reason: str) -> str:
    names = {"stop": "finished", "length": "finished", "abort": "aborted", "timeout": "aborted", "rejected": "refused"}
    return names.get(reason, "error")
