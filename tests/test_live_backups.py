"""Files that are put where a backup is made, or taken away there, while it is made.

Whoever can write where ledgers and backups are can do so between any two calls. Each test is the attacker: it acts from
within a call of the process that it attacks, and has no keys.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

import tallystick
from tallystick.backups import make as making
from tallystick.backups.parcel import Parcel
from tallystick.deployment import Deployment
from tallystick.errors import TamperError
from tallystick.made_file import Made, NewFile, make_file
from tallystick.sqlite_file import copy_database, copy_open
from tallystick.store.contradiction import HaltedError
from tallystick.write import queue_copy
from tallystick.write.journal import Journal
from tallystick.write.queue import Queue
from tests.tampering import line_at, replace_record
from tests.test_live_edits import before

ACTOR: Final = {"id": "the-tests"}
KINDS: Final = ["made", "made.tar"]


def append(ledger: tallystick.Ledger, count: int) -> None:
    ledger.append_many([{"event_type": "t.happened", "entity_id": "e"} for _ in range(count)])


@contextmanager
def opened(folder: Path) -> Iterator[tallystick.Ledger]:
    with tallystick.open(folder / "l", keys=folder / "keys", name="l") as ledger:
        yield ledger


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger with a queue in which an event waits."""
    with opened(tmp_path) as ledger:
        append(ledger, 30)
    with monkeypatch.context() as held:
        held.setattr(Queue, "_drain", lambda _: None)
        ledger = tallystick.open(tmp_path / "l", keys=tmp_path / "keys")
        ledger.publish(event_type="t.happened", entity_id="waits")
        ledger.queue._stopping = True
        ledger.close()
    return tmp_path


def backup(folder: Path, name: str) -> tallystick.BackedUp:
    return tallystick.backup(folder / "l", folder / name, keys=folder / "keys")


def in_backup(path: Path) -> dict[str, bytes]:
    """The names in a backup, and their bytes."""
    if path.is_dir():
        return {one.relative_to(path).as_posix(): one.read_bytes() for one in path.rglob("*") if one.is_file()}
    with tarfile.open(path) as tar:
        return {one.name: path.read_bytes()[one.offset_data :][: one.size] for one in tar}


def room(folder: Path, name: str) -> Path:
    """Where a backup is being made."""
    [scratch] = folder.glob(f".{name}-*")
    return scratch / "backup"


# ------------------------------------------------------------------------------------- what lies where it is made


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("what", ["a link to a key", "a pipe", "a file of his own"])
def test_nothing_is_taken_that_this_process_did_not_make(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    secret = (folder / "keys/master.key").read_bytes()

    def put() -> None:
        strange = room(folder, name) / "cosigned.checkpoint"
        if what == "a link to a key":
            strange.symlink_to(folder / "keys/master.key")
        elif what == "a pipe":
            os.mkfifo(strange)
        else:
            strange.write_bytes(b"mine")

    before(monkeypatch, Parcel, "take", put)
    made = backup(folder, name)
    monkeypatch.undo()

    assert made.files == 5, "the log, and of the queue its mark, a segment, the cursor and the refusals"
    if name.endswith(".tar"):
        assert "cosigned.checkpoint" not in in_backup(made.path)
        assert secret not in made.path.read_bytes()
        assert tallystick.check_backup(made.path, keys=folder / "keys").holds
    else:
        assert not tallystick.check_backup(made.path, keys=folder / "keys").holds, "there is a file too many"
        (made.path / "cosigned.checkpoint").unlink()
        assert tallystick.check_backup(made.path, keys=folder / "keys").holds


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("file", ["ledger.db", "queue/mark", "queue/cursor", "queue/refused.jsonl", "queue/segment"])
@pytest.mark.parametrize("what", ["a link to a key", "a pipe", "a shorter file", "nothing"])
def test_nothing_is_taken_in_the_place_of_what_was_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str, what: str
) -> None:
    def put() -> None:
        [path] = room(folder, name).glob(f"{file}*")
        path.unlink()
        if what == "a link to a key":
            path.symlink_to(folder / "keys/master.key")
        elif what == "a pipe":
            os.mkfifo(path)
        elif what == "a shorter file":
            path.write_bytes(b"mine, and of no size that any of these files has, so not the one that was made")

    before(monkeypatch, Parcel, "take", put)
    with pytest.raises(TamperError, match="while it was in use"):
        backup(folder, name)
    assert not (folder / name).exists()


