"""The OpenAPI document: what FastAPI knows of its routes, and the two of the way in, which it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from tallystick.errors import FAMILIES
from tallystick.limits import BATCH_EVENTS_MAX, ENTITY_ID_CHARACTERS_MAX, EVENT_ID_CHARACTERS_MAX
from tallystick.serve.calls import Needs
from tallystick.serve.ingest import BATCH_PATH, EVENTS_PATH
from tallystick.serve.problems import MEDIA_TYPE
from tallystick.serve.streaming import STREAM_PATH

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "cure"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "place": {"type": "string"},
        "cure": {"type": "string"},
        "permission": {"type": "string"},
        "family": {"enum": [*FAMILIES]},
    },
}
_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["event_type", "entity_id"],
    "properties": {
        "event_type": {"type": "string", "maxLength": 200},
        "entity_id": {"type": "string", "minLength": 1, "maxLength": ENTITY_ID_CHARACTERS_MAX},
        "payload": {"type": "object"},
        "actor": {"oneOf": [{"type": "string"}, {"type": "object"}]},
        "context": {"type": "object"},
        "labels": {"type": "array", "items": {"type": "string"}},
        "occurred_at": {"type": "string", "format": "date-time"},
        "id": {"type": "string", "minLength": 1, "maxLength": EVENT_ID_CHARACTERS_MAX},
        "event_version": {"type": "integer", "minimum": 1},
        "expected_version": {"oneOf": [{"type": "integer"}, {"enum": ["any", "none", "exists"]}]},
    },
    "additionalProperties": False,
}
_RECEIPT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["id", "position", "recorded_at", "entity_id", "entity_version", "hash", "replayed"],
    "properties": {
        "id": {"type": "string"},
        "position": {"type": "integer"},
        "recorded_at": {"type": "string"},
        "entity_id": {"type": "string"},
        "entity_version": {"type": "integer"},
        "hash": {"type": "string"},
        "replayed": {"type": "boolean"},
    },
}
_ACK: Final[dict[str, Any]] = {"name": "ack", "in": "query", "schema": {"enum": ["durable", "queued"]}}
_ATOMIC: Final[dict[str, Any]] = {"name": "atomic", "in": "query", "schema": {"enum": ["true", "false"]}}
_KEY: Final[dict[str, Any]] = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}


def document(api: FastAPI, routers: Sequence[APIRouter]) -> dict[str, Any]:
    """The document of an application that has these routers, made once."""
    if api.openapi_schema is None:
        made = get_openapi(title=api.title, version=api.version, summary=api.summary, routes=api.routes)
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        schemas |= {"Event": _EVENT, "Problem": _PROBLEM, "Receipt": _RECEIPT}
        made["paths"][EVENTS_PATH] = {"post": _one()} | made["paths"].get(EVENTS_PATH, {})
        made["paths"][BATCH_PATH] = {"post": _many()}
        made["paths"][STREAM_PATH] = {"get": _stream()}
        for route in (route for router in routers for route in router.routes):
            if isinstance(route, APIRoute):
                _tell_needs(made["paths"][route.path_format], route)
        for path in made["paths"].values():
            for operation in path.values():
                _tell_problems(operation)
        api.openapi_schema = made
    return api.openapi_schema


def _tell_needs(operations: dict[str, Any], route: APIRoute) -> None:
    """Which permission a route needs, and whether its answer is about all records, as its signature has it."""
    needs = [one.call for one in route.dependant.dependencies if isinstance(one.call, Needs)]
    for method in route.methods or ():
        operation = operations.get(method.lower())
        if operation is not None and needs:
            operation["x-permission"] = needs[-1].permission
            operation["x-whole-scope"] = any(one.whole for one in needs)


def _tell_problems(operation: dict[str, Any]) -> None:
    """Every refusal of every route is a problem."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    operation["responses"].pop("422", None)
    for status, why in (
        *(("400", "Mend it"), ("401", "No key"), ("403", "Not permitted"), ("404", "Not here"), ("405", "No method")),
        *(("409", "Conflict"), ("413", "Too large"), ("415", "Type not known"), ("429", "Over quota"), ("503", "Busy")),
    ):
        operation["responses"][status] = {"description": why, "content": content}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _one() -> dict[str, Any]:
    receipt = {"$ref": "#/components/schemas/Receipt"}
    ticket = {"type": "object", "required": ["ticket", "id", "accepted_at", "status"]}
    return {
        "summary": "Append Event",
        "description": "Seal one event. It is durable when this is answered; with ack=queued, in the queue.",
        "operationId": "append_event",
        "x-permission": "Write",
        "parameters": [_ACK, _KEY],
        "security": [{"key": []}],
        "requestBody": _body({"$ref": "#/components/schemas/Event"}),
        "responses": {
            "201": _answer("Sealed", receipt),
            "200": _answer("Sealed before, under the same id", receipt),
            "202": _answer("Queued", ticket),
        },
    }


def _many() -> dict[str, Any]:
    told = {
        "type": "object",
        "required": ["sealed", "refused", "events"],
        "properties": {"sealed": {"type": "integer"}, "refused": {"type": "integer"}, "events": {"type": "array"}},
    }
    queued = {"type": "object", "required": ["accepted", "events"]}
    body = _body({"type": "array", "items": {"$ref": "#/components/schemas/Event"}, "maxItems": BATCH_EVENTS_MAX})
    body["content"]["application/x-ndjson"] = {"schema": {"type": "string"}}
    return {
        "summary": "Append Events",
        "description": "Seal many events, in their order; the answer says of each what became of it.",
        "operationId": "append_events",
        "x-permission": "Write",
        "parameters": [_ACK, _ATOMIC],
        "security": [{"key": []}],
        "requestBody": body,
        "responses": {
            "201": _answer("All sealed", told),
            "207": _answer("Some refused", told),
            "202": _answer("Queued", queued),
        },
    }


def _stream() -> dict[str, Any]:
    last = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}}
    first = {"name": "first", "in": "query", "schema": {"type": "integer", "minimum": 0}}
    return {
        "summary": "Stream Events",
        "description": "Records as they are committed, as server-sent events; terms as of a query. It has no end.",
        "operationId": "stream_events",
        "x-permission": "Read",
        "parameters": [last, first],
        "security": [{"key": []}],
        "responses": {
            "200": {"description": "The stream", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
        },
    }


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}
