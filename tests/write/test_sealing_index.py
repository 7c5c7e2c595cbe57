"""The sealing index against a scan of the log: after anything that can happen to its file, nothing wrong is sealed."""

from __future__ import annotations

import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tallystick
from tallystick.errors import BusyError, ConflictError, StoreError, TamperError
from tallystick.evidence.findings import Kind
from tallystick.ids import spell
from tallystick.opening import rebuild_index
from tallystick.store.contract import Store
from tallystick.store.memory_sealing import MemoryRunFile
from tallystick.write import runs, sealing_index
from tallystick.write.chunk import RecentVersions
from tallystick.write.run_set import RunSet
from tallystick.write.runs import Filter, Manifest
from tests.tampering import line_at, replace_record

FOREIGN: Final = "01234567-89ab-8def-8123-"
"""The prefix of another maker's ids."""

KEY: Final = bytes(range(32))


def scan(store: Store) -> tuple[dict[str, int], dict[str, int]]:
    """What the log says: the version of every entity, and the first position of every id."""
    versions: dict[str, int] = {}
    positions: dict[str, int] = {}
    for stored in store.read(0, 1 << 40):
        members = json.loads(stored.line)
        versions[members["entity_id"]] = members["entity_version"]
        positions.setdefault(members["id"], stored.position)
    return versions, positions


def check(ledger: tallystick.Ledger) -> None:
    """Fails unless the sealer knows what the scan says, of what is there and of what is not."""
    sealer = ledger._open_sealer()
    assert sealer.find("no such id") is None  # which has it catch up
    known = ledger._sealing_index
    assert known is not None
    versions, positions = scan(ledger._store)
    assert {entity_id: known.version(entity_id) for entity_id in versions} == versions
    assert known.version("nobody") == 0
    absent = {"no such id", spell(FOREIGN, 999_999), next(iter(positions))[:-1] + "f0"} - positions.keys()
    assert known.find_all([*positions, *absent]) == positions


def event(entity_id: str, event_id: str | None = None) -> dict[str, Any]:
    return {"event_type": "t.t", "entity_id": entity_id, **({"id": event_id} if event_id else {})}


