"""A kill between any two writes of the queue, and a disk that fails: what was acknowledged is there, and no crash is
taken for tampering."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tallystick import durable
from tallystick.errors import StoreError
from tallystick.write import journal, queue_mark, queue_repair, segments
from tallystick.write.journal import Journal
from tallystick.write.queue_check import check_queue
from tallystick.write.queue_repair import look, repair

pytestmark = pytest.mark.slow

KEY: Final = b"k" * 32

STEPS: Final = """
import os, signal, sys
from pathlib import Path
from tallystick import durable, ids
from tallystick.write import journal, queue_mark, queue_refusals, queue_repair, segments
from tallystick.write.journal import Journal

folder, victim, KEY = Path(sys.argv[1]), int(sys.argv[2]), b"k" * 32
count = 0

def step():
    # Before and after each call that changes a file, and before each sync is through.
    global count
    count += 1
    if count == victim:
        os.kill(os.getpid(), signal.SIGKILL)

def around(owner, name):
    call = getattr(owner, name)
    def stepped(*given, **more):
        step()
        result = call(*given, **more)
        step()
        return result
    setattr(owner, name, stepped)

for owner, name in (
    (os, "fsync"), (os, "fdatasync"), (os, "pwrite"), (segments, "write_all"), (segments, "erase"),
    (Path, "replace"), (Path, "rename"), (Path, "unlink"), (Path, "mkdir"), (Path, "rmdir"),
):
    around(owner, name)

def say(text):
    os.write(1, f"{text}\\n".encode())
"""

LIFE: Final = (
    STEPS
    + """
segments.SEGMENT_BYTES = 600
made = Journal(folder, key=KEY)
for number in range(made.end, made.end + 8):
    first = made.append([b"%d" % number * 100], now=1)
    made.sync(first + 1)
    say(f"acknowledged {first}")
    if number % 3 == 2:
        frames = made.next(2)
        refused = {frames[0].sequence: "no"} if number == 5 else {}
        say(f"sealing {frames[0].sequence} {len(frames)}")
        made.done(frames, refused)
        say(f"sealed {made.cursor}")
    if number == 6:
        made.clear()
made.clear()
made.close()
say("closed")
"""
)


def killed(script: str, folder: Path, victim: int) -> list[str] | None:
    """What a process said that was killed at a step; None when it came to its end."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(victim)], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return None if done.returncode == 0 else done.stdout.split("\n")[:-1]


def told(lines: list[str], word: str) -> list[int]:
    return [int(line.split()[1]) for line in lines if line.startswith(f"{word} ")]


STEPS_MAX: Final = 400


@pytest.mark.parametrize("part", range(8))
def test_a_kill_between_any_two_writes_loses_nothing_that_was_acknowledged(tmp_path: Path, part: int) -> None:
    """Every step of the life of a queue: made, filled, rolled, sealed, cleared, closed."""
    kills = 0
    for victim in range(part + 1, STEPS_MAX, 8):
        folder = tmp_path / f"queue-{victim}"
        lines = killed(LIFE, folder, victim)
        if lines is None:
            break
        kills += 1
        check_after_kill(folder, lines)
    else:
        raise AssertionError("the process never came to its end")
    assert kills > 10


def check_after_kill(folder: Path, lines: list[str]) -> None:
    acknowledged, sealing = told(lines, "acknowledged"), told(lines, "sealing")
    if folder.exists():
        assert check_queue(folder, KEY) == ()
    reopened = Journal(folder, key=KEY)

    sealed = max(told(lines, "sealed"), default=0)
    assert reopened.end >= len(acknowledged)
    assert reopened.cursor in {sealed, *(first + 2 for first in sealing if first >= sealed)}
    waiting = reopened.next(100)
    assert [frame.sequence for frame in waiting] == [*range(reopened.cursor, reopened.end)]
    assert [frame.body for frame in waiting] == [b"%d" % frame.sequence * 100 for frame in waiting]
    assert all(why == "no" and sequence < reopened.cursor for sequence, why in reopened.refusals.items())
    first = reopened.append([b"after"], now=2)
    reopened.sync(first + 1)
    reopened.done(reopened.next(100), {})
    reopened.clear()
    reopened.close()
    assert check_queue(folder, KEY) == ()


def test_each_step_of_a_publish_says_what_a_crash_there_leaves(tmp_path: Path) -> None:
    """Frames written, frames synced, mark written, mark synced: before the ticket the frame may be there or not, and
    after it, it is."""
    script = STEPS.replace("count = 0", "count = -(10 ** 9)") + (
        "made = Journal(folder, key=KEY)\n"
        'say(f"end {made.end}")\n'
        "count = 0\n"
        "first = made.append([b'x'], now=1)\n"
        "made.sync(first + 1)\n"
        "say(f'acknowledged {first}')\n"
    )
    outcomes = []
    for victim in range(1, 20):
        folder = tmp_path / f"queue-{victim}"
        lines = killed(script, folder, victim)
        if lines is None:
            break
        assert told(lines, "acknowledged") == []  # every step is before the ticket
        reopened = Journal(folder, key=KEY)
        outcomes.append(reopened.end)
        reopened.close()
    # append: before and after the write; sync: around fsync, pwrite and fdatasync. The write alone decides.
    assert outcomes == [0, *[1] * 7]


