"""The keys of an issuer: a JSON Web Key Set (RFC 7517), of which only what may check a signature is taken.

Bounded before anything of it is built: how many keys, and how large. A key is tied to the algorithms of its type and
curve, and to less where it says so (`use`, `key_ops`, `alg`). One that is none of ours is left aside, with the reason.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import Key as PublicKey
from joserfc.jwk import import_key

from tallystick.core.canonical import decode
from tallystick.errors import RejectedError
from tallystick.limits import ISSUER_KEY_BITS_MAX, ISSUER_KEYS_MAX
from tallystick.serve.oidc import ALGORITHMS

KEY_ID_CHARACTERS_MAX: Final = 256
_RSA_BITS_MIN: Final = 2_048
_EXPONENT_CHARACTERS_MAX: Final = 8
_COORDINATE_CHARACTERS_MAX: Final = 88
_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_PRIVATE: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One key, for these algorithms and no other."""

    id: str | None
    algorithms: frozenset[str]
    members: tuple[tuple[str, str], ...]
    """What it is, as it was told: two keys are the same when this is."""
    public: PublicKey = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class IssuerKeys:
    """The keys that an issuer has at present."""

    keys: tuple[IssuerKey, ...]
    left_aside: tuple[str, ...] = field(default=(), compare=False)
    """Why others were not taken."""

    @classmethod
    def parse(cls, data: bytes, algorithms: tuple[str, ...]) -> IssuerKeys:
        """Read a key set of bounded length. Raises `RejectedError`; one without a key for us is not wrong."""
        document = decode(data)
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise RejectedError("it is no set of keys", place="/keys")
        if len(listed) > ISSUER_KEYS_MAX:
            raise RejectedError(f"{len(listed)} keys, at most {ISSUER_KEYS_MAX}", place="/keys")
        found, left_aside = [], []
        for index, said in enumerate(listed):
            try:
                found.append(_key(said, algorithms))
            except RejectedError as error:
                left_aside.append(f"/keys/{index}: {error}")
        return cls(tuple(found), tuple(left_aside))

    def has(self, key_id: str) -> bool:
        """Whether there is a key of that id."""
        return any(key.id == key_id for key in self.keys)

    def find(self, key_id: str | None, algorithm: str) -> PublicKey:
        """The one key that fits; without an id that is the only one of its kind. Raises `RejectedError`."""
        fitting = [key for key in self.keys if key_id in (None, key.id) and algorithm in key.algorithms]
        if len(fitting) != 1:
            problem = f"{len(fitting) or 'no'} keys fit {algorithm} and the id {key_id!r}"
            raise RejectedError(problem, cure="have the issuer name the key by an id of its own")
        return fitting[0].public


def _key(said: Any, algorithms: tuple[str, ...]) -> IssuerKey:
    if not isinstance(said, dict):
        raise RejectedError("it is no key")
    kind = said.get("kty")
    if not isinstance(kind, str) or kind not in _MEMBERS:
        raise RejectedError(f"a key of the type {str(kind)[:20]!r} checks no signature here")
    if not _PRIVATE.isdisjoint(said):
        raise RejectedError("it is published with its private half, and so proves nothing")
    key_id = said.get("kid")
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= KEY_ID_CHARACTERS_MAX):
        raise RejectedError("its id is no short text")
    members = {name: _member(said, name) for name in _MEMBERS[kind]}
    if kind == "RSA":
        _check_rsa(members)
    allowed = _allowed(said, (kind, members.get("crv")), algorithms)
    try:
        public = import_key({"kty": kind, **members})
    except (JoseError, ValueError, TypeError) as error:
        raise RejectedError(f"it is no key of the type {kind}: {str(error)[:80]}") from error
    told = (("kid", key_id or ""), ("kty", kind), *members.items())
    return IssuerKey(key_id, allowed, told, public)


def _allowed(said: dict[str, Any], kind: tuple[str, str | None], algorithms: tuple[str, ...]) -> frozenset[str]:
    """The algorithms that a key may be used with. Raises `RejectedError` when there is none."""
    operations = said.get("key_ops", ["verify"])
    if said.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise RejectedError("it is not for checking signatures")
    allowed = frozenset(name for name in algorithms if ALGORITHMS[name] == kind)
    if "alg" in said:
        allowed &= frozenset([said["alg"]] if isinstance(said["alg"], str) else [])
    if not allowed:
        raise RejectedError("none of the algorithms that are believed here is for it")
    return allowed


def _member(said: dict[str, Any], name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
        raise RejectedError(f"its member {name!r} is no base64url")
    most = {"n": ISSUER_KEY_BITS_MAX // 6 + 2, "e": _EXPONENT_CHARACTERS_MAX}.get(name, _COORDINATE_CHARACTERS_MAX)
    if len(value) > most:
        raise RejectedError(f"its member {name!r} has more than {most} characters")
    return value


def _check_rsa(members: dict[str, str]) -> None:
    try:
        modulus, exponent = (
            int.from_bytes(base64.urlsafe_b64decode(members[name] + "=" * (-len(members[name]) % 4))) for name in "ne"
        )
    except ValueError as error:
        raise RejectedError("its members are no base64url") from error
    if not _RSA_BITS_MIN <= modulus.bit_length() <= ISSUER_KEY_BITS_MAX:
        raise RejectedError(f"it has {modulus.bit_length()} bits, not {_RSA_BITS_MIN} to {ISSUER_KEY_BITS_MAX}")
    if exponent < 3:
        raise RejectedError("its exponent is none")
