"""State and time travel: what an entity was at a time, at a version or at a position, and how it came to be so.

A state is the fold of a stream's records, upcast, up to where it was asked for. It says which records made it and
which tree size it speaks for. Beyond the end of the ledger every question is answered with what there is.

Snapshots only save work: an answer with them equals the answer without (I5). They are left aside where equality is
not certain: with Python folds or upcasters, by occurred time, and when they are damaged or of other declarations.
Records and snapshots come through the ports `Streams` and `Snapshots`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, Unpack

from tallystick.core import timestamp
from tallystick.core.canonical import SURROGATE
from tallystick.core.content import check_key
from tallystick.core.record import Record
from tallystick.core.upcast import ABSENT, Upcasters, copied, is_same
from tallystick.errors import NotFoundError, RejectedError
from tallystick.limits import ENTITY_ID_CHARACTERS_MAX, SIZE_MAX
from tallystick.read.as_of import BEGINNING, AsOf, Point, When
from tallystick.read.compared import Compared
from tallystick.read.declared import Declared
from tallystick.read.fold import Changed, Folding, Folds, Snapshot

SNAPSHOT_EVENTS: Final = 500
"""Events folded in one go after which a snapshot is kept: folding them again takes about as long as loading it."""

BETWEEN_RECORDS_MAX: Final = 100_000
BETWEEN_BYTES_MAX: Final = 33_554_432
"""Records that one difference lists, and their bytes; they are all held in memory."""

WEIGHED_BYTES: Final = 1_048_576
"""Bytes of records that are read before those that are held are weighed again."""

Kind: TypeAlias = Literal["added", "removed", "changed"]

Held: TypeAlias = Callable[[int], object]
"""Is told from time to time how many bytes of records an answer holds, and raises when that is too much."""


def held_anyhow(_: int) -> None:
    """A `Held` to which nothing is too much."""


class Streams(Protocol):
    """The records of one ledger by entity, as of one tree size: what was sealed later is not to be seen."""

    @property
    def size(self) -> int:
        """The tree size that all answers are for."""

    def records(self, entity_id: str, *, first: int, end: int) -> Iterator[Record]:
        """The entity's records at positions [first, end), in order, as sealed."""

    def at(self, positions: Sequence[int]) -> Iterator[Record]:
        """The records at these positions, which ascend, as sealed."""

    def time(self, record: Record) -> int:
        """The time of sealing by which a record counts, in microseconds."""

    def end_at(self, moment_end: int) -> int:
        """The first position whose recorded time is `moment_end` (microseconds) or later; the size if none is."""


