"""Copying a queue while a process has it, and appends to it, seals from it, and removes what is sealed.

The copy is what a crash at this moment would leave, and is opened as such. Segments come first and the cursor after
them: what was removed meanwhile is below the cursor, and sealed. So whoever copies the ledger after the queue has every
event that was accepted before, in the one or in the other, and one that is in both is sealed once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tallystick.durable import sync
from tallystick.errors import BusyError, StoreError
from tallystick.write import segments
from tallystick.write.journal import CURSOR, DAMAGED, REFUSED, REPAIRED

_ATTEMPTS_MAX: Final = 5
_CHUNK_BYTES: Final = 1 << 20


def copy_queue(source: Path, target: Path) -> None:
    """Copy the queue in a folder into another, which is not there yet. Durable on return, but for the names.

    Nothing is made where there is no queue. Raises `StoreError`, and `BusyError` when it is repaired again and again.
    """
    if not source.is_dir():
        return
    try:
        for _ in range(_ATTEMPTS_MAX):
            repairs = [*_repairs(source)]
            _copy_once(source, target, repairs)
            if [*_repairs(source)] == repairs:
                return
            # A repair took the segments away while they were read.
            shutil.rmtree(target)
    except OSError as error:
        raise StoreError(f"could not copy the queue in {source}: {error}") from error
    raise BusyError(f"the queue in {source} is being repaired: wait until it is, then repeat")


def _repairs(folder: Path) -> Iterator[Path]:
    """What a repair makes, or leaves."""
    yield from sorted(folder.glob(f"{REPAIRED}-*-*"))
    yield from sorted(folder.glob(f"{DAMAGED}-*"))


def _copy_once(source: Path, target: Path, repairs: list[Path]) -> None:
    target.mkdir(mode=0o700)
    for _, path in segments.segments(source):
        _copy(path, target / path.name)
    for path in repairs:
        if path.is_dir():
            (target / path.name).mkdir(mode=0o700)
            for _, old in segments.segments(path):
                _copy(old, target / path.name / old.name)
        else:
            _copy(path, target / path.name)
    _copy(source / CURSOR, target / CURSOR)
    # After the cursor: of all below it that was refused it says why. What it says of more is refused again.
    _copy(source / REFUSED, target / REFUSED, lines=True)


def _copy(source: Path, target: Path, *, lines: bool = False) -> None:
    """Copy a file as long as it is now; of lines only whole ones. One that is gone is left out."""
    try:
        file = source.open("rb")
    except FileNotFoundError:
        return
    with file, target.open("xb") as copy:
        left = os.fstat(file.fileno()).st_size
        while left and (data := file.read(min(left, _CHUNK_BYTES))):
            copy.write(data)
            left -= len(data)
        copy.flush()
        if lines:
            copy.truncate(_end_of_lines(target))
        sync(copy)


def _end_of_lines(path: Path) -> int:
    """Where the last whole line ends."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _CHUNK_BYTES)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
    return 0
