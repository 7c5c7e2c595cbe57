"""The index in memory, for a ledger that is itself in memory."""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.read.index import Rows


class MemoryIndexFile:
    """Keeps `IndexFile` for as long as the process lives."""

    def __init__(self) -> None:
        self._rows = Rows(0, 0)

    def cursor(self) -> int:
        return self._rows.end

    def version(self, entity_id: str) -> int:
        return self._rows.versions.get(entity_id, 0)

    def find(self, event_id: str) -> list[int]:
        return self._rows.find(event_id)

    def hashes_among(self, hashes: Sequence[int]) -> set[int]:
        return {hashed for hashed in hashes if hashed in self._rows.brought}

    def save(self, rows: Rows, last_hash: bytes) -> None:
        del last_hash  # nothing survives that could stem from another log
        self._rows = self._rows.followed_by(rows)

    def close(self) -> None: ...
