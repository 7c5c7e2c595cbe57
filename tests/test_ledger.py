"""The front door of one ledger: opening, reading, proving, closing, and errors of the families only."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

import tallystick
from tallystick.core.checked_proof import check_proof
from tallystick.core.checkpoint import open_checkpoint
from tallystick.core.merkle import verify_consistency
from tallystick.core.policy import Policy
from tallystick.core.tiles import tile_width
from tallystick.errors import (
    BusyError,
    ConflictError,
    NotFoundError,
    RejectedError,
    StoreError,
    TallystickError,
    TamperError,
)
from tallystick.limits import BATCH_BYTES_MAX, BATCH_EVENTS_MAX
from tallystick.store.contract import Batch
from tallystick.store.memory import MemoryStore
from tests import naive
from tests.threads import PATIENCE_SECONDS, in_threads


def event(entity_id: str = "e", **more: Any) -> dict[str, Any]:
    return {"event_type": "t.happened", "entity_id": entity_id, **more}


def lines_of(ledger: tallystick.Ledger) -> list[bytes]:
    return [record.line for record in ledger.read()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(folder: Path) -> Iterator[tallystick.Ledger]:
    with tallystick.open(folder) as ledger:
        yield ledger


# -------------------------------------------------------------------------------------------------- opening


def test_a_ledger_is_made_when_it_is_not_there_and_opened_when_it_is(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        made = ledger.id
        ledger.append(event())

    with tallystick.open(folder) as ledger:
        assert ledger.id == made == naive.sha256(lines_of(ledger)[0])
        assert ledger.size == 3


def test_a_ledger_made_anew_is_visibly_another(tmp_path: Path) -> None:
    ids = set()
    for number in range(3):
        with tallystick.open(tmp_path / f"{number}", name="same") as ledger:
            ids.add(ledger.id)

    assert len(ids) == 3


def test_the_folder_may_be_given_in_several_ways(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tallystick.open(folder) as ledger:
        made = ledger.id
    monkeypatch.chdir(folder.parent)

    for url in (str(folder), folder, f"sqlite://{folder}", "ledger", "./ledger", "ledger/"):
        with tallystick.open(url, create=False) as ledger:
            assert ledger.id == made


def test_a_folder_with_a_space_or_a_percent_sign_is_found_again(tmp_path: Path) -> None:
    with tallystick.open(f"sqlite://{tmp_path}/a%20b", name="spaced") as ledger:
        made = ledger.id

    with tallystick.open(tmp_path / "a b", create=False) as ledger:
        assert ledger.id == made


def test_a_ledger_takes_its_name_from_its_folder_unless_it_is_given_one(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "acme") as ledger:
        assert (ledger.name, ledger.origin) == ("acme", "local/acme")
    with tallystick.open(tmp_path / "x", name="tenant/t1", deployment="audit.example") as ledger:
        assert (ledger.name, ledger.origin) == ("tenant/t1", "audit.example/tenant/t1")
        ledger.append(event())
        assert ledger.get(2).members["ledger"] == "tenant/t1"
        assert ledger.checkpoint().startswith(b"audit.example/tenant/t1\n3\n")
    with tallystick.open("memory:") as ledger:
        assert ledger.name == "memory"


def test_the_environment_names_the_deployment_and_the_folder_of_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYSTICK_DEPLOYMENT", "prod.example")
    monkeypatch.setenv("TALLYSTICK_KEYS", str(tmp_path / "safe"))

    with tallystick.open(tmp_path / "acme") as ledger:
        ledger.append(event())

        assert ledger.origin == "prod.example/acme"
    assert (tmp_path / "safe" / "master.key").exists()
    assert not (tmp_path / "acme" / "keys").exists()


def test_the_name_given_must_be_the_one_that_the_ledger_has(tmp_path: Path) -> None:
    tallystick.open(tmp_path / "x", name="acme").close()

    with pytest.raises(ConflictError, match="named acme, not other"):
        tallystick.open(tmp_path / "x", name="other")
    tallystick.open(tmp_path / "x", name="acme").close()


@pytest.mark.parametrize("options", [{"create": False}, {"readonly": True}])
def test_a_ledger_that_is_not_there_is_not_found_and_not_made(folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(NotFoundError, match=str(folder)):
        tallystick.open(folder, **options)

    assert not folder.exists()


@pytest.mark.parametrize(
    "url",
    ["", "postgres://host/db", "s3://bucket/x", "http://host", "sqlite://", "sqlite:///", "sqlite://host/x"],
)
def test_a_place_that_is_none_is_refused_with_those_that_are(url: str) -> None:
    with pytest.raises(RejectedError) as caught:
        tallystick.open(url)

    assert "folder" in caught.value.cure


@pytest.mark.parametrize("name", ["a b", "a\n", "é", "a" * 201, "a" * 200, "/x"])
def test_a_name_that_cannot_be_is_refused_before_there_is_a_ledger(folder: Path, name: str) -> None:
    # 200 letters are a name, but "local/" before them makes an origin that is too long.
    with pytest.raises(RejectedError):
        tallystick.open(folder, name=name)

    with tallystick.open(folder, name="good") as ledger:
        assert ledger.size == 2


def test_opening_for_reading_needs_no_keys_and_changes_nothing(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        sealed = ledger.append(event(id="x"))
    shutil.rmtree(folder / "keys")
    before = {name: (folder / name).read_bytes() for name in ("ledger.db", "index.db")}

    with tallystick.open(folder, readonly=True) as ledger:
        assert ledger.get(2).hash == sealed.hash
        assert len([*ledger.read()]) == ledger.size == 3
        trust = Policy(logs=(ledger.verifier_key,))
        assert check_proof(ledger.prove(2).render(), ledger.get(2).line, trust).holds
        for attempt in (
            lambda: ledger.append(event()),
            ledger.change_epoch,
            lambda: ledger.rotate_key("evidence"),
        ):
            with pytest.raises(TallystickError):
                attempt()

    # SQLite may have left an empty write-ahead log beside them; the files themselves are as they were.
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_first_record_that_is_no_genesis_is_a_matter_for_the_alarm(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        good = ledger._store
        lines, head = lines_of(ledger), good.head()
        assert head is not None
        location, keystore = ledger._location, ledger._keystore
        for first in (lines[1], lines[0].replace(b'"retention":null', b'"retention":1'), b"{}"):
            store = MemoryStore()
            store.create(Batch(0, [first, *lines[1:]], []), head)

            with pytest.raises(TamperError, match="verif"):
                tallystick.Ledger(store, location=location, keystore=keystore)


# -------------------------------------------------------------------------------------------------- reading


def test_a_record_is_found_by_its_position_and_by_its_id(ledger: tallystick.Ledger) -> None:
    made, brought = ledger.append(event()), ledger.append(event(id="x"))

    for sealed in (made, brought):
        record = ledger.get(sealed.position)
        assert record == ledger.get(sealed.id)
        assert (record.hash, record.recorded_at, record.entity_version) == (
            sealed.hash,
            sealed.recorded_at,
            sealed.entity_version,
        )


@pytest.mark.parametrize("key", [-1, 2, 10**9, "", "no such id", "00000000-0000-8000-8000-000000000000"])
def test_what_is_not_there_is_not_found(ledger: tallystick.Ledger, key: Any) -> None:
    with pytest.raises(NotFoundError):
        ledger.get(key)


@pytest.mark.parametrize(
    ("first", "end", "expected"),
    [
        (0, None, range(12)),
        (5, None, range(5, 12)),
        (5, 8, range(5, 8)),
        (0, 0, range(0)),
        (11, 99, range(11, 12)),
        (12, None, range(0)),
        (99, None, range(0)),
        (8, 5, range(0)),
        (-3, 2, range(2)),
    ],
)
def test_a_range_is_half_open_and_ends_with_the_ledger(
    ledger: tallystick.Ledger, first: int, end: int | None, expected: range
) -> None:
    ledger.append_many([event() for _ in range(10)])

    assert [record.position for record in ledger.read(first, end)] == [*expected]


def test_a_reading_ends_where_the_ledger_did_when_it_began(ledger: tallystick.Ledger) -> None:
    reading = ledger.read()
    ledger.append(event())

    assert len([*reading]) == 2


def test_a_damaged_record_stops_a_reading_at_its_position(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        ledger.append_many([event(payload={"n": number}) for number in range(8)])
    connection = apsw.Connection(str(folder / "ledger.db"))
    connection.execute(
        "DROP TRIGGER record_no_update;"
        "UPDATE record SET bytes = CAST(replace(bytes, '\"n\":3', '\"n\":4') AS BLOB) WHERE position = 5"
    ).fetchall()
    connection.close()

    with tallystick.open(folder) as ledger:
        reading = ledger.read()
        assert [next(reading).position for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(TamperError, match="position 5"):
            next(reading)
        with pytest.raises(TamperError, match="position 5"):
            ledger.get(5)
        assert ledger.get(6).position == 6


# -------------------------------------------------------------------------------------------------- proving

SIZES: Final = (3, 4, 7, 8, 33, 255, 256, 257, 300, 513)


def test_every_record_is_proved_at_several_sizes_and_every_older_checkpoint_is_consistent(
    ledger: tallystick.Ledger,
) -> None:
    checkpoints: dict[int, bytes] = {2: ledger.checkpoint()}
    for size in SIZES:
        ledger.append_many([event(f"e{number % 3}") for number in range(size - ledger.size)])
        checkpoints[size] = ledger.checkpoint()
        lines = lines_of(ledger)
        root = naive.roots(lines, {size})[size]
        keys = [ledger.verifier_key]
        assert naive.checkpoint_of(ledger.checkpoint()) == (size, root)

        for position in range(0, size, max(1, size // 40)):
            proof = ledger.prove(position)
            checked = check_proof(proof.render(), lines[position], Policy(logs=tuple(keys)))
            assert checked.holds
            assert checked.checkpoint is not None
            assert checked.checkpoint.root == root
            assert not check_proof(proof.render(), lines[position - 1], Policy(logs=tuple(keys))).holds
        for old_size, note in checkpoints.items():
            old = open_checkpoint(note, keys, origin=ledger.origin)
            path = ledger.prove_consistency(old_size)
            assert verify_consistency(old_size, size, path=path, old_root=old.root, root=root)


@pytest.mark.parametrize("position", [-1, 2, 10**9])
def test_what_is_not_there_cannot_be_proved(ledger: tallystick.Ledger, position: int) -> None:
    with pytest.raises(NotFoundError):
        ledger.prove(position)


@pytest.mark.parametrize("old_size", [-1, 3, 10**9])
def test_a_size_that_was_never_there_cannot_be_proved_consistent(ledger: tallystick.Ledger, old_size: int) -> None:
    with pytest.raises(TallystickError):
        ledger.prove_consistency(old_size)


def test_tiles_hold_the_leaf_hashes(ledger: tallystick.Ledger) -> None:
    ledger.append_many([event() for _ in range(298)])
    leaves = [naive.sha256(b"\0" + line) for line in lines_of(ledger)]

    for index, width in ((0, 256), (0, 7), (1, 44), (1, 1)):
        first = 256 * index
        assert ledger.tile(0, index, width) == b"".join(leaves[first : first + width])
    assert ledger.tile(1, 0, 1) == naive.root(leaves[:256])
    assert tile_width(1, 0, size=300) == 1


# ------------------------------------------------------------------------------------------------ appending


def test_an_event_is_given_whole_or_as_members_but_not_both(ledger: tallystick.Ledger) -> None:
    whole = ledger.append(tallystick.Event(event_type="t", entity_id="e"))
    parts = ledger.append(event_type="t", entity_id="e")
    text = ledger.append(b'{"event_type":"t","entity_id":"e"}')

    assert [one.entity_version for one in (whole, parts, text)] == [1, 2, 3]
    with pytest.raises(RejectedError, match="both whole and as members"):
        ledger.append(event(), payload={})


def test_a_batch_is_sealed_whole_in_its_order_and_under_one_time(ledger: tallystick.Ledger) -> None:
    receipts = ledger.append_many(event(f"e{number % 2}") for number in range(7))

    assert [one.position for one in receipts] == [*range(2, 9)]
    assert [one.entity_version for one in receipts] == [1, 1, 2, 2, 3, 3, 4]
    assert len({one.recorded_at for one in receipts}) == 1
    assert [ledger.get(one.position).hash for one in receipts] == [one.hash for one in receipts]


def test_an_empty_batch_changes_nothing(ledger: tallystick.Ledger) -> None:
    before = ledger.checkpoint()

    assert [*ledger.append_many([])] == []
    assert ledger.checkpoint() == before


def test_a_bad_event_refuses_its_batch_and_is_named_by_its_number(ledger: tallystick.Ledger) -> None:
    with pytest.raises(RejectedError) as caught:
        ledger.append_many([event(), event(), event(payload=7)])

    assert caught.value.place == "event 2 /payload"
    assert ledger.size == 2


def test_the_largest_batch_is_taken_and_one_event_more_refused(ledger: tallystick.Ledger) -> None:
    ledger.append_many([event()] * BATCH_EVENTS_MAX)
    assert ledger.size == 2 + BATCH_EVENTS_MAX

    with pytest.raises(RejectedError, match=f"more than {BATCH_EVENTS_MAX:,}"):
        ledger.append_many([event()] * (BATCH_EVENTS_MAX + 1))
    assert ledger.size == 2 + BATCH_EVENTS_MAX


def test_a_batch_is_bounded_in_bytes(ledger: tallystick.Ledger) -> None:
    large = event(payload={"text": "x" * 60_000})
    count = BATCH_BYTES_MAX // 60_000
    refused = iter([large] * 2 * count)

    with pytest.raises(RejectedError, match="or 64 MiB, at once"):
        ledger.append_many(refused)
    assert len([*refused]) > count - 10, "it is not read to its end"
    assert ledger.size == 2
    ledger.append_many([large] * 100)
    assert ledger.size == 102


def test_the_principal_stands_behind_events_that_name_nobody(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "x", principal="service-7") as ledger:
        assert ledger.get(ledger.append(event()).position).actor == {"id": "service-7"}
        assert ledger.get(ledger.append(event(actor="jane")).position).actor == {"id": "jane"}


def test_a_receipt_says_what_the_record_says(ledger: tallystick.Ledger) -> None:
    sealed = ledger.append(event(payload={"a": 1}))

    members = json.loads(ledger.get(sealed.position).line)
    assert (sealed.id, sealed.entity_id) == (members["id"], members["entity_id"])
    assert (sealed.position, sealed.recorded_at) == (members["position"], members["recorded_at"])
    assert not sealed.replayed


def test_many_threads_append_and_read_one_linear_chain(ledger: tallystick.Ledger) -> None:
    threads, each = 8, 60
    receipts: list[list[tallystick.Sealed]] = [[] for _ in range(threads)]

    def work(number: int) -> None:
        for turn in range(each):
            one = event(f"shared-{turn % 3}", payload={"who": [number, turn]})
            if turn % 10 == 9:
                receipts[number] += ledger.append_many([one] * 5)
            else:
                receipts[number].append(ledger.append(one))
            sealed = receipts[number][-1]
            assert ledger.size > sealed.position
            assert ledger.get(sealed.position).hash == sealed.hash
            if turn % 7 == 0:
                assert ledger.get(sealed.id).position == sealed.position

    in_threads(threads, work)

    lines = lines_of(ledger)
    records = naive.read_chain(lines)
    naive.check_tree(lines, [ledger.checkpoint()])
    assert len(records) == 2 + sum(map(len, receipts))
    for number, mine in enumerate(receipts):
        assert [one.position for one in mine] == sorted(one.position for one in mine)
        assert all(records[one.position]["payload"]["who"][0] == number for one in mine)


def test_too_many_waiting_events_are_refused_as_busy_and_lose_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystick.write.sealer.WAITING_EVENTS_MAX", 4)
    reached, go_on = threading.Event(), threading.Event()
    with tallystick.open(folder) as ledger:
        ledger.append(event())
        commit = ledger._store.commit

        def slow(*arguments: Any, **how: Any) -> None:
            reached.set()
            assert go_on.wait(PATIENCE_SECONDS)
            commit(*arguments, **how)

        monkeypatch.setattr(ledger._store, "commit", slow)
        sealed: list[tallystick.Sealed] = []
        callers = [threading.Thread(target=lambda: sealed.append(ledger.append(event())), daemon=True)]
        callers[0].start()
        assert reached.wait(PATIENCE_SECONDS)
        for _ in range(4):
            callers.append(threading.Thread(target=lambda: sealed.append(ledger.append(event())), daemon=True))
            callers[-1].start()
        assert ledger._sealer is not None
        while len(ledger._sealer._group._waiting) < 4:
            threading.Event().wait(0.001)

        with pytest.raises(BusyError, match="wait a moment"):
            ledger.append(event())
        go_on.set()
        for caller in callers:
            caller.join(PATIENCE_SECONDS)

        assert sorted(one.position for one in sealed) == [*range(3, 8)]
        assert ledger.size == 8


# -------------------------------------------------------------------------------------------------- closing


def test_leaving_the_context_closes_and_closing_twice_is_harmless(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        ledger.append(event())
        ledger.close()
    ledger.close()

    with tallystick.open(folder) as again:
        assert again.size == 3


def test_a_ledger_is_closed_also_when_its_context_ends_in_an_error(folder: Path) -> None:
    ledger = tallystick.open(folder)

    def fail_within() -> None:
        with ledger:
            ledger.append(event())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_within()
    with pytest.raises(StoreError, match="closed"):
        ledger.append(event())


CALLS: Final[dict[str, Callable[[tallystick.Ledger], object]]] = {
    "append": lambda ledger: ledger.append(event()),
    "append_many": lambda ledger: ledger.append_many([event()]),
    "read": lambda ledger: [*ledger.read()],
    "get by position": lambda ledger: ledger.get(0),
    "get by id": lambda ledger: ledger.get("x"),
    "size": lambda ledger: ledger.size,
    "checkpoint": lambda ledger: ledger.checkpoint(),
    "prove": lambda ledger: ledger.prove(0),
    "prove_consistency": lambda ledger: ledger.prove_consistency(1),
    "tile": lambda ledger: ledger.tile(0, 0, 1),
    "verifier_key": lambda ledger: ledger.verifier_key,
    "evidence_key": lambda ledger: ledger.evidence_key,
    "change_epoch": lambda ledger: ledger.change_epoch(),
    "rotate_key": lambda ledger: ledger.rotate_key("checkpoint"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("used", [False, True], ids=["never used", "used"])
@pytest.mark.parametrize("url", ["memory:", "folder"])
def test_a_closed_ledger_refuses_every_call(
    folder: Path, url: str, used: bool, call: Callable[[tallystick.Ledger], object]
) -> None:
    ledger = tallystick.open(folder if url == "folder" else url)
    if used:
        ledger.append(event(id="x"))
    ledger.close()

    with pytest.raises(StoreError, match="closed"):
        call(ledger)


def test_a_ledger_in_memory_lives_as_long_as_it_is_open() -> None:
    with tallystick.open("memory:") as one, tallystick.open("memory:") as other:
        one.append(event())

        assert (one.size, other.size) == (3, 2)
        assert one.id != other.id
        assert check_proof(one.prove(2).render(), one.get(2).line, Policy(logs=(one.verifier_key,))).holds


def test_closing_waits_for_the_commit_that_is_under_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tallystick.open(folder)
    ledger.append(event())
    commit = ledger._store.commit
    reached = threading.Event()

    def slow(*arguments: Any, **how: Any) -> None:
        reached.set()
        threading.Event().wait(0.1)
        commit(*arguments, **how)

    monkeypatch.setattr(ledger._store, "commit", slow)
    sealed: list[tallystick.Sealed] = []
    caller = threading.Thread(target=lambda: sealed.append(ledger.append(event())), daemon=True)
    caller.start()
    assert reached.wait(PATIENCE_SECONDS)
    ledger.close()
    caller.join(PATIENCE_SECONDS)

    assert [one.position for one in sealed] == [3]
    with tallystick.open(folder) as again:
        assert again.size == 4
