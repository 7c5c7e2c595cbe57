"""The asking half of the front door: what one ledger answers about its records, and who reads on as they come.

Every question is answered for the ledger as it is when asked. What does the answering is opened at the first one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, Unpack

from tallystick.config import Location
from tallystick.core import timestamp
from tallystick.core.corrected import Times
from tallystick.core.moment import Moment
from tallystick.core.record import Record
from tallystick.core.rollup import Definition
from tallystick.core.upcast import Upcasters
from tallystick.errors import RejectedError
from tallystick.keystore import Keystore
from tallystick.limits import BUCKETS_MAX, STATS_NAMES_MAX
from tallystick.read.as_of import BEGINNING, Point, When
from tallystick.read.compared import Compared, ComparedFile
from tallystick.read.fold import Folds
from tallystick.read.index import TimeKind
from tallystick.read.projection import RunningProjection
from tallystick.read.query import Query
from tallystick.read.reader import Reader
from tallystick.read.readers import Readers
from tallystick.read.search import PAGE_RECORDS, Page
from tallystick.read.sqlite_cursors import Saved
from tallystick.read.state import Difference, Held, State, Turn, held_anyhow
from tallystick.read.subscription import Subscription
from tallystick.read.timeseries import Extent, Series


class Asking(ABC):
    """What can be asked of a ledger. Safe for many threads."""

    _location: Location
    _keystore: Keystore
    _compared_file: ComparedFile | None
    id: bytes

    @property
    @abstractmethod
    def name(self) -> str:
        """The ledger's name."""

    @abstractmethod
    def _open_reader(self) -> Reader:
        """What answers."""

    @abstractmethod
    def _log_bytes(self) -> int:
        """What the log takes where it rests."""

    @abstractmethod
    def _open_readers(self) -> Readers:
        """Those who read on."""

    def _compared(self) -> Compared | None:
        if self._compared_file is None:
            folder = self._location.folder
            if folder is None or self._location.scratch or not self._keystore.exists():
                return None
            key = self._keystore.ledger_keys(self.name).index_mac
            self._compared_file = ComparedFile(folder, key=key, ledger_id=self.id)
        return self._compared_file.read()

    def catch_up(self, size: int | None = None) -> int:
        """Wait until the index answers for the first `size` records, by default for all there are; that size.

        Questions do so by themselves.
        """
        return self._open_reader().catch_up(size)

    def times(self, size: int | None = None) -> Times:
        """The times by which the first `size` records count, by default all: as recorded, or as the clock was corrected
        since (SPEC 5.9)."""
        reader = self._open_reader()
        return reader.times(reader.catch_up(size))

    def query(
        self,
        query: Query | None = None,
        /,
        *,
        newest_first: bool = True,
        limit: int = PAGE_RECORDS,
        cursor: str | None = None,
        held: Held | None = None,
        **members: Any,
    ) -> Page:
        """A page of the records that fit a query, given as a `Query` or as members of `Query.of`.

        `cursor` is that of the page before; all pages speak for the size of the first. With `held`, which is told
        of the bytes in memory and may raise, the records have lines and no members. Raises `RejectedError`.
        """
        query = one_query(query, members)
        reader = self._open_reader()
        size = reader.catch_up()
        asked: dict[str, Any] = {"newest_first": newest_first, "limit": limit, "cursor": cursor, "held": held}
        page = reader.search.page(query, size=size, **asked)
        return replace(page, index_verified=self._compared())

    def records(self, query: Query | None = None, /, *, newest_first: bool = False, **members: Any) -> Iterator[Record]:
        """Every record that fits a query, in order, one after another; those appended later are not among them."""
        query = one_query(query, members)
        reader = self._open_reader()
        return reader.search.scan(query, end=reader.catch_up(), newest_first=newest_first)

    def count(self, query: Query | None = None, /, **members: Any) -> int:
        """How many records fit a query."""
        query = one_query(query, members)
        reader = self._open_reader()
        return reader.search.count(query, size=reader.catch_up())

    def state(self, entity_id: str, as_of: When = None, *, held: Held = held_anyhow, **point: Unpack[Point]) -> State:
        """What an entity was at a time, a `version` or a `position`, now without them, and the events that made it.

        A date takes in all of that day in UTC. Time is recorded time, or with `clock="occurred"` what the events
        claim. `NotFoundError` when the ledger has no event of the entity at all. `held` is told meanwhile how many
        bytes of records the answer holds, and what it raises is raised.
        """
        state = self._open_reader().states().state(entity_id, as_of, held=held, **point)
        return replace(state, index_verified=self._compared())

    def history(self, entity_id: str, *, earlier: When = BEGINNING, later: When = None) -> Iterator[Record]:
        """The records of an entity, upcast, from one moment to another, in order."""
        return self._open_reader().states().history(entity_id, earlier=earlier, later=later)

    def diff(self, entity_id: str, *, earlier: When, later: When = None, held: Held = held_anyhow) -> Difference:
        """What became of an entity from one moment to another, and the records between. `held` as for a state."""
        return self._open_reader().states().diff(entity_id, earlier=earlier, later=later, held=held)

    def timeline(self, entity_id: str, member: str | None = None, *, as_of: When = None) -> Iterator[Turn]:
        """Every record that changed the state of an entity, or one member of it, with the old and new values."""
        return self._open_reader().states().timeline(entity_id, member, as_of=as_of)

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
        points_max: int = BUCKETS_MAX,
        held: Held = held_anyhow,
        **members: Any,
    ) -> Series:
        """The records that fit a query, counted or measured by buckets of time, and by groups.

        `width` is one of minute, 5 minutes, 15 minutes, hour, day, week, month, quarter and year, in a named `zone`.
        `measure` is `count`, `distinct:actor`, `distinct:entity`, or sum, min, max or avg of a member, such as
        `sum:payload.rows`. `group` is type, actor, entity or label. `after` and `before` are of the `time` meant.
        Raises `RejectedError` for more than `points_max` buckets and groups. `held` is told of the bytes that are in
        memory for it, again and again, and may raise.
        """
        for name, value in (("width", width), ("zone", zone), ("measure", measure)):
            if not isinstance(value, str):
                raise RejectedError(f"{value!r} is not a text", place=name)
        reader = self._open_reader()
        size = reader.catch_up()
        series = reader.timeseries().query(
            one_query(query, members),
            size=size,
            width=width,
            zone=zone,
            after=None if after is None else Moment.of(after, place="after"),
            before=None if before is None else Moment.of(before, place="before"),
            measure=measure,
            group=group,
            time=time,
            fill=fill,
            points_max=points_max,
            held=held,
        )
        return replace(series, index_verified=self._compared())

    def extent(self, query: Query | None = None, /, *, time: TimeKind = "recorded", **members: Any) -> Extent:
        """From when to when there are records that fit a query, and how many."""
        query = one_query(query, members)
        reader = self._open_reader()
        return reader.timeseries().range(query, size=reader.catch_up(), time=time)

    def rollups(self) -> list[Definition]:
        """The series that are stored, by name (see `downsample`)."""
        reader = self._open_reader()
        return reader.timeseries().rollups(size=reader.catch_up())

    def stats(self, *, held: Held = held_anyhow) -> dict[str, Any]:
        """How much there is: names, times, and records by event type, pruned ones counted in.

        Of labels and event types the first `STATS_NAMES_MAX` by name are told, and how many there are. `held` as for a
        series.
        """
        reader = self._open_reader()
        size = reader.catch_up()
        extent, known = self.extent(), reader.questions.known()
        names = [*islice(reader.questions.names("type"), STATS_NAMES_MAX)]
        among = Query(event_types=tuple(names)) if known["type"] > len(names) else Query()
        types: dict[str, int] = {}
        for point in self.series(among, width="year", group="type", held=held).buckets:
            types[point.group or ""] = types.get(point.group or "", 0) + point.count
        return {
            "size": size,
            "records": extent.count,
            "first_recorded_at": None if extent.first is None else timestamp.render(extent.first),
            "last_recorded_at": None if extent.last is None else timestamp.render(extent.last),
            "entities": known["entity"],
            "actors": known["actor"],
            "label_count": known["label"],
            "labels": [*islice(reader.questions.names("label"), STATS_NAMES_MAX)],
            "type_count": max(known["type"], len(types)),
            "types": types,
            "log_bytes": self._log_bytes(),
        }

    def subscribe(
        self,
        query: Query | None = None,
        /,
        *,
        cursor: int | None = None,
        name: str | None = None,
        **members: Any,
    ) -> Subscription:
        """The records that fit a query, those from a position on and those to come, in order, at least once.

        With a `name` the place is kept: what was not acknowledged is delivered again the next time.
        """
        return self._open_readers().subscribe(one_query(query, members), cursor=cursor, name=name)

    def project(self, projection: Any) -> RunningProjection:
        """The handle of a projection over this ledger: `run` or `start` it, ask its `state`.

        `projection` is a `Projection` (`tallystick.projection` makes one of a function), or has `evolve`.
        """
        return self._open_readers().project(projection)

    def projections(self) -> list[Saved]:
        """What is kept of every projection that was ever begun over this ledger, by name."""
        return self._open_readers().projections()

    def pause_projection(self, name: str) -> None:
        """Hold a projection where it is, for every process, until it is resumed. Raises `NotFoundError`."""
        self._open_readers().cursors.set_paused(name, True)

    def resume_projection(self, name: str) -> None:
        """Let a projection go on that was paused, or that failed, when it is next run. Raises `NotFoundError`."""
        self._open_readers().cursors.set_paused(name, False)

    def reset_projection(self, name: str) -> None:
        """Forget the state of a projection, and where it was; tables of its own stay. Raises `NotFoundError`."""
        self._open_readers().cursors.forget(name)

    @property
    def folds(self) -> Folds:
        """How events become state, by event type; register here before asking for states."""
        return self._open_reader().folds

    @property
    def upcasters(self) -> Upcasters:
        """How payloads of older event versions are brought to the newest; register here before asking."""
        return self._open_reader().upcasters


def one_query(query: Query | None, members: Mapping[str, Any]) -> Query:
    """The query that was given, whole or as members of `Query.of`. Raises `RejectedError`."""
    if query is None:
        return Query.of(**members)
    if members:
        raise RejectedError("a query was given both whole and as members", cure="give one of them")
    return query
