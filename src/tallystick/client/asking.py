"""The asking half of the client: what the service answers about one ledger's records, as the ledger itself would.

Every question may be asked twice, so each is repeated until it is answered or its time is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Unpack

import orjson

from tallystick.asking import one_query
from tallystick.client.answers import (
    difference_of,
    extent_of,
    page_of,
    record_of,
    series_of,
    state_of,
    timeline_of,
)
from tallystick.client.calls import Calls, Request
from tallystick.client.paths import quoted
from tallystick.client.stream import Following
from tallystick.core.content import check_key
from tallystick.core.record import Record
from tallystick.errors import NotFoundError, RejectedError, StoreError
from tallystick.limits import ENTITY_ID_CHARACTERS_MAX, PAGE_RECORDS_MAX
from tallystick.read.as_of import AsOf, Point, When
from tallystick.read.index import TimeKind
from tallystick.read.query import Query
from tallystick.read.search import PAGE_RECORDS, Page
from tallystick.read.state import Difference, State, Turn
from tallystick.read.timeseries import Extent, Series

_V1: Final = "/api/v1"
_WHOLE: Final = "whole=true"


class Asking:
    """What can be asked. Safe for many threads."""

    _calls: Calls

    def get(self, key: int | str) -> Record:
        """One record, by position or by event id. `NotFoundError` when there is none, or none that the key may see."""
        if type(key) is not int and type(key) is not str:
            raise RejectedError(f"{key!r} is neither a position nor an event id", cure="give an integer or a string")
        if isinstance(key, str):
            page = self.query(id=key, limit=1) if key else None
            if page is None or not page.records:
                raise NotFoundError(f"there is no event with the id {key[:200]!r} that this key may see")
            return page.records[0]
        if key < 0:
            raise NotFoundError(f"there is no position {key}")
        return record_of(self._get(f"{_V1}/events/{key}", "by=position"))

    def query(
        self,
        query: Query | None = None,
        /,
        *,
        newest_first: bool = True,
        limit: int = PAGE_RECORDS,
        cursor: str | None = None,
        **members: Any,
    ) -> Page:
        """A page of the records that fit a query, given as a `Query` or as members of `Query.of`.

        `cursor` is that of the page before; all pages speak for the size of the first. Raises `RejectedError`.
        """
        terms = [
            *one_query(query, members).terms(),
            f"order={'newest' if newest_first else 'oldest'}",
            f"limit={limit}",
        ]
        if cursor is not None:
            terms.append(f"cursor={cursor}")
        return page_of(self._get(f"{_V1}/events/query", *terms))

    def records(self, query: Query | None = None, /, *, newest_first: bool = False, **members: Any) -> Iterator[Record]:
        """Every record that fits a query, in order, page by page; those appended later are not among them."""
        query, cursor = one_query(query, members), None
        while True:
            page = self.query(query, newest_first=newest_first, limit=PAGE_RECORDS_MAX, cursor=cursor)
            yield from page.records
            if page.cursor is None:
                return
            if page.cursor == cursor:
                raise StoreError("the service leads from a page to the same page")
            cursor = page.cursor

    def count(self, query: Query | None = None, /, **members: Any) -> int:
        """How many records fit a query."""
        return self.extent(query, **members).count

    def state(self, entity_id: str, as_of: When = None, **point: Unpack[Point]) -> State:
        """What an entity was at a time, a `version` or a `position`, now without them, and the events that made it.

        As `Ledger.state`; the fold is the service's.
        """
        moment = AsOf.of(as_of, **point)
        terms = _point_terms(moment, "as_of")
        return state_of(self._entity(entity_id, "state", *terms, _WHOLE), entity_id, moment)

    def diff(self, entity_id: str, *, earlier: When, later: When = None) -> Difference:
        """What became of an entity from one moment to another, and the records between.

        Both are by the same clock.
        """
        first, last = AsOf.of(earlier), AsOf.of(later)
        terms = _point_terms(first, "from")
        if not terms:
            cure = "give a time, a version or a position"
            raise RejectedError("a difference does not begin now", place="earlier", cure=cure)
        if first.time is not None and last.time is not None and first.clock != last.clock:
            raise RejectedError("the two moments are by two clocks", place="later", cure="use one for both")
        terms += [term for term in _point_terms(last, "to") if term not in terms]
        return difference_of(self._entity(entity_id, "diff", *terms, _WHOLE), entity_id, first, last)

    def timeline(self, entity_id: str, member: str | None = None, *, as_of: When = None) -> Iterator[Turn]:
        """Every record that changed the state of an entity, or one member of it, with the old and new values."""
        terms = _point_terms(AsOf.of(as_of), "as_of")
        if member is not None:
            terms.append(f"member={member}")
        return iter(timeline_of(self._entity(entity_id, "history", *terms, _WHOLE)))

    def series(
        self,
        query: Query | None = None,
        /,
        *,
        width: str = "day",
        zone: str = "UTC",
        after: datetime | str | None = None,
        before: datetime | str | None = None,
        measure: str = "count",
        group: str | None = None,
        time: TimeKind = "recorded",
        fill: bool = False,
        **members: Any,
    ) -> Series:
        """The records that fit a query, counted or measured by buckets of time, and by groups. As `Ledger.series`."""
        terms = one_query(query, members).terms()
        prefix = "" if time == "recorded" else "occurred_"
        terms += [
            f"{prefix}{name}={_text(moment)}"
            for name, moment in (("after", after), ("before", before))
            if moment is not None
        ]
        terms += [f"width={width}", f"zone={zone}", f"measure={measure}", f"fill={str(fill).lower()}", f"time={time}"]
        if group is not None:
            terms.append(f"group={group}")
        return series_of(self._get(f"{_V1}/timeseries/query", *terms))

    def extent(self, query: Query | None = None, /, *, time: TimeKind = "recorded", **members: Any) -> Extent:
        """From when to when there are records that fit a query, and how many."""
        return extent_of(self._get(f"{_V1}/timeseries/range", *one_query(query, members).terms(), f"time={time}"))

    def subscribe(self, query: Query | None = None, /, *, cursor: int | None = None, **members: Any) -> Following:
        """The records that fit a query, those from a position on and those to come, in order, each once.

        It comes back by itself to where it was when the connection is cut. To go on in another process, keep its
        `cursor` with what was made of the records.
        """
        return Following(self._calls, one_query(query, members), cursor=cursor)

    def whoami(self) -> dict[str, Any]:
        """The key that is sent, as the service knows it: its tenant, role, scope and permissions."""
        return read_object(self._get(f"{_V1}/whoami"))

    def _entity(self, entity_id: str, what: str, *terms: str) -> bytes:
        check_key(entity_id, "entity_id", ENTITY_ID_CHARACTERS_MAX)
        return self._get(f"{_V1}/entities/{quoted(entity_id)}/{what}", *terms)

    def _get(self, path: str, *terms: str) -> bytes:
        return self._calls.call(Request(path=path, terms=terms)).body


def read_object(data: bytes) -> dict[str, Any]:
    """An answer that is a JSON object. Raises `StoreError`."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise StoreError(f"the answer cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise StoreError("the answer is no object")
    return found


def _point_terms(moment: AsOf, name: str) -> list[str]:
    """The point as the service is asked for it; nothing for now."""
    if moment.version is not None:
        return [f"{name}=v{moment.version}"]
    if moment.position is not None:
        return [f"{name}=@{moment.position}"]
    if moment.time is None:
        return []
    return [f"{name}={moment.time.text}", f"clock={moment.clock}"]


def _text(moment: datetime | str) -> str:
    """A time as it is written. A `datetime` without a zone is refused by the service, as any text without one."""
    return moment.astimezone(UTC).isoformat() if isinstance(moment, datetime) and moment.tzinfo else str(moment)
