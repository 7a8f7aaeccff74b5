"""Whether captured runs can be compared with each other, and what a reader of the comparison must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from driftsim.errors import TraceError
from driftsim.metrics import FEWEST_FOR_P99
from driftsim.trace.header import Header, Phase
from driftsim.trace.trace import Trace

Setting: TypeAlias = "tuple[str, str]"  # policy, estimator
Named: TypeAlias = "tuple[str, Trace]"


def check_comparable(traces: Sequence[Named]) -> None:
    """Raise ``TraceError`` unless ``traces``, each with its name, are complete captured runs of one workload."""
    first_name, first = traces[0]
    for name, trace in traces:
        header = trace.header
        if header.kind != "captured":
            raise TraceError(f"{name}: is {header.kind}, not captured; only measured runs are compared here")
        if header.ended != "complete":
            raise TraceError(f"{name}: the run did not end properly ({header.ended}); capture it again")
        if not {"policy", "estimator"} <= header.admission.keys():
            raise TraceError(f"{name}/header.json: does not tell its policy and estimator")
        what = _differs(first, trace)
        if what:
            raise TraceError(f"{name}: another {what} than {first_name}; compare runs of one workload on one engine")


def _differs(one: Trace, other: Trace) -> str | None:
    """What makes two runs incomparable, if anything does."""
    for name in ("model", "hardware", "engine", "max_in_flight"):
        if getattr(one.header, name) != getattr(other.header, name) and "stock" not in (
            one.header.admission["policy"],
            other.header.admission["policy"],
        ):
            return name
    if one.header.admission.get("place") != other.header.admission.get("place"):
        return "place of the policy"
    if _phases(one.header) != _phases(other.header):
        return "workload"
    for column in ("request_id", "tenant", "tier", "prompt_tokens", "max_tokens"):
        if list(one.requests[column]) != list(other.requests[column]):
            return f"{column} in its requests"
    return None


def _phases(header: Header) -> list[Phase]:
    return [phase.changed(start_s=None) for phase in header.workload.phases]


def capture_warnings(groups: Mapping[Setting, Sequence[Named]]) -> list[str]:
    """What is doubtful about the runs of each policy with an estimator, in order of capture."""
    warnings = [warning] if (warning := _one_order(groups)) else []
    runs = [pair for group in groups.values() for pair in group]
    disturbed = [name for name, trace in runs if trace.header.load is not None and trace.header.load.disturbed]
    if disturbed:
        warnings.append(f"the machine was disturbed during {', '.join(disturbed)}")
    if len({len(group) for group in groups.values()}) > 1:
        warnings.append("the policies have different numbers of repeats; rounds beyond the fewest are not compared")
    if min(len(group) for group in groups.values()) < 2:
        warnings.append("intervals need at least 2 repeats of each policy")
    lengths = {tuple(trace.requests["output_tokens"].fillna(-1)) for _, trace in runs}
    if len(lengths) > 1:
        warnings.append(
            "output lengths differ between the runs: part of the change is theirs; force them (--force-lengths)"
        )
    failed = [name for name, trace in runs if len(trace.finished) < len(trace.requests)]
    if failed:
        warnings.append(f"not every request finished in {', '.join(failed)}")
    count = len(runs[0][1].requests)
    if count < FEWEST_FOR_P99:
        warnings.append(f"a P99 of {count} requests is close to the maximum; read it with care")
    return warnings


def _one_order(groups: Mapping[Setting, Sequence[Named]]) -> str:
    """What it means that every round ran its policies in the same order, where that is known and so."""
    rounds = min(len(group) for group in groups.values())
    if len(groups) < 2 or rounds < 2:
        return ""
    found = set()
    for turn in range(rounds):
        began = {setting: group[turn][1].header.captured_at or "" for setting, group in groups.items()}
        if len(set(began.values())) < len(groups):
            return ""  # not told, or not to the second
        found.add(tuple(sorted(groups, key=began.__getitem__)))
    if len(found) > 1:
        return ""
    alone = len({policy for policy, _ in groups}) == len(groups)
    names = ", ".join(setting[0] if alone else "/".join(setting) for setting in found.pop())
    return (
        f"every round ran in the same order ({names}): policy and position in the round cannot be told apart; capture "
        "with --order latin"
    )
