"""Hostile and very large requests: memory stays within its bound, others are answered, nothing acknowledged is lost.

`TALLYSTICK_TEST_HOSTILE_SECONDS=600` has the hostile clients go on for ten minutes.
"""

from __future__ import annotations

import gzip
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2
import orjson
import pytest
import zstandard

import tallystick
from tallystick.limits import BODY_BYTES_MAX
from tests.cli.test_endurance import resident_megabytes
from tests.cli.test_serve import serving

pytestmark = pytest.mark.slow

HOSTILE_SECONDS: Final = float(os.environ.get("TALLYSTICK_TEST_HOSTILE_SECONDS", "12"))
MEMORY_MEGABYTES_MAX: Final = 400
LARGEST_MEGABYTES_MAX: Final = 275
"""Measured are 219 to 240: 90 of them without any request, and room for another machine."""

ANSWER_SECONDS_MAX: Final = 0.3 if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1 else 0.1
"""Measured are 0.07 when this runs alone on two cores, and 0.11 to 0.2 when other tests run beside it. A body
that holds the loop up shows as 0.5 s and more."""
EVENT: Final = {"event_type": "door.opened", "entity_id": "door-1"}
NDJSON: Final = {"Content-Type": "application/x-ndjson"}
JSON: Final = {"Content-Type": "application/json"}


class Watched:
    """How much memory a process takes, and how long it takes to answer, looked at until the end."""

    def __init__(self, process: int, address: str) -> None:
        self.megabytes = 0.0
        self.seconds: list[float] = []
        self._process: Final = process
        self._address: Final = address
        self._stop: Final = threading.Event()
        self._threads: Final = [threading.Thread(target=work) for work in (self._weigh, self._ask)]

    def _weigh(self) -> None:
        while not self._stop.wait(0.02):
            self.megabytes = max(self.megabytes, resident_megabytes(self._process))

    def _ask(self) -> None:
        with httpx2.Client(timeout=20) as client:
            client.get(f"{self._address}/health/live")  # which also connects
            while not self._stop.wait(0.05):
                began = time.perf_counter()
                assert client.get(f"{self._address}/health/live").status_code == 200
                self.seconds.append(time.perf_counter() - began)

    def __enter__(self) -> Watched:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def large_events(count: int, number: int) -> bytes:
    """As large as events may be, each with its own words."""
    chance = random.Random(number)
    bodies = []
    for index in range(count):
        words = " ".join(f"{chance.randrange(1 << 40):x}" for _ in range(5_600))[:60_000]
        bodies.append(orjson.dumps({**EVENT, "id": f"{number}-{index}", "payload": {"text": words}}))
    return b"\n".join(bodies)


def test_the_largest_events_take_little_memory_and_the_ledger_goes_on(tmp_path: Path) -> None:
    batch = 250
    with serving(tmp_path / "data") as (process, said), Watched(process.pid, said["address"]) as watched:
        headers = {"Authorization": f"Bearer {said['first_key']}"}
        with httpx2.Client(headers=headers, timeout=120) as client:
            for number in range(8):
                body = large_events(batch, number)
                assert BODY_BYTES_MAX - 2_000_000 < len(body) <= BODY_BYTES_MAX
                answer = client.post(f"{said['address']}/api/v1/events/batch", content=body, headers=NDJSON)
                assert answer.status_code == 201, answer.text[:500]
            counted = client.get(f"{said['address']}/api/v1/events/count?entity_id=door-1").json()
            page = client.get(f"{said['address']}/api/v1/events/query?entity_id=door-1&limit=1000").json()
    assert counted == {"count": 8 * batch}
    assert 100 < len(page["records"]) < 150
    assert page["cursor"]
    assert watched.megabytes < LARGEST_MEGABYTES_MAX
    with tallystick.open(tmp_path / "data/tenants/default", keys=tmp_path / "data/keys/tenants/default") as ledger:
        assert ledger.count(entity_id="door-1") == 8 * batch