@pytest.fixture(autouse=True)
def _small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks, pages and merges of a size that a test reaches."""
    monkeypatch.setattr(sealing_index, "FLUSH_RECORDS", 7)
    monkeypatch.setattr(sealing_index, "CHUNKS_MAX", 1_000)
    monkeypatch.setattr(runs, "_ENTRIES_PER_PAGE", 3)
    monkeypatch.setattr(runs, "MERGED_AT_ONCE", 3)


# ------------------------------------------------------------------------------------------- against the scan

IDS: Final = st.one_of(
    st.none(),
    st.none(),
    st.integers(0, 30).map(lambda number: f"brought-{number}"),
    st.integers(0, 30).map(lambda counter: spell(FOREIGN, counter)),
    st.integers(4_090, 4_100).map(lambda counter: spell(FOREIGN, counter)),
)
ENTITIES: Final = st.sampled_from(["a", "b", "c", "ä"])
BATCHES: Final = st.lists(st.lists(st.tuples(ENTITIES, IDS), min_size=1, max_size=12), min_size=1, max_size=8)


def append_fresh(ledger: tallystick.Ledger, batch: list[tuple[str, str | None]]) -> None:
    """Append a batch; an id that was used for something else is left out."""
    for entity_id, event_id in batch:
        try:
            ledger.append(event(entity_id, event_id))
        except ConflictError:
            ledger.append(event(entity_id))


@pytest.mark.slow
@given(BATCHES, st.sampled_from([1, 3, 7, 100]))
def test_in_memory_it_knows_what_a_scan_says(batches: list[list[tuple[str, str | None]]], flush: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tallystick.open("memory:") as ledger:
        patch.setattr(sealing_index, "FLUSH_RECORDS", flush)
        for batch in batches:
            append_fresh(ledger, batch)
            check(ledger)


def test_on_disk_it_knows_what_a_scan_says_however_often_it_is_opened(tmp_path: Path) -> None:
    folders = iter(tmp_path / str(number) for number in range(10_000))

    @settings(max_examples=25)
    @given(BATCHES, st.sampled_from([1, 3, 7, 100]), st.booleans())
    def property_holds(batches: list[list[tuple[str, str | None]]], flush: int, forgets: bool) -> None:
        folder = next(folders)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sealing_index, "FLUSH_RECORDS", flush)
            for batch in batches:
                with tallystick.open(folder, name="l") as ledger:
                    append_fresh(ledger, batch)
                    check(ledger)
                if forgets:
                    (folder / "sealing.db").unlink()

    property_holds()


def test_runs_are_merged_and_stay_few(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "l") as ledger:
        for number in range(600):
            ledger.append(event(f"entity-{number % 50}", f"id-{number}"))
        known = ledger._sealing_index
        assert known is not None
        known.flush()
        known.wait()
        manifest = known._runs.manifest

        check(ledger)
    assert manifest.size == 602
    assert len(manifest.runs) < 12
    assert sum(run.count for run in manifest.runs) < 600 + 50 * len(manifest.runs) + 600


# ------------------------------------------------------------------------------------------- what can happen to it


def fill(ledger: tallystick.Ledger, first: int, count: int) -> None:
    for number in range(first, first + count):
        event_id = [None, f"id-{number}", spell(FOREIGN, number)][number % 3]
        ledger.append(event(f"entity-{number % 5}", event_id))


def edited(folder: Path, *statements: str) -> None:
    connection = apsw.Connection(str(folder / "sealing.db"))
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


def overwritten(folder: Path, table: str, where: str, *, at: int) -> None:
    """Change one byte of a blob."""
    connection = apsw.Connection(str(folder / "sealing.db"))
    found: Any = connection.execute(f"SELECT rowid, content FROM {table} WHERE {where} LIMIT 1").fetchall()
    [[row, content]] = found
    at %= len(content)
    changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    connection.execute(f"UPDATE {table} SET content = ? WHERE rowid = ?", (changed, row))
    connection.close()


def turned_into_text(folder: Path) -> None:
    (folder / "sealing.db").write_bytes(b"A letter.\n" * 2_000)


PAGE: Final = "id & 4294967295 < 4 AND length(content) BETWEEN 60 AND 200"
TAMPERED: Final[dict[str, Callable[[Path], None]]] = {
    "all pages removed": lambda folder: edited(folder, "DELETE FROM page"),
    "the fullest page of each run removed": lambda folder: edited(
        folder,
        "DELETE FROM page WHERE id IN (SELECT id FROM (SELECT id, max(length(content)) FROM page"
        " WHERE length(content) BETWEEN 40 AND 200 GROUP BY id >> 32))",
    ),
    "every other page removed": lambda folder: edited(folder, "DELETE FROM page WHERE id % 2"),
    "pages emptied": lambda folder: edited(folder, "UPDATE page SET content = x''"),
    "pages cut to their MACs": lambda folder: edited(folder, "UPDATE page SET content = substr(content, 1, 16)"),
    "pages that lost an entry": lambda folder: edited(
        folder, "UPDATE page SET content = substr(content, 1, length(content) - 24)"
    ),
    "pages of another run": lambda folder: edited(
        folder, "UPDATE page SET content = (SELECT content FROM page AS other ORDER BY id DESC LIMIT 1)"
    ),
    "pages as text": lambda folder: edited(folder, "DROP TABLE page", "CREATE TABLE page (id, content)"),
    "every bit of a page in turn": lambda folder: overwritten(folder, "page", PAGE, at=20),
    "a MAC altered": lambda folder: overwritten(folder, "page", PAGE, at=3),
    "filters zeroed": lambda folder: edited(
        folder, "UPDATE page SET content = CAST(substr(content, 1, 16) || zeroblob(length(content) - 16) AS BLOB)"
    ),
    "the manifest removed": lambda folder: edited(folder, "DELETE FROM manifest"),
    "the manifest altered": lambda folder: overwritten(folder, "manifest", "id = 1", at=60),
    "the manifest's MAC altered": lambda folder: overwritten(folder, "manifest", "id = 1", at=0),
    "the manifest emptied": lambda folder: edited(folder, "UPDATE manifest SET content = x''"),
    "a trigger that removes what is written": lambda folder: edited(
        folder, "CREATE TRIGGER gone AFTER INSERT ON page BEGIN DELETE FROM page; END"
    ),
    "a table renamed": lambda folder: edited(folder, "DROP TABLE manifest"),
    "the file removed": lambda folder: (folder / "sealing.db").unlink(),
    "the file emptied": lambda folder: os.truncate(folder / "sealing.db", 0),
    "the file cut in half": lambda folder: os.truncate(folder / "sealing.db", 8_192 + 100),
    "the file turned into text": turned_into_text,
}


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed") / "ledger"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing_index, "FLUSH_RECORDS", 7)
        patch.setattr(runs, "_ENTRIES_PER_PAGE", 3)
        with tallystick.open(folder, name="sixty") as ledger:
            fill(ledger, 0, 60)
    return folder


@pytest.fixture
def folder(sixty: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sixty, tmp_path / "ledger"))


def check_nothing_wrong_is_sealed(ledger: tallystick.Ledger, folder: Path) -> None:
    """A repeat is answered with the record it repeats, versions go on, other content under an id is a conflict."""
    positions = scan(ledger._store)[1]
    for number in (1, 4, 58):
        again = ledger.append(event(f"entity-{number % 5}", f"id-{number}"))
        assert (again.position, again.replayed) == (positions[f"id-{number}"], True)
    with pytest.raises(ConflictError):
        ledger.append(event("entity-0", "id-58"))
    before = scan(ledger._store)[0]
    assert ledger.append(event("entity-3")).entity_version == before["entity-3"] + 1
    assert ledger.append(event(f"new-{ledger.size}")).entity_version == 1
    check(ledger)
    # The file of an open ledger may still be as it was left: what was done to it is in what was found.
    assert {finding.kind for finding in tallystick.verify(folder).findings} <= {Kind.INDEX}
    assert tallystick.verify(folder, index=False).holds


@pytest.mark.parametrize("how", TAMPERED)
def test_what_was_done_to_the_file_of_a_closed_ledger_reaches_no_record(folder: Path, how: str) -> None:
    TAMPERED[how](folder)

    with tallystick.open(folder) as ledger:
        check_nothing_wrong_is_sealed(ledger, folder)
        known = ledger._sealing_index
        assert known is not None
        told = known.problem
    with tallystick.open(folder) as ledger:
        check_nothing_wrong_is_sealed(ledger, folder)
    assert {finding.kind for finding in tallystick.verify(folder).findings} <= {Kind.INDEX}  # what nothing relied on
    rebuild_index(folder)
    assert tallystick.verify(folder).holds
    # What is merely gone, or begins anew, is what a user may do; all else is told.
    quiet = ("the file removed", "the file emptied", "the manifest removed", "a table renamed")
    assert (told is None) == (how in quiet) or how == "a table renamed", told


@pytest.mark.parametrize("how", TAMPERED)
def test_what_was_done_to_the_file_of_an_open_ledger_reaches_no_record(folder: Path, how: str) -> None:
    with tallystick.open(folder) as ledger:
        ledger.append(event("entity-1"))
        known = ledger._sealing_index
        assert known is not None
        known.flush()
        known.wait()
        known._recent = RecentVersions()
        known._runs._pages = {}
        TAMPERED[how](folder)

        check_nothing_wrong_is_sealed(ledger, folder)
    with tallystick.open(folder) as ledger:
        check_nothing_wrong_is_sealed(ledger, folder)
    rebuild_index(folder)
    assert tallystick.verify(folder).holds


def test_an_older_file_put_back_is_caught_up_from_the_log(folder: Path) -> None:
    for suffix in ("", "-wal"):
        if (folder / f"sealing.db{suffix}").exists():
            shutil.copy(folder / f"sealing.db{suffix}", folder.parent / f"older.db{suffix}")
    with tallystick.open(folder) as ledger:
        fill(ledger, 60, 40)
    shutil.copy(folder.parent / "older.db", folder / "sealing.db")

    with tallystick.open(folder) as ledger:
        check_nothing_wrong_is_sealed(ledger, folder)
        again = ledger.append(event("entity-1", "id-91"))
        assert again.replayed


def test_an_older_manifest_put_back_among_newer_pages_is_found(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "sealing.db"))
    [[older]] = connection.execute("SELECT content FROM manifest").fetchall()
    connection.close()
    with tallystick.open(folder) as ledger:
        fill(ledger, 60, 60)  # merges the runs that it names
    connection = apsw.Connection(str(folder / "sealing.db"))
    connection.execute("UPDATE manifest SET content = ?", (older,))
    connection.close()

    with tallystick.open(folder) as ledger:
        check_nothing_wrong_is_sealed(ledger, folder)


def test_the_file_of_another_ledger_under_the_same_keys_is_refused(folder: Path, tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "other", name="sixty", keys=folder / "keys", marks=tmp_path / "marks") as other:
        other.append(event("entity-1", "id-1"))
    shutil.copy(tmp_path / "other" / "sealing.db", folder / "sealing.db")

    with tallystick.open(folder) as ledger:
        check_nothing_wrong_is_sealed(ledger, folder)


def test_a_log_that_is_behind_what_was_sealed_is_not_sealed_over(folder: Path) -> None:
    shutil.copy(folder / "ledger.db", folder.parent / "older.db")
    with tallystick.open(folder) as ledger:
        fill(ledger, 60, 20)
    shutil.copy(folder.parent / "older.db", folder / "ledger.db")
    (folder / "index.db").unlink()

    with tallystick.open(folder) as ledger, pytest.raises(TamperError, match="an older copy was put back"):
        ledger.append(event("entity-1"))


def test_an_altered_record_is_noticed_before_a_version_is_taken_from_it(folder: Path) -> None:
    (folder / "sealing.db").unlink()
    log = folder / "ledger.db"
    replace_record(log, 20, line_at(log, 20).replace(b'"entity_version":', b'"entity_version":9'))

    with tallystick.open(folder) as ledger, pytest.raises(TamperError):
        ledger.append(event("entity-1"))


# ------------------------------------------------------------------------------------------- failing, crashing


class FullDisk(MemoryRunFile):
    """Fails as often as it is told to."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def replace(self, *args: Any, **more: Any) -> bool:
        if self.failures:
            self.failures -= 1
            raise StoreError("could not write sealing.db: the disk is full (injected)")
        return super().replace(*args, **more)


