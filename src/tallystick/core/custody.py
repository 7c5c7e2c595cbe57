"""Custody: for how long records are kept, and who holds them (SPEC 9).

The policy and legal holds are events of the ledger's own; their payloads are written and read here, as strictly
as in `tallystick.core.system`. `InForce` folds them, in order, to what counts at a position. What was removed
under them says `tallystick.core.pruned`; nothing here decides, or removes anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

from tallystick.core.content import check_content, check_key
from tallystick.core.moment import DAY
from tallystick.core.record import Record
from tallystick.core.system import SYSTEM_ENTITY, system_members
from tallystick.errors import RejectedError
from tallystick.limits import (
    ENTITY_ID_CHARACTERS_MAX,
    HOLD_NAME_CHARACTERS_MAX,
    HOLDS_MAX,
    INTEGER_MAX,
    LABEL_CHARACTERS_MAX,
    PERIOD_DAYS_MAX,
    POLICY_LABELS_MAX,
    REASON_CHARACTERS_MAX,
)

RETENTION_SET: Final = "tallystick.retention.set"
HOLD_PLACED: Final = "tallystick.hold.placed"
HOLD_RELEASED: Final = "tallystick.hold.released"
RECORDS_PRUNED: Final = "tallystick.records.pruned"
CUSTODY_TYPES: Final = (RETENTION_SET, HOLD_PLACED, HOLD_RELEASED, RECORDS_PRUNED)
"""The events by which what may be removed changes."""

_PERIOD: Final = re.compile(r"([1-9][0-9]{0,5})([dwy])", re.ASCII)
_UNIT_DAYS: Final = {"d": 1, "w": 7, "y": 366}  # a year is never shorter than a calendar year
_FOREVER: Final = "forever"


@dataclass(frozen=True, slots=True)
class OwnEvent:
    """An event that the ledger itself writes. Without an `actor` it acts on its own account."""

    event_type: str
    payload: dict[str, Any]
    actor: Mapping[str, str] | None = None
    occurred_at: str | None = None

    def members(self, event_id: str) -> dict[str, Any]:
        """The nine content members. Raises `RejectedError` for an actor who is none."""
        members = system_members(self.event_type, self.payload, event_id=event_id)
        if self.actor is not None:
            members["actor"] = dict(self.actor)
        members["occurred_at"] = self.occurred_at
        check_content(members)
        return members


def parse_period(text: str, *, place: str = "") -> int | None:
    """Days from `90d`, `26w` or `6y`, where a year counts 366 days; None from `forever`."""
    if text == _FOREVER:
        return None
    match = _PERIOD.fullmatch(text)
    days = int(match[1]) * _UNIT_DAYS[match[2]] if match else 0
    if not 1 <= days <= PERIOD_DAYS_MAX:
        cure = f"send days, weeks or years, such as 90d, 26w or 6y (at most {PERIOD_DAYS_MAX} days), or forever"
        raise RejectedError(f"{text[:40]!r} is not a period", place=place, cure=cure)
    return days


def render_period(days: int | None) -> str:
    """Write a period as `parse_period` reads it."""
    if days is None:
        return _FOREVER
    years, rest = divmod(days, _UNIT_DAYS["y"])
    return f"{days}d" if rest else f"{years}y"


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """For how many days records are kept, and those with certain labels; None is for ever. The longest wins."""

    period_days: int | None
    labels: Mapping[str, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.labels) > POLICY_LABELS_MAX:
            cure = "give records that are kept equally long one label"
            raise RejectedError(f"more than {POLICY_LABELS_MAX} labels", place="labels", cure=cure)
        for name in self.labels:
            check_key(name, "labels", LABEL_CHARACTERS_MAX)
        for days in (self.period_days, *self.labels.values()):
            if days is not None and (type(days) is not int or not 1 <= days <= PERIOD_DAYS_MAX):
                cure = f"send a whole number of days from 1 to {PERIOD_DAYS_MAX}, or null for ever"
                raise RejectedError(f"{days!r} is not a period in days", place="period", cure=cure)
        object.__setattr__(self, "labels", MappingProxyType(dict(sorted(self.labels.items()))))

    @classmethod
    def of(cls, period: str, labels: Mapping[str, str] | None = None) -> RetentionPolicy:
        """A policy from periods as people write them. Raises `RejectedError` with the label as its place."""
        read = {name: parse_period(text, place=f"label {name[:60]!r}") for name, text in (labels or {}).items()}
        return cls(parse_period(period, place="period"), read)

    def days_for(self, labels: Iterable[str]) -> int | None:
        """How long a record with these labels is kept; None for ever."""
        longest = self.period_days
        for label in labels:
            days = self.labels.get(label, longest)
            longest = None if days is None or longest is None else max(longest, days)
        return longest

    def to_json(self) -> dict[str, Any]:
        """As it is told of: in days, None for ever."""
        return {"period_days": self.period_days, "labels": dict(self.labels)}

    @property
    def text(self) -> str:
        """The policy for people: `90d, phi 6y`."""
        labels = (f"{name} {render_period(days)}" for name, days in self.labels.items())
        return ", ".join((render_period(self.period_days), *labels))


def expired_until(days: int, moment: int) -> int:
    """The last recorded time, in microseconds, that has expired at a moment when records are kept for so many days."""
    return moment - days * DAY


@dataclass(frozen=True, slots=True)
class RetentionSet:
    """From here on this policy is in force."""

    policy: RetentionPolicy
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.reason is not None:
            check_reason(self.reason)

    def payload(self) -> dict[str, Any]:
        payload = {"labels": dict(self.policy.labels), "period_days": self.policy.period_days}
        return payload if self.reason is None else {**payload, "reason": self.reason}

    @classmethod
    def of(cls, record: Record) -> RetentionSet:
        payload = own_payload(record, RETENTION_SET)
        labels = payload.get("labels")
        if type(labels) is not dict:
            raise RejectedError("not an object", place="/payload/labels")
        policy = RetentionPolicy(payload.get("period_days"), labels)
        return exactly(cls(policy, payload.get("reason")), payload, RETENTION_SET)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPlaced:
    """Until it is released, no record of one entity, with one label, or in one range of positions is pruned."""

    name: str
    reason: str
    entity: str | None = None
    label: str | None = None
    first: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        check_key(self.name, "name", HOLD_NAME_CHARACTERS_MAX)
        check_reason(self.reason)
        ranged = self.first is not None or self.end is not None
        if [self.entity is not None, self.label is not None, ranged].count(True) != 1:
            cure = "name an entity, or a label, or the first and the end of a range of positions"
            raise RejectedError("a hold has exactly one scope", place="hold", cure=cure)
        if self.entity is not None:
            check_key(self.entity, "entity", ENTITY_ID_CHARACTERS_MAX)
        if self.label is not None:
            check_key(self.label, "label", LABEL_CHARACTERS_MAX)
        if ranged and not (type(self.first) is type(self.end) is int and 0 <= self.first < self.end <= INTEGER_MAX):
            cure = "send the first position, and the position after the last"
            raise RejectedError(f"{self.first!r} to {self.end!r} is no range of positions", place="range", cure=cure)

    @property
    def scope(self) -> str:
        """What is held, for people."""
        if self.entity is not None:
            return f"entity {self.entity}"
        return f"label {self.label}" if self.label is not None else f"positions [{self.first}, {self.end})"

    def covers(self, members: Mapping[str, Any]) -> bool:
        """Whether the record with these members is held."""
        if self.entity is not None:
            return bool(members["entity_id"] == self.entity)
        if self.first is not None and self.end is not None:
            return self.first <= int(members["position"]) < self.end
        return self.label in members["labels"]

    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = {"name": self.name, "reason": self.reason}
        if self.entity is not None:
            return {**payload, "entity": self.entity}
        return {**payload, "range": [self.first, self.end]} if self.label is None else {**payload, "label": self.label}

    @classmethod
    def of(cls, record: Record) -> HoldPlaced:
        payload = own_payload(record, HOLD_PLACED)
        given = payload.get("range", [None, None])
        if type(given) is not list or len(given) != 2:
            raise RejectedError("not a first and an end", place="/payload/range")
        hold = cls(
            name=text_member(payload, "name"),
            reason=text_member(payload, "reason"),
            entity=payload.get("entity"),
            label=payload.get("label"),
            first=given[0],
            end=given[1],
        )
        return exactly(hold, payload, HOLD_PLACED)


@dataclass(frozen=True, slots=True)
class HoldReleased:
    """From here on the hold of this name is no longer in force."""

    name: str
    reason: str

    def __post_init__(self) -> None:
        check_key(self.name, "name", HOLD_NAME_CHARACTERS_MAX)
        check_reason(self.reason)

    def payload(self) -> dict[str, Any]:
        return {"name": self.name, "reason": self.reason}

    @classmethod
    def of(cls, record: Record) -> HoldReleased:
        payload = own_payload(record, HOLD_RELEASED)
        return exactly(cls(text_member(payload, "name"), text_member(payload, "reason")), payload, HOLD_RELEASED)


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold in force, and the record that placed it."""

    placed: HoldPlaced
    position: int
    since: str
    """The recorded time of its placing."""
    actor: dict[str, str] | None

    @property
    def name(self) -> str:
        return self.placed.name

    def to_json(self) -> dict[str, Any]:
        """As it is told of."""
        placed = self.placed
        return {
            "name": placed.name,
            "reason": placed.reason,
            "entity": placed.entity,
            "label": placed.label,
            "first": placed.first,
            "end": placed.end,
            "position": self.position,
            "since": self.since,
            "actor": self.actor,
        }


