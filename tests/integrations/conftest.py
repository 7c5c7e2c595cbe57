"""A service that really listens, and one that can be away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tallystick.client.client import Client
from tests.client.wire import ask, listening, read_request
from tests.serve.conftest import Running, it

__all__ = ["Away", "it", "sometimes_away"]


@dataclass
class Away:
    """A client of a service that is there or not."""

    client: Client
    there: threading.Event
    asked: threading.Event
    """Set whenever somebody asks while it is away."""


@contextmanager
def sometimes_away(it: Running) -> Iterator[Away]:
    """A client that reaches the service through something that lets nobody through while it is away."""
    host, port = it.url.removeprefix("http://").split(":")
    there, asked = threading.Event(), threading.Event()

    def handle(connection: socket.socket) -> None:
        if not there.is_set():
            asked.set()
            return
        request = read_request(connection)
        if request is not None:
            connection.sendall(ask((host, int(port)), request))

    with listening(handle) as url, Client(url, it.keys["acme/Admin"], seconds=2) as client:
        yield Away(client, there, asked)
