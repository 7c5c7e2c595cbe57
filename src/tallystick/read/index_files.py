"""The files of an index: their names, how they are copied, and how they are deleted while others have them open."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import apsw

from tallystick.errors import StoreError
from tallystick.plain_file import NotPlainError, check_database
from tallystick.sqlite_file import copy_database

FILE_NAME: Final = "index.db"
SUPERSEDED: Final = -1
"""The layout that an index is given before it is deleted, so that other processes that have it open know by whom."""

_BUSY_MS: Final = 1_000
_log: Final = logging.getLogger("tallystick.index")


def delete_files(folder: Path) -> None:
    """Remove the index that lies in a folder. Those who have it open notice, and open the one that comes next."""
    _supersede(folder / FILE_NAME)
    for suffix in ("", "-wal", "-shm"):
        path = folder / f"{FILE_NAME}{suffix}"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # such as of a folder in its place
            raise StoreError(f"{path} is in the way, and cannot be removed: {error.strerror or error}") from error


def copy_index(source: Path, target: Path) -> None:
    """Copy an index as it is at this moment. One that is damaged is not worth it."""
    try:
        copy_database(source, target)
    except apsw.Error as error:
        _log.warning("the index %s could not be copied, and is rebuilt elsewhere: %s", source, error)
        target.unlink(missing_ok=True)


def _supersede(path: Path) -> None:
    """Write into an index that is about to be deleted that it is one of us who does it. A damaged one cannot say it."""
    if not path.exists():
        return
    try:
        check_database(path)  # by a link another file would be told so
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(_BUSY_MS)
            connection.pragma("user_version", SUPERSEDED)
        finally:
            connection.close()
    except (apsw.Error, OSError, NotPlainError) as error:
        _log.info("the index %s is deleted and could not say so: %s", path, error)
