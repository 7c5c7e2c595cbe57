"""Keeping an index abreast of a log, and answering for what is not written yet from memory.

Learning happens on the way of an append and is cheap; writing happens in a thread beside it, a chunk at a
time, and an append waits for it only when very much is unwritten. A crash leaves the older cursor, and what
is past it is read from the log once more.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallystick.errors import DamagedError, DamagedIndexError, StoreError, TallystickError, TamperError
from tallystick.read.index import IndexFile, Progress, too_much
from tallystick.store.contract import Store
from tallystick.store.reading import read_lines, some_of

FLUSH_RECORDS: Final = 20_000
FLUSH_BYTES: Final = 4_194_304
"""Records that are written to the index in one transaction, and their bytes: large batches are what keeps a row cheap,
and take several times their size in memory."""

_LEARNED_AT_ONCE: Final = 64
"""Records that are taken in before it is looked whether they are to be written: of the largest 4 MiB."""

KEPT_BYTES: Final = 8_388_608
"""Bytes of records that stay in memory while they wait to be written; later ones are read again from the log."""

UNSAVED_RECORDS_MAX: Final = 20_000
UNSAVED_BYTES_MAX: Final = 8_388_608
"""Records, and their bytes, that are answered from memory while the index cannot be written."""

RETRY_SECONDS: Final = 1.0
"""How often writing is tried again meanwhile: others, who want to write the index, wait for that."""

BEHIND_MAX: Final = 500_000
"""Unwritten records at which learning waits, unless the index cannot be written at all."""

_log: Final = logging.getLogger("tallystick.index")


@dataclass(slots=True)
class _Chunk:
    """The records in [first, end); those of `lines` are there. None when they have to be read again from the log."""

    first: int
    end: int
    lines: list[bytes] | None = field(default_factory=list)
    size: int = 0
    """Bytes of the records that are there."""

    @property
    def is_full(self) -> bool:
        return self.end - self.first >= FLUSH_RECORDS or self.size >= FLUSH_BYTES

    def add(self, lines: Sequence[bytes], end: int) -> None:
        """Records from its end on, up to a new end."""
        assert self.lines is not None, "a tail has its records"
        self.lines += lines
        self.size += sum(map(len, lines))
        self.end = end


class Follower:
    """Keeps one index abreast of one log.

    `catch_up`, `flush` and `learn` are for one thread at a time, the holder of the sealing turn; `wait` is for any.
    """

    def __init__(self, store: Store, file: IndexFile, *, progress: Progress | None = None) -> None:
        self._store: Final = store
        self.file: Final = file
        self._progress: Final = progress
        start = file.cursor()
        self._tail = _Chunk(start, start)
        self._changed: Final = threading.Condition()
        """Guards the five below."""
        self._unwritten: deque[_Chunk] = deque()
        self._saver: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._rests = False
        """Whether the thread that writes waits to try it again."""
        self._closing = False
        self._keeping: Final = threading.Lock()
        """Held while records are taken into memory: two threads would do the same twice."""
        self.told: Final = threading.Condition()
        """Notified when this process has committed."""
        self.after_save: Callable[[int], None] | None = None
        """Called by the thread that writes, whenever the file answers for more, with the end of that."""

    @property
    def end(self) -> int:
        """Up to which position records were learned, written or not."""
        return self._tail.end

    @property
    def written(self) -> int:
        """Up to which position the file answers."""
        unwritten = tuple(self._unwritten)
        return unwritten[0].first if unwritten else self._tail.first

    def catch_up(self, size: int) -> None:
        """Read what the log has below `size` and the index has not."""
        first = self._tail.end
        if first > size:
            # Another process may have been ahead of us; but then the head has moved, and we are asked again.
            self._check_not_shorter(first)
        if first < size and self._is_written():
            self._follow_others()
            first = self._tail.end
        for stored in read_lines(self._store, first, size):
            tail = self._tail
            tail.add((stored.line,), stored.position + 1)
            if tail.end % 10_000 == 0 and self._progress:
                self._progress(tail.end, size)
            if tail.is_full:
                self.flush()
        self._tail.end = max(self._tail.end, size)
        if self._progress and size - first >= 10_000:
            self._progress(size, size)

    def learn(self, first: int, lines: Sequence[bytes]) -> None:
        """These records were committed by this process from position `first` on. Those between it and what was
        learned before, if there are any, are read from the log when somebody asks."""
        if first == self._tail.end:
            for start in range(0, len(lines), _LEARNED_AT_ONCE):
                part = lines[start : start + _LEARNED_AT_ONCE]
                self._tail.add(part, first + start + len(part))
                if self._tail.is_full:
                    self.flush()
        with self.told:
            self.told.notify_all()

    def flush(self) -> None:
        """Hand what was learned to the thread that writes. Waits only when very much is unwritten."""
        tail = self._tail
        with self._changed:
            if tail.end > tail.first:
                self._tail = _Chunk(tail.end, tail.end)
                if tail.size + sum(chunk.size for chunk in self._unwritten) <= KEPT_BYTES:
                    self._unwritten.append(tail)
                elif self._unwritten[-1].lines is None:
                    self._unwritten[-1].end = tail.end  # so that what cannot be written takes no memory
                else:
                    self._unwritten.append(_Chunk(tail.first, tail.end, None))
            self._begin_saving()
            while self._unwritten and tail.end - self._unwritten[0].first >= BEHIND_MAX and self._failure is None:
                self._changed.wait()

    def _begin_saving(self) -> None:
        if self._unwritten and self._saver is None:
            self._saver = threading.Thread(target=self._save, name="tallystick-index", daemon=True)
            self._saver.start()

    def wait(self, size: int) -> None:
        """Until the index answers for everything below `size`, which was flushed: from its file, or, while that cannot
        be written, from memory. Raises `StoreError` when that is too much."""
        with self._changed:
            while self._unwritten and self._unwritten[0].first < size:
                failure = self._failure
                if failure is not None and (self._saver is None or self._rests):
                    break
                self._changed.wait()
            else:
                return
        if isinstance(failure, (DamagedError, TamperError)):
            raise _as_told(failure) from failure
        self._keep(size, failure)

    def _keep(self, size: int, failure: BaseException) -> None:
        """Have the index answer from memory for what it has not. Then somebody has to try to write it again, as what
        is kept holds up other processes that want to."""
        with self._keeping:
            if self.file.kept_to >= size:
                return
            first = self.file.cursor()
            lines: list[bytes] = []
            left = UNSAVED_BYTES_MAX
            for stored in read_lines(self._store, first, size) if size - first <= UNSAVED_RECORDS_MAX else ():
                lines.append(stored.line)
                left -= len(stored.line)
                if left < 0:
                    break
            if left < 0 or size - first > UNSAVED_RECORDS_MAX:
                raise too_much(size - first) from failure
            self.file.keep(first, size, lines)
        with self._changed:
            self._begin_saving()

    def close(self) -> None:
        """Write what is not written yet, and let go of the file."""
        try:
            self.flush()
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            saver = self._saver
            if saver is not None:
                saver.join()
        finally:
            self.file.close()

    def _check_not_shorter(self, seen: int) -> None:
        head = self._store.head()
        if head is None or head.size < seen:
            raise TamperError(
                f"the ledger had {seen} records and now has {head.size if head else 0}: an older copy was put "
                "back, or records were cut off. If you did that on purpose, delete index.db and open it again"
            )

    def _is_written(self) -> bool:
        return not self._unwritten and self._tail.first == self._tail.end

    def _follow_others(self) -> None:
        """Skip what another process has written to the index meanwhile; what is in memory may be older."""
        cursor = self.file.cursor()
        if cursor > self._tail.end:
            self._tail = _Chunk(cursor, cursor)

    def _save(self) -> None:
        """Write chunk by chunk until none is left, or one cannot be written; that is tried again with the next."""
        while True:
            with self._changed:
                if not self._unwritten:
                    self._saver = None
                    return
                chunk = self._unwritten[0]
                first, end, lines = chunk.first, chunk.end, chunk.lines
            try:
                if lines is None:
                    end, lines = self._read_some(first, end)
                self.file.save(first, end, lines)
            except BaseException as error:  # noqa: BLE001  it is reported to whoever waits for the rows
                if not self._rest_after(error):
                    return
                continue
            with self._changed:
                self._failure = None
                chunk.first = end
                if chunk.first == chunk.end:
                    self._unwritten.popleft()
                self._changed.notify_all()
            self._tell_of_save(end)

    def _rest_after(self, error: BaseException) -> bool:
        """Whether the thread that writes is to try again by itself, which it is as long as something is kept in
        memory; it has waited then. Else the next who asks has it tried."""
        with self._changed:
            if not self.file.kept_to or str(error) != str(self._failure):  # else once a second
                _log.warning("the index could not be written, and is tried again later: %s", error)
            self._failure = error
            self._rests = self.file.kept_to > 0 and not self._closing
            if not self._rests:
                self._saver = None
            self._changed.notify_all()
            if self._rests:
                self._changed.wait_for(lambda: self._closing, RETRY_SECONDS)
            rested, self._rests = self._rests, False
            return rested

    def _read_some(self, first: int, end: int) -> tuple[int, list[bytes]]:
        """The records at a position and behind it, as many as are written at once; up to where they go."""
        end = min(end, first + FLUSH_RECORDS)
        end, some = some_of(read_lines(self._store, first, end), end, bytes_max=FLUSH_BYTES)
        return end, [stored.line for stored in some]

    def look(self, *, now: bool = False) -> bool:
        """Look whether the index is still there, as `IndexFile.look` does. Raises also what damage kept it from being
        written: those who only append do not wait for that."""
        failure = self._failure
        if isinstance(failure, DamagedError):
            raise _as_told(failure) from failure
        return self.file.look(now=now)

    def _tell_of_save(self, end: int) -> None:
        """What follows the index may fail, and catch up later; the index goes on."""
        try:
            if self.after_save is not None:
                self.after_save(end)
        except Exception as error:  # noqa: BLE001
            _log.warning("what follows the index stopped before position %d, to be tried again: %s", end, error)


def _as_told(failure: BaseException) -> TallystickError:
    """The error for who waits for rows that could not be written."""
    said = f"the index could not be written: {failure}"
    kinds = (DamagedIndexError, DamagedError, TamperError)
    return next((kind(said) for kind in kinds if isinstance(failure, kind)), StoreError(said))
