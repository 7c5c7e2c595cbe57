"""Drafts: events that were accepted, and cannot fail to be sealed for what they say."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from tallystick.core.content import Content
from tallystick.core.custody import OwnEvent
from tallystick.core.event import ExpectedVersion
from tallystick.core.system import SYSTEM_ENTITY, system_members
from tallystick.errors import RejectedError
from tallystick.ids import IdMaker, spell
from tallystick.limits import DRAFT_BYTES_MAX

BROUGHT: Final = -1
"""The `made` of a draft whose id the caller brought."""


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An accepted event: valid, inside the limits, its id given; not yet ordered.

    The canonical content lies in the three runs of `tallystick.core.content.Content`.
    """

    before: bytes
    middle: bytes
    after: bytes
    entity_id: str
    made: int
    """The counter of the id if we made it, else `BROUGHT`: only those can be known already."""
    brought_id: str
    """The id that the caller brought; empty for one that we made."""
    prefix: str
    """What stands before the counter in a made id."""
    expected_version: ExpectedVersion = "any"
    breach: str = ""
    """What is wrong with an event that was taken all the same."""

    @property
    def size(self) -> int:
        """Bytes of the canonical content."""
        return len(self.before) + len(self.middle) + len(self.after)

    @property
    def content(self) -> Content:
        """What the caller decided, for comparison with a record."""
        return Content(self.before, self.middle, self.after)

    @property
    def id(self) -> str:
        """The event id. Spelled out only when somebody asks."""
        return self.brought_id if self.made == BROUGHT else spell(self.prefix, self.made)

    @property
    def kind(self) -> tuple[str, int]:
        """The event's type and version."""
        members = orjson.loads(b"{%b}" % self.middle)
        return members["event_type"], members["event_version"]

    def plain(self) -> dict[str, Any]:
        """The event as plain JSON values, with what the caller said and what stands for what it left out; without
        an actor or a time where there is none, and without an id that we made."""
        members: dict[str, Any] = orjson.loads(b"{%b,%b,%b}" % (self.before, self.middle, self.after))
        absent = [name for name in ("actor", "occurred_at") if members[name] is None]
        for name in absent if self.made == BROUGHT else (*absent, "id"):
            del members[name]
        return members


def own_draft(event: OwnEvent, ids: IdMaker) -> Draft:
    """A draft of an event that the ledger writes for somebody. Raises `RejectedError` for one that fits no record."""
    made = ids.next_counter()
    content = Content.of(event.members(spell(ids.prefix, made)))
    size = sum(map(len, content))
    if size > DRAFT_BYTES_MAX:
        raise RejectedError(f"a {event.event_type} of {size} bytes; at most {DRAFT_BYTES_MAX} fit a record")
    return Draft(*content, SYSTEM_ENTITY, made, "", ids.prefix)


def system_draft(event_type: str, payload: dict[str, Any], ids: IdMaker) -> Draft:
    """A draft of one of the ledger's own events (`tallystick.core.system`)."""
    made = ids.next_counter()
    members = system_members(event_type, payload, event_id=spell(ids.prefix, made))
    return Draft(*Content.of(members), SYSTEM_ENTITY, made, "", ids.prefix)
