"""The page in a real Chromium: a phone's width and a desk's, light and dark, by keyboard, and asking nobody else."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from driftsim.gateway.keys import hash_of
from tests.gateway.test_relay import run
from tests.gateway.test_watching import EVIL
from tests.gateway.upstream import Door, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.nightly, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]
SIZES = [(390, 844, "light"), (390, 844, "dark"), (1400, 900, "light"), (1400, 900, "dark")]


class Browser:
    """One page of a browser, by its debugging protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.number, self.events = socket, 0, list[dict[str, Any]]()

    async def do(self, method: str, **told: Any) -> dict[str, Any]:
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": told})
        while True:
            said = await self.socket.receive_json()
            if said.get("id") == self.number:
                found: dict[str, Any] = said["result"]
                return found
            self.events.append(said)

    async def value(self, expression: str) -> Any:
        found = await self.do("Runtime.evaluate", expression=f"JSON.stringify({expression})")
        return json.loads(found["result"]["value"])


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Browser]:
    """A headless Chromium with an empty page."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={folder}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        port = folder / "DevToolsActivePort"
        await until(lambda: port.is_file() and port.read_text().count("\n"), 60)
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://127.0.0.1:{port.read_text().split()[0]}/json") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
            async with client.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Browser(socket)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()


def test_the_page_is_whole_at_every_size_and_by_keyboard(tmp_path: Path) -> None:
    tenants = [{"name": EVIL, "tier": "premium", "keys": [hash_of("k")], "e2e_s": 9.0}]

    async def test(door: Door) -> None:
        await asyncio.gather(*(door.said("detailed report", "k", stream=True) for _ in range(30)))
        watching = door.gateway.watching
        assert watching is not None
        watching.advised({"lines": [EVIL], "rows": [row()], "profile": {}})
        async with browser(tmp_path / "profile") as page:
            for domain in ("Page", "Network", "Runtime", "Log"):
                await page.do(f"{domain}.enable")
            await page.do("Network.setExtraHTTPHeaders", headers={"Authorization": "Bearer boss"})
            for width, height, scheme in SIZES:
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
                await page.do("Emulation.setDeviceMetricsOverride", **size)
                media = [{"name": "prefers-color-scheme", "value": scheme}]
                await page.do("Emulation.setEmulatedMedia", features=media)
                await page.do("Page.navigate", url=f"{door.url}/ui")
                async with asyncio.timeout(30):
                    while not await page.value("document.querySelectorAll('#tenants td').length"):
                        await asyncio.sleep(0.05)
                assert await page.value("document.documentElement.scrollWidth") <= width
                assert await page.value("document.images.length + document.scripts.length") == 1
                assert await page.value("document.querySelector('#tenants td').textContent") == EVIL
                assert EVIL in await page.value("document.getElementById('advice').textContent")
                ground = await page.value("getComputedStyle(document.body).backgroundColor")
                assert (int(ground[4:].split(",")[0]) < 100) == (scheme == "dark")
            for name in ("rawKeyDown", "keyUp"):
                await page.do("Input.dispatchKeyEvent", type=name, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            assert await page.value("document.activeElement.className") == "skip"
            asked = {
                one["params"]["request"]["url"] for one in page.events if one["method"] == "Network.requestWillBeSent"
            }
            assert asked == {door.url + path for path in ("/ui", "/ui/page.css", "/ui/page.js", "/ui/events")}
            assert not [one for one in page.events if one["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]

    run(test, tenants=tenants, operators=[hash_of("boss")])


def row() -> dict[str, Any]:
    """A row of advice."""
    numbers = {
        f"{metric}_{end}": -0.2
        for metric in ("e2e_mean", "e2e_p99", "ttft_mean", "ttft_p99")
        for end in ("change", "low", "high")
    }
    tiers = {EVIL: {"value": -0.1, "low": None, "high": None}}
    return {"policy": EVIL, "estimator": "ema", "beyond_doubt": True, "tiers": tiers, **numbers}
