"""Events stop at the reserve of the disk; administration, reads and verification go on, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from click.testing import CliRunner

import tallystick
from tallystick.cli.program import program
from tallystick.deployment import Deployment
from tallystick.errors import BusyError, RejectedError
from tallystick.serve import disk
from tallystick.serve.disk import MEGABYTE, Disk, ReserveError
from tallystick.serve.service import Service
from tallystick.serve.settings import Given, Settings
from tests.cli.test_serve import serving
from tests.full_disk import fill, small
from tests.serve.conftest import running
from tests.test_crash import may_mount
from tests.test_head_mark import until

EVENT: Final = {"event_type": "disk.filled", "entity_id": "e"}
MORE: Final = 10**9
"""More megabytes than there are."""
INGEST: Final = (
    ("/api/v1/events", EVENT),
    ("/api/v1/events?ack=queued", EVENT),
    ("/api/v1/events/batch", [EVENT]),
    ("/api/v1/events/batch?atomic=true", [EVENT]),
    ("/api/v1/events/batch?ack=queued", [EVENT]),
)


def given(**options: Any) -> Settings:
    return Given.of(command=options, environment={}, file=None).settings()


# ------------------------------------------------------------------------------------------------ the settings


def test_the_reserve_is_larger_than_what_keeps_exports_from_beginning() -> None:
    assert (given().disk_free_megabytes, given().reserve_megabytes) == (256, 512)
    assert given(disk_free_megabytes=1_000).reserve_megabytes == 2_000
    assert given(disk_free_megabytes=10, disk_reserve_megabytes=11).reserve_megabytes == 11
    assert given(disk_free_megabytes=0).reserve_megabytes == 0

    for free, reserve in ((256, 256), (256, 0), (257, 256)):
        with pytest.raises(RejectedError, match=f"disk.reserve_megabytes is {reserve}, and .* has to be larger"):
            given(disk_free_megabytes=free, disk_reserve_megabytes=reserve)


# ---------------------------------------------------------------------------------------------------- the disk


def test_the_disk_is_looked_at_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = [100.0], 0
    statvfs = os.statvfs

    def counted(path: Any) -> os.statvfs_result:
        nonlocal looks
        looks += 1
        return statvfs(path)

    monkeypatch.setattr(os, "statvfs", counted)
    room = Disk(tmp_path, tmp_path, reserve_bytes=1, large_bytes=0, monotonic=lambda: now[0])

    for _ in range(1_000):
        room.check_reserve()
    assert looks == 1
    now[0] += 1.1
    room.check_reserve()
    assert looks == 2


def test_a_disk_that_does_not_answer_takes_no_events(tmp_path: Path) -> None:
    room = Disk(tmp_path / "gone", tmp_path, reserve_bytes=1, large_bytes=0)

    with pytest.raises(ReserveError, match=r"the disk does not answer \(No such file or directory\)"):
        room.check_reserve()


# -------------------------------------------------------------------------------------------------- the service


@pytest.mark.parametrize(("path", "body"), INGEST)
def test_no_way_in_goes_below_the_reserve(path: str, body: Any, tmp_path: Path) -> None:
    with running(tmp_path, Settings(disk_free_megabytes=1, disk_reserve_megabytes=MORE)) as it:
        answer = it.call("POST", path, json=body)

        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert (answer.json()["family"], answer.json()["status"]) == ("busy", 503)
        assert "the disk has only its reserve left, so no events are taken" in answer.json()["detail"]
        assert it.call("GET", "/api/v1/events/query?event_type=disk.*").json()["records"] == []
        assert it.call("GET", "/api/v1/tickets/nothing").status_code in (400, 404)


def test_below_the_reserve_all_else_goes_on_and_operators_are_told(tmp_path: Path) -> None:
    with running(tmp_path, Settings(disk_free_megabytes=1, disk_reserve_megabytes=MORE)) as it:
        it.call("POST", "/api/v1/events", json=EVENT)
        work(it.url, it.keys["operator"])
        assert it.call("POST", "/api/v1/exports", json={}).status_code == 202

        ready = it.call("GET", "/health/ready", None)
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        said = ready.json()["checks"]["disk"]
        assert (said["ok"], said["reserve_megabytes"]) == (False, MORE)
        assert said["why"] == "the disk has only its reserve left: no events are taken"
        metrics = it.call("GET", "/metrics", "operator").text
        assert "tallystick_reserve_refused_total 1.0" in metrics
        free = next(line for line in metrics.split("\n") if line.startswith("tallystick_disk_free_bytes "))
        assert float(free.split()[1]) > MEGABYTE


def work(address: str, key: str) -> None:
    """What has to go on: administration, the access trail, reads, verification."""

    def call(method: str, path: str, *, who: str = key, **how: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {who}"}
        return httpx2.request(method, f"{address}{path}", headers=headers, timeout=60, **how)

    def done(method: str, path: str, **how: Any) -> Any:
        answer = call(method, path, **how)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    made = done("POST", "/api/v1/keys", json={"role": "ReadOnly", "name": "reader"})
    assert call("POST", "/api/v1/events", who=made["key"], json=EVENT).status_code == 403  # which is recorded
    done("DELETE", f"/api/v1/keys/{made['id']}")
    assert call("GET", "/api/v1/events/query", who=made["key"]).status_code == 401
    name = f"t-{time.monotonic_ns()}"
    done("POST", "/api/v1/tenants", json={"name": name})
    done("PUT", "/api/v1/plans/small", json={"events_per_month": 1_000})
    done("PUT", f"/api/v1/tenants/{name}/plan", json={"plan": "small"})
    done("POST", "/api/v1/holds", json={"name": name, "reason": "r", "entity": "e"})
    done("PUT", "/api/v1/retention", json={"period": "3650d", "reason": "r"})
    trail = done("GET", "/api/v1/access?limit=20")["records"]
    assert {"access.denied", "access.key_revoked", "access.plan_defined"} <= {one["event_type"] for one in trail}
    done("GET", "/api/v1/events/query?limit=3")
    done("GET", "/api/v1/timeseries/query?width=day")
    job = call("POST", "/api/v1/verify", json={})
    assert job.status_code == 202
    until(lambda: done("GET", job.headers["Location"])["state"] in ("done", "failed"), 60)
    assert done("GET", job.headers["Location"])["state"] == "done"


# ----------------------------------------------------------------------------------------- a disk that is full


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2] if may_mount() else [])
def test_a_small_disk_is_filled_up_to_the_reserve_and_goes_on_when_there_is_room(tmp_path: Path, workers: int) -> None:
    options = ("--disk-free-megabytes", "8", "--disk-reserve-megabytes", "24", "--workers", str(workers))
    with small(tmp_path / "small", 64) as mounted:
        data, taken = mounted / "data", list[str]()
        with serving(data, *options) as (process, said):
            key, address = said["first_key"], said["address"]
            client = httpx2.Client(headers={"Authorization": f"Bearer {key}"}, timeout=60)

            def append(number: int, ack: str) -> httpx2.Response:
                event = {**EVENT, "id": f"id-{number}", "payload": {"x": os.urandom(15_000).hex()}}
                answer = client.post(f"{address}/api/v1/events?ack={ack}", json=event)
                if answer.is_success:
                    taken.append(str(event["id"]))
                return answer

            for number in range(10_000):
                answer = append(number, "queued" if number % 4 == 0 else "durable")
                if not answer.is_success:
                    break
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) > 0
            assert "only its reserve" in answer.json()["detail"]
            assert len(taken) > 20
            found = os.statvfs(mounted)
            assert 8 * MEGABYTE < found.f_bavail * found.f_frsize < 24 * MEGABYTE

            # Below the reserve, and below what exports need: all else goes on.
            for leaving in (18, 5):
                fill(mounted / "filler", leaving=leaving * MEGABYTE)
                assert append(10_000, "durable").status_code == append(10_001, "queued").status_code == 503
                work(address, key)
                assert client.get(f"{address}/health/ready").status_code == 503
                export = client.post(f"{address}/api/v1/exports", json={"end": 3})
                assert export.status_code == (202 if leaving == 18 else 503)

            # Not a byte is left: what was taken can be read.
            fill(mounted / "filler")
            counted = client.get(f"{address}/api/v1/events/count?event_type=disk.*")
            assert counted.is_success, counted.text
            assert counted.json()["count"] == len(taken)
            newest = client.get(f"{address}/api/v1/events/{taken[-1]}")
            assert newest.json()["id"] == taken[-1]
            assert append(10_002, "durable").status_code == 503

            (mounted / "filler").unlink()
            subprocess.run(["mount", "-o", "remount,size=128m", mounted], check=True)
            until(lambda: append(20_000, "durable").is_success)
            assert append(20_001, "queued").status_code == 202
            until(lambda: client.get(f"{address}/health/ready").status_code == 200)
            client.close()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)

        with tallystick.open(data / "tenants/default", keys=data / "keys/tenants/default") as ledger:
            kept = [record.id for record in ledger.records(event_type="disk.*")]
            assert sorted(kept) == sorted(taken)
            assert ledger.verify().holds


@pytest.mark.parametrize("file_system", ["tmpfs"] if may_mount() else [])
def test_the_disk_of_the_marks_counts_by_what_marks_need(tmp_path: Path, file_system: str) -> None:
    assert file_system == "tmpfs"
    with small(tmp_path / "marks", 2) as marks:
        now = [0.0]
        room = Disk(tmp_path, marks / "made/later", reserve_bytes=1, large_bytes=0, monotonic=lambda: now[0])
        room.check_reserve()

        fill(marks / "filler", leaving=disk.MARKS_BYTES // 2)
        now[0] += 2
        with pytest.raises(BusyError, match="the disk of the marks is full"):
            room.check_reserve()

        subprocess.run(["mount", "-o", "remount,ro", marks], check=True)  # keys are there, and marks never were
        now[0] += 2
        room.check_reserve()


def test_a_setting_that_cannot_be_is_one_error_of_config_check(tmp_path: Path) -> None:
    file = tmp_path / "tallystick.toml"
    file.write_text("[disk]\nfree_megabytes = 1024\nreserve_megabytes = 512\n")
    with pytest.raises(RejectedError) as found:
        Given.of(command={}, environment={}, file=str(file)).settings()

    assert found.value.place == str(file)
    checked = CliRunner().invoke(program, ["config", "check", str(file)])
    assert checked.exit_code == 2
    assert checked.stderr == (
        f"error: {file}: disk.reserve_megabytes is 512, and disk.free_megabytes 1024: the reserve has to be larger; "
        "events stop at the reserve, so that room is left for exports and administration\n"
    )


def test_idle_ledgers_stay_open_below_the_reserve(tmp_path: Path) -> None:
    with Deployment(tmp_path, idle_seconds=0) as deployment:
        deployment.begin()
        with deployment.lease("tenant/default"):
            pass
        service = Service(deployment, Settings(disk_free_megabytes=1, disk_reserve_megabytes=MORE))
        deployment.pool.tidy()
        assert len(deployment.pool) == 1

        service.disk = Disk(tmp_path, tmp_path, reserve_bytes=1, large_bytes=0)  # type: ignore[misc]
        deployment.pool.tidy()
        assert len(deployment.pool) == 0
        service.close()
