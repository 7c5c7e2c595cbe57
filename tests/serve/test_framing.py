"""Requests on one connection, however they are split: as many answers as requests, each its own."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import pytest

from tallystick.serve import protocol
from tallystick.serve.protocol import BoundedProtocol
from tests.conftest import program_of
from tests.serve.conftest import Running

REQUESTS: Final = int(os.environ.get("TALLYSTICK_TEST_PIPELINED", "4000"))
"""Of each way to the service; by hand there were 100,000."""

WORDS: Final = (
    b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    b"\r\nupgrade: h2c\r\n",
    b"POST /api/v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"0\r\n\r\n",
    b"\r\nContent-Length: 0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n5\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"\r\n\r\n",
    b'{"event_type":"a.b"}',
)
"""What bodies are made of."""


class Asked(NamedTuple):
    """A request as it is sent, and what its answer has to be."""

    data: bytes
    number: str
    status: int
    is_head: bool = False


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def asked(chance: random.Random, number: int, key: str, *, upgrades: bool = True) -> Asked:
    """A random request with a number of its own."""
    name = f"r-{number}"
    kind = chance.choice(("live", "missing", "head", "denied", "taken", "taken"))
    body = b"".join(chance.choices(WORDS, k=chance.randrange(6))) if kind == "denied" else b""
    method, path, status = {
        "live": ("GET", "/health/live", 200),
        "missing": ("GET", f"/nothing/{number}", 404),
        "head": ("HEAD", "/health/live", 200),
        "denied": ("POST", "/api/v1/events", 401),
        "taken": ("POST", "/api/v1/events", 201),
    }[kind]
    lines = [f"{method} {path} HTTP/1.1", "Host: tallystick.test", f"X-Request-ID: {name}"]
    if kind == "taken":
        words = b"".join(chance.choices(WORDS, k=3)).decode()
        body = json.dumps({"event_type": "a.b", "entity_id": name, "payload": {"w": words}}).encode()
        lines.append(f"Authorization: Bearer {key}")
    if upgrades and chance.random() < 0.3:
        lines += ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"]
    if body and chance.random() < 0.5:
        lines.append("Transfer-Encoding: chunked")
        cuts = sorted({0, len(body), *(chance.randrange(len(body) + 1) for _ in range(3))})
        chunks = [body[first:end] for first, end in itertools.pairwise(cuts)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    elif body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    chance.shuffle(lines[1:])
    return Asked("\r\n".join(lines).encode() + b"\r\n\r\n" + body, name, status, is_head=method == "HEAD")


class Line:
    """A connection, and the answers on it, one by one."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self.socket: Final = socket.create_connection((parts.hostname, parts.port), timeout=30)
        self._data = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, *, is_head: bool = False) -> Answered | None:
        """The next one; None when there is none any more."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        version, status, *_ = first.split(" ")
        assert version == "HTTP/1.1", first
        if is_head:
            return Answered(int(status), headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int((self._until(b"\r\n") or b"0").strip(), 16):
                body += self._take(size)
                assert self._take(2) == b"\r\n"
            assert self._take(2) == b"\r\n"
            return Answered(int(status), headers, body)
        return Answered(int(status), headers, self._take(int(headers["content-length"])))

    def close(self) -> None:
        self.socket.close()

    def _until(self, end: bytes) -> bytes | None:
        while end not in self._data:
            more = self.socket.recv(65_536)
            if not more:
                assert not self._data, self._data[:200]
                return None
            self._data += more
        found, _, self._data = self._data.partition(end)
        return found + end

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            more = self.socket.recv(65_536)
            assert more, "the connection ended amid an answer"
            self._data += more
        found, self._data = self._data[:size], self._data[size:]
        return found


def pieces(chance: random.Random, data: bytes) -> Iterator[bytes]:
    """The same bytes, split where it happens to be."""
    at = 0
    while at < len(data):
        step = chance.choice((1, 2, 7, 60, 300, 1_000, 5_000, 70_000))
        size = chance.randrange(1, step + 1)
        yield data[at : at + size]
        at += size


def pipeline(url: str, key: str, count: int, *, seed: int, upgrades: bool = True) -> int:
    """Send so many requests, many on a connection, and look at each answer; how many events were taken."""
    chance, number, taken = random.Random(seed), 0, 0
    while number < count:
        line = Line(url)
        wanted = [asked(chance, number + one, key, upgrades=upgrades) for one in range(chance.randrange(1, 50))]
        number += len(wanted)
        for piece in pieces(chance, b"".join(one.data for one in wanted)):
            line.send(piece)
        for one in wanted:
            found = line.answer(is_head=one.is_head)
            assert found is not None, one
            assert (found.status, found.headers["x-request-id"]) == (one.status, one.number), (one, found)
            taken += found.status == 201
        line.socket.settimeout(0.02)
        with pytest.raises(TimeoutError):
            line.socket.recv(1)  # there is no answer to nobody's request
        line.close()
    return taken


def test_many_requests_on_a_connection_are_each_answered_once_and_in_order(it: Running) -> None:
    before = it.call("GET", "/api/v1/ledger").json()["size"]
    taken = pipeline(it.url, it.keys["acme/Admin"], REQUESTS, seed=1)
    assert it.call("GET", "/api/v1/ledger").json()["size"] == before + taken


SERVED = textwrap.dedent("""
    import sys
    from tallystick.cli import main
    sys.exit(main())
