"""Faults of what the service is set up with: 5xx, to be tried again, logged, counted, and seen in readiness."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import pytest

import tallystick
from tallystick.integrations.sending import Sender
from tallystick.keystore import Keystore
from tallystick.serve.ingest import BATCH_PATH, EVENTS_PATH
from tests.serve.conftest import ACTOR, Running, running
from tests.serve.test_metrics import scraped

EVENT: Final = {"event_type": "door.opened", "entity_id": "door-1"}
_number: Final = count()


@pytest.fixture
def tenant(it: Running) -> str:
    name = f"f{next(_number)}"
    it.deployment.create_tenant(name, actor=ACTOR)
    key = it.key(name, "Admin")
    it.keys[name] = key
    assert it.call("POST", EVENTS_PATH, key, json=EVENT).status_code == 201
    return name


def others(folder: Path, name: str) -> None:
    """Put the key of another deployment in the place of one."""
    made = folder.with_name("others")
    shutil.rmtree(made, ignore_errors=True)
    Keystore(made).make()
    shutil.copyfile(made / f"{name}.key", folder / f"{name}.key")


def readable(folder: Path, name: str) -> None:
    (folder / f"{name}.key").chmod(0o644)


def missing(folder: Path, name: str) -> None:
    (folder / f"{name}.key").unlink()


def nonsense(folder: Path, name: str) -> None:
    (folder / f"{name}.key").write_text("no key")


@contextmanager
def broken(it: Running, tenant: str, harm: Callable[[Path, str], None], name: str) -> Iterator[None]:
    """While the keys of a tenant are not what its ledger needs. Each time the ledger is opened anew."""
    folder = it.deployment.folder / "keys/tenants" / tenant
    good = folder.with_name(f"{tenant}.good")
    shutil.copytree(folder, good)

    def reopen() -> None:
        ledger = it.deployment.pool.opened(f"tenant/{tenant}")
        if ledger is not None:
            it.deployment.pool.discard(f"tenant/{tenant}", ledger)

    harm(folder, name)
    reopen()
    try:
        yield
    finally:
        shutil.rmtree(folder)
        good.rename(folder)
        reopen()


HARM: Final = [
    (others, "checkpoint"),
    (others, "evidence"),
    (others, "root"),
    (others, "master"),
    (readable, "checkpoint"),
    (missing, "checkpoint"),
    (nonsense, "master"),
    (nonsense, "evidence"),
]


@pytest.mark.parametrize(("harm", "name"), HARM)
def test_keys_that_are_not_in_force_are_the_services_fault(
    it: Running, tenant: str, harm: Callable[[Path, str], None], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = scraped(it, "operator").get(("tallystick_faults_total", "set-up"), 0)
    caplog.set_level(logging.ERROR, "tallystick.serve")
    with broken(it, tenant, harm, name):
        for path, body in ((EVENTS_PATH, EVENT), (BATCH_PATH, [EVENT, EVENT]), (f"{EVENTS_PATH}?ack=queued", EVENT)):
            if name not in ("master",) and "queued" in path:
                continue  # it is taken, and sealed once the keys are there again
            answer = it.call("POST", path, tenant, json=body)

            assert answer.status_code == 503, answer.text
            assert answer.json()["family"] == "store"
            assert "Retry-After" in answer.headers
            assert not any(word in answer.text for word in ("key", str(it.deployment.folder)))
        assert it.call("GET", f"/health/ready?tenant={tenant}", None).status_code == 503
        said = it.call("GET", "/health/ready", None).json()
        assert (said["status"], said["checks"]["faults"]["failing"]) == ("degraded", 1)
        assert it.call("POST", EVENTS_PATH, "other/Admin", json=EVENT).status_code == 201, "others go on"
        assert scraped(it, "operator")["tallystick_faults_total", "set-up"] >= before + 2
        assert any("cannot be written" in record.getMessage() for record in caplog.records)

    assert it.call("POST", EVENTS_PATH, tenant, json=EVENT).status_code == 201
    assert it.call("GET", f"/health/ready?tenant={tenant}", None).status_code == 200


def test_a_sender_keeps_events_until_the_service_is_mended(it: Running, tenant: str) -> None:
    with tallystick.Client(it.url, it.keys[tenant], seconds=0.2) as client:
        with broken(it, tenant, others, "checkpoint"):
            sender = Sender(client, name="app")
            for number in range(30):
                assert sender.put({**EVENT, "entity_id": "kept", "payload": {"n": number}})
            deadline = time.monotonic() + 20
            while not sender.problem and time.monotonic() < deadline:
                time.sleep(0.01)
            assert sender.problem
            assert (sender.refused, sender.dropped) == (0, 0)
        assert sender.close(30)
        assert [record.payload["n"] for record in client.records(entity_id="kept")] == [*range(30)]
        assert (sender.sent, sender.refused, sender.dropped) == (30, 0, 0)


def test_a_sender_into_a_ledger_with_other_keys_keeps_events_too(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "l", keys=tmp_path / "keys") as ledger:
        ledger.append(EVENT)
    good = (tmp_path / "keys/checkpoint.key").read_bytes()
    others(tmp_path / "keys", "checkpoint")

    with tallystick.open(tmp_path / "l", keys=tmp_path / "keys") as ledger:
        sender = Sender(ledger, name="app")
        assert sender.put(EVENT)
        deadline = time.monotonic() + 20
        while not sender.problem and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "checkpoint key" in sender.problem
        (tmp_path / "keys/checkpoint.key").write_bytes(good)
        assert sender.close(20)
        assert (sender.sent, sender.refused, sender.dropped) == (1, 0, 0)


def test_what_was_refused_is_told_of_where_it_is_missing(it: Running) -> None:
    with tallystick.Client(it.url, it.keys["acme/Admin"]) as client:
        sender = Sender(client, name="refusals")
        for number in range(5):
            bad = number in (1, 3)
            sender.put({"event_type": "no type" if bad else "work.done", "entity_id": "r", "payload": {"n": number}})
        sender.put({"event_type": "work.done", "entity_id": "r", "payload": {"n": float("nan")}})
        assert sender.flush(20)
        sender.put({"event_type": "work.done", "entity_id": "r", "payload": {"n": 5}})
        assert sender.close(20)

        told = [record.payload for record in client.records(entity_id="refusals")]
        assert sum(one["refused"] for one in told) == sender.refused == 3
        assert {one["count"] for one in told} == {0}
        assert [record.payload["n"] for record in client.records(entity_id="r")] == [0, 2, 4, 5]


def test_a_mistake_of_ours_is_counted_and_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with running(tmp_path / "data") as it:
        assert it.call("GET", "/health/ready", None).json()["status"] == "ready"
        monkeypatch.setattr(tallystick.Ledger, "count", lambda *_, **__: 1 / 0)
        assert it.call("GET", "/api/v1/events/count").status_code == 500
        monkeypatch.setattr("tallystick.serve.ingest.split_body", lambda *_, **__: 1 / 0)
        assert it.call("POST", BATCH_PATH, json=[EVENT]).status_code == 500

        ready = it.call("GET", "/health/ready", None)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["checks"]["faults"] == {"ok": False, "recent": 2, "failing": 0}
        assert scraped(it, "operator")["tallystick_faults_total", "mistake"] == 2
