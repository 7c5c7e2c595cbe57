"""Why events of a queue were refused when their turn came: lines of JSON, each linked to the one before by its MAC.

    {"sequence":7,"why":"…","mac":"32 hex digits"}

The cursor says how many lines there are and what the MAC of the last one is. So no line can be added, removed, moved or
altered, and no caller gets `refused` for a sealed event, or the reverse. Lines past the cursor are of a batch that a
crash cut short: the batch is sealed again, and they are cut off, as this time an event may fare differently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tallystick.durable import sync, sync_folder
from tallystick.limits import QUEUE_BYTES_MAX
from tallystick.plain_file import open_plain, open_to_write
from tallystick.write import queue_mac
from tallystick.write.queue_mac import NO_LINK, Fault, FaultError

REFUSED: Final = "refused.jsonl"

_LINE_BYTES_MAX: Final = 65_536
"""More than any reason has."""

FILE_BYTES_MAX: Final = QUEUE_BYTES_MAX
"""All reasons are held in memory while the queue is open; a longer file has none of ours."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """The refusals of a queue, as far as the cursor speaks for them."""

    reasons: Mapping[int, str]
    """Why, by sequence number."""
    count: int
    link: bytes
    """The MAC of the last line."""
    end: int
    """How many bytes of the file they are; what follows is cut off."""
    fault: FaultError | None = None
    """Why the rest of what the cursor speaks for is not authentic."""


def read_refusals(path: Path, *, key: bytes, queue: bytes, count: int, link: bytes) -> Refusals:
    """Read so many refusals, of which the last has that MAC. What is wrong with them is in the result."""
    reasons: dict[int, str] = {}
    last, end, done = NO_LINK, 0, 0
    fault: FaultError | None = None
    try:
        with open_plain(path) as file:
            for _ in range(count):
                line = file.readline(_LINE_BYTES_MAX)
                sequence, why, last = _parse(line, key=key, queue=queue, link=last)
                reasons[sequence] = why
                end, done = end + len(line), done + 1
    except FileNotFoundError:
        if count:
            fault = FaultError(Fault.REFUSED, "it is not there")
    except FaultError as error:
        fault = error
    if fault is None and last != link:
        fault = FaultError(Fault.REFUSED, "its last line is not the one that the cursor names")
    return Refusals(reasons, done, last, end, fault)


def read_authentic(path: Path, *, key: bytes, queue: bytes) -> Refusals:
    """Read as many refusals as are authentic, for a repair of a queue of which no cursor says how many there are."""
    try:
        with open_plain(path, bytes_max=FILE_BYTES_MAX) as file:
            count = sum(1 for _ in iter(lambda: file.readline(_LINE_BYTES_MAX), b""))
    except FileNotFoundError:
        count = 0
    return read_refusals(path, key=key, queue=queue, count=count, link=NO_LINK)


def render_refusals(refused: Mapping[int, str], *, key: bytes, queue: bytes, link: bytes) -> tuple[bytes, bytes]:
    """Lines to append after the one with the MAC `link`, and the MAC of the last of them."""
    lines = []
    for sequence, why in refused.items():
        link = queue_mac.mac(key, "refused", _authenticated(sequence, why, queue=queue, link=link))
        lines.append(_line(sequence, why, link))
    return b"".join(lines), link


def append_refusals(path: Path, lines: bytes, *, end: int) -> None:
    """Write lines at an offset, durably. A crash within leaves lines that no cursor speaks for."""
    with open_to_write(path) as file:
        file.seek(end)
        file.write(lines)
        file.truncate()  # what an earlier attempt left, which the cursor does not speak for either
        sync(file)


def open_refusals(path: Path, *, end: int) -> None:
    """Make the file, if it is not there, and cut off what no cursor speaks for. Durable on return."""
    with open_to_write(path, create=True) as file:
        file.truncate(end)
        sync(file)
    sync_folder(path.parent)  # its name: else a power cut could take away what the cursor speaks for


def _parse(line: bytes, *, key: bytes, queue: bytes, link: bytes) -> tuple[int, str, bytes]:
    try:
        found = json.loads(line)
        sequence, why, tag = found["sequence"], found["why"], bytes.fromhex(found["mac"])
        if type(sequence) is not int or not 0 <= sequence < 1 << 63 or _line(sequence, why, tag) != line:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FaultError(Fault.REFUSED, "it has fewer lines than the cursor says, or one that is damaged") from None
    if not queue_mac.is_mac(key, "refused", _authenticated(sequence, why, queue=queue, link=link), tag):
        seen = f"the line of event {sequence} was not written here with this ledger's keys: it is forged, or was moved"
        raise FaultError(Fault.REFUSED, seen)
    return sequence, why, tag


def _authenticated(sequence: int, why: str, *, queue: bytes, link: bytes) -> bytes:
    return queue + link + sequence.to_bytes(8, "big") + why.encode("utf-8", "surrogatepass")


def _line(sequence: int, why: str, tag: bytes) -> bytes:
    fields = {"sequence": sequence, "why": why, "mac": tag.hex()}
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
