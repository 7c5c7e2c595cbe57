"""Routes that read one ledger: its events, its entities, its queue, and who was denied what."""

from __future__ import annotations

from hmac import compare_digest
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request, Response

from tallystick.errors import NotFoundError, RejectedError
from tallystick.limits import HISTORY_TURNS_MAX
from tallystick.read.as_of import AsOf
from tallystick.read.query import Query as Records
from tallystick.read.shapes import (
    difference_json,
    difference_whole,
    json_of,
    record_json,
    state_json,
    state_whole,
    turn_json,
)
from tallystick.serve.calls import Call, Exporting, MeasuringAll, Reading, ReadingAll, Writing
from tallystick.serve.routes.answers import (
    AS_ASKED,
    FOR_EVER,
    JSON,
    NOT_KEPT,
    OCTETS,
    PAGING,
    WITH_TERMS,
    Room,
    page_answer,
    query_of,
)
from tallystick.serve.routes.rendered import Rendered

router: Final = APIRouter(prefix="/api/v1", route_class=Rendered)

Limit = Annotated[int, Query(ge=1, le=1_000, description="Records of a page.")]
Cursor = Annotated[str | None, Query(max_length=64, description="That of the page before.")]
Order = Annotated[Literal["newest", "oldest"], Query(description="Which come first.")]
At = Annotated[str | None, Query(max_length=64, description="A time, a date (UTC), v3, or @120; now without it.")]
Clock = Annotated[Literal["recorded", "occurred"], Query(description="By which of an event's two times.")]
Name = Annotated[str | None, Query(max_length=512)]
Whole = Annotated[bool, Query(description="With the records, as they were sealed, in `whole`.")]


@router.get("/events/query", openapi_extra=WITH_TERMS, responses=AS_ASKED)
def query_events(
    call: Reading,
    request: Request,
    *,
    limit: Limit = 100,
    cursor: Cursor = None,
    order: Order = "newest",
) -> Response:
    """The records that fit all terms, such as `entity_id=user-456&before=2026-03-16T00:00:00Z&payload.rows>=100`.

    Newest first, page by page: `cursor` and the `Link` header lead on, and all pages speak for the same `size`.
    """
    room = _room_of_page(call)
    with call.ledger() as ledger:
        query = call.within_scope(query_of(request, PAGING))
        page = ledger.query(query, newest_first=order == "newest", limit=limit, cursor=cursor, held=room.hold)
    return page_answer(page, request, room)


@router.get("/events/count", openapi_extra=WITH_TERMS)
def count_events(call: ReadingAll, request: Request) -> dict[str, int]:
    """How many records fit all terms."""
    with call.ledger() as ledger:
        return {"count": ledger.count(query_of(request))}


@router.get("/events/{key:path}", responses={200: {"content": {OCTETS: {}}}})
def get_event(
    call: Reading,
    request: Request,
    key: str,
    by: Annotated[Literal["id", "position"] | None, Query(description="How to take a number; as a position.")] = None,
    if_none_match: Annotated[str | None, Header(max_length=512)] = None,
) -> Response:
    """One record, by its event's id or by its position. It never changes, so its hash is its `ETag`.

    Who accepts `application/octet-stream` gets the record's own bytes, which `GET /proofs/{position}` is the proof of.
    """
    is_number = key.isascii() and key.isdecimal() and len(key) < 19
    if by == "position" and not is_number:
        raise RejectedError(f"{key[:60]!r} is not a position", place="key", cure="send a number, or by=id")
    record, _ = call.get(int(key) if is_number and by != "id" else key)
    as_it_is = request.headers.get("accept", "").partition(";")[0].strip() == OCTETS
    headers = {"ETag": f'"{record.hash.hex()}{"-octets" * as_it_is}"', "Vary": "Accept", **FOR_EVER}
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if as_it_is:
        return Response(record.line, media_type=OCTETS, headers=headers)
    return Response(record_json(record), media_type=JSON, headers=headers)


