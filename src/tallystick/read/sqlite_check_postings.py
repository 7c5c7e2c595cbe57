"""Checking that the posting lists in an index file are found as they stand: that no page misleads who looks a word up.

The comparison walks forward over all words. A query does not: it goes to a word by the lookup keys of FTS5
and by what words have in common, to a position by the index that a long list has of its pages (a doclist index), and,
newest first, from page to page backward, by their headers. So each page is taken apart here, and all of that has to
say what the page says. The format: https://sqlite.org/fts5.html#fts5_data_structures
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any, Final

import apsw

_HEADER_BYTES: Final = 4
_SEGMENT_BITS: Final = 37
_TOMBSTONES: Final = 1 << (_SEGMENT_BITS + 16)
"""From here on are no words, but which positions were deleted."""
_PAGE: Final = (1 << 31) - 1
_OF_A_LIST: Final = 1 << 36
_LEVEL_BITS: Final = 31
_LEVELS_MAX: Final = 16

_MISREAD: Final = re.compile(rb"(?<![\x80-\xff])\x00|[\x80-\xff]{8}")
"""Of the steps from position to position: marks of deletion, of which we write none, and steps back."""
_LONG: Final = re.compile(rb"[\x80-\xff]{2,}[\x00-\x7f]")
_LAST_BYTES: Final = bytes(range(128))
_OTHER_BYTES: Final = bytes(range(128, 256))
_LOWER_BITS: Final = bytes(byte & 127 for byte in range(256))

_PAGES: Final = "SELECT id, block FROM saved.posting_data WHERE id >= ? AND id < ? ORDER BY id"
_BLOCK: Final = "SELECT block FROM saved.posting_data WHERE id = ?"
_KEYS: Final = "SELECT term, pgno FROM saved.posting_idx WHERE segid = ? ORDER BY term"
_SETTINGS: Final = (
    "SELECT k FROM saved.posting_config WHERE NOT (k = 'version' AND v = 4) AND k <> 'hashsize' ORDER BY k LIMIT 10"
)


def check_postings(connection: apsw.Connection) -> Iterator[str]:
    """What is wrong with the posting lists of the index attached as `saved`."""
    settings = [str(name)[:60] for (name,) in connection.execute(_SETTINGS).fetchall()]
    if settings:
        yield f"the posting lists have settings that are not ours: {', '.join(settings)}"
    misleading = sum(not is_right for is_right in _pages(connection))
    if misleading:
        yield f"{misleading} pages of the posting lists mislead who looks words up"


def _pages(connection: apsw.Connection) -> Iterator[bool]:
    """Whether each page, and each end of a segment, says what it should."""
    segment: _Segment | None = None
    rows: Any = connection.execute(_PAGES, (1 << _SEGMENT_BITS, _TOMBSTONES))
    for number, block in rows:
        if number & _OF_A_LIST:
            continue
        if segment is None or segment.number != number >> _SEGMENT_BITS:
            if segment is not None:
                yield _holds(segment.finish)
            segment = _Segment(connection, number >> _SEGMENT_BITS)
        yield _holds(segment.take, number & (_OF_A_LIST - 1), block)
    if segment is not None:
        yield _holds(segment.finish)


def _holds(step: Any, *values: Any) -> bool:
    """Whether a step goes through all that it is given."""
    try:
        step(*values)
    except (_MisleadingError, LookupError, TypeError):
        return False
    return True


class _MisleadingError(Exception):
    """Something is not what FTS5 makes."""


def _demand(holds: bool) -> None:
    if not holds:
        raise _MisleadingError


class _Segment:
    """One segment of the posting lists: pages with sorted words, and behind each word its positions."""

    def __init__(self, connection: apsw.Connection, number: int) -> None:
        self.number: Final = number
        self._connection: Final = connection
        self._keys: Final[Iterator[Any]] = iter(connection.execute(_KEYS, (number,)).fetchall())
        self._page = 0
        self._word = b""
        """The last one of the pages so far."""
        self._began_on = 0
        """The page on which the list of that word begins, 0 before the first."""
        self._has_index = False
        self._positions = b""
        """The last piece of that list."""
        self._goes_on: list[tuple[int, int]] = []
        """The other pages of that list, each with its first position."""

    def take(self, page: int, block: bytes) -> None:
        """Take the next page. Raises an error where it misleads."""
        before, self._page = self._page, page
        size = int.from_bytes(block[2:4], "big")
        _demand(_HEADER_BYTES < size <= len(block) and (page == before + 1 or not before))
        starts = [*accumulate(_numbers(block[size:]))]
        begin = starts[0] if starts else size
        goes_on = begin > _HEADER_BYTES
        _demand(int.from_bytes(block[:2], "big") == (_HEADER_BYTES if goes_on else 0))
        if goes_on:
            self._go_on(block[_HEADER_BYTES:begin])
        if starts:
            self.finish()
            self._take_words(block, [*starts, size])

    def finish(self) -> None:
        """Hold the list of the last word against the index of its pages, if it has one."""
        if not self._began_on:
            return
        _demand(bool(self._positions))
        found = self._index_of_list(self._began_on)
        _demand(found == self._goes_on if found is not None else not self._has_index)

    def _go_on(self, positions: bytes) -> None:
        _demand(self._began_on > 0)
        first, _ = _position(positions)
        if self._positions:
            _demand(first > _last(self._positions))
        self._goes_on.append((self._page, first))
        self._positions = positions

    def _take_words(self, block: bytes, bounds: list[int]) -> None:
        word, before = b"", self._word
        for number, (start, end) in enumerate(pairwise(bounds)):
            kept, at = (0, start) if number == 0 else _number(block, start)
            length, at = _number(block, at)
            added = block[at : at + length]
            _demand(len(added) == length > 0 and at + length <= end)
            if number:  # FTS5 believes that the words differ from there on, and are sorted
                _demand(kept == len(word) or (kept < len(word) and added[0] > word[kept]))
            word = word[:kept] + added
            if number == 0:
                self._check_key(before, word)
            self._positions = block[at + length : end]
            if self._positions:
                _position(self._positions)
            else:
                _demand(end == bounds[-1])
        self._word, self._began_on, self._goes_on = word, self._page, []

    def _check_key(self, before: bytes, first: bytes) -> None:
        """Check what leads to a page: it tells its words from those of the pages before."""
        key, page = next(self._keys, (b"", 0))
        while not self._began_on and page and page >> 1 < self._page:
            key, page = next(self._keys, (b"", 0))  # of pages that a merge has dealt with
        _demand(page >> 1 == self._page)
        _demand(key <= first and (not self._began_on or before < key))
        self._has_index = bool(page & 1)

    def _index_of_list(self, page: int) -> list[tuple[int, int]] | None:
        """The pages of a list, and the first position of each, as the index of that list has it; None without one."""
        root = self._block(0, page)
        if root is None:
            return None
        level = 0
        while root[0] & 1:
            level += 1
            _demand(level < _LEVELS_MAX)
            root = self._block(level, page) or b""
        entries = [*_entries(root)]
        for below in reversed(range(level)):
            _demand(entries[0][0] == page)
            entries = [one for child, _ in entries for one in _entries(self._block(below, child) or b"")]
        return entries

    def _block(self, level: int, page: int) -> bytes | None:
        number = (self.number << _SEGMENT_BITS) + _OF_A_LIST + (level << _LEVEL_BITS) + page
        rows: list[Any] = self._connection.execute(_BLOCK, (number,)).fetchall()
        return rows[0][0] if rows else None


def _entries(block: bytes) -> Iterator[tuple[int, int]]:
    """The pages and first positions in a page of the index of a list. A zero is a page without a position."""
    page, at = _number(block, 1)
    position, at = _number(block, at)
    yield page, position
    while at < len(block):
        page += 1
        if block[at] == 0:
            at += 1
        else:
            step, at = _number(block, at)
            position += step
            yield page, position


def _position(positions: bytes) -> tuple[int, int]:
    """The first position of a piece of a list, and where the steps to the others begin, which are checked."""
    first, at = _number(positions, 0)
    _demand(at < 9 and positions[-1] < 128)
    _demand(not _MISREAD.search(positions, at))
    return first, at


def _last(positions: bytes) -> int:
    """The last position of a piece of a list."""
    first, at = _number(positions, 0)
    steps = positions[at:]
    for long in _LONG.findall(steps):
        first += _number(long, 0)[0]
    steps = _LONG.sub(b"", steps)
    upper = steps.translate(_LOWER_BITS, _LAST_BYTES)
    return first + (sum(upper) << 7) + sum(steps.translate(None, _OTHER_BYTES))


def _numbers(block: bytes) -> Iterator[int]:
    at = 0
    while at < len(block):
        number, at = _number(block, at)
        yield number


def _number(block: bytes, at: int) -> tuple[int, int]:
    """A number as SQLite writes it, seven bits a byte and all of the ninth, and where it ends."""
    byte = block[at]
    if byte < 128:
        return byte, at + 1
    number = 0
    for end in range(at, at + 8):
        byte = block[end]
        number = number << 7 | byte & 127
        if byte < 128:
            return number, end + 1
    return number << 8 | block[at + 8], at + 9
