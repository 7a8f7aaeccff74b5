"""The URL of a server, as a user names it: it holds no secret, and can be one."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from driftsim.errors import InputError


def server_url(url: str, key: str) -> SplitResult:
    """The parts of ``url``; ``key`` is the environment variable that a secret of the server belongs into.

    Raises ``InputError``, which does not repeat the URL, for one that holds a secret or cannot be a server's.

    >>> server_url("http://localhost:8000/v1", "OPENAI_API_KEY").port
    8000
    """
    if any(sign in url for sign in "@?#"):
        raise InputError(f"holds a password or a query; set {key} in the environment instead")
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets without an address, or a port that is none
        is_one = False
    if not is_one or not all("!" <= sign <= "~" for sign in url):
        raise InputError("is no URL of a server; it looks like http://localhost:8000/v1")
    return parts
