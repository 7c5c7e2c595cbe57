"""The manifest of a backup, `backup.json`: what was copied, when, and up to which signed checkpoint of each ledger.

One canonical JSON document, written and read here, strictly: what `parse` takes, `render` writes again byte for byte.
Whether what it says is true is for the restore (`tallystick.backups.judging`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from tallystick.backups.layout import EXTENTS, KEYS_FOLDER, SYSTEM, VERIFIED_FILE, Extent, folder_of, is_folder, within
from tallystick.config import LEDGER_FILE
from tallystick.core import timestamp
from tallystick.core.canonical import decode_canonical, encode
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.ed25519 import check_public_key
from tallystick.core.strict import parse_base64, render_base64
from tallystick.errors import RejectedError
from tallystick.limits import (
    BACKUP_FILE_BYTES_MAX,
    BACKUP_FILES_MAX,
    BACKUP_MANIFEST_BYTES_MAX,
    NAME_CHARACTERS_MAX,
    NOTE_BYTES_MAX,
)

FORMAT: Final = "tallystick-backup/1"
_TOOL_CHARACTERS_MAX: Final = 200
_HEX: Final = re.compile(r"[0-9a-f]{64}").fullmatch


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One file of a backup."""

    name: str
    size: int
    sha256: bytes

    def document(self) -> dict[str, Any]:
        return {"bytes": self.size, "name": self.name, "sha256": self.sha256.hex()}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLedger:
    """One ledger of a backup, as it was at one commit."""

    folder: str
    """Where it is in the backup; that of a single ledger is ""."""
    name: str
    origin: str
    id: bytes
    """The SHA-256 of its genesis."""
    size: int
    checkpoint: bytes
    """The signed checkpoint of that size."""

    @property
    def place(self) -> str:
        """Which one it is, for people."""
        return self.folder or self.name

    def document(self) -> dict[str, Any]:
        return {
            "checkpoint": self.checkpoint.decode(),
            "folder": self.folder,
            "id": self.id.hex(),
            "name": self.name,
            "origin": self.origin,
            "size": self.size,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupManifest:
    """What a backup says of itself."""

    created: str
    extent: Extent
    keys: bool
    """Whether the ledgers' keys are in it."""
    signer: bytes | None
    """The evidence key, of the system ledger or of the only one, that signed it; None when nobody did."""
    ledgers: tuple[KeptLedger, ...]
    """By their folders."""
    files: tuple[KeptFile, ...]
    """By their names."""
    unbegun: tuple[str, ...] = ()
    """Of a deployment, the folders of ledgers that its system ledger tells of, and that were not begun."""
    tool: str = "tallystick"

    @property
    def total_bytes(self) -> int:
        """How long all files are together."""
        return sum(file.size for file in self.files)

    @property
    def vouching(self) -> KeptLedger:
        """The ledger whose evidence key signs the backup: the system's, or the only one."""
        return next(ledger for ledger in self.ledgers if ledger.folder in ("", SYSTEM))

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "created": self.created,
            "files": [file.document() for file in self.files],
            "format": FORMAT,
            "extent": self.extent,
            "keys": self.keys,
            "ledgers": [ledger.document() for ledger in self.ledgers],
            "signer": None if self.signer is None else render_base64(self.signer),
            "tool": self.tool,
            "unbegun": [*self.unbegun],
        }

    def render(self) -> bytes:
        """Write what `parse` reads. Raises `RejectedError` for a backup of more than can be read back."""
        self.check()
        data = encode(self.document())
        if len(data) > BACKUP_MANIFEST_BYTES_MAX:
            cure = "back the ledgers up one by one"
            raise RejectedError(f"a manifest of {len(data)} bytes; at most {BACKUP_MANIFEST_BYTES_MAX} fit", cure=cure)
        return data

    @classmethod
    def parse(cls, data: bytes) -> BackupManifest:
        """Read a manifest. Raises `RejectedError` with the JSON pointer of what is wrong."""
        if len(data) > BACKUP_MANIFEST_BYTES_MAX:
            raise RejectedError(f"a manifest of more than {BACKUP_MANIFEST_BYTES_MAX} bytes")
        document = decode_canonical(data)
        manifest = _manifest(document)
        if manifest.document() != document:
            raise RejectedError("it has other members than a manifest of this format")
        manifest.check()
        return manifest

    def check(self) -> None:
        """What the members must be to each other. Raises `RejectedError`."""
        if len(self.files) > BACKUP_FILES_MAX:
            raise RejectedError(f"{len(self.files):,} files; at most {BACKUP_FILES_MAX:,} are allowed", place="/files")
        folders = [ledger.folder for ledger in self.ledgers]
        if any(one >= other for one, other in pairwise(folders)):
            raise RejectedError("the folders do not ascend", place="/ledgers")
        if not {"", SYSTEM} & {*folders}:
            raise RejectedError("the ledger that vouches for the others is not among them", place="/ledgers")
        if any(one >= other for one, other in pairwise(self.unbegun)) or {*self.unbegun} & {*folders}:
            raise RejectedError("the folders do not ascend, or are those of ledgers", place="/unbegun")
        names = [file.name for file in self.files]
        if any(one >= other for one, other in pairwise(names)):
            raise RejectedError("the names do not ascend, or one comes twice", place="/files")
        known, there = frozenset(folders), frozenset(names)
        for index, name in enumerate(names):
            self._check_file(name, f"/files/{index}/name", known)
        missing = [folder for folder in folders if within(folder, LEDGER_FILE) not in there]
        if missing:
            raise RejectedError(f"the ledger {missing[0]!r} has no {LEDGER_FILE}", place="/files")

    def _check_file(self, name: str, place: str, folders: frozenset[str]) -> None:
        if self.extent == "deployment" and name == VERIFIED_FILE:
            return
        if folder_of(self.extent, name) not in folders:
            raise RejectedError(f"{ascii(name)[:80]} is no name that a file of these ledgers has", place=place)
        if name.startswith(f"{KEYS_FOLDER}/") and not self.keys:
            raise RejectedError("it is a key, and the backup says that it has none", place=place)


