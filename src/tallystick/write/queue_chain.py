"""Following the chain of a queue's frames through its segments, from the cursor on.

Every frame has to be authentic, and to name the one before it. A gap of what was acknowledged is damage, and the frames
after it are still good: each is authentic by itself. A gap past what was acknowledged is what a crash tore, and so is
all that follows it. Frames before the cursor are sealed; only the `acknowledged` of authentic ones is
used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tallystick.write import segments
from tallystick.write.queue_findings import SEGMENTS, Examined, old_format_text
from tallystick.write.queue_mac import NO_LINK, Fault, FaultError, Kind, Statement
from tallystick.write.segments import Frame, Place


@dataclass(slots=True)
class _Gap:
    """No good frame from here on, so far."""

    path: Path
    offset: int
    first: int
    fault: Fault
    seen: str


class _Chain:
    """Follows the chain of frames from the cursor on."""

    def __init__(self, examined: Examined, key: bytes, start: Statement) -> None:
        assert examined.queue is not None, "something says which queue this is"
        self._examined: Final = examined
        self._key: Final = key
        self._queue: Final = examined.queue
        self._tag: Final = segments.tagger(key, examined.queue)
        self._cursor: Final = start.sequence
        self._mark: Final = examined.mark
        self.expected, self.link = start.sequence, start.link
        self.acknowledged = examined.mark.sequence if examined.mark else 0
        self.gap: _Gap | None = None
        self.last: Path | None = None
        """The segment that was looked at last."""
        self._compare_with_mark(None)

    def take_head(self, path: Path, *, is_first: bool) -> None:
        """A segment begins: its head has to be authentic, and to go on where the one before ended."""
        self.last = path
        try:
            head = segments.read_head(path, key=self._key)
            if head.queue != self._queue:
                raise FaultError(Fault.ALTERED, "it is of another queue, or of this one before it was repaired")
            # Before the cursor all is sealed, and the head may be of any place there.
            is_before = is_first and head.sequence < self.expected
            if not is_before and (head.sequence, head.link) != (self.expected, self.link) and self.gap is None:
                raise FaultError(
                    Fault.MISSING, f"it does not go on at event {self.expected}, where the one before ended"
                )
        except FaultError as error:
            self._open_gap(path, 0, error.fault, old_format_text(error) or str(error))

    def take(self, path: Path, offset: int, frame: Frame | None) -> None:
        """What comes next in a segment: a frame by its checksum, or None for what is no frame."""
        if frame is None:
            self._open_gap(path, offset, Fault.CHECKSUM, "bytes were damaged")
            return
        if not segments.is_authentic(frame, self._tag):
            seen = "a frame was not written here with this ledger's keys: it is altered, forged, or of another queue"
            self._open_gap(path, offset, Fault.ALTERED, seen)
            return
        self.acknowledged = max(self.acknowledged, frame.acknowledged)
        if frame.sequence < self._cursor:
            if self.gap is not None and self.gap.first == self._cursor and self.gap.offset:
                self.gap = None  # what stands before the cursor is sealed, and is not used
            return
        if self.gap is None:
            if (frame.sequence, frame.link) == (self.expected, self.link):
                self._go_on(path, offset, frame)
                return
            seen = f"event {frame.sequence} stands where {self.expected} should: frames were removed, moved or repeated"
            self._open_gap(path, offset, Fault.MISSING, seen)
        assert self.gap is not None, "it was opened"
        # Past what was acknowledged a gap is what a crash tore, and so is all that follows it.
        if frame.sequence >= self.expected and self.gap.first < self.acknowledged:
            self._report(self.gap, frame.sequence)
            self.gap, self.expected, self.link = None, frame.sequence, frame.link
            self._go_on(path, offset, frame)

    def _open_gap(self, path: Path, offset: int, fault: Fault, seen: str) -> None:
        self.gap = self.gap or _Gap(path, offset, self.expected, fault, seen)

    def _report(self, gap: _Gap, end: int) -> None:
        lost = end - gap.first
        which = f"event {gap.first}" if lost == 1 else f"events {gap.first} to {end - 1}"
        told = (
            f"{which} {'was' if lost == 1 else 'were'} acknowledged, and cannot be read" if lost else "no event is lost"
        )
        self._examined.add(gap.fault, gap.path.name, f"at byte {gap.offset}: {gap.seen}; {told}", gap.first, end)

    def _go_on(self, path: Path, offset: int, frame: Frame) -> None:
        examined = self._examined
        if frame.sequence == self._cursor:
            examined.oldest_at = frame.accepted_at
            examined.start = Place(path, offset, frame.sequence, frame.link)
        marked = self._mark.sequence if self._mark else 0
        if frame.sequence >= marked and not any(one == path for one, _ in examined.unmarked):
            examined.unmarked.append((path, offset))
        self.expected, self.link = frame.sequence + 1, frame.mac
        examined.bytes += segments.frame_bytes(frame)
        self._compare_with_mark(path)

    def _compare_with_mark(self, path: Path | None) -> None:
        mark = self._mark
        if mark is not None and self.expected == mark.sequence and self.link != mark.link:
            seen = f"what stands before event {self.expected} is authentic, and not what was acknowledged"
            file = path.name if path else Kind.CURSOR.value
            self._examined.add(Fault.ALTERED, file, seen, max(0, self.expected - 1), self.expected)

    def finish(self) -> None:
        """There is no more: what is torn, and what was acknowledged and is not there."""
        examined, gap = self._examined, self.gap
        examined.end, examined.link = self.expected, self.link
        examined.acknowledged = self.acknowledged
        if gap is not None and (gap.first < self.acknowledged or gap.offset == 0):
            # A segment gets its name when its head is on the disk: no crash leaves one without.
            self._report(gap, max(gap.first, self.acknowledged))
        elif gap is not None:
            examined.torn = (gap.path, gap.offset)
        elif self.expected < self.acknowledged:
            which = f"events {self.expected} to {self.acknowledged - 1}"
            seen = (
                f"it ends before {which}, which were acknowledged: the queue was cut off, or an older copy was put back"
            )
            file = self.last.name if self.last else SEGMENTS
            examined.add(Fault.MISSING, file, seen, self.expected, self.acknowledged)


def follow(examined: Examined, found: list[tuple[int, Path]], key: bytes) -> None:
    """Follow the chain through the segments, from the one in which the cursor is."""
    start, later = _beginning(examined, found, key)
    chain = _Chain(examined, key, start)
    for number, (_, path) in enumerate(later):
        try:
            chain.take_head(path, is_first=number == 0)
            for offset, frame in segments.read(path):
                chain.take(path, offset, frame)
        except FileNotFoundError:  # all in it was sealed, and it was removed meanwhile
            continue
    chain.finish()


def _beginning(
    examined: Examined, found: list[tuple[int, Path]], key: bytes
) -> tuple[Statement, list[tuple[int, Path]]]:
    """Where the chain is followed from, and the segments from there on."""
    assert examined.queue is not None, "something says which queue this is"
    start = examined.cursor
    if start is None:  # what is not known to be sealed is looked at from the oldest segment on
        start = next((head for head in _heads(found, key) if head.queue == examined.queue), examined.mark)
        return start or Statement(examined.queue, 0, NO_LINK), found
    before = [number for number, (first, _) in enumerate(found) if first <= start.sequence]
    return start, found[before[-1] :] if before else found


def _heads(found: list[tuple[int, Path]], key: bytes) -> Iterator[Statement]:
    for _, path in found:
        try:
            yield segments.read_head(path, key=key)
        except FaultError:
            continue
