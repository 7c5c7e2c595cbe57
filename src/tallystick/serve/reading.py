"""Routes that read one ledger: events, entities, series, and what proves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from tallystick.core import timestamp
from tallystick.core.tiles import TilePath
from tallystick.errors import NotFoundError, RejectedError
from tallystick.read.as_of import AsOf
from tallystick.read.query import Query as Terms
from tallystick.read.query import parse_terms, terms_of_query_string
from tallystick.read.shapes import (
    difference_json,
    difference_whole,
    extent_json,
    page_json,
    record_json,
    series_json,
    state_json,
    state_whole,
    turn_json,
    whole_json,
)
from tallystick.serve.calls import Call, Exporting, Measuring, Reading, ReadingAll, Writing

router: Final = APIRouter(prefix="/api/v1")

_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"
_FOR_EVER: Final = {"Cache-Control": "private, max-age=31536000, immutable"}
_NOT_KEPT: Final = {"Cache-Control": "no-store"}
_PAGING: Final = ("limit", "cursor", "order")
_SERIES: Final = ("width", "zone", "measure", "group", "fill", "time")

Limit = Annotated[int, Query(ge=1, le=1_000, description="Records of a page.")]
Cursor = Annotated[str | None, Query(max_length=64, description="That of the page before.")]
Order = Annotated[Literal["newest", "oldest"], Query(description="Which come first.")]
At = Annotated[str | None, Query(max_length=64, description="A time, a date (UTC), v3, or @120; now without it.")]
Clock = Annotated[Literal["recorded", "occurred"], Query(description="By which of an event's two times.")]
Name = Annotated[str | None, Query(max_length=512)]
Whole = Annotated[bool, Query(description="With the records, as they were sealed, in `whole`.")]


class _Octets(Response):
    media_type = "application/octet-stream"


_TERMS: Final = [
    {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
    for name in ("entity_id", "event_type", "actor", "label", "after", "before", "id", "correlation_id", "text")
]
_WITH_TERMS: Final[dict[str, Any]] = {"parameters": _TERMS}


@router.get("/events/query", openapi_extra=_WITH_TERMS, responses={200: {"content": {_NDJSON: {}}}})
def query_events(
    call: Reading,
    request: Request,
    *,
    limit: Limit = 100,
    cursor: Cursor = None,
    order: Order = "newest",
    accept: Annotated[str, Header()] = _JSON,
) -> Response:
    """The records that fit all terms, such as `entity_id=user-456&before=2026-03-16T00:00:00Z&payload.rows>=100`.

    Newest first, page by page: `cursor` and the `Link` header lead on, and all pages speak for the same `size`.
    """
    with call.ledger() as ledger:
        page = ledger.query(
            _query(request, _PAGING), newest_first=order == "newest", limit=limit, cursor=cursor, sees=call.sees()
        )
    headers = dict(_NOT_KEPT)
    if page.cursor is not None:
        following = request.url.include_query_params(cursor=page.cursor)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'  # whoever the client says that we are
    if _NDJSON in accept:
        lines = b"".join(record_json(one) + b"\n" for one in page.records)
        return Response(lines, media_type=_NDJSON, headers=headers)
    return Response(page_json(page), media_type=_JSON, headers=headers)


@router.get("/events/{key:path}")
def get_event(
    call: Reading,
    key: str,
    by: Annotated[Literal["id", "position"] | None, Query(description="How to take a number; as a position.")] = None,
    if_none_match: Annotated[str | None, Header(max_length=512)] = None,
) -> Response:
    """One record, by its event's id or by its position. It never changes, so its hash is its `ETag`."""
    is_number = key.isascii() and key.isdecimal() and len(key) < 19
    if by == "position" and not is_number:
        raise RejectedError(f"{key[:60]!r} is not a position", place="key", cure="send a number, or by=id")
    record, _ = call.get(int(key) if is_number and by != "id" else key)
    headers = {"ETag": f'"{record.hash.hex()}"', **_FOR_EVER}
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(record_json(record), media_type=_JSON, headers=headers)


