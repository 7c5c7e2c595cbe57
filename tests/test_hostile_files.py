"""Someone who can write the data folder puts links, pipes and endless files there, and the keys are somewhere else.

Whatever is in the place of whichever file: nothing hangs, no key and no mark is read, altered or removed, and there is
a clear error, a finding, or a file of ours again.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

import tallystick
from tallystick.errors import DamagedError, StoreError, TallystickError
from tallystick.evidence.findings import Kind
from tallystick.evidence.others.cosigning import KEPT_FILE
from tallystick.plain_file import NotPlainError, check_folder, open_lock, open_plain, open_to_write, remove_folder
from tallystick.serve.settings import Settings
from tests.serve.conftest import Running, running
from tests.tampering import without_triggers

DEADLINE_SECONDS: Final = 30
SPARSE_BYTES: Final = 1 << 30
SECRET: Final = "master.key"
VIEW: Final = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT"

SEGMENT: Final = "queue/segment"
"""Stands for the newest one."""

FILES: Final = (
    *("ledger.db", "ledger.db-wal", "ledger.db-shm", "sealing.db", "sealing.db-wal", "cursors.db", "cursors.db-wal"),
    *("index.db", "index.db-wal", "index.compared", KEPT_FILE),
    *("queue", "queue/cursor", "queue/refused.jsonl", "queue/lock", "queue/mark", "queue/repaired-1", SEGMENT),
)


def link_to_a_key(path: Path, keys: Path) -> None:
    path.symlink_to(keys / SECRET)


def link_to_a_mark(path: Path, keys: Path) -> None:
    path.symlink_to(keys / "heads" / OTHER_MARK)


def link_to_the_marks(path: Path, keys: Path) -> None:
    path.symlink_to(keys / "heads")


def link_to_itself(path: Path, keys: Path) -> None:
    del keys
    path.symlink_to(path.name)


def pipe(path: Path, keys: Path) -> None:
    del keys
    os.mkfifo(path)


def sparse(path: Path, keys: Path) -> None:
    del keys
    with path.open("wb") as file:
        file.truncate(SPARSE_BYTES)


def directory(path: Path, keys: Path) -> None:
    del keys
    path.mkdir()


OTHER_MARK: Final = f"{'00' * 32}.head"
"""The mark of another ledger, which nothing here may change."""

Put = Callable[[Path, Path], None]
KINDS: Final[tuple[Put, ...]] = (
    *(link_to_a_key, link_to_a_mark, link_to_the_marks),
    *(link_to_itself, pipe, sparse, directory),
)


def within_the_deadline(work: Callable[[], Any]) -> Any:
    """What it gives. It fails when it is not done in time."""
    done: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive(), "it hangs"
    if failed:
        raise failed[0]
    return done[0]


def put(path: Path, kind: Put, keys: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind(path, keys)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def secrets_of(keys: Path) -> dict[str, bytes]:
    """What must stay as it is: keys, and the mark of another ledger."""
    return {name: data for name, data in contents(keys).items() if name.endswith(".key") or name.endswith(OTHER_MARK)}


def assert_is_unharmed(keys: Path, before: dict[str, bytes]) -> None:
    assert secrets_of(keys) == before, "a key or a mark was changed, removed or made"
    strange = [name for name in contents(keys) if not name.endswith((".key", ".head", ".queue", ".lock"))]
    assert strange == [], "something was written into the folder of the keys"


# ------------------------------------------------------------------------------------------------ a ledger


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ledger in `data`, and its keys in `keys`."""
    folder = tmp_path_factory.mktemp("whole")
    with tallystick.open(folder / "data", keys=folder / "keys") as ledger:
        ledger.append(event_type="a.b", entity_id="e")
        for number in range(5):
            ledger.publish(event_type="a.b", entity_id=f"e{number}")
        ledger.queue.drain(seconds=20)
        with ledger.subscribe(name="siem") as subscription:
            subscription.acknowledge(next(iter(subscription)).position)
        assert ledger.verify().holds
        (folder / "data" / KEPT_FILE).write_bytes(ledger.checkpoint())
    (folder / "keys" / "heads" / OTHER_MARK).write_bytes(b"of another ledger\n")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    shutil.copytree(whole, tmp_path / "it")
    return tmp_path / "it"


def verify(folder: Path) -> Any:
    with tallystick.open(folder / "data", keys=folder / "keys") as ledger:
        return [finding.seen for finding in ledger.verify(processes=1).findings]


def append(folder: Path) -> Any:
    with tallystick.open(folder / "data", keys=folder / "keys") as ledger:
        ledger.append(event_type="a.b", entity_id="e")


def publish(folder: Path) -> Any:
    with tallystick.open(folder / "data", keys=folder / "keys") as ledger:
        ledger.publish(event_type="a.b", entity_id="e")
        ledger.queue.drain(seconds=10)


