"""What stands between may cut, stall, lie and refuse: what was sent is sealed once, and there is one clear error."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final

import orjson
import pytest

from tallystick import UnfinishedError
from tallystick.client import calls as calls_module
from tallystick.client.address import Address
from tallystick.client.calls import Calls, Request
from tallystick.client.client import Client
from tallystick.client.tries import Backoff, retry_after
from tallystick.clock import wall_clock
from tallystick.errors import (
    BusyError,
    DeniedError,
    NotFoundError,
    RejectedError,
    StoreError,
    TallystickError,
    TamperError,
)
from tests.client.wire import CUT_AFTER, CUT_BEFORE, STALL, Between, answering, between, http, listening, read_request
from tests.serve.conftest import Running

EVENT: Final = {"event_type": "doc.read", "entity_id": "r"}
KEY: Final = "ts_0123456789abcdef_" + "a1" * 32
RECEIPT: Final = orjson.dumps(
    {
        "id": "x",
        "position": 7,
        "recorded_at": "2026-03-15T09:30:00.000000Z",
        "entity_id": "r",
        "entity_version": 1,
        "hash": "00" * 32,
        "replayed": False,
    }
)


@pytest.fixture
def proxy(it: Running) -> Iterator[Between]:
    with between(it.url) as made:
        yield made


def problem(status: int, family: str = "", *headers: str, **members: Any) -> bytes:
    said = {"type": "about:blank", "title": "t", "status": status, "detail": "d", "family": family, **members}
    return http(status, orjson.dumps(said), *headers, kind="application/problem+json")


# ---------------------------------------------------------------------------------------------- lost answers


@pytest.mark.parametrize("harm", [CUT_BEFORE, CUT_AFTER])
def test_an_append_whose_answer_was_lost_is_sealed_once(it: Running, proxy: Between, harm: str) -> None:
    proxy.harm = [harm, harm]
    with Client(proxy.url, it.keys["acme/Admin"]) as client:
        sealed = client.append({**EVENT, "entity_id": f"r-{harm}"})

        assert [one.position for one in client.query(entity_id=f"r-{harm}").records] == [sealed.position]
    assert not sealed.replayed
    assert len(proxy.requests) == 4


def test_an_expected_version_holds_for_the_repeat_of_the_append_that_made_it(it: Running, proxy: Between) -> None:
    proxy.harm = [CUT_AFTER]
    with Client(proxy.url, it.keys["acme/Admin"]) as client:
        sealed = client.append(
            {**EVENT, "entity_id": "r-expected"},
        )
        proxy.harm = [CUT_AFTER]
        second = client.append({**EVENT, "entity_id": "r-expected", "expected_version": 1})

    assert (sealed.entity_version, second.entity_version) == (1, 2)


@pytest.mark.parametrize("atomic", [True, False])
def test_a_batch_whose_answer_was_lost_is_sealed_once_and_in_order(
    it: Running, proxy: Between, *, atomic: bool
) -> None:
    proxy.harm = [CUT_AFTER, "", CUT_BEFORE, CUT_AFTER]
    events = [{**EVENT, "entity_id": f"r-batch-{atomic}", "payload": {"n": n}} for n in range(2_500)]
    with Client(proxy.url, it.keys["acme/Admin"]) as client:
        outcomes = client.append_many(events, atomic=atomic)

        records = [*client.records(entity_id=f"r-batch-{atomic}")]
    assert [record.payload["n"] for record in records] == [*range(2_500)]
    assert [one.position for one in outcomes if not isinstance(one, Exception)] == [one.position for one in records]


def test_a_published_event_whose_answer_was_lost_is_sealed_once(it: Running, proxy: Between) -> None:
    proxy.harm = [CUT_AFTER]
    with Client(proxy.url, it.keys["acme/Admin"]) as client, it.deployment.lease("tenant/acme") as ledger:
        ticket = client.publish({**EVENT, "entity_id": "r-published"})
        ledger.queue.drain(seconds=10)

        assert client.progress(ticket).state == "sealed"
        assert client.count(entity_id="r-published") == 1


def test_what_may_not_be_done_twice_is_sent_once(it: Running, proxy: Between) -> None:
    calls = Calls(Address.of(proxy.url, it.keys["acme/Admin"]), seconds=10, clock=wall_clock)
    body = b'{"name":"sent-once","role":"ReadOnly"}'
    request = Request(method="POST", path="/api/v1/keys", body=body, changes=True, repeatable=False)
    proxy.harm = [CUT_AFTER]

    with pytest.raises(StoreError, match="outcome is unknown"):
        calls.call(request)

    assert len(proxy.requests) == 1
    assert [key.name for key in it.deployment.keys("acme")].count("sent-once") == 1
    calls.close()


def test_what_never_arrived_may_be_sent_again_also_if_it_may_not_be_done_twice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    calls = Calls(Address.of(f"http://127.0.0.1:{port}", KEY), seconds=20, clock=wall_clock)
    request = Request(method="POST", path="/x", body=b"{}", changes=True, repeatable=False)
    found: list[bytes] = []

    def late() -> None:
        time.sleep(0.3)
        with socket.create_server(("127.0.0.1", port)) as server:
            connection, _ = server.accept()
            with connection:
                read_request(connection)
                connection.sendall(http(200, b"{}"))

    thread = threading.Thread(target=late)
    thread.start()
    found.append(calls.call(request).body)
    thread.join()
    calls.close()
    assert found == [b"{}"]


def test_time_runs_out_with_what_is_needed_to_go_on(it: Running, proxy: Between) -> None:
    proxy.harm = ["", CUT_AFTER, *[CUT_BEFORE] * 100]
    events = iter([{**EVENT, "entity_id": "r-left", "payload": {"n": n}} for n in range(3_000)])
    with Client(proxy.url, it.keys["acme/Admin"], seconds=1) as client:
        with pytest.raises(UnfinishedError) as unfinished:
            client.append_many(events, atomic=False)
        proxy.harm = []
        error = unfinished.value

        client.append_many([*error.left, *events], atomic=False)

        assert (len(error.outcomes), len(error.left)) == (1_000, 1_000)
        assert [one.payload["n"] for one in client.records(entity_id="r-left")] == [*range(3_000)]


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.slow
@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_what_may_do_better_is_tried_again(status: int) -> None:
    with (
        answering(http(status, b"<html>", kind="text/html"), http(201, RECEIPT)) as server,
        Client(server.url, KEY) as client,
    ):
        assert client.append(EVENT).position == 7

        bodies = {request.partition(b"\r\n\r\n")[2] for request in server.requests}
        assert (len(server.requests), len(bodies)) == (2, 1)  # the same id both times


def test_retry_after_is_kept_in_seconds_and_as_a_date() -> None:
    for by_date in (False, True):
        soon = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True) if by_date else "2"
        header = f"Retry-After: {soon}"
        with answering(problem(503, "busy", header), http(201, RECEIPT)) as server, Client(server.url, KEY) as client:
            began = time.monotonic()

            client.append(EVENT)

            assert time.monotonic() - began >= 1.8 - 0.5 * by_date


def test_a_retry_after_for_which_there_is_no_time_is_not_waited_for() -> None:
    with (
        answering(problem(503, "busy", "Retry-After: 3600", detail="full")) as server,
        Client(server.url, KEY) as client,
    ):
        began = time.monotonic()

        with pytest.raises(BusyError, match="full"):
            client.append(EVENT)

        assert (len(server.requests), time.monotonic() - began < 10) == (1, True)


def test_a_batch_of_which_some_found_no_room_is_sent_again() -> None:
    busy = {"index": 1, "status": 503, "family": "busy", "detail": "full"}
    wrong = {"index": 2, "status": 400, "family": "rejected", "detail": "wrong", "place": "/payload", "cure": "mend it"}
    receipt = orjson.loads(RECEIPT)
    first = orjson.dumps({"sealed": 1, "refused": 2, "events": [receipt, busy, wrong]})
    second = orjson.dumps({"sealed": 2, "refused": 1, "events": [receipt | {"replayed": True}, receipt, wrong]})
    with answering(http(207, first), http(207, second)) as server, Client(server.url, KEY) as client:
        outcomes = client.append_many([EVENT, {**EVENT, "id": "mine"}, EVENT], atomic=False)

        assert len({request.partition(b"\r\n\r\n")[2] for request in server.requests}) == 1
        assert len(server.requests) == 2
    assert [getattr(one, "position", None) for one in outcomes] == [7, 7, None]
    assert str(outcomes[2]) == "/payload: wrong; mend it"
    with answering(http(207, first)) as server, Client(server.url, KEY, seconds=0.5) as client:
        with pytest.raises(UnfinishedError, match="full") as unfinished:
            client.append_many([EVENT] * 3, atomic=False)
        assert len(unfinished.value.left) == 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("120", 120), (" 5 ", 5), ("-1", None), ("1.5", None), ("soon", None), ("9" * 30, None), ("", None)],
)
def test_a_retry_after_is_read_or_left_alone(text: str, seconds: float | None) -> None:
    assert retry_after(text, wall_clock) == seconds


def test_a_retry_after_in_the_past_asks_for_no_wait() -> None:
    assert retry_after("Sun, 06 Nov 1994 08:49:37 GMT", lambda: 1_800_000_000_000_000) == 0
    assert retry_after("Sun, 06 Nov 1994 08:49:37 GMT", lambda: 784_111_767_000_000) == 10


def test_waits_grow_are_drawn_by_lot_and_have_an_end() -> None:
    whole, half = Backoff(lambda: 1.0), Backoff(lambda: 0.5)

    assert [whole.next() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert [half.next(after=2) for _ in range(3)] == [2.05, 2.1, 2.2]
    drawn = [Backoff().next() for _ in range(50)]
    assert len(set(drawn)) > 40
    assert all(0 <= one <= 0.1 for one in drawn)


def test_only_a_request_that_changes_something_has_an_unknown_outcome(it: Running) -> None:
    with between(it.url) as proxy, Client(proxy.url, it.keys["acme/Admin"], seconds=1) as client:
        proxy.harm = [STALL] * 20
        began = time.monotonic()

        with pytest.raises(BusyError):
            client.checkpoint()
        with pytest.raises(UnfinishedError, match="with the same ids") as unfinished:
            client.append(EVENT)

        assert time.monotonic() - began < 5
        assert orjson.loads(unfinished.value.left[0])["id"]


def test_a_service_that_is_not_there_is_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with (
        Client(f"http://127.0.0.1:{port}", KEY, seconds=0.5) as client,
        pytest.raises(BusyError, match="no connection"),
    ):
        client.append(EVENT)


REFUSALS: Final[list[tuple[bytes, type[TallystickError], str]]] = [
    (problem(400, "rejected", place="/event_type", cure="mend it"), RejectedError, "/event_type: d; mend it"),
    (problem(401, "denied"), DeniedError, "d"),
    (problem(403), DeniedError, "d"),
    (problem(404, "not-found"), NotFoundError, "d"),
    (problem(413), RejectedError, "d"),
    (problem(418), RejectedError, "d"),
    (problem(500, "tamper"), TamperError, "d"),
    (problem(500), StoreError, "d"),
    (problem(400, "no-such-family"), RejectedError, "d"),
    (problem(400, detail=f"you sent {KEY}"), RejectedError, r"you sent \*\*\*"),
    (http(404, b"<html>no</html>", kind="text/html"), StoreError, "404 and 'text/html'"),
    (http(200, b"<html>log in</html>", kind="text/html"), StoreError, "200 and 'text/html'"),
    (http(200, b""), StoreError, "cannot be read"),
    (http(200, RECEIPT[:-20]), StoreError, "cannot be read"),
    (http(200, b"[]"), StoreError, "cannot be read"),
    (http(200, b"{}"), StoreError, "without a position"),
    (http(200, RECEIPT.replace(b"00" * 32, b"xy")), StoreError, "hash"),
    (http(200, b"[" * 100_000), StoreError, "cannot be read"),
    (http(200, b'{"position":1e999}'), StoreError, "cannot be read"),
    (http(200, gzip.compress(RECEIPT), "Content-Encoding: gzip"), StoreError, "encoding"),
    (http(400, b"{", kind="application/problem+json"), StoreError, "400"),
    (http(400, b'{"status":"x"}', kind="application/problem+json"), StoreError, "400"),
    (http(400, b"x" * 100_000, kind="application/problem+json"), StoreError, "400"),
]


@pytest.mark.parametrize(("answer", "family", "said"), REFUSALS)
def test_every_answer_is_one_clear_error(answer: bytes, family: type[TallystickError], said: str) -> None:
    with answering(answer) as server, Client(server.url, KEY, seconds=2) as client:
        with pytest.raises(family, match=said) as refused:
            client.append(EVENT)

        assert len(server.requests) == 1
        assert KEY not in repr(refused.value)


def test_a_truncated_answer_is_a_lost_one() -> None:
    cut = http(201, RECEIPT)[:-30]
    with answering(cut, http(201, RECEIPT)) as server, Client(server.url, KEY) as client:
        assert client.append(EVENT).position == 7
        assert len(server.requests) == 2


def test_an_answer_without_an_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "CLIENT_ANSWER_BYTES_MAX", 1_000_000)
    sent: list[int] = []

    def pour(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        for _ in range(10_000):
            sent.append(connection.send(b" " * 65_536))

    with listening(pour) as url, Client(url, KEY) as client, pytest.raises(StoreError, match="1,000,000"):
        client.append(EVENT)
    assert sum(sent) < 100_000_000


@pytest.mark.parametrize("head", [True, False])
def test_an_answer_that_trickles_is_not_waited_for_longer_than_was_said(*, head: bool) -> None:
    def trickle(connection: socket.socket) -> None:
        read_request(connection)
        if not head:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(300):
            connection.sendall(b" ")
            time.sleep(0.1)

    with listening(trickle) as url, Client(url, KEY, seconds=1) as client:
        began = time.monotonic()

        with pytest.raises(BusyError):
            client.checkpoint()

        assert time.monotonic() - began < 5


def test_the_key_is_sent_to_nobody_else() -> None:
    with answering(http(200, RECEIPT)) as other, answering(http(307, b"", f"Location: {other.url}/x")) as server:
        with Client(server.url, KEY) as client, pytest.raises(RejectedError, match="elsewhere"):
            client.append(EVENT)

        assert other.requests == []


def test_a_record_is_held_to_its_hash(it: Running) -> None:
    with Client(it.url, it.keys["acme/Admin"]) as client:
        sealed = client.append({**EVENT, "payload": {"amount": 100}})
    whole = it.call("GET", f"/api/v1/events/{sealed.position}").content
    for altered, family in (
        (whole.replace(b'"amount":100', b'"amount":999'), TamperError),
        (whole.replace(b'"amount":100', b'"amount": 100'), StoreError),
        (whole.replace(b'"hash":"', b'"hash":"0'), StoreError),
        (whole[:-76] + b"}", StoreError),
    ):
        with answering(http(200, altered)) as server, Client(server.url, KEY) as client, pytest.raises(family):
            client.get(sealed.position)


def test_the_key_is_in_no_text(it: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = it.keys["acme/Admin"]
    with between(it.url) as proxy, Client(proxy.url, key, seconds=5) as client:
        proxy.harm = [CUT_BEFORE, CUT_AFTER]
        client.append(EVENT)
        with pytest.raises(NotFoundError) as refused:
            client.get("nothing-like-it")

        assert key not in repr(client) + repr(refused.value) + repr(vars(client)) + repr(vars(client._calls))
    assert caplog.records
    assert key not in caplog.text
    assert key.rpartition("_")[2] not in caplog.text


def test_closing_ends_who_waits_for_another_try() -> None:
    with answering(problem(503, "busy", "Retry-After: 20")) as server:
        client = Client(server.url, KEY, seconds=60)
        found: list[BaseException] = []

        def call() -> None:
            try:
                client.append(EVENT)
            except TallystickError as error:
                found.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        deadline = time.monotonic() + 10
        while not server.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        client.close()
        thread.join(5)
        assert not thread.is_alive()
        assert [type(one) for one in found] == [UnfinishedError]
