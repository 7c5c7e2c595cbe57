"""What a backup is made of: one ledger, or the ledgers of a deployment.

Those are the ones that are there, and all that the system ledger tells of and that were begun, as their keys or their
head marks say: one that is missing is an error. The system ledger comes last, so that a key that was revoked while the
others were copied is revoked in the backup, too.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tallystick.backups.layout import KEYS_FOLDER, SYSTEM, TENANTS, Extent, is_folder, ledger_in
from tallystick.backups.standing import Standing
from tallystick.config import LEDGER_FILE, MARKS_FOLDER, Location, marks_folder, open_keystore
from tallystick.core.record import Record
from tallystick.core.system import Genesis
from tallystick.errors import DeniedError, NotFoundError, RejectedError, StoreError, TamperError
from tallystick.keystore import Keystore
from tallystick.plain_file import check_folder
from tallystick.store.mark_file import find_mark, mark_path, read_mark
from tallystick.store.reading import read_record

_BEGINNING_SECONDS: Final = 3.0
"""How long a ledger may have keys and no records: another process makes it just now."""
_LOOK_SECONDS: Final = 0.1
_log: Final = logging.getLogger("tallystick.backups")


class Known(NamedTuple):
    """What is known of a ledger before anything of it is copied."""

    id: bytes
    mark: bytes | None
    """The checkpoint of its head mark."""


@dataclass(frozen=True, slots=True)
class LedgerSource:
    """A ledger, and the name that its folder has in a backup."""

    folder: str
    location: Location
    keystore: Keystore
    marks: Path | None
    """The directory of its head mark, and of the mark of its queue."""
    bytes: int

    def known(self, *, signed: bool) -> Known:
        """Read its head mark, which lies where no attacker writes. Raises `TamperError` for a ledger that does not say
        who it is, and if the backup is to be `signed` for a mark that nobody of ours wrote."""
        store = self.location.open_store(readonly=True)
        try:
            return self._known(read_record(store, 0), signed=signed)
        except (RejectedError, NotFoundError) as error:
            raise TamperError(f"{self.folder or 'the ledger'} is damaged, run a verification: {error}") from error
        finally:
            store.close()

    def _known(self, record: Record, *, signed: bool) -> Known:
        if self.marks is None or not self.keystore.exists():
            return Known(record.hash, None)
        try:
            key = self.keystore.ledger_keys(Genesis.of(record).ledger).head_mac
            mark = read_mark(mark_path(self.marks, record.hash), key=key, ledger_id=record.hash)
            return Known(record.hash, mark)
        except TamperError as error:
            if signed:
                raise
            _log.warning("%s: %s", self.folder or "the ledger", error)
        except (DeniedError, NotFoundError, RejectedError, StoreError) as error:  # of the keys, or of the marks
            _log.warning("%s: its head mark was not read: %s", self.folder or "the ledger", error)
        return Known(record.hash, None)


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
        signed: bool,
    ) -> BackupSource:
        """Look at a folder. Raises `NotFoundError` where there is neither a ledger nor a deployment, `TamperError` for
        a deployment in which a ledger is missing, and if the backup is to be `signed` for a system ledger that does not
        hold."""
        location = Location.parse(url)
        if location.folder is None:
            raise RejectedError("a ledger in memory cannot be backed up", cure="keep the ledger in a folder")
        root = location.folder
        alone = _ledger("", root, Path(keys) if keys is not None else location.keys_folder, marks)
        kept = Path(keys) if keys is not None else root / KEYS_FOLDER
        system = _ledger(SYSTEM, root, kept / SYSTEM, marks)
        if alone is not None and system is not None:
            raise RejectedError(
                "there is a deployment, and a ledger that belongs to none of its tenants",
                place=str(root / LEDGER_FILE),
                cure="find out who put it there, then move it away",
            )
        if alone is not None:
            return cls("ledger", root, (alone,))
        if system is None:
            raise NotFoundError(
                f"there is neither a ledger nor a deployment in {root}: name a ledger's folder, or that of "
                "`tallystick serve --data`"
            )
        # What was begun is asked before what is there: of one that is begun just now the keys are first.
        begun = frozenset(one for one in _named(system, signed=signed) if is_begun(kept / one))
        found = [_ledger(folder, root, kept / folder, marks) for folder in sorted({*_folders(root), *begun})]
        ledgers = [ledger for ledger in found if ledger is not None]
        for missing in sorted(begun - {ledger.folder for ledger in ledgers}):
            ledgers.append(_awaited(missing, root, kept / missing, marks))
        return cls("deployment", root, (*sorted(ledgers, key=lambda ledger: ledger.folder), system))


def is_begun(keys: Path) -> bool:
    """Whether the ledger with that folder of keys was ever begun, as that says, where an attacker cannot write."""
    with suppress(PermissionError):  # then nothing is known of it, and nothing is signed
        return open_keystore(keys).exists() or any((keys / MARKS_FOLDER).glob("*.head"))
    return False


def has_mark(folder: str, keys: Path, marks: str | os.PathLike[str] | None) -> bool:
    """Whether there is a head mark of the ledger with that folder in a deployment, and with those keys."""
    place, keystore = marks_folder(marks, keys), open_keystore(keys)
    if place is None or not keystore.exists():
        return False
    return find_mark(place, key=keystore.ledger_keys(ledger_in(folder)).head_mac) is not None


def _named(system: LedgerSource, *, signed: bool) -> tuple[str, ...]:
    """The folders of ledgers that the system ledger tells of, proven."""
    store = system.location.open_store(readonly=True)
    keystore = system.keystore if system.keystore.exists() else None
    try:
        mark = system.known(signed=signed).mark
        return Standing.proven(store, name=SYSTEM, keystore=keystore, held=mark).named
    except TamperError as error:
        if signed:
            raise
        _log.warning("which ledgers the deployment has is taken from what is there: %s", error)
        return ()
    finally:
        store.close()


def _awaited(folder: str, root: Path, keys: Path, marks: str | os.PathLike[str] | None) -> LedgerSource:
    """A ledger that has keys, and may be made just now. Raises `TamperError` when it is not."""
    for _ in range(int(_BEGINNING_SECONDS / _LOOK_SECONDS)):
        found = _ledger(folder, root, keys, marks)
        if found is not None:
            return found
        time.sleep(_LOOK_SECONDS)
    raise TamperError(
        f"{folder} is missing: the system ledger tells of it, and it was begun, as its keys in {keys} say. Put it "
        "back, or restore it; if it never had a record, use it once, or move its keys away"
    )


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
