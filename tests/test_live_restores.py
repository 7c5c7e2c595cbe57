"""Files that are replaced while a backup is checked or restored, by whoever can write where that is done.

The backup is his, too: he alters it, and signs it with a key of his own. What he has not are the keys of the ledger.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import tallystick
from tallystick.backups import restore as restoring
from tallystick.backups.manifest import BackupManifest, KeptFile
from tallystick.backups.restore import Restored
from tallystick.core.canonical import decode, encode
from tallystick.core.record import KEY_ROTATED
from tallystick.core.sshsig import BACKUP_NAMESPACE, sign_file
from tallystick.core.system import SYSTEM_ENTITY, KeyRotated
from tallystick.deployment import Deployment
from tallystick.errors import NotFoundError
from tallystick.evidence.findings import Kind
from tallystick.keystore import Keystore
from tallystick.write.queue import Queue
from tallystick.write.queue_mark import read_mark
from tests.tampering import edit, line_at, replace_record
from tests.test_live_backups import begin_deployment
from tests.test_live_edits import before

ACTOR: Final = {"id": "the-tests"}
EVIL: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


class Scene:
    """Two backups of a ledger: of one event that waits, and of five. Its keys are on a machine without marks."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        with tallystick.open(folder / "l", keys=self.keys, name="l") as ledger:
            ledger.append_many([{"event_type": "t.happened", "entity_id": f"e-{n % 5}"} for n in range(60)])
        self.publish(1, monkeypatch)
        self.older = self.backup("older")
        self.publish(4, monkeypatch)
        self.newer = self.backup("newer")
        self.elsewhere = folder / "elsewhere"
        shutil.copytree(self.keys, self.elsewhere, ignore=shutil.ignore_patterns("heads"))

    def publish(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as held:
            held.setattr(Queue, "_drain", lambda _: None)
            ledger = tallystick.open(self.folder / "l", keys=self.keys)
            for _ in range(count):
                ledger.publish(event_type="t.happened", entity_id="waits")
            ledger.queue._stopping = True
            ledger.close()

    def backup(self, name: str) -> Path:
        return tallystick.backup(self.folder / "l", self.folder / name, keys=self.keys).path

    def restore(self, backup: Path, **more: Any) -> Restored:
        return tallystick.restore(backup, self.folder / "back", keys=self.elsewhere, **more)

    @property
    def room(self) -> Path:
        """Where the copy lies while it is verified."""
        [scratch] = self.folder.glob(".back-*")
        return scratch / "restored"

    def sign(self, backup: Path, key: Ed25519PrivateKey | None) -> None:
        """Have the manifest fit the files, and sign it with another key."""
        manifest = BackupManifest.parse((backup / "backup.json").read_bytes())
        files = [path for path in backup.rglob("*") if path.is_file() and not path.name.startswith("backup.json")]
        kept = [
            KeptFile(path.relative_to(backup).as_posix(), len(data), sha256(data).digest())
            for path, data in ((path, path.read_bytes()) for path in files)
        ]
        sign_again(backup, replace(manifest, files=tuple(sorted(kept, key=lambda file: file.name))), key)

    def put_older_queue(self, folder: Path) -> None:
        shutil.rmtree(folder / "queue")
        shutil.copytree(self.older / "queue", folder / "queue")


def sign_again(backup: Path, manifest: BackupManifest, key: Ed25519PrivateKey | None) -> None:
    manifest = replace(manifest, signer=None if key is None else key.public_key().public_bytes_raw())
    (backup / "backup.json").write_bytes(manifest.render())
    (backup / "backup.json.sig").unlink(missing_ok=True)
    if key is not None:
        (backup / "backup.json.sig").write_bytes(sign_file(manifest.render(), key, namespace=BACKUP_NAMESPACE))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


# ------------------------------------------------------------------------------------------------------ who signed


def name_the_evil_key(log: Path) -> None:
    """Have the log say that the evidence key is another one, by a rotation that its new key alone signed."""
    members: dict[str, Any] = decode(line_at(log, 50))
    rotated = KeyRotated.sign("evidence", ledger="l", old=EVIL, new=EVIL)
    own: dict[str, Any] = decode(line_at(log, 1))
    members.update(event_type=KEY_ROTATED, entity_id=SYSTEM_ENTITY, actor=own["actor"], payload=rotated.payload())
    replace_record(log, 50, encode(members))
    edit(log, "UPDATE head SET evidence_key_at = 50")


@pytest.mark.parametrize("check", [False, True], ids=["restore", "check"])
def test_who_signed_is_asked_of_what_was_verified(scene: Scene, monkeypatch: pytest.MonkeyPatch, check: bool) -> None:
    scene.put_older_queue(scene.newer)
    scene.sign(scene.newer, EVIL)

    before(
        monkeypatch,
        restoring,
        "judge_signer",
        lambda: name_the_evil_key((scene.newer if check else scene.room) / "ledger.db"),
    )
    restored = tallystick.check_backup(scene.newer, keys=scene.elsewhere) if check else scene.restore(scene.newer)

    assert "it was signed by another key than the evidence key of l" in [one.seen for one in restored.findings]
    assert not (scene.folder / "back").exists()


def test_what_a_signer_was_when_it_was_rotated_is_proven_without_the_key_at_hand(scene: Scene) -> None:
    with tallystick.open(scene.folder / "l", keys=scene.keys) as ledger:
        ledger.rotate_key("evidence")
        ledger.queue.drain(seconds=20)
    rotated = scene.backup("rotated")
    with tallystick.open(scene.folder / "l", keys=scene.keys) as ledger:
        ledger.rotate_key("evidence")

    assert tallystick.check_backup(rotated, keys=scene.keys).holds
    assert tallystick.check_backup(rotated).holds

    manifest = BackupManifest.parse((rotated / "backup.json").read_bytes())
    sign_again(rotated, manifest, Keystore(scene.elsewhere).signing_key("evidence"))
    assert [one.kind for one in tallystick.check_backup(rotated, keys=scene.keys).findings] == [Kind.SEAL], (
        "a retired key"
    )


# --------------------------------------------------------------------------------------- what is restored is what was


@pytest.mark.parametrize("when", ["judge_signer", "judge_whole"])
@pytest.mark.parametrize("what", ["an older queue", "a byte of the log", "a link", "nothing"])
def test_what_was_verified_is_what_is_restored(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, when: str, what: str
) -> None:
    def alter() -> None:
        if what == "an older queue":
            scene.put_older_queue(scene.room)
        elif what == "a byte of the log":
            with (scene.room / "ledger.db").open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"?")
        else:
            (scene.room / "queue/mark").unlink()
            if what == "a link":
                (scene.room / "queue/mark").symlink_to(scene.newer / "queue/mark")

    before(monkeypatch, restoring, when, alter)
    restored = scene.restore(scene.newer)
    monkeypatch.undo()

    assert {one.kind for one in restored.findings} == {Kind.BACKUP}
    assert all("it was altered while it was verified" in one.seen for one in restored.findings)
    assert not (scene.folder / "back").exists()
    assert scene.restore(scene.newer).holds


