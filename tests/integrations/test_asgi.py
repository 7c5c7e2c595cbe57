"""Requests become events, whatever becomes of them; and no request notices."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

import tallystick
from tallystick.client.client import Client
from tallystick.integrations.asgi import AuditMiddleware
from tallystick.ledger import Ledger
from tests.integrations.conftest import sometimes_away
from tests.serve.conftest import Running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with tallystick.open(tmp_path / "ledger") as opened:
        yield opened


async def item(request: Request) -> Response:
    return JSONResponse({"item": request.path_params["name"]}, int(request.query_params.get("status", "200")))


async def fail(_: Request) -> Response:
    raise ValueError("the till is empty")


async def stream(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"piece"
            await asyncio.sleep(0.05)

    return StreamingResponse(pieces())


async def broken(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"piece"
        raise ValueError("in the middle")

    return StreamingResponse(pieces())


async def health(_: Request) -> Response:
    return PlainTextResponse("ok")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        return


async def refuse(socket: WebSocket) -> None:
    await socket.close(4_001)


def principal(scope: Any) -> Any:
    headers = dict(scope["headers"])
    if b"x-broken" in headers:
        raise KeyError("no such user")
    user = headers.get(b"x-user")
    return {"id": user.decode(), "type": "user"} if user else None


def application(destination: Any, **options: Any) -> Starlette:
    """A small application with the middleware."""
    routes = [
        Route("/items/{name}", item, methods=["GET", "POST"]),
        Route("/fail", fail),
        Route("/stream", stream),
        Route("/broken", broken),
        Route("/health", health),
        Mount("/inner", routes=[Route("/items/{name}", item)]),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/refuse", refuse),
    ]
    audit = Middleware(AuditMiddleware, destination, principal=principal, skip=["/health", "/static/*"], **options)
    return Starlette(routes=routes, middleware=[audit])


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The application in a real server; its URL. When it is left, the application has ended."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def requests(source: Ledger | Client) -> list[Any]:
    return [*source.records(event_type="http.*")]


def test_a_request_becomes_an_event(ledger: Ledger) -> None:
    headers = {
        "X-User": "jane",
        "X-Request-ID": "req-1",
        "X-Correlation-ID": "corr-1",
        "User-Agent": "browser/1",
        "Authorization": "Bearer very-secret",
        "Cookie": "session=very-secret",
    }
    with serving(application(ledger)) as url:
        answer = httpx2.post(f"{url}/items/ball?token=very-secret", headers=headers, content=b"very-secret body")
        assert answer.json() == {"item": "ball"}

    (record,) = requests(ledger)
    duration = record.payload.pop("duration_ms")
    assert record.payload == {
        "method": "POST",
        "path": "/items/ball",
        "route": "/items/{name}",
        "status": 200,
        "complete": True,
    }
    assert 0 < duration < 60_000
    assert (record.event_type, record.entity_id) == ("http.request", "POST /items/{name}")
    assert record.actor == {"id": "jane", "type": "user"}
    assert record.context == {
        "ip": "127.0.0.1",
        "user_agent": "browser/1",
        "request_id": "req-1",
        "correlation_id": "corr-1",
        "protocol": "http/1.1",
    }
    assert b"very-secret" not in record.line


def test_what_becomes_of_requests_is_told(ledger: Ledger) -> None:
    with serving(application(ledger, record_query=True)) as url, httpx2.Client(base_url=url) as caller:
        assert caller.get("/items/x?status=404&b=%20").status_code == 404
        assert caller.get("/nowhere").status_code == 404
        assert caller.get("/fail", headers={"Connection": "close"}).status_code == 500  # as uvicorn does then
        assert caller.get("/stream").text == "piece" * 3
        with pytest.raises(httpx2.TransportError):
            caller.get("/broken")
        assert caller.get("/health").text == "ok"
        assert caller.get("/static/x").status_code == 404
        assert caller.get("/inner/items/y", headers={"X-Broken": "1"}).status_code == 200

    found = [
        (
            one.payload["path"],
            one.payload["route"],
            one.payload["status"],
            one.payload["complete"],
            one.payload.get("error"),
        )
        for one in requests(ledger)
    ]
    assert found == [
        ("/items/x", "/items/{name}", 404, True, None),
        ("/nowhere", None, 404, True, None),
        ("/fail", "/fail", 500, False, "ValueError"),
        ("/stream", "/stream", 200, True, None),
        ("/broken", "/broken", 500, False, "ValueError"),
        ("/inner/items/y", "/items/{name}", 200, True, None),
    ]
    records = requests(ledger)
    assert records[0].payload["query"] == "status=404&b=%20"
    assert records[0].actor == {"id": "anonymous"}
    assert records[-1].actor == {"id": "unknown"}
    assert records[3].payload["duration_ms"] >= 100


def test_an_exception_goes_on_to_whoever_is_outside(ledger: Ledger) -> None:
    with TestClient(application(ledger)) as caller, pytest.raises(ValueError, match="the till is empty"):
        caller.get("/fail")

    assert [one.payload["status"] for one in requests(ledger)] == [500]


def test_websockets_are_recorded_when_they_are_over(ledger: Ledger) -> None:
    with TestClient(application(ledger)) as caller:
        with caller.websocket_connect("/echo", headers={"X-User": "jane"}) as connection:
            connection.send_text("said")
            assert connection.receive_text() == "said"
            connection.close(4_000)
        with pytest.raises(WebSocketDisconnect), caller.websocket_connect("/refuse"):
            pass

    first, second = requests(ledger)
    assert (first.event_type, first.entity_id, first.actor) == (
        "http.websocket",
        "WEBSOCKET /echo",
        {"id": "jane", "type": "user"},
    )
    assert (first.payload["status"], first.payload["close_code"]) == (101, 4_000)
    assert (second.payload["status"], second.payload["close_code"]) == (403, 4_001)
    assert first.context["protocol"].startswith("websocket")


@pytest.mark.slow
def test_it_records_into_the_service(it: Running) -> None:
    with Client(it.url, it.keys["acme/Admin"]) as client:
        with serving(application(client)) as url:
            for number in range(50):
                httpx2.get(f"{url}/items/{number}", headers={"X-User": f"user-{number}"})

        actors = [(one.actor or {})["id"] for one in requests(client)]
        assert actors == [f"user-{number}" for number in range(50)]


def test_no_request_notices_that_the_service_is_away(it: Running) -> None:
    with sometimes_away(it) as away:
        app = application(away.client, events_max=5, seconds=0.2)
        with serving(app) as url, httpx2.Client(base_url=url) as caller:
            began = time.monotonic()
            answers = [caller.get("/items/x").status_code for _ in range(20)]
            took = time.monotonic() - began

        assert answers == [200] * 20
        assert took < 20


def test_what_nobody_foresaw_is_recorded_all_the_same(ledger: Ledger) -> None:
    """Paths and headers are the caller's to choose."""
    with serving(application(ledger)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            path = "/%00%0a%ff" + "x" * 5_000
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: ".encode()
                + b"\xff" * 1_000
                + b"\r\nX-User: \xe4\r\n\r\n"
            )
            while connection.recv(65_536):
                pass

    (record,) = requests(ledger)
    assert record.payload["status"] == 404
    assert record.payload["path"].startswith("/\x00\n")
    assert len(record.payload["path"].encode()) <= 2_048
    assert record.entity_id.startswith("GET /??")
    assert record.actor == {"id": "unknown"}  # the bytes were no name for the application's own function


def test_the_end_of_the_application_waits_for_what_is_to_be_sent(it: Running) -> None:
    ended: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        ended.append("the application")

    with sometimes_away(it) as away:
        app = application(away.client, seconds=30)
        app.router.lifespan_context = lifespan
        with serving(app) as url:
            for number in range(10):
                httpx2.get(f"{url}/items/last-{number}")
            threading.Timer(0.3, away.there.set).start()

        paths = [one.payload["path"] for one in requests(away.client)]
        assert [path for path in paths if "last-" in path] == [f"/items/last-{number}" for number in range(10)]
    assert ended == ["the application"]
