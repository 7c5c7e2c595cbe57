"""Routes of the schema registry of a tenant: what events have to look like, and what would become of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from tallystick.errors import RejectedError
from tallystick.govern.registered import RegisteredSchema
from tallystick.limits import ANSWER_BYTES_MAX, INPUT_BYTES_MAX
from tallystick.serve.body import split
from tallystick.serve.calls import Call, ManagingSchemas, Reading
from tallystick.serve.routes.answers import JSON, Room
from tallystick.serve.routes.rendered import Rendered, rendered

router: Final = APIRouter(prefix="/api/v1", route_class=Rendered)

_TOLD_BYTES: Final = 512
"""Of a version beside its document, about."""

_VERDICT_BYTES: Final = 320
"""Of one event, about."""

Text = Annotated[str, Field(max_length=1_000)]
At = Annotated[str | None, Query(max_length=64, description="As it was at a time or on a date (UTC).")]


class NewSchema(BaseModel):
    """A version of a schema to be registered."""

    model_config = ConfigDict(extra="forbid")

    name: Text
    version: Annotated[int, Field(ge=1)] | None = None
    """By default the next."""
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    target: Literal["payload", "event"] = "payload"
    compatibility: Literal["none", "backward", "forward", "full"] | None = None
    reason: Text | None = None


class NewEnforcement(BaseModel):
    """How schemas are to be enforced."""

    model_config = ConfigDict(extra="forbid")

    enforcement: Literal["strict", "registered", "warn"]
    reason: Text | None = None


@router.post("/schemas", status_code=201)
def register_schema(call: ManagingSchemas, new: NewSchema) -> dict[str, Any]:
    """Register a version of a schema: from now on the events of that type are held to it when they arrive.

    One that breaks what it owes to the version before is refused, and the answer says which change does.
    """
    with call.ledger() as ledger:
        registered = ledger.schemas.register(
            new.name,
            new.version,
            new.schema_,
            target=new.target,
            compatibility=new.compatibility,
            actor=call.caller.principal.actor,
            reason=new.reason,
        )
    said = {"schema": registered.name, "version": registered.version}
    call.service.record(call.caller, "schema_registered", said)
    return _told(registered)


@router.get("/schemas")
def list_schemas(call: Reading, as_of: At = None) -> dict[str, Any]:
    """The newest version of every schema, and how they are enforced."""
    with call.ledger() as ledger:
        enforcement, found = ledger.schemas.enforcement(as_of), ledger.schemas.list(as_of)
    _check_room(call, found)
    return {"enforcement": enforcement, "schemas": [_told(one) for one in found]}


@router.put("/schemas/enforcement")
def enforce_schemas(call: ManagingSchemas, new: NewEnforcement) -> dict[str, Any]:
    """Say how schemas are enforced from now on."""
    with call.ledger() as ledger:
        ledger.schemas.enforce(new.enforcement, actor=call.caller.principal.actor, reason=new.reason)
    call.service.record(call.caller, "schemas_enforced", {"enforcement": new.enforcement})
    return {"enforcement": new.enforcement}


@router.post("/schemas/validate", response_model=dict[str, Any])
async def validate_events(call: Reading, request: Request) -> Response:
    """What would become of an event, or of an array of them, if it came now. Nothing is sealed."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > INPUT_BYTES_MAX:
            cure = "send fewer events at once"
            raise RejectedError(f"more than {INPUT_BYTES_MAX:,} bytes", place="body", cure=cure)
    return await run_in_threadpool(_verdicts, call, bytes(body))


@router.get("/schemas/{name}")
def get_schema(
    call: Reading, name: str, version: Annotated[int | None, Query(ge=1)] = None, as_of: At = None
) -> dict[str, Any]:
    """One version of a schema, by default the newest."""
    with call.ledger() as ledger:
        return _told(ledger.schemas.get(name, version, as_of=as_of))


@router.get("/schemas/{name}/history")
def schema_history(call: Reading, name: str) -> dict[str, Any]:
    """Every version of a schema, with when and by whom it was registered."""
    with call.ledger() as ledger:
        found = ledger.schemas.history(name)
    _check_room(call, found)
    return {"name": name, "versions": [_told(one) for one in found]}


@router.get("/schemas/{name}/infer")
def infer_schema(call: Reading, name: str, *, enums: bool = False) -> Response:
    """A schema that the payloads of all recorded events of a type fit; nothing is registered.

    An object that would have too many members stands in it as a map.
    """
    call.service.permit(call.caller, "Read", whole=True)
    room = Room(call, place="name", cure="infer it from fewer events, with the command line", times=1)
    with call.ledger() as ledger:
        schema, count = ledger.schemas.infer(name, enums=enums, held=room.hold)
    return Response(room.take(orjson.dumps({"name": name, "schema": schema, "events": count})), media_type=JSON)


def _verdicts(call: Call, data: bytes) -> Response:
    events = split(data, "application/json") if data.lstrip()[:1] == b"[" else [data]
    call.answer.take(len(events) * _VERDICT_BYTES)
    with call.ledger() as ledger:
        told = [
            {"index": one.index, "taken": one.taken, "problem": one.problem, "place": one.place, "cure": one.cure}
            for one in ledger.schemas.validate(events)
        ]
    return rendered({"events": told})


def _check_room(call: Call, found: Sequence[RegisteredSchema]) -> None:
    """Count what is about to be rendered. Raises `RejectedError` for more than an answer may have, and `BusyError`."""
    size = sum(len(one.source) + _TOLD_BYTES for one in found)
    if size > ANSWER_BYTES_MAX:
        problem, cure = f"more than {ANSWER_BYTES_MAX >> 20} MiB in one answer", "ask for versions one by one"
        raise RejectedError(problem, place="name", cure=cure)
    call.answer.take(size)


def _told(one: RegisteredSchema) -> dict[str, Any]:
    """Its document stands in the answer as it is kept, and is not read for that."""
    return {**one.to_json(), "personal": [*one.personal], "schema": orjson.Fragment(one.source)}
