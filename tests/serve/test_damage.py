"""Damage and rollbacks while the service runs, and between its restarts: an alarm, not ready, and a final error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx2
import orjson
import pytest

from tallystick.deployment import Deployment
from tallystick.errors import DamagedError, DamagedIndexError, TamperError
from tallystick.evidence.findings import Kind
from tallystick.ledger import Ledger
from tallystick.serve.caller import Caller
from tallystick.serve.settings import Settings
from tallystick.serve.watch import FILE_NAME, Watch
from tests.damaging import LOG, damage, good_copy
from tests.damaging import put_back as put_back_good
from tests.serve.conftest import ACTOR, Running, running
from tests.serve.test_watch import alarms, fill, until
from tests.tampering import edit

EVENT = {"event_type": "door.opened", "entity_id": "door-1"}
ACME = "tenants/acme"
FILES = ("ledger.db", "index.db", "sealing.db")


def append(it: Running, who: str = "acme/Admin") -> httpx2.Response:
    return it.call("POST", "/api/v1/events", who, json=EVENT)


def alarms_of(it: Running, ledger: str) -> list[str]:
    return [
        record.event_type.removeprefix("verification.")
        for record in it.deployment.system.read()
        if record.event_type.startswith("verification.") and record.payload["ledger"] == ledger
    ]


class Case:
    """A tenant of its own, with records, of the one service that these tests share."""

    def __init__(self, it: Running) -> None:
        self.it: Final = it
        self.name: Final = f"t{next(_number)}"
        it.deployment.create_tenant(self.name, actor=ACTOR)
        self.key: Final = it.key(self.name, "Admin")
        self.folder: Final = it.deployment.folder / "tenants" / self.name
        for _ in range(40):
            assert self.append().status_code == 201
        assert self.query().json()["records"]
        assert (self.folder / "index.db-wal").stat().st_size
        assert (self.folder / "ledger.db-wal").stat().st_size

    def append(self) -> httpx2.Response:
        return append(self.it, self.key)

    def query(self) -> httpx2.Response:
        return self.it.call("GET", "/api/v1/events/query?entity_id=door-1&limit=1000", self.key)

    def read(self) -> list[httpx2.Response]:
        """One of each way to read."""
        paths = ("events/query?entity_id=door-1", "events/5", "checkpoint", "proofs/5", "entities/door-1/state")
        return [self.it.call("GET", f"/api/v1/{path}", self.key) for path in paths]

    def ready(self) -> int:
        return self.it.call("GET", f"/health/ready?tenant={self.name}", None).status_code

    def alarms(self) -> list[str]:
        return alarms_of(self.it, f"tenant/{self.name}")

    def verify(self) -> None:
        """Order a verification, which calls the alarm off if it finds nothing."""
        assert self.done("/api/v1/verify")["result"]["holds"]
        assert self.alarms() == ["failed", "held"]
        assert self.ready() == 200

    def done(self, path: str) -> dict[str, Any]:
        """Order a job, and give what became of it."""
        ordered = self.it.call("POST", path, self.key, json={})
        assert ordered.status_code == 202, ordered.text
        job: dict[str, Any] = {}

        def is_over() -> bool:
            job.update(self.it.call("GET", ordered.headers["Location"], self.key).json())
            return job["state"] not in ("waiting", "running")

        until(is_over)
        assert job["state"] == "done", job["problem"]
        return job


_number: Final = count(1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("damage") / "data", Settings(verify_hours=0)) as it:
        yield it
    assert not [one for one in threading.enumerate() if one.name == "tallystick-head-mark" and one.is_alive()]


def check_final(answer: httpx2.Response, it: Running) -> None:
    assert answer.status_code == 500, answer.text
    assert answer.json()["family"] in ("damaged", "tamper"), answer.text
    assert "Retry-After" not in answer.headers
    assert str(it.deployment.folder) not in answer.text


MAIN: Final = ("zeroed", "emptied", "garbage", "replaced", "removed")
DAMAGE: Final = [
    *[(main, log, use) for main in MAIN for log in LOG for use in ("reads", "appends")],
    *[("kept", log, use) for log in ("emptied", "zeroed", "removed") for use in ("reads", "appends", "nothing")],
    *[("halved", "kept", use) for use in ("reads", "appends")],
    *[(main, "emptied", "nothing") for main in MAIN],
]


@pytest.mark.slow
@pytest.mark.parametrize(("main", "log", "use"), DAMAGE)
def test_a_log_that_is_damaged_while_it_is_open_is_a_final_error_and_can_be_put_back(
    shared: Running, main: str, log: str, use: str
) -> None:
    case = Case(shared)
    good_copy(case.folder / "ledger.db")
    before = shared.deployment.pool.opened(f"tenant/{case.name}")
    damage(case.folder / "ledger.db", main=main, log=log)

    slipped = 0
    deadline = time.monotonic() + 15
    while not case.alarms():
        assert time.monotonic() < deadline
        answers = case.read() if use == "reads" else [case.append()] if use == "appends" else []
        for answer in answers:
            slipped += answer.status_code == 201
            if answer.status_code not in (200, 201):
                check_final(answer, shared)
    if main in ("zeroed", "emptied", "garbage") or log in ("emptied", "zeroed"):
        assert not slipped, "nothing is acknowledged on a file that was emptied"

    assert shared.deployment.pool.opened(f"tenant/{case.name}") is not before
    assert case.alarms() == ["failed"]
    assert case.ready() == 503
    assert append(shared, "other/Admin").status_code == 201, "other tenants go on"
    said = shared.call("GET", "/health/ready", None)
    assert (said.status_code, said.json()["status"]) == (200, "degraded")
    assert case.name not in said.text
    if (main, log) == ("kept", "removed"):  # what was committed is saved from the log that lost its name
        assert case.append().status_code == 201
        assert len(case.query().json()["records"]) == 40 + slipped + 1
        case.verify()
        return
    if (main, log) not in (("replaced", "kept"), ("halved", "kept")):  # in which SQLite has all of it in its log
        for answer in (*case.read(), case.append()):
            check_final(answer, shared)

    ledger = shared.deployment.pool.opened(f"tenant/{case.name}")
    if ledger is not None:
        shared.deployment.pool.discard(f"tenant/{case.name}", ledger)
    put_back_good(case.folder / "ledger.db")
    until(lambda: case.append().status_code == 201)
    assert {answer.status_code for answer in case.read()} == {200}
    case.verify()


@pytest.mark.slow
@pytest.mark.parametrize(("main", "log", "use"), DAMAGE)
def test_an_index_that_is_damaged_while_it_is_open_is_an_alarm_and_is_rebuilt(
    shared: Running, main: str, log: str, use: str
) -> None:
    case = Case(shared)
    damage(case.folder / "index.db", main=main, log=log)

    failed = 0
    deadline = time.monotonic() + 15
    while not case.alarms():
        assert time.monotonic() < deadline
        for answer in [case.query()] if use == "reads" else [case.append()] if use == "appends" else []:
            if answer.status_code >= 400:
                check_final(answer, shared)
                failed += 1
    assert failed <= 1

    answer = case.query()
    assert answer.status_code == 200, answer.text
    size = int(shared.call("GET", "/api/v1/checkpoint", case.key).text.splitlines()[1])
    assert len(answer.json()["records"]) == size - 2, "none is missing"
    assert case.append().status_code == 201
    assert case.ready() == 200, "events are taken"
    said = shared.call("GET", "/health/ready", None).json()
    assert (said["status"], said["checks"]["verification"]["ok"]) == ("degraded", False)
    assert case.alarms() == ["failed"]
    case.verify()


@pytest.mark.parametrize("log", LOG)
@pytest.mark.parametrize("main", MAIN)
def test_an_export_does_not_need_the_index_that_was_there(shared: Running, main: str, log: str) -> None:
    case = Case(shared)
    damage(case.folder / "index.db", main=main, log=log)
    assert case.done("/api/v1/exports")["result"]["count"] >= 40


@pytest.mark.parametrize("who", ["it finds it", "another finds it"])
def test_long_work_begins_again_where_the_index_is_damaged_beneath_it(shared: Running, who: str) -> None:
    case = Case(shared)
    caller = Caller(shared.deployment.authenticate(case.key), "POST", "/api/v1/exports")
    attempts = []

    def work(ledger: Ledger) -> int:
        attempts.append(ledger)
        if len(attempts) == 1:
            damage(case.folder / "index.db", main="emptied", log="emptied")
            with suppress(DamagedIndexError):
                until(lambda: not ledger.look(now=True))
            if who == "another finds it":
                until(lambda: append(shared, case.key).status_code == 201)
        return len(ledger.query(entity_id="door-1", limit=100).records)

    assert shared.service.long_work(caller, work) >= 40
    assert len({id(ledger) for ledger in attempts}) == 2
    until(lambda: case.alarms() == ["failed"])


def test_long_work_on_a_damaged_log_is_not_done_again(shared: Running) -> None:
    case = Case(shared)
    caller = Caller(shared.deployment.authenticate(case.key), "POST", "/api/v1/exports")
    attempts = []

    def work(ledger: Ledger) -> None:
        attempts.append(ledger)
        damage(case.folder / "ledger.db", main="emptied", log="emptied")
        ledger.look(now=True)

    with pytest.raises(DamagedError):
        shared.service.long_work(caller, work)
    assert len(attempts) == 1


def put_back(older: Path, place: Path) -> None:
    for name in FILES:
        for path in place.glob(f"{name}-*"):
            path.unlink()
        shutil.copyfile(older / name, place / f"{name}.scratch")
        (place / f"{name}.scratch").rename(place / name)


def older_copy(folder: Path) -> Path:
    """A deployment with an older copy of a tenant's ledger beside it."""
    with Deployment(folder / "data") as deployment:
        deployment.begin()
        fill(deployment, 5)
    shutil.copytree(folder / "data/tenants/default", folder / "older")
    with Deployment(folder / "data") as deployment:
        fill(deployment, 5)
    return folder / "older"


