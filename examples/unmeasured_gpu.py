"""How many chats a second would an L4 serve with a 7B model? A profile from a datasheet: nothing was measured."""

import driftsim as ds

profile = ds.derive_profile("L4", "examples/qwen2.5-7b.json", max_model_len=8192)
print(f"a step takes at least {1000 * profile.intercept_s:.0f} ms; KV cache: {profile.engine.kv_blocks:,} blocks")
for rate in (1.0, 3.0, 5.0):
    chats = ds.Workload.poisson(rate=rate, requests=400, prompt_tokens=400, output_tokens=150, seed=0)
    measures = ds.summary(ds.simulate(chats, profile=profile))
    ttft, tpot = 1000 * measures["ttft_p99_s"], 1000 * measures["tpot_mean_s"]
    print(f"at {rate:.0f} requests/s: TTFT P99 {ttft:,.0f} ms, mean TPOT {tpot:.0f} ms")
print(f"all at once: {ds.backlog_rate(chats, profile):.2f} requests/s")
