"""Looking at a queue that nobody has open, and going on without what damage took from it.

A repair writes a new queue with an id of its own: the good frames each at its place, frames that say that something was
lost in the place of others, the refusals, a cursor and a mark. All of it is written aside, in a folder that gets its
name when it is whole; putting it in place can be cut short, and is then finished by the next opening. The folder is
obeyed only with an authentic order in it, which names the mark that it replaces and each of the new files: so neither
an earlier repair can be put in force once more, nor anything else that lies there. Whoever can write there may do so
while a repair reads and writes: each frame is authenticated as it is used, and each file as it is put in place. What
stood there before is kept in a folder `damaged-…`, and in no backup.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from tallystick.durable import replace, sync_folder
from tallystick.errors import StoreError, TamperError
from tallystick.ids import random_bytes
from tallystick.limits import QUEUE_EVENTS_MAX
from tallystick.made_file import Made, NewFile, make_file
from tallystick.plain_file import NotPlainError, check_folder, open_plain
from tallystick.private_file import make_folder
from tallystick.write import queue_mac, segments
from tallystick.write.queue_check import CURSOR, DAMAGED, REPAIRED, examine
from tallystick.write.queue_findings import Examined, QueueFinding, damage_text
from tallystick.write.queue_mac import NO_LINK, QUEUE_ID_BYTES, Fault, FaultError, Kind, Statement
from tallystick.write.queue_mark import MARK, find_mark, make_mark, mark_bytes, mark_digest
from tallystick.write.queue_order import ORDER, Order, file_digest, read_order
from tallystick.write.queue_refusals import REFUSED, read_authentic, render_refusals
from tallystick.write.segments import LOST, Frame, Tag

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
            finish_repair(folder, key, mark=mark)
            place = find_mark(folder, mark)
            examined = examine(folder, key, mark=place)
            if not examined.findings:
                return ()
            if any(one.kind is Fault.OLD_FORMAT for one in examined.findings):
                raise TamperError(damage_text(examined.findings))
            _write_aside(folder, key, examined, now=now, mark=place)
            finish_repair(folder, key, mark=mark)
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
    head = Statement(queue, begin, NO_LINK)
    good = _good_frames(folder, segments.tagger(key, examined.queue or b""))
    _check_told(good, range(begin, end), examined)
    made, link = _write_frames(scratch, key, head, good, end=end, now=now)
    kept = _kept_refusals(folder, key, examined, begin)
    lines, other = render_refusals(kept, key=key, queue=queue, link=NO_LINK)
    cursor = queue_mac.render(Kind.CURSOR, Statement(queue, begin, NO_LINK, len(kept), other), key=key)
    make_file(scratch / REFUSED, lines)
    make_file(scratch / CURSOR, cursor)
    digests = (made.sha256, sha256(cursor).digest(), sha256(lines).digest())
    order = Order(queue, begin, end, link, now, mark_digest(mark), *digests)
    make_file(scratch / ORDER, order.render(key))
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


class _Place(NamedTuple):
    """Where a good frame was, and by what it is authenticated."""

    path: Path
    offset: int
    size: int
    tag: Tag


def _good_frames(folder: Path, tag: Tag) -> dict[int, _Place]:
    """The frames that are authentic, by their sequence numbers."""
    good: dict[int, _Place] = {}
    for _, path in segments.segments(folder):
        for offset, frame in segments.read(path):
            if frame is not None and segments.is_authentic(frame, tag):
                good.setdefault(frame.sequence, _Place(path, offset, segments.frame_bytes(frame), tag))
    return good


def _check_told(good: Mapping[int, _Place], wanted: range, examined: Examined) -> None:
    """Raises `TamperError` for an event that is lost, and was not when the queue was examined: nobody is told of it."""
    told: set[int] = set()
    for one in examined.findings:
        if one.sequence is not None and one.end is not None:
            told.update(range(max(one.sequence, wanted.start), min(one.end, wanted.stop)))
    for sequence in wanted:
        if sequence not in good and sequence not in told:
            raise _altered(sequence)


def _write_frames(
    scratch: Path, key: bytes, head: Statement, good: Mapping[int, _Place], *, end: int, now: int
) -> tuple[Made, bytes]:
    """Write the good frames into a new segment, and in the place of others that they are lost; with the last MAC."""
    tag, link = segments.tagger(key, head.queue), head.link
    with NewFile(segments.segment_path(check_folder(scratch, below=scratch.parent), head.sequence)) as file:
        file.write(queue_mac.render(Kind.SEGMENT, head, key=key))
        for sequence in range(head.sequence, end):
            body, accepted_at = LOST, now
            if sequence in good:
                found = _read_again(good[sequence], sequence)
                body, accepted_at = found.body, found.accepted_at
            data, link = segments.render_chain(
                [body], tag, sequence=sequence, acknowledged=head.sequence, accepted_at=accepted_at, link=link
            )
            file.write(data)
        return file.finish(), link


def _read_again(place: _Place, sequence: int) -> Frame:
    """A frame that was good. Raises `TamperError` when it is not any more: what gets a new MAC is what has the old."""
    try:
        with open_plain(place.path) as file:
            file.seek(place.offset)
            found = segments.frame_at(file.read(place.size), 0)
    except FileNotFoundError:
        found = None
    if found is None or found.sequence != sequence or not segments.is_authentic(found, place.tag):
        raise _altered(sequence)
    return found


def _altered(sequence: int) -> TamperError:
    return TamperError(
        f"event {sequence} was altered, or taken away, while the queue was repaired. Nothing was done: find out who "
        "can write there, then repair it again"
    )


def _kept_refusals(folder: Path, key: bytes, examined: Examined, begin: int) -> dict[int, str]:
    if examined.cursor is not None:
        return dict(examined.refusals.reasons)
    found = read_authentic(folder / REFUSED, key=key, queue=examined.queue or bytes(QUEUE_ID_BYTES)).reasons
    return {sequence: why for sequence, why in found.items() if sequence < begin}


def finish_repair(folder: Path, key: bytes, *, mark: Path | None) -> None:
    """Put what was repaired in its place, if a crash kept that from being done.

    `mark` is where the mark of the queue belongs, by default in its folder. Each file that is still in the folder of
    the repair was not put in place yet. Raises `OSError`, and `TamperError` for a repair that the holder of the keys
    did not order, or whose files are not those of the order.
    """
    # What a repair left that was cut short before it was whole: nothing reads it, and it has events in it.
    shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
    for repaired in sorted(folder.glob(f"{REPAIRED}-*")):
        is_folder = repaired.is_dir() and not repaired.is_symlink()
        names = {path.name for path in repaired.iterdir()} if is_folder else {""}
        if not names:  # a crash after the last step but one; nothing of it is put anywhere
            shutil.rmtree(repaired)
            continue
        place, target = find_mark(folder, mark), mark or folder / MARK
        order = _read_order(repaired, key, mark=place)
        new, old = order.mark(key), mark_bytes(place)
        if old != new:
            aside = _put_in_place(folder, repaired, order)
            if old is not None:
                replace(aside / MARK, old)
            make_mark(target, new)  # the last: as long as it is the old one, the order is in force
        if place != target:
            place.unlink(missing_ok=True)  # a backup brought it
        # A crash between these leaves the order alone, or nothing: the repair is done.
        (repaired / ORDER).unlink()
        shutil.rmtree(repaired)
        sync_folder(folder)


def _put_in_place(folder: Path, repaired: Path, order: Order) -> Path:
    """Have the new files in the folder of the queue, and those that they replace in another, which is the result."""
    for name in order.files:
        _check_file(repaired / name if (repaired / name).exists() else folder / name, order)
    aside = check_folder(folder / f"{DAMAGED}-{order.made_at}", below=folder)
    make_folder(aside)
    segment, *rest = order.files
    if (repaired / segment).exists():
        for _, old in segments.segments(folder):
            old.rename(aside / old.name)
        (repaired / segment).rename(folder / segment)
    for name in rest:
        if (repaired / name).exists():
            if (folder / name).exists():
                (folder / name).rename(aside / name)
            (repaired / name).rename(folder / name)
    for name in order.files:
        _check_file(folder / name, order)
    sync_folder(aside)
    sync_folder(folder)
    return aside


def _check_file(path: Path, order: Order) -> None:
    """Raises `TamperError` for a file that is not the one that was made for this repair."""
    try:
        if file_digest(path) == order.files[path.name]:
            return
        seen = "is not the one that was written"
    except FileNotFoundError:
        seen = "is gone"
    except NotPlainError as error:
        seen = f"is not used: {error}"
    raise TamperError(
        f"the queue is not repaired: {path.name} of the repair {REPAIRED}-{order.made_at} {seen}. Move that folder "
        f"away, put what is in {DAMAGED}-{order.made_at} back, and find out who can write there"
    )


def _read_order(repaired: Path, key: bytes, *, mark: Path) -> Order:
    """The order of a repair, if it is authentic and of the mark that is there. Raises `TamperError`."""
    try:
        order = read_order(check_folder(repaired, below=repaired.parent) / ORDER, key)
        # With the new mark in its place all the rest is in its place, too: else somebody put this folder back.
        is_done = not any((repaired / name).exists() for name in order.files)
        new = sha256(order.mark(key)).digest()[: len(order.replaces)]
        bound = {order.replaces, new} if is_done else {order.replaces}
        if repaired.name != f"{REPAIRED}-{order.made_at}" or mark_digest(mark) not in bound:
            raise FaultError(Fault.REPAIR, "it is an older repair, of another mark than the one that is there")
    except (FileNotFoundError, NotPlainError, FaultError) as error:
        why = str(error) if isinstance(error, (FaultError, NotPlainError)) else "there is no order in it"
        raise TamperError(
            f"{repaired.name} is not a repair of this queue as it is: {why}. Nothing of it is used: move it away"
        ) from error
    return order
