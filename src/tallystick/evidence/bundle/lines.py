"""The records of a bundle, line by line: steps 5 to 10 and 20 of SPEC 11, in one pass and constant memory.

What only all of them can answer, epochs, keys, prunes and the root, is gathered here in small and judged in
`tallystick.evidence.bundle.check`. A line that fails is not held against the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from tallystick.core.canonical import decode_canonical
from tallystick.core.event import RESERVED_PREFIX
from tallystick.core.fold import Fold
from tallystick.core.keys import tagger
from tallystick.core.manifest import Manifest
from tallystick.core.matcher import Match, Tally
from tallystick.core.merkle import leaf_hash
from tallystick.core.record import (
    EPOCH_CLOSED,
    EPOCH_OPENED,
    SIGNATURE_BYTES,
    Record,
    check_hashes,
    check_members,
)
from tallystick.core.system import EpochOpened, closing
from tallystick.errors import RejectedError, TamperError
from tallystick.evidence.bundle.times import LineTimes
from tallystick.evidence.findings import Kind
from tallystick.evidence.verification.ranges import Ranges
from tallystick.limits import RECORD_BYTES_MAX

STREAMS_MAX: Final = 1_000_000
"""Streams that are followed; later ones are not."""

POSITIONS_MAX: Final = 1_000_000
"""Positions of matching records that are kept, over all selectors; further ones are counted."""

Find = Callable[..., None]
"""`find(kind, seen, line=None, position=None)` takes a finding."""


@dataclass(slots=True)
class Epochs:
    """The openings and closes in a bundle, by their epoch, as far as they have the form of SPEC 5.2."""

    opened: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    """Positions and commitments."""
    closed: dict[int, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)
    """Positions and payloads; whether the numbers in them are right is asked once all is known (11)."""

    def take(self, record: Record) -> None:
        """Note a record if it opens or closes an epoch. One that is not as SPEC prints is none."""
        try:
            if record.event_type == EPOCH_OPENED:
                opened = EpochOpened.of(record)
                if opened.epoch == record.members["epoch"]:
                    self.opened.setdefault(opened.epoch, []).append((record.position, opened.key_commitment))
            elif record.event_type == EPOCH_CLOSED:
                epoch, said = record.members["epoch"], closing(record)
                if said["epoch"] == epoch:
                    self.closed.setdefault(epoch, []).append((record.position, said))
        except RejectedError:
            return  # then the epoch has no opening or close, and that is found

    def holds(self, epoch: int, position: int) -> bool:
        """Whether a record may be of an epoch, by what has been seen so far."""
        after = any(opened <= position for opened, _ in self.opened.get(epoch, ()))
        return after and not any(closed < position for closed, _ in self.closed.get(epoch, ()))


class Lines:
    """Takes the lines of one bundle, in order; `own` are the ledger's own records in it, those of the manifest too."""

    def __init__(self, manifest: Manifest, *, fold: Fold, find: Find) -> None:
        self.own: Final[list[Record]] = []
        self.epochs: Final = Epochs()
        self.placed = True
        """Whether every record so far is one, and at its place, so that the fold means something."""
        self._fault: TamperError | None = None  # of the fold: hashes ran out
        self._tally: Final = Tally(manifest.selectors, most=POSITIONS_MAX)
        # The recorded times of the first and the last line: whether the range reaches as far as the selectors.
        self._began = self._ended = ""
        self._manifest: Final = manifest
        self._fold: Final = fold
        self._find: Final = find
        self._tags: Final = {epoch: tagger(key) for epoch, key in manifest.mac_keys}
        self._absent: Final = Ranges()
        self._absent.extend(manifest.absent)
        self._expected = self._present(manifest.first)
        beside = [Record.parse(line) for line in manifest.records]
        self._beside: Final = deque(beside)
        self._beside_positions: Final = frozenset(record.position for record in beside)
        self._streams: Final[dict[str, tuple[int, int]]] = {}
        # What the line before left behind; None where it is not known, and then nothing is held against it.
        self._prev: tuple[int, str] | None = None
        self._before: tuple[int, str] | None = None
        self.times: Final = LineTimes(beside, created=manifest.created)
        self._genesis_is_beside = True
        for record in beside:
            self._take_beside(record)

    def take(self, raw: bytes, number: int) -> None:
        """The next line, with its newline."""
        line, faulty = raw.removesuffix(b"\n"), False

        def find(kind: Kind, seen: str, position: int | None = None) -> None:
            nonlocal faulty
            faulty = True
            self._find(kind, seen, line=number, position=position)

        members = self._members(line, find)
        if members is None:
            self.placed = False
            self._expected = self._present(self._expected + 1)
        else:
            self._judge(line, members, number, find)
        if faulty or members is None:
            self._prev = self._before = None
        else:
            self._prev = (members["position"], sha256(line).hexdigest())
            self._before = (members["position"], members["recorded_at"])

    def finish(self) -> bytes | None:
        """Nothing is left. The root of the tree; None where it cannot be told. `TamperError` when hashes run out."""
        late = self.times.finish()
        if late is not None:
            self._find(Kind.TIME, late[0], line=late[1], position=late[2])
        if self._manifest.is_complete and self._expected < self._manifest.end:
            self.placed = False
            seen = f"the records from position {self._expected} on are not there"
            self._find(Kind.MISSING, seen, position=self._expected)
        if not self.placed:
            return None
        if self._fault:
            raise self._fault
        self._add_beside(self._manifest.size)
        return self._fold.root(self._manifest.size)

    def select(self, *, is_as_told: bool) -> tuple[Match, ...]:
        """(20) What the selectors take; it is judged if the file is the one that the manifest tells of."""
        manifest, matches = self._manifest, self._tally.matches()
        if not self.placed or not is_as_told:
            return matches
        for selector, match, count in zip(manifest.selectors, matches, manifest.counts, strict=True):
            if match.count != count:
                self._find(Kind.SELECTION, f"{match.count:,} records fit {match.name!r}, and not {count:,} as it says")
            if manifest.is_complete and not selector.is_covered(
                first=manifest.first,
                end=manifest.end,
                times=None if self.times.is_corrected else (self._began, self._ended),
                size=manifest.size,
            ):
                self._find(Kind.SELECTION, f"the range leaves out positions at which records may fit {match.name!r}")
        return matches

    def _members(self, line: bytes, find: Find) -> dict[str, Any] | None:
        """(5)"""
        try:
            if len(line) > RECORD_BYTES_MAX:
                raise RejectedError(f"a line of more than {RECORD_BYTES_MAX} bytes")
            members = decode_canonical(line)
            check_members(members)
            check_hashes(members)
        except RejectedError as error:
            find(Kind.NOT_CANONICAL, str(error))
            return None
        return dict(members)

    def _judge(self, line: bytes, members: dict[str, Any], number: int, find: Find) -> None:
        position = members["position"]
        in_place = self._place(members, find)  # (6)
        if in_place and members["event_type"].startswith(RESERVED_PREFIX):
            self._take_own(Record(line, members))
        self._check_chain(members, number, find)  # (7)
        seen = self.times.take(line, members, number, before=self._before, counts=in_place)  # (8)
        if seen is not None:
            find(Kind.TIME, seen, position)
        self._check_signature(line, members, find)  # (9)
        if self.placed:
            self._follow_stream(members, find)  # (10)
            self._select(members, number)  # (20)
            if self._fault is None:
                self._add_leaf(position, line)

    def _place(self, members: dict[str, Any], find: Find) -> bool:
        """(6) Whether the record is of this ledger, and where the bundle has room for it."""
        manifest, position = self._manifest, members["position"]
        ours = bool(members["ledger"] == manifest.ledger)
        if not ours:
            find(Kind.MISPLACED, f"it is a record of the ledger {members['ledger'][:60]!r}", position)
        room = self._expected <= position < manifest.end
        if not room or position in self._absent or position in self._beside_positions:
            find(Kind.MISPLACED, f"it says that it is at position {position}", position)
            self.placed = False
            return False
        if manifest.is_complete and position != self._expected:
            find(Kind.MISSING, f"the records from position {self._expected} to {position - 1} are not there", position)
            self.placed = ours = False
        self._expected = self._present(position + 1)
        self.placed = self.placed and ours
        return ours

    def _check_chain(self, members: dict[str, Any], number: int, find: Find) -> None:
        """(7)"""
        position, prev_hash = members["position"], members["prev_hash"]
        expected = None
        if number == 1:
            expected = self._manifest.prev_hash.hex()
        elif self._prev is not None and self._prev[0] + 1 == position:
            expected = self._prev[1]
        if expected is not None and prev_hash != expected:
            seen = "its prev_hash is not the hash of the record before it: this one or that one was altered"
            find(Kind.CHAIN, seen, position)

    def _check_signature(self, line: bytes, members: dict[str, Any], find: Find) -> None:
        """(9)"""
        position, epoch = members["position"], members["epoch"]
        if position == 0:
            if line != self._manifest.genesis:
                find(Kind.GENESIS, "it is not the genesis of the manifest", position)
            return
        tag = self._tags.get(epoch)
        if tag is None:
            find(Kind.SIGNATURE, f"the key of its epoch {epoch} is not disclosed", position)
            return
        if tag(line[:-SIGNATURE_BYTES] + b"}") != line[-66:-2]:
            find(Kind.SIGNATURE, f"the signature is not by the key of epoch {epoch}", position)
        if not self.epochs.holds(epoch, position):
            find(Kind.EPOCH, f"it does not stand between the opening and the close of epoch {epoch}", position)

    def _follow_stream(self, members: dict[str, Any], find: Find) -> None:
        """(10) The numbers that are left out may be those of positions that are not there."""
        entity_id, position, version = members["entity_id"], members["position"], members["entity_version"]
        manifest = self._manifest
        seen = self._streams.get(entity_id)
        if seen is None and manifest.is_complete and manifest.first == 0 and len(self._streams) < STREAMS_MAX:
            seen = (-1, 0)
        if seen is not None:
            at, before = seen
            room = self._absent.below(position) - self._absent.below(max(at, 0))
            if not manifest.is_complete:
                room = position - at - 1
            if not before < version <= before + 1 + room:
                find(Kind.ENTITY_VERSION, f"version {version} of {entity_id[:60]!r} follows {before}", position)
        if entity_id in self._streams or len(self._streams) < STREAMS_MAX:
            self._streams[entity_id] = (position, version)

    def _select(self, members: dict[str, Any], number: int) -> None:
        """(20)"""
        self._began, self._ended = self._began or members["recorded_at"], members["recorded_at"]
        if not self._tally.take(members) and not self._manifest.is_complete:
            seen = "it fits no selector, and a filtered bundle has only what fits"
            self._find(Kind.SELECTION, seen, line=number, position=members["position"])

    def _take_beside(self, record: Record) -> None:
        """(9) One of the manifest's records."""
        tag = self._tags.get(record.members["epoch"])
        if tag is not None and tag(record.signed_part).decode() != record.members["signature"]:
            seen = f"its signature is not by the key of epoch {record.members['epoch']}"
            self._find(Kind.SIGNATURE, seen, position=record.position)
        self._take_own(record)

    def _take_own(self, record: Record) -> None:
        self.epochs.take(record)
        self.own.append(record)

    def _add_leaf(self, position: int, line: bytes) -> None:
        """(14) The leaf of a record, and before it those of the manifest's records below."""
        try:
            self._add_beside(position)
            self._fold.add(position, leaf_hash(line))
        except TamperError as error:
            self._fault = error

    def _add_beside(self, position: int) -> None:
        if self._genesis_is_beside:
            self._genesis_is_beside = False
            if position > 0:
                self._fold.add(0, leaf_hash(self._manifest.genesis))
        while self._beside and self._beside[0].position < position:
            record = self._beside.popleft()
            self._fold.add(record.position, leaf_hash(record.line))

    def _present(self, position: int) -> int:
        """The first position from here on that has a record."""
        return self._absent.end_of(position) if position in self._absent else position