class Snapshots(Protocol):
    """Where snapshots rest. All may be lost at any time. Whoever prunes records drops those of their entities."""

    def load(self, entity_id: str, version_max: int, end: int) -> Snapshot | None:
        """The newest snapshot of the entity with a version of at most `version_max` and a position below `end`."""

    def save(self, snapshot: Snapshot) -> None:
        """Keep it, as well as that can be done: an adapter that fails says so in its log, and returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What an entity was. The value is the caller's to change, its members in name order.

    `version` and `position` are those of the last record that was folded: 0 and None when nothing was known yet.
    """

    entity_id: str
    value: dict[str, Any]
    version: int
    position: int | None
    made_by: dict[str, int]
    """For each top-level member, the position of the record that last changed its value."""
    events: tuple[Record, ...]
    """The records, upcast, that `made_by` names, in position order: the events that made it."""
    folded: int
    begins_at_version: int
    """The version of the first record that was folded: 1, or a later one when the beginning was pruned; 0 for none."""
    size: int
    moment: AsOf
    index_verified: Compared | None = None
    """When the index that answered was last compared with the log, and up to where; None when that is not known."""

    @property
    def pruned(self) -> int:
        """How many events of the stream up to this version were not there to be folded, as they were pruned.

        By occurred time that cannot be told apart from events that had not happened yet, and is 0.
        """
        return self.version - self.folded if self.moment.clock == "recorded" else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A top-level member that came, went or has another value, and the record that made it so."""

    member: str
    kind: Kind
    old: Any
    """None when it was added."""
    new: Any
    """None when it was removed."""
    record: Record | None
    """None in a difference for which no record answers: a Python fold looked at something else as well."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A record that changed the state of its entity, and what it changed."""

    record: Record
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What became of an entity from one moment to another: its changes in name order, and the records between."""

    entity_id: str
    earlier: AsOf
    later: AsOf
    from_version: int
    to_version: int
    changes: tuple[Change, ...]
    records: tuple[Record, ...]
    size: int


class _Cut(NamedTuple):
    """Which records of a stream are taken in."""

    version_max: int
    end: int
    occurred_end: int | None
    time: Callable[[Record], int]

    def takes(self, record: Record) -> bool:
        return (
            record.entity_version <= self.version_max
            and record.position < self.end
            and (self.occurred_end is None or _occurred_time(record, self.time) < self.occurred_end)
        )


class _Run(Folding):
    """A folding with its place in the stream, the records that changed a member since it began, and the fingerprint
    for snapshots of it, if they may be kept."""

    def __init__(self, folds: Folds, start: Snapshot | None = None, *, fingerprint: str | None = None) -> None:
        super().__init__(folds, start.folded if start else None)
        self.version = start.version if start else 0
        self.position = start.position if start else None
        self.begins_at_version = start.begins_at_version if start else 0
        self.events = self.events_at_start = start.events if start else 0
        self.makers: dict[str, Record] = {}
        self.fingerprint: Final = fingerprint

    @property
    def end(self) -> int:
        """The first position that was not looked at."""
        return 0 if self.position is None else self.position + 1

    def add(self, record: Record) -> list[Changed]:
        changes = super().add(record)
        for changed in changes:
            self.makers[changed.member] = record
        self.version, self.position = record.entity_version, record.position
        self.begins_at_version = self.begins_at_version or self.version
        self.events += 1
        return changes

    def snapshot(self, entity_id: str) -> Snapshot | None:
        if self.position is None:
            return None
        names = ("version", "position", "begins_at_version", "events")
        members = {name: getattr(self, name) for name in names}
        return Snapshot(entity_id=entity_id, folded=self.folded(), fingerprint=self.fingerprint or "", **members)


def snapshots_again(
    entity_id: str, records: Iterable[Record], declared: Declared, versions: Container[int]
) -> Iterator[Snapshot]:
    """The snapshots at these versions, folded from the beginning. Raises as `Folding.add` and `Upcasters.upcast` do."""
    run = _Run(declared.folds, fingerprint=declared.fingerprint)
    for record in records:
        run.add(declared.upcasters.upcast(record))
        snapshot = run.snapshot(entity_id) if run.version in versions else None
        if snapshot is not None:
            yield snapshot


class States:
    """Answers questions about the states of entities. Safe for many threads as far as its ports are.

    `NotFoundError` means that the ledger has no event of the entity at all; where it has later ones, that nothing was
    known is the answer. `RejectedError` names what cannot be asked, or the record that a fold or upcaster fails on.
    """

    def __init__(self, streams: Streams, snapshots: Snapshots | None, folds: Folds, upcasters: Upcasters) -> None:
        self._streams: Final = streams
        self._snapshots: Final = snapshots
        self._folds: Final = folds
        self._upcasters: Final = upcasters
        self._declared: Final = Declared(folds, upcasters)

    def state(self, entity_id: str, as_of: When = None, *, held: Held = held_anyhow, **point: Unpack[Point]) -> State:
        """What the entity was at a time, a version or a position; without them, what it is now (see `AsOf`)."""
        moment = AsOf.of(as_of, **point)
        size, begins_at_version = self._check(entity_id)
        cut = self._cut(moment, size)
        run = self._start(entity_id, begins_at_version, cut)
        unweighed = 0
        for record in self._records(entity_id, cut, first=run.end):
            self._add(run, record, entity_id)
            unweighed += len(record.line)
            if unweighed > WEIGHED_BYTES:
                held(_weight(run.makers.values()))
                unweighed = 0
        events = self._makers(run, held)
        return State(
            entity_id=entity_id,
            value=copied(run.state),
            version=run.version,
            position=run.position,
            made_by=copied(run.made_by),
            events=events,
            folded=run.events,
            begins_at_version=run.begins_at_version,
            size=size,
            moment=moment,
        )

    def diff(self, entity_id: str, *, earlier: When, later: When = None, held: Held = held_anyhow) -> Difference:
        """What became of the entity from one moment to another. By occurred time a record that was sealed late may
        stand amid those of the earlier state; the later one is then folded with it in its place.

        `RejectedError` when the earlier state has records that the later has not, or too many lie between.
        """
        earlier, later, (size, begins_at_version) = AsOf.of(earlier), AsOf.of(later), self._check(entity_id)
        first, last = self._cut(earlier, size), self._cut(later, size)
        before, after = self._start(entity_id, begins_at_version, first, last), None
        between: list[Record] = []
        room, unweighed = BETWEEN_BYTES_MAX, 0
        for record in self._records(entity_id, first, last, first=before.end):
            unweighed += len(record.line)
            if unweighed > WEIGHED_BYTES:
                held(_weight([*before.makers.values(), *between]))
                unweighed = 0
            known, taken = first.takes(record), last.takes(record)
            if known and not taken:
                problem = f"the range runs backwards: {later.described} leaves out the record at {record.position}"
                raise RejectedError(problem, place="earlier", cure="exchange the two moments")
            if taken and not known:
                room -= len(record.line)
                if len(between) >= BETWEEN_RECORDS_MAX or room < 0:
                    most = f"{BETWEEN_RECORDS_MAX} records, or {BETWEEN_BYTES_MAX >> 20} MiB of them,"
                    problem = f"more than {most} lie between"
                    raise RejectedError(problem, place="later", cure="ask for a shorter range, or for the timeline")
                if after is None:
                    after = _Run(self._folds, before.snapshot(entity_id))
                    after.makers |= before.makers
                between.append(record)
            if known:
                self._add(before, record, entity_id)
            if taken and after:
                after.add(record)
        held(_weight([*before.makers.values(), *between]))
        after = after or before
        return Difference(
            entity_id=entity_id,
            earlier=earlier,
            later=later,
            from_version=before.version,
            to_version=after.version,
            changes=_changes(before.state, after.state, after.makers),
            records=tuple(between),
            size=size,
        )

    def timeline(self, entity_id: str, member: str | None = None, *, as_of: When = None) -> Iterator[Turn]:
        """Every record up to the moment that changed the state, or that changed this top-level member of it."""
        moment, (size, _) = AsOf.of(as_of), self._check(entity_id)
        cut, run = self._cut(moment, size), Folding(self._folds)

        def turns() -> Iterator[Turn]:
            for record in self._records(entity_id, cut):
                changes = sorted(change for change in run.add(record) if member in (None, change.member))
                if changes:
                    yield Turn(record, tuple(_change(*change, record) for change in changes))

        return turns()

    def history(self, entity_id: str, *, earlier: When = BEGINNING, later: When = None) -> Iterator[Record]:
        """The records, upcast, that lead from one moment to another: taken in by the later, not by the earlier."""
        earlier, later, (size, _) = AsOf.of(earlier), AsOf.of(later), self._check(entity_id)
        known, cut = self._cut(earlier, size), self._cut(later, size)
        records = self._records(entity_id, cut)
        return (record for record in records if not known.takes(record))

    def _check(self, entity_id: str) -> tuple[int, int]:
        """The tree size to answer for, and the version at which the entity's records begin."""
        check_key(entity_id, "entity_id", ENTITY_ID_CHARACTERS_MAX)
        size = self._streams.size
        if not SURROGATE.search(entity_id):
            for record in self._streams.records(entity_id, first=0, end=size):
                return size, record.entity_version
        raise NotFoundError(f"the ledger has no events of the entity {entity_id!r}")

    def _cut(self, moment: AsOf, size: int) -> _Cut:
        version_max = SIZE_MAX if moment.version is None else moment.version
        end = size if moment.position is None else min(moment.position + 1, size)
        if moment.time is None or moment.clock == "occurred":
            return _Cut(version_max, end, moment.time.end if moment.time else None, self._streams.time)
        return _Cut(version_max, min(self._streams.end_at(moment.time.end), end), None, self._streams.time)

    def _records(self, entity_id: str, *cuts: _Cut, first: int = 0) -> Iterator[Record]:
        """The records, upcast, that any of the cuts takes in."""
        by_occurred = any(cut.occurred_end is not None for cut in cuts)
        end = max(cut.end for cut in cuts)
        for record in self._streams.records(entity_id, first=first, end=end):
            if any(cut.takes(record) for cut in cuts):
                yield self._upcasters.upcast(record)
            elif not by_occurred:
                return

    def _start(self, entity_id: str, begins_at_version: int, *cuts: _Cut) -> _Run:
        """A run that begins at the newest snapshot that can be relied on, or at the beginning."""
        fingerprint = self._declared.fingerprint
        by_occurred = any(cut.occurred_end is not None for cut in cuts)
        if self._snapshots is None or by_occurred or fingerprint is None:
            return _Run(self._folds)
        version_max, end = min(cut.version_max for cut in cuts), min(cut.end for cut in cuts)
        found = self._snapshots.load(entity_id, version_max, end)
        if found is not None:
            # A beginning that was pruned since must not live on in what was derived from it.
            kept = (found.entity_id, found.fingerprint, found.begins_at_version)
            fits = kept == (entity_id, fingerprint, begins_at_version)
            found = found if fits and found.version <= version_max and found.position < end else None
        return _Run(self._folds, found, fingerprint=fingerprint)

    def _add(self, run: _Run, record: Record, entity_id: str) -> None:
        run.add(record)
        is_due = run.fingerprint is not None and (run.events - run.events_at_start) % SNAPSHOT_EVENTS == 0
        snapshot = run.snapshot(entity_id) if is_due else None
        if snapshot is not None and self._snapshots is not None:
            self._snapshots.save(snapshot)

    def _makers(self, run: _Run, held: Held) -> tuple[Record, ...]:
        made_by, read = run.made_by, run.makers
        makers = {position: read[name] for name, position in made_by.items() if name in read}
        weight = _weight(makers.values())
        held(weight)
        for record in self._streams.at(sorted({*made_by.values()} - makers.keys())):
            makers[record.position] = self._upcasters.upcast(record)
            weight += len(record.line)
            held(weight)
        return tuple(makers[position] for position in sorted(makers))


def _weight(records: Iterable[Record]) -> int:
    """The bytes of these, each counted once."""
    return sum({record.position: len(record.line) for record in records}.values())


def _changes(before: dict[str, Any], after: dict[str, Any], makers: dict[str, Record]) -> tuple[Change, ...]:
    names = sorted(before.keys() | after.keys())
    pairs = ((name, before.get(name, ABSENT), after.get(name, ABSENT)) for name in names)
    return tuple(_change(name, old, new, makers.get(name)) for name, old, new in pairs if not is_same(old, new))


def _change(member: str, old: Any, new: Any, record: Record | None) -> Change:
    kind: Kind = "added" if old is ABSENT else "removed" if new is ABSENT else "changed"
    old, new = (None if value is ABSENT else copied(value) for value in (old, new))
    return Change(member=member, kind=kind, old=old, new=new, record=record)


def _occurred_time(record: Record, time: Callable[[Record], int]) -> int:
    """When it is said to have happened, else when it was recorded, in microseconds. To claim the very time of sealing
    is to claim none."""
    claimed, sealed = record.occurred_at, timestamp.parse(record.recorded_at)
    said = sealed if claimed is None else timestamp.parse_rfc3339(claimed)
    return time(record) if said == sealed else said
