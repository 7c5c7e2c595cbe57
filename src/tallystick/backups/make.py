"""Making a backup of ledgers that are in use, each at one commit.

What reaches less far is copied first: what a service remembers, then of each ledger its queue, its readers' cursors and
its cosigned checkpoint, and then the log itself. So the log has all that any of them knows of, and an event that was
accepted before is in the queue, or in the log, or in both, where its id makes the second harmless.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tallystick.backups.layout import VERIFIED_FILE, Extent, keys_folder
from tallystick.backups.manifest import BackupManifest, KeptLedger
from tallystick.backups.parcel import Parcel, told
from tallystick.backups.source import BackupSource, Known, LedgerSource
from tallystick.backups.standing import Standing
from tallystick.clock import Clock, wall_clock
from tallystick.config import Location
from tallystick.core import timestamp
from tallystick.core.sshsig import BACKUP_NAMESPACE, sign_file
from tallystick.errors import BusyError, DeniedError, NotFoundError, RejectedError, StoreError, TamperError
from tallystick.evidence.others.cosigning import KEPT_FILE, read_kept
from tallystick.evidence.verification.held import write_mark
from tallystick.limits import VERIFIED_BYTES_MAX
from tallystick.made_file import Made, make_file
from tallystick.plain_file import read_plain
from tallystick.read.index import Progress
from tallystick.write.queue import FOLDER as QUEUE_FOLDER
from tallystick.write.queue_copy import copy_queue
from tallystick.write.queue_mark import MARK, queue_mark_path

_ATTEMPTS_MAX: Final = 3
_log: Final = logging.getLogger("tallystick.backups")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUp:
    """A backup that was made."""

    path: Path
    extent: Extent
    created: str
    ledgers: tuple[KeptLedger, ...]
    files: int
    bytes: int
    keys: bool
    """Whether the ledgers' keys are in it."""
    signed: bool
    manifest_sha256: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As it is printed for machines."""
        return {
            "path": str(self.path),
            "extent": self.extent,
            "created": self.created,
            "ledgers": [ledger.document() for ledger in self.ledgers],
            "files": self.files,
            "bytes": self.bytes,
            "keys": self.keys,
            "signed": self.signed,
            "manifest_sha256": self.manifest_sha256,
            "seconds": round(self.seconds, 3),
        }


def backup(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    keys: str | os.PathLike[str] | None = None,
    marks: str | os.PathLike[str] | None = None,
    with_keys: bool = False,
    signed: bool = True,
    progress: Progress | None = None,
    clock: Clock = wall_clock,
) -> BackedUp:
    """Copy a ledger, or all of a deployment, while they are in use, into a folder or a `.tar` that is not there.

    Each ledger is copied as it is at one commit, with all that was accepted before the call: events that wait in its
    queue, the cursors of its readers, its cosigned checkpoint. `keys` is the folder of the keys, by default where they
    are looked for anyway; the backup is signed with the evidence key, unless `signed` is false, and has the keys
    themselves only `with_keys`. `marks` is the folder of the head marks, where the marks of queues are, too. Where
    the mark of a queue is missing, the backup cannot be signed. `progress` is told of bytes. The backup is written
    under another name, and renamed when all of it is on the disk.

    Raises `NotFoundError` where there is nothing to copy, `ConflictError` when the target is there, `RejectedError`
    when the keys are wanted and not there, `TamperError` for a ledger so damaged that it does not say who it is. Of a
    ledger that contradicts its head mark, or whose checkpoint is not by its key, a backup is made only if it is not
    signed; else `TamperError`. So is a deployment in which a ledger is missing that was begun, signed or not.
    """
    began, created = time.monotonic(), timestamp.render(clock())
    found = BackupSource.of(source, keys=keys, marks=marks, signed=signed)
    if not found.vouching.keystore.exists() and (signed or with_keys):
        cure = "name their folder, or make a backup that is not signed and has none"
        raise RejectedError("the keys are not here", place=str(found.vouching.keystore.folder), cure=cure)
    count = _Count(progress, sum(ledger.bytes for ledger in found.ledgers))
    with Parcel(Path(target)) as parcel:
        if found.extent == "deployment":
            _copy_verified(found.root, parcel)
        ledgers = [
            _copy_ledger(ledger, parcel, with_keys=with_keys, signed=signed, count=count.add)
            for ledger in found.ledgers
        ]
        key = ledgers[-1].evidence_key(found.vouching.keystore) if signed else None
        if signed or with_keys:
            _check_marks(parcel)
        manifest = BackupManifest(
            created=created,
            extent=found.extent,
            keys=with_keys,
            signer=None if key is None else key.public_key().public_bytes_raw(),
            ledgers=tuple(sorted((standing.kept for standing in ledgers), key=lambda ledger: ledger.folder)),
            files=tuple(sorted(parcel.files, key=lambda file: file.name)),
            unbegun=tuple(sorted({*ledgers[-1].named} - {standing.kept.folder for standing in ledgers})),
        )
        data = manifest.render()
        # A crash up to here, or within the next call but for its last step, leaves a hidden folder.
        parcel.hand_over(data, None if key is None else sign_file(data, key, namespace=BACKUP_NAMESPACE))
    return BackedUp(
        path=parcel.target,
        extent=manifest.extent,
        created=created,
        ledgers=manifest.ledgers,
        files=len(manifest.files),
        bytes=manifest.total_bytes,
        keys=with_keys,
        signed=signed,
        manifest_sha256=sha256(data).hexdigest(),
        seconds=time.monotonic() - began,
    )


def _copy_verified(root: Path, parcel: Parcel) -> None:
    """What a service remembers of its verifications. It is replaced whole, so whatever is read is whole."""
    with told(parcel.target):
        try:
            data = read_plain(root / VERIFIED_FILE, bytes_max=VERIFIED_BYTES_MAX)
        except FileNotFoundError:
            return
    parcel.write(VERIFIED_FILE, data)


def _check_marks(parcel: Parcel) -> None:
    """Whether every queue has its mark: else nothing says what was acknowledged, and nobody may vouch for it."""
    names = {file.name for file in parcel.files}
    for name in sorted(names):
        queue, _, file = name.rpartition("/")
        if file.startswith("segment-") and f"{queue}/{MARK}" not in names:
            raise NotFoundError(
                f"the mark of {queue} is not in the directory of the marks, or may not be read: name that directory, "
                "or make a backup that is not signed. If the mark was lost, see `tallystick queue stats`"
            )


def _copy_ledger(
    source: LedgerSource, parcel: Parcel, *, with_keys: bool, signed: bool, count: Callable[[int], None]
) -> Standing:
    """One ledger; how its copy stands. The order is what makes it whole: see above."""
    location, folder = source.location, parcel.folder(source.folder)
    assert location.folder is not None, "only ledgers in folders are found"
    known = source.known(signed=signed)
    made = copy_queue(
        location.folder / QUEUE_FOLDER, folder / QUEUE_FOLDER, mark=queue_mark_path(source.marks, known.id)
    )
    cursors = location.copy_cursors(folder)
    made += [] if cursors is None else [cursors]
    kept = read_kept(location.folder)
    if kept is not None:
        with told(parcel.target):
            made.append(make_file(folder / KEPT_FILE, kept))
    secrets: dict[str, bytes] = {}
    if with_keys:
        log, secrets = _copy_with_keys(source, folder, count)
    else:
        log = _copy_log(location, folder, count)
    standing = _look(source, known, folder, signed=signed)
    parcel.take([*made, log])
    for name, secret in secrets.items():
        parcel.write(f"{keys_folder(source.folder)}/{name}", secret)
    return standing


def _look(source: LedgerSource, known: Known, folder: Path, *, signed: bool) -> Standing:
    """How the copy stands, held against the head mark as it was before; which then is of the copy's checkpoint.

    Who signs the backup says that the ledger was like that: a copy that was rolled back, or that somebody else signed,
    is refused then. One that is not signed keeps what is there, also as evidence.
    """
    name, keystore = source.folder, source.keystore
    store = Location(folder, still=True).open_store()
    try:
        given = keystore if keystore.exists() else None
        if signed and given is None:
            raise TamperError(f"{name} has no keys in {keystore.folder}, and nobody here can vouch for it")
        standing = Standing.proven(store, name=name, keystore=given, held=known.mark)
        if standing.kept.id != known.id:
            raise TamperError(f"{name or 'the ledger'} was replaced by another one while it was copied")
        _keep_mark(source, standing)
    except TamperError as error:
        if signed:
            raise
        _log.warning("%s: %s", name or "the ledger", error)
        return Standing.of(folder, name=name)
    finally:
        store.close()
    return standing


def _keep_mark(source: LedgerSource, standing: Standing) -> None:
    """Have the head mark on the disk for the checkpoint that the manifest will have."""
    if source.marks is None or not source.keystore.exists():
        return
    store = source.location.open_store(readonly=True)
    try:
        checkpoint = standing.kept.checkpoint
        write_mark(store, checkpoint, keystore=source.keystore, marks=source.marks, signer=standing.signer)
    except (DeniedError, NotFoundError, RejectedError, StoreError) as error:  # of the keys, or of the folder of marks
        name = source.folder or "the ledger"
        _log.warning("%s: the head mark was not written for this checkpoint: %s", name, error)
    finally:
        store.close()


def _copy_with_keys(source: LedgerSource, folder: Path, count: Callable[[int], None]) -> tuple[Made, dict[str, bytes]]:
    """Copy the log; the keys, among which are those in force in it: none were rotated while it was copied."""
    if not source.keystore.exists():
        raise RejectedError(
            "the keys are not here", place=str(source.keystore.folder), cure="make a backup without keys"
        )
    for _ in range(_ATTEMPTS_MAX):
        before = source.keystore.files()
        made = _copy_log(source.location, folder, count)
        if source.keystore.files() == before:
            return made, before
        made.path.unlink()
    raise BusyError(f"the keys in {source.keystore.folder} were rotated again and again: repeat a moment later")


def _copy_log(location: Location, folder: Path, count: Callable[[int], None]) -> Made:
    store = location.open_store(readonly=True)
    try:
        return store.copy(folder, progress=count)
    finally:
        store.close()


class _Count:
    """Bytes that are done, told as they come."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress: Final = progress
        self._total = total
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        self._total = max(self._total, self._done)  # what is written meanwhile makes it more
        if self._progress:
            self._progress(self._done, self._total)
