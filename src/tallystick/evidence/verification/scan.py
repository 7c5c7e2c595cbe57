"""Scanning: every check that a run of neighbouring records can answer by itself (SPEC 8, steps 1 to 7).

One scan reads a range of whole tiles from the store and judges each record: bytes, shape, place, chain, time,
signature, stream. What needs the whole ledger, epochs, keys and the tree, comes back in small: the ledger's
own records, runs of epochs, one root a tile. So ranges can be scanned in any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final
from zlib import crc32

from tallystick.core.canonical import decode_canonical
from tallystick.core.corrected import CLOCK_CORRECTED, ClockCorrected
from tallystick.core.event import RESERVED_PREFIX
from tallystick.core.keys import epoch_key, tagger
from tallystick.core.merkle import TILE_WIDTH, Tile, leaf_hash, split_hashes, tile_roots
from tallystick.core.record import (
    NO_HASH,
    SIGNATURE_BYTES,
    Record,
    check_hashes,
    check_members,
    split_signature,
)
from tallystick.errors import RejectedError, StoreError
from tallystick.evidence.findings import Finding, Kind
from tallystick.evidence.verification.clock import Edges, TimesAhead
from tallystick.evidence.verification.identity import Ids
from tallystick.evidence.verification.ranges import Ranges
from tallystick.limits import RECORD_BYTES_MAX
from tallystick.store.contract import Store, StoredRecord

RANGE_RECORDS: Final = 64 * TILE_WIDTH
"""Records a scan: enough that its overhead is nothing, few enough that progress is seen."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to scan: positions [first, end), of which `first` begins a tile."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What all scans of one verification share. Without `event_mac` signatures are not checked."""

    ledger: str
    event_mac: bytes | None
    edges: Edges
    """What counts as a time that has not come yet."""


@dataclass(frozen=True, slots=True)
class Block:
    """One tile's worth of leaves: its root by the records, by the stored tile's hashes, and as stored.

    None where records are missing, or where no tile is stored."""

    by_records: bytes | None
    by_tile: bytes | None
    stored: bytes | None
    differing: tuple[int, ...] = ()
    """Positions whose records are there, and do not hash to the tile's hash."""


@dataclass(slots=True)
class Scan:
    """What was seen in one range."""

    first: int
    end: int
    findings: list[Finding] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    ragged: list[bytes | None] = field(default_factory=list)
    """Leaf hashes past the last whole tile; None where the record is not there."""
    own_records: list[tuple[int, bytes]] = field(default_factory=list)
    """The ledger's own records, whose meaning the whole ledger decides."""
    epochs: list[list[int]] = field(default_factory=list)
    """Runs of neighbouring records that name one epoch: epoch, first, end."""
    streams: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    """Per entity: where it was first seen, in which version then, the last version seen, and where."""
    absent: Ranges = field(default_factory=Ranges)
    """Positions that no row came for; whether they were lawfully pruned, the whole ledger decides."""
    ids: Ids = field(default_factory=Ids)
    """The event ids, for the question whether one stands twice."""
    signed: int = 0
    """Records whose signature holds."""
    times: TimesAhead = field(default_factory=TimesAhead)
    """The records whose time has not come yet."""


def scan(store: Store, task: Task, terms: Terms) -> Scan:
    """Scan one range. Never raises for what the store holds; it becomes findings."""
    return _Scanner(store, task, terms).run()


