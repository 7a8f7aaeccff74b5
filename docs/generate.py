"""Writes the reference pages from the package: columns, metrics, scenarios, policies, the command line, errors.

    .venv/bin/python docs/generate.py [FOLDER]

No sentence about a column, a key or an option is written here: all come from where the thing is defined. The same
package gives the same bytes, and a test holds the committed pages equal to what this makes.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

import driftsim.cli.app as command
from driftsim import errors, glossary
from driftsim.drift import KINDS
from driftsim.gateway.config import GatewayConfig
from driftsim.reference import TABLES, Entry, key_entries, kind_of, metric_entries
from driftsim.scheduling.estimators import ESTIMATORS, GIVEN
from driftsim.scheduling.policies import POLICIES

FOLDER = Path(__file__).parent / "reference"
MARK = "<!-- Made by docs/generate.py from the package: change the package and run it again. -->"
TABLES_OF_A_SCENARIO = {
    "admission": "; its defaults are DriftSched's values",
    "workload": "",
    "arrivals": "",
    "drift": ", or of `--drift`, where it is one text: `KIND:key=value:key=value`; without a kind, it is a step",
}
BY_THE_SYSTEM = {
    130: "The run was interrupted (Ctrl-C).",
    141: "Whoever read the output closed it, as `head` does.",
    143: "The run was told to end (SIGTERM).",
}


def page(title: str, *parts: str) -> str:
    """A whole page: mark, title and ``parts``, a blank line between them."""
    return "\n\n".join([MARK, f"# {title}", *(part.strip("\n") for part in parts)]) + "\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def entries(rows: Iterable[Entry], *, extra: str = "") -> str:
    """The table of ``rows``; ``extra`` names one more field of each, ``default`` or ``better``."""
    headings = ["name", "kind", "unit", *([extra] if extra else []), "meaning"]
    return table(headings, ([_cell(row, heading) for heading in headings] for row in rows))


def _cell(row: Entry, heading: str) -> str:
    text: str = getattr(row, heading)
    quoted = heading == "name" or (heading == "default" and text not in ("", "none", "required"))
    return f"`{text}`" if quoted else text


def columns() -> str:
    """The page of a trace's columns and header."""
    return page(
        "Columns of a trace",
        "A trace is a folder: `header.json`, `requests.parquet` and, where recorded, `steps.parquet` and "
        "`telemetry.parquet`. Captured, simulated and imported traces have the same columns. Times are seconds since "
        "the start of the run, as 64-bit floats; a value that is not known, or did not happen, is empty. "
        "`driftsim columns` prints these tables.",
        "## requests",
        "One row for each offered request.",
        entries(TABLES["requests"]),
        "## steps",
        "One row for each step of the engine that scheduled a token.",
        entries(TABLES["steps"]),
        "## telemetry",
        "One row for each sample of the machine; the columns of a GPU stand only in the runs of a machine that has "
        "one.",
        entries(TABLES["telemetry"]),
        "## header",
        "The keys of `header.json`; a name with dots is a key inside a table.",
        entries(TABLES["header"]),
    )


