"""What a client knows of a request that it gave up."""

from __future__ import annotations

from driftsim.engine.sequence import Sequence


def cut(sequence: Sequence, until: int, lag: int) -> None:
    """Leave of ``sequence`` what its client knew who timed out at ``until`` and hears of each token ``lag`` later."""
    sequence.finish_reason, sequence.finish = "timeout", until - lag
    if sequence.queued is not None and sequence.queued > until:
        sequence.queued = None
    if sequence.scheduled is not None and sequence.scheduled > until:
        sequence.scheduled = None
    if sequence.first_token is not None and sequence.first_token + lag > until:
        sequence.first_token = None
    if sequence.first_token is None:
        sequence.shown = 0
