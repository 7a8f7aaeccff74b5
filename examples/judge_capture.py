"""Does the simulated engine decide as the real one did? Replay a capture on its own measured steps."""

import driftsim as ds

capture = ds.read("traces/smollm2-cpu-small-kv")
print(capture.header.engine.name, capture.header.engine.version, "-", len(capture.requests), "requests")
own = ds.validate(capture, steps="measured")
print(f"on its own steps: largest error {100 * own.worst():.3f} %, requests that are off: {len(own.exceptions)}")

profile = ds.calibrate("traces/smollm2-cpu-backlog", "traces/smollm2-cpu-low-load")
other = ds.validate(capture, profile=profile).frame()
other = other[(other["metric"] != "tpot") & other["stat"].isin(["mean", "p50", "p99"])]
print("on a profile of two other runs:")
print(other[["metric", "stat", "measured", "simulated", "error"]].round(3).to_string(index=False))
