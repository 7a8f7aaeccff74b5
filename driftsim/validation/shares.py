"""Shares of a run, measured beside simulated: of prompts that the cache held, of requests within their SLOs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from driftsim.goodput import with_slos
from driftsim.metrics import judged
from driftsim.slo import needs_itl
from driftsim.validation.validation import Validation

Share = Callable[[Validation], tuple[float, float] | None]


def hit_rates(one: Validation) -> tuple[float, float] | None:
    """The share of the prompt tokens that were found in the cache, measured and simulated; None where not both tell."""
    rates = []
    for table in (one.recorded.requests, one.simulated.requests):
        if "cached_tokens" not in table or not table["cached_tokens"].notna().any():
            return None
        known = table[table["cached_tokens"].notna()]
        rates.append(float(known["cached_tokens"].sum() / known["prompt_tokens"].sum()))
    return rates[0], rates[1]


def attainments(one: Validation) -> tuple[float, float] | None:
    """The share of the offered requests served within the SLOs of the recorded header, measured and simulated.

    None where it has no SLO, or one of the time between tokens, which neither run tells.
    """
    slos = one.recorded.header.slos
    if not slos or needs_itl(slos):
        return None
    found = [judged(with_slos(trace, slos)) for trace in (one.recorded, one.simulated)]
    rates = [float(own.counts()["attainment"]) for own in found if own is not None]
    return rates[0], rates[1]


def rows_of(share: Share, validations: Iterable[Validation]) -> list[dict[str, Any]]:
    """``share`` of each of ``validations`` that has it."""
    known = ((one.name, share(one)) for one in validations)
    return [{"trace": name, "measured": found[0], "simulated": found[1]} for name, found in known if found is not None]


SENTENCES: dict[Share, str] = {
    hit_rates: "{name}: {measured} of the prompt tokens were found in the cache, {simulated} simulated",
    attainments: "{name}: {measured} of the requests were served within their SLOs, {simulated} simulated",
}


def sentences(one: Validation) -> list[str]:
    """The shares that ``one`` has, in words."""
    known = ((words, share(one)) for share, words in SENTENCES.items())
    percents = ((words, [f"{100 * rate:.1f} %" for rate in rates]) for words, rates in known if rates is not None)
    return [words.format(name=one.name, measured=own, simulated=ours) for words, (own, ours) in percents]
