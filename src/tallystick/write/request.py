"""A request: drafts that are sealed together or not at all, and what becomes of them.

Here the promises to a caller who tries again are kept. The same id with the same content is answered with
the record that was sealed first; with other content it is a conflict. An expected version must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, overload

from tallystick.core.content import Content
from tallystick.core.event import Event
from tallystick.core.record import Record
from tallystick.errors import ConflictError
from tallystick.write.draft import BROUGHT, Draft


class Sealed(NamedTuple):
    """The receipt of an event, given only when its record is durable (I1)."""

    position: int
    id: str
    entity_id: str
    entity_version: int
    recorded_at: str
    hash: bytes
    """SHA-256 of the record, 32 bytes."""
    replayed: bool = False
    """Whether the id had been sealed before, and this is the receipt of that first time."""
    breach: str = ""
    """What of its schema the event breaks; it was taken all the same, as schemas only warn in this ledger."""


class Load(NamedTuple):
    """So many events, with so many bytes of content."""

    events: int
    bytes: int

    def __add__(self, other: Load) -> Load:  # type: ignore[override]  # a sum, and no longer tuple
        return Load(self.events + other.events, self.bytes + other.bytes)

    def __sub__(self, other: Load) -> Load:
        return Load(self.events - other.events, self.bytes - other.bytes)

    def fits(self, most: Load) -> bool:
        """Whether neither is more than that."""
        return self.events <= most.events and self.bytes <= most.bytes


NOTHING: Final = Load(0, 0)


class Submission(NamedTuple):
    """Events that someone brings to be sealed as one."""

    events: Sequence[Event | Mapping[str, Any] | bytes]
    principal: Mapping[str, str] | str | None = None
    """Who stands behind those that name no actor."""


Place: TypeAlias = int | Sealed
"""The index of a draft among those that a plan adds, or the receipt of its earlier record. An index of a
draft that another draft of the same plan repeats is given as its complement, `~index`."""


class Request:
    """Drafts to be sealed as one. `sealed` or `error` is set, once, by whoever seals."""

    __slots__ = ("conditional", "drafts", "error", "generation", "sealed")

    def __init__(self, drafts: Sequence[Draft], generation: int | None = None) -> None:
        self.drafts: Final = drafts
        self.generation: Final = generation
        """The generation of the rules by which they were judged; None if they need not be judged again."""
        self.conditional: Final = any(d.made == BROUGHT or d.expected_version != "any" for d in drafts)
        """Whether anything must be looked up before it is known that the drafts can be sealed."""
        self.sealed: Sequence[Sealed] | None = None
        self.error: BaseException | None = None

    @property
    def load(self) -> Load:
        """How much it is."""
        return Load(len(self.drafts), sum(draft.size for draft in self.drafts))

    def outcome(self) -> Sequence[Sealed] | ConflictError:
        """What became of it, once it is settled: its receipts, or its conflict. Raises any other error."""
        if isinstance(self.error, ConflictError):
            return self.error
        if self.error is not None:
            raise self.error
        assert self.sealed is not None, "what was planned is settled"
        return self.sealed


class Receipts(Sequence[Sealed]):
    """The receipts of neighbouring records, each made when it is looked at: most never are."""

    __slots__ = ("_drafts", "_first", "_hashes", "_recorded_at", "_versions")

    def __init__(
        self,
        drafts: Sequence[Draft],
        *,
        first: int,
        versions: Sequence[int],
        recorded_at: str,
        hashes: Sequence[bytes],
    ) -> None:
        self._drafts: Final = drafts
        self._first: Final = first
        self._versions: Final = versions
        self._recorded_at: Final = recorded_at
        self._hashes: Final = hashes

    def __len__(self) -> int:
        return len(self._drafts)

    @overload
    def __getitem__(self, index: int) -> Sealed: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sealed]: ...

    def __getitem__(self, index: int | slice) -> Sealed | list[Sealed]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        draft = self._drafts[at]
        return Sealed(
            self._first + at,
            draft.id,
            draft.entity_id,
            self._versions[at],
            self._recorded_at,
            self._hashes[at],
            breach=draft.breach,
        )

    def __iter__(self) -> Iterator[Sealed]:
        recorded_at = self._recorded_at
        of_each = zip(self._drafts, self._versions, self._hashes, strict=True)
        for position, (draft, version, digest) in enumerate(of_each, self._first):
            yield Sealed(position, draft.id, draft.entity_id, version, recorded_at, digest, False, draft.breach)

    def __repr__(self) -> str:
        return repr(list(self))

    def part(self, places: range) -> Receipts:
        """The receipts of some neighbours among these."""
        if len(places) == len(self):
            return self
        start, stop = places.start, places.stop
        return Receipts(
            self._drafts[start:stop],
            first=self._first + start,
            versions=self._versions[start:stop],
            recorded_at=self._recorded_at,
            hashes=self._hashes[start:stop],
        )


class Resolution:
    """Works out, draft by draft, what of a conditional request is new; keeps nothing if one conflicts.

    `planned` are the drafts already in the plan, `brought` the indices of their ids; `version` gives an
    entity's version after them. `known_at` has the positions of those event ids that were sealed before, and
    `read` gives the record there.
    """

    def __init__(
        self,
        planned: Sequence[Draft],
        *,
        brought: dict[str, int],
        version: Callable[[str], int],
        known_at: Mapping[str, int],
        read: Callable[[int], Record],
    ) -> None:
        self._planned: Final = planned
        self._brought_before: Final = brought
        self._version: Final = version
        self._known_at: Final = known_at
        self._read: Final = read
        self._versions: dict[str, int] = {}
        self.places: list[Place] = []
        self.fresh: list[Draft] = []
        self.brought: dict[str, int] = {}

    def take(self, draft: Draft) -> None:
        """Place one draft. Raises `ConflictError`."""
        index = len(self._planned) + len(self.fresh)
        if draft.made == BROUGHT:
            earlier = self._earlier(draft)
            if earlier is not None:
                self.places.append(earlier)
                return
            event_id = draft.brought_id
            if event_id.startswith(draft.prefix):
                # Ids that we make are never looked up: whoever guesses the next one would have it sealed twice.
                raise ConflictError(f"the event id {event_id!r} is the ledger's own to give: send one of your own")
            self.brought[event_id] = index
        version = self._versions.get(draft.entity_id)
        if version is None:
            version = self._version(draft.entity_id)
        if draft.expected_version != "any":
            _check_expected(draft, version)
        self._versions[draft.entity_id] = version + 1
        self.places.append(index)
        self.fresh.append(draft)

    def _earlier(self, draft: Draft) -> Place | None:
        event_id = draft.brought_id
        index = self.brought.get(event_id, self._brought_before.get(event_id))
        if index is not None:
            before = len(self._planned)
            twin = self._planned[index] if index < before else self.fresh[index - before]
            _check_same(draft, twin.content)
            return ~index
        position = self._known_at.get(event_id)
        if position is None:
            return None
        record = self._read(position)
        _check_same(draft, Content.of(record.members))
        return Sealed(
            record.position,
            record.id,
            record.entity_id,
            record.entity_version,
            record.recorded_at,
            record.hash,
            replayed=True,
        )


def _check_same(draft: Draft, content: Content) -> None:
    if draft.content != content:
        raise ConflictError(
            f"the event id {draft.id!r} was used before, for other content: "
            "send a new id for a new event, or exactly the same event to repeat one"
        )


def _check_expected(draft: Draft, version: int) -> None:
    expected = draft.expected_version
    holds = {"none": version == 0, "exists": version > 0}.get(str(expected), expected == version)
    if not holds:
        raise ConflictError(
            f"the entity {draft.entity_id!r} is at version {version}, and {expected!r} was expected: "
            "read it again, then decide"
        )
