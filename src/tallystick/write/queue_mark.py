"""The mark: up to where events of a queue were acknowledged, written before anybody gets a ticket.

One file of fixed size with two slots, written in turn and in place, each in a block of its own: what a power cut tears
is the slot that was being written, on which no ticket relies; the other one is whole. Where the queue ends below the
mark, acknowledged events are gone; what stands past it was not acknowledged. The file lies beside the head mark, out of
reach of an attacker who puts an older copy of the whole queue back. In the folder of the queue it comes with a backup.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from tallystick.durable import replace, sync_data, sync_folder
from tallystick.plain_file import open_plain, open_to_write
from tallystick.private_file import make_folder
from tallystick.write import queue_mac
from tallystick.write.queue_mac import MAC_BYTES, STATEMENT_BYTES, Fault, FaultError, Kind, Statement

MARK: Final = "mark"
"""Its name, where it is in the folder of the queue."""

_SLOT_BYTES: Final = 4_096
"""A block of a disk or of a page cache: writing one slot cannot tear the other."""
MARK_BYTES: Final = 2 * _SLOT_BYTES


def queue_mark_path(marks: Path | None, ledger_id: bytes) -> Path | None:
    """Where the mark of a ledger's queue is, in the directory of the marks; None where there is no such directory, and
    the mark is in the folder of the queue."""
    return None if marks is None else marks / f"{ledger_id.hex()}.queue"


def find_mark(folder: Path, mark: Path | None) -> Path:
    """The file that counts as the mark of the queue in a folder. Raises `OSError` when that cannot be told.

    The one in the folder, which a backup brought, counts only as long as there is none elsewhere: an attacker who puts
    one there changes nothing, as a queue that was ever used has its mark elsewhere.
    """
    brought = folder / MARK
    if mark is None or (mark_bytes(mark) is None and mark_bytes(brought) is not None):
        return brought
    return mark


def take_mark(folder: Path, mark: Path | None, newest: Statement | None, *, key: bytes) -> Path:
    """The same for who has the queue and found no damage, and `newest` in the mark: one that a backup brought is put
    where marks are, or removed, if there is one. A crash within leaves both, and the one elsewhere counts."""
    found, brought = find_mark(folder, mark), folder / MARK
    if mark is None or mark == brought:
        return found
    if found == brought and newest is not None:
        make_mark(mark, mark_of(newest, key=key))  # and not what lies there by now
    brought.unlink(missing_ok=True)
    return mark


def overwrite_mark(mark: Path, brought: Statement | None, *, key: bytes) -> None:
    """Have the mark that a backup brought count, although there may be another one: what that knows of was lost, and
    the loss is accepted. A backup without a queue brought none; then no mark is left. Raises `OSError`."""
    if brought is not None:
        make_mark(mark, mark_of(brought, key=key))
    elif mark_bytes(mark) is not None:
        mark.unlink()
        sync_folder(mark.parent)


@dataclass(frozen=True, slots=True)
class MarkRead:
    """What the file of a mark says."""

    newest: Statement | None
    """None when there is no mark, or no slot of it is authentic."""
    faults: tuple[FaultError, ...]
    """What is wrong with its slots, or with the file."""
    is_there: bool


def read_mark(path: Path, *, key: bytes) -> MarkRead:
    """Read a mark. What is wrong with it is in the result."""
    return parse_mark(mark_bytes(path), key=key)


def parse_mark(data: bytes | None, *, key: bytes) -> MarkRead:
    """The same of the bytes of a mark; None stands for none."""
    if data is None:
        return MarkRead(None, (), is_there=False)
    if len(data) != MARK_BYTES:
        fault = FaultError(Fault.MARK, f"a mark has {MARK_BYTES} bytes, and this has {len(data)} or more")
        return MarkRead(None, (fault,), is_there=True)
    slots, faults = [], []
    for number in (0, 1):
        try:
            slot = queue_mac.parse(Kind.MARK, _slot(data, number), key=key)
            if slot.number % 2 != number:
                raise FaultError(Fault.ALTERED, "it is the other slot, copied over this one")
            slots.append(slot)
        except FaultError as error:
            faults.append(error)
    return MarkRead(max(slots, key=lambda slot: slot.number, default=None), (*faults,), is_there=True)


def mark_bytes(path: Path) -> bytes | None:
    """The bytes of a mark, bounded; None when it is not there."""
    try:
        with open_plain(path) as file:
            return file.read(MARK_BYTES + 1)
    except FileNotFoundError:
        return None


def mark_digest(path: Path) -> bytes:
    """What a repair remembers of the mark that it replaces."""
    return sha256(mark_bytes(path) or b"").digest()[:MAC_BYTES]


def peek_mark(data: bytes) -> Statement | None:
    """The newest slot without the key, for who copies a mark; None when a slot is torn, or being written just now."""
    try:
        slots = [queue_mac.peek(Kind.MARK, _slot(data, number)) for number in (0, 1)]
    except FaultError:
        return None
    return max(slots, key=lambda slot: slot.number)


def render_mark(statement: Statement, *, key: bytes) -> bytes:
    """A whole file of which both slots say the same. The first to be written after it is slot 0."""
    assert statement.number % 2 == 1, "the newer slot is the second"
    slots = [queue_mac.render(Kind.MARK, statement._replace(number=statement.number - 1 + n), key=key) for n in (0, 1)]
    return b"".join(slot.ljust(_SLOT_BYTES, b"\0") for slot in slots)


def mark_of(newest: Statement, *, key: bytes) -> bytes:
    """A whole file whose newest slot is that statement, or says the same with the next number."""
    return render_mark(newest._replace(number=newest.number | 1), key=key)


def make_mark(path: Path, data: bytes) -> None:
    """Put a whole mark in its place, durably, also its name. Raises `OSError`."""
    make_folder(path.parent)
    replace(path, data)
    sync_folder(path.parent)


class MarkFile:
    """A mark that is open for writing. One thread at a time."""

    def __init__(self, path: Path, statement: Statement, *, key: bytes) -> None:
        """Open the mark in which `statement` is the newest slot. Raises `OSError`."""
        self._key: Final = key
        self._statement = statement
        self._file: Final = open_to_write(path, buffering=0)

    def write(self, sequence: int, link: bytes) -> None:
        """Say that everything below a sequence number may be acknowledged. On return this is on the disk.

        A crash within leaves the older slot, or the newer one; no caller has a ticket for what it adds. Raises
        `OSError`; then it is not known which of the two is there, and nothing more may be written.
        """
        statement = self._statement._replace(sequence=sequence, link=link, number=self._statement.number + 1)
        data = queue_mac.render(Kind.MARK, statement, key=self._key)
        # Written in place, a file without a name is found by nobody: no ticket may rely on it. It lies where other
        # copies of the ledger put theirs, too.
        if not os.fstat(self._file.fileno()).st_nlink:
            raise OSError("the mark was removed or replaced while the queue was in use")
        if os.pwrite(self._file.fileno(), data, statement.number % 2 * _SLOT_BYTES) != len(data):
            raise OSError("the mark was written only in part")
        sync_data(
            self._file.fileno()
        )  # of a file that keeps its size: the bytes alone, without the file system's journal
        self._statement = statement

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _slot(data: bytes, number: int) -> bytes:
    return data[number * _SLOT_BYTES :][:STATEMENT_BYTES]
