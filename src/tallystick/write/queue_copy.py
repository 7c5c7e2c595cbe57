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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tallystick.errors import BusyError, StoreError
from tallystick.made_file import Made, NewFile, make_file
from tallystick.plain_file import check_folder, open_plain
from tallystick.private_file import make_folder
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


class _Segment(NamedTuple):
    """A segment that was copied."""

    first: int
    made: Made
    head: bytes
    """What its copy begins with."""
    frames: list[tuple[int, int]]
    """The sequence number of each frame, and where it begins in the copy."""


def copy_queue(source: Path, target: Path, *, mark: Path | None = None) -> list[Made]:
    """Copy the queue in a folder into another, which is not there yet. Durable on return, but for the names.

    The files that were made are the result; nothing is made where there is no queue. `mark` says where its mark is, if
    not in the folder; that of the copy is. Where only its mark is left, that is copied, so that the copy is found to be
    damaged, too. A mark that is not there, or may not be read, is left out: who vouches for the copy looks whether it
    has one. Raises `StoreError`, and `BusyError` when the queue is repaired, or sealed faster than it can be copied;
    `TamperError` when somebody writes into the copy.
    """
    try:
        for _ in range(_ATTEMPTS_MAX):
            check_folder(source, below=source.parent)
            found = _mark_to_copy(source, mark)
            if found is None and not source.is_dir():
                return []
            made = _copy_whole(source, target, found)
            # A queue that is begun just now has its mark first.
            if made is not None and (found is not None or _mark_to_copy(source, mark) is None):
                return made
            shutil.rmtree(target, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"could not copy the queue in {source}: {error}") from error
    raise BusyError(f"the queue in {source} is being repaired, or changes too fast: repeat a moment later")


def _copy_whole(source: Path, target: Path, mark: Path | None) -> list[Made] | None:
    """Copy all files; None when the copy is not of one state, or a repair came between."""
    repairs = _repairs(source)
    if any(one.startswith(REPAIRED) for one in repairs):
        return None
    made = _copy_once(source, target, mark)
    return made if _repairs(source) == repairs else None


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


def _copy_once(source: Path, target: Path, mark: Path | None) -> list[Made] | None:
    """Copy all files; None when the copy is not of one state. Nothing of the copy is read but what was written."""
    make_folder(target, exist_ok=False)
    before = _sealed_below(_cursor_bytes(source))
    made = []
    marked = None
    if mark is not None:
        found = _copy_mark(mark, target / MARK)
        if found is None:
            return None  # it was put where marks are just now
        made.append(found[0])
        marked = found[1]
    copied = _copy_segments(source, target, first=before or 0, marked=marked)
    cursor = _cursor_bytes(source)
    if cursor is not None:
        made.append(make_file(target / CURSOR, cursor))
    # After the cursor, which says how many lines there are. A line more is of a batch that is sealed again.
    made += _copy_refusals(source, target)
    after = _sealed_below(cursor)
    if after != before:  # what was sealed meanwhile may be removed, and half of it copied
        if after is None or (mark is not None and (marked is None or after > marked)):
            return None
        copied = _without(copied, after, target)
        if not copied or not _has_head(copied[0]):
            return None
    return [*made, *(one.made for one in copied)]


def _copy_segments(source: Path, target: Path, *, first: int, marked: int | None) -> list[_Segment]:
    """Copy what is from an event on, up to the mark."""
    copied: list[_Segment] = []
    found = segments.segments(source)
    for number, (begin, path) in enumerate(found):
        if number + 1 < len(found) and found[number + 1][0] <= first:
            continue
        one, is_whole = _copy_segment(begin, path, target / path.name, first=first, marked=marked)
        copied += [] if one is None else [one]
        if not is_whole:
            break
    return copied


