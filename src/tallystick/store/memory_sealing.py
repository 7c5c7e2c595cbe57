"""The sealer's runs in memory, for a ledger that is itself there (`write.run_set.RunFile`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


class MemoryRunFile:
    """Keeps the port; what it was given is gone with it."""

    def __init__(self) -> None:
        self._manifest: bytes | None = None
        self._pages: dict[tuple[int, int], bytes] = {}

    def manifest(self) -> bytes | None:
        return self._manifest

    def pages(self, run: int, first: int, end: int) -> list[bytes | None]:
        return [self._pages.get((run, number)) for number in range(first, end)]

    def replace(
        self,
        expected: bytes | None,
        manifest: Callable[[], bytes],
        *,
        pages: Iterable[tuple[int, int, bytes]],
        kept: Sequence[int],
    ) -> bool:
        if self._manifest != expected:
            return False
        added = {(run, number): content for run, number, content in pages}
        self._manifest = manifest()
        self._pages = {place: content for place, content in self._pages.items() if place[0] in kept} | added
        return True

    def discard(self) -> None:
        self._manifest, self._pages = None, {}

    def close(self) -> None:
        """There is nothing to let go of: what was kept stays until it is discarded."""
