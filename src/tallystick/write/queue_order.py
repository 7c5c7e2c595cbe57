"""The order of a repair: which queue takes the place of which, and what its files are.

    a statement of the kind `repair`, whose `link` is the SHA-256, cut to 16 bytes, of what follows
    the sequence number at which the new queue ends, the MAC of its last frame,
    and the SHA-256 of its segment, of its cursor and of its refusals

So nothing is put in force that the holder of the keys did not write for this very repair. The new mark is made from the
order: it goes where an attacker cannot write, and nothing is copied there from where he can.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from tallystick.plain_file import open_plain
from tallystick.write import queue_mac, segments
from tallystick.write.queue_check import CURSOR
from tallystick.write.queue_mac import MAC_BYTES, STATEMENT_BYTES, Fault, FaultError, Kind, Statement
from tallystick.write.queue_mark import render_mark
from tallystick.write.queue_refusals import REFUSED

ORDER: Final = "order"
"""Its name in the folder of a repair."""

_REST: Final = struct.Struct(">Q16s32s32s32s")
_CHUNK_BYTES: Final = 1 << 20


class Order(NamedTuple):
    """What a repair puts in force."""

    queue: bytes
    """The id of the new queue."""
    begin: int
    """Its first event."""
    end: int
    link: bytes
    """The MAC of its last frame."""
    made_at: int
    """In microseconds."""
    replaces: bytes
    """What the mark was that it replaces (`mark_digest`)."""
    segment: bytes
    """The SHA-256 of its only segment."""
    cursor: bytes
    refusals: bytes

    @property
    def files(self) -> dict[str, bytes]:
        """The SHA-256 of each of its files, by its name in the folder of the queue."""
        name = segments.segment_path(Path(), self.begin).name
        return {name: self.segment, REFUSED: self.refusals, CURSOR: self.cursor}

    def mark(self, key: bytes) -> bytes:
        """The bytes of its mark."""
        return render_mark(Statement(self.queue, self.end, self.link, 1), key=key)

    def render(self, key: bytes) -> bytes:
        """The bytes of the order."""
        rest = _REST.pack(self.end, self.link, self.segment, self.cursor, self.refusals)
        statement = Statement(self.queue, self.begin, _short(rest), self.made_at, self.replaces)
        return queue_mac.render(Kind.REPAIR, statement, key=key) + rest

    @classmethod
    def parse(cls, data: bytes, key: bytes) -> Order:
        """Raises `FaultError` for anything that `render` did not write under this key."""
        statement = queue_mac.parse(Kind.REPAIR, data[:STATEMENT_BYTES], key=key)
        rest = data[STATEMENT_BYTES:]
        if len(rest) != _REST.size or _short(rest) != statement.link:
            raise FaultError(Fault.ALTERED, "it does not name the files that were written with it")
        end, link, *digests = _REST.unpack(rest)
        queue, begin, _, made_at, replaces = statement
        return cls(queue, begin, end, link, made_at, replaces, *digests)


def read_order(path: Path, key: bytes) -> Order:
    """Read an order. Raises `FaultError`, `NotPlainError` and `OSError`."""
    with open_plain(path) as file:
        return Order.parse(file.read(STATEMENT_BYTES + _REST.size + 1), key)


def file_digest(path: Path) -> bytes:
    """The SHA-256 of a file of a queue. Raises `NotPlainError` and `OSError`."""
    hasher = sha256()
    with open_plain(path, bytes_max=segments.FILE_BYTES_MAX) as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.digest()


def _short(rest: bytes) -> bytes:
    return sha256(rest).digest()[:MAC_BYTES]
