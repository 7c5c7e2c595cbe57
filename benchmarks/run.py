"""Measure Tallystick, each figure beside a floor measured in the same run. `make bench`.

The floor of an append is SQLite alone: the very same bytes, inserted by apsw with the same settings and batch
sizes, durably. What lies between the two is what sealing costs. The floor of a verification is SHA-256 over the
same bytes, once. Machines are noisy: look at the ratios.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import tallystick
from benchmarks.workload import SCHEMA, events
from tallystick.sqlite_file import connect, transaction

REPEATS = 3
BATCH = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="events in the larger runs (default: %(default)s)")
    parser.add_argument("--ingest", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ingest:
        ingest_and_report_memory(Path(options.ingest), options.events)
        return
    table = Table("what", "reached", "floor", "of the floor", title=f"Tallystick, {options.events:,} events")
    for column in table.columns[1:]:
        column.justify = "right"
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file has no width to keep to
    with tempfile.TemporaryDirectory(prefix="tallystick-bench-") as scratch:
        for measure in (appends, single_appends, many_threads, verification, memory_and_disk):
            with console.status(measure.__name__.replace("_", " ")):
                for row in measure(Path(scratch), options.events):
                    table.add_row(*row)
    console.print(table)


def appends(scratch: Path, count: int) -> list[Sequence[str]]:
    """`append_many`, by batch size, with ids made and brought, from one caller and from two."""
    rows = [
        _append_row(scratch, f"append_many, batches of {size:,}", count // scale, size)
        for size, scale in ((100, 4), (BATCH, 1))
    ]
    rows.append(_append_row(scratch, "… every event with a random id", count // 2, BATCH, with_ids=True))
    rows.append(_append_row(scratch, "… every event held to a schema", count // 2, BATCH, schema=SCHEMA))
    rows.append(_append_row(scratch, "… from two callers at once", count, BATCH, callers=2))
    return rows


def _append_row(
    scratch: Path,
    what: str,
    count: int,
    size: int,
    *,
    with_ids: bool = False,
    callers: int = 1,
    schema: Mapping[str, Any] | None = None,
) -> Sequence[str]:
    rates, floors = [], []
    for _ in range(REPEATS):
        given = events(0, count, with_ids=with_ids)
        batches = [given[at : at + size] for at in range(0, count, size)]
        folder = scratch / "ledger"
        with tallystick.open(folder) as ledger:
            if schema is not None:
                ledger.schemas.register("user.permission_changed", 1, schema)
            ledger.append_many(events(count, count + size))  # opens what an append needs
            seconds = _timed(partial(_in_threads, ledger.append_many, batches, callers))
            lines = [record.line for record in ledger.read(ledger.size - count)]
        rates.append(count / seconds)
        floors.append(count / _plain_inserts(scratch, lines, size))
        shutil.rmtree(folder)
    return _rate_row(what, "events/s", rates, floors)


def single_appends(scratch: Path, count: int) -> list[Sequence[str]]:
    """One caller, one event an append: the median time."""
    count = min(count // 100, 3_000)
    with tallystick.open(scratch / "single") as ledger:
        ledger.append(events(0, 1)[0])
        times = sorted(_timed(partial(ledger.append, event)) for event in events(0, count))
        lines = [record.line for record in ledger.read(ledger.size - count)]
    floor = _plain_inserts(scratch, lines, 1, median=True)
    median, late = statistics.median(times), times[int(0.99 * len(times))]
    note = f"{median * 1e3:.3f} ms (p99 {late * 1e3:.2f})"
    return [("append, one caller: median", note, f"{floor * 1e3:.3f} ms", f"{median / floor:.2f} ×")]


def many_threads(scratch: Path, count: int) -> list[Sequence[str]]:
    """Many threads, one event an append each: they share commits."""
    rows = []
    for threads in (8, 64):
        rates = []
        given = events(0, count // 10)
        for _ in range(REPEATS):
            with tallystick.open(scratch / "threads") as ledger:
                ledger.append(given[0])
                seconds = _timed(partial(_in_threads, ledger.append, given, threads))
                rates.append(len(given) / seconds)
                lines = [record.line for record in ledger.read(ledger.size - 500)]
            shutil.rmtree(scratch / "threads")
        floor = 500 / _plain_inserts(scratch, lines, 1)
        rows.append(_rate_row(f"append, {threads} threads, one event each", "events/s", rates, [floor]))
    return rows


def verification(scratch: Path, count: int) -> list[Sequence[str]]:
    """The whole verification, with one process and with two, beside SHA-256 of the same bytes."""
    folder = scratch / "verified"
    _fill(folder, count)
    with tallystick.open(folder, readonly=True) as ledger:
        lines = [record.line for record in ledger.read()]
    rows = []
    for processes in (1, 2):
        rates, floors = [], []
        for _ in range(REPEATS):
            floors.append(len(lines) / _timed(lambda: [hashlib.sha256(line).digest() for line in lines]))
            report = tallystick.verify(folder, processes=processes)
            assert report.holds, report.findings
            rates.append(report.size / report.seconds)
        rows.append(_rate_row(f"verify, {processes} process{'es' * (processes > 1)}", "records/s", rates, floors))
    return rows


def memory_and_disk(scratch: Path, count: int) -> list[Sequence[str]]:
    """Peak memory of a process that ingests, and the disk that the ledger takes with its index."""
    folder = scratch / "memory"
    command = [sys.executable, "-m", "benchmarks.run", "--ingest", str(folder), "--events", str(count)]
    peak, base = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    with tallystick.open(folder, readonly=True) as ledger:
        canonical = sum(len(record.line) for record in ledger.read())
    disk = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return [
        (
            f"memory, ingesting {count:,}",
            f"{peak / 1e3:.0f} MB",
            f"{base / 1e3:.0f} MB (imported)",
            f"{peak / base:.2f} ×",
        ),
        (
            "disk, index included",
            f"{disk / 1e6:.0f} MB",
            f"{canonical / 1e6:.0f} MB (canonical)",
            f"{disk / canonical:.2f} ×",
        ),
    ]


def ingest_and_report_memory(folder: Path, count: int) -> None:
    """In a process of its own: prints the peak memory in KB after ingesting, and before."""
    base = peak_memory_kb()
    _fill(folder, count)
    sys.stdout.write(f"{peak_memory_kb()} {base}\n")


def peak_memory_kb() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss it does not count what the parent had before the exec
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _fill(folder: Path, count: int) -> None:
    with tallystick.open(folder) as ledger:
        for first in range(0, count, BATCH):
            ledger.append_many(events(first, first + BATCH))


def _plain_inserts(scratch: Path, lines: Sequence[bytes], size: int, *, median: bool = False) -> float:
    """Seconds to put the same bytes into SQLite with the same settings and nothing else; or the median of a commit."""
    path = scratch / "floor.db"
    connection = connect(path, synchronous="full", page_bytes=8_192)
    connection.wal_autocheckpoint(2_000)
    connection.execute(
        "CREATE TABLE record (position INTEGER PRIMARY KEY, bytes BLOB NOT NULL, crc32 INTEGER NOT NULL) STRICT"
    )
    times = []
    for first in range(0, len(lines), size):
        values: list[object] = []
        for position, line in enumerate(lines[first : first + size], first):
            values += (position, line, 1)
        started = time.perf_counter()
        with transaction(connection):
            for at in range(0, len(values), 1_500):
                part = values[at : at + 1_500]
                connection.execute("INSERT INTO record VALUES " + ",".join(["(?,?,?)"] * (len(part) // 3)), part)
        times.append(time.perf_counter() - started)
    connection.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return statistics.median(times) if median else sum(times)


def _in_threads(work: Callable[[Any], object], given: Sequence[Any], threads: int) -> None:
    def run(number: int) -> None:
        for item in given[number::threads]:
            work(item)

    if threads == 1:
        run(0)
        return
    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _rate_row(what: str, unit: str, rates: Sequence[float], floors: Sequence[float]) -> Sequence[str]:
    rate, floor = statistics.median(rates), statistics.median(floors)
    return (what, f"{rate:,.0f} {unit}", f"{floor:,.0f} {unit}", f"{rate / floor:.0%}")


if __name__ == "__main__":
    main()
