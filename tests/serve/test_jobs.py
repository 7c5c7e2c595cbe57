"""Jobs: exports that an auditor verifies without us, verifications, prunes, done beside the service."""

from __future__ import annotations

import hmac
import io
import json
import subprocess
import sys
import threading
import time
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tallystick.clock import wall_clock
from tallystick.core.manifest import EVENTS_FILE, MANIFEST_FILE
from tallystick.errors import BusyError, ConflictError, NotFoundError, TamperError
from tallystick.limits import JOBS_KEPT_MAX, JOBS_WAITING_MAX
from tallystick.serve.ingest import BATCH_PATH
from tallystick.serve.jobs import KEPT_SECONDS, Job, Jobs
from tests.serve.conftest import Running

DAY: Final = 86_400_000_000


def send(it: Running, count: int, entity: str, who: str = "acme/Admin") -> None:
    events = [{"event_type": "door.opened", "entity_id": entity, "payload": {"n": n}} for n in range(count)]
    assert it.call("POST", BATCH_PATH, who, json=events).status_code == 201


def over(it: Running, answer: httpx2.Response, who: str = "acme/Auditor") -> dict[str, Any]:
    """The job of an answer, once it is over."""
    assert answer.status_code == 202, answer.text
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job: dict[str, Any] = it.call("GET", answer.headers["Location"], who).json()
        if job["state"] in ("done", "failed"):
            return job
        time.sleep(0.02)
    raise AssertionError(f"the job is not over: {job}")


def test_an_export_verifies_with_the_verifier_that_is_not_ours(it: Running, tmp_path: Path) -> None:
    send(it, 300, "e-1")
    send(it, 5, "e-2")
    for body, count in (({}, None), ({"terms": ["entity_id=e-1"]}, 300), ({"queries": [["entity_id=e-2"]]}, 5)):
        job = over(it, it.call("POST", "/api/v1/exports", "acme/Auditor", json=body))
        assert job["state"] == "done", job
        assert count is None or job["result"]["count"] == count

        bundle = it.call("GET", f"/api/v1/jobs/{job['id']}/bundle", "acme/Auditor")
        (tmp_path / "b.zip").write_bytes(bundle.content)
        key = it.call("GET", "/api/v1/ledger", "acme/Auditor").json()["verifier_key"]
        (tmp_path / "trust").write_text(f"log {key}\nquorum none\n")
        told = subprocess.run(
            [sys.executable, "-m", "tallystick_verify.cli", tmp_path / "b.zip", "--trust", tmp_path / "trust"],
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": str(Path(__file__).parents[2] / "verifier/src")},
        )

        assert told.returncode == 0, told.stdout + told.stderr
        assert bundle.headers["ETag"] == f'"{job["result"]["manifest_sha256"]}"'
    last = it.call("GET", f"/api/v1/events/{job['result']['position']}").json()
    assert (last["event_type"], last["actor"]["type"]) == ("tallystick.evidence.exported", "api_key")
    trail = it.call("GET", "/api/v1/access?limit=2", "acme/Auditor").json()["records"]
    assert [one["event_type"] for one in trail] == ["access.export_fetched", "access.export"]


def test_an_export_of_nothing_fails_with_its_reason_and_makes_nothing(it: Running) -> None:
    job = over(it, it.call("POST", "/api/v1/exports", json={"terms": ["entity_id=nobody"]}))
    assert (job["state"], job["problem"]["status"]) == ("failed", 404)
    assert it.call("GET", f"/api/v1/jobs/{job['id']}/bundle").status_code == 409


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"terms": ["a"]}, ""),
        ({"terms": ["id=x"], "queries": [["id=y"]]}, "terms"),
        ({"terms": ["text=payroll"]}, "text"),
        ({"first": -1}, "body.first"),
        ({"nonsense": 1}, "body.nonsense"),
    ],
)
def test_an_export_that_cannot_be_is_refused_at_once(it: Running, body: dict[str, Any], place: str) -> None:
    answer = it.call("POST", "/api/v1/exports", json=body)
    assert answer.status_code == 400
    assert place in answer.json()["place"]


