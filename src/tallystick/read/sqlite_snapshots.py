"""Snapshots of long streams in the index file (`tallystick.read.state.Snapshots`). They are a saving, nothing more."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol

from tallystick.errors import BusyError, StoreError
from tallystick.read.fold import Snapshot

_log: Final = logging.getLogger("tallystick.index")


class _File(Protocol):
    def query(self, statement: str, values: Sequence[str | int] = ()) -> list[Any]: ...

    def change(self, statement: str, values: Sequence[str | int | bytes]) -> None: ...


class SqliteSnapshots:
    """Keeps snapshots as rows beside the index; an index made anew begins without any."""

    def __init__(self, file: _File) -> None:
        self._file: Final = file

    def load(self, entity_id: str, version_max: int, end: int) -> Snapshot | None:
        rows = self._file.query(
            "SELECT content FROM snapshot WHERE entity = ? AND version <= ? AND position < ?"
            " ORDER BY version DESC LIMIT 1",
            (entity_id, version_max, end),
        )
        return Snapshot.of_bytes(rows[0][0]) if rows else None

    def save(self, snapshot: Snapshot) -> None:
        try:
            self._file.change(
                "INSERT OR REPLACE INTO snapshot VALUES (?,?,?,?)",
                (snapshot.entity_id, snapshot.version, snapshot.position, snapshot.to_bytes()),
            )
        except (StoreError, BusyError) as error:
            _log.warning("a snapshot of %r could not be kept: %s", snapshot.entity_id, error)
