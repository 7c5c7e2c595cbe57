"""Judging a token of an issuer (RFC 7519, RFC 8725): pure, given the issuer's keys and the time.

The token is bounded before it is read, its JSON is strict (no name twice), and nothing in it chooses how it is checked:
the algorithm must be one of the settings' and of the key's type, and keys that a token brings or points to (`jwk`,
`jku`, `x5c`, `x5u`) are never looked at. Claims are read only from bytes whose signature holds.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final, NamedTuple, TypeGuard

from joserfc import jws
from joserfc.errors import JoseError

from tallystick.core import timestamp
from tallystick.core.canonical import decode
from tallystick.errors import DeniedError, RejectedError
from tallystick.govern.access import Scope, User
from tallystick.limits import KEY_NAME_CHARACTERS_MAX, TOKEN_BYTES_MAX, TOKEN_SUBJECT_CHARACTERS_MAX
from tallystick.serve.jwks import KEY_ID_CHARACTERS_MAX, IssuerKeys
from tallystick.serve.oidc import OPERATOR, OidcSettings

LEEWAY_SECONDS: Final = 60
"""By how much the issuer's clock may be ahead. None is given at the end: a token is over at its `exp`."""

_TYPES: Final = ("jwt", "at+jwt", "application/jwt", "application/at+jwt")
_SECONDS_MAX: Final = 253_402_300_799
"""The end of the year 9999."""

_SHAPE: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)", re.ASCII)
_SHOWN: Final = 60


class TokenRefusedError(DeniedError):
    """Why a token does not count. It is for our diagnostics: whoever sent it is told nothing of it."""


class Head(NamedTuple):
    """What a token says of its signature; not to be believed, but to look a key up by."""

    algorithm: str
    key_id: str | None


class _Registry(jws.JWSRegistry):
    """The library's algorithms, without its bounds (ours are tighter) and its opinions on their names."""

    max_header_length = max_payload_length = max_signature_length = TOKEN_BYTES_MAX

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]  # the head was held to the settings, and is the same


_registry: Final = _Registry(strict_check_header=False)


def read_head(text: str, settings: OidcSettings) -> Head:
    """The head of a token, held to its rules. Raises `TokenRefusedError`."""
    if len(text) > TOKEN_BYTES_MAX:
        raise TokenRefusedError(f"it has more than {TOKEN_BYTES_MAX} bytes")
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise TokenRefusedError("it is no token: there are no three parts of base64url")
    said = _object(_bytes(shape[1]), "head")
    algorithm, key_id = said.get("alg"), said.get("kid")
    if not isinstance(algorithm, str) or algorithm not in settings.algorithms:
        raise TokenRefusedError(f"the algorithm {_shown(algorithm)} is none of {', '.join(settings.algorithms)}")
    if "crit" in said or "b64" in said:
        raise TokenRefusedError("it asks for an extension, and none is known here")
    kind = said.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRefusedError(f"the type {_shown(kind)} is not that of an access token")
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= KEY_ID_CHARACTERS_MAX):
        raise TokenRefusedError("the id of its key is no short text")
    return Head(algorithm, key_id)


def judge(text: str, keys: IssuerKeys, settings: OidcSettings, *, now: int) -> User:
    """Whose token it is, and what they may. `now` in microseconds. Raises `TokenRefusedError`."""
    head = read_head(text, settings)
    claims = _object(_signed(text, head, keys), "claims")
    if claims.get("iss") != settings.issuer:
        raise TokenRefusedError(f"its issuer is {_shown(claims.get('iss'))}")
    audience = claims.get("aud")
    if settings.audience not in (audience if isinstance(audience, list) else [audience]):
        raise TokenRefusedError(f"it is for {_shown(audience)}, not for {settings.audience!r}")
    ends_at = _check_times(claims, now)
    subject = claims.get("sub")
    if not _is_plain(subject, TOKEN_SUBJECT_CHARACTERS_MAX):
        raise TokenRefusedError(f"its subject is {_shown(subject)}, not 1 to {TOKEN_SUBJECT_CHARACTERS_MAX} characters")
    role = _role(claims, settings)
    names = (claims.get("preferred_username"), claims.get("name"))
    return User(
        tenant=_tenant(claims, settings),
        role="Admin" if role == OPERATOR else role,
        scope=Scope(),
        expires_at=timestamp.render(ends_at),
        operator=role == OPERATOR,
        subject=subject,
        issuer=settings.issuer,
        name=next((name for name in names if _is_plain(name, KEY_NAME_CHARACTERS_MAX)), None),
    )


def _signed(text: str, head: Head, keys: IssuerKeys) -> bytes:
    """The payload, whose signature holds."""
    try:
        found = jws.deserialize_compact(text, keys.find(head.key_id, head.algorithm), registry=_registry)
    except RejectedError as error:
        raise TokenRefusedError(str(error)) from error
    except (JoseError, ValueError) as error:
        raise TokenRefusedError(f"its signature does not hold: {str(error)[:_SHOWN]}") from error
    return found.payload


def _check_times(claims: dict[str, Any], now: int) -> int:
    """When the token ends. A time that is none, or not yet, or over, refuses it."""
    moments: dict[str, int | None] = {}
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name)
        if name in claims and not (
            isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _SECONDS_MAX
        ):
            raise TokenRefusedError(f"its {name} is {_shown(value)}, which is no time")
        moments[name] = None if value is None else int(value * timestamp.SECOND)
    ends_at = moments["exp"]
    if ends_at is None:
        raise TokenRefusedError("it has no end (exp)")
    if now >= ends_at:
        raise TokenRefusedError(f"it ended at {timestamp.render(ends_at)}")
    for name in ("nbf", "iat"):
        moment = moments[name]
        if moment is not None and moment > now + LEEWAY_SECONDS * timestamp.SECOND:
            raise TokenRefusedError(f"its {name} is {timestamp.render(moment)}, which is not yet")
    return ends_at


def _role(claims: dict[str, Any], settings: OidcSettings) -> str:
    """The one role that the claim stands for; of several none is chosen."""
    said = _claim(claims, settings.role_claim)
    values = said if isinstance(said, list) else [said]
    roles = {settings.roles[value] for value in values if isinstance(value, str) and value in settings.roles}
    if len(roles) != 1:
        which = " and ".join(sorted(roles)) or "no role that is known here"
        raise TokenRefusedError(
            f"its claim {settings.role_claim} ({_shown(said)}) stands for {which}, not for one role"
        )
    return roles.pop()


def _tenant(claims: dict[str, Any], settings: OidcSettings) -> str:
    if settings.tenant is not None:
        return settings.tenant
    said = _claim(claims, settings.tenant_claim)
    if not isinstance(said, str):
        raise TokenRefusedError(f"its claim {settings.tenant_claim} ({_shown(said)}) names no tenant")
    return said


def _claim(claims: dict[str, Any], path: str) -> Any:
    """A claim of that very name, else what the dotted path leads to; None where there is nothing."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = decode(data)
    except RejectedError as error:
        raise TokenRefusedError(f"its {what} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise TokenRefusedError(f"its {what} is no object")
    return found


def _bytes(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise TokenRefusedError("its head is no base64url") from error


def _is_plain(value: Any, characters_max: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= characters_max and value.isprintable()


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
