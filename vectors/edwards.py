"""The curve of Ed25519, as plainly as RFC 8032 5.1 has it: for keys and signatures that no honest signer makes.

Slow, and not safe for secrets. Points are pairs (x, y); the neutral element is (0, 1).
"""

from __future__ import annotations

from hashlib import sha512
from typing import Final, TypeAlias

Point: TypeAlias = tuple[int, int]

P: Final = 2**255 - 19
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
D: Final = -121665 * pow(121666, -1, P) % P
NEUTRAL: Final[Point] = (0, 1)


def add(one: Point, two: Point) -> Point:
    (x1, y1), (x2, y2) = one, two
    product = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def times(factor: int, point: Point) -> Point:
    result = NEUTRAL
    for bit in f"{factor:b}":
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def point(y: int, *, odd: bool) -> Point | None:
    """The point with that y, and an odd or even x; None if there is none."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return None
    return (P - x if x % 2 != odd else x) % P, y % P


def encode(y: int, *, odd: bool) -> bytes:
    """32 bytes of a y from 0 to 2^255 - 1, canonical or not, and of the sign of an x."""
    return (y | odd << 255).to_bytes(32, "little")


def encoded(at: Point) -> bytes:
    """The canonical encoding."""
    return encode(at[1], odd=at[0] % 2 == 1)


def _made(y: int, *, odd: bool) -> Point:
    found = point(y, odd=odd)
    assert found is not None
    return found


BASE: Final = _made(4 * pow(5, -1, P) % P, odd=False)
ORDER_8: Final = _made(0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7, odd=False)
SMALL: Final = tuple(times(number, ORDER_8) for number in range(8))
"""The eight points of small order."""


def hashed(r: bytes, public_key: bytes, message: bytes) -> int:
    """The k of RFC 8032 5.1.7."""
    return int.from_bytes(sha512(r + public_key + message).digest(), "little") % ORDER


def sign(message: bytes, *, scalar: int, public_key: bytes, nonce: int, r: bytes | None = None) -> bytes:
    """A signature by a scalar and a nonce, for whatever bytes are said to be the key; maybe with other ones for R."""
    r = encoded(times(nonce % ORDER, BASE)) if r is None else r
    return r + ((nonce + hashed(r, public_key, message) * scalar) % ORDER).to_bytes(32, "little")