def check_rolled_back(it: Running, key: str) -> None:
    for _ in range(2):
        answer = append(it, key)
        assert (answer.status_code, answer.json()["family"]) == (500, "tamper")
        assert "was put back" in answer.text
    assert it.call("GET", "/api/v1/checkpoint", key).status_code == 500
    assert alarms(it.deployment) == ["verification.failed"]
    ready = it.call("GET", "/health/ready", None)
    assert (ready.status_code, ready.json()["checks"]["verification"]["stopped"]) == (503, ["rollback"])


def test_an_older_copy_put_back_between_restarts_takes_no_events(tmp_path: Path) -> None:
    older = older_copy(tmp_path)
    put_back(older, tmp_path / "data/tenants/default")
    with running(tmp_path / "data", Settings(verify_hours=0)) as it:
        _, key = it.deployment.create_key("default", role="Admin", name="k", actor={"id": "t"})
        check_rolled_back(it, key)
    with running(tmp_path / "data", Settings(verify_hours=0)) as it:
        check_rolled_back(it, key)


def test_a_sealing_index_that_was_altered_degrades(tmp_path: Path) -> None:
    older_copy(tmp_path)
    edit(tmp_path / "data/tenants/default/sealing.db", "UPDATE page SET content = zeroblob(length(content))")
    with running(tmp_path / "data", Settings(verify_hours=0)) as it:
        assert it.call("GET", "/health/ready", None).json()["status"] == "ready"
        _, key = it.deployment.create_key("default", role="Admin", name="k", actor={"id": "t"})
        assert append(it, key).status_code == 201
        ready = it.call("GET", "/health/ready", None)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["checks"]["sealing"] == {"ok": False, "rebuilt": 1}


