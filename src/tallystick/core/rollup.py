"""The ledger's own events about stored roll-ups: what their payloads say, written and read in one place.

`tallystick.rollup.defined` names a roll-up and says what it counts; a later one of the same name replaces it.
`tallystick.rollup.sealed` keeps what removed records came to, cell by cell, so that roll-ups outlive them (I5).
Reading is strict: what is not exactly so raises `RejectedError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from tallystick.core import timestamp
from tallystick.core.buckets import Calendar
from tallystick.core.canonical import canonical, encode
from tallystick.core.corrected import Times
from tallystick.core.event import RESERVED_PREFIX
from tallystick.core.measure import Measure, Totals
from tallystick.core.member import MemberPath
from tallystick.core.record import Record
from tallystick.core.system import SYSTEM_ENTITY
from tallystick.errors import RejectedError
from tallystick.limits import ROLLUP_NAME_CHARACTERS_MAX

ROLLUP_DEFINED: Final = "tallystick.rollup.defined"
ROLLUP_SEALED: Final = "tallystick.rollup.sealed"

GROUPS: Final = ("type", "actor", "entity", "label")
TIMES: Final = ("recorded", "occurred")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_PAYLOAD_BYTES_MAX: Final = 48_000
"""Well below what a record can hold, so that the rest of it always finds room."""

Cells = dict[tuple[int, str], Totals]
"""Totals by bucket, its start in microseconds, and group; '' where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a roll-up counts. `terms` are those of a query, `tallystick.read.query` reads them.

    All measures but `count` are of one member. Raises `RejectedError` when built with something else.
    """

    name: str
    terms: tuple[str, ...]
    width: str
    zone: str
    measures: tuple[str, ...]
    group: str | None
    time: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > ROLLUP_NAME_CHARACTERS_MAX:
            cure = f"use 1 to {ROLLUP_NAME_CHARACTERS_MAX} letters, digits and . _ -, beginning with a letter or digit"
            raise RejectedError(f"{self.name[:60]!a} is not the name of a roll-up", place="name", cure=cure)
        Calendar(self.width, self.zone)
        if self.group not in (None, *GROUPS):
            raise RejectedError(f"{str(self.group)[:40]!r} is no group", place="group", cure=f"use {_listed(GROUPS)}")
        if self.time not in TIMES:
            raise RejectedError(f"{str(self.time)[:40]!r} is no time", place="time", cure=f"use {_listed(TIMES)}")
        paths = {measure.path for measure in map(Measure.parse, self.measures)} - {None}
        if any(text.startswith("distinct:") for text in self.measures):
            cure = "group by actor or entity instead: every group is then one of them"
            raise RejectedError("names told apart cannot be added up later", place="measure", cure=cure)
        if not self.measures or len(paths) > 1:
            problem = "measures of several members" if paths else "no measure"
            raise RejectedError(problem, place="measure", cure="define a roll-up for each member")
        if len(encode(self.payload())) > _PAYLOAD_BYTES_MAX:
            raise RejectedError("the query is too long for a roll-up", place="query", cure="ask for fewer things")

    def check_not_ours(self) -> None:
        """Refuse a name that is kept for the ledger itself. Raises `RejectedError`."""
        if self.name.startswith(RESERVED_PREFIX):
            cure = "use one that does not begin so"
            raise RejectedError(f"names that begin with {RESERVED_PREFIX} are ours", place="name", cure=cure)

    def to_json(self) -> dict[str, Any]:
        """As it is told of."""
        payload = self.payload()
        return {"name": payload.pop("name"), "terms": payload.pop("query"), **payload}

    @property
    def path(self) -> MemberPath | None:
        """The member whose numbers are added up, if any are."""
        return next((measure.path for measure in map(Measure.parse, self.measures) if measure.path), None)

    @property
    def digest(self) -> str:
        """Tells two definitions of one name apart."""
        return sha256(encode(self.payload())).hexdigest()

    def payload(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "measures": [*self.measures],
            "name": self.name,
            "query": [*self.terms],
            "time": self.time,
            "width": self.width,
            "zone": self.zone,
        }

    @classmethod
    def of(cls, record: Record) -> Definition:
        payload = _payload(record, ROLLUP_DEFINED)
        definition = cls(
            name=_text(payload, "name"),
            terms=tuple(_texts(payload, "query")),
            width=_text(payload, "width"),
            zone=_text(payload, "zone"),
            measures=tuple(_texts(payload, "measures")),
            group=None if payload.get("group") is None else _text(payload, "group"),
            time=_text(payload, "time"),
        )
        definition.check_not_ours()
        if payload != definition.payload():
            raise RejectedError("the roll-up's definition has members that are none of it", place="/payload")
        return definition


TYPES: Final = Definition(
    name="tallystick.types",
    terms=(),
    width="15 minutes",
    zone="UTC",
    measures=("count",),
    group="type",
    time="recorded",
)
"""The roll-up that every ledger has: records by quarter of an hour and type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCells:
    """Some of what the records that one prune removed came to in one roll-up."""

    rollup: str
    digest: str
    """Of the definition by which they were counted."""
    first: int
    """The first position that was removed."""
    end: int
    """Where the prune ended; not all records below need be removed."""
    cells: Cells

    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "cells": [_render_cell(bucket, group, totals) for (bucket, group), totals in self.cells.items()],
            "definition": self.digest,
            "end": self.end,
            "first": self.first,
            "rollup": self.rollup,
        }
        return payload

    @classmethod
    def of(cls, record: Record) -> SealedCells:
        payload = _payload(record, ROLLUP_SEALED)
        first, end, rows = payload.get("first"), payload.get("end"), payload.get("cells")
        if type(first) is not int or type(end) is not int or not 0 <= first < end or type(rows) is not list:
            raise RejectedError("not the sealed cells of a roll-up", place="/payload")
        cells: Cells = {}
        for index, row in enumerate(rows):
            try:
                bucket, group, totals = _parse_cell(row)
            except RejectedError as error:
                raise RejectedError(error.problem, place=f"/payload/cells/{index}") from error
            cells[bucket, group] = totals
        sealed = cls(
            rollup=_text(payload, "rollup"), digest=_text(payload, "definition"), first=first, end=end, cells=cells
        )
        if payload != sealed.payload():
            raise RejectedError("not the sealed cells of a roll-up", place="/payload")
        return sealed

    def counted(self, position: int, times: Times, calendar: Calendar) -> Cells:
        """The cells as they count now: sealed at a position, after which the clock may have been corrected."""
        latest = times.latest(position)
        if latest is None:
            return self.cells
        last, counted = calendar.start_of(latest), Cells()
        for (bucket, group), totals in self.cells.items():
            counted.setdefault((min(bucket, last), group), Totals()).add(totals)
        return counted

    @classmethod
    def split(cls, definition: Definition, cells: Cells, *, first: int, end: int) -> Iterator[SealedCells]:
        """The cells, in their order, in parts that each find room in one record."""
        part: Cells = {}
        used = 0
        for key in sorted(cells):
            taken = len(canonical(_render_cell(*key, cells[key]))) + 1
            if part and used + taken > _PAYLOAD_BYTES_MAX - 1_000:
                yield cls(rollup=definition.name, digest=definition.digest, first=first, end=end, cells=part)
                part, used = {}, 0
            part[key] = cells[key]
            used += taken
        if part:
            yield cls(rollup=definition.name, digest=definition.digest, first=first, end=end, cells=part)