def test_a_verification_says_that_the_ledger_holds_and_is_remembered(it: Running) -> None:
    send(it, 10, "v-1")
    kept = it.call("GET", "/api/v1/checkpoint").text
    send(it, 10, "v-1")

    job = over(it, it.call("POST", "/api/v1/verify", "acme/ReadOnly", json={"since": kept}))

    assert job["state"] == "done"
    assert job["result"]["holds"] is True
    assert job["result"]["since"] < job["result"]["size"]
    job = over(it, it.call("POST", "/api/v1/verify", "acme/ReadOnly", json={}))
    last = it.call("GET", "/api/v1/verify").json()["last"]
    assert (last["holds"], last["size"]) == (True, job["result"]["size"])
    assert over(it, it.call("POST", "/api/v1/verify", json={"since": "nonsense"}))["state"] == "failed"


def test_what_a_caller_chose_to_verify_against_is_not_remembered_as_verified(it: Running) -> None:
    send(it, 5, "v-2", "other/Admin")
    foreign = it.call("GET", "/api/v1/checkpoint", "acme/Admin").text
    over(it, it.call("POST", "/api/v1/verify", "other/Admin", json={}), "other/Admin")
    before = it.call("GET", "/api/v1/verify", "other/Admin").json()["last"]

    job = over(it, it.call("POST", "/api/v1/verify", "other/ReadOnly", json={"since": foreign}), "other/Admin")
    over(it, it.call("POST", "/api/v1/verify", "other/ReadOnly", json={"first": 1}), "other/Admin")

    assert job["state"] == "failed" or not job["result"]["holds"]
    assert it.call("GET", "/api/v1/verify", "other/Admin").json()["last"] == before
    assert [one for one in it.deployment.system.read() if one.event_type.startswith("verification.")] == []
    ordered = it.call("GET", "/api/v1/access?event_type=access.verification_ordered", "other/Auditor").json()
    assert len(ordered["records"]) >= 3


def test_another_tenant_learns_nothing_of_a_job(it: Running) -> None:
    job = over(it, it.call("POST", "/api/v1/verify", json={}))
    there = it.call("GET", f"/api/v1/jobs/{job['id']}", "other/Admin")
    nothing = it.call("GET", f"/api/v1/jobs/{'f' * 24}", "other/Admin")
    assert (there.status_code, nothing.status_code) == (404, 404)
    assert there.text.replace(job["id"], "J") == nothing.text.replace("f" * 24, "J")
    assert it.call("GET", f"/api/v1/jobs/{job['id']}/bundle", "other/Admin").status_code == 404
    assert it.call("DELETE", f"/api/v1/jobs/{job['id']}", "other/Admin").status_code == 404
    assert job["id"] in {one["id"] for one in it.call("GET", "/api/v1/jobs").json()["jobs"]}
    assert job["id"] not in {one["id"] for one in it.call("GET", "/api/v1/jobs", "other/Admin").json()["jobs"]}


@pytest.mark.parametrize("name", ["../other", "..%2f..%2fkeys", "%2e%2e%2fother", "x" * 5_000])
def test_the_name_of_a_job_is_no_path(it: Running, name: str) -> None:
    assert it.call("GET", f"/api/v1/jobs/{name}").status_code in (404, 405)
    assert it.call("DELETE", f"/api/v1/jobs/{name}").status_code in (404, 405)


def test_a_prune_removes_what_the_plan_said_and_nothing_else(it: Running) -> None:
    send(it, 20, "p-1", "other/Admin")
    assert (
        it.call("PUT", "/api/v1/retention", "other/Admin", json={"period": "1d", "reason": "test"}).status_code == 200
    )
    plan = it.call("GET", "/api/v1/retention/plan", "other/Admin").json()

    wrong = {"end": plan["end"], "count": plan["count"] + 1}
    job = over(it, it.call("POST", "/api/v1/retention/prune", "other/Admin", json=wrong), "other/Admin")
    assert (job["state"], job["problem"]["status"]) == ("failed", 409)
    right = {"end": plan["end"], "count": plan["count"]}
    job = over(it, it.call("POST", "/api/v1/retention/prune", "other/Admin", json=right), "other/Admin")

    assert job["state"] == "done"
    assert job["result"]["count"] == plan["count"]
    policy = it.call("GET", "/api/v1/retention", "other/Auditor").json()
    assert (policy["policy"]["period_days"], policy["reason"], policy["actor"]["type"]) == (1, "test", "api_key")


