"""Records told in few words: who, what it was about, and what its payload says, for cells and timelines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from tallystick.core.member import MemberPath
from tallystick.core.record import Record
from tallystick.core.system import SYSTEM_ENTITY
from tallystick.core.upcast import ABSENT
from tallystick.errors import RejectedError
from tallystick.evidence.controls.period import shown
from tallystick.evidence.report.blocks import Entry, visible
from tallystick.read.bucketed import moment_of
from tallystick.read.fold import Changed

HEADS: Final = {
    "time": "When",
    "actor": "Who",
    "event_type": "What",
    "entity_id": "About",
    "position": "Record",
    "recorded_at": "Recorded",
    "occurred_at": "Occurred",
    "labels": "Labels",
    "id": "Id",
    "details": "Details",
}
_DETAILS: Final = 12
"""Of what is told of a record in a timeline."""

_TEXT_BYTES: Final = 64
_CHARACTER_BYTES: Final = 2

_PLAIN: Final = (*HEADS, "entity_version", "event_version", "hash")


def actor_of(record: Record) -> str:
    if record.actor is None:
        return "the ledger itself" if record.entity_id == SYSTEM_ENTITY else "nobody named"
    name = record.actor.get("name")
    id_ = visible(record.actor["id"], characters_max=200)
    told = name and not record.actor["id"].endswith(name)  # as an ARN does, which is then enough
    return f"{visible(name, characters_max=100)} ({id_})" if told else id_


def column_reader(path: str, time: str) -> Callable[[Record], str]:
    """How to read one column of a record."""
    moment = moment_of(time)
    special: dict[str, Callable[[Record], str]] = {
        "time": lambda record: shown(moment(record.members)),
        "actor": actor_of,
        "labels": lambda record: visible(", ".join(record.labels)),
        "details": lambda record: "; ".join(f"{visible(name, characters_max=60)}: {text}" for name, text in
                                            islice(details_of(record), 6)),
        "hash": lambda record: record.hash.hex(),
    }  # fmt: skip
    if path in special:
        return special[path]
    if path in _PLAIN:
        return lambda record: visible(record.members[path] if record.members[path] is not None else "")
    parsed, end = MemberPath.parse_start(path)
    if parsed is None or end != len(path) or parsed.parts[0] not in ("payload", "context", "actor"):
        cure = f"use {', '.join(_PLAIN)}, or a member such as payload.reason"
        raise RejectedError(f"there is no column {path[:60]!r}", place="columns", cure=cure)
    return lambda record: ", ".join(visible(value) for value in parsed.values(record.members))


def details_of(record: Record) -> Iterator[tuple[str, str]]:
    """What a payload says, member by member: a change as its old and new value, a call of AWS as what it asked for."""
    payload = record.payload
    rest: dict[str, Any] = {**payload}
    if {"field", "new_value"} <= payload.keys():
        yield str(payload["field"]), change_of(payload.get("old_value", ABSENT), payload["new_value"])
        rest = {name: value for name, value in payload.items() if name not in ("field", "old_value", "new_value")}
    elif {"eventSource", "eventName", "eventID"} <= payload.keys():
        asked = payload.get("requestParameters")
        rest = {"errorCode": payload.get("errorCode"), **(asked if isinstance(asked, dict) else {})}
        rest["from"] = payload.get("sourceIPAddress")
    for name, value in rest.items():
        if value not in (None, ""):
            yield name, visible(value, characters_max=160)


def changed_of(changes: Iterable[Changed]) -> Iterator[tuple[str, str]]:
    """What a record changed of a state, member by member."""
    for change in sorted(changes, key=lambda change: change.member):
        yield change.member, change_of(change.old, change.new)


def entry_of(record: Record, told: Iterable[tuple[str, str]], moment: Callable[[dict[str, Any]], int]) -> Entry:
    """A record as a moment of a timeline, with the first of what is told of it."""
    return Entry(
        when=shown(moment(record.members)),
        what=f"{record.event_type} · {visible(record.entity_id, characters_max=200)}",
        who=actor_of(record),
        details=tuple((visible(name, characters_max=60), text) for name, text in islice(told, _DETAILS)),
        position=record.position,
    )


def texts_of(entry: Entry) -> Iterator[str]:
    """All texts of an entry."""
    yield from (entry.when, entry.what, entry.who)
    for pair in entry.details:
        yield from pair


def weight_of_entry(entry: Entry) -> int:
    """About how many bytes it takes."""
    return sum(_TEXT_BYTES + _CHARACTER_BYTES * len(text) for text in texts_of(entry))


def change_of(old: object, new: object) -> str:
    """A value before and after."""
    before = "(none)" if old is ABSENT or old is None else visible(old, characters_max=120)
    after = "(none)" if new is ABSENT or new is None else visible(new, characters_max=120)
    return f"{before} → {after}"