def test_a_tenants_ledger_that_was_removed_is_an_alarm_and_not_begun_again(tmp_path: Path) -> None:
    older_copy(tmp_path)
    shutil.rmtree(tmp_path / "data/tenants/default")
    with running(tmp_path / "data", Settings(verify_hours=0)) as it:
        _, key = it.deployment.create_key("default", role="Admin", name="k", actor={"id": "t"})
        for _ in range(2):
            answer = append(it, key)
            assert (answer.status_code, answer.json()["family"]) == (500, "tamper")
            assert "it was removed" in answer.text
            assert str(tmp_path) not in answer.text
        assert alarms(it.deployment) == ["verification.failed"]
        assert it.call("GET", "/health/ready", None).status_code == 503
        assert not (tmp_path / "data/tenants/default/index.db").exists()


def test_an_older_copy_put_back_while_the_service_runs_takes_no_events(tmp_path: Path) -> None:
    older = older_copy(tmp_path)
    with running(tmp_path / "data", Settings(verify_hours=0)) as it:
        _, key = it.deployment.create_key("default", role="Admin", name="k", actor={"id": "t"})
        assert append(it, key).status_code == 201
        put_back(older, tmp_path / "data/tenants/default")
        assert append(it, key).status_code == 500, "the file was replaced"
        until(lambda: "was put back" in append(it, key).text)
        assert it.call("GET", "/health/ready", None).status_code == 503
        assert set(alarms(it.deployment)) == {"verification.failed"}


