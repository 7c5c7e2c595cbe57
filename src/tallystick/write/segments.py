"""Segments: append-only files of frames, each frame linked to the one before it by its MAC.

    a statement of the kind `segment`       the head: the first sequence number, and the MAC of the frame before it
    b"\xf5tq2", crc32, length, sequence, acknowledged, accepted_at, link, mac; then the body: a frame

Integers are unsigned and big-endian, of 32, 32, 64, 64 and 64 bits. `link` is the MAC of the frame before, so that no
frame can be removed, moved or replaced, and each can still be authenticated by itself after a gap. `acknowledged` says
below which sequence number all was acknowledged when the frame was written: a mark that says less is an older one. The
CRC32 tells bit rot from tampering. Without the key frames can be found and counted, which is enough for a copy.
"""

from __future__ import annotations

import fcntl
import logging
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from hmac import compare_digest
from pathlib import Path
from typing import IO, Final, NamedTuple, TypeAlias
from zlib import crc32

from tallystick.durable import replace, sync, sync_folder
from tallystick.errors import BusyError, StoreError
from tallystick.limits import COMMIT_BYTES_MAX, QUEUE_BYTES_MAX
from tallystick.plain_file import NotPlainError, check_folder, open_lock, open_plain, open_to_write
from tallystick.private_file import make_folder
from tallystick.write import queue_mac
from tallystick.write.queue_mac import STATEMENT_BYTES, Fault, FaultError, Kind, Statement

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""A segment is closed once it is as long as this, and removed when all in it is sealed."""

FILE_BYTES_MAX: Final = 2 * QUEUE_BYTES_MAX
"""A longer file is no segment, and would only take time: a repair puts all that waits into one segment, and one request
may be longer than `SEGMENT_BYTES`."""

FRAME_BYTES_MAX: Final = 262_144
"""More than any draft has; a larger length is damage."""

HEAD_BYTES: Final = STATEMENT_BYTES

LOST: Final = b""
"""The body of a frame in the place of one that was lost to damage."""

_RESYNCS_MAX: Final = 10_000
"""Places in one segment that look like the begin of a frame and are none, before the rest of it counts as lost: each
costs a checksum over up to `FRAME_BYTES_MAX`, and an attacker who writes the file chooses how many there are."""

_READ_BYTES: Final = 4 * FRAME_BYTES_MAX
_MAGIC: Final = b"\xf5tq2"
_FRAME: Final = struct.Struct(">4sIIQQQ16s16s")
_COVERED: Final = struct.Struct(">IQQQ")
_log: Final = logging.getLogger("tallystick.write")


class Frame(NamedTuple):
    """One accepted draft as it lies on the disk."""

    sequence: int
    acknowledged: int
    """Everything below this sequence number was acknowledged when the frame was written."""
    accepted_at: int
    """In microseconds."""
    body: bytes
    link: bytes
    """The MAC of the frame before."""
    mac: bytes


class Place(NamedTuple):
    """Where the next frame to be read is: in a segment, at an offset, after a frame with that MAC."""

    path: Path
    offset: int
    sequence: int
    link: bytes


Tag: TypeAlias = Callable[[bytes], bytes]
"""Gives the MAC of a frame of one queue, from all of it but the MAC; see `tagger`."""


def tagger(key: bytes, queue: bytes) -> Tag:
    """What authenticates the frames of the queue of that id."""
    return queue_mac.tagger(key, "frame", queue)


def authenticate(frame: Frame, tag: Tag) -> Frame:
    """The frame with its MAC."""
    return frame._replace(mac=tag(_authenticated(frame)))


def is_authentic(frame: Frame, tag: Tag) -> bool:
    """Whether the holder of the key wrote this frame into this queue, after the frame with its `link`."""
    return compare_digest(tag(_authenticated(frame)), frame.mac)


def _authenticated(frame: Frame) -> bytes:
    return frame.link + _COVERED.pack(len(frame.body), *frame[:3]) + frame.body


def render(frame: Frame) -> bytes:
    """The bytes of a frame."""
    return _render(_COVERED.pack(len(frame.body), *frame[:3]) + frame.link + frame.mac, frame.body)


def render_chain(
    bodies: Sequence[bytes], tag: Tag, *, sequence: int, acknowledged: int, accepted_at: int, link: bytes
) -> tuple[bytes, bytes]:
    """The bytes of new frames, each linked to the one before, and the MAC of the last. This is done for every event
    that is published, so it makes no `Frame`."""
    parts = []
    for number, body in enumerate(bodies, sequence):
        covered = _COVERED.pack(len(body), number, acknowledged, accepted_at)
        mac = tag(link + covered + body)
        parts.append(_render(covered + link + mac, body))
        link = mac
    return b"".join(parts), link


def _render(head: bytes, body: bytes) -> bytes:
    return _MAGIC + crc32(body, crc32(head)).to_bytes(4, "big") + head + body


def frame_bytes(frame: Frame) -> int:
    """How long a frame is on the disk."""
    return _FRAME.size + len(frame.body)


def frame_at(data: bytes, at: int) -> Frame | None:
    """The frame that begins here, if one with a right checksum does."""
    if at + _FRAME.size > len(data):
        return None
    magic, crc, length, sequence, acknowledged, accepted_at, link, mac = _FRAME.unpack_from(data, at)
    if magic != _MAGIC or length > FRAME_BYTES_MAX:
        return None
    begin = at + _FRAME.size
    body = data[begin : begin + length]
    if len(body) != length or crc32(body, crc32(data[at + 8 : begin])) != crc:
        return None
    return Frame(sequence, acknowledged, accepted_at, body, link, mac)


def lock(folder: Path, mark: Path | None = None) -> ExitStack:
    """Have the queue for this process alone, until what is given is closed.

    There is a lock in its folder, and one beside its mark if that is elsewhere: the first can be removed by whoever can
    write the data, and then two processes would give tickets for the same places.
    """
    with ExitStack() as held:
        try:
            make_folder(check_folder(folder, below=folder.parent))
            files = [held.enter_context(open_lock(folder / "lock"))]
            if mark is not None and mark.parent != folder:
                make_folder(mark.parent)
                files.append(held.enter_context(open_lock(mark.with_name(f"{mark.name}.lock"))))
        except OSError as error:
            raise StoreError(f"could not open the queue in {folder}: {error}") from error
        try:
            for file in files:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a crash releases it
        except OSError as error:
            raise BusyError(f"another process has the queue in {folder}") from error
        return held.pop_all()


def segment_path(folder: Path, first: int) -> Path:
    """The segment that begins with a sequence number."""
    return folder / f"segment-{first:020}.q"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """The segments there are, by their first sequence number."""
    found = []
    for path in folder.glob("segment-*.q"):
        digits = path.name.removeprefix("segment-").removesuffix(".q")
        if digits.isascii() and digits.isdecimal() and segment_path(folder, int(digits)) == path:
            found.append((int(digits), path))
    return sorted(found)


def begin(folder: Path, head: Statement, *, key: bytes) -> IO[bytes]:
    """Make a segment, durably, and open it for appending.

    It gets its name when its head is on the disk, so that no crash leaves a segment without one.
    """
    path = segment_path(check_folder(folder, below=folder.parent), head.sequence)
    replace(path, queue_mac.render(Kind.SEGMENT, head, key=key))
    sync_folder(folder)  # a frame in a file whose name a power cut takes away would be lost
    return open_end(path)


def open_end(path: Path) -> IO[bytes]:
    """A segment, open for appending."""
    file = open_to_write(path, buffering=0)
    file.seek(0, 2)
    return file


def read_head(path: Path, *, key: bytes) -> Statement:
    """The head of a segment. Raises `FaultError` for one that is not authentic, or not of this file's name."""
    with open_plain(path, bytes_max=FILE_BYTES_MAX) as file:
        head = queue_mac.parse(Kind.SEGMENT, file.read(HEAD_BYTES), key=key)
    if segment_path(path.parent, head.sequence) != path:
        raise FaultError(Fault.ALTERED, f"it is the segment that begins with {head.sequence}, under another name")
    return head


