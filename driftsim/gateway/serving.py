"""Running a gateway: it listens, reads its tenants anew on SIGHUP, and ends in good order on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from driftsim.errors import InputError
from driftsim.gateway.app import LONGEST_OF_CLIENTS, MOST_OF_CLIENTS, Gateway
from driftsim.gateway.collecting import collect, take_over
from driftsim.gateway.config import GatewayConfig, host_and_port, load_config
from driftsim.gateway.front import Front
from driftsim.gateway.recording import check_folder, close_leftovers
from driftsim.gateway.watching import Watching

LAST_S = 5.0  # that connections have to close
Say = Callable[[str], None]


async def started(gateway: Gateway, listen: str) -> tuple[web.AppRunner, str]:
    """Listen; the runner, and where. Raises ``InputError`` where the address cannot be had."""
    host, port = host_and_port(listen)
    runner = web.AppRunner(
        gateway.app(), handler_cancellation=True, access_log=None, max_line_size=LONGEST_OF_CLIENTS,
        max_field_size=LONGEST_OF_CLIENTS, max_headers=MOST_OF_CLIENTS, auto_decompress=False, shutdown_timeout=LAST_S,
        keepalive_timeout=gateway.front.config.head_s, logger=_discreet(),
    )  # fmt: skip
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=4096).start()
    except OSError as error:
        await runner.cleanup()
        raise InputError(f"listen {listen}: cannot be had ({error.strerror or error}); choose another port") from None
    real = runner.addresses[0]
    shown = f"[{host}]" if ":" in host else host
    return runner, f"http://{shown}:{real[1]}"


def _discreet() -> logging.Logger:
    """A log that says what failed and where, and nothing of what a client sent, which may be its key."""
    logger = logging.getLogger("driftsim.gateway")
    logger.addFilter(_without_content)  # once, however often
    return logger


def _without_content(record: logging.LogRecord) -> bool:
    kind, _, place = record.exc_info or (None, None, None)
    if kind is not None and issubclass(kind, HttpProcessingError):  # no HTTP: its client is told
        return False
    if kind is not None:
        where = "".join(traceback.format_tb(place))
        record.msg, record.args = f"a request failed: {kind.__name__}\n{where}", ()
        record.exc_info = record.exc_text = None
    return True


async def run(config: GatewayConfig, file: Path | None, options: dict[str, Any], say: Say) -> bool:
    """Serve until SIGTERM or SIGINT; whether all who were let in came to their end."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    if config.record:
        check_folder(Path(config.record))
        closed = await asyncio.to_thread(close_leftovers, Path(config.record))
        if closed:
            say(f"{closed} traces of an earlier run were closed")
    gateway = made(config, say)
    runner, place = await started(gateway, config.listen)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, gateway, file, options, say)
    take_over()
    front = gateway.front
    collecting = loop.create_task(collect(lambda: not (front.gate.waiting or front.gate.inside)))
    limit = "no limit" if front.limit is None else f"at most {front.limit}"
    say(f"{place} serves {', '.join(config.upstreams)}: {config.policy}, {config.estimator}, {limit} in flight")
    say(f"learned from {front.learned} recorded requests; page {place}/ui, metrics {place}/metrics")
    await stop.wait()
    say("shutting down: nobody is let in, answers end")
    ended = await gateway.drain()
    collecting.cancel()
    await runner.cleanup()
    for problem in front.recorder.problems:
        say(f"not recorded: {problem}")
    return ended


def made(config: GatewayConfig, say: Say = lambda line: None) -> Gateway:
    """A gateway with all its parts."""
    front = Front(config)
    return Gateway(config, front, Watching(front, say))


def _reload(gateway: Gateway, file: Path | None, options: dict[str, Any], say: Say) -> None:
    try:
        gateway.reload(load_config(file, options))
    except InputError as error:  # the keys that hold go on
        say(f"not reloaded: {error}")
        return
    say(f"reloaded: {len(gateway.front.tenants)} tenants; all but tenants and limits of the queue needs a restart")


def serve(config: GatewayConfig, file: Path | None, options: dict[str, Any], say: Say) -> bool:
    """Run a gateway until it is told to stop; whether all who were let in came to their end."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(run(config, file, options, say))


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop's, which hands on what comes in before it lets tasks run; asyncio's where there is none."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
