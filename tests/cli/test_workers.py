"""`tallystick serve --workers`: several processes are as one, and the end of one of them loses nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import pytest

import tallystick
from tests.cli.test_serve import serving

pytestmark = pytest.mark.slow

EVENT: Final = {"event_type": "door.opened", "entity_id": "door-1"}


def children(process: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def call(said: dict[str, Any], method: str, path: str, key: str, **given: Any) -> httpx2.Response:
    """Over a connection of its own, so that any of the processes may get it."""
    headers = {"Authorization": f"Bearer {key}", **given.pop("headers", {})}
    return httpx2.request(method, f"{said['address']}{path}", headers=headers, timeout=30, **given)


def test_two_processes_are_one_service(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as (process, said):
        operator = said["first_key"]
        keys = {}
        for name in ("alpha", "beta", "gamma", "delta"):
            assert call(said, "POST", "/api/v1/tenants", operator, json={"name": name}).status_code == 201
            body = {"name": "n", "role": "Admin", "tenant": name}
            keys[name] = call(said, "POST", "/api/v1/keys", operator, json=body).json()["key"]
        plan = {"events_per_month": 45}
        assert call(said, "PUT", "/api/v1/plans/small", operator, json=plan).status_code == 200
        assert call(said, "PUT", "/api/v1/tenants/delta/plan", operator, json={"plan": "small"}).status_code == 200

        def send(turn: int) -> None:
            for name, key in keys.items():
                event = {**EVENT, "id": f"{name}-{turn}"}
                queued = call(said, "POST", "/api/v1/events?ack=queued", key, json=event)
                assert queued.status_code == 202 or name == "delta", queued.text
                if queued.status_code == 202:
                    status = call(said, "GET", queued.json()["status"], key)
                    assert status.status_code == 200, status.text
                assert call(said, "POST", "/api/v1/events", key, json=EVENT).status_code == 201 or name == "delta"

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(send, range(30)))

        for name, key in keys.items():
            count = 45 if name == "delta" else 60
            deadline = time.monotonic() + 20
            while call(said, "GET", "/api/v1/events/count?event_type=door.opened", key).json()["count"] < count:
                assert time.monotonic() < deadline
            assert call(said, "GET", "/api/v1/usage", key).json()["events"]["used"] == count
            job = call(said, "POST", "/api/v1/exports", key, json={})
            while (told := call(said, "GET", job.headers["Location"], key).json())["state"] in ("waiting", "running"):
                assert time.monotonic() < deadline
            assert told["state"] == "done"
            bundle = call(said, "GET", f"{job.headers['Location']}/bundle", key)
            assert (bundle.status_code, bundle.content[:2]) == (200, b"PK")
        metrics = call(said, "GET", "/metrics", operator).text
        counted = {line.split()[0]: float(line.split()[1]) for line in metrics.splitlines() if not line.startswith("#")}
        total = counted["tallystick_events_appended_total"] + counted["tallystick_events_queued_total"]
        assert total == 3 * 60 + 45
        assert counted["tallystick_append_seconds_count"] > 200

        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
    for name in keys:
        assert tallystick.verify(tmp_path / f"tenants/{name}", keys=tmp_path / f"keys/tenants/{name}").holds


def test_a_process_that_is_killed_comes_back_and_nothing_that_was_answered_is_lost(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as (process, said):
        key = said["first_key"]
        answered: list[str] = []

        def send(number: int) -> None:
            event = {**EVENT, "id": f"event-{number}"}
            deadline = time.monotonic() + 40
            while time.monotonic() < deadline:
                try:
                    answer = call(said, "POST", "/api/v1/events", key, json=event)
                except httpx2.TransportError:
                    continue
                if answer.status_code in (200, 201):
                    answered.append(answer.json()["id"])
                    return
                assert answer.status_code == 503, answer.text
                assert answer.headers["Retry-After"]
            raise AssertionError("it was never answered")

        with ThreadPoolExecutor(8) as pool:
            sending = [pool.submit(send, number) for number in range(400)]
            for turn in range(4):
                before = children(process.pid)
                os.kill(before[turn % 2], signal.SIGKILL)
                while len(set(children(process.pid)) - {before[turn % 2]}) < 2:
                    time.sleep(0.02)
                time.sleep(0.2)
            for one in sending:
                one.result()

        assert sorted(answered) == sorted(f"event-{number}" for number in range(400))
        assert call(said, "GET", "/api/v1/events/count?event_type=door.opened", key).json() == {"count": 400}
        assert len(children(process.pid)) == 2
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0
        ended = [json.loads(line) for line in err.splitlines() if "begun again" in line]
        assert len(ended) == 4
        assert all("SIGKILL" in one["event"] for one in ended)


def test_when_the_first_process_is_killed_the_others_end(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as (process, _):
        left = children(process.pid)
        process.kill()
        process.wait(10)
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{child}").exists() for child in left):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_address_of_who_asks_is_known_behind_a_process_that_hands_on(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "3") as (_, said):
        operator = said["first_key"]
        body = {"name": "n", "role": "ServiceAccount", "networks": ["127.0.0.0/8"]}
        here = call(said, "POST", "/api/v1/keys", operator, json=body).json()["key"]
        elsewhere = call(said, "POST", "/api/v1/keys", operator, json={**body, "networks": ["10.0.0.0/8"]}).json()[
            "key"
        ]
        for _ in range(12):
            assert call(said, "POST", "/api/v1/events", here, json=EVENT).status_code == 201
            lied = {"Tallystick-For": "10.0.0.1"}
            assert call(said, "POST", "/api/v1/events", elsewhere, json=EVENT, headers=lied).status_code == 401


@pytest.mark.parametrize(
    "path", ["/api/v1/x/../events", "/allowed/../api/v1/events", "/api/v1/./events", "//api/v1/events"]
)
def test_a_path_is_the_same_in_the_process_that_it_is_handed_to(tmp_path: Path, path: str) -> None:
    with serving(tmp_path, "--workers", "2") as (_, said):
        at = urlsplit(said["address"])
        body = json.dumps(EVENT).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {said['first_key']}\r\nConnection: close\r\n"
        statuses = set()
        for _ in range(12):  # about half of them come to the process that writes the ledger
            with socket.create_connection((at.hostname, at.port), timeout=10) as connection:
                connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                statuses.add(connection.makefile("rb").readline().split()[1])
        assert statuses == {b"404"}
