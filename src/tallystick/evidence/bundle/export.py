"""Exporting evidence: a range of positions, whole or filtered by selectors, as the three files of a bundle (SPEC 10.5).

The records stream from the store into the file, and their leaves into the fold, which must come out at the signed
root: a ledger that does not hold makes no bundle. What is handed over was recorded before: the export's own event names
the hash of the manifest. A crash leaves a hidden folder beside the target that nothing looks at, never half a bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.clock import Clock
from tallystick.core import timestamp
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.custody import OwnEvent
from tallystick.core.fold import Fold, recording
from tallystick.core.keys import LedgerKeys, epoch_key
from tallystick.core.manifest import MANIFEST_FILE, SEAL_FILE, Manifest
from tallystick.core.matcher import Match, Tally
from tallystick.core.merkle import leaf_hash
from tallystick.core.record import EPOCH_OPENED, Record
from tallystick.core.selector import Selector, check_bounds
from tallystick.core.sshsig import BUNDLE_NAMESPACE, sign_file
from tallystick.core.system import Genesis
from tallystick.errors import ConflictError, NotFoundError, RejectedError, TamperError
from tallystick.evidence.bundle.beside import Beside
from tallystick.evidence.bundle.delivery import Delivery
from tallystick.evidence.bundle.matching import matching, members_of
from tallystick.evidence.verification.ranges import Ranges
from tallystick.limits import BUNDLE_HASHES_MAX, FILTERED_RECORDS_MAX, READ_RECORDS_MAX
from tallystick.read.index import Progress
from tallystick.read.own_records import Framing
from tallystick.store.contract import Head, Store, StoredRecord
from tallystick.store.reading import evidence_key, fetch_lines, read_lines, read_record, stored_nodes

EXPORTED: Final = "tallystick.evidence.exported"
TOOL: Final = "tallystick"

_NOTHING: Final = "nothing fits, and a bundle proves nothing of what is not there"
_FIRST_OPENING: Final = 1  # of epoch 0: the genesis before it says that it is of that epoch, too
_ATTEMPTS: Final = 10
_LOOKED_AT: Final = 64
"""Changes of keys by others, while an export begins, before it gives up."""

Vouch = Callable[[bytes], tuple[bytes, Sequence[bytes], Sequence[tuple[str, bool]]]]
"""From the end checkpoint to the same one with cosignatures, RFC 3161 tokens over that, and what went wrong: in words,
and whether that contradicts the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was handed over."""

    path: Path
    views: Path | None
    """Where the views for people are, if they were asked for."""
    manifest_sha256: str
    """In hex, as `events_sha256`: what the ledger remembers of this export."""
    events_sha256: str
    count: int
    first: int
    end: int
    size: int
    """The size of the checkpoint that the bundle was made under."""
    complete: bool
    """Whether it has every record of the range; else those that fit a selector."""
    matches: tuple[Match, ...]
    """What each selector takes of the records, as the manifest says it; positions are for a verifier to find."""
    position: int
    """Where the ledger recorded the export."""
    warnings: tuple[str, ...]
    """Witnesses and timestamp authorities that did not answer, or not rightly."""
    is_contradicted: bool
    """Whether one of the warnings is that somebody knows another history of this ledger, or signed what is not so."""
    zip_sha256: str = ""
    zip_bytes: int = 0
    """Of the zip as it was written; empty, and 0, for a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to export: all records at [first, end), or if it is `filtered` those of them that fit a selector.

    Without an `end` it goes up to the close of the present epoch.
    """

    selectors: tuple[Selector, ...] = ()
    filtered: bool = False
    first: int = 0
    end: int | None = None
    start_checkpoint: bytes | None = None


class Receipt(Protocol):
    """What sealing answers with."""

    @property
    def position(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The ledger, as an export needs it."""

    store: Store
    genesis: Genesis
    framing: Callable[[], Sequence[Framing]]
    """What may stand beside records, proven to be all."""
    catch_up: Callable[[], int]
    change_epoch: Callable[[], None]
    load_keys: Callable[[], LedgerKeys]
    seal_own: Callable[[Sequence[OwnEvent]], Sequence[Receipt]]
    head: Callable[[], Head]
    """The newest commit, proven, and held against what is known of the ledger."""
    hand_out: Callable[[Head], Head]
    """Keeps the head mark for a head whose checkpoint goes out."""
    clock: Clock


