"""When the index of a ledger was last compared with its log, and up to where: what plain answers say of themselves.

A verification that finds the index good leaves this statement beside it, under a MAC: nobody without the keys can
claim one that never was. It says what was so then, and not that the file is untouched since; answers that have to be
proven do not come from the index at all.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tallystick import durable
from tallystick.core import timestamp
from tallystick.errors import RejectedError
from tallystick.limits import SIZE_MAX
from tallystick.plain_file import NotPlainError, read_plain

FILE_NAME: Final = "index.compared"
_BYTES_MAX: Final = 1_024
_MAC_BYTES: Final = 32
_CONTEXT: Final = b"tallystick/v1/index-compared\0"


@dataclass(frozen=True, slots=True)
class Compared:
    """The first `position` records were compared with the index, at that time, and it said what they say."""

    position: int
    at: str

    def to_json(self) -> dict[str, int | str]:
        """As answers have it."""
        return {"position": self.position, "at": self.at}


class _Kept(msgspec.Struct, array_like=True, frozen=True):
    position: int
    at: str


class ComparedFile:
    """The statement in a folder, read again when it was replaced. Safe for many threads."""

    def __init__(self, folder: Path, *, key: bytes, ledger_id: bytes) -> None:
        self._folder: Final = folder
        self._name: Final = str(folder / FILE_NAME)
        self._key: Final = key
        self._ledger_id: Final = ledger_id
        self._read: tuple[int, Compared | None] = (-1, None)
        """When the file was written that was read last, and what it said: one assignment."""

    def read(self) -> Compared | None:
        """What it says now."""
        try:
            written = os.stat(self._name).st_mtime_ns  # noqa: PTH116 - a `Path` costs more than the question
        except OSError:
            return None
        if self._read[0] != written:
            self._read = (written, read_compared(self._folder, key=self._key, ledger_id=self._ledger_id))
        return self._read[1]


def keep_compared(folder: Path, compared: Compared, *, key: bytes, ledger_id: bytes) -> None:
    """Leave the statement beside the index; `OSError` when that cannot be done. Losing it loses nothing else."""
    content = msgspec.msgpack.encode(_Kept(compared.position, compared.at))
    durable.replace(folder / FILE_NAME, _mac(key, ledger_id, content) + content, synced=False)


def read_compared(folder: Path, *, key: bytes, ledger_id: bytes) -> Compared | None:
    """The statement that lies there; None when there is none, or none of ours."""
    try:
        data = read_plain(folder / FILE_NAME, bytes_max=_BYTES_MAX)
    except (OSError, NotPlainError):
        return None
    mac, content = data[:_MAC_BYTES], data[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(key, ledger_id, content)):
        return None
    try:
        kept = msgspec.msgpack.decode(content, type=_Kept)
        timestamp.parse(kept.at)
    except (msgspec.DecodeError, RejectedError):
        return None
    return Compared(kept.position, kept.at) if 0 < kept.position <= SIZE_MAX else None


def _mac(key: bytes, ledger_id: bytes, content: bytes) -> bytes:
    return hmac.digest(key, _CONTEXT + ledger_id + content, "sha256")