def read(path: Path, *, offset: int = HEAD_BYTES) -> Iterator[tuple[int, Frame | None]]:
    """The frames of a segment by their checksums, each with the offset at which it begins; and None once for all that
    is no frame. Memory stays flat, however long the file is."""
    with open_plain(path, bytes_max=FILE_BYTES_MAX) as file:
        file.seek(offset)
        yield from _frames(file, offset)


def _frames(file: IO[bytes], base: int) -> Iterator[tuple[int, Frame | None]]:
    data, at, resyncs, lost, ended = file.read(_READ_BYTES), 0, 0, False, False
    while True:
        if not ended and len(data) - at < _FRAME.size + FRAME_BYTES_MAX:
            more = file.read(_READ_BYTES)
            # What is appended after this is not read: of a frame that is being written the begin was taken for damage.
            ended = not more
            base, data, at = base + at, data[at:] + more, 0
            continue
        if at >= len(data):
            return
        frame = frame_at(data, at)
        if frame is not None:
            lost = False
            yield base + at, frame
            at += frame_bytes(frame)
            continue
        if not lost:
            lost = True
            yield base + at, None
        resyncs += 1
        if resyncs > _RESYNCS_MAX:
            return
        following = data.find(_MAGIC, at + 1)
        at = following if following >= 0 else max(at + 1, len(data) - len(_MAGIC) + 1)


