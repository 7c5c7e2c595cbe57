"""Ed25519 (RFC 8032): which bytes are a public key (SPEC 5.8), and whether a signature is right."""

from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

P: Final = 2**255 - 19
D: Final = 37095705934669439343138083508754565189542113879843219016388785533085940283555
Y8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL: Final = {0, 1, P - 1, Y8, P - Y8}  # the y of all points whose order divides 8


@lru_cache(maxsize=1024)
def is_public_key(data: bytes) -> bool:
    """Whether bytes are the canonical encoding of a point of the curve whose order is large."""
    y = int.from_bytes(data, "little") % 2**255
    if len(data) != 32 or y >= P or y in SMALL:
        return False
    u, v = y * y - 1, D * y * y + 1  # x^2 = u / v, and u v is a square when that is one
    return pow(u * v, (P - 1) // 2, P) == 1


def verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature is right, by a key that is one."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return is_public_key(public)
