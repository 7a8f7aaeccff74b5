"""How the prompts sent to a server begin: as the token ids that it tells, or a tokenizer, or else as their text.

What a chat template puts around a prompt is known from the answers to short prompts of the warm-up. Answers are left
out: the template puts its own tokens between a prompt and its answer, and no server tells where blocks of them end.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from driftsim.live.sharing import PIECE, Beginning, Hashes
from driftsim.request import Request

WARM_UP = tuple(f"Count to {number}." for number in range(2, 6))
WARM_TOKENS = 5  # of each of these, by any common tokenizer: Count, to, a blank or none, the number and the stop
TAIL = 5  # tokens of a chat template behind a prompt, where the answer opens: ChatML's, Llama's and Gemma's


class Prompts:
    """Hashes of the prompts of one session; ``block`` is the tokens of one block of the server's cache."""

    def __init__(self, block: int = 16) -> None:
        self.block = block
        self._hashes = Hashes()
        self._begun: dict[str, tuple[array[int], Beginning]] = {}  # with the token ids; none where none were told
        self._around: int | None = None

    def note(self, prompt: str, ids: Sequence[int] | None) -> None:
        """``prompt`` has these token ids, the template's included; None where nobody tells them."""
        blocks = None if ids is None else self._hashes.blocks(ids, self.block)
        self._begun[prompt] = (array("q", ids or ()), Beginning(blocks, self._hashes.pieces(prompt)))

    def note_ids(self, name: str, ids: Sequence[int]) -> None:
        """The request ``name`` was sent as these token ids, without a text."""
        self._begun[name] = (array("q", ids), Beginning(self._hashes.blocks(ids, self.block)))

    def warmed(self, tokens: int) -> None:
        """A prompt of ``WARM_UP`` was counted as so many ``tokens`` by the server; 0 where it did not tell."""
        if tokens > WARM_TOKENS:
            around = tokens - WARM_TOKENS
            self._around = around if self._around is None else min(self._around, around)

    def ids(self, request: Request) -> Sequence[int]:
        """The token ids of the prompt of ``request``, as far as anybody told them."""
        return self._begun[_name(request)][0] if _name(request) in self._begun else ()

    def beginning(self, request: Request, counted: int | None, answer: str | None = None) -> Beginning | None:
        """How ``request`` began, whose prompt the server ``counted``; token ids that are not as many are not its.

        answer: what it said, where ``request`` is a turn of a live conversation, which later turns may repeat.
        """
        if request.session and request.prompt is not None:
            return self._of_talk(request, counted or request.prompt_tokens, answer or "")
        told, known = len(self.ids(request)), self._begun.get(_name(request), ((), None))[1]
        if known is None:
            return None
        tokens = request.prompt_tokens if counted is None else counted
        blocks = known.blocks if told == tokens else None
        around = min(self._around or 0, tokens)
        text = len(request.prompt or "")
        a_piece = PIECE * (tokens - around) / text if text else 0.0
        return Beginning(blocks, known.pieces, float(max(0, around - TAIL)), a_piece)

    def _of_talk(self, request: Request, tokens: int, answer: str) -> Beginning:
        """The same of a turn: by its text, since only the text of a conversation is known, and with its answer."""
        prompt = "\n".join((*request.history, request.prompt or ""))
        around = min(self._around or 0, tokens)
        a_piece = PIECE * (tokens - around) / len(prompt) if prompt else 0.0
        return Beginning(None, self._hashes.pieces(f"{prompt}\n{answer}"), float(max(0, around - TAIL)), a_piece, True)


def _name(request: Request) -> str:
    """Under what ``request`` is known: its prompt, or its id where it has none."""
    return request.id if request.prompt is None else request.prompt
