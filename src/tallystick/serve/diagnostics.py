"""Diagnostics: what the service says about itself, one line each on standard error, as JSON or for people.

They are about the service, never about what it keeps: no payloads, no keys, no queries. What looks like a key is masked
all the same, wherever it may have come from.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import Any, Final

import orjson
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.typing import EventDict, WrappedLogger

from tallystick.serve.settings import Format, Level

LOGGERS: Final = ("tallystick", "uvicorn")
_requests: Final = logging.getLogger("tallystick.requests")

_PATH_CHARACTERS: Final = 512
_SECRET: Final = re.compile(r"\bts_([0-9a-f]{16})_[0-9a-f]+|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


_traced: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
"""Without the values that were at hand, among which there may be a key."""


def begin(*, form: Format, level: Level) -> None:
    """Have the loggers of the service, and of what it runs in, write to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(form))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())
    logging.getLogger("uvicorn.error").addFilter(lambda record: "completing handshake" not in record.getMessage())
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger("uvicorn").level))


def logged(app: ASGIApp) -> ASGIApp:
    """The application, with a line for each request: by whom it was and what became of it, not what it said."""

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def seen(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, seen)
        finally:
            client = scope.get("client")
            said = {
                "method": scope["method"],
                "path": scope["path"][:_PATH_CHARACTERS],
                "status": status,
                "milliseconds": round((time.perf_counter() - began) * 1_000, 2),
                "address": client[0] if client else None,
            }
            _requests.info("request", extra={"request": said})

    return observed


def masked(text: str) -> str:
    """The text without what may be a key or a token; of a key its id is left."""
    return _SECRET.sub(lambda found: f"ts_{found[1]}_***" if found[1] else "***", text)


def _formatter(form: Format) -> structlog.stdlib.ProcessorFormatter:
    shown: list[Any] = (
        [structlog.processors.ExceptionRenderer(_traced), _mask, structlog.processors.JSONRenderer(_json)]
        if form == "json" or (form == "auto" and not sys.stderr.isatty())
        else [structlog.processors.format_exc_info, _mask, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=("request",)),
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shown],
    )


def _mask(_: WrappedLogger, __: str, said: EventDict) -> EventDict:
    return {name: _masked(value) for name, value in said.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {name: _masked(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(one) for one in value]
    return value


def _json(said: EventDict, **_: Any) -> str:
    return orjson.dumps(said, default=str).decode()
