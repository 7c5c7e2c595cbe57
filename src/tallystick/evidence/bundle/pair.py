"""Two bundles of one ledger, held together: do they tell one story, or is there a fork between them? (SPEC 11)

Each is verified by itself; here they are read once more side by side, in constant memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from typing import TypeAlias

import orjson

from tallystick.clock import Clock, wall_clock
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.fold import Fold, replaying
from tallystick.core.manifest import Manifest
from tallystick.core.merkle import leaf_hash
from tallystick.core.record import Record, record_hash
from tallystick.errors import RejectedError
from tallystick.evidence.bundle.check import verify_bundle
from tallystick.evidence.bundle.files import Bundle, open_bundle
from tallystick.evidence.bundle.report import BundleFinding, BundleReport
from tallystick.evidence.findings import Kind

Path: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class PairReport:
    """What verifying two bundles found: in each, and between them."""

    first: BundleReport
    second: BundleReport
    between: tuple[BundleFinding, ...]

    @property
    def findings(self) -> tuple[BundleFinding, ...]:
        """All of them."""
        return (*self.first.findings, *self.second.findings, *self.between)

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify_pair(
    one: Path, other: Path, *, trust: bytes, known: bytes | None = None, clock: Clock = wall_clock
) -> PairReport:
    """Verify two bundles, each against a checkpoint `known` from elsewhere, and hold them together.

    What fails by itself is not held against the other.

    Raises as `verify_bundle` does, and `RejectedError` for bundles of ledgers of two origins.
    """
    first, second = (verify_bundle(path, trust=trust, known=known, clock=clock) for path in (one, other))
    between = _between(one, other) if first.holds and second.holds else ()
    return PairReport(first, second, tuple(between))


def _between(one: Path, other: Path) -> Iterator[BundleFinding]:
    mine, theirs = _manifest(one), _manifest(other)
    if mine.origin != theirs.origin:
        cure = "give two bundles of one ledger"
        raise RejectedError(f"these are bundles of {mine.origin} and of {theirs.origin}", cure=cure)
    if mine.ledger_id != theirs.ledger_id:
        yield BundleFinding(Kind.FORK, f"two ledgers bear the name {mine.origin}: one was made anew")
        return
    with open_bundle(one) as left, open_bundle(other) as right:
        fork = _first_difference(_records(mine, left), _records(theirs, right))
    if fork is not None:
        hashes = " and ".join(record_hash(line).hex() for line in fork[1:])
        yield BundleFinding(
            Kind.FORK, f"position {fork[0]} has two records, with the hashes {hashes}", position=fork[0]
        )
    small, large = sorted((one, other), key=lambda path: _end(_manifest(path)).size)
    end = _end(_manifest(small))
    if _root_at(large, end.size) not in (None, end.root):
        yield BundleFinding(Kind.FORK, f"the trees of the first {end.size} records have two roots")


def _first_difference(
    left: Iterator[tuple[int, bytes]], right: Iterator[tuple[int, bytes]]
) -> tuple[int, bytes, bytes] | None:
    """The first position that both have, with different records."""
    for position, pair in groupby(merge(left, right, key=_position), key=_position):
        lines = [line for _, line in pair]
        if len(lines) == 2 and lines[0] != lines[1]:
            return position, lines[0], lines[1]
    return None


def _records(manifest: Manifest, bundle: Bundle) -> Iterator[tuple[int, bytes]]:
    """Every record of a bundle that holds, in order of position, those of its manifest too."""
    beside = [(Record.parse(line).position, line) for line in (manifest.genesis, *manifest.records)]
    lines = (raw.removesuffix(b"\n") for raw in bundle.lines(manifest.events_bytes))
    events = ((int(orjson.loads(line)["position"]), line) for line in lines)
    for _, same in groupby(merge(beside, events, key=_position), key=_position):
        yield next(same)  # a genesis may stand in both


def _root_at(path: Path, size: int) -> bytes | None:
    """The root of the first `size` records, if the fold of a bundle that holds passes that size."""
    manifest = _manifest(path)
    if _end(manifest).size == size:
        return _end(manifest).root
    assert size < _end(manifest).size, "the root of a smaller tree"
    node = replaying(iter(manifest.hashes), lambda: AssertionError("a bundle that holds has all its hashes"))
    fold = Fold(cuts=manifest.cuts, node=node, sizes=[size])
    with open_bundle(path) as bundle:
        for position, line in _records(manifest, bundle):
            fold.add(position, leaf_hash(line))
    fold.root(manifest.size)
    return fold.roots.get(size)


def _manifest(path: Path) -> Manifest:
    with open_bundle(path) as bundle:
        return Manifest.parse(bundle.manifest)


def _end(manifest: Manifest) -> Checkpoint:
    return Checkpoint.of_note(manifest.checkpoint)


def _position(pair: tuple[int, bytes]) -> int:
    return pair[0]
