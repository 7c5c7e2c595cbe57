"""Threads of the routes: no tenant has all of them, and none works for whoever has gone."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from tallystick.errors import BusyError
from tallystick.read.timeseries import TimeSeries
from tallystick.serve.budget import Budget
from tallystick.serve.shares import THREADS, Shares
from tests.serve.conftest import Running

SERIES = "/api/v1/timeseries/query?group=label"


@pytest.fixture(scope="module", autouse=True)
def labelled(it: Running) -> None:
    events = [
        {"event_type": "a.b", "entity_id": "e", "labels": [f"l{n}-{label}" for label in range(60)]} for n in range(50)
    ]
    for tenant in ("acme", "other"):
        answer = it.call("POST", "/api/v1/events/batch", who=f"{tenant}/Admin", json=events)
        assert answer.status_code == 201


class Gate:
    """Questions that wait until they are let on."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        self.open = threading.Event()

    def around(self, question: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*given: Any, **named: Any) -> Any:
            self.waiting.release()
            assert self.open.wait(20)
            return question(*given, **named)

        return asked


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(TimeSeries, "query", gate.around(TimeSeries.query))
    yield gate
    gate.open.set()


def test_one_tenant_does_not_take_all_threads(it: Running, gate: Gate) -> None:
    with ThreadPoolExecutor(2 * THREADS) as pool:
        asked = [pool.submit(it.call, "GET", SERIES, "acme/Admin") for _ in range(2 * THREADS)]
        for _ in range(THREADS // 2):
            assert gate.waiting.acquire(timeout=20)
        assert it.call("GET", "/api/v1/ledger", "other/Admin").status_code == 200
        assert it.call("GET", "/health/ready", None).status_code == 200
        assert it.call("POST", "/api/v1/events", "acme/Admin", json={"event_type": "a.b", "entity_id": "e"}).is_success
        assert not gate.waiting.acquire(blocking=False)
        gate.open.set()
        assert {one.result().status_code for one in asked} <= {200, 503}
        assert asked[0].result().status_code == 200
    assert it.call("GET", SERIES, "acme/Admin").status_code == 200


def test_readiness_is_told_when_all_threads_are_at_work(it: Running, gate: Gate) -> None:
    with ThreadPoolExecutor(2 * THREADS) as pool:
        tenants = [("acme/Admin", "other/Admin")[number % 2] for number in range(2 * THREADS)]
        asked = [pool.submit(it.call, "GET", SERIES, who) for who in tenants]
        for _ in range(THREADS):
            assert gate.waiting.acquire(timeout=20)
        assert it.call("GET", "/health/ready", None).status_code == 200
        assert it.call("GET", "/health/ready?tenant=acme", "acme/Admin").status_code == 200
        gate.open.set()
        assert {one.result().status_code for one in asked} <= {200, 503}


def test_nobody_works_for_whoever_has_gone(it: Running, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = threading.Event()
    queried = TimeSeries.query

    def asked(*given: Any, **named: Any) -> Any:
        try:
            return queried(*given, **named)
        except BusyError as error:
            if "gone" in str(error):
                given_up.set()
            raise

    monkeypatch.setattr(TimeSeries, "query", asked)
    at = urlsplit(it.url)
    with socket.create_connection((at.hostname or "", at.port or 0)) as line:
        head = f"GET {SERIES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {it.keys['acme/Admin']}\r\n\r\n"
        line.sendall(head.encode())
        assert gate.waiting.acquire(timeout=20)
    assert it.call("GET", "/health/live", None).status_code == 200  # by now the loop knows that it was closed
    gate.open.set()
    assert given_up.wait(20)


def test_cells_are_counted_while_they_are_made(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert it.call("GET", SERIES).status_code == 200
    assert not it.service.answers.used
    monkeypatch.setattr(it.service, "answers", Budget(2_000_000))
    assert it.call("GET", SERIES).status_code == 503
    assert it.call("GET", "/api/v1/timeseries/query").status_code == 200
    assert not it.service.answers.used


def test_turns_are_taken_in_order_and_given_back() -> None:
    async def run() -> None:
        mine = Shares(2)
        first, second = await mine.turn("a"), await mine.turn("a")
        waiting = [asyncio.create_task(mine.turn("a")) for _ in range(3)]
        await asyncio.sleep(0)
        other = await mine.turn("b")
        assert not any(one.done() for one in waiting)
        waiting[0].cancel()
        first.end()
        first.end()
        await asyncio.sleep(0)
        assert [one.done() for one in waiting] == [True, True, False]
        second.end()
        third, fourth = await waiting[1], await waiting[2]
        late = asyncio.create_task(mine.turn("a"))
        await asyncio.sleep(0)
        third.end()
        late.cancel()  # when its turn has come already
        await asyncio.gather(late, return_exceptions=True)
        fourth.end()
        other.end()
        assert mine.is_idle

    asyncio.run(run())


def test_so_many_wait_and_no_more() -> None:
    async def run() -> None:
        mine = Shares(1, waiting_max=2)
        turn = await mine.turn("a")
        waiting = [asyncio.create_task(mine.turn("a")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await mine.turn("a")
        turn.end()
        (await waiting[0]).end()
        (await waiting[1]).end()
        assert mine.is_idle

    asyncio.run(run())