@pytest.mark.parametrize("ordered", [False, True])
def test_a_loss_that_was_accepted_lets_the_service_go_on(tmp_path: Path, ordered: bool) -> None:
    older = older_copy(tmp_path)
    with Deployment(tmp_path / "data") as deployment, deployment.ledger("default") as ledger:
        assert Watch(deployment, every_seconds=0).take("tenant/default", ledger.verify()).holds
    put_back(older, tmp_path / "data/tenants/default")
    with running(tmp_path / "data", Settings(verify_hours=0)) as it:
        _, key = it.deployment.create_key("default", role="Admin", name="k", actor={"id": "t"})
        assert append(it, key).status_code == 500
    with Deployment(tmp_path / "data") as deployment, deployment.ledger("default") as ledger:
        ledger.accept_loss("the disk died", actor={"id": "jane"})
    with running(tmp_path / "data", Settings(verify_hours=0 if ordered else 1 / 3_600)) as it:
        if ordered:
            assert append(it, key).status_code == 500, "not before a verification"
            assert it.call("POST", "/api/v1/verify", key, json={}).status_code == 202
        until(lambda: append(it, key).status_code == 201)
        until(lambda: it.call("GET", "/health/ready", None).json()["status"] == "ready")
        assert alarms(it.deployment) == ["verification.failed", "verification.held"]


def test_a_service_cannot_begin_on_a_system_ledger_that_was_put_back(tmp_path: Path) -> None:
    with Deployment(tmp_path / "data") as deployment:
        deployment.begin()
    shutil.copytree(tmp_path / "data/system", tmp_path / "older")
    with Deployment(tmp_path / "data") as deployment:
        key = next(iter(deployment.keys("default")))
        deployment.create_key("default", role="Admin", name="k", actor={"id": "t"}, operator=True)
        deployment.revoke_key(key.id, actor={"id": "t"})
    put_back(tmp_path / "older", tmp_path / "data/system")
    with pytest.raises(TamperError, match="the system ledger does not verify"):
        Deployment(tmp_path / "data")


def test_what_was_kept_of_verifications_is_authenticated(tmp_path: Path) -> None:
    def edit(data: bytes) -> bytes:
        tag, _, text = data.partition(b"\n")
        kept: dict[str, Any] = orjson.loads(text)
        for one in kept.values():
            one |= {"count": 0, "findings": []}
        return tag + b"\n" + orjson.dumps(kept)

    with Deployment(tmp_path) as deployment:
        deployment.begin()
        fill(deployment)
        watch = Watch(deployment, every_seconds=0)
        with deployment.ledger("default") as ledger:
            watch.take("tenant/default", ledger.verify())
        good = (tmp_path / FILE_NAME).read_bytes()
    with running(tmp_path, Settings(verify_hours=0)) as it:
        it.service.watch.found("tenant/default", Kind.ROLLBACK, "as a test has it")
        found = (tmp_path / FILE_NAME).read_bytes()
        assert it.service.watch.findings == 1
        for data in (edit(found), b"", b"{}", good, None):  # edited, emptied, of an earlier version, older, removed
            if data is None:
                (tmp_path / FILE_NAME).unlink()
            else:
                (tmp_path / FILE_NAME).write_bytes(data)
            with Deployment(tmp_path) as again:
                assert Watch(again, every_seconds=0).findings == 1, "the system ledger has the alarm"
            assert it.service.watch.findings == 1
        assert it.call("GET", "/health/ready", None).json()["checks"]["verification"]["altered"]


