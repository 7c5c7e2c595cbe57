"""Proofs, tiles and single records are checked against the signed root before they leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import tallystick
from tallystick import Ledger
from tallystick.core.canonical import decode, encode
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.custody import RetentionPolicy
from tallystick.core.merkle import verify_consistency
from tallystick.errors import NotFoundError, TamperError
from tallystick.evidence.controls.assessment import assess
from tallystick.evidence.controls.catalogue import load as load_catalogue
from tallystick.store.contract import Head
from tests.tampering import edit, line_at, replace_record

DAY: Final = 86_400_000_000
NOW: Final = 1_780_000_000_000_000
ALTERED: Final = 20


def events(count: int) -> list[dict[str, Any]]:
    return [{"event_type": "door.opened", "entity_id": f"door-{n % 5}", "payload": {"n": n}} for n in range(count)]


def opened(folder: Path, *, days_ago: int = 0, **how: Any) -> Ledger:
    return tallystick.open(folder / "data", keys=folder / "keys", clock=lambda: NOW - days_ago * DAY, **how)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with opened(tmp_path) as ledger:
        ledger.append_many(events(600))
    return tmp_path


def alter_record(log: Path) -> None:
    replace_record(log, ALTERED, encode({**decode(line_at(log, ALTERED)), "payload": {"n": "FORGED"}}))


def alter_tile(log: Path, index: int = 0) -> None:
    edit(log, "UPDATE tile SET hashes = CAST(zeroblob(32) || substr(hashes, 33) AS BLOB) WHERE rowid = ?", index)


def say_pruned(log: Path) -> None:
    edit(log, "DELETE FROM record WHERE position = ?", ALTERED)
    edit(log, "INSERT INTO pruned VALUES (1, 30)")


GIVEN: Final[dict[str, Callable[[Ledger], object]]] = {
    "a record": lambda ledger: ledger.get_checked(ALTERED),
    "a record and its proof": lambda ledger: ledger.get_proven(ALTERED),
    "a proof": lambda ledger: ledger.prove(ALTERED),
    "a proof of its neighbour": lambda ledger: ledger.prove(ALTERED + 1),
    "a tile": lambda ledger: ledger.tile(0, 0, 256),
    "a part of a tile": lambda ledger: ledger.tile(0, 0, 30),
    "a consistency proof": lambda ledger: ledger.prove_consistency(ALTERED, 100),
}


@pytest.mark.parametrize("given", [*GIVEN])
def test_no_proof_leaves_a_tile_that_was_altered(folder: Path, given: str) -> None:
    alter_tile(folder / "data/ledger.db")

    with opened(folder, readonly=True) as ledger, pytest.raises(TamperError, match="hash tile 0/0 is not the one in"):
        GIVEN[given](ledger)


@pytest.mark.parametrize("given", ["a record", "a record and its proof"])
@pytest.mark.parametrize("attack", [alter_record, say_pruned])
def test_a_record_that_was_altered_or_removed_is_not_given(
    folder: Path, given: str, attack: Callable[[Path], None]
) -> None:
    attack(folder / "data/ledger.db")

    with opened(folder, readonly=True) as ledger, pytest.raises(TamperError, match=f"position {ALTERED} is"):
        GIVEN[given](ledger)


def test_a_record_that_was_lawfully_pruned_is_said_to_be(tmp_path: Path) -> None:
    with opened(tmp_path, days_ago=20) as ledger:
        ledger.append_many(events(300))
        ledger.retention.set(RetentionPolicy.of("5d"))
        assert not ledger.is_pruned
    with opened(tmp_path) as ledger:
        ledger.append_many(events(10))
        assert ledger.get_proven(20)[1].index == 20
        ledger.retention.prune()
        for _ in range(2):
            with pytest.raises(NotFoundError, match="was pruned"):
                ledger.get_proven(20)
            ledger.append_many(events(1))
        assert ledger.is_pruned
        assert ledger.get_checked(ledger.size - 1).line


def test_a_prune_that_came_after_the_head_was_read_is_no_tampering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, days_ago=20) as ledger:
        ledger.append_many(events(300))
        ledger.retention.set(RetentionPolicy.of("5d"))
    with opened(tmp_path) as reader, opened(tmp_path) as ledger:
        before = reader._head()
        ledger.retention.prune()
        heads = iter([before])
        now: Callable[[Ledger], Head] = Ledger._head
        monkeypatch.setattr(Ledger, "_head", lambda it: next(heads, None) or now(it))
        with pytest.raises(NotFoundError, match="was pruned"):
            reader.get_proven(20)


def test_a_row_that_says_pruned_makes_no_prune(folder: Path) -> None:
    edit(folder / "data/ledger.db", "INSERT INTO pruned VALUES (1, 1)")
    control = next(one for one in load_catalogue().controls if one.key == "SOC2/CC6.2")

    with opened(folder, readonly=True) as ledger:
        assert not ledger.is_pruned
        assert not any("removed" in remark for remark in assess(ledger, control).remarks)
        with ledger.proven() as proven:
            assert not proven.is_pruned


def test_proofs_of_earlier_sizes_hold(folder: Path) -> None:
    with opened(folder) as ledger:
        old = Checkpoint.of_note(ledger.checkpoint())
        ledger.append_many(events(700))
        new = Checkpoint.of_note(ledger.checkpoint())
        ledger.append_many(events(5))

        path = ledger.prove_consistency(old.size, new.size)

        assert verify_consistency(old.size, new.size, path=path, old_root=old.root, root=new.root)
        with pytest.raises(NotFoundError, match="has no tile"):
            ledger.tile(0, ledger.size // 256, 255)
        with pytest.raises(NotFoundError, match="has no tile"):
            ledger.tile(3, 0, 1)


def test_a_tile_that_was_altered_is_not_told_as_another_history(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.append_many(events(300))
    [mark] = (tmp_path / "keys/heads").glob("*.head")
    behind = mark.read_bytes()
    with opened(tmp_path) as ledger:
        ledger.append_many(events(300))
    mark.write_bytes(behind)  # as after a crash
    alter_tile(tmp_path / "data/ledger.db", 1)

    with opened(tmp_path) as ledger:
        assert ledger.mark_problem is not None
        assert ledger.mark_problem.kind == "unreadable"
        assert "hash tile 0/1" in ledger.mark_problem.text
        with pytest.raises(TamperError, match="hash tile 0/1"):
            ledger.append(events(1)[0])
