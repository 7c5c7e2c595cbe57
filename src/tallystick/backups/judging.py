"""Judging a backup: whether it is what was made, and whether the ledgers in it hold.

Hashes tell what was damaged. Only a verification tells what somebody made to look like a backup, so each ledger is
verified wholly, and held against the checkpoint in the manifest and those that others hold. For what no ledger proves,
queues and cursors, the signature of the manifest speaks (`tallystick.backups.vouched`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final

from tallystick.backups.found import Found, read_seal, strange
from tallystick.backups.layout import SEAL_FILE, within
from tallystick.backups.manifest import BackupManifest, KeptFile, KeptLedger
from tallystick.backups.parcel import told
from tallystick.backups.standing import can_seal, proven_under
from tallystick.clock import Clock
from tallystick.config import Location, marks_folder, open_keystore
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.record import Record
from tallystick.core.sshsig import BACKUP_NAMESPACE, open_signature
from tallystick.durable import sync
from tallystick.errors import NotFoundError, RejectedError, StoreError, TamperError
from tallystick.evidence.findings import MEANING, Finding, Kind, Report
from tallystick.evidence.verify import verify_store
from tallystick.keystore import Keystore
from tallystick.private_file import create, make_folder
from tallystick.store.mark_file import mark_path, read_mark
from tallystick.write.queue import FOLDER as QUEUE_FOLDER
from tallystick.write.queue_check import check_queue
from tallystick.write.queue_mark import MARK, mark_bytes, queue_mark_path

_CHUNK_BYTES: Final = 1 << 20
_QUEUE_MARK: Final = within(QUEUE_FOLDER, MARK)


@dataclass(frozen=True, slots=True)
class BackupFinding:
    """One failed check of a backup."""

    place: str
    """A file of the backup, or a ledger and the position in it."""
    kind: Kind
    seen: str

    @property
    def meaning(self) -> str:
        """What a finding of this kind means, in words."""
        return MEANING[self.kind]

    def to_json(self) -> dict[str, str]:
        """As it is printed for machines."""
        return {"place": self.place, "kind": str(self.kind), "seen": self.seen, "meaning": self.meaning}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedLedger:
    """One ledger of a backup, verified."""

    kept: KeptLedger
    signatures: int
    """Records whose signature was checked and holds; 0 without the keys."""
    can_seal: bool | None
    """Whether the keys that were given are those with which it can go on; None without keys."""
    held: bytes | None
    """The newest of the checkpoints that others hold that it was held against."""
    evidence: bytes | None
    """The evidence key in force, as the verification read it; it is proven where nothing was found."""
    findings: tuple[BackupFinding, ...]

    @property
    def lost(self) -> int | None:
        """How many records more it had later, as a checkpoint that others hold tells; None when none was given."""
        return None if self.held is None else max(0, Checkpoint.of_note(self.held).size - self.kept.size)

    def to_json(self) -> dict[str, Any]:
        """As it is printed for machines."""
        return {
            "folder": self.kept.folder,
            "ledger": self.kept.name,
            "origin": self.kept.origin,
            "size": self.kept.size,
            "holds": not self.findings,
            "signatures": self.signatures,
            "can_seal": self.can_seal,
            "lost": self.lost,
        }


def judge_files(
    found: Found, manifest: BackupManifest, *, into: Path | None, count: Callable[[int], None], marks: dict[str, bytes]
) -> Iterator[BackupFinding]:
    """Hold the files against the manifest, and copy them into a folder if one is given. `count` is told of bytes, and
    `marks` gets the marks of queues by their names: what lies in the folder may be another one later."""
    for problem in strange(found, manifest):
        place, _, seen = problem.partition(": ")
        yield BackupFinding(place, Kind.BACKUP, seen)
    for file in manifest.files:
        try:
            data = take(found, file, into=into, count=count)
            if data is not None and file.name.endswith(_QUEUE_MARK):
                marks[file.name] = data
        except RejectedError as error:
            yield BackupFinding(file.name, Kind.BACKUP, error.problem)


def judge_seal(found: Found, manifest: BackupManifest, data: bytes) -> Iterator[BackupFinding]:
    """Whether the manifest is signed by the key that it names. Whose key that is, is asked once all is verified."""
    if manifest.signer is None:
        return
    try:
        if open_signature(read_seal(found), data, namespace=BACKUP_NAMESPACE) != manifest.signer:
            yield BackupFinding(SEAL_FILE, Kind.SEAL, "it is by another key than the manifest names")
    except (RejectedError, TamperError) as error:
        yield BackupFinding(SEAL_FILE, Kind.SEAL, str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What ledgers are held against."""

    keys: Path | None
    """The folder of the keys, arranged as the backup is."""
    held: Sequence[bytes]
    """Checkpoints of any of them that others hold."""
    processes: int | None
    clock: Clock
    accept_loss: bool
    """Whether a ledger may be shorter than what others hold of it."""
    signed: bool = True
    """Whether it has to be signed."""
    marks: str | os.PathLike[str] | None = None
    """The folder of the head marks, if it is not beside the keys."""
    compares_marks: bool = False
    """Whether the newest state that the marks know counts: for a restore, and not for a drill with an older backup."""

    def marks_of(self, kept: KeptLedger) -> Path | None:
        """The folder of the head mark of a ledger, if that counts, and the keys by which it is read are at hand."""
        keystore = self.keystore(kept) if self.compares_marks else None
        return None if keystore is None else marks_folder(self.marks, keystore.folder)

    def newest_of(self, kept: KeptLedger) -> bytes | None:
        """The newest checkpoint that is known of a ledger: one that others hold, or its head mark."""
        known = self.held_of(kept.origin)
        folder, keystore = self.marks_of(kept), self.keystore(kept)
        if folder is not None and keystore is not None:
            key = keystore.ledger_keys(kept.name).head_mac
            mark = read_mark(mark_path(folder, kept.id), key=key, ledger_id=kept.id)
            known += [] if mark is None else [mark]
        return max(known, key=lambda note: Checkpoint.of_note(note).size, default=None)

    def held_of(self, origin: str) -> list[bytes]:
        """Those of one ledger, the largest last."""
        mine = [(Checkpoint.of_note(note), note) for note in self.held]
        return [note for at, note in sorted(mine, key=lambda pair: pair[0].size) if at.origin == origin]

    def check(self, manifest: BackupManifest) -> None:
        """Raises `RejectedError` for a checkpoint that is of none of these ledgers, `NotFoundError` without keys."""
        origins = {ledger.origin for ledger in manifest.ledgers}
        for note in self.held:
            try:
                origin = Checkpoint.of_note(note).origin
            except RejectedError as error:
                raise RejectedError(f"it is no checkpoint: {error}", place="since") from error
            if origin not in origins:
                cure = f"it has {', '.join(sorted(origins)[:5])}"
                raise RejectedError(f"the backup has no ledger {origin}", place="since", cure=cure)
        if self.keys is not None and self.keystore(manifest.vouching) is None:
            raise NotFoundError(f"there are no keys of {manifest.vouching.place} in {self.keys}")

    def keystore(self, kept: KeptLedger) -> Keystore | None:
        """The keys of one ledger, where they are at hand."""
        if self.keys is None:
            return None
        keystore = open_keystore(self.keys / kept.folder)
        return keystore if keystore.exists() else None


