"""The application: the way in as bare ASGI, and everything else behind it on FastAPI, with its OpenAPI document."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import orjson
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tallystick.errors import TallystickError
from tallystick.limits import INPUT_BYTES_MAX
from tallystick.serve.answering import ANSWERING, Answering
from tallystick.serve.body import LeftError, read_body
from tallystick.serve.described import POLICY, page
from tallystick.serve.diagnostics import logged
from tallystick.serve.ingest import BATCH_PATH, EVENTS_PATH, Ingest
from tallystick.serve.metrics import Measured
from tallystick.serve.openapi import document
from tallystick.serve.peers import Peers
from tallystick.serve.problems import MEDIA_TYPE, AnsweredError, answer, problem, problem_of
from tallystick.serve.protocol import is_left
from tallystick.serve.routes import (
    custody,
    evidence,
    governing,
    health,
    jobs,
    projections,
    proving,
    reading,
    schemas,
    series,
)
from tallystick.serve.service import Service
from tallystick.serve.shares import THREADS, Shares
from tallystick.serve.streaming import STREAM_PATH, Streaming

BARE_PATHS: Final = frozenset((EVENTS_PATH, BATCH_PATH, STREAM_PATH))
_ROUTES: Final = (reading, series, proving, jobs, evidence, schemas, custody, projections, governing, health)
_TIDY_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 2.0
_BEAT_SECONDS: Final = 0.1
_log: Final = logging.getLogger("tallystick.serve")


def application(service: Service) -> ASGIApp:
    """The ASGI application of one service, which it closes at the end."""
    api = _in_turn(service, conventional(service))
    ingest, streaming, peers = Ingest(service), Streaming(service), service.peers

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD" and scope["path"] != STREAM_PATH:
            scope = {**scope, "method": "GET"}  # the server leaves the body out
        if service.settings.oidc is not None and scope["type"] != "lifespan":
            await service.settle(scope)
        if scope["type"] != "http" or scope["path"] == STREAM_PATH:  # which counts by itself
            await counted(scope, receive, send)
            return
        is_reading = scope["method"] in ("GET", "HEAD")
        with Answering(send, is_reading=is_reading, hold=lambda: service.answers.hold(_tenant(service, scope))) as one:
            scope["state"][ANSWERING] = one
            await counted(scope, receive, one.send)

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if peers is not None and scope["type"] != "lifespan":
            peers.take_over(scope)
            tenant = _tenant_elsewhere(service, peers, scope)
            if tenant is not None:
                with service.budget.hold(tenant) as hold:
                    await peers.hand_on(peers.owner(tenant), scope, receive, send, hold=hold)
                return
        if ingest.takes(scope):
            await ingest(scope, receive, send)
        elif streaming.takes(scope):
            await streaming(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            await _with_body(service, api, scope, receive, send)
        else:
            await api(scope, receive, send)

    measured = Measured(answered, service.metrics.http, bare=BARE_PATHS, endless=frozenset((STREAM_PATH,)))
    return logged(measured) if service.settings.log_requests else measured


def _in_turn(service: Service, api: ASGIApp) -> ASGIApp:
    """Give requests on, so that no tenant has all the threads. Whoever is not known is told so without one."""
    shares = Shares()

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        is_work = scope["type"] == "http" and not scope["path"].startswith(health.HEALTH)
        if not is_work or not any(name == b"authorization" for name, _ in scope["headers"]):
            await api(scope, receive, send)
            return
        try:
            turn = await shares.turn(service.caller_of(scope).tenant)
        except TallystickError as error:
            await answer(send, *await _problem(service, error, scope["method"]))
            return

        async def ended(message: Message) -> None:
            turn.end()
            await send(message)

        try:
            if not is_left(scope):
                await api(scope, receive, ended)
        finally:
            turn.end()

    return called


def _tenant(service: Service, scope: Scope) -> str:
    """The tenant of whoever asks; of those whom nobody knows all are one."""
    try:
        return service.caller_of(scope).tenant
    except TallystickError:
        return ""


def _tenant_elsewhere(service: Service, peers: Peers, scope: Scope) -> str | None:
    """The tenant of a request that another process has to answer. Whoever is not known is told so by this one."""
    if not peers.is_for_owner(scope):
        return None
    try:
        tenant = service.caller_of(scope).tenant
    except TallystickError:
        return None
    return None if peers.owner(tenant) == peers.index else tenant


async def _with_body(service: Service, api: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Give a request on with its body, which is read only from whoever is known, bounded in bytes and in time."""
    try:
        hold = service.budget.hold(service.caller_of(scope).tenant)
    except TallystickError as error:
        await service.note(error)
        await answer(send, *problem(error))
        return
    with hold:
        try:
            data = await read_body(receive, "", most=INPUT_BYTES_MAX, hold=hold)
        except LeftError:
            return
        except (AnsweredError, TallystickError) as error:
            await answer(send, *problem(error))
            return
        left = [{"type": "http.request", "body": data, "more_body": False}]

        async def replay() -> Any:
            return left.pop() if left else await receive()

        await api(scope, replay, send)


