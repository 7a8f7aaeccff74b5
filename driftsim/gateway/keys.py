"""Keys of clients: random, known here by their SHA-256 alone, and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping

from driftsim.errors import InputError

PREFIX = "sha256:"
LONGEST_KEY = 512  # characters of what a client may present
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def new_key() -> str:
    """A fresh key of 256 random bits.

    >>> len(new_key()), new_key() == new_key()
    (46, False)
    """
    return f"ds-{secrets.token_urlsafe(32)}"


def hash_of(key: str) -> str:
    """What a configuration holds in place of ``key``. A random key needs no salt and no slow hash.

    >>> hash_of("ds-example")
    'sha256:96702363972917d63e60595522b4b57007ee068ba460753151a79e73319a7e99'
    """
    return PREFIX + hashlib.sha256(key.encode()).hexdigest()


def check_hash(text: str) -> str:
    """``text``, if it is a hash of a key. Raises ``InputError``, without repeating what may be the key itself."""
    if not _HASH.fullmatch(text):
        raise InputError("a key is written down as its hash, sha256:HEX; make both with driftsim serve --new-key")
    return text


def presented(headers: Mapping[str, str]) -> str:
    """The key that a client presents, as ``Authorization: Bearer KEY`` or ``X-Api-Key``; "" where it presents none."""
    kind, _, key = headers.get("Authorization", "").partition(" ")
    found = key.strip() if kind.lower() == "bearer" else headers.get("X-Api-Key", "")
    return found if len(found) <= LONGEST_KEY else ""


class Keyring:
    """Who has which key, by the hashes alone."""

    def __init__(self, owners: Mapping[str, str]) -> None:
        self._owners = {hash_of_key.encode(): owner for hash_of_key, owner in owners.items()}

    def owner(self, key: str) -> str | None:
        """Whose ``key`` it is; None for nobody's. All hashes are looked at, however early one fits."""
        asked, found = hash_of(key).encode(), None
        for known, owner in self._owners.items():
            if hmac.compare_digest(known, asked):
                found = owner
        return found if key else None
