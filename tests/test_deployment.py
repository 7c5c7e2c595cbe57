"""A deployment: what it knows is what its system ledger says, and its ledgers open and close as they are needed."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import apsw
import pytest

import tallystick
from tallystick.clock import wall_clock
from tallystick.core.custody import RetentionPolicy
from tallystick.core.moment import DAY
from tallystick.deployment import FRESH_SECONDS, Deployment
from tallystick.errors import (
    BusyError,
    ConflictError,
    DeniedError,
    NotFoundError,
    RejectedError,
    StoreError,
    TamperError,
)
from tallystick.govern.access import ROLES, Scope
from tallystick.ledger import Ledger
from tests.tampering import edit, replace_record
from tests.test_retention import Clock

JANE = {"id": "jane"}


def told(deployment: Deployment) -> object:
    """All that it knows."""
    return (
        [tenant.to_json() for tenant in deployment.tenants()],
        [key.to_json() for tenant in deployment.tenants() for key in deployment.keys(tenant.name)],
    )


def test_the_first_key_is_given_once(tmp_path: Path) -> None:
    with Deployment(tmp_path) as one:
        text = one.begin()
        assert text is not None
        assert one.begin() is None
        key = one.authenticate(text)
        assert (key.role, key.tenant, key.operator) == ("Admin", "default", True)
        with pytest.raises(ConflictError, match="last key"):
            one.revoke_key(key.id, actor=JANE)
    with Deployment(tmp_path) as again:
        assert again.begin() is None
        assert again.authenticate(text) == key


def test_processes_that_begin_together_give_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from tallystick.deployment import Deployment\nwith Deployment(sys.argv[1]) as d: print(d.begin())"
    )
    begun = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "d")], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    texts = [process.communicate()[0].strip() for process in begun]

    assert [process.returncode for process in begun] == [0] * 4
    assert len([text for text in texts if text != "None"]) == 1
    with Deployment(tmp_path / "d") as deployment:
        assert len(deployment.keys("default")) == 1


def test_what_it_knows_comes_back_from_the_log_alone(tmp_path: Path) -> None:
    with Deployment(tmp_path) as one:
        one.begin()
        one.create_tenant("acme", actor=JANE)
        one.create_tenant("gone", actor=JANE)
        one.suspend_tenant("gone", actor=JANE)
        scope = Scope.of(event_types=["a.*"], entity_prefixes=["e-"], networks=["10.0.0.0/8", "::1/128"])
        key, text = one.create_key("acme", role="Auditor", name="k", actor=JANE, scope=scope, expires_at="2199-01-01")
        turned, _ = one.rotate_key(key.id, actor=JANE)
        one.create_key("acme", role="Developer", name="k2", actor=JANE)
        known = told(one)
        actors = {record.actor["id"] for record in one.system.read() if record.actor}
    (tmp_path / "system" / "index.db").unlink()

    with Deployment(tmp_path) as again:
        assert told(again) == known
        assert again.key(turned.id).scope == scope
        assert actors == {"jane", "tallystick"}
        with pytest.raises(DeniedError):
            again.authenticate(text)
        assert again.system.verify().holds


def test_a_key_counts_only_where_and_while_it_is_in_force(tmp_path: Path) -> None:
    now = wall_clock()

    def clock() -> int:
        return now

    with Deployment(tmp_path, clock=clock) as one:
        one.begin()
        one.create_tenant("acme", actor=JANE)
        make: Callable[..., tuple[object, str]] = one.create_key
        _, plain = make("acme", role="ReadOnly", name="plain", actor=JANE)
        _, here = make("acme", role="ReadOnly", name="here", actor=JANE, scope=Scope.of(networks=["10.1.0.0/16"]))
        _, brief = make("acme", role="ReadOnly", name="brief", actor=JANE, expires_at="2199-01-01T00:00:00Z")

        assert one.authenticate(here, address="10.1.2.3").name == "here"
        assert one.authenticate(here, address="::ffff:10.1.2.3").name == "here"
        for address in ("10.2.0.1", "::1", None, "nowhere"):
            with pytest.raises(DeniedError):
                one.authenticate(here, address=address)
        for wrong in ("", "ts_", plain[:-1], plain + "0", plain.upper(), f"ts_{'0' * 16}_{plain[-64:]}", "\x00", "é"):
            with pytest.raises(DeniedError):
                one.authenticate(wrong)
        assert one.authenticate(brief).name == "brief"
        now += 400 * 366 * 86_400 * 1_000_000
        with pytest.raises(DeniedError):
            one.authenticate(brief)
        one.suspend_tenant("acme", actor=JANE)
        with pytest.raises(DeniedError):
            one.authenticate(plain)
        one.suspend_tenant("acme", actor=JANE, suspended=False)
        assert one.authenticate(plain).name == "plain"


def test_what_one_process_orders_the_other_knows_soon(tmp_path: Path) -> None:
    with Deployment(tmp_path) as one, Deployment(tmp_path) as other:
        one.begin()
        one.create_tenant("acme", actor=JANE)
        key, text = one.create_key("acme", role="ReadOnly", name="k", actor=JANE)
        time.sleep(FRESH_SECONDS * 1.5)
        assert other.authenticate(text).id == key.id
        one.revoke_key(key.id, actor=JANE)
        with pytest.raises(DeniedError):
            one.authenticate(text)
        time.sleep(FRESH_SECONDS * 1.5)
        with pytest.raises(DeniedError):
            other.authenticate(text)


def test_of_two_who_rotate_one_key_at_once_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Deployment(tmp_path) as one, Deployment(tmp_path) as other:
        one.begin()
        key, _ = one.create_key("default", role="ReadOnly", name="k", actor=JANE)
        time.sleep(FRESH_SECONDS * 1.5)
        assert other.key(key.id) == key
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr("tallystick.deployment.FRESH_SECONDS", 600.0)  # however slow the machine is just now
            one.rotate_key(key.id, actor=JANE)
            with pytest.raises(ConflictError):  # it cannot know of it yet, and asks the ledger all the same
                other.rotate_key(key.id, actor=JANE)
        time.sleep(FRESH_SECONDS * 1.5)
        assert [kept.name for kept in other.keys("default")] == ["the first key", "k"]


def test_what_was_queued_is_sealed_by_the_next_process_without_being_asked(tmp_path: Path) -> None:
    program = """
