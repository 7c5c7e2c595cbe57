"""The ledger's own events: what their payloads say, written and read in one place (SPEC 4, 5).

A ledger tells its own story in its own log: who it is, under which keys it speaks, where its epochs begin and
end. These records are what a verifier has to understand; all others it only has to check. Reading is
strict: a payload that is not exactly what SPEC prints raises `RejectedError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core.canonical import encode
from tallystick.core.content import Content
from tallystick.core.ed25519 import check_public_key, signature_holds
from tallystick.core.keys import genesis_message, rotation_message
from tallystick.core.note import VerifierKey
from tallystick.core.record import (
    EPOCH_CLOSED,
    EPOCH_OPENED,
    KEY_ROTATED,
    LEDGER_CREATED,
    NO_HASH,
    Record,
    body_format,
    check_ledger_name,
    signed_part,
    with_signature,
)
from tallystick.core.strict import parse_base64, render_base64
from tallystick.errors import RejectedError

SYSTEM_ENTITY: Final = "tallystick.ledger"
"""The stream that the ledger's own events form."""

_NONCE_BYTES: Final = 32
_SYSTEM_ACTOR: Final = {"id": "tallystick", "type": "system"}

Purpose: TypeAlias = Literal["checkpoint", "evidence"]

_ALGORITHMS: Final = {
    "chain": "SHA-256",
    "checkpoint": "Ed25519",
    "encoding": "RFC 8785",
    "event": "HMAC-SHA256",
    "tree": "RFC 6962 SHA-256",
}