def export(
    source: Source,
    selection: Selection,
    delivery: Delivery,
    *,
    actor: Mapping[str, str] | None,
    vouch: Vouch,
    progress: Progress | None,
) -> Exported:
    """Make a bundle and hand it over. Raises `RejectedError` when there is nothing to export, or it is too much."""
    with delivery:
        work = _Export(source, selection, delivery, progress)
        manifest, warnings = work.manifest(vouch)
        data = manifest.render()
        digest = sha256(data).hexdigest()
        _check_readable(data)
        delivery.write(MANIFEST_FILE, data)
        delivery.write(SEAL_FILE, sign_file(data, work.evidence_key, namespace=BUNDLE_NAMESPACE))
        delivery.finish(data, work.evidence_key, events_sha256=manifest.events_sha256)
        # A crash from here on leaves an export that is recorded, and was not handed over; never the other way.
        sealed = source.seal_own([OwnEvent(EXPORTED, _exported_payload(manifest, digest), actor)])[0]
        delivery.hand_over()
    return Exported(
        path=delivery.target,
        views=delivery.views_target,
        manifest_sha256=digest,
        events_sha256=manifest.events_sha256.hex(),
        count=manifest.count,
        first=manifest.first,
        end=manifest.end,
        size=manifest.size,
        complete=manifest.is_complete,
        matches=tuple(
            Match(selector.name, count, ()) for selector, count in zip(manifest.selectors, manifest.counts, strict=True)
        ),
        position=sealed.position,
        warnings=tuple(text for text, _ in warnings),
        is_contradicted=any(contradicts for _, contradicts in warnings),
        zip_sha256=delivery.zip_sha256,
        zip_bytes=delivery.zip_bytes,
    )


def _check_readable(data: bytes) -> None:
    """What nobody would take is not made: the manifest must be within the bounds that its readers have."""
    try:
        Manifest.parse(data)
    except RejectedError as error:
        cure = "export a smaller range, or fewer records, or ask less at once"
        raise RejectedError(
            f"no verifier would take the bundle: {error.problem}", place="manifest", cure=cure
        ) from error


def _exported_payload(manifest: Manifest, digest: str) -> dict[str, object]:
    return {
        "complete": manifest.is_complete,
        "count": manifest.count,
        "events_sha256": manifest.events_sha256.hex(),
        "ledger_size": manifest.size,
        "manifest_sha256": digest,
        "range": {"end": manifest.end, "first": manifest.first},
        "selectors": [selector.name for selector in manifest.selectors],
    }


