"""Routes for whoever keeps watch: who a ledger is, its checkpoint, and what proves that it only grows."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import PlainTextResponse

from tallystick.core.tiles import TilePath
from tallystick.errors import NotFoundError, RejectedError
from tallystick.limits import SERIES_BYTES_MAX, SIZE_MAX
from tallystick.serve.calls import MeasuringAll, Reading, ReadingAll
from tallystick.serve.routes.answers import FOR_EVER, NOT_KEPT, Room
from tallystick.serve.routes.rendered import Rendered

router: Final = APIRouter(prefix="/api/v1", route_class=Rendered)

_TEXT: Final = "text/plain; charset=utf-8"

Size = Annotated[int, Path(ge=1, le=SIZE_MAX)]


class _Octets(Response):
    media_type = "application/octet-stream"


@router.get("/ledger")
def describe(call: ReadingAll) -> dict[str, Any]:
    """Who the ledger is: its id and origin, and the keys by which its checkpoints and its evidence verify."""
    with call.ledger() as ledger:
        return {
            "id": ledger.id.hex(),
            "name": ledger.name,
            "origin": ledger.origin,
            "size": ledger.size,
            "verifier_key": ledger.verifier_key.render(),
            "evidence_key": ledger.evidence_key.hex(),
        }


@router.get("/stats")
def stats(call: MeasuringAll) -> dict[str, Any]:
    """How much there is: records by event type, entities, actors, labels, from when to when."""
    room = Room(call, place="event_type", cure="ask for series of fewer types", most=SERIES_BYTES_MAX, times=1)
    with call.ledger() as ledger:
        return ledger.stats(held=room.hold)


@router.get("/checkpoint", response_class=PlainTextResponse)
def checkpoint(call: ReadingAll) -> Response:
    """The newest signed checkpoint (C2SP tlog-checkpoint): keep it, and nothing before it can change unseen."""
    with call.ledger() as ledger:
        return Response(ledger.checkpoint(), media_type=_TEXT, headers=NOT_KEPT)


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
        hashes_of_it = ledger.tile(asked.level, asked.index, asked.width)
    return _Octets(hashes_of_it, headers={**FOR_EVER, "ETag": f'"{sha256(hashes_of_it).hexdigest()}"'})


@router.get("/proofs/{position}", response_class=PlainTextResponse)
def proof(call: Reading, position: Annotated[int, ...]) -> Response:
    """The proof that a record is in the tree of the newest checkpoint (C2SP tlog-proof)."""
    _, made = call.get(position)
    return Response(made, media_type=_TEXT, headers=NOT_KEPT)


@router.get("/consistency/{old_size}")
def consistency(
    call: ReadingAll, old_size: Size, size: Annotated[int | None, Query(ge=1, le=SIZE_MAX)] = None
) -> dict[str, Any]:
    """The proof that the tree of `size`, by default the newest, begins with that of `old_size` (RFC 9162 2.1.4)."""
    with call.ledger() as ledger:
        newest = ledger.size
        size = newest if size is None else size
        if not old_size <= size <= newest:
            cure = f"give old_size <= size <= {newest}, the size of the ledger"
            raise RejectedError(f"there is no proof from {old_size} to {size}", place="size", cure=cure)
        hashes = ledger.prove_consistency(old_size, size)
    return {"old_size": old_size, "size": size, "hashes": [one.hex() for one in hashes]}