def query(folder: Path) -> Any:
    with tallystick.open(folder / "data", keys=folder / "keys") as ledger:
        return repr([*ledger.query(limit=10).records])


def subscribe(folder: Path) -> Any:
    with tallystick.open(folder / "data", keys=folder / "keys") as ledger, ledger.subscribe(name="siem") as readers:
        readers.acknowledge(next(iter(readers)).position)


def back_up(folder: Path) -> Any:
    tallystick.backup(folder / "data", folder / "backup", keys=folder / "keys")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", FILES)
def test_whatever_is_in_the_place_of_a_file_of_a_ledger(folder: Path, name: str, kind: Put) -> None:
    data, keys = folder / "data", folder / "keys"
    path = sorted((data / "queue").glob("segment-*"))[-1] if name == SEGMENT else data / name
    put(path, kind, keys)
    before, secret = secrets_of(keys), (keys / SECRET).read_bytes().strip()

    said: list[str] = []
    for work in (verify, query, subscribe, append, publish, back_up, verify):
        try:
            given = within_the_deadline(lambda work=work: work(folder))  # type: ignore[misc]
            said += given if isinstance(given, list) else []
            assert secret.decode() not in str(given)
        except TallystickError as error:
            said.append(str(error))

    assert_is_unharmed(keys, before)
    assert secret.decode() not in " ".join(said)
    if (folder / "backup").exists():
        assert not any(secret in content for content in contents(folder / "backup").values())
    stands = path.is_symlink() or path.is_fifo()
    assert not stands or any(path.name in text for text in said), "it stands there, and nobody says so"


@pytest.mark.parametrize("name", ["head", "record", "tile", "pruned"])
def test_a_view_without_end_in_the_place_of_a_table_of_the_log_is_not_read(folder: Path, name: str) -> None:
    columns = {
        "head": "x id, x size, x'00' checkpoint, x epoch_at, x checkpoint_key_at, x evidence_key_at",
        "record": "0 position, x'00' bytes, 0 crc32",
        "tile": "0 number, x'00' hashes, x'00' root",
        "pruned": "x id, x below",
    }[name]
    with without_triggers(folder / "data" / "ledger.db") as connection:
        connection.execute(f"DROP TABLE {name}").fetchall()
        connection.execute(f"CREATE VIEW {name} AS {VIEW} {columns} FROM c")

    for work in (verify, query, append, back_up):
        with pytest.raises(DamagedError, match="schema was altered"):
            within_the_deadline(lambda work=work: work(folder))  # type: ignore[misc]


def test_a_trigger_that_somebody_made_in_the_log_does_not_run(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "data" / "ledger.db"))
    connection.execute(f"CREATE TRIGGER t AFTER UPDATE ON head BEGIN SELECT count(*) FROM ({VIEW} x FROM c); END")
    connection.close()

    with pytest.raises(DamagedError, match="schema was altered"):
        within_the_deadline(lambda: append(folder))


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("ledger", "x id"),
        ("subscription", "'s' name, x cursor, x'00' mac"),
        ("projection", "'n' || x name, 1 version, 1 cursor, '{}' state, 0 paused, NULL problem, x'00' mac"),
    ],
)
def test_a_view_without_end_in_the_place_of_a_table_of_the_cursors_is_not_read(
    folder: Path, name: str, columns: str
) -> None:
    connection = apsw.Connection(str(folder / "data" / "cursors.db"))
    connection.execute(f"DROP TABLE tallystick_{name}")
    connection.execute(f"CREATE VIEW tallystick_{name} AS {VIEW} {columns} FROM c")
    connection.close()

    with pytest.raises(StoreError, match=r"cursors\.db"):
        within_the_deadline(lambda: subscribe(folder))


def test_the_folder_of_a_ledger_may_itself_be_a_link(folder: Path) -> None:
    (folder / "data").rename(folder / "elsewhere")
    (folder / "data").symlink_to(folder / "elsewhere")

    append(folder)
    publish(folder)

    assert verify(folder) == []


# -------------------------------------------------------------------------------------------- a deployment

