"""The keys at rest: made once, for their owner alone, and rotated so that none can be lost."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

import tallystick
from tallystick.core.checked_proof import check_proof
from tallystick.core.policy import Policy
from tallystick.core.system import KeyRotated
from tallystick.errors import DeniedError, NotFoundError, RejectedError, StoreError, TallystickError
from tallystick.keystore import SIGNING_KEYS, Keystore
from tests import naive
from tests.crashing import abandon
from tests.threads import in_threads

FILES: Final = sorted(["master.key", *(f"{name}.key" for name in SIGNING_KEYS)])


@pytest.fixture
def keystore(tmp_path: Path) -> Keystore:
    keystore = Keystore(tmp_path / "keys")
    keystore.make()
    return keystore


def folder_of(keystore: Keystore) -> Path:
    assert keystore.folder is not None
    return keystore.folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


# ---------------------------------------------------------------------------------------------------- making


def test_keys_are_made_on_first_use_and_for_their_owner_alone(tmp_path: Path) -> None:
    keystore = Keystore(tmp_path / "some" / "where" / "keys")
    assert not keystore.exists()

    keystore.make()

    folder = folder_of(keystore)
    assert keystore.exists()
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert [path.name for path in folder.parent.iterdir()] == ["keys"]


def test_keys_that_are_there_are_never_made_again(keystore: Keystore) -> None:
    before = contents(folder_of(keystore))

    keystore.make()
    Keystore(keystore.folder).make()

    assert contents(folder_of(keystore)) == before


def test_no_two_keys_are_the_same(tmp_path: Path, keystore: Keystore) -> None:
    other = Keystore(tmp_path / "other")
    other.make()

    secrets = [*contents(folder_of(keystore)).values(), *contents(folder_of(other)).values()]

    assert len(set(secrets)) == 8


def test_the_keys_of_a_ledger_hang_on_its_name(keystore: Keystore) -> None:
    acme, other = keystore.ledger_keys("acme"), keystore.ledger_keys("other")

    assert acme.event_mac != other.event_mac
    assert keystore.ledger_keys("acme").event_mac == acme.event_mac
    assert public(acme.root) == public(other.root)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "letter.txt").write_text("Dear Ann")

    with pytest.raises(StoreError, match="could not make the keys"):
        Keystore(folder).make()

    assert contents(folder) == {"letter.txt": b"Dear Ann"}
    assert [*tmp_path.iterdir()] == [folder]


def test_several_makers_at_once_end_with_one_set_of_keys(tmp_path: Path) -> None:
    seen: list[dict[str, bytes]] = []

    def make(number: int) -> None:
        del number
        keystore = Keystore(tmp_path / "keys")
        keystore.make()
        seen.append(contents(folder_of(keystore)))

    in_threads(8, make)

    assert seen == [seen[0]] * 8
    assert sorted(seen[0]) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


OPEN_AND_APPEND: Final = """
import sys
import tallystick
print("ready", flush=True)
sys.stdin.readline()
with tallystick.open(sys.argv[1]) as ledger:
    for _ in range(5):
        ledger.append(event_type="t.t", entity_id="e")
    print(ledger.id.hex(), ledger.verifier_key.render())
