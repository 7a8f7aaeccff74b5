"""The page of a comparison: one self-contained file that opens from disk, needs no network and runs on a phone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from driftsim.comparison import estimators, fair, replicas, report, slos, turns
from driftsim.comparison.comparison import Comparison
from driftsim.comparison.notes import warnings
from driftsim.comparison.plan import BASELINE, Setting
from driftsim.comparison.verdict import LABELS, all_checks, recommended, verdict
from driftsim.comparison.views import plain
from driftsim.engine.conformance import conformance
from driftsim.formatting import between, signed_percent
from driftsim.scheduling.estimators import is_deployable
from driftsim.statistics import DayEstimate
from driftsim.text import shown
from driftsim.version import __version__

if TYPE_CHECKING:
    from markupsafe import Markup

CHARTS = {
    "distribution": "Latency: how many requests stay within it",
    "latency": "Latency over time",
    "waiting": "Requests waiting over time",
    "inflight": "Requests in the engine over time",
    "estimates": "Estimated against observed output length",
    "drift": "Drift: observed over estimated length, over time",
    "requests": "Single requests: waiting, first token, answer",
}
STATISTICS = {"e2e_mean_s": "mean", "e2e_p50_s": "median", "e2e_p99_s": "P99"}
SCALES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # ends of the bars, relative
CHECKED = {"e2e_mean_s": "mean E2E", "e2e_p50_s": "median E2E", "e2e_p99_s": "P99 E2E", "ttft_mean_s": "mean TTFT",
           "ttft_p99_s": "P99 TTFT", "tpot_mean_s": "mean TPOT"}  # fmt: skip


def page(comparison: Comparison, provenance: Mapping[str, Any]) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    folder = files("driftsim.comparison") / "page"
    css, script, library = (
        Markup((folder / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js", "echarts.common.min.js")
    )
    environment = Environment(
        loader=PackageLoader("driftsim.comparison", "page"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        finalize=_seen,
    )  # fmt: skip
    headings, rows = report.table(comparison)
    chosen = _chosen(comparison)
    scale = _scale(comparison)
    lines = vars(verdict(comparison)).values()
    return environment.get_template("page.html.j2").render(
        verdict=[(label, text) for label, text in zip(LABELS, lines, strict=True) if text],
        days=len(comparison.days),
        requests=f"{comparison.recorded['requests']:,}",
        scale=f"-{100 * scale:g} % to +{100 * scale:g} %",
        settings=[_row(comparison, group[0], None, scale, _name(group)) for group in _compared(comparison)],
        tenants=[
            {
                "name": _name(group),
                "chosen": chosen in group,
                "rows": [
                    _row(comparison, group[0], tenant, scale, tenant) for tenant in comparison.recorded["per_tenant"]
                ],
            }
            for group in _compared(comparison)
        ],
        headings=headings,
        rows=rows,
        legend=report.legend(comparison),
        effects=report.effects(comparison),
        tiers=report.tiers(comparison),
        fair=fair.table(comparison) if comparison.plan.fairness else None,
        fair_over_days=fair.over_days(comparison) if comparison.plan.fairness else None,
        estimation=(estimators.title(comparison), *estimators.table(comparison))
        if estimators.told(comparison)
        else None,
        estimation_legend=estimators.LEGEND,
        slos=(slos.HEADINGS, slos.table(comparison)) if comparison.plan.slos else None,
        replicas=(replicas.HEADINGS, replicas.table(comparison)) if replicas.told(comparison) else None,
        replicas_legend=replicas.LEGEND,
        sessions=_sessions(comparison),
        checks=list(_checks(comparison)),
        trust=_trust(comparison),
        charts=CHARTS,
        warnings=warnings(comparison),
        terms=report.TERMS,
        provenance=provenance,
        admission=comparison.plan.admission.model_dump(mode="json"),
        version=__version__,
        conformance=conformance(comparison.plan.profile.engine.version),
        css=css,
        script=script,
        library=library,
        data=Markup(_script_safe(plain(comparison, {chosen}))),
    )


def _sessions(comparison: Comparison) -> tuple[Any, ...] | None:
    """Headings and rows of the tables of sessions; none where there are none."""
    if not turns.told(comparison):
        return None
    return turns.HEADINGS, turns.table(comparison), *turns.by_turn(comparison)


def _seen(value: Any) -> Any:
    """A value of the template; text whose characters all are seen, as no name may turn a line around."""
    from markupsafe import Markup

    return value if isinstance(value, Markup | int | float) else shown(str(value))


def _script_safe(data: dict[str, Any]) -> str:
    """JSON that may stand inside a script element, whatever a tenant is called."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _compared(comparison: Comparison) -> list[list[Setting]]:
    """The settings whose change is shown, those of equal latencies together; FIFO where nothing else was compared."""
    others = [group for group in comparison.alike_in_latency if BASELINE not in group]
    return others or [comparison.alike_in_latency[0]]


