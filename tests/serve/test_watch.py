"""The watch over ledgers: it verifies by itself, remembers across restarts, and raises the alarm once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallystick import durable
from tallystick.deployment import Deployment
from tallystick.evidence.verification import plan
from tallystick.serve import watch as watching
from tallystick.serve.settings import Settings
from tallystick.serve.watch import Watch
from tests.serve.conftest import running
from tests.tampering import edit

HOUR = 1 / 3_600


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def alter(folder: Path) -> None:
    """Change a byte of a record behind the ledger's back, as somebody with the file could."""
    edit(
        folder / "ledger.db",
        "UPDATE record SET bytes = CAST(replace(bytes, 'door-1', 'door-2') AS BLOB) WHERE position = 3",
    )


def fill(deployment: Deployment, count: int = 10) -> None:
    with deployment.ledger("default") as ledger:
        for _ in range(count):
            ledger.append(event_type="door.opened", entity_id="door-1", actor="jane")


def alarms(deployment: Deployment) -> list[str]:
    return [record.event_type for record in deployment.system.read() if record.event_type.startswith("verification.")]


def test_every_ledger_is_verified_and_it_is_told_where_people_look(tmp_path: Path) -> None:
    with running(tmp_path / "data", Settings(verify_hours=HOUR)) as it:
        it.call("POST", "/api/v1/events", json={"event_type": "a.b", "entity_id": "c"})
        until(lambda: {"system", "tenant/acme"} <= it.service.watch.all.keys())

        last = it.call("GET", "/api/v1/verify", "acme/ReadOnly").json()["last"]
        assert (last["holds"], last["count"]) == (True, 0)
        said = it.call("GET", "/health/ready", None).json()
        assert (said["status"], said["checks"]["verification"]["findings"]) == ("ready", 0)
        assert "acme" not in str(said)
        assert "tallystick_verify_findings 0.0" in it.call("GET", "/metrics", "operator").text
        assert alarms(it.deployment) == []


