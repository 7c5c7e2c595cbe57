"""Who did what, when: the records that fit a query, page by page, counted, or one after another.

The index proposes candidates in order of position, the record itself decides. Every answer speaks for one
size of the ledger and names it; what was appended later is not in it, so pages stay stable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import orjson

from tallystick.core.record import Record
from tallystick.core.strict import parse_decimal
from tallystick.errors import RejectedError, TamperError
from tallystick.limits import PAGE_BYTES_MAX, PAGE_RECORDS_MAX, SIZE_MAX
from tallystick.read.compared import Compared
from tallystick.read.index import Questions
from tallystick.read.query import Query
from tallystick.read.state import Held
from tallystick.store.contract import Store, StoredRecord
from tallystick.store.reading import fetch_lines

PAGE_RECORDS: Final = 100
"""Records of a page when nothing else is asked for."""

_CANDIDATES_FIRST: Final = 128
_CANDIDATES_MAX: Final = 4_096
_CURSOR: Final = re.compile(r"(?P<order>[+-])(?P<position>[0-9]{1,16})\.(?P<size>[0-9]{1,16})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the records that fit, in order."""

    records: tuple[Record, ...]
    cursor: str | None
    """Give it back for the next page; None when this was the last."""
    size: int
    """The size of the ledger that the answer, and every page after it, speaks for."""
    assumptions: tuple[str, ...] = ()
    """How what was not said in full was taken, in sentences."""
    index_verified: Compared | None = None
    """When the index that answered was last compared with the log, and up to where; None when that is not known."""


"""Whether somebody may see a record."""


class Search:
    """Answers queries over one ledger, for the sizes up to which its index has followed."""

    def __init__(self, store: Store, questions: Questions) -> None:
        self._store: Final = store
        self._questions: Final = questions

    def page(
        self,
        query: Query,
        *,
        size: int,
        newest_first: bool = True,
        limit: int = PAGE_RECORDS,
        cursor: str | None = None,
        held: Held | None = None,
    ) -> Page:
        """The first records that fit, or those after a cursor: `limit` of them, or fewer where they are large.

        At most `PAGE_BYTES_MAX` bytes of records are in a page, and at least one record. `RejectedError` for a bad
        cursor or limit. With `held` they have their lines, positions and hashes, and no other members: small ones take
        twenty times their bytes. It is told of the bytes, and may raise.
        """
        if type(limit) is not int or not 1 <= limit <= PAGE_RECORDS_MAX:
            raise RejectedError(
                f"a page of {limit!r} records", place="limit", cure=f"ask for 1 to {PAGE_RECORDS_MAX} records"
            )
        first, end = 0, size
        if cursor is not None:
            position, size = _parse_cursor(cursor, size=size, newest_first=newest_first)
            first, end = (0, position) if newest_first else (position, size)
        records = self.scan(query, first=first, end=end, newest_first=newest_first, expected=limit + 1)
        found, is_all = _first_of(records, limit, held)
        following = None
        if not is_all:
            last = found[-1].position
            following = f"-{last}.{size}" if newest_first else f"+{last + 1}.{size}"
        return Page(tuple(found), following, size, tuple(query.assumptions))

    def scan(
        self,
        query: Query,
        *,
        first: int = 0,
        end: int,
        newest_first: bool = False,
        expected: int = _CANDIDATES_FIRST,
    ) -> Iterator[Record]:
        """Every record at [first, end) that fits, in order; in memory is a bounded number of them."""
        exact, rest = self._questions.answers_exactly(query), _undecided(query)
        limit = min(expected, _CANDIDATES_MAX)
        while first < end:
            candidates = self._questions.positions(query, first=first, end=end, newest_first=newest_first, limit=limit)
            for stored in fetch_lines(self._store, candidates, newest_first=newest_first):
                if exact or rest.takes(_glance(stored)):
                    yield _parsed(stored)
            if len(candidates) < limit:
                return
            if newest_first:
                end = candidates[-1]
            else:
                first = candidates[-1] + 1
            limit = min(2 * limit, _CANDIDATES_MAX)

    def count(self, query: Query, *, size: int) -> int:
        """How many of the first `size` records fit."""
        if self._questions.answers_exactly(query):
            return self._questions.count(query, first=0, end=size)
        return sum(1 for _ in self.glances(query, first=0, end=size))

    def glances(self, query: Query, *, first: int, end: int) -> Iterator[Record]:
        """As `scan`, for counting and adding up: the records are not held to the rules of a record again."""
        exact, rest = self._questions.answers_exactly(query), _undecided(query)
        while first < end:
            candidates = self._questions.positions(
                query, first=first, end=end, newest_first=False, limit=_CANDIDATES_MAX
            )
            for stored in fetch_lines(self._store, candidates):
                record = _glance(stored)
                if exact or rest.takes(record):
                    yield record
            if len(candidates) < _CANDIDATES_MAX:
                return
            first = candidates[-1] + 1


def _first_of(records: Iterable[Record], limit: int, held: Held | None) -> tuple[list[Record], bool]:
    """The first records, and whether they are all: `limit` of them, or fewer of so many bytes, and one at least."""
    found: list[Record] = []
    size = 0
    for record in records:
        size += len(record.line)
        if len(found) == limit or (found and size > PAGE_BYTES_MAX):
            return found, False
        if held is None:
            found.append(record)
        else:
            held(size)
            found.append(Record(record.line, {"position": record.position}))
    return found, True


def _undecided(query: Query) -> Query:
    """What of a query the record decides. Times the index knows, also where the clock was corrected since."""
    return replace(query, after=None, before=None, occurred_after=None, occurred_before=None)


def _glance(stored: StoredRecord) -> Record:
    """The record, as far as its CRC32 vouches for it."""
    try:
        return Record(stored.line, orjson.loads(stored.line))
    except orjson.JSONDecodeError as error:
        raise TamperError(f"the record at position {stored.position} is damaged: run a verification") from error


def _parsed(stored: StoredRecord) -> Record:
    try:
        return Record.parse(stored.line)
    except RejectedError as error:
        raise TamperError(f"the record at position {stored.position} was altered: {error}; verify") from error


def _parse_cursor(text: str, *, size: int, newest_first: bool) -> tuple[int, int]:
    parts = _CURSOR.fullmatch(str(text))
    if parts is None:
        raise RejectedError(
            f"{str(text)[:40]!r} is not a cursor", place="cursor", cure="send the one of the page before"
        )
    if (parts["order"] == "-") != newest_first:
        raise RejectedError("the cursor is of pages in the other order", place="cursor", cure="keep the order")
    position = parse_decimal(parts["position"], maximum=SIZE_MAX, place="cursor")
    spoken_for = parse_decimal(parts["size"], maximum=SIZE_MAX, place="cursor")
    if spoken_for > size or position > spoken_for:
        raise RejectedError(f"the cursor is of a ledger of {spoken_for} records", place="cursor")
    return position, spoken_for
