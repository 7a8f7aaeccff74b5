"""A step-time model says how long a step of the engine takes, in ticks.

Inside a simulated engine time is an integer number of picoseconds (ticks): coefficients are rounded to it once, and
from there on everything is exact. Seconds as floats exist only at the border.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np
import pandas as pd

from driftsim.errors import InputError

TICKS_PER_SECOND = 10**12


def ticks(seconds: float) -> int:
    """Seconds to ticks, rounded once."""
    return round(seconds * TICKS_PER_SECOND)


@dataclass(slots=True)
class Batch:
    """What one step computes; the names and meanings are those of the trace's steps table."""

    prefill_tokens: int = 0
    prefill_requests: int = 0
    prefill_attention: float = 0.0
    decode_requests: int = 0
    context_tokens: int = 0


class StepTime(Protocol):
    """A step-time model; durations are ticks."""

    def step(self, batch: Batch) -> int:
        """The duration of the next step, which counts as taken."""
        ...

    def decode_run(self, batch: Batch, n: int) -> int:
        """The duration of the next ``n`` steps, if they begin with ``batch`` and in them only contexts grow."""
        ...

    def decode_steps(self, batch: Batch, elapsed: int, gap: int) -> int:
        """The least n >= 1 for which ``n`` such steps, each followed by ``gap``, last ``elapsed`` or longer."""
        ...


class LaunchedStepTime(StepTime, Protocol):
    """A model that also knows how long the host is busy, if it ``launches`` some steps kernel by kernel."""

    launches: bool

    def parts(self, batch: Batch) -> tuple[int, int]:
        """How long the next step, which counts as taken, keeps the GPU and, to be launched, the host."""
        ...


def launching(model: StepTime) -> LaunchedStepTime | None:
    """``model`` if it launches some steps kernel by kernel."""
    return cast(LaunchedStepTime, model) if getattr(model, "launches", False) else None