def _manifest(document: Any) -> BackupManifest:
    if type(document) is not dict:
        raise RejectedError("a manifest is a JSON object")
    if document.get("format") != FORMAT:
        shown = ascii(document.get("format"))[:60]
        raise RejectedError(f"the format is {shown}, not {FORMAT}", place="/format", cure="use the matching version")
    extent = next((one for one in EXTENTS if one == document.get("extent")), None)
    if extent is None:
        raise RejectedError(f"not one of {', '.join(EXTENTS)}", place="/extent")
    if type(document.get("keys")) is not bool:
        raise RejectedError("neither true nor false", place="/keys")
    created = _text(document, "created", "", most=40)
    timestamp.parse(created)
    return BackupManifest(
        created=created,
        extent=extent,
        keys=document["keys"],
        signer=None if document.get("signer") is None else _key(_text(document, "signer", "", most=100)),
        ledgers=tuple(_ledger(one, place, extent) for place, one in _objects(document, "ledgers")),
        files=tuple(_file(one, place) for place, one in _objects(document, "files")),
        unbegun=tuple(_unbegun(document, extent)),
        tool=_text(document, "tool", "", most=_TOOL_CHARACTERS_MAX),
    )


def _unbegun(document: dict[str, Any], extent: Extent) -> Iterator[str]:
    found = document.get("unbegun")
    if type(found) is not list or len(found) > BACKUP_FILES_MAX:
        raise RejectedError(f"not an array of at most {BACKUP_FILES_MAX}", place="/unbegun")
    for index, folder in enumerate(found):
        if extent != "deployment" or type(folder) is not str or not is_folder(extent, folder):
            raise RejectedError(f"{ascii(folder)[:80]} is no folder of a {extent}", place=f"/unbegun/{index}")
        yield folder


def _ledger(one: dict[str, Any], place: str, extent: Extent) -> KeptLedger:
    folder = _text(one, "folder", place, most=NAME_CHARACTERS_MAX)
    if not is_folder(extent, folder):
        raise RejectedError(f"{ascii(folder)[:80]} is no folder of a {extent}", place=f"{place}/folder")
    text = _text(one, "checkpoint", place, most=NOTE_BYTES_MAX)
    try:
        checkpoint = Checkpoint.of_note(text.encode())
    except RejectedError as error:
        raise RejectedError(f"it is no checkpoint: {error}", place=f"{place}/checkpoint") from error
    origin, size = _text(one, "origin", place, most=NAME_CHARACTERS_MAX), one.get("size")
    if (checkpoint.origin, checkpoint.size) != (origin, size) or type(size) is not int:
        raise RejectedError("it is of another origin, or another size, than the ledger", place=f"{place}/checkpoint")
    return KeptLedger(
        folder=folder,
        name=_text(one, "name", place, most=NAME_CHARACTERS_MAX),
        origin=origin,
        id=_hash(one, "id", place),
        size=size,
        checkpoint=text.encode(),
    )


def _file(one: dict[str, Any], place: str) -> KeptFile:
    size = one.get("bytes")
    if type(size) is not int or not 0 <= size <= BACKUP_FILE_BYTES_MAX:
        raise RejectedError(f"not an integer from 0 to {BACKUP_FILE_BYTES_MAX}", place=f"{place}/bytes")
    return KeptFile(_text(one, "name", place, most=NAME_CHARACTERS_MAX), size, _hash(one, "sha256", place))


def _objects(document: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of an array, each with its place."""
    found = document.get(name)
    if type(found) is not list or len(found) > BACKUP_FILES_MAX:
        raise RejectedError(f"not an array of at most {BACKUP_FILES_MAX}", place=f"/{name}")
    for index, one in enumerate(found):
        if type(one) is not dict:
            raise RejectedError("not an object", place=f"/{name}/{index}")
        yield f"/{name}/{index}", one


def _text(document: dict[str, Any], name: str, place: str, *, most: int) -> str:
    value = document.get(name)
    if type(value) is not str or len(value) > most:
        raise RejectedError(f"not a string of at most {most} characters", place=f"{place}/{name}")
    return value


def _hash(document: dict[str, Any], name: str, place: str) -> bytes:
    text = _text(document, name, place, most=64)
    if not _HEX(text):
        raise RejectedError("not a SHA-256 in lower-case hex", place=f"{place}/{name}")
    return bytes.fromhex(text)


def _key(text: str) -> bytes:
    key = parse_base64(text, place="/signer")
    check_public_key(key, place="/signer")
    return key
