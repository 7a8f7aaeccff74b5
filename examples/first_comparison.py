"""Which scheduler would have served a recorded run best, and is correcting the estimates worth it?"""

import textwrap

import driftsim as ds

trace = ds.read("traces/smollm2-cpu-drift")
result = ds.compare(trace, policies=["fifo", "sjf"], replications=10)
columns = ["policy", "estimator", "e2e_mean_s", "e2e_p99_s", "mae"]
print(result.frame()[columns].round(1).to_string(index=False))
for sentence in result.answer():
    print(textwrap.fill(sentence, 100, initial_indent="* ", subsequent_indent="  "))