def _render_cell(bucket: int, group: str, totals: Totals) -> list[Any]:
    """Buckets begin at whole seconds; microseconds would not be safe integers for all of time."""
    row: list[Any] = [bucket // timestamp.SECOND, group or None, totals.records]
    if totals.numbers:
        row += [totals.numbers, totals.total_text, totals.least, totals.most]
    return row


def _parse_cell(row: Any) -> tuple[int, str, Totals]:
    if type(row) is not list or len(row) not in (3, 7):
        raise RejectedError("not a cell of a roll-up")
    bucket, group, *totals = row
    if type(bucket) is not int or not (group is None or (type(group) is str and group)):
        raise RejectedError("not a cell of a roll-up")
    return bucket * timestamp.SECOND, group or "", Totals.read(*totals)


def _payload(record: Record, event_type: str) -> dict[str, Any]:
    if (record.event_type, record.entity_id) != (event_type, SYSTEM_ENTITY):
        raise RejectedError(f"not a {event_type} by the ledger itself", place="/event_type")
    return record.payload


def _text(payload: dict[str, Any], name: str) -> str:
    value = payload.get(name)
    if type(value) is not str:
        raise RejectedError("not a string", place=f"/payload/{name}")
    return value


def _texts(payload: dict[str, Any], name: str) -> Iterable[str]:
    values = payload.get(name)
    if type(values) is not list or not all(type(value) is str for value in values):
        raise RejectedError("not an array of strings", place=f"/payload/{name}")
    return values


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