class _Export:
    """One export, from the selection to the manifest."""

    def __init__(self, source: Source, selection: Selection, delivery: Delivery, progress: Progress | None) -> None:
        self._source: Final = source
        self._store: Final = source.store
        self._selection: Final = selection
        self._delivery: Final = delivery
        self._progress: Final = progress
        self._positions: list[int] | None = None
        self._settle_range()
        self._close_epoch()
        self._size, self._checkpoint, self.evidence_key = self._settle_head()

    def manifest(self, vouch: Vouch) -> tuple[Manifest, Sequence[tuple[str, bool]]]:
        """Write the records; the manifest that goes with them, and warnings, as of whoever vouches."""
        beside = Beside(self._store, self._source.framing(), size=self._size)
        complete = self._positions is None
        absent, prune = beside.absent(self._first, self._end) if complete else (Ranges(), None)
        epochs, others = beside.of(range(self._first, self._end) if self._positions is None else self._positions, prune)
        hashes: list[bytes] = []
        written = self._written(others, hashes)
        if written.root(self._size) != Checkpoint.of_note(self._checkpoint).root:
            raise TamperError("the records do not lead to the signed root, and nothing is exported: run a verification")
        self._check_count(written.count, absent)
        self._check_covered(written, corrected=beside.is_clock_corrected)
        if len(hashes) > BUNDLE_HASHES_MAX:
            raise RejectedError("the records lie too far apart", cure="export the whole range, or fewer records")
        source, genesis = self._source, read_record(self._store, 0)
        event_mac = source.load_keys().event_mac
        checkpoint, tokens, warnings = vouch(self._checkpoint)
        now = timestamp.render(source.clock())
        manifest = Manifest(
            ledger=source.genesis.ledger,
            origin=source.genesis.origin,
            ledger_id=genesis.hash,
            first=self._first,
            end=self._end,
            count=written.count,
            prev_hash=bytes.fromhex(written.prev_hash),
            is_complete=complete,
            selectors=self._selection.selectors,
            counts=tuple(written.tally.counts),
            absent=tuple(absent),
            start_checkpoint=self._selection.start_checkpoint,
            checkpoint=checkpoint,
            genesis=genesis.line,
            records=tuple(record.line for record in others if record.position),
            hashes=tuple(hashes),
            mac_keys=tuple((epoch, epoch_key(event_mac, epoch)) for epoch in epochs),
            tokens=tuple(tokens),
            events_bytes=written.size,
            events_sha256=written.digest,
            created=max(now, read_record(self._store, self._size - 1).recorded_at),  # a clock may step back
            tool=TOOL,
        )
        return manifest, warnings

    def _check_count(self, count: int, absent: Ranges) -> None:
        """A prune may have come between the look at what is absent and the reading."""
        if not count:
            raise NotFoundError(_NOTHING)
        gone = absent.below(self._end) - absent.below(self._first)
        expected = self._end - self._first - gone if self._positions is None else len(self._positions)
        if count != expected:
            raise ConflictError("records were pruned while they were exported: export again")

    def _check_covered(self, written: _Written, *, corrected: bool) -> None:
        """A complete bundle says of each selector that all its records are there, so the range must reach that far."""
        times = None if corrected else (written.began, written.ended)
        for selector in self._selection.selectors if self._positions is None else ():
            if not selector.is_covered(first=self._first, end=self._end, times=times, size=self._size):
                cure = "export a larger range, or hold the selector to it with first= and end="
                raise RejectedError(f"records may fit {selector.name!r} outside of the range", place="range", cure=cure)

    # ---------------------------------------------------------------------------- what, and under which head

    def _settle_range(self) -> None:
        """The range, and for a filtered bundle the positions in it that fit."""
        self._source.catch_up()
        selection, size = self._selection, self._source.head().size
        first, end = selection.first, size if selection.end is None else selection.end
        if selection.end is None and first == size:
            raise NotFoundError("there is nothing new to export")
        if first > end >= 0:
            raise RejectedError(f"the range begins at {first} and ends at {end}", place="range", cure="swap the two")
        if not 0 <= first < end <= size:
            raise RejectedError(f"there are no positions {first} to {end} in a ledger of {size}", place="range")
        check_bounds(selection.selectors)
        if selection.filtered:
            self._positions = self._fitting(first, end)
        self._first, self._end = first, end

    def _fitting(self, first: int, end: int) -> list[int]:
        """The positions that fit a selector, from the log itself."""
        under, found = Checkpoint.of_note(self._source.head().checkpoint), []
        for members, taken in matching(self._store, self._selection.selectors, under, first=first, end=end):
            if taken:
                found.append(members["position"])
            if self._progress and not members["position"] % _LOOKED_AT:
                self._progress(0, end - first)
            if len(found) > FILTERED_RECORDS_MAX:
                cure = "ask for less, or export the whole range: that is proven to be complete"
                raise RejectedError(f"more than {FILTERED_RECORDS_MAX:,} records fit", cure=cure)
        if not found:
            raise NotFoundError(_NOTHING)
        return found

    def _close_epoch(self) -> None:
        """See to it that the epoch of the last record is closed, so that its key may be disclosed (SPEC 5.3)."""
        opened_at, size = self._opened_at(), self._source.head().size
        last = self._positions[-1] if self._positions else self._end - 1
        up_to_close = self._selection.end is None and not self._positions
        if up_to_close and self._first >= opened_at and size == opened_at + 1:
            raise NotFoundError("there is nothing new to export")
        if up_to_close:
            if size > opened_at + 1 or opened_at == _FIRST_OPENING:  # else one was closed just now
                self._source.change_epoch()
            self._end = self._opened_at()
        elif max(last, _FIRST_OPENING) >= opened_at:
            self._source.change_epoch()

    def _opened_at(self) -> int:
        """Where the present epoch was opened, by the records themselves: where the head says so, is no proof."""
        return max(one.position for one in self._source.framing() if one.event_type == EPOCH_OPENED)

    def _settle_head(self) -> tuple[int, bytes, Ed25519PrivateKey]:
        """One head, and the evidence key in force at it; others may change keys meanwhile."""
        for _ in range(_ATTEMPTS):
            head = self._source.hand_out(self._source.head())  # which proves the keys that it names
            key = self._source.load_keys().evidence
            named = evidence_key(self._store, head.evidence_key_at, genesis=self._source.genesis)
            if key.public_key().public_bytes_raw() == named:
                self._source.catch_up()
                return head.size, head.checkpoint, key
        raise ConflictError("the evidence key at hand is not the one in force in the ledger")

    # ------------------------------------------------------------------------------------------- the records

    def _written(self, beside: Sequence[Record], hashes: list[bytes]) -> _Written:
        """Write the records, and note the hashes of what lies between them."""
        node = stored_nodes(self._store, self._size)
        start = self._selection.start_checkpoint
        start_size = [] if start is None else [Checkpoint.of_note(start).size]
        fold = Fold(cuts=(self._first, self._end, *start_size), node=recording(node, hashes))
        others = [(record.position, record.line) for record in beside]
        written = _Written(fold, others, self._selection.selectors)
        total = self._end - self._first if self._positions is None else len(self._positions)
        rows = self._rows()
        with self._delivery.open_events() as file:
            while chunk := [*islice(rows, READ_RECORDS_MAX)]:
                file.write(written.take(chunk))
                self._delivery.view([stored.line for stored in chunk])
                if self._progress:
                    self._progress(written.count, total)
        return written

    def _rows(self) -> Iterator[StoredRecord]:
        if self._positions is None:
            return read_lines(self._store, self._first, self._end)
        return fetch_lines(self._store, self._positions)