import os, sys, tallystick.deployment as t
one = t.Deployment(sys.argv[1]); one.begin()
with one.ledger("default") as ledger:
    ledger.queue._stopping = True  # nothing is sealed any more
    ledger.queue._changed.acquire(); ledger.queue._changed.notify_all(); ledger.queue._changed.release()
    ledger.queue._drainer.join()
    ledger.queue._stopping = False
    ledger.publish_many([{"event_type": "a.b", "entity_id": "e"}] * 40)
    os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    with Deployment(tmp_path) as one:
        one.resume_queues()
        with one.ledger("default") as ledger:
            assert ledger.count(event_type="a.b") == 40


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "../x", "a/b", "x" * 64, "é", "a\n"])
def test_a_name_that_could_be_more_than_a_name_is_refused(tmp_path: Path, name: str) -> None:
    with Deployment(tmp_path) as one, pytest.raises(RejectedError, match="not a tenant's name"):
        one.create_tenant(name, actor=JANE)


def test_bad_orders_change_nothing(tmp_path: Path) -> None:
    with Deployment(tmp_path) as one:
        one.begin()
        size = one.system.size
        for error, order in (
            (ConflictError, lambda: one.create_tenant("default", actor=JANE)),
            (NotFoundError, lambda: one.create_key("nobody", role="Admin", name="k", actor=JANE)),
            (RejectedError, lambda: one.create_key("default", role="Boss", name="k", actor=JANE)),
            (RejectedError, lambda: one.create_key("default", role="Admin", name="", actor=JANE)),
            (
                RejectedError,
                lambda: one.create_key("default", role="Admin", name="k", actor=JANE, expires_at="2001-01-01"),
            ),
            (RejectedError, lambda: one.create_key("default", role="Auditor", name="k", actor=JANE, operator=True)),
            (NotFoundError, lambda: one.revoke_key("0" * 16, actor=JANE)),
            (RejectedError, lambda: Scope.of(networks=["10.0.0.1/8"])),
            (RejectedError, lambda: Scope.of(event_types=["a b"])),
            (RejectedError, lambda: Scope.of(entity_prefixes=[""])),
        ):
            with pytest.raises(error):
                order()
        assert one.system.size == size


def test_roles_are_those_of_the_table() -> None:
    table = {
        "Admin": "Read Write Metrics Scrape ManageSchemas ManagePipelines ManageTenants Export Erase Admin",
        "Developer": "Read Write Metrics Scrape ManagePipelines",
        "ReadOnly": "Read Metrics Scrape",
        "ServiceAccount": "Read Write",
        "Auditor": "Read Metrics Scrape Export",
        "Metrics": "Scrape",
    }
    assert {role: {*permissions} for role, permissions in ROLES.items()} == {
        role: {*permissions.split()} for role, permissions in table.items()
    }


