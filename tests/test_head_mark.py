"""The head mark: an older copy that is put back is found at open, before anything is added, and by a verification."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tallystick
from tallystick.cli.program import program
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.restored import LEDGER_RESTORED, LedgerRestored
from tallystick.errors import ConflictError, StoreError, TamperError
from tallystick.evidence.findings import Kind
from tallystick.store.head_mark import LATEST_SECONDS
from tests.threads import in_threads

FILES = ("ledger.db", "index.db", "sealing.db")
EVENT = {"event_type": "door.opened", "entity_id": "door-1", "actor": "jane"}


class Scene:
    """A ledger, its keys and marks elsewhere, and an older copy of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ledger"
        self.keys = folder / "keys"
        self.older = folder / "older"

    def open(self, **given: Any) -> tallystick.Ledger:
        return tallystick.open(self.folder, keys=self.keys, **given)

    def fill(self, count: int) -> None:
        with self.open() as ledger:
            for _ in range(count):
                ledger.append(EVENT)

    def copy(self) -> None:
        shutil.copytree(self.folder, self.older)

    def put_back(self) -> None:
        """As an attacker does who can write the ledger's directory."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.older, self.folder)

    @property
    def mark(self) -> Path:
        (found,) = (self.keys / "heads").glob("*.head")
        return found

    @property
    def marked(self) -> int:
        return Checkpoint.of_note(self.mark.read_bytes().split(b"\n", 3)[3]).size


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path)
    made.fill(5)
    made.copy()
    made.fill(300)
    return made


def until(holds: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def refuses(ledger: tallystick.Ledger) -> bool:
    try:
        ledger.append(EVENT)
    except (TamperError, StoreError):
        return True
    return False


def check_refused(ledger: tallystick.Ledger, match: str) -> None:
    for attempt in (lambda: ledger.append(EVENT), ledger.checkpoint, lambda: ledger.prove(0), ledger.change_epoch):
        with pytest.raises(TamperError, match=match):
            attempt()


def kinds(report: tallystick.Report) -> set[Kind]:
    return {finding.kind for finding in report.findings}


def test_an_older_copy_is_found_at_open_and_nothing_is_added_to_it(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    assert scene.marked == 307
    scene.put_back()
    before = (scene.folder / "ledger.db").read_bytes()
    with scene.open() as ledger:
        assert ledger.mark_problem is not None
        assert ledger.mark_problem.kind == "rollback"
        assert "was put back" in caplog.text
        check_refused(ledger, "accept-loss")
        assert kinds(ledger.verify()) == {Kind.ROLLBACK}
        assert len([*ledger.read()]) == 7, "it can be looked at"
    assert scene.marked == 307, "the mark says so still"
    assert (scene.folder / "ledger.db").read_bytes() == before
    report = tallystick.verify(scene.folder, keys=scene.keys)
    assert kinds(report) == {Kind.ROLLBACK}
    assert report.mark == 307
    with scene.open(readonly=True) as reading:
        assert len([*reading.read()]) == 7, "reading needs no mark"


EVIDENCE: dict[str, Callable[[tallystick.Ledger, Path], object]] = {
    "proven": lambda ledger, _: ledger.proven().__enter__(),
    "checkpoint": lambda ledger, _: ledger.checkpoint(),
    "prove": lambda ledger, _: ledger.prove(3),
    "consistency": lambda ledger, _: ledger.prove_consistency(3),
    "tile": lambda ledger, _: ledger.tile(0, 0, 5),
    "export": lambda ledger, folder: ledger.export(folder / "bundle"),
}


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("what", EVIDENCE)
def test_no_evidence_leaves_an_older_copy(scene: Scene, tmp_path: Path, what: str, readonly: bool) -> None:
    scene.put_back()
    with scene.open(readonly=readonly) as ledger:
        if not (what == "export" and readonly):
            with pytest.raises(TamperError, match="was put back"):
                EVIDENCE[what](ledger, tmp_path)
        assert ledger.count() == ledger.size, "people have to be able to look at it"


@pytest.mark.parametrize("command", ["report make access-review -o page.html", "controls check CC6.3", "checkpoint"])
def test_no_command_makes_evidence_of_an_older_copy(
    scene: Scene, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scene.put_back()
    for name, value in (("TALLYSTICK_LEDGER", scene.folder), ("TALLYSTICK_KEYS", scene.keys)):
        monkeypatch.setenv(name, str(value))
    done = CliRunner().invoke(program, command.split())
    assert done.exit_code == 1, done.output
    assert "was put back" in done.output


def test_what_was_committed_to_a_log_that_then_was_lost_is_missed_by_the_mark(scene: Scene) -> None:
    """The write-ahead log is swapped while it is open, and nothing else of what came since is left."""
    with scene.open() as ledger:
        ledger.append(EVENT)
        wal = scene.folder / "ledger.db-wal"
        before = wal.read_bytes()
        size = [ledger.append(EVENT).position for _ in range(20)][-1] + 1
        scratch = scene.folder / "scratch"
        scratch.write_bytes(before)
        scratch.rename(wal)
        until(lambda: ledger.mark_problem is not None)
        assert scene.marked == size, "in spite of a log that cannot be read"
    for path in scene.folder.glob("*.db*"):
        if not path.name.startswith("ledger.db"):
            path.unlink()

    def is_noticed() -> bool:
        try:
            with scene.open() as again:
                return again.size >= size or refuses(again)
        except (TamperError, StoreError):  # what was swapped is no log at all
            return True

    assert is_noticed()


def test_an_older_copy_that_went_on_is_a_fork(scene: Scene) -> None:
    scene.put_back()
    with tallystick.open(scene.folder, keys=scene.keys, marks=scene.folder / "others") as ledger:
        for _ in range(310):
            ledger.append(EVENT)
    with scene.open() as ledger:
        check_refused(ledger, "history was rewritten")
        assert kinds(ledger.verify()) == {Kind.FORK}


@pytest.mark.parametrize("how", ["in place", "by rename"])
def test_an_older_copy_is_found_before_the_next_append_of_an_open_ledger(scene: Scene, how: str) -> None:
    with scene.open() as ledger:
        ledger.append(EVENT)
        for name in FILES:
            for path in scene.folder.glob(f"{name}-*"):
                path.unlink()
            if how == "by rename":
                shutil.copy(scene.older / name, scene.folder / "scratch")
                (scene.folder / "scratch").rename(scene.folder / name)
            else:
                shutil.copyfile(scene.older / name, scene.folder / name)
        # By rename at once; in place the log beside the file is looked at once a second.
        until(lambda: refuses(ledger), seconds=LATEST_SECONDS)
    with pytest.raises((TamperError, StoreError)):  # what was written over in place is damaged besides
        scene.fill(1)


def test_a_loss_is_accepted_with_a_reason_and_the_ledger_says_so(scene: Scene) -> None:
    held = Checkpoint.of_note(scene.mark.read_bytes().split(b"\n", 3)[3])
    scene.put_back()
    with scene.open() as ledger:
        ledger.accept_loss("the disk died", actor={"id": "jane"})
        last = ledger.get(ledger.size - 1)
        told = LedgerRestored.of(last)
        assert (last.event_type, last.actor) == (LEDGER_RESTORED, {"id": "jane"})
        assert (told.size, told.reason) == (7, "the disk died")
        assert told.held_checkpoint is not None
        assert Checkpoint.of_note(told.held_checkpoint) == held
        assert last.members["epoch"] == 150, "under keys that what was lost cannot have disclosed"
        ledger.append(EVENT)
        with pytest.raises(ConflictError, match="no loss"):
            ledger.accept_loss("once more")
    assert tallystick.verify(scene.folder, keys=scene.keys).holds
    scene.fill(1)


def test_a_fork_and_a_forged_mark_are_accepted_likewise(scene: Scene) -> None:
    with scene.open() as ledger:
        scene.mark.write_bytes(scene.mark.read_bytes()[:-1] + b"x")
        with pytest.raises(TamperError, match="altered"):
            ledger.append(EVENT)
        ledger.accept_loss("somebody was at the keys")
        ledger.append(EVENT)
    assert tallystick.verify(scene.folder, keys=scene.keys).holds


def test_the_command_line_says_what_to_do_and_does_it(scene: Scene) -> None:
    scene.put_back()
    run = CliRunner().invoke
    shared = ["-l", str(scene.folder), "--keys", str(scene.keys)]
    refused = run(program, ["append", "--type", "a.b", "--entity", "c", *shared])
    assert (refused.exit_code, "tallystick accept-loss" in refused.stderr) == (1, True)
    assert run(program, ["verify", *shared]).exit_code == 1
    assert run(program, ["accept-loss", "the disk died", "--actor", "jane", *shared]).exit_code == 0
    held = run(program, ["verify", *shared])
    assert (held.exit_code, "head mark" in held.stdout) == (0, True)


def test_a_mark_that_is_missing_is_a_warning(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.mark.unlink()
    report = tallystick.verify(scene.folder, keys=scene.keys)
    assert (report.holds, report.mark) == (True, None)
    assert "no head mark" in report.notes[0]
    assert scene.marked == report.size, "the report tells of a checkpoint"
    scene.mark.unlink()
    with scene.open() as ledger:
        assert "would not be noticed" in caplog.text
        ledger.append(EVENT)
    assert scene.marked == 308


@pytest.mark.parametrize("emptied", [False, True], ids=["the folder", "what is in it"])
def test_a_ledger_that_was_removed_is_not_begun_again(scene: Scene, emptied: bool) -> None:
    shutil.rmtree(scene.folder)
    if emptied:
        scene.folder.mkdir()
    with pytest.raises(TamperError, match=r"a ledger ledger of \d+ records was made with these keys") as refused:
        scene.open()
    assert scene.mark.name in str(refused.value)
    assert not (scene.folder / "index.db").exists()

    with tallystick.open(scene.folder.with_name("other"), keys=scene.keys) as other:
        assert other.size == 2, "one of another name is another one"
    (scene.keys / "heads" / "notes.head").write_text("not ours")
    with pytest.raises(TamperError):
        scene.open()
    for mark in (scene.keys / "heads").glob("*.head"):
        mark.unlink()
    with scene.open() as again:
        assert again.size == 2, "its mark was removed, as the message says"


def test_a_ledger_that_was_put_back_after_it_was_removed_goes_on(scene: Scene) -> None:
    shutil.move(scene.folder, scene.folder.with_name("aside"))
    with pytest.raises(TamperError, match="it was removed"):
        scene.open()
    shutil.rmtree(scene.folder, ignore_errors=True)
    shutil.move(scene.folder.with_name("aside"), scene.folder)
    with scene.open() as ledger:
        ledger.append(EVENT)
        assert ledger.verify().holds


def test_processes_that_make_a_ledger_at_once_do_not_take_it_for_a_removed_one(tmp_path: Path) -> None:
    def begin(_: int) -> None:
        for number in range(8):
            with tallystick.open(tmp_path / f"ledger-{number}", keys=tmp_path / "keys") as ledger:
                ledger.append(EVENT)

    in_threads(4, begin)


def test_a_new_ledger_has_no_mark_and_that_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    scene = Scene(tmp_path)
    scene.open().close()
    scene.open().close()
    assert tallystick.verify(scene.folder, keys=scene.keys).notes == ()
    assert "mark" not in caplog.text


def forge(data: bytes) -> bytes:
    """Another size, under the tag of the old one."""
    return data.replace(b"\n307\n", b"\n306\n")


@pytest.mark.parametrize(
    "change", [forge, lambda _: b"", lambda _: b"x", lambda data: data[:-1], lambda data: data + b"\n"]
)
def test_an_altered_mark_is_found(scene: Scene, change: Callable[[bytes], bytes]) -> None:
    scene.mark.write_bytes(change(scene.mark.read_bytes()))
    with scene.open() as ledger:
        check_refused(ledger, "altered or replaced")
    assert kinds(tallystick.verify(scene.folder, keys=scene.keys)) == {Kind.STORE}


def test_the_mark_of_another_ledger_under_the_same_keys_is_found(scene: Scene) -> None:
    mark = scene.mark
    elsewhere = scene.folder.parent / "elsewhere"
    with tallystick.open(scene.folder.parent / "other", name="ledger", keys=scene.keys, marks=elsewhere) as other:
        other.append(EVENT)
    (others,) = elsewhere.glob("*.head")
    shutil.copyfile(others, mark)
    with scene.open() as ledger:
        check_refused(ledger, "not one of this ledger")


def test_an_older_mark_of_the_ledger_itself_passes_as_after_a_crash(scene: Scene) -> None:
    older = scene.mark.read_bytes()
    scene.fill(3)
    scene.mark.write_bytes(older)
    scene.fill(1)
    assert scene.marked == 311


def test_the_mark_follows_within_two_seconds_and_only_its_owner_reads_it(scene: Scene) -> None:
    with scene.open() as ledger:
        ledger.append(EVENT)
        until(lambda: scene.marked == 308)
        ledger.append(EVENT)
        began = time.monotonic()
        until(lambda: scene.marked == 309)
        assert time.monotonic() - began < LATEST_SECONDS
        assert scene.mark.stat().st_mode & 0o777 == 0o600
        names = {thread.name for thread in threading.enumerate()}
        assert "tallystick-head-mark" in names
    assert "tallystick-head-mark" not in {thread.name for thread in threading.enumerate()}


def test_the_mark_is_written_before_a_checkpoint_is_handed_out(scene: Scene) -> None:
    with scene.open() as ledger:
        for hand_out in (ledger.checkpoint, lambda: ledger.prove(3), lambda: ledger.export(scene.older / "bundle")):
            for _ in range(3):
                ledger.append(EVENT)
            size = ledger.size
            hand_out()
            assert scene.marked >= size


@pytest.mark.parametrize("way", ["Ledger.verify", "verify", "backup"])
def test_the_mark_is_written_before_a_verification_or_a_backup_tells_of_a_checkpoint(
    scene: Scene, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystick.store.head_mark.HeadMark._run", lambda _: None)  # as if its second were not over
    with scene.open() as ledger:
        ledger.append(EVENT)
        assert scene.marked < ledger.size
        if way == "backup":
            done = tallystick.backup(scene.folder, scene.folder.with_name("copy"), keys=scene.keys)
            assert scene.marked == done.ledgers[0].size == ledger.size
        else:
            report = ledger.verify() if way == "Ledger.verify" else tallystick.verify(scene.folder, keys=scene.keys)
            assert scene.marked == Checkpoint.of_note(report.checkpoint).size == ledger.size


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_mark_that_a_verification_cannot_write_is_a_note(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.store.head_mark.HeadMark._run", lambda _: None)
    with scene.open() as ledger:
        ledger.append(EVENT)
        with monkeypatch.context() as patch:
            patch.setattr("tallystick.store.head_mark.replace", full)
            report = ledger.verify()
    assert report.holds
    assert any("the head mark" in note for note in report.notes), report.notes


def test_no_checkpoint_goes_out_while_the_mark_cannot_be_written(scene: Scene) -> None:
    marks = scene.mark.parent
    with scene.open(marks=scene.folder.parent / "full") as ledger:
        (scene.folder.parent / "full").write_bytes(b"")  # no directory can be made here, as on a full disk
        ledger.append(EVENT)
        for hand_out in (ledger.checkpoint, lambda: ledger.prove(3)):
            with pytest.raises(StoreError, match="no checkpoint is handed out"):
                hand_out()
        assert "exists" in str(ledger.mark_failing)
        assert ledger.mark_failures
        ledger.append(EVENT)
        (scene.folder.parent / "full").unlink()
        assert ledger.checkpoint()
        assert not ledger.mark_failing
    assert marks.exists()


WRITER = """
import sys, tallystick
ledger = tallystick.open(sys.argv[1], keys=sys.argv[2])
print(flush=True)
while True:
    ledger.append(event_type="a.b", entity_id="c")
    print(flush=True)
