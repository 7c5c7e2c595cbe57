"""The ledger's own story, held together: epochs, the keys in force, the streams (SPEC 8, steps 8, 10 and 11).

Fed range by range, in order. It remembers one line an epoch and a key, and a bounded number of streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tallystick.core.keys import commitment, epoch_key
from tallystick.core.record import EPOCH_CLOSED, EPOCH_OPENED, KEY_ROTATED, LEDGER_CREATED, Record
from tallystick.core.system import EpochClosed, EpochOpened, KeyRotated, Purpose
from tallystick.errors import RejectedError
from tallystick.evidence.findings import Finding, Kind
from tallystick.evidence.verification.ranges import Ranges
from tallystick.evidence.verification.scan import Scan

STREAMS_MAX: Final = 1_000_000
"""Streams followed across ranges; of a ledger with more, the later ones are held together within ranges only."""


@dataclass(frozen=True, slots=True)
class KeyInForce:
    """From which position on a public key (32 bytes) signs; None for a key that nothing vouches for."""

    since: int
    key: bytes | None


class History:
    """What a verification knows after the ranges that it was given, and what it found in them.

    `first` is where the verification begins. Past 0, what happened before is taken as it is.
    """

    def __init__(self, *, first: int, keys: dict[Purpose, KeyInForce], event_mac: bytes | None) -> None:
        self.findings: list[Finding] = []
        self.keys: Final = {purpose: [key] for purpose, key in keys.items()}
        self.epoch: int | None = None if first else -1
        self.epoch_at: int | None = None
        self.first: Final = first
        self._event_mac: Final = event_mac
        self._closed_at: int | None = None if first else 0
        self._runs: list[list[int]] = []
        self._damaged: set[int] = set()
        self._gone: list[tuple[int, int]] = []  # longer runs of positions; few, as neighbours are one finding
        self._gap = False  # a record's part in its stream is unknown, so versions may seem to jump
        self._streams: dict[str, int] = {}
        self._absent_at: dict[str, int] = {}  # how many positions were absent when an entity was last seen, if any
        self.absent: Final = Ranges()
        """All positions without a record, lawfully or not."""

    def add(self, scan: Scan) -> None:
        """Take the next range."""
        placed = [(f.position, f.end or f.position + 1) for f in scan.findings if f.position is not None]
        self._damaged = {first for first, end in placed if end == first + 1}
        self._gone = [(first, end) for first, end in placed if end > first + 1]
        own = {at: line for at, line in scan.own_records if not self._is_damaged(at)}
        self._gap = self._gap or bool(placed)
        self.absent.extend(scan.absent)
        self._follow_streams(scan)
        self._runs = scan.epochs
        starts = {first: epoch for epoch, first, _ in scan.epochs}
        for position in sorted(own.keys() | starts.keys()):
            record = Record.parse(own[position]) if position in own else None
            if position in starts:
                self._epoch_run(starts[position], position, record)
            if record is not None:
                self._own_record(position, record)

    def key_at(self, purpose: Purpose, size: int) -> bytes | None:
        """The public key by which a checkpoint of that size must be signed."""
        return next((k.key for k in reversed(self.keys[purpose]) if k.since < size or not k.since), None)

    def key_since(self, purpose: Purpose) -> int:
        """Where the newest key of a purpose was named."""
        return self.keys[purpose][-1].since

    @property
    def epoch_is_open(self) -> bool:
        """Whether the last epoch seen was not closed."""
        return self._closed_at is None

    def _add(self, kind: Kind, position: int, seen: str) -> None:
        self.findings.append(Finding(kind, position, seen))

    def _is_damaged(self, position: int) -> bool:
        if position in self._damaged or position in self.absent:
            return True
        return any(first <= position < end for first, end in self._gone)

    def _epoch_run(self, epoch: int, position: int, record: Record | None) -> None:
        """A run of records of one epoch begins here: it must be the present one, or be opened by this record."""
        if self.epoch is None or self._is_damaged(position) or self._is_damaged(position - 1):
            # What opened or closed it is not known, or is damaged, and that was reported where it is.
            if epoch != self.epoch or self._closed_at is not None:
                self.epoch, self.epoch_at, self._closed_at = epoch, None, None
        elif record is not None and record.event_type == EPOCH_OPENED:
            pass  # judged as the record that it is
        elif epoch != self.epoch:
            self._add(
                Kind.EPOCH,
                position,
                f"a record of epoch {epoch} without its opening, after epoch {self.epoch}",
            )
        elif self._closed_at is not None:
            self._add(Kind.EPOCH, position, f"a record of epoch {epoch} after the epoch's close")

    def _own_record(self, position: int, record: Record) -> None:
        try:
            if self._closed_at is not None and record.event_type not in (EPOCH_OPENED, LEDGER_CREATED):
                self._add(Kind.EPOCH, position, f"a record after the close of epoch {self.epoch}")
            if record.event_type == EPOCH_OPENED:
                self._opened(position, record, EpochOpened.of(record))
            elif record.event_type == EPOCH_CLOSED:
                self._closed(position, record, EpochClosed.of(record))
            elif record.event_type == KEY_ROTATED:
                self._rotated(position, KeyRotated.of(record))
            elif record.event_type == LEDGER_CREATED and position:
                self._add(Kind.GENESIS, position, "a second genesis")
        except RejectedError as error:
            self._add(Kind.EPOCH if "epoch" in record.event_type else Kind.KEY_ROTATION, position, str(error))

    def _opened(self, position: int, record: Record, opened: EpochOpened) -> None:
        if record.members["epoch"] != opened.epoch:
            self._add(Kind.EPOCH, position, f"the opening of epoch {opened.epoch} is not itself of that epoch")
        if self.epoch is not None and not self._is_damaged(position - 1):
            if opened.epoch != self.epoch + 1:
                self._add(Kind.EPOCH, position, f"epoch {opened.epoch} follows epoch {self.epoch}")
            if self._closed_at != position - 1:
                self._add(Kind.EPOCH, position, f"epoch {self.epoch} was not closed right before")
        if self._event_mac and commitment(epoch_key(self._event_mac, opened.epoch)) != opened.key_commitment:
            self._add(Kind.COMMITMENT, position, f"the commitment is not to the key of epoch {opened.epoch}")
        self.epoch, self.epoch_at, self._closed_at = opened.epoch, position, None

    def _closed(self, position: int, record: Record, closed: EpochClosed) -> None:
        if closed.epoch != self.epoch or record.members["epoch"] != closed.epoch:
            self._add(Kind.EPOCH, position, f"the close of epoch {closed.epoch} stands in epoch {self.epoch}")
        if closed.last_position != position:
            self._add(Kind.EPOCH, position, f"the close says that it is at {closed.last_position}")
        if self.epoch_at is not None and closed.first_position != self.epoch_at:
            self._add(Kind.EPOCH, position, f"the close says that the epoch began at {closed.first_position}")
        if any(first <= position < end - 1 for _, first, end in self._runs):
            self._add(Kind.EPOCH, position + 1, f"a record of epoch {closed.epoch} after the epoch's close")
        self._closed_at = position

    def _rotated(self, position: int, rotated: KeyRotated) -> None:
        before = self.keys[rotated.purpose][-1]
        known = before.key is None or before.key == rotated.old_key or position <= before.since
        if not known or not rotated.signatures_hold():
            self._add(Kind.KEY_ROTATION, position, f"the {rotated.purpose} key was changed without both keys' leave")
        elif position > before.since:
            self.keys[rotated.purpose].append(KeyInForce(position, rotated.new_key))

    def _follow_streams(self, scan: Scan) -> None:
        streams, absent = self._streams, self.absent
        for entity_id, (position, version, last, last_at) in scan.streams.items():
            before = streams.get(entity_id, 0)
            from_start = not self.first and len(streams) < STREAMS_MAX
            # Versions count up by one, and may leave out no more than there are positions without a record.
            left_out = absent.below(position) - self._absent_at.get(entity_id, 0)
            if (before or from_start) and not before < version <= before + 1 + left_out and not self._gap:
                self._add(Kind.ENTITY_VERSION, position, f"version {version} of {entity_id[:60]!r} follows {before}")
            if before or len(streams) < STREAMS_MAX:
                streams[entity_id] = last
                gone = absent.below(last_at)
                if gone:
                    self._absent_at[entity_id] = gone
