"""Reading on: each record once and in order, whatever happens to the connection."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tallystick.client import stream
from tallystick.client.client import Client
from tallystick.client.stream import Following, frames
from tallystick.core.record import Record
from tallystick.errors import BusyError, DeniedError, RejectedError, StoreError, TamperError
from tests.client.wire import http, listening, read_request
from tests.serve.conftest import Running

KEY: Final = "ts_0123456789abcdef_" + "a1" * 32
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def send(client: Client, entity: str, count: int) -> list[int]:
    events = [{"event_type": "door.opened", "entity_id": entity, "payload": {"n": n}} for n in range(count)]
    return [one.position for one in client.append_many(events)]


def taken(subscription: Following, count: int) -> list[int]:
    records = [subscription.take(20) for _ in range(count)]
    assert None not in records
    return [record.position for record in records if record is not None]


@pytest.fixture
def record_lines(client: Client, it: Running) -> list[bytes]:
    """Three records as the stream has them."""
    positions = send(client, "s-frames", 3)
    return [it.call("GET", f"/api/v1/events/{position}").content for position in positions]


def frame(line: bytes, position: int) -> bytes:
    return b"id: %d\nevent: record\ndata: %b\n\n" % (position, line)


def test_a_subscriber_gets_what_was_and_what_comes(client: Client) -> None:
    before = send(client, "s-1", 1_500)
    with client.subscribe(entity_id="s-1") as subscription:
        assert taken(subscription, 1_500) == before
        after = send(client, "s-1", 3)
        assert taken(subscription, 3) == after
        assert subscription.cursor == after[-1] + 1
        assert subscription.take(0.05) is None
        assert subscription.take(0) is None
    with client.subscribe(entity_id="s-1", cursor=before[-1]) as subscription:
        assert taken(subscription, 2) == [before[-1], after[0]]
    with client.subscribe(entity_id="s-1", first=after[1]) as subscription:
        assert taken(subscription, 2) == after[1:]


def test_an_iteration_ends_when_it_is_closed(client: Client) -> None:
    send(client, "s-2", 1)
    subscription = client.subscribe(entity_id="s-2")
    seen: list[Record] = []
    thread = threading.Thread(target=lambda: seen.extend(subscription))
    thread.start()
    deadline = time.monotonic() + 10
    while not seen and time.monotonic() < deadline:
        time.sleep(0.01)

    subscription.close()
    thread.join(10)

    assert not thread.is_alive()
    assert len(seen) == 1


def test_a_closed_subscription_leaves_no_thread_behind(client: Client) -> None:
    with client.subscribe(entity_id="nobody") as subscription:
        assert subscription.take(0.2) is None
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(one.name == "tallystick-client-stream" for one in threading.enumerate()):
        time.sleep(0.01)

    assert not [one for one in threading.enumerate() if one.name == "tallystick-client-stream"]


def test_a_client_that_is_closed_ends_what_it_follows(it: Running) -> None:
    client = Client(it.url, it.keys["acme/Admin"])
    subscription = client.subscribe(entity_id="nobody")
    assert subscription.take(0.2) is None
    threading.Timer(0.2, client.close).start()

    with pytest.raises(StoreError, match="closed"):
        subscription.take(20)
    subscription.close()


def pipes(upstream: tuple[str, int], cut_after: Iterator[int]) -> Any:
    """Hands each connection on, and cuts it after some bytes of the answer."""

    def handle(connection: socket.socket) -> None:
        request = read_request(connection)
        left = next(cut_after, 1 << 40)
        with socket.create_connection(upstream, timeout=60) as there:
            there.sendall(request or b"")
            while left > 0 and (part := there.recv(min(left, 65_536))):
                connection.sendall(part)
                left -= len(part)

    return handle


def test_a_cut_stream_goes_on_where_it_was(it: Running, client: Client) -> None:
    positions = send(client, "s-3", 500)
    host, port = it.url.removeprefix("http://").split(":")
    cuts = iter([10, 300, 5_000, 5_001, 20_000, 33_333, 120_000])
    with (
        listening(pipes((host, int(port)), cuts)) as url,
        Client(url, it.keys["acme/Admin"]) as cut,
        cut.subscribe(entity_id="s-3") as subscription,
    ):
        seen = taken(subscription, 500)
        more = send(client, "s-3", 2)
        seen += taken(subscription, 2)

    assert seen == positions + more
    assert next(cuts, None) is None


def test_one_who_takes_slowly_is_let_go_and_misses_nothing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.serve.streams.STREAM_WAITING_BYTES_MAX", 200_000)
    monkeypatch.setattr(stream, "_AHEAD_RECORDS", 5)
    first = send(client, "s-4", 1)
    with client.subscribe(entity_id="s-4") as subscription:
        assert taken(subscription, 1) == first
        big = [{"event_type": "door.opened", "entity_id": "s-4", "payload": {"x": "y" * 30_000}}] * 300
        sent = [one.position for batch in range(2) for one in client.append_many(big)]

        assert taken(subscription, 600) == sent


def test_what_comes_twice_is_given_once(record_lines: list[bytes]) -> None:
    positions = [int(line.rpartition(b'"position":')[2].partition(b",")[0]) for line in record_lines]
    asked: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        asked.append(read_request(connection) or b"")
        lines = [0, 1] if len(asked) == 1 else [0, 1, 2]
        body = b"".join(frame(record_lines[at], positions[at]) for at in lines)
        connection.sendall(_HEAD + b": the stream begins\n\n" + body)

    with listening(handle) as url, Client(url, KEY) as client, client.subscribe() as subscription:
        assert taken(subscription, 3) == positions

    assert b"first=0" in asked[0]
    assert f"\r\nLast-Event-ID: {positions[1]}\r\n".encode() in asked[1]


def test_a_service_that_is_away_too_long_is_busy_and_can_be_gone_on_with(it: Running, client: Client) -> None:
    positions = send(client, "s-5", 2)
    host, port = it.url.removeprefix("http://").split(":")
    away = threading.Event()
    hand_on = pipes((host, int(port)), iter([]))

    def handle(connection: socket.socket) -> None:
        if not away.is_set():
            hand_on(connection)

    away.set()
    with (
        listening(handle) as url,
        Client(url, it.keys["acme/Admin"], seconds=0.5) as cut,
        cut.subscribe(entity_id="s-5") as subscription,
    ):
        with pytest.raises(BusyError):
            subscription.take(20)
        away.clear()
        assert taken(subscription, 2) == positions


def test_what_is_refused_is_told(it: Running, client: Client) -> None:
    with client.subscribe(cursor=10**9) as subscription, pytest.raises(RejectedError, match="there is no position"):
        subscription.take(20)
    with pytest.raises(RejectedError):
        client.subscribe(end=5)
    with pytest.raises(RejectedError):
        client.subscribe(cursor=-1)
    with Client(it.url, KEY) as nobody, nobody.subscribe() as subscription, pytest.raises(DeniedError):
        subscription.take(20)


def test_a_ledger_that_has_become_shorter_is_an_alarm(record_lines: list[bytes]) -> None:
    position = int(record_lines[0].rpartition(b'"position":')[2].partition(b",")[0])
    problem = b'{"status":400,"family":"rejected","detail":"there is no such position yet","place":"cursor"}'
    count = iter(range(10))

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        first = next(count) == 0
        connection.sendall(
            _HEAD + frame(record_lines[0], position) if first else http(400, problem, kind="application/problem+json")
        )

    with listening(handle) as url, Client(url, KEY) as client, client.subscribe() as subscription:
        assert taken(subscription, 1) == [position]
        with pytest.raises(TamperError, match="fewer now"):
            subscription.take(20)


@pytest.mark.parametrize(
    ("body", "family"),
    [
        (b"id: 5\nevent: record\ndata: {}\n\n", StoreError),
        (b"id: x\nevent: record\ndata: LINE\n\n", StoreError),
        (b"event: record\ndata: LINE\n\n", StoreError),
        (b"event: bye\ndata: nonsense\n\n", StoreError),
        (b"data: " + b"x" * 200_000, StoreError),
    ],
)
def test_a_stream_that_is_none_is_one_clear_error(
    record_lines: list[bytes], body: bytes, family: type[Exception]
) -> None:
    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(_HEAD + body.replace(b"LINE", record_lines[0]))

    with (
        listening(handle) as url,
        Client(url, KEY) as client,
        client.subscribe() as subscription,
        pytest.raises(family),
    ):
        subscription.take(20)


def test_frames_are_read_however_they_are_cut() -> None:
    data = b": beat\n\nid: 1\nevent: record\ndata: a\n\ndata:b\r\n\r\nevent: bye\ndata: {}\n\nid: 9\ndata: cut"
    expected = [("record", b"a", "1"), ("", b"b", ""), ("bye", b"{}", "")]

    for size in (1, 2, 3, 7, 1_000):
        chunks = (data[start : start + size] for start in range(0, len(data), size))
        assert [*frames(chunks)] == expected