def test_holds_are_placed_and_released_by_name(it: Running) -> None:
    placed = it.call("POST", "/api/v1/holds", json={"name": "case/7", "reason": "suit", "entity": "e-1"})
    assert placed.status_code == 201, placed.text
    (hold,) = it.call("GET", "/api/v1/holds", "acme/ReadOnly").json()["holds"]
    assert (hold["name"], hold["entity"], hold["position"]) == ("case/7", "e-1", placed.json()["position"])
    twice = it.call("POST", "/api/v1/holds", json={"name": "case/7", "reason": "suit", "entity": "e-1"})
    assert twice.status_code in (400, 409)
    assert it.call("POST", "/api/v1/holds/case/7/release", json={"reason": "over"}).status_code == 200
    assert it.call("GET", "/api/v1/holds").json()["holds"] == []


def result_of(it: Running, kind: str, body: dict[str, Any]) -> tuple[str, Path]:
    """A job that is done, and its folder."""
    job = over(it, it.call("POST", f"/api/v1/{kind}", json=body))
    return job["id"], it.deployment.folder / "jobs" / "acme" / job["id"]


def test_a_bundle_that_was_replaced_on_the_disk_is_not_returned(it: Running) -> None:
    send(it, 3, "e-bundle")
    job, folder = result_of(it, "exports", {})
    filtered, other = result_of(it, "exports", {"terms": ["event_type=door.*"]})
    whole = (folder / "result.zip").read_bytes()
    for data in (b"garbage", (other / "result.zip").read_bytes(), whole[:-1], whole + b"x"):
        (folder / "result.zip").write_bytes(data)
        answer = it.call("GET", f"/api/v1/jobs/{job}/bundle")
        assert (answer.status_code, answer.json()["family"]) == (500, "tamper")
    (folder / "result.zip").unlink()
    assert it.call("GET", f"/api/v1/jobs/{job}/bundle").status_code == 404
    (folder / "result.zip").write_bytes(whole)
    assert it.call("GET", f"/api/v1/jobs/{job}/bundle").content == whole
    assert it.call("GET", f"/api/v1/jobs/{filtered}/bundle").status_code == 200


def test_what_a_job_came_to_is_not_believed_when_it_was_edited(it: Running) -> None:
    job, folder = result_of(it, "verify", {})
    another, other = result_of(it, "verify", {"first": 1})
    kept = (folder / "job.json").read_bytes()
    forged = [
        kept.replace(b'"holds":true', b'"holds":false'),
        (other / "job.json").read_bytes(),
        kept.partition(b"\n")[2],
        b"",
        b"{}",
    ]
    for data in forged:
        assert data != kept
        (folder / "job.json").write_bytes(data)
        assert it.call("GET", f"/api/v1/jobs/{job}").status_code == 404
        assert job not in {one["id"] for one in it.call("GET", "/api/v1/jobs").json()["jobs"]}
    (folder / "job.json").write_bytes(kept)
    assert it.call("GET", f"/api/v1/jobs/{job}").json()["result"]["holds"] is True
    assert it.call("GET", f"/api/v1/jobs/{another}").status_code == 200


def test_a_key_with_a_scope_gets_a_filtered_bundle_of_its_scope(it: Running, tmp_path: Path) -> None:
    send(it, 3, "gate-1")
    send(it, 4, "gate-2")
    send(it, 5, "wall-1")
    assert it.call("POST", BATCH_PATH, json=[{"event_type": "door.lost", "entity_id": "gate-1"}]).status_code == 201
    it.keys["scoped"] = it.key("acme", "Auditor", event_types=["door.opened", "x.*"], entity_prefixes=["gate-", "y"])
    for body, count in (({}, 7), ({"terms": ["entity_id=gate-1"]}, 3)):
        answer = it.call("POST", "/api/v1/exports", "scoped", json=body)
        job = over(it, answer, "scoped")
        assert (job["state"], job["result"]["count"], job["result"]["complete"]) == ("done", count, False)
        bundle = it.call("GET", f"/api/v1/jobs/{job['id']}/bundle", "scoped")
        assert bundle.status_code == 200
        (tmp_path / "bundle.zip").write_bytes(bundle.content)
        with zipfile.ZipFile(io.BytesIO(bundle.content)) as packed:
            lines = packed.read(EVENTS_FILE).splitlines()
            manifest = json.loads(packed.read(MANIFEST_FILE))
        assert {json.loads(line)["entity_id"] for line in lines} <= {"gate-1", "gate-2"}
        (selector,) = manifest["selectors"]
        assert selector["within"] == ["event_type=door.opened", "event_type=x.*", "entity_id^=gate-", "entity_id^=y"]

    outside = over(it, it.call("POST", "/api/v1/exports", "scoped", json={"terms": ["entity_id=wall-1"]}), "scoped")
    assert outside["state"] == "failed", "nothing fits"
    other = over(it, it.call("POST", "/api/v1/exports", json={}))
    there = it.call("GET", f"/api/v1/jobs/{other['id']}", "scoped")
    nothing = it.call("GET", f"/api/v1/jobs/{'f' * 24}", "scoped")
    assert (there.status_code, there.json()["family"]) == (nothing.status_code, nothing.json()["family"])
    assert it.call("GET", f"/api/v1/jobs/{other['id']}/bundle", "scoped").status_code == 404
    assert it.call("GET", "/api/v1/jobs", "scoped").status_code == 403


