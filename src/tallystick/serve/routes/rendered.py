"""Routes whose answers are made where the work is done: by a thread, and not in the event loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import orjson
from fastapi import Response
from fastapi.routing import APIRoute

_OPTIONS: Final = orjson.OPT_NON_STR_KEYS
_JSON: Final = "application/json"


def rendered(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON."""
    return Response(orjson.dumps(value, default=float, option=_OPTIONS), status, headers, media_type=_JSON)


class Rendered(APIRoute):
    """A route of which a value that is returned becomes its answer at once: the framework would do so in the loop."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        super().__init__(path, _rendering(endpoint, given.get("status_code") or 200), **given)


def _rendering(endpoint: Callable[..., Any], status: int) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(endpoint) or hasattr(endpoint, "__rendered__"):
        return endpoint

    @wraps(endpoint)
    def called(*given: Any, **named: Any) -> Any:
        found = endpoint(*given, **named)
        return rendered(found, status) if isinstance(found, dict) else found

    called.__rendered__ = True  # type: ignore[attr-defined]  # a router that includes it makes the route anew
    return called