def test_a_byte_that_was_changed_raises_the_alarm_once(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment:
        deployment.begin()
        fill(deployment)
    alter(tmp_path / "tenants/default")
    with running(tmp_path, Settings(verify_hours=HOUR / 10)) as it:
        until(lambda: it.service.watch.findings)
        first = it.service.watch.of("tenant/default")
        until(lambda: it.service.watch.of("tenant/default").at > first.at)  # type: ignore[union-attr]

        assert alarms(it.deployment) == ["verification.failed"]
        (alarm,) = [one for one in it.deployment.system.read() if one.event_type == "verification.failed"]
        assert alarm.payload["ledger"] == "tenant/default"
        assert 3 in {finding["position"] for finding in alarm.payload["findings"]}
        answer = it.call("GET", "/health/ready", None)
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")


def test_a_ledger_that_was_put_back_is_found_by_the_checkpoint_that_was_kept(tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    with Deployment(tmp_path / "data") as deployment:
        deployment.begin()
        fill(deployment, 5)
    shutil.copytree(tmp_path / "data/tenants/default", earlier)
    with Deployment(tmp_path / "data") as deployment:
        fill(deployment, 5)
        with deployment.ledger("default") as ledger:
            seen = Watch(deployment, every_seconds=0).take("tenant/default", ledger.verify())
        assert seen.holds
    shutil.rmtree(tmp_path / "data/tenants/default")
    shutil.copytree(earlier, tmp_path / "data/tenants/default")

    with running(tmp_path / "data", Settings(verify_hours=HOUR / 10)) as it:
        until(lambda: it.service.watch.findings)
        found = it.service.watch.of("tenant/default")
        assert found is not None
        assert found.checkpoint == seen.checkpoint, "the good one is kept until the ledger holds again"
    with Deployment(tmp_path / "data") as deployment:
        assert Watch(deployment, every_seconds=0).findings == found.count, "and the finding outlives a restart"


def test_the_alarm_is_called_off_when_all_holds_again(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment:
        deployment.begin()
        fill(deployment)
    shutil.copytree(tmp_path / "tenants/default", tmp_path / "good")
    alter(tmp_path / "tenants/default")
    with Deployment(tmp_path) as deployment:
        watch = Watch(deployment, every_seconds=0)
        with deployment.ledger("default") as ledger:
            assert not watch.take("tenant/default", ledger.verify()).holds
    shutil.rmtree(tmp_path / "tenants/default")
    shutil.move(tmp_path / "good", tmp_path / "tenants/default")
    with Deployment(tmp_path) as deployment:
        watch = Watch(deployment, every_seconds=0)
        with deployment.ledger("default") as ledger:
            assert watch.take("tenant/default", ledger.verify()).holds
        assert alarms(deployment) == ["verification.failed", "verification.held"]


@pytest.mark.slow
def test_a_long_ledger_is_verified_by_another_process_again_and_again_and_a_stop_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "RANGE_RECORDS", 256)
    with Deployment(tmp_path) as deployment:
        deployment.begin()
        with deployment.ledger("default") as ledger:
            ledger.append_many([{"event_type": "door.opened", "entity_id": "d", "actor": "jane"}] * 3_000)
        watch = Watch(deployment, every_seconds=HOUR)
        watch.begin()
        until(lambda: watch.of("tenant/default"))
        first = watch.of("tenant/default")
        assert first is not None
        with deployment.ledger("default") as ledger:
            ledger.append_many([{"event_type": "door.opened", "entity_id": "d", "actor": "jane"}] * 3_000)
        until(lambda: watch.of("tenant/default").size > first.size)  # type: ignore[union-attr]
        seen = watch.of("tenant/default")
        assert seen is not None
        assert (first.holds, seen.holds) == (True, True)

        monkeypatch.setattr(watching, "_REST", 1e9)  # from now on it would rest for ever
        began = time.monotonic()
        watch.close()
        assert time.monotonic() - began < 10


def test_what_was_kept_of_verifications_may_be_lost(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment:
        deployment.begin()
        (tmp_path / watching.FILE_NAME).write_bytes(b'{"tenant/default": {"at"')
        watch = Watch(deployment, every_seconds=0)
        assert watch.all == {}


def test_a_full_disk_makes_the_service_not_ready(tmp_path: Path) -> None:
    with running(tmp_path, Settings(disk_free_megabytes=10**9)) as it:
        answer = it.call("GET", "/health/ready", None)
        assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
        assert answer.json()["checks"]["disk"]["ok"] is False
        assert it.call("GET", "/health/live", None).status_code == 200
        assert it.call("POST", "/api/v1/exports", json={}).status_code == 503, "nothing large is begun"
        assert it.call("POST", "/api/v1/events", json={"event_type": "a.b", "entity_id": "c"}).status_code == 503


def test_a_rollback_stays_found_when_somebody_orders_a_verification(tmp_path: Path) -> None:
    with Deployment(tmp_path / "data") as deployment:
        deployment.begin()
        fill(deployment, 5)
    shutil.copytree(tmp_path / "data/tenants/default", tmp_path / "earlier")
    with Deployment(tmp_path / "data") as deployment:
        fill(deployment, 5)
        with deployment.ledger("default") as ledger:
            Watch(deployment, every_seconds=0).take("tenant/default", ledger.verify())
        _, key = deployment.create_key("default", role="ReadOnly", name="r", actor={"id": "t"})
    shutil.rmtree(tmp_path / "data/tenants/default")
    shutil.copytree(tmp_path / "earlier", tmp_path / "data/tenants/default")

    with running(tmp_path / "data", Settings(verify_hours=0)) as it:
        ordered = it.call("POST", "/api/v1/verify", key, json={})
        until(lambda: it.call("GET", ordered.headers["Location"], key).json()["state"] == "done")
        assert it.service.watch.findings
        assert alarms(it.deployment) == ["verification.failed"]


def test_a_disk_that_is_full_for_a_while_does_not_end_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = durable.replace
    full = [OSError(28, "No space left on device")] * 2

    def failing(*given: Any, **how: Any) -> None:
        if full:
            raise full.pop()
        replace(*given, **how)

    monkeypatch.setattr(durable, "replace", failing)
    with Deployment(tmp_path) as deployment:
        deployment.begin()
        watch = Watch(deployment, every_seconds=HOUR / 10)
        assert watch.oldest_seconds >= 0
        watch.begin()
        until(lambda: watch.of("system"))
        watch.close()