def test_an_index_that_was_edited_is_found_by_the_watch_and_a_rebuild_calls_the_alarm_off(tmp_path: Path) -> None:
    with running(tmp_path / "data", Settings(verify_hours=1 / 36_000)) as it:
        for _ in range(10):
            assert append(it).status_code == 201
        query = "/api/v1/events/query?entity_id=door-1"
        assert len(it.call("GET", query).json()["records"]) == 10
        until(lambda: it.service.watch.of("tenant/acme"))
        assert it.call("GET", "/health/ready", None).json()["status"] == "ready"

        edit(tmp_path / "data" / ACME / "index.db", "DELETE FROM event WHERE position = 5")
        until(lambda: alarms(it.deployment) == ["verification.failed"])
        ready = it.call("GET", "/health/ready?tenant=acme", None)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded"), "events are taken"
        (alarm,) = [one for one in it.deployment.system.read() if one.event_type == "verification.failed"]
        assert {one["kind"] for one in alarm.payload["findings"]} == {"index"}

        rebuild = [sys.executable, "-m", "tallystick", "index", "rebuild", "-l", tmp_path / "data" / ACME]
        environment = {**os.environ, "TALLYSTICK_KEYS": str(tmp_path / "data/keys" / ACME)}
        subprocess.run([*map(str, rebuild)], check=True, capture_output=True, env=environment)
        until(lambda: alarms(it.deployment) == ["verification.failed", "verification.held"])
        until(lambda: it.call("GET", "/health/ready", None).json()["status"] == "ready")
        assert len(it.call("GET", query).json()["records"]) == 10
        assert alarms(it.deployment) == ["verification.failed", "verification.held"], "a rebuild of ours is no alarm"


def test_a_system_ledger_that_is_replaced_by_a_copy_is_verified_and_used(tmp_path: Path) -> None:
    with running(tmp_path / "data", Settings(verify_hours=0)) as it:
        assert append(it).status_code == 201
        path = tmp_path / "data/system/ledger.db"
        good_copy(path)
        put_back_good(path)

        until(lambda: append(it).status_code == 201)
        until(lambda: alarms(it.deployment) == ["verification.failed"])
        ready = it.call("GET", "/health/ready", None)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded"), "events are taken"
        ordered = it.call("POST", "/api/v1/verify", json={})
        assert ordered.status_code == 202, ordered.text
        until(lambda: it.call("GET", ordered.headers["Location"]).json()["state"] == "done")
        assert it.call("GET", "/api/v1/jobs").status_code == 200
        assert it.call("POST", "/api/v1/tenants", "operator", json={"name": "third"}).status_code == 201


@pytest.mark.parametrize("main", MAIN)
def test_a_system_ledger_that_does_not_verify_stops_everything_until_it_is_put_back(tmp_path: Path, main: str) -> None:
    with running(tmp_path / "data", Settings(verify_hours=0)) as it:
        assert append(it).status_code == 201
        path = tmp_path / "data/system/ledger.db"
        good_copy(path)
        damage(path, main=main, log="removed")

        until(lambda: it.call("GET", "/health/ready", None).status_code == 503)
        for tenant in ("acme", "other"):
            check_final(append(it, f"{tenant}/Admin"), it)
            check_final(it.call("GET", "/api/v1/checkpoint", f"{tenant}/Admin"), it)
        assert it.call("GET", "/health/live", None).status_code == 200

        put_back_good(path)
        until(lambda: append(it).status_code == 201)
        until(lambda: alarms(it.deployment) == ["verification.failed"])
        assert it.call("GET", "/health/ready", None).status_code == 200
