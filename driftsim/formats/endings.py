"""How a request ended, in the words that other tools have for it."""

from __future__ import annotations

DONE = "done"  # it ended well; whether by itself or at its limit is not told
WORDS = {
    "stop": "stop eos eos_token end_turn stop_sequence tool_calls tool_use function_call finished_stopped",
    "length": "length max_tokens max_new_tokens finished_length_capped truncated",
    DONE: "ok success succeeded successful complete completed done finished true yes 1",
    "abort": "abort aborted cancel canceled cancelled usercancel user_cancel interrupted incomplete disconnect "
    "disconnected client_disconnect client_disconnected 499",
    "timeout": "timeout timed_out deadline_exceeded 408 504",
    "error": "error errored err fail failed failure exception false no 0 server_error content_filter",
    "rejected": "rejected reject refused shed dropped throttled rate_limited overloaded too_many_requests 429 503",
}
ENDINGS = {word: ending for ending, words in WORDS.items() for word in words.split()}


def ending(text: str) -> str | None:
    """The ending that ``text`` means: one of a trace's finish reasons, or ``DONE``; None if nobody knows.

    >>> ending("Cancelled"), ending("200"), ending("500"), ending("Finished_Stopped"), ending("blue")
    ('abort', 'done', 'error', 'stop', None)
    """
    word = text.strip().lower().replace(" ", "_").replace("-", "_")
    if word in ENDINGS:
        return ENDINGS[word]
    if len(word) == 3 and word.isdigit():  # an HTTP status
        return DONE if word[0] == "2" else "error" if word[0] in "45" else None
    return None