@dataclass(frozen=True, slots=True)
class LinearStepTime:
    """``intercept + prefill tokens + decode requests + context tokens``, each times its coefficient, in ticks.

    With ``hidden_tokens``, only the tokens beyond so many cost ``prefill_token``, a decoding request being one token:
    the others are computed while the GPU reads the weights (the roofline of Williams, Waterman and Patterson 2009).
    ``prefill_step`` is added once to a step that prefills, ``prefill_attention`` times its attention work. Decode
    batches are padded to the next of ``graph_sizes``, as vLLM pads them to the sizes of its CUDA graphs
    (vllm/config/compilation.py); none: no padding.

    A step that prefills, of more than ``graph_tokens`` tokens in all, is no CUDA graph: the host launches its kernels
    one by one, which takes ``launch``, and the GPU works meanwhile. 0: that is never what takes longest.

    >>> model = LinearStepTime(100, 7, 5, 1, launch=180, graph_tokens=8)
    >>> [model.step(Batch(prefill_tokens=tokens)) for tokens in (8, 9, 11, 12)]
    [156, 180, 180, 184]
    """

    intercept: int
    prefill_token: int
    decode_request: int
    context_token: int
    prefill_attention: int = 0
    prefill_step: int = 0
    hidden_tokens: int = 0
    graph_sizes: tuple[int, ...] = ()
    launch: int = 0
    graph_tokens: int = 0
    plain: bool = field(init=False)  # nothing but the four linear terms
    launches: bool = field(init=False)

    def __post_init__(self) -> None:
        extra = self.prefill_attention or self.prefill_step or self.hidden_tokens or self.graph_sizes or self.launch
        object.__setattr__(self, "plain", not extra)
        object.__setattr__(self, "launches", self.launch > 0)
        coefficients = (self.prefill_token, self.decode_request, self.context_token, self.prefill_attention)
        others = (self.prefill_step, self.hidden_tokens, self.launch, self.graph_tokens)
        if self.intercept < 1 or min(*coefficients, *others) < 0:
            raise InputError(f"a step takes time: intercept above 0, nothing negative; got {self}")

    def step(self, batch: Batch) -> int:
        """The duration of one step."""
        if self.plain:
            return (
                self.intercept
                + self.prefill_token * batch.prefill_tokens
                + self.decode_request * batch.decode_requests
                + self.context_token * batch.context_tokens
            )
        return max(self.parts(batch))

    def parts(self, batch: Batch) -> tuple[int, int]:
        """How long one step keeps the GPU and, to be launched kernel by kernel, the host; 0 where it is a graph."""
        duration, launch = self._decode(batch), 0
        if batch.prefill_tokens:
            tokens = batch.prefill_tokens
            if self.hidden_tokens:  # the decodes' own share is in the duration already
                tokens -= min(tokens, max(0, self.hidden_tokens - batch.decode_requests))
            duration += self.prefill_step + self.prefill_token * tokens
            duration += round(self.prefill_attention * batch.prefill_attention)
            if batch.prefill_tokens + batch.decode_requests > self.graph_tokens:
                launch = self.launch
        return duration, launch

    def _decode(self, batch: Batch) -> int:
        size = batch.decode_requests
        if self.graph_sizes:
            size = padded(size, self.graph_sizes)
        duration = self.intercept + self.decode_request * size + self.context_token * batch.context_tokens
        if self.hidden_tokens and batch.decode_requests > self.hidden_tokens:
            duration += self.prefill_token * (batch.decode_requests - self.hidden_tokens)
        return duration

    def decode_run(self, batch: Batch, n: int) -> int:
        """``n`` steps; each decoding request's context grows by one token a step.

        >>> model = LinearStepTime(100, 7, 5, 1)
        >>> model.decode_run(Batch(decode_requests=2, context_tokens=10), 3)  # contexts 10, 12, 14
        366
        """
        size, per_token = batch.decode_requests, self.context_token
        if self.plain:
            first = self.intercept + self.decode_request * size + per_token * batch.context_tokens
        else:
            first = self._decode(batch)
        return n * first + per_token * size * (n * (n - 1) // 2)

    def decode_steps(self, batch: Batch, elapsed: int, gap: int) -> int:
        """The positive root of the quadratic in n, by floats, then put right by at most a step in integers.

        >>> model = LinearStepTime(100, 7, 5, 1)
        >>> [model.decode_steps(Batch(decode_requests=2, context_tokens=10), elapsed, 0) for elapsed in (0, 120, 121)]
        [1, 1, 2]
        """
        size, per_token = batch.decode_requests, self.context_token
        growth = per_token * size  # ticks a step gets longer by
        if self.plain:
            first = self.intercept + self.decode_request * size + per_token * batch.context_tokens + gap
        else:
            first = self._decode(batch) + gap
        if growth:
            slope = first - growth / 2
            n = int((math.sqrt(slope * slope + 2 * growth * elapsed) - slope) / growth) + 1
        else:
            n = -(-elapsed // first) or 1
        while n > 1 and (n - 1) * first + growth * ((n - 1) * (n - 2) // 2) >= elapsed:
            n -= 1
        while n * first + growth * (n * (n - 1) // 2) < elapsed:
            n += 1
        return n


# vLLM's default sizes of CUDA graphs (vllm/config/vllm.py, _set_cudagraph_sizes)
GRAPH_SIZES = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))


def most_graph_tokens(max_num_seqs: int) -> int:
    """The tokens of the largest step that vLLM launches as a CUDA graph by default (the same function there).

    >>> most_graph_tokens(64), most_graph_tokens(1024)
    (128, 512)
    """
    return int(min(2 * max_num_seqs, GRAPH_SIZES[-1]))


MOST_HIDDEN = 1_000_000  # tokens: more than any step computes
TERMS = ("intercept", "prefill_token", "decode_request", "context_token", "prefill_attention", "prefill_step")


LAUNCH = "launch"  # the term of what the host takes, beside those of the GPU


def term_values(steps: pd.DataFrame, hidden_tokens: int, graph_sizes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What each of ``TERMS`` is multiplied by in each row of a steps table: ``LinearStepTime`` in arrays.

    How long a model keeps the GPU is the sum over its terms of coefficient times value.
    """
    prefill, decode = (steps[name].to_numpy(dtype=float) for name in ("prefill_tokens", "decode_requests"))
    batch = decode
    if graph_sizes:
        sizes = np.array([padded(size, graph_sizes) for size in range(int(decode.max(initial=0)) + 1)], dtype=float)
        batch = sizes[decode.astype(int)]
    return {
        "intercept": np.ones(len(steps)),
        "prefill_token": np.maximum(0.0, prefill + decode - hidden_tokens) if hidden_tokens else prefill,
        "decode_request": batch,
        "context_token": steps["context_tokens"].to_numpy(dtype=float),
        "prefill_attention": steps["prefill_attention"].to_numpy(dtype=float),
        "prefill_step": (prefill > 0).astype(float),
    }


def launched(steps: pd.DataFrame, graph_tokens: int) -> np.ndarray:
    """Which rows of a steps table are launched kernel by kernel: prefills of more than ``graph_tokens`` in all."""
    prefill, decode = (steps[name].to_numpy() for name in ("prefill_tokens", "decode_requests"))
    return np.asarray((prefill > 0) & (prefill + decode > graph_tokens))


def tied_tokens(intercept: float, prefill_token: float) -> int:
    """The hidden tokens of a roofline, from these coefficients (s): computing so many takes as long as the weights.

    At least one, so that a decoding request counts as a token; none where tokens cost nothing.

    >>> [tied_tokens(*coefficients) for coefficients in ((0.012, 4e-5), (0.0, 4e-5), (0.012, 0.0))]
    [300, 1, 0]
    """
    return max(1, round(min(MOST_HIDDEN, intercept / prefill_token))) if prefill_token > 0 else 0


def padded(size: int, graph_sizes: tuple[int, ...]) -> int:
    """The least of ``graph_sizes`` that holds ``size``; ``size`` itself beyond the largest, and 0.

    >>> [padded(size, (1, 2, 4, 8)) for size in (0, 1, 3, 8, 9)]
    [0, 1, 4, 8, 9]
    """
    place = bisect_left(graph_sizes, size)
    return graph_sizes[place] if size and place < len(graph_sizes) else size
