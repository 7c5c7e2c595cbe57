"""Acceptance: from what a caller sends to a draft that cannot fail to be sealed.

Raw JSON and `Event` values get the same treatment. What is refused is refused here, with the place as a
JSON pointer and with the cure (I8); nothing was changed then. A draft holds the content's canonical bytes,
so nothing the caller does to its objects afterwards can reach the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tallystick.core.canonical import decode_and_encode, to_json
from tallystick.core.content import CONTENT_MEMBERS, Content, check_content
from tallystick.core.event import RESERVED_PREFIX, Event, ExpectedVersion
from tallystick.core.system import SYSTEM_ENTITY, system_members
from tallystick.errors import RejectedError
from tallystick.ids import IdMaker
from tallystick.limits import DRAFT_BYTES_MAX, INPUT_BYTES_MAX, INTEGER_MAX

INPUT_MEMBERS: Final = CONTENT_MEMBERS | {"expected_version"}
BROUGHT: Final = -1
"""The `made` of a draft whose id the caller brought."""

_EXPECTATIONS: Final = ("any", "none", "exists")


class Draft(NamedTuple):
    """An accepted event: valid, inside the limits, its id given; not yet ordered."""

    content: Content
    entity_id: str
    id: str
    made: int
    """The counter of the id if we made it, else `BROUGHT`: only those can be known already."""
    expected_version: ExpectedVersion


class Acceptor:
    """Accepts events for one ledger. Safe for many threads.

    `principal` is who stands behind an event that names no actor; None leaves such an event without.
    """

    def __init__(self, ids: IdMaker, *, principal: str | None = None) -> None:
        self._ids: Final = ids
        self._principal: Final = principal

    def accept(self, event: Event | Mapping[str, Any] | bytes) -> Draft:
        """Accept an `Event`, a mapping of its members, or one JSON document in UTF-8.

        Raises `RejectedError`. Given the same input, all three forms give the same content.
        """
        if isinstance(event, bytes):
            return self._from_json(event)
        members = event.members() if isinstance(event, Event) else dict(event)
        return self._from_json(to_json(members))

    def _from_json(self, data: bytes) -> Draft:
        if len(data) > INPUT_BYTES_MAX:
            raise RejectedError(
                f"the event has {len(data)} bytes; at most {INPUT_BYTES_MAX} are read",
                cure="keep large data elsewhere and record its name and SHA-256",
            )
        members, _ = decode_and_encode(data)
        if type(members) is not dict:
            raise RejectedError("an event is a JSON object", cure='send {"event_type":…,"entity_id":…,"payload":…}')
        if not members.keys() <= INPUT_MEMBERS:
            _refuse_unknown(members)
        return self._draft(members)

    def _draft(self, members: dict[str, Any]) -> Draft:
        expected = members.pop("expected_version", "any")
        if expected != "any":
            _check_expected(expected)
        made = BROUGHT
        if "id" not in members:
            made = self._ids.next_counter()
            members["id"] = self._ids.spell(made)
        self._fill(members)
        check_content(members)
        if members["event_type"].startswith(RESERVED_PREFIX) or members["entity_id"].startswith(RESERVED_PREFIX):
            _refuse_reserved(members)
        content = Content.of(members)
        size = len(content.before) + len(content.middle) + len(content.after)
        if size > DRAFT_BYTES_MAX:
            raise RejectedError(
                f"the event has {size} canonical bytes; at most {DRAFT_BYTES_MAX} fit a record",
                cure="keep large data elsewhere and record its name and SHA-256",
            )
        return Draft(content, members["entity_id"], members["id"], made, expected)

    def _fill(self, members: dict[str, Any]) -> None:
        """Give every content member that was left out its default, and a bare actor its object."""
        for name in ("event_type", "entity_id"):
            if name not in members:
                raise RejectedError(f"the event has no {name}", place=f"/{name}", cure="every event needs one")
        setdefault = members.setdefault
        payload = setdefault("payload", {})
        setdefault("context", {})
        setdefault("labels", [])
        setdefault("event_version", 1)
        setdefault("occurred_at", None)
        actor = members.get("actor")
        if actor is None and type(payload) is dict:
            actor = payload.get("actor")
            if type(actor) is not str and not (type(actor) is dict and "id" in actor):
                actor = self._principal
        members["actor"] = {"id": actor} if type(actor) is str else actor


def system_draft(event_type: str, payload: dict[str, Any], ids: IdMaker) -> Draft:
    """A draft of one of the ledger's own events (`tallystick.core.system`)."""
    made = ids.next_counter()
    members = system_members(event_type, payload, event_id=ids.spell(made))
    return Draft(Content.of(members), SYSTEM_ENTITY, members["id"], made, "any")


def _check_expected(expected: Any) -> None:
    if expected in _EXPECTATIONS and type(expected) is str:
        return
    if type(expected) is not int or not 0 <= expected <= INTEGER_MAX:
        raise RejectedError(
            f"{expected!r} is not an expected version",
            place="/expected_version",
            cure="send the entity's version as an integer (0 for none yet), or any, none or exists",
        )


def _refuse_unknown(members: dict[str, Any]) -> None:
    name = min(members.keys() - INPUT_MEMBERS)
    raise RejectedError(
        "an event has no such member",
        place=f"/{name[:60]}",
        cure=f"members are {', '.join(sorted(INPUT_MEMBERS))}; anything else belongs in payload or context",
    )


def _refuse_reserved(members: dict[str, Any]) -> None:
    name = "event_type" if members["event_type"].startswith(RESERVED_PREFIX) else "entity_id"
    raise RejectedError(
        f"names that begin with {RESERVED_PREFIX} are the ledger's own", place=f"/{name}", cure="choose another"
    )