@router.get("/entities/{entity_id:path}/events")
def entity_events(call: Reading, entity_id: str, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """The events of an entity, oldest first."""
    _check_entity(call, entity_id)
    with call.ledger() as ledger:
        page = ledger.query(entity_id=entity_id, newest_first=False, limit=limit, cursor=cursor)
    return Response(page_json(page), media_type=_JSON, headers=_NOT_KEPT)


@router.get("/entities/{entity_id:path}/state")
def entity_state(
    call: Reading, entity_id: str, as_of: At = None, clock: Clock = "recorded", whole: Whole = False
) -> Response:
    """What an entity was, now or at a point in time, and which events made it so."""
    _check_entity(call, entity_id)
    with call.ledger() as ledger:
        found = ledger.state(entity_id, _point(as_of, clock, "as_of"))
    if whole:
        return Response(state_whole(found), media_type=_JSON, headers=_NOT_KEPT)
    return JSONResponse(state_json(found), headers=_NOT_KEPT)


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
    with call.ledger() as ledger:
        turns = [*ledger.timeline(entity_id, member, as_of=_point(as_of, clock, "as_of"))]
    told = {"entity_id": entity_id, "turns": [turn_json(turn) for turn in turns]}
    if whole:
        return Response(whole_json(told, (turn.record for turn in turns)), media_type=_JSON, headers=_NOT_KEPT)
    return JSONResponse(told, headers=_NOT_KEPT)


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
    with call.ledger() as ledger:
        found = ledger.diff(entity_id, earlier=_point(earlier, clock, "from"), later=_point(later, clock, "to"))
    if whole:
        return Response(difference_whole(found), media_type=_JSON, headers=_NOT_KEPT)
    return JSONResponse(difference_json(found), headers=_NOT_KEPT)


@router.get("/timeseries/range", openapi_extra=_WITH_TERMS)
def series_range(call: Measuring, request: Request, time: Clock = "recorded") -> Response:
    """From when to when there are records that fit, and how many."""
    _check_whole(call)
    with call.ledger() as ledger:
        found = ledger.extent(_query(request, ("time",)), time=time)
    return JSONResponse(extent_json(found), headers=_NOT_KEPT)


@router.get("/timeseries/query", openapi_extra=_WITH_TERMS)
def series_query(
    call: Measuring,
    request: Request,
    *,
    width: Annotated[str, Query(max_length=16, description="minute, hour, day, week, month, quarter or year.")] = "day",
    zone: Annotated[str, Query(max_length=64)] = "UTC",
    measure: Annotated[str, Query(max_length=512, description="count, distinct:actor, sum:payload.rows.")] = "count",
    group: Annotated[str | None, Query(max_length=16, description="type, actor, entity or label.")] = None,
    fill: bool = False,
    time: Clock = "recorded",
) -> Response:
    """The records that fit, counted or measured by buckets of time, and by groups."""
    _check_whole(call)
    query, window = _windowed(_query(request, _SERIES), time)
    with call.ledger() as ledger:
        found = ledger.series(
            query, width=width, zone=zone, measure=measure, group=group, fill=fill, time=time, **window
        )
    return JSONResponse(series_json(found), headers=_NOT_KEPT)


@router.get("/checkpoint", response_class=PlainTextResponse)
def checkpoint(call: ReadingAll) -> Response:
    """The newest signed checkpoint (C2SP tlog-checkpoint): keep it, and nothing before it can change unseen."""
    with call.ledger() as ledger:
        return Response(ledger.checkpoint(), media_type="text/plain; charset=utf-8", headers=_NOT_KEPT)


@router.get("/tile/{path:path}", response_class=_Octets)
def tile(call: ReadingAll, path: str) -> Response:
    """A tile of hashes (C2SP tlog-tiles): `tile/<level>/<index>`, and `.p/<width>` behind it when it is partial."""
    asked = TilePath.parse(f"tile/{path}")
    if asked.level is None:
        raise NotFoundError("entries are read as events: GET /api/v1/events/query")
    with call.ledger() as ledger:
        hashes = ledger.size >> 8 * asked.level
        if asked.index * 256 + asked.width > hashes:
            raise NotFoundError(f"the tree has no tile {asked.render()} yet")
        return _Octets(
            ledger.tile(asked.level, asked.index, asked.width),
            headers=_FOR_EVER,
        )


@router.get("/proofs/{position}", response_class=PlainTextResponse)
def proof(call: Reading, position: Annotated[int, ...]) -> Response:
    """The proof that a record is in the tree of the newest checkpoint (C2SP tlog-proof)."""
    _, made = call.get(position)
    return Response(made, media_type="text/plain; charset=utf-8", headers=_NOT_KEPT)


@router.get("/queue/stats")
def queue_stats(call: Measuring) -> dict[str, Any]:
    """How the queue of the caller's ledger stands."""
    _check_whole(call)
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
    """What has become of an event that the queue took."""
    with call.ledger() as ledger:
        found = ledger.queue.progress(ticket)
    return {"ticket": ticket, "state": found.state, "position": found.position, "why": found.why}


@router.get("/access", openapi_extra=_WITH_TERMS)
def access_trail(
    call: Exporting, request: Request, limit: Limit = 100, cursor: Cursor = None, order: Order = "newest"
) -> Response:
    """Who was denied what, and who ordered what: the access trail of the caller's tenant, asked as events are."""
    with call.service.deployment.trail(call.caller.tenant) as trail:
        page = trail.query(_query(request, _PAGING), newest_first=order == "newest", limit=limit, cursor=cursor)
    return Response(page_json(page), media_type=_JSON, headers=_NOT_KEPT)


def _query(request: Request, own: Sequence[str]) -> Terms:
    """The query in a request's terms, but for the names that are the route's own. `RejectedError`."""
    terms = terms_of_query_string(request.url.query)
    return parse_terms(term for term in terms if term.partition("=")[0] not in own)


def _windowed(query: Terms, time: Literal["recorded", "occurred"]) -> tuple[Terms, dict[str, str | None]]:
    """The query without the time that is asked for, and that time as a series takes it: so `fill` fills all of it."""
    names = {end: end if time == "recorded" else f"occurred_{end}" for end in ("after", "before")}
    window = {}
    for end, name in names.items():
        moment = getattr(query, name)
        text = None if moment is None else timestamp.render(moment)
        window[end] = text[:10] if text and name in query.dates else text
    cleared: dict[str, Any] = dict.fromkeys(names.values())
    dates = tuple(name for name in query.dates if name not in cleared)
    return replace(query, **cleared, dates=dates), window


def _check_entity(call: Call, entity_id: str) -> None:
    """An entity is shown whole or not at all."""
    scope = call.caller.key.scope
    if scope.event_types:
        call.service.permit(call.caller, "Read", whole=True)
    if scope.entity_prefixes and not entity_id.startswith(scope.entity_prefixes):
        raise NotFoundError(f"there is no entity {entity_id[:60]!r} that this key may see")


def _check_whole(call: Call) -> None:
    call.service.permit(call.caller, "Metrics", whole=True)


def _point(text: str | None, clock: Literal["recorded", "occurred"], place: str) -> AsOf:
    if text is None:
        return AsOf()
    try:
        return AsOf.of(text, clock=clock)
    except RejectedError as error:
        raise RejectedError(error.problem, place=place, cure=error.cure) from error