def metrics() -> str:
    """The page of the keys of results."""
    of_a_tenant = glossary.of_tier(f"{glossary.TENANT}acme", glossary.SLO)[0]
    return page(
        "Metrics",
        "Latencies are over finished requests, in seconds, with linear percentiles; counts are of offered requests. "
        "Where one direction is better, the column says which.",
        "## Summary",
        "What `driftsim.summary` and `driftsim simulate --json` hold, and with them every row below.",
        entries(metric_entries(glossary.SUMMARY), extra="better"),
        "## Each tier",
        "What `per_tier` holds for each tier. In flat rows, those of a sweep and of `rows.csv`, the name of the tier "
        f"stands before each name, as in `{glossary.TIERS[0].name}`.",
        entries(metric_entries(glossary.PER_TIER), extra="better"),
        "## SLOs",
        "What a summary holds besides, and each tier in `per_tier`, where there are SLOs (`--slo`, `slos` of a "
        "scenario or of a trace's header). `per_tenant` holds the same for each of the largest tenants; in flat rows, "
        f"`tenant_` and the tenant's name stand before each name, as in `{of_a_tenant.name}`.",
        entries(metric_entries(glossary.SLO), extra="better"),
        "A row of a comparison holds these as well.",
        entries(metric_entries(glossary.SLO_COMPARISON), extra="better"),
        "## Giving up and sending again",
        "What a summary holds besides, where clients give up or send again, or the queue has limits (`--timeout`, "
        "`--retries`, `--shed`).",
        entries(metric_entries(glossary.CLIENTS), extra="better"),
        "## Energy and money",
        "What a summary holds besides, where the power or the price of an engine is known.",
        entries(metric_entries(glossary.COSTS), extra="better"),
        "## Fairness",
        "What a summary holds besides, where it was asked for (`--fairness`, `fairness = true` in a scenario), and "
        "what `driftsim.fairness` returns.",
        entries(metric_entries(glossary.FAIRNESS), extra="better"),
        "What `per_tenant` then holds of each of the largest tenants, named in flat rows as above.",
        entries(metric_entries(glossary.TENANT_FAIRNESS), extra="better"),
        "A row of a comparison holds these as well.",
        entries(metric_entries(glossary.FAIR_COMPARISON), extra="better"),
        "And of each of the largest tenants these.",
        entries(metric_entries(glossary.TENANT_FAIR_COMPARISON), extra="better"),
        "## Each replica",
        "What `per_replica` holds of each replica in a row of a comparison and in `driftsim simulate --json`, by "
        f"its number; in flat rows, `{glossary.REPLICA_OF}` and the number stand before each name.",
        entries(metric_entries(glossary.REPLICA), extra="better"),
        "## Sessions",
        "What a summary holds besides, where requests belong to sessions (column `session` of a trace). Times are of "
        "sessions that were not cut short, in seconds. `driftsim.session_table` and `driftsim.turn_table` tell of "
        "each session and of each turn.",
        entries(metric_entries(glossary.SESSIONS), extra="better"),
        "A row of a comparison holds these as well.",
        entries(metric_entries(glossary.SESSION_COMPARISON), extra="better"),
        "## Estimation",
        "What `driftsim.estimation` returns besides `scored`, `mae` and `kendall_tau_estimate` of a summary, and a "
        "comparison for each of its settings (`estimation` in its JSON, `estimation.csv`) where it has other "
        "estimators than the published two, or drift. Each estimate counts as it was at admission: the estimator had "
        "learned from what had ended by then, and from nothing else (progressive validation). A row of a store holds "
        "`log_error` and `log_bias` with `estimation = true` in the scenario.",
        entries(metric_entries(glossary.ESTIMATION), extra="better"),
        "## Comparison",
        "What a row of `driftsim compare --json` holds besides a summary.",
        entries(metric_entries(glossary.COMPARISON), extra="better"),
        "## Sweep",
        "What a row of a store holds besides a summary and the keys of its [scenario](scenario.md), whose tables are "
        "flattened with dots.",
        entries(metric_entries(glossary.SWEEP), extra="better"),
        "## Limits",
        "What such a row holds besides with `limits = true` in the scenario, and each answer of `driftsim capacity`: "
        "which limits of the engine held requests back.",
        entries(metric_entries(glossary.LIMITS), extra="better"),
    )


def scenario() -> str:
    """The page of the files that users write."""
    keys = TABLES["scenario"]
    tables = {name: [key for key in keys if key.name.startswith(f"{name}.")] for name in TABLES_OF_A_SCENARIO}
    nested = [key for inside in tables.values() for key in inside]
    sections = []
    for name, inside in tables.items():
        if inside:  # else its keys are named elsewhere
            about = f"The table `{name}` of a scenario{TABLES_OF_A_SCENARIO[name]}."
            sections += [f"## {name.capitalize()}", about, entries(inside, extra="default")]
    sections += [
        "What each kind does and takes. No output gets longer than its `max_tokens`, and its words change alike. Time "
        "is that at which a request is due; where requests wait for others to end, give shares of the requests. The "
        "label of what was injected, and what came of it, is in the header of the trace.",
        table(["kind", "what it does", "needs", "may have"], map(_kind_of_drift, KINDS)),
    ]
    return page(
        "Scenarios, grids and other files",
        "Unknown keys are errors. A name with dots is a key inside a table: `admission.alpha = 0.2`, or `alpha = 0.2` "
        "below `[admission]`.",
        "## Scenario",
        "The TOML or JSON file that `driftsim simulate` runs.",
        entries([key for key in keys if key not in nested], extra="default"),
        *sections,
        "## Grid",
        "The TOML file that `driftsim sweep` runs; its settings are keys of a scenario, with dots into tables.",
        entries(TABLES["grid"], extra="default"),
        "## Mapping",
        "The TOML file that says what the columns of an imported table are, for `driftsim import csv --mapping`.",
        entries(TABLES["mapping"], extra="default"),
        "## Gateway",
        "The TOML file that `driftsim serve` takes; `admission` and `tiers` as in a scenario.",
        entries(key_entries(GatewayConfig, closed=("admission", "tiers")), extra="default"),
        "## Profile",
        "The JSON file that `driftsim calibrate` and `driftsim profile` write.",
        entries(TABLES["profile"], extra="default"),
    )


def _kind_of_drift(name: str) -> list[str]:
    what, needed, more = KINDS[name]
    return [f"`{name}`", what, *(", ".join(f"`{key}`" for key in keys) for keys in (needed, more))]


SPELLING = """A setting is a name, and its parameters where they differ from the defaults:
`name?key=value&key=value`, as `mine.py:Mine?weight=2`. It is spelled so in `--policies` and `--estimators`, in a
scenario, on the axis of a grid and in Python. In a shell, put it in quotes. A parameter that is unknown, is given twice
or cannot have its value is an error that says what there is. A setting has one canonical name, with its keys sorted,
defaults left out and numbers in their shortest form: that one stands in tables, in stores and in keys of runs. In the
name of a folder, `?` and `&` are `_`.

A class of your own takes parameters as keyword-only arguments with defaults; `Field` adds bounds, meaning and unit:

```python
def __init__(self, *, weight: Annotated[float, Field(gt=0, description="Weight of an output token.")] = 2.0): ...
```"""


