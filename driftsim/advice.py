"""What other policies and estimators would have done to what was recorded lately, and whether that can be believed.

The recorded window is simulated under each of them, and as it was run; changes are against the policy that ran.
"""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from driftsim.api import compare
from driftsim.comparison.checks import Check, as_measured_check, held_out_check
from driftsim.comparison.plan import Setting, default_policies
from driftsim.comparison.result import ComparisonResult
from driftsim.errors import InputError
from driftsim.formatting import show_table, shown_text, without_nan
from driftsim.inputs import AnyEstimator, AnyPolicy, AnyProfile, AnyTrace, as_profile, as_trace, naming
from driftsim.latency.profile import Profile
from driftsim.progress import OnProgress, no_progress
from driftsim.records import parsed_json
from driftsim.scheduling.estimators import is_given_the_truth
from driftsim.scheduling.plugins import check_trusted, plugin_names
from driftsim.scheduling.policies import STOCK
from driftsim.statistics import Interval
from driftsim.trace.schema import FINISHED
from driftsim.trace.segments import is_recording, window, within
from driftsim.trace.trace import Trace
from driftsim.urls import server_url
from driftsim.workloads.replay import replay

if TYPE_CHECKING:
    from rich.console import Console

LAST_S = 3600.0
REPLICATIONS = 6
MOST_REQUESTS = 2_000  # that are simulated: the last ones
METRICS = ("e2e_mean_s", "e2e_p99_s", "ttft_mean_s", "ttft_p99_s")
WORDS = {"e2e_mean_s": "mean", "e2e_p99_s": "P99", "ttft_mean_s": "mean TTFT", "ttft_p99_s": "P99 of TTFT"}
WIDTH = 100
OPERATOR_KEY = "DRIFTSIM_OPERATOR_KEY"  # environment variable
ASK_S, MOST_TOLD = 10.0, 10_000_000


@dataclass(frozen=True, eq=False)
class Advice:
    """What was found of one window. ``comparison`` has every setting's simulations, ``check`` how well they agree with
    what was measured, ``profile`` the latency profile that they rest on.

    >>> advice = advise("traces/smollm2-cpu-drift", policies=["sjf"], estimators=["static"], replications=3, jobs=1)
    >>> advice.ran, [row["policy"] for row in advice.rows()]
    (Setting(policy='fifo', estimator='static'), ['sjf'])
    """

    trace: Trace
    comparison: ComparisonResult
    ran: Setting
    check: Check
    profile: Profile

    def change(self, setting: Setting, metric: str) -> Interval:
        """Relative change of ``metric`` against what ran, with its interval."""
        return _possible(self.comparison.change(setting, self.ran, metric))

    def tier_change(self, setting: Setting, tier: str) -> Interval:
        """The same of the P99 of the end-to-end latency of one ``tier``."""
        before, after = (
            np.array([row["per_tier"].get(tier, {}).get("e2e_p99_s", np.nan) for row in self.comparison.summaries[one]])
            for one in (self.ran, setting)
        )
        return _possible(self.comparison.estimate(after / np.where(before == 0, np.nan, before) - 1).interval)

    @cached_property
    def others(self) -> list[Setting]:
        """The settings but the one that ran, the lowest mean latency first."""
        settings = [one for one in self.comparison.plan.settings if one != self.ran]
        return sorted(settings, key=lambda one: self.change(one, "e2e_mean_s").value)

    def rows(self) -> list[dict[str, Any]]:
        """One for each of ``others``: the changes with their intervals; NaN where there is no number."""
        rows = []
        told = self.comparison.told(self.others, "e2e_mean_s", self.ran)
        for setting in self.others:
            row: dict[str, Any] = {**setting._asdict(), "beyond_doubt": setting in told}
            for metric in METRICS:
                change = self.change(setting, metric)
                name = metric.removesuffix("_s")
                row |= {f"{name}_change": change.value, f"{name}_low": change.low, f"{name}_high": change.high}
            row["tiers"] = {
                tier: self.tier_change(setting, tier)._asdict()
                for tier in self.comparison.summaries[self.ran][0]["per_tier"]
            }
            rows.append(row)
        return rows

    def frame(self) -> pd.DataFrame:
        """``rows`` without the tiers, as a table."""
        return pd.DataFrame([{name: value for name, value in row.items() if name != "tiers"} for row in self.rows()])

    def agreement(self) -> list[dict[str, Any]]:
        """How well the simulation of what ran reproduces what was measured: a row for each metric, times in s."""
        rows = []
        for metric in METRICS:
            measured, simulated = (side.get(metric, np.nan) for side in (self.check.measured, self.check.simulated))
            error = simulated / measured - 1 if measured else np.nan
            rows.append({"metric": metric, "measured": measured, "simulated": simulated, "error": error})
        return rows

    def lines(self) -> list[str]:
        """What was found, in sentences."""
        rows = self.trace.requests
        span = float(rows["arrival_s"].max() - rows["arrival_s"].min())
        done = int(rows["finish_reason"].isin(FINISHED).sum())
        said = [f"Looked at: {len(rows)} requests of {span:.0f} s, {done} finished, under {self.ran}."]
        said += [self._sentence(setting) for setting in self.others[:3]]
        return [*said, self._trust()]

    def document(self) -> dict[str, Any]:
        """What ``driftsim advise --json`` prints."""
        rows, fit = self.trace.requests, self.profile.fit
        return {
            "trace": self.trace.name,
            "requests": len(rows),
            "span_s": float(rows["arrival_s"].max() - rows["arrival_s"].min()),
            "ran": self.ran._asdict(),
            "rows": self.rows(),
            "agreement": self.agreement(),
            "checked": self.check.what,
            "not_checked": self.check.failed,
            "profile": {
                "digest": self.profile.digest,
                "step_s": step_s(self.profile),
                "source": None if fit is None else fit.source,
                "mape": None if fit is None else fit.mean_absolute_percentage_error,
            },
            "warnings": self.comparison.warnings(),
            "lines": self.lines(),
        }

    def show(self, console: Console) -> None:
        """Print the sentences and the table."""
        for line in self.lines():
            console.print(line, markup=False)
        headings = ["policy", "estimator", *(f"{WORDS[metric]}\n%" for metric in METRICS)]
        cells = [
            [setting.policy, setting.estimator, *(_shown(self.change(setting, metric)) for metric in METRICS)]
            for setting in self.others
        ]
        console.print()
        show_table(console, f"Simulated, against {self.ran} as it ran; 95 % intervals", headings, cells)
        for warning in self.comparison.warnings():
            console.print(f"Note: {warning}.", markup=False)

    def __str__(self) -> str:
        return shown_text(self.show, WIDTH)

    def _sentence(self, setting: Setting) -> str:
        mean = self.change(setting, "e2e_mean_s")
        sure = "" if setting in self.comparison.told([setting], "e2e_mean_s", self.ran) else ", which may be chance"
        tiers = self.comparison.summaries[self.ran][0]["per_tier"]
        own = [f"{tier}'s P99 by {_shown(self.tier_change(setting, tier))} %" for tier in tiers]
        return f"{setting} would have changed the mean by {_shown(mean)} %{sure}; {', '.join(own)}."

    def _trust(self) -> str:
        if self.check.failed:
            return f"Trust: not checked: {self.check.failed}."
        parts = [
            f"{WORDS[row['metric']]} {100 * row['error']:+.0f} % ({row['measured']:.3g} s measured, "
            f"{row['simulated']:.3g} s simulated)"
            for row in self.agreement()
            if row["error"] == row["error"]
        ]
        return f"Trust: {self.check.what}: {', '.join(parts)}."


