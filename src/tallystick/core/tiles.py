"""Tiles as others fetch them (C2SP tlog-tiles): their paths, their widths, entries, and the nodes within.

    tile/0/x001/x234/067          a full tile: level 0, index 1,234,067, 256 hashes
    tile/1/000.p/17               a partial one: 17 hashes, replaced once it is full
    tile/entries/000              the records below the first level 0 tile

Tiles lie at every eighth height of the tree. Which ones exist follows from the tree's size alone, so a
path has one meaning and its bytes, once full, never change (I2). Where they are kept is the store's business.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tallystick.core.merkle import TILE_HEIGHT, TILE_WIDTH, node_hash, split_hashes
from tallystick.core.strict import parse_decimal
from tallystick.errors import RejectedError
from tallystick.limits import RECORD_BYTES_MAX, SIZE_MAX

LEVEL_MAX: Final = 63
"""The highest tile level that a path may name."""

TileReader = Callable[[int, int, int], bytes]
"""`read_tile(level, index, width)` is the first `width` hashes of a tile, concatenated."""

_PATH: Final = re.compile(
    r"tile/(?P<level>entries|[0-9]{1,2})/(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[0-9]{1,3}))?"
)
_LENGTH_BYTES: Final = 2
_CACHED_TILES_MAX: Final = 32
"""A path to the root crosses two tiles at each of eight levels; 32 tiles are about 1 MB."""


@dataclass(frozen=True, slots=True)
class TilePath:
    """Which tile: its level (None for entries), its index in the level, and how many hashes or entries."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= LEVEL_MAX:
            raise RejectedError(f"there is no tile level {self.level}", place="tile path")
        if not 0 <= self.index <= SIZE_MAX // TILE_WIDTH:
            raise RejectedError(f"there is no tile {self.index}", place="tile path")
        _check_width(self.width, place="tile path")

    @classmethod
    def parse(cls, path: str) -> TilePath:
        """Read `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`; `RejectedError` for all else."""
        parts = _PATH.fullmatch(path)
        if parts is None:
            cure = "a tile path reads tile/<level>/<index>, with .p/<width> behind it when the tile is partial"
            raise RejectedError("this is not a tile path", place="tile path", cure=cure)
        level = None
        if parts["level"] != "entries":
            level = parse_decimal(parts["level"], maximum=LEVEL_MAX, place="tile path")
        digits = parts["index"].replace("x", "").replace("/", "")
        width = TILE_WIDTH
        if parts["width"] is not None:
            width = parse_decimal(parts["width"], maximum=TILE_WIDTH - 1, place="tile path")
        tile = cls(level, int(digits), width)
        if tile.render() != path:
            raise RejectedError(f"the path of this tile is {tile.render()}", place="tile path")
        return tile

    def render(self) -> str:
        """Write what `parse` reads."""
        level = "entries" if self.level is None else str(self.level)
        groups = [f"{self.index % 1000:03}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03}")
            rest //= 1000
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def tile_width(level: int, index: int, *, size: int) -> int:
    """How many hashes the tile has in a tree of `size` leaves: 256, fewer at the right edge, 0 beyond it."""
    hashes = size >> TILE_HEIGHT * level
    return max(0, min(TILE_WIDTH, hashes - index * TILE_WIDTH))


def render_entries(records: Sequence[bytes]) -> bytes:
    """Write up to 256 records, each behind its length as an unsigned 16-bit big-endian number."""
    _check_width(len(records), place="entries")
    for record in records:
        if len(record) > RECORD_BYTES_MAX:
            raise RejectedError(f"a record has at most {RECORD_BYTES_MAX} bytes, not {len(record)}")
    return b"".join(len(record).to_bytes(_LENGTH_BYTES, "big") + record for record in records)


def parse_entries(data: bytes, width: int) -> list[bytes]:
    """Read exactly `width` records; bytes that are missing or left over raise `RejectedError`."""
    _check_width(width, place="entries")
    records = []
    start = 0
    for number in range(width):
        first = start + _LENGTH_BYTES
        end = first + int.from_bytes(data[start:first], "big")
        if end > len(data):
            raise RejectedError(f"the bytes end within entry {number} of {width}", place=f"byte {start}")
        records.append(data[first:end])
        start = end
    if start != len(data):
        raise RejectedError(f"{len(data) - start} bytes follow the last entry", place=f"byte {start}")
    return records


class TileNodes:
    """The hashes of perfect subtrees of a tree of `size` leaves, worked out from its tiles.

    An instance is a `merkle.NodeSource`, for one thread: `inclusion_path(index, size, node=TileNodes(...))`.
    A tile is read, and its inner nodes hashed, once while it is among the 32 last used. Raises
    `RejectedError` when a tile has not as many bytes as its width asks for; whether they are the right ones,
    a root must tell.
    """

    def __init__(self, size: int, read_tile: TileReader) -> None:
        self._size = size
        self._read_tile = read_tile
        self._tiles: OrderedDict[tuple[int, int], list[list[bytes]]] = OrderedDict()

    def __call__(self, level: int, index: int) -> bytes:
        """The hash over leaves `[index << level, (index + 1) << level)`, which must all be in the tree."""
        if level < 0 or index < 0 or (index + 1) << level > self._size:
            raise RejectedError(f"a tree of {self._size} leaves has no perfect subtree {index} at level {level}")
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index, within = divmod(index, TILE_WIDTH >> height)
        return self._rows(tile_level, tile_index)[height][within]

    def _rows(self, level: int, index: int) -> list[list[bytes]]:
        """The tile's hashes, their parents, and so on up to the height of the next tile level."""
        rows = self._tiles.get((level, index))
        if rows is None:
            width = tile_width(level, index, size=self._size)
            row = split_hashes(self._read_tile(level, index, width))
            if len(row) != width:
                path = TilePath(level, index, width).render()
                raise RejectedError(f"the tile has {len(row)} hashes, not {width}", place=path)
            rows = [row]
            for _ in range(TILE_HEIGHT - 1):
                row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
                rows.append(row)
            self._tiles[level, index] = rows
        self._tiles.move_to_end((level, index))
        if len(self._tiles) > _CACHED_TILES_MAX:
            self._tiles.popitem(last=False)
        return rows


def _check_width(width: int, *, place: str) -> None:
    if not 1 <= width <= TILE_WIDTH:
        raise RejectedError(f"a tile is 1 to {TILE_WIDTH} wide, not {width}", place=place)
