"""Measure how long a ticket takes, compared with one fsync of the same bytes. `make bench-publish`.

Publishing waits for two syncs, of the frames and of the mark; many callers share them. The last rows are measured while
the queue seals what was published, on the same cores. The floor is a plain file: the bytes of each call, and one fsync.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import tallystick
from benchmarks.workload import events
from tallystick.write.queue import Queue

ROWS = (
    ("one caller, one event each", 1, 1, 600, False),
    ("8 callers, one event each", 8, 1, 2_400, False),
    ("64 callers, one event each", 64, 1, 6_400, False),
    ("one caller, batches of 1,000", 1, 1_000, 20, False),
    ("8 callers, while the queue seals", 8, 1, 2_400, True),
    ("batches of 1,000, while the queue seals", 1, 1_000, 20, True),
)
"""What, callers, events a call, calls, and whether the queue seals meanwhile."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all rows (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the ledgers are made (default: a temporary folder)")
    options = parser.parse_args()
    rates: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    floors: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for what, callers, size, calls, seals in ROWS:
            with tempfile.TemporaryDirectory(prefix="tallystick-bench-", dir=options.folder) as scratch:
                took, each = _publish(Path(scratch), callers, size, calls, seals=seals)
                rates.setdefault(what, []).append(size * calls / took)
                times.setdefault(what, []).extend(each)
                floors.setdefault(what, []).append(_floor(Path(scratch), size, calls // callers))
    table = Table("what", "events/s", "median", "p99", "one fsync", title="Publishing: time until the ticket")
    for what, found in rates.items():
        each = sorted(times[what])
        shown = [f"{1e3 * seconds:.2f} ms" for seconds in (statistics.median(each), each[int(0.99 * len(each))])]
        table.add_row(
            what, f"{statistics.median(found):,.0f}", *shown, f"{1e3 * statistics.median(floors[what]):.2f} ms"
        )
    Console(width=120).print(table)


def _publish(scratch: Path, callers: int, size: int, calls: int, *, seals: bool) -> tuple[float, list[float]]:
    """Seconds for all calls, and for each."""
    drain: Any = Queue._drain
    if not seals:
        Queue._drain = lambda _: None  # type: ignore[assignment, method-assign]
    try:
        with tallystick.open(scratch / "ledger") as ledger:
            ledger.publish(events(0, 1)[0])
            given = events(1, 1 + size)
            each: list[float] = []

            def work() -> None:
                for _ in range(calls // callers):
                    began = time.perf_counter()
                    ledger.publish_many(given)
                    each.append(time.perf_counter() - began)

            threads = [threading.Thread(target=work) for _ in range(callers)]
            began = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.perf_counter() - began
            ledger.queue._stopping = not seals
            return took, each
    finally:
        Queue._drain = drain  # type: ignore[method-assign]


def _floor(scratch: Path, size: int, calls: int) -> float:
    """The median time of writing the bytes of a call to a file, and one fsync."""
    data = b"".join(events(1, 1 + size))
    times = []
    with (scratch / "floor").open("wb", buffering=0) as file:
        for _ in range(calls):
            began = time.perf_counter()
            file.write(data)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
