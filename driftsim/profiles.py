"""The verbs that make a latency profile: fitted to recorded runs, or derived from a datasheet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from driftsim.calibration.calibrate import calibrate as fit_runs
from driftsim.calibration.runs import Run
from driftsim.inputs import AnyTrace, as_trace
from driftsim.latency.profile import Profile
from driftsim.latency.roofline import Assumptions, derive, shape_of
from driftsim.simulation.names import FitSource


def calibrate(
    *traces: AnyTrace,
    source: FitSource = "auto",
    until: float | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Profile:
    """Fit one latency profile to recorded runs of one model, GPU and engine, jointly.

    source: the ``steps``, or the timings of ``requests``; ``auto`` takes steps where there are some. until: fit only
    the first so many seconds of each run. force: return a profile that does not describe its timings, with a warning.
    progress: called with a line about what is being done.

    Raises ``TraceError`` if the runs do not belong together or are too short, and for such a profile.

    >>> profile = calibrate("traces/smollm2-cpu-backlog", "traces/smollm2-cpu-low-load")
    >>> profile.fit.source
    'steps'
    """
    runs = [as_trace(trace) for trace in traces]
    named = [Run(str(run.source or run.name), run, run.digest) for run in runs]
    limit = np.inf if until is None else until
    return fit_runs(named, source=source, until=limit, report=progress or (lambda message: None), force=force)


def derive_profile(gpu: str, model: Path | str, **assumptions: Any) -> Profile:
    """A profile of a GPU that nobody has measured, from its datasheet and the model's Hugging Face configuration.

    gpu: T4, L4, A10G, L40S, A100, H100, H200 or RTX 4090. model: a config.json, a model folder, or a name in the local
    cache; nothing is fetched. assumptions: fields of ``driftsim.latency.roofline.Assumptions``.

    Raises ``InputError`` for an unknown GPU, a model that is no dense decoder, or one that leaves no KV cache.

    >>> config = '{"num_hidden_layers": 28, "hidden_size": 3584, "intermediate_size": 18944, "vocab_size": 152064, \
"num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768}'
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    ...     _ = file.write(config), file.flush()
    ...     profile = derive_profile("L4", file.name, max_model_len=8192)
    >>> 0.03 < profile.intercept_s < 0.1
    True
    """
    return derive(gpu, shape_of(str(model)), Assumptions.of(assumptions))