"""


def test_a_crash_between_a_commit_and_its_mark_is_no_alarm(scene: Scene) -> None:
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(scene.folder), str(scene.keys)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(40):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with scene.open() as ledger:
            assert ledger.mark_problem is None
            assert ledger.size > scene.marked, "the last commits came too late for the mark"
        assert tallystick.verify(scene.folder, keys=scene.keys).holds
        scene.fill(1)


def test_processes_that_share_a_ledger_share_its_mark_which_only_grows(scene: Scene) -> None:
    command = [sys.executable, "-c", WRITER, str(scene.folder), str(scene.keys)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        seen = [scene.marked]
        with scene.open() as ledger:
            until(lambda: ledger.size > 600)
            while len({*seen}) < 3:
                ledger.append(EVENT)
                size = ledger.size
                ledger.checkpoint()
                seen.append(scene.marked)
                assert seen[-1] >= size
            assert ledger.mark_problem is None
        assert seen == sorted(seen)
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    assert tallystick.verify(scene.folder, keys=scene.keys).holds


def test_a_second_copy_in_use_under_the_same_keys_is_found_as_a_fork(scene: Scene) -> None:
    copy = scene.folder.parent / "copy"
    shutil.copytree(scene.folder, copy)
    with scene.open() as one, tallystick.open(copy, keys=scene.keys) as other:
        assert len(one.read_proven(306)) == len(other.read_proven(306)) == 1  # both are ready to seal
        one.append(EVENT)
        other.append(EVENT)  # neither knows of the other yet
        one.append(EVENT)
        one.checkpoint()
        with pytest.raises(TamperError, match="records"):
            other.checkpoint()
        with pytest.raises(TamperError, match="records"):
            other.append(EVENT)
        one.append(EVENT)
        one.checkpoint()
    with tallystick.open(copy, keys=scene.keys) as other:
        check_refused(other, "head mark")


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    scene, now = Scene(tmp_path), [1_800_000_000_000_000]
    with scene.open(clock=lambda: now[0]) as ledger:
        for jump in (0, -(10**14), 10**13, -1):
            now[0] += jump
            ledger.append(EVENT)
            ledger.checkpoint()
            assert scene.marked == ledger.size
    with scene.open(clock=lambda: now[0]) as ledger:
        assert ledger.mark_problem is None


def test_the_folder_of_the_marks_is_given_by_argument_or_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    monkeypatch.setenv("TALLYSTICK_MARKS", str(tmp_path / "marks"))
    scene.fill(3)
    assert [path.suffix for path in (tmp_path / "marks").glob("*.head")] == [".head"]
    with scene.open(marks=tmp_path / "given") as ledger:
        ledger.append(EVENT)
    assert [*(tmp_path / "given").glob("*.head")]
    assert not (scene.keys / "heads").exists()
    assert os.environ["TALLYSTICK_MARKS"]


def test_two_writers_whose_shared_memory_was_parted_lose_nothing_unnoticed(scene: Scene) -> None:
    with scene.open() as first:
        first.append(EVENT)
        (scene.folder / "ledger.db-shm").unlink()
        done = subprocess.run(
            [sys.executable, "-c", PARTED, str(scene.folder), str(scene.keys)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        told = [(int(line), "the other's") for line in done.stdout.split()]
        until(lambda: refuses(first))
    with scene.open() as ledger:
        if ledger.mark_problem is None:
            names = {record.position: record.entity_id for record in ledger.read()}
            assert all(names.get(position) == name for position, name in told)
            assert ledger.verify().holds


PARTED = """
import sys, tallystick
with tallystick.open(sys.argv[1], keys=sys.argv[2]) as ledger:
    for _ in range(5):
        print(ledger.append(event_type="door.opened", entity_id="the other's").position)
"""