def settings() -> str:
    """The page of policies, estimators and their parameters."""
    return page(
        "Policies and estimators",
        "## Spelling",
        SPELLING,
        "## Policies",
        "Who enters the engine next; `stock` is the engine's own order. In brackets stands whether a source was read.",
        table(["name", "order and source"], _settings(POLICIES)),
        *_parameters("policies"),
        "## Estimators",
        "How long an output will be.",
        table(["name", "estimate and source"], _settings({**ESTIMATORS, **GIVEN})),
        *_parameters("estimators"),
    )


def _settings(kinds: Mapping[str, Any]) -> list[list[str]]:
    """The rows of policies or estimators: the name, and what the class says of itself."""
    return [
        [f"`{name}`", " ".join((inspect.getdoc(kind) or "").replace("``", "`").split())] for name, kind in kinds.items()
    ]


def _parameters(which: str) -> list[str]:
    return ["Parameters:", entries(TABLES[which], extra="default")] if TABLES[which] else []


def cli() -> str:
    """The page of the verbs and their options."""
    group: Any = typer.main.get_command(command.app)
    callbacks = {_verb_name(one): one.callback for one in command.app.registered_commands}
    parts = [str(command.app.info.help), "## Options of every verb", _options(group, command.options)]
    for name, verb in group.commands.items():
        if verb.hidden:
            continue
        arguments = [_usage(one) for one in verb.params if one.param_type_name == "argument"]
        usage = " ".join(["driftsim", name, *arguments, "[OPTIONS]"])
        parts += [f"## {name}", f"```text\n{usage}\n```", inspect.cleandoc(verb.help), _options(verb, callbacks[name])]
    return page("Command line", *parts)


def _verb_name(registered: Any) -> str:
    return str(registered.name or registered.callback.__name__)


def _usage(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _options(verb: Any, callback: Any) -> str:
    """The table of what ``verb`` takes; ``callback`` is the function whose parameters these are."""
    hints = get_type_hints(callback, include_extras=True)
    rows = []
    for one in verb.params:
        if one.name not in hints:  # --help, which typer adds
            continue
        names = [one.name.upper()] if one.param_type_name == "argument" else [*one.opts, *one.secondary_opts]
        given = one.default if one.param_type_name == "option" or not one.required else None
        rows.append([
            ", ".join(f"`{name}`" for name in names),
            _type(hints[one.name]),
            "required" if one.required else _shown(given),
            " ".join((one.help or "").split()),
        ])  # fmt: skip
    return table(["option", "type", "default", "meaning"], rows)


def _type(hint: Any) -> str:
    """The type of an option, in words, with its bounds."""
    parts = get_args(hint) if get_origin(hint) is Annotated else (hint, None)
    inner = [part for part in get_args(parts[0]) if part is not types.NoneType]
    optional = get_origin(parts[0]) in (Union, types.UnionType)
    if optional and get_origin(inner[0]) is Annotated:
        inner = [get_args(inner[0])[0]]
    told = inner[0] if optional else parts[0]
    kind = "flag" if told is bool else kind_of(told).replace("Path", "path")
    for sign, bound in (("≥", getattr(parts[1], "min", None)), ("≤", getattr(parts[1], "max", None))):
        kind += "" if bound is None else f" {sign} {bound:g}"
    return kind


def _shown(value: Any) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return "on"
    return f"`{value}`"


def error_page() -> str:
    """The page of exit codes and exceptions."""
    codes = [(code, f"{text[0].upper()}{text[1:]}.") for code, text in _exit_codes().items()]
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    parts = [
        "## Exit codes",
        table(["code", "meaning"], [[str(code), text] for code, text in [*codes, *BY_THE_SYSTEM.items()]]),
        "A message goes to stderr, one line for what the user can mend; `--json` prints one document to stdout and "
        "nothing else there.",
        "## Exceptions",
        "Import them from `driftsim`; the command line turns each into its exit code.",
    ]
    for kind in classes:
        doc = inspect.getdoc(kind) or ""
        meaning, _, example = doc.partition("\n\n")
        code = 2 if issubclass(kind, errors.InputError) else 1
        parts += [
            f"### {kind.__name__}",
            f"Derives from `{kind.__bases__[0].__name__}`; exit code {code}. {' '.join(meaning.split())}",
            f"```pycon\n{example}\n```",
        ]
    return page("Errors and exit codes", *parts)


def _exit_codes() -> dict[int, str]:
    """The exit codes, from the sentences that define them."""
    found = re.findall(r"(?:Exit )?(\d): ([^.]+)\.", inspect.getdoc(command) or "")
    return {int(code): " ".join(text.split()) for code, text in found}


PAGES = {
    "columns.md": columns,
    "metrics.md": metrics,
    "scenario.md": scenario,
    "policies.md": settings,
    "cli.md": cli,
    "errors.md": error_page,
}


def write(folder: Path) -> None:
    """Write every page into ``folder``, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (folder / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