def _without(copied: Sequence[_Segment], first: int, target: Path) -> list[_Segment]:
    """What was copied, without what was sealed meanwhile: events before the first."""
    needed = []
    for number, one in enumerate(copied):
        if number + 1 == len(copied) or copied[number + 1].first > first:
            needed.append(one)
        else:
            one.made.path.unlink()
    if needed:
        needed[0] = _shortened(needed[0], first, target / ".copy")
    return needed


def _shortened(one: _Segment, first: int, scratch: Path) -> _Segment:
    """A copied segment without the frames before an event. What stands between its head and that is left out."""
    begin = min((at for sequence, at in one.frames if sequence >= first), default=one.made.size)
    with NewFile(scratch) as file:
        at = 0
        for chunk in one.made.chunks():
            file.write(chunk[: max(0, HEAD_BYTES - at)])
            file.write(chunk[max(0, max(begin, HEAD_BYTES) - at) :])
            at += len(chunk)
        made = file.finish()
    scratch.replace(one.made.path)
    return one._replace(made=made._replace(path=one.made.path))


def _cursor_bytes(folder: Path) -> bytes | None:
    """The file of the cursor, bounded; None when there is none."""
    try:
        with open_plain(folder / CURSOR, bytes_max=_CHUNK_BYTES) as file:
            return file.read(_CHUNK_BYTES)
    except FileNotFoundError:
        return None


def _sealed_below(cursor: bytes | None) -> int | None:
    """Below which event all is sealed; None when no cursor says so."""
    try:
        return None if cursor is None else queue_mac.peek(Kind.CURSOR, cursor[: STATEMENT_BYTES + 1]).sequence
    except FaultError:
        return None


def _has_head(one: _Segment) -> bool:
    """Whether a segment was copied before it was removed, and so was overwritten."""
    try:
        queue_mac.peek(Kind.SEGMENT, one.head)
    except FaultError:
        return False
    return True


def _copy_mark(source: Path, target: Path) -> tuple[Made, int | None] | None:
    """Copy a mark between two writes of it; with up to where it says that events were acknowledged. None when it is not
    there."""
    data = marked = None
    for _ in range(_MARK_READS_MAX):
        data = mark_bytes(source)
        marked = None if data is None else peek_mark(data)
        if data is None or marked is not None:
            break
    return None if data is None else (make_file(target, data), None if marked is None else marked.sequence)


def _copy_segment(
    number: int, source: Path, target: Path, *, first: int, marked: int | None
) -> tuple[_Segment | None, bool]:
    """Copy the head of a segment, and what it has from an event on. One that is gone is left out.

    A frame that says that more was acknowledged than the copied mark was written later, and so is all after it: it is
    left out, as the copied mark would look like an older one. Whether all of the segment was copied is told, too.
    """
    frames = []
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
                frames.append((frame.sequence, at))
        begin = min(begin, end)
        made, head = _copy(source, target, offset=begin, end=end)
    except FileNotFoundError:
        return None, True
    return _Segment(number, made, head, [(one, at - begin + HEAD_BYTES) for one, at in frames]), end == size


def _copy_refusals(source: Path, target: Path) -> list[Made]:
    try:
        return [_copy(source / REFUSED, target / REFUSED)[0]]
    except FileNotFoundError:
        return []


def _copy(source: Path, target: Path, *, offset: int = HEAD_BYTES, end: int | None = None) -> tuple[Made, bytes]:
    """Copy a file up to an end, or as long as it is now, without what stands between the head of a segment and an
    offset; what was made, and its head."""
    with open_plain(source, bytes_max=segments.FILE_BYTES_MAX) as file, NewFile(target) as copy:
        left = os.fstat(file.fileno()).st_size if end is None else end
        head = file.read(min(HEAD_BYTES, left))
        copy.write(head)
        file.seek(offset)
        left -= max(offset, len(head))
        while left > 0 and (data := file.read(min(left, _CHUNK_BYTES))):
            copy.write(data)
            left -= len(data)
        return copy.finish(), head