def advise(
    what: AnyTrace,
    *,
    last_s: float = LAST_S,
    policies: AnyPolicy | Iterable[AnyPolicy] | None = None,
    estimators: AnyEstimator | Iterable[AnyEstimator] = ("static", "ema"),
    profile: AnyProfile | None = None,
    replications: int = REPLICATIONS,
    seed: int = 0,
    jobs: int | None = None,
    progress: OnProgress = no_progress,
) -> Advice:
    """Simulate what was recorded lately under other policies and estimators, against the policy that ran.

    what: a trace, its folder, or the folder into which ``driftsim serve`` records, while it does, too. last_s: how much
    of its end to look at (s); at most the last 2,000 requests are. policies, estimators: as ``compare`` has them
    (default: the published policies that the tiers allow). profile: of the engine (default: fitted to the window
    itself). replications: the window and one less resamples of either kind. jobs: processes (default: one a core).

    Every policy stands in front, with the recorded limit in flight, as that of ``driftsim serve`` does; for the other
    places there is ``compare(place=...)``. What was turned away is not simulated, nor are the limits of the queue, nor
    priorities that were passed on. Raises ``InputError`` for what cannot be
    compared, ``TraceError`` for a window too short to fit a profile to.

    >>> advice = advise("traces/smollm2-cpu-drift", policies=["sjf"], estimators=["ema"], replications=3, jobs=1)
    >>> advice.change(advice.others[0], "e2e_mean_s").value < -0.2
    True
    """
    if not last_s > 0:
        raise InputError(f"last_s must be above 0, got {last_s}")
    trace = _window(what, last_s)
    header = trace.header
    ran = _ran(trace)
    with naming(trace):
        known = as_profile(profile, trace)
        asked = (
            [one for one in default_policies(replay(trace), header.tiers, known)[0] if one != STOCK]
            if policies is None
            else plugin_names(policies)
        )
        told = dict.fromkeys([*plugin_names(estimators), ran.estimator])
        upstreams = header.engine_arguments.get("upstreams", 1)
        result = compare(
            trace,
            policies=list(dict.fromkeys([*asked, ran.policy])),
            estimators=list(told),
            profile=known,
            replications=replications,
            max_in_flight=header.max_in_flight,
            tiers=header.tiers,
            replicas=upstreams if type(upstreams) is int and 0 < upstreams <= 1000 else 1,
            seed=seed,
            jobs=jobs,
            progress=progress,
        )
    fitted = profile is None and known.fit is not None and known.fit.source == "requests"
    check = held_out_check(trace) if fitted else as_measured_check(trace, known, "its profile")
    return Advice(trace, result, ran, check, known)


