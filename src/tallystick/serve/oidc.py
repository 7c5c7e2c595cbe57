"""What is trusted of an OpenID Connect issuer: which tokens are for us, and which role and tenant they stand for.

Values as people write them, checked once. Nothing here asks the issuer (`issuers`) or judges a token (`tokens`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from tallystick.errors import RejectedError
from tallystick.govern.access import ROLES
from tallystick.govern.directory import check_tenant
from tallystick.limits import CLAIM_CHARACTERS_MAX, CLAIM_VALUES_MAX, ISSUER_CHARACTERS_MAX

ALGORITHMS: Final[Mapping[str, tuple[str, str | None]]] = MappingProxyType(
    {
        **{f"{family}{bits}": ("RSA", None) for family in ("RS", "PS") for bits in (256, 384, 512)},
        **{"ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521")},
        **{"EdDSA": ("OKP", "Ed25519"), "Ed25519": ("OKP", "Ed25519")},
    }
)
"""Algorithm of a signature → type and curve of the key it takes. None that works with a shared secret is here."""

ALGORITHMS_USUAL: Final = ("RS256", "ES256", "PS256", "EdDSA")
OPERATOR: Final = "operator"
"""What a value of the role claim may be mapped to beside our roles: an Admin who may manage tenants."""

ROLE_CLAIM: Final = "tallystick_role"
TENANT_CLAIM: Final = "tallystick_tenant"

_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]+")
_URL: Final = re.compile(r"[\x21-\x7e]+")
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """One issuer whose tokens are believed, and what they may stand for."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    role_claim: str
    roles: Mapping[str, str]
    """Value of the role claim → one of our roles, or `OPERATOR`. No other value means anything."""
    tenant_claim: str
    tenant: str | None
    """The tenant of all tokens; None where each says its own."""

    @classmethod
    def of(  # each is an option, and a place in a file
        cls,
        *,
        issuer: str,
        audience: str | None,
        algorithms: Iterable[str] = (),
        role_claim: str | None = None,
        roles: Mapping[str, str] | Iterable[str] = (),
        tenant_claim: str | None = None,
        tenant: str | None = None,
    ) -> OidcSettings:
        """Settings from texts; `roles` as `value=role`, or as a mapping. Raises `RejectedError` with the place.

        Without `roles` the claim holds our own names of roles, and nobody is an operator.
        """
        if tenant is not None and tenant_claim is not None:
            cure = "give one tenant for all tokens, or the claim that names it"
            raise RejectedError("there is a tenant and a claim of the tenant", place="tenant", cure=cure)
        mapped = _roles(roles)
        return cls(
            issuer=check_issuer(issuer),
            audience=_name(audience or "", "audience", ISSUER_CHARACTERS_MAX),
            algorithms=_algorithms(algorithms),
            role_claim=_name(ROLE_CLAIM if role_claim is None else role_claim, "role_claim"),
            roles=mapped or MappingProxyType({role: role for role in ROLES}),
            tenant_claim=_name(TENANT_CLAIM if tenant_claim is None else tenant_claim, "tenant_claim"),
            tenant=None if tenant is None else _tenant(tenant),
        )

    @property
    def discovery_url(self) -> str:
        """Where the issuer describes itself (OpenID Connect Discovery 4)."""
        return f"{self.issuer.removesuffix('/')}/.well-known/openid-configuration"


def check_issuer(url: str) -> str:
    """An issuer's URL, which is held to its tokens letter by letter. Raises `RejectedError`."""
    if not 0 < len(url) <= ISSUER_CHARACTERS_MAX or not is_url_to_ask(url):
        cure = "give it as its tokens do, beginning with https:// (http:// for this machine's own addresses)"
        raise RejectedError(f"{url[:_SHOWN]!r} is not an issuer", place="issuer", cure=cure)
    if "?" in url or "#" in url:
        raise RejectedError("an issuer has no query and no fragment", place="issuer", cure="leave them out")
    return url


def is_url_to_ask(url: str, *, loopback: bool = True) -> bool:
    """Whether keys may come from there: over TLS, or if `loopback` allows it from this machine itself."""
    if not _URL.fullmatch(url) or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or port == 0:
        return False
    return parts.scheme == "https" or (loopback and parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _algorithms(given: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(given)) or ALGORITHMS_USUAL
    for name in found:
        if name not in ALGORITHMS:
            cure = f"use {', '.join(ALGORITHMS)}"
            raise RejectedError(f"{name[:_SHOWN]!r} is no algorithm to believe", place="algorithms", cure=cure)
    return found


def _roles(given: Mapping[str, str] | Iterable[str]) -> Mapping[str, str]:
    pairs = [*given.items()] if isinstance(given, Mapping) else [_pair(text) for text in given]
    if len(pairs) > CLAIM_VALUES_MAX:
        cure = "have the issuer put people into fewer groups for us"
        raise RejectedError(f"more than {CLAIM_VALUES_MAX} values of the role claim", place="roles", cure=cure)
    found: dict[str, str] = {}
    for value, role in pairs:
        if role not in ROLES and role != OPERATOR:
            cure = f"use {', '.join(ROLES)}, or {OPERATOR}"
            raise RejectedError(f"there is no role {role[:_SHOWN]!r}", place="roles", cure=cure)
        if found.setdefault(_name(value, "roles"), role) != role:
            cure = "give each value one role"
            raise RejectedError(f"{value[:_SHOWN]!r} stands for two roles", place="roles", cure=cure)
    return MappingProxyType(found)


def _tenant(name: str) -> str:
    try:
        return check_tenant(name)
    except RejectedError as error:
        raise RejectedError(error.problem, place="tenant", cure=error.cure) from error


def _pair(text: str) -> tuple[str, str]:
    value, separator, role = text.rpartition("=")  # a value may itself have one: cn=admins,dc=example
    if not separator:
        cure = "give VALUE=ROLE, such as audit-team=Auditor"
        raise RejectedError(f"{text[:_SHOWN]!r} says no role", place="roles", cure=cure)
    return value, role


def _name(text: str, place: str, characters_max: int = CLAIM_CHARACTERS_MAX) -> str:
    if not 0 < len(text) <= characters_max or not _NAME.fullmatch(text):
        problem = f"{text[:_SHOWN]!r} does not do" if text else "there is none"
        raise RejectedError(problem, place=place, cure=f"give 1 to {characters_max} printable characters")
    return text
