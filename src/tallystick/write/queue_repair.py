"""Looking at a queue that nobody has open, and going on without what damage took from it.

A repair writes a new queue with an id of its own: the good frames each at its place, frames that say that something was
lost in the place of others, the refusals, a cursor and a mark. All of it is written aside, in a folder that gets its
name when it is whole; putting it in place can be cut short, and is then finished by the next opening. The folder is
obeyed only with an authentic order in it, which names the mark that it replaces: so an earlier repair cannot be put in
force once more. What stood there before is kept in a folder `damaged-…`, and in no backup.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Final, NamedTuple

from tallystick.durable import replace, sync, sync_folder
from tallystick.errors import StoreError, TamperError
from tallystick.ids import random_bytes
from tallystick.limits import QUEUE_EVENTS_MAX
from tallystick.plain_file import NotPlainError, check_folder, open_plain
from tallystick.private_file import make_folder
from tallystick.write import queue_mac, segments
from tallystick.write.queue_check import CURSOR, DAMAGED, REPAIRED, examine
from tallystick.write.queue_findings import Examined, QueueFinding, damage_text
from tallystick.write.queue_mac import NO_LINK, QUEUE_ID_BYTES, STATEMENT_BYTES, Fault, FaultError, Kind, Statement
from tallystick.write.queue_mark import MARK, find_mark, make_mark, mark_bytes, mark_digest, render_mark, take_mark
from tallystick.write.queue_refusals import REFUSED, read_authentic, render_refusals
from tallystick.write.segments import LOST

_ORDER: Final = "order"
_SCRATCH: Final = ".repairing"


class Seen(NamedTuple):
    """How a queue stands that nobody has open."""

    depth: int
    bytes: int
    oldest_at: int | None
    findings: tuple[QueueFinding, ...]


def look(folder: Path, key: bytes, *, mark: Path | None = None) -> Seen:
    """Look at a queue and change nothing. Raises `BusyError` while a process has it open."""
    with (
        segments.lock(folder, mark) if folder.is_dir() else nullcontext()
    ):  # where all of it was deleted, nothing is made
        examined = examine(folder, key, mark=mark)
        return Seen(examined.depth, examined.bytes, examined.oldest_at, tuple(examined.findings))


def repair(folder: Path, key: bytes, *, now: int, mark: Path | None = None) -> tuple[QueueFinding, ...]:
    """Go on without what was lost to damage: what was found. What is good stays, each at its place.

    The old files are kept in a folder `damaged-…`. A crash leaves the queue as it was, or repaired. Raises
    `StoreError`, and `TamperError` for a queue of the older format, of which nothing is authentic.
    """
    with segments.lock(folder, mark):
        try:
            place = find_mark(folder, mark)
            finish_repair(folder, key, mark=place)
            examined = examine(folder, key, mark=place)
            if not examined.findings:
                return ()
            if any(one.kind is Fault.OLD_FORMAT for one in examined.findings):
                raise TamperError(damage_text(examined.findings))
            _write_aside(folder, key, examined, now=now, mark=place)
            finish_repair(folder, key, mark=place)
            take_mark(folder, mark)  # after a crash before this, the next opening does it
        except OSError as error:
            raise StoreError(f"could not repair the queue in {folder}: {error}") from error
        return tuple(examined.findings)


def _write_aside(folder: Path, key: bytes, examined: Examined, *, now: int, mark: Path) -> None:
    """Write the whole repaired queue into a folder, which gets its name last."""
    scratch = folder / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    make_folder(scratch, exist_ok=False)
    queue = random_bytes(QUEUE_ID_BYTES)
    end = max(examined.end, examined.acknowledged)
    # A queue never has more waiting: what stands before that is sealed, whatever became of the cursor.
    begin = max(_begin(examined, folder, key), end - QUEUE_EVENTS_MAX, 0)
    link = _write_frames(scratch, folder, key, Statement(queue, begin, NO_LINK), end=end, now=now, old=examined.queue)
    kept = _kept_refusals(folder, key, examined, begin)
    lines, other = render_refusals(kept, key=key, queue=queue, link=NO_LINK)
    cursor = Statement(queue, begin, NO_LINK, len(kept), other)
    order = Statement(queue, begin, NO_LINK, now, mark_digest(mark))
    replace(scratch / REFUSED, lines)
    replace(scratch / CURSOR, queue_mac.render(Kind.CURSOR, cursor, key=key))
    replace(scratch / MARK, render_mark(Statement(queue, end, link, 1), key=key))
    replace(scratch / _ORDER, queue_mac.render(Kind.REPAIR, order, key=key))
    sync_folder(scratch)
    # A crash up to here leaves the queue as it was. From here on it is repaired, or will be at the next opening.
    scratch.rename(folder / f"{REPAIRED}-{now}")
    sync_folder(folder)


def _begin(examined: Examined, folder: Path, key: bytes) -> int:
    """The first event that is not known to be sealed."""
    if examined.cursor is not None:
        return examined.cursor.sequence
    for _, path in segments.segments(folder):
        try:
            head = segments.read_head(path, key=key)
        except FaultError:
            continue
        if head.queue == examined.queue:
            return head.sequence
    return max(examined.end, examined.acknowledged)


def _write_frames(
    scratch: Path, folder: Path, key: bytes, head: Statement, *, end: int, now: int, old: bytes | None
) -> bytes:
    """Write the good frames into a new segment, and in the place of others that they are lost. The last MAC."""
    good: dict[int, tuple[Path, int]] = {}
    was, tag = segments.tagger(key, old or b""), segments.tagger(key, head.queue)
    for _, path in segments.segments(folder):
        for offset, frame in segments.read(path):
            if frame is not None and segments.is_authentic(frame, was):
                good.setdefault(frame.sequence, (path, offset))
    link = head.link
    with segments.begin(scratch, head, key=key) as file:
        for sequence in range(head.sequence, end):
            body, accepted_at = LOST, now
            if sequence in good:
                path, offset = good[sequence]
                found = next(segments.read(path, offset=offset))[1]
                assert found is not None, "it was read before, and the queue is locked"
                body, accepted_at = found.body, found.accepted_at
            data, link = segments.render_chain(
                [body], tag, sequence=sequence, acknowledged=head.sequence, accepted_at=accepted_at, link=link
            )
            segments.write_all(file, data)
        sync(file)
    return link


def _kept_refusals(folder: Path, key: bytes, examined: Examined, begin: int) -> dict[int, str]:
    if examined.cursor is not None:
        return dict(examined.refusals.reasons)
    found = read_authentic(folder / REFUSED, key=key, queue=examined.queue or bytes(QUEUE_ID_BYTES)).reasons
    return {sequence: why for sequence, why in found.items() if sequence < begin}


def finish_repair(folder: Path, key: bytes, *, mark: Path) -> None:
    """Put what was repaired in its place, if a crash kept that from being done.

    Each file that is still in the folder of the repair was not put in place yet. Raises `OSError`, and `TamperError`
    for a repair that the holder of the keys did not order.
    """
    # What a repair left that was cut short before it was whole: nothing reads it, and it has events in it.
    shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
    for repaired in sorted(folder.glob(f"{REPAIRED}-*")):
        is_folder = repaired.is_dir() and not repaired.is_symlink()
        names = {path.name for path in repaired.iterdir()} if is_folder else {""}
        if names <= {MARK}:  # a crash after the last step but one or two; nothing of it is put anywhere
            shutil.rmtree(repaired)
            continue
        order = _read_order(repaired, key, mark=mark)
        aside = check_folder(folder / f"{DAMAGED}-{order.number}", below=folder)
        make_folder(aside)
        new = segments.segment_path(repaired, order.sequence)
        if new.name in names:
            for _, old in segments.segments(folder):
                old.rename(aside / old.name)
            new.rename(folder / new.name)
        for name in (REFUSED, CURSOR):
            if name in names:
                if (folder / name).exists():
                    (folder / name).rename(aside / name)
                (repaired / name).rename(folder / name)
        sync_folder(aside)
        sync_folder(folder)
        # The mark is last: as long as it is the old one, the order is in force.
        if MARK in names:
            old_mark = mark_bytes(mark)
            if old_mark is not None and old_mark != mark_bytes(repaired / MARK):
                replace(aside / MARK, old_mark)
            make_mark(mark, mark_bytes(repaired / MARK) or b"")
        # A crash between these leaves the mark alone, or nothing: the repair is done.
        (repaired / _ORDER).unlink()
        shutil.rmtree(repaired)
        sync_folder(folder)


def _read_order(repaired: Path, key: bytes, *, mark: Path) -> Statement:
    """The order of a repair, if it is authentic and of the mark that is there. Raises `TamperError`."""
    try:
        with open_plain(check_folder(repaired, below=repaired.parent) / _ORDER) as file:
            order = queue_mac.parse(Kind.REPAIR, file.read(STATEMENT_BYTES + 1), key=key)
        # With the new mark in its place all the rest is in its place, too: else somebody put this folder back.
        is_done = not any((repaired / name).exists() for name in (CURSOR, REFUSED))
        bound = {order.other, mark_digest(repaired / MARK)} if is_done else {order.other}
        if repaired.name != f"{REPAIRED}-{order.number}" or mark_digest(mark) not in bound:
            raise FaultError(Fault.REPAIR, "it is an older repair, of another mark than the one that is there")
    except (FileNotFoundError, NotPlainError, FaultError) as error:
        why = str(error) if isinstance(error, (FaultError, NotPlainError)) else "there is no order in it"
        raise TamperError(
            f"{repaired.name} is not a repair of this queue as it is: {why}. Nothing of it is used: move it away"
        ) from error
    return order
