"""Who may do what: permissions, the roles that bundle them, and whoever has one: API keys with their scopes, and users.

A key is `ts_<id>_<secret>`: 256 random bits, shown once and kept as SHA-256. The id is in the open, and finds the key;
the secret decides, compared in constant time. Nothing here does I/O; `govern.directory` keeps what was decided.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args

from tallystick.clock import Clock
from tallystick.core import timestamp
from tallystick.core.content import is_event_type
from tallystick.core.event import RESERVED_PREFIX
from tallystick.core.moment import Moment
from tallystick.errors import DeniedError, RejectedError
from tallystick.ids import random_bytes
from tallystick.limits import ENTITY_ID_CHARACTERS_MAX, KEY_NAME_CHARACTERS_MAX, KEY_SCOPES_MAX

Permission: TypeAlias = Literal[
    "Read",
    "Write",
    "Metrics",
    "Scrape",
    "ManageSchemas",
    "ManagePipelines",
    "ManageTenants",
    "Export",
    "Erase",
    "Admin",
]
PERMISSIONS: Final[tuple[Permission, ...]] = get_args(Permission)

ROLES: Final[Mapping[str, frozenset[Permission]]] = MappingProxyType(
    {
        "Admin": frozenset(PERMISSIONS),
        "Developer": frozenset(("Read", "Write", "Metrics", "Scrape", "ManagePipelines")),
        "ReadOnly": frozenset(("Read", "Metrics", "Scrape")),
        "ServiceAccount": frozenset(("Read", "Write")),
        "Auditor": frozenset(("Read", "Metrics", "Scrape", "Export")),
        "Metrics": frozenset(("Scrape",)),
    }
)
"""Nobody but the Admin both writes and exports: who makes evidence does not hand it over. What Prometheus has reads the
service's own figures, and no record's."""

OPERATORS_ROLES: Final = ("Admin", "Metrics")
"""What operators' keys may be."""

_TEXT: Final = re.compile(r"ts_([0-9a-f]{16})_([0-9a-f]{64})", re.ASCII)
_MAPPED_BITS: Final = 96
"""Of an IPv6 address before the IPv4 address that is in it."""

_NOBODY: Final = bytes(32)
_SECRET_BYTES: Final = 32

