"""Run the engine beside the installed vLLM on many random workloads, and note the counts: ``make conformance``.

The file is part of the package; an entry for each version of vLLM that this was run with.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import driftsim.engine
from driftsim.engine.conformance import FILE, digest
from driftsim.engine.scheduler import MIRRORED_VLLM
from driftsim.engine.versions import numbered
from experiments.arguments import count as count_of
from tests.live.deciding import Case, Theirs, ours
from tests.live.placing import POLICIES, RANKED, PlacedCase, RankedCase, TheirsInside, TheirsRanked, placed, ranked
from tests.live.serving import Served
from tests.live.test_conformance import (
    case,
    choices_case,
    sharing_case,
    stopping_case,
    windowed_case,
    windowed_sharing_case,
)
from tests.live.test_shedding import limited

FIRST = 4  # workloads whose steps are counted apart: a test runs them again
KINDS: dict[str, Callable[[int], Case]] = {
    "plain": case,
    "prefixes": sharing_case,
    "windows": windowed_case,
    "windows with prefixes": windowed_sharing_case,
    "choices": choices_case,
    "stop strings": stopping_case,
    "queue limits": lambda seed: limited(case(seed), seed),
    "policies inside": lambda seed: placed(_mixed(seed // len(POLICIES)), seed, POLICIES[seed % len(POLICIES)]),
    "keys as priorities": lambda seed: ranked(_mixed(seed), RANKED[seed % len(RANKED)]),
}
ENDLESS = {("choices", 33)}  # answers of one request preempt each other for ever, in vLLM as here
PLACED = ("policies inside", "keys as priorities")  # of the mirrored version alone
SINCE: dict[str, tuple[tuple[int, int], Any]] = {  # settings that vLLM knows from that version on, and their idle value
    "watermark": ((0, 24), 0.0),
    "long_prefill_token_threshold_adaptive": ((0, 31), False),
    "max_num_active_seqs": ((0, 31), None),
}


def _mixed(seed: int) -> Case:
    return (case, sharing_case, case, windowed_case)[seed % 4](seed)


def kinds_of(version: str) -> list[str]:
    """The kinds of workloads that vLLM ``version`` can be asked to serve."""
    number = numbered(version)
    assert number is not None
    left_out = {"queue limits"} if number < (0, 29) else set[str]()
    if number != numbered(MIRRORED_VLLM):
        left_out |= set(PLACED)
    if number == (0, 20):  # it may crash: "Cannot get 4 free blocks from the pool"
        left_out |= {"windows", "windows with prefixes", "stop strings"}
    return [kind for kind in KINDS if kind not in left_out]


def cases(kind: str, version: str) -> Iterator[Case]:
    """Random workloads without end, on engines that vLLM ``version`` can be."""
    number = numbered(version)
    assert number is not None
    idle = {name: value for name, (since, value) in SINCE.items() if number < since}
    for seed in itertools.count():
        if (kind, seed) in ENDLESS:
            continue
        made = KINDS[kind](seed)
        yield replace(made, settings=made.settings.changed(version=version, **idle))


def _theirs(made: Case) -> Any:
    if isinstance(made, PlacedCase):
        return TheirsRanked if isinstance(made, RankedCase) else TheirsInside
    return Served if made.settings.sheds else Theirs


def alike(made: Case) -> tuple[int, bool]:
    """How many steps vLLM made of it, and whether ours are the same."""
    engine, theirs = ours(made), _theirs(made)(made)
    wanted = theirs.run()
    for mine, their in zip(engine.decisions, wanted, strict=False):
        their.computed = {name: their.computed[name] for name in mine.computed if name in their.computed}
    rejected = theirs.rejected if isinstance(theirs, Served) else []
    return len(wanted), engine.decisions == wanted and engine.rejected == rejected


def count(kind: str, version: str, workloads: int) -> dict[str, int]:
    """The counts of ``workloads`` of a kind."""
    found = [alike(made) for made in itertools.islice(cases(kind, version), workloads)]
    steps = [made for made, _ in found]
    return {
        "workloads": len(found),
        "decisions": sum(steps),
        "differing": sum(not same for _, same in found),
        "decisions_of_first": sum(steps[:FIRST]),
    }


def main() -> None:
    import vllm

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--workloads", type=count_of, default=200, help="of the plain kind and with prefixes; a quarter else"
    )
    parser.add_argument("--inside", type=count_of, default=1000, help="with a policy inside; a quarter as keys")
    asked = parser.parse_args()
    most, inside = max(4 * FIRST, asked.workloads), max(4 * FIRST, asked.inside)
    version = vllm.__version__
    many = {"plain": most, "prefixes": most, PLACED[0]: inside, PLACED[1]: inside // 4}
    kinds = {kind: count(kind, version, many.get(kind, most // 4)) for kind in kinds_of(version)}
    place = Path(driftsim.engine.__file__).with_name(FILE)
    known = json.loads(place.read_text()) if place.exists() else {}
    name = ".".join(map(str, numbered(version) or ()))
    known[name] = {"version": version, "kinds": kinds, "engine": digest()}
    order = sorted(known, key=lambda name: numbered(name) or (0, 0))
    place.write_text(json.dumps({name: known[name] for name in order}, indent=1) + "\n")
    print(version, json.dumps(kinds))


if __name__ == "__main__":
    main()
