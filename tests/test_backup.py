"""Backups: made while ledgers are in use, restored only when all of it holds, and nothing else is ever left behind."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import apsw
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

import tallystick
from tallystick.backups.layout import VERIFIED_FILE, folder_of
from tallystick.backups.manifest import BackupManifest
from tallystick.backups.restore import Restored
from tallystick.backups.tar import END, parse_header, read_index, render_header
from tallystick.config import CURSORS_FILE, LEDGER_FILE, Location
from tallystick.core.canonical import encode
from tallystick.core.custody import RetentionPolicy
from tallystick.core.restored import LEDGER_RESTORED, LedgerRestored, epochs_to_pass
from tallystick.core.sshsig import BACKUP_NAMESPACE, sign_file
from tallystick.core.strict import render_base64
from tallystick.deployment import Deployment
from tallystick.errors import BusyError, ConflictError, NotFoundError, RejectedError, StoreError, TamperError
from tallystick.evidence.findings import Kind
from tallystick.evidence.others.cosigning import keep
from tallystick.keystore import Keystore
from tallystick.made_file import Made
from tallystick.read import sqlite_cursors
from tallystick.serve import watch
from tallystick.store import sqlite
from tallystick.store.sqlite import SqliteStore
from tallystick.write import queue_copy, segments
from tallystick.write.journal import Journal
from tallystick.write.queue import Queue
from tallystick.write.queue_check import check_queue
from tallystick.write.queue_mac import NO_LINK
from tests.test_crash import environment, lines_of, may_mount, raw_lines
from tests.threads import in_threads

ACTOR: Final = {"id": "the-tests"}
DAY: Final = 86_400_000_000


def append(ledger: tallystick.Ledger, *names: str) -> None:
    ledger.append_many([{"event_type": "t.happened", "entity_id": "e", "id": name} for name in names])


def ids_of(ledger: tallystick.Ledger) -> list[str]:
    return [record.id for record in ledger.read() if not record.event_type.startswith("tallystick.")]


def left_in(folder: Path) -> list[str]:
    """The names in a folder, hidden ones, too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger with all that one can have: records, a projection, a cosigned checkpoint, a queue."""
    folder = tmp_path / "ledger"
    with tallystick.open(folder, keys=tmp_path / "keys") as opened:
        append(opened, *(f"first-{number}" for number in range(300)))
        opened.publish(event_type="t.happened", entity_id="e", id="queued")
        opened.queue.drain(seconds=20)
        with opened.subscribe(name="reader") as reader:
            assert reader.take() is not None
            reader.acknowledge()
        keep(folder, opened.checkpoint())
        append(opened, "last")
    return folder


@pytest.fixture
def made(ledger: Path, tmp_path: Path) -> Path:
    """A backup of it in a folder."""
    return tallystick.backup(ledger, tmp_path / "made", keys=tmp_path / "keys").path


@contextmanager
def queue_held_back(folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tallystick.Ledger]:
    """A ledger of which the queue seals nothing until `go_on` lets it."""
    with monkeypatch.context() as held:
        held.setattr(Queue, "_drain", lambda _: None)
        opened = tallystick.open(folder, keys=keys)
        queue = opened.queue
    try:
        yield opened
    finally:
        queue._stopping = True
        opened.close()


def go_on(ledger: tallystick.Ledger) -> None:
    """Seal all that waits."""
    while not ledger.queue._is_empty():
        ledger.queue._seal_next()


# ------------------------------------------------------------------------------------------- made, and restored


@pytest.mark.parametrize("name", ["copy", "copy.tar"])
def test_a_ledger_is_restored_as_it_was(ledger: Path, tmp_path: Path, name: str) -> None:
    backed_up = tallystick.backup(ledger, tmp_path / name, keys=tmp_path / "keys")
    restored = tallystick.restore(tmp_path / name, tmp_path / "back", keys=tmp_path / "keys")

    assert restored.findings == ()
    assert [one.can_seal for one in restored.ledgers] == [True]
    assert left_in(tmp_path) == sorted(["back", "keys", "ledger", name])
    assert left_in(tmp_path / "back") == ["cosigned.checkpoint", "cursors.db", "ledger.db", "queue", "restored.json"]
    for path in (tmp_path / "back").rglob("*"):
        assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    with tallystick.open(ledger) as before, tallystick.open(tmp_path / "back", keys=tmp_path / "keys") as after:
        assert lines_of(after) == lines_of(before)
        assert after.checkpoint() == before.checkpoint() == backed_up.ledgers[0].checkpoint
        append(after, "more")
        assert ids_of(after)[-2:] == ["last", "more"]
        assert after.verify(since=before.checkpoint()).holds


def test_a_restored_ledger_has_what_its_readers_reached(ledger: Path, made: Path, tmp_path: Path) -> None:
    tallystick.restore(made, tmp_path / "back")

    def cursors(folder: Path) -> list[Any]:
        connection = apsw.Connection(str(folder / "cursors.db"))
        return [*connection.execute("SELECT * FROM tallystick_subscription")]

    assert cursors(tmp_path / "back") == cursors(ledger)
    assert len(cursors(ledger)) == 1
    assert (tmp_path / "back/cosigned.checkpoint").read_bytes() == (ledger / "cosigned.checkpoint").read_bytes()


def test_a_backup_is_one_commit_whoever_writes_meanwhile_and_holds_nobody_up(tmp_path: Path) -> None:
    # Given writers that never rest.
    enough, backups = threading.Event(), [tmp_path / f"made-{number}" for number in range(3)]
    checkpoints: list[bytes] = []
    counts: list[int] = []
    with tallystick.open(tmp_path / "ledger", keys=tmp_path / "keys") as opened:
        append(opened, "0")

        def work(number: int) -> None:
            if number:
                for step in range(1_000_000):
                    if enough.is_set():
                        return
                    append(opened, *(f"{number}-{step}-{index}" for index in range(10)))
            for target in backups:
                checkpoints.append(opened.checkpoint())
                counts.append(opened.size)
                tallystick.backup(tmp_path / "ledger", target, keys=tmp_path / "keys")
                while opened.size == counts[-1]:  # they go on: else this would wait for ever, and fail
                    threading.Event().wait(0.001)
            enough.set()

        in_threads(4, work)

        whole = lines_of(opened)
    for target, checkpoint, count in zip(backups, checkpoints, counts, strict=True):
        back = target.with_name(f"{target.name}-back")
        # An older backup: the mark knows more, so this is to be a place with marks of its own.
        keys, marks = tmp_path / "keys", tmp_path / "marks"
        restored = tallystick.restore(target, back, since=[checkpoint], keys=keys, marks=marks)
        assert restored.findings == ()
        with tallystick.open(back, keys=tmp_path / "keys") as after:
            lines = lines_of(after)
            assert len(lines) >= count
            assert lines == whole[: len(lines)]


def test_a_pruned_ledger_is_restored_pruned_and_holds(tmp_path: Path) -> None:
    moment = [1_770_000_000_000_000]
    with tallystick.open(tmp_path / "ledger", clock=lambda: moment[0]) as opened:
        append(opened, *(f"old-{number}" for number in range(700)))
        opened.retention.set(RetentionPolicy.of("1d"), actor="jane", reason="test")
        moment[0] += 3 * DAY
        assert opened.retention.prune(actor="jane").count == 700
        append(opened, "new")

    tallystick.backup(tmp_path / "ledger", tmp_path / "made.tar", with_keys=True)
    restored = tallystick.restore(tmp_path / "made.tar", tmp_path / "back")

    assert restored.findings == ()
    report = tallystick.verify(tmp_path / "back")
    assert (report.holds, report.absent) == (True, 700)
    assert b"old-5" not in (tmp_path / "back/ledger.db").read_bytes()


# ---------------------------------------------------------------------------------------- what waits in the queue


def publish(ledger: tallystick.Ledger, count: int) -> list[str]:
    """Accept so many events; their ids in order."""
    names = [f"queued-{number}" for number in range(count)]
    for name in names:
        ledger.publish(event_type="t.happened", entity_id="e", id=name, payload={"padding": "x" * 500})
    return names


@pytest.mark.parametrize("drained", ["before", "between", "while it is copied", "after"])
def test_what_was_accepted_before_is_there_once_and_in_order_whenever_it_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drained: str
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 4_000)  # so that there are some that are removed
    with queue_held_back(tmp_path / "ledger", tmp_path / "keys", monkeypatch) as opened:
        names = publish(opened, 40)
        ledger = opened
        assert len([*(tmp_path / "ledger/queue").glob("segment-*.q")]) > 4
        if drained == "before":
            go_on(ledger)
        copy_cursors, copy = Location.copy_cursors, queue_copy._copy

        def between(location: Location, folder: Path) -> Any:
            go_on(ledger)
            return copy_cursors(location, folder)

        def within(source: Path, target: Path, **more: Any) -> Any:
            copied = copy(source, target, **more)
            go_on(ledger)
            return copied

        if drained == "between":
            monkeypatch.setattr(Location, "copy_cursors", between)
        if drained == "while it is copied":
            monkeypatch.setattr(queue_copy, "_copy", within)
        tallystick.backup(tmp_path / "ledger", tmp_path / "made", keys=tmp_path / "keys")
        go_on(ledger)

    tallystick.restore(tmp_path / "made", tmp_path / "back")

    # The mark knows of what was sealed after the backup was made.
    with tallystick.open(tmp_path / "back", keys=tmp_path / "keys", marks=tmp_path / "marks") as after:
        after.queue.drain(seconds=20)
        assert ids_of(after) == names
        assert after.publish(event_type="t.happened", entity_id="e").sequence == 40
        after.queue.drain(seconds=20)
        assert after.verify().holds


def test_a_copy_ends_before_what_was_acknowledged_after_its_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its mark would be older than its frames say, which looks like an older copy that was put back."""
    journal, copy_mark = Journal(tmp_path / "queue", key=b"k" * 32), queue_copy._copy_mark
    journal.sync(journal.append([b"x" * 50] * 3, now=1) + 3)

    def then_more(source: Path, target: Path) -> Any:
        marked = copy_mark(source, target)
        for number in range(4):
            journal.sync(journal.append([b"y" * 50], now=1) + 1)
            if number == 1:
                journal.done(journal.next(2), {})
                journal.clear()
        return marked

    monkeypatch.setattr(queue_copy, "_copy_mark", then_more)
    queue_copy.copy_queue(tmp_path / "queue", tmp_path / "copy")
    journal.close()

    assert check_queue(tmp_path / "copy", b"k" * 32) == ()
    copied = Journal(tmp_path / "copy", key=b"k" * 32)
    assert (copied.cursor, copied.end) == (2, 4)  # the fourth was written under the mark that was copied
    copied.close()


