"""The governing half of the front door: what is decided about one ledger, as events of its own.

How long records are kept, what is counted for good, and what events have to look like. What decides is in `govern`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tallystick.asking import one_query
from tallystick.clock import Clock
from tallystick.core.custody import OwnEvent
from tallystick.core.event import Event
from tallystick.core.record import Record
from tallystick.govern.registry import Registry
from tallystick.govern.retention import Retention
from tallystick.govern.schemas import Schemas
from tallystick.ids import IdMaker
from tallystick.read.index import GroupKind, TimeKind
from tallystick.read.query import Query
from tallystick.read.reader import Reader
from tallystick.store.contract import Store
from tallystick.store.proven_store import ProvenStore
from tallystick.write.accept import Acceptor
from tallystick.write.sealer import Sealer


class Governed(NamedTuple):
    """What governing takes of the front door."""

    registry: Registry
    clock: Clock
    principal: str | None


class Governing(ABC):
    """What can be decided about a ledger. Safe for many threads."""

    _store: Store

    _governed: Governed

    @abstractmethod
    def _open_reader(self) -> Reader:
        """What answers."""

    @abstractmethod
    def _open_sealer(self) -> Sealer:
        """What seals."""

    @abstractmethod
    def _forget_pruned(self) -> None:
        """Records were pruned."""

    @property
    @abstractmethod
    def has_keys(self) -> bool:
        """Whether what binds the ledger can be proven."""

    @abstractmethod
    def _proven_store(self) -> ProvenStore:
        """The store as it is now, of which every record that is read is proven."""

    @abstractmethod
    def _own_records(self) -> Iterable[Record]:
        """All records of the ledger's own that bind it, proven to be all."""

    def downsample(
        self,
        name: str,
        query: Query | None = None,
        /,
        *,
        width: str,
        zone: str = "UTC",
        measure: str | Sequence[str] = "count",
        group: GroupKind | None = None,
        time: TimeKind = "recorded",
        actor: str | Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        """Have a series stored from now on, kept up as records come, also when they are pruned (see `series`).

        The ledger records it, as ordered by `actor`; the same name again replaces it.
        """
        reader, who = self._open_reader(), {"id": actor} if isinstance(actor, str) else actor
        reader.timeseries().downsample(
            name,
            one_query(query, members),
            size=reader.catch_up(),
            seal_own=lambda kind, payload: self._open_sealer().seal_own([OwnEvent(kind, payload, who)]),
            width=width,
            zone=zone,
            measure=measure,
            group=group,
            time=time,
        )

    @abstractmethod
    def _clear_queue(self) -> None:
        """Have what is sealed leave the files of the queue."""

    @property
    def retention(self) -> Retention:
        """How long records are kept, who holds them, and the pruning of those whose time has come."""
        reader = self._open_reader()

        def before_prune(end: int, doomed: Iterator[Record]) -> Sequence[tuple[str, dict[str, Any]]]:
            self._clear_queue()  # before anything is removed: it may refuse, and then nothing has happened
            return reader.seal_removed(end, doomed, own=self._own_records() if self.has_keys else None)

        return Retention(
            self._store,
            search=reader.search,
            questions=reader.questions,
            catch_up=reader.catch_up_rollups,
            seal_own=lambda events, *, guard=None: self._open_sealer().seal_own(events, guard=guard),
            clock=self._governed.clock,
            before_prune=before_prune,
            after_prune=self._forget_pruned,
            own_records=self._own_records if self.has_keys else None,
            proven=self._proven_store if self.has_keys else None,
        )

    @property
    def schemas(self) -> Schemas:
        """What events have to look like, by type and version, and what becomes of those that do not."""
        reader = self._open_reader()
        if self.has_keys:
            self._open_sealer()  # which reads what is in force, and proves that it is all
        acceptor = Acceptor(IdMaker(), principal=self._governed.principal, rules=self._governed.registry)

        def take(event: Event | Mapping[str, Any] | bytes) -> str:
            return acceptor.accept(event).breach

        return Schemas(
            self._governed.registry,
            search=reader.search,
            catch_up=reader.catch_up,
            seal_own=lambda events, *, guard=None: self._open_sealer().seal_own(events, guard=guard),
            take=take,
        )
