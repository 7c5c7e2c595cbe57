"""Copying a queue while a process uses it: appends to it, seals from it, and removes what is sealed.

The copy is what a crash at some moment of the copying would leave, and is opened as such. The mark comes first, then
the segments, then the cursor, the reverse of the order in which they are written: so the frames reach the mark, and
what was removed meanwhile is below the cursor. Events that are sealed are left out, as they may be purged from the
ledger later, and so is what a repair kept. The keys are not needed, and nothing is authenticated: opening the
copy does that.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from tallystick.durable import sync
from tallystick.errors import BusyError, StoreError
from tallystick.plain_file import check_folder, open_plain
from tallystick.private_file import create, make_folder, write_new
from tallystick.write import queue_mac, segments
from tallystick.write.queue_check import CURSOR, DAMAGED, REPAIRED
from tallystick.write.queue_mac import STATEMENT_BYTES, FaultError, Kind
from tallystick.write.queue_mark import MARK, find_mark, mark_bytes, peek_mark
from tallystick.write.queue_refusals import REFUSED
from tallystick.write.segments import HEAD_BYTES

_ATTEMPTS_MAX: Final = 50
"""Copies that a running queue may spoil, by sealing all that the copy has within the copying: each is short then."""
_MARK_READS_MAX: Final = 100
"""Reads of a mark that is being written, before it counts as damaged and is copied as it is."""
_CHUNK_BYTES: Final = 1 << 20


def copy_queue(source: Path, target: Path, *, mark: Path | None = None) -> None:
    """Copy the queue in a folder into another, which is not there yet. Durable on return, but for the names.

    `mark` says where its mark is, if not in the folder; that of the copy is. Nothing is made where there is no queue.
    Where only its mark is left, that is copied, so that the copy is found to be damaged, too. A mark that is not there,
    or may not be read, is left out: who vouches for the copy looks whether it has one. Raises `StoreError`, and
    `BusyError` when the queue is repaired, or sealed faster than it can be copied.
    """
    try:
        for _ in range(_ATTEMPTS_MAX):
            check_folder(source, below=source.parent)
            found = _mark_to_copy(source, mark)
            if found is None and not source.is_dir():
                return
            # A queue that is begun just now has its mark first.
            if _copy_whole(source, target, found) and (found is not None or _mark_to_copy(source, mark) is None):
                for path in target.iterdir():
                    with path.open("r+b") as file:
                        sync(file)
                return
            shutil.rmtree(target, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"could not copy the queue in {source}: {error}") from error
    raise BusyError(f"the queue in {source} is being repaired, or changes too fast: repeat a moment later")


def _copy_whole(source: Path, target: Path, mark: Path | None) -> bool:
    """Copy all files; whether the copy is of one state, and no repair came between."""
    repairs = _repairs(source)
    is_whole = not any(one.startswith(REPAIRED) for one in repairs)
    return is_whole and _copy_once(source, target, mark) and _repairs(source) == repairs


def _mark_to_copy(source: Path, mark: Path | None) -> Path | None:
    """The file of the mark; None for none that can be read."""
    with suppress(PermissionError):  # who may not read the keys may not read the marks beside them, either
        found = find_mark(source, mark)
        if mark_bytes(found) is not None:
            return found
    return None


def _repairs(source: Path) -> list[str]:
    """What a repair makes, or leaves: another one took the files away while they were read."""
    return sorted(path.name for name in (REPAIRED, DAMAGED) for path in source.glob(f"{name}-*"))


def _copy_once(source: Path, target: Path, mark: Path | None) -> bool:
    """Copy all files; whether the copy is of one state."""
    make_folder(target, exist_ok=False)
    before = _cursor(source)
    marked = None if mark is None else _copy_mark(mark, target / MARK)
    if mark is not None and not (target / MARK).exists():
        return False  # it was put where marks are just now
    for path in _with_events_from(source, before or 0):
        if not _copy_segment(path, target / path.name, first=before or 0, marked=marked):
            break
    _copy(source / CURSOR, target / CURSOR, bytes_max=_CHUNK_BYTES)
    # After the cursor, which says how many lines there are. A line more is of a batch that is sealed again.
    _copy(source / REFUSED, target / REFUSED)
    after = _cursor(target)
    if after == before:
        return True  # nothing was sealed meanwhile, and so nothing removed: the copy is as good as the queue is
    if after is None or (mark is not None and (marked is None or after > marked)):
        return False
    if not any(_with_events_from(target, after)):
        return False
    _leave_out(target, after)
    return _has_head(_with_events_from(target, after)[0])


def _leave_out(target: Path, first: int) -> None:
    """Take what was sealed while it was copied out of the copy."""
    needed = _with_events_from(target, first)
    for _, path in segments.segments(target):
        if path not in needed:
            path.unlink()
    copied = target / ".copy"
    _copy_segment(needed[0], copied, first=first, marked=None)
    copied.replace(needed[0])


def _with_events_from(folder: Path, first: int) -> list[Path]:
    """The segments that may have a sequence number, or later ones."""
    found = segments.segments(folder)
    return [path for number, (_, path) in enumerate(found) if number + 1 == len(found) or found[number + 1][0] > first]


def _cursor(folder: Path) -> int | None:
    """Below which event all is sealed; None when no cursor says so."""
    try:
        with open_plain(folder / CURSOR) as file:
            return queue_mac.peek(Kind.CURSOR, file.read(STATEMENT_BYTES + 1)).sequence
    except (FileNotFoundError, FaultError):
        return None


def _has_head(path: Path) -> bool:
    """Whether a segment was copied before it was removed, and so was overwritten."""
    try:
        with open_plain(path) as file:
            queue_mac.peek(Kind.SEGMENT, file.read(HEAD_BYTES))
    except FaultError:
        return False
    return True


def _copy_mark(source: Path, target: Path) -> int | None:
    """Copy a mark between two writes of it; up to where it says that events were acknowledged."""
    data = None
    for _ in range(_MARK_READS_MAX):
        data = mark_bytes(source)
        marked = None if data is None else peek_mark(data)
        if data is None or marked is not None:
            break
    if data is None:
        return None
    write_new(target, data)
    return None if marked is None else marked.sequence


def _copy_segment(source: Path, target: Path, *, first: int, marked: int | None) -> bool:
    """Copy the head of a segment, and what it has from an event on. One that is gone is left out.

    A frame that says that more was acknowledged than the copied mark was written later, and so is all after it: it is
    left out, as the copied mark would look like an older one. Whether all of the segment was copied is the result.
    """
    try:
        size = end = source.stat().st_size
        begin = size if first else HEAD_BYTES
        for at, frame in segments.read(source):
            if at >= size:
                break
            if frame is not None and marked is not None and frame.acknowledged > marked:
                end = at
                break
            if frame is not None and frame.sequence >= first:
                begin = min(begin, at)
    except FileNotFoundError:
        return True
    _copy(source, target, offset=min(begin, end), end=end)
    return end == size


def _copy(
    source: Path,
    target: Path,
    *,
    offset: int = HEAD_BYTES,
    end: int | None = None,
    bytes_max: int = segments.FILE_BYTES_MAX,
) -> None:
    """Copy a file up to an end, or as long as it is now, without what stands between the head of a segment and an
    offset."""
    try:
        file = open_plain(source, bytes_max=bytes_max)
    except FileNotFoundError:
        return
    with file, create(target) as copy:
        left = os.fstat(file.fileno()).st_size if end is None else end
        head = file.read(min(HEAD_BYTES, left))
        copy.write(head)
        file.seek(offset)
        left -= max(offset, len(head))
        while left > 0 and (data := file.read(min(left, _CHUNK_BYTES))):
            copy.write(data)
            left -= len(data)