SERVED: Final = (
    *("verified.json", "verified.lock", "jobs", "jobs/acme", "jobs/acme/ID", "jobs/acme/ID/job.json"),
    *("jobs/acme/ID/result.zip", "tenants/acme", "tenants/acme/queue", "tenants/acme/queue/cursor"),
    *("tenants/acme/ledger.db", "access/acme", "access/acme/ledger.db"),
)
OFTEN: Final = (link_to_the_marks, pipe)
SELDOM: Final = (link_to_a_key, link_to_itself, sparse)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The data of a service, with a job that is over, and a key of its tenant `acme`."""
    data = tmp_path_factory.mktemp("served") / "data"
    with running(data, Settings(verify_hours=0)) as it:
        it.call("POST", "/api/v1/events", json={"event_type": "a.b", "entity_id": "c"})
        it.call("POST", "/api/v1/events", "acme/Auditor", json={"event_type": "a.b", "entity_id": "c"})  # is denied
        it.call("POST", "/api/v1/events?durability=queued", json={"event_type": "a.b", "entity_id": "d"})
        wait_for_job(it, it.call("POST", "/api/v1/verify", json={}).headers["Location"])
        wait_for_job(it, it.call("POST", "/api/v1/exports", json={}).headers["Location"])
        key = it.keys["acme/Admin"]
    (data / "keys" / "heads").mkdir()
    (data / "keys" / "heads" / OTHER_MARK).write_bytes(b"of another ledger\n")
    return data, key


def wait_for_job(it: Running, where: str, who: str = "acme/Admin") -> None:
    until = threading.Event()
    for _ in range(500):
        if it.call("GET", where, who).json().get("state") in ("done", "failed", None):
            return
        until.wait(0.02)
    raise AssertionError("the job hangs")


def use_service(data: Path, key: str, job_id: str) -> Iterator[bytes]:
    """Start it, and ask for all that has to do with files; what it answers."""
    with running(data, Settings(verify_hours=1 / 36_000)) as it:
        it.service.watch.found("tenant/acme", Kind.INDEX, "a test", stops=False)
        yield it.call("POST", "/api/v1/events", key, json={"event_type": "a.b", "entity_id": "c"}).content
        yield it.call(
            "POST", "/api/v1/events?durability=queued", key, json={"event_type": "a", "entity_id": "d"}
        ).content
        for where in ("/api/v1/events", "/api/v1/jobs", f"/api/v1/jobs/{job_id}", f"/api/v1/jobs/{job_id}/bundle"):
            yield it.call("GET", where, key).content
        for kind in ("exports", "verify"):
            begun = it.call("POST", f"/api/v1/{kind}", key, json={})
            yield begun.content
            if "Location" in begun.headers:
                wait_for_job(it, begun.headers["Location"], key)
        it.service.jobs.tidy()
        yield it.call("DELETE", f"/api/v1/jobs/{job_id}", key).content
        yield it.call("GET", "/health/ready", None).content


def try_service(served: tuple[Path, str], tmp_path: Path, name: str, kind: Put) -> None:
    shutil.copytree(served[0], tmp_path / "data")
    data, keys = tmp_path / "data", tmp_path / "data" / "keys"
    (job_id,) = [path.parent.name for path in (data / "jobs" / "acme").glob("*/result.zip")]
    (keys / SECRET).write_bytes((keys / "tenants" / "acme" / SECRET).read_bytes())  # what the links lead to
    put(data / name.replace("ID", job_id), kind, keys)
    before, secret = secrets_of(keys), (keys / SECRET).read_bytes().strip()

    try:
        answers = within_the_deadline(lambda: [*use_service(data, served[1], job_id)])
    except TallystickError as error:
        answers = [str(error).encode()]

    assert_is_unharmed(keys, before)
    assert not any(secret in answer for answer in answers)


@pytest.mark.parametrize("kind", OFTEN, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", SERVED)
def test_whatever_is_in_the_place_of_a_file_of_a_deployment(
    served: tuple[Path, str], tmp_path: Path, name: str, kind: Put
) -> None:
    try_service(served, tmp_path, name, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SELDOM, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", SERVED)
def test_whatever_else_is_in_the_place_of_a_file_of_a_deployment(
    served: tuple[Path, str], tmp_path: Path, name: str, kind: Put
) -> None:
    try_service(served, tmp_path, name, kind)


# ---------------------------------------------------------------------------------------- the functions alone


def test_a_link_a_pipe_and_a_folder_are_not_opened(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"secret")
    for kind in ("link", "pipe", "folder"):
        path = tmp_path / kind
        {"link": lambda p: p.symlink_to(target), "pipe": os.mkfifo, "folder": Path.mkdir}[kind](path)
        for opened in (open_plain, open_to_write, open_lock):
            with pytest.raises(NotPlainError, match=f"{kind}.*move it away"):
                opened(path)
    assert target.read_bytes() == b"secret"


def test_a_longer_file_than_is_expected_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")

    with pytest.raises(NotPlainError, match="has 5 bytes, and at most 4"):
        open_plain(tmp_path / "file", bytes_max=4)


def test_a_lock_keeps_what_is_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"12345")

    open_lock(tmp_path / "lock").close()

    assert (tmp_path / "lock").read_bytes() == b"12345"


def test_no_folder_is_removed_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "keys" / "heads").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "jobs").symlink_to(tmp_path / "keys")

    with pytest.raises(NotPlainError, match="jobs is a link"):
        remove_folder(tmp_path / "data" / "jobs" / "heads", below=tmp_path / "data")

    assert (tmp_path / "keys" / "heads").is_dir()
    assert check_folder(tmp_path / "data" / "none" / "x", below=tmp_path / "data").name == "x"
