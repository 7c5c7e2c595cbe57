"""`queue`: how it stands, sealing what an earlier process left, and mending it after damage."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run, environment

LEAVES = """
import os, signal, tallystick
from tallystick.write.queue import Queue
Queue._seal_next = lambda self: __import__("time").sleep(60)
with tallystick.open("audit") as ledger:
    for number in range(6):
        ledger.publish(event_type="a.b", entity_id="e", id=f"left-{number}", payload={"n": number})
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def left(ledger: Path) -> Path:
    """Six events that a killed process published, and did not seal."""
    done = subprocess.run([sys.executable, "-c", LEAVES], cwd=ledger.parent, env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    return ledger / "queue"


def damage(folder: Path) -> None:
    (path,) = folder.glob("segment-*.q")
    data = bytearray(path.read_bytes())
    data[data.index(b"left-2")] ^= 1
    path.write_bytes(data)


@pytest.mark.usefixtures("left")
def test_what_was_left_is_told_and_sealed(run: Run) -> None:
    told = json.loads(run("queue", "stats", "--json").stdout)
    assert (told["depth"], told["findings"]) == (6, [])
    assert "waiting  6 events" in run("queue", "stats").stdout

    assert run("queue", "drain").stdout == "sealed 6 events; nothing waits\n"

    assert "waiting  0 events" in run("queue", "stats").stdout
    assert json.loads(run("queue", "drain", "--json").stdout) == {"sealed": 0, "conflicts": 0, "depth": 0}
    assert run("query", "event_type=a.b", "--count").stdout == "6 records\n"


def test_damage_is_told_and_nothing_is_lost_without_leave(left: Path, run: Run) -> None:
    damage(left)
    before = {path: path.read_bytes() for path in left.iterdir()}

    stats = run("queue", "stats", code=1).stdout
    shown = run("queue", "repair", code=1).stdout
    drained = run("queue", "drain", code=1).stderr

    assert "DAMAGED  segment-" in stats
    assert "event 2 was acknowledged, and cannot be read" in shown
    assert "the queue is damaged" in drained
    assert "Traceback" not in drained
    assert {path: path.read_bytes() for path in left.iterdir()} == before


def test_a_repair_goes_on_with_the_rest(left: Path, run: Run) -> None:
    damage(left)

    repaired = json.loads(run("queue", "repair", "--yes", "--json").stdout)

    assert [(one["sequence"], one["end"]) for one in repaired["findings"]] == [(2, 3)]
    assert run("queue", "drain").stdout == "sealed 5 events, 1 refused, as their tickets say; nothing waits\n"
    assert run("queue", "repair").stdout == "the queue is not damaged\n"


@pytest.mark.usefixtures("ledger")
def test_a_ledger_that_nobody_published_to_has_no_queue(run: Run) -> None:
    for command in ("stats", "drain", "repair"):
        assert "nothing was ever published" in run("queue", command, code=2).stderr
    assert not Path("audit/queue").exists()
