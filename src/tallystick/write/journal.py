"""The journal of the queue: what was accepted, what of it is sealed, and what was refused, in files of one folder.

Appending is three steps: bytes into the newest segment, one fsync for all that wait, one mark that says so, synced,
too; only then does anybody get a ticket. The cursor says what is sealed; it may be behind the truth, and then the same
is sealed again, which changes nothing. Everything that is read back is authenticated (`tallystick.write.queue_check`).
Opening cuts off what a crash tore, and refuses to go on over damage.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

from tallystick.durable import replace, sync, sync_folder
from tallystick.errors import StoreError, TamperError
from tallystick.ids import random_bytes
from tallystick.limits import COMMIT_BYTES_MAX
from tallystick.plain_file import check_folder
from tallystick.write import queue_mac, segments
from tallystick.write.queue_check import CURSOR, examine
from tallystick.write.queue_findings import Examined, damage_text
from tallystick.write.queue_mac import NO_LINK, QUEUE_ID_BYTES, Kind, Statement
from tallystick.write.queue_mark import MarkFile, make_mark, render_mark, take_mark
from tallystick.write.queue_refusals import REFUSED, append_refusals, open_refusals, render_refusals
from tallystick.write.queue_repair import finish_repair
from tallystick.write.segments import Frame, Place

REASON_CHARACTERS_MAX: Final = 4_000
"""What is kept of why an event was refused."""

_log: Final = logging.getLogger("tallystick.write")


class Journal:
    """The files of one queue, for this process alone. Safe for many threads that append, and one that moves the
    cursor."""

    def __init__(self, folder: Path, *, key: bytes, mark: Path | None = None) -> None:
        """Open it, making it if need be. `key` is `LedgerKeys.queue_mac`; `mark` is the file of the mark, by default in
        the folder. Raises `BusyError` when another process has it, `TamperError` for damage."""
        self._folder: Final = folder
        self._key: Final = key
        self._writing: Final = threading.Lock()  # order of frames: one thread at a time gives numbers, links and bytes
        self._syncing: Final = threading.Lock()  # one fsync of frames at a time; who waits for it finds it done
        self._marking: Final = threading.Lock()  # one mark at a time, for all groups that were synced before it
        self._clearing: Final = threading.Lock()  # the cursor, and what is removed because of it, move together
        self._held: Final = segments.lock(folder, mark)
        try:
            self._open(mark)
        except OSError as error:
            self._held.close()
            raise StoreError(f"could not open the queue in {folder}: {error}") from error
        except BaseException:
            self._held.close()
            raise
        self.broken: str | None = None
        """Why nothing more can be taken."""

    def _open(self, given: Path | None) -> None:
        finish_repair(self._folder, self._key, mark=given)
        examined = examine(self._folder, self._key, mark=given)
        if examined.findings:
            raise TamperError(damage_text(examined.findings))
        mark = take_mark(self._folder, given, examined.mark, key=self._key)
        if examined.mark is None or examined.cursor is None or not examined.mark.sequence:
            examined = self._make(mark, examined)
        assert examined.cursor is not None, "it was found, or made"
        assert examined.mark is not None, "it was found, or made"
        self._queue = examined.cursor.queue
        self._tag = segments.tagger(self._key, self._queue)
        self._cursor = examined.cursor
        self.refusals: dict[int, str] = dict(examined.refusals.reasons)
        """Why events were refused when their turn came, by sequence number."""
        self._refused_end = examined.refusals.end
        open_refusals(self._folder / REFUSED, end=self._refused_end)
        self._settle(examined)
        self._first, newest = segments.segments(self._folder)[-1]
        self._file: IO[bytes] = segments.open_end(newest)
        self.end: int = examined.end
        """The next sequence number."""
        self._link = examined.link
        """The MAC of the newest frame."""
        self._synced = (self.end, self._link)
        """Up to where frames are on the disk."""
        self._mark = MarkFile(mark, examined.mark, key=self._key)
        if self.end > examined.mark.sequence:
            self._mark.write(self.end, self._link)
        self.durable: int = self.end
        """Everything below is on the disk, and the mark says so."""
        self.bytes: int = examined.bytes
        """Of the frames from the cursor on."""
        self.oldest_at: int | None = examined.oldest_at
        """When the frame at the cursor was accepted, in microseconds."""
        self._place = examined.start or Place(newest, self._file.tell(), self.end, self._link)
        """Where the frame at the cursor is, or will be."""
        self._read_to = self._place
        """Where the frames end that `next` returned."""
        self._remove_sealed()  # which a crash may have kept an earlier process from

    def _make(self, mark: Path, examined: Examined) -> Examined:
        """Make a queue, or what of it a crash kept from being made: the mark first, which says that there is one. Until
        it speaks of events, the rest may be missing."""
        queue = examined.queue or random_bytes(QUEUE_ID_BYTES)
        start = Statement(queue, 0, NO_LINK)
        if examined.mark is None:
            make_mark(mark, render_mark(start._replace(number=1), key=self._key))
        if not segments.segments(self._folder):
            segments.begin(self._folder, start, key=self._key).close()
        if examined.cursor is None or not (self._folder / CURSOR).exists():
            replace(self._folder / CURSOR, queue_mac.render(Kind.CURSOR, start, key=self._key))
            sync_folder(self._folder)  # a cursor that is missing later is damage, so its name has to be durable
        made = examine(self._folder, self._key, mark=mark)
        if made.findings:
            raise TamperError(damage_text(made.findings))
        return made

    def _settle(self, examined: Examined) -> None:
        """What stands past the mark was not acknowledged. What is torn is cut off. Whole frames are kept: they were
        written by us, sealing them is harmless, and cutting them would let an older mark delete what was acknowledged.
        """
        if examined.torn is not None:
            path, offset = examined.torn
            _log.warning("the queue was cut at byte %d of %s, where a crash tore it", offset, path.name)
            segments.cut(self._folder, path, offset)
        for path, offset in examined.unmarked:
            if path.exists():
                segments.write_again(path, offset)

    def append(self, bodies: Sequence[bytes], *, now: int) -> int:
        """Append frames; the sequence number of the first. Not durable yet: see `sync`. `StoreError`: none is there."""
        with self._writing:
            if self.broken:
                raise StoreError(f"the queue takes nothing more: {self.broken}")
            first = self.end
            written, link = segments.render_chain(
                bodies, self._tag, sequence=first, acknowledged=self.durable, accepted_at=now, link=self._link
            )
            self._roll_before(len(written))
            at = self._file.tell()
            try:
                segments.write_all(self._file, written)
            except OSError as error:
                # A crash here leaves part of a frame, which the next opening cuts off; so do we.
                try:
                    self._file.truncate(at)
                    self._file.seek(at)
                except OSError as failed:  # what is written next would stand after half a frame, and be lost
                    self.broken = f"its disk failed: {failed}"
                raise StoreError(f"could not write to the queue: {error}") from error
            self.end, self._link = first + len(bodies), link
            self.bytes += len(written)
            self.oldest_at = now if self.oldest_at is None else self.oldest_at
            return first

    def sync(self, end: int) -> None:
        """Wait until everything below `end` is on the disk, and the mark says so: only then is there a ticket.

        The first caller syncs for all that wait. Frames of the next group are synced while the mark of this one
        is, and one mark is written for all groups that were synced before it.
        """
        with self._syncing:
            if self._synced[0] < end:
                self._sync_frames()
        with self._marking:
            if self.durable >= end:
                return
            if self.broken:
                raise StoreError(f"the queue could not be made durable: {self.broken}; repeat with the same ids")
            synced, link = self._synced
            try:
                # A crash here leaves whole frames past the mark. They are kept; no caller has a ticket.
                self._mark.write(synced, link)
            except OSError as error:
                self._break(error)
            self.durable = synced

    def _sync_frames(self) -> None:
        with self._writing:
            if self.broken:
                raise StoreError(f"the queue could not be made durable: {self.broken}; repeat with the same ids")
            target, descriptor = (self.end, self._link), os.dup(self._file.fileno())
        try:
            os.fsync(descriptor)
        except OSError as error:
            self._break(error)
        finally:
            os.close(descriptor)
        self._synced = target

    def _break(self, error: OSError) -> None:
        # What is on the disk is not known any more, and a second fsync may lie: nothing is taken until it is opened
        # again, which looks, and writes what stands past the mark once more.
        self.broken = f"its disk failed: {error}"
        raise StoreError(f"the queue could not be made durable: {error}; repeat with the same ids") from error

    def next(self, count: int) -> list[Frame]:
        """The frames at the cursor, all acknowledged and authentic, in their order: so many, or fewer large ones.

        They are read back from the disk. `TamperError` when they are not there any more, or not as they were written.
        """
        count = min(count, self.durable - self.cursor)
        found, self._read_to = segments.take(self._folder, self._place, count, key=self._key, queue=self._queue)
        if len(found) != count and sum(len(frame.body) for frame in found) < COMMIT_BYTES_MAX:
            lost = self.cursor + len(found)
            raise TamperError(
                f"event {lost} of the queue was acknowledged, and is not on the disk as it was written: it was altered "
                "or removed. Nothing more is sealed; see `tallystick queue stats` and `tallystick queue repair`"
            )
        return found

    @property
    def cursor(self) -> int:
        """Everything below is sealed or refused."""
        return self._cursor.sequence

    def done(self, frames: Sequence[Frame], refused: dict[int, str]) -> None:
        """The frames at the cursor are sealed, but for those that were refused. A crash within does them again."""
        if not frames:
            return
        with self._clearing:
            at = self._cursor
            refused = {sequence: why[:REASON_CHARACTERS_MAX] for sequence, why in refused.items()}
            lines, other = render_refusals(refused, key=self._key, queue=self._queue, link=at.other)
            if refused:
                # A crash after this leaves lines that the cursor does not count: they are cut off, and written again.
                append_refusals(self._folder / REFUSED, lines, end=self._refused_end)
            after = Statement(self._queue, at.sequence + len(frames), frames[-1].mac, at.number + len(refused), other)
            check_folder(self._folder, below=self._folder.parent)  # somebody may have replaced it since it was opened
            replace(self._folder / CURSOR, queue_mac.render(Kind.CURSOR, after, key=self._key))
            with self._writing:
                self.refusals |= refused
                self._refused_end += len(lines)
                self._cursor, self._place = after, self._read_to
                self.bytes -= sum(map(segments.frame_bytes, frames))
                self.oldest_at = None if self.cursor == self.end else frames[-1].accepted_at
            self._remove_sealed()

    @property
    def has_sealed(self) -> bool:
        """Whether the newest segment has frames that are sealed, and so keeps what may have to go."""
        return self._first < self.cursor

    def clear(self) -> None:
        """Have what is sealed leave the disk, as far as nothing that waits is in the same segment.

        The newest segment is closed and the next one begun, so that it goes when its last event is sealed. A crash
        between the two leaves the closed one, and the next opening removes it. Raises `StoreError`.
        """
        with self._clearing:
            try:
                with self._writing:
                    if self.broken is None and self.has_sealed:
                        self._roll()
                self._remove_sealed()
            except OSError as error:
                raise StoreError(f"could not remove what is sealed from the queue: {error}") from error

    def close(self) -> None:
        """Let go of the files."""
        with self._writing:
            self.broken = self.broken or "it was closed"
            self._file.close()
        with self._marking:
            self._mark.close()
        self._held.close()

    def _remove_sealed(self) -> None:
        """Remove segments of which the next one begins at the cursor, or before it."""
        ended = [path for (_, path), (end, _) in pairwise(segments.segments(self._folder)) if end <= self.cursor]
        if ended:
            # An older cursor is good, too, as long as what it points to is there: this one has to be on the disk.
            sync_folder(self._folder)
            segments.erase(ended)

    def _roll_before(self, size: int) -> None:
        """Go on in a new segment, if this one is full."""
        if self._file.tell() == segments.HEAD_BYTES or self._file.tell() + size <= segments.SEGMENT_BYTES:
            return
        try:
            self._roll()
        except OSError as error:
            raise StoreError(f"could not begin a segment of the queue: {error}") from error

    def _roll(self) -> None:
        """Go on in a new segment. What is in this one is made durable first: no segment follows one that is torn."""
        if self.durable < self.end:
            sync(self._file)
        following = segments.begin(self._folder, Statement(self._queue, self.end, self._link), key=self._key)
        self._file.close()
        self._file, self._first = following, self.end