# -------------------------------------------------------------------------------- the jobs themselves


def mac(data: bytes) -> bytes:
    return hmac.digest(b"key", data, "sha256")


def waited(jobs: Jobs, job: Job) -> Job:
    deadline = time.monotonic() + 20
    while not job.is_over or jobs.live:
        assert time.monotonic() < deadline, job.to_json()
        time.sleep(0.005)
    return job


def test_what_was_under_way_when_the_process_ended_is_told_as_failed(tmp_path: Path) -> None:
    jobs, hold = Jobs(tmp_path, clock=wall_clock, authenticate=mac), threading.Event()
    job = jobs.begin("acme", "verify", {}, lambda _: {"held": hold.wait(20)})
    again = Jobs(tmp_path, clock=wall_clock, authenticate=mac)  # as another process would find it
    (found,) = again.all_of("acme")
    assert (found.id, found.state) == (job.id, "failed")
    assert "ask for it again" in str(found.problem)
    hold.set()
    waited(jobs, job)
    assert again.get("acme", job.id).result == {"held": True}
    for each in (jobs, again):
        each.close()


def test_a_stop_ends_what_runs_and_what_waits(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, clock=wall_clock, authenticate=mac)

    def work(job: Job) -> dict[str, Any]:
        while True:
            job.progress(1)
            time.sleep(0.001)

    begun = [jobs.begin("acme", "verify", {}, work) for _ in range(4)]
    jobs.close()
    assert {job.state for job in begun} == {"failed"}
    assert {job.state for job in Jobs(tmp_path, clock=wall_clock, authenticate=mac).all_of("acme")} == {"failed"}
    with pytest.raises(BusyError):
        jobs.begin("acme", "verify", {}, work)


def test_a_job_that_is_deleted_ends_and_leaves_nothing(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, clock=wall_clock, authenticate=mac)
    begun = threading.Event()

    def work(job: Job) -> dict[str, Any]:
        job.file.write_bytes(b"half")
        begun.set()
        while True:
            job.progress(1)
            time.sleep(0.001)

    job = jobs.begin("acme", "export", {}, work)
    assert begun.wait(20)
    jobs.delete("acme", job.id)
    waited(jobs, job)
    assert not job.folder.exists()
    with pytest.raises(NotFoundError):
        jobs.get("acme", job.id)
    jobs.close()


def made(job: Job) -> dict[str, Any]:
    job.file.write_bytes(b"bundle")
    job.made(sha256(b"bundle").hexdigest(), 6)
    return {}


def test_what_takes_the_place_of_a_file_before_the_job_is_over_is_not_returned(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, clock=wall_clock, authenticate=mac)

    def work(job: Job) -> dict[str, Any]:
        made(job)
        job.file.write_bytes(b"earlie")  # by somebody else, and as long
        return {}

    job = jobs.begin("acme", "export", {}, work)
    waited(jobs, job)
    with pytest.raises(TamperError, match="not what it made"):
        job.open_file()
    jobs.close()


