"""Which files a backup has: those that cannot be made anew, by the names that they have where they are used.

    ledger.db  cursors.db  cosigned.checkpoint  queue/…  keys/…           of one ledger
    system/…  tenants/<name>/…  access/<name>/…  verified.json  keys/…    of a deployment; … are the files of a ledger

The names are of a short list, all of them lower case: so none leads out of a folder, and no two mean the same file on
any system. An index is not among them: it is believed, and can be made anew.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, get_args

from tallystick.config import CURSORS_FILE, LEDGER_FILE
from tallystick.evidence.others.cosigning import KEPT_FILE
from tallystick.govern.directory import trail_of
from tallystick.limits import TENANT_NAME_CHARACTERS_MAX
from tallystick.write.queue import FOLDER as QUEUE_FOLDER
from tallystick.write.queue_check import CURSOR
from tallystick.write.queue_mark import MARK
from tallystick.write.queue_refusals import REFUSED

Extent: TypeAlias = Literal["ledger", "deployment"]
"""What a backup is of."""
EXTENTS: Final[tuple[Extent, ...]] = get_args(Extent)

MANIFEST_FILE: Final = "backup.json"
SEAL_FILE: Final = "backup.json.sig"
VERIFIED_FILE: Final = "verified.json"
"""What a service remembers of its last verifications (`tallystick.serve.watch`)."""

KEYS_FOLDER: Final = "keys"
SYSTEM: Final = "system"
TENANTS: Final = ("tenants", "access")
"""The folders of a deployment that have a folder for each tenant."""

_TENANT: Final = rf"[a-z0-9](?:[a-z0-9-]{{0,{TENANT_NAME_CHARACTERS_MAX - 2}}}[a-z0-9])?"
_FOLDERS: Final[dict[Extent, str]] = {"ledger": "", "deployment": rf"{SYSTEM}|(?:{'|'.join(TENANTS)})/{_TENANT}"}
_SEGMENT: Final = r"segment-[0-9]{20}\.q"
_IN_QUEUE: Final = rf"{CURSOR}|{MARK}|{re.escape(REFUSED)}|{_SEGMENT}"
_OF_LEDGER: Final = re.compile(
    rf"{'|'.join(map(re.escape, (LEDGER_FILE, CURSORS_FILE, KEPT_FILE)))}|{QUEUE_FOLDER}/(?:{_IN_QUEUE})", re.ASCII
)
_OF_KEYS: Final = re.compile(r"(?:master|root|checkpoint|evidence)(?:\.next-[0-9a-f]{16})?\.key", re.ASCII)


def is_folder(extent: Extent, folder: str) -> bool:
    """Whether a ledger of such a backup may have that folder; that of a single ledger is the backup's own, ""."""
    return re.fullmatch(_FOLDERS[extent], folder, re.ASCII) is not None


def ledger_in(folder: str) -> str:
    """The name of the ledger that has that folder in a deployment."""
    kind, _, tenant = folder.partition("/")
    return trail_of(tenant) if kind == "access" else f"tenant/{tenant}" if tenant else kind


def within(folder: str, name: str) -> str:
    """The name in a folder of the backup, of which the backup's own is ""."""
    return f"{folder}/{name}" if folder else name


def keys_folder(folder: str) -> str:
    """Where the keys of a ledger are that has that folder."""
    return within(KEYS_FOLDER, folder) if folder else KEYS_FOLDER


def folder_of(extent: Extent, name: str) -> str | None:
    """The folder of the ledger that a file belongs to, by the file's whole name; None for one that none has."""
    if name.startswith(f"{KEYS_FOLDER}/"):
        folder, _, file = name.removeprefix(f"{KEYS_FOLDER}/").rpartition("/")
        return folder if _OF_KEYS.fullmatch(file) and is_folder(extent, folder) else None
    parts = {"ledger": 0, "deployment": 1 if name.startswith(f"{SYSTEM}/") else 2}[extent]
    pieces = name.split("/", parts)
    folder, file = "/".join(pieces[:parts]), pieces[-1]
    return folder if _OF_LEDGER.fullmatch(file) and is_folder(extent, folder) else None
