"""Tests of a gateway run on the loop that it is served on; those of what it passes on run on asyncio's own as well."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from driftsim.gateway.serving import new_loop

ON_BOTH = ("test_relay", "test_links")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in ON_BOTH:
        metafunc.parametrize("loop", ["served", "asyncio"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """What ``asyncio.run`` runs on."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(main)

    with pytest.MonkeyPatch.context() as patch:
        if getattr(request, "param", "served") == "served":
            patch.setattr(asyncio, "run", run)
        yield