@pytest.mark.parametrize("file", ["ledger.db", "queue/mark", "queue/cursor", "queue/segment"])
def test_what_is_altered_after_it_was_made_is_in_no_backup(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    def alter() -> None:
        for path in room(folder, name).glob(f"{file}*"):
            with path.open("r+b") as opened:
                opened.seek(-1, 2)
                last = opened.read(1)
                opened.seek(-1, 2)
                opened.write(bytes([last[0] ^ 1]))

    name = "made.tar"
    before(monkeypatch, Parcel, "take", alter)
    with pytest.raises(TamperError, match="was altered while it was in use"):
        backup(folder, name)

    name = "made"  # in a folder it stays in reach, and is found as any later change is
    before(monkeypatch, Parcel, "take", alter)
    backup(folder, name)
    monkeypatch.undo()
    assert not tallystick.check_backup(folder / name, keys=folder / "keys").holds


def test_a_page_that_is_altered_while_a_database_is_copied_is_an_error(tmp_path: Path) -> None:
    with closing(apsw.Connection(str(tmp_path / "source.db"))) as source:
        source.execute("CREATE TABLE t (a)")
        source.execute(
            "INSERT INTO t "
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000)"
            "SELECT randomblob(3000) FROM n"
        )
    reader = apsw.Connection(str(tmp_path / "source.db"))
    wanted = copy_open(reader, tmp_path / "right.db")
    assert wanted.sha256 == sha256((tmp_path / "right.db").read_bytes()).digest()
    with closing(apsw.Connection(str(tmp_path / "right.db"))) as copy:
        assert copy.execute("SELECT count(*) FROM t").fetchall() == [(5000,)]

    def alter() -> None:
        with (tmp_path / "copy.db").open("r+b") as file:
            file.seek(3 * 4096 + 17)
            file.write(b"mine")

    with pytest.MonkeyPatch.context() as patch:
        before(patch, os, "fsync", alter)
        with closing(reader), pytest.raises(TamperError, match="was altered while it was written"):
            copy_open(reader, tmp_path / "copy.db")


def test_a_copy_is_never_written_into_what_is_there(tmp_path: Path) -> None:
    with closing(apsw.Connection(str(tmp_path / "source.db"))) as source:
        source.execute("CREATE TABLE t (a)")
    (tmp_path / "victim").write_bytes(b"a key")
    (tmp_path / "copy.db").symlink_to(tmp_path / "victim")

    with pytest.raises(FileExistsError):
        copy_database(tmp_path / "source.db", tmp_path / "copy.db")
    assert (tmp_path / "victim").read_bytes() == b"a key"


