"""What was said in the sessions of a run, so that a later turn really repeats it: in memory alone, and not for long.

A turn repeats the conversation of the first of its parents: prompts and answers, by turns. What the others answered
stands before its own text. What nobody will repeat any more is forgotten.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from driftsim.live.engine import Outcome
from driftsim.request import Request
from driftsim.scheduling.accounting import count_words
from driftsim.workloads.workload import Workload


@dataclass(frozen=True, slots=True)
class Said:
    """A conversation up to an answer: its texts, prompts and answers by turns, and how long it and the answer are."""

    texts: tuple[str, ...]
    tokens: int
    words: int
    answer_tokens: int


class Talks:
    """The conversations of ``workload`` that are under way, by row; none where its texts are not known."""

    def __init__(self, workload: Workload) -> None:
        told = "parent" in workload.table and workload.prompts is not None
        self._parents: list[list[int]] = workload.table["parent"].tolist() if told else []
        self._waiting = Counter(parent for before in self._parents for parent in before)
        self._said: dict[int, Said] = {}

    def begin(self, request: Request, row: int) -> bool:
        """Give ``request`` what its turn repeats, and its length as far as that is known; whether it repeats any."""
        parents = self._parents[row] if self._parents else []
        if not parents:
            return False
        main, *others = [self._said[parent] for parent in parents]
        for parent in parents:
            self._waiting[parent] -= 1
            if not self._waiting[parent]:
                del self._said[parent]
        reports = [said.texts[-1] for said in others]
        request.history = main.texts
        request.prompt = "\n\n".join([*reports, request.prompt or ""])
        request.prompt_tokens += main.tokens + sum(said.answer_tokens for said in others)
        request.prompt_words = (request.prompt_words or 0) + main.words + sum(map(count_words, reports))
        return True

    def ended(self, outcome: Outcome, row: int) -> None:
        """The turn of ``row`` has finished; what was said is kept if a later turn repeats it."""
        if not self._waiting[row]:
            return
        request, answer = outcome.job.request, outcome.answer or ""
        prompt = request.prompt_tokens if outcome.prompt_tokens is None else outcome.prompt_tokens
        words, tokens = (request.prompt_words or 0) + count_words(answer), outcome.output_tokens or 0
        self._said[row] = Said((*request.history, request.prompt or "", answer), prompt + tokens, words, tokens)
