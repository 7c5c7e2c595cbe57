"""What a check of a queue finds: how its files stand, and each thing that is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tallystick.write.queue_mac import NO_LINK, Fault, FaultError, Statement
from tallystick.write.queue_refusals import Refusals
from tallystick.write.segments import Place

SEGMENTS: Final = "segments"
"""What stands for a file in a finding about segments of which none is there."""

_FINDINGS_SHOWN_MAX: Final = 5


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


def damage_text(findings: Sequence[QueueFinding]) -> str:
    """What was found, in words."""
    shown = "; ".join(one.text for one in findings[:_FINDINGS_SHOWN_MAX])
    more = f"; and {len(findings) - _FINDINGS_SHOWN_MAX} more" if len(findings) > _FINDINGS_SHOWN_MAX else ""
    return f"the queue is damaged, and nothing of it is sealed: {shown}{more}. See `tallystick queue repair`"


def old_format_text(error: FaultError) -> str | None:
    """What to do about a queue of the older format; None for another fault."""
    if error.fault is not Fault.OLD_FORMAT:
        return None
    return (
        "this queue was written by an older version, without MACs, and cannot be authenticated: drain it with "
        "that version, then delete its folder"
    )
