"""The index: what the log says, arranged so that questions need no scan (I5).

It follows the log with a cursor of its own, in large batches, off the commit path; rows and cursor are
saved together. It can be deleted at any moment and comes back to the same content.

`IndexFile` is what an adapter keeps, `Questions` what it answers; `tallystick.read.follower` follows the log.
What is found by a hash or by words is a candidate: the record itself decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
import orjson

from tallystick.core.rollup import Cells
from tallystick.errors import StoreError, TamperError
from tallystick.limits import SIZE_MAX
from tallystick.read.declared import Declared
from tallystick.read.query import Query
from tallystick.read.state import Snapshots

Progress = Callable[[int, int], None]
"""Called with how many records are done, and of how many; for all long work over a ledger."""

TimeKind: TypeAlias = Literal["recorded", "occurred"]
"""Which of a record's two times: when it was sealed, or when the caller says that it happened."""

FindId = Callable[[str], int | None]
"""The position of the record with an event id, which is for the sealing index to know, or for the log."""

GroupKind: TypeAlias = Literal["type", "actor", "entity", "label"]
"""By what records are counted apart."""


Counted: TypeAlias = Sequence[tuple[int, str | None, int]]
"""Rows of a time, a group (None when there is no such, or nothing to group by), and how many."""

Take: TypeAlias = Callable[[Counted], None]
"""Is handed such rows, some at a time. What it raises ends the question."""


class Questions(Protocol):
    """What the rows below a position answer. Safe for many threads."""

    def positions(self, query: Query, *, first: int, end: int, newest_first: bool, limit: int) -> list[int]:
        """Candidates in [first, end), at most `limit`, in order: every record that fits is among them."""

    def answers_exactly(self, query: Query) -> bool:
        """Whether all candidates fit, so that no record need be looked at."""

    def count(self, query: Query, *, first: int, end: int) -> int:
        """How many candidates there are."""

    def counts(
        self,
        query: Query,
        *,
        first: int,
        end: int,
        time: TimeKind,
        unit: int,
        group: GroupKind | None,
        take: Take,
    ) -> None:
        """The candidates by units of `unit` microseconds, rounded down, and by group; of a record with several labels
        one each."""

    def distinct(
        self,
        query: Query,
        *,
        first: int,
        end: int,
        time: TimeKind,
        buckets: Sequence[tuple[int, int]],
        what: Literal["actor", "entity"],
        group: GroupKind | None,
        take: Take,
    ) -> None:
        """How many actors or entities the candidates have, by bucket (its start) and group."""

    def extent(self, query: Query, *, first: int, end: int, time: TimeKind) -> tuple[int, int] | None:
        """The first and the last time of the candidates; None when there are none."""

    def tally(
        self,
        *,
        first: int,
        end: int,
        quarters: int = 1,
        event_types: Sequence[str] = (),
        size: int = SIZE_MAX,
        take: Take,
    ) -> None:
        """Records by type and time, as they were counted when they came, removed ones too.

        Times are quarters of an hour since 1970: those of [first, end), `quarters` of them taken as one, from
        `first` on. Event types as a query has them. Records at position `size` and after are not counted. What comes
        in several parts, of which some may be negative, is to be added up.
        """

    def tally_extent(self, event_types: Sequence[str] = ()) -> tuple[int, int] | None:
        """The quarters of an hour [first, end) that have been counted; None when there are none."""

    def end_at(self, recorded: int) -> int:
        """The first position whose record was recorded at that moment or later; the cursor when there is none."""

    def known(self) -> dict[str, int]:
        """How many event types, actors, entities and labels there are, by these words."""

    def names(self, kind: GroupKind) -> Iterator[str]:
        """All event types, actors, entities or labels there are, in order of their names."""


class KeptRollup(NamedTuple):
    """How far a stored roll-up has counted."""

    definition: str
    """The digest of what it counts."""
    defined_at: int
    """The position of the record that says so."""
    position: int
    sealed_below: int
    """Sealed cells at positions below are of records that were gone when it began: it takes them, and no others."""


class RollupRows(Protocol):
    """Where stored roll-ups rest. Safe for many threads and processes."""

    def kept(self, name: str) -> KeptRollup | None:
        """How far a roll-up has come; None when it never began."""

    def begin(self, name: str, rollup: KeptRollup) -> None:
        """Let a roll-up begin with no cells, unless it counts just that already, or what was defined later."""

    def add(self, name: str, rollup: KeptRollup, cells: Cells, *, end: int) -> bool:
        """Add to its cells and move it on to `end`, together. False, and nothing done, if it is not as given."""

    def cells(
        self, name: str, definition: str, *, first: int, end: int, most: int, take: Callable[[Cells], None]
    ) -> int | None:
        """How far the roll-up has come; None when there is none of that definition. Its cells with buckets that begin
        in [first, end) are handed to `take`, some at a time in their order, all of one look.

        Raises `RejectedError` when they are more than `most`, before any is read, and what `take` raises.
        """


class IndexFile(Protocol):
    """Where rows rest: one ledger's index. All of it may be lost; none of it may be half-written."""

    @property
    def questions(self) -> Questions:
        """What the saved rows answer."""

    def snapshots(self, declared: Declared, *, prune_at: Callable[[], int]) -> Snapshots:
        """Where states of long streams are kept that were folded as declared, from what the prune left whose
        position `prune_at` gives, 0 for none.

        Where the index has not forgotten just that, there are none, and none are kept.
        """

    @property
    def rollups(self) -> RollupRows:
        """Where stored roll-ups are kept."""

    def cursor(self) -> int:
        """Up to which position rows were saved; 0 for a new index."""

    def save(self, first: int, end: int, lines: Sequence[bytes]) -> None:
        """Save the rows of the records in [first, end), of which `lines` are there, and the cursor, together. What was
        saved before, by whomever, changes nothing."""

    def keep(self, first: int, end: int, lines: Sequence[bytes]) -> None:
        """Answer for the records in [first, end) as if they were saved, from memory, as they cannot be. Replaces what
        was kept before. `save` and `cursor` go on from what is saved. Raises `StoreError` when it is too much."""

    @property
    def kept_to(self) -> int:
        """Up to which position it answers with what is kept; 0 when nothing is."""

    def forgotten(self) -> int:
        """The position of the newest prune whose records were forgotten; 0 when there was none."""

    def forget(self, absent: Iterable[tuple[int, int]], *, prune_at: int) -> int:
        """Remove what the rows say of positions in these ranges, at which there are no records any more; how many
        rows those were. It may be repeated."""

    def look(self, *, now: bool = False) -> bool:
        """Look whether the rows are still where they were, if that is due, or `now`. False when another process
        rebuilds them: what is opened next has the new ones. Raises `DamagedIndexError`."""

    def close(self) -> None:
        """Let go of files."""


def too_much(records: int) -> StoreError:
    """The error for whoever asks when more is not written than is kept in memory."""
    return StoreError(
        f"the index cannot be written, and lacks the newest {records:,} records: more than are answered from memory. "
        "Free room on the disk, then ask again"
    )


class _Id(msgspec.Struct):
    id: str


_decode_id: Final = msgspec.json.Decoder(_Id).decode


def has_id(line: bytes, event_id: str) -> bool:
    """Whether the record of these bytes has the event id."""
    try:
        return orjson.dumps(event_id) in line and _decode_id(line).id == event_id
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise TamperError(f"a record that has the text {event_id!r} is damaged: run a verification") from error
