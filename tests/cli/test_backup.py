"""`backup` and `restore`, as an operator uses them: beside a service under load, for a drill, after a disaster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

import tallystick
from tests.cli.conftest import Run, command, environment
from tests.cli.test_serve import serving

pytestmark = pytest.mark.slow

SENDERS: Final = 8
QUEUED: Final = frozenset((0, 4))
"""The senders that do not wait for the seal."""


class Load:
    """Senders, and what was answered to them: positions of durable events, and ids of queued ones, in order."""

    def __init__(self, address: str, key: str) -> None:
        self._address = address
        self._headers = {"Authorization": f"Bearer {key}"}
        self.durable: dict[str, int] = {}
        self.queued: dict[int, list[str]] = {number: [] for number in QUEUED}
        self.changed = threading.Condition()

    def send(self, number: int) -> None:
        """Send until nobody answers any more."""
        with httpx2.Client(headers=self._headers, timeout=20) as client:
            for step in range(1_000_000):
                event = {"event_type": "load.sent", "entity_id": f"sender-{number}", "id": f"{number}-{step}"}
                url = f"{self._address}/api/v1/events{'?ack=queued' if number in QUEUED else ''}"
                try:
                    answer = client.post(url, json=event)
                except httpx2.HTTPError:
                    return
                with self.changed:
                    if answer.status_code == 202:
                        self.queued[number].append(event["id"])
                    elif answer.status_code == 201:
                        self.durable[event["id"]] = answer.json()["position"]
                    self.changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Until so many more are answered, of each kind."""
        with self.changed:
            durable, queued = len(self.durable) + count, sum(map(len, self.queued.values())) + count
            enough = self.changed.wait_for(
                lambda: len(self.durable) >= durable and sum(map(len, self.queued.values())) >= queued, 60
            )
            assert enough, "nothing is answered any more"

    def answered(self) -> tuple[dict[str, int], dict[int, list[str]]]:
        with self.changed:
            return dict(self.durable), {number: list(ids) for number, ids in self.queued.items()}