class InForce:
    """The policy and the holds in force after the records that it took, in order."""

    def __init__(self) -> None:
        self.policy: RetentionPolicy | None = None
        self.policy_position: int | None = None
        self.holds: dict[str, Hold] = {}

    def check_room(self) -> None:
        """Raises `RejectedError` when no more holds can be in force."""
        if len(self.holds) >= HOLDS_MAX:
            raise RejectedError(f"{HOLDS_MAX} holds are in force", cure="release one, or hold more at once by a label")

    def take(self, record: Record) -> None:
        """The next of the ledger's own records. Raises `RejectedError` for one that says what cannot be."""
        if record.event_type == RETENTION_SET:
            self.policy, self.policy_position = RetentionSet.of(record).policy, record.position
        elif record.event_type == HOLD_PLACED:
            placed = HoldPlaced.of(record)
            if placed.name in self.holds:
                raise RejectedError(f"the hold {placed.name!r} is in force already")
            self.check_room()
            self.holds[placed.name] = Hold(placed, record.position, record.recorded_at, record.actor)
        elif record.event_type == HOLD_RELEASED:
            released = HoldReleased.of(record)
            if self.holds.pop(released.name, None) is None:
                raise RejectedError(f"no hold {released.name!r} is in force")


class _Writable(Protocol):
    def payload(self) -> dict[str, Any]: ...


