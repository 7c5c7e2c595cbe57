"""The caller's part of a record: nine members, their rules, and their canonical bytes (SPEC 3.1).

The same rules judge an event that arrives and a record that is read back. Every member is always there;
`actor` and `occurred_at` may be null.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from tallystick.core import timestamp
from tallystick.core.canonical import encode
from tallystick.errors import RejectedError
from tallystick.limits import (
    ENTITY_ID_CHARACTERS_MAX,
    EVENT_ID_CHARACTERS_MAX,
    EVENT_TYPE_CHARACTERS_MAX,
    INTEGER_MAX,
    LABEL_CHARACTERS_MAX,
    LABELS_MAX,
)

CONTENT_MEMBERS: Final = frozenset(
    ("actor", "context", "entity_id", "event_type", "event_version", "id", "labels", "occurred_at", "payload")
)
ACTOR_MEMBERS: Final = frozenset(("id", "type", "name", "identity_provider"))

_EVENT_TYPE: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Content(NamedTuple):
    """The caller's part of a record: canonical members in the three runs between the sealer's."""

    before: bytes
    """`"actor":…,"context":…,"entity_id":…`"""
    middle: bytes
    """`"event_type":…,"event_version":…,"id":…,"labels":…`"""
    after: bytes
    """`"occurred_at":…,"payload":…`"""

    @classmethod
    def of(cls, members: dict[str, Any]) -> Content:
        """The runs of nine members that are already valid (a record's, or an accepted event's)."""
        return cls(
            encode(
                {
                    "actor": members["actor"],
                    "context": members["context"],
                    "entity_id": members["entity_id"],
                }
            )[1:-1],
            encode(
                {
                    "event_type": members["event_type"],
                    "event_version": members["event_version"],
                    "id": members["id"],
                    "labels": members["labels"],
                }
            )[1:-1],
            encode({"occurred_at": members["occurred_at"], "payload": members["payload"]})[1:-1],
        )


def check_content(members: dict[str, Any]) -> None:
    """Hold the nine members of a decoded object to their rules. Raises `RejectedError` with the place."""
    if _holds_at_a_glance(members):
        return
    event_type = members["event_type"]
    if type(event_type) is not str or not is_event_type(event_type):
        raise RejectedError(
            f"{_shown(event_type)} is not an event type",
            place="/event_type",
            cure=f"send dotted words of letters, digits, _ and -, such as user.created, at most "
            f"{EVENT_TYPE_CHARACTERS_MAX} characters",
        )
    check_key(members["entity_id"], "/entity_id", ENTITY_ID_CHARACTERS_MAX)
    check_key(members["id"], "/id", EVENT_ID_CHARACTERS_MAX)
    version = members["event_version"]
    if type(version) is not int or not 1 <= version <= INTEGER_MAX:
        raise RejectedError(f"{_shown(version)} is not an integer from 1", place="/event_version")
    _check_labels(members["labels"])
    if members["actor"] is not None:
        _check_actor(members["actor"])
    if type(members["context"]) is not dict:
        raise RejectedError("not an object", place="/context", cure='send an object, such as {"ip":"10.0.1.42"}')
    if type(members["payload"]) is not dict:
        raise RejectedError("not an object", place="/payload", cure="wrap the value in an object")
    check_occurred_at(members["occurred_at"])


def _holds_at_a_glance(members: dict[str, Any]) -> bool:
    """Whether the members plainly hold, as nearly all do. False says only that a closer look is needed."""
    event_type, entity_id, event_id = members["event_type"], members["entity_id"], members["id"]
    return (
        type(event_type) is type(entity_id) is type(event_id) is str
        and 0 < len(entity_id) <= ENTITY_ID_CHARACTERS_MAX
        and 0 < len(event_id) <= EVENT_ID_CHARACTERS_MAX
        and entity_id.isprintable()
        and event_id.isprintable()
        and is_event_type(event_type)
        and type(members["event_version"]) is int
        and members["event_version"] == 1
        and members["labels"] == []
        and members["occurred_at"] is None
        and type(members["context"]) is type(members["payload"]) is dict
        and (members["actor"] is None or is_actor(members["actor"]))
    )


def check_occurred_at(text: Any) -> None:
    """The caller's claim of when: null, or RFC 3339 with a zone."""
    if text is not None:
        if type(text) is not str:
            raise RejectedError("not a string", place="/occurred_at", cure="send RFC 3339 with a zone")
        timestamp.parse_rfc3339(text, place="/occurred_at")


def is_plain_key(value: Any, characters_max: int) -> bool:
    """Whether the value is an identifier of printable characters only."""
    return type(value) is str and 0 < len(value) <= characters_max and value.isprintable()


def check_key(value: Any, place: str, characters_max: int) -> None:
    """An identifier: 1 to `characters_max` characters, none of them a control character."""
    if type(value) is not str:
        raise RejectedError(f"{_shown(value)} is not a string", place=place, cure="send the identifier as a string")
    if not 0 < len(value) <= characters_max:
        problem = f"has {len(value)} characters" if value else "is empty"
        raise RejectedError(f"the identifier {problem}", place=place, cure=f"send 1 to {characters_max} characters")
    if not value.isprintable() and _CONTROL.search(value):
        raise RejectedError("the identifier has a control character", place=place, cure="remove it")


def _check_labels(labels: Any) -> None:
    if type(labels) is not list or len(labels) > LABELS_MAX:
        raise RejectedError(f"not an array of at most {LABELS_MAX} strings", place="/labels")
    for index, label in enumerate(labels):
        check_key(label, f"/labels/{index}", LABEL_CHARACTERS_MAX)
    if len(set(labels)) != len(labels):
        raise RejectedError("the same label twice", place="/labels", cure="send each label once")


def _check_actor(actor: Any) -> None:
    if type(actor) is not dict:
        raise RejectedError("not an object", place="/actor", cure='send an id, or an object such as {"id":"jane"}')
    if "id" not in actor:
        raise RejectedError("the actor has no id", place="/actor", cure='send an object such as {"id":"jane"}')
    for name, value in actor.items():
        if name not in ACTOR_MEMBERS:
            raise RejectedError(
                "an actor has no such member",
                place=f"/actor/{name[:60]}",
                cure=f"send {', '.join(sorted(ACTOR_MEMBERS))}; anything else belongs in context",
            )
        check_key(value, f"/actor/{name}", ENTITY_ID_CHARACTERS_MAX)


def is_actor(value: Any) -> bool:
    """Whether the value plainly names an actor."""
    if type(value) is not dict:
        return False
    key = value.get("id")
    if type(key) is not str:
        return False
    if _actors.get(key) == value:  # the same few actors come again and again
        return True
    members = value.values()
    if not (
        ACTOR_MEMBERS.issuperset(value) and all(is_plain_key(member, ENTITY_ID_CHARACTERS_MAX) for member in members)
    ):
        return False
    if len(_actors) >= _ACTORS_MAX:
        _actors.clear()
    _actors[key] = dict(value)
    return True


_ACTORS_MAX: Final = 4_096
_actors: Final[dict[str, dict[str, str]]] = {}
"""The last actor seen with each id that plainly was one: copies, only ever compared with."""


@lru_cache(maxsize=4096)
def is_event_type(text: str) -> bool:
    """Whether the text is dotted words of letters, digits, `_` and `-`, within the limit."""
    return len(text) <= EVENT_TYPE_CHARACTERS_MAX and _EVENT_TYPE.fullmatch(text) is not None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
