"""What the servers tell of themselves, for the header of a trace and the limit in flight."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp

from driftsim.gateway.front import Front
from driftsim.live import told as server
from driftsim.live.pages import Page
from driftsim.trace.settings import EngineSettings

ASK_S = 5.0
MOST_TOLD = 10_000_000  # bytes of a page


async def describe(front: Front, session: aiohttp.ClientSession, key: str) -> None:
    """Ask the first server that answers for its model and its settings; nothing changes where none does."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    for one in front.pool.upstreams:
        listed = (await _page(session, f"{one.base}/models", headers)).json()
        models = listed.get("data") if isinstance(listed, dict) else None
        known = [entry for entry in models or () if isinstance(entry, dict) and server.is_name(entry.get("id"))]
        if not known:
            continue
        chosen, told = known[0], dict[str, Any]()
        if (length := server.counted(chosen.get("max_model_len"))) > 1:
            told["max_model_len"] = length
        told |= server.cache_settings(await _page(session, f"{one.root}/metrics", headers))
        version = (await _page(session, f"{one.root}/version", headers)).json()
        if isinstance(version, dict) and isinstance(version.get("version"), str):
            told["version"] = version["version"][:100]
        settings = EngineSettings.guessed(told, "openai")
        here = one.root.rpartition(":")[0].endswith(("//localhost", "//127.0.0.1", "//[::1]"))
        port = one.root.rpartition(":")[2]
        own = server.listening(int(port)) if here else ()
        front.described(server.as_usual(settings, chosen.get("owned_by") == "vllm", own), chosen["id"])
        return


async def _page(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> Page:
    with suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with asyncio.timeout(ASK_S), session.get(url, headers=headers, allow_redirects=False) as answer:
            content = await answer.content.read(MOST_TOLD)
            return Page(answer.status, content.decode(errors="replace"))
    return Page(0, "")
