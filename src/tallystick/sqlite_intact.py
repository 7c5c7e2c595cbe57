"""Whether an open database is still on the disk: its file and its write-ahead log, those that were opened.

SQLite goes on with a file that lost its name, and answers and commits in memory on one that was emptied. What is looked
at here goes past SQLite's caches, and is cheap enough for every few milliseconds. No file is opened to look: to close
one would release every lock that SQLite has on it in this process.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import apsw

from tallystick.errors import DamagedError
from tallystick.sqlite_file import connect_readonly, identity_and_size, is_damage, query

LOOK_SECONDS: Final = 0.005
"""How often it is looked, at most, by those who read and write. At each commit it was measured as 15 to 28 of 550 µs:
to read from a log that was written just now has the file system note the time of that."""

_WAL_LOOK_SECONDS: Final = 1.0
_HEADER_BYTES: Final = 32
_FIXED_BYTES: Final = 18
"""The magic of SQLite and the size of a page: no commit changes them."""

_MAGIC: Final = b"SQLite format 3\0"
_WAL_MAGICS: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_WAL_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_GROWING_SECONDS: Final = 0.2


class Intact:
    """What is known of one open database. Safe for many threads: what two of them note down is the same."""

    def __init__(self, path: Path, *, advice: str = ": open the ledger again") -> None:
        """`advice` follows what was seen, in errors."""
        self._advice: Final = advice
        self._name: Final = str(path)  # a text, as a `Path` costs more than the look
        self._wal: Final = f"{path}-wal"
        self._shm: Final = f"{path}-shm"
        self._opened: tuple[int, int] | None = None
        """Which file this is, since it was first looked at. While it is open, no other can have its identity."""
        self._opened_wal: tuple[int, int] | None = None
        """Which write-ahead log, likewise: it stays while anybody has the database open."""
        self._opened_shm: tuple[int, int] | None = None
        """Through which file memory is shared with other processes, likewise."""
        self._size = self._found_size = 0
        self._header: bytes | None = None
        """What the file begins with, once there is something in it."""
        self._looked_at = float("-inf")
        self._wal_looked_at = float("-inf")
        self.is_damaged = False
        """Whether it was found to be: then nothing more is written to it, not even when it is closed."""

    @property
    def is_begun(self) -> bool:
        """Whether there was a file to look at."""
        return self._opened is not None

    @property
    def is_due(self) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() - self._looked_at >= LOOK_SECONDS

    def check_name(self, *, now: bool = False) -> bool:
        """Look whether the name still leads to the file that was opened, if that is due; whether it was.

        Before each commit it was measured as 27 of 430 µs: so only every few milliseconds, or `now`. Raises
        `DamagedError`.
        """
        moment = time.monotonic()
        if not now and moment - self._looked_at < LOOK_SECONDS:
            return False
        found = identity_and_size(self._name)
        if self._opened is None and found is not None:
            self._opened = found[0]
        elif found is None or found[0] != self._opened:
            if self._opened is None:
                return False  # it is about to be made
            raise self.damaged(f"{self._name} was replaced or removed while it was open")
        self._found_size = found[1]
        return True

    def look(self, connection: apsw.Connection, *, now: bool = False) -> None:
        """Look at the file and its log, if that is due, or `now`. Raises `DamagedError`."""
        if self.check_name(now=now):
            self.check_rest(connection, now=now)

    def check_rest(self, connection: apsw.Connection, *, now: bool = False) -> None:
        """Look at what is behind the name, which was looked at before. Raises `DamagedError`."""
        self.check_content(connection)
        size = self._found_size
        if size < self._size and not self._has_all_pages(connection, size):
            raise self.damaged(f"{self._name} was cut off while it was open")
        self._size, moment = size, time.monotonic()
        self._looked_at = moment  # only now: until all was looked at, nobody else may take it for sound
        # Each look at the time of a file's last change makes the next write to it write that time, too, which was
        # measured as 90 µs a commit: so of the log only once a second.
        if now or moment - self._wal_looked_at > _WAL_LOOK_SECONDS:
            self._wal_looked_at = moment
            self._check_wal_name(connection)

    def check_content(self, connection: apsw.Connection) -> None:
        """Look whether the file begins as it did, and whether the log has what SQLite believes it has.

        Raises `DamagedError`.
        """
        whole, header = connection.read("main", 0, 0, _HEADER_BYTES)
        fixed = header[:_FIXED_BYTES]
        if self._header is None and header.startswith(_MAGIC):
            self._header = fixed
        if self._header is None:
            # A new database has its first page before it has a log: what only the log still has was overwritten.
            if whole or _frames(connection) > 0:
                raise self.damaged(f"{self._name} does not begin as a database does")
        elif not whole or fixed != self._header:
            raise self.damaged(f"{self._name} was emptied or overwritten while it was open")
        if self._header is not None and not self._has_whole_log(connection):
            raise self.damaged(f"{self._wal} was emptied or overwritten while it was open")

    def find_damage(self, statement: str) -> str | None:
        """Read by a connection of its own, to which nothing has happened yet; what is found to be damaged, if anything.

        For after an error that may come of damage. A full disk, or one that does not answer, is none."""
        try:
            self.check_name(now=True)
            reader = connect_readonly(Path(self._name), immutable=False)
            try:
                query(reader, statement)
                self.check_rest(reader, now=True)
            finally:
                reader.close()
        except DamagedError as error:
            return str(error)
        except apsw.Error as error:
            return str(error) if is_damage(error) or isinstance(error, apsw.SQLError) else None
        return None

    def damaged(self, seen: str) -> DamagedError:
        """The error that says so."""
        self.is_damaged, self._looked_at = True, float("-inf")  # so that the next one who looks is told, too
        return DamagedError(seen + self._advice)

    def close(self, connection: apsw.Connection) -> None:
        """Close a connection. What is left of a damaged file stays as it is: it is evidence.

        What was committed to a log that only lost its name is still there for those who have it open, and for nobody
        else: it is copied into the file.
        """
        if self.is_damaged:
            if self._is_only_log_moved(connection):
                with suppress(apsw.Error):
                    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.close()

    def _is_only_log_moved(self, connection: apsw.Connection) -> bool:
        found = identity_and_size(self._wal)
        if self._opened_wal is None or (found is not None and found[0] == self._opened_wal):
            return False
        try:
            self.check_name(now=True)
            self.check_content(connection)
        except (DamagedError, apsw.Error):
            return False
        return True

    def _has_whole_log(self, connection: apsw.Connection) -> bool:
        """Whether the log has a header and its last frame; twice, as another process may empty it after a prune."""
        assert self._header is not None, "the caller has it"
        page_bytes = int.from_bytes(self._header[16:18], "big")
        for _ in range(2):
            frames = _frames(connection)
            if frames <= 0:
                return True
            _, header = connection.read("main", 1, 0, 4)
            end = _WAL_HEADER_BYTES + frames * (_FRAME_HEADER_BYTES + page_bytes)
            if header in _WAL_MAGICS and connection.read("main", 1, end - 1, 1)[0]:
                return True
        return False

    def _check_wal_name(self, connection: apsw.Connection) -> None:
        if _frames(connection) < 0:
            return
        found = identity_and_size(self._wal)
        if self._opened_wal is None and found is not None:
            self._opened_wal = found[0]
        elif self._opened_wal is not None and (found is None or found[0] != self._opened_wal):
            raise self.damaged(f"{self._wal} was replaced or removed while it was open")
        # Two processes with different files of shared memory do not see each other's commits, and overwrite them.
        found = identity_and_size(self._shm)
        if self._opened_shm is None and found is not None:
            self._opened_shm = found[0]
        elif self._opened_shm is not None and (found is None or found[0] != self._opened_shm):
            raise self.damaged(f"{self._shm} was replaced or removed while it was open")

    def _has_all_pages(self, connection: apsw.Connection, size: int) -> bool:
        """Whether a file that became shorter is as long as it says, which after a prune it is.

        A checkpoint writes the first page before the last ones: so it is looked again as long as the file grows.
        """
        while True:
            _, header = connection.read("main", 0, 0, _HEADER_BYTES)
            end = int.from_bytes(header[16:18], "big") * int.from_bytes(header[28:32], "big")
            if not end or connection.read("main", 0, end - 1, 1)[0]:
                return True
            time.sleep(_GROWING_SECONDS)
            found = identity_and_size(self._name)
            if found is None or found[1] <= size:
                return False
            size = found[1]


def _frames(connection: apsw.Connection) -> int:
    """How many frames of the log are in use; -1 when there is no log, or only a connection that writes may ask."""
    try:
        return connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
    except (apsw.BusyError, apsw.LockedError, apsw.ReadOnlyError, apsw.CantOpenError):
        return -1
