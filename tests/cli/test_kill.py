"""The service under load, killed twenty times: all that it answered is there, once and in order, and it verifies."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

import tallystick
from tests.cli.test_serve import serving

pytestmark = pytest.mark.slow

EVENTS: Final = 100_000
CONNECTIONS: Final = 64
KILLS: Final = 20
BATCH: Final = 250
TYPE: Final = "load.event"


@dataclass
class Sender:
    """One connection, and what it was answered. It sends an event again until it is answered, as a client should."""

    number: int
    port: int
    key: str
    stop: threading.Event
    sealed: dict[str, int] = field(default_factory=dict)
    """Event → position, as it was answered."""
    queued: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        self._headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}

    def run(self) -> None:
        """Send: a quarter of all connections queue, a quarter send batches, the others one event after another."""
        path, size = "/api/v1/events", 1
        if self.number % 4 == 0:
            path += "?ack=queued"
        elif self.number % 4 == 1:
            path, size = "/api/v1/events/batch", BATCH
        for step in range(EVENTS):
            if self.stop.is_set():
                return
            ids = [f"{self.number}-{step}-{index}" for index in range(size)]
            events = [{"event_type": TYPE, "entity_id": f"sender-{self.number}", "id": one} for one in ids]
            answer = self._answered(path, json.dumps(events if size > 1 else events[0]))
            if answer is None:
                return
            self._take(ids, answer)

    @property
    def count(self) -> int:
        return len(self.sealed) + len(self.queued)

    def _take(self, ids: list[str], answer: tuple[int, bytes]) -> None:
        status, said = answer[0], json.loads(answer[1])
        assert status in (200, 201, 202), answer
        if status == 202:
            self.queued += ids
        else:
            receipts = said["events"] if len(ids) > 1 else [said]
            assert [one["id"] for one in receipts] == ids
            self.sealed |= {one["id"]: one["position"] for one in receipts}

    def _answered(self, path: str, body: str) -> tuple[int, bytes] | None:
        while not self.stop.is_set():
            try:
                self._connection.request("POST", path, body, self._headers)
                answer = self._connection.getresponse()
                status, data = answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                self._connection.close()  # the next request opens it again
                time.sleep(0.05)
                continue
            if status != 503:
                return status, data
            time.sleep(0.05)
        return None

    def close(self) -> None:
        self._connection.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def lives(data: Path, port: int) -> Iterator[tuple[int, str | None]]:
    """The process of each life of the service, and at first its key."""
    while True:
        with serving(data, "--port", str(port)) as (process, said):
            yield process.pid, said["first_key"]


def test_what_was_answered_outlives_twenty_kills(tmp_path: Path) -> None:
    port, stop = free_port(), threading.Event()
    service = lives(tmp_path, port)
    process, key = next(service)
    assert key is not None
    senders = [Sender(number, port, key, stop) for number in range(CONNECTIONS)]

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        sending = [pool.submit(sender.run) for sender in senders]
        try:
            for turn in range(1, KILLS + 1):
                deadline = time.monotonic() + 120
                while sum(sender.count for sender in senders) < turn * EVENTS // KILLS:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                os.kill(process, signal.SIGKILL)
                process, _ = next(service)
        finally:
            stop.set()
        for one in sending:
            one.result()
    for sender in senders:
        sender.close()
    service.close()  # type: ignore[attr-defined]  # a generator has it: one more kill

    with tallystick.open(tmp_path / "tenants/default", keys=tmp_path / "keys/tenants/default") as ledger:
        ledger.queue.drain(seconds=60)
        found: dict[str, int] = {}
        for record in ledger.records(event_type=TYPE):
            assert record.id not in found, "it was sealed twice"
            found[record.id] = record.position
        for sender in senders:
            assert {one: found.get(one) for one in sender.sealed} == sender.sealed
            order = [found[one] for one in (*sender.sealed, *sender.queued)]  # each has only one of the two
            assert order == sorted(order)
        assert sum(sender.count for sender in senders) >= EVENTS
        assert ledger.verify().holds
