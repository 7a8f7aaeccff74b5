"""One policy in three places: in front of the engine, as the engine's priorities, and inside it, where it preempts."""

import driftsim as ds


class SmallLimitFirst(ds.Keyed):
    """The smallest max_tokens first. Inside the engine, half the limit preempts, each request once at most."""

    steady = True  # who may not preempt whom now may not later either
    most_preemptions = 1

    def key(self, job: ds.Job) -> float:
        return job.request.max_tokens

    def preempts(self, running: ds.Job, waiting: ds.Job, now: float) -> bool:
        return 2 * waiting.request.max_tokens <= running.request.max_tokens


if __name__ == "__main__":  # the engine loads this file, too
    for place in ("front", "priority", "inside"):
        run = ds.simulate("traces/smollm2-cpu-drift", policy=SmallLimitFirst, place=place, rate_scale=1.2)
        row = ds.summary(run)
        print(f"{place:9} E2E mean {row['e2e_mean_s']:6.2f} s, preemptions {row['preemptions']}")
