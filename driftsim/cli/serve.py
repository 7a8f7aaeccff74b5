"""The verb ``serve``: the dispatcher in front of a live server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from driftsim.cli.options import others, refuse
from driftsim.cli.terminal import say
from driftsim.errors import InputError, RunError


def serve(
    context: typer.Context,
    config: Annotated[Path | None, typer.Argument(help="TOML file; options replace its keys.")] = None,
    upstream: Annotated[
        list[str] | None, typer.Option(help="Server behind, http://HOST:PORT/v1; key in OPENAI_API_KEY. Repeat it.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Address that clients connect to [default: 127.0.0.1:8080].")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Who is released first [default: fifo].")] = None,
    estimator: Annotated[str | None, typer.Option(help="How lengths are estimated [default: ema].")] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, help="Requests inside the servers [default: their slots].")
    ] = None,
    router: Annotated[str | None, typer.Option(help="Who of several servers serves what.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Latency profile, for policies that order by seconds.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Model folder to count prompts with.")] = None,
    record: Annotated[Path | None, typer.Option(help="Folder of the recorded traces [default: recorded].")] = None,
    no_record: Annotated[bool, typer.Option("--no-record", help="Record nothing.")] = False,
    open_: Annotated[bool, typer.Option("--open", help="No keys: anybody on this machine may use it.")] = False,
    pass_priority: Annotated[
        bool, typer.Option("--pass-priority", help="Send the policy's key as vLLM's priority, too.")
    ] = False,
    new_key: Annotated[bool, typer.Option("--new-key", help="Print a fresh key and its hash, and end.")] = False,
) -> None:
    """Put the dispatcher that is simulated in front of an OpenAI-compatible server, and record a trace of all it does.

    SIGHUP reads the tenants and their keys anew; SIGTERM lets nobody in, waits for the answers and ends.
    """
    if new_key:
        refuse(context, "--new-key only makes a key", *others(context, "new_key"))
        from driftsim.gateway.keys import hash_of
        from driftsim.gateway.keys import new_key as make

        key = make()
        say(f"key:  {key}", f"hash: {hash_of(key)}")
        return
    if no_record and record is not None:
        raise InputError("--record names a folder and --no-record records nothing; leave one of the two out")
    given: dict[str, Any] = {
        "upstreams": upstream or None, "listen": listen, "policy": policy, "estimator": estimator,
        "max_in_flight": max_in_flight, "router": router, "profile": profile and str(profile),
        "tokenizer": tokenizer and str(tokenizer), "record": "" if no_record else record and str(record),
        "open": open_ or None, "pass_priority": pass_priority or None,
    }  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    from driftsim.gateway.config import load_config

    chosen = load_config(config, options)
    try:
        from driftsim.gateway.serving import serve as run
    except ImportError as error:
        raise InputError(f"serve needs {error.name}; pip install 'driftsim[serve]'") from None
    if not run(chosen, config, options, lambda line: say(line, err=True)):
        raise RunError(f"stopped before all answers had ended, after {chosen.drain_s:g} s; what they were is recorded")
