"""Prompt to category by its keywords, as DriftSched does it; a label that gives the answer away can be stripped."""

from __future__ import annotations

import re

FALLBACK = "short_qa"
CATEGORIES = (FALLBACK, "summary", "technical", "report")


# DriftSched, admission: the highest count wins, ties in this order, no keyword means short_qa.
KEYWORDS: dict[str, tuple[str, ...]] = {
    "summary": ("summarize", "summary"),
    "report": ("detailed", "report", "comprehensive"),
    "technical": ("architecture", "code", "technical"),
}


_LABEL = re.compile(r"^\[request \d+\] \[tenant [^\]]*\] \[job [^\]]*\] ")


def label(number: int, tenant: str, category: str) -> str:
    """The prefix that gives a prompt's category away, as DriftSched sends it (docs/explanation/traps.md, 6).

    >>> strip_label(label(7, "premium", "report") + "What is DNS?")
    'What is DNS?'
    """
    return f"[request {number}] [tenant {tenant}] [job {category}] "


def strip_label(prompt: str) -> str:
    """``prompt`` without the prefix that ``label`` writes."""
    return _LABEL.sub("", prompt)


def predict_category(prompt: str) -> str:
    """The category whose keywords occur most often in the lower-cased prompt.

    >>> predict_category("Summarize Kafka architecture and key components.")  # one all, ties go to summary
    'summary'
    >>> predict_category("Why do cats purr?")
    'short_qa'
    """
    text = prompt.lower()
    counts = {category: sum(map(text.count, words)) for category, words in KEYWORDS.items()}
    best = max(counts, key=counts.__getitem__)  # max keeps the first of equals
    return best if counts[best] else FALLBACK
