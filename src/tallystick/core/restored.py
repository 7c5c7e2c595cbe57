"""What a ledger says of itself when it was restored from a backup that may lack records (SPEC 5.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tallystick.core import timestamp
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.custody import check_reason, exactly, own_payload, text_member
from tallystick.core.merkle import HASH_BYTES
from tallystick.core.record import Record
from tallystick.errors import RejectedError
from tallystick.limits import SIZE_MAX

LEDGER_RESTORED: Final = "tallystick.ledger.restored"

EPOCHS_UNKNOWN: Final = 100
"""Epochs that are passed where nobody knows how much was lost: more exports than a ledger sees between two backups."""

EPOCHS_MAX: Final = 1_000
"""Epochs that are passed at most; each takes two records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRestored:
    """From `size` on the ledger was sealed anew. What was sealed there before is lost, also if others know of it."""

    size: int
    """How many records the backup had."""
    created: str
    """When it was made."""
    backup_sha256: bytes
    """Of its manifest."""
    held_checkpoint: bytes | None
    """A checkpoint of what was lost, if one was known."""
    reason: str

    def __post_init__(self) -> None:
        check_reason(self.reason)
        timestamp.parse(self.created)
        if len(self.backup_sha256) != HASH_BYTES:
            raise RejectedError("not a SHA-256 in hex", place="/payload/backup_sha256")
        if type(self.size) is not int or not 1 <= self.size <= SIZE_MAX:
            raise RejectedError(f"{self.size!r} is no size of a ledger", place="/payload/size")
        if self.held_checkpoint is not None and Checkpoint.of_note(self.held_checkpoint).size <= self.size:
            raise RejectedError("it is of nothing that was lost", place="/payload/held_checkpoint")

    def payload(self) -> dict[str, Any]:
        return {
            "backup_sha256": self.backup_sha256.hex(),
            "created": self.created,
            "held_checkpoint": None if self.held_checkpoint is None else self.held_checkpoint.decode(),
            "reason": self.reason,
            "size": self.size,
        }

    @classmethod
    def of(cls, record: Record) -> LedgerRestored:
        """Read a record as one. Raises `RejectedError`."""
        payload = own_payload(record, LEDGER_RESTORED)
        held = None if payload.get("held_checkpoint") is None else text_member(payload, "held_checkpoint")
        try:
            digest = bytes.fromhex(text_member(payload, "backup_sha256"))
        except ValueError:
            digest = b""
        restored = cls(
            size=payload.get("size", 0),
            created=text_member(payload, "created"),
            backup_sha256=digest,
            held_checkpoint=None if held is None else held.encode(),
            reason=text_member(payload, "reason"),
        )
        return exactly(restored, payload, LEDGER_RESTORED)


def epochs_to_pass(lost: int | None) -> int:
    """How many epochs can have been closed by so many records: a close, and then one opening and one close for each."""
    return EPOCHS_UNKNOWN if lost is None else min(EPOCHS_MAX, (lost + 1) // 2)
