"""Nobody reaches another tenant's queue, key or text, or a page of the server that is not its API."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import tomllib
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from driftsim.errors import InputError
from driftsim.gateway import serving
from driftsim.gateway.access import Access
from driftsim.gateway.config import GatewayConfig, load_config
from driftsim.gateway.front import Refused
from driftsim.gateway.keys import Keyring, hash_of, new_key
from driftsim.gateway.passing import is_passed, to_client, to_server
from driftsim.gateway.recording import check_folder
from tests.gateway.test_relay import run
from tests.gateway.upstream import Door, until

ACME, OTHER, BOSS = "ds-acme-secret-key", "ds-other-secret-key", "ds-operator-secret-key"
TENANTS: dict[str, Any] = {
    "tenants": [
        {"name": "acme", "keys": [hash_of(ACME)], "tier": "premium", "e2e_s": 30.0},
        {"name": "other", "keys": [hash_of(OTHER)], "requests": 1},
    ],
    "operators": [hash_of(BOSS)],
}


def test_a_key_is_its_owners_and_nobody_elses() -> None:
    keys = [new_key() for _ in range(20)]
    ring = Keyring({hash_of(key): str(place) for place, key in enumerate(keys)})
    assert [ring.owner(key) for key in keys] == [str(place) for place in range(20)]
    assert [ring.owner(key) for key in ("", keys[0][:-1], keys[0] + "x", hash_of(keys[0]))] == [None] * 4


@pytest.mark.parametrize("key", ["", "nobody", ACME[:-1], hash_of(ACME), BOSS, "é", "x" * 100_000])
def test_a_wrong_key_is_refused_and_not_sent_on(key: str) -> None:
    async def test(door: Door) -> None:
        headers = {"Authorization": f"Bearer {key}"} if len(key) < 9_000 else {"X-Api-Key": key[:12_000]}
        async with door.client.post(f"{door.url}/v1/completions", data=b"{}", headers=headers) as answer:
            assert answer.status == 401
            assert key not in await answer.text() or not key
        assert not door.upstream.seen

    run(test, **TENANTS)


def test_a_clients_key_never_reaches_the_server_and_the_servers_own_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-servers-own")

    async def test(door: Door) -> None:
        for headers in ({"Authorization": f"Bearer {ACME}"}, {"X-Api-Key": ACME, "Cookie": "a=b"}):
            body = {"messages": [{"role": "user", "content": "hi"}]}
            async with door.client.post(f"{door.url}/v1/chat/completions", json=body, headers=headers) as answer:
                assert answer.status == 200
        for headers in door.upstream.headers:
            assert headers["Authorization"] == "Bearer sk-the-servers-own"
            assert ACME not in str(headers)
            assert "Cookie" not in headers

    run(test, **TENANTS)


def test_no_key_goes_to_a_server_that_has_none() -> None:
    async def test(door: Door) -> None:
        await door.said("hi", ACME)
        async with door.client.get(f"{door.url}/v1/models", headers={"Authorization": f"Bearer {ACME}"}) as answer:
            assert answer.status == 200
        assert not any("Authorization" in headers for headers in door.upstream.headers)

    run(test, **TENANTS)


def test_no_key_and_no_text_is_in_a_log_a_trace_or_a_metric(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    text = "an-unusual-word"

    async def test(door: Door) -> None:
        for kind in ("tell", "status 500", "cut", "half"):
            await asyncio.gather(*(door.said(f"{kind} {text}", ACME, stream=on) for on in (True, False)),
                                 return_exceptions=True)  # fmt: skip
        await door.said(text, "wrong-key-here")
        async with door.client.get(f"{door.url}/metrics", headers={"Authorization": f"Bearer {BOSS}"}) as page:
            seen.append(await page.text())

    seen: list[str] = []
    run(test, record=str(tmp_path / "recorded"), **TENANTS)
    seen += [str(file.read_bytes()) for file in tmp_path.rglob("*") if file.is_file()]
    told = "".join([*seen, *capfd.readouterr(), *(record.getMessage() for record in caplog.records)])
    assert 'tenant="acme"' in told
    for secret in (text, ACME, OTHER, BOSS, "wrong-key-here"):
        assert secret not in told, secret


@pytest.mark.parametrize("path", ["/metrics", "/ui", "/ui/events"])
def test_only_an_operator_sees_all_tenants(path: str) -> None:
    async def test(door: Door) -> None:
        packed = base64.b64encode(f"x:{BOSS}".encode()).decode()
        asked = {"": 401, f"Bearer {ACME}": 401, f"Basic {packed[:-4]}": 401, f"Bearer {BOSS}": 200,
                 f"Basic {packed}": 200}  # fmt: skip
        for told, status in asked.items():
            async with door.client.get(door.url + path, headers={"Authorization": told} if told else {}) as answer:
                assert answer.status == status, told

    run(test, **TENANTS)


@pytest.mark.parametrize(
    "path",
    [
        "/metrics/", "/sleep", "/v1", "/v1/../metrics", "/v1/%2e%2e/metrics", "/v1/..%2fmetrics", "/v1//x", "/",
        "//v1/models", "/v1/./models", "/V1/models", "/v1/load_lora_adapter", "/v1/unload_lora_adapter/",
        "/collective_rpc", "/v1\\..\\x", "/v1/%6dodels", "/server_info", "/v1/a/../../sleep", "/ui/../sleep",
        "/v1/models%00", "/v1/..;/sleep%3f",
    ],
)  # fmt: skip
def test_no_page_beside_the_api_is_reached_however_it_is_spelled(path: str) -> None:
    assert not is_passed(path)

    async def test(door: Door) -> None:
        for method in ("GET", "POST"):
            said = await raw(door, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 404 " in said.split(b"\r\n")[0]
        assert not door.upstream.others

    run(test)


async def raw(door: Door, text: str) -> bytes:
    """What comes back for exactly this ``text``."""
    host, port = door.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text.encode())
    try:
        return await asyncio.wait_for(reader.read(4096), 20)
    finally:
        writer.close()


def test_other_pages_of_the_api_are_passed_through_with_what_they_were_asked() -> None:
    async def test(door: Door) -> None:
        for path in ("/v1/embeddings?a=1&b=%20", "/v1/responses", "/score"):
            async with door.client.post(door.url + path, data=b"x") as answer:
                assert (answer.status, (await answer.json())["path"]) == (418, path)
        assert door.upstream.others == ["/v1/embeddings?a=1&b=%20", "/v1/responses", "/score"]

    run(test, also_pass=["/score"])


@pytest.mark.parametrize(
    "text",
    [
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nabcde",
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_request_that_two_servers_may_read_in_two_ways_reaches_none(text: str) -> None:
    async def test(door: Door) -> None:
        said = await raw(door, text.replace("Host: a", "Host: localhost"))
        assert said.startswith(b"HTTP/1.1 400") or said.startswith(b"HTTP/1.0 400"), said[:80]
        assert not door.upstream.seen

    run(test)


def test_headers_of_one_hop_stay_there() -> None:
    told = CIMultiDictProxy(CIMultiDict([
        ("Connection", "keep-alive, X-Secret"), ("X-Secret", "1"), ("Upgrade", "h2c"), ("TE", "trailers"),
        ("X-Kept", "2"), ("X-Kept", "3"), ("Host", "evil"), ("Transfer-Encoding", "chunked"),
    ]))  # fmt: skip
    assert list(to_server(told, "").items()) == [("X-Kept", "2"), ("X-Kept", "3"), ("Accept-Encoding", "identity")]
    back = CIMultiDictProxy(CIMultiDict([("Content-Length", "5"), ("Set-Cookie", "a"), ("Content-Type", "a/b")]))
    assert list(to_client(back).items()) == [("Content-Type", "a/b")]


def test_without_keys_a_page_of_another_site_is_refused() -> None:
    async def test(door: Door) -> None:
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null://x"}):
            async with door.client.get(f"{door.url}/v1/models", headers=headers) as answer:
                assert answer.status == 403, headers
            async with door.client.get(f"{door.url}/metrics", headers=headers) as answer:
                assert answer.status == 403, headers

    run(test)


def test_a_body_is_neither_too_large_nor_too_slow() -> None:
    async def test(door: Door) -> None:
        async with door.client.post(f"{door.url}/v1/completions", data=b"x" * 3_000) as answer:
            assert answer.status == 413
        said = await raw(door, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
        assert said.startswith(b"HTTP/1.1 408")
        assert not door.upstream.seen

    run(test, max_body_mb=0.002, body_s=0.2)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"messages": 5, "prompt": {"a": [1]}}',
    ],
)
def test_a_hostile_body_costs_nothing_but_itself(body: bytes) -> None:
    async def test(door: Door) -> None:
        async with door.client.post(f"{door.url}/v1/completions", data=body) as answer:
            assert answer.status in (400, 500)  # the last is JSON, which the test's server fails at
        assert (await door.said("hi"))[0] == 200

    run(test)


def test_a_tenants_limits_are_its_own() -> None:
    async def test(door: Door) -> None:
        held = [asyncio.create_task(door.said("hold x", OTHER))]
        await until(lambda: door.front.gate.inside)
        held.append(asyncio.create_task(door.said("hold x", OTHER)))
        await until(lambda: door.front.gate.waiting)
        async with door.post("hold x", OTHER) as answer:
            told = json.loads(await answer.read())["error"]
            assert (answer.status, told["code"]) == (429, "queue_full")
            assert float(answer.headers["retry-after-ms"]) / 1000 <= int(answer.headers["Retry-After"])
        held.append(asyncio.create_task(door.said("hold x", ACME)))
        await until(lambda: len(door.front.gate.waiting) == 2)
        door.upstream.let("x")
        assert [status for status, _ in await asyncio.gather(*held)] == [200] * 3

    run(test, max_in_flight=1, **TENANTS)


def test_keys_are_read_anew_and_nobody_is_dropped() -> None:
    async def test(door: Door) -> None:
        held = asyncio.create_task(door.said("hold x", ACME))
        await until(lambda: door.front.gate.inside)
        config = door.front.config
        left = [tenant for tenant in config.tenants if tenant.name == "other"]
        door.gateway.reload(config.changed(tenants=tuple(left)))
        assert (await door.said("hi", ACME))[0] == 401
        assert (await door.said("hi", OTHER))[0] == 200
        door.upstream.let("x")
        assert (await held)[0] == 200

    run(test, **TENANTS)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({}, "nobody could use"),
        ({"open": True, "listen": "0.0.0.0:80"}, "for loopback alone"),
        ({"open": True, "listen": "80"}, "no address"),
        ({"tenants": [{"name": "a", "keys": ["ds-plain-key"]}]}, "written down as its hash"),
        ({"tenants": [{"name": "a", "keys": [hash_of("k")]}] * 2}, "two tenants"),
        ({"tenants": [{"name": "a", "keys": [hash_of("k")]}, {"name": "b", "keys": [hash_of("k")]}]}, "one key"),
        ({"open": True, "tenants": [{"name": "a", "keys": [hash_of("k")]}]}, "asks for no key"),
        ({"open": True, "estimator": "oracle"}, "nobody knows live"),
        ({"open": True, "policy": "wspt"}, "seconds of service"),
        ({"open": True, "policy": "edf"}, "orders by SLOs"),
        ({"open": True, "policy": "vtc", "pass_priority": True}, "orders by no key"),
        ({"open": True, "upstreams": ["http://me:ds-plain-key@host/v1"]}, "holds a password"),
        ({"open": True, "webhook": "http://host/?token=ds-plain-key"}, "holds a password"),
        ({"open": True, "upstreams": ["localhost:8000"]}, "no URL"),
        ({"open": True, "upstreams": ["http://host:port/v1"]}, "no URL"),
        ({"open": True, "upstreams": ["http://host:99999/v1"]}, "no URL"),
        ({"open": True, "upstreams": ["http://host:0/v1"]}, "no URL"),
        ({"open": True, "upstreams": ["http://a host/v1"]}, "no URL"),
        ({"open": True, "upstreams": ["http://[::1/v1"]}, "no URL"),
        ({"open": True, "upstreams": ["http://host/v1", "http://host/v1/"]}, "named twice"),
        ({"open": True, "also_pass": ["score"]}, "is no path"),
        ({"open": True, "api_key": "ds-plain-key"}, "unknown key"),
        ({"tenants": [{"name": "a", "key": "ds-plain-key"}]}, "unknown key; the nearest is keys"),
        ({"tenants": {"a": {"keys": ["ds-plain-key"]}}}, "tenants"),
        ({"tenants": "ds-plain-key"}, "tenants"),
        ({"operators": ["ds-plain-key"]}, "written down as its hash"),
        ({"open": True, "health_s": -1}, r"got -1"),
    ],
)
def test_a_wrong_configuration_is_refused_with_a_reason_and_no_key(told: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why) as refused:
        GatewayConfig.of(told)
    assert "plain" not in str(refused.value)


def test_a_key_in_a_wrong_place_of_a_file_is_not_repeated(tmp_path: Path) -> None:
    for text in ("keys = ['ds-plain-key']\nname = 'a'", "name = 'a'\nkey = 'ds-plain-key'", "name = ['ds-plain-key']"):
        (tmp_path / "g.toml").write_text(f"[[tenants]]\n{text}\n")
        with pytest.raises(InputError, match=r"g\.toml: tenants\.0") as refused:
            load_config(tmp_path / "g.toml", {})
        assert "plain" not in str(refused.value)


@pytest.mark.parametrize("place", ["file", "file/below", "trace", "trace/below", "a\0b"])
def test_a_place_that_cannot_be_recorded_into_is_said_before_anybody_is_served(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "trace").mkdir()
    for name in ("header.json", "requests.parquet"):
        (tmp_path / "trace" / name).write_text("")
    told = {"open": True, "record": str(tmp_path / place), "listen": "127.0.0.1:0"}
    with pytest.raises((InputError, OSError), match="is a file|cannot be written|lies in the trace|no name"):
        asyncio.run(asyncio.wait_for(serving.run(GatewayConfig.of(told), None, {}, print), 3))
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "one")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["file", "header.json", "requests.parquet", "trace"]


def test_a_file_and_options_make_one_configuration(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f'policy = "sjf"\n[[tenants]]\nname = "a"\nkeys = ["{hash_of("k")}"]\n')
    config = load_config(file, {"policy": "fifo"})
    assert (config.policy, config.tenants[0].name) == ("fifo", "a")
    with pytest.raises(InputError, match="unknown key"):
        load_config(file, {"polcy": "fifo"})


def test_who_may_look_needs_no_tenant() -> None:
    access = Access(GatewayConfig.of(TENANTS | {"record": ""}))
    assert access.tenant({"X-Api-Key": ACME}) == "acme"
    access.check_operator({"Authorization": f"Bearer {BOSS}"})
    with pytest.raises(Refused):
        access.tenant({"Authorization": f"Bearer {BOSS}"})


def test_the_configuration_that_the_guide_shows_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guides" / "gateway.md").read_text()
    text = page.partition('```toml title="gateway.toml"\n')[2].partition("```")[0]
    config = GatewayConfig.of(tomllib.loads(text))
    assert [tenant.name for tenant in config.tenants] == ["acme", "nightly"]
