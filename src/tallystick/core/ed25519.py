"""Ed25519 public keys and signatures (RFC 8032): which 32 bytes are a key, and whether a signature holds.

A point of small order is nobody's key: for such a "key" anybody can make signatures that hold, and one signature
that holds for many messages. An encoding that is not canonical is a second name for a point, and what two verifiers
read differently is a way to deceive one of them. So bytes are a key only if they are the canonical encoding of a point
of the curve whose order is large (SPEC 5.8).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tallystick.errors import RejectedError

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
"""The y of two points of order 8; the other two have its negative."""
_SMALL_ORDER: Final = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})
"""The y of the eight points of small order: of order 4, 1, 2, and 8."""
_KEYS_CACHED: Final = 4096


def check_public_key(data: bytes, *, place: str) -> None:
    """Raise `RejectedError` unless `data` is the canonical encoding of a point of large order (SPEC 5.8)."""
    if len(data) != PUBLIC_KEY_BYTES:
        raise RejectedError(f"an Ed25519 public key has {PUBLIC_KEY_BYTES} bytes, not {len(data)}", place=place)
    if problem := _problem_of(data):
        raise RejectedError(problem, place=place, cure="make a new key: nobody's key is like this")


def signature_holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is right for `message` under a key; never under what is no key."""
    if len(public_key) != PUBLIC_KEY_BYTES or _problem_of(public_key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=_KEYS_CACHED)
def _problem_of(data: bytes) -> str:
    """Why 32 bytes are no public key, or nothing. Cached: whether a point is on the curve takes some 0.2 ms."""
    y = int.from_bytes(data, "little") & (1 << 255) - 1
    if y >= _P:
        return "the Ed25519 public key is not in its canonical form"
    if y in _SMALL_ORDER:  # of these, y = 1 and y = -1 also have a second form, with a sign
        return "the Ed25519 public key is a point of small order, under which anybody can sign"
    # RFC 8032 5.1.3: x^2 = (y^2 - 1) / (d y^2 + 1), where a quotient is a square if the product is (Euler).
    square = (y * y - 1) * (_D * y * y + 1) % _P
    if pow(square, (_P - 1) // 2, _P) != 1:
        return "the Ed25519 public key is not a point of the curve"
    return ""