class _Scanner:
    def __init__(self, store: Store, task: Task, terms: Terms) -> None:
        self._store = store
        self._terms = terms
        self._out = Scan(task.first, task.end)
        self._leaves: list[bytes | None] = []
        self._unreadable: set[int] = set()
        self._gap = False  # whether a record's part in its stream is unknown, so that versions may seem to jump
        self._tag = lru_cache(maxsize=64)(_tag_of(terms.event_mac)) if terms.event_mac else None
        # What the record before left behind; None where it is not known, and then nothing is held against it.
        self._prev_hash: str | None = None
        self._recorded_at = ""
        # The epoch of the record before, and its MAC once a signature of it was checked.
        self._epoch = -1
        self._epoch_tag: Callable[[bytes], bytes] | None = None

    def run(self) -> Scan:
        out = self._out
        self._read_before()
        expected = out.first
        for stored in self._rows(out.first, out.end):
            if stored[0] != expected:
                self._absent(expected, stored[0])
            if not self._holds(*stored):
                self._judge(*stored)
            expected = stored[0] + 1
        if expected < out.end:
            self._absent(expected, out.end)
        self._compare_tiles()
        return out

    def _holds(self, position: int, line: bytes, crc: int) -> bool:
        """Whether a record plainly holds, as nearly all do: all of `_judge`'s checks in their cheapest order.

        What it takes in then is the same; when False, nothing was taken in.
        """
        if crc32(line) != crc or len(line) > RECORD_BYTES_MAX or not self._prev_hash:
            return False
        try:
            members = decode_canonical(line)
            check_members(members)
        except RejectedError:
            return False
        # A `prev_hash` and a `signature` that are the expected ones have the right form, too.
        if (
            members["position"] != position
            or members["ledger"] != self._terms.ledger
            or members["prev_hash"] != self._prev_hash
            or members["epoch"] != self._epoch
            or self._epoch_tag is None
            or members["event_type"].startswith(RESERVED_PREFIX)
            or not self._recorded_at <= members["recorded_at"] <= self._terms.edges.told
            or self._epoch_tag(line[:-SIGNATURE_BYTES] + b"}") != line[-66:-2]
        ):
            return False
        streams, entity_id, version = self._out.streams, members["entity_id"], members["entity_version"]
        seen = streams.get(entity_id)
        if seen is None:
            streams[entity_id] = (position, version, version, position)
        elif version == seen[2] + 1:
            streams[entity_id] = (seen[0], seen[1], version, position)
        else:
            return False
        self._out.ids.add(members["id"], position)
        self._out.signed += 1
        self._out.epochs[-1][2] = position + 1
        self._recorded_at = members["recorded_at"]
        self._prev_hash = sha256(line).hexdigest()
        self._leaves.append(leaf_hash(line))
        return True

    def _read_before(self) -> None:
        first = self._out.first
        if first == 0:
            self._prev_hash = NO_HASH
            return
        for stored in self._rows(first - 1, first):
            if crc32(stored.line) == stored.crc32:
                try:
                    self._recorded_at = Record.parse(stored.line).recorded_at
                    self._prev_hash = sha256(stored.line).hexdigest()
                except RejectedError:
                    return  # the scan of its own range reports it

    def _rows(self, first: int, end: int) -> Iterator[StoredRecord]:
        """The stored rows; where the storage fails, ever smaller parts, until what cannot be read is alone."""
        done = first
        try:
            for stored in self._store.read(first, end):
                yield stored
                done = stored.position + 1
            return
        except StoreError as error:
            if end - done <= 1:
                self._unreadable.update(range(done, end))
                if done >= self._out.first:
                    self._add_unreadable(done, str(error))
                return
        middle = (done + end) // 2
        yield from self._rows(done, middle)
        yield from self._rows(middle, end)

    def _add_unreadable(self, position: int, seen: str) -> None:
        """Neighbours are one finding."""
        before = self._out.findings[-1] if self._out.findings else None
        if before and before.kind is Kind.UNREADABLE and before.end == position:
            self._out.findings[-1] = replace(before, end=position + 1)
        else:
            self._add(Kind.UNREADABLE, position, seen, end=position + 1)

    def _absent(self, first: int, end: int) -> None:
        """Positions that no row came for."""
        self._leaves += [None] * (end - first)
        self._prev_hash = None
        for position in sorted(at for at in self._unreadable if first <= at < end):
            self._gap = True
            self._out.absent.add(first, position)
            first = position + 1
        self._out.absent.add(first, end)

    def _add(self, kind: Kind, position: int, seen: str, *, end: int | None = None) -> None:
        self._out.findings.append(Finding(kind, position, seen, end))

    def _judge(self, position: int, line: bytes, crc: int) -> None:
        """Check one record, step by step, and take in what it says."""
        before = len(self._out.findings)
        if crc32(line) != crc:  # (2)
            self._add(Kind.CHECKSUM, position, "the record's CRC32 does not fit its bytes")
        try:  # (3)
            if len(line) > RECORD_BYTES_MAX:
                raise RejectedError(f"the record has {len(line)} bytes; at most {RECORD_BYTES_MAX} are allowed")
            members = decode_canonical(line)
            check_members(members)
            check_hashes(members)
        except RejectedError as error:
            if len(self._out.findings) == before:  # a wrong CRC32 has said it already
                self._add(Kind.NOT_CANONICAL, position, str(error))
        else:
            self._judge_members(position, line, members)
            if len(self._out.findings) == before:  # or true times after a false one would seem to run backwards
                self._recorded_at = members["recorded_at"]
        # What follows an altered record cannot be held against it: the finding stays where the change is.
        whole = len(self._out.findings) == before
        self._prev_hash = sha256(line).hexdigest() if whole else None
        self._gap = self._gap or not whole
        self._leaves.append(leaf_hash(line))

    def _judge_members(self, position: int, line: bytes, members: dict[str, Any]) -> None:
        """The checks of a record that is one by its form. Numbers are the steps of SPEC 8."""
        if members["position"] != position:  # (4)
            self._add(Kind.MISPLACED, position, f"the record says that it is at position {members['position']}")
        if members["ledger"] != self._terms.ledger:
            self._add(
                Kind.MISPLACED,
                position,
                f"the record says that it is of the ledger {members['ledger'][:60]!r}",
            )
        if self._prev_hash is not None and members["prev_hash"] != self._prev_hash:  # (5)
            self._add(
                Kind.CHAIN,
                position,
                "its prev_hash is not the hash of the record before it: this one or that one was altered",
            )
        self._check_time(position, line, members)  # (6)
        if position:
            self._check_signature(position, line, members["epoch"])  # (7)
        self._follow_stream(position, members["entity_id"], members["entity_version"])  # (8)
        self._out.ids.add(members["id"], position)
        if members["event_type"].startswith(RESERVED_PREFIX):
            self._out.own_records.append((position, line))

    def _check_signature(self, position: int, line: bytes, epoch: int) -> None:
        if self._tag is not None:
            signed, signature = split_signature(line)
            tag = self._tag(epoch)
            if tag(signed) == signature:
                self._out.signed += 1
                self._epoch_tag = tag
            else:
                self._add(Kind.SIGNATURE, position, f"the signature is not by the key of epoch {epoch}")
        runs = self._out.epochs
        if runs and runs[-1][0] == epoch and runs[-1][2] == position:
            runs[-1][2] = position + 1
        else:
            runs.append([epoch, position, position + 1])
        self._epoch = epoch

    def _check_time(self, position: int, line: bytes, members: dict[str, Any]) -> None:
        recorded_at = members["recorded_at"]
        if members["event_type"] == CLOCK_CORRECTED:
            try:
                corrected = ClockCorrected.of(Record(line, members))
                if self._prev_hash and corrected.last_recorded_at != self._recorded_at:
                    raise RejectedError(f"it says that the record before it is of {corrected.last_recorded_at}")
            except RejectedError as error:
                self._add(Kind.TIME, position, f"the clock is not corrected as it has to be: {error}")
            else:
                self._out.times.correct(recorded_at)
        elif recorded_at < self._recorded_at:
            self._add(Kind.TIME, position, f"{recorded_at} is before the record before it, {self._recorded_at}")
            self._recorded_at = recorded_at  # or every true time after a false late one would be found, too
        if recorded_at > self._terms.edges.told:
            self._out.times.take(position, recorded_at, self._terms.edges)

    def _follow_stream(self, position: int, entity_id: str, version: int) -> None:
        streams = self._out.streams
        seen = streams.get(entity_id)
        if seen is None:
            streams[entity_id] = (position, version, version, position)
        else:
            left_out = self._out.absent.below(position) - self._out.absent.below(seen[3])
            if not seen[2] < version <= seen[2] + 1 + left_out and not self._gap:
                self._add(
                    Kind.ENTITY_VERSION,
                    position,
                    f"version {version} of {entity_id[:60]!r} follows {seen[2]}",
                )
            streams[entity_id] = (seen[0], seen[1], version, position)

    def _compare_tiles(self) -> None:
        """Hold the leaf hashes against the stored tiles (9). Which of the two is right, the tree must tell."""
        first = self._out.first // TILE_WIDTH
        count = len(self._leaves) // TILE_WIDTH
        tiles: dict[int, Tile] = {}
        try:
            tiles = {tile.index: tile for tile in self._store.tiles(0, first, first + count)}
        except StoreError as error:
            self._add(Kind.UNREADABLE, self._out.first, f"hash tiles: {error}", end=self._out.end)
        for number in range(count):
            leaves = self._leaves[number * TILE_WIDTH : (number + 1) * TILE_WIDTH]
            self._out.blocks.append(_block(leaves, tiles.get(first + number), (first + number) * TILE_WIDTH))
        self._out.ragged = self._ragged(count * TILE_WIDTH)

    def _ragged(self, start: int) -> list[bytes | None]:
        """The leaf hashes past the last whole tile; for those that were pruned there the store keeps them."""
        ragged = self._leaves[start:]
        if None in ragged:
            first = self._out.first + start
            try:
                for position, leaf in self._store.leaves(first, self._out.end):
                    if ragged[position - first] is None and position in self._out.absent:
                        ragged[position - first] = leaf
            except StoreError as error:
                self._add(Kind.UNREADABLE, first, f"leaf hashes: {error}", end=self._out.end)
        return ragged


def _block(leaves: list[bytes | None], tile: Tile | None, first: int) -> Block:
    whole = [leaf for leaf in leaves if leaf is not None]
    by_records = tile_roots(whole)[0] if len(whole) == len(leaves) else None
    if tile is None:
        return Block(by_records, None, None)
    if by_records == tile.root and b"".join(whole) == tile.hashes:
        return Block(by_records, by_records, tile.root)
    try:
        hashes = split_hashes(tile.hashes)
        by_tile = tile_roots(hashes)[0] if len(hashes) == TILE_WIDTH else None
    except RejectedError:
        hashes, by_tile = [], None
    if by_tile is None:
        return Block(by_records, None, tile.root)
    pairs = enumerate(zip(leaves, hashes, strict=True))
    differing = [first + n for n, (leaf, stored) in pairs if leaf not in (stored, None)]
    return Block(by_records, by_tile, tile.root, tuple(differing))


def _tag_of(event_mac: bytes) -> Callable[[int], Callable[[bytes], bytes]]:
    return lambda epoch: tagger(epoch_key(event_mac, epoch))
