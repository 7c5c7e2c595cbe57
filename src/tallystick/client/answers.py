"""Answers of the service as the library's own values, made anew from what was sent.

A record comes as the bytes that were sealed, and is held to them: its hash is worked out here, and it must be the one
that came with it. What cannot be read is a `StoreError`: it is not an answer of the service's, or not of this version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
import orjson

from tallystick.core import timestamp
from tallystick.core.record import Record
from tallystick.core.schema import Registration
from tallystick.core.strict import parse_decimal
from tallystick.errors import RejectedError, StoreError, TamperError
from tallystick.govern.registered import RegisteredSchema
from tallystick.limits import SIZE_MAX
from tallystick.read.as_of import AsOf
from tallystick.read.compared import Compared
from tallystick.read.search import Page
from tallystick.read.state import Change, Difference, State, Turn
from tallystick.read.timeseries import Extent, Point, Series
from tallystick.write.queue import Progress, Ticket
from tallystick.write.request import Sealed

_T = TypeVar("_T")
_HASH_START: Final = b',"hash":"'
_HASH_BYTES: Final = len(_HASH_START) + 64 + len('"}')
_BEGINNING_OF_TIME: Final = timestamp.parse("0001-01-01T00:00:00.000000Z")
_END_OF_TIME: Final = timestamp.parse("9999-12-31T23:59:59.999999Z") + 1


class _Page(msgspec.Struct):
    records: list[msgspec.Raw]
    size: int
    cursor: str | None = None
    assumptions: list[str] = []
    index_verified: Compared | None = None


class _Told(msgspec.Struct):
    """What became of one event: its receipt, or with a status the problem with it."""

    id: str = ""
    position: int = -1
    recorded_at: str = ""
    entity_id: str = ""
    entity_version: int = 0
    hash: str = ""
    replayed: bool = False
    breach: str = ""
    status: int = 0


class _Batch(msgspec.Struct):
    events: list[msgspec.Raw]


class _Ticket(msgspec.Struct):
    ticket: str
    id: str
    accepted_at: str
    breach: str = ""


class _Tickets(msgspec.Struct):
    events: list[_Ticket]


class _State(msgspec.Struct):
    state: dict[str, Any]
    version: int
    position: int | None
    made_by: dict[str, int]
    folded: int
    begins_at_version: int
    size: int
    whole: list[msgspec.Raw]
    index_verified: Compared | None = None


class _Change(msgspec.Struct):
    member: str
    kind: str
    old: Any
    new: Any
    position: int | None


class _Difference(msgspec.Struct):
    changes: list[_Change]
    from_version: int
    to_version: int
    between: int
    size: int
    whole: list[msgspec.Raw]


class _Turn(msgspec.Struct):
    changes: list[_Change]


class _Timeline(msgspec.Struct):
    turns: list[_Turn]
    whole: list[msgspec.Raw]


class _Point(msgspec.Struct):
    start: str | None
    end: str | None
    label: str
    group: str | None
    value: int | float | None
    count: int


class _Series(msgspec.Struct):
    buckets: list[_Point]
    width: str
    zone: str
    measure: str
    group: str | None
    time: str
    size: int
    source: str
    pruned_below: int
    assumptions: list[str]
    index_verified: Compared | None = None


class _Extent(msgspec.Struct):
    first: str | None
    last: str | None
    count: int


class _Progress(msgspec.Struct):
    state: str
    position: int | None = None
    why: str | None = None


class _Schema(msgspec.Struct):
    name: str
    version: int
    schema: dict[str, Any]
    target: str
    compatibility: str
    position: int
    recorded_at: str
    actor: dict[str, str] | None = None
    reason: str | None = None


def read(data: bytes, kind: type[_T]) -> _T:
    """A JSON answer as a value of a type. Raises `StoreError`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise StoreError(f"the answer cannot be read: {error}") from error


def told(make: Callable[[], _T]) -> _T:
    """What is made of an answer; what its values refuse is a `StoreError`."""
    try:
        return make()
    except RejectedError as error:
        raise StoreError(f"the answer cannot be read: {error}") from error


# ------------------------------------------------------------------------------------------------ the way in


def outcomes_of(data: bytes) -> list[Sealed | dict[str, Any]]:
    """What became of each event of a batch: its receipt, or the problem with it as JSON has it."""
    return [_outcome(bytes(one)) for one in read(data, _Batch).events]


def sealed_of(data: bytes) -> Sealed:
    """The receipt of one event."""
    found = _outcome(data)
    if not isinstance(found, Sealed):
        raise StoreError("the answer is no receipt")
    return found


def _outcome(data: bytes) -> Sealed | dict[str, Any]:
    one = read(data, _Told)
    if one.status:
        problem: dict[str, Any] = orjson.loads(data)
        return problem
    if one.position < 0 or not one.id:
        raise StoreError("the answer has a receipt without a position")
    return Sealed(
        one.position,
        one.id,
        one.entity_id,
        one.entity_version,
        one.recorded_at,
        _hash(one.hash),
        one.replayed,
        one.breach,
    )


def tickets_of(data: bytes) -> list[Ticket]:
    """The tickets of a batch."""
    return [_ticket(one) for one in read(data, _Tickets).events]


def ticket_of(data: bytes) -> Ticket:
    """The ticket of one event."""
    return _ticket(read(data, _Ticket))