def test_a_tenant_has_a_bounded_number_of_jobs_and_a_day_later_none(tmp_path: Path) -> None:
    now = [wall_clock()]
    jobs, hold = Jobs(tmp_path, clock=lambda: now[0], authenticate=mac), threading.Event()
    begun = [jobs.begin("acme", "verify", {}, lambda _: {"held": hold.wait(20)}) for _ in range(JOBS_WAITING_MAX)]
    with pytest.raises(BusyError):
        jobs.begin("acme", "verify", {}, lambda _: {})
    other = jobs.begin("other", "verify", {}, lambda _: {})
    hold.set()
    for job in (*begun, other):
        waited(jobs, job)
    for _ in range(JOBS_KEPT_MAX):
        waited(jobs, jobs.begin("acme", "verify", {}, lambda _: {}))
    assert len(jobs.all_of("acme")) == JOBS_KEPT_MAX, "of those that made nothing the oldest have gone"
    for _ in range(JOBS_KEPT_MAX):
        waited(jobs, jobs.begin("acme", "export", {}, made))
    with pytest.raises(ConflictError):
        jobs.begin("acme", "verify", {}, lambda _: {})
    now[0] += KEPT_SECONDS * 1_000_000 + DAY
    jobs.tidy()
    assert jobs.all_of("acme") == jobs.all_of("other") == []
    jobs.close()


def test_one_tenants_jobs_do_not_hold_up_anothers(tmp_path: Path) -> None:
    jobs, hold = Jobs(tmp_path, clock=wall_clock, authenticate=mac), threading.Event()
    held = [jobs.begin("acme", "verify", {}, lambda _: {"held": hold.wait(20)}) for _ in range(3)]
    other = jobs.begin("other", "verify", {}, lambda _: {})
    deadline = time.monotonic() + 20
    while not other.is_over:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert [job.state for job in held] == ["running", "waiting", "waiting"]
    (tmp_path / "lost+found").write_text("no job")
    jobs.tidy()
    hold.set()
    for job in held:
        waited(jobs, job)
    jobs.close()


def test_a_mistake_of_ours_is_told_as_such_and_the_next_job_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = Jobs(tmp_path, clock=wall_clock, authenticate=mac)
    job = waited(jobs, jobs.begin("acme", "verify", {}, lambda _: {"never": 1 // 0}))
    assert job.state == "failed"
    assert "ZeroDivisionError" in json.dumps(job.problem)
    assert "ZeroDivisionError" in caplog.text
    assert waited(jobs, jobs.begin("acme", "verify", {}, lambda _: {"fine": 1})).result == {"fine": 1}
    jobs.close()


def test_a_deleted_job_is_not_seen_while_it_ends_and_a_large_result_is_not_listed(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, clock=wall_clock, authenticate=mac)
    begun, go_on = threading.Event(), threading.Event()

    def work(job: Job) -> dict[str, Any]:
        begun.set()
        assert go_on.wait(20)
        job.progress(1)
        return {}

    deleted = jobs.begin("acme", "export", {}, work)
    assert begun.wait(20)
    jobs.delete("acme", deleted.id)
    assert jobs.all_of("acme") == []
    with pytest.raises(NotFoundError):
        jobs.get("acme", deleted.id)
    go_on.set()
    waited(jobs, deleted)
    assert not deleted.folder.exists()

    large = jobs.begin("acme", "verify", {}, lambda _: {"findings": ["f" * 1_000] * 100})
    waited(jobs, large)
    assert [job.result for job in jobs.all_of("acme")] == [None]
    found = jobs.get("acme", large.id).result
    assert found is not None
    assert len(found["findings"]) == 100
    jobs.close()


def test_an_export_that_looks_at_many_records_ends_when_it_is_deleted(it: Running) -> None:
    events = [{"event_type": "a.b", "entity_id": f"e{n}"} for n in range(3_000)]
    assert it.call("POST", "/api/v1/events/batch", json=events).status_code == 201
    queries = [[f"payload.a{n}!=1", f"payload.b{n}!=1"] for n in range(200)]
    answer = it.call("POST", "/api/v1/exports", json={"queries": queries})
    assert answer.status_code == 202, answer.text
    folder = it.service.jobs.get("acme", answer.json()["id"]).folder
    assert it.call("DELETE", answer.headers["Location"]).status_code == 204
    assert it.call("GET", answer.headers["Location"]).status_code == 404
    deadline = time.monotonic() + 2
    while folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