def judge_ledger(folder: Path, kept: KeptLedger, terms: Terms, *, count: Callable[[int, int], None]) -> JudgedLedger:
    """Verify one ledger wholly. `count` is told of records."""
    place, held, keystore = folder / kept.folder, terms.held_of(kept.origin), terms.keystore(kept)
    signatures, seals, newest, evidence = 0, None, held[-1] if held else None, None
    found: dict[BackupFinding, None] = {}
    try:
        for since in (*held,) or (None,):
            report = _verify(place, since, keystore, terms, marks=terms.marks_of(kept), count=count)
            signatures, evidence = report.signatures, report.evidence_key
            for one in report.findings:
                if one.kind is not Kind.ROLLBACK or not terms.accept_loss:
                    found[BackupFinding(_place(kept, one), one.kind, one.seen)] = None
            found |= dict.fromkeys(() if found else _mismatch(report, kept))
        if not found and _id_of(place, kept.checkpoint) != kept.id:
            found[BackupFinding(kept.place, Kind.FORK, _ANOTHER)] = None
        if keystore is not None and not any(one.kind in (Kind.GENESIS, Kind.FORK) for one in found):
            key = keystore.ledger_keys(kept.name).queue_mac
            found |= dict.fromkeys(_judge_queue(place / QUEUE_FOLDER, key, kept, terms))
        seals = can_seal(place, keystore) if keystore is not None else None
        newest = terms.newest_of(kept)
    except (TamperError, StoreError, NotFoundError) as error:  # so damaged that it cannot even be read
        found[BackupFinding(kept.place, Kind.UNREADABLE, str(error))] = None
    return JudgedLedger(
        kept=kept, signatures=signatures, can_seal=seals, held=newest, evidence=evidence, findings=(*found,)
    )


