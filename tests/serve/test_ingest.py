"""The way in: what is answered when, bounds, encodings, and nothing lost or doubled by whoever tries again."""

from __future__ import annotations

import gzip
import json
import os
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import zstandard

from tallystick.limits import BATCH_EVENTS_MAX, BODY_BYTES_MAX, INPUT_BYTES_MAX
from tallystick.serve import ingest
from tallystick.serve.ingest import BATCH_PATH, EVENTS_PATH
from tallystick.serve.problems import OverQuotaError
from tallystick.serve.protocol import HEAD_BYTES_MAX
from tests.serve.conftest import Running, running

EVENT: Final = {"event_type": "doc.read", "entity_id": "doc-1"}
NDJSON: Final = {"Content-Type": "application/x-ndjson"}


def lines(count: int, **members: Any) -> bytes:
    return b"".join(json.dumps({**EVENT, **members, "payload": {"n": n}}).encode() + b"\n" for n in range(count))


def test_an_event_is_durable_when_it_is_answered(it: Running) -> None:
    answer = it.call("POST", EVENTS_PATH, json=EVENT)

    assert answer.status_code == 201
    told = answer.json()
    assert [*told] == ["id", "position", "recorded_at", "entity_id", "entity_version", "hash", "replayed"]
    record = it.call("GET", f"/api/v1/events/{told['id']}")
    assert record.json()["hash"] == told["hash"]
    assert record.headers["ETag"] == f'"{told["hash"]}"'
    again = it.call("GET", f"/api/v1/events/{told['position']}", headers={"If-None-Match": record.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_refusal_names_the_family_of_the_error(it: Running) -> None:
    it.call("POST", EVENTS_PATH, json={**EVENT, "id": "family"})
    refusals = [
        it.call("POST", EVENTS_PATH, json={}),
        it.call("POST", EVENTS_PATH, json={**EVENT, "id": "family", "payload": {"x": 1}}),
        it.call("POST", EVENTS_PATH, None, json=EVENT),
        it.call("POST", EVENTS_PATH, "acme/ReadOnly", json=EVENT),
        it.call("GET", "/api/v1/events/no-such-event"),
    ]
    assert [(one.status_code, one.json()["family"]) for one in refusals] == [
        (400, "rejected"),
        (409, "conflict"),
        (401, "denied"),
        (403, "denied"),
        (404, "not-found"),
    ]


def test_the_same_key_is_the_same_event(it: Running) -> None:
    headers = {"Idempotency-Key": "once-1"}
    first = it.call("POST", EVENTS_PATH, json=EVENT, headers=headers)
    second = it.call("POST", EVENTS_PATH, json={**EVENT, "id": "once-1"}, headers=headers)
    other = it.call("POST", EVENTS_PATH, json={**EVENT, "payload": {"x": 1}}, headers=headers)
    torn = it.call("POST", EVENTS_PATH, json={**EVENT, "id": "another"}, headers=headers)

    assert (first.status_code, second.status_code, other.status_code, torn.status_code) == (201, 200, 409, 400)
    assert second.json() == {**first.json(), "replayed": True}
    assert first.json()["id"] == "once-1"


def test_an_expected_version_holds_or_is_a_conflict(it: Running) -> None:
    event = {**EVENT, "entity_id": "versioned", "expected_version": "none"}
    assert it.call("POST", EVENTS_PATH, json=event).status_code == 201
    refused = it.call("POST", EVENTS_PATH, json=event)
    assert refused.status_code == 409
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert "version 1" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"event_type":"a b","entity_id":"x"}', "/event_type"),
        (b'{"entity_id":"x"}', "/event_type"),
        (b'{"event_type":"a.b","entity_id":"x","nonsense":1}', "/nonsense"),
        (b'{"event_type":"a.b","entity_id":"x","payload":{"a":1,"a":2}}', "/payload"),
        (b"[]", ""),
        (b"", ""),
        (b"\xff\xfe", ""),
        (b"{" * 100_000, ""),
        (b'{"event_type":"tallystick.x","entity_id":"x"}', "/event_type"),
    ],
)
def test_a_bad_event_is_refused_with_its_place(it: Running, body: bytes, place: str) -> None:
    answer = it.call("POST", EVENTS_PATH, content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert told["place"].startswith(place)
    assert told["detail"]
    assert answer.headers.get("Retry-After") is None


def test_a_batch_says_of_each_line_what_became_of_it(it: Running) -> None:
    data = lines(2) + b'{"event_type":"a b","entity_id":"x"}\n' + lines(1, id="batch-1") + lines(1, id="batch-1")

    answer = it.call("POST", BATCH_PATH, content=data, headers=NDJSON)

    assert answer.status_code == 207
    told = answer.json()
    assert (told["sealed"], told["refused"]) == (4, 1)
    assert told["events"][2]["index"] == 2
    assert (told["events"][2]["status"], told["events"][2]["place"]) == (400, "/event_type")
    assert told["events"][4] == {**told["events"][3], "replayed": True}
    positions = [one["position"] for one in told["events"] if "position" in one]
    assert positions == sorted(positions)


def test_an_atomic_batch_is_all_or_nothing(it: Running) -> None:
    data = lines(2, entity_id="atomic") + b'{"event_type":"a b","entity_id":"atomic"}\n'

    refused = it.call("POST", f"{BATCH_PATH}?atomic=true", content=data, headers=NDJSON)
    assert refused.status_code == 400
    assert refused.json()["place"] == "event 2 /event_type"
    assert it.call("GET", "/api/v1/events/query?entity_id=atomic").json()["records"] == []
    sealed = it.call("POST", f"{BATCH_PATH}?atomic=true", json=[{**EVENT, "entity_id": "atomic"}] * 3).json()
    assert [one["entity_version"] for one in sealed["events"]] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_packed_bodies_are_unpacked_within_bounds(it: Running, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zstandard.ZstdCompressor().compress
    headers = {**NDJSON, "Content-Encoding": encoding}
    whole = pack(lines(500))

    def status(data: bytes, path: str = BATCH_PATH) -> int:
        return it.call("POST", path, content=data, headers=headers).status_code

    assert status(whole) == 201
    assert status(whole[:-9]) == 400
    assert status(whole + b"more") == 400
    assert status(b"not packed") == 400
    assert status(pack(b" " * (BODY_BYTES_MAX + 1))) == 413
    assert status(pack(b" " * 2**30)) == 413


def test_bounds_are_told(it: Running) -> None:
    def told(path: str, **given: Any) -> tuple[int, str]:
        answer = it.call("POST", path, **given)
        return answer.status_code, answer.json()["title"]

    large = {"content": b" " * (INPUT_BYTES_MAX + 1), "headers": {"Content-Type": "application/json"}}
    assert told(EVENTS_PATH, **large) == (413, "The body is too large")
    assert told(BATCH_PATH, content=b"{}\n" * (BATCH_EVENTS_MAX + 1), headers=NDJSON)[0] == 400
    assert told(BATCH_PATH, content=b"", headers=NDJSON)[0] == 400
    assert told(BATCH_PATH, content=b"x", headers={"Content-Type": "text/csv"})[0] == 415
    assert told(EVENTS_PATH, content=b"x", headers={"Content-Type": "text/csv"})[0] == 415
    assert told(EVENTS_PATH, content=b"x", headers={"Content-Encoding": "br"})[0] == 415
    assert told(f"{EVENTS_PATH}?ack=never", json=EVENT)[0] == 400
    assert told(EVENTS_PATH, json=EVENT, headers={"Idempotency-Key": "x" * 129})[0] == 400
    assert told(BATCH_PATH, json=[EVENT], headers={"Idempotency-Key": "x"})[0] == 400


def test_what_is_queued_has_a_ticket_until_it_is_sealed(it: Running) -> None:
    ticket = it.call("POST", f"{EVENTS_PATH}?ack=queued", json={**EVENT, "id": "queued-1"})
    many = it.call("POST", f"{BATCH_PATH}?ack=queued", content=lines(50), headers=NDJSON)

    assert (ticket.status_code, many.status_code) == (202, 202)
    assert many.json()["accepted"] == 50
    deadline = time.monotonic() + 10
    while (found := it.call("GET", ticket.json()["status"]).json())["state"] == "queued":
        assert time.monotonic() < deadline
    assert found["state"] == "sealed"
    assert it.call("GET", f"/api/v1/events/{found['position']}").json()["id"] == "queued-1"
    last = many.json()["events"][-1]["status"]
    while it.call("GET", last).json()["state"] == "queued":
        assert time.monotonic() < deadline
    stats = it.call("GET", "/api/v1/queue/stats").json()
    assert (stats["depth"], stats["problem"]) == (0, None)
    assert it.call("GET", "/api/v1/tickets/0.not-that-one").status_code == 404


@pytest.mark.slow
def test_many_at_once_are_each_sealed_once_and_in_one_chain(it: Running) -> None:
    before = it.call("GET", "/api/v1/timeseries/range").json()["count"]

    def send(number: int) -> int:
        answer = it.call("POST", EVENTS_PATH, json={**EVENT, "entity_id": f"e-{number % 7}", "id": f"many-{number}"})
        return int(answer.json()["position"])

    with ThreadPoolExecutor(16) as pool:
        positions = [*pool.map(send, [*range(300)] * 2)]

    assert positions[:300] == positions[300:]
    assert len({*positions}) == 300
    with it.deployment.ledger("acme") as ledger:
        assert ledger.size >= before + 300
        assert ledger.verify(processes=1).holds


# ------------------------------------------------------------------------------------------- hostile senders


def raw(it: Running, data: bytes, *, wait: float = 5.0) -> bytes:
    """What comes back for these bytes, until the other side closes or `wait` is over."""
    host, port = it.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        answer = b""
        try:
            connection.sendall(data)
            while chunk := connection.recv(65_536):
                answer += chunk
        except (TimeoutError, ConnectionError):
            pass
    return answer


def test_any_bytes_leave_the_service_answering(it: Running) -> None:
    random_ = random.Random(7)
    head = f"POST {EVENTS_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {it.keys['acme/Admin']}\r\n".encode()
    for _ in range(150):
        raw(it, random_.randbytes(random_.randrange(1, 400)), wait=0.02)
        raw(it, head + b"Content-Length: 40\r\n\r\n" + random_.randbytes(40), wait=0.02)
        body = bytearray(json.dumps(EVENT).encode())
        body[random_.randrange(len(body))] = random_.randrange(256)
        answer = raw(it, head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert answer[:12] in (b"HTTP/1.1 201", b"HTTP/1.1 400"), answer
    for torn in (head, head + b"Content-Length: 9\r\n\r\n{", head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"):
        raw(it, torn, wait=0.1)
    assert it.call("GET", "/health/ready", None).json()["status"] == "ready"


def test_a_head_without_end_is_cut_off(it: Running) -> None:
    endless = b"GET /health/live HTTP/1.1\r\nX: " + b"x" * (HEAD_BYTES_MAX * 8)
    assert raw(it, endless).startswith(b"HTTP/1.1 400")
    many = b"GET /health/live HTTP/1.1\r\n" + b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(40_000))
    assert raw(it, many).startswith(b"HTTP/1.1 400")
    assert it.call("GET", "/health/live", None).status_code == 200


@pytest.mark.slow
def test_nobody_without_a_key_has_a_body_read(it: Running) -> None:
    for path in ("/api/v1/keys", "/api/v1/tenants", "/api/v1/schemas", BATCH_PATH):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 400000000\r\n\r\n"
        assert raw(it, head.encode(), wait=3).startswith(b"HTTP/1.1 401"), path
        large = it.call("POST", path, content=b" " * (BODY_BYTES_MAX + 1), headers={"Content-Type": "application/json"})
        assert large.status_code == 413, path


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_what_goes_deep_is_refused(it: Running, data: bytes) -> None:
    for path in (EVENTS_PATH, BATCH_PATH, "/api/v1/keys", "/api/v1/schemas", "/api/v1/schemas/validate"):
        answer = it.call("POST", path, content=data, headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 400, 413), (path, answer.text[:200])
        if path != "/api/v1/schemas/validate":
            assert answer.headers["Content-Type"] == "application/problem+json"


def test_an_id_may_be_a_number_or_have_slashes(it: Running) -> None:
    for event_id in ("3", "a/b/c", "query-not"):
        sealed = it.call("POST", EVENTS_PATH, json={**EVENT, "id": event_id}).json()
        assert it.call("GET", f"/api/v1/events/{event_id}?by=id").json()["hash"] == sealed["hash"]
    assert it.call("GET", "/api/v1/events/3").json()["position"] == 3
    assert it.call("GET", "/api/v1/events/x?by=position").status_code == 400


def test_slow_bodies_hold_nobody_up(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.serve.body.BODY_SECONDS", 0.5)
    host, port = it.url.removeprefix("http://").split(":")
    head = f"POST {EVENTS_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {it.keys['acme/Admin']}\r\n"
    slow = [socket.create_connection((host, int(port)), timeout=10) for _ in range(50)]
    for connection in slow:
        connection.sendall(head.encode() + b"Content-Length: 100\r\n\r\n{")

    assert it.call("POST", EVENTS_PATH, json=EVENT).status_code == 201
    answers = [connection.recv(65_536) for connection in slow]
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 408"}
    for connection in slow:
        connection.close()


def test_reading_while_others_write_sees_whole_pages(it: Running) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            it.call("POST", BATCH_PATH, content=lines(20, entity_id="busy"), headers=NDJSON)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            page = it.call("GET", "/api/v1/entities/busy/events?limit=7").json()
            seen = [one["entity_version"] for one in page["records"]]
            while page["cursor"]:
                path = f"/api/v1/entities/busy/events?limit=1000&cursor={page['cursor'].replace('+', '%2B')}"
                page = it.call("GET", path).json()
                seen += [one["entity_version"] for one in page["records"]]
            assert seen == [*range(1, len(seen) + 1)]
    finally:
        stop.set()
        writer.join()


def test_nothing_secret_is_in_what_the_service_leaves(it: Running) -> None:
    secrets = [text.rpartition("_")[2].encode() for text in it.keys.values()]
    for path in Path(it.deployment.folder).rglob("*"):
        if path.is_file() and os.access(path, os.R_OK):
            data = path.read_bytes()
            assert not any(secret in data for secret in secrets), path


def lines_to(it: Running, *lines: str) -> socket.socket:
    host, port = it.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def test_trailers_without_end_are_cut_off(it: Running) -> None:
    with lines_to(it, f"POST {EVENTS_PATH} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked") as connection:
        assert b" 401 " in connection.recv(4_096)
        connection.sendall(b"0\r\n")
        sent = 0
        with suppress(OSError):  # reset, or a broken pipe: as it happens
            while sent < 50_000_000:
                sent += connection.send(b"x-n: v\r\n" * 1_000)
    assert sent < 20_000_000
    assert it.call("GET", "/health/live", None).status_code == 200


@pytest.mark.parametrize("request_line", [f"POST {EVENTS_PATH} HTTP/1.1", "GET /health/live HTTP/1.1"])
def test_a_connection_does_not_wait_for_a_body_that_nobody_wants(it: Running, request_line: str) -> None:
    with lines_to(it, request_line, "Host: x", "Content-Length: 10") as connection:
        assert connection.recv(4_096).startswith(b"HTTP/1.1 ")
        connection.sendall(b"x")
        began = time.monotonic()
        while connection.recv(4_096):
            pass
        assert time.monotonic() - began < 10


def test_an_offer_of_another_protocol_is_ignored(it: Running) -> None:
    body = json.dumps(EVENT)
    lines = [f"POST {EVENTS_PATH} HTTP/1.1", "Host: x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"]
    lines += ["HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA", f"Authorization: Bearer {it.keys['acme/Admin']}"]
    with lines_to(it, *lines, f"Content-Length: {len(body)}") as connection:
        connection.sendall(body.encode())
        assert connection.recv(4_096).startswith(b"HTTP/1.1 201 ")


def test_a_ledger_without_its_keys_says_so_to_operators_only(tmp_path: Path) -> None:
    with running(tmp_path / "data") as it:
        it.call("POST", EVENTS_PATH, json=EVENT)
        keys = it.keys
    (tmp_path / "data/keys/tenants").rename(tmp_path / "elsewhere")
    with running(tmp_path / "data") as it:
        it.keys = keys
        answer = it.call("POST", EVENTS_PATH, json=EVENT)
        assert answer.status_code == 503
        assert str(tmp_path) not in answer.text


@pytest.mark.parametrize("why", ["scope", "plan", "key", "small"])
def test_nothing_large_is_parsed_by_the_loop_and_nothing_too_long_by_anybody(
    it: Running, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[tuple[str, int]] = []

    class Seen:
        dumps = staticmethod(orjson.dumps)
        JSONDecodeError = orjson.JSONDecodeError

        @staticmethod
        def loads(data: bytes) -> Any:
            parsed.append((threading.current_thread().name, len(data)))
            return orjson.loads(data)

    async def no_room(*_: Any) -> None:
        raise OverQuotaError("full", bound="month", reset_at="2030-01-01T00:00:00Z", retry_seconds=1)

    there = {**EVENT, "id": f"there-{why}"}
    assert it.call("POST", EVENTS_PATH, json=there).status_code == 201
    monkeypatch.setattr(ingest, "orjson", Seen)
    if why == "plan":
        monkeypatch.setattr(it.service.quotas, "take", no_room)
    who = it.key("acme", "ServiceAccount", event_types=["doc.*"]) if why == "scope" else "acme/ServiceAccount"
    if why in ("key", "small"):
        words = "v" * (200_000 if why == "key" else 10)
        headers = {"Idempotency-Key": f"large-{why}"}
        it.call("POST", EVENTS_PATH, who, json={**EVENT, "payload": {"v": words}}, headers=headers)
    else:
        events = [there, {**EVENT, "payload": {"v": ["v"] * 200_000}}]
        it.call("POST", BATCH_PATH, who, json=events)
    looped = {name for name, _ in parsed if not name.startswith(("tallystick", "asyncio", "uvloop"))}
    assert all(size <= INPUT_BYTES_MAX for _, size in parsed)
    assert bool(looped) == (why == "small")
    assert parsed