def test_what_cannot_be_written_stays_in_memory_up_to_a_bound_and_nothing_is_sealed_past_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sealing_index, "CHUNKS_MAX", 4)
    file = FullDisk(1_000_000)
    with tallystick.open("memory:") as ledger, pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(ledger._location), "open_runs", lambda _: file)
        with pytest.raises(BusyError, match="free some room"):
            fill(ledger, 0, 100)
        sealed = ledger.size
        assert 4 * 7 <= sealed <= 6 * 7
        with pytest.raises(BusyError):
            ledger.append(event("entity-1"))
        assert ledger.size == sealed

        file.failures = 0
        fill(ledger, 100, 20)
        check(ledger)


WRITER: Final = """
import sys
import tallystick
from tallystick.write import runs, sealing_index
sealing_index.FLUSH_RECORDS, runs._ENTRIES_PER_PAGE, runs.MERGED_AT_ONCE = 5, 3, 3
ledger = tallystick.open(sys.argv[1])
print(flush=True)
for number in range(int(sys.argv[2]), 1_000_000):
    ledger.append(event_type="t.t", entity_id=f"entity-{number % 7}", id=f"{sys.argv[3]}-{number}")
    print(number, flush=True)
"""


def started(folder: Path, first: int, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(first), name],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def lines_of(process: subprocess.Popen[str], count: int) -> Iterator[str]:
    assert process.stdout is not None
    for _ in range(count):
        yield process.stdout.readline()


