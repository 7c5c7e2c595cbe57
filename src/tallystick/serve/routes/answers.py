"""What the reading routes share: the terms of a query, and answers in the form that the request accepts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from fastapi import Request, Response

from tallystick.errors import BusyError, RejectedError
from tallystick.evidence.bundle.views import CSV_COLUMNS, csv_row
from tallystick.limits import ANSWER_BYTES_MAX
from tallystick.read.query import Query, parse_terms, terms_of_query_string
from tallystick.read.search import Page
from tallystick.read.shapes import page_json, record_json
from tallystick.serve.calls import Call

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
OCTETS: Final = "application/octet-stream"
CSV: Final = "text/csv"
NOT_KEPT: Final = {"Cache-Control": "no-store"}
FOR_EVER: Final = {"Cache-Control": "private, max-age=31536000, immutable"}
PAGING: Final = ("limit", "cursor", "order")

WITH_TERMS: Final[dict[str, Any]] = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
        for name in ("entity_id", "event_type", "actor", "label", "after", "before", "id", "correlation_id", "text")
    ]
}
AS_ASKED: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {NDJSON: {}, CSV: {}}}}
"""For the document: the types beside JSON that pages have."""

_MADE_OF: Final = 3
"""Times the bytes of records: what they take, with the values that are made of them."""

_ACCEPTED_MAX: Final = 32
"""Types of one `Accept` that are looked at."""


class Room:
    """What one answer may take: counted among all answers while it is made, and bounded in bytes.

    Whoever has gone gets none: what takes long is given up where it asks for more.
    """

    def __init__(
        self,
        call: Call,
        *,
        cure: str,
        place: str = "entity_id",
        most: int | None = None,
        times: int = _MADE_OF,
    ) -> None:
        """`cure` says what else to ask for at `place`. What is held takes `times` its bytes, of which `most` may be."""
        self._call: Final = call
        self._cure: Final = cure
        self._place: Final = place
        self._most: Final = ANSWER_BYTES_MAX if most is None else most
        self._times: Final = times
        self._held = 0
        self._rendered = 0

    def hold(self, count: int) -> None:
        """So many bytes are held to make it. Raises `RejectedError` for too many, and `BusyError`."""
        if self._call.is_left():
            raise BusyError("whoever asked has gone")
        self._check(count)
        self._count(count * self._times)

    def take(self, rendered: bytes) -> bytes:
        """A part of it, rendered, which is held beside the others. Raises as `hold`."""
        self._rendered += len(rendered)
        self._check(self._rendered)
        self._call.answer.take(len(rendered))
        return rendered

    def release(self) -> None:
        """Nothing but what was rendered is held any more."""
        self._count(0)

    def _count(self, count: int) -> None:
        if count > self._held:
            self._call.answer.take(count - self._held)
        else:
            self._call.answer.give_back(self._held - count)
        self._held = count

    def _check(self, count: int) -> None:
        if count > self._most:
            problem = f"more than {self._most >> 20} MiB in one answer"
            raise RejectedError(problem, place=self._place, cure=self._cure)


def query_of(request: Request, own: Sequence[str] = ()) -> Query:
    """The query in a request's terms, but for the names that are the route's own. Raises `RejectedError`."""
    terms = terms_of_query_string(request.url.query)
    return parse_terms(term for term in terms if term.partition("=")[0] not in own)


def wanted(request: Request, offered: Sequence[str]) -> str:
    """The offered type that the request's `Accept` names first among those of the highest weight; else the first."""
    best, weight = offered[0], 0.0
    for part in request.headers.get("accept", "").split(",")[:_ACCEPTED_MAX]:
        name, _, rest = part.partition(";")
        given = _weight(rest)
        if name.strip().lower() in offered and given > weight:
            best, weight = name.strip().lower(), given
    return best


def page_answer(page: Page, request: Request, room: Room) -> Response:
    """A page as JSON, NDJSON or CSV, with the way to the next one in `Link`. The room held it, and does so no more."""
    room.release()
    headers = dict(NOT_KEPT)
    if page.cursor is not None:
        headers["Link"] = f'<{_following(request, page.cursor)}>; rel="next"'
    kind = wanted(request, (JSON, NDJSON, CSV))
    if kind == NDJSON:
        return Response(b"".join(record_json(one) + b"\n" for one in page.records), media_type=kind, headers=headers)
    if kind == CSV:
        return csv_answer(CSV_COLUMNS, (csv_row(one.line) for one in page.records), headers)
    return Response(page_json(page), media_type=JSON, headers=headers)


def csv_answer(columns: Sequence[str], rows: Iterable[Sequence[Any]], headers: dict[str, str]) -> Response:
    """Rows for a spreadsheet (RFC 4180)."""
    written = io.StringIO(newline="")
    table = csv.writer(written, lineterminator="\r\n")
    table.writerow(columns)
    table.writerows(rows)
    return Response(written.getvalue(), media_type=CSV, headers=headers)


def _following(request: Request, cursor: str) -> str:
    """Where the page at a cursor is, whoever the client says that we are: a path and a query.

    The path is encoded anew, and of the query what came as it should not: so nothing ends the link, or leads elsewhere.
    """
    asked: bytes = request.scope["query_string"]
    kept = [piece for piece in asked.split(b"&") if piece and unquote_to_bytes(piece.partition(b"=")[0]) != b"cursor"]
    query = "&".join((*(quote(piece, safe="%=+") for piece in kept), f"cursor={quote(cursor, safe='')}"))
    return f"{quote(request.scope['path'], safe='/')}?{query}"


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.strip().lower() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
