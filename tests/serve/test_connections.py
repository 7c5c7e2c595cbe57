"""Connections without end: whoever asks is let in, and who only holds one gives way."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tallystick.serve.crowd import BACKLOG_MAX, CONNECTIONS_MAX, SILENT_MAX, Bounds, Crowd, Place
from tallystick.serve.server import Listening
from tests.serve.conftest import Running, running
from tests.serve.identity import certificate

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
BOUNDS = Bounds(speaking=100, silent=20)
EVENT = b'{"event_type":"a.b","entity_id":"e"}'


def test_who_asks_is_let_in_however_many_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "within", lambda _: BOUNDS)
    with running(tmp_path / "data") as it, crowding(it) as crowd:
        kept = crowd.line()
        assert crowd.ask_on(kept) == 201
        for _ in range(BOUNDS.speaking + BOUNDS.silent):
            crowd.open()
        assert crowd.ask_on(kept) == 201  # who was answered before is not closed for those who never spoke
        assert it.call("GET", "/health/live", None).status_code == 200
        assert crowd.ask() == 201
        assert crowd.left_open() <= BOUNDS.silent
        assert crowd.ask_on(kept) == 201


def test_who_asks_is_let_in_however_many_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "within", lambda _: BOUNDS)
    with running(tmp_path / "data") as it, crowding(it) as crowd:
        for _ in range(2 * BOUNDS.speaking):
            one = crowd.open()
            one.sendall(LIVE)
            assert one.recv(12) == b"HTTP/1.1 200"
        assert crowd.ask() == 201
        assert crowd.left_open() <= BOUNDS.speaking // 2  # all are of one address
        assert crowd.socks[-1].fileno() > 0
        crowd.socks[-1].sendall(LIVE)  # of those at rest the oldest went first
        assert crowd.socks[-1].recv(12)


def test_who_is_being_answered_is_not_closed_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "within", lambda _: BOUNDS)
    with running(tmp_path / "data") as it, crowding(it) as crowd:
        head = b"GET /api/v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"
        for _ in range(BOUNDS.speaking // 2):
            one = crowd.open()
            one.sendall(head % it.keys["acme/Admin"].encode())
            assert one.recv(12) == b"HTTP/1.1 200"
        assert crowd.ask() == 503
        assert crowd.left_open() == BOUNDS.speaking // 2


def test_those_who_never_agree_on_keys_give_way_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "within", lambda _: BOUNDS)
    pem = certificate(tmp_path)
    at = Listening(certificate=pem, private_key=pem)
    monkeypatch.setattr("tests.serve.conftest.Listening", lambda: at)
    with running(tmp_path / "data") as it, crowding(it) as crowd:
        trusting = ssl.create_default_context(cafile=str(pem))
        kept = crowd.line(trusting)
        assert crowd.ask_on(kept) == 201
        for _ in range(BOUNDS.speaking + BOUNDS.silent):
            crowd.open()
        assert crowd.ask_on(kept) == 201
        assert crowd.ask_on(crowd.line(trusting)) == 201
        assert crowd.left_open() <= BOUNDS.silent


@pytest.mark.parametrize("handles", [64, 256, 1_024, 4_096, 16_384, 1_048_576])
def test_connections_leave_handles_for_ledgers(handles: int) -> None:
    bounds = Bounds.within(handles)
    assert min(bounds) > 0
    assert sum(bounds) <= max(handles // 2, 40)
    assert bounds <= (CONNECTIONS_MAX, SILENT_MAX, BACKLOG_MAX)


class Line:
    """A connection that is none."""

    def __init__(self, crowd: Crowd, host: str | None) -> None:
        self.is_open = True
        self.place: Place = crowd.enter(host, self.abort)

    def abort(self) -> None:
        self.is_open = False

    def asked(self) -> Line:
        assert self.place.speak()
        self.place.rest()
        return self


def test_one_address_has_half_of_it() -> None:
    crowd = Crowd(Bounds(speaking=8, silent=4))
    others = [Line(crowd, "192.0.2.1").asked() for _ in range(3)]
    quiet = Line(crowd, "192.0.2.1")
    many = [Line(crowd, "192.0.2.9").asked() for _ in range(20)]
    assert [line.is_open for line in many] == [False] * 16 + [True] * 4
    silent = [Line(crowd, "192.0.2.9") for _ in range(20)]
    assert [line.is_open for line in silent] == [False] * 18 + [True] * 2
    assert quiet.is_open
    assert all(line.is_open for line in others)


def test_a_network_of_the_new_protocol_is_one_address() -> None:
    crowd = Crowd(Bounds(speaking=8, silent=4))
    many = [Line(crowd, f"2001:db8::{number:x}:1").asked() for number in range(1, 9)]
    assert sum(line.is_open for line in many) == 4
    apart = [Line(crowd, f"2001:db8:{number:x}::1").asked() for number in range(1, 5)]
    mapped = [Line(crowd, f"::ffff:192.0.2.{number}").asked() for number in range(1, 5)]
    assert sum(line.is_open for line in many + apart) == 4
    assert all(line.is_open for line in mapped)


def test_a_proxy_that_is_trusted_speaks_for_many() -> None:
    crowd = Crowd(Bounds(speaking=8, silent=4), is_proxy="10.0.0.1".__eq__)
    lines = [Line(crowd, "10.0.0.1").asked() for _ in range(8)]
    assert all(line.is_open for line in lines)
    assert Line(crowd, "10.0.0.1").asked().is_open
    assert [line.is_open for line in lines] == [False] + [True] * 7


def test_other_processes_of_ours_are_not_counted() -> None:
    crowd = Crowd(Bounds(speaking=2, silent=1))
    lines = [Line(crowd, None).asked() for _ in range(8)]
    assert all(line.is_open for line in lines)


def test_nobody_is_closed_while_answered() -> None:
    crowd = Crowd(Bounds(speaking=2, silent=2), is_proxy="10.0.0.1".__eq__)
    first, second, third = (Line(crowd, "10.0.0.1") for _ in range(3))
    assert not first.is_open  # it came first, and said nothing
    first = Line(crowd, "10.0.0.1")
    assert second.is_open is False
    assert first.place.speak()
    assert third.place.speak()
    last = Line(crowd, "10.0.0.1")
    assert not last.place.speak()
    first.place.rest()
    assert last.place.speak()
    assert not first.is_open
    for line in (first, third, last):
        line.place.leave()
        line.place.leave()
    assert crowd.is_empty


class Crowding:
    """Connections to a service, and one who asks."""

    def __init__(self, it: Running) -> None:
        self._it = it
        self.host, self.port = urlsplit(it.url).hostname or "", urlsplit(it.url).port or 0
        self.socks: list[socket.socket] = []
        self.lines: list[http.client.HTTPConnection] = []

    def open(self) -> socket.socket:
        one = socket.create_connection((self.host, self.port), timeout=20)
        self.socks.append(one)
        return one

    def line(self, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        """A connection on which something is asked."""
        if context is None:
            made = http.client.HTTPConnection(self.host, self.port, timeout=20)
        else:
            made = http.client.HTTPSConnection(self.host, self.port, timeout=20, context=context)
        self.lines.append(made)
        return made

    def ask(self) -> int:
        return self.ask_on(self.line())

    def ask_on(self, line: http.client.HTTPConnection) -> int:
        headers = {"Authorization": f"Bearer {self._it.keys['acme/Admin']}"}
        line.request("POST", "/api/v1/events", body=EVENT, headers=headers)
        with line.getresponse() as found:
            found.read()
            return found.status

    def left_open(self) -> int:
        """How many of them the service has not closed; asked once it has had to do with a later one."""
        return sum(is_open(one) for one in self.socks)


def is_open(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        while True:
            if not one.recv(65_536):
                return False
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    finally:
        one.settimeout(20)


@contextmanager
def crowding(it: Running) -> Iterator[Crowding]:
    crowd = Crowding(it)
    try:
        yield crowd
    finally:
        for one in crowd.socks:
            one.close()
        for line in crowd.lines:
            line.close()