@pytest.mark.parametrize("count", [3, 11, 24, 57])
def test_a_kill_leaves_what_the_next_opening_catches_up_from(folder: Path, count: int) -> None:
    process = started(folder, 0, "killed")
    answered = [*lines_of(process, count)]
    process.send_signal(signal.SIGKILL)
    process.communicate()

    with tallystick.open(folder) as ledger:
        for number in range(len(answered) - 1):
            assert ledger.append(event(f"entity-{number % 7}", f"killed-{number}")).replayed
        check_nothing_wrong_is_sealed(ledger, folder)


def test_two_processes_that_save_and_merge_never_lead_each_other_astray(folder: Path) -> None:
    processes = [started(folder, 0, "one"), started(folder, 0, "other")]
    for process in processes:
        assert len([*lines_of(process, 80)]) == 80
    with tallystick.open(folder) as ledger:
        fill(ledger, 60, 40)
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        check_nothing_wrong_is_sealed(ledger, folder)


# ------------------------------------------------------------------------------------------- the parsers


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_of_ours_or_refused(data: bytes) -> None:
    with pytest.raises(TamperError):
        runs.parse_manifest(KEY, data)


@given(st.binary(max_size=300))
def test_any_bytes_under_a_right_mac_are_a_manifest_or_refused(data: bytes) -> None:
    made = runs.render_manifest(KEY, Manifest.empty(b"id", pruned_below=0, generation=b"g"))
    assert runs.parse_manifest(KEY, made) == Manifest.empty(b"id", pruned_below=0, generation=b"g")
    content = hmac.digest(KEY, b"tallystick/v1/sealing-manifest\0" + data, "sha256") + data
    try:
        runs.parse_manifest(KEY, content)
    except TamperError:
        return


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2**48 - 1)), max_size=60))
def test_a_run_set_gives_back_all_that_was_added(entries: Sequence[tuple[int, int]]) -> None:
    file, hashed = MemoryRunFile(), runs.keyed(KEY, "id")
    added: dict[bytes, set[int]] = {}
    run_set = RunSet(file, key=KEY, ledger_id=b"id")
    run_set.begin(Manifest.empty(b"id", pruned_below=0, generation=b"g"), discards=False)
    for first in range(0, len(entries), 4):
        part = entries[first : first + 4]
        made = [runs.entry(hashed(str(name)), position, 0) for name, position in part]
        for name, position in part:
            added.setdefault(hashed(str(name)), set()).add(position)
        cover = Manifest.empty(b"id", pruned_below=0, generation=b"g")
        cover = Manifest(cover.layout, b"id", first + len(part), b"h", 0, b"g", 1, ())
        run_set.add(first, cover, runs.merged(made))

    again = RunSet(file, key=KEY, ledger_id=b"id")
    again.look()
    for each in (run_set, again):
        found = each.find(
            [hashed(str(name)) for name in range(45)], covering=len(entries), generation=each.manifest.generation
        )
        assert {key: {runs.position_of(one) for one in of_key} for key, of_key in found.items()} == added


