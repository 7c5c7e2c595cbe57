"""A key of the ledger is one that the genesis leads to: the word of the file's head for it is only where to look.

The attacker can write the file of the log, has no keys of the ledger, and makes some of his own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import tallystick
from tallystick import Ledger
from tallystick.config import Location
from tallystick.core.system import Purpose
from tallystick.errors import RejectedError, TamperError
from tallystick.evidence.controls.assessment import assess
from tallystick.evidence.controls.catalogue import load as load_catalogue
from tallystick.evidence.tiles import write_tile_tree
from tallystick.govern.head import check_head
from tests.forging import append_forged, put_rotation
from tests.tampering import edit

EVIL: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FORGED: Final = [{"event_type": "user.created", "entity_id": "mallory"}]


def events(count: int) -> list[dict[str, Any]]:
    return [{"event_type": "door.opened", "entity_id": f"door-{n % 5}", "actor": "jane"} for n in range(count)]


def opened(folder: Path, *, keys: str = "keys", **how: Any) -> Ledger:
    return tallystick.open(folder / "data", keys=folder / keys, create=False, **how)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tallystick.open(tmp_path / "data", keys=tmp_path / "keys", name="shop") as ledger:
        ledger.append_many(events(60))
    return tmp_path


def occurred(ledger: Ledger, folder: Path) -> object:
    del folder
    control = next(one for one in load_catalogue().controls if one.key == "SOC2/CC6.2")
    return assess(ledger, control, occurred=True).count


def proven(ledger: Ledger, folder: Path) -> object:
    del folder
    with ledger.proven() as seen:
        return seen.count(entity_id="mallory")


Leaves = Callable[[Ledger, Path], object]
LEAVES: Final[dict[str, Leaves]] = {
    "the verifier key": lambda ledger, _: ledger.verifier_key,
    "the evidence key": lambda ledger, _: ledger.evidence_key,
    "where a key was named": lambda ledger, _: ledger.key_named_at("evidence"),
    "the checkpoint": lambda ledger, _: ledger.checkpoint(),
    "a proof": lambda ledger, _: ledger.prove(20),
    "the tiles": lambda ledger, folder: write_tile_tree(ledger, folder / "tiles"),
    "an assessment by occurred time": occurred,
    "an answer that serves as evidence": proven,
}
WHO: Final[dict[str, dict[str, Any]]] = {
    "the writer": {},
    "a reader with the keys": {"readonly": True},
    "a reader without": {"readonly": True, "keys": "none"},
}
leaves = pytest.mark.parametrize("leaves", [pytest.param(ask, id=name) for name, ask in LEAVES.items()])
who = pytest.mark.parametrize("who", [pytest.param(how, id=name) for name, how in WHO.items()])


@leaves
@who
def test_a_key_that_nobody_named_vouches_for_nothing(folder: Path, leaves: Leaves, who: dict[str, Any]) -> None:
    append_forged(folder / "data/ledger.db", FORGED, EVIL)

    with opened(folder, **who) as ledger, pytest.raises(TamperError, match="does not come from the one in the genesis"):
        leaves(ledger, folder)


@pytest.mark.parametrize("purpose", ["checkpoint", "evidence"])
@leaves
@who
def test_a_record_that_was_made_a_rotation_names_no_key(
    folder: Path, leaves: Leaves, who: dict[str, Any], purpose: Purpose
) -> None:
    put_rotation(folder / "data/ledger.db", 20, purpose, EVIL)
    edit(folder / "data/ledger.db", f"UPDATE head SET {purpose}_key_at = 20")

    with opened(folder, **who) as ledger, pytest.raises(TamperError):
        leaves(ledger, folder)


@leaves
def test_another_ledger_in_the_place_of_this_one_is_not_this_one(folder: Path, leaves: Leaves) -> None:
    with tallystick.open(folder / "evil", keys=folder / "evilkeys", name="shop") as ledger:
        ledger.append_many(events(60))
    shutil.rmtree(folder / "data")
    shutil.copytree(folder / "evil", folder / "data")

    with opened(folder, readonly=True) as ledger, pytest.raises(TamperError, match="another root key"):
        leaves(ledger, folder)


def test_who_has_another_ledgers_keys_is_not_told_of_a_mark(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tallystick.open(folder / "other", keys=folder / "otherkeys"):
        pass

    opened(folder, keys="otherkeys", readonly=True).close()

    assert "are not those of this ledger" in caplog.text
    assert "rollback" not in caplog.text


@leaves
@pytest.mark.parametrize("purpose", ["checkpoint", "evidence"])
@who
def test_a_key_that_was_rotated_and_rotated_again_is_followed(
    folder: Path, leaves: Leaves, who: dict[str, Any], purpose: Purpose
) -> None:
    for _ in range(3):
        with opened(folder) as ledger:
            ledger.rotate_key(purpose)
            ledger.append_many(events(10))
            named, keys = ledger.key_named_at(purpose), (ledger.verifier_key, ledger.evidence_key)

    with opened(folder, **who) as ledger:
        leaves(ledger, folder)
        assert ledger.key_named_at(purpose) == named
        assert (ledger.verifier_key, ledger.evidence_key) == keys


@who
@pytest.mark.parametrize("back", [0, 1])
def test_a_retired_evidence_key_is_not_handed_out(folder: Path, who: dict[str, Any], back: int) -> None:
    named = [0]
    for _ in range(2):
        with opened(folder) as ledger:
            ledger.rotate_key("evidence")
            ledger.append_many(events(10))
            named.append(ledger.key_named_at("evidence"))
    edit(folder / "data/ledger.db", "UPDATE head SET evidence_key_at = ?", named[back])

    with opened(folder, **who) as ledger, pytest.raises(TamperError, match=f"replaced at position {named[back + 1]}"):
        _ = ledger.evidence_key


def test_a_rotation_in_the_middle_that_was_altered_is_found(folder: Path) -> None:
    with opened(folder) as ledger:
        ledger.rotate_key("evidence")
        named = ledger.key_named_at("evidence")
        ledger.append_many(events(300))
        ledger.rotate_key("evidence")
    put_rotation(folder / "data/ledger.db", named, "evidence", EVIL)

    with opened(folder, keys="none") as ledger, pytest.raises(TamperError, match=f"position {named} is not the one"):
        _ = ledger.evidence_key


def test_keys_from_before_a_rotation_are_not_the_ones_in_force(folder: Path) -> None:
    shutil.copytree(folder / "keys", folder / "oldkeys")
    with opened(folder) as ledger:
        ledger.rotate_key("checkpoint")

    with opened(folder, keys="oldkeys", readonly=True) as ledger, pytest.raises(RejectedError, match="not the one in"):
        ledger.checkpoint()
    with opened(folder, keys="oldkeys") as ledger, pytest.raises(RejectedError, match="not the one in force"):
        ledger.append(events(1)[0])


def test_a_reader_follows_a_rotation_of_another_process(folder: Path) -> None:
    with opened(folder, readonly=True) as reader, opened(folder) as writer:
        for purpose in ("checkpoint", "evidence", "checkpoint"):
            assert reader.checkpoint() == writer.checkpoint()
            writer.rotate_key(purpose)
            assert reader.verifier_key == writer.verifier_key
            assert reader.evidence_key == writer.evidence_key


def test_a_rotation_that_a_crash_left_half_done_holds_for_readers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as ledger, monkeypatch.context() as patch:
        patch.setattr(Ledger, "_finish_rotations", lambda _: None)
        ledger._open_sealer().rotate_key("checkpoint", ledger._keystore.begin_rotation("checkpoint"))

    with opened(folder, readonly=True) as ledger:
        assert ledger.checkpoint()
    with opened(folder) as ledger:
        ledger.append(events(1)[0])


def test_a_made_up_checkpoint_moves_no_mark(folder: Path) -> None:
    [mark] = (folder / "keys/heads").glob("*.head")
    before = mark.read_bytes()
    shutil.copytree(folder / "data", folder / "good")
    append_forged(folder / "data/ledger.db", FORGED, EVIL)
    with opened(folder, readonly=True) as ledger, pytest.raises(TamperError):
        ledger.checkpoint()

    assert mark.read_bytes() == before
    shutil.rmtree(folder / "data")
    (folder / "good").rename(folder / "data")
    with opened(folder) as ledger:
        ledger.append(events(1)[0])


def test_an_append_to_a_made_up_head_is_refused_as_tampering(folder: Path) -> None:
    append_forged(folder / "data/ledger.db", FORGED, EVIL)

    with opened(folder) as ledger, pytest.raises(TamperError, match="genesis"):
        ledger.append(events(1)[0])


@pytest.mark.parametrize("what", ["altered", "elsewhere", "said to be pruned"])
def test_the_mark_is_asked_whatever_stands_where_the_epoch_began(folder: Path, what: str) -> None:
    log = folder / "data/ledger.db"
    if what == "elsewhere":
        edit(log, "UPDATE head SET epoch_at = 20")
    elif what == "altered":
        put_rotation(log, 1, "evidence", EVIL)
    else:
        edit(log, "DELETE FROM record WHERE position = 1")
        edit(log, "INSERT INTO pruned VALUES (1, 2)")

    with opened(folder, readonly=True) as ledger:
        assert ledger.mark_problem is not None
        with pytest.raises(TamperError):
            ledger.checkpoint()


def test_a_verification_of_a_part_follows_the_keys_to_the_genesis(folder: Path) -> None:
    with opened(folder) as ledger:
        ledger.rotate_key("checkpoint")
        ledger.rotate_key("checkpoint")
        ledger.append_many(events(500))
    assert tallystick.verify(folder / "data", keys=folder / "keys", first=260, index=False).holds
    append_forged(folder / "data/ledger.db", FORGED, EVIL)

    report = tallystick.verify(folder / "data", keys=folder / "keys", first=260, end=270, index=False)

    assert [str(finding.kind) for finding in report.findings] == ["key-rotation"], report.findings


def test_nothing_is_pruned_under_a_key_that_nobody_named(folder: Path) -> None:
    append_forged(folder / "data/ledger.db", FORGED, EVIL)
    store = Location.parse(folder / "data").open_store(readonly=True)

    with pytest.raises(TamperError, match="does not come from the one in the genesis"):
        check_head(store)
    store.close()
