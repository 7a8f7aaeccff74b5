"""A scenario that is written in a file, run: the trace, and all that is known of how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from driftsim.calibration.coverage import extrapolation_warnings, mismatch_warnings
from driftsim.costs import UNKNOWN, Costs, recorded_costs
from driftsim.errors import InputError
from driftsim.inputs import as_profile, as_slos, check_clients
from driftsim.latency.profile import load_profile
from driftsim.progress import OnProgress, no_progress
from driftsim.simulation.bases import with_own_bases
from driftsim.simulation.run import simulate
from driftsim.simulation.scenario import Scenario
from driftsim.simulation.spec import ScenarioSpec, build_scenario, build_workload, load_spec
from driftsim.slo import needs_itl
from driftsim.trace.trace import Trace, read


class Written(NamedTuple):
    """What came of a scenario in a file: its trace, what the file says, warnings, and the scenario as it was run."""

    trace: Trace
    spec: ScenarioSpec
    warnings: list[str]
    scenario: Scenario
    power: Costs  # that the recorded run shows


def run_written(file: Path, changes: Mapping[str, Any], told: OnProgress = no_progress) -> Written:
    """Run the scenario in ``file``, of which ``changes`` replace some; paths in it count from its folder.

    ``told``: it hears of the requests done, and of all. Raises ``InputError`` naming file, key, value and remedy.
    """
    spec = load_spec(file, changes)
    here = spec.placed(lambda path: str(file.parent / path))
    recorded = {path: read(path) for path in here.traces}
    known = load_profile(here.profile) if here.profile else as_profile(None, recorded[here.traces[0]])
    drawn = build_workload(here, recorded.__getitem__)
    try:
        slos = as_slos(spec.slos, drawn, [recorded.get(here.trace or "")])
        scenario = replace(build_scenario(here, known), slos=slos)
        check_clients(scenario, drawn.table)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    admission, _, workload = with_own_bases(spec.admission, drawn, recorded.get(here.trace or ""))
    scenario = replace(scenario, admission=admission)
    steps, named = spec.steps, spec.step_requests or needs_itl(scenario.slos)
    trace = simulate(scenario, workload, record_steps=steps, step_requests=named, told=told)
    found = [warning for other in recorded.values() for warning in mismatch_warnings(known, other)]
    found += [known.engine.why_not_started] if known.engine.why_not_started else []
    warnings = [*workload.notes, *dict.fromkeys(found), *known.warnings, *extrapolation_warnings(known, trace)]
    power = recorded_costs(recorded[here.trace]) if here.trace else UNKNOWN
    return Written(trace, spec, warnings, scenario, power)


def simulate_scenario(
    file: Path | str, changes: Mapping[str, Any] | None = None, *, progress: OnProgress = no_progress
) -> tuple[Trace, ScenarioSpec, list[str]]:
    """Run the scenario in ``file`` (TOML or JSON): its trace, what it says, and warnings about the profile.

    changes: what replaces the file's, by dotted key, such as ``{"engine.kv_blocks": 900}``. progress: called with
    requests done and requests in all.

    Paths in the file count from its folder. Raises ``InputError`` naming file, key, value and remedy.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    ...     _ = file.write(f"trace = '{Path('traces/smollm2-cpu-drift').resolve()}'\\npolicy = 'sjf'"), file.flush()
    ...     trace, spec, warnings = simulate_scenario(file.name)
    >>> spec.policy, len(trace.finished)
    ('sjf', 360)
    """
    done = run_written(Path(file), changes or {}, progress)
    return done.trace, done.spec, done.warnings
