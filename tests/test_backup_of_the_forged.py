"""A signed backup says what the ledger was: of one that was rolled back, or that somebody else signed, none is made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import tallystick
from tallystick import Ledger
from tallystick.backups.make import backup
from tallystick.backups.restore import check_backup
from tallystick.core.canonical import decode, encode
from tallystick.errors import TamperError
from tallystick.made_file import Made
from tests.forging import append_forged
from tests.tampering import line_at, replace_record

EVIL: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def events(count: int) -> list[dict[str, Any]]:
    return [{"event_type": "door.opened", "entity_id": f"door-{n % 5}"} for n in range(count)]


def opened(folder: Path) -> Ledger:
    return tallystick.open(folder / "data", keys=folder / "keys", name="shop")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with opened(tmp_path) as ledger:
        ledger.append_many(events(60))
        ledger.rotate_key("checkpoint")
    shutil.copytree(tmp_path / "data", tmp_path / "old")
    with opened(tmp_path) as ledger:
        ledger.append_many(events(20))
    return tmp_path


def roll_back(folder: Path) -> None:
    shutil.rmtree(folder / "data")
    shutil.copytree(folder / "old", folder / "data")


def forge(folder: Path) -> None:
    append_forged(folder / "data/ledger.db", events(1), EVIL)


def alter(folder: Path) -> None:
    log = folder / "data/ledger.db"
    replace_record(log, 20, encode({**decode(line_at(log, 20)), "payload": {"n": "FORGED"}}))


def replace_all(folder: Path) -> None:
    shutil.rmtree(folder / "data")
    with tallystick.open(folder / "data", keys=folder / "evilkeys", name="shop") as ledger:
        ledger.append_many(events(60))


@pytest.mark.parametrize("attack", [roll_back, forge, alter, replace_all])
def test_nothing_is_signed_that_does_not_hold(folder: Path, attack: Callable[[Path], None]) -> None:
    [mark] = (folder / "keys/heads").glob("*.head")
    before = mark.read_bytes()
    attack(folder)

    with pytest.raises(TamperError):
        backup(folder / "data", folder / "backup", keys=folder / "keys")

    assert not (folder / "backup").exists()
    assert not backup(folder / "data", folder / "backup", keys=folder / "keys", signed=False).signed
    assert [path.read_bytes() for path in (folder / "keys/heads").glob("*.head")] == [before]


def test_a_key_that_was_rotated_while_the_ledger_was_copied_is_no_finding(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy: Callable[..., Made] = tallystick.backups.make._copy_log

    def rotating(*given: Any) -> Made:
        made = copy(*given)
        with opened(folder) as ledger:
            ledger.rotate_key("checkpoint")
        return made

    monkeypatch.setattr("tallystick.backups.make._copy_log", rotating)

    assert backup(folder / "data", folder / "backup", keys=folder / "keys").signed
    assert check_backup(folder / "backup", keys=folder / "keys").holds
