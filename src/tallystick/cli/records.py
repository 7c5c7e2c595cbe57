"""Records for people: which ones are wanted, in which order, and what they say in few words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tallystick.errors import NotFoundError, RejectedError, TamperError
from tallystick.limits import READ_RECORDS_MAX

if TYPE_CHECKING:
    from tallystick.core.record import Record
    from tallystick.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter over records. `since` and `until` are recorded times in their one form, half-open."""

    entity: str | None = None
    event_type: str | None = None
    actor: str | None = None
    since: str | None = None
    until: str | None = None
    system: bool = True

    @classmethod
    def of(cls, *, since: str | None, until: str | None, **members: Any) -> Wanted:
        """As given on the command line: times in any RFC 3339 form. Raises `RejectedError`."""
        return cls(since=_moment(since, "--since"), until=_moment(until, "--until"), **members)

    def takes(self, record: Record, time: str | None = None) -> bool:
        """Whether the record is wanted. `time` is the one by which it counts, where it is not the recorded one."""
        actor, time = record.actor, record.recorded_at if time is None else time
        return (
            (self.entity is None or record.entity_id == self.entity)
            and (self.event_type is None or _fits(record.event_type, self.event_type))
            and (self.actor is None or (actor is not None and actor["id"] == self.actor))
            and (self.since is None or time >= self.since)
            and (self.until is None or time < self.until)
            and (self.system or not is_system(record))
        )


def is_system(record: Record) -> bool:
    """Whether the ledger itself wrote the record."""
    return record.event_type.startswith("tallystick.")


def newest_first(ledger: Ledger, end: int) -> Iterator[Record]:
    """The records below `end`, last first. `TamperError` at the first that is damaged."""
    while end > 0:
        first = max(0, end - READ_RECORDS_MAX)
        block: list[Record] = []
        try:
            for record in ledger.read(first, end):
                block.append(record)
        except TamperError:
            # Those behind the damaged one are good, or tell of their own damage.
            damaged = first + len(block)
            if damaged + 1 < end:
                yield from _block_backwards(ledger, damaged + 1, end)
            raise
        yield from reversed(block)
        end = first


def _block_backwards(ledger: Ledger, first: int, end: int) -> Iterator[Record]:
    for position in range(end - 1, first - 1, -1):
        yield ledger.get(position)


def find_position(ledger: Ledger, key: str, *, is_id: bool = False) -> int:
    """A position as it was given or, for what is no number, of an event id. Needs no keys and no index."""
    if key.isascii() and key.isdecimal() and not is_id:
        if len(key) > 19:
            raise NotFoundError(f"there is no position {key[:40]} in {ledger.name}")
        return int(key)
    for record in newest_first(ledger, ledger.size):
        if record.id == key:
            return record.position
    raise NotFoundError(f"there is no event with the id {key!r} in {ledger.name}")


def json_line(record: Record) -> str:
    """The record's members as they were sealed, and its hash, as one JSON object."""
    return f'{record.line[:-1].decode()},"hash":"{record.hash.hex()}"}}'


def time_text(recorded_at: str) -> str:
    """A recorded time, in UTC, to the second."""
    return recorded_at[:19].replace("T", " ")


def actor_text(record: Record) -> str:
    """Who did it, or a dash."""
    return record.actor["id"] if record.actor else "-"


def what_text(record: Record) -> str:
    """When it is said to have happened, and the payload, on one line.

    `role: viewer → editor` for a change, `name=value` for everything else.
    """
    if is_system(record):  # without the keys and hashes; `show` has them
        return "  ".join(
            f"{name}={value}"
            for name, value in record.payload.items()
            if type(value) in (int, str) and len(str(value)) < 32
        )
    rest = dict(record.payload)
    parts = [f"occurred {record.occurred_at}"] if record.occurred_at else []
    if isinstance(rest.get("field"), str) and "new_value" in rest:
        field, new = rest.pop("field"), rest.pop("new_value")
        old = f"{value_text(rest.pop('old_value'))} → " if "old_value" in rest else ""
        parts.append(f"{field}: {old}{value_text(new)}")
    parts += (f"{name}={value_text(value)}" for name, value in rest.items())
    return "  ".join(parts)


def value_text(value: Any) -> str:
    """A value on one line: plain words as they are, everything else as JSON."""
    if isinstance(value, str) and value and not any(character in value for character in ' "=\\'):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _fits(event_type: str, pattern: str) -> bool:
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else event_type == pattern


def _moment(text: str | None, option: str) -> str | None:
    if text is None:
        return None
    from tallystick.core import timestamp

    try:
        return timestamp.render(timestamp.parse_rfc3339(text))
    except RejectedError as error:
        raise RejectedError(error.problem, place=option, cure=error.cure) from error
