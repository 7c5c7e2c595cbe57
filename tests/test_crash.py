"""What was acknowledged survives: kill -9, failing writes, a full disk, a clock that steps back."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

import tallystick
from tallystick.config import Location
from tallystick.core.checked_proof import check_proof
from tallystick.core.policy import Policy
from tallystick.errors import BusyError, StoreError
from tallystick.keystore import Keystore
from tallystick.store.contract import Store
from tallystick.store.memory import MemoryStore
from tallystick.store.sqlite import SqliteStore
from tests import crash_writer, naive
from tests.store.faulty import FAULTS, Fault, FaultyStore

pytestmark = pytest.mark.slow

SEED: Final = 20_260_315
KILLS: Final = 55

_T = TypeVar("_T")


def lines_of(ledger: tallystick.Ledger) -> list[bytes]:
    return [record.line for record in ledger.read()]


def raw_lines(folder: Path) -> list[bytes]:
    store = SqliteStore(folder, readonly=True)
    try:
        return [record.line for record in store.read(0, 1 << 40)]
    finally:
        store.close()


def environment() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


# ------------------------------------------------------------------------------------------------ kill -9


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that forks writers on demand, so that a run costs no start of an interpreter."""
    with subprocess.Popen(
        [sys.executable, crash_writer.__file__, tmp_path / "ledger"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def run_and_kill(nursery: subprocess.Popen[str], run: int, told: Path, *, after_seconds: float) -> None:
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write(f"{run} {told}\n")
    writer = int(nursery.stdout.readline())
    time.sleep(after_seconds)
    os.kill(writer, signal.SIGKILL)
    assert nursery.stdout.readline() == "gone\n"


def acknowledged_in(told: Path) -> list[dict[str, Any]]:
    """What the writer said; it may have been killed within its last line."""
    lines = told.read_bytes().split(b"\n")[:-1] if told.exists() else []
    return [json.loads(line) for line in lines]


def test_everything_acknowledged_survives_being_killed_at_any_moment(
    tmp_path: Path, nursery: subprocess.Popen[str]
) -> None:
    chance = random.Random(SEED)
    folder = tmp_path / "ledger"
    receipts: dict[int, tuple[str, int, str]] = {}
    checkpoints: list[bytes] = []
    before: list[bytes] = []
    killed_at: list[float] = []

    for run in range(KILLS):
        # Some are killed while they open the ledger, or make it.
        killed_at.append(chance.uniform(0.0, 0.03) if run % 4 == 0 else chance.uniform(0.05, 0.3))
        run_and_kill(nursery, run, tmp_path / f"told-{run}", after_seconds=killed_at[-1])
        for told in acknowledged_in(tmp_path / f"told-{run}"):
            for position, event_id, entity_version, digest in told.get("sealed", []):
                assert position not in receipts, f"position {position} was given twice, run {run} of seed {SEED}"
                receipts[position] = (event_id, entity_version, digest)
            if "checkpoint" in told:
                checkpoints.append(told["checkpoint"].encode())

        with tallystick.open(folder) as ledger:
            lines = raw_lines(folder)
            assert lines[: len(before)] == before, f"sealed bytes changed in run {run} of seed {SEED}"
            checkpoints.append(ledger.checkpoint())
            assert run % 5 or ledger.verify().holds
            assert naive.checkpoint_of(ledger.checkpoint())[0] == len(lines)
            sealed = ledger.append(event_type="crash.survived", entity_id="survivor", id=f"survived-{run}")
            again = ledger.append(event_type="crash.survived", entity_id="survivor", id=f"survived-{run}")
            assert again == sealed._replace(replayed=True)
            assert sealed.position >= len(lines)
            before = raw_lines(folder)
            checkpoints.append(ledger.checkpoint())

    # Chain, positions and entity versions; every id once; every receipt true; one root for every size.
    records = naive.read_chain(before)
    assert len({record["id"] for record in records}) == len(records)
    for position, receipt in receipts.items():
        record = records[position]
        assert receipt == (record["id"], record["entity_version"], naive.sha256(before[position]).hex())
    naive.check_tree(before, checkpoints)
    with tallystick.open(folder) as ledger:
        for record in records[::97]:
            assert ledger.get(record["id"]).position == record["position"]
        for version in (len(before), len(before) // 2):
            proof = ledger.prove(version - 1)
            assert check_proof(proof.render(), before[version - 1], Policy(logs=(ledger.verifier_key,))).holds
        ledger.append(event_type="crash.survived", entity_id="survivor")
        check_keys_of(ledger, folder / "keys")
        report = ledger.verify(since=checkpoints[0])
        assert report.holds, report.findings
        assert report.signatures == report.size - 1
    check_rotations(records)
    assert len(receipts) > KILLS, f"hardly anything was written before the kills: {killed_at}"


# ------------------------------------------------------------------------------------------ failing writes


class Scene:
    """A ledger over a store of which one write fails, the script run on it, and what was acknowledged."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        store: Callable[[], Store],
        fault: Fault | None = None,
        fail_at: int = -1,
    ) -> None:
        self._fault = fault
        self._fail_at = fail_at
        self.writes = 0
        self.receipts: list[tallystick.Sealed] = []
        self.checkpoints: list[bytes] = []
        self._folder = folder

        def open_store(location: Location, *, readonly: bool = False) -> Store:
            del location, readonly
            return FaultyStore(store(), self._next_fault)

        monkeypatch.setattr(Location, "open_store", open_store)
        self.ledger = self._insist(lambda: tallystick.open(folder / "ledger", name="scene"))

    def _next_fault(self) -> Fault | None:
        self.writes += 1
        return self._fault if self.writes - 1 == self._fail_at else None

    def _insist(self, call: Callable[[], _T]) -> _T:
        """Repeat a call that failed, as a caller is told to do."""
        for _ in range(3):
            try:
                return call()
            except (StoreError, BusyError):
                continue
        raise AssertionError("it failed again and again")

    def append(self, *names: str, entity_id: str = "e", **more: Any) -> None:
        events = [
            {
                "event_type": "t.happened",
                "entity_id": entity_id,
                "id": name,
                "payload": {"name": name},
                **more,
            }
            for name in names
        ]
        self.receipts += self._insist(lambda: self.ledger.append_many(events))
        self.checkpoints.append(self.ledger.checkpoint())

    def play(self) -> None:
        self.append("a")
        self.append("b", "c", "d", entity_id="f")
        self.append("e", expected_version=1)
        self._insist(self.ledger.change_epoch)
        self.append("f", "g")
        self._insist(lambda: self.ledger.rotate_key("checkpoint"))
        self.append("h")
        self._insist(lambda: self.ledger.rotate_key("evidence"))
        self.append(*(f"many-{number}" for number in range(300)))
        self._insist(self.ledger.change_epoch)
        self.append("i")
        self.reopen()
        self.append("j", "a", "many-7")
        self._insist(lambda: self.ledger.rotate_key("checkpoint"))
        self.append("k")

    def reopen(self) -> None:
        """Leave everything as a crash would, and open the ledger anew."""
        self.ledger = self._insist(lambda: tallystick.open(self._folder / "ledger", name="scene"))

    def lines(self) -> list[bytes]:
        return lines_of(self.ledger)


class LastingMemory(MemoryStore):
    """Stays open for those who open it again."""

    def close(self) -> None: ...


def memory_store(folder: Path) -> Callable[[], Store]:
    del folder
    store = LastingMemory()
    return lambda: store


def sqlite_store(folder: Path) -> Callable[[], Store]:
    return lambda: SqliteStore(folder / "ledger")


NAMES: Final = {*"abcdefghijk", *(f"many-{number}" for number in range(300))}
WRITES: Final = 15
"""How many writes the script makes when none fails: the genesis, and one a step."""


@pytest.mark.parametrize("make_store", [memory_store, sqlite_store])
def test_the_script_makes_the_expected_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_store: Callable[[Path], Callable[[], Store]]
) -> None:
    scene = Scene(tmp_path, monkeypatch, store=make_store(tmp_path))

    scene.play()

    assert scene.writes == WRITES


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("fail_at", range(WRITES))
@pytest.mark.parametrize("make_store", [memory_store, sqlite_store])
def test_whichever_write_fails_nothing_acknowledged_is_lost_and_nothing_repeated_is_there_twice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_store: Callable[[Path], Callable[[], Store]],
    fail_at: int,
    fault: Fault,
) -> None:
    scene = Scene(tmp_path, monkeypatch, store=make_store(tmp_path), fault=fault, fail_at=fail_at)

    scene.play()

    scene.reopen()
    scene.append("k")
    lines = scene.lines()
    records = naive.read_chain(lines)
    ours = [record for record in records if not record["event_type"].startswith("tallystick.")]
    assert sorted(record["id"] for record in ours) == sorted(NAMES)
    assert len({record["id"] for record in records}) == len(records)
    for sealed in scene.receipts:
        assert records[sealed.position]["id"] == sealed.id
        assert naive.sha256(lines[sealed.position]) == sealed.hash
    naive.check_tree(lines, [*scene.checkpoints, scene.ledger.checkpoint()])
    check_keys_of(scene.ledger, tmp_path / "ledger" / "keys")
    check_rotations(records)
    position = len(lines) - 1
    proof = scene.ledger.prove(position)
    checked = check_proof(proof.render(), lines[position], Policy(logs=(scene.ledger.verifier_key,)))
    assert checked.holds
    assert checked.checkpoint is not None
    assert checked.checkpoint.size == len(lines)


def test_a_commit_that_failed_yet_persisted_is_recognised_by_the_head_and_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a caller that brings no id, and so could not repeat without sealing its event twice.
    scene = Scene(tmp_path, monkeypatch, store=memory_store(tmp_path), fault="failed, yet persisted", fail_at=2)
    scene.append("a")

    sealed = scene.ledger.append(event_type="t.happened", entity_id="e")

    assert (scene.writes, sealed.position, scene.ledger.size) == (3, 3, 4)
    assert scene.ledger.append(event_type="t.happened", entity_id="e").entity_version == 3


@pytest.mark.parametrize("fault", ["failed", "busy", "failed, yet persisted, and then silent"])
def test_a_commit_of_which_the_outcome_is_not_known_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    scene = Scene(tmp_path, monkeypatch, store=memory_store(tmp_path), fault=fault, fail_at=1)

    with pytest.raises((StoreError, BusyError), match="injected"):
        scene.ledger.append(event_type="t.happened", entity_id="e", id="a")

    again = scene.ledger.append(event_type="t.happened", entity_id="e", id="a")
    assert again.replayed is fault.endswith("silent")
    assert (again.position, scene.ledger.size) == (2, 3)


def check_keys_of(ledger: tallystick.Ledger, folder: Path) -> None:
    """Fails unless the keys in the folder are those that the ledger names."""
    keystore = Keystore(folder)
    for purpose, public_key in (
        ("checkpoint", ledger.verifier_key.public_key),
        ("evidence", ledger.evidence_key),
    ):
        assert keystore.signing_key(purpose).public_key().public_bytes_raw() == public_key


def check_rotations(records: list[dict[str, Any]]) -> None:
    """Fails unless every rotation replaces the key that the one before put in force."""
    genesis = records[0]["payload"]
    vkey = genesis["checkpoint_key"].split("+", 2)[2]
    in_force = {
        "checkpoint": base64.b64encode(base64.b64decode(vkey)[1:]).decode(),
        "evidence": genesis["evidence_key"],
    }
    for record in records:
        if record["event_type"] == "tallystick.key.rotated":
            rotated = record["payload"]
            assert rotated["old_key"] == in_force[rotated["purpose"]]
            in_force[rotated["purpose"]] = rotated["new_key"]


# --------------------------------------------------------------------------------------------- a full disk

FILL_UP: Final = """
import json, resource, signal, sys
from pathlib import Path
import tallystick
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
acknowledged, refused = [], 0
def append(number):
    payload = {"x": "x" * 2_000}
    sealed = ledger.append(event_type="disk.filled", entity_id="e", id=f"id-{number}", payload=payload)
    acknowledged.append([sealed.position, sealed.id, sealed.hash.hex()])
with tallystick.open(folder) as ledger:
    number = 0
    for room in (0, 10_000, 40_000, 41_000, 60_000):
        full = max(path.stat().st_size for path in folder.iterdir() if path.is_file()) + room
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, unlimited[1]))
        for _ in range(60):
            try:
                append(number)
            except tallystick.StoreError:
                refused += 1
                break
            number += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        append(number)  # the one that was refused, again
        number += 1
print(json.dumps([refused, acknowledged]))
"""


def test_a_full_disk_is_one_clear_error_and_when_there_is_room_again_appends_go_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL_UP, tmp_path / "ledger"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.stderr == ""
    refused, acknowledged = json.loads(done.stdout)
    assert refused == 5
    with tallystick.open(tmp_path / "ledger") as ledger:
        check_acknowledged(ledger, acknowledged)


def may_mount() -> bool:
    """Whether this process has the right to mount a file system (CAP_SYS_ADMIN, Linux)."""
    status = Path("/proc/self/status")
    lines = status.read_text().split("\n") if status.exists() else []
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> 21 & 1)


def check_acknowledged(ledger: tallystick.Ledger, acknowledged: list[list[Any]]) -> None:
    lines = lines_of(ledger)
    records = naive.read_chain(lines)
    naive.check_tree(lines, [ledger.checkpoint()])
    ids = [record["id"] for record in records]
    assert len(set(ids)) == len(ids)
    for position, event_id, digest in acknowledged:
        assert ids[position] == event_id
        assert naive.sha256(lines[position]).hex() == digest
    assert len(records) == 2 + len(acknowledged)


@pytest.mark.parametrize("file_system", ["tmpfs"] if may_mount() else [])
def test_a_file_system_without_room_loses_nothing_that_was_acknowledged(tmp_path: Path, file_system: str) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", file_system, "-o", "size=1m", file_system, mounted], check=True)
    try:
        acknowledged: list[list[Any]] = []
        with tallystick.open(mounted / "ledger") as ledger:

            def append() -> None:
                sealed = ledger.append(
                    event_type="disk.filled",
                    entity_id="e",
                    id=f"id-{len(acknowledged)}",
                    payload={"x": "x" * 5_000},
                )
                acknowledged.append([sealed.position, sealed.id, sealed.hash.hex()])

            def append_for_ever() -> None:
                while True:
                    append()

            with pytest.raises(StoreError, match="full"):
                append_for_ever()
            before = len(acknowledged)
            assert ledger.size == 2 + before
            subprocess.run(["mount", "-o", "remount,size=8m", mounted], check=True)
            for _ in range(20):
                append()
            check_acknowledged(ledger, acknowledged)
        assert before > 10
        with tallystick.open(mounted / "ledger") as ledger:
            check_acknowledged(ledger, acknowledged)
    finally:
        subprocess.run(["umount", mounted], check=True)


# ------------------------------------------------------------------------------- a clock that steps back


def test_recorded_times_never_run_backwards_also_across_openings(tmp_path: Path) -> None:
    start = 1_770_000_000_000_000
    steps = [0, 5, -3_000_000, -1, 7, -9_000_000_000, 3, 8_000_000]
    moment = start

    times: list[str] = []
    for step in steps:
        moment += step
        with tallystick.open(tmp_path / "ledger", clock=partial(int, moment)) as ledger:
            times += [ledger.append(event_type="t.t", entity_id="e").recorded_at for _ in range(2)]

    assert times == sorted(times)
    with tallystick.open(tmp_path / "ledger") as ledger:
        naive.read_chain(lines_of(ledger))
