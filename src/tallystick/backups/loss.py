"""What is recorded when a backup is restored of which others know that there was more.

What a ledger seals from here on contradicts the checkpoints that were given out after the backup was made: history
forks, and that cannot be undone. It can be said, in the ledger, so that whoever finds the fork finds the reason, too.

MAC keys of epochs that were closed after the backup may have been disclosed (SPEC 5.3), and an epoch of the same number
has the same key. So the ledger first passes as many epochs as can have been closed, and then records the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tallystick.backups.judging import JudgedLedger, Terms
from tallystick.backups.layout import within
from tallystick.backups.parcel import told
from tallystick.config import open_keystore
from tallystick.core.custody import OwnEvent
from tallystick.core.restored import LEDGER_RESTORED, LedgerRestored, epochs_to_pass
from tallystick.errors import RejectedError, TamperError
from tallystick.opening import open_ledger
from tallystick.write.queue import FOLDER as QUEUE_FOLDER
from tallystick.write.queue_mac import Statement
from tallystick.write.queue_mark import MARK, overwrite_mark, parse_mark


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a restore is wanted that loses records, and who wants it."""

    reason: str
    actor: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Restoring:
    """The backup that is restored."""

    created: str
    digest: bytes
    """The SHA-256 of its manifest."""
    marks: Mapping[str, bytes]
    """The marks of queues as they were read and held against the manifest, by their names in the backup."""

    def mark_of(self, folder: str, *, key: bytes) -> Statement | None:
        """What the mark of the queue in a folder says, None where there is none. Raises `TamperError`."""
        data = self.marks.get(within(folder, f"{QUEUE_FOLDER}/{MARK}"))
        found = parse_mark(data, key=key).newest
        if data is not None and found is None:
            raise TamperError(f"the mark of the queue of {folder or 'the ledger'} is not one of this ledger")
        return found


def record_loss(folder: Path, loss: Loss, ledgers: Iterable[JudgedLedger], terms: Terms, *, backup: Restoring) -> None:
    """Record in every ledger that it was restored. Raises `RejectedError` when the keys of one are not the right ones.

    A crash within leaves what has no name yet.
    """
    ledgers = [*ledgers]
    for judged in ledgers:
        if not judged.can_seal:
            cure = "name the folder that holds the keys of the time of the backup"
            raise RejectedError(f"the keys of {judged.kept.place} are not here, or not those in force", cure=cure)
    for judged in ledgers:
        assert terms.keys is not None, "with no keys nothing can be sealed"
        restored = LedgerRestored(
            size=judged.kept.size,
            created=backup.created,
            backup_sha256=backup.digest,
            held_checkpoint=judged.held if judged.lost else None,
            reason=loss.reason,
        )
        keys = terms.keys / judged.kept.folder
        with open_ledger(
            folder / judged.kept.folder, create=False, keys=keys, marks=terms.marks, clock=terms.clock
        ) as ledger:
            event = OwnEvent(LEDGER_RESTORED, restored.payload(), loss.actor)
            ledger.record_restore(event, epochs=epochs_to_pass(judged.lost))
            if ledger.queue_mark is not None:
                # What was acknowledged after the backup is lost, too. A crash before this leaves the newer mark, which
                # the queue of the next restore is checked by.
                key = open_keystore(keys).ledger_keys(judged.kept.name).queue_mac
                brought = backup.mark_of(judged.kept.folder, key=key)
                with told(ledger.queue_mark):
                    overwrite_mark(ledger.queue_mark, brought, key=key)