class _Written:
    """What was written of the records so far: their bytes, their hash, and their leaves in the fold."""

    def __init__(self, fold: Fold, beside: Sequence[tuple[int, bytes]], selectors: Sequence[Selector]) -> None:
        self.count = 0
        self.size = 0
        self.prev_hash = self.began = self.ended = ""
        self.tally: Final = Tally(selectors)
        self._is_matched: Final = bool(selectors)
        self._fold: Final = fold
        self._beside: Final = [*reversed(beside)]
        self._hasher: Final = sha256()

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the file so far."""
        return self._hasher.digest()

    def take(self, chunk: Sequence[StoredRecord]) -> bytes:
        """The bytes to write for the next records."""
        if not self.count:
            first = Record.parse(chunk[0].line)
            self.prev_hash, self.began = str(first.members["prev_hash"]), first.recorded_at
        if self._is_matched:
            for stored in chunk:
                members = members_of(stored)
                self.tally.take(members)
            self.ended = members["recorded_at"]
        data = b"\n".join([stored.line for stored in chunk]) + b"\n"
        self._hasher.update(data)
        self.size, self.count = self.size + len(data), self.count + len(chunk)
        for stored in chunk:
            self._add_beside(stored.position)
            self._fold.add(stored.position, leaf_hash(stored.line))
        return data

    def root(self, size: int) -> bytes:
        """The root of the tree, when all were taken."""
        self._add_beside(size)
        return self._fold.root(size)

    def _add_beside(self, position: int) -> None:
        while self._beside and self._beside[-1][0] < position:
            at, line = self._beside.pop()
            self._fold.add(at, leaf_hash(line))
