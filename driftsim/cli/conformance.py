"""The verb ``conformance``: a policy or estimator of the user's own, held to the laws."""

from __future__ import annotations

from typing import Annotated

import typer

from driftsim.cli.options import AsJson
from driftsim.cli.terminal import say, say_document
from driftsim.errors import RunError


def conformance(
    name: Annotated[str, typer.Argument(help="module:Class, path/to/file.py:Class, or a name that driftsim knows.")],
    as_json: AsJson = False,
) -> None:
    """Hold a policy or an estimator of your own to the laws that ours are held to."""
    from driftsim.formatting import dumps
    from driftsim.simulation.laws import verdicts

    kind, held = verdicts(name)
    broken = [verdict for verdict in held if not verdict.holds]
    if as_json:
        rows = [{"law": one.law, "holds": one.holds, "seen": one.counterexample} for one in held]
        say_document(dumps({"name": name, "kind": kind, "laws": rows}))
    else:
        say(f"{name}, {'a policy' if kind == 'policy' else 'an estimator'}")
        for one in held:
            say(f"  holds  {one.law}" if one.holds else f"  FAILS  {one.law}: {one.counterexample}")
    if broken:
        raise RunError(f"{len(broken)} of {len(held)} laws do not hold for {name}")
