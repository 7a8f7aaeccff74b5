"""The verb ``simulate``: a scenario in a file, to a trace."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from driftsim.admission import Admission
from driftsim.calibrate import fit_profile
from driftsim.latency import load_profile
from driftsim.metrics import summary
from driftsim.run import simulate
from driftsim.scenario import Scenario
from driftsim.trace import JOURNAL_FILES, TRACE_FILES, Record, check_place, digest, first_problem, read
from driftsim.workload import replay


class ScenarioFile(Record):
    """What a scenario's TOML file says; paths count from the file's folder.

    trace: the run whose requests are replayed. profile: the latency profile; without one it is fitted to the trace's
    own steps. The other keys are those of ``driftsim compare``, the table ``admission`` those of its switches.
    """

    trace: str
    profile: str | None = None
    policy: str = "fifo"
    estimator: str = "static"
    admission: Admission = Admission()
    max_in_flight: int | None = None
    refill_lag: bool = True
    rate_scale: float = 1.0
    seed: int = 0
    steps: bool = False  # whether the steps table is written, too


def load_scenario(file: Path) -> ScenarioFile:
    """Read a scenario. Raises ``ValueError`` naming file, key, value and remedy."""
    try:
        return ScenarioFile.model_validate(tomllib.loads(file.read_text()))
    except FileNotFoundError:
        raise ValueError(f"{file}: no such scenario") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file}: not readable as TOML ({error})") from None
    except ValidationError as error:
        raise ValueError(f"{file}: {first_problem(error)}; correct the scenario") from None


def run_scenario(file: Path, out: Path, overwrite: bool = False) -> dict[str, Any]:
    """Run the scenario in ``file``, write its trace to ``out``, and return the trace's summary."""
    asked = load_scenario(file)
    check_place(out, (*TRACE_FILES, *JOURNAL_FILES) if overwrite else ())
    source = file.parent / asked.trace
    recorded = read(source)
    profile = load_profile(file.parent / asked.profile) if asked.profile else fit_profile(recorded, digest(source))
    scenario = Scenario(
        profile=profile,
        policy=asked.policy,
        estimator=asked.estimator,
        admission=asked.admission,
        max_in_flight=asked.max_in_flight,
        refill_lag=asked.refill_lag,
        seed=asked.seed,
    )
    trace = simulate(scenario, replay(recorded, asked.rate_scale), record_steps=asked.steps)
    trace.write(out, overwrite=overwrite)
    return summary(trace, asked.admission)
