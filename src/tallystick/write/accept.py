"""Acceptance: from what a caller sends to a draft that cannot fail to be sealed.

Raw JSON and `Event` values get the same treatment. What is refused is refused here, with the place as a
JSON pointer and with the cure (I8); nothing was changed then. A draft holds the content's canonical bytes,
so nothing the caller does to its objects afterwards can reach the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec

from tallystick.core.canonical import decode_and_encode, decode_number, encode, encode_plain, to_json
from tallystick.core.content import (
    CONTENT_MEMBERS,
    Content,
    check_content,
    is_actor,
    is_event_type,
    is_plain_key,
)
from tallystick.core.event import RESERVED_PREFIX, Event
from tallystick.core.timestamp import is_rfc3339
from tallystick.errors import RejectedError
from tallystick.ids import IdMaker, spell
from tallystick.limits import (
    BATCH_BYTES_MAX,
    BATCH_EVENTS_MAX,
    DEPTH_MAX,
    DRAFT_BYTES_MAX,
    ENTITY_ID_CHARACTERS_MAX,
    EVENT_ID_CHARACTERS_MAX,
    INPUT_BYTES_MAX,
    INTEGER_MAX,
    LABEL_CHARACTERS_MAX,
    LABELS_MAX,
)
from tallystick.write.draft import BROUGHT, Draft
from tallystick.write.rules import Rules

INPUT_MEMBERS: Final = CONTENT_MEMBERS | {"expected_version"}
_EXPECTATIONS: Final = ("any", "none", "exists")


class Acceptor:
    """Accepts events for one ledger. Safe for many threads.

    `principal` is who stands behind an event that names no actor; None leaves such an event without. `rules` are
    what events are held to beside their form.
    """

    def __init__(
        self, ids: IdMaker, *, principal: str | Mapping[str, str] | None = None, rules: Rules | None = None
    ) -> None:
        self._ids: Final = ids
        self._next_counter: Final = ids.next_counter
        self._prefix: Final = ids.prefix.encode()
        self._principal: Final = dict(principal) if isinstance(principal, Mapping) else principal
        self._plain_principal: Final = _Actor(**principal) if isinstance(principal, Mapping) else principal
        self._rules: Final = rules

    def acting_for(self, principal: str | Mapping[str, str]) -> Acceptor:
        """The same, with someone else behind the events that name no actor."""
        return Acceptor(self._ids, principal=principal, rules=self._rules)

    def accept(self, event: Event | Mapping[str, Any] | bytes) -> Draft:
        """Accept an `Event`, a mapping of its members, or one JSON document in UTF-8.

        Raises `RejectedError`. Given the same input, all three forms give the same content.
        """
        if isinstance(event, bytes):
            return self._quickly(event) or self._carefully(event)
        if isinstance(event, Event):
            data = to_json(event.members())
        elif isinstance(event, Mapping):
            data = to_json(dict(event))
        else:
            raise RejectedError(
                f"a Python {type(event).__name__} is not an event",
                cure="give an Event, a mapping, or JSON as bytes",
            )
        return self._quickly(data) or self._carefully(data)

    def accept_all(self, events: Iterable[Event | Mapping[str, Any] | bytes]) -> list[Draft]:
        """Accept up to 10,000 events and 64 MiB, in their order. A `RejectedError` names the event by its index."""
        drafts: list[Draft] = []
        accept, room = self.accept, BATCH_BYTES_MAX
        for event in events:
            try:
                draft = accept(event)
            except RejectedError as error:
                raise _numbered(error, len(drafts)) from error
            drafts.append(draft)
            room -= draft.size
            if len(drafts) > BATCH_EVENTS_MAX or room < 0:
                most = f"{BATCH_EVENTS_MAX:,} events, or {BATCH_BYTES_MAX >> 20} MiB,"
                raise RejectedError(f"more than {most} at once", cure="give them in parts")
        return drafts

    def judge_again(self, drafts: Sequence[Draft], *, numbered: bool) -> list[Draft]:
        """Judge drafts by the rules that are in force now. A `RejectedError` names the event by its index among them
        if they are `numbered`."""
        judged = []
        for index, draft in enumerate(drafts):
            try:
                judged.append(self._judged(msgspec.structs.replace(draft, breach="")))
            except RejectedError as error:
                raise (_numbered(error, index) if numbered else error) from error
        return judged

    def _judged(self, draft: Draft) -> Draft:
        """The draft, if it keeps the rules."""
        judge = None if self._rules is None else self._rules.judge
        if judge is None:
            return draft
        members = draft.plain()
        kind = members["event_type"], members["event_version"]
        return _with_breach(draft, judge(*kind, members["payload"], lambda: members))

    def _quickly(self, data: bytes) -> Draft | None:
        """The draft of an event that is plainly good, as nearly all are; None when it needs a closer look."""
        event = _understood(data)
        if event is None:
            return None
        payload = encode_plain(event.payload)
        context = encode_plain(event.context) if event.context else b"{}"
        actor, head, entity_id = self._actor(event), _type_member(event.event_type), event.entity_id
        labels = _labels_array(tuple(event.labels)) if event.labels else b"[]"
        if payload is None or context is None or actor is None or head is None or labels is None:
            return None
        before = b'"actor":%b,"context":%b,"entity_id":%b' % (actor, context, _encode(entity_id))
        if event.id is None:
            made, brought = self._next_counter(), ""
            form = b'%b,"event_version":%d,"id":"%b%012x","labels":%b'
            middle = form % (head, event.event_version, self._prefix, made, labels)
        else:
            made, brought = BROUGHT, event.id
            middle = b'%b,"event_version":%d,"id":%b,"labels":%b' % (
                head,
                event.event_version,
                _encode(brought),
                labels,
            )
        if event.occurred_at is None:
            after = b'"occurred_at":null,"payload":' + payload
        else:
            after = b'"occurred_at":"%b","payload":%b' % (event.occurred_at.encode(), payload)
        draft = Draft(before, middle, after, entity_id, made, brought, self._ids.prefix, event.expected_version)
        if self._rules is None or (judge := self._rules.judge) is None:
            return draft
        return _with_breach(draft, judge(event.event_type, event.event_version, event.payload, draft.plain))

    def _actor(self, event: _Incoming) -> bytes | None:
        """The canonical actor of an event that names one plainly, or none at all."""
        actor = event.actor
        if actor is None and "actor" in event.payload:
            return None  # whether that names one takes a closer look
        if actor is None:
            actor = self._plain_principal
        if actor is None:
            return b"null"
        if type(actor) is str:
            return _actor_object(actor)
        if type(actor) is _Actor:
            return _actor_object(actor.id, actor.identity_provider, actor.name, actor.type)
        return None

    def _carefully(self, data: bytes) -> Draft:
        """Accept the event, or say what is wrong with it and where."""
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
        expected = members.pop("expected_version", "any")
        _check_expected(expected)
        made, brought = BROUGHT, members.get("id")
        if "id" not in members:
            made, brought = self._next_counter(), ""
            members["id"] = spell(self._ids.prefix, made)
        self._fill(members)
        check_content(members)
        if members["event_type"].startswith(RESERVED_PREFIX) or members["entity_id"].startswith(RESERVED_PREFIX):
            _refuse_reserved(members)
        before, middle, after = Content.of(members)
        size = len(before) + len(middle) + len(after)
        if size > DRAFT_BYTES_MAX:
            raise RejectedError(
                f"the event has {size} canonical bytes; at most {DRAFT_BYTES_MAX} fit a record",
                cure="keep large data elsewhere and record its name and SHA-256",
            )
        draft = Draft(before, middle, after, members["entity_id"], made, str(brought), self._ids.prefix, expected)
        return self._judged(draft)

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
            if not is_actor({"id": actor} if type(actor) is str else actor):
                actor = self._principal  # a payload's member may be anything; it is no actor, and no mistake
        members["actor"] = {"id": actor} if type(actor) is str else actor


class _Actor(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    id: str
    identity_provider: str | None = None
    name: str | None = None
    type: str | None = None


class _Incoming(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """An event as it arrives. A member that is sent with its default's value costs the closer look."""

    event_type: str
    entity_id: str
    payload: dict[str, Any] = {}
    actor: str | _Actor | None = None
    context: dict[str, Any] = {}
    labels: list[str] = []
    occurred_at: str | None = None
    id: str | None = None
    event_version: Annotated[int, msgspec.Meta(ge=1, le=INTEGER_MAX)] = 1
    expected_version: Literal["any", "none", "exists"] = "any"


