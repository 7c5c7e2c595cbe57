"""What a backup is made of: one ledger, or the ledgers of a deployment, found by what is there and not by what is told.

The system ledger comes last, so that a key that was revoked while the others were copied is revoked in the backup, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tallystick.backups.layout import KEYS_FOLDER, SYSTEM, TENANTS, Extent, is_folder
from tallystick.config import Location, marks_folder, open_keystore
from tallystick.errors import NotFoundError, RejectedError, StoreError
from tallystick.keystore import Keystore
from tallystick.plain_file import check_folder


@dataclass(frozen=True, slots=True)
class LedgerSource:
    """A ledger, and the name that its folder has in a backup."""

    folder: str
    location: Location
    keystore: Keystore
    marks: Path | None
    """The directory of its head mark, and of the mark of its queue."""
    bytes: int


@dataclass(frozen=True, slots=True)
class BackupSource:
    """What is there to be copied."""

    extent: Extent
    root: Path
    ledgers: tuple[LedgerSource, ...]
    """In the order in which they are copied."""

    @property
    def vouching(self) -> LedgerSource:
        """The ledger whose evidence key signs the backup: the system's, or the only one. It is the last."""
        return self.ledgers[-1]

    @classmethod
    def of(
        cls,
        url: str | os.PathLike[str],
        *,
        keys: str | os.PathLike[str] | None,
        marks: str | os.PathLike[str] | None,
    ) -> BackupSource:
        """Look at a folder. Raises `NotFoundError` where there is neither a ledger nor a deployment."""
        location = Location.parse(url)
        if location.folder is None:
            raise RejectedError("a ledger in memory cannot be backed up", cure="keep the ledger in a folder")
        root = location.folder
        alone = _ledger("", root, Path(keys) if keys is not None else location.keys_folder, marks)
        if alone is not None:
            return cls("ledger", root, (alone,))
        kept = Path(keys) if keys is not None else root / KEYS_FOLDER
        found = [_ledger(folder, root, kept / folder, marks) for folder in (*_folders(root), SYSTEM)]
        ledgers = tuple(ledger for ledger in found if ledger is not None)
        if not ledgers or ledgers[-1].folder != SYSTEM:
            raise NotFoundError(
                f"there is neither a ledger nor a deployment in {root}: name a ledger's folder, or that of "
                "`tallystick serve --data`"
            )
        return cls("deployment", root, ledgers)


def _folders(root: Path) -> Iterator[str]:
    """The folders of tenants. Raises `RejectedError` for one with a name that no tenant has."""
    for kind in TENANTS:
        try:
            names = sorted(path.name for path in (root / kind).iterdir() if path.is_dir() and path.name[0] != ".")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"could not look into {root / kind}: {error.strerror or error}") from error
        for name in names:
            if not is_folder("deployment", f"{kind}/{name}"):
                cure = "move it out of there"
                raise RejectedError("a folder that no tenant has", place=str(root / kind / name), cure=cure)
            yield f"{kind}/{name}"


def _ledger(folder: str, root: Path, keys: Path | None, marks: str | os.PathLike[str] | None) -> LedgerSource | None:
    """The ledger in a folder; None when there is none, also when a crash kept it from being made."""
    location = Location(check_folder(root / folder, below=root))
    store = location.open_store(readonly=True)
    try:
        if store.head() is None:
            return None
        return LedgerSource(folder, location, open_keystore(keys), marks_folder(marks, keys), store.bytes_used())
    finally:
        store.close()