""")


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[tuple[str, str]]:
    """A service of processes of its own: its address, and the operators' key."""
    command = [sys.executable, "-c", SERVED, "--json", "serve", "--data", str(folder), "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            told: dict[str, Any] = json.loads(process.stdout.readline())
            yield told["address"], told["first_key"]
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.mark.slow
def test_with_two_processes_too(tmp_path: Path) -> None:
    with served(tmp_path / "data", "--workers", "2") as (url, key):
        pipeline(url, key, REQUESTS, seed=2)


NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000;
  upstream tallystick {{ server {upstream}; keepalive 2; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://tallystick; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


@pytest.mark.slow
@pytest.mark.nginx
@pytest.mark.parametrize("workers", ["1", "2"])
def test_behind_a_proxy_that_keeps_connections_too(tmp_path: Path, workers: str) -> None:
    with served(tmp_path / "data", "--workers", workers) as (url, key):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = tmp_path / "nginx.conf"
        config.write_text(NGINX.format(folder=tmp_path, upstream=urlsplit(url).netloc, port=port))
        nginx = program_of("nginx") or "nginx"
        with subprocess.Popen([nginx, "-p", str(tmp_path), "-c", str(config)], stderr=subprocess.DEVNULL) as process:
            try:
                deadline = time.monotonic() + 20
                while True:
                    try:
                        socket.create_connection(("127.0.0.1", port)).close()
                        break
                    except OSError:
                        assert time.monotonic() < deadline, "nginx does not listen"
                        time.sleep(0.02)
                pipeline(f"http://127.0.0.1:{port}", key, REQUESTS, seed=3, upgrades=False)
            finally:
                process.terminate()


# -------------------------------------------------------------------------------------------------- what is refused


def said(it: Running, data: bytes) -> list[Answered]:
    """All answers to these bytes, until the connection ends."""
    line = Line(it.url)
    line.send(data)
    found = []
    while (one := line.answer()) is not None:
        found.append(one)
    line.close()
    return found


LIVE: Final = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Request-ID: first\r\n\r\n"
REFUSED: Final = {
    "no Host": b"GET /health/live HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /health/live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "a Host that is none": b"GET /health/live HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a WebSocket with a body": b"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nContent-Length: 4\r\n\r\nGET ",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_request_is_refused_behind_what_was_one(it: Running, what: str) -> None:
    assert [one.status for one in said(it, REFUSED[what])] == [400]
    both = said(it, LIVE + REFUSED[what] + LIVE)
    assert [one.status for one in both] == [200, 400]
    assert both[0].headers["x-request-id"] == "first"


def test_a_body_that_is_no_body_is_refused_and_what_follows_it_is_not_read(it: Running) -> None:
    head = b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    key = f"Authorization: Bearer {it.keys['acme/Admin']}\r\n\r\n".encode()
    for broken in (b"zz\r\n", b"5\r\nabcdeGET /health/live HTTP/1.1\r\n\r\n"):
        assert [one.status for one in said(it, head + key + broken + LIVE)] == [400]
        assert [one.status for one in said(it, LIVE + head + key + broken + LIVE)] == [200, 400]


def test_any_number_of_offers_at_once_is_ignored(it: Running) -> None:
    offer = LIVE.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    line = Line(it.url)
    line.send(offer * 1_500 + LIVE)
    assert {one.status for one in (line.answer() for _ in range(1_501)) if one is not None} == {200}
    line.close()


def test_an_upgrade_offer_within_a_body_is_the_body(it: Running) -> None:
    body = b"x\r\nupgrade: h2c\r\n\r\nGET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nX-Request-ID: one\r\nContent-Length: %d\r\n\r\n" % len(body)
    line = Line(it.url)
    line.send(head)
    line.send(body[:1])
    line.send(body[1:])
    line.send(LIVE)
    assert [(one.status, one.headers["x-request-id"]) for one in filter(None, (line.answer(), line.answer()))] == [
        (401, "one"),
        (200, "first"),
    ]
    line.close()


def test_who_gives_no_name_to_a_request_gets_one(it: Running) -> None:
    def name(**headers: str) -> str:
        return it.call("GET", "/health/live", None, headers=headers).headers["x-request-id"]

    assert name(**{"X-Request-ID": "order-7"}) == "order-7"
    assert name() != name()
    assert len(name(**{"X-Request-ID": "with blanks in it"})) == 24
    assert len(name(**{"X-Request-ID": "x" * 129})) == 24


def test_what_comes_behind_a_request_waits_as_bytes(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each request that is read ahead would be a dozen objects, and one read of the socket may bring ten thousand.
    open_at_once = []
    answered = BoundedProtocol._answered

    def look(self: BoundedProtocol, *given: Any) -> None:
        open_at_once.append(len(self._open) + len(self.pipeline))
        answered(self, *given)

    monkeypatch.setattr(BoundedProtocol, "_answered", look)
    line = Line(it.url)
    line.send(LIVE * 3_000)

    assert {one.status for one in (line.answer() for _ in range(3_000)) if one is not None} == {200}
    line.close()
    assert len(open_at_once) == 3_000
    assert max(open_at_once) <= 3, "one that is answered, and one more, of which the head ended with the next part"


def test_no_more_is_kept_behind_requests_than_the_process_has_room_for(
    it: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HELD_BYTES_MAX", 100_000)

    line, found = Line(it.url), []
    line.send(LIVE * 5_000)
    with suppress(ConnectionResetError):  # what is closed while more comes may end so
        while (one := line.answer()) is not None:
            found.append(one)
    line.close()

    assert 1 <= len(found) < 5_000
    assert {one.status for one in found} <= {200, 400}
    assert BoundedProtocol.held_bytes == 0
    assert it.call("GET", "/health/live").status_code == 200