_decode: Final = msgspec.json.Decoder(_Incoming, float_hook=decode_number).decode
_encode: Final = msgspec.json.Encoder().encode
_QUICK_BYTES_MAX: Final = DRAFT_BYTES_MAX // 8
"""Input this short cannot outgrow a draft: no byte of it becomes more than the six of an escape."""


@lru_cache(maxsize=4096)
def _actor_object(*values: str | None) -> bytes | None:
    """The canonical actor of its members in name order; None when one of them needs a closer look."""
    names = ("id", "identity_provider", "name", "type")
    members = {name: value for name, value in zip(names, values, strict=False) if value is not None}
    if not all(is_plain_key(value, ENTITY_ID_CHARACTERS_MAX) for value in members.values()):
        return None
    return encode(members)


@lru_cache(maxsize=4096)
def _type_member(event_type: str) -> bytes | None:
    if event_type.startswith(RESERVED_PREFIX) or not is_event_type(event_type):
        return None
    return b'"event_type":%b' % encode(event_type)


@lru_cache(maxsize=4096)
def _labels_array(labels: tuple[str, ...]) -> bytes | None:
    """The canonical labels; None when one of them needs a closer look."""
    if len(labels) > LABELS_MAX or len(set(labels)) < len(labels):
        return None
    return encode([*labels]) if all(is_plain_key(label, LABEL_CHARACTERS_MAX) for label in labels) else None


