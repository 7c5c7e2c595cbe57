"""The front door of one ledger: append, read, query, prove, verify.

Here the way in and the way out are put together; neither knows the other. Reading needs no keys and no
write access; what sealing needs, keys, index and the newest state, is fetched at the first append, and what
questions need, the index, at the first question.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final

from tallystick.appending import Appending
from tallystick.asking import Asking
from tallystick.clock import Clock, wall_clock
from tallystick.config import Location, time_source
from tallystick.core.note import VerifierKey
from tallystick.core.record import Record
from tallystick.core.system import Genesis
from tallystick.errors import DamagedError, RejectedError, StoreError, TamperError
from tallystick.evidence.bundle.export import Source
from tallystick.evidence.findings import Report
from tallystick.evidence.verification.held import handed_out
from tallystick.evidence.verification.index import with_open_index
from tallystick.evidence.verify import verify_store
from tallystick.govern.registry import Registry
from tallystick.governing import Governed, Governing
from tallystick.guarding import Guarding
from tallystick.ids import IdMaker
from tallystick.keystore import Keystore
from tallystick.proving import Proving
from tallystick.queueing import Queueing
from tallystick.read.compared import ComparedFile
from tallystick.read.follower import Follower
from tallystick.read.index import Progress, has_id
from tallystick.read.live import Live
from tallystick.read.own_records import BINDING, FRAMING, OF_THE_LEDGER, Corrections, Framing, OwnRecords
from tallystick.read.reader import Reader
from tallystick.read.readers import Readers
from tallystick.read.sqlite_cursors import SqliteCursors
from tallystick.store.contract import Head, Store
from tallystick.store.proofs import Proofs
from tallystick.store.proven_store import ProvenStore
from tallystick.store.reading import read_record, read_records
from tallystick.store.trusted_keys import TrustedKeys
from tallystick.write.accept import Acceptor
from tallystick.write.moment import Moments
from tallystick.write.queue import Queue
from tallystick.write.seal import Plan
from tallystick.write.sealer import Sealer
from tallystick.write.sealing_index import SealingIndex


class Ledger(Guarding, Queueing, Appending, Asking, Governing, Proving):
    """One append-only chain of records. Safe for many threads; other processes may use the same ledger.

    Made by `tallystick.open`. A context manager: leaving it closes the ledger.
    """

    def __init__(
        self,
        store: Store,
        *,
        location: Location,
        keystore: Keystore,
        clock: Clock = wall_clock,
        principal: str | None = None,
        progress: Progress | None = None,
        readonly: bool = False,
        marks: Path | None = None,
    ) -> None:
        """`marks` is the folder of the head marks."""
        self._store = store
        self._readonly: Final = readonly
        self._location = location
        self._keystore = keystore
        self._clock = clock
        self._moments: Final = Moments.of(clock, source=time_source())
        self._progress: Final = progress
        self._ids: Final = IdMaker()
        self._registry = Registry(store)
        self._own: Final = OwnRecords(self._own_candidates, types=BINDING, keep=lambda record: record)
        self._framing: Final = OwnRecords(self._own_candidates, types=FRAMING, keep=Framing.of)
        """Both are used with the sealing turn held."""
        self._corrections = Corrections(self._own_candidates)
        self._governed = Governed(self._registry, clock, principal)
        self._acceptor = Acceptor(self._ids, principal=principal, rules=self._registry)
        self._opening = threading.Lock()
        self._following: Final = threading.Lock()
        """Held while the index is asked or told: by the sealer for a commit, by a reader for a question."""
        self._sealer: Sealer | None = None
        self._sealing_index: SealingIndex | None = None
        self._queue: Queue | None = None
        self._queue_acceptor = Acceptor(IdMaker(), principal=principal, rules=self._registry)
        """Gives ids of another prefix than the sealer's: what is queued may be sealed twice, and is looked up."""
        self._reader: Reader | None = None
        self._compared_file: ComparedFile | None = None
        self._readers: Readers | None = None
        self._closed = False
        record = read_record(store, 0)
        try:
            self.genesis = Genesis.of(record)
        except RejectedError as error:
            raise TamperError(f"the record at position 0 is not a genesis: {error}; run a verification") from error
        if not self.genesis.signature_holds(record):
            raise TamperError("the genesis is not signed by the root key that it names: run a verification")
        self.id = record.hash
        """The ledger's id: the SHA-256 of its genesis record."""
        self._trusted = TrustedKeys(store, self.genesis, self._public_keys)
        self._proofs = Proofs(store, lambda head: self._trust(head).tree)
        self._marks = marks
        self._mark = self._open_mark(marks)

    @property
    def name(self) -> str:
        """The ledger's name within its deployment."""
        return self.genesis.ledger

    @property
    def origin(self) -> str:
        """The name under which its checkpoints are signed: `<deployment>/<ledger>`."""
        return self.genesis.origin

    @property
    def size(self) -> int:
        """How many records are published, the ledger's own included."""
        return self._head().size

    def read(self, first: int = 0, end: int | None = None) -> Iterator[Record]:
        """The records at positions [first, end), up to the present size at most, in order.

        Raises `TamperError` at a record that is missing or damaged; what came before it was good.
        """
        size = self.size
        return read_records(self._store, max(first, 0), size if end is None else min(end, size))

    def read_proven(self, first: int = 0) -> list[Record]:
        """The records from position `first` on, each proven to be in the signed tree. For what is going to be obeyed.

        Needs the keys. Raises `TamperError` at a record that is missing, or is not the one that was sealed.
        """
        sealer = self._open_sealer()
        return sealer.prove(lambda reads, _: [Record.parse(one.line) for one in reads.read(first, reads.size)])

    @contextmanager
    def proven(self, *, progress: Progress | None = None) -> Iterator[Ledger]:
        """The ledger as it is now, for answers that serve as evidence: each comes from records that are proven to be in
        the signed tree, by an index that is made from them first, which takes about 20 µs a record.

        Nothing can be written to what is given. Raises `TamperError` at a record that is not the one that was sealed.
        """
        store = self._proven_store()
        location = replace(self._location, scratch=True)
        proven = Ledger(
            store, location=location, keystore=self._keystore, clock=self._clock, progress=progress, readonly=True
        )
        try:
            if self._reader is not None:
                proven._open_reader().adopt(self._reader)
            yield proven
        finally:
            proven.close()

    def _proven_store(self) -> ProvenStore:
        """The store as it is now, of which every record that is read is proven."""
        head = self._held_head()
        return ProvenStore(self._store, head, self._trust(head).tree)

    def verify(
        self,
        *,
        first: int = 0,
        end: int | None = None,
        since: bytes | None = None,
        trust: VerifierKey | None = None,
        processes: int | None = None,
        apart: bool = False,
        index: bool = True,
        progress: Progress | None = None,
    ) -> Report:
        """Check every record at [first, end), and the tree over all. See `tallystick.verify`.

        `apart` has another process scan them, even if it is only one, so that this one goes on with its work.
        """
        keystore = self._keystore if self._keystore.exists() else None
        report = verify_store(
            self._store,
            location=self._location,
            keystore=keystore,
            marks=self._marks,
            first=first,
            end=end,
            since=since,
            trust=trust,
            processes=processes,
            apart=apart,
            index=index,
            progress=progress,
            clock=self._clock,
        )
        if index and self._reader is not None:
            is_in_file = self._location.folder is not None and not self._readonly
            report = with_open_index(report, self.look, is_in_file=is_in_file)
        return handed_out(report, self._store, location=self._location, keystore=keystore, marks=self._marks)

    def change_epoch(self) -> None:
        """Close the present epoch and open the next, under a new MAC key (SPEC 5.2)."""
        self._open_sealer().change_epoch()

    def rebuild_sealing_index(self) -> None:
        """Rebuild what the sealer knows of the past from the log. Without the keys there is nothing to rebuild."""
        if self.has_keys:
            sealer = self._open_sealer()
            self._forget_sealed()
            sealer.find("")  # which reads the log

    def close(self) -> None:
        """Write the index's tail and let go of files. Closing twice is harmless."""
        if self._queue is not None:
            self._queue.close()
        with self._opening:
            if self._closed:
                return
            self._closed = True
            try:
                if self._mark is not None:
                    self._mark.close()
                if self._readers is not None:
                    self._readers.close()
                with self._following:
                    if self._sealing_index is not None:
                        self._sealing_index.close()
                    if self._reader is not None:
                        self._reader.close()
            finally:
                self._store.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _head(self) -> Head:
        head = self._store.head()
        if head is None:
            raise DamagedError("the ledger has lost its head: run a verification")
        return head

    def _export_source(self) -> Source:
        reader = self._open_reader()
        return Source(
            store=self._store,
            genesis=self.genesis,
            framing=lambda: [*self._open_sealer().prove(self._framing.follow)],
            catch_up=reader.catch_up,
            change_epoch=self.change_epoch,
            load_keys=self._load_keys,
            seal_own=lambda events: self._open_sealer().seal_own(events),
            head=self._held_head,
            hand_out=self._hand_out,
            clock=self._clock,
        )

    def _find(self, event_id: str) -> int | None:
        """The position of the record with an event id: by the sealing index, or, for who has no keys, by the log."""
        if not self.has_keys:
            found = (stored.position for stored in self._store.read(0, self.size) if has_id(stored.line, event_id))
            return next(found, None)
        return self._open_sealer().find(event_id)

    def _open_reader(self) -> Reader:
        with self._opening:
            if self._closed:
                raise StoreError("the ledger is closed")
            if self._reader is not None:
                return self._reader
            index = self._location.open_index(self._store, private=self._readonly, find=self._find)
            follower = Follower(self._store, index, progress=self._progress)
            self._reader = Reader(self._store, follower, turn=self._following)
        self._reader.forget_pruned()  # which a crash may have kept the index from
        return self._reader

    def _log_bytes(self) -> int:
        return self._store.bytes_used()

    def _open_readers(self) -> Readers:
        reader = self._open_reader()
        with self._opening:
            if self._readers is None:
                self._readers = Readers(
                    Live(self._store, reader.follower.told, prove=self._proven_store, root_at=self.root_at),
                    upcasters=reader.upcasters,
                    open_cursors=self._open_cursors,
                )
            return self._readers

    def _step_readers_back(self, size: int) -> None:
        readers, now = self._open_readers(), self.size
        stands = readers.live.stands
        readers.cursors.step_back(readers.live.place(size), stands=lambda at: at.cursor <= now and stands(at))

    def _open_cursors(self) -> SqliteCursors:
        key = self._load_keys().index_mac if self.has_keys else None
        return self._location.open_cursors(self.id, key=key, private=self._readonly)

    def _open_sealer(self) -> Sealer:
        sealer = self._sealer
        if sealer is not None:
            return sealer
        keys = self._load_keys()  # before any index is touched: wrong keys change nothing
        self._open_reader().catch_up()  # it knows where the ledger's own records are, and learns what comes next
        with self._opening:
            if self._sealer is None:
                index = SealingIndex(
                    self._store,
                    self._location.open_runs(),
                    key=keys.index_mac,
                    ledger_id=self.id,
                    progress=self._progress,
                )
                sealer = Sealer(
                    self._store,
                    genesis=self.genesis,
                    load_keys=self._load_keys,
                    known=index,
                    moments=self._moments,
                    ids=self._ids,
                    turn=self._following,
                    told=self._committed,
                    check_head=self._check_head,
                )
                # What events are held to is proven to be all there is, before the first of them is taken.
                sealer.prove(lambda reads, own: self._registry.begin(self._own.follow(reads, own), reads.size))
                sealer.hold_to(self._registry)
                self._registry.follow_by(lambda: sealer.prove(lambda reads, _: self._registry.follow(reads)))
                self._sealing_index, self._sealer = index, sealer
            return self._sealer

    def _committed(self, plan: Plan) -> None:
        """A commit was made, which the query index need not read from the log."""
        if self._mark is not None:
            self._mark.committed(plan.head.checkpoint)
        reader = self._reader
        if reader is not None:
            reader.follower.learn(plan.batch.first, plan.batch.lines)

    def _check_head(self, read_back: bytes | None) -> None:
        if self._mark is not None:
            self._mark.check(read_back=read_back)

    def _own_candidates(self, first: int) -> tuple[int, Sequence[int]]:
        """Where the query index says that the ledger's own records are, and up to where it was asked."""
        reader = self._reader
        if reader is None:
            return first, ()
        end = reader.follower.file.cursor()
        return end, reader.questions.positions(OF_THE_LEDGER, first=first, end=end, newest_first=False, limit=1 << 40)

    @property
    def has_keys(self) -> bool:
        """Whether the keys are at hand, and may be used: without them nothing is sealed, and less is proven."""
        return not self._readonly and self._keystore.exists() and self._location.is_writable()

    @property
    def sealing_problem(self) -> str | None:
        """What was wrong with the sealing index, if anything was since the ledger was opened; it was rebuilt then."""
        return None if self._sealing_index is None else self._sealing_index.problem

    def _own_records(self) -> Iterable[Record]:
        return [*self._open_sealer().prove(self._own.follow)]

    def _forget_pruned(self) -> None:
        """Records were pruned: no index answers for them any more, nor for entities that have no other records."""
        self._open_reader().forget_pruned()
        self._forget_sealed()

    def _forget_sealed(self) -> None:
        """Have the sealer learn the log again before it seals anything."""
        if self._sealing_index is not None and self._sealer is not None:
            with self._following:
                self._sealing_index.rebuild()
            self._sealer.forget()
