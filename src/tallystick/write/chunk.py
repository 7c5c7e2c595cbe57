"""What a stretch of the log says to the sealer: the versions of its entities, and its event ids, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

CACHE_ENTITIES: Final = 100_000
"""Entity versions kept in memory, in two generations of at most this many."""


class Glimpse(msgspec.Struct):
    """What the sealer needs to see of a record."""

    id: str
    entity_id: str
    entity_version: int


glimpse: Final = msgspec.json.Decoder(Glimpse).decode


@dataclass(slots=True)
class Chunk:
    """What the records at [first, end) say."""

    first: int
    end: int
    last_hash: bytes = b""
    versions: dict[str, int] = field(default_factory=dict)
    brought: dict[bytes, int] = field(default_factory=dict)
    """Where event ids stand that are looked up as they are, by their keys."""
    made: list[tuple[str, int, int, int]] = field(default_factory=list)
    """Neighbouring made ids: prefix, first counter, first position, length."""

    def add_made(self, prefix: str, counter: int, position: int, length: int) -> None:
        """Add neighbours, joining them to those before where they continue them."""
        if self.made:
            before, first, at, count = self.made[-1]
            if before == prefix and first + count == counter and at + count == position:
                self.made[-1] = (prefix, first, at, count + length)
                return
        self.made.append((prefix, counter, position, length))

    def find_made(self, prefix: str, counter: int) -> int | None:
        """The position of a made id among these records."""
        for other, first, at, count in self.made:
            if other == prefix and first <= counter < first + count:
                return at + counter - first
        return None


class RecentVersions:
    """The versions of the entities that were met lately. When the young generation is full it becomes the old one."""

    def __init__(self) -> None:
        self.young: dict[str, int] = {}
        self.old: dict[str, int] = {}

    def remember(self, versions: Mapping[str, int]) -> None:
        """Keep these, as the newest."""
        self.young.update(versions)
        if len(self.young) >= CACHE_ENTITIES:
            self.old, self.young = self.young, {}