@pytest.mark.parametrize("target", ["made", "made.tar"])
def test_a_service_under_load_is_backed_up_killed_restored_and_goes_on(tmp_path: Path, target: str) -> None:
    # Given a service that is written to all the time, and what it had answered when the backup began.
    with serving(tmp_path / "data") as (process, said), ThreadPoolExecutor(SENDERS) as pool:
        load = Load(said["address"], said["first_key"])
        for number in range(SENDERS):
            pool.submit(load.send, number)
        load.wait_for(150)
        durable, queued = load.answered()

        made = subprocess.run(
            command("backup", "data", "-o", target, "--with-keys", "--json"),
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            check=False,
        )

        load.wait_for(50)  # nobody was kept from going on
        os.kill(process.pid, signal.SIGKILL)
    assert made.returncode == 0, made.stderr

    # When it is restored beside what the kill left.
    restored = subprocess.run(
        command("restore", target, "-o", "back", "--json"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=False,
    )
    told = json.loads(restored.stdout)
    assert (restored.returncode, told["findings"], told["path"]) == (0, [], "back")
    assert {one["folder"] for one in told["ledgers"]} >= {"system", "tenants/default"}
    assert all(one["can_seal"] for one in told["ledgers"])

    # Then a service over it knows the key, has all that was answered, and goes on.
    with serving(tmp_path / "back") as (process, again):
        assert again["first_key"] is None
        answer = httpx2.post(
            f"{again['address']}/api/v1/events",
            json={"event_type": "load.over", "entity_id": "e"},
            headers={"Authorization": f"Bearer {said['first_key']}"},
            timeout=20,
        )
        assert answer.status_code == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    folder, keys = tmp_path / "back/tenants/default", tmp_path / "back/keys/tenants/default"
    with tallystick.open(folder, keys=keys) as ledger:
        ledger.queue.drain(seconds=30)
        ids = [record.id for record in ledger.read() if record.event_type == "load.sent"]
        assert len(ids) == len(set(ids))
        assert {ledger.get(event_id).position == position for event_id, position in durable.items()} == {True}
        for number, mine in queued.items():
            found = [event_id for event_id in ids if event_id.startswith(f"{number}-")]
            assert found[: len(mine)] == mine
        report = ledger.verify()
        assert report.holds, report.findings
        assert report.signatures == report.size - 1


def test_the_drill_of_every_month(ledger: Path, run: Run) -> None:
    made = run("backup", str(ledger), "-o", "made").stdout
    checked = run("restore", "made", "--check", "--keys", str(ledger / "keys")).stdout

    assert made.startswith("BACKED UP  1 ledger with 7 records\n")
    assert "signed    by the evidence key" in made
    assert "not in it: keep them, too" in made
    assert checked.startswith("PASS  the backup holds\n")
    assert "1 of 1, 7 records" in checked
    assert "those of the ledgers: these can go on" in checked
    assert "no checkpoint that others hold" in checked
    assert sorted(path.name for path in Path().iterdir()) == ["audit", "made"]


def test_what_is_told_for_machines(ledger: Path, run: Run) -> None:
    made = json.loads(run("backup", str(ledger), "-o", "made.tar", "--with-keys", "--json").stdout)
    restored = json.loads(run("restore", "made.tar", "-o", "back", "--json").stdout)

    assert (made["path"], made["extent"], made["keys"], made["signed"]) == ("made.tar", "ledger", True, True)
    (one,) = made["ledgers"]
    assert (one["folder"], one["origin"], one["size"]) == ("", "local/audit", 7)
    assert one["checkpoint"].encode() == run("checkpoint").stdout_bytes
    assert (restored["holds"], restored["path"], restored["created"]) == (True, "back", made["created"])
    (judged,) = restored["ledgers"]
    assert (judged["size"], judged["signatures"], judged["can_seal"], judged["lost"]) == (7, 6, True, None)


def test_records_that_are_lost_are_a_finding_until_somebody_accepts_it(ledger: Path, run: Run) -> None:
    run("backup", str(ledger), "-o", "made", "--with-keys")
    run("append", input='{"event_type":"doc.lost","entity_id":"doc-9"}\n')
    run("checkpoint", "-o", "held.checkpoint")

    refused = run("restore", "made", "-o", "back", "--since", "held.checkpoint", code=1).stdout
    assert not Path("back").exists()
    accepted = run(
        *("restore", "made", "-o", "back", "--since", "held.checkpoint"),
        *("--accept-loss", "the disk died", "--actor", "jane"),
    ).stdout

    assert refused.startswith("FAIL  1 finding, and nothing is restored\n")
    assert "audit  rollback  the ledger had 8 records, and now has 7" in refused
    assert "1 record of audit: --accept-loss WHY restores the rest" in refused
    assert accepted.startswith("RESTORED  back\n")
    assert "1 record of audit, as it records itself" in accepted
    shown = json.loads(run("-l", "back", "show", "9", "--json").stdout)
    assert (shown["event_type"], shown["actor"]["id"]) == ("tallystick.ledger.restored", "jane")
    assert run("-l", "back", "verify").stdout.startswith("PASS")


def test_an_altered_backup_is_told_file_by_file(ledger: Path, run: Run) -> None:
    run("backup", str(ledger), "-o", "made")
    with Path("made/ledger.db").open("r+b") as file:
        file.seek(5_000)
        file.write(b"\xff\xff")
    Path("made/\u202eevil\x1b[31m").write_bytes(b"")

    told = run("restore", "made", "-o", "back", code=1).stdout
    facts = json.loads(run("restore", "made", "--check", "--json", code=1).stdout)

    assert "ledger.db" in told
    assert "its bytes are not those of which the manifest has the SHA-256" in told
    assert "\x1b" not in told
    assert {(one["place"], one["kind"]) for one in facts["findings"]} == {
        ("ledger.db", "backup"),
        ("\\u202eevil\\x1b[31m", "backup"),
    }
    assert not Path("back").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("backup", "nowhere", "-o", "x"), 2, "neither a ledger nor a deployment"),
        (("backup", "audit", "-o", "audit"), 1, "is there already"),
        (("backup", "audit"), 2, "Missing option"),
        (("backup", "audit", "-o", "x", "--keys", "nowhere"), 2, "the keys are not here"),
        (("restore", "nowhere", "-o", "x"), 2, "there is no backup at nowhere"),
        (("restore", "made"), 2, "say where to restore it"),
        (("restore", "made", "-o", "x", "--check"), 2, "say where to restore it"),
        (("restore", "made", "--check", "--accept-loss", "x"), 2, "say where to restore it"),
        (("restore", "made", "-o", "audit"), 1, "is there already"),
        (("restore", "made", "-o", "x", "--since", "made/ledger.db"), 2, "since: it is no checkpoint"),
        (("restore", "made", "-o", "x", "--keys", "nowhere"), 2, "there are no keys of audit in nowhere"),
        (("restore", "made", "-o", "x", "--accept-loss", "why"), 2, "needs their keys"),
        (("restore", "made", "-o", "x", "--accept-loss", "", "--keys", "audit/keys"), 2, "reason"),
    ],
)
def test_wrong_use_is_one_clear_error_and_changes_nothing(
    ledger: Path, run: Run, arguments: tuple[str, ...], code: int, problem: str
) -> None:
    run("backup", str(ledger), "-o", "made")
    before = sorted(path.name for path in Path().iterdir())

    done = run(*arguments, code=code)

    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 or "Usage" in done.stderr
    assert sorted(path.name for path in Path().iterdir()) == before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_one_that_is_stopped_in_the_middle_leaves_nothing_that_looks_like_a_backup(
    ledger: Path, tmp_path: Path, how: signal.Signals
) -> None:
    # Given a copy that is under way: it has told of its first page, and then waits.
    program = (
        "import sys, time, tallystick.sqlite_file as file\n"
        "def waiting(reader, writer, *, page_bytes, progress):\n"
        "    with writer.backup('main', reader, 'main') as backup:\n"
        "        backup.step(1)\n"
        "        print('begun', flush=True); time.sleep(60)\n"
        "file._copy_pages = waiting\n"
        "from tallystick.cli.program import program\nprogram(sys.argv[1:], prog_name='tallystick')\n"
    )
    process: subprocess.Popen[Any] = subprocess.Popen(
        [sys.executable, "-c", program, "backup", str(ledger), "-o", "made"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(how)
    _, err = process.communicate(timeout=30)

    left = sorted(path for path in tmp_path.iterdir() if path != ledger)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert b"Traceback" not in err
    if how == signal.SIGINT:
        assert left == []
    for path in left:
        assert path.name.startswith(".made-")
        assert [*path.rglob("backup.json")] == []
