"""The verb ``compare``: schedulers side by side on one recorded workload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.cli.arrivals import Arrivals, ArrivalSetting, Cv, MaxOutstanding, Rate, Think, Users, process_of
from driftsim.cli.effects import print_effects
from driftsim.cli.options import (
    ONE_ENGINE,
    AsJson,
    BusyWatts,
    Drift,
    Failing,
    Fairness,
    IdleWatts,
    PlaceOption,
    Price,
    ReplicaCount,
    RetriesOption,
    RouterName,
    RouterPlace,
    ShedOption,
    Slo,
    Timeouts,
    costs_of,
    names,
    others,
    refuse,
    replicas_of,
    was_given,
)
from driftsim.cli.terminal import hinting, progress, say, say_document, wide_console
from driftsim.errors import InputError, RunError
from driftsim.scheduling.names import DEFAULT_POLICIES, Base, Estimates, Feedback, Label, Unit
from driftsim.simulation.names import EngineName

PLAIN = ",".join(DEFAULT_POLICIES)


def compare(
    context: typer.Context,
    traces: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of a recorded trace, or a file that `import` recognises; several: days of one engine."
        ),
    ],
    mapping: Annotated[
        Path | None, typer.Option(help="TOML: what the columns of a table are, as for `import`.")
    ] = None,
    measured: Annotated[
        bool, typer.Option("--measured", help="Old name of the verb `effects`; it goes in the next release.")
    ] = False,
    policies: Annotated[str, typer.Option(help="Comma-separated; stock is the engine's own order.")] = PLAIN,
    estimators: Annotated[
        str,
        typer.Option(
            help="Comma-separated: static, ema (DriftSched's correction), pooled (ours), oracle, and more; see "
            "`driftsim columns estimators`."
        ),
    ] = "static,ema",
    accounting: Annotated[Unit, typer.Option(help="Unit of lengths.")] = "tokenizer",
    words_per_token: Annotated[float | None, typer.Option(help="Derive words where none were recorded.")] = None,
    base: Annotated[
        Base, typer.Option(help="Base of the estimate: DriftSched's table, each cap, or a fit.")
    ] = "reference",
    base_fit_n: Annotated[int, typer.Option(min=1, help="Requests per category that a fit uses up.")] = 10,
    label: Annotated[Label, typer.Option(help="The category label in a prompt, for the classifier.")] = "seen",
    feedback: Annotated[Feedback, typer.Option(help="What the correction divides by.")] = "base",
    estimates: Annotated[Estimates, typer.Option(help="Of waiting requests, when something is learned.")] = "frozen",
    safety: Annotated[bool, typer.Option(help="DriftSched's safety factor by tier.")] = True,
    clamp: Annotated[bool, typer.Option(help="No estimate above max_tokens.")] = False,
    phase: Annotated[str, typer.Option(help="Measure this phase only.")] = "all",
    replications: Annotated[int, typer.Option(min=1, help="The day, and one less resamples of each kind.")] = 20,
    arrivals: Arrivals = None,
    rate: Rate = None,
    cv: Cv = 3.0,
    users: Users = None,
    think: Think = 0.0,
    max_outstanding: MaxOutstanding = None,
    arrival_setting: ArrivalSetting = None,
    rate_scale: Annotated[float, typer.Option(help="Press harder: gaps between arrivals shrink by this.")] = 1.0,
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, help="Jobs inside the engine [default: its slots].")
    ] = None,
    tiers: Annotated[
        str | None,
        typer.Option(help="Most urgent first: name[:weight[:safety]],... [default: the trace's own, else published]."),
    ] = None,
    slo: Slo = None,
    timeout: Timeouts = None,
    retries: RetriesOption = None,
    shed: ShedOption = None,
    replicas: ReplicaCount = None,
    router: RouterName = None,
    router_place: RouterPlace = None,
    fail: Failing = None,
    place: PlaceOption = "front",
    idle_watts: IdleWatts = None,
    busy_watts: BusyWatts = None,
    price_per_hour: Price = None,
    drift: Drift = None,
    fairness: Fairness = False,
    engine: Annotated[
        EngineName, typer.Option(help="Continuous batching, or DriftSched's worker: one batch of 32 at a time.")
    ] = "continuous",
    kv_blocks: Annotated[
        int | None, typer.Option(min=2, help="KV blocks of the engine [default: the profile's].")
    ] = None,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="Slots of the engine [default: likewise].")] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(min=1, help="Token budget of a step [default: likewise].")
    ] = None,
    max_model_len: Annotated[int | None, typer.Option(min=2, help="Longest context [default: likewise].")] = None,
    refill_lag: Annotated[bool, typer.Option(help="A freed slot misses the next step, as recorded.")] = True,
    profile: Annotated[
        Path | None, typer.Option(help="Latency profile [default: fitted to the trace's steps, or timings].")
    ] = None,
    practical: Annotated[
        float, typer.Option(min=0, max=0.99, help="Relative difference below which nothing counts as one.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes [default: one a core; one where a day has over 300,000 requests]."),
    ] = None,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Folder for rows.csv, figures and report.html.")] = None,
) -> None:
    """Replay a trace under each scheduler, with and without bias correction, and show what each does."""
    from driftsim.costs import Costs
    from driftsim.scheduling.admission import DRIFTSCHED_SAFETY, Admission
    from driftsim.simulation.replicas import Replicas
    from driftsim.slo import slo_rules
    from driftsim.tiers import tier_rules

    if measured:
        kept = ("traces", "measured", "as_json")
        refuse(context, "--measured compares captured runs as they are", *others(context, *kept))
        print_effects(traces, as_json)
        return
    if base != "fit":
        refuse(context, f"--base is {base}; only --base fit is fitted", "base_fit_n")
    if replicas in (None, 1):
        refuse(context, ONE_ENGINE, "router", "router_place")
    rules, slos = tier_rules(() if tiers is None else tiers), slo_rules(slo or ())
    if not safety and any(rule.safety is not None for rule in rules):
        raise InputError("--no-safety switches every factor off, and --tiers gives some; drop one of the two")
    admission = Admission.of(
        {
            "accounting": accounting,
            "words_per_token": words_per_token,
            "label": label,
            "base": base,
            "base_fit_n": base_fit_n,
            "feedback": feedback,
            "estimates": estimates,
            "clamp_at_max_tokens": clamp,
            "safety": dict(DRIFTSCHED_SAFETY) if safety else dict.fromkeys(DRIFTSCHED_SAFETY, 1.0),
        }
    )

    from driftsim import api
    from driftsim.comparison.plan import BASELINE
    from driftsim.comparison.report import FILES, MARK
    from driftsim.files import check_apart, check_place
    from driftsim.formats.imports import import_trace
    from driftsim.formatting import dumps
    from driftsim.outcomes import nobody_finished

    process = process_of(context)
    settings = {
        "kv_blocks": kv_blocks,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_model_len": max_model_len,
    }

    check_apart(out, traces)
    if out is not None:
        check_place(out, FILES, MARK)  # before the runs, not after them
    with progress("replaying") as reporter:
        result = api.compare(
            traces if mapping is None else [import_trace(trace, mapping=mapping) for trace in traces],
            policies=names(policies) if was_given(context, "policies") else None,
            estimators=names(estimators),
            profile=profile,
            admission=admission,
            phase=phase,
            replications=replications,
            rate_scale=rate_scale,
            arrivals=process,
            max_in_flight=max_in_flight,
            tiers=rules,
            slos=slos,
            timeouts=timeout or (),
            retries=retries,
            shed=shed or (),
            costs=Costs.of(costs_of(idle_watts, busy_watts, price_per_hour)),
            replicas=Replicas.of(replicas_of(replicas, router, router_place, fail)),
            place=place,
            drift=drift or (),
            fairness=fairness,
            engine=engine,
            settings={name: value for name, value in settings.items() if value is not None},
            refill_lag=refill_lag,
            practical=practical,
            seed=seed,
            jobs=jobs,
            progress=hinting(reporter.update, "--replications 3, or fewer --policies, take less"),
        )
        if out is not None:
            result.write(out)
    if as_json:
        say_document(dumps(result.document()))
    else:
        result.show(wide_console())
    if not result.recorded["finished"]:
        raise RunError(nobody_finished(result.traces[BASELINE]))
    if out is not None:
        more = ", slo.csv" if result.plan.slos else ""
        more += ", estimation.csv" if (out / "estimation.csv").exists() else ""
        say(f"written: {out / 'report.html'}, rows.csv{more}, comparison.json and 5 figures (svg, png)", err=True)