def conventional(service: Service) -> FastAPI:
    """All routes that are not bare ASGI, and the OpenAPI document of all."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = THREADS
        going = [asyncio.create_task(work(service)) for work in (_tidy, _look, _time_loop)]
        if service.authentication.issuer is not None:
            going.append(asyncio.create_task(service.authentication.issuer.keep_fresh()))
        service.begin()
        stopping = threading.Event()
        resuming = asyncio.create_task(_resume(service, stopping))
        yield
        stopping.set()
        await resuming
        service.streams.close()
        for task in going:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if service.peers is not None:
            await service.peers.close()
        await asyncio.to_thread(service.close)

    api = FastAPI(
        title="Tallystick",
        summary="An event-sourced, tamper-evident audit log",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            TallystickError: _tell,
            RequestValidationError: _tell_validation,
            HTTPException: _tell_http,
            Exception: _tell_mistake,
        },
    )
    api.state.service = service
    for part in _ROUTES:
        api.include_router(part.router)
    api.add_api_route("/docs", partial(_docs, api), methods=["GET"], include_in_schema=False)
    api.openapi = lambda: document(api, [part.router for part in _ROUTES])  # type: ignore[method-assign]  # as FastAPI has it done
    return api


def _docs(api: FastAPI) -> HTMLResponse:
    return HTMLResponse(page(api.openapi()), headers=POLICY)


async def _resume(service: Service, stopping: threading.Event) -> None:
    try:
        await asyncio.to_thread(service.deployment.resume_queues, service.writes, stopped=stopping.is_set)
    except Exception:  # noqa: BLE001 - they go on when somebody next uses them
        _log.exception("what an earlier process left in queues could not be looked for")


async def _tidy(service: Service) -> None:
    while True:
        await asyncio.sleep(_TIDY_SECONDS)
        for tidy in (service.deployment.tidy, service.jobs.tidy):
            try:
                await asyncio.to_thread(tidy)
            except Exception:  # noqa: BLE001 - it is tried again
                _log.exception("tidying up failed")


async def _look(service: Service) -> None:
    """Notice damage also where nobody reads or writes, by a thread of its own: it waits for nobody's work."""
    looking = ThreadPoolExecutor(1, "look")
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            await asyncio.get_running_loop().run_in_executor(looking, service.deployment.look)
        except Exception:  # noqa: BLE001 - it is tried again
            _log.exception("the files of the ledgers could not be looked at")


async def _time_loop(service: Service) -> None:
    """Measure by how much the loop is late, as whoever asks something of it just then finds it."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _BEAT_SECONDS
        await asyncio.sleep(_BEAT_SECONDS)
        service.metrics.http.stalled.observe(max(0.0, loop.time() - due))


# ------------------------------------------------------------------------------------------------ errors


async def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, TallystickError), "what it is registered for"
    status, headers, body = await _problem(request.app.state.service, error, request.method)
    return Response(body, status, headers)


async def _problem(service: Service, error: TallystickError, method: str) -> tuple[int, dict[str, str], bytes]:
    """What is answered, and noted and counted."""
    await service.note(error)
    status, headers, body = problem(error, reading=method == "GET")
    service.metrics.refused.labels(str(status)).inc()
    return status, headers, body


async def _tell_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "what it is registered for"
    first: Any = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    said = problem_of(400, "Mend the request, then send it again", first["msg"])
    request.app.state.service.metrics.refused.labels("400").inc()
    return _problem_response(said | {"place": where, "cure": "see /docs"})


async def _tell_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "what it is registered for"
    title = {404: "There is no such route", 405: "The route has no such method"}.get(error.status_code, "Refused")
    return _problem_response(problem_of(error.status_code, title, str(error.detail)), error.headers)


async def _tell_mistake(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    request.app.state.service.note_fault(error)
    return _problem_response(problem_of(500, "A mistake of ours", "it is in the diagnostics of the service"))


def _problem_response(said: dict[str, Any], headers: Any = None) -> Response:
    return Response(orjson.dumps(said), said["status"], headers, media_type=MEDIA_TYPE)
