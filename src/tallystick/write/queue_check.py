"""Checking the files of a queue: what waits in it, and what of it is not what was written and acknowledged.

The cursor and the mark are authenticated statements about places in the chain of frames. From the cursor on every frame
has to be there, authentic, and linked to the one before, up to the mark; there the chain has to be the one that was
acknowledged. What stands before the cursor is sealed, and is not checked. What a crash tore stands past the mark: it is
not damage. Nothing is written here. A queue may be checked while a process uses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tallystick.errors import StoreError
from tallystick.plain_file import check_folder, open_plain
from tallystick.write import queue_mac, segments
from tallystick.write.queue_chain import follow
from tallystick.write.queue_findings import SEGMENTS, Examined, QueueFinding, old_format_text
from tallystick.write.queue_mac import NO_LINK, STATEMENT_BYTES, Fault, FaultError, Kind, Statement
from tallystick.write.queue_mark import MARK, MarkRead, find_mark, read_mark
from tallystick.write.queue_refusals import REFUSED, read_refusals

FOLDER: Final = "queue"
"""The folder of the queue, in that of its ledger."""
CURSOR: Final = "cursor"
REPAIRED: Final = "repaired"
DAMAGED: Final = "damaged"
"""Names in the folder of a queue; the last two with a number, while a repair is under way, and after it."""

_ATTEMPTS_MAX: Final = 5
"""Looks at a queue that seals meanwhile, before what was found counts."""


def check_queue(folder: Path, key: bytes, *, mark: Path | None = None) -> tuple[QueueFinding, ...]:
    """What of a queue is not as it was written and acknowledged; empty when all of it is, or there is no queue.

    `key` is `LedgerKeys.queue_mac`; `mark` says where the mark is that does not lie in the folder (`find_mark`).
    Changes nothing, and may be asked while a process uses the queue. Raises `StoreError` when the files cannot be read.
    """
    findings: list[QueueFinding] = []
    try:
        for _ in range(_ATTEMPTS_MAX):
            before = _sealed(folder, key)
            findings = examine(folder, key, mark=mark).findings
            after = _sealed(folder, key)
            # What was sealed meanwhile was removed, and then seems to be missing.
            findings = [one for one in findings if before == after or one.end is None or one.end > after]
            if not findings or before == after:
                break
    except OSError as error:
        raise StoreError(f"could not read the queue in {folder}: {error}") from error
    return tuple(findings)


def _sealed(folder: Path, key: bytes) -> int:
    """Below which sequence number all is sealed, as far as an authentic cursor says."""
    cursor = _read_cursor(folder, key, Examined(None))
    return cursor.sequence if cursor else 0


def examine(folder: Path, key: bytes, *, mark: Path | None = None) -> Examined:
    """Look at all files of a queue. Raises `StoreError` when they cannot be read.

    The cursor is read before the mark, and the mark before the segments: the running queue writes them in the other
    order, so that none of them can be ahead of what is read after it.
    """
    try:
        return _examine(folder, key, mark)
    except OSError as error:
        raise StoreError(f"could not read the queue in {folder}: {error}") from error


def _examine(folder: Path, key: bytes, mark: Path | None) -> Examined:
    examined = Examined(None)
    check_folder(folder, below=folder.parent)
    cursor = _read_cursor(folder, key, examined)
    mark_path = find_mark(folder, mark)
    marks = read_mark(mark_path, key=key)
    if mark is not None and not marks.is_there:  # who has the queue may have put it where it belongs just now
        mark_path, marks = mark, read_mark(mark, key=key)
    mark_file = mark_path.name  # not where it is: this text goes to callers of the service, too
    found = segments.segments(folder)
    remains = [*folder.glob(f"{DAMAGED}-*"), *folder.glob(f"{REPAIRED}-*")]
    if not (found or cursor or examined.findings or marks.is_there or remains or (folder / REFUSED).exists()):
        return examined
    for path in folder.glob(f"{REPAIRED}-*"):
        examined.add(Fault.REPAIR, path.name, "a repair was cut short: `tallystick queue drain` finishes it")
        return examined
    examined.mark = marks.newest
    examined.queue = _queue_id(cursor, marks.newest, found, key)
    _check_cursor(examined, cursor, marks)
    if examined.queue is not None:
        follow(examined, found, key)
    _check_mark(examined, marks, mark_path, file=mark_file, key=key)
    _check_segments(examined, found)
    at = examined.cursor
    if at is not None:
        path = folder / REFUSED
        examined.refusals = read_refusals(path, key=key, queue=at.queue, count=at.number, link=at.other)
        if examined.refusals.fault is not None:
            lost = f"{examined.refusals.fault}: why {at.number - examined.refusals.count} events were refused is lost"
            examined.add(Fault.REFUSED, REFUSED, lost)
    return examined


def _read_cursor(folder: Path, key: bytes, examined: Examined) -> Statement | None:
    data = _read_file(folder / CURSOR)
    if data is None:
        return None
    try:
        return queue_mac.parse(Kind.CURSOR, data, key=key)
    except FaultError as error:
        kind = error.fault if error.fault is Fault.OLD_FORMAT else Fault.CURSOR
        examined.add(kind, CURSOR, old_format_text(error) or f"{error}: nothing says what is sealed")
        return None


def _queue_id(
    cursor: Statement | None, mark: Statement | None, found: list[tuple[int, Path]], key: bytes
) -> bytes | None:
    """Which queue this is: what the mark says, else the cursor, else the newest segment."""
    for statement in (mark, cursor):
        if statement is not None:
            return statement.queue
    for _, path in reversed(found):
        try:
            return segments.read_head(path, key=key).queue
        except FaultError:
            continue
    return None


def _check_cursor(examined: Examined, cursor: Statement | None, marks: MarkRead) -> None:
    mark = marks.newest
    begun = mark is None or mark.sequence > 0  # before that, a crash may have kept the cursor from being made
    if cursor is None:
        if begun and not any(one.file == CURSOR for one in examined.findings):
            examined.add(Fault.CURSOR, CURSOR, "it is not there, and a queue was: nothing says what is sealed")
        elif not begun and mark is not None and not examined.findings:
            examined.cursor = Statement(mark.queue, 0, NO_LINK)
        return
    if cursor.queue != examined.queue:
        examined.add(Fault.CURSOR, CURSOR, "it is of another queue, or of this one before it was repaired")
        return
    examined.cursor = cursor
    if mark is not None and cursor.sequence > mark.sequence:
        seen = f"it says that events below {cursor.sequence} are sealed, and the mark that those below {mark.sequence}"
        examined.add(Fault.CURSOR, CURSOR, f"{seen} were acknowledged: one of the two is an older copy", mark.sequence)


def _check_mark(examined: Examined, marks: MarkRead, path: Path, *, file: str, key: bytes) -> None:
    mark = marks.newest
    if not marks.is_there:
        moved = "" if file == MARK else "; if the directory of the marks was moved, this file belongs there, too"
        seen = f"it is not there, and a queue was: nothing says what was acknowledged{moved}"
        examined.add(Fault.MARK, file, seen)
        return
    if mark is not None and (marks.faults or examined.acknowledged > mark.sequence):
        # A running queue writes it: a slot may have been read in between, and frames be newer than what was read.
        again = read_mark(path, key=key)
        marks = again if again.newest is not None else marks
        mark = marks.newest or mark
    for error in marks.faults:
        # Only the slot that was being written can be torn, and then the frames that it was about are there.
        if mark is None or examined.end <= mark.sequence or error.fault is not Fault.CHECKSUM:
            seen = "events past it may have been acknowledged" if mark else "nothing says what was acknowledged"
            examined.add(Fault.MARK, file, f"{error}; {seen}", mark.sequence if mark else None)
    if mark is not None and examined.acknowledged > mark.sequence:
        seen = f"it says that events below {mark.sequence} were acknowledged, and the frames that those below "
        examined.add(Fault.MARK, file, f"{seen}{examined.acknowledged} were: it is an older copy", mark.sequence)


def _check_segments(examined: Examined, found: list[tuple[int, Path]]) -> None:
    lost = any(one.kind is Fault.MISSING for one in examined.findings)
    if not found and examined.mark is not None and examined.mark.sequence and not lost:
        lost_events = "and what waited in them" if examined.cursor is None else "no event is lost"
        seen = f"there is no segment, and there always is one: all of them were removed; {lost_events}"
        examined.add(Fault.MISSING, SEGMENTS, seen, examined.end, examined.end)


def _read_file(path: Path) -> bytes | None:
    """The bytes of a small file, bounded; None when it is not there."""
    try:
        with open_plain(path) as file:
            return file.read(STATEMENT_BYTES + 1)
    except FileNotFoundError:
        return None
