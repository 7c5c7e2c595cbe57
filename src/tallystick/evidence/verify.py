"""Verifying a ledger: every check of SPEC 8, going on past the first finding.

The records are scanned range by range, in as many processes as there are cores. What the ranges report is
then held together here: the epochs and keys that the ledger's own records tell of, the streams, and the
tree. The signed root decides: what hashes to it is proven, whoever wrote the files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tallystick.clock import Clock, wall_clock
from tallystick.config import Location, marks_folder, open_keystore
from tallystick.core.checkpoint import Checkpoint, open_checkpoint
from tallystick.core.merkle import TILE_HEIGHT, TILE_LEVELS_MAX, TILE_WIDTH
from tallystick.core.note import VerifierKey
from tallystick.core.system import Genesis, Purpose
from tallystick.errors import NotFoundError, RejectedError, StoreError, TamperError
from tallystick.evidence.findings import Finding, Kind, Report
from tallystick.evidence.verification.beside import Beside
from tallystick.evidence.verification.clock import ClockCheck, Edges
from tallystick.evidence.verification.held import KeptMark, check_since, handed_out
from tallystick.evidence.verification.history import History, KeyInForce
from tallystick.evidence.verification.identity import IdCheck
from tallystick.evidence.verification.named_keys import check_named_keys
from tallystick.evidence.verification.plan import Plan
from tallystick.evidence.verification.prunes import PruneCheck, pruned_meanwhile, prunes_below
from tallystick.evidence.verification.ranges import without
from tallystick.evidence.verification.scan import Scan, Terms, scan
from tallystick.evidence.verification.tree import TreeCheck
from tallystick.evidence.verification.workers import scan_in_processes
from tallystick.keystore import Keystore
from tallystick.limits import SIZE_MAX
from tallystick.read.index import Progress
from tallystick.store.contract import Head, Store
from tallystick.store.reading import checkpoint_key, evidence_key, read_record


def verify(
    url: str | os.PathLike[str],
    *,
    keys: str | os.PathLike[str] | None = None,
    marks: str | os.PathLike[str] | None = None,
    first: int = 0,
    end: int | None = None,
    since: bytes | None = None,
    trust: VerifierKey | None = None,
    processes: int | None = None,
    index: bool = True,
    progress: Progress | None = None,
    clock: Clock = wall_clock,
) -> Report:
    """Verify the ledger at a folder or URL. Needs neither an open ledger nor the right to write.

    Every record at [first, end), widened to whole tiles, is checked as SPEC 8 says. Signatures are checked
    when the folder of the keys is at hand, and the ledger is then compared with its head mark, which is in the folder
    `marks`, by default `heads` in that of the keys. `since` is a checkpoint kept from before, to be extended by it.
    `trust` is a verifier key known from elsewhere; without it the keys that the ledger names are believed.
    With `index` the index, from which queries are answered, is compared with the log as well, where all is verified.
    Raises `NotFoundError` when there is no ledger, `RejectedError` for a `since` that is no checkpoint.
    """
    location = Location.parse(url)
    store = location.open_store(readonly=True)
    try:
        keystore = open_keystore(Path(keys) if keys is not None else location.keys_folder)
        if keys is not None and not keystore.exists():
            raise NotFoundError(f"there are no keys in {os.fspath(keys)}")
        present, folder = keystore if keystore.exists() else None, marks_folder(marks, keystore.folder)
        report = verify_store(
            store,
            location=location,
            keystore=present,
            marks=folder,
            first=first,
            end=end,
            since=since,
            trust=trust,
            processes=processes,
            index=index,
            progress=progress,
            clock=clock,
        )
        return handed_out(report, store, location=location, keystore=present, marks=folder)
    finally:
        store.close()


def verify_store(
    store: Store,
    *,
    location: Location | None = None,
    keystore: Keystore | None = None,
    marks: Path | None = None,
    first: int = 0,
    end: int | None = None,
    since: bytes | None = None,
    trust: VerifierKey | None = None,
    processes: int | None = None,
    apart: bool = False,
    index: bool = True,
    progress: Progress | None = None,
    clock: Clock = wall_clock,
) -> Report:
    """As `verify`, for a store that is open. Other processes help only with the `location` to open it at.

    With `apart` the records are scanned in another process even if that is only one, so that this one goes on.
    """
    for _ in range(_ATTEMPTS):
        below, mark = prunes_below(store), KeptMark.of(store, keystore=keystore, marks=marks)
        plan = Plan.of(store, location=location, first=first, end=end, processes=processes, apart=apart)
        if since is not None and not plan.covers(Checkpoint.of_note(since).size):
            raise RejectedError(
                "a kept checkpoint is held against all records from the first to its last",
                cure="verify the whole ledger, or leave the checkpoint out",
            )
        verification = _Verification(
            store, head=plan.head, keystore=keystore, mark=mark, since=since, trust=trust, now=clock(), index=index
        )
        report = verification.run(plan, progress)
        # What a prune removed while it was looked for seems to be missing, until its record is read as well.
        if report.holds or not pruned_meanwhile(store, size=plan.head.size, below=below):
            break
    return report


_ATTEMPTS: Final = 3
"""Verifications that prunes may spoil before one counts as it is."""


class _Verification:
    """One run. The steps' numbers are SPEC 8's."""

    def __init__(
        self,
        store: Store,
        *,
        head: Head,
        keystore: Keystore | None,
        mark: KeptMark,
        since: bytes | None,
        trust: VerifierKey | None,
        now: int,
        index: bool,
    ) -> None:
        self._index: Final = index
        self._mark: Final = mark
        self._store: Final = store
        self._trust: Final = trust
        self._since: Final = since
        self._now: Final = now
        self._findings: list[Finding] = []
        self._head: Final = head
        self._genesis: Final = self._read_genesis()
        self._ledger: Final = self._genesis.ledger if self._genesis else self._name_by_other_means()
        self._keys = keystore.ledger_keys(self._ledger) if keystore else None

    def run(self, plan: Plan, progress: Progress | None) -> Report:
        started = time.monotonic()
        inspection = _begin(self._store.inspect)
        self._check_genesis()
        self._check_lost(plan.lost)
        tasks = plan.tasks
        first, end = tasks[0].first, tasks[-1].end
        event_mac = self._keys.event_mac if self._keys else None
        history = History(first=first, keys=self._keys_before(first), event_mac=event_mac)
        tree = TreeCheck(self._store, size=self._head.size, first=first)
        prunes = PruneCheck(self._store, first=first, size=self._head.size)
        clock, ids, signed = ClockCheck(Edges.at(self._now)), IdCheck(), 0
        for result in self._scans(plan, Terms(self._ledger, event_mac, clock.edges)):
            for part in (history, prunes, tree, clock):
                part.add(result)
            ids.add(result.ids)
            signed += result.signed
            self._findings += result.findings
            if progress:
                progress(result.end - first, (end - first) * (2 if self._index and plan.is_whole else 1))
        self._findings += [*history.findings, *clock.findings, *ids.findings(self._id_at)]
        self._findings += prunes.judge(history.absent, end=end)
        checkpoint = self._check_head(history, whole=first == 0 and end == self._head.size)
        self._findings += tree.finish(checkpoint.root if checkpoint else None)
        self._findings += prunes.hold_against(tree, history, origin=self._origin)
        since = self._check_since(history, tree, checkpoint)
        self._check_store(inspection)
        indexed = self._check_beside(plan, progress)
        unclosed = end - history.epoch_at if history.epoch_at is not None and history.epoch_is_open else 0
        return Report(
            ledger=self._ledger,
            origin=self._origin,
            size=self._head.size,
            first=first,
            end=end,
            findings=tuple(sorted(self._findings, key=_order)),
            signatures=signed,
            unclosed=min(unclosed, signed),
            keys=event_mac is not None,
            proven=self._proven(first, end, tree, since),
            pruned=prunes.prunes,
            absent=prunes.lawful,
            checkpoint=self._head.checkpoint,
            index=indexed,
            since=since.size if since else None,
            mark=self._mark.size,
            notes=self._mark.notes,
            warnings=clock.warnings,
            evidence_key=history.keys["evidence"][-1].key,
            seconds=time.monotonic() - started,
        )

    def _check_lost(self, lost: range) -> None:
        if lost:
            seen = f"{len(lost)} records at the end are not in the store"
            self._findings.append(Finding(Kind.MISSING, lost.start, seen, lost.stop))

    def _add(self, kind: Kind, position: int | None, seen: str) -> None:
        self._findings.append(Finding(kind, position, seen))

    def _scans(self, plan: Plan, terms: Terms) -> Iterator[Scan]:
        if plan.is_apart and plan.location:
            return scan_in_processes(plan.location, plan.tasks, terms, processes=plan.processes)
        return (scan(self._store, task, terms) for task in plan.tasks)

    def _id_at(self, position: int) -> str | None:
        try:
            return read_record(self._store, position).id
        except (NotFoundError, TamperError, StoreError):
            return None  # what is wrong with it was found when it was scanned

    def _read_genesis(self) -> Genesis | None:
        try:
            self._genesis_record = read_record(self._store, 0)
            return Genesis.of(self._genesis_record)
        except (NotFoundError, TamperError, RejectedError, StoreError) as error:
            self._add(Kind.GENESIS, 0, f"the genesis cannot be read: {error}")
            return None

    def _name_by_other_means(self) -> str:
        """The ledger's name when its genesis is gone: what the next record says."""
        for position in range(1, min(self._head.size, 10)):
            try:
                return str(read_record(self._store, position).members["ledger"])
            except (NotFoundError, TamperError, StoreError):
                continue
        return ""

    @property
    def _origin(self) -> str:
        if self._genesis:
            return self._genesis.origin
        return self._head.checkpoint.partition(b"\n")[0].decode("utf-8", "replace")

    def _check_genesis(self) -> None:
        """(1)"""
        genesis = self._genesis
        if genesis is None:
            return
        if not genesis.signature_holds(self._genesis_record):
            self._add(Kind.GENESIS, 0, "the genesis is not signed by the root key that it names")
        if self._keys and self._keys.root.public_key().public_bytes_raw() != genesis.root_key:
            self._add(Kind.GENESIS, 0, "the root key is not the one in the folder of the keys")
            self._keys = None  # under another ledger's keys no signature would hold, and that says nothing

    def _keys_before(self, first: int) -> dict[Purpose, KeyInForce]:
        """The keys in force where the scan begins: at 0 the genesis', else what the head leads to."""
        genesis, head = self._genesis, self._head
        if genesis is None:
            return {"checkpoint": KeyInForce(0, None), "evidence": KeyInForce(0, None)}
        if not first:
            return {
                "checkpoint": KeyInForce(0, genesis.checkpoint_key),
                "evidence": KeyInForce(0, genesis.evidence_key),
            }
        try:
            return {
                "checkpoint": KeyInForce(
                    head.checkpoint_key_at,
                    checkpoint_key(self._store, head.checkpoint_key_at, genesis=genesis),
                ),
                "evidence": KeyInForce(
                    head.evidence_key_at, evidence_key(self._store, head.evidence_key_at, genesis=genesis)
                ),
            }
        except (NotFoundError, TamperError, RejectedError, StoreError) as error:
            self._add(Kind.HEAD, None, f"the keys in force cannot be read: {error}")
            return {"checkpoint": KeyInForce(0, None), "evidence": KeyInForce(0, None)}

    def _check_head(self, history: History, *, whole: bool) -> Checkpoint | None:
        """(11) The checkpoint, under the key in force at its size; and where the head points to."""
        head = self._head
        key = history.key_at("checkpoint", head.size) or self._key_from_elsewhere()
        if self._trust and self._trust.public_key not in {k.key for k in history.keys["checkpoint"]}:
            self._add(Kind.GENESIS, None, f"the trusted key {self._trust.render()} is none of this ledger's")
        if whole:
            told = (history.epoch_at, history.key_since("checkpoint"), history.key_since("evidence"))
            if told != (head.epoch_at, head.checkpoint_key_at, head.evidence_key_at) and not self._findings:
                self._add(Kind.HEAD, None, "the head does not point to where the epoch and the keys were named")
        if key is None:
            self._add(Kind.CHECKPOINT, None, "no key is known by which the checkpoint could be checked")
            return None
        try:
            checkpoint = open_checkpoint(head.checkpoint, [VerifierKey(self._origin, key)], origin=self._origin)
        except (RejectedError, TamperError) as error:
            self._add(Kind.CHECKPOINT, None, str(error))
            return None
        if checkpoint.size != head.size:
            self._add(Kind.HEAD, None, f"the head says {head.size} records, its signed checkpoint {checkpoint.size}")
            return None
        return checkpoint

    def _key_from_elsewhere(self) -> bytes | None:
        """The checkpoint key when the ledger itself no longer says which it is."""
        if self._keys:
            return self._keys.checkpoint.public_key().public_bytes_raw()
        return self._trust.public_key if self._trust else None

    def _check_since(self, history: History, tree: TreeCheck, signed: Checkpoint | None) -> Checkpoint | None:
        """(13) The ledger must be the one that the held checkpoint is of, grown, the one of its head mark, and of its
        genesis: of a part of it the keys were not followed."""
        size = self._head.size
        self._findings += self._mark.check(tree, size=size, signed=signed)
        self._findings += [] if self._findings else check_named_keys(self._store, self._head, first=history.first)
        if self._since is None:
            return None
        key = history.key_at("checkpoint", Checkpoint.of_note(self._since).size) or self._key_from_elsewhere()
        held, found = check_since(self._since, key, tree, size=size, origin=self._origin)
        self._findings += found
        return held

    def _check_store(self, inspection: Future[list[str]]) -> None:
        """(14) What lies past the published size, and what the store says of itself."""
        try:
            self._check_past_the_end()
        except StoreError as error:
            self._add(Kind.UNREADABLE, None, str(error))
        try:
            for problem in inspection.result():
                self._add(Kind.STORE, None, problem)
        except StoreError as error:
            self._add(Kind.STORE, None, str(error))

    def _check_beside(self, plan: Plan, progress: Progress | None) -> int | None:
        """What SPEC does not speak of; up to where the query index was compared with the log."""
        ledger_id = self._genesis_record.hash if self._genesis else b""
        keys = self._keys if self._genesis else None
        marks = self._mark.folder
        beside = Beside(plan, self._store, keys, ledger_id=ledger_id, marks=marks, index=self._index, now=self._now)
        self._findings += beside.check(progress, found_in_log=self._findings)
        return beside.end

    def _check_past_the_end(self) -> None:
        last = self._store.last_position()
        head = self._store.head()  # read after the position: what was published meanwhile is below it
        if last is not None and head is not None and last >= head.size:
            first = next(self._store.read(head.size, last), None)
            self._add(Kind.UNPUBLISHED, first.position if first else last, "a record past the published size")
        for level in range(TILE_LEVELS_MAX):
            for tile in self._store.tiles(level, self._head.size >> TILE_HEIGHT * (level + 1), 1 << 48):
                head = self._store.head()
                if head is None or tile.index >= head.size >> TILE_HEIGHT * (level + 1):
                    position = tile.index * TILE_WIDTH ** (level + 1)
                    self._add(Kind.TILE, position, f"hash tile {level}/{tile.index} lies past the published size")
                break

    def _proven(self, first: int, end: int, tree: TreeCheck, since: Checkpoint | None) -> tuple[tuple[int, int], ...]:
        if not tree.proven:
            if since is None or first:
                return ()
            end = min(end, since.size)
        gaps = [(position, position + 1) for position in tree.altered]
        gaps += [
            (finding.position, finding.end or finding.position + 1)
            for finding in self._findings
            if finding.kind in (Kind.MISSING, Kind.UNREADABLE) and finding.position is not None
        ]
        return without(first, end, gaps)


_RANK: Final = {kind: rank for rank, kind in enumerate(Kind)}


def _order(finding: Finding) -> tuple[int, int]:
    """By place, and of one place in the order of the checks."""
    return (SIZE_MAX + 1 if finding.position is None else finding.position, _RANK[finding.kind])


def _begin(work: Callable[[], list[str]]) -> Future[list[str]]:
    """Have the work done beside, by a thread that ends with it."""
    beside = ThreadPoolExecutor(1, "tallystick-inspect")
    promise = beside.submit(work)
    beside.shutdown(wait=False)
    return promise
