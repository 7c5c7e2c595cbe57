"""The proving half of the front door: what one ledger gives to others so that they need not believe it.

Checkpoints, proofs and tiles are for whoever keeps watch; bundles are for an auditor. What makes them is in `evidence`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from tallystick.config import Location
from tallystick.core.canonical import SURROGATE
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.corrected import Times
from tallystick.core.merkle import TILE_WIDTH, consistency_path, inclusion_path, range_root
from tallystick.core.moment import Moment
from tallystick.core.policy import Policy
from tallystick.core.proof import Proof
from tallystick.core.record import Record
from tallystick.core.selector import Selector
from tallystick.core.tiles import TileNodes
from tallystick.errors import NotFoundError, RejectedError, StoreError, TamperError
from tallystick.evidence.bundle.delivery import Delivery
from tallystick.evidence.bundle.export import Exported, Selection, Source, export
from tallystick.evidence.bundle.matching import matching, span
from tallystick.evidence.others.cosigning import Cosigned, cosign, keep, read_kept
from tallystick.evidence.others.post import SECONDS
from tallystick.evidence.others.vouching import Vouchers
from tallystick.read.index import Progress
from tallystick.read.own_records import Corrections
from tallystick.read.query import Query
from tallystick.read.reader import Reader
from tallystick.read.signed import selectors_of
from tallystick.store.contract import Head, Store
from tallystick.store.proofs import Proofs
from tallystick.store.proven_store import ProvenStore
from tallystick.store.reading import read_record
from tallystick.store.trusted_keys import Trusted
from tallystick.store.when import first_at

_ATTEMPTS: Final = 3
"""Heads at which a record that is not there is looked for, while others prune."""


class Proving(ABC):
    """What a ledger hands out. Safe for many threads."""

    _store: Store
    _location: Location
    _proofs: Proofs
    _corrections: Corrections

    @property
    @abstractmethod
    def name(self) -> str:
        """The ledger's name."""

    @abstractmethod
    def _find(self, event_id: str) -> int | None:
        """The position of the record with an event id."""

    @abstractmethod
    def _proven_store(self) -> ProvenStore:
        """The store as it is now, of which every record that is read is proven."""

    @abstractmethod
    def _head(self) -> Head:
        """The newest commit."""

    @abstractmethod
    def _trust(self, head: Head) -> Trusted:
        """The proven keys and tree of a head. Raises `TamperError`."""

    @abstractmethod
    def _hand_out(self, head: Head) -> Head:
        """A head whose checkpoint goes out. Raises `StoreError` when its mark cannot be kept."""

    @abstractmethod
    def _held_head(self) -> Head:
        """The newest commit, proven, and held against what is known of the ledger. Raises `TamperError`."""

    @abstractmethod
    def _open_reader(self) -> Reader:
        """The way out, with its index."""

    @abstractmethod
    def _export_source(self) -> Source:
        """The ledger, as an export needs it."""

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint (C2SP tlog-checkpoint): give it to others to keep.

        The head mark is written first. Raises `StoreError` when it cannot be, `TamperError` for a ledger that
        contradicts it.
        """
        return self._hand_out(self._held_head()).checkpoint

    def get(self, key: int | str) -> Record:
        """One record, by position or by event id, as the log has it. `NotFoundError` when there is none."""
        return read_record(self._store, self._position_of(key, self._head().size))

    def get_checked(self, key: int | str) -> Record:
        """As `get`, and proven to be in the signed tree.

        `NotFoundError` when there is none, or a proven prune removed it; `TamperError` when it is not the one that
        was sealed.
        """
        return self._proven_at(key)[1]

    def get_proven(self, key: int | str) -> tuple[Record, Proof]:
        """As `get_checked`, with the proof that the record is in the tree of the newest checkpoint."""
        head, record, path = self._proven_at(key)
        return record, Proof(record.position, path, self._hand_out(head).checkpoint)

    def _proven_at(self, key: int | str) -> tuple[Head, Record, tuple[bytes, ...]]:
        """The head that proves a record, the record, and the path from it to the root."""
        for attempt in range(_ATTEMPTS):
            head = self._held_head()
            position = self._position_of(key, head.size)
            try:
                with self._proofs.at(head) as reads:
                    found = reads.fetch([position])
                    path = inclusion_path(position, head.size, node=TileNodes(head.size, reads.tile))
                break
            except TamperError:
                # A prune may have come after the head was read: then the next one has its record.
                if attempt == _ATTEMPTS - 1 or self._held_head().checkpoint == head.checkpoint:
                    raise
        for stored in found:
            return head, Record.parse(stored.line), tuple(path)
        raise NotFoundError(f"the record at position {position} was pruned: its time to be kept was over")

    def _position_of(self, key: int | str, size: int) -> int:
        """The position that a key names in a ledger of `size` records."""
        if type(key) is not int and type(key) is not str:
            raise RejectedError(f"{key!r} is neither a position nor an event id", cure="give an integer or a string")
        if isinstance(key, str):
            position = None if SURROGATE.search(key) else self._find(key)
            if position is None:
                raise NotFoundError(f"there is no event with the id {key!r} in {self.name}")
            return position
        if not 0 <= key < size:
            raise NotFoundError(f"there is no position {key} in {self.name}, which has {size} records")
        return key

    def prove(self, position: int) -> Proof:
        """The proof that a record is in the tree of the newest checkpoint (C2SP tlog-proof).

        `TamperError` when its path does not lead to the signed root.
        """
        head = self._hand_out(self._held_head())
        if not 0 <= position < head.size:
            raise NotFoundError(f"there is no position {position} in this ledger, which has {head.size} records")
        with self._proofs.at(head) as reads:
            reads.tile(0, position // TILE_WIDTH, position % TILE_WIDTH + 1)
            path = inclusion_path(position, head.size, node=TileNodes(head.size, reads.tile))
        return Proof(position, tuple(path), head.checkpoint)

    def root_at(self, size: int) -> bytes:
        """The root of the tree of the first `size` records, proven. `NotFoundError` for more than there are."""
        head = self._held_head()
        if not 1 <= size <= head.size:
            raise NotFoundError(f"there is no tree of {size} records in this ledger, which has {head.size}")
        with self._proofs.at(head) as reads:
            return range_root(0, size, node=TileNodes(head.size, reads.tile))

    def prove_consistency(self, old_size: int, size: int | None = None) -> list[bytes]:
        """The proof that the tree of `size`, by default the newest, begins with that of `old_size` (RFC 9162 2.1.4).

        `TamperError` when it is not of the signed tree.
        """
        head = self._held_head()
        size = head.size if size is None else size
        with self._proofs.at(head) as reads:
            return consistency_path(old_size, size, node=TileNodes(size, reads.tile))

    def tile(self, level: int, index: int, width: int) -> bytes:
        """The first `width` hashes of a hash tile (C2SP tlog-tiles). `TamperError` when it is not of the signed tree,
        `NotFoundError` when that has no such tile."""
        with self._proofs.at(self._held_head()) as reads:
            return reads.tile(level, index, width)

    def cosign(self, policy: Policy, *, seconds: float = SECONDS) -> Cosigned:
        """Have the witnesses of a policy cosign the newest checkpoint, and keep what they gave beside the ledger.

        Nothing waits for them longer than `seconds`; what went wrong is in `problems`.
        """
        newest = self.checkpoint()
        cosigned = cosign(newest, policy, consistency=self.prove_consistency, kept=self._kept(), seconds=seconds)
        if cosigned.checkpoint != newest and self._location.folder is not None:
            keep(self._location.folder, cosigned.checkpoint)
        return cosigned

    def export(
        self,
        folder: str | os.PathLike[str],
        queries: Sequence[Query] = (),
        /,
        *,
        selectors: Sequence[Selector] = (),
        filtered: bool = False,
        first: int | None = None,
        end: int | None = None,
        after: datetime | str | None = None,
        before: datetime | str | None = None,
        since: bytes | None = None,
        actor: str | Mapping[str, str] | None = None,
        as_zip: bool = False,
        views: Sequence[str] = (),
        vouchers: Vouchers | None = None,
        progress: Progress | None = None,
    ) -> Exported:
        """Make an evidence bundle (SPEC 10) in a folder of its own, or in a `.zip`, for whoever does not trust us.

        By default of all records up to the close of the present epoch; from `first` to `end`, or from `after` to
        `before` in recorded time; or those that were not in the ledger at the checkpoint `since`, which the bundle is
        then held against. With `queries` it is `filtered`: it has the records that fit any of them, proves that these
        are in the ledger, and nothing of others. `selectors` are part of the signed manifest, and a verifier computes
        which records fit them; for a complete bundle that shows that none is left out. `views` are `csv` and `html`,
        beside the bundle. The ledger records the export, as ordered by `actor`.

        Raises `NotFoundError` when there is nothing to export, `RejectedError`, `ConflictError` when the target is
        there.
        """
        source = self._export_source()
        start = None if since is None else Checkpoint.of_note(since).size
        for moment, edge in ((after, first if first is not None else start), (before, end)):
            if moment is not None and edge is not None:
                raise RejectedError("a range was given both by times and by positions", cure="give one of them")
        first_then, end_then = self._positions_between(after, before)
        first, end = first if first_then is None else first_then, end if end_then is None else end_then
        selection = Selection(
            selectors=(*selectors_of(queries), *selectors),
            filtered=filtered or bool(queries),
            first=first if first is not None else start or 0,
            end=end,
            start_checkpoint=since,
        )
        asked, kept = vouchers or Vouchers(), self._kept()
        return export(
            source,
            selection,
            Delivery(folder, as_zip=as_zip, views=views),
            actor={"id": actor} if isinstance(actor, str) else actor,
            vouch=lambda note: asked.vouch(note, consistency=self.prove_consistency, kept=kept),
            progress=progress,
        )

    def matching(
        self, selectors: Sequence[Selector], *, first: int = 0, end: int | None = None
    ) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """The members of each record at [first, end), and the indexes of the selectors that it fits; from the log.

        Raises `TamperError` at a record that is missing or damaged, and at the end if the records do not lead to the
        root of the newest checkpoint: what was given before counts only then. Raises it also for a ledger that
        contradicts its head mark.
        """
        head = self._held_head()
        checkpoint = Checkpoint.of_note(head.checkpoint)
        return matching(self._store, selectors, checkpoint, first=first, end=checkpoint.size if end is None else end)

    def span(self, *, after: int, before: int, size: int) -> tuple[int, int]:
        """Positions [first, end) of the first `size` that have every record recorded from `after` to `before`.

        In microseconds. The first is from before that time and the last from after it, where there are such: so that
        whoever has them sees that the time is whole.
        """
        proven = self._proven_store()
        return span(proven, after=after, before=before, size=size, times=self._times(proven))

    def positions_of(self, *, after: int, before: int, size: int) -> tuple[int, int]:
        """Positions [first, end) of the first `size`, whose time is from `after` to `before`, in microseconds."""
        proven = self._proven_store()
        times = self._times(proven)
        first, end = (first_at(proven, moment, size=size, times=times) for moment in (after, before))
        return first, max(first, end)

    @property
    def is_pruned(self) -> bool:
        """Whether records were ever removed under the retention policy, as the ledger itself records it."""
        with self._proofs.at(self._held_head()) as reads:
            return reads.has_prune

    def _positions_between(
        self, after: datetime | str | None, before: datetime | str | None
    ) -> tuple[int | None, int | None]:
        """The positions of the time from `after` to `before`, proven; None where there is no such end."""
        start = None if after is None else Moment.of(after, place="after").start
        stop = None if before is None else Moment.of(before, place="before").start
        if start is None and stop is None:
            return None, None
        if start is not None and stop is not None and start >= stop:
            raise RejectedError("the time begins when it has ended already", place="range", cure="swap the two times")
        proven = self._proven_store()
        times = self._times(proven)
        first, end = (
            None if moment is None else first_at(proven, moment, size=proven.size, times=times)
            for moment in (start, stop)
        )
        if (first or 0) >= (proven.size if end is None else end):
            raise NotFoundError("nothing was recorded in that time, and so there is nothing to export")
        return first, end

    def proven_times(self) -> Times:
        """As `times`, of all records that there are, and proven."""
        return self._times(self._proven_store())

    def _times(self, proven: ProvenStore) -> Times:
        """By what records count, proven."""
        if self._location.has_traces():  # an index says where to look; without one all of the log is read once
            with suppress(StoreError):
                self._open_reader()
        with proven.reads() as reads:
            return self._corrections.times(reads)

    def _kept(self) -> bytes | None:
        return None if self._location.folder is None else read_kept(self._location.folder)
