"""A small sweep into a store, and the best setting at each load. Run it twice: nothing is simulated again."""

import tempfile

import driftsim as ds

with tempfile.TemporaryDirectory() as folder:
    rows = ds.sweep("examples/grid.toml", f"{folder}/store", jobs=2)
settings = rows.groupby(["rate_scale", "policy"])[["e2e_mean_s", "e2e_p99_s"]].mean()
print(f"{len(rows)} runs of {len(settings)} settings")
best = settings["e2e_mean_s"].groupby("rate_scale").idxmin()
print(settings.loc[best].round(1).to_string())
