"""One policy in three places: in front of the engine, as the engine's priorities, and inside it, where it preempts.

    driftsim compare traces/smollm2-cpu-drift --policies fifo,examples/preempting_policy.py:ShortPromptFirst \
        --place inside
    driftsim capture --policies examples/preempting_policy.py:ShortPromptFirst --place inside --out out/captured
"""

from __future__ import annotations

import driftsim as ds


class ShortPromptFirst(ds.Keyed):
    """The shortest prompt first; inside the engine, a prompt half as long as a running one's preempts it."""

    static = True  # the key of a request stays, so that it can be the engine's integer priority
    steady = True  # who may not preempt whom now may not later either
    most_preemptions = 1  # of each request

    def key(self, job: ds.Job) -> float:
        return job.request.prompt_tokens

    def preempts(self, running: ds.Job, waiting: ds.Job, now: float) -> bool:
        return 2 * waiting.request.prompt_tokens <= running.request.prompt_tokens

    def expendable(self, job: ds.Job, now: float) -> float:
        return job.request.prompt_tokens


def main() -> None:
    """The mean latency of a recorded day's first 60 requests, which came in twice as fast."""
    for place in ("front", "priority", "inside"):
        run = ds.simulate("traces/smollm2-cpu-drift", policy=ShortPromptFirst, place=place, rate_scale=2.0)
        row = ds.summary(run)
        print(f"{place}: E2E mean {row['e2e_mean_s']:.1f} s, {row['preemptions']} preemptions")


if __name__ == "__main__":
    main()
