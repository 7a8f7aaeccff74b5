"""However much ends at once, what comes in goes first, and everybody has a turn."""

from __future__ import annotations

import asyncio

from driftsim.gateway.turns import Turns


def test_few_go_on_in_one_pass_and_in_the_order_in_which_they_came() -> None:
    went: list[tuple[int, int]] = []  # pass and number
    passes = 0

    async def goes(turns: Turns, number: int) -> None:
        await turns.take()
        went.append((passes, number))

    async def whole() -> None:
        nonlocal passes
        turns = Turns(3)
        tasks = [asyncio.create_task(goes(turns, number)) for number in range(20)]
        while not all(task.done() for task in tasks):
            passes += 1
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.wait_for(goes(turns, 20), 5)

    asyncio.run(whole())
    assert [number for _, number in went] == list(range(21))
    assert max(sum(at == one for at, _ in went) for one in range(passes + 1)) == 3


def test_who_is_gone_takes_no_turn() -> None:
    async def whole() -> None:
        turns = Turns(1)
        tasks = [asyncio.create_task(turns.take()) for _ in range(9)]
        await asyncio.sleep(0)
        for task in tasks[1:8]:
            task.cancel()
        await asyncio.wait_for(tasks[8], 5)
        assert [task.cancelled() for task in tasks] == [False, *[True] * 7, False]

    asyncio.run(whole())
