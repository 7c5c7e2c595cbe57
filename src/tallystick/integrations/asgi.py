"""Who called what: a middleware that records the requests of an ASGI application as events.

Each HTTP request and each WebSocket becomes one event when it is over: method, path, route, status, duration, and in
its context the client's address, its program and the ids by which it is found again. Never bodies, cookies or
`Authorization`, and queries only if that was said. A request is neither held up nor failed by it.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

from tallystick.clock import Clock, wall_clock
from tallystick.core import timestamp
from tallystick.integrations.plain import cut, key
from tallystick.integrations.sending import SECONDS, Destination, Sender
from tallystick.limits import SENDING_BYTES_MAX, SENDING_EVENTS_MAX

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Principal: TypeAlias = Callable[[Scope], str | Mapping[str, str] | None]

HTTP: Final = "http.request"
WEBSOCKET: Final = "http.websocket"
NOBODY: Final = {"id": "anonymous"}
"""The actor of a request behind which nobody stands."""

_PATH_BYTES_MAX: Final = 2_048
_HEADER_BYTES_MAX: Final = 512
_FAILED: Final = 500


class AuditMiddleware:
    """Records what is asked of an application. `sender` tells how it stands: what waits, what was dropped, and why."""

    def __init__(
        self,
        app: App,
        destination: Destination,
        *,
        principal: Principal = lambda _: None,
        skip: Iterable[str] = (),
        record_query: bool = False,
        request_id_header: str = "x-request-id",
        correlation_id_header: str = "x-correlation-id",
        events_max: int = SENDING_EVENTS_MAX,
        bytes_max: int = SENDING_BYTES_MAX,
        on_drop: Callable[[int], None] | None = None,
        seconds: float = SECONDS,
        clock: Clock = wall_clock,
    ) -> None:
        """`destination` is a `Ledger` or a `Client`, which stays the caller's to close.

        `principal` says from the scope, when the answer is there, who stands behind a request: an id, an object, or
        None. `skip` are paths that are not recorded, exact or `/prefix/*`. The end of the application, as `lifespan`
        tells it, or of the process waits up to `seconds` for what is still to be sent.
        """
        self._app: Final = app
        self._principal: Final = principal
        exact, prefixes = set(), []
        for path in skip:
            prefixes.append(path[:-1]) if path.endswith("*") else exact.add(path)
        self._skipped: Final = frozenset(exact)
        self._skipped_prefixes: Final = tuple(prefixes)
        self._record_query: Final = record_query
        self._headers: Final = {
            b"user-agent": "user_agent",
            request_id_header.lower().encode(): "request_id",
            correlation_id_header.lower().encode(): "correlation_id",
        }
        self._seconds: Final = seconds
        self._clock: Final = clock
        self.sender: Final = Sender(
            destination, name="http", events_max=events_max, bytes_max=bytes_max, on_drop=on_drop, clock=clock
        )
        atexit.register(self.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._ending(send))
        elif scope["type"] not in ("http", "websocket") or self._skips(scope["path"]):
            await self._app(scope, receive, send)
        else:
            await self._watched(scope, receive, send)

    def close(self) -> bool:
        """Take nothing more, and wait for what is still to be sent; whether all of it was."""
        atexit.unregister(self.close)
        return self.sender.close(self._seconds)

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = _Watch(scope, self._clock())

        async def sending(message: Message) -> None:
            await send(message)
            if watch.sees(message):
                self._record(scope, watch)

        async def receiving() -> Message:
            message = await receive()
            watch.hears(message)
            return message

        try:
            await self._app(scope, receiving, sending)
        except BaseException as error:
            if isinstance(error, Exception):
                watch.status = _FAILED
            watch.error = type(error).__name__
            raise
        finally:
            self._record(scope, watch)

    def _ending(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                self.close()  # nothing else is under way, and behind the message the process may end
            await send(message)

        return sending

    def _skips(self, path: str) -> bool:
        return path in self._skipped or path.startswith(self._skipped_prefixes)

    def _record(self, scope: Scope, watch: _Watch) -> None:
        """Put the event of a request, once. Whatever happens here, the request does not notice."""
        if watch.is_recorded:
            return
        watch.is_recorded = True
        try:
            self.sender.put(self._event(scope, watch))
        except Exception as error:  # noqa: BLE001 - the application must not be disturbed
            self.sender.problem = f"a request could not be recorded: {type(error).__name__}"

    def _event(self, scope: Scope, watch: _Watch) -> dict[str, Any]:
        route = getattr(scope.get("route"), "path", None)
        path = cut(watch.path, _PATH_BYTES_MAX)
        payload: dict[str, Any] = {
            "method": watch.method,
            "path": path,
            "route": cut(route, _PATH_BYTES_MAX) if isinstance(route, str) else None,
            "status": watch.status,
            "duration_ms": round((time.perf_counter() - watch.began) * 1_000, 3),
            "complete": watch.is_complete,
        }
        if watch.close_code is not None:
            payload["close_code"] = watch.close_code
        if watch.error is not None:
            payload["error"] = watch.error
        if self._record_query:
            payload["query"] = cut(scope.get("query_string", b"").decode("latin-1"), _PATH_BYTES_MAX)
        return {
            "event_type": HTTP if watch.is_http else WEBSOCKET,
            "entity_id": key(f"{watch.method} {payload['route'] or path}"),
            "actor": self._actor(scope),
            "payload": payload,
            "context": self._context(scope),
            "occurred_at": timestamp.render(watch.moment),
        }

    def _actor(self, scope: Scope) -> str | dict[str, str]:
        try:
            found = self._principal(scope)
        except Exception as error:  # noqa: BLE001 - it is the application's, and the request is answered already
            self.sender.problem = f"who stood behind a request could not be told: {type(error).__name__}"
            return {"id": "unknown"}
        if isinstance(found, Mapping):
            return {str(name): key(str(value)) for name, value in found.items()}
        return NOBODY if found is None else key(str(found))

    def _context(self, scope: Scope) -> dict[str, str]:
        context = {"protocol": cut(f"{scope['type']}/{scope.get('http_version', '')}".rstrip("/"), 32)}
        client = scope.get("client")
        if client:
            context["ip"] = cut(str(client[0]), 64)
        for name, value in scope.get("headers", ()):
            member = self._headers.get(name.lower())
            if member is not None:
                context.setdefault(member, cut(value.decode("latin-1"), _HEADER_BYTES_MAX))
        return context


class _Watch:
    """What is seen of one request, as its messages pass."""

    __slots__ = (
        *("began", "close_code", "error", "is_complete", "is_http", "is_recorded", "method", "moment", "path"),
        "status",
    )

    def __init__(self, scope: Scope, moment: int) -> None:
        self.began: Final = time.perf_counter()
        self.moment: Final = moment
        self.is_http: Final = scope["type"] == "http"
        self.method: Final = cut(scope["method"], 32) if self.is_http else "WEBSOCKET"
        self.path: Final[str] = scope["path"]  # routers may change it on the way
        self.status: int | None = None
        self.close_code: int | None = None
        self.error: str | None = None
        self.is_complete = False
        self.is_recorded = False

    def sees(self, message: Message) -> bool:
        """A message of the application's; whether it is the last one of the request."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close":
            self.close_code = message.get("code", 1_000)
            self.status = self.status or 403  # it was never accepted
            self.is_complete = True
        elif kind in ("http.response.body", "websocket.http.response.body"):
            self.is_complete = not message.get("more_body", False)
        elif kind == "http.response.pathsend":
            self.is_complete = True
        return self.is_complete

    def hears(self, message: Message) -> None:
        """A message of the client's."""
        if message["type"] == "websocket.disconnect":
            self.close_code = message.get("code", 1_005)
            self.is_complete = True
