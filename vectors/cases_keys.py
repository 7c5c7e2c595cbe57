"""Vectors of Ed25519: what is no public key, and what is no signature, wherever one may stand (SPEC 5.8)."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import count
from typing import Final

from tallystick.core import timestamp
from tallystick.core.canonical import decode, encode
from tallystick.core.note import KEY_ID_BYTES, Note, SignatureLine
from tallystick.core.record import KEY_ROTATED
from tallystick.core.strict import render_base64
from tallystick.core.system import KeyRotated
from tests.evidence.forge import GENESIS, KEYS, NOON, ORIGIN, Insider
from vectors import edwards
from vectors.case import Case, SmallCase
from vectors.scene import bundle, event, ledger, signed

LINES: Final = ledger().lines
NEUTRAL: Final = edwards.encoded(edwards.NEUTRAL)
BY_ANYBODY: Final = NEUTRAL + bytes(32)
"""A signature that holds for every message under the neutral element: R is neutral, and S is 0."""
SCALAR: Final = int.from_bytes(sha256(b"a scalar").digest(), "little") % edwards.ORDER
KEY: Final = edwards.encoded(edwards.times(SCALAR, edwards.BASE))
CHECKPOINT: Final = Note.parse(signed(LINES, 8))
TEXT: Final = CHECKPOINT.text.encode()


def no_keys() -> Iterator[tuple[str, str, bytes]]:
    """Name, words and bytes of what is no public key."""
    orders = (1, 8, 4, 8, 2, 8, 4, 8)
    for number, (at, order) in enumerate(zip(edwards.SMALL, orders, strict=True)):
        yield f"order-{order}-{number}", f"a point of order {order}", edwards.encoded(at)
    yield "neutral-odd", "the neutral element, with the sign of an odd x", edwards.encode(1, odd=True)
    yield "order-2-odd", "the point of order 2, with the sign of an odd x", edwards.encode(edwards.P - 1, odd=True)
    yield "zero-again", "a point of order 4, its y written as 2^255 - 19", edwards.encode(edwards.P, odd=False)
    yield "zero-again-odd", "the other one, in the same way", edwards.encode(edwards.P, odd=True)
    yield "one-again", "the neutral element, its y written as 2^255 - 18", edwards.encode(edwards.P + 1, odd=False)
    large = next(y for y in count(2) if edwards.point(y, odd=False))
    yield (
        "not-canonical",
        f"a point of large order, its y {large} past 2^255 - 19",
        edwards.encode(edwards.P + large, odd=False),
    )
    yield "largest", "all bits set", b"\xff" * 32
    none = next(y for y in count(2) if not edwards.point(y, odd=False))
    yield "no-point", f"a y of which no x is: {none}", edwards.encode(none, odd=False)


def _vkey(name: str, kind: bytes, key: bytes) -> bytes:
    """The line of a verifier key, whatever the key is."""
    key_id = sha256(name.encode() + b"\n" + kind + key).digest()[:KEY_ID_BYTES]
    return f"{name}+{key_id.hex()}+{render_base64(kind + key)}".encode()


def _trust(key: bytes) -> bytes:
    return b"log %s\nquorum none\n" % _vkey(ORIGIN, b"\x01", key)


def _by(key: bytes, signature: bytes) -> bytes:
    """The checkpoint under one signature by a key."""
    key_id = sha256(ORIGIN.encode() + b"\n\x01" + key).digest()[:KEY_ID_BYTES]
    return Note(CHECKPOINT.text, (SignatureLine(ORIGIN, key_id, signature),)).render()


def small_cases() -> Iterator[SmallCase]:
    for name, says, key in no_keys():
        yield SmallCase("trust", f"key-{name}", "5.8", f"a key that is {says}", {}, ("trust",), trust=_trust(key))
    witness = b"witness w %s\nquorum w\n" % _vkey("w.example", b"\x04", NEUTRAL)
    yield SmallCase("trust", "witness-neutral", "5.8", "a witness of small order", {}, ("trust",), trust=witness)
    yield from _signatures()


def _signatures() -> Iterator[SmallCase]:
    def case(name: str, says: str, signature: bytes, *, key: bytes = KEY, holds: bool = False) -> SmallCase:
        files = {"checkpoint": _by(key, signature)}
        found = () if holds else ("checkpoint",)
        return SmallCase("checkpoint", f"signature-{name}", "5.8", says, files, found, trust=_trust(key))

    def sign(*, key: bytes = KEY, nonce: int = 5, r: bytes | None = None) -> bytes:
        return edwards.sign(TEXT, scalar=SCALAR, public_key=key, nonce=nonce, r=r)

    right = sign()
    yield case("right", "a signature", right, holds=True)
    s = int.from_bytes(right[32:], "little")
    more = right[:32] + (s + edwards.ORDER).to_bytes(32, "little")
    yield case("s-again", "the order of the group is added to S", more)
    yield case("s-high", "a bit is set above those of S", right[:63] + bytes([right[63] | 0x80]))
    yield case("r-sign", "the sign of R is turned", right[:31] + bytes([right[31] ^ 0x80]) + right[32:])
    yield case("r-neutral", "R is the neutral element, and the equation holds", sign(nonce=0), holds=True)
    again = edwards.encode(edwards.P + 1, odd=False)
    yield case("r-not-canonical", "the same, R not in its canonical form", sign(nonce=0, r=again))
    yield case("r-odd", "the same, R with the sign of an odd x", sign(nonce=0, r=edwards.encode(1, odd=True)))
    shifted = edwards.encoded(edwards.add(edwards.times(5, edwards.BASE), edwards.ORDER_8))
    yield case("r-mixed", "the equation holds with the cofactor alone: R has a part of order 8", sign(r=shifted))
    mixed = edwards.encoded(edwards.add(edwards.times(SCALAR, edwards.BASE), edwards.ORDER_8))
    # A point of order 8 in the key is multiplied by k: it vanishes just where k is a multiple of 8.
    fits = next(nonce for nonce in count(1) if _hashed(mixed, nonce) % 8 == 0)
    fails = next(nonce for nonce in count(1) if _hashed(mixed, nonce) % 8 != 0)
    says = "the key has a part of order 8, and the equation holds without the cofactor"
    yield case("key-mixed", says, sign(key=mixed, nonce=fits), key=mixed, holds=True)
    says = "the key has a part of order 8, and the equation holds with the cofactor alone"
    yield case("key-mixed-cofactor", says, sign(key=mixed, nonce=fails), key=mixed)
    yield case("short", "63 bytes", right[:63])
    yield case("long", "65 bytes", right + b"\0")
    yield case("zeros", "64 zero bytes", bytes(64))


def _hashed(key: bytes, nonce: int) -> int:
    return edwards.hashed(edwards.encoded(edwards.times(nonce, edwards.BASE)), key, TEXT)


def cases() -> Iterator[Case]:
    """Ledgers that give themselves a key of small order, and then let anybody sign."""
    insider = Insider()
    for number in range(3):
        event(insider, number)
    message = encode(
        {
            "ledger": "shop",
            "new_key": render_base64(NEUTRAL),
            "old_key": render_base64(GENESIS.checkpoint_key),
            "purpose": "checkpoint",
        }
    )
    rotated = KeyRotated(
        purpose="checkpoint",
        ledger="shop",
        old_key=GENESIS.checkpoint_key,
        new_key=NEUTRAL,
        old_signature=KEYS.checkpoint.sign(b"tallystick/v1/key-rotated\0" + message),
        new_signature=BY_ANYBODY,
    )
    insider.own(KEY_ROTATED, rotated.payload())
    insider.close()
    text = Note.parse(signed(insider.lines)).text
    key_id = sha256(ORIGIN.encode() + b"\n\x01" + NEUTRAL).digest()[:KEY_ID_BYTES]
    forged = Note(text, (SignatureLine(ORIGIN, key_id, BY_ANYBODY),)).render()
    made = bundle(insider.lines, checkpoint=forged)
    says = "the key is changed to one of small order, and a stranger signs the checkpoint"
    yield Case.of("rotation-small-order", "5.8", says, made, ("key-rotation", None), ("checkpoint", None))
    genesis = decode(GENESIS.seal(KEYS.root, event_id="genesis", recorded_at=timestamp.render(NOON)))
    for name, member in (("root", "root_key"), ("evidence", "evidence_key")):
        weak = encode(
            {
                **genesis,
                "payload": {**genesis["payload"], member: render_base64(NEUTRAL)},
                "signature": BY_ANYBODY.hex(),
            }
        )
        made = bundle(LINES, first=2, end=8)
        made.document["genesis"], made.document["ledger"]["id"] = weak.decode(), sha256(weak).hexdigest()
        says = f"the genesis has a {name} key of small order"
        yield Case.of(f"genesis-{name}-small-order", "5.8", says, made, ("genesis", None), ("root", None))