def frame(ledger: tallystick.Ledger, body: bytes) -> bytes:
    """The next frame of a queue, as the ledger itself would write it."""
    journal = ledger.queue._journal
    bare = segments.Frame(journal.end, journal.end, 0, body, journal._link, NO_LINK)
    return segments.render(segments.authenticate(bare, journal._tag))


def test_a_write_that_is_under_way_in_the_queue_is_not_in_the_backup_and_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with queue_held_back(tmp_path / "ledger", tmp_path / "keys", monkeypatch) as opened:
        names = publish(opened, 3)
        (segment,) = (tmp_path / "ledger/queue").glob("segment-*.q")
        with segment.open("ab") as file:
            file.write(frame(opened, b"half of it")[:-3])
        (tmp_path / "ledger/queue/refused.jsonl").write_bytes(b'{"sequence":99,"why":"x","mac":""}\n{"seq')
        tallystick.backup(tmp_path / "ledger", tmp_path / "made", keys=tmp_path / "keys")

    tallystick.restore(tmp_path / "made", tmp_path / "back")

    with tallystick.open(tmp_path / "back", keys=tmp_path / "keys") as after:
        after.queue.drain(seconds=20)
        assert ids_of(after) == names


def test_a_queue_that_is_repaired_meanwhile_is_copied_again_without_what_the_repair_kept(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, repairs = queue_copy._copy, iter(["damaged-1", "damaged-2"])

    def within(source: Path, target: Path, **more: Any) -> Any:
        copied = copy(source, target, **more)
        for name in [next(repairs, None)]:
            if name is not None:
                (ledger / "queue" / name).mkdir()
                (ledger / "queue" / name / "segment-00000000000000000000.q").write_bytes(b"lost")
        return copied

    monkeypatch.setattr(queue_copy, "_copy", within)

    made = tallystick.backup(ledger, tmp_path / "made", keys=tmp_path / "keys").path

    assert next(repairs, None) is None
    assert left_in(made / "queue") == ["cursor", "mark", "refused.jsonl", f"segment-{1:020}.q"]
    assert tallystick.check_backup(made, keys=tmp_path / "keys").holds


@pytest.mark.parametrize("name", ["damaged", "repaired"])
def test_a_queue_that_is_repaired_again_and_again_is_a_busy_error(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    copy, numbers = queue_copy._copy, iter(range(1_000))

    def within(source: Path, target: Path, **more: Any) -> Any:
        copied = copy(source, target, **more)
        (ledger / "queue" / f"{name}-{next(numbers)}").mkdir()
        return copied

    monkeypatch.setattr(queue_copy, "_copy", within)

    with pytest.raises(BusyError, match="being repaired"):
        tallystick.backup(ledger, tmp_path / "made", keys=tmp_path / "keys")
    assert left_in(tmp_path) == ["keys", "ledger"]


# -------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("when", ["before the log", "after the log"])
def test_keys_that_are_rotated_meanwhile_are_in_the_backup_as_the_log_names_them(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    copy, turns = SqliteStore.copy, iter([True, False, False])
    with tallystick.open(ledger, keys=tmp_path / "keys") as opened:

        def rotating(store: SqliteStore, folder: Path, *, progress: Callable[[int], None] | None = None) -> Made:
            turn = next(turns)
            if turn and when == "before the log":
                opened.rotate_key("checkpoint")
            made = copy(store, folder, progress=progress)
            if turn and when == "after the log":
                opened.rotate_key("evidence")
            return made

        monkeypatch.setattr(SqliteStore, "copy", rotating)
        tallystick.backup(ledger, tmp_path / "made", keys=tmp_path / "keys", with_keys=True)

    restored = tallystick.restore(tmp_path / "made", tmp_path / "back")

    assert [one.can_seal for one in restored.ledgers] == [True]
    with tallystick.open(tmp_path / "back") as after:
        append(after, "more")
        assert after.verify().signatures == after.size - 1


def test_keys_that_are_rotated_again_and_again_are_a_busy_error(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = SqliteStore.copy
    with tallystick.open(ledger, keys=tmp_path / "keys") as opened:

        def rotating(store: SqliteStore, folder: Path, *, progress: Callable[[int], None] | None = None) -> Made:
            made = copy(store, folder, progress=progress)
            opened.rotate_key("checkpoint")
            return made

        monkeypatch.setattr(SqliteStore, "copy", rotating)
        with pytest.raises(BusyError, match="rotated again and again"):
            tallystick.backup(ledger, tmp_path / "made", keys=tmp_path / "keys", with_keys=True)
    assert left_in(tmp_path) == ["keys", "ledger"]


def test_a_rotation_that_a_crash_cut_short_is_no_hindrance(ledger: Path, tmp_path: Path) -> None:
    # Given a next key that is in force, and still has its first name.
    with tallystick.open(ledger, keys=tmp_path / "keys") as opened:
        before = (tmp_path / "keys/evidence.key").read_bytes()
        opened.rotate_key("evidence")
        named = f"evidence.next-{opened.evidence_key.hex()[:16]}.key"
    (tmp_path / "keys/evidence.key").rename(tmp_path / "keys" / named)
    (tmp_path / "keys/evidence.key").write_bytes(before)
    (tmp_path / "keys/evidence.key").chmod(0o600)

    tallystick.backup(ledger, tmp_path / "made", keys=tmp_path / "keys", with_keys=True)
    restored = tallystick.restore(tmp_path / "made", tmp_path / "back")

    assert restored.findings == ()
    assert (tmp_path / "back/keys" / named).exists()
    with tallystick.open(tmp_path / "back") as after:
        append(after, "more")


def test_without_keys_it_is_verified_and_read_and_not_appended_to(made: Path, tmp_path: Path) -> None:
    restored = tallystick.restore(made, tmp_path / "back")

    assert [one.can_seal for one in restored.ledgers] == [None]
    with tallystick.open(tmp_path / "back") as after:
        assert ids_of(after)[-1] == "last"
        with pytest.raises(NotFoundError, match="there is no key"):
            append(after, "more")


def test_newer_keys_than_those_of_the_backup_are_told_of(ledger: Path, made: Path, tmp_path: Path) -> None:
    with tallystick.open(ledger, keys=tmp_path / "keys") as opened:
        opened.rotate_key("checkpoint")

    restored = tallystick.restore(made, tmp_path / "back", keys=tmp_path / "keys", marks=tmp_path / "marks")

    assert (restored.findings, [one.can_seal for one in restored.ledgers]) == ((), [False])


def test_another_ledger_s_keys_are_a_finding(made: Path, tmp_path: Path) -> None:
    Keystore(tmp_path / "others").make()

    restored = tallystick.restore(made, tmp_path / "back", keys=tmp_path / "others")

    assert {finding.kind for finding in restored.findings} == {Kind.GENESIS}
    assert not (tmp_path / "back").exists()


def test_a_backup_needs_the_keys_to_be_signed_and_says_so(ledger: Path, tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="keys are not here"):
        tallystick.backup(ledger, tmp_path / "made", keys=tmp_path / "none")
    with pytest.raises(RejectedError, match="keys are not here"):
        tallystick.backup(ledger, tmp_path / "made", keys=tmp_path / "none", with_keys=True, signed=False)
    Keystore(tmp_path / "others").make()
    with pytest.raises(TamperError, match="another root key"):
        tallystick.backup(ledger, tmp_path / "made", keys=tmp_path / "others")
    tallystick.backup(ledger, tmp_path / "made", keys=tmp_path / "none", signed=False)

    assert [one.kind for one in tallystick.check_backup(tmp_path / "made").findings] == [Kind.SEAL]
    assert tallystick.check_backup(tmp_path / "made", signed=False).holds


# ------------------------------------------------------------------------------------------------- a deployment


@pytest.mark.slow
def test_a_deployment_of_fifty_tenants_is_restored_whole(tmp_path: Path) -> None:
    tenants = [f"tenant-{number}" for number in range(50)]
    with Deployment(tmp_path / "data", open_max=300) as deployment:
        deployment.begin()
        for tenant in tenants:
            deployment.create_tenant(tenant, actor=ACTOR)
            with deployment.ledger(tenant) as ledger, deployment.trail(tenant) as trail:
                append(ledger, f"of-{tenant}")
                append(trail, f"trail-of-{tenant}")
        (tmp_path / "data" / VERIFIED_FILE).write_bytes(b"{}")
        (tmp_path / "data/jobs/tenant-1/x").mkdir(parents=True)
        (tmp_path / "data/tenants/begun").mkdir()  # a crash kept its ledger from being made

        made = tallystick.backup(tmp_path / "data", tmp_path / "made.tar", with_keys=True)
    restored = tallystick.restore(tmp_path / "made.tar", tmp_path / "back")

    assert (len(made.ledgers), len(restored.ledgers), restored.findings) == (101, 101, ())
    assert all(one.can_seal for one in restored.ledgers)
    assert left_in(tmp_path / "back") == ["access", "keys", "system", "tenants", VERIFIED_FILE]
    with Deployment(tmp_path / "back") as again:
        assert {tenant.name for tenant in again.tenants()} == {"default", *tenants}
        for tenant in tenants[::7]:
            with again.ledger(tenant) as ledger, again.trail(tenant) as trail:
                append(ledger, "more")
                assert ids_of(ledger) == [f"of-{tenant}", "more"]
                assert ids_of(trail) == [f"trail-of-{tenant}"]
    for ledger_made in made.ledgers[::9]:
        folder = ledger_made.folder
        assert tallystick.verify(tmp_path / "back" / folder, keys=tmp_path / "back/keys" / folder).holds


def test_a_backup_with_keys_has_those_of_every_ledger_or_is_none(tmp_path: Path) -> None:
    with Deployment(tmp_path / "data", keys=tmp_path / "keys") as deployment:
        deployment.begin()
        with deployment.ledger("default"):
            shutil.rmtree(tmp_path / "keys/tenants")

    with pytest.raises(RejectedError, match=r"keys/tenants/default: the keys are not here"):
        tallystick.backup(tmp_path / "data", tmp_path / "made", keys=tmp_path / "keys", with_keys=True)
    assert left_in(tmp_path) == ["data", "keys"]


def test_a_folder_among_those_of_tenants_that_none_has_is_refused(tmp_path: Path) -> None:
    with Deployment(tmp_path / "data") as deployment:
        deployment.begin()
    (tmp_path / "data/tenants/No Tenant").mkdir(parents=True)

    with pytest.raises(RejectedError, match=r"tenants/No Tenant: a folder that no tenant has"):
        tallystick.backup(tmp_path / "data", tmp_path / "made")


@pytest.mark.parametrize("url", ["nothing", "empty", "memory:"])
def test_where_there_is_nothing_to_copy_it_says_so(tmp_path: Path, url: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises((NotFoundError, RejectedError), match=r"neither a ledger nor a deployment|in memory"):
        tallystick.backup(url if ":" in url else tmp_path / url, tmp_path / "made")
    assert left_in(tmp_path) == ["empty"]


def test_the_names_are_those_that_the_rest_uses() -> None:
    assert (LEDGER_FILE, CURSORS_FILE) == (sqlite.FILE_NAME, sqlite_cursors.FILE_NAME)
    assert VERIFIED_FILE == watch.FILE_NAME


# ---------------------------------------------------------------------------------------- nothing is ever replaced


def occupy_file(target: Path) -> None:
    target.write_bytes(b"mine")


def occupy_folder(target: Path) -> None:
    (target / "mine").mkdir(parents=True)


def occupy_link(target: Path) -> None:
    target.symlink_to("nowhere")


@pytest.mark.parametrize("occupy", [occupy_file, occupy_folder, occupy_link])
@pytest.mark.parametrize("name", ["there", "there.tar"])
def test_what_is_there_is_never_replaced(
    ledger: Path, made: Path, tmp_path: Path, occupy: Callable[[Path], None], name: str
) -> None:
    occupy(tmp_path / name)
    before = [(path, path.lstat().st_mtime_ns) for path in [tmp_path / name, *(tmp_path / name).rglob("*")]]

    with pytest.raises(ConflictError, match="is there already"):
        tallystick.backup(ledger, tmp_path / name, keys=tmp_path / "keys")
    with pytest.raises(ConflictError, match="is there already"):
        tallystick.restore(made, tmp_path / name)

    after = [(path, path.lstat().st_mtime_ns) for path in [tmp_path / name, *(tmp_path / name).rglob("*")]]
    assert after == before
    assert left_in(tmp_path) == sorted(["keys", "ledger", "made", name])


@pytest.mark.parametrize("occupy", [occupy_file, occupy_folder])
@pytest.mark.parametrize("name", ["there", "there.tar"])
def test_what_came_there_meanwhile_is_not_replaced_either(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, occupy: Callable[[Path], None], name: str
) -> None:
    copy = SqliteStore.copy

    def meanwhile(store: SqliteStore, folder: Path, *, progress: Callable[[int], None] | None = None) -> Made:
        made = copy(store, folder, progress=progress)
        occupy(tmp_path / name)
        return made

    monkeypatch.setattr(SqliteStore, "copy", meanwhile)

    with pytest.raises(ConflictError, match="is there already"):
        tallystick.backup(ledger, tmp_path / name, keys=tmp_path / "keys")
    assert left_in(tmp_path) == sorted(["keys", "ledger", name])


@pytest.mark.parametrize("kind", ["backup", "restore"])
def test_an_empty_folder_is_as_good_as_none(ledger: Path, made: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "empty").mkdir()

    if kind == "backup":
        tallystick.backup(ledger, tmp_path / "empty", keys=tmp_path / "keys")
    else:
        tallystick.restore(made, tmp_path / "empty")

    assert (tmp_path / "empty/ledger.db").exists()


# ----------------------------------------------------------------------------------------------- altered backups


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "backup.json").read_bytes())
    return found


def rewrite(folder: Path, document: dict[str, Any], *, key: Ed25519PrivateKey | None = None) -> None:
    """Write a manifest whose hashes fit, signed by whoever has that key, or by nobody."""
    document["files"] = [
        {
            "bytes": path.stat().st_size,
            "name": path.relative_to(folder).as_posix(),
            "sha256": sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())
        if path.is_file() and not path.name.startswith("backup.json")
    ]
    (folder / "backup.json.sig").unlink(missing_ok=True)
    if key is None:
        document["signer"] = None
    (folder / "backup.json").write_bytes(encode(document))
    if key is not None:
        seal = sign_file((folder / "backup.json").read_bytes(), key, namespace=BACKUP_NAMESPACE)
        (folder / "backup.json.sig").write_bytes(seal)


def flip(path: Path, *, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def statement(folder: Path, *statements: str) -> None:
    """Edit the log behind its back, as somebody with a SQLite shell would."""
    connection = apsw.Connection(str(folder / "ledger.db"))
    for name, _ in [*connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")]:
        if any("RAISE" not in one for one in statements):
            connection.execute(f"DROP TRIGGER {name}")
    for one in statements:
        connection.execute(one)
    connection.close()


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def to_link(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def to_link_out(path: Path) -> None:
    outside = path.parent.parent.parent / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


MEMBERS: Final = (
    "ledger.db",
    "cursors.db",
    "cosigned.checkpoint",
    "queue/cursor",
    "queue/mark",
    f"queue/segment-{1:020}.q",
)


@pytest.mark.parametrize("change", [flip, lengthen, shorten, Path.unlink, to_link, to_link_out, to_pipe, to_folder])
@pytest.mark.parametrize("name", MEMBERS)
def test_a_file_that_is_not_what_was_made_is_found(
    made: Path, tmp_path: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(made / name)

    self_checked = tallystick.check_backup(made)
    restored = tallystick.restore(made, tmp_path / "back")

    for told in (self_checked, restored):
        assert name in {finding.place for finding in told.findings}
        assert {finding.kind for finding in told.findings} == {Kind.BACKUP}
    check_nothing_made(restored, tmp_path)


def check_nothing_made(restored: Restored, folder: Path) -> None:
    assert not restored.holds
    assert restored.path is None
    assert not [name for name in left_in(folder) if name.startswith((".", "back"))]


@pytest.mark.parametrize("name", ["backup.json", "backup.json.sig"])
@pytest.mark.parametrize("change", [flip, lengthen, shorten, Path.unlink, to_link, to_pipe, to_folder])
def test_a_manifest_or_a_signature_that_is_not_what_was_made_is_found(
    made: Path, tmp_path: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(made / name)

    restored = tallystick.restore(made, tmp_path / "back")

    assert {finding.kind for finding in restored.findings} <= {Kind.BACKUP, Kind.SEAL}
    check_nothing_made(restored, tmp_path)


@pytest.mark.parametrize(
    "name", ["index.db", "ledger.db-wal", "queue/more", "keys/master.key", "more/deep/x", ".x", "é"]
)
def test_a_file_that_the_manifest_does_not_name_is_found(made: Path, tmp_path: Path, name: str) -> None:
    (made / name).parent.mkdir(parents=True, exist_ok=True)
    (made / name).write_bytes(b"more")

    restored = tallystick.restore(made, tmp_path / "back")

    assert [finding.kind for finding in restored.findings] == [Kind.BACKUP]
    assert "does not name it" in restored.findings[0].seen
    check_nothing_made(restored, tmp_path)


def test_a_folder_behind_a_link_is_not_entered(made: Path, tmp_path: Path) -> None:
    shutil.move(made / "queue", tmp_path / "outside")
    (made / "queue").symlink_to(tmp_path / "outside")

    restored = tallystick.restore(made, tmp_path / "back")

    assert "it is behind a link" in {finding.seen for finding in restored.findings}
    check_nothing_made(restored, tmp_path)


FORGERIES: Final = {
    "a record was changed": (
        "UPDATE record SET bytes = CAST(replace(CAST(bytes AS TEXT), 'first-9', 'X') AS BLOB) WHERE position = 11",
        {Kind.CHECKSUM, Kind.STORE},
    ),
    "a record was removed": ("DELETE FROM record WHERE position = 40", {Kind.MISSING, Kind.STORE}),
    "the last record was cut off": ("DELETE FROM record WHERE position >= 303", {Kind.MISSING, Kind.STORE}),
    "the head was set back": ("UPDATE head SET size = 100", {Kind.HEAD, Kind.UNPUBLISHED, Kind.STORE}),
    "the head is gone": ("DELETE FROM head", {Kind.UNREADABLE}),
    "the genesis is gone": ("DELETE FROM record WHERE position = 0", {Kind.GENESIS, Kind.STORE}),
    "all records are gone": ("DELETE FROM record", {Kind.UNREADABLE}),
    "a tile was changed": ("UPDATE tile SET root = zeroblob(32)", {Kind.TILE, Kind.STORE}),
    "it is another layout": ("PRAGMA user_version = 99", {Kind.UNREADABLE}),
    "it is another application": ("PRAGMA application_id = 99", {Kind.UNREADABLE}),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_ledger_that_was_altered_together_with_the_manifest_does_not_verify(
    made: Path, tmp_path: Path, what: str
) -> None:
    # Given somebody without keys who makes all hashes fit.
    sql, kinds = FORGERIES[what]
    statement(made, sql)
    rewrite(made, manifest_of(made))

    restored = tallystick.restore(made, tmp_path / "back", signed=False)

    assert kinds <= {finding.kind for finding in restored.findings}
    check_nothing_made(restored, tmp_path)


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0" + bytes(5_000), os.urandom(50_000)])
def test_a_file_that_is_no_ledger_at_all_is_a_finding_and_no_defect(made: Path, tmp_path: Path, content: bytes) -> None:
    (made / "ledger.db").write_bytes(content)
    rewrite(made, manifest_of(made))

    restored = tallystick.restore(made, tmp_path / "back", signed=False)

    assert {finding.kind for finding in restored.findings} == {Kind.UNREADABLE}
    check_nothing_made(restored, tmp_path)


def test_damaged_pages_are_findings_and_no_defect(made: Path, tmp_path: Path) -> None:
    size = (made / "ledger.db").stat().st_size
    for at in range(100, size, size // 40):
        folder = tmp_path / "damaged"
        shutil.copytree(made, folder)
        data = bytearray((folder / "ledger.db").read_bytes())
        data[at : at + 64] = bytes(byte ^ 0xA5 for byte in data[at : at + 64])
        (folder / "ledger.db").write_bytes(data)
        rewrite(folder, manifest_of(folder))

        # What no record, tile or index of the file is in may be damaged without anybody's loss.
        if tallystick.check_backup(folder, signed=False).holds:
            assert raw_lines(folder) == raw_lines(made)
        shutil.rmtree(folder)


def test_an_older_backup_of_the_same_ledger_is_not_taken_for_a_newer_one(
    ledger: Path, made: Path, tmp_path: Path
) -> None:
    with tallystick.open(ledger, keys=tmp_path / "keys") as opened:
        append(opened, "newer")
    newer = tallystick.backup(ledger, tmp_path / "newer", keys=tmp_path / "keys").path
    shutil.copy(made / "ledger.db", newer / "ledger.db")
    rewrite(newer, manifest_of(newer))

    restored = tallystick.restore(newer, tmp_path / "back", signed=False)

    assert [finding.kind for finding in restored.findings] == [Kind.ROLLBACK]
    check_nothing_made(restored, tmp_path)


def test_another_ledger_is_not_taken_for_it(made: Path, tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "other/ledger") as other:
        append(other, *(f"first-{number}" for number in range(299)), "queued", "last")
        checkpoint = other.checkpoint()
    shutil.copy(tmp_path / "other/ledger/ledger.db", made / "ledger.db")
    manifest = manifest_of(made)
    manifest["ledgers"][0] |= {"checkpoint": checkpoint.decode(), "size": 303}
    rewrite(made, manifest)

    restored = tallystick.restore(made, tmp_path / "back", signed=False)

    assert [finding.kind for finding in restored.findings] == [Kind.FORK]
    assert "another ledger" in restored.findings[0].seen
    # Nor does it pass once the manifest says that it is that one, for whoever has the keys, or a checkpoint.
    with tallystick.open(tmp_path / "ledger") as ours:
        kept = ours.checkpoint()
    manifest["ledgers"][0]["id"] = other.id.hex()
    rewrite(made, manifest)
    assert tallystick.check_backup(made, signed=False).holds
    assert {one.kind for one in tallystick.check_backup(made, signed=False, since=[kept]).findings} == {Kind.FORK}
    with_keys = tallystick.check_backup(made, signed=False, keys=tmp_path / "keys")
    assert Kind.GENESIS in {one.kind for one in with_keys.findings}


@pytest.mark.parametrize("signed_by", ["nobody", "another"])
def test_a_queue_that_was_altered_together_with_the_manifest_is_found_by_the_signature_and_by_the_keys(
    made: Path, tmp_path: Path, signed_by: str
) -> None:
    # Given an event that somebody put into the queue: no ledger proves anything of it.
    with (made / f"queue/segment-{1:020}.q").open("ab") as file:
        file.write(segments.render(segments.Frame(1, 1, 0, b"forged", NO_LINK, NO_LINK)))
    (made / "queue/cursor").unlink()
    manifest, key = manifest_of(made), None
    if signed_by == "another":
        key = Ed25519PrivateKey.generate()
        manifest["signer"] = render_base64(key.public_key().public_bytes_raw())
    manifest["files"] = [one for one in manifest["files"] if one["name"] != "queue/cursor"]
    rewrite(made, manifest, key=key)

    restored = tallystick.restore(made, tmp_path / "back")
    with_keys = tallystick.restore(made, tmp_path / "back", keys=tmp_path / "keys", signed=False)

    assert [finding.kind for finding in restored.findings] == [Kind.SEAL]
    assert {finding.kind for finding in with_keys.findings} == {Kind.QUEUE}
    check_nothing_made(restored, tmp_path)
    check_nothing_made(with_keys, tmp_path)


def test_a_tar_that_was_cut_short_or_changed_anywhere_is_found(ledger: Path, tmp_path: Path) -> None:
    made = tallystick.backup(ledger, tmp_path / "made.tar", keys=tmp_path / "keys").path
    data = made.read_bytes()

    for number, size in enumerate(range(0, len(data), len(data) // 60)):
        cut, flipped = tmp_path / "cut.tar", tmp_path / "flipped.tar"
        cut.write_bytes(data[:size])
        changed = bytearray(data)
        changed[size] ^= 1 << number % 8
        flipped.write_bytes(changed)
        assert not tallystick.check_backup(cut).holds
        assert not tallystick.check_backup(flipped).holds
        if number % 20 == 0:
            check_nothing_made(tallystick.restore(cut, tmp_path / "back"), tmp_path)
    for more in (b"\0" * 512, b"x", data):
        flipped.write_bytes(data + more)
        assert not tallystick.check_backup(flipped).holds


def test_what_another_tar_program_unpacked_is_the_same_backup(ledger: Path, tmp_path: Path) -> None:
    made = tallystick.backup(ledger, tmp_path / "made.tar", keys=tmp_path / "keys", with_keys=True).path

    with tarfile.open(made) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")

    assert tallystick.check_backup(made).holds
    assert tallystick.check_backup(tmp_path / "unpacked").holds
    assert (tmp_path / "unpacked/keys/master.key").stat().st_mode & 0o777 == 0o600


# ------------------------------------------------------------------------------------------------- hostile input


def ledger_in(manifest: dict[str, Any]) -> int:
    return next(index for index, file in enumerate(manifest["files"]) if file["name"] == "ledger.db")


HOSTILE: Final[dict[str, tuple[str, Callable[[dict[str, Any]], None]]]] = {
    "a name that leads out": ("/files/*/name", lambda it: it["files"][0].update(name="../x")),
    "one in the middle": ("/files/*/name", lambda it: it["files"][0].update(name="queue/../../x")),
    "an absolute name": ("/files/*/name", lambda it: it["files"][0].update(name="/etc/passwd")),
    "a name of another system": ("/files/*/name", lambda it: it["files"][0].update(name="..\\x")),
    "a drive": ("/files/*/name", lambda it: it["files"][0].update(name="C:x")),
    "a NUL": ("/files/*/name", lambda it: it["files"][0].update(name="a\0b")),
    "an empty name": ("/files/*/name", lambda it: it["files"][0].update(name="")),
    "a twin in other letters": (
        "/files/*/name",
        lambda it: it["files"].append({**it["files"][2], "name": "Ledger.db"}),
    ),
    "a twin": ("/files", lambda it: it["files"].insert(1, it["files"][0])),
    "out of order": ("/files", lambda it: it["files"].reverse()),
    "an index": ("/files/*/name", lambda it: it["files"].append({**it["files"][0], "name": "index.db"})),
    "the manifest itself": (
        "/files/*/name",
        lambda it: it["files"].append({**it["files"][0], "name": "backup.json"}),
    ),
    "a file of a tenant": (
        "/files/*/name",
        lambda it: it["files"].append({**it["files"][0], "name": "tenants/a/ledger.db"}),
    ),
    "a file of a deployment": (
        "/files/*/name",
        lambda it: it["files"].append({**it["files"][0], "name": "verified.json"}),
    ),
    "a key where there are none": (
        "/files/*/name",
        lambda it: it["files"].append({**it["files"][0], "name": "keys/root.key"}),
    ),
    "a name that is no text": ("/files/*/name", lambda it: it["files"][0].update(name=7)),
    "a long name": ("/files/*/name", lambda it: it["files"][0].update(name="a" * 201)),
    "a negative length": ("/files/0/bytes", lambda it: it["files"][0].update(bytes=-1)),
    "a huge length": ("/files/0/bytes", lambda it: it["files"][0].update(bytes=2**53 - 1)),
    "a length that is true": ("/files/0/bytes", lambda it: it["files"][0].update(bytes=True)),
    "a hash that is none": ("/files/0/sha256", lambda it: it["files"][0].update(sha256="x" * 64)),
    "a hash in capitals": ("/files/0/sha256", lambda it: it["files"][0].update(sha256="A" * 64)),
    "no ledger": ("/ledgers", lambda it: it.update(ledgers=[])),
    "a ledger twice": ("/ledgers", lambda it: it["ledgers"].append(it["ledgers"][0])),
    "a folder that leads out": ("/ledgers/0/folder", lambda it: it["ledgers"][0].update(folder="../x")),
    "a ledger without a log": ("/files", lambda it: it["files"].pop(ledger_in(it))),
    "another size": ("/ledgers/0/checkpoint", lambda it: it["ledgers"][0].update(size=5)),
    "another origin": ("/ledgers/0/checkpoint", lambda it: it["ledgers"][0].update(origin="local/x")),
    "a checkpoint that is none": ("/ledgers/0/checkpoint", lambda it: it["ledgers"][0].update(checkpoint="x")),
    "an id that is none": ("/ledgers/0/id", lambda it: it["ledgers"][0].update(id="00")),
    "a member more": ("", lambda it: it.update(more=1)),
    "a member more of a file": ("", lambda it: it["files"][0].update(more=1)),
    "files that are no array": ("/files", lambda it: it.update(files={})),
    "a file that is no object": ("/files/0", lambda it: it.update(files=[1])),
    "a newer format": ("/format", lambda it: it.update(format="tallystick-backup/2")),
    "no format": ("/format", lambda it: it.pop("format")),
    "another extent": ("/extent", lambda it: it.update(extent="all")),
    "a time that is none": ("", lambda it: it.update(created="yesterday")),
    "keys that may be": ("/keys", lambda it: it.update(keys=1)),
    "a signer that is none": ("/signer", lambda it: it.update(signer="AAAA")),
    "a tool with a story": ("/tool", lambda it: it.update(tool="x" * 201)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_manifest_is_one_finding_with_its_place(made: Path, tmp_path: Path, what: str) -> None:
    place, change = HOSTILE[what]
    manifest = manifest_of(made)
    change(manifest)
    if place == "/files/*/name":  # in order, so that nothing else is wrong with it
        manifest["files"].sort(key=lambda file: str(file["name"]))
    (made / "backup.json").write_bytes(encode(manifest))

    restored = tallystick.restore(made, tmp_path / "back")

    (found,) = restored.findings
    assert fnmatchcase(found.place, f"backup.json{place}")
    assert found.kind is Kind.BACKUP
    check_nothing_made(restored, tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"null", b"\xff", b"[" * 100_000, b'{"a":1,"a":1}', b" {}", b"1e999"]
)
def test_what_is_no_manifest_is_one_finding(made: Path, data: bytes) -> None:
    (made / "backup.json").write_bytes(data)

    assert [one.kind for one in tallystick.check_backup(made).findings] == [Kind.BACKUP]


def test_a_manifest_is_bounded_before_it_is_read(made: Path) -> None:
    with (made / "backup.json").open("r+b") as file:
        file.truncate(2**40)  # nothing of it is on the disk

    (found,) = tallystick.check_backup(made).findings

    assert "at most" in found.seen


def test_a_manifest_is_written_as_it_is_read(made: Path) -> None:
    data = (made / "backup.json").read_bytes()

    assert BackupManifest.parse(data).render() == data


@given(st.text(max_size=80) | st.from_regex(r"(tenants/[a-z]{1,3}/|system/|keys/)?[a-z.]{1,9}(/\.\.)?", fullmatch=True))
def test_no_name_that_a_backup_may_have_leads_out_of_a_folder(name: str) -> None:
    for extent in ("ledger", "deployment"):
        if folder_of(extent, name) is not None:
            assert name == name.lower() == os.path.normpath(name)
            assert name.isascii()
            assert not name.startswith(("/", "."))
            assert "\\" not in name


LENGTHS: Final = st.integers(0, 2**44)


@given(st.from_regex(r"[a-z]{1,60}(/[a-z.]{1,40}){0,3}", fullmatch=True), LENGTHS)
def test_a_header_of_a_tar_is_read_as_it_was_written_and_other_programs_read_the_same(name: str, size: int) -> None:
    header = render_header(name, size)

    assert parse_header(header) == (name, size)
    read = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    assert (read.name, read.size, read.mode, read.isreg()) == (name, size, 0o600, True)


@given(st.binary(max_size=2_048) | st.binary(min_size=512, max_size=512).map(lambda block: block + END))
def test_any_bytes_are_a_tar_of_ours_or_the_one_error(data: bytes) -> None:
    try:
        index = read_index(BytesIO(data))
    except RejectedError:
        return
    assert all(offset + size <= len(data) for offset, size in index.values())


def hostile_tar(**members: Any) -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("ledger.db")
        for name, value in members.items():
            setattr(info, name, value)
        archive.addfile(info, BytesIO(bytes(info.size)))
    return out.getvalue()


HOSTILE_TARS: Final = {
    "a link": hostile_tar(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": hostile_tar(type=tarfile.LNKTYPE, linkname="ledger.db"),
    "a device": hostile_tar(type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "a pipe": hostile_tar(type=tarfile.FIFOTYPE),
    "a folder": hostile_tar(type=tarfile.DIRTYPE),
    "a sparse file": hostile_tar(type=tarfile.GNUTYPE_SPARSE),
    "a name that leads out": render_header("../x", 0) + END,
    "an absolute name": render_header("/x", 0) + END,
    "a twin": render_header("ledger.db", 0) * 2 + END,
    "more than there is": render_header("ledger.db", 2**43) + END,
    "another mode": hostile_tar(mode=0o4755),
    "a long name": hostile_tar(name="a" * 300),
    "a name in an extended header": b"",
    "nothing": END,
    "no tar": os.urandom(4_096),
}


@pytest.mark.parametrize("what", HOSTILE_TARS)
def test_a_hostile_tar_is_one_finding(tmp_path: Path, what: str) -> None:
    data = HOSTILE_TARS[what]
    if what == "a name in an extended header":
        out = BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(tarfile.TarInfo("é"))
        data = out.getvalue()
    (tmp_path / "hostile.tar").write_bytes(data)

    restored = tallystick.restore(tmp_path / "hostile.tar", tmp_path / "back")

    assert [one.kind for one in restored.findings] == [Kind.BACKUP]
    check_nothing_made(restored, tmp_path)
    assert left_in(tmp_path) == ["hostile.tar"]


# --------------------------------------------------------------------------------------------- what others hold


def test_a_ledger_that_is_shorter_than_what_others_hold_is_not_restored(
    ledger: Path, made: Path, tmp_path: Path
) -> None:
    with tallystick.open(ledger, keys=tmp_path / "keys") as opened:
        before = opened.checkpoint()
        append(opened, *(f"lost-{number}" for number in range(9)))
        held = opened.checkpoint()

    restored = tallystick.restore(made, tmp_path / "back", since=[held, before])

    assert [finding.kind for finding in restored.findings] == [Kind.ROLLBACK]
    assert [one.lost for one in restored.ledgers] == [9]
    check_nothing_made(restored, tmp_path)
    assert tallystick.check_backup(made, since=[before]).holds


def test_a_checkpoint_of_another_ledger_is_refused(made: Path, tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "other") as other:
        held = other.checkpoint()

    with pytest.raises(RejectedError, match="the backup has no ledger local/other"):
        tallystick.restore(made, tmp_path / "back", since=[held])
    with pytest.raises(RejectedError, match="since: it is no checkpoint"):
        tallystick.restore(made, tmp_path / "back", since=[b"nonsense"])
    assert not [name for name in left_in(tmp_path) if name.startswith((".", "back"))]


def test_a_history_that_was_rewritten_is_not_accepted_as_a_loss(ledger: Path, made: Path, tmp_path: Path) -> None:
    # Given a restored ledger that went on otherwise than the lost one, and a checkpoint of the lost one.
    with tallystick.open(ledger, keys=tmp_path / "keys") as opened:
        append(opened, "lost")
        held = opened.checkpoint()
    tallystick.restore(made, tmp_path / "back")
    with tallystick.open(tmp_path / "back", keys=tmp_path / "keys", marks=tmp_path / "marks") as forked:
        append(forked, "other", "more")
    with pytest.raises(TamperError, match="history was rewritten"):
        tallystick.backup(tmp_path / "back", tmp_path / "made-again", keys=tmp_path / "keys")
    again = tallystick.backup(
        tmp_path / "back", tmp_path / "made-again", keys=tmp_path / "keys", marks=tmp_path / "marks"
    ).path

    restored = tallystick.restore(again, tmp_path / "b2", since=[held], accept_loss="why", keys=tmp_path / "keys")

    assert {finding.kind for finding in restored.findings} == {Kind.FORK}  # by the checkpoint, and by the mark
    assert not (tmp_path / "b2").exists()


@pytest.mark.parametrize("known", [True, False])
def test_a_loss_that_is_accepted_is_recorded_under_keys_that_nobody_else_can_know(
    ledger: Path, tmp_path: Path, known: bool
) -> None:
    tallystick.backup(ledger, tmp_path / "made.tar", keys=tmp_path / "keys", with_keys=True)
    manifest_sha256 = sha256(member_of(tmp_path / "made.tar", "backup.json")).hexdigest()
    with tallystick.open(ledger, keys=tmp_path / "keys") as opened:
        size = opened.size
        for number in range(3):  # three epochs are closed, and their keys disclosed
            append(opened, f"lost-{number}")
            opened.export(tmp_path / f"evidence-{number}")
        held = opened.checkpoint()
        disclosed = {
            one["epoch"]
            for number in range(3)
            for one in json.loads((tmp_path / f"evidence-{number}/manifest.json").read_bytes())["mac_keys"]
        }
        lost = opened.size - size

    restored = tallystick.restore(
        tmp_path / "made.tar",
        tmp_path / "back",
        since=[held] if known else [],
        accept_loss="the disk died",
        actor={"id": "jane"},
    )

    assert restored.holds
    with tallystick.open(tmp_path / "back") as after:
        last = after.get(after.size - 1)
        assert (last.event_type, last.actor) == (LEDGER_RESTORED, {"id": "jane"})
        told = LedgerRestored.of(last)
        assert (told.size, told.reason, told.backup_sha256.hex()) == (size, "the disk died", manifest_sha256)
        assert told.held_checkpoint == (held if known else None)
        assert disclosed
        assert last.members["epoch"] > max(disclosed)
        assert last.members["epoch"] == epochs_to_pass(lost if known else None)
        assert after.verify().holds
        assert [one.kind for one in after.verify(since=held).findings] == [Kind.FORK]  # it is said, and not undone
        append(after, "more")
        exported = after.export(tmp_path / "evidence-after")
        policy = tmp_path / "trust.policy"
        policy.write_text(f"log {after.genesis.verifier_key.render()}\nquorum none\n")
    # The verifier that shares no code with us takes it as well.
    done = subprocess.run(
        [sys.executable, "-m", "tallystick_verify.cli", str(exported.path), "--trust", str(policy)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def member_of(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as opened:
        file = opened.extractfile(name)
        assert file is not None
        return file.read()


@pytest.mark.parametrize(
    ("lost", "epochs"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (7, 4), (10**9, 1_000), (None, 100)]
)
def test_so_many_epochs_are_passed_as_the_lost_records_can_have_closed(lost: int | None, epochs: int) -> None:
    # One close ends the epoch of the backup; an opening and a close are each further one.
    assert epochs_to_pass(lost) == epochs


def test_a_loss_is_recorded_in_every_ledger_of_a_deployment_and_needs_all_keys(tmp_path: Path) -> None:
    with Deployment(tmp_path / "data", keys=tmp_path / "keys") as deployment:
        deployment.begin()
        with deployment.ledger("default") as ledger:
            append(ledger, "kept")
        tallystick.backup(tmp_path / "data", tmp_path / "made", keys=tmp_path / "keys")

    with pytest.raises(RejectedError, match="needs their keys"):
        tallystick.restore(tmp_path / "made", tmp_path / "back", accept_loss="why")
    shutil.copytree(tmp_path / "keys", tmp_path / "some")
    shutil.rmtree(tmp_path / "some/tenants")
    with pytest.raises(RejectedError, match="the keys of tenants/default are not here"):
        tallystick.restore(tmp_path / "made", tmp_path / "back", accept_loss="why", keys=tmp_path / "some")
    with pytest.raises(NotFoundError, match="no keys of system"):
        tallystick.restore(tmp_path / "made", tmp_path / "back", keys=tmp_path / "none")
    with pytest.raises(RejectedError, match="reason"):
        tallystick.restore(tmp_path / "made", tmp_path / "back", accept_loss="", keys=tmp_path / "keys")
    assert left_in(tmp_path) == ["data", "keys", "made", "some"]

    tallystick.restore(tmp_path / "made", tmp_path / "back", accept_loss="why", keys=tmp_path / "keys")

    with Deployment(tmp_path / "back", keys=tmp_path / "keys") as after:
        assert [one.name for one in after.tenants()] == ["default"]
        with after.ledger("default") as ledger:
            for one in (ledger, after.system):
                assert [record.event_type for record in one.read()][-1] == LEDGER_RESTORED
                assert one.verify().holds


# ------------------------------------------------------------------------------------------------------- crashes

KILLED: Final = """
import os, signal, sys
import tallystick, tallystick.backups.make, tallystick.backups.restore
what, at, source, target, keys = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
steps = [0]
def before(function):
    def step(*given, **named):
        steps[0] += 1
        if steps[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **named)
    return step
os.fsync, os.rename, os.link = before(os.fsync), before(os.rename), before(os.link)
if what == "backup":
    tallystick.backup(source, target, keys=keys, with_keys=True)
else:
    assert tallystick.restore(source, target, accept_loss="why").holds
"""


def killed_at(step: int, what: str, *paths: Path) -> bool:
    """Run it in a process that kills itself before its n-th step towards the disk; whether it did."""
    command = [sys.executable, "-c", KILLED, what, str(step), *map(str, paths)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("name", ["made", "made.tar"])
def test_a_backup_that_is_killed_at_any_step_is_there_whole_or_not_at_all(
    ledger: Path, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "out" / name
    step, whole = 1, 0
    while killed_at(step, "backup", ledger, target, tmp_path / "keys"):
        names = left_in(tmp_path / "out") if (tmp_path / "out").exists() else []
        assert all(one.startswith(".") or one == name for one in names)
        for hidden in (path for path in (tmp_path / "out").glob(".*") if path.is_dir()):
            assert not (hidden / "backup.json").exists()
        if target.exists():
            assert tallystick.check_backup(target).holds
            whole += 1
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        step += 1

    assert step > 5
    assert whole == 1, "it had its name before all of it was on the disk"
    assert tallystick.check_backup(target).holds
    assert left_in(tmp_path / "out") == [name]


def test_a_restore_that_is_killed_at_any_step_is_there_whole_or_not_at_all(ledger: Path, tmp_path: Path) -> None:
    made = tallystick.backup(ledger, tmp_path / "made", keys=tmp_path / "keys", with_keys=True).path
    target = tmp_path / "out/back"
    step, whole = 1, 0
    while killed_at(step, "restore", made, target, tmp_path / "keys"):
        assert all(one.startswith(".") or one == "back" for one in left_in(tmp_path / "out"))
        if target.exists():
            assert tallystick.verify(target).holds
            whole += 1
        shutil.rmtree(tmp_path / "out")
        step += 1

    assert step > 10
    assert whole == 1, "it had its name before all of it was on the disk"
    assert left_in(tmp_path / "out") == ["back"]
    assert tallystick.check_backup(made).holds


# ------------------------------------------------------------------------------------------------------ full disk

FULL: Final = """
import resource, signal, sys
from pathlib import Path
import tallystick
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
what, source, target, keys = sys.argv[1:]
size = Path(source, "ledger.db").stat().st_size
failed = 0
for full in (0, 100, 9_000, size // 2, size - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    try:
        if what == "backup":
            tallystick.backup(source, target, keys=keys)
        else:
            tallystick.restore(source, target)
    except tallystick.StoreError:
        failed += 1
sys.stdout.write(str(failed))
"""


@pytest.mark.parametrize("what", ["backup", "backup.tar", "restore"])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(ledger: Path, made: Path, tmp_path: Path, what: str) -> None:
    source = ledger if what.startswith("backup") else made
    target = tmp_path / "out" / ("made.tar" if what == "backup.tar" else "made")
    command = [sys.executable, "-c", FULL, what.partition(".")[0], *map(str, (source, target, tmp_path / "keys"))]

    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)

    assert (done.stdout, done.stderr) == ("5", "")
    assert left_in(tmp_path / "out") == []


@pytest.mark.parametrize("file_system", ["tmpfs"] if may_mount() else [])
def test_a_file_system_without_room_takes_no_backup_and_no_restore(
    ledger: Path, made: Path, tmp_path: Path, file_system: str
) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", file_system, "-o", "size=200k", file_system, mounted], check=True)
    try:
        for call in (
            lambda: tallystick.backup(ledger, mounted / "made", keys=tmp_path / "keys"),
            lambda: tallystick.backup(ledger, mounted / "made.tar", keys=tmp_path / "keys"),
            lambda: tallystick.restore(made, mounted / "back"),
        ):
            with pytest.raises(StoreError, match=r"could not (write|copy)"):
                call()
            assert left_in(mounted) == []
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_a_restore_is_held_against_the_head_mark(ledger: Path, made: Path, tmp_path: Path) -> None:
    with tallystick.open(ledger, keys=tmp_path / "keys") as opened:
        append(opened, "lost")
    refused = tallystick.restore(made, tmp_path / "back", keys=tmp_path / "keys")
    assert [finding.kind for finding in refused.findings] == [Kind.ROLLBACK]
    assert not (tmp_path / "back").exists()

    assert tallystick.check_backup(made, keys=tmp_path / "keys").holds, "a drill is no restore"
    accepted = tallystick.restore(made, tmp_path / "back", keys=tmp_path / "keys", accept_loss="the disk died")
    assert accepted.holds
    with tallystick.open(tmp_path / "back", keys=tmp_path / "keys") as back:
        assert back.mark_problem is None
        append(back, "more")
    with tallystick.open(ledger, keys=tmp_path / "keys") as original, pytest.raises(TamperError):
        append(original, "two are in use")


def test_a_restored_copy_says_so_and_rotates_no_key_of_the_original(ledger: Path, made: Path, tmp_path: Path) -> None:
    assert tallystick.restore(made, tmp_path / "back", keys=tmp_path / "keys").holds
    with tallystick.open(tmp_path / "back", keys=tmp_path / "keys") as back:
        assert back.is_restored_copy
        with pytest.raises(ConflictError, match="replaces the original"):
            back.rotate_key("checkpoint")
    with tallystick.open(ledger, keys=tmp_path / "keys") as original:
        assert not original.is_restored_copy
        append(original, "it goes on")
    with tallystick.open(tmp_path / "back", keys=tmp_path / "keys", marks=tmp_path / "marks") as back:
        back.rotate_key("checkpoint", replaces_original=True)
        assert not back.is_restored_copy