def test_a_segment_that_is_shortened_is_read_again_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sealed while the queue was copied is cut off: the copy is read for that, where others write."""
    journal, copy = Journal(tmp_path / "queue", key=b"k" * 32), queue_copy._copy_segments
    journal.sync(journal.append([b"x" * 50] * 5, now=1) + 5)

    def then_seal(source: Path, target: Path, **more: Any) -> Any:
        copied = copy(source, target, **more)
        journal.done(journal.next(1), {})
        if is_altered:
            [segment] = target.glob("segment-*")
            segment.write_bytes(segment.read_bytes()[:-1] + b"?")
        return copied

    is_altered = True
    monkeypatch.setattr(queue_copy, "_copy_segments", then_seal)
    with pytest.raises(TamperError, match="was altered while it was in use"):
        queue_copy.copy_queue(tmp_path / "queue", tmp_path / "altered")

    is_altered = False
    made = queue_copy.copy_queue(tmp_path / "queue", tmp_path / "copy")
    journal.close()
    assert {one.path for one in made} == {*(tmp_path / "copy").iterdir()}
    for one in made:
        assert (one.size, one.sha256) == (one.path.stat().st_size, sha256(one.path.read_bytes()).digest())
    copied = Journal(tmp_path / "copy", key=b"k" * 32)
    assert (copied.cursor, copied.end) == (2, 5)
    copied.close()


@pytest.mark.parametrize("size", [0, 10, 3 << 20])
def test_what_was_made_is_read_again_or_an_error(tmp_path: Path, size: int) -> None:
    made = make_file(tmp_path / "file", bytes(size))
    assert b"".join(made.chunks()) == bytes(size)

    with (tmp_path / "file").open("ab") as file:
        file.write(b"x")
    with pytest.raises(TamperError, match="was altered"):
        next(made.chunks())
    with pytest.raises(TamperError, match="was altered"):
        made.check_name()

    if size:
        (tmp_path / "file").write_bytes(bytes(size - 1) + b"x")
        with pytest.raises(TamperError, match="was altered"):
            [*made.chunks()]
    for put in (lambda path: path.symlink_to(tmp_path / "other"), os.mkfifo, lambda _: None):
        make_file(tmp_path / "other", bytes(size)) if not (tmp_path / "other").exists() else None
        (tmp_path / "file").unlink()
        put(tmp_path / "file")
        with pytest.raises(TamperError, match="was replaced"):
            next(made.chunks())
        (tmp_path / "file").touch()


def test_a_file_that_was_not_finished_tells_nothing(tmp_path: Path) -> None:
    with NewFile(tmp_path / "file") as file:
        file.write(b"half")
    assert (tmp_path / "file").read_bytes() == b"half"
    with pytest.raises(FileExistsError):
        NewFile(tmp_path / "file")


def test_a_tar_gets_its_name_only_as_what_was_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swap() -> None:
        tar = room(folder, "made.tar").parent / "backup.tar"
        tar.unlink()
        tar.symlink_to(folder / "keys/master.key")

    before(monkeypatch, Parcel, "hand_over", swap)
    with pytest.raises(TamperError, match="is not what was written"):
        backup(folder, "made.tar")
    assert (folder / "keys/master.key").stat().st_nlink == 1, "no other name leads to the key"


# ---------------------------------------------------------------------------------------------- an older state


@pytest.mark.parametrize("name", KINDS)
def test_the_copy_is_held_against_the_mark_and_not_what_is_there_afterwards(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(folder / "l", folder / "older")
    with opened(folder) as ledger:
        ledger.queue.drain(seconds=20)
        append(ledger, 20)
    (folder / "l").rename(folder / "newest")
    shutil.copytree(folder / "older", folder / "l")
    copy = making._copy_log

    def then_put_back(*given: Any) -> Made:
        made = copy(*given)
        shutil.rmtree(folder / "l")
        (folder / "newest").rename(folder / "l")
        return made

    monkeypatch.setattr(making, "_copy_log", then_put_back)
    with pytest.raises(HaltedError, match="an older copy was put back"):
        backup(folder, name)

    monkeypatch.undo()
    assert not (folder / name).exists()
    assert backup(folder, name).signed


def test_a_ledger_that_is_another_one_while_its_mark_is_looked_for_is_not_signed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has no mark; then nothing would be compared."""
    marks = {*(folder / "keys/heads").glob("*.head")}
    with tallystick.open(folder / "other", keys=folder / "keys", name="other") as other:
        append(other, 3)
    for mark in {*(folder / "keys/heads").glob("*.head")} - marks:
        mark.unlink()
    (folder / "l").rename(folder / "true")
    (folder / "other").rename(folder / "l")

    def put_right() -> None:
        (folder / "l").rename(folder / "other")
        (folder / "true").rename(folder / "l")

    before(monkeypatch, making, "copy_queue", put_right)
    with pytest.raises(TamperError, match="replaced by another one while it was copied"):
        backup(folder, "made")


