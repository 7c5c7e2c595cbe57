"""Answers that nobody reads: they are counted, bounded, and not waited for without an end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import pytest

from tallystick.read.search import Page, Search
from tallystick.serve import outlet
from tallystick.serve.budget import Budget
from tallystick.serve.routes import answers
from tests.serve.conftest import Running

EVENTS: Final = 60
PAGE: Final = "/api/v1/events/query?limit=1000&entity_id=wide"


@pytest.fixture(scope="module", autouse=True)
def wide(it: Running) -> None:
    """An entity whose records, and whose state, are some three megabytes."""
    events = [{"event_type": "a.b", "entity_id": "wide", "payload": {f"k{n}": "v" * 50_000}} for n in range(EVENTS)]
    assert it.call("POST", "/api/v1/events/batch", json=events).status_code == 201


@contextmanager
def asking(it: Running, path: str, who: str = "acme/Admin") -> Iterator[socket.socket]:
    """A connection that asks, and does not read."""
    at = urlsplit(it.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect((at.hostname, at.port))
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {it.keys[who]}\r\n\r\n"
        connection.sendall(head.encode())
        yield connection


def wait_for(what: Callable[[], object], *, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    assert what()


def test_answers_are_counted_until_they_are_read_and_have_a_bound(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(it.call("GET", PAGE).content)
    budget = Budget(8 * size, tenant_most=4 * size)
    monkeypatch.setattr(it.service, "answers", budget)
    with asking(it, PAGE), asking(it, PAGE), asking(it, PAGE):
        wait_for(lambda: budget.used == 3 * size)
        refused = it.call("GET", PAGE)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["family"] == "busy"
        assert it.call("GET", "/api/v1/events/query?limit=1", "other/Admin").status_code == 200
    wait_for(lambda: not budget.used)
    assert it.call("GET", PAGE).status_code == 200
    wait_for(lambda: not budget.used)


def test_who_takes_nothing_of_an_answer_is_not_waited_for(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "LOOK_SECONDS", 0.2)
    size = len(it.call("GET", PAGE).content)
    with asking(it, PAGE) as connection:
        wait_for(lambda: it.service.answers.used)
        wait_for(lambda: not it.service.answers.used)
        read = 0
        with suppress(ConnectionResetError):
            while part := connection.recv(65_536):
                read += len(part)
        assert read < size


def test_who_reads_slowly_gets_all_of_it(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "LOOK_SECONDS", 0.2)
    size = len(it.call("GET", PAGE).content)
    with asking(it, PAGE) as connection:
        read = 0
        while read < size:
            part = connection.recv(40_000)
            assert part
            read += len(part)
            time.sleep(0.01)


@pytest.mark.parametrize("path", ["state", "state?whole=true", "history", "history?whole=true", "diff?from=v1"])
def test_what_is_made_of_many_records_has_a_bound(it: Running, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert it.call("GET", f"/api/v1/entities/wide/{path}").status_code == 200
    monkeypatch.setattr(answers, "ANSWER_BYTES_MAX", 1_500_000)
    answer = it.call("GET", f"/api/v1/entities/wide/{path}")
    assert (answer.status_code, answer.json()["place"]) == (400, "entity_id")
    wait_for(lambda: not it.service.answers.used)


def test_a_batch_is_refused_before_it_is_sealed_when_there_is_no_room_for_its_answer(
    it: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = it.call("GET", "/api/v1/ledger").json()["size"]
    monkeypatch.setattr(it.service, "answers", Budget(80_000))
    events = [{"event_type": "a.b", "entity_id": f"e{n}"} for n in range(300)]
    assert it.call("POST", "/api/v1/events/batch", content=orjson.dumps(events)).status_code == 503
    assert it.call("GET", "/api/v1/ledger").json()["size"] == size


def test_a_crowd_that_asks_for_large_answers_holds_up_nobody(it: Running) -> None:
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(asking(it, PAGE, "other/ReadOnly"))
            stack.enter_context(asking(it, PAGE))
        at_work = [one for one in threading.enumerate() if one.name.startswith("AnyIO")]
        assert len(at_work) <= 10
        assert it.call("GET", "/health/live", None).status_code == 200


def test_an_inferred_schema_is_counted_while_it_is_made(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"m{n}": {"a": 1, "b": [1]} for n in range(400)}
    events = [{"event_type": "much.told", "entity_id": "e", "payload": {f"p{n}": members}} for n in range(10)]
    assert it.call("POST", "/api/v1/events/batch", json=events).status_code == 201
    answer = it.call("GET", "/api/v1/schemas/much.told/infer")
    assert answer.status_code == 200
    assert answer.json()["schema"]["properties"]["p0"]["properties"]["m399"]["required"] == ["a", "b"]
    wait_for(lambda: not it.service.answers.used)
    monkeypatch.setattr(it.service, "answers", Budget(4_000_000))
    assert it.call("GET", "/api/v1/schemas/much.told/infer").status_code == 503
    assert not it.service.answers.used


def test_a_page_of_small_objects_keeps_their_lines_alone(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [{"event_type": "a.b", "entity_id": "small", "payload": {"p": [{}] * 15_000}} for _ in range(20)]
    assert it.call("POST", "/api/v1/events/batch", json=events).status_code == 201
    found: list[Page] = []
    query = Search.page

    def kept(*given: Any, **named: Any) -> Page:
        found.append(query(*given, **named))
        return found[-1]

    monkeypatch.setattr(Search, "page", kept)
    paths = ("events/query?entity_id=small&order=oldest&limit=1000", "entities/small/events?limit=1000")
    for path in paths:
        told = it.call("GET", f"/api/v1/{path}").json()["records"]
        assert [one["payload"] for one in told] == [event["payload"] for event in events]
        assert [one["hash"] for one in told] == [record.hash.hex() for record in found[-1].records]
        assert {len(record.members) for record in found[-1].records} == {1}
        wait_for(lambda: not it.service.answers.used)
    monkeypatch.setattr(it.service, "answers", Budget(500_000))
    for path in paths:
        assert it.call("GET", f"/api/v1/{path}").status_code == 503
    assert not it.service.answers.used
