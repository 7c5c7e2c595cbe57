"""Holding a ledger against what it was: a checkpoint that somebody kept, and the head mark (SPEC 8, step 13)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tallystick.config import Location
from tallystick.core.checkpoint import Checkpoint, open_checkpoint
from tallystick.core.note import VerifierKey
from tallystick.core.system import Genesis
from tallystick.errors import NotFoundError, RejectedError, StoreError, TallystickError, TamperError
from tallystick.evidence.findings import Finding, Kind, Report
from tallystick.evidence.verification.tree import TreeCheck
from tallystick.keystore import Keystore
from tallystick.store.contract import Store
from tallystick.store.head_mark import FIRST_COMMITS, HeadMark
from tallystick.store.mark_file import ForgedMarkError, mark_path, read_mark
from tallystick.store.reading import read_record

NO_MARK: Final = "no head mark: a rollback of the ledger before now would not be noticed"


def check_since(
    since: bytes, key: bytes | None, tree: TreeCheck, *, size: int, origin: str
) -> tuple[Checkpoint | None, list[Finding]]:
    """Whether the ledger is the one that a held checkpoint is of, grown: that checkpoint, or what was found.

    `key` is the one in force at its size and no other: a retired key could otherwise sign for any time.
    """
    try:
        held = open_checkpoint(since, [VerifierKey(origin, key)] if key else [], origin=origin)
    except TamperError as error:
        return None, [Finding(Kind.FORK, None, f"the held checkpoint is not of this ledger: {error}")]
    if held.size > size:
        return None, [Finding(Kind.ROLLBACK, None, f"the ledger had {held.size} records, and now has {size}")]
    if tree.root_at(held.size) != held.root:
        seen = f"the first {held.size} records are not the ones of the held checkpoint"
        return None, [Finding(Kind.FORK, None, seen)]
    return held, []


_COPY: Final = (
    "this ledger was restored from a backup. It has the keys of its original, and only one of the two can go on: what "
    "both add is a fork"
)


@dataclass(frozen=True, slots=True)
class KeptMark:
    """The head mark as it was before anything of the ledger was read: so a ledger that grows cannot be behind it."""

    checkpoint: Checkpoint | None = None
    note: str = ""
    """What is worth knowing about it and is not a finding."""
    finding: Finding | None = None
    folder: Path | None = None
    """Where the marks are, also that of the queue."""

    @classmethod
    def of(cls, store: Store, *, keystore: Keystore | None, marks: Path | None) -> KeptMark:
        """Read it. Without the keys, or the ledger's genesis, there is nothing to read it by."""
        if keystore is None or marks is None:
            return cls()
        return replace(cls._read(store, keystore, marks), folder=marks)

    @classmethod
    def _read(cls, store: Store, keystore: Keystore, marks: Path) -> KeptMark:
        try:
            return cls._read_of(store, keystore, marks)
        except ForgedMarkError as error:
            return cls(finding=Finding(Kind.STORE, None, str(error)))
        except (NotFoundError, RejectedError, TamperError):
            return cls()  # the verification finds what is wrong with the genesis, or says what is wrong with the keys
        except StoreError as error:
            return cls(note=f"the head mark was not compared: {error}")

    @classmethod
    def _read_of(cls, store: Store, keystore: Keystore, marks: Path) -> KeptMark:
        record = read_record(store, 0)
        genesis = Genesis.of(record)
        keys = keystore.ledger_keys(genesis.ledger)
        if keys.root.public_key().public_bytes_raw() != genesis.root_key:
            return cls()  # another ledger's keys, which is a finding of its own
        held = read_mark(mark_path(marks, record.hash), key=keys.head_mac, ledger_id=record.hash)
        if held is not None:
            return cls(Checkpoint.of_note(held))
        head = store.head()
        return cls(note=NO_MARK if head is not None and head.size > FIRST_COMMITS else "")

    @property
    def size(self) -> int | None:
        """How many records it is of, if there is one."""
        return None if self.checkpoint is None else self.checkpoint.size

    @property
    def notes(self) -> tuple[str, ...]:
        """The note, if there is one."""
        return (self.note,) if self.note else ()

    def check(self, tree: TreeCheck, *, size: int, signed: Checkpoint | None) -> list[Finding]:
        """What contradicts the mark. `signed` is the ledger's own checkpoint, if that could be opened."""
        mark = self.checkpoint
        if self.finding is not None:
            return [self.finding]
        if mark is None or mark == signed:  # then the tree is compared with it anyway
            return []
        if mark.size > size:
            seen = f"the head mark is of {mark.size} records, and the ledger now has {size}"
            return [Finding(Kind.ROLLBACK, None, seen)]
        root = tree.root_at(mark.size)
        if root is not None and root != mark.root:  # what is missing for a root is a finding of its own
            return [Finding(Kind.FORK, None, f"the first {mark.size} records are not the ones of the head mark")]
        return []


def keep_mark(store: Store, checkpoint: bytes, *, keystore: Keystore | None, marks: Path | None) -> str:
    """Have the head mark on the disk for a checkpoint that is about to be handed out; why that was not done, or "".

    Only for a ledger that does not contradict its mark. Without the keys nobody can write it.
    """
    if keystore is None or marks is None:
        return ""
    try:
        write_mark(store, checkpoint, keystore=keystore, marks=marks)
    except TallystickError as error:
        return f"the head mark was not written for this checkpoint: {error}"
    return ""


def write_mark(
    store: Store, checkpoint: bytes, *, keystore: Keystore, marks: Path, signer: VerifierKey | None = None
) -> None:
    """Write the head mark for a checkpoint by `signer`, by default the key at hand.

    Raises `TamperError` for a ledger that contradicts its mark, and for a checkpoint by another key.
    """
    record = read_record(store, 0)
    genesis = Genesis.of(record)
    keys = keystore.ledger_keys(genesis.ledger)
    # One that somebody made up would make the good ledger look as if it were rolled back.
    ours = signer or VerifierKey(genesis.origin, keys.checkpoint.public_key().public_bytes_raw())
    open_checkpoint(checkpoint, [ours], origin=genesis.origin)
    HeadMark(marks, store=store, ledger_id=record.hash, key=lambda: keys.head_mac).keep(checkpoint)


def handed_out(
    report: Report, store: Store, *, location: Location, keystore: Keystore | None, marks: Path | None
) -> Report:
    """A report on its way out, with the head mark written first for the checkpoint in it.

    Else somebody could know of a checkpoint that is newer than the mark, and a rollback to before it would pass.
    """
    notes = [keep_mark(store, report.checkpoint, keystore=keystore, marks=marks) if report.holds else ""]
    notes.append(_COPY if location.is_restored_copy else "")
    return replace(report, notes=(*report.notes, *filter(None, notes)))
