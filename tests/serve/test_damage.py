"""Damage and rollbacks while the service runs, and between its restarts: an alarm, not ready, and a final error."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from tallystick.deployment import Deployment
from tallystick.errors import TamperError
from tallystick.evidence.findings import Kind
from tallystick.serve.settings import Settings
from tallystick.serve.watch import FILE_NAME, Watch
from tests.serve.conftest import Running, running
from tests.serve.test_watch import alarms, fill, until
from tests.tampering import edit

EVENT = {"event_type": "door.opened", "entity_id": "door-1"}
ACME = "tenants/acme"
FILES = ("ledger.db", "index.db", "sealing.db")


def append(it: Running, who: str = "acme/Admin") -> httpx2.Response:
    return it.call("POST", "/api/v1/events", who, json=EVENT)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))
    path.with_name("ledger.db-wal").write_bytes(b"")


def truncated(path: Path) -> None:
    os.truncate(path, 0)
    os.truncate(path.with_name("ledger.db-wal"), 0)


def replaced(path: Path) -> None:
    shutil.copyfile(path, path.with_name("scratch"))
    path.with_name("scratch").rename(path)


def deleted(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [zeroed, truncated, replaced, deleted])
def test_a_log_that_is_damaged_while_it_is_open_is_an_alarm_and_a_final_error(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with running(tmp_path / "data", Settings(verify_hours=0)) as it:
        for _ in range(40):
            assert append(it).status_code == 201
        damage(tmp_path / "data" / ACME / "ledger.db")

        # At once; or, where the file has its name still and only the bytes went, within two seconds.
        answer = append(it)
        deadline = time.monotonic() + 20
        while answer.status_code == 201 and time.monotonic() < deadline:
            answer = append(it)
        assert answer.status_code == 500, answer.text
        assert answer.json()["family"] in ("damaged", "tamper")
        assert "Retry-After" not in answer.headers
        assert str(tmp_path) not in answer.text
        assert append(it, "other/Admin").status_code == 201, "other tenants go on"
        assert alarms(it.deployment) == ["verification.failed"]
        ready = it.call("GET", "/health/ready", None)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded"), "other tenants go on"
        assert ready.json()["checks"]["verification"]["stopped"]
        of_tenants = {name: it.call("GET", f"/health/ready?tenant={name}", None) for name in ("acme", "other", "none")}
        assert {name: one.status_code for name, one in of_tenants.items()} == {"acme": 503, "other": 200, "none": 200}
        assert of_tenants["acme"].json()["status"] == "not ready"
        assert str(tmp_path) not in ready.text
        assert "acme" not in ready.text
        assert "tallystick_verify_findings 0.0" not in it.call("GET", "/metrics", "operator").text


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


def damaged_index(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)
    path.with_name("index.db-wal").unlink(missing_ok=True)


@pytest.mark.parametrize("damage", [damaged_index, replaced])
def test_an_index_that_is_damaged_while_it_is_open_heals_or_is_reported(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with running(tmp_path / "data", Settings(verify_hours=0)) as it:
        for _ in range(40):
            assert append(it).status_code == 201
        assert it.call("GET", "/api/v1/events/query?entity_id=door-1").status_code == 200
        damage(tmp_path / "data" / ACME / "index.db")
        answers = [it.call("GET", "/api/v1/events/query?entity_id=door-1") for _ in range(5)]
        assert {answer.status_code for answer in answers} <= {200, 500}
        assert not any("Retry-After" in answer.headers for answer in answers)
        assert answers[-1].status_code == 200 or alarms(it.deployment) == ["verification.failed"]
        assert append(it).status_code in (201, 500)
