"""The way out of one ledger, put together: its index kept abreast, and what is asked of it.

Every answer speaks for one size of the ledger. By default that is the newest: a question first has the index
follow up to the present head, so that whoever appended sees it; appends go on meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from tallystick.core import timestamp
from tallystick.core.corrected import CLOCK_CORRECTED, NEVER_CORRECTED, Correction, Times
from tallystick.core.custody import RECORDS_PRUNED
from tallystick.core.pruned import RecordsPruned
from tallystick.core.record import Record
from tallystick.core.system import SYSTEM_ENTITY
from tallystick.core.upcast import Upcasters
from tallystick.errors import DamagedError, RejectedError, TamperError
from tallystick.read.declared import Declared
from tallystick.read.fold import Folds
from tallystick.read.follower import Follower
from tallystick.read.index import Questions
from tallystick.read.query import Query
from tallystick.read.rollup import Rollups
from tallystick.read.search import Search
from tallystick.read.state import States
from tallystick.read.timeseries import TimeSeries
from tallystick.store.contract import Store
from tallystick.store.reading import absent_ranges, fetch_lines, read_record

_SLICE_RECORDS: Final = 5_000
"""Records that are followed with the sealing turn held; then whoever seals may go first."""

_PRUNES: Final = Query(event_types=(RECORDS_PRUNED,))
_CORRECTIONS: Final = Query(event_types=(CLOCK_CORRECTED,), entities=(SYSTEM_ENTITY,))

_STREAM_RECORDS: Final = 32
"""Records of a stream that are read at first; long ones are read in ever larger parts."""


class Reader:
    """Answers questions about one ledger. Safe for many threads.

    `turn` is held while the follower learns, by the sealer for a commit and here for a slice of the log.
    """

    def __init__(self, store: Store, follower: Follower, *, turn: threading.Lock) -> None:
        self._store: Final = store
        self.follower: Final = follower
        self._turn: Final = turn
        self.questions: Final[Questions] = follower.file.questions
        self.search: Final = Search(store, self.questions)
        self.folds = Folds()
        self.upcasters = Upcasters()
        self.rollups: Final = Rollups(store, self.search, follower.file.rollups, times=self.times)
        self._corrections: Final[list[Correction]] = []
        self._corrections_end = 0
        self._correcting: Final = threading.Lock()
        """Guards both."""
        follower.after_save = self.rollups.advance

    def adopt(self, other: Reader) -> None:
        """Fold and upcast as another reader does."""
        self.folds, self.upcasters = other.folds, other.upcasters

    def catch_up(self, size: int | None = None) -> int:
        """Wait until the index answers for the first `size` records, by default all there are; that size."""
        if size is None:
            head = self._store.head()
            if head is None:
                raise DamagedError("the ledger has lost its head: run a verification")
            size = head.size
        reached = self.follower.file.cursor()
        while reached < size:
            reached = min(size, max(reached, self.follower.end) + _SLICE_RECORDS)
            with self._turn:
                self.follower.catch_up(reached)
                if reached == size:
                    self.follower.flush()
        self.follower.wait(size)
        return size

    def catch_up_rollups(self) -> int:
        """As `catch_up`, and until the roll-ups have counted: what is removed before that they never count."""
        size = self.catch_up()
        self.rollups.advance(size)
        return size

    def times(self, size: int) -> Times:
        """By what the first `size` records count, which the index has."""
        with self._correcting:
            if size > self._corrections_end:
                more = self.search.scan(_CORRECTIONS, first=self._corrections_end, end=size)
                self._corrections.extend(map(_correction, more))
                self._corrections_end = size
            return (
                Times(one for one in self._corrections if one.position < size) if self._corrections else NEVER_CORRECTED
            )

    def forget_pruned(self) -> None:
        """Have the index forget what was pruned since it last did. Records that are absent are in no answer anyway."""
        end = self._store.pruned_below()
        if not end:
            return
        newest = self._newest_prune(self.catch_up())
        if newest in (0, self.follower.file.forgotten()):
            return
        pruned = RecordsPruned.of(read_record(self._store, newest))
        if not self._store.fetch([pruned.first]):  # else it is sealed, and not done yet
            self.follower.file.forget(absent_ranges(self._store, 0, end), prune_at=newest)

    def _newest_prune(self, size: int) -> int:
        """The position of the newest prune; 0 when there is none."""
        return max(self.questions.positions(_PRUNES, first=0, end=size, newest_first=True, limit=1), default=0)

    def close(self) -> None:
        """Write the index's tail and let go of its file; with the turn held."""
        self.follower.close()

    def states(self) -> States:
        """What answers for states, as of the present size."""
        size = self.catch_up()
        # Snapshots are only used where the index has forgotten the newest prune: others may be of what is gone.
        snapshots = self.follower.file.snapshots(
            Declared(self.folds, self.upcasters),
            prune_at=lambda: self._newest_prune(size) if self._store.pruned_below() else 0,
        )
        streams = _Streams(self._store, self.search, self.questions, size, self.times(size))
        return States(streams, snapshots, self.folds, self.upcasters)

    def timeseries(self) -> TimeSeries:
        """What answers for time series, of sizes that were caught up with."""
        below = self._store.pruned_below()
        return TimeSeries(self.search, self.questions, self.rollups, pruned_below=below, times=self.times)

    def seal_removed(
        self, end: int, records: Iterable[Record], *, own: Iterable[Record] | None = None
    ) -> list[tuple[str, dict[str, Any]]]:
        """As `Rollups.seal_removed`, at the present size."""
        return self.rollups.seal_removed(end, records, size=self.catch_up(), own=own)


class _Streams:
    """The streams of a ledger as of one size (`tallystick.read.state.Streams`)."""

    def __init__(self, store: Store, search: Search, questions: Questions, size: int, times: Times) -> None:
        self._store: Final = store
        self._search: Final = search
        self._questions: Final = questions
        self._times: Final = times
        self.size: Final = size

    def time(self, record: Record) -> int:
        return self._times.of(record.position, timestamp.parse(record.recorded_at))

    def records(self, entity_id: str, *, first: int, end: int) -> Iterator[Record]:
        query = Query(entities=(entity_id,))
        return self._search.scan(query, first=first, end=min(end, self.size), expected=_STREAM_RECORDS)

    def at(self, positions: Sequence[int]) -> Iterator[Record]:
        return (Record.parse(stored.line) for stored in fetch_lines(self._store, positions))

    def end_at(self, moment_end: int) -> int:
        return min(self._questions.end_at(moment_end), self.size)


def _correction(record: Record) -> Correction:
    try:
        return Correction.of(record)
    except RejectedError as error:
        raise TamperError(f"the record at position {record.position} cannot be: {error}; verify") from error
