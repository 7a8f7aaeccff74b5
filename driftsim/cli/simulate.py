"""The verb ``simulate``: one written scenario, one trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from driftsim.cli.options import (
    ONE_ENGINE,
    AsJson,
    BusyWatts,
    Drift,
    Failing,
    Fairness,
    IdleWatts,
    Price,
    ReplicaCount,
    RetriesOption,
    RouterName,
    RouterPlace,
    ShedOption,
    Slo,
    Timeouts,
    costs_of,
    refuse,
    replicas_of,
    setting,
)
from driftsim.cli.terminal import progress, say, say_document
from driftsim.errors import RunError
from driftsim.scheduling.names import Place


def simulate(
    context: typer.Context,
    scenario: Annotated[Path, typer.Argument(help="TOML: trace, profile, policy, estimator, admission, seed ...")],
    out: Annotated[Path, typer.Option(help="Folder of the trace to write.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="In place of what the file says: engine.kv_blocks=900."),
    ] = None,
    slo: Slo = None,
    timeout: Timeouts = None,
    retries: RetriesOption = None,
    shed: ShedOption = None,
    replicas: ReplicaCount = None,
    router: RouterName = None,
    router_place: RouterPlace = None,
    fail: Failing = None,
    place: Annotated[
        Place | None,
        typer.Option(help="Where the policy stands: front, priority or inside [default: as the scenario says]."),
    ] = None,
    idle_watts: IdleWatts = None,
    busy_watts: BusyWatts = None,
    price_per_hour: Price = None,
    drift: Drift = None,
    fairness: Fairness = False,
    steps: Annotated[bool, typer.Option("--steps", help="Record the engine's steps.")] = False,
    step_requests: Annotated[
        bool, typer.Option("--step-requests", help="Record the engine's steps, and the requests of each.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a trace that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run one scenario and write its trace, in the schema of a captured one."""
    from driftsim.by_replica import has_replicas, per_replica, replica_lines
    from driftsim.costs import cost_summary, costs_line
    from driftsim.drift import drift_rules, in_words
    from driftsim.engine.conformance import conformance
    from driftsim.files import check_place
    from driftsim.formatting import dumps, without_nan
    from driftsim.metrics import summary
    from driftsim.outcomes import cache_line, fates_line, nobody_finished, turned_away, within_slos
    from driftsim.sessions import session_lines
    from driftsim.simulation.alone import alone_times, sizes_of
    from driftsim.simulation.spec import load_spec
    from driftsim.slo import slo_rules
    from driftsim.tenancy import fairness_lines, with_fairness
    from driftsim.trace.schema import JOURNAL_FILES, TRACE_FILES
    from driftsim.written import run_written

    check_place(out, (*TRACE_FILES, *JOURNAL_FILES) if overwrite else ())
    recorded = {"steps": steps, "step_requests": step_requests, "fairness": fairness}
    asked: dict[str, Any] = {name: True for name, wanted in recorded.items() if wanted}
    if rules := slo_rules(slo or ()):
        asked["slos"] = [one.model_dump() for one in rules]
    if timeout:
        asked["clients.timeouts"] = timeout
    if retries is not None:
        asked["clients.retries.most"] = retries
    if place is not None:
        asked["place"] = place
    if shed:
        asked["shed"] = shed
    for name, value in replicas_of(replicas, router, router_place, fail).items():
        asked[f"replicas.{name}"] = value
    for name, watts in costs_of(idle_watts, busy_watts, price_per_hour).items():
        asked[f"costs.{name}"] = watts
    if drift:
        asked["drift"] = [one.model_dump() for one in drift_rules(drift)]
    changed = dict(setting("--set", text, "policy=sjf") for text in changes or []) | asked
    if load_spec(scenario, changed).replicas.count == 1:
        refuse(context, ONE_ENGINE, "router", "router_place")
    with progress("simulating requests") as reporter:
        trace, spec, warnings, ran, power = run_written(scenario, changed, reporter.update)
        values = summary(trace, spec.admission, phase=spec.phase)
        values |= cost_summary(trace, spec.costs.over(power))
        if spec.fairness:
            alone = alone_times(sizes_of(trace.requests), ran)
            values = with_fairness(values, trace, alone, spec.phase)
        if has_replicas(trace):
            values["per_replica"] = per_replica(trace, spec.phase)
        trace.write(out, overwrite=overwrite)
    for warning in [*warnings, *turned_away(values, trace.header.engine)]:
        say(f"Warning: {warning}.", err=True)
    if as_json:
        say_document(dumps(without_nan(values)))
    if not values["finished"]:
        raise RunError(f"{out}: {nobody_finished(trace)}")
    if as_json:
        return
    latencies = ", ".join(f"{name} {values[f'e2e_{name}_s']:.3f} s" for name in ("mean", "p50", "p99"))
    say(f"{out}: {values['finished']} of {values['requests']} requests finished; E2E {latencies}")
    if "busy_s" in values:
        say(costs_line(values))
    if "attempts" in values:
        say(fates_line(values))
    for drift_told in map(in_words, trace.header.drift):
        say(f"drift injected: {drift_told}")
    for line in replica_lines(trace, spec.phase):
        say(line)
    if "slo_met" in values:
        say(within_slos(values))
    for line in [*session_lines(trace, values, spec.phase), *cache_line(trace)]:
        say(line)
    if spec.fairness:
        say(*fairness_lines(values))
    say(f"Engine: {conformance(trace.header.engine.version)}")
