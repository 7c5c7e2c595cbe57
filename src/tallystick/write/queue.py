"""The queue: events that are accepted, durable and ordered, and not sealed yet (I1).

A caller has a ticket when the event is on the disk; many threads share the syncs. A thread of the queue's own
seals what waits, in order, and moves the cursor on. Nothing is sealed twice: every event has an id, and a repeat is
answered with the first record. Past the high-water mark events are refused with `BusyError`, never dropped. One process
has the queue at a time; how it rests on the disk is `tallystick.write.journal`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

import msgspec

from tallystick.clock import Clock
from tallystick.core import timestamp
from tallystick.core.event import ExpectedVersion
from tallystick.errors import (
    BusyError,
    ConflictError,
    NotFoundError,
    RejectedError,
    StoreError,
    TallystickError,
    TamperError,
)
from tallystick.limits import QUEUE_BYTES_MAX, QUEUE_EVENTS_MAX
from tallystick.write import queue_check
from tallystick.write.draft import BROUGHT, Draft
from tallystick.write.journal import Journal
from tallystick.write.request import Sealed
from tallystick.write.segments import LOST

FOLDER: Final = queue_check.FOLDER
BATCH_EVENTS: Final = 1_000

Seal: TypeAlias = Callable[[Sequence[Draft]], Sequence[Sealed | ConflictError]]
"""Seals drafts in order, each by itself; `StoreError` or `BusyError` when none is known to be sealed."""
Find: TypeAlias = Callable[[str], int | None]
"""The position of the record with an event id."""

State: TypeAlias = Literal["queued", "sealed", "refused"]

_NO_PREFIX: Final = "\0"
"""Of queued drafts every id was given before, also those that were made: all are looked up."""
_LOST_SENTENCE: Final = "it was lost when the queue was damaged: send it again"
_RETRY_SECONDS: Final = (0.05, 0.2, 1.0, 5.0)

_log: Final = logging.getLogger("tallystick.write")


class _Body(msgspec.Struct, array_like=True, frozen=True):
    """A draft as it is kept in a frame."""

    id: str
    entity_id: str
    expected_version: int | str
    before: bytes
    middle: bytes
    after: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Body).decode


@dataclass(frozen=True, slots=True)
class Ticket:
    """The receipt of an event that is durable and not sealed yet."""

    sequence: int
    """Its place in the queue, counted from 0 for ever."""
    event_id: str
    accepted_at: int
    """In microseconds."""
    breach: str = ""
    """What of its schema the event breaks; it was taken all the same, as schemas only warn in this ledger."""
    proof: str = ""
    """What a service wants to see beside it from a key with a scope: else that could ask about others' events."""

    @property
    def id(self) -> str:
        """The ticket as text."""
        text = f"{self.sequence}.{self.event_id}"
        return f"{text}~{self.proof}" if self.proof else text


@dataclass(frozen=True, slots=True)
class Progress:
    """What has become of a ticket."""

    state: State
    position: int | None = None
    """Where its record is, if it is sealed."""
    why: str | None = None
    """Why it was refused when its turn came: a conflict."""


GATHER_EVENTS: Final = 1_000
GATHER_SECONDS: Final = 0.02
"""With fewer events than that it waits so long for more: many sealed together cost a third of what they cost alone, and
a caller that takes a ticket has said that sealing may take a moment."""


