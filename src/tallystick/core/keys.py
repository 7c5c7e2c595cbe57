"""The key hierarchy: from the master secret to one MAC key an epoch (SPEC 5; RFC 5869).

Pure derivation; where secrets rest is the key provider's business (`tallystick.keystore`). The master
secret never signs anything. Each ledger gets a secret of its own, each purpose a key of that, and each
epoch a MAC key of that purpose's: disclosing an epoch's key says nothing about any other.
"""

from __future__ import annotations

import hashlib
import hmac
from binascii import hexlify
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

EVENT_MAC: Final = "event-mac"
SUBJECT_KEK: Final = "subject-kek"
BLIND_INDEX: Final = "blind-index"
INDEX_MAC: Final = "index-mac"
"""What the sealer relies on in the index."""
QUEUE_MAC: Final = "queue-mac"
"""Frames, cursor and acknowledgements of the queue."""
HEAD_MAC: Final = "head-mac"
"""The newest head, kept apart from the ledger."""

KEY_BYTES: Final = 32

_EVENT_CONTEXT: Final = b"tallystick/v1/event\0"
_GENESIS_CONTEXT: Final = b"tallystick/v1/genesis\0"
_ROTATION_CONTEXT: Final = b"tallystick/v1/key-rotated\0"
_COMMITMENT_CONTEXT: Final = b"tallystick/v1/epoch-key-commitment"


def ledger_key(master: bytes, ledger: str) -> bytes:
    """K_ledger of SPEC 5.1: the 32-byte secret of one ledger under one master secret of 32 bytes."""
    info = b"tallystick/v1/ledger\0" + _length_prefixed(ledger.encode())
    return HKDF(SHA256(), KEY_BYTES, salt=hashlib.sha256(b"tallystick/v1").digest(), info=info).derive(master)


def purpose_key(ledger_secret: bytes, purpose: str) -> bytes:
    """K_p of SPEC 5.1: the 32-byte key of one purpose, such as `EVENT_MAC`."""
    info = b"tallystick/v1/purpose\0" + _length_prefixed(purpose.encode())
    return HKDFExpand(SHA256(), KEY_BYTES, info).derive(ledger_secret)


def epoch_key(event_mac_key: bytes, epoch: int) -> bytes:
    """M_e of SPEC 5.1: the 32-byte MAC key of one epoch, counted from 0."""
    info = b"tallystick/v1/epoch\0" + _length_prefixed(epoch.to_bytes(8, "big"))
    return HKDFExpand(SHA256(), KEY_BYTES, info).derive(event_mac_key)


def commitment(mac_key: bytes) -> bytes:
    """The 32 bytes by which an epoch's opening record commits to its key (SPEC 5.2)."""
    return hmac.digest(mac_key, _COMMITMENT_CONTEXT, "sha256")


def tagger(mac_key: bytes) -> Callable[[bytes], bytes]:
    """A function from a record's signed part to its `signature` (SPEC 3.3): 64 hex digits as ASCII.

    HMAC-SHA256 (RFC 2104) with the two key blocks hashed once; a copied state costs half of a new HMAC.
    """
    block = mac_key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + _EVENT_CONTEXT).copy
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block)).copy

    def tag(signed_part: bytes) -> bytes:
        inside, outside = inner(), outer()
        inside.update(signed_part)
        outside.update(inside.digest())
        return hexlify(outside.digest())

    return tag


def genesis_message(signed_part: bytes) -> bytes:
    """What the root key signs in a genesis record (SPEC 4)."""
    return _GENESIS_CONTEXT + signed_part


def rotation_message(statement: bytes) -> bytes:
    """What both keys sign in a `tallystick.key.rotated` record (SPEC 5.4): its canonical statement."""
    return _ROTATION_CONTEXT + statement


class PublicKeys(NamedTuple):
    """The public halves, 32 bytes each, of the signing keys that somebody has; of a rotation both keys."""

    root: bytes | None = None
    checkpoint: frozenset[bytes] = frozenset()
    evidence: frozenset[bytes] = frozenset()

    def of(self, purpose: str) -> frozenset[bytes]:
        """Those of `checkpoint` or of `evidence`."""
        return self.checkpoint if purpose == "checkpoint" else self.evidence


@dataclass(frozen=True, slots=True, repr=False)
class LedgerKeys:
    """The secrets of one ledger's writer: the MAC keys by purpose (SPEC 5.1) and the three signing keys.

    Of the MAC keys only epoch keys, which come from `event_mac`, are ever disclosed.
    """

    event_mac: bytes
    index_mac: bytes
    queue_mac: bytes
    head_mac: bytes
    root: Ed25519PrivateKey
    checkpoint: Ed25519PrivateKey
    evidence: Ed25519PrivateKey

    @classmethod
    def derive(
        cls,
        master: bytes,
        ledger: str,
        *,
        root: Ed25519PrivateKey,
        checkpoint: Ed25519PrivateKey,
        evidence: Ed25519PrivateKey,
    ) -> LedgerKeys:
        """The keys of the named ledger under a deployment's master secret and signing keys."""
        secret = ledger_key(master, ledger)
        event, index, queue, head = (purpose_key(secret, each) for each in (EVENT_MAC, INDEX_MAC, QUEUE_MAC, HEAD_MAC))
        return cls(event, index, queue, head, root, checkpoint, evidence)


def _length_prefixed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
