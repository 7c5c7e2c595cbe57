"""Streams: every record once and in order, soon after its commit, and nobody waits for a slow reader."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection as Connection
from websockets.sync.client import connect

from tallystick.limits import STREAMS_WAITING_BYTES_MAX
from tallystick.read.query import Query
from tallystick.read.subscription import Subscription
from tallystick.serve import past, streams
from tallystick.serve.ingest import BATCH_PATH, EVENTS_PATH
from tallystick.serve.past import Past
from tallystick.serve.streaming import EVENTS, MESSAGE_BYTES, STREAM_PATH, Turns
from tallystick.serve.streams import Piece, Reader, Waiting
from tests.serve.conftest import Running, running

NDJSON: Final = {"Content-Type": "application/x-ndjson"}


@contextmanager
def reading(
    it: Running, query: str = "", who: str = "acme/ReadOnly", **headers: str
) -> Iterator[Iterator[tuple[str, Any, int | None]]]:
    """The events of a stream as (event, data, id), once it has begun."""
    headers = {"Authorization": f"Bearer {it.keys.get(who, who)}", **headers}
    with (
        httpx2.Client(timeout=20) as client,
        client.stream("GET", f"{it.url}{STREAM_PATH}{query}", headers=headers) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == ": the stream begins"
        yield events(lines)


def events(lines: Iterator[str]) -> Iterator[tuple[str, Any, int | None]]:
    event, data, position = "", None, None
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            data = json.loads(value)
        elif name == "id":
            position = int(value)
        elif not line and data is not None:
            yield event, data, position
            event, data, position = "", None, None


def request(it: Running, entity: str) -> bytes:
    who = it.keys["acme/ReadOnly"]
    return f"GET {STREAM_PATH}?entity_id={entity} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {who}\r\n\r\n".encode()


def send(it: Running, count: int, entity: str, who: str = "acme/Admin", *, note: str = "") -> list[int]:
    more = {"note": note} if note else {}
    body = b"".join(
        json.dumps({"event_type": "door.opened", "entity_id": entity, "payload": {"n": n, **more}}).encode() + b"\n"
        for n in range(count)
    )
    answer = it.call("POST", BATCH_PATH, who, content=body, headers=NDJSON)
    assert answer.status_code == 201, answer.text
    return [one["position"] for one in answer.json()["events"]]


def test_a_reader_gets_what_was_what_is_and_what_comes(it: Running) -> None:
    before = send(it, 1_200, "s-1")
    with reading(it, f"?entity_id=s-1&first={before[0]}") as stream:
        seen = [next(stream)[2] for _ in before]
        after = send(it, 30, "s-1")
        send(it, 5, "s-other")
        last = send(it, 1, "s-1")
        seen += [next(stream)[2] for _ in [*after, *last]]
    assert seen == [*before, *after, *last]


def test_it_goes_on_behind_the_last_event_id(it: Running) -> None:
    sent = send(it, 10, "s-2")
    with reading(it, "?entity_id=s-2", **{"Last-Event-ID": str(sent[3])}) as stream:
        event, record, position = next(stream)
        assert (event, position, record["payload"]) == ("record", sent[4], {"n": 4})
        assert record["hash"] == it.call("GET", f"/api/v1/events/{position}").json()["hash"]
    with reading(it, "?entity_id=s-2") as stream:  # by default only what comes
        new = send(it, 1, "s-2")
        assert next(stream)[2] == new[0]


def test_nothing_is_missed_while_others_write(it: Running) -> None:
    stop = threading.Event()
    sent: list[int] = []

    def write() -> None:
        while not stop.is_set():
            sent.extend(send(it, 20, "s-3"))

    first = send(it, 1, "s-3")
    writer = threading.Thread(target=write)
    writer.start()
    seen: list[list[int | None]] = []
    try:
        for _ in range(5):
            with reading(it, f"?entity_id=s-3&first={first[0]}") as stream:
                seen.append([next(stream)[2] for _ in range(300)])
    finally:
        stop.set()
        writer.join()
    expected = [*first, *sent][:300]
    assert seen == [expected] * 5


def test_a_scope_and_a_tenant_bound_what_is_seen(it: Running) -> None:
    scoped = it.key("acme", "ReadOnly", entity_prefixes=["s-4"])
    with reading(it, who=scoped) as stream, reading(it, who="other/ReadOnly") as others:
        send(it, 3, "hidden")
        mine = send(it, 2, "s-4")
        theirs = send(it, 1, "x", who="other/Admin")
        assert [next(stream)[2] for _ in mine] == mine
        assert [next(others)[2] for _ in theirs] == theirs


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("?first=999999999", {}, 400),
        ("?end=5", {}, 400),
        ("?nonsense=1", {}, 400),
        ("", {"Last-Event-ID": "x"}, 400),
        ("", {"Authorization": "Bearer no"}, 401),
    ],
)
def test_what_cannot_begin_is_refused(it: Running, query: str, headers: dict[str, str], status: int) -> None:
    answer = it.call(
        "GET", f"{STREAM_PATH}{query}", None if headers.get("Authorization") else "acme/Admin", headers=headers
    )
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")


def test_a_revoked_key_reads_no_more(it: Running) -> None:
    key, text = it.deployment.create_key("acme", role="ReadOnly", name="brief", actor={"id": "t"})
    with reading(it, who=text) as stream:
        send(it, 1, "s-5")
        next(stream)
        it.deployment.revoke_key(key.id, actor={"id": "t"})
        time.sleep(0.05)
        send(it, 1, "s-5")
        send(it, 1, "s-5")
        assert len([*stream]) <= 1


@pytest.mark.slow
def test_a_slow_reader_is_let_go_and_holds_up_nobody(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAM_WAITING_BYTES_MAX", 1_000_000)
    monkeypatch.setattr(streams, "LINGER_SECONDS", 60.0)
    host, port = it.url.removeprefix("http://").split(":")
    slow = socket.create_connection((host, int(port)), timeout=20)
    slow.sendall(request(it, "s-6"))
    assert b"the stream begins" in slow.recv(4_096) + slow.recv(4_096)

    with reading(it, "?entity_id=s-6") as stream:
        seen: list[int | None] = []
        fast = threading.Thread(target=lambda: seen.extend(next(stream)[2] for _ in range(60 * 8)))
        fast.start()
        sent: list[int] = []
        took = []
        for _ in range(60):
            began = time.perf_counter()
            sent += send(it, 8, "s-6", note="x" * 30_000)
            took.append(time.perf_counter() - began)
        fast.join()
    assert seen == sent
    assert statistics.median(took) < 1
    pieces: list[bytes] = []
    while not b"".join(pieces[-2:]).endswith(b"\r\n0\r\n\r\n"):
        pieces.append(slow.recv(2**20))
    slow.close()
    data = b"".join(pieces)
    assert b"event: bye\n" in data
    said = json.loads(data.rpartition(b"event: bye\ndata: ")[2].partition(b"\n")[0])
    got = [int(line[4:]) for line in data.split(b"\n") if line.startswith(b"id: ")]
    assert said["why"] == "slow"
    assert got == sent[: len(got)]
    with reading(it, f"?entity_id=s-6&first={said['cursor']}") as stream:  # and nothing is lost to it
        assert [next(stream)[2] for _ in sent[len(got) :]] == sent[len(got) :]


def test_a_reader_who_does_not_read_at_all_is_cut_off(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAM_WAITING_BYTES_MAX", 1_000)
    monkeypatch.setattr(streams, "LINGER_SECONDS", 0.2)
    host, port = it.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(request(it, "s-9"))
        slow.recv(4_096)
        deadline = time.monotonic() + 20
        while not it.service.streams.readers and time.monotonic() < deadline:
            time.sleep(0.01)
        while it.service.streams.readers and time.monotonic() < deadline:
            send(it, 8, "s-9", note="x" * 30_000)
        assert it.service.streams.readers == 0


def test_readers_together_may_leave_so_much_unread_and_what_they_share_is_counted_once(
    it: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each of them alone may leave it all unread.
    monkeypatch.setattr(streams, "STREAM_WAITING_BYTES_MAX", 1 << 30)
    monkeypatch.setattr(streams, "STREAMS_WAITING_BYTES_MAX", 4_000_000)
    monkeypatch.setattr(streams, "LINGER_SECONDS", 0.2)
    host, port = it.url.removeprefix("http://").split(":")
    lines = [socket.create_connection((host, int(port)), timeout=20) for _ in range(6)]
    most = 0
    try:
        for number, line in enumerate(lines):
            line.sendall(request(it, "s-10" if number % 2 else f"s-10&payload.n<{100 + number}"))
            line.recv(4_096)
        deadline = time.monotonic() + 30
        while it.service.streams.readers < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        while it.service.streams.readers and time.monotonic() < deadline:
            send(it, 8, "s-10", note="x" * 60_000)
            most = max(most, it.service.streams.waiting.bytes)
        assert it.service.streams.readers == 0
    finally:
        for line in lines:
            line.close()
    assert 2_000_000 < most < 8_000_000
    assert it.service.streams.waiting.bytes == 0


def test_whoever_has_gone_leaves_nothing_in_memory(it: Running) -> None:
    send(it, 200, "s-11")
    before = len(subscriptions())
    for _ in range(12):
        with reading(it, "?entity_id=s-11&first=0") as stream:
            for _ in range(150):
                next(stream)
    deadline = time.monotonic() + 20
    while len(subscriptions()) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(subscriptions()) <= before


def subscriptions() -> list[Subscription]:
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, Subscription)]


def test_one_tenant_does_not_take_the_readers_of_all(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAM_READERS_TENANT_MAX", 2)
    with reading(it), reading(it):
        answer = it.call("GET", STREAM_PATH)
        assert answer.status_code == 503
        assert "one tenant" in answer.json()["detail"]
        with reading(it, who="other/ReadOnly"):
            pass


def test_a_record_is_there_soon_after_its_commit(it: Running) -> None:
    delays = []
    with reading(it, "?entity_id=s-7") as stream:
        for number in range(60):
            it.call("POST", EVENTS_PATH, json={"event_type": "a.b", "entity_id": "s-7", "payload": {"n": number}})
            committed = time.perf_counter()
            next(stream)
            delays.append(time.perf_counter() - committed)
    assert statistics.median(delays) < 0.05


def test_many_readers_share_what_is_made_once(it: Running) -> None:
    async def one(ready: asyncio.Semaphore) -> list[int]:
        host, port = it.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request(it, "s-8"))
        await reader.readuntil(b"the stream begins")
        ready.release()
        got: list[int] = []
        while len(got) < 40:
            line = await reader.readline()
            if line.startswith(b"id: "):
                got.append(int(line[4:]))
        writer.close()
        return got

    async def all_of_them() -> tuple[list[list[int]], list[int]]:
        ready = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(one(ready)) for _ in range(200)]
        for _ in tasks:
            await ready.acquire()
        sent: list[int] = []
        for _ in range(4):
            sent += await asyncio.to_thread(send, it, 10, "s-8")
        return await asyncio.gather(*tasks), sent

    seen, sent = asyncio.run(all_of_them())
    assert seen == [sent] * 200
    deadline = time.monotonic() + 10
    while it.service.streams.readers and time.monotonic() < deadline:
        time.sleep(0.05)
    assert it.service.streams.readers == 0


# ------------------------------------------------------------------------------------------ over a WebSocket


def socket_of(it: Running, query: str = "", who: str = "acme/ReadOnly") -> Connection:
    url = it.url.replace("http://", "ws://")
    return connect(
        f"{url}{STREAM_PATH}{query}", additional_headers={"Authorization": f"Bearer {it.keys.get(who, who)}"}
    )


def records_of(messages: Iterator[Any]) -> Iterator[Any]:
    for message in messages:
        yield from map(json.loads, message.splitlines())


def test_a_socket_gets_what_was_and_what_comes_in_order_and_once(it: Running) -> None:
    before = send(it, 1_200, "w-1")
    with socket_of(it, f"?entity_id=w-1&first={before[0]}") as line:
        records = records_of(iter(line))
        seen = [next(records)["position"] for _ in before]
        after = send(it, 30, "w-1")
        send(it, 5, "w-other")
        seen += [next(records)["position"] for _ in after]

    assert seen == before + after


def test_no_message_is_longer_than_what_clients_take(it: Running) -> None:
    before = send(it, 60, "w-long", note="x" * 20_000)
    with socket_of(it, f"?entity_id=w-long&first={before[0]}") as line:
        sizes, count = [], 0
        while count < len(before):
            message = line.recv(timeout=10)
            sizes.append(len(message))
            count += len(message.splitlines())
    assert max(sizes) <= MESSAGE_BYTES
    assert count == len(before)


@pytest.mark.parametrize(
    ("query", "who", "status"),
    [
        ("", "nonsense", 401),
        ("", "acme/ServiceAccount", 201),
        ("?first=999999999", "acme/ReadOnly", 400),
        ("?end=7", "acme/ReadOnly", 400),
        ("?after=never", "acme/ReadOnly", 400),
    ],
)
def test_a_socket_is_refused_in_http_with_the_problem(it: Running, query: str, who: str, status: int) -> None:
    if status == 201:  # it may read
        with socket_of(it, query, who):
            return
    with pytest.raises(InvalidStatus) as caught, socket_of(it, query, who):
        pass
    assert caught.value.response.status_code == status
    assert json.loads(caught.value.response.body or b"{}")["status"] == status


def raw_socket(it: Running, *headers: str, query: str = "") -> socket.socket:
    """A connection that has asked for a WebSocket."""
    address = urlsplit(it.url)
    line = socket.create_connection((address.hostname or "", address.port or 0), timeout=20)
    head = (
        f"GET {STREAM_PATH}{query} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {it.keys['acme/ReadOnly']}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    )
    line.sendall("\r\n".join((*head, "", "")).encode())
    return line


PING: Final = b"\x89\x80\0\0\0\0"
"""A ping of nothing, masked by zeros."""


def test_a_reader_who_says_much_is_told_to_go(it: Running) -> None:
    # A pong for each ping would wait for who does not read, and forty thousand fit into one read of the socket.
    with raw_socket(it) as line:
        assert line.recv(4_096).startswith(b"HTTP/1.1 101 ")
        line.sendall(PING * 1_000)
        pongs = b""
        while len(pongs) < 2_000:
            pongs += line.recv(65_536)
        assert pongs == b"\x8a\0" * 1_000
        line.sendall(PING * 2_000)
        last = b""
        with suppress(ConnectionResetError):  # there may be more on the way to who has left
            while more := line.recv(65_536):
                last += more
            assert last.startswith(b"\x88"), "a close frame"
            assert b"a reader of a stream says little" in last
    assert it.call("GET", "/health/live").status_code == 200


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([f"X-{number}: 1" for number in range(130)], ""),
        (["X-Long: " + "a" * 8_200], ""),
        ([], "?entity_id=" + "a" * 8_200),
    ],
)
def test_a_head_that_a_socket_does_not_take_is_refused(it: Running, headers: list[str], query: str) -> None:
    with raw_socket(it, *headers, query=query) as line:
        answer = line.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"at most 128 headers, and lines of 8192 bytes" in answer
        assert line.recv(1) == b""


def test_there_is_no_other_socket(it: Running) -> None:
    url = it.url.replace("http://", "ws://")
    headers = {"Authorization": f"Bearer {it.keys['acme/Admin']}"}
    with pytest.raises(InvalidStatus) as caught, connect(f"{url}/api/v1/events", additional_headers=headers):
        pass
    assert caught.value.response.status_code == 400


def test_who_talks_into_a_socket_is_not_listened_to(it: Running) -> None:
    with socket_of(it, "?entity_id=w-2") as line:
        for _ in range(50):
            line.send("hello")
        (position,) = send(it, 1, "w-2")
        assert json.loads(line.recv(timeout=10))["position"] == position
        line.send("x" * 100_000)
        with pytest.raises(ConnectionClosed):
            line.recv(timeout=10)


def test_a_revoked_key_hears_no_more_over_its_socket(it: Running) -> None:
    key, text = it.deployment.create_key("acme", role="ReadOnly", name="w", actor={"id": "t"})
    with socket_of(it, "?entity_id=w-3", text) as line:
        send(it, 1, "w-3")
        line.recv(timeout=10)
        it.deployment.revoke_key(key.id, actor={"id": "t"})
        send(it, 1, "w-3")
        with pytest.raises(ConnectionClosed):
            line.recv(timeout=10)


@pytest.mark.slow
def test_a_slow_socket_is_let_go_with_its_cursor(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAM_WAITING_BYTES_MAX", 400_000)
    monkeypatch.setattr(streams, "LINGER_SECONDS", 60.0)  # it is read to the end within that
    ended, end = threading.Event(), streams.Reader.end

    def noticed(reader: streams.Reader, why: str) -> None:
        end(reader, why)
        ended.set()

    monkeypatch.setattr(streams.Reader, "end", noticed)
    with socket_of(it, "?entity_id=w-slow") as line:
        sent = []
        while not ended.is_set():
            sent += send(it, 20, "w-slow", note="x" * 5_000)
        told = [json.loads(row) for message in line for row in message.splitlines()]
    assert told[-1]["bye"]["why"] == "slow"
    got = [one["position"] for one in told[:-1]]
    assert got == sent[: len(got)]
    assert told[-1]["bye"]["cursor"] == got[-1] + 1


# ------------------------------------------------------------------------------------------ joining, failing, ending


@pytest.mark.slow
def test_many_who_join_while_others_write_miss_nothing_and_get_nothing_twice(it: Running) -> None:
    """Each begins where the last record was that it may have seen, while a writer goes on as fast as it can."""
    stop = threading.Event()
    sent: list[int] = []

    def write() -> None:
        while not stop.is_set():
            sent.extend(send(it, 50, "j-1"))

    writer = threading.Thread(target=write)
    first = send(it, 1, "j-1")[0]
    writer.start()
    seen: list[list[int]] = []

    def read() -> None:
        with reading(it, f"?entity_id=j-1&first={first}") as stream:
            seen.append([int(next(stream)[2] or 0) for _ in range(4_000)])

    try:
        readers = [threading.Thread(target=read) for _ in range(12)]
        for reader in readers:
            reader.start()
            time.sleep(0.05)
        for reader in readers:
            reader.join(60)
    finally:
        stop.set()
        writer.join()

    expected = [first, *sent][:4_000]
    assert len(seen) == 12
    for positions in seen:
        assert positions == expected


def test_a_stream_that_fails_lets_all_go_and_the_next_reader_gets_a_new_one(
    it: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Subscription.take
    failing = threading.Event()

    def failed(subscription: Subscription, wait: float = 0.0, **named: Any) -> Any:
        if failing.is_set() and threading.current_thread().name.startswith("tallystick-stream"):
            failing.clear()
            raise ValueError("a mistake of ours")
        return take(subscription, wait, **named)

    monkeypatch.setattr(Subscription, "take", failed)
    with reading(it, "?entity_id=f-1") as stream:
        (position,) = send(it, 1, "f-1")
        assert next(stream)[2] == position
        failing.set()
        send(it, 1, "f-1")
        event, said, _ = next(stream)
        assert (event, said["why"]) == ("bye", "failed")
    with reading(it, f"?entity_id=f-1&first={said['cursor']}") as stream:
        send(it, 1, "f-1")
        assert [next(stream)[0] for _ in range(2)] == ["record", "record"]


def test_a_stop_does_not_wait_for_who_reads_what_was_before(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "JOIN_RECORDS", -1)  # so that it never joins
    with running(tmp_path) as it:
        send(it, 50, "p-1")
        stream = reading(it, "?entity_id=p-1&first=0")
        events_of_it = stream.__enter__()
        assert next(events_of_it)[0] == "record"
        began = time.monotonic()
    assert time.monotonic() - began < 10
    told = [*events_of_it]
    assert (told[-1][0], told[-1][1]["why"]) == ("bye", "closing")


def test_in_one_turn_of_the_loop_few_are_written_to() -> None:
    async def run() -> tuple[int, int]:
        turns, written, most, looks = Turns(), 0, 0, 0

        async def write() -> None:
            nonlocal written
            for _ in range(3):
                await turns.wait()
                written += 1

        tasks = [asyncio.create_task(write()) for _ in range(200)]
        while any(not task.done() for task in tasks):
            before = written
            await asyncio.sleep(0)
            most, looks = max(most, written - before), looks + 1
        return most, written

    most, written = asyncio.run(run())
    assert written == 600
    assert most <= 32  # those who were let in, and as many who came just then


def test_when_all_is_full_nobody_is_given_more_and_each_knows_where_to_go_on() -> None:
    async def run() -> None:
        waiting, task = Waiting(), asyncio.current_task()
        assert task is not None
        first, second = (Reader(7, task, EVENTS, waiting) for _ in range(2))
        first.give(Piece(b"a" * 100, waiting), 8)
        first.give(Piece(b"b" * 100, waiting), 9)
        assert (first.cursor, waiting.bytes) == (9, 200)
        waiting.bytes += STREAMS_WAITING_BYTES_MAX + 1
        second.give(Piece(b"", waiting), 10)
        assert (second.ended, second.cursor) == ("", 10)
        second.give(Piece(b"c" * 100, waiting), 11)
        first.give(Piece(b"c" * 100, waiting), 11)
        assert [(one.ended, one.cursor, one.bytes) for one in (first, second)] == [("slow", 7, 0), ("slow", 10, 0)]
        assert waiting.bytes == STREAMS_WAITING_BYTES_MAX + 1
        for reader in (first, second):
            reader.gone()

    asyncio.run(run())


def test_a_past_in_which_nothing_fits_is_looked_through_in_turns(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "_LOOKED_RECORDS", 100)
    monkeypatch.setattr(past, "TURN_SECONDS", 0.0)
    first, *_ = send(it, 1_000, "q-1")
    position = send(it, 1, "q-2")[0]
    look = Past(it.deployment.tenant("acme").ledger, it.deployment.lease, (Query.of(entity_id="q-2"), EVENTS), first)
    turns = 0
    while look.cursor < position:
        before = look.cursor
        assert look.more(position + 1) == b""
        assert before < look.cursor <= before + 200
        turns += 1
    assert turns >= 5
    assert look.more(position + 1)
    assert look.cursor == position + 1


def test_who_looks_for_what_is_not_there_holds_up_no_other_tenant(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    looking, let_on = threading.Semaphore(0), threading.Event()
    more = Past.more

    def slow(self: Past, end: int) -> bytes:
        if self._ledger == it.deployment.tenant("acme").ledger:
            looking.release()
            assert let_on.wait(20)
        return more(self, end)

    send(it, 10, "r-1")
    send(it, 3, "r-1", "other/Admin")
    monkeypatch.setattr(Past, "more", slow)
    monkeypatch.setattr(streams, "JOIN_RECORDS", -1)
    with ExitStack() as stack:
        stack.callback(let_on.set)
        for number in range(20):
            stack.enter_context(reading(it, f"?entity_id=nobody-{number}&first=0"))
        for _ in range(2):
            assert looking.acquire(timeout=20)
        with reading(it, "?entity_id=r-1&first=0", "other/ReadOnly") as stream:
            assert [next(stream)[0] for _ in range(3)] == ["record"] * 3
        assert not looking.acquire(blocking=False)
        looks = threading.Event()
        monkeypatch.setattr(it.deployment, "look", looks.set)
        assert looks.wait(20)  # the files of all ledgers are looked at meanwhile
        let_on.set()