"""


def test_several_processes_that_open_a_new_ledger_at_once_end_with_one_ledger_and_its_keys(
    tmp_path: Path,
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_APPEND, tmp_path / "ledger"],
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60) for process in processes]

    assert [errors for _, errors in told] == [""] * 4
    assert len({output for output, _ in told}) == 1
    with tallystick.open(tmp_path / "ledger") as ledger:
        assert ledger.size == 2 + 4 * 5
        ledger.append(event_type="t.t", entity_id="e")
        naive.read_chain([record.line for record in ledger.read()])


# ------------------------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o620, 0o601])
@pytest.mark.parametrize("name", FILES)
def test_a_key_that_others_may_use_is_refused_with_the_cure(keystore: Keystore, name: str, mode: int) -> None:
    path = folder_of(keystore) / name
    path.chmod(mode)

    with pytest.raises(DeniedError) as caught:
        keystore.ledger_keys("acme")

    assert f"{mode:04o}" in str(caught.value)
    assert f"chmod 600 {path}" in str(caught.value)
    path.chmod(0o600)
    keystore.ledger_keys("acme")


@pytest.mark.parametrize("mode", [0o400, 0o700])
def test_a_key_that_only_its_owner_may_use_is_read(keystore: Keystore, mode: int) -> None:
    (folder_of(keystore) / "root.key").chmod(mode)

    keystore.ledger_keys("acme")


@pytest.mark.parametrize("name", FILES)
def test_a_key_that_is_missing_is_one_clear_error(keystore: Keystore, name: str) -> None:
    (folder_of(keystore) / name).unlink()

    with pytest.raises(NotFoundError, match=name):
        keystore.ledger_keys("acme")


def encoded(key: Any, encryption: Any = None) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))


NO_KEYS: Final[dict[str, bytes]] = {
    "nothing": b"",
    "text": b"This is a letter.\n",
    "zeros": bytes(64),
    "random": bytes(range(256)),
    "too long": b"a" * 100_000,
    "half a file": encoded(Ed25519PrivateKey.generate())[:60],
    "another kind of key": encoded(generate_private_key(SECP256R1())),
    "a key behind a password": encoded(Ed25519PrivateKey.generate(), BestAvailableEncryption(b"secret")),
    "a public key": Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex().encode(),
}


@pytest.mark.parametrize("data", NO_KEYS.values(), ids=NO_KEYS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_holds_no_key_of_its_kind_is_one_clear_error(keystore: Keystore, name: str, data: bytes) -> None:
    # 64 hex digits are what a master key looks like; nobody can tell whether they are the right ones.
    if name == "master.key" and data == NO_KEYS["a public key"]:
        return
    (folder_of(keystore) / name).write_bytes(data)

    with pytest.raises(RejectedError) as caught:
        keystore.ledger_keys("acme")

    assert caught.value.place == str(folder_of(keystore) / name)
    assert "restore the file from a copy" in caught.value.cure


def test_an_error_never_shows_the_secret(keystore: Keystore) -> None:
    path = folder_of(keystore) / "master.key"
    path.write_bytes(b"abcdef0123456789" * 3)

    with pytest.raises(RejectedError) as caught:
        keystore.ledger_keys("acme")

    assert "abcdef" not in str(caught.value)


def test_a_folder_in_the_place_of_a_key_is_one_clear_error(keystore: Keystore) -> None:
    (folder_of(keystore) / "root.key").unlink()
    (folder_of(keystore) / "root.key").mkdir()

    with pytest.raises(StoreError, match="could not read the key"):
        keystore.ledger_keys("acme")


def test_wrong_keys_are_refused_before_anything_changes(tmp_path: Path) -> None:
    for name in ("ledger", "other"):
        with tallystick.open(tmp_path / name, name="same") as ledger:
            ledger.append(event_type="t.t", entity_id="e")

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "ledger").iterdir() if path.is_file()}

    before = files()
    for name in FILES:
        if name == "root.key":
            continue  # signed the genesis, and nothing since
        mixed = tmp_path / f"mixed-{name}"
        mixed.mkdir(mode=0o700)
        for file in FILES:
            source = "other" if file == name else "ledger"
            (mixed / file).write_bytes((tmp_path / source / "keys" / file).read_bytes())
            (mixed / file).chmod(0o600)
        with tallystick.open(tmp_path / "ledger", keys=mixed) as ledger:
            for _ in range(3):
                with pytest.raises(RejectedError, match="give the folder that holds this ledger's keys"):
                    ledger.append(event_type="t.t", entity_id="e")
            assert ledger.size == 3
        assert files()["ledger.db"] == before["ledger.db"]


# ------------------------------------------------------------------------------------------------- rotating


class CrashError(Exception):
    """The process ends here."""


def crashing(*_: Any, **__: Any) -> Any:
    raise CrashError


@pytest.fixture(params=["checkpoint", "evidence"])
def purpose(request: pytest.FixtureRequest) -> Any:
    return request.param


def in_force(ledger: tallystick.Ledger, purpose: str) -> bytes:
    return ledger.verifier_key.public_key if purpose == "checkpoint" else ledger.evidence_key


Step = Callable[[pytest.MonkeyPatch], None]

STEPS: Final[dict[str, tuple[Step, bool]]] = {
    # what crashes, and whether the ledger has heard of the new key by then
    "before the next key is written": (
        lambda patch: patch.setattr("tallystick.keystore._write", crashing),
        False,
    ),
    "before the ledger hears of it": (
        lambda patch: patch.setattr("tallystick.write.sealer.Sealer.rotate_key", crashing),
        False,
    ),
    "before it is committed": (
        lambda patch: patch.setattr("tallystick.store.sqlite.SqliteStore.commit", crashing),
        False,
    ),
    "before the next key is renamed": (
        lambda patch: patch.setattr("tallystick.ledger.Ledger._finish_rotations", crashing),
        True,
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_rotation_that_crashes_at_any_step_leaves_the_key_that_is_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, purpose: Any, step: str
) -> None:
    folder = tmp_path / "ledger"
    crash, reached = STEPS[step]
    ledger = tallystick.open(folder)
    ledger.append(event_type="t.t", entity_id="e")
    before = in_force(ledger, purpose)
    with monkeypatch.context() as patch:
        crash(patch)
        with pytest.raises(CrashError):
            ledger.rotate_key(purpose)
    abandon(ledger)

    # What was left behind is the old key or the new one, as the ledger says; appends and rotations go on.
    with tallystick.open(folder) as ledger:
        assert (in_force(ledger, purpose) != before) is reached
        ledger.append(event_type="t.t", entity_id="e")
        assert public(Keystore(folder / "keys").signing_key(purpose)) == in_force(ledger, purpose)
        now = in_force(ledger, purpose)
        ledger.rotate_key(purpose)
        ledger.append(event_type="t.t", entity_id="e")
        assert public(Keystore(folder / "keys").signing_key(purpose)) == in_force(ledger, purpose) != now
        rotations = [KeyRotated.of(one) for one in ledger.read() if one.event_type == "tallystick.key.rotated"]
        last = ledger.size - 1
        proof = ledger.prove(last)
        assert check_proof(proof.render(), ledger.get(last).line, Policy(logs=(ledger.verifier_key,))).holds

    assert len(rotations) == 1 + reached
    for rotated in rotations:
        assert rotated.signatures_hold()
        assert rotated.old_key == before
        before = rotated.new_key


def test_a_key_that_came_into_force_unnoticed_survives_the_next_rotation(tmp_path: Path, purpose: Any) -> None:
    # Given a rotation that was committed while its caller saw a failure.
    keystore = Keystore(tmp_path / "keys")
    keystore.make()
    first = keystore.begin_rotation(purpose)

    second = keystore.begin_rotation(purpose)

    keystore.finish_rotation(purpose, in_force=public(first))
    assert public(keystore.signing_key(purpose)) == public(first)
    keystore.finish_rotation(purpose, in_force=public(second))
    assert public(keystore.signing_key(purpose)) == public(second)


def test_a_next_key_that_is_not_in_force_changes_nothing(tmp_path: Path, purpose: Any) -> None:
    keystore = Keystore(tmp_path / "keys")
    keystore.make()
    present = public(keystore.signing_key(purpose))
    keystore.begin_rotation(purpose)

    keystore.finish_rotation(purpose, in_force=present)
    keystore.finish_rotation(purpose, in_force=bytes(32))

    assert public(keystore.signing_key(purpose)) == present


def test_a_next_key_is_its_owners_alone_and_then_takes_the_place_of_the_old_one(tmp_path: Path, purpose: Any) -> None:
    keystore = Keystore(tmp_path / "keys")
    keystore.make()

    new = keystore.begin_rotation(purpose)
    (path,) = folder_of(keystore).glob(f"{purpose}.next*")
    mode = stat.S_IMODE(path.stat().st_mode)
    keystore.finish_rotation(purpose, in_force=public(new))

    assert mode == 0o600
    assert public(keystore.signing_key(purpose)) == public(new)
    assert sorted(path.name for path in folder_of(keystore).iterdir()) == FILES


def test_many_finish_one_rotation_at_once(tmp_path: Path, purpose: Any) -> None:
    keystore = Keystore(tmp_path / "keys")
    keystore.make()
    for _ in range(10):
        new = keystore.begin_rotation(purpose)
        stores = [Keystore(keystore.folder) for _ in range(4)] + [keystore] * 4

        in_threads(8, lambda number: stores[number].finish_rotation(purpose, in_force=public(new)))  # noqa: B023

        assert public(keystore.signing_key(purpose)) == public(new)


def test_keys_in_memory_are_made_and_rotated_as_those_on_disk(purpose: Any) -> None:
    keystore = Keystore(None)
    assert keystore.exists()
    keystore.make()
    old = public(keystore.signing_key(purpose))

    new = keystore.begin_rotation(purpose)
    assert public(keystore.signing_key(purpose)) == old
    keystore.finish_rotation(purpose, in_force=public(new))
    keystore.finish_rotation(purpose, in_force=public(new))

    assert public(keystore.signing_key(purpose)) == public(new)
    assert keystore.ledger_keys("acme").event_mac == keystore.ledger_keys("acme").event_mac


def test_threads_that_rotate_and_append_at_once_leave_a_ledger_with_its_keys(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:

        def work(number: int) -> None:
            for _ in range(8):
                if number == 0:
                    ledger.rotate_key("checkpoint")
                elif number == 1:
                    ledger.rotate_key("evidence")
                else:
                    ledger.append(event_type="t.t", entity_id=f"e{number}")

        in_threads(5, work)
        naive.read_chain([record.line for record in ledger.read()])
        for purpose in ("checkpoint", "evidence"):
            assert public(Keystore(tmp_path / "ledger" / "keys").signing_key(purpose)) == in_force(ledger, purpose)
        assert ledger.size == 2 + 5 * 8


def test_every_error_is_of_a_family(tmp_path: Path) -> None:
    with pytest.raises(TallystickError):
        Keystore(tmp_path / "none").ledger_keys("acme")
    with pytest.raises(TallystickError):
        Keystore(tmp_path / "none").begin_rotation("checkpoint")
