"""Restoring a backup: copied into a hidden folder, verified there wholly, and only then given its name.

`check_backup` goes the same way and leaves nothing behind: for the drill of every month. Neither believes anything of a
backup that is not checked, and neither replaces anything that is there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tallystick import durable
from tallystick.backups.found import open_found, read_manifest
from tallystick.backups.judging import (
    BackupFinding,
    JudgedLedger,
    Terms,
    judge_files,
    judge_ledger,
    judge_seal,
)
from tallystick.backups.layout import KEYS_FOLDER, MANIFEST_FILE, within
from tallystick.backups.loss import Loss, Restoring, record_loss
from tallystick.backups.manifest import BackupManifest, KeptLedger
from tallystick.backups.parcel import give_name, make_scratch, sync_folders, told
from tallystick.backups.vouched import judge_again, judge_signer, judge_whole
from tallystick.clock import Clock, wall_clock
from tallystick.config import LEDGER_FILE, RESTORED_FILE
from tallystick.core import timestamp
from tallystick.errors import RejectedError
from tallystick.evidence.findings import Kind
from tallystick.private_file import make_folder
from tallystick.read.index import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What became of a restore, or of a check."""

    path: Path | None
    """Where it was restored; None when anything was found, and after a check."""
    manifest: BackupManifest | None
    """What the backup says of itself; None when that cannot be read."""
    ledgers: tuple[JudgedLedger, ...]
    """Those that were verified: all of them, unless a file was found to be wrong before."""
    findings: tuple[BackupFinding, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """As it is printed for machines."""
        manifest = self.manifest
        return {
            "holds": self.holds,
            "path": None if self.path is None else str(self.path),
            "extent": None if manifest is None else manifest.extent,
            "created": None if manifest is None else manifest.created,
            "signed": manifest is not None and manifest.signer is not None,
            "keys": manifest is not None and manifest.keys,
            "ledgers": [ledger.to_json() for ledger in self.ledgers],
            "findings": [finding.to_json() for finding in self.findings],
            "seconds": round(self.seconds, 3),
        }


def restore(
    backup: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    keys: str | os.PathLike[str] | None = None,
    since: Sequence[bytes] = (),
    marks: str | os.PathLike[str] | None = None,
    accept_loss: str | None = None,
    actor: Mapping[str, str] | None = None,
    signed: bool = True,
    processes: int | None = None,
    progress: Progress | None = None,
    clock: Clock = wall_clock,
) -> Restored:
    """Restore a backup into a folder that is not there, if all of it holds; else there are findings, and no folder.

    Every file is held against the manifest, every ledger is verified wholly and held against the checkpoint in the
    manifest and against those of `since`, which others hold. `keys` is the folder of the keys, arranged as in the
    deployment; without it those of the backup are used, if it has any. One that nobody signed is a finding, unless
    `signed` is false.

    The head marks of the ledgers, in `marks`, by default beside the keys, count as checkpoints of `since`. A ledger
    that is shorter than one of those has lost records, which is a finding, too; so is a queue that ends below the mark
    of queues that is there. With `accept_loss`,
    a reason, it is restored, and every ledger records that it was, ordered by `actor`, under MAC keys that what was
    lost cannot have disclosed; that needs the keys. `progress` is told of bytes, copied and verified.

    Raises `NotFoundError` when there is no backup or no keys, `ConflictError` when the target is there, `RejectedError`
    for a checkpoint of no ledger in it.
    """
    place, loss = Path(target), None if accept_loss is None else Loss(accept_loss, actor)
    scratch = make_scratch(place)
    try:
        room = scratch / "restored"
        with told(place):
            make_folder(room)
        terms = _terms(keys, since, processes=processes, clock=clock, signed=signed)
        terms = replace(terms, marks=marks, compares_marks=True, accept_loss=loss is not None)
        restored = _judge(Path(backup), terms, into=room, loss=loss, progress=progress)
        if restored.holds:
            with told(place):
                _say_restored(room, restored, clock)
                sync_folders(room)
                # A crash up to here leaves the hidden folder, which nothing looks at.
                give_name(room, place)
            restored = replace(restored, path=place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return restored


def check_backup(
    backup: str | os.PathLike[str],
    *,
    keys: str | os.PathLike[str] | None = None,
    since: Sequence[bytes] = (),
    signed: bool = True,
    processes: int | None = None,
    progress: Progress | None = None,
    clock: Clock = wall_clock,
) -> Restored:
    """Check a backup as `restore` does, and leave nothing behind. A folder is read where it is, a `.tar` is unpacked
    into a temporary folder first. Raises as `restore` does."""
    terms = _terms(keys, since, processes=processes, clock=clock, signed=signed)
    place = Path(backup)
    if place.is_dir():
        return _judge(place, terms, into=None, loss=None, progress=progress)
    with tempfile.TemporaryDirectory(prefix="tallystick-", ignore_cleanup_errors=True) as scratch:
        return _judge(place, terms, into=Path(scratch), loss=None, progress=progress)


def _terms(
    keys: str | os.PathLike[str] | None,
    since: Sequence[bytes],
    *,
    processes: int | None,
    clock: Clock,
    signed: bool,
) -> Terms:
    folder = None if keys is None else Path(keys)
    return Terms(keys=folder, held=tuple(since), processes=processes, clock=clock, accept_loss=False, signed=signed)


def _judge(place: Path, terms: Terms, *, into: Path | None, loss: Loss | None, progress: Progress | None) -> Restored:
    """Judge a backup; copied into a folder if one is given, else where it is."""
    began = time.monotonic()
    with ExitStack() as stack:
        try:
            found = stack.enter_context(open_found(place))
            data, manifest = read_manifest(found)
        except RejectedError as error:
            finding = BackupFinding(error.place or place.name, Kind.BACKUP, _sentence(error))
            return Restored(path=None, manifest=None, ledgers=(), findings=(finding,), seconds=_since(began))
        terms.check(manifest)
        folder = place if into is None else into
        if terms.keys is None and manifest.keys:
            terms = replace(terms, keys=folder / KEYS_FOLDER)
        if loss is not None and terms.keys is None:
            cure = "name the folder of the keys"
            raise RejectedError("that records were lost is recorded in the ledgers, and needs their keys", cure=cure)
        work = _Work(progress, manifest, terms)
        findings = [*judge_seal(found, manifest, data), *_unsigned(manifest, signed=terms.signed)]
        marks: dict[str, bytes] = {}
        findings += judge_files(found, manifest, into=into, count=work.copied, marks=marks)
    # From here on nothing is read from the backup that is restored, but from the copy that was held against it.
    ledgers: list[JudgedLedger] = []
    if not findings:
        ledgers = [judge_ledger(folder, kept, terms, count=work.verifying(kept)) for kept in manifest.ledgers]
        findings = [finding for ledger in ledgers for finding in ledger.findings]
    if not findings:
        findings = [*judge_signer(ledgers, manifest), *judge_whole(folder, manifest, terms)]
    findings = findings or [*judge_again(folder, manifest)]
    if not findings and loss is not None:
        record_loss(folder, loss, ledgers, terms, backup=Restoring(manifest.created, sha256(data).digest(), marks))
    return Restored(path=None, manifest=manifest, ledgers=(*ledgers,), findings=(*findings,), seconds=_since(began))


def _say_restored(room: Path, restored: Restored, clock: Clock) -> None:
    """Have each ledger's directory say that it is a copy: two in use under the same keys contradict each other."""
    assert restored.manifest is not None, "it was judged by it"
    said = {"backup_created": restored.manifest.created, "restored": timestamp.render(clock())}
    for kept in restored.manifest.ledgers:
        durable.replace(room / kept.folder / RESTORED_FILE, json.dumps(said).encode() + b"\n")


def _unsigned(manifest: BackupManifest, *, signed: bool) -> Iterator[BackupFinding]:
    if manifest.signer is None and signed:
        seen = "nobody signed it: what waits in queues, and what readers reached, may be as somebody left them"
        yield BackupFinding(MANIFEST_FILE, Kind.SEAL, seen)


def _sentence(error: RejectedError) -> str:
    return f"{error.problem}; {error.cure}" if error.cure else error.problem


def _since(began: float) -> float:
    return time.monotonic() - began


class _Work:
    """How far the work is: the bytes of all files, and once more those of the logs, when they are verified."""

    def __init__(self, progress: Progress | None, manifest: BackupManifest, terms: Terms) -> None:
        sizes = {file.name: file.size for file in manifest.files}
        self._logs: Final = {kept.folder: sizes[within(kept.folder, LEDGER_FILE)] for kept in manifest.ledgers}
        rounds = {kept.folder: len(terms.held_of(kept.origin)) or 1 for kept in manifest.ledgers}
        self._progress: Final = progress
        self._total: Final = manifest.total_bytes + sum(self._logs[folder] * rounds[folder] for folder in self._logs)
        self._done = 0

    def copied(self, count: int) -> None:
        """So many bytes more are held against the manifest."""
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)

    def verifying(self, kept: KeptLedger) -> Callable[[int, int], None]:
        """Takes how many records of a ledger are verified."""
        size, before = self._logs[kept.folder], 0

        def verified(done: int, total: int) -> None:
            nonlocal before
            now = size * done // (total or 1)
            self.copied(now - before if now >= before else now)  # it begins again for each checkpoint
            before = now

        return verified