def take(folder: Path, place: Place, count: int, *, key: bytes, queue: bytes) -> tuple[list[Frame], Place]:
    """The next frames from a place on, at most so many, and the place after them.

    Fewer when those come to `COMMIT_BYTES_MAX` bytes, when there are no more, or when what follows is not the authentic
    frame that was written after the last one: nothing is returned that the holder of the key did not write, here and in
    this order.
    """
    path, offset, sequence, link = place
    tag = tagger(key, queue)
    found: list[Frame] = []
    room = COMMIT_BYTES_MAX
    while len(found) < count and room > 0:
        try:
            with open_plain(path) as file:
                file.seek(offset)
                data = file.read(_READ_BYTES)
        except FileNotFoundError:
            data = b""  # all in it was sealed, and it was removed: the next one goes on
        at = 0
        while len(found) < count and room > 0 and (frame := frame_at(data, at)) is not None:
            if (frame.sequence, frame.link) != (sequence, link) or not is_authentic(frame, tag):
                return found, Place(path, offset + at, sequence, link)
            found.append(frame)
            room -= len(frame.body)
            at += frame_bytes(frame)
            sequence, link = sequence + 1, frame.mac
        offset += at
        if not at:
            following = segment_path(folder, sequence)
            if following == path or not _follows(following, Statement(queue, sequence, link), key=key):
                break
            path, offset = following, HEAD_BYTES
    return found, Place(path, offset, sequence, link)


def _follows(path: Path, expected: Statement, *, key: bytes) -> bool:
    """Whether a segment is there, and goes on where the one before it ended."""
    try:
        return read_head(path, key=key) == expected
    except (FileNotFoundError, FaultError):
        return False


def erase(paths: list[Path]) -> None:
    """Remove segments in which all is sealed, and what they say.

    They are overwritten first: where a file system writes in place, no free block keeps an event that is pruned later.
    One that copies on write, and the spare blocks of an SSD, may keep it. A crash leaves zeros, which nothing reads.
    What somebody put in the place of a segment is removed, and what a link there leads to is left as it is.
    """
    for path in paths:
        try:
            with open_to_write(check_folder(path.parent, below=path.parent.parent) / path.name, buffering=0) as file:
                left = min(file.seek(0, 2), FILE_BYTES_MAX)
                file.seek(0)
                while left > 0:
                    left -= file.write(bytes(min(left, _READ_BYTES)))
                sync(file)  # else the zeros might never leave memory, as the file is removed next
        except FileNotFoundError:
            continue
        except NotPlainError as error:
            if path.parent.is_symlink():
                raise  # the name is one in another folder
            _log.error("a segment of the queue, of which all is sealed, was replaced: %s", error)
        path.unlink(missing_ok=True)


def cut(folder: Path, path: Path, offset: int) -> None:
    """Cut what a crash tore, from an offset in a segment on, durably. Raises `StoreError`."""
    try:
        for _, later in segments(folder):
            if later > path:
                later.unlink()
        with open_to_write(path) as file:
            file.truncate(max(offset, HEAD_BYTES))
            sync(file)
    except OSError as error:
        raise StoreError(f"could not cut the torn end of {path}: {error}") from error


def write_again(path: Path, offset: int) -> None:
    """Write a segment from an offset on once more, durably. Raises `OSError`.

    An fsync that failed may have left these bytes in memory alone, where they look written; a later fsync does not
    write them. Written again, they are. A crash within leaves the same bytes, or a torn end.
    """
    with open_to_write(path, buffering=0) as file:
        while True:
            file.seek(offset)
            data = file.read(_READ_BYTES)
            if not data:
                break
            file.seek(offset)
            write_all(file, data)
            offset += len(data)
        sync(file)


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write all of it; an unbuffered file may take only a part at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