def _understood(data: bytes) -> _Incoming | None:
    """The event in the bytes, if it plainly keeps every rule but those of its type, actor, labels and payload.

    msgspec checks names and types as it decodes, but keeps the last of two equal names silently. What it
    understood, written again, is never longer than what came, numbers with exponents aside, which the
    encoder refuses. So when it is as long, nothing was dropped, and nothing was written in another way.
    """
    braces, brackets = data.count(b"{"), data.count(b"[")
    if len(data) > _QUICK_BYTES_MAX or braces + brackets > DEPTH_MAX:
        return None
    try:
        event = _decode(data)
        if len(_encode(event)) != len(data) and not _has_every_colon(event, data):
            return None
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError, TypeError):
        return None
    entity_id, event_id, occurred_at = event.entity_id, event.id, event.occurred_at
    holds = (
        0 < len(entity_id) <= ENTITY_ID_CHARACTERS_MAX
        and entity_id.isprintable()
        and not entity_id.startswith(RESERVED_PREFIX)
        and (event_id is None or is_plain_key(event_id, EVENT_ID_CHARACTERS_MAX))
        and (occurred_at is None or is_rfc3339(occurred_at))
    )
    return event if holds else None


def _has_every_colon(event: _Incoming, data: bytes) -> bool:
    """The guard for input with white space: each name has a colon, unless an escape hides one, so when there
    are as many colons in what was understood as came, no name was dropped."""
    return b"\\u" not in data and _encode(event).count(b":") == data.count(b":")


def _with_breach(draft: Draft, breach: str) -> Draft:
    return msgspec.structs.replace(draft, breach=breach) if breach else draft


def _numbered(error: RejectedError, index: int) -> RejectedError:
    place = f"event {index}{' ' if error.place else ''}{error.place}"
    return RejectedError(error.problem, place=place, cure=error.cure)


def _check_expected(expected: Any) -> None:
    if type(expected) is str and expected in _EXPECTATIONS:
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
        f"names that begin with {RESERVED_PREFIX} are the ledger's own",
        place=f"/{name}",
        cure="choose another",
    )