def _name(group: list[Setting]) -> str:
    """One setting, or the policies of several with their estimators."""
    policies = dict.fromkeys(setting.policy for setting in group)
    own = {policy: [one.estimator for one in group if one.policy == policy] for policy in policies}
    return "; ".join(f"{policy}/{', '.join(estimators)}" for policy, estimators in own.items())


def _chosen(comparison: Comparison) -> Setting:
    """The setting that is shown first: the recommended one, else the best other than FIFO."""
    wanted, compared = recommended(comparison), [one for group in _compared(comparison) for one in group]
    if wanted in compared:
        return wanted
    deployable = [setting for setting in compared if is_deployable(setting.estimator)] or compared
    return min(deployable, key=lambda setting: comparison.values(setting, "e2e_mean_s")[0])


def _scale(comparison: Comparison) -> float:
    """The end of all bars: the smallest round number that holds the settings' intervals."""
    ends = [0.0]
    for group in _compared(comparison):
        for metric in STATISTICS:
            ends += [abs(end) for end in comparison.change(group[0], BASELINE, metric) if math.isfinite(end)]
    return next((scale for scale in SCALES if scale >= max(ends)), SCALES[-1])


def _row(comparison: Comparison, setting: Setting, tenant: str | None, scale: float, name: str) -> dict[str, Any]:
    cells = []
    for metric, label in STATISTICS.items():
        change = comparison.change_of(setting, BASELINE, metric, tenant)
        cells.append({"label": label, "text": _text(change), "bar": _bar(change, scale)})
    return {"name": name + ("" if is_deployable(setting.estimator) else f" {report.BOUND}"), "cells": cells}


def _text(change: DayEstimate) -> str:
    if math.isnan(change.centre):
        return "unknown"
    return f"{between(change.interval)}; this run {signed_percent(change.this_run)}"


def _bar(change: DayEstimate, scale: float) -> Markup:
    """The change as a drawing; its text stands beside it, so it is hidden from screen readers."""
    from markupsafe import Markup

    if math.isnan(change.centre):
        return Markup("")

    def place(value: float) -> str:
        return f"{50 + 50 * max(-1.0, min(1.0, value / scale)):.2f}"

    _, low, high = change.interval
    middle, parts = place(change.centre), ['<line class="zero" x1="50" x2="50" y1="0" y2="10"/>']
    if not math.isnan(low):
        parts.append(f'<line class="span" x1="{place(low)}" x2="{place(high)}" y1="5" y2="5"/>')
    dot = '<line class="{}" x1="{}" x2="{}" y1="5" y2="5"/>'
    parts.append(dot.format("centre", middle, middle))
    if change.interval.spans_zero:
        parts.append(dot.format("hole", middle, middle))
    if math.isfinite(change.this_run):
        run = place(change.this_run)
        parts.append(f'<line class="run" x1="{run}" x2="{run}" y1="1" y2="9"/>')
    drawing = "".join(parts)
    return Markup(
        f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{drawing}</svg>'
    )


def _part(what: str) -> str:
    """A check's name, short enough for a phone."""
    return (
        what.replace(" against its own simulation", "").replace("its phase", "phase").replace("the recorded", "whole")
    )


def _checks(comparison: Comparison) -> Iterable[list[str]]:
    """Rows of the table of trust: what was measured beside what was simulated."""
    for check in all_checks(comparison):
        if check.failed:
            yield [check.what, f"no check: {check.failed}", "", "", ""]
            continue
        for metric, name in CHECKED.items():
            real, ours = check.measured[metric], check.simulated[metric]
            if math.isfinite(real) and math.isfinite(ours) and real > 0:
                yield [_part(check.what), name, f"{real:.4g}", f"{ours:.4g}", signed_percent(ours / real - 1)]


def _trust(comparison: Comparison) -> list[str]:
    """What else bears on trust: the fit, the error of the model, and where the simulation went beyond the fit."""
    plan, said = comparison.plan, []
    if plan.profile.fit is not None:
        error = plan.profile.fit.mean_absolute_percentage_error
        said.append(
            f"The latency model is off by {100 * error:.1f} % of a step's time on average, where it was fitted."
        )
    chosen = _chosen(comparison)
    wide, own = (
        comparison.change_with_model(chosen, BASELINE, "e2e_mean_s"),
        comparison.change(chosen, BASELINE, "e2e_mean_s"),
    )
    if wide is not None:
        said.append(
            f"The mean E2E of {chosen} changes by {between(own)} over days; with the error of the latency model in it, "
            f"{between(wide)}."
        )
    beyond = [text for text in warnings(comparison) if "extrapolated" in text]
    said += [f"{text[0].upper()}{text[1:]}." for text in beyond]
    if not all_checks(comparison):
        said.append("Nothing was measured that the simulation could be held against: believe changes, not seconds.")
    return said
