"""A million events through the service leave its memory flat, and its handles few; and no secret is left about."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2
import orjson
import pytest

from tests.cli.test_serve import serving

pytestmark = pytest.mark.slow

EVENTS: Final = 1_000_000
BATCH: Final = 5_000
MEGABYTE: Final = 2**20
MEMORY_MEGABYTES_MAX: Final = 400
HANDLES_MAX: Final = 100


def resident_megabytes(process: int) -> float:
    fields = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in fields if line.startswith("VmRSS:")) / 1_024


def handles(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208 - names are enough


def batches() -> Iterator[bytes]:
    """Twelve hours' worth: users, documents and doors in turn, each with what such an event says."""
    for first in range(0, EVENTS, BATCH):
        yield b"\n".join(
            orjson.dumps(
                {
                    "event_type": ("user.signed_in", "document.read", "door.opened")[number % 3],
                    "entity_id": f"entity-{number % 20_000}",
                    "actor": f"user-{number % 500}",
                    "payload": {"number": number, "from": f"10.0.{number % 256}.7", "note": "as every day"},
                    "context": {"request_id": f"request-{number}"},
                }
            )
            for number in range(first, first + BATCH)
        )


def test_a_million_events_leave_memory_flat_and_handles_few(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, said):
        headers = {"Authorization": f"Bearer {said['first_key']}", "Content-Type": "application/x-ndjson"}
        url = f"{said['address']}/api/v1/events/batch"
        memory, open_files = [], []
        with httpx2.Client(headers=headers, timeout=60) as client:
            for number, body in enumerate(batches()):
                answer = client.post(url, content=body)
                assert answer.status_code == 201, answer.text[:500]
                if number % 10 == 9:
                    memory.append(resident_megabytes(process.pid))
                    open_files.append(handles(process.pid))
            found = client.get(f"{said['address']}/api/v1/events/count?entity_id=entity-7").json()

        assert found == {"count": EVENTS // 20_000}
        assert max(memory) < MEMORY_MEGABYTES_MAX, memory
        assert max(open_files) < HANDLES_MAX, open_files
        first_half, second_half = memory[: len(memory) // 2], memory[len(memory) // 2 :]
        # By then its caches are full. Half a million events of which 200 bytes each stayed would be 100 MB.
        assert max(second_half) < max(first_half) + 80, memory


def test_no_secret_is_left_anywhere(tmp_path: Path) -> None:
    """Not in diagnostics, answers, files or arguments: neither a key that is good nor one that never was."""
    data = tmp_path / "data"
    with serving(data, "--log-requests", "--log-level", "debug") as (process, said):
        first = said["first_key"]
        never = "ts_" + "a" * 16 + "_" + "b" * 64
        answers: list[str] = []

        def call(method: str, path: str, key: str, **given: object) -> httpx2.Response:
            headers = {"Authorization": f"Bearer {key}"}
            return httpx2.request(method, f"{said['address']}{path}", headers=headers, timeout=20, **given)  # type: ignore[arg-type]

        made = call("POST", "/api/v1/keys", first, json={"name": "n", "role": "ReadOnly"}).json()
        turned = call("POST", f"/api/v1/keys/{made['id']}/rotate", first).json()
        secrets = [first, never, made["key"], turned["key"]]
        for key in secrets:
            for method, path, body in (
                ("GET", "/api/v1/whoami", None),
                ("GET", "/api/v1/keys", None),
                ("GET", f"/api/v1/nowhere/{key}", None),  # as somebody does who takes it for a part of the address
                ("POST", "/api/v1/events", {"event_type": "a.b", "entity_id": "c"}),
                ("POST", "/api/v1/events", {"nonsense": 1}),
                ("GET", "/api/v1/access", None),
                ("GET", "/metrics", None),
            ):
                answers.append(call(method, path, key, json=body).text)
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.send_signal(signal.SIGTERM)
        _, diagnostics = process.communicate(timeout=30)

    assert diagnostics.count('"event":"request"') >= 4 * 7
    files = [path for path in data.rglob("*") if path.is_file()]
    assert len(files) > 5
    for secret in (key.rpartition("_")[2] for key in secrets):
        assert secret not in diagnostics
        assert all(secret not in answer for answer in answers)
        assert secret.encode() not in arguments
        assert not [path for path in files if secret.encode() in path.read_bytes()]