def test_the_mark_that_a_loss_installs_is_the_one_that_was_checked(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one is authentic, too; where it counts, the events past it are forgotten without a word."""
    with tallystick.open(scene.folder / "l", keys=scene.keys) as ledger:
        ledger.queue.drain(seconds=20)
        ledger.publish(event_type="t.happened", entity_id="lost")
        ledger.queue.drain(seconds=20)
        mark, key = ledger.queue_mark, Keystore(scene.keys).ledger_keys("l").queue_mac
    assert mark is not None
    wanted, present = read_mark(scene.newer / "queue/mark", key=key).newest, read_mark(mark, key=key).newest
    assert wanted is not None
    assert present is not None
    assert present.sequence > wanted.sequence

    before(monkeypatch, restoring, "record_loss", lambda: scene.put_older_queue(scene.room))
    restored = tallystick.restore(
        scene.newer, scene.folder / "back", keys=scene.keys, accept_loss="the disk died", actor=ACTOR
    )
    assert restored.holds
    installed = read_mark(mark, key=key).newest
    assert installed is not None
    assert (installed.sequence, installed.link) == (wanted.sequence, wanted.link)


def test_a_pipe_in_the_place_of_a_backup_is_none(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(scene.folder / "pipe.tar")
    with pytest.raises(NotFoundError, match="there is no backup"):
        tallystick.check_backup(scene.folder / "pipe.tar")
    monkeypatch.setattr(Path, "is_file", lambda _: True)  # as it was a moment before
    with pytest.raises(NotFoundError, match="there is no backup"):
        tallystick.check_backup(scene.folder / "pipe.tar")


# ------------------------------------------------------------------------------------------- a tenant is missing


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A deployment, and a backup of it; one of its three tenants was never used."""
    begin_deployment(tmp_path)
    tallystick.backup(tmp_path / "d", tmp_path / "made", keys=tmp_path / "keys")
    return tmp_path


def leave_out(backup: Path, folder: str, *, say_so: bool) -> None:
    """Take a ledger out of a backup; nobody signs that."""
    shutil.rmtree(backup / folder)
    manifest = BackupManifest.parse((backup / "backup.json").read_bytes())
    unbegun = {*manifest.unbegun, folder} if say_so else {*manifest.unbegun}
    manifest = replace(
        manifest,
        ledgers=tuple(one for one in manifest.ledgers if one.folder != folder),
        files=tuple(one for one in manifest.files if not one.name.startswith(f"{folder}/")),
        unbegun=tuple(sorted(unbegun)),
    )
    sign_again(backup, manifest, None)


@pytest.mark.parametrize("say_so", [False, True], ids=["left out", "said not to be begun"])
def test_a_tenant_that_was_begun_is_missed(service: Path, say_so: bool) -> None:
    manifest = BackupManifest.parse((service / "made/backup.json").read_bytes())
    assert manifest.unbegun == ("access/acme", "access/default", "access/idle", "tenants/idle")
    leave_out(service / "made", "tenants/acme", say_so=say_so)

    for restored in (
        tallystick.check_backup(service / "made", keys=service / "keys", signed=False),
        tallystick.restore(service / "made", service / "back", keys=service / "keys", signed=False),
    ):
        [found] = restored.findings
        assert (found.place, found.kind) == ("tenants/acme", Kind.BACKUP)
        assert "it is not in the backup" in found.seen
    assert not (service / "back").exists()
    without_keys = tallystick.check_backup(service / "made", signed=False)
    assert without_keys.holds == say_so, "nothing but the keys tells who was begun, where nobody signed it"


def test_a_tenant_that_was_begun_since_is_lost_and_no_fault_of_the_backup(service: Path, tmp_path: Path) -> None:
    with Deployment(service / "d", keys=service / "keys") as deployment, deployment.ledger("idle") as ledger:
        ledger.append(event_type="t.happened", entity_id="e")

    assert tallystick.check_backup(service / "made", keys=service / "keys").holds
    restored = tallystick.restore(service / "made", service / "back", keys=service / "keys")
    assert [(one.place, one.kind) for one in restored.findings] == [("tenants/idle", Kind.ROLLBACK)]
    restore: Callable[..., Restored] = tallystick.restore
    assert restore(service / "made", service / "look", keys=service / "keys", marks=tmp_path / "none").holds
    assert restore(service / "made", service / "back", keys=service / "keys", accept_loss="the disk died").holds


def test_a_system_ledger_that_is_altered_after_it_was_verified_hides_nobody(
    service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(service / "made", "tenants/acme", say_so=False)

    def alter() -> None:
        [scratch] = service.glob(".back-*")
        log = scratch / "restored/system/ledger.db"
        for position in range(2, 20):
            line = line_at(log, position)
            if b'"entity_id":"tenant:acme"' in line:
                replace_record(log, position, line.replace(b"tenant.created", b"tenant.renamed"))
                return
        raise AssertionError("it is there")

    before(monkeypatch, restoring, "judge_whole", alter)
    restored = tallystick.restore(service / "made", service / "back", keys=service / "keys", signed=False)
    assert [(one.place, one.kind) for one in restored.findings] == [("system", Kind.UNREADABLE)]


def test_a_manifest_says_once_and_in_order_what_was_not_begun(service: Path) -> None:
    manifest = BackupManifest.parse((service / "made/backup.json").read_bytes())
    for unbegun in (("tenants/idle", "access/idle"), ("tenants/idle", "tenants/idle"), ("tenants/acme",), ("x",)):
        with pytest.raises(tallystick.RejectedError, match="/unbegun"):
            BackupManifest.parse(encode(replace(manifest, unbegun=unbegun).document()))
