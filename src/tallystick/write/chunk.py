"""What a stretch of the log says to the sealer: the versions of its entities, and its event ids, in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from tallystick.write import runs as form

CACHE_ENTITIES: Final = 100_000
"""Entity versions kept in memory, in two generations of at most this many."""


_BLOCK_BITS: Final = 12


def block_of(prefix: str, counter: int) -> str:
    """By what a made id is found: its prefix, and the block of 4,096 counters that it falls into."""
    return f"{prefix}{counter >> _BLOCK_BITS:x}"


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

    def entries(self, entity_key: Callable[[str], bytes], made_key: Callable[[str], bytes]) -> list[bytes]:
        """What is kept of it in a run (`write.runs`), in no order."""
        entry, last = form.entry, self.end - 1
        out = [entry(entity_key(name), last, version) for name, version in self.versions.items()]
        out += [entry(key, position, 0) for key, position in self.brought.items()]
        for prefix, counter, position, length in self.made:
            for block in range(counter >> _BLOCK_BITS, (counter + length - 1 >> _BLOCK_BITS) + 1):
                begin = max(counter, block << _BLOCK_BITS)
                out.append(entry(made_key(block_of(prefix, begin)), position + begin - counter, 0))
        return out

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
