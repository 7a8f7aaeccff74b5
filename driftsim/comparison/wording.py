"""Settings and changes in plain words, for a reader who has never seen a policy's short name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from driftsim.comparison.plan import Setting
from driftsim.formatting import NO_BREAK
from driftsim.scheduling.names import spelled
from driftsim.statistics import Interval

POLICY_WORDS = {
    "stock": "leave the order to the engine",
    "fifo": "serve first come, first served",
    "priority": "serve the most urgent tier first",
    "weighted": "let the tiers take turns by their weights",
    "sjf": "serve the shortest estimated request first",
    "aging": "serve the urgent first, and anybody who has waited long enough",
}
ESTIMATOR_WORDS = {
    "static": "the estimates as they are",
    "ema": "the estimates corrected by a running average",
    "pooled": "the estimates corrected by what similar requests needed",
    "oracle": "every length known beforehand",
}
MOST_NAMED = 3


def policy_words(policy: str) -> str:
    """What the policy does; one of somebody's own is called by its name."""
    base, told = spelled(policy)
    return f"{POLICY_WORDS[base]}{f' ({told})' if told else ''}" if base in POLICY_WORDS else f"serve by {policy}"


def setting_words(setting: Setting, estimator: bool = True) -> str:
    """What a setting does, with ``estimator`` also what it knows.

    >>> setting_words(Setting("sjf", "static"))
    'serve the shortest estimated request first, with the estimates as they are'
    """
    known = ESTIMATOR_WORDS.get(setting.estimator, f"the estimates of {setting.estimator}")
    return policy_words(setting.policy) + (f", with {known}" if estimator and setting.policy != "stock" else "")


def sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop.

    >>> sentence("serve b first")
    'Serve b first.'
    """
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")


def moved(change: Interval) -> str:
    """By how much a number falls or rises, with its interval.

    >>> moved(Interval(-0.315, -0.394, -0.236)).replace(NO_BREAK, " ")
    'falls by 31.5 % (23.6 to 39.4)'
    >>> moved(Interval(-0.007, -0.046, 0.033)).replace(NO_BREAK, " ")
    'changes by -0.7 % (-4.6 to +3.3)'
    """
    low, high = 100 * change.low, 100 * change.high
    if not any((change.value, low, high)):
        return "stays the same"
    if math.isnan(low):
        return f"{'falls' if change.value < 0 else 'rises'} by {100 * abs(change.value):.1f}{NO_BREAK}%"
    if change.spans_zero:
        return f"changes by {100 * change.value:+.1f}{NO_BREAK}% ({low:+.1f} to {high:+.1f})"
    ends = sorted((abs(low), abs(high)))
    word = "falls" if change.value < 0 else "rises"
    return f"{word} by {100 * abs(change.value):.1f}{NO_BREAK}% ({ends[0]:.1f} to {ends[1]:.1f})"


def listed(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first of ``names``, and how many more there are.

    >>> listed(["a", "b"]), listed(["a", "b", "c", "d"], most=2)
    ('a and b', 'a, b and 2 more')
    """
    shown, rest = list(names[:most]), len(names) - most
    last = f"{rest} more" if rest > 0 else shown.pop()
    return f"{', '.join(shown)} and {last}" if shown else last
