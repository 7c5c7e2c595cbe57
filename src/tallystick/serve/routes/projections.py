"""Routes of projections: what is kept of those that applications run over the ledger, and holding them."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter

from tallystick.errors import NotFoundError
from tallystick.serve.calls import Call, ManagingPipelines, ReadingAll
from tallystick.serve.routes.rendered import Rendered

router: Final = APIRouter(prefix="/api/v1", route_class=Rendered)


@router.get("/projections")
def list_projections(call: ReadingAll) -> dict[str, Any]:
    """All projections that were ever run over this ledger, and how far each is."""
    with call.ledger() as ledger:
        size = ledger.size
        return {"projections": [saved.to_json(size) for saved in ledger.projections()]}


@router.get("/projections/{name:path}")
def projection(call: ReadingAll, name: str) -> dict[str, Any]:
    """The state of a projection, as it was last saved."""
    with call.ledger() as ledger:
        size = ledger.size
        for saved in ledger.projections():
            if saved.name == name:
                return {**saved.to_json(size), "state": saved.state}
    raise NotFoundError(f"there is no projection {name[:60]!r}: it was never run over this ledger")


@router.post("/projections/{name:path}/pause")
def pause(call: ManagingPipelines, name: str) -> dict[str, str]:
    """Hold a projection where it is, for every process that runs it, until it is resumed."""
    with call.ledger() as ledger:
        ledger.pause_projection(name)
    return _done(call, name, "paused")


@router.post("/projections/{name:path}/resume")
def resume(call: ManagingPipelines, name: str) -> dict[str, str]:
    """Let a projection go on that was paused, or that failed, when it is next run."""
    with call.ledger() as ledger:
        ledger.resume_projection(name)
    return _done(call, name, "resumed")


@router.post("/projections/{name:path}/reset")
def reset(call: ManagingPipelines, name: str) -> dict[str, str]:
    """Forget the state of a projection, so that it begins anew when it is next run."""
    with call.ledger() as ledger:
        ledger.reset_projection(name)
    return _done(call, name, "reset")


def _done(call: Call, name: str, done: str) -> dict[str, str]:
    call.service.record(call.caller, f"projection_{done}", {"projection": name[:512]})
    return {"name": name, "done": done}