# ------------------------------------------------------------------------------------------- a tenant is missing


def begin_deployment(folder: Path) -> None:
    """Make one of three tenants, of which one was never used, in `d`."""
    with Deployment(folder / "d", keys=folder / "keys") as deployment:
        deployment.begin()
        for tenant in ("acme", "idle"):
            deployment.create_tenant(tenant, actor=ACTOR)
        for tenant in ("acme", "default"):
            with deployment.ledger(tenant) as ledger:
                append(ledger, 5)


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A deployment of three tenants, of which one was never used, and one has a trail."""
    begin_deployment(tmp_path)
    with Deployment(tmp_path / "d", keys=tmp_path / "keys") as deployment, deployment.trail("acme") as trail:
        append(trail, 2)
    return tmp_path


def hide_folder(place: Path) -> Path:
    return place


def hide_log(place: Path) -> Path:
    return place / "ledger.db"


@pytest.mark.parametrize("ledger", ["tenants/acme", "access/acme"])
@pytest.mark.parametrize("hide", [hide_folder, hide_log])
@pytest.mark.parametrize("signed", [True, False])
def test_a_ledger_that_was_begun_is_missed(
    service: Path,
    monkeypatch: pytest.MonkeyPatch,
    ledger: str,
    hide: Callable[[Path], Path],
    signed: bool,
) -> None:
    monkeypatch.setattr("tallystick.backups.source._BEGINNING_SECONDS", 0.1)
    hidden = hide(service / "d" / ledger)
    hidden.rename(service / "away")

    with pytest.raises(TamperError, match=f"{ledger} is missing"):
        tallystick.backup(service / "d", service / "made", keys=service / "keys", signed=signed)
    assert not (service / "made").exists()

    (service / "away").rename(hidden)
    made = tallystick.backup(service / "d", service / "made", keys=service / "keys", signed=signed)
    assert [one.folder for one in made.ledgers] == ["access/acme", "system", "tenants/acme", "tenants/default"]
    assert tallystick.check_backup(service / "made", keys=service / "keys", signed=signed).holds


def test_an_older_system_ledger_hides_no_tenant(service: Path) -> None:
    shutil.copytree(service / "d/system", service / "older")
    with Deployment(service / "d", keys=service / "keys") as deployment:
        deployment.create_tenant("late", actor=ACTOR)
        with deployment.ledger("late") as ledger:
            append(ledger, 5)
    (service / "d/system").rename(service / "newest")
    shutil.copytree(service / "older", service / "d/system")
    (service / "d/tenants/late").rename(service / "late")

    with pytest.raises(HaltedError, match="an older copy was put back"):
        tallystick.backup(service / "d", service / "made", keys=service / "keys")


def test_a_damaged_system_ledger_is_kept_as_evidence(service: Path) -> None:
    replace_record(service / "d/system/ledger.db", 2, line_at(service / "d/system/ledger.db", 3))

    with pytest.raises(TamperError):
        tallystick.backup(service / "d", service / "made", keys=service / "keys")
    assert not tallystick.backup(service / "d", service / "made", keys=service / "keys", signed=False).signed


def test_a_ledger_that_nobody_here_has_the_keys_of_is_not_vouched_for(service: Path) -> None:
    with tallystick.open(service / "d/tenants/idle", keys=service / "his", name="tenant/idle") as ledger:
        append(ledger, 3)

    with pytest.raises(TamperError, match=r"tenants/idle has no keys in .*, and nobody here can vouch for it"):
        tallystick.backup(service / "d", service / "made", keys=service / "keys")


def test_a_ledger_in_the_folder_of_a_deployment_does_not_stand_for_it(service: Path) -> None:
    shutil.copy(service / "d/tenants/acme/ledger.db", service / "d/ledger.db")

    with pytest.raises(tallystick.RejectedError, match="belongs to none of its tenants"):
        tallystick.backup(service / "d", service / "made", keys=service / "keys", signed=False)