def _ticket(one: _Ticket) -> Ticket:
    def make() -> Ticket:
        sequence = parse_decimal(one.ticket.partition(".")[0], maximum=SIZE_MAX, place="ticket")
        proof = one.ticket.removeprefix(f"{sequence}.{one.id}").removeprefix("~")
        ticket = Ticket(sequence, one.id, timestamp.parse(one.accepted_at), one.breach, proof)
        if ticket.id != one.ticket:
            raise RejectedError("a ticket is not that of its event", place="ticket")
        return ticket

    return told(make)


def progress_of(data: bytes) -> Progress:
    """What has become of a ticket."""
    one = read(data, _Progress)
    if one.state not in ("queued", "sealed", "refused"):
        raise StoreError(f"a ticket that is {one.state[:40]!a}: what that is, only a newer client knows")
    return Progress(one.state, one.position, one.why)  # type: ignore[arg-type]  # it is one of the three


# ----------------------------------------------------------------------------------------------- the way out


def record_of(data: bytes) -> Record:
    """A record as `read.shapes.record_json` writes it. Raises `TamperError` if it has not the hash that it names."""
    tail = data[-_HASH_BYTES:]
    if not (tail.startswith(_HASH_START) and tail.endswith(b'"}')):
        raise StoreError("the answer has a record without its hash at the end: something between us has rewritten it")
    record = told(lambda: Record.parse(data[:-_HASH_BYTES] + b"}"))
    if record.hash != _hash(tail[len(_HASH_START) : -2].decode("ascii", "replace")):
        raise TamperError(f"the record at position {record.position} came with a hash that is not its own")
    return record


def records_of(raw: Sequence[msgspec.Raw]) -> tuple[Record, ...]:
    """Several records."""
    return tuple(record_of(bytes(one)) for one in raw)


def page_of(data: bytes) -> Page:
    """A page."""
    page = read(data, _Page)
    return Page(records_of(page.records), page.cursor, page.size, tuple(page.assumptions), page.index_verified)


def state_of(data: bytes, entity_id: str, moment: AsOf) -> State:
    """What an entity was, of an answer with `whole`."""
    one = read(data, _State)
    return State(
        entity_id=entity_id,
        value=one.state,
        version=one.version,
        position=one.position,
        made_by=one.made_by,
        events=records_of(one.whole),
        folded=one.folded,
        begins_at_version=one.begins_at_version,
        size=one.size,
        moment=moment,
        index_verified=one.index_verified,
    )


def difference_of(data: bytes, entity_id: str, earlier: AsOf, later: AsOf) -> Difference:
    """What became of an entity, of an answer with `whole`."""
    one = read(data, _Difference)
    records = records_of(one.whole)
    makers = {record.position: record for record in records}
    return Difference(
        entity_id=entity_id,
        earlier=earlier,
        later=later,
        from_version=one.from_version,
        to_version=one.to_version,
        changes=tuple(
            _change(change, makers.get(-1 if at is None else at)) for change in one.changes for at in [change.position]
        ),
        records=records[: one.between],
        size=one.size,
    )


def timeline_of(data: bytes) -> list[Turn]:
    """What changed an entity, of an answer with `whole`."""
    one = read(data, _Timeline)
    records = records_of(one.whole)
    if len(records) != len(one.turns):
        raise StoreError("the answer has not a record for each turn")
    return [
        Turn(record, tuple(_change(change, record) for change in turn.changes))
        for record, turn in zip(records, one.turns, strict=True)
    ]


def _change(one: _Change, record: Record | None) -> Change:
    if one.kind not in ("added", "removed", "changed"):
        raise StoreError(f"a change that is {one.kind[:40]!a}: what that is, only a newer client knows")
    return Change(member=one.member, kind=one.kind, old=one.old, new=one.new, record=record)  # type: ignore[arg-type]  # as above


def series_of(data: bytes) -> Series:
    """A series. An edge outside of the years 1 to 9999, which has no text, is the edge of these."""
    one = read(data, _Series)
    buckets = tuple(
        Point(
            _moment(point.start, _BEGINNING_OF_TIME),
            _moment(point.end, _END_OF_TIME),
            point.label,
            point.group,
            point.value,
            point.count,
        )
        for point in one.buckets
    )
    names = ("width", "zone", "measure", "group", "time", "size", "source", "pruned_below", "index_verified")
    return Series(buckets=buckets, assumptions=tuple(one.assumptions), **{name: getattr(one, name) for name in names})


def extent_of(data: bytes) -> Extent:
    """From when to when, and how many."""
    one = read(data, _Extent)
    first, last = (None if text is None else _moment(text, 0) for text in (one.first, one.last))
    return Extent(first, last, one.count)


def schema_of(one: Any) -> RegisteredSchema:
    """A version of a schema, from its members."""
    try:
        found = msgspec.convert(one, _Schema)
    except msgspec.ValidationError as error:
        raise StoreError(f"the answer has a schema that cannot be read: {error}") from error
    registration = told(
        lambda: Registration(
            name=found.name,
            version=found.version,
            schema=found.schema,
            target=found.target,  # type: ignore[arg-type]  # which it checks
            compatibility=found.compatibility,  # type: ignore[arg-type]
            reason=found.reason,
        )
    )
    return RegisteredSchema.of(registration, position=found.position, recorded_at=found.recorded_at, actor=found.actor)


def _moment(text: str | None, otherwise: int) -> int:
    return otherwise if text is None else told(lambda: timestamp.parse(text))


def _hash(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise StoreError("the answer has a hash that is none")
    return digest
