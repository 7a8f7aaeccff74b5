"""What is passed through: which paths, which headers. All that is not named here stays outside.

Of a server, its API is passed through, and a few pages beside it that tell nothing of others and change nothing. Its
other pages, such as vLLM's /sleep, /collective_rpc or /metrics, are not reached, however they are spelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from multidict import CIMultiDict, CIMultiDictProxy

API = "/v1/"
BESIDE = ("/tokenize", "/detokenize", "/version")
# What tenants reach of the API: what keeps nothing that another one could ask for, as stored answers and files are.
FOR_TENANTS = {
    "GET": ("/v1/models",),
    "POST": (
        "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings", "/v1/rerank", "/v1/score",
        "/v1/moderations", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/audio/speech",
        "/v1/images/generations",
    ),
}  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # TRACE would tell the server's key
NEVER = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")  # they change what the server serves
HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip  # RFC 9110, section 7.6.1
OURS = HOP_BY_HOP | {
    "authorization", "x-api-key", "api-key", "cookie", "host", "content-length", "expect", "accept-encoding",
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-real-ip",
}  # fmt: skip  # the latter are what a client says of itself, and a server might believe
NOT_BACK = HOP_BY_HOP | {"content-length", "date", "server", "set-cookie"}
_PLAIN = re.compile(r"/[A-Za-z0-9._~/:@!$&'()*+,;=-]*")


def is_passed(raw_path: str, also: Iterable[str] = ()) -> bool:
    """Whether ``raw_path``, as the client wrote it, is passed through: plainly spelled, and one that is named.

    >>> [is_passed(path) for path in ("/v1/models", "/v1/../metrics", "/v1/%2e%2e/metrics", "/v1//sleep", "/metrics")]
    [True, False, False, False, False]
    """
    if not _PLAIN.fullmatch(raw_path):
        return False
    parts = raw_path.split("/")[1:]
    if any(part in (".", "..") for part in parts) or "" in parts[:-1]:
        return False
    path = raw_path.rstrip("/")
    if path in NEVER:
        return False
    return (raw_path.startswith(API) and path != "/v1") or path in BESIDE or path in also


def is_for_tenants(method: str, path: str, also: Iterable[str] = ()) -> bool:
    """Whether ``path``, which is passed through, is for tenants that are to know nothing of each other.

    >>> [is_for_tenants("GET", path) for path in ("/v1/models", "/v1/models/a", "/v1/files", "/v1/chat/completions")]
    [True, True, False, False]
    """
    path = path.rstrip("/")
    known = FOR_TENANTS.get("GET" if method == "HEAD" else method, ())
    return path in known or (path.startswith("/v1/models/") and method in ("GET", "HEAD")) or path in (*BESIDE, *also)


def to_server(headers: CIMultiDictProxy[str], key: str) -> CIMultiDict[str]:
    """The headers that go to a server: the client's without its key, and with ours; no packed answer is asked for."""
    kept = _kept(headers, OURS)
    kept["Accept-Encoding"] = "identity"
    if key:
        kept["Authorization"] = f"Bearer {key}"
    return kept


def to_client(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The headers that go back to a client."""
    return _kept(headers, NOT_BACK)


def _kept(headers: CIMultiDictProxy[str], without: set[str]) -> CIMultiDict[str]:
    """``headers`` but those ``without``, and those that the sender says are of one hop."""
    gone = without
    if "Connection" in headers:
        gone = without | {name.strip().lower() for name in ",".join(headers.getall("Connection")).split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in gone)


def is_from_here(headers: Mapping[str, str]) -> bool:
    """Whether a request to a gateway without keys was meant for this machine: not sent by a page of another site.

    A page in a browser names its own site as ``Origin``; a name that was pointed at this machine is in ``Host``.

    >>> is_from_here({"Host": "localhost:8080"}), is_from_here({"Host": "evil.example"})
    (True, False)
    """
    places = [headers.get("Host", ""), headers.get("Origin", "").partition("://")[2]]
    return all(not place or _host(place) in ("localhost", "127.0.0.1", "::1") for place in places)


def _host(place: str) -> str:
    return place[1:].partition("]")[0] if place.startswith("[") else place.partition(":")[0]
