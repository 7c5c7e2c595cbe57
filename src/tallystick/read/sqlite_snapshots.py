"""Snapshots of long streams in the index file (`tallystick.read.state.Snapshots`). They are a saving, nothing more.

Nothing proves a snapshot when it is loaded; a verification folds it again (`tallystick.read.sqlite_check_snapshots`),
which is why the declarations of folds are kept beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Final, Protocol

from tallystick.errors import BusyError, StoreError
from tallystick.read.declared import Declared
from tallystick.read.fold import Snapshot

_log: Final = logging.getLogger("tallystick.index")

_FORGOTTEN: Final = "SELECT 1 WHERE coalesce((SELECT prune_at FROM forgotten), 0) = ?"
"""Whether the newest prune whose records were forgotten is that one, or 0 for none."""


class _File(Protocol):
    def query(self, statement: str, values: Sequence[str | int] = ()) -> list[Any]: ...

    def changing(self) -> AbstractContextManager[Any]: ...


class SqliteSnapshots:
    """Keeps snapshots as rows beside the index; an index that is rebuilt begins without any.

    They are of the log as the prune left it whose position `prune_at` gives, 0 for none. When the index has forgotten
    less, they may be of what is gone; when it has forgotten more, one that is saved now may be. Either way there are
    none.
    """

    def __init__(self, file: _File, declared: Declared, *, prune_at: Callable[[], int]) -> None:
        self._file: Final = file
        self._declared: Final = declared
        self._newest_prune: Final = prune_at

    @cached_property
    def _prune_at(self) -> int:
        """Asked for once there is a snapshot, which most streams are too short for."""
        return self._newest_prune()

    def load(self, entity_id: str, version_max: int, end: int) -> Snapshot | None:
        where = "entity = ? AND version <= ? AND position < ?"
        values = (entity_id, version_max, end)
        if not self._file.query(f"SELECT 1 FROM snapshot WHERE {where} LIMIT 1", values):
            return None
        rows = self._file.query(
            f"SELECT content FROM snapshot WHERE {where} AND EXISTS ({_FORGOTTEN}) ORDER BY version DESC LIMIT 1",
            (*values, self._prune_at),
        )
        return Snapshot.of_bytes(rows[0][0]) if rows else None

    def save(self, snapshot: Snapshot) -> None:
        if snapshot.fingerprint != self._declared.fingerprint:
            return  # something was declared since the question was put: the next one keeps what it folds
        try:
            with self._file.changing() as writer:
                if not writer.execute(_FORGOTTEN, (self._prune_at,)).fetchall():
                    return
                writer.execute(
                    "INSERT OR REPLACE INTO declared VALUES (?,?,?)",
                    (snapshot.fingerprint, *self._declared.render()),
                )
                writer.execute(
                    "INSERT OR REPLACE INTO snapshot VALUES (?,?,?,?,?)",
                    (
                        snapshot.entity_id,
                        snapshot.version,
                        snapshot.position,
                        snapshot.fingerprint,
                        snapshot.to_bytes(),
                    ),
                )
        except (StoreError, BusyError) as error:
            _log.warning("a snapshot of %r could not be kept: %s", snapshot.entity_id, error)