def system_members(event_type: str, payload: dict[str, Any], *, event_id: str) -> dict[str, Any]:
    """The nine content members of one of the ledger's own events."""
    return {
        "actor": _SYSTEM_ACTOR,
        "context": {},
        "entity_id": SYSTEM_ENTITY,
        "event_type": event_type,
        "event_version": 1,
        "id": event_id,
        "labels": [],
        "occurred_at": None,
        "payload": payload,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Genesis:
    """What the record at position 0 says. Keys are 32-byte Ed25519 public keys."""

    ledger: str
    origin: str
    nonce: bytes
    root_key: bytes
    checkpoint_key: bytes
    evidence_key: bytes
    epoch_records_max: int
    epoch_seconds_max: int

    def __post_init__(self) -> None:
        # Before it is sealed: a ledger whose genesis nobody can read back could never be opened again.
        check_ledger_name(self.ledger, place="ledger name")
        check_ledger_name(self.origin, place="origin")
        if not self.origin.endswith(f"/{self.ledger}"):
            raise RejectedError("the origin is not <deployment>/<ledger>", place="origin")
        if len(self.nonce) != _NONCE_BYTES:
            raise RejectedError(f"the nonce has {_NONCE_BYTES} bytes, not {len(self.nonce)}", place="/payload/nonce")
        for name in ("root_key", "checkpoint_key", "evidence_key"):
            check_public_key(getattr(self, name), place=f"/payload/{name}")

    @property
    def verifier_key(self) -> VerifierKey:
        """The key of the ledger's first checkpoints."""
        return VerifierKey(self.origin, self.checkpoint_key)

    def payload(self) -> dict[str, Any]:
        return {
            "algorithms": _ALGORITHMS,
            "checkpoint_key": self.verifier_key.render(),
            "epoch": {"records_max": self.epoch_records_max, "seconds_max": self.epoch_seconds_max},
            "evidence_key": render_base64(self.evidence_key),
            "ledger": self.ledger,
            "nonce": self.nonce.hex(),
            "origin": self.origin,
            "retention": None,
            "root_key": render_base64(self.root_key),
        }

    def seal(self, root: Ed25519PrivateKey, *, event_id: str, recorded_at: str) -> bytes:
        """The genesis record, signed by the root key (SPEC 4)."""
        content = Content.of(system_members(LEDGER_CREATED, self.payload(), event_id=event_id))
        form = body_format(ledger=self.ledger, epoch=0, recorded_at=recorded_at)
        body = form % (content.before, 1, content.middle, content.after, 0, NO_HASH.encode())
        return with_signature(body, root.sign(genesis_message(signed_part(body))).hex().encode())

    @classmethod
    def of(cls, record: Record) -> Genesis:
        """Read a record as a genesis; what it claims is not yet believed (see `signature_holds`)."""
        payload = _payload(record, LEDGER_CREATED)
        try:
            genesis = cls(
                ledger=_text(payload, "ledger"),
                origin=_text(payload, "origin"),
                nonce=bytes.fromhex(_text(payload, "nonce")),
                root_key=parse_base64(_text(payload, "root_key"), place="/payload/root_key"),
                checkpoint_key=VerifierKey.parse(_text(payload, "checkpoint_key")).public_key,
                evidence_key=parse_base64(_text(payload, "evidence_key"), place="/payload/evidence_key"),
                epoch_records_max=_count(payload.get("epoch"), "records_max"),
                epoch_seconds_max=_count(payload.get("epoch"), "seconds_max"),
            )
        except ValueError as error:
            raise RejectedError("the nonce is not hex", place="/payload/nonce") from error
        bare = (
            record.position,
            record.members["epoch"],
            record.members["prev_hash"],
            record.members["ledger"],
        )
        if bare != (0, 0, NO_HASH, genesis.ledger) or payload != genesis.payload():
            raise RejectedError("the genesis record is not what SPEC 4 prints")
        return genesis

    def signature_holds(self, record: Record) -> bool:
        """Whether the genesis record was signed by the root key that it names."""
        signature = bytes.fromhex(record.members["signature"])
        return signature_holds(self.root_key, signature, genesis_message(record.signed_part))


@dataclass(frozen=True, slots=True)
class EpochOpened:
    """The first record of an epoch: its number, and the commitment to its MAC key (32 bytes)."""

    epoch: int
    key_commitment: bytes

    def payload(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "key_commitment": self.key_commitment.hex()}

    @classmethod
    def of(cls, record: Record) -> EpochOpened:
        payload = _payload(record, EPOCH_OPENED)
        try:
            opened = cls(_count(payload, "epoch", least=0), bytes.fromhex(_text(payload, "key_commitment")))
        except ValueError as error:
            raise RejectedError("the commitment is not hex", place="/payload/key_commitment") from error
        if payload != opened.payload() or len(opened.key_commitment) != 32:
            raise RejectedError("the epoch's opening is not what SPEC 5.2 prints", place="/payload")
        return opened


@dataclass(frozen=True, slots=True)
class EpochClosed:
    """The last record of an epoch: its number, and which records it holds, itself and the opening included."""

    epoch: int
    first_position: int
    last_position: int

    def payload(self) -> dict[str, Any]:
        return {
            "count": self.last_position - self.first_position + 1,
            "epoch": self.epoch,
            "first_position": self.first_position,
            "last_position": self.last_position,
        }

    @classmethod
    def of(cls, record: Record) -> EpochClosed:
        payload = closing(record)
        closed = cls(payload["epoch"], payload["first_position"], payload["last_position"])
        if payload != closed.payload():
            raise RejectedError("the epoch's close is not what SPEC 5.2 prints", place="/payload")
        return closed


def closing(record: Record) -> dict[str, Any]:
    """The payload of a record that closes an epoch, by its form: four numbers, which may be wrong. `RejectedError`."""
    payload = _payload(record, EPOCH_CLOSED)
    if payload.keys() != {"count", "epoch", "first_position", "last_position"}:
        raise RejectedError("the epoch's close is not what SPEC 5.2 prints", place="/payload")
    for name in payload:
        _count(payload, name, least=0)
    return payload


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotated:
    """From this record on another key signs checkpoints, or evidence. Both keys agree, by signature."""

    purpose: Purpose
    ledger: str
    old_key: bytes
    new_key: bytes
    old_signature: bytes
    new_signature: bytes

    @classmethod
    def sign(cls, purpose: Purpose, *, ledger: str, old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> KeyRotated:
        """State the change and sign it by both keys (SPEC 5.4)."""
        old_key, new_key = old.public_key().public_bytes_raw(), new.public_key().public_bytes_raw()
        message = rotation_message(_rotation_statement(purpose, ledger=ledger, old_key=old_key, new_key=new_key))
        return cls(
            purpose=purpose,
            ledger=ledger,
            old_key=old_key,
            new_key=new_key,
            old_signature=old.sign(message),
            new_signature=new.sign(message),
        )

    def payload(self) -> dict[str, Any]:
        return {
            "new_key": render_base64(self.new_key),
            "new_signature": render_base64(self.new_signature),
            "old_key": render_base64(self.old_key),
            "old_signature": render_base64(self.old_signature),
            "purpose": self.purpose,
        }

    @classmethod
    def of(cls, record: Record) -> KeyRotated:
        payload = _payload(record, KEY_ROTATED)
        purpose = _text(payload, "purpose")
        if purpose not in ("checkpoint", "evidence"):
            raise RejectedError("not a purpose that a key can have", place="/payload/purpose")
        rotated = cls(
            purpose="checkpoint" if purpose == "checkpoint" else "evidence",
            ledger=str(record.members["ledger"]),
            old_key=parse_base64(_text(payload, "old_key"), place="/payload/old_key"),
            new_key=parse_base64(_text(payload, "new_key"), place="/payload/new_key"),
            old_signature=parse_base64(_text(payload, "old_signature"), place="/payload/old_signature"),
            new_signature=parse_base64(_text(payload, "new_signature"), place="/payload/new_signature"),
        )
        for name in ("old_key", "new_key"):
            check_public_key(getattr(rotated, name), place=f"/payload/{name}")
        if payload != rotated.payload():
            raise RejectedError("the key rotation is not what SPEC 5.4 prints", place="/payload")
        return rotated

    def signatures_hold(self) -> bool:
        """Whether both keys signed the change."""
        message = rotation_message(
            _rotation_statement(self.purpose, ledger=self.ledger, old_key=self.old_key, new_key=self.new_key)
        )
        return signature_holds(self.old_key, self.old_signature, message) and signature_holds(
            self.new_key, self.new_signature, message
        )


def _rotation_statement(purpose: str, *, ledger: str, old_key: bytes, new_key: bytes) -> bytes:
    return encode(
        {
            "ledger": ledger,
            "new_key": render_base64(new_key),
            "old_key": render_base64(old_key),
            "purpose": purpose,
        }
    )


def _payload(record: Record, event_type: str) -> dict[str, Any]:
    if record.event_type != event_type:
        raise RejectedError(f"the record is a {record.event_type}, not a {event_type}", place="/event_type")
    if record.entity_id != SYSTEM_ENTITY or record.actor != _SYSTEM_ACTOR:
        raise RejectedError(f"a {event_type} is not one of the ledger's own events (SPEC 5.5)", place="/entity_id")
    return record.payload


def _text(payload: dict[str, Any], name: str) -> str:
    value = payload.get(name)
    if type(value) is not str:
        raise RejectedError("not a string", place=f"/payload/{name}")
    return value


def _count(payload: Any, name: str, *, least: int = 1) -> int:
    value = payload.get(name) if type(payload) is dict else None
    if type(value) is not int or value < least:
        raise RejectedError(f"not an integer from {least}", place=f"/payload/{name}")
    return value
