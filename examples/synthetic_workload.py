"""A workload without a trace: from which rate on does a queue stand, and who waits in it?"""

import driftsim as ds

profile = ds.Profile.plain(intercept_s=0.02, prefill_token_s=2e-5, max_num_seqs=32)
for rate in (2.0, 4.0, 6.0):
    work = ds.Workload.poisson(rate=rate, requests=500, prompt_tokens=500, output_tokens=200, seed=0)
    measures = ds.summary(ds.simulate(work, profile=profile))
    waited, ttft = 100 * measures["waiting_fraction"], measures["ttft_p99_s"]
    print(f"{rate:.0f} requests/s: somebody waits {waited:.0f} % of the time, TTFT P99 {ttft:.2f} s")
print(f"all at once: {ds.capacity(work, profile):.2f} requests/s")
