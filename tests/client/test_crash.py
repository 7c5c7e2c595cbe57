"""The service is killed while events come: what a client sent is there once, and in order."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import pytest

import tallystick
from tallystick.client.client import Client

pytestmark = pytest.mark.slow

EVENTS: Final = 30_000
KILLS: Final = 3


def serve(data: Path, port: int) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    command = [sys.executable, "-m", "tallystick", "serve", "--data", str(data), "--port", str(port), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return process, json.loads(line)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


def test_a_service_that_is_killed_in_the_middle_loses_and_doubles_nothing(tmp_path: Path) -> None:
    port = free_port()
    process, said = serve(tmp_path / "data", port)
    taken = threading.Semaphore(0)

    def events() -> Any:
        for number in range(EVENTS):
            taken.release()
            yield {"event_type": "load.sent", "entity_id": f"e-{number % 7}", "payload": {"n": number}}

    outcomes: list[Any] = []
    seen: list[int] = []
    with Client(said["address"], said["first_key"], seconds=90) as client:

        def send() -> None:
            outcomes.extend(client.append_many(events(), atomic=False))

        def follow() -> None:
            with client.subscribe(event_type="load.sent") as subscription:
                while len(seen) < EVENTS and (record := subscription.take(120)) is not None:
                    seen.append(record.payload["n"])

        threads = [threading.Thread(target=work) for work in (send, follow)]
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            for _ in range(EVENTS // (KILLS + 1)):
                assert taken.acquire(timeout=60)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            time.sleep(0.2)
            process, _ = serve(tmp_path / "data", port)
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
        client.append(event_type="load.over", entity_id="e")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[1] == ""

    folder = tmp_path / "data/tenants/default"
    with tallystick.open(folder, keys=tmp_path / "data/keys/tenants/default") as ledger:
        records = [*ledger.records(event_type="load.sent")]
        assert [record.payload["n"] for record in records] == [*range(EVENTS)]
        assert [one.position for one in outcomes] == [record.position for record in records]
        assert [one.hash for one in outcomes] == [record.hash for record in records]
        assert ledger.verify().holds
    assert seen == [*range(EVENTS)]
