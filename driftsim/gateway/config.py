"""The configuration of a gateway, as TOML or options give it; it holds hashes of keys, and no key."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from driftsim.errors import InputError
from driftsim.gateway.keys import check_hash
from driftsim.latency.profile import load_profile
from driftsim.latency.service import service_of
from driftsim.records import Record
from driftsim.request import Tier, is_tier_name
from driftsim.scheduling.admission import Admission
from driftsim.scheduling.around import Service
from driftsim.scheduling.estimators import estimator_name, is_given_the_truth, make_estimator
from driftsim.scheduling.policies import check_needs, check_order, make_policy, needs_of, policy_name
from driftsim.scheduling.routing import router_name
from driftsim.scheduling.shedding import Shed
from driftsim.slo import Slo
from driftsim.tiers import TierRule, TierRules, rules_in_force
from driftsim.urls import server_url

MOST_TENANTS = 10_000
LONGEST_S = 1e6
SECONDS: dict[str, Any] = {"unit": "s"}
ANYBODY = "anybody"  # the tenant of a gateway that asks for no key


def _name(text: str) -> str:
    if not is_tier_name(text):
        raise InputError("a name is printable and not empty")
    return text


def check_url(url: str) -> str:
    """``url`` of a server, without a slash at its end. Raises ``InputError``.

    >>> check_url("http://localhost:8000/v1/")
    'http://localhost:8000/v1'
    """
    parts = server_url(url, "OPENAI_API_KEY")
    return url.rstrip("/") if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1"


def _webhook(url: str) -> str:
    if url:
        server_url(url, "OPENAI_API_KEY")
    return url


def _passed(path: str) -> str:
    if not path.startswith("/"):
        raise InputError("is no path; it looks like /score")
    return path


def _time(default: float, what: str, least: float = 0.0) -> Any:
    return Field(default=default, ge=least, le=LONGEST_S, description=what, json_schema_extra=SECONDS)


Hashes = Annotated[tuple[Annotated[str, AfterValidator(check_hash)], ...], Field(max_length=100)]


class TenantRule(Record):
    """One tenant: its keys, its tier, its share, the limits of its queue and its SLO."""

    name: Annotated[str, AfterValidator(_name)] = Field(description="Name of the tenant, in traces and metrics.")
    keys: Hashes = Field(default=(), description="Hashes of its keys, `sha256:HEX`.")
    tier: Annotated[str, AfterValidator(_name)] = Field(default="standard", description="Tier of its requests.")
    weight: float = Field(
        default=1.0, gt=0, le=1e6, description="Its share under the policies that count service (vtc, drr, sfq, las)."
    )
    requests: int | None = Field(
        default=None,
        ge=0,
        le=10**9,
        description="Most of its requests that wait.",
        json_schema_extra={"unit": "requests"},
    )
    tokens: int | None = Field(
        default=None,
        ge=0,
        le=10**12,
        description="Largest sum of the budgets of its requests that wait.",
        json_schema_extra={"unit": "tokens"},
    )
    ttl_s: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_S,
        description="Longest that one of its requests waits; none: the gateway's.",
        json_schema_extra=SECONDS,
    )
    ttft_s: float | None = Field(
        default=None, gt=0, le=1e9, description="SLO: longest time to first token.", json_schema_extra=SECONDS
    )
    tpot_s: float | None = Field(
        default=None, gt=0, le=1e9, description="SLO: longest time per output token.", json_schema_extra=SECONDS
    )
    e2e_s: float | None = Field(
        default=None, gt=0, le=1e9, description="SLO: longest end-to-end latency.", json_schema_extra=SECONDS
    )

    @property
    def shed(self) -> Shed | None:
        """The limits of its queue."""
        if self.requests is None and self.tokens is None:
            return None
        return Shed(who=f"tenant:{self.name}", requests=self.requests, tokens=self.tokens)

    @property
    def slo(self) -> Slo | None:
        """Its SLO."""
        limits = {name: getattr(self, name) for name in ("ttft_s", "tpot_s", "e2e_s")}
        return None if set(limits.values()) == {None} else Slo(who=f"tenant:{self.name}", **limits)


class GatewayConfig(Record):
    """Everything that a gateway is told."""

    may_hold_keys: ClassVar[bool] = True
    listen: str = Field(default="127.0.0.1:8080", description="Address and port that clients connect to.")
    upstreams: tuple[Annotated[str, AfterValidator(check_url)], ...] = Field(
        default=("http://localhost:8000/v1",), min_length=1, max_length=1000, description="URLs of the servers behind."
    )
    router: Annotated[str, AfterValidator(router_name)] = Field(
        default="least-requests", description="Who of several servers serves what."
    )
    policy: Annotated[str, AfterValidator(policy_name)] = Field(default="fifo", description="Who is released first.")
    estimator: Annotated[str, AfterValidator(estimator_name)] = Field(
        default="ema", description="How output lengths are estimated, and corrected as requests end."
    )
    admission: Admission = Field(default=Admission(), description="Switches of admission.")
    max_in_flight: int | None = Field(
        default=None,
        gt=0,
        le=10**6,
        description="Most requests inside the servers, all together; none: the slots that they tell, or 256 each.",
        json_schema_extra={"unit": "requests"},
    )
    pass_priority: bool = Field(
        default=False,
        description="Whether the policy's key goes with each request as vLLM's `priority`, smaller first; in units of "
        "1/1000 of the key. A client's own `priority` is replaced.",
    )
    separate_caches: bool = Field(
        default=False,
        description="Whether each tenant has a prefix cache of its own at the servers (vLLM's `cache_salt`), so that "
        "no time to first token tells what another tenant has asked. A client's own `cache_salt` divides it further.",
    )
    tiers: TierRules = Field(default=(), description="Rules of the tiers, the most urgent first.")
    tenants: tuple[TenantRule, ...] = Field(
        default=(), max_length=MOST_TENANTS, description="Who may send requests, and on what terms."
    )
    open: bool = Field(
        default=False, description="Whether anybody who can reach the gateway may use it; on loopback alone."
    )
    operators: Hashes = Field(
        default=(), description="Hashes of the keys that may see `/ui` and `/metrics` of a gateway that has keys."
    )
    profile: str | None = Field(default=None, description="Latency profile, for policies that order by seconds.")
    tokenizer: str | None = Field(default=None, description="Model folder whose tokenizer counts prompts.")
    record: str = Field(default="recorded", description="Folder of the traces that are recorded; empty: none are.")
    rotate_s: float = _time(3600.0, "Time after which another trace is begun.", 0.05)
    rotate_mb: float = Field(
        default=64.0,
        gt=0,
        le=1e6,
        description="Size of a journal beyond which another trace is begun.",
        json_schema_extra={"unit": "MB"},
    )
    queue_requests: int = Field(
        default=10_000, gt=0, le=10**6, description="Most requests that wait.", json_schema_extra={"unit": "requests"}
    )
    queue_tokens: int | None = Field(
        default=None, gt=0, le=10**12, description="Largest sum of their budgets.", json_schema_extra={"unit": "tokens"}
    )
    ttl_s: float = _time(600.0, "Longest that a request waits before it is turned away.", 0.001)
    default_max_tokens: int = Field(
        default=4096,
        gt=0,
        le=10**9,
        description="Largest output of a request that sets none, where the server tells no context length.",
        json_schema_extra={"unit": "tokens"},
    )
    max_body_mb: float = Field(
        default=32.0, gt=0, le=1e4, description="Largest body of a request.", json_schema_extra={"unit": "MB"}
    )
    head_s: float = _time(75.0, "Longest from a connection, or its last answer, to the end of a request's head.", 0.01)
    body_s: float = _time(60.0, "Longest that a client takes to send a body.", 0.01)
    answer_s: float = _time(3600.0, "Longest that a server takes for one whole answer.", 0.01)
    silence_s: float = _time(600.0, "Longest that a server sends nothing of an answer.", 0.01)
    stall_s: float = _time(120.0, "Longest that a client reads nothing of an answer.", 0.01)
    drain_s: float = _time(300.0, "Longest that answers may take to end after SIGTERM.")
    health_s: float = _time(2.0, "Time between two looks at a server's health.", 0.01)
    also_pass: tuple[Annotated[str, AfterValidator(_passed)], ...] = Field(
        default=(), description="Paths outside the API's own that are passed through as well, such as `/score`."
    )
    advise_s: float = _time(300.0, "Time between two looks at what other policies would have done; 0: never.")
    window_s: float = _time(3600.0, "Length of the recorded past that these look at.", 1.0)
    webhook: Annotated[str, AfterValidator(_webhook)] = Field(
        default="", description="URL that is told of alarms, as JSON."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [tenant.name for tenant in self.tenants]
        if len(set(names)) < len(names):
            raise InputError(f"two tenants are called {next(one for one in names if names.count(one) > 1)!r:.80}")
        if len(set(self.upstreams)) < len(self.upstreams):
            raise InputError("one server is named twice among the upstreams; name each once")
        hashes = [one for tenant in self.tenants for one in tenant.keys]
        if len({*hashes, *self.operators}) < len(hashes) + len(self.operators):
            raise InputError("one key stands for two tenants or operators; give each its own")
        if is_given_the_truth(self.estimator):
            raise InputError(f"the estimator {self.estimator} is told every output length, which nobody knows live")
        self._check_access(hashes)
        host_and_port(self.listen)
        self.made_policy()
        make_estimator(self.estimator, self.admission, {})
        return self

    def _check_access(self, hashes: list[str]) -> None:
        host, _ = host_and_port(self.listen)
        if self.open and not is_loopback(host):
            raise InputError(f"--open lets anybody in, so it is for loopback alone, not {host}; give tenants keys")
        if self.open and hashes:
            raise InputError("--open asks for no key, but tenants have keys; leave one of the two out")
        if not self.open and not hashes:
            raise InputError(
                "nobody could use this gateway: give [[tenants]] with keys (driftsim serve --new-key), or --open on "
                "loopback"
            )

    @property
    def rules(self) -> tuple[TierRule, ...]:
        """The tiers' rules."""
        return rules_in_force(self.tiers, sorted({tenant.tier for tenant in self.tenants} or {"standard"}))

    @property
    def slos(self) -> tuple[Slo, ...]:
        """The SLOs of the tenants."""
        return tuple(slo for tenant in self.tenants if (slo := tenant.slo) is not None)

    @property
    def shed(self) -> tuple[Shed, ...]:
        """The limits of the queue, those of everybody first."""
        own = (rule for tenant in self.tenants if (rule := tenant.shed) is not None)
        return (Shed(requests=self.queue_requests, tokens=self.queue_tokens), *own)

    def tier_of(self, tenant: TenantRule) -> Tier:
        """The tier of ``tenant``, with its rank."""
        ranks = {rule.name: place for place, rule in enumerate(self.rules, start=1)}
        return Tier(tenant.tier, ranks.get(tenant.tier))

    def made_policy(self) -> Any:
        """A fresh policy. Raises ``InputError`` for one that lacks what it orders by."""
        tiers = sorted({tenant.tier for tenant in self.tenants} or {"standard"})
        check_order(self.policy, self.rules, tiers)
        check_needs(self.policy, self.slos)
        service: Service | None = None
        if self.profile is not None:
            service = service_of(load_profile(Path(self.profile)))
        elif "profile" in needs_of(self.policy):
            raise InputError(f"{self.policy} orders by seconds of service; give profile = FILE (driftsim calibrate)")
        shares = {tenant.name: tenant.weight for tenant in self.tenants if tenant.weight != 1.0}
        made = make_policy(self.policy, self.rules, slos=self.slos, service_s=service, shares=shares)
        if self.pass_priority and not hasattr(made, "key"):
            raise InputError(f"{self.policy} orders by no key, so there is none to pass on; leave pass_priority out")
        return made

    def owners(self) -> Iterator[tuple[str, str]]:
        """Hash and name, of every tenant's key."""
        return ((one, tenant.name) for tenant in self.tenants for one in tenant.keys)


def host_and_port(listen: str) -> tuple[str, int]:
    """The two halves of an address. Raises ``InputError``.

    >>> host_and_port("[::1]:8080"), host_and_port("localhost:0")
    (('::1', 8080), ('localhost', 0))
    """
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port[:6]) < 65536):
        raise InputError(f"listen {listen!r:.80} is no address; it looks like 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to ``host``.

    >>> is_loopback("localhost"), is_loopback("127.0.0.9"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_config(file: Path | None, options: dict[str, Any]) -> GatewayConfig:
    """The configuration in ``file``, in which ``options`` replace keys. Raises ``InputError``."""
    if file is None:
        return GatewayConfig.of(options)
    return GatewayConfig.from_file(file, "configuration", form="toml", prepare=lambda content: content | options)
