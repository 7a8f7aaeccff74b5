"""Who may do what: tenants ask for answers, operators look, and without keys only this machine does either."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from driftsim.gateway.config import ANYBODY, GatewayConfig
from driftsim.gateway.front import Refused
from driftsim.gateway.keys import Keyring, presented
from driftsim.gateway.passing import is_from_here


class Access:
    """The keys in force."""

    def __init__(self, config: GatewayConfig) -> None:
        self.reload(config)

    def reload(self, config: GatewayConfig) -> None:
        """Go by the keys of ``config``."""
        self._open = config.open
        self._tenants = Keyring(dict(config.owners()))
        self._operators = Keyring(dict.fromkeys(config.operators, "operator"))

    def tenant(self, headers: Mapping[str, str]) -> str:
        """The tenant that sends a request with these ``headers``. Raises ``Refused``."""
        if self._open:
            self._check_from_here(headers)
            return ANYBODY
        owner = self._tenants.owner(presented(headers))
        if owner is None:
            raise Refused(401, "invalid_api_key", "no tenant has this key")
        return owner

    def check_operator(self, headers: Mapping[str, str]) -> None:
        """Raise ``Refused`` unless who sends these ``headers`` may look at all tenants."""
        if self._open:
            self._check_from_here(headers)
        elif self._operators.owner(presented(headers) or _password(headers)) is None:
            raise Refused(401, "operator_only", "the key of an operator is needed, as a bearer or as a password")

    @staticmethod
    def _check_from_here(headers: Mapping[str, str]) -> None:
        if not is_from_here(headers):
            raise Refused(403, "not_from_here", "a gateway without keys serves this machine alone")


def _password(headers: Mapping[str, str]) -> str:
    """The password of basic authentication, which browsers ask for; "" where there is none."""
    kind, _, packed = headers.get("Authorization", "").partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(packed, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
