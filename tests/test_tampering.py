"""The write-ahead log and the key files of a ledger, changed on the disk: found before anything is added."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

import tallystick
from tallystick.core.checkpoint import Checkpoint
from tallystick.errors import TallystickError, TamperError
from tallystick.evidence.findings import Kind

EVENT: Final = {"event_type": "door.opened", "entity_id": "door-1", "actor": "jane"}

KILLED: Final = textwrap.dedent("""
    import os, shutil, signal, sys
    import tallystick
    folder = sys.argv[1]
    ledger = tallystick.open(f"{folder}/ledger", keys=f"{folder}/keys")
    for count in (5, 40):
        for number in range(count):
            ledger.append(event_type="door.opened", entity_id=f"door-{number}", actor="jane")
        if count == 5:
            shutil.copy(f"{folder}/ledger/ledger.db-wal", f"{folder}/older.db-wal")
    ledger.checkpoint()
    print(ledger.size, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
""")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger whose process was killed: its newest records are in the write-ahead log alone."""
    folder = tmp_path_factory.mktemp("killed")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, "")
    assert (folder / "ledger/ledger.db-wal").stat().st_size > 100_000
    return folder


@pytest.fixture
def folder(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed, tmp_path / "copy")
    return tmp_path / "copy"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def garble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 3, len(data), 4_096):
        data[at] ^= 0xFF
    path.write_bytes(data)


WAL: Final[dict[str, Callable[[Path], object]]] = {
    "cut in half": cut,
    "its last frame cut off": lambda path: os.truncate(path, path.stat().st_size - 8_192 - 24),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": Path.unlink,
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "garbled": garble,
    "an older one put back": lambda path: shutil.copy(path.parent.parent / "older.db-wal", path),
}


NOTHING_LEFT: Final = ("emptied", "removed", "zeroed")
"""Of this ledger all is in the log that is changed: its file has nothing yet."""


@pytest.mark.parametrize("what", WAL)
def test_a_write_ahead_log_that_was_changed_is_found_by_the_head_mark(folder: Path, what: str) -> None:
    for name in ("index.db", "sealing.db"):  # else what is left of them would tell, too
        for path in (folder / "ledger").glob(f"{name}*"):
            path.unlink()
    (folder / "ledger/ledger.db-shm").unlink()
    WAL[what](folder / "ledger/ledger.db-wal")

    def found() -> set[Kind]:
        return {one.kind for one in tallystick.verify(folder / "ledger", keys=folder / "keys").findings}

    if what in NOTHING_LEFT:
        with pytest.raises(TallystickError, match="no ledger"):
            found()
    else:
        assert found() & {Kind.ROLLBACK, Kind.UNREADABLE, Kind.FORK}

    def append() -> None:
        with tallystick.open(folder / "ledger", keys=folder / "keys") as ledger:
            ledger.append(EVENT)

    with pytest.raises(TamperError):
        append()


def test_a_write_ahead_log_that_nobody_changed_is_read_after_a_kill(folder: Path) -> None:
    with tallystick.open(folder / "ledger", keys=folder / "keys") as ledger:
        assert ledger.size == 47
        ledger.append(EVENT)
        assert ledger.verify().holds


KEYS: Final = ("master.key", "root.key", "checkpoint.key", "evidence.key")
KEY_EDITS: Final = (
    "another ledger's",
    "removed",
    "emptied",
    "zeroed",
    "a byte changed",
    "a folder",
    "a link to nothing",
)


@pytest.mark.parametrize("edit", KEY_EDITS)
@pytest.mark.parametrize("name", KEYS)
def test_a_key_file_that_was_changed_seals_nothing(tmp_path: Path, name: str, edit: str) -> None:
    place, keys = tmp_path / "ledger", tmp_path / "keys"
    with tallystick.open(place, keys=keys) as ledger:
        ledger.append(EVENT)
    with tallystick.open(tmp_path / "other", keys=tmp_path / "others") as other:
        other.append(EVENT)
    path = keys / name
    data = path.read_bytes()
    path.unlink()
    if edit == "another ledger's":
        shutil.copy(tmp_path / "others" / name, path)
    elif edit == "a folder":
        path.mkdir()
    elif edit == "a link to nothing":
        path.symlink_to(tmp_path / "nothing")
    elif edit != "removed":
        middle = len(data) // 2
        wrong = {"emptied": b"", "zeroed": bytes(len(data))}.get(edit)
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if wrong is None else wrong)
        path.chmod(0o600)

    def append() -> None:
        with tallystick.open(place, keys=keys) as ledger:
            ledger.append(EVENT)

    with pytest.raises(TallystickError) as refused:
        append()
    assert str(refused.value), "it says what is wrong"

    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)
    with tallystick.open(place, keys=keys) as ledger:
        assert ledger.size == 3, "nothing was sealed"
        ledger.append(EVENT)
        report = ledger.verify()
    assert report.holds, report.findings
    assert Checkpoint.of_note(report.checkpoint).size == 4
