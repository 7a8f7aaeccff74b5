"""The decoding sequences, advanced all at once: n steps cost O(block size), a join or a leave O(log sequences).

A decoding sequence computes one token a step. So its finish is a step number known when it joins, its context is the
step number plus a constant, and it needs a new KV block whenever that sum is a multiple of the block size.
"""

from __future__ import annotations

from heapq import heappop, heappush

from driftsim.engine.sequence import Sequence, blocks_for


class DecodePool:
    """Who decodes; ``step`` counts the decode steps so far, ``context_tokens`` is what the next one reads."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.step = 0
        self.size = 0
        self.context_tokens = 0
        # Heap of (last step, order of admission); it may hold some that have left, but not at its top.
        self._ends: list[tuple[int, int, Sequence]] = []
        self._claims: list[dict[Sequence, None]] = [{} for _ in range(block_size)]  # by step number modulo block size
        self._counts = [0] * block_size

    def join(self, sequence: Sequence) -> None:
        """From the next step on, ``sequence`` decodes until it has shown its target."""
        step, computed = self.step, sequence.computed
        sequence.offset = computed - step
        sequence.ends = ends = step + sequence.target - sequence.shown
        heappush(self._ends, (ends, sequence.number, sequence))
        place = (step - computed) % self.block_size
        self._claims[place][sequence] = None
        self._counts[place] += 1
        self.size += 1
        self.context_tokens += computed + 1

    def leave(self, sequence: Sequence) -> None:
        """``sequence`` decodes no more; what it has computed and shown is written back to it."""
        self._take_out(sequence)
        ends = self._ends
        while ends and ends[0][0] != ends[0][2].ends:
            heappop(ends)

    def _take_out(self, sequence: Sequence) -> None:
        step, offset = self.step, sequence.offset
        sequence.computed = computed = step + offset
        sequence.shown = sequence.target - sequence.ends + step
        sequence.ends = -1
        place = -offset % self.block_size
        del self._claims[place][sequence]
        self._counts[place] -= 1
        self.size -= 1
        self.context_tokens -= computed + 1

    def held(self, sequence: Sequence) -> int:
        """The KV blocks that a decoding ``sequence`` holds."""
        return blocks_for(self.step + sequence.offset, self.block_size)

    def advance(self, steps: int) -> int:
        """Let everybody decode ``steps`` tokens; returns the KV blocks that this took."""
        step = self.step
        taken = self._counts[step % self.block_size] if steps == 1 else self.blocks_over(steps)
        self.step = step + steps
        self.context_tokens += steps * self.size
        return taken

    def claims(self) -> dict[Sequence, None]:
        """Those who need a block for the next step."""
        return self._claims[self.step % self.block_size]

    def claimed(self) -> int:
        """How many they are."""
        return self._counts[self.step % self.block_size]

    def blocks_over(self, steps: int) -> int:
        """New KV blocks that the next ``steps`` steps need."""
        size, counts = self.block_size, self._counts
        begin = self.step % size
        end = begin + steps % size
        taken = steps // size * self.size + sum(counts[begin:end])
        return taken + sum(counts[: end - size]) if end > size else taken

    def steps_within(self, free: int, steps: int) -> int:
        """How many of the next ``steps`` steps find the blocks they need among ``free``."""
        if self.size * (steps // self.block_size + 1) <= free or self.blocks_over(steps) <= free:
            return steps
        rounds, left = divmod(free, self.size)
        done = rounds * self.block_size
        while (need := self._counts[(self.step + done) % self.block_size]) <= left:
            left -= need
            done += 1
        return done

    def steps_to_finish(self) -> int:
        """Steps until the first of them ends. Needs somebody who decodes."""
        return self._ends[0][0] - self.step

    def take_finished(self) -> list[Sequence]:
        """Those whose last step was the one just made leave, in order of admission."""
        finished: list[Sequence] = []
        ends, step = self._ends, self.step
        while ends:
            end, _, sequence = ends[0]
            if end == sequence.ends:
                if end != step:
                    break
                finished.append(sequence)
                self._take_out(sequence)
            heappop(ends)  # it leaves now, or has left since
        return finished