@router.get("/entities/{entity_id:path}/events", responses=AS_ASKED)
def entity_events(
    call: Reading, request: Request, entity_id: str, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """The events of an entity, oldest first."""
    _check_entity(call, entity_id)
    room = _room_of_page(call)
    with call.ledger() as ledger:
        query = call.within_scope(Records.of(entity_id=entity_id))
        page = ledger.query(query, newest_first=False, limit=limit, cursor=cursor, held=room.hold)
    return page_answer(page, request, room)


@router.get("/entities/{entity_id:path}/state")
def entity_state(
    call: Reading, entity_id: str, as_of: At = None, clock: Clock = "recorded", whole: Whole = False
) -> Response:
    """What an entity was, now or at a point in time, and which events made it so."""
    _check_entity(call, entity_id)
    room = Room(call, cure="read its history of one member, or its events page by page")
    with call.ledger() as ledger:
        found = ledger.state(entity_id, _point(as_of, clock, "as_of"), held=room.hold)
    told = room.take(state_whole(found) if whole else json_of(state_json(found)))
    room.release()
    return Response(told, media_type=JSON, headers=NOT_KEPT)


@router.get("/entities/{entity_id:path}/history")
def entity_history(
    call: Reading,
    entity_id: str,
    *,
    member: Name = None,
    as_of: At = None,
    clock: Clock = "recorded",
    whole: Whole = False,
) -> Response:
    """What changed an entity, or one member of its state, event by event."""
    _check_entity(call, entity_id)
    room = Room(call, cure="ask for one member, or up to an earlier as_of; or read its events page by page")
    turns: list[bytes] = []
    records: list[bytes] = []
    with call.ledger() as ledger:
        for turn in ledger.timeline(entity_id, member, as_of=_point(as_of, clock, "as_of")):
            if len(turns) == HISTORY_TURNS_MAX:
                cure = "ask for one member, or up to an earlier as_of; or read its events page by page"
                raise RejectedError(f"more than {HISTORY_TURNS_MAX:,} turns", place="entity_id", cure=cure)
            turns.append(room.take(json_of(turn_json(turn))))
            if whole:
                records.append(room.take(record_json(turn.record)))
    head = b'{"entity_id":%b,"turns":[%b]' % (orjson.dumps(entity_id), b",".join(turns))
    told = b'%b,"whole":[%b]}' % (head, b",".join(records)) if whole else head + b"}"
    return Response(told, media_type=JSON, headers=NOT_KEPT)


@router.get("/entities/{entity_id:path}/diff")
def entity_diff(
    call: Reading,
    entity_id: str,
    *,
    earlier: Annotated[str, Query(alias="from", max_length=64, description="As `as_of` of a state.")],
    later: Annotated[str | None, Query(alias="to", max_length=64)] = None,
    clock: Clock = "recorded",
    whole: Whole = False,
) -> Response:
    """What became of an entity from one point to another."""
    _check_entity(call, entity_id)
    room = Room(call, cure="ask for a shorter range, or read its events page by page")
    with call.ledger() as ledger:
        points = {"earlier": _point(earlier, clock, "from"), "later": _point(later, clock, "to")}
        found = ledger.diff(entity_id, **points, held=room.hold)
    told = room.take(difference_whole(found) if whole else json_of(difference_json(found)))
    room.release()
    return Response(told, media_type=JSON, headers=NOT_KEPT)


@router.get("/queue/stats")
def queue_stats(call: MeasuringAll) -> dict[str, Any]:
    """How the queue of the caller's ledger stands."""
    with call.ledger() as ledger:
        stats = ledger.queue.stats()
    return {
        "depth": stats.depth,
        "bytes": stats.bytes,
        "oldest_seconds": stats.oldest_seconds,
        "accepted": stats.accepted,
        "sealed": stats.sealed,
        "conflicts": stats.conflicts,
        "refused": stats.refused,
        "problem": stats.problem,
    }


@router.get("/tickets/{ticket:path}")
def ticket_progress(call: Writing, ticket: str) -> dict[str, Any]:
    """What has become of an event that the queue took.

    A key with a scope sends the ticket as it got it, with its proof.
    """
    text, _, proof = ticket.rpartition("~")
    is_proven = compare_digest(proof.encode(), call.service.prove_ticket(call.caller, text).encode())
    if not is_proven and not call.caller.principal.scope.is_whole:
        raise NotFoundError(f"there is no ticket {ticket[:60]!r} that this key got")
    with call.ledger() as ledger:
        found = ledger.queue.progress(text if is_proven else ticket)
    return {"ticket": ticket, "state": found.state, "position": found.position, "why": found.why}


@router.get("/access", openapi_extra=WITH_TERMS, responses=AS_ASKED)
def access_trail(
    call: Exporting, request: Request, limit: Limit = 100, cursor: Cursor = None, order: Order = "newest"
) -> Response:
    """Who was denied what, and who ordered what: the access trail of the caller's tenant, asked as events are."""
    room = _room_of_page(call)
    with call.service.deployment.trail(call.caller.tenant) as trail:
        page = trail.query(
            query_of(request, PAGING),
            newest_first=order == "newest",
            limit=limit,
            cursor=cursor,
            held=room.hold,
        )
    return page_answer(page, request, room)


def _room_of_page(call: Call) -> Room:
    """What counts the lines of a page, until it is rendered."""
    return Room(call, place="limit", cure="ask for fewer records at once", times=1)


def _check_entity(call: Call, entity_id: str) -> None:
    """An entity is shown whole or not at all."""
    scope = call.caller.principal.scope
    if scope.event_types:
        call.service.permit(call.caller, "Read", whole=True)
    if scope.entity_prefixes and not entity_id.startswith(scope.entity_prefixes):
        raise NotFoundError(f"there is no entity {entity_id[:60]!r} that this key may see")


def _point(text: str | None, clock: Literal["recorded", "occurred"], place: str) -> AsOf:
    if text is None:
        return AsOf()
    try:
        return AsOf.of(text, clock=clock)
    except RejectedError as error:
        raise RejectedError(error.problem, place=place, cure=error.cure) from error
