"""What a reader of a stream asks for, and what of it was committed before they came."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeAlias

from tallystick.ledger import Ledger
from tallystick.limits import STREAM_PIECE_BYTES
from tallystick.read.query import Query
from tallystick.read.shapes import record_json

BATCH_RECORDS: Final = 500
"""Records of a piece, which has `STREAM_PIECE_BYTES` at most."""

TURN_SECONDS: Final = 0.05
"""How long one reader's past is looked through before the next one's turn."""

_LOOKED_RECORDS: Final = 500
"""Positions that are looked at between two looks at the clock."""

Lease: TypeAlias = Callable[[str], AbstractContextManager[Ledger]]


class Form(Protocol):
    """How what is told stands on the line. What is joined is what was framed, one behind another."""

    @property
    def greeting(self) -> bytes:
        """What comes first."""

    @property
    def beat(self) -> bytes:
        """What says that the line stands; empty where something else does."""

    def frame(self, position: int, record: bytes) -> bytes:
        """A record."""

    def farewell(self, why: str, cursor: int) -> bytes:
        """What comes last, to one who is let go: why, and the position to go on from."""


Asked: TypeAlias = tuple[Query, Form]


class Past:
    """What was committed before a reader came, read in pieces by whatever thread is free."""

    def __init__(self, ledger: str, lease: Lease, asked: Asked, cursor: int) -> None:
        self._ledger: Final = ledger
        self._lease: Final = lease
        self._query, self._form = asked
        self.cursor = cursor

    def check(self) -> None:
        """Raises `RejectedError` for a position that is not there yet."""
        with self._lease(self._ledger) as ledger, ledger.subscribe(self._query, cursor=self.cursor):
            pass

    def more(self, end: int) -> bytes:
        """The next frames of records below a position; the cursor is there when there are no more. Some, not all.

        It may be none, where many have been looked at and none fits: others have their turn, too.
        """
        pieces: list[bytes] = []
        room = STREAM_PIECE_BYTES
        with self._lease(self._ledger) as ledger, ledger.subscribe(self._query, cursor=self.cursor) as subscription:
            until: float | None = None
            while room > 0 and len(pieces) < BATCH_RECORDS and self.cursor < end:
                now = time.monotonic()
                until = now + TURN_SECONDS if until is None else until  # whatever it took to open the ledger
                if now > until:
                    break
                stop = min(end, self.cursor + _LOOKED_RECORDS)
                record = subscription.take(0, end=stop)
                if record is None or record.position >= stop:
                    self.cursor = stop
                    continue
                self.cursor = record.position + 1
                pieces.append(self._form.frame(record.position, record_json(record)))
                room -= len(pieces[-1])
        return b"".join(pieces)
