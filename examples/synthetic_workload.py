"""A workload without a trace: chats beside a backlog of long jobs. Who waits under which policy?"""

import driftsim as ds

profile = ds.Profile.plain(intercept_s=0.02, prefill_token_s=2e-5, max_num_seqs=32)
chats = ds.Workload.poisson(rate=2.0, requests=500, prompt_tokens=500, output_tokens=200, seed=0)
print(f"{chats}; the engine serves {ds.backlog_rate(chats, profile):.1f} requests/s of them")

chat = ds.Tenant(name="chat", tier=ds.Tier.PREMIUM, rate=2.0, output_tokens=ds.Lengths(kind="geometric", mean=150))
backlog = ds.Process(kind="backlog")
jobs = ds.Tenant(name="jobs", tier=ds.Tier.BATCH, category="report", arrivals=backlog, requests=100, output_tokens=600)
both = ds.Workload.mixed(tenants=[chat, jobs], requests=400, prompt_tokens=300, seed=0)
for policy in ("fifo", "priority", "sjf"):
    run = ds.simulate(both, policy=policy, profile=profile)
    waits = ds.ttft(run.finished).groupby(run.finished["tenant"]).quantile(0.99)
    print(f"{policy:8}  TTFT P99: chat {waits['chat']:6.2f} s, jobs {waits['jobs']:6.2f} s")
