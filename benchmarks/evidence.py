"""Measure evidence: a bundle of a million records, exported and verified by each reader. `make bench-evidence`.

The floors, in the same run: reading the file of records and hashing it once (SHA-256), which every reader has to, and
copying it, which every export has to. Each part is a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.table import Table

import tallystick
from benchmarks.ledgers import make
from benchmarks.run import peak_memory_kb
from tallystick.core.policy import Policy
from tallystick.read.query import parse_terms

SECONDS_MAX = 30
MEGABYTES_MAX = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="records of the ledger (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the ledger is made and kept (default: a temporary one)")
    parser.add_argument("--alone", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        began = time.monotonic()
        what, folder = _ALONE[options.alone[0]], Path(options.alone[1])
        what(folder)
        sys.stdout.write(f"{time.monotonic() - began} {peak_memory_kb()}\n")
        return
    console = Console() if Console().is_terminal else Console(width=120)
    with tempfile.TemporaryDirectory(prefix="tallystick-bench-") as scratch:
        kept = make(
            options.folder or Path(scratch), options.records, tell=lambda text: console.print(text, style="dim")
        )
        folder = Path(scratch) / "evidence"
        folder.mkdir()
        shutil.copytree(kept, folder / "ledger")  # an export is recorded: the kept ledger stays as it is
        console.print(_table(folder, options.records))


def _table(folder: Path, records: int) -> Table:
    table = Table("what", "seconds", "records/s", "memory", "wanted", title=f"Evidence, {records:,} records")
    for column in table.columns[1:]:
        column.justify = "right"
    wanted = f"{SECONDS_MAX} s, {MEGABYTES_MAX} MB a million"
    for name, aim in (
        ("export", wanted),
        ("floor: copy the file", ""),
        ("verify, tallystick-verify", wanted),
        ("verify, the library", wanted),
        ("floor: one SHA-256 over the file", ""),
        ("export, a filter that 5 % fit", ""),
        ("verify it, tallystick-verify", ""),
    ):
        seconds, kilobytes = _measured(name, folder)
        rate = f"{records / seconds:,.0f}"
        table.add_row(name, f"{seconds:.2f}", rate, f"{kilobytes / 1_000:,.0f} MB", aim)
    return table


def _measured(name: str, folder: Path) -> tuple[float, int]:
    """Seconds and peak memory in KB of one part, in a process of its own."""
    if name.endswith("tallystick-verify"):
        bundle = "some" if name.startswith("verify it") else "all"
        # Recorded times are of a clock of the ledger's own, so the verifier is told one, too.
        now = (datetime.now(UTC) + timedelta(days=366)).strftime("%Y-%m-%dT%H:%M:%SZ")
        code = (
            "import sys, time; from tallystick_verify.cli import main; from benchmarks.run import peak_memory_kb; "
            "began = time.monotonic(); code = main(sys.argv[1:]); "
            "sys.stderr.write(f'{time.monotonic() - began} {peak_memory_kb()}\\n'); sys.exit(code)"
        )
        command = [sys.executable, "-c", code, str(folder / bundle), "--trust", str(folder / "trust"), "--now", now]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, kilobytes = done.stderr.split()
        return float(seconds), int(kilobytes)
    command = [sys.executable, "-m", "benchmarks.evidence", "--alone", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, kilobytes = done.stdout.split()
    return float(seconds), int(kilobytes)


def _export(folder: Path) -> None:
    with tallystick.open(folder / "ledger") as ledger:
        (folder / "trust").write_bytes(Policy(logs=(ledger.verifier_key,)).render())
        ledger.export(folder / "all")


def _export_some(folder: Path) -> None:
    with tallystick.open(folder / "ledger") as ledger:
        ledger.export(folder / "some", [parse_terms(["label=phi"])])


def _verify(folder: Path) -> None:
    report = tallystick.verify_bundle(folder / "all", trust=(folder / "trust").read_bytes())
    assert report.holds, report.findings


def _copy(folder: Path) -> None:
    shutil.copyfile(folder / "all" / "events.jsonl", folder / "copy")


def _hash(folder: Path) -> None:
    hasher = sha256()
    with (folder / "all" / "events.jsonl").open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)


_ALONE: dict[str, Callable[[Path], None]] = {
    "export": _export,
    "floor: copy the file": _copy,
    "verify, the library": _verify,
    "floor: one SHA-256 over the file": _hash,
    "export, a filter that 5 % fit": _export_some,
}

if __name__ == "__main__":
    main()
