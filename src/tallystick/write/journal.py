"""The journal of the queue: what was accepted, what of it is sealed, and what was refused, in files of one folder.

Appending is three steps: bytes into the newest segment, one fsync for all that wait, and only then does anybody get a
ticket. The cursor says what is sealed; it may be behind the truth, and then the same is sealed again, which changes
nothing. Opening cuts off what a crash tore, and refuses to go on over damage.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

from tallystick.durable import replace, sync, sync_folder
from tallystick.errors import BusyError, StoreError, TamperError
from tallystick.write import segments
from tallystick.write.segments import Damage, Frame

CURSOR: Final = "cursor"
REFUSED: Final = "refused.jsonl"
REPAIRED: Final = "repaired"
DAMAGED: Final = "damaged"
"""Names in the folder of a queue; the last two with numbers, while a repair is under way, and after it."""

_log: Final = logging.getLogger("tallystick.write")


class Journal:
    """The files of one queue, for this process alone. Safe for many threads that append, and one that moves the
    cursor."""

    def __init__(self, folder: Path) -> None:
        """Open it, making it if need be. Raises `BusyError` when another process has it, `TamperError` for damage."""
        self._folder: Final = folder
        self._writing: Final = threading.Lock()
        self._syncing: Final = threading.Lock()
        self._held: Final = _lock(folder)
        try:
            finish_repair(folder)
            self.cursor: int = _read_cursor(folder)
            """Everything below is sealed or refused."""
            self.refusals: dict[int, str] = _read_refused(folder / REFUSED)
            """Why events were refused when their turn came, by sequence number."""
            scanned = self._scanned()
            self.end: int = max(scanned.end, self.cursor)
            """The next sequence number."""
            self.durable: int = self.end
            """Everything below is on the disk."""
            self.bytes: int = scanned.bytes
            """Of the frames from the cursor on."""
            self.oldest_at: int | None = scanned.oldest_at
            """When the frame at the cursor was accepted, in microseconds."""
            self._file: IO[bytes] = self._newest()
        except OSError as error:
            self._held.close()
            raise StoreError(f"could not open the queue in {folder}: {error}") from error
        except BaseException:
            self._held.close()
            raise
        self.broken: str | None = None
        """Why nothing more can be taken."""
        self._tail = segments.Tail(folder, first=self.cursor)

    def append(self, bodies: Sequence[bytes], *, now: int) -> int:
        """Append frames; the sequence number of the first. Not durable yet: see `sync`. `StoreError`: none is there."""
        with self._writing:
            if self.broken:
                raise StoreError(f"the queue takes nothing more: {self.broken}")
            first, durable = self.end, self.durable
            frames = [Frame(first + number, durable, now, body) for number, body in enumerate(bodies)]
            data = b"".join(map(segments.render, frames))
            self._roll_before(len(data))
            at = self._file.tell()
            try:
                _write_all(self._file, data)
            except OSError as error:
                # A crash here leaves part of a frame, which the next opening cuts off; so do we.
                with contextlib.suppress(OSError):
                    self._file.truncate(at)
                    self._file.seek(at)
                raise StoreError(f"could not write to the queue: {error}") from error
            self.end = first + len(bodies)
            self.bytes += len(data)
            self.oldest_at = now if self.oldest_at is None else self.oldest_at
            return first

    def sync(self, end: int) -> None:
        """Wait until everything below `end` is on the disk. Whoever comes first does it for all that wait."""
        with self._syncing:
            if self.durable >= end:
                return
            with self._writing:
                target, descriptor = self.end, os.dup(self._file.fileno())
            try:
                os.fsync(descriptor)
            except OSError as error:
                # What is on the disk is not known any more, and a second fsync may lie: nothing is taken until it is
                # opened again, which looks.
                self.broken = f"its disk failed: {error}"
                raise StoreError(f"the queue could not be made durable: {error}; repeat with the same ids") from error
            finally:
                os.close(descriptor)
            self.durable = target

    def next(self, count: int) -> list[Frame]:
        """The frames at the cursor, at most so many, all durable. `TamperError` when they are not there any more."""
        count = min(count, self.durable - self.cursor)
        found = self._tail.take(count) if count else []
        if len(found) != count or (found and found[0].sequence != self.cursor):
            self.again()
            found = self._tail.take(count)
        if len(found) != count or (found and found[0].sequence != self.cursor):
            raise TamperError(f"the queue has lost what was accepted as {self.cursor}: see `tallystick queue repair`")
        return found

    def again(self) -> None:
        """Have `next` give the frames at the cursor once more."""
        self._tail = segments.Tail(self._folder, first=self.cursor)

    def done(self, frames: Sequence[Frame], refused: dict[int, str]) -> None:
        """The frames at the cursor are sealed, but for those that were refused. A crash within does them again."""
        if refused:
            lines = [json.dumps({"sequence": n, "why": why}, ensure_ascii=False) for n, why in refused.items()]
            with (self._folder / REFUSED).open("ab") as file:
                file.write("".join(f"{line}\n" for line in lines).encode())
                sync(file)
        cursor = self.cursor + len(frames)
        ended = [path for (_, path), (end, _) in pairwise(segments.segments(self._folder)) if end <= cursor]
        replace(self._folder / CURSOR, f"{cursor}\n".encode())
        if ended:  # an older cursor is good, too, as long as what it points to is there
            sync_folder(self._folder)
        with self._writing:
            self.refusals |= refused
            self.cursor = cursor
            self.bytes -= sum(map(segments.frame_bytes, frames))
            self.oldest_at = None if cursor == self.end else frames[-1].accepted_at
        for path in ended:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the files."""
        with self._writing:
            self.broken = self.broken or "it was closed"
            self._file.close()
        self._held.close()

    def _roll_before(self, size: int) -> None:
        """Go on in a new segment, if this one is full. What is in it is made durable first."""
        if self._file.tell() == segments.HEAD_BYTES or self._file.tell() + size <= segments.SEGMENT_BYTES:
            return
        try:
            sync(self._file)
            following = segments.begin(self._folder, self.end)
        except OSError as error:
            raise StoreError(f"could not begin a segment of the queue: {error}") from error
        self._file.close()
        self._file = following

    def _scanned(self) -> segments.Scanned:
        scanned = segments.scan(self._folder, cursor=self.cursor)
        if scanned.damage:
            raise TamperError(damage_text(scanned.damage))
        if scanned.torn is not None:
            path, offset = scanned.torn
            _log.warning("the queue was cut at byte %d of %s, where a crash tore it", offset, path.name)
            segments.cut(self._folder, path, offset)
        return scanned

    def _newest(self) -> IO[bytes]:
        """The segment to append to."""
        found = segments.segments(self._folder)
        if not found or segments.good_end(found[-1][1]) is None:
            return segments.begin(self._folder, self.end)
        file = found[-1][1].open("r+b", buffering=0)
        file.seek(0, os.SEEK_END)
        return file


