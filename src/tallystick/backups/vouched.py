"""What only the whole of a backup tells, once all its ledgers are verified: who signed it, and whether it is all there.

The copy that was verified lies where others may be able to write. So nothing is believed of its files that is not
proven under a checkpoint that was verified, and at the end they are held against the manifest once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tallystick.backups.found import FolderFound
from tallystick.backups.judging import BackupFinding, JudgedLedger, Terms, take
from tallystick.backups.layout import MANIFEST_FILE
from tallystick.backups.manifest import BackupManifest
from tallystick.backups.source import has_mark, is_begun
from tallystick.backups.standing import named_under
from tallystick.config import Location
from tallystick.errors import RejectedError, StoreError, TamperError
from tallystick.evidence.findings import Kind


def judge_signer(ledgers: Iterable[JudgedLedger], manifest: BackupManifest) -> Iterator[BackupFinding]:
    """Whether the manifest was signed by the evidence key of the ledger that vouches, as its verification read it."""
    kept = manifest.vouching
    [evidence] = [judged.evidence for judged in ledgers if judged.kept == kept]
    if manifest.signer is not None and evidence != manifest.signer:
        seen = f"it was signed by another key than the evidence key of {kept.place}"
        yield BackupFinding(MANIFEST_FILE, Kind.SEAL, seen)


def judge_whole(folder: Path, manifest: BackupManifest, terms: Terms) -> Iterator[BackupFinding]:
    """Whether a backup of a deployment has every ledger that its system ledger tells of, and that was begun.

    What was not begun when it was made, the manifest says. Where nobody signed that, the keys at hand do; and the marks
    do where they count, as for other ledgers: what was begun since is lost.
    """
    if manifest.extent != "deployment":
        return
    store = Location(folder / manifest.vouching.folder, still=True).open_store()
    try:
        named = named_under(store, manifest.vouching.checkpoint)
    except (TamperError, RejectedError, StoreError) as error:
        yield BackupFinding(manifest.vouching.place, Kind.UNREADABLE, str(error))
        return
    finally:
        store.close()
    there = {ledger.folder for ledger in manifest.ledgers}
    for missing in named:
        if missing in there:
            continue
        keys = None if terms.keys is None else terms.keys / missing
        if missing not in manifest.unbegun:
            seen = "it is not in the backup, and the system ledger tells of it"
            yield BackupFinding(missing, Kind.BACKUP, seen)
        elif keys is not None and not terms.accept_loss:
            if manifest.signer is None and is_begun(keys):
                seen = "it is not in the backup, and it was begun, as its keys say; nobody signed that it was not, then"
                yield BackupFinding(missing, Kind.BACKUP, seen)
            elif terms.compares_marks and has_mark(missing, keys, terms.marks):
                seen = "it was begun since, as its head mark says, and all of its records are lost"
                yield BackupFinding(missing, Kind.ROLLBACK, seen)


def judge_again(folder: Path, manifest: BackupManifest) -> Iterator[BackupFinding]:
    """Whether the files are still those of the manifest: what was verified is what is restored."""
    found = FolderFound(folder)
    for file in manifest.files:
        try:
            take(found, file, into=None, count=lambda _: None)
        except RejectedError as error:
            seen = f"it was altered while it was verified: {error.problem}"
            yield BackupFinding(file.name, Kind.BACKUP, seen)