_W = TypeVar("_W", bound=_Writable)


def exactly(value: _W, payload: dict[str, Any], event_type: str) -> _W:
    """The value that was read, if it would be written as the very same payload. Raises `RejectedError`."""
    if value.payload() != payload:
        raise RejectedError(f"the {event_type} is not what SPEC prints", place="/payload")
    return value


def own_payload(record: Record, event_type: str) -> dict[str, Any]:
    """The payload of one of the ledger's own records, of that type. Raises `RejectedError`."""
    if record.event_type != event_type:
        raise RejectedError(f"the record is a {record.event_type}, not a {event_type}", place="/event_type")
    if record.entity_id != SYSTEM_ENTITY:
        raise RejectedError(f"a {event_type} is not one of the ledger's own events (SPEC 5.5)", place="/entity_id")
    return record.payload


def check_reason(reason: Any) -> None:
    """Raises `RejectedError` unless it says why something was ordered."""
    if type(reason) is not str or not 1 <= len(reason) <= REASON_CHARACTERS_MAX:
        cure = f"say why in 1 to {REASON_CHARACTERS_MAX} characters"
        raise RejectedError("the reason is missing, or too long", place="reason", cure=cure)


def text_member(payload: dict[str, Any], name: str) -> str:
    """A string of a payload. Raises `RejectedError` with its place."""
    value = payload.get(name)
    if type(value) is not str:
        raise RejectedError("not a string", place=f"/payload/{name}")
    return value