REPAIR: Final = (
    STEPS
    + """
queue_repair.repair(folder, KEY, now=7)
say("repaired 1")
"""
)


def damaged(folder: Path) -> None:
    """A queue of 6 events, of which one is refused and sealed, and one is damaged."""
    made = Journal(folder, key=KEY)
    made.sync(made.append([b"%d" % number * 100 for number in range(6)], now=1) + 6)
    made.done(made.next(1), {0: "no"})
    made.close()
    (_, path), *_ = segments.segments(folder)
    data = bytearray(path.read_bytes())
    data[data.index(b"3" * 100)] ^= 1
    path.write_bytes(data)


def test_a_kill_within_a_repair_leaves_the_queue_as_it_was_or_repaired(tmp_path: Path) -> None:
    kills = 0
    for victim in range(1, STEPS_MAX):
        folder = tmp_path / f"queue-{victim}"
        damaged(folder)
        if killed(REPAIR, folder, victim) is None:
            break
        kills += 1
        findings = repair(folder, KEY, now=9)  # finishes the first, or does all of it
        assert [(one.sequence, one.end) for one in findings] in ([], [(3, 4)])
        assert look(folder, KEY).findings == ()
        reopened = Journal(folder, key=KEY)
        bodies = [frame.body[:1] for frame in reopened.next(100)]
        assert (reopened.cursor, bodies, reopened.refusals) == (1, [b"1", b"2", b"", b"4", b"5"], {0: "no"})
        reopened.close()
        assert not [*folder.glob("repaired-*")]
    assert kills > 20


# --------------------------------------------------------------------------------------------------- a disk that fails


def failing(*_: Any) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize(
    ("owner", "name"), [(os, "fsync"), (os, "pwrite"), (queue_mark, "sync_data")], ids=["frames", "mark", "its sync"]
)
def test_a_sync_that_fails_gives_no_ticket_and_stops_the_queue_until_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    made = Journal(tmp_path, key=KEY)
    made.sync(made.append([b"before"], now=1) + 1)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing)
        first = made.append([b"x"], now=1)
        with pytest.raises(StoreError, match="could not be made durable"):
            made.sync(first + 1)
    for _ in range(2):
        with pytest.raises(StoreError, match="its disk failed"):
            made.append([b"y"], now=1)
        with pytest.raises(StoreError, match="could not be made durable"):
            made.sync(first + 1)
    assert made.durable == 1
    made.close()

    reopened = Journal(tmp_path, key=KEY)
    assert [frame.body for frame in reopened.next(10)] == [b"before", b"x"]  # it may be there: no caller had a ticket
    reopened.close()
    assert check_queue(tmp_path, KEY) == ()


def test_what_stands_past_the_mark_is_written_again_and_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an fsync that failed, what is in memory alone looks as if it were on the disk."""
    made = Journal(tmp_path, key=KEY)
    made.append([b"x" * 50], now=1)
    made.close()
    order: list[str] = []

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def note(*given: Any, **more: Any) -> Any:
            order.append(name)
            return call(*given, **more)

        return note

    monkeypatch.setattr(segments, "write_all", noted("written", segments.write_all))
    monkeypatch.setattr(segments, "sync", noted("synced", durable.sync))
    monkeypatch.setattr(queue_mark.MarkFile, "write", noted("marked", queue_mark.MarkFile.write))
    reopened = Journal(tmp_path, key=KEY)
    reopened.close()

    assert order == ["written", "synced", "marked"]
    assert reopened.durable == 1


def test_an_append_that_cannot_be_undone_stops_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next frame would stand after half a frame, and nothing after it would be read."""
    made = Journal(tmp_path, key=KEY)
    with monkeypatch.context() as patch:
        patch.setattr(segments, "write_all", failing)
        with pytest.raises(StoreError, match="could not write"):
            made.append([b"x"], now=1)
    made.sync(made.append([b"y"], now=1) + 1)  # what was half written is gone
    made._file.close()
    with pytest.raises((StoreError, ValueError)):
        made.append([b"z"], now=1)
    made.close()
    reopened = Journal(tmp_path, key=KEY)
    assert [frame.body for frame in reopened.next(10)] == [b"y"]
    reopened.close()


def test_a_cursor_that_cannot_be_written_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Journal(tmp_path, key=KEY)
    made.sync(made.append([b"x", b"y"], now=1) + 2)
    frames = made.next(2)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "replace", failing)
        with pytest.raises(OSError, match="Input/output"):
            made.done(frames, {0: "no"})

    assert made.next(2) == frames
    made.done(frames, {1: "no"})
    made.close()

    reopened = Journal(tmp_path, key=KEY)
    assert (reopened.cursor, reopened.refusals) == (2, {1: "no"})
    reopened.close()


def test_finishing_a_repair_is_what_opening_does_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(queue_repair, "finish_repair", lambda *_, **__: None)
        repair(tmp_path, KEY, now=7)
    assert [one.kind for one in check_queue(tmp_path, KEY)] == ["repair"]

    Journal(tmp_path, key=KEY).close()

    assert check_queue(tmp_path, KEY) == ()
