"""The verb ``advise``: what other policies would have done to what was recorded lately."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftsim.cli.options import AllowPlugins, AsJson, Jobs, names, others, refuse
from driftsim.cli.terminal import check_file, progress, say_document, wide_console
from driftsim.errors import InputError


def advise(
    context: typer.Context,
    trace: Annotated[
        str, typer.Argument(help="Trace, folder that serve records into, or URL of a gateway, http://HOST:PORT.")
    ],
    last: Annotated[float, typer.Option(min=1.0, help="How much of its end to look at, s.")] = 3600.0,
    policies: Annotated[
        str | None, typer.Option("--policies", "--policy", help="Comma-separated [default: those published].")
    ] = None,
    estimators: Annotated[str, typer.Option("--estimators", "--estimator", help="Comma-separated.")] = "static,ema",
    profile: Annotated[
        Path | None, typer.Option(help="Latency profile [default: fitted to what is looked at].")
    ] = None,
    replications: Annotated[int, typer.Option(min=1, help="The window, and one less resamples of either kind.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    jobs: Jobs = 0,
    allow_plugins: AllowPlugins = None,
    save_profile: Annotated[Path | None, typer.Option(help="Write the profile that was used there, too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what other policies and estimators would have done to what was recorded lately, and how far to trust it.

    Every policy stands in front of the servers, with the limit in flight that was recorded, as serve's does. What one
    would do inside them, or as vLLM's priorities: driftsim compare TRACE --place.

    Of a URL: what that gateway found last; an operator's key in DRIFTSIM_OPERATOR_KEY, if it has keys.
    """
    from driftsim.formatting import dumps, without_nan

    if trace.startswith(("http://", "https://")):
        refuse(context, "a gateway says what it found itself", *others(context, "trace", "as_json"))
        from driftsim.advice import asked_of

        document = asked_of(trace)
        say_document(dumps(document) if as_json else "\n".join(document["lines"]))
        return
    from driftsim.advice import advise as find
    from driftsim.scheduling.plugins import allow_plugins as allow

    for folder in allow_plugins or []:
        allow(folder)
    if not Path(trace).exists():
        raise InputError(f"{trace}: no such trace; give a folder, or the URL of a gateway")
    if save_profile is not None:
        check_file(save_profile)
    with progress("simulating") as reporter:
        found = find(
            trace,
            last_s=last,
            policies=None if policies is None else names(policies),
            estimators=names(estimators),
            profile=profile,
            replications=replications,
            seed=seed,
            jobs=jobs or None,
            progress=lambda done, total: reporter.update(done, total),
        )
    if save_profile is not None:
        found.profile.save(save_profile)
    if as_json:
        say_document(dumps(without_nan(found.document())))
    else:
        found.show(wide_console())