CLEAR_SECONDS: Final = 1.0
"""How often what is sealed is removed from the disk, where its segment may still get others: it may be purged from the
ledger, and must not stay here. More often costs three syncs each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """How the queue stands. Counts are since it was opened, but for the depth."""

    depth: int
    bytes: int
    oldest_seconds: float
    """How long the event has waited that is next."""
    accepted: int
    sealed: int
    conflicts: int
    refused: int
    """Events that were refused because the queue was full."""
    problem: str | None
    """Why nothing is sealed at the moment."""


class Queue:
    """The queue of one ledger, in its folder. Safe for many threads."""

    def __init__(
        self,
        folder: Path,
        *,
        key: bytes,
        mark: Path | None = None,
        seal: Seal,
        find: Find,
        clock: Clock,
        events_max: int = QUEUE_EVENTS_MAX,
        bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        """Open it, making it if need be, and begin to seal what waits. `key` is `LedgerKeys.queue_mac`, `mark` the file
        of the mark, by default in the folder. Raises as `Journal` does."""
        self._seal: Final = seal
        self._find: Final = find
        self._clock: Final = clock
        self._events_max: Final = events_max
        self._bytes_max: Final = bytes_max
        self._changed: Final = threading.Condition()
        self._hurry: Final = threading.Event()
        self._stopping = False
        self._halted = False
        self._problem: str | None = None
        self._cleared = time.monotonic()
        self._accepted = self._sealed = self._conflicts = self._turned_away = 0
        self._journal: Final = Journal(folder, key=key, mark=mark)
        self._drainer: Final = threading.Thread(target=self._drain, name="tallystick-queue", daemon=True)
        self._drainer.start()

    def accept(self, drafts: Sequence[Draft]) -> list[Ticket]:
        """Take drafts in, in their order. On return they are durable, and will be sealed, or refused for a conflict.

        Raises `BusyError` past the high-water mark, and none is taken then; `StoreError` when they could not be
        written, after which the outcome may be unknown: repeat with the same ids.
        """
        bodies = [_body(draft) for draft in drafts]
        with self._changed:
            waiting, size = self._journal.end - self._journal.cursor, self._journal.bytes
            if waiting + len(bodies) > self._events_max or size + sum(map(len, bodies)) > self._bytes_max:
                self._turned_away += len(bodies)
                raise BusyError(f"{waiting} events wait to be sealed: wait a moment, then repeat")
            if self._halted:
                raise BusyError(f"the queue has stopped, and takes nothing until it is mended: {self._problem}")
            if self._stopping:
                raise StoreError("the queue was closed")
            now = self._clock()
            first = self._journal.append(bodies, now=now) if bodies else 0
        if bodies:
            self._journal.sync(first + len(bodies))
        with self._changed:
            self._accepted += len(bodies)
            self._changed.notify_all()
        return [Ticket(first + number, draft.id, now, draft.breach) for number, draft in enumerate(drafts)]

    def progress(self, ticket: str) -> Progress:
        """What has become of a ticket, given as its text. Raises `NotFoundError` for one that was never given."""
        number, _, event_id = ticket.partition(".")
        if not number.isdecimal() or not number.isascii() or len(number) > 18 or not event_id:
            raise RejectedError(f"{ticket[:60]!r} is not a ticket", place="ticket", cure="send it as it was given")
        sequence = int(number)
        if sequence < self._journal.durable:
            if sequence >= self._journal.cursor:
                return Progress("queued")
            why = self._journal.refusals.get(sequence)
            if why is not None:
                return Progress("refused", why=why)
            position = self._find(event_id)
            if position is not None:
                return Progress("sealed", position)
        raise NotFoundError(f"there is no ticket {ticket[:60]!r}")

    def wait(self, ticket: Ticket, *, seconds: float | None = None) -> Progress:
        """Wait until a ticket is sealed or refused. Raises `BusyError` when it takes longer, or nothing is sealed."""
        with self._changed:
            self._changed.wait_for(lambda: self._journal.cursor > ticket.sequence or self._stopping, seconds)
        if self._journal.cursor <= ticket.sequence:
            raise BusyError(f"the event {ticket.event_id} is still queued: ask again later")
        return self.progress(ticket.id)

    def drain(self, *, seconds: float | None = None) -> None:
        """Wait until nothing waits. Raises `BusyError` when it takes longer, or why nothing is sealed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_empty() or self._halted or self._stopping, seconds)
            if not self._is_empty():
                depth = self._journal.durable - self._journal.cursor
                raise BusyError(f"{depth} events are still queued{f': {self._problem}' if self._problem else ''}")

    def stats(self) -> QueueStats:
        """How it stands."""
        journal = self._journal
        with self._changed:
            oldest = journal.oldest_at
            waited = 0.0 if oldest is None else max(0, self._clock() - oldest) / timestamp.SECOND
            return QueueStats(
                depth=journal.durable - journal.cursor,
                bytes=journal.bytes,
                oldest_seconds=waited,
                accepted=self._accepted,
                sealed=self._sealed,
                conflicts=self._conflicts,
                refused=self._turned_away,
                problem=journal.broken or self._problem,
            )

    def close(self, *, seconds: float = 30.0) -> None:
        """Seal what waits, for so long at most, and let go of the files. What is left is sealed the next time."""
        self._hurry.set()
        with contextlib.suppress(BusyError):
            self.drain(seconds=seconds)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._drainer.join()
        try:
            self._journal.clear()
        except StoreError as error:
            _log.warning("%s: it goes when the queue is opened again", error)
        self._journal.close()

    def clear(self) -> None:
        """Have what is sealed leave the disk now, and not within `CLEAR_SECONDS`. Raises `StoreError`."""
        self._journal.clear()

    def _is_empty(self) -> bool:
        return self._journal.cursor >= self._journal.durable

    def _drain(self) -> None:
        """Seal what is durable, batch by batch, until told to stop."""
        failures = 0
        while True:
            with self._changed:
                idle = CLEAR_SECONDS if self._journal.has_sealed else None
                self._changed.wait_for(lambda: self._stopping or not self._is_empty(), idle)
                if self._stopping:
                    return
            if self._is_empty():
                self._clear()
                continue
            if self._journal.durable - self._journal.cursor < GATHER_EVENTS:
                self._hurry.wait(GATHER_SECONDS)
            try:
                self._seal_next()
                failures = 0
                if time.monotonic() - self._cleared >= CLEAR_SECONDS:
                    self._clear()
            except (BusyError, StoreError, OSError) as error:
                pause: float | None = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                self._tell(error)
            except TallystickError as error:  # keys that are gone, a ledger that does not hold: someone must see to it
                _log.error("the queue has stopped: %s", error)
                pause = None
                self._halted = True
                self._tell(error)
            else:
                continue
            self._clear()  # it may take long until more is sealed
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, pause)

    def _seal_next(self) -> None:
        frames = self._journal.next(BATCH_EVENTS)
        there = [frame for frame in frames if frame.body != LOST]
        outcomes = self._seal([_draft(frame.body) for frame in there]) if there else ()
        refused = {frame.sequence: _LOST_SENTENCE for frame in frames if frame.body == LOST}
        for frame, outcome in zip(there, outcomes, strict=True):
            if isinstance(outcome, ConflictError):
                refused[frame.sequence] = str(outcome)
        # A crash from here on seals the batch again, which changes nothing.
        self._journal.done(frames, refused)
        with self._changed:
            self._problem = None
            self._sealed += len(frames) - len(refused)
            self._conflicts += len(refused)
            self._changed.notify_all()

    def _clear(self) -> None:
        self._cleared = time.monotonic()
        try:
            self._journal.clear()
        except StoreError as error:
            _log.warning("%s: it is tried again in a moment", error)

    def _tell(self, error: Exception) -> None:
        with self._changed:
            self._problem = str(error)
            self._changed.notify_all()


def _body(draft: Draft) -> bytes:
    return _encode(_Body(draft.id, draft.entity_id, draft.expected_version, draft.before, draft.middle, draft.after))


def _draft(body: bytes) -> Draft:
    try:
        kept = _decode(body)
    except msgspec.DecodeError as error:
        raise TamperError(f"a frame of the queue cannot be read: {error}; see `tallystick queue repair`") from error
    expected = cast("ExpectedVersion", kept.expected_version)
    return Draft(kept.before, kept.middle, kept.after, kept.entity_id, BROUGHT, kept.id, _NO_PREFIX, expected)
