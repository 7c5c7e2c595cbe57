"""Measure the service over HTTP: single events, batches, the queue, and readers of a stream. `make bench-serve`.

The floor, in the same run and by the same client: a raw ASGI application that decodes the body and discards it, on the
same server. Client and server share two cores, so both are slower than either would be alone: look at the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.workload import events

CONNECTIONS = 64
BATCH_EVENTS = 1_000
READERS = 1_000
WRITES_A_SECOND = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each part runs (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default: %(default)s)")
    parser.add_argument("--floor", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.floor:
        uvicorn.run(_floor, port=0, loop="uvloop", http="httptools", log_level="info", access_log=False)
        return
    console = Console() if Console().is_terminal else Console(width=120)
    table = Table(
        "what", "a second", "p50", "p99", "of the floor", "wanted", title="The service, client on the same cores"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    with tempfile.TemporaryDirectory(prefix="tallystick-bench-") as scratch:
        for row in _rows(Path(scratch), options.seconds, options.rounds):
            table.add_row(*row)
            console.print(f"{row[0]}: {row[1]}", style="dim")
    console.print(table)


def _rows(scratch: Path, seconds: float, rounds: int) -> Iterator[tuple[str, ...]]:
    one, many = events(0, 1)[0], b"\n".join(events(0, BATCH_EVENTS))
    ndjson = "application/x-ndjson"
    with _floored() as address:
        floor = _median(rounds, lambda: _load(address, "/", "", one, seconds=seconds))
        yield _row("floor: decode one event, discard it", floor, None, "")
    with _serving(scratch / "data") as (address, key):
        path = "/api/v1/events"
        _register(address, key, json.loads(one))
        durable = _median(rounds, lambda: _load(address, path, key, one, seconds=seconds))
        yield _row("one event a request, durable", durable, floor, "20,000, p99 10 ms")
        queued = _median(rounds, lambda: _load(address, f"{path}?ack=queued", key, one, seconds=seconds))
        yield _row("one event a request, queued", queued, floor, "twice the durable")
        batched = _median(
            rounds, lambda: _load(address, f"{path}/batch", key, many, seconds=seconds, kind=ndjson, connections=4)
        )
        rate, p50, p99 = batched
        yield _row("events in NDJSON batches of 1,000", (rate * BATCH_EVENTS, p50, p99), None, "80,000")
        delays = uvloop.run(_streams(address, key, seconds))
        rate = WRITES_A_SECOND * READERS
        name = f"{READERS:,} readers, {WRITES_A_SECOND:,} events/s: commit to reader"
        yield _row(name, (rate, statistics.median(delays), _quantile(delays, 0.99)), None, "p99 1 s")


def _register(address: str, key: str, event: dict[str, Any]) -> None:
    """Have the events held to a schema when they arrive, as they would be in earnest."""
    members = {name: {"type": ["string", "number", "boolean", "object", "array", "null"]} for name in event["payload"]}
    schema = {"type": "object", "required": [*members], "properties": members}
    request = urllib.request.Request(
        f"{address}/api/v1/schemas",
        json.dumps({"name": event["event_type"], "version": 1, "schema": schema}).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201


def _row(what: str, found: tuple[float, float, float], floor: tuple[float, float, float] | None, wanted: str) -> Any:
    rate, p50, p99 = found
    share = "" if floor is None else f"{rate / floor[0]:.0%}"
    return what, f"{rate:,.0f}", f"{p50 * 1e3:.1f} ms", f"{p99 * 1e3:.1f} ms", share, wanted


def _median(rounds: int, measure: Any) -> tuple[float, float, float]:
    """The round of the median rate."""
    found: list[tuple[float, float, float]] = sorted(measure() for _ in range(rounds))
    return found[len(found) // 2]


# -------------------------------------------------------------------------------------------- the client


def _load(
    address: str,
    path: str,
    key: str,
    body: bytes,
    *,
    seconds: float,
    kind: str = "application/json",
    connections: int = CONNECTIONS,
) -> tuple[float, float, float]:
    """Answers a second, and the median and 99th percentile of the seconds that they took."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    request = f"{head}Authorization: Bearer {key}\r\n\r\n".encode() + body
    return uvloop.run(_load_with(address, request, seconds, connections))


async def _load_with(address: str, request: bytes, seconds: float, connections: int) -> tuple[float, float, float]:
    host, port = _place(address)
    loop = asyncio.get_running_loop()
    took: list[float] = []
    began = time.perf_counter()
    every = [
        (await loop.create_connection(lambda: _Sender(request, took, began + seconds), host, port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(sender.done for sender in every))
    return len(took) / (time.perf_counter() - began), statistics.median(took), _quantile(took, 0.99)


class _Sender(asyncio.Protocol):
    """One connection, on which a request follows each answer."""

    def __init__(self, request: bytes, took: list[float], until: float) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request, self._took, self._until = request, took, until
        self._answer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as loops have it
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = int(self._answer[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._answer) < end + 4 + length:
            return
        if not self._answer.startswith(b"HTTP/1.1 2"):
            self.done.set_exception(AssertionError(self._answer[:300]))
            self._transport.close()
            return
        now = time.perf_counter()
        self._took.append(now - self._sent_at)
        self._answer = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()
            self.done.set_result(None)

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)


async def _streams(address: str, key: str, seconds: float) -> list[float]:
    """From the answer to a write to the arrival at a reader, for many readers and one writer."""
    host, port = _place(address)
    ready = asyncio.Semaphore(0)
    committed: dict[int, float] = {}
    delays: list[float] = []

    async def read() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET /api/v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        await reader.readuntil(b"the stream begins\n\n")
        ready.release()
        try:
            while True:
                piece = await reader.read(2**20)
                now = time.perf_counter()
                at = piece.rfind(b"\nid: ")
                position = int(piece[at + 5 : piece.find(b"\n", at + 5)]) if at >= 0 else -1
                if position in committed:
                    delays.append(now - committed[position])
        finally:
            writer.close()

    readers = [asyncio.create_task(read()) for _ in range(READERS)]
    for _ in readers:
        await ready.acquire()
    reader, writer = await asyncio.open_connection(host, port)
    body = b"\n".join(events(0, WRITES_A_SECOND // 50))
    head = "POST /api/v1/events/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
    request = f"{head}Content-Length: {len(body)}\r\nAuthorization: Bearer {key}\r\n\r\n".encode() + body
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        told = json.loads(await reader.readexactly(length))
        now = time.perf_counter()
        committed.update((one["position"], now) for one in told["events"])
        await asyncio.sleep(max(0.0, began + 0.02 - time.perf_counter()))
    await asyncio.sleep(1)
    for task in readers:
        task.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    writer.close()
    return delays


def _place(address: str) -> tuple[str, int]:
    host, port = address.removeprefix("http://").split(":")
    return host, int(port)


def _quantile(values: list[float], part: float) -> float:
    return sorted(values)[int(len(values) * part)]


# ------------------------------------------------------------------------------------------- the servers


@contextmanager
def _serving(data: Path) -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-m", "tallystick", "serve", "--data", str(data), "--port", "0", "--json"]
    command += ["--verify-hours", "0"]  # it would begin with a verification of what the load has just written
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield said["address"], said["first_key"]
        process.terminate()


@contextmanager
def _floored() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.serve", "--floor"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "running on http://" in line:
                yield line.partition("running on ")[2].split()[0]
                break
        process.terminate()


async def _floor(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for what in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{what}.complete"})
        return
    msgspec.json.decode((await receive())["body"])
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


if __name__ == "__main__":
    main()
