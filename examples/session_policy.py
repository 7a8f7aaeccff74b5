"""A policy that looks at sessions: whose session has been served least goes first, and nobody's output is guessed."""

import driftsim as ds


class LeastAttainedSession(ds.Keyed):
    """Least attained service by session: 1 a prompt token, 2 an output token, of the turns that have ended."""

    def key(self, job: ds.Job) -> float:
        """The service so far; a first turn has none."""
        return job.prompt_served + 2 * job.output_served


turns = ds.Lengths(kind="geometric", mean=5, high=40)
chat = ds.Session(kind="chat", turns=turns, gap_s=ds.Seconds(kind="exponential", mean=10), added_tokens=40)
work = ds.Workload.poisson(rate=1.0, requests=300, prompt_tokens=200, output_tokens=80, session=chat)
profile = ds.Profile.plain(intercept_s=0.02, prefill_token_s=2e-5, max_num_seqs=8)
print(work)
for policy in ("fifo", LeastAttainedSession):
    run = ds.simulate(work, policy=policy, profile=profile)
    means = ds.turn_table(run, bands=True)["ttft_mean_s"]
    print(f"{run.header.admission['policy']}: mean TTFT by turn")
    print("  " + ", ".join(f"{turn}: {mean:.1f} s" for turn, mean in means.items()))
