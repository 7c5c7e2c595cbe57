"""Measure backups: of a ledger of a million records, made and restored, and what writers see meanwhile.

The floor, in the same run: copying the file of the log and waiting for the disk, which is no backup of a ledger in use.
Each backup is a process of its own, as `tallystick backup` is. The writers are four threads of another process, each of
which waits for the answer of one append before it makes the next: first by themselves, then beside backups.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.ledgers import make

WRITER = """
import json, sys, threading, time, tallystick
enough, took = threading.Event(), []
def write(number):
    step = 0
    while not enough.is_set():
        began = time.monotonic()
        ledger.append(event_type="bench.written", entity_id=f"w-{number}", payload={"step": step, "pad": "x" * 200})
        took.append((began, time.monotonic() - began))
        step += 1
with tallystick.open(sys.argv[1]) as ledger:
    ledger.append(event_type="bench.written", entity_id="w")
    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    enough.set()
    for thread in threads:
        thread.join()
print(json.dumps(took))
"""
ALONE_SECONDS = 8
BESIDE = 4
"""Backups that are made beside the writers, one after another."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="records of the ledger (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the ledger is made and kept (default: a temporary one)")
    options = parser.parse_args()
    console = Console() if Console().is_terminal else Console(width=120)
    with tempfile.TemporaryDirectory(prefix="tallystick-bench-", dir=options.folder) as scratch:
        kept = make(
            options.folder or Path(scratch), options.records, tell=lambda text: console.print(text, style="dim")
        )
        folder = Path(scratch) / "ledger"
        shutil.copytree(kept, folder)  # the writers add to it: the kept ledger stays as it is
        console.print(_made(folder, Path(scratch), options.records))
        console.print(_beside(folder, Path(scratch)))


def _made(folder: Path, scratch: Path, records: int) -> Table:
    size = (folder / "ledger.db").stat().st_size
    table = Table("what", "seconds", "MB/s", title=f"Backups, {records:,} records, {size / 1e6:,.0f} MB")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, work in (
        ("floor: copy the log, and wait for the disk", lambda: _floor(folder, scratch / "floor")),
        ("backup into a folder", lambda: _run("backup", folder, "-o", scratch / "made")),
        ("backup into a tar", lambda: _run("backup", folder, "-o", scratch / "made.tar")),
        (
            "restore, every record verified, without keys",
            lambda: _run("restore", scratch / "made", "-o", scratch / "b"),
        ),
        (
            "the same with keys",
            lambda: _run("restore", scratch / "made.tar", "-o", scratch / "c", "--keys", folder / "keys"),
        ),
        ("check, where it is", lambda: _run("restore", scratch / "made", "--check")),
    ):
        seconds = _timed(work)
        table.add_row(name, f"{seconds:.2f}", f"{size / 1e6 / seconds:,.0f}")
    for name in ("floor", "made.tar"):
        (scratch / name).unlink()
    for name in ("made", "b", "c"):
        shutil.rmtree(scratch / name)
    return table


def _beside(folder: Path, scratch: Path) -> Table:
    """What appends take, by themselves and beside backups."""
    table = Table("four writers", "appends/s", "p50 ms", "p99 ms", "max ms", "log grows to MB", title="Writers")
    for column in table.columns[1:]:
        column.justify = "right"
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        marks = [time.monotonic()]
        time.sleep(ALONE_SECONDS)
        log = folder / "ledger.db-wal"
        sizes = [log.stat().st_size]
        for name in ("nobody", "a copy of the file", "a backup into a folder"):
            marks.append(time.monotonic())
            for number in range(0 if name == "nobody" else BESIDE):
                if name == "a copy of the file":
                    _floor(folder, scratch / "floor")
                else:
                    _run("backup", folder, "-o", scratch / f"beside-{number}")
            sizes.append(log.stat().st_size)
        marks.append(time.monotonic())
        took = json.loads(writer.communicate("\n")[0])
    for name, first, last, size in zip(
        ("by themselves", "beside copies of the file", "beside backups"),
        (marks[0], marks[2], marks[3]),
        (marks[1], marks[3], marks[4]),
        (sizes[0], sizes[2], sizes[3]),
        strict=True,
    ):
        mine = sorted(seconds for began, seconds in took if first <= began < last)
        figures = (_part(mine, 0.5), _part(mine, 0.99), mine[-1] * 1_000)
        rate = f"{len(mine) / (last - first):,.0f}"
        table.add_row(name, rate, *(f"{figure:.2f}" for figure in figures), f"{size / 1e6:,.0f}")
    return table


def _part(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] * 1_000


def _floor(folder: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    shutil.copyfile(folder / "ledger.db", target)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _run(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "tallystick", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def _timed(work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
