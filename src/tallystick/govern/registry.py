"""The registry: which schemas are in force, read from the ledger's own events and kept abreast of them (I5).

It is the projection of `SCHEMA_TYPES`, in memory. Whoever seals tells it of every commit, and has it read what other
processes wrote; so it is never behind what is sealed next. Here events are judged by what is in force.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from tallystick.core.record import Record
from tallystick.core.schema import (
    SCHEMA_MARK,
    SCHEMA_TYPES,
)
from tallystick.errors import RejectedError, TamperError
from tallystick.govern.breaches import Breach
from tallystick.govern.registered import InForce, RegisteredSchema
from tallystick.read.query import Query
from tallystick.read.search import Search
from tallystick.store.contract import Store
from tallystick.store.verified_reads import VerifiedReads
from tallystick.write.rules import Judge

_LOOK_SECONDS: Final = 0.005
"""How long what another process registers may be missed by what is published; a look costs 15 µs."""


class Judged(Protocol):
    """An event that was judged."""

    @property
    def breach(self) -> str: ...

    @property
    def kind(self) -> tuple[str, int]: ...


class Registry:
    """What is in force in one ledger, kept abreast. Safe for many threads (`tallystick.write.rules.Rules`)."""

    def __init__(self, store: Store) -> None:
        self._store: Final = store
        self._lock: Final = threading.Lock()
        self._in_force = InForce()
        self._end = 0
        self.generation = 0
        self.judge: Judge | None = None
        self._looked_at = -_LOOK_SECONDS
        self._prove: Callable[[], None] | None = None
        self._breaches: Final[dict[tuple[str, int], int]] = {}

    @property
    def end(self) -> int:
        """How far the log was read."""
        return self._end

    def snapshot(self) -> InForce:
        """What is in force, for the caller alone."""
        with self._lock:
            copy = InForce()
            copy.schemas.update({name: dict(versions) for name, versions in self._in_force.schemas.items()})
            copy.changes.extend(self._in_force.changes)
            return copy

    def find(self, name: str) -> dict[int, RegisteredSchema]:
        """The versions of a schema; none when there is no such schema."""
        return self._in_force.schemas.get(name, {})

    def count_breaches(self, drafts: Iterable[Judged]) -> None:
        """Events were taken; count those that break a schema."""
        if self.judge is None or self._in_force.enforcement != "warn":
            return
        with self._lock:
            for draft in drafts:
                if draft.breach:
                    self._breaches[draft.kind] = self._breaches.get(draft.kind, 0) + 1

    def breaches(self) -> dict[tuple[str, int], int]:
        """How many events were taken although they break their schema, by type and version."""
        with self._lock:
            return dict(self._breaches)

    def load(self, search: Search, size: int) -> None:
        """Know all that the log has now.

        It is proven where it can be, as others of this process are held to it. Who has no keys cannot prove it, and
        only asks what is in force: the index says it, which answers for `size`.
        """
        if self._prove is not None:
            self._catch_up()
            return
        with self._lock:
            if size > self._end:
                self._take(search.scan(Query(event_types=SCHEMA_TYPES), first=self._end, end=size))
                self._end = size

    def begin(self, records: Iterable[Record], size: int) -> None:
        """Begin again with all records below `size` that may be of schemas, which are proven to be all."""
        with self._lock:
            self._in_force = InForce()
            self._end = 0
            self._take(records)
            self._end = size

    def follow(self, reads: VerifiedReads) -> None:
        """Read what the log has and is not known yet, proven. Raises `TamperError`, `StoreError`."""
        with self._lock:
            if reads.size > self._end:
                self._take(_records(stored.line for stored in reads.read(self._end, reads.size)))
                self._end = reads.size

    def look(self) -> None:
        """Follow the head, but not more often than every few milliseconds: for what will not be judged again."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_SECONDS:
            self._catch_up()
            self._looked_at = now

    def follow_by(self, prove: Callable[[], None]) -> None:
        """Have `prove` called, which calls `follow`, whenever the head has moved on: nothing is obeyed unproven."""
        self._prove = prove

    def _catch_up(self) -> None:
        head = self._store.head()
        if head is not None and head.size > self._end and self._prove is not None:
            self._prove()

    def learn(self, first: int, lines: Sequence[bytes], *, own: bool) -> None:
        """What was just committed, from position `first` on."""
        with self._lock:
            if first == self._end:
                if own:
                    self._take(_records(lines))
                self._end = first + len(lines)

    def _take(self, records: Iterable[Record]) -> None:
        """Take records in, all of them or, after an error, those before it."""
        for record in records:
            if record.event_type not in SCHEMA_TYPES or record.position < self._end:
                continue
            try:
                self._in_force.take(record)
            except RejectedError as error:
                raise TamperError(f"the record at position {record.position} cannot be: {error}; verify") from error
            self._end = record.position + 1
            idle = not self._in_force.schemas and self._in_force.enforcement != "strict"
            self.judge = None if idle else self._judge
            self.generation += 1  # last: whoever sees the new number is judged by the new rules

    def _judge(self, event_type: str, event_version: int, payload: Any, whole: Callable[[], dict[str, Any]]) -> str:
        """`tallystick.write.rules.Judge`. Nothing is refused by rules that another process has changed meanwhile."""
        generation = self.generation
        versions = self._in_force.schemas.get(event_type)
        if versions is not None:
            schema = versions.get(event_version)
            if schema is not None and schema.takes(payload, whole):
                return ""
        elif self._in_force.enforcement != "strict":
            return ""
        try:
            return self._judge_closely(event_type, event_version, payload, whole)
        except RejectedError:
            self._catch_up()
            if self.generation == generation:
                raise
        return self._judge_closely(event_type, event_version, payload, whole)

    def _judge_closely(
        self, event_type: str, event_version: int, payload: Any, whole: Callable[[], dict[str, Any]]
    ) -> str:
        """What is wrong with an event, if anything is, by what is known now."""
        versions, enforcement = self._in_force.schemas.get(event_type), self._in_force.enforcement
        if versions is None:
            if enforcement == "strict":
                cure = f"register one: tallystick schema register {event_type} FILE"
                raise RejectedError(f"{event_type} has no schema", place="/event_type", cure=cure)
            return ""
        schema = versions.get(event_version)
        if schema is None:
            error = _no_version(event_type, event_version, versions)
        elif schema.takes(payload, whole):
            return ""
        else:
            error = _refusal(schema, payload if schema.target == "payload" else whole())
        if enforcement != "warn":
            raise error
        return str(error)


def _records(lines: Iterable[bytes]) -> Iterator[Record]:
    """The records among these that may be of a schema."""
    for line in lines:
        if SCHEMA_MARK in line:
            try:
                yield Record.parse(line)
            except RejectedError as error:
                raise TamperError(f"a record of a schema was altered: {error}; run a verification") from error


def _no_version(name: str, version: int, versions: dict[int, RegisteredSchema]) -> RejectedError:
    there = "1" if len(versions) == 1 else f"1 to {len(versions)}"
    cure = "send one of those, or register the next first"
    problem = f"there is no version {version} of the schema of {name}; there is {there}"
    return RejectedError(problem, place="/event_version", cure=cure)


def _refusal(schema: RegisteredSchema, instance: Any) -> RejectedError:
    at = "/payload" if schema.target == "payload" else ""
    found = schema.document.breaches(instance, at=at) or [Breach(at, "it is not valid")]
    first, *others = found
    also = "".join(f"; {one.place or 'the event'}: {one.problem}" for one in others)
    return RejectedError(
        f"{first.problem} (schema {schema.name}, version {schema.version}){also}",
        place=first.place,
        cure=f"see tallystick schema show {schema.name} --version {schema.version}",
    )
