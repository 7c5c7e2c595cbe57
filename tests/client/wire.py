"""What stands between a client and a service, and does it harm: small servers on loopback, of their own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

CUT_BEFORE: Final = "the request never arrives"
CUT_AFTER: Final = "the request arrives, its answer does not"
STALL: Final = "nothing comes back"


@dataclass
class Between:
    """A proxy: for each request the next of `harm` is done to it, and to the rest nothing."""

    url: str
    harm: list[str] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    """The heads of all that came."""


@contextmanager
def between(service: str) -> Iterator[Between]:
    """A proxy in front of a service."""
    target = urlsplit(service)
    assert target.hostname is not None
    upstream = (target.hostname, target.port or 80)
    stopped = threading.Event()

    def handle(connection: socket.socket) -> None:
        while (request := read_request(connection)) is not None:
            made.requests.append(request.partition(b"\r\n\r\n")[0])
            harm = made.harm.pop(0) if made.harm else ""
            if harm == CUT_BEFORE:
                return
            if harm == STALL:
                stopped.wait(60)
                return
            answer = ask(upstream, request)
            if harm == CUT_AFTER:
                return
            connection.sendall(answer)
            return

    with listening(handle) as url:
        made = Between(url)
        try:
            yield made
        finally:
            stopped.set()


def ask(upstream: tuple[str, int], request: bytes) -> bytes:
    """The whole answer to one request."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    with socket.create_connection(upstream, timeout=20) as there:
        there.sendall(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body)
        parts = []
        while part := there.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def read_request(connection: socket.socket) -> bytes | None:
    """One request with its body, None at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65_536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


@contextmanager
def listening(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that has each connection handled by a thread; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        def serve(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.settimeout(60)
                    handle(connection)
                except OSError:
                    return  # the other side has gone

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@dataclass
class Answering:
    """A server that gives one answer after the other, the last one for ever."""

    url: str
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def answering(*answers: bytes) -> Iterator[Answering]:
    """A server with prepared answers, each as it goes over the wire; the connection is closed behind each."""
    left = list(answers)
    turn = threading.Lock()

    def handle(connection: socket.socket) -> None:
        request = read_request(connection)
        if request is None:
            return
        with turn:
            made.requests.append(request)
            answer = left.pop(0) if len(left) > 1 else left[0]
        connection.sendall(answer)

    with listening(handle) as url:
        made = Answering(url)
        yield made


def http(status: int, body: bytes = b"", *headers: str, kind: str = "application/json") -> bytes:
    """An answer as it goes over the wire."""
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
