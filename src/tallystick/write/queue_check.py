"""Checking the files of a queue: what waits in it, and what of it is not what was written and acknowledged.

The cursor and the mark are authenticated statements about places in the chain of frames. From the cursor on every frame
has to be there, authentic, and linked to the one before, up to the mark; there the chain has to be the one that was
acknowledged. What stands before the cursor is sealed, and not believed. What a crash tore stands past the mark: it is
not damage. Nothing is written here. A queue may be checked while a process uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tallystick.errors import StoreError
from tallystick.write import queue_mac, segments
from tallystick.write.queue_mac import NO_LINK, STATEMENT_BYTES, Fault, FaultError, Kind, Statement
from tallystick.write.queue_mark import MARK, MarkRead, read_mark
from tallystick.write.queue_refusals import REFUSED, Refusals, read_refusals
from tallystick.write.segments import Frame, Place

FOLDER: Final = "queue"
"""The folder of the queue, in that of its ledger."""
CURSOR: Final = "cursor"
SEGMENTS: Final = "segments"
"""What stands for a file in a finding about segments of which none is there."""
REPAIRED: Final = "repaired"
DAMAGED: Final = "damaged"
"""Names in the folder of a queue; the last two with a number, while a repair is under way, and after it."""

_FINDINGS_SHOWN_MAX: Final = 5
_ATTEMPTS_MAX: Final = 5
"""Looks at a queue that seals meanwhile, before what was found counts."""


@dataclass(frozen=True, slots=True)
class QueueFinding:
    """One failed check of a queue."""

    kind: Fault
    file: str
    """Its name in the folder of the queue; of a mark that lies elsewhere, its path."""
    seen: str
    """A sentence: what is wrong, and what it means."""
    sequence: int | None = None
    """The event of the queue, or the first of those, that it is about."""
    end: int | None = None
    """The first event after them; the same as `sequence` when none is lost."""

    @property
    def text(self) -> str:
        """For people: where, and what."""
        return f"{self.file}: {self.seen}"

    def to_json(self) -> dict[str, object]:
        """As it is printed for machines."""
        return {
            "kind": str(self.kind),
            "file": self.file,
            "sequence": self.sequence,
            "end": self.end,
            "seen": self.seen,
        }


@dataclass(slots=True)
class Examined:
    """How the files of a queue stand."""

    queue: bytes | None
    """Its id; None where no queue ever was, or nothing authentic says it."""
    cursor: Statement | None = None
    mark: Statement | None = None
    is_new: bool = False
    """Nothing was ever acknowledged: it is to be made, or a crash kept it from being made whole."""
    start: Place | None = None
    """The frame at the cursor, or where it will be."""
    end: int = 0
    """The sequence number after the last good frame."""
    link: bytes = NO_LINK
    """The MAC of that frame."""
    acknowledged: int = 0
    """Everything below was acknowledged, as the mark and the frames say."""
    bytes: int = 0
    """Of the frames from the cursor on."""
    oldest_at: int | None = None
    """When the frame at the cursor was accepted, in microseconds."""
    torn: tuple[Path, int] | None = None
    """What a crash tore: a segment, and the offset up to which it is good."""
    unmarked: list[tuple[Path, int]] = field(default_factory=list)
    """Where whole frames past the mark begin, by segment."""
    refusals: Refusals = field(default_factory=lambda: Refusals({}, 0, NO_LINK, 0))
    findings: list[QueueFinding] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """How many events wait."""
        return max(0, self.end - (self.cursor.sequence if self.cursor else 0))

    def add(self, kind: Fault, file: str, seen: str, first: int | None = None, end: int | None = None) -> None:
        """Add a finding."""
        self.findings.append(QueueFinding(kind, file, seen, first, end))


def check_queue(folder: Path, key: bytes, *, mark: Path | None = None) -> tuple[QueueFinding, ...]:
    """What of a queue is not as it was written and acknowledged; empty when all of it is, or there is no queue.

    `key` is `LedgerKeys.queue_mac`; `mark` says where the mark is that does not lie in the folder. Changes nothing, and
    may be asked while a process uses the queue. Raises `StoreError` when the files cannot be read.
    """
    findings: list[QueueFinding] = []
    for _ in range(_ATTEMPTS_MAX):
        before = _sealed(folder, key)
        findings = examine(folder, key, mark=mark).findings
        after = _sealed(folder, key)
        # What was sealed meanwhile was removed, and then seems to be missing.
        findings = [one for one in findings if before == after or one.end is None or one.end > after]
        if not findings or before == after:
            break
    return tuple(findings)


def _sealed(folder: Path, key: bytes) -> int:
    """Below which sequence number all is sealed, as far as an authentic cursor says."""
    cursor = _read_cursor(folder, key, Examined(None))
    return cursor.sequence if cursor else 0


def damage_text(findings: Sequence[QueueFinding]) -> str:
    """What was found, in words."""
    shown = "; ".join(one.text for one in findings[:_FINDINGS_SHOWN_MAX])
    more = f"; and {len(findings) - _FINDINGS_SHOWN_MAX} more" if len(findings) > _FINDINGS_SHOWN_MAX else ""
    return f"the queue is damaged, and nothing of it is sealed: {shown}{more}. See `tallystick queue repair`"


def examine(folder: Path, key: bytes, *, mark: Path | None = None) -> Examined:
    """Look at all files of a queue. Raises `StoreError` when they cannot be read.

    The cursor is read before the mark, and the mark before the segments: the running queue writes them in the other
    order, so that none of them can be ahead of what is read after it.
    """
    try:
        return _examine(folder, key, mark or folder / MARK)
    except OSError as error:
        raise StoreError(f"could not read the queue in {folder}: {error}") from error


def _examine(folder: Path, key: bytes, mark_path: Path) -> Examined:
    examined = Examined(None)
    cursor = _read_cursor(folder, key, examined)
    mark_file = mark_path.name if mark_path.parent == folder else str(mark_path)
    marks = read_mark(mark_path, key=key)
    found = segments.segments(folder)
    remains = [*folder.glob(f"{DAMAGED}-*"), *folder.glob(f"{REPAIRED}-*")]
    if not (found or cursor or examined.findings or marks.is_there or remains or (folder / REFUSED).exists()):
        examined.is_new = True
        return examined
    for path in folder.glob(f"{REPAIRED}-*"):
        examined.add(Fault.REPAIR, path.name, "a repair was cut short: `tallystick queue drain` finishes it")
        return examined
    examined.mark = marks.newest
    examined.queue = _queue_id(cursor, marks.newest, found, key)
    _check_cursor(examined, cursor, marks)
    if examined.queue is not None:
        _scan(examined, found, key)
    _check_mark(examined, marks, mark_file)
    _check_segments(examined, found)
    at = examined.cursor
    if at is not None:
        path = folder / REFUSED
        examined.refusals = read_refusals(path, key=key, queue=at.queue, count=at.number, link=at.other)
        if examined.refusals.fault is not None:
            lost = f"{examined.refusals.fault}: why {at.number - examined.refusals.count} events were refused is lost"
            examined.add(Fault.REFUSED, REFUSED, lost)
    return examined


def _read_cursor(folder: Path, key: bytes, examined: Examined) -> Statement | None:
    data = _read_file(folder / CURSOR)
    if data is None:
        return None
    try:
        return queue_mac.parse(Kind.CURSOR, data, key=key)
    except FaultError as error:
        kind = error.fault if error.fault is Fault.OLD_FORMAT else Fault.CURSOR
        examined.add(kind, CURSOR, _old_format(error) or f"{error}: nothing says what is sealed")
        return None


def _queue_id(
    cursor: Statement | None, mark: Statement | None, found: list[tuple[int, Path]], key: bytes
) -> bytes | None:
    """Which queue this is: what the mark says, else the cursor, else the newest segment."""
    for statement in (mark, cursor):
        if statement is not None:
            return statement.queue
    for _, path in reversed(found):
        try:
            return segments.read_head(path, key=key).queue
        except FaultError:
            continue
    return None


def _check_cursor(examined: Examined, cursor: Statement | None, marks: MarkRead) -> None:
    mark = marks.newest
    begun = mark is None or mark.sequence > 0  # before that, a crash may have kept the cursor from being made
    if cursor is None:
        if begun and not any(one.file == CURSOR for one in examined.findings):
            examined.add(Fault.CURSOR, CURSOR, "it is not there, and a queue was: nothing says what is sealed")
        elif not begun and mark is not None and not examined.findings:
            examined.cursor = Statement(mark.queue, 0, NO_LINK)
        return
    if cursor.queue != examined.queue:
        examined.add(Fault.CURSOR, CURSOR, "it is of another queue, or of this one before it was repaired")
        return
    examined.cursor = cursor
    if mark is not None and cursor.sequence > mark.sequence:
        seen = f"it says that events below {cursor.sequence} are sealed, and the mark that those below {mark.sequence}"
        examined.add(Fault.CURSOR, CURSOR, f"{seen} were acknowledged: one of the two is an older copy", mark.sequence)


def _check_mark(examined: Examined, marks: MarkRead, file: str) -> None:
    mark = marks.newest
    if not marks.is_there:
        examined.add(Fault.MARK, file, "it is not there, and a queue was: nothing says what was acknowledged")
        return
    for error in marks.faults:
        # Only the slot that was being written can be torn, and then the frames that it was about are there.
        if mark is None or examined.end <= mark.sequence or error.fault is not Fault.CHECKSUM:
            seen = "events past it may have been acknowledged" if mark else "nothing says what was acknowledged"
            examined.add(Fault.MARK, file, f"{error}; {seen}", mark.sequence if mark else None)
    if mark is not None and examined.acknowledged > mark.sequence:
        seen = f"it says that events below {mark.sequence} were acknowledged, and the frames that those below "
        examined.add(Fault.MARK, file, f"{seen}{examined.acknowledged} were: it is an older copy", mark.sequence)


def _check_segments(examined: Examined, found: list[tuple[int, Path]]) -> None:
    lost = any(one.kind is Fault.MISSING for one in examined.findings)
    if not found and examined.mark is not None and examined.mark.sequence and not lost:
        seen = "there is no segment, and there always is one: all of them were removed; no event is lost"
        examined.add(Fault.MISSING, SEGMENTS, seen, examined.end, examined.end)


def _old_format(error: FaultError) -> str | None:
    if error.fault is not Fault.OLD_FORMAT:
        return None
    return (
        "this queue was written by an older version, without MACs, and nothing of it can be believed: drain it with "
        "that version, then delete its folder"
    )


def _read_file(path: Path) -> bytes | None:
    """The bytes of a small file, bounded; None when it is not there."""
    try:
        with path.open("rb") as file:
            return file.read(STATEMENT_BYTES + 1)
    except FileNotFoundError:
        return None


# ------------------------------------------------------------------------------------------------- frames


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
            self._open_gap(path, 0, error.fault, _old_format(error) or str(error))

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
                self.gap = None  # what stands before the cursor is sealed, and believed by nobody
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
            file = path.name if path else CURSOR
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


def _scan(examined: Examined, found: list[tuple[int, Path]], key: bytes) -> None:
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