def asked_of(url: str) -> dict[str, Any]:
    """What the gateway at ``url`` found last: the document of ``Advice``. Raises ``InputError`` where it tells none.

    An operator's key is taken from the environment (DRIFTSIM_OPERATOR_KEY), if it has keys.
    """
    try:
        server_url(url, OPERATOR_KEY)
    except InputError as error:
        raise InputError(f"the URL of the gateway {error}") from None
    key = os.environ.get(OPERATOR_KEY, "").strip()
    if not all("!" <= sign <= "~" for sign in key):
        raise InputError(f"{OPERATOR_KEY} holds a blank or a character that no key has; give the key alone")
    asked = urllib.request.Request(url.rstrip("/").removesuffix("/ui") + "/ui/advice")
    if key:
        asked.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        document = without_nan(parsed_json(_told(asked), halves=True))
    except urllib.error.HTTPError as error:
        why = {401: f"an operator's key is needed; set {OPERATOR_KEY}", 404: "it has found nothing yet; ask later"}
        raise InputError(f"{url}: {why.get(error.code, f'HTTP {error.code}')}") from None
    except (OSError, ValueError, RecursionError, HTTPException) as error:
        found = f"{type(error).__name__}: {error}"
        raise InputError(f"{url}: no gateway answers there ({found:.200}); start one with driftsim serve") from None
    if not isinstance(document, dict) or not isinstance(document.get("lines"), list):
        raise InputError(f"{url}: what answers there is no gateway of driftsim")
    return document | {"lines": [str(line) for line in document["lines"]]}


def _told(asked: urllib.request.Request) -> str:
    """The page that was ``asked`` for, within ``ASK_S`` whatever the server does. Raises what went wrong.

    A thread of its own reads: a server that sends a byte now and then holds that thread, and nobody who waits.
    """
    told: list[bytes | Exception] = []

    def read() -> None:
        try:
            with urllib.request.urlopen(asked, timeout=ASK_S) as answer:
                told.append(answer.read(MOST_TOLD))
        except Exception as error:  # it is raised where somebody waits
            told.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(ASK_S)
    page = told[0] if told else TimeoutError(f"no whole answer within {ASK_S:g} s")
    if isinstance(page, Exception):
        raise page
    return page.decode()


def step_s(profile: Profile, requests: int = 16, context: int = 512) -> float:
    """Seconds of a decode step of so many ``requests``, each with so long a ``context`` (tokens), by ``profile``.

    >>> round(step_s(Profile.plain(intercept_s=0.01, max_num_seqs=4)), 4)
    0.01
    """
    return profile.intercept_s + requests * (profile.decode_request_s + context * profile.context_token_s)


def _window(what: AnyTrace, last_s: float) -> Trace:
    """The window to look at, of a trace or of a recording."""
    if isinstance(what, str | Path) and is_recording(what):
        trace = window(what, last_s)
    else:
        whole = as_trace(what)
        span = (
            float(whole.requests["arrival_s"].max() - whole.requests["arrival_s"].min()) if len(whole.requests) else 0
        )
        trace = whole if span <= last_s else within(whole, last_s)
    if len(trace.requests) > MOST_REQUESTS:
        rows = trace.requests
        arrivals = rows["arrival_s"].sort_values()
        trace = within(trace, float(arrivals.iloc[-1] - arrivals.iloc[-MOST_REQUESTS]))
    return trace


def _ran(trace: Trace) -> Setting:
    """The policy and the estimator that ran; ``static`` where none was recorded or it was told the truth."""
    told = trace.header.admission
    for key in ("policy", "estimator"):
        check_trusted(str(told.get(key, "")), f"{trace.name}: its header")
    estimator = str(told.get("estimator") or "static")
    return Setting(str(told.get("policy") or "fifo"), "static" if is_given_the_truth(estimator) else estimator)


def _possible(change: Interval) -> Interval:
    """``change`` of a time, which falls by no more than all of it."""
    return Interval(*(max(end, -1.0) for end in change))  # NaN stays NaN


def _shown(change: Interval) -> str:
    """A relative change in %, with its interval: -23 [-31, -14]."""
    if change.value != change.value:
        return "?"
    ends = "" if change.low != change.low else f" [{100 * change.low:+.0f}, {100 * change.high:+.0f}]"
    return f"{100 * change.value:+.0f}{ends}"