def test_ledgers_open_when_needed_within_a_bound_and_close_when_idle(tmp_path: Path) -> None:
    with Deployment(tmp_path, open_max=3, idle_seconds=0.05) as one:
        one.begin()
        names = [f"t{number}" for number in range(10)]
        for name in names:
            one.create_tenant(name, actor=JANE)
        for name in names * 2:
            with one.ledger(name) as ledger:
                ledger.append(event_type="a.b", entity_id=name)
                assert len(one.pool) <= 3
        with one.ledger("t0"), one.ledger("t1"), one.ledger("t2"):
            with pytest.raises(BusyError, match="3 ledgers are in use"), one.ledger("t3"):
                pass
            with one.ledger("t1") as shared:
                assert shared.count(event_type="a.b") == 2
        time.sleep(0.1)
        one.tidy()
        assert len(one.pool) == 0
        with one.ledger("t9") as ledger:
            assert ledger.origin == "local/tenant/t9"
            assert [record.entity_id for record in ledger.records(event_type="a.b")] == ["t9", "t9"]


def test_many_threads_share_few_ledgers(tmp_path: Path) -> None:
    with Deployment(tmp_path, open_max=4, idle_seconds=0.01) as one:
        one.begin()
        for number in range(6):
            one.create_tenant(f"t{number}", actor=JANE)
        failed: list[BaseException] = []

        def work(start: int) -> None:
            for step in range(40):
                name = f"t{(start + step) % 6}"
                while True:
                    try:
                        with one.ledger(name) as ledger:
                            ledger.append(event_type="a.b", entity_id=name)
                        break
                    except BusyError:
                        time.sleep(0.001)
                    except BaseException as error:  # noqa: BLE001 - told below
                        failed.append(error)
                        return
                one.tidy()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        counts = []
        for number in range(6):
            with one.ledger(f"t{number}") as ledger:
                counts.append(ledger.count(event_type="a.b"))
        assert counts == [40] * 6


def test_how_long_a_wrong_key_takes_tells_nothing(tmp_path: Path) -> None:
    """A key of nobody, and one whose id is known: asked in turn, they take as long, within what the clock can tell."""
    with Deployment(tmp_path) as deployment:
        good = deployment.begin()
        assert good is not None
        wrong = {
            "of a known id": good[:-64] + ("0" * 64),
            "all but the last digit": good[:-1] + ("0" if good[-1] != "0" else "1"),
            "of an unknown id": "ts_" + "0" * 16 + "_" + good[-64:],
        }
        took: dict[str, list[int]] = {name: [] for name in wrong}
        for _ in range(4_000):
            for name, text in wrong.items():
                began = time.perf_counter_ns()
                with suppress(DeniedError):
                    deployment.authenticate(text)
                took[name].append(time.perf_counter_ns() - began)

    medians = {name: statistics.median(values) for name, values in took.items()}
    assert max(medians.values()) < 1.15 * min(medians.values()), medians


def test_a_ledger_that_cannot_be_closed_holds_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Deployment(tmp_path, open_max=2, idle_seconds=0) as deployment:
        deployment.begin()
        for name in ("one", "two", "three"):
            deployment.create_tenant(name, actor=JANE)
        close = Ledger.close

        def failing(ledger: Ledger) -> None:
            close(ledger)
            if ledger.name == "tenant/one":
                raise OSError("disk I/O error")

        monkeypatch.setattr(Ledger, "close", failing)
        for name in ("one", "two", "three", "one", "two"):
            with deployment.ledger(name) as ledger:
                assert ledger.size >= 2
        deployment.tidy()
        assert len(deployment.pool) == 0


def test_looking_at_ledgers_does_not_keep_them_open(tmp_path: Path) -> None:
    with Deployment(tmp_path, idle_seconds=0.2) as deployment:
        deployment.begin()
        with deployment.ledger("default"):
            pass
        until = time.monotonic() + 0.4
        while time.monotonic() < until:
            deployment.pulses()
        deployment.tidy()
        assert len(deployment.pool) == 0


# ---------------------------------------------------------------------------------------- someone with the disk


def system_log(folder: Path) -> Path:
    return folder / "system" / "ledger.db"


def record(folder: Path, event_type: str) -> tuple[int, bytes]:
    connection = apsw.Connection(str(system_log(folder)))
    rows: list[Any] = connection.execute("SELECT position, bytes FROM record").fetchall()
    connection.close()
    return next((position, line) for position, line in reversed(rows) if json.loads(line)["event_type"] == event_type)


def with_a_reader(folder: Path) -> str:
    """A deployment with a key that may only read, and one that was revoked; the text of the first."""
    with Deployment(folder) as deployment:
        deployment.begin()
        _, text = deployment.create_key("default", role="ReadOnly", name="reader", actor=JANE)
        revoked, _ = deployment.create_key("default", role="Admin", name="gone", actor=JANE)
        deployment.revoke_key(revoked.id, actor=JANE)
        deployment.create_key("default", role="ReadOnly", name="another", actor=JANE)
        return text