Network: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What of a tenant's ledger a key reaches; an empty member is no bound. Any of each must fit."""

    event_types: tuple[str, ...] = ()
    """Exact, or `prefix.*`."""
    entity_prefixes: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(
        cls, *, event_types: Iterable[str] = (), entity_prefixes: Iterable[str] = (), networks: Iterable[str] = ()
    ) -> Scope:
        """A scope from texts. Raises `RejectedError` with the member."""
        types, prefixes = _bounded(event_types, "event_types"), _bounded(entity_prefixes, "entity_prefixes")
        for pattern in types:
            if not is_event_type(pattern.removesuffix(".*")):
                cure = "give an event type, or prefix.*"
                raise RejectedError(f"{pattern[:60]!r} is no event type", place="event_types", cure=cure)
        for prefix in prefixes:
            if not 0 < len(prefix) <= ENTITY_ID_CHARACTERS_MAX:
                raise RejectedError("a prefix is empty or too long", place="entity_prefixes")
        try:
            nets = tuple(_network(text) for text in _bounded(networks, "networks"))
        except ValueError as error:
            cure = "give addresses or networks such as 10.0.0.0/8"
            raise RejectedError(str(error), place="networks", cure=cure) from error
        return cls(event_types=types, entity_prefixes=prefixes, networks=nets)

    @property
    def is_whole(self) -> bool:
        """Whether all records are in it."""
        return not (self.event_types or self.entity_prefixes)

    @property
    def terms(self) -> tuple[str, ...]:
        """The same as terms that can be signed (SPEC 10.9): of each name any, and of both names one."""
        types = (f"event_type={pattern}" for pattern in self.event_types)
        return (*types, *(f"entity_id^={prefix}" for prefix in self.entity_prefixes))

    def takes(self, event_type: str, entity_id: str) -> bool:
        """Whether an event, or a record, is in it."""
        if self.entity_prefixes and not entity_id.startswith(self.entity_prefixes):
            return False
        return not self.event_types or any(
            event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else event_type == pattern
            for pattern in self.event_types
        )

    def admits(self, address: str | None) -> bool:
        """Whether a caller may be at this address."""
        if not self.networks:
            return True
        try:
            caller: IPv4Address | IPv6Address = ip_address(address or "")
        except ValueError:
            return False
        mapped = getattr(caller, "ipv4_mapped", None)
        return any((mapped or caller) in network for network in self.networks)

    def to_json(self) -> dict[str, list[str]]:
        """As an event has it."""
        return {
            "entity_prefixes": [*self.entity_prefixes],
            "event_types": [*self.event_types],
            "networks": [str(network) for network in self.networks],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whoever may call: in which tenant, as what, and until when. It is a `Key` or a `User`, never this itself."""

    tenant: str
    role: str
    scope: Scope
    expires_at: str | None
    operator: bool = False
    """Whether it is of those who run the deployment: only then its role may manage tenants, and see all of them."""
    entity: str = field(init=False)
    """What an event of the access trail is about that tells what it did."""
    actor: dict[str, str] = field(init=False, compare=False)
    """Who acts, for events that name nobody."""

    def may(self, permission: Permission) -> bool:
        """Whether the role has a permission. `ManageTenants` is the operators' only."""
        return permission in ROLES[self.role] and (permission != "ManageTenants" or self.operator)

    def is_over(self, clock: Clock) -> bool:
        """Whether its time has come."""
        return self.expires_at is not None and timestamp.render(clock()) >= self.expires_at

    def to_json(self) -> dict[str, Any]:
        """As it is told of: never with a secret, nor with what is kept of one."""
        return {
            "tenant": self.tenant,
            "role": self.role,
            "operator": self.operator,
            "scope": self.scope.to_json(),
            "expires_at": self.expires_at,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Principal):
    """Somebody for whom an identity provider vouches, for as long as their token says."""

    subject: str
    issuer: str
    name: str | None = None

    def __post_init__(self) -> None:
        actor = {"id": self.subject, "identity_provider": self.issuer, "type": "user"}
        object.__setattr__(self, "entity", f"user:{self.subject}")
        object.__setattr__(self, "actor", actor if self.name is None else {**actor, "name": self.name})

    def to_json(self) -> dict[str, Any]:
        """As it is told of."""
        mine = {"subject": self.subject, "issuer": self.issuer, "name": self.name}
        return {**mine, **Principal.to_json(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Principal):
    """An API key as it is kept: everything but the secret."""

    id: str
    digest: bytes
    """SHA-256 of the key's text."""
    name: str
    created_at: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "entity", f"key:{self.id}")
        object.__setattr__(self, "actor", {"id": self.entity, "name": self.name, "type": "api_key"})

    def bound(self, scope: Scope, expires_at: str | None) -> tuple[Scope, str | None]:
        """The scope and the end of a key that is made with this one: within its networks, and no later.

        Raises `RejectedError` for a network that is not within its own.
        """
        mine = self.scope.networks
        for network in scope.networks if mine else ():
            if not any(network.version == own.version and network.subnet_of(own) for own in mine):  # type: ignore[arg-type]
                cure = f"use {', '.join(map(str, mine))}, or a part of it"
                raise RejectedError(f"{network} is not where this key may be", place="networks", cure=cure)
        if mine and not scope.networks:
            scope = replace(scope, networks=mine)
        if self.expires_at is not None:
            end = timestamp.parse(self.expires_at)
            later = expires_at is None or Moment.of(expires_at, place="expires_at").start > end
            expires_at = self.expires_at if later else expires_at
        return scope, expires_at

    def bounds(self, other: Key) -> bool:
        """Whether another key is for no longer, and for no other networks, than this one."""
        try:
            return self.bound(other.scope, other.expires_at) == (other.scope, other.expires_at)
        except RejectedError:
            return False

    def holds(self, text: str, *, clock: Clock) -> bool:
        """Whether a text is this key, and the key is in force."""
        same = hmac.compare_digest(sha256(text.encode()).digest(), self.digest)
        return same and not self.is_over(clock)

    def to_json(self) -> dict[str, Any]:
        """As it is told of: never with its digest."""
        return {"id": self.id, "name": self.name, **Principal.to_json(self), "created_at": self.created_at}


UNKNOWN: Final = "this key or token is not known, is over, or is not for where you are"
"""What whoever cannot be authenticated is told, whatever is wrong."""


class ForbiddenNetworkError(DeniedError):
    """A key that is in force came from an address that it is not for."""

    def __init__(self, key: Key) -> None:
        self.key: Final = key
        super().__init__(UNKNOWN)


NO_KEY: Final = Key(
    id="",
    digest=_NOBODY,
    tenant="",
    role="ReadOnly",
    name="",
    scope=Scope(),
    expires_at=None,
    created_at="",
)
"""What a key of an unknown id is held against, so that it takes as long as a known one."""


def key_text(key_id: str, secret: bytes) -> str:
    """The key as it is shown, once."""
    return f"ts_{key_id}_{secret.hex()}"


Before: TypeAlias = Callable[[Key], object]
"""Is given a key before it is in force; when it raises, no key is made."""


def nothing_before(_: Key) -> None:
    """A `Before` that lets every key be made."""


def new_secret() -> tuple[str, str, bytes]:
    """A new key's id, its text, and what of it is kept."""
    key_id = random_bytes(8).hex()
    text = key_text(key_id, random_bytes(_SECRET_BYTES))
    return key_id, text, sha256(text.encode()).digest()


def new_key(tenant: str, *, now: int, **given: Any) -> tuple[Key, str]:
    """A new key, with the members of `Key` that are given; it, and its text. Raises `RejectedError`."""
    check_role(given["role"])
    check_name(given["name"])
    given["expires_at"] = check_expiry(given["expires_at"], now=now)
    key_id, text, digest = new_secret()
    return Key(id=key_id, digest=digest, tenant=tenant, created_at=timestamp.render(now), **given), text


def id_of(text: str) -> str | None:
    """The id in a key's text; None if it is none."""
    match = _TEXT.fullmatch(text)
    return None if match is None else match[1]


def check_role(role: str) -> str:
    """Raises `RejectedError` for a role that there is not."""
    if role not in ROLES:
        raise RejectedError(f"there is no role {role[:60]!r}", place="role", cure=f"use {', '.join(ROLES)}")
    return role


def check_name(name: str, *, place: str = "name") -> str:
    """A name for people. Raises `RejectedError`."""
    if len(name) > KEY_NAME_CHARACTERS_MAX or not name.isprintable() or not name.strip():
        cure = f"give 1 to {KEY_NAME_CHARACTERS_MAX} printable characters"
        raise RejectedError("not a name", place=place, cure=cure)
    return name


def check_expiry(text: str | None, *, now: int) -> str | None:
    """When a key ends, as it is kept. Raises `RejectedError` for a time that is none, or is over."""
    if text is None:
        return None
    moment = Moment.of(text, place="expires_at").start
    if moment <= now:
        raise RejectedError("the time is over already", place="expires_at", cure="give a later one, or none")
    return timestamp.render(moment)


def role_of(text: object) -> str:
    """A role read back from an event. Raises `RejectedError`."""
    return check_role(text if isinstance(text, str) else "")


def _network(text: str) -> Network:
    """Raises `ValueError`. What is IPv4 within IPv6 is IPv4, as a caller's address is."""
    network = ip_network(text)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def _bounded(values: Iterable[str], place: str) -> tuple[str, ...]:
    found = tuple(values)
    if len(found) > KEY_SCOPES_MAX:
        raise RejectedError(f"more than {KEY_SCOPES_MAX}", place=place)
    if any(value.startswith(RESERVED_PREFIX) for value in found) and place == "event_types":
        raise RejectedError(f"the prefix {RESERVED_PREFIX} is the ledger's own", place=place)
    return found