@given(st.sets(st.binary(min_size=12, max_size=12), max_size=200))
def test_a_filter_lets_every_key_pass_that_was_added(keys: set[bytes]) -> None:
    made = Filter(len(keys))
    made.add(keys)
    read = Filter.of(made.parts())
    run = runs.Run(1, b"", 0, len(keys), 1)

    assert [key for _, key in runs.keys_that_pass(keys, [(run, read)])] == [*keys]


def test_runs_of_another_generation_say_nothing() -> None:
    """Another process, or somebody with the disk, put runs in their place that are authentic, and of another time."""
    file, key = MemoryRunFile(), runs.keyed(KEY, "entity")("e")
    mine, other = (Manifest.empty(b"id", pruned_below=0, generation=name) for name in (b"mine", b"other"))
    for begun in (other, mine):
        run_set = RunSet(file, key=KEY, ledger_id=b"id")
        run_set.begin(begun)
        run_set.add(0, msgspec.structs.replace(begun, size=9), [runs.entry(key, 8, 5)])
    assert run_set.find([key], covering=9, generation=b"mine")

    stranger = RunSet(file, key=KEY, ledger_id=b"id")
    stranger.begin(other)
    stranger.add(0, msgspec.structs.replace(other, size=9), [runs.entry(key, 8, 7)])
    run_set.look()

    with pytest.raises(ConflictError):
        run_set.find([key], covering=9, generation=b"mine")
    with pytest.raises(ConflictError):
        run_set.add(9, msgspec.structs.replace(mine, size=10), [runs.entry(key, 9, 6)])
