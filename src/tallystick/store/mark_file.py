"""The file of a head mark: its name, its bytes, and its MAC."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Final

from tallystick.core.checkpoint import Checkpoint
from tallystick.errors import StoreError, TamperError
from tallystick.limits import NOTE_BYTES_MAX
from tallystick.plain_file import open_plain

_CONTEXT: Final = b"tallystick/v1/head-mark\0"
_FORMAT: Final = b"tallystick head mark v1"


class ForgedMarkError(TamperError):
    """The mark is not one that a holder of this ledger's keys wrote."""


def mark_path(folder: Path, ledger_id: bytes) -> Path:
    """Where the mark of a ledger is, in the directory of the marks."""
    return folder / f"{ledger_id.hex()}.head"


def read_mark(path: Path, *, key: bytes, ledger_id: bytes) -> bytes | None:
    """The checkpoint in a mark; None when there is none. Raises `ForgedMarkError`, and `StoreError`."""
    data = _bytes_of(path)
    if data is None:
        return None
    checkpoint = _authentic(data, key=key, ledger_id=ledger_id)
    if checkpoint is None:
        raise ForgedMarkError(
            f"the head mark {path.name} is not one of this ledger by its keys: it was altered or replaced. Find out "
            "who can write there, and compare the ledger with a checkpoint that somebody else keeps"
        )
    return checkpoint


def find_mark(folder: Path, *, key: bytes) -> tuple[Path, Checkpoint] | None:
    """The mark of a ledger whose id is not known, as the ledger is not there; by `key`, which is that of its name.

    Raises `StoreError` when the directory cannot be read.
    """
    try:
        paths = sorted(folder.glob("*.head"))
    except OSError as error:
        raise StoreError(f"could not read the directory of the head marks {folder}: {error.strerror}") from error
    for path in paths:
        try:
            ledger_id = bytes.fromhex(path.stem)
        except ValueError:
            continue  # not a file of ours
        data = _bytes_of(path)
        checkpoint = None if data is None else _authentic(data, key=key, ledger_id=ledger_id)
        if checkpoint is not None:
            return path, Checkpoint.of_note(checkpoint)
    return None


def _bytes_of(path: Path) -> bytes | None:
    try:
        with open_plain(path) as file:
            return file.read(NOTE_BYTES_MAX + 1_000)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"could not read the head mark {path}: {error.strerror or error}") from error


def _authentic(data: bytes, *, key: bytes, ledger_id: bytes) -> bytes | None:
    """The checkpoint in the bytes of a mark; None when no holder of the key wrote it for this ledger."""
    head, _, rest = data.partition(b"\n")
    told_id, _, rest = rest.partition(b"\n")
    tag, _, checkpoint = rest.partition(b"\n")
    # The tag covers the id: a mark of another ledger under the same keys is not this one's.
    expected = _tag(key, ledger_id, checkpoint)
    holds = head == _FORMAT and told_id == ledger_id.hex().encode() and hmac.compare_digest(tag, expected)
    return checkpoint if holds else None


def render_mark(checkpoint: bytes, *, key: bytes, ledger_id: bytes) -> bytes:
    """The bytes that `read_mark` reads."""
    return b"\n".join((_FORMAT, ledger_id.hex().encode(), _tag(key, ledger_id, checkpoint), checkpoint))


def _tag(key: bytes, ledger_id: bytes, checkpoint: bytes) -> bytes:
    message = _CONTEXT + ledger_id + len(checkpoint).to_bytes(4, "big") + checkpoint
    return hmac.digest(key, message, "sha256").hex().encode()