def bombs() -> list[tuple[str, bytes, dict[str, str]]]:
    """Small bodies that become much: ones, nothings, ends of lines, and depths."""
    most = BODY_BYTES_MAX - 10
    made = {
        "ones": b"[" + b"1," * (most // 2) + b"1]",
        "objects": b"[" + b"{}," * (most // 3) + b"{}]",
        "strings": b"[" + b'"",' * (most // 3) + b'""]',
        "lists": b"[" + b"[]," * (most // 3) + b"[]]",
        "deep": b"[" * most,
        "spaces": b" " * most,
        "zeros": b"[" + b"0" * most + b"]",
    }
    lines = {"ends": b"\n" * most, "short": b"1\n" * (most // 2), "braces": b"{}\n" * (most // 3)}
    return [
        *[(name, body, JSON) for name, body in made.items()],
        *[(name, body, NDJSON) for name, body in lines.items()],
    ]


def packed() -> list[tuple[str, bytes, dict[str, str]]]:
    unpacked = bombs()
    ways = {"gzip": lambda body: gzip.compress(body, 6), "zstd": zstandard.ZstdCompressor(level=3).compress}
    return [
        (f"{name}, {way}", pack(body), {**headers, "Content-Encoding": way})
        for name, body, headers in unpacked
        for way, pack in ways.items()
    ]


class Clients:
    """Clients of one service until a moment: some that mean harm, some that record events."""

    def __init__(self, address: str, key: str) -> None:
        self.acknowledged: Final[list[str]] = []
        self.statuses: Final[set[int]] = set()
        self.failed: Final[list[BaseException]] = []
        self._address: Final = address
        self._url: Final = f"{address}/api/v1/events"
        self._headers: Final = {"Authorization": f"Bearer {key}"}
        self._bodies: Final = packed()
        self._until: Final = time.monotonic() + HOSTILE_SECONDS

    def run(self, works: list[tuple[Callable[[int], None], int]]) -> None:
        """So many of each, until their time is over."""
        threads = [
            threading.Thread(target=self._guarded, args=(work, number))
            for work, count in works
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def send_bombs(self, number: int) -> None:
        chance = random.Random(number)
        with httpx2.Client(headers=self._headers, timeout=120) as client:
            while time.monotonic() < self._until:
                name, body, headers = chance.choice(self._bodies)
                path = chance.choice(["/batch", "/batch", "/batch?atomic=true", "/batch?ack=queued", ""])
                answer = client.post(self._url + path, content=body, headers=headers)
                self.statuses.add(answer.status_code)
                assert answer.status_code in (400, 413, 503), (name, path, answer.status_code, answer.text[:300])

    def send_slowly(self, number: int) -> None:
        address, chance = urlsplit(self._address), random.Random(number)
        line = "POST /api/v1/events/batch HTTP/1.1\r\nHost: x"
        while time.monotonic() < self._until:
            with socket.create_connection((address.hostname, address.port)) as connection:
                key = f"Authorization: {self._headers['Authorization']}\r\n" if chance.random() < 0.8 else ""
                with suppress(OSError):  # it was told that there is too much, or that it has no key
                    connection.sendall(f"{line}\r\n{key}Content-Length: {BODY_BYTES_MAX}\r\n\r\n".encode())
                    for _ in range(60):
                        if time.monotonic() > self._until:
                            return
                        connection.sendall(b"x" * 262_144)
                        time.sleep(0.01)

    def record(self, number: int) -> None:
        count = 0
        with httpx2.Client(headers=self._headers, timeout=120) as client:
            while time.monotonic() < self._until:
                count += 1
                event = {**EVENT, "entity_id": "honest", "id": f"honest-{number}-{count}"}
                answer = client.post(self._url, json=event)
                if answer.status_code == 201:
                    self.acknowledged.append(event["id"])
                else:
                    assert answer.status_code == 503, answer.text
                    time.sleep(0.05)

    def _guarded(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failed.append(error)


def test_hostile_clients_neither_fill_the_memory_nor_hold_up_others(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as (process, said):
        clients = Clients(said["address"], said["first_key"])
        with Watched(process.pid, said["address"]) as watched:
            clients.run([(clients.send_bombs, 12), (clients.send_slowly, 8), (clients.record, 2)])
        if clients.failed:
            raise clients.failed[0]

    seconds = sorted(watched.seconds)
    p99 = seconds[int(len(seconds) * 0.99)]
    told = f"{watched.megabytes:.0f} MB, {len(seconds)} answers, p99 {p99:.3f} s, {clients.statuses}"
    assert watched.megabytes < MEMORY_MEGABYTES_MAX, told
    assert p99 < ANSWER_SECONDS_MAX, told
    with tallystick.open(tmp_path / "data/tenants/default", keys=tmp_path / "data/keys/tenants/default") as ledger:
        found = {record.id for record in ledger.read() if record.entity_id == "honest"}
    assert clients.acknowledged
    assert found >= {*clients.acknowledged}


def test_small_bodies_that_become_much_are_small() -> None:
    assert max(len(body) for _, body, _ in packed()) < 100_000
