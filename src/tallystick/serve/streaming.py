"""`GET /api/v1/events/stream`: the stream as bare ASGI, so that a reader's pace is the connection's own."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import aclosing
from typing import Any, Final, TypeAlias

from tallystick.core.strict import parse_decimal
from tallystick.errors import RejectedError, TallystickError
from tallystick.limits import SIZE_MAX
from tallystick.read.query import parse_terms, terms_of_query_string
from tallystick.serve.body import Receive
from tallystick.serve.problems import PermissionDeniedError, Send, answer, problem
from tallystick.serve.service import Service
from tallystick.serve.streams import LATE

STREAM_PATH: Final = "/api/v1/events/stream"

Scope: TypeAlias = MutableMapping[str, Any]

_GONE: Final = "the reader has gone"
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # proxies of nginx's kind hold nothing back
]


class Streaming:
    """The route of one service; `takes` says whether a request is for it."""

    def __init__(self, service: Service) -> None:
        self._service: Final = service

    def takes(self, scope: Scope) -> bool:
        return bool(scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == STREAM_PATH)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        try:
            headers = dict(scope["headers"])
            caller = self._service.caller_of(scope)
            self._service.permit(caller, "Read")
            if self._service.settings.record_reads:
                said = {"query": scope["query_string"].decode("latin-1")[:2_048]}
                await asyncio.to_thread(self._service.record, caller, "read", said)
            query, cursor = _asked(scope["query_string"].decode("latin-1"), headers.get(b"last-event-id"))
            frames = self._service.streams.read(caller.ledger, query, caller.principal.scope, cursor)
            reading = asyncio.current_task()
            assert reading is not None, "it is awaited"
            leaving = asyncio.create_task(_left(receive))
            leaving.add_done_callback(lambda it: it.cancelled() or reading.cancel(_GONE))
            try:
                async with aclosing(frames) as pieces:
                    async for piece in pieces:
                        if not begun:
                            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                            begun = True
                        if not self._service.is_in_force(caller):
                            break
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            except asyncio.CancelledError as error:
                if error.args not in ((_GONE,), (LATE,)):
                    raise
                reading.uncancel()
                return
            finally:
                leaving.cancel()
            await send({"type": "http.response.body", "body": b""})
        except TallystickError as error:
            if isinstance(error, PermissionDeniedError):
                await self._service.denied(error)
            if begun:  # a status was given: the end of the stream has to do
                await send({"type": "http.response.body", "body": b""})
                return
            await answer(send, *problem(error))


async def _left(receive: Receive) -> None:
    """Returns when the reader has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _asked(raw: str, last: bytes | None) -> tuple[Any, int | None]:
    """The query, and where to begin: behind `Last-Event-ID`, at `first`, or at what comes next. `RejectedError`."""
    query = parse_terms(terms_of_query_string(raw))
    if query.end is not None:
        raise RejectedError("a stream has no end", place="end", cure="leave it out, or use /api/v1/events/query")
    if last is not None:
        position = parse_decimal(last.decode("latin-1"), maximum=SIZE_MAX - 1, place="Last-Event-ID")
        return query, max(position + 1, query.first or 0)
    return query, query.first
