"""Small files and keys that a command is given, and files that it writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tallystick.cli import screen
from tallystick.durable import replace
from tallystick.errors import RejectedError
from tallystick.limits import NOTE_BYTES_MAX
from tallystick.private_file import write_through

if TYPE_CHECKING:
    from tallystick.core.note import VerifierKey
    from tallystick.core.policy import Policy

_BYTES_MAX: Final = 4 * NOTE_BYTES_MAX
"""More than any checkpoint, proof, record or key has."""


def read_text(file: str) -> bytes:
    """The bytes of a small file, or of standard input for `-`. Raises `RejectedError`."""
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_BYTES_MAX + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(_BYTES_MAX + 1)
    except OSError as error:
        raise RejectedError(f"cannot be read: {error.strerror or error}", place=file) from error
    if len(data) > _BYTES_MAX:
        raise RejectedError(f"has more than {_BYTES_MAX:,} bytes", place=file, cure="is it the right file?")
    return data


def write_out(file: str | None, data: bytes) -> None:
    """Write bytes to a file, wholly or not at all, or to standard output for None and `-`."""
    if file is None or file == "-":
        screen.say_bytes(data)
        return
    try:
        path = Path(file)
        if path.is_symlink() or (path.exists() and not path.is_file()):  # a pipe, or a name of one, as /dev/stdout is
            write_through(path, data)
        else:
            replace(path, data)
    except OSError as error:
        raise RejectedError(f"cannot be written: {error.strerror or error}", place=file) from error


def parse_vkey(text: str) -> VerifierKey:
    """A verifier key as it is printed, or `@` and the file that holds it."""
    from tallystick.core.note import VerifierKey

    if text.startswith("@"):
        text = read_text(text[1:]).decode("utf-8", "replace").strip()
    return VerifierKey.parse(text)


def read_policy(file: str) -> Policy:
    """A trust file (C2SP tlog-policy). Raises `RejectedError` with the file and the line."""
    from tallystick.core.policy import Policy

    data = read_text(file)
    try:
        return Policy.parse(data)
    except RejectedError as error:
        place = ", ".join(filter(None, (file, error.place)))
        raise RejectedError(error.problem, place=place, cure=error.cure) from error