def test_a_key_that_was_made_an_admin_on_the_disk_is_not_obeyed(tmp_path: Path) -> None:
    with_a_reader(tmp_path)
    position, line = record(tmp_path, "key.created")
    changed = line.replace(b'"role":"ReadOnly"', b'"role":"Admin"').replace(b'"operator":false', b'"operator":true')
    assert changed != line
    replace_record(system_log(tmp_path), position, changed)

    with pytest.raises(TamperError, match="the system ledger does not verify"):
        Deployment(tmp_path)


def test_a_revocation_that_was_removed_on_the_disk_brings_no_key_back(tmp_path: Path) -> None:
    with_a_reader(tmp_path)
    position, _ = record(tmp_path, "key.revoked")
    edit(system_log(tmp_path), "DELETE FROM record WHERE position = ?", position)
    edit(system_log(tmp_path), "INSERT OR REPLACE INTO pruned VALUES (1, ?)", position + 1)

    with pytest.raises(TamperError, match="the system ledger does not verify"):
        Deployment(tmp_path)


def test_a_record_that_is_put_behind_the_last_one_while_it_is_open_is_not_obeyed(tmp_path: Path) -> None:
    text = with_a_reader(tmp_path)
    with Deployment(tmp_path) as deployment:
        assert deployment.authenticate(text).role == "ReadOnly"
        size = deployment.system.size
        _, line = record(tmp_path, "key.created")
        forged = line.replace(b'"role":"ReadOnly"', b'"role":"Admin"').replace(
            b'"position":%d' % (size - 1), b'"position":%d' % size
        )
        edit(system_log(tmp_path), "INSERT INTO record VALUES (?, ?, ?)", size, forged, crc32(forged))
        edit(system_log(tmp_path), "UPDATE head SET size = ?", size + 1)

        time.sleep(2 * FRESH_SECONDS)
        with pytest.raises(TamperError):
            deployment.keys("default")
        with pytest.raises(TamperError):
            deployment.create_tenant("other", actor=JANE)


@pytest.mark.parametrize("removed", ["tenants/default", "access/default", "system"])
def test_a_ledger_that_was_removed_from_a_deployment_is_not_begun_again(tmp_path: Path, removed: str) -> None:
    with Deployment(tmp_path / "data", keys=tmp_path / "keys") as deployment:
        deployment.begin()
        for lease in (deployment.ledger, deployment.trail):
            with lease("default") as ledger:
                ledger.append(event_type="t.t", entity_id="e")
    shutil.rmtree(tmp_path / "data" / removed)

    def use() -> None:
        with Deployment(tmp_path / "data", keys=tmp_path / "keys") as deployment:
            lease = deployment.trail if removed == "access/default" else deployment.ledger
            with lease("default") as ledger:
                ledger.append(event_type="t.t", entity_id="e")

    with pytest.raises(TamperError, match="it was removed"):
        use()


def test_a_search_that_leaves_a_hold_out_does_not_let_its_records_go(tmp_path: Path) -> None:
    clock = Clock()
    with tallystick.open(tmp_path, clock=clock) as ledger:
        ledger.append_many({"event_type": "t.t", "entity_id": "case-9"} for _ in range(20))
        ledger.retention.set(RetentionPolicy.of("30d"), actor="cfo")
        ledger.retention.hold("suit", reason="litigation", entity="case-9")
    edit(tmp_path / "index.db", "UPDATE term SET name = 'x.hidden' WHERE name LIKE 'tallystick.hold%'")

    clock.now += 60 * DAY
    with tallystick.open(tmp_path, clock=clock) as ledger:
        assert [hold.name for hold in ledger.retention.holds()] == ["suit"]
        with pytest.raises(StoreError, match="Nothing was pruned"):
            ledger.retention.prune()
        assert ledger.count(entity_id="case-9") == 20


def test_a_schema_that_the_index_leaves_out_binds_all_the_same(tmp_path: Path) -> None:
    with tallystick.open(tmp_path) as ledger:
        ledger.schemas.register("user.created", 1, {"type": "object", "required": ["email"]})
        ledger.catch_up()
    connection = apsw.Connection(str(tmp_path / "index.db"))
    connection.execute("UPDATE term SET name = 'x.hidden' WHERE name LIKE 'tallystick.schema%'").fetchall()
    connection.execute("UPDATE entity SET name = 'nobody' WHERE name = 'tallystick.ledger'").fetchall()
    connection.close()

    with tallystick.open(tmp_path) as ledger, pytest.raises(RejectedError, match="email"):
        ledger.append(event_type="user.created", entity_id="u", payload={})
