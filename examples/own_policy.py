"""A policy of one's own: a class with a key. The smallest key goes first."""

import driftsim as ds


class ShortPromptFirst(ds.Keyed):
    """Shortest prompt first: needs no estimate, and knows nothing of the output."""

    def key(self, job: ds.Job) -> float:
        """The prompt's length."""
        return job.request.prompt_tokens


for verdict in ds.check_laws(ShortPromptFirst):
    print("holds" if verdict.holds else f"BROKEN: {verdict.counterexample}", "-", verdict.law)
trace = ds.read("traces/smollm2-cpu-drift")
result = ds.compare(trace, policies=["fifo", "sjf", ShortPromptFirst], estimators="static", replications=2)
print(result.frame()[["policy", "e2e_mean_s", "e2e_p99_s"]].round(2).to_string(index=False))