LOST: Final = b""
"""The body of a frame in the place of one that was lost to damage."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How a queue stands that nobody has open."""

    depth: int
    bytes: int
    oldest_at: int | None
    damage: tuple[Damage, ...]


def look(folder: Path) -> Seen:
    """Look at a queue and change nothing. Raises `BusyError` while a process has it open."""
    with _lock(folder):
        cursor = _read_cursor(folder)
        scanned = segments.scan(folder, cursor=cursor)
        return Seen(max(0, scanned.end - cursor), scanned.bytes, scanned.oldest_at, scanned.damage)


def repair(folder: Path, *, now: int) -> tuple[Damage, ...]:
    """Go on without what was lost to damage: what was lost. What is good stays, each at its place.

    The old segments are kept in a folder `damaged-…`. A crash leaves the queue as it was, or repaired.
    """
    with _lock(folder):
        cursor = _read_cursor(folder)
        scanned = segments.scan(folder, cursor=cursor)
        if not scanned.damage:
            return ()
        good: dict[int, Frame] = {}
        for _, path in segments.segments(folder):
            good.update((frame.sequence, frame) for _, frame in segments.read(path) if frame is not None)
        scratch = folder / ".repairing"
        with segments.begin_at(scratch) as file:
            for sequence in range(cursor, scanned.end):
                frame = good.get(sequence) or Frame(sequence, sequence, now, LOST)
                _write_all(file, segments.render(frame))
            sync(file)
        scratch.rename(folder / f"{REPAIRED}-{cursor}-{now}")
        sync_folder(folder)  # from here on the repair is done, or will be
        finish_repair(folder)
        return scanned.damage


def finish_repair(folder: Path) -> None:
    """Put what was repaired in its place, if a crash kept that from being done."""
    for path in folder.glob(f"{REPAIRED}-*-*"):
        _, cursor, now = path.name.split("-")
        aside = folder / f"{DAMAGED}-{now}"
        aside.mkdir(exist_ok=True)
        for _, old in segments.segments(folder):
            old.rename(aside / old.name)
        path.rename(segments.segment_path(folder, int(cursor)))


def damage_text(damage: Sequence[Damage]) -> str:
    """What is lost, in words."""
    lost = "; ".join(f"{one.end - one.first} events from number {one.first} on, in {one.path.name}" for one in damage)
    return f"the queue is damaged, and nothing of it is sealed: {lost}. See `tallystick queue repair`"


def _lock(folder: Path) -> IO[bytes]:
    """Have the queue for this process alone, until the file is closed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("ab")
    except OSError as error:
        raise StoreError(f"could not open the queue in {folder}: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise BusyError(f"another process has the queue in {folder}") from error
    return file


def _read_cursor(folder: Path) -> int:
    try:
        text = (folder / CURSOR).read_bytes()
    except FileNotFoundError:
        found = segments.segments(folder)
        return found[0][0] if found else 0
    if not text.endswith(b"\n") or not text[:-1].isdigit():
        raise TamperError(f"{folder / CURSOR} is damaged: delete it, and what waits is gone through again")
    return int(text)


def _read_refused(path: Path) -> dict[int, str]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    found: dict[int, str] = {}
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a torn last line: it is refused again
            one = json.loads(line)
            found[int(one["sequence"])] = str(one["why"])
    return found


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = file.write(view)
        view = view[written:]