def _verify(
    place: Path,
    since: bytes | None,
    keystore: Keystore | None,
    terms: Terms,
    *,
    marks: Path | None,
    count: Callable[[int, int], None],
) -> Report:
    location = Location(place, still=True)
    store = location.open_store()
    try:
        return verify_store(
            store,
            location=location,
            keystore=keystore,
            marks=marks,
            since=since,
            processes=terms.processes,
            progress=count,
            clock=terms.clock,
        )
    finally:
        store.close()


def _place(kept: KeptLedger, finding: Finding) -> str:
    return kept.place if finding.position is None else f"{kept.place}, {finding.place}"


_ANOTHER: Final = "it is another ledger than the manifest names"


def _mismatch(report: Report, kept: KeptLedger) -> Iterator[BackupFinding]:
    """How a ledger, as it was verified, is not the one that the manifest names, at the very commit."""
    if (report.ledger, report.origin) != (kept.name, kept.origin):
        yield BackupFinding(kept.place, Kind.FORK, _ANOTHER)
    elif report.checkpoint != kept.checkpoint:
        seen = f"it has {report.size} records, and not the checkpoint of {kept.size} that the manifest names"
        yield BackupFinding(kept.place, Kind.ROLLBACK if report.size < kept.size else Kind.FORK, seen)


def _id_of(folder: Path, checkpoint: bytes) -> bytes:
    """The id of a ledger, by the genesis that is under a checkpoint that was verified."""
    store = Location(folder, still=True).open_store()
    try:
        return Record.parse(proven_under(store, checkpoint).fetch([0])[0].line).hash
    finally:
        store.close()


def _judge_queue(folder: Path, key: bytes, kept: KeptLedger, terms: Terms) -> Iterator[BackupFinding]:
    """What is wrong with the queue in a backup: by the mark that came with it, and by the one that is kept of this
    ledger, which knows what was acknowledged since. A loss of that can be accepted, as one of records can."""
    own = check_queue(folder, key)
    if not terms.signed and not _is_there(folder / MARK):
        # Who made it could not read the mark. The queue does not go on before it was repaired.
        own = tuple(one for one in own if one.file != MARK)
    for one in own:
        yield BackupFinding(kept.place, Kind.QUEUE, one.text)
    mark = queue_mark_path(terms.marks_of(kept), kept.id)
    if own or mark is None or terms.accept_loss or not _is_there(mark):
        return
    for one in check_queue(folder, key, mark=mark):
        seen = f"by the mark {mark}, which is not from the backup: {one.text}"
        yield BackupFinding(kept.place, Kind.QUEUE, seen)


def _is_there(mark: Path) -> bool:
    try:
        return mark_bytes(mark) is not None
    except OSError as error:
        raise StoreError(f"could not read the mark {mark}: {error.strerror or error}") from error


def take(found: Found, file: KeptFile, *, into: Path | None, count: Callable[[int], None]) -> bytes | None:
    """Read one file, and write it if so asked; its bytes, if they are few. Raises `RejectedError` when it is not what
    the manifest says."""
    size = found.size(file.name)
    if size != file.size:
        raise RejectedError(f"it has {size} bytes, and the manifest says {file.size}")
    hasher, left, data = sha256(), size, b""
    with found.open(file.name) as source, _copy(into, file.name) as copy:
        while left and (data := source.read(min(left, _CHUNK_BYTES))):
            hasher.update(data)
            if copy is not None:
                _write(copy, data, place=file.name)
            left -= len(data)
            count(len(data))
    if left or hasher.digest() != file.sha256:
        raise RejectedError("its bytes are not those of which the manifest has the SHA-256")
    return data if len(data) == size else None


@contextmanager
def _copy(into: Path | None, name: str) -> Iterator[IO[bytes] | None]:
    """A new file that only its owner reads, on the disk when it is left; None where nothing is to be written."""
    if into is None:
        yield None
        return
    path = into / name
    with told(path):
        make_folder(path.parent)
        file = create(path, buffering=0)  # what cannot be written is told by the write, not by the end
    with file:
        yield file
        with told(path):
            sync(file)


def _write(copy: IO[bytes], data: bytes, *, place: str) -> None:
    with told(Path(place)):
        view = memoryview(data)
        while view:
            view = view[copy.write(view) :]
