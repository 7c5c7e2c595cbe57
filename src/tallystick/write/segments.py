"""Where the queue rests: append-only segment files of frames, each with its length and CRC32.

    tallystick-queue/1\\n                           the head of a segment, named by the first sequence number in it
    length, crc32, sequence, durable, accepted_at  a frame: unsigned 32, 32, 64, 64, 64 bits, big-endian; then its bytes

`durable` says below which sequence number everything was on the disk when the frame was written. So what a crash
tore, of which nobody was told, is told from damage: what a later frame says was durable, and is not there, is damage.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, NamedTuple
from zlib import crc32

from tallystick.durable import sync, sync_folder
from tallystick.errors import StoreError

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""A segment is closed once it is as long as this, and removed when all in it is sealed."""

FRAME_BYTES_MAX: Final = 262_144
"""More than any draft has; a larger length is damage."""

_READ_BYTES: Final = 4 * FRAME_BYTES_MAX
_HEAD: Final = b"tallystick-queue/1\n"
_FRAME: Final = struct.Struct(">IIQQQ")
_COVERED: Final = struct.Struct(">IQQQ")


HEAD_BYTES: Final = len(_HEAD)


class Frame(NamedTuple):
    """One accepted draft as it lies on the disk."""

    sequence: int
    durable: int
    accepted_at: int
    """In microseconds."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """A place in a segment where durable frames were, and are not."""

    path: Path
    offset: int
    first: int
    """The sequence number that should be there."""
    end: int
    """The next one that is there."""


def render(frame: Frame) -> bytes:
    """The bytes of a frame."""
    length = len(frame.body)
    covered = _COVERED.pack(length, frame.sequence, frame.durable, frame.accepted_at)
    crc = crc32(frame.body, crc32(covered))
    return _FRAME.pack(length, crc, frame.sequence, frame.durable, frame.accepted_at) + frame.body


def frame_bytes(frame: Frame) -> int:
    """How long a frame is on the disk."""
    return _FRAME.size + len(frame.body)


def good_end(path: Path) -> int | None:
    """How long a segment is that has its head; None for one that a crash left without."""
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END) if file.read(HEAD_BYTES) == _HEAD else None


def segment_path(folder: Path, first: int) -> Path:
    """The segment that begins with a sequence number."""
    return folder / f"segment-{first:020}.q"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """The segments there are, by their first sequence number."""
    found = []
    for path in folder.glob("segment-*.q"):
        digits = path.name.removeprefix("segment-").removesuffix(".q")
        if digits.isdecimal() and segment_path(folder, int(digits)) == path:
            found.append((int(digits), path))
    return sorted(found)


def begin(folder: Path, first: int) -> IO[bytes]:
    """Make a segment, durably, and open it for appending. One that a crash left without a frame is begun again."""
    file = begin_at(segment_path(folder, first))
    sync(file)
    sync_folder(folder)
    return file


def begin_at(path: Path) -> IO[bytes]:
    """A file with the head of a segment, open for appending."""
    file = path.open("w+b", buffering=0)
    file.write(_HEAD)
    return file


def read(path: Path, *, offset: int = 0) -> Iterator[tuple[int, Frame | None]]:
    """The frames of a segment, each with the offset at which it begins; and None once for all that is no frame."""
    data = path.read_bytes()
    at = max(offset, len(_HEAD))
    if not data.startswith(_HEAD):
        at = _next_frame(data, 0)
        yield 0, None
    while at < len(data):
        frame = _frame_at(data, at)
        if frame is None:
            yield at, None
            at = _next_frame(data, at + 1)
            continue
        yield at, frame
        at += frame_bytes(frame)


def _frame_at(data: bytes, at: int) -> Frame | None:
    """The frame that begins here, if a good one does."""
    if at + _FRAME.size > len(data):
        return None
    length, crc, sequence, durable, accepted_at = _FRAME.unpack_from(data, at)
    body = data[at + _FRAME.size : at + _FRAME.size + length]
    if length > FRAME_BYTES_MAX or len(body) != length:
        return None
    covered = _COVERED.pack(length, sequence, durable, accepted_at)
    return Frame(sequence, durable, accepted_at, body) if crc32(body, crc32(covered)) == crc else None


def _next_frame(data: bytes, at: int) -> int:
    """Where the next good frame begins; the end when there is none."""
    while at < len(data) and _frame_at(data, at) is None:
        at += 1
    return at


@dataclass(frozen=True, slots=True)
class Scanned:
    """What was found in all segments."""

    end: int
    """The sequence number after the last good frame."""
    bytes: int
    """Of the frames from the cursor on."""
    oldest_at: int | None
    """When the frame at the cursor was accepted."""
    damage: tuple[Damage, ...]
    torn: tuple[Path, int] | None
    """What a crash tore: a segment, and the offset up to which it is good."""


@dataclass(slots=True)
class _Gap:
    """No good frame from here on, so far."""

    path: Path
    offset: int
    first: int
    resumes: int | None = None


def scan(folder: Path, *, cursor: int) -> Scanned:
    """Look through all segments: what is there from the cursor on, what is torn, and what is damaged."""
    expected, size, oldest = cursor, 0, None
    gap: _Gap | None = None
    damage: list[Damage] = []
    for _, path in segments(folder):
        for offset, frame in read(path):
            if frame is not None and frame.sequence < cursor:
                continue  # sealed before
            if frame is None or (gap is None and frame.sequence != expected):
                gap = gap or _Gap(path, offset, expected)
            if frame is None:
                continue
            if gap is not None:
                gap.resumes = frame.sequence if gap.resumes is None else gap.resumes
                if frame.durable > gap.first:
                    damage.append(Damage(gap.path, gap.offset, gap.first, gap.resumes))
                    gap = None
            if gap is None:
                oldest = frame.accepted_at if oldest is None else oldest
                expected, size = frame.sequence + 1, size + frame_bytes(frame)
    torn = (gap.path, gap.offset) if gap else None
    return Scanned(expected, size, oldest, tuple(damage), torn)


class Tail:
    """Reads on, frame by frame, from a sequence number. What is appended later is read later."""

    def __init__(self, folder: Path, *, first: int) -> None:
        self._folder: Final = folder
        self._next = first
        self._path: Path | None = None
        self._offset = 0

    def take(self, count: int) -> list[Frame]:
        """The next frames, at most so many. Fewer when there are no more, or what follows is no good frame."""
        found: list[Frame] = []
        while len(found) < count:
            before = self._offset
            found += self._take_from_segment(count - len(found))
            if self._offset == before and not self._go_on():  # else it may only have passed older frames
                return found
        return found

    def _take_from_segment(self, count: int) -> list[Frame]:
        if self._path is None and not self._go_on():
            return []
        assert self._path is not None, "a segment was found"
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_READ_BYTES)
        except FileNotFoundError:
            return []  # all in it was sealed, and it was removed: the next one goes on
        found: list[Frame] = []
        at = 0
        while len(found) < count and (frame := _frame_at(data, at)) is not None:
            at += frame_bytes(frame)
            if frame.sequence == self._next:
                found.append(frame)
                self._next += 1
            elif frame.sequence > self._next:
                return found
        self._offset += at
        return found

    def _go_on(self) -> bool:
        """Turn to the segment that has the next frame, if there is another than the present one."""
        holding = [path for first, path in segments(self._folder) if first <= self._next]
        if not holding or holding[-1] == self._path:
            return False
        self._path, self._offset = holding[-1], HEAD_BYTES
        return True


def cut(folder: Path, path: Path, offset: int) -> None:
    """Cut what a crash tore, from an offset in a segment on, durably. Raises `StoreError`."""
    try:
        for _, later in segments(folder):
            if later > path:
                later.unlink()
        with path.open("r+b") as file:
            file.truncate(max(offset, len(_HEAD)))
            if offset < len(_HEAD):
                file.write(_HEAD)
            sync(file)
    except OSError as error:
        raise StoreError(f"could not mend {path}: {error}") from error
