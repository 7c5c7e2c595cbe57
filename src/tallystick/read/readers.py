"""Those who read on as records arrive: the projections and subscriptions of one ledger, and where they keep place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

from tallystick.core.upcast import Upcasters
from tallystick.errors import ConflictError
from tallystick.read.live import Live
from tallystick.read.projection import Projection, RunningProjection
from tallystick.read.query import Query
from tallystick.read.sqlite_cursors import Place, Saved, SqliteCursors
from tallystick.read.subscription import Subscription


class Readers:
    """Begins them, and ends them with the ledger. Safe for many threads."""

    def __init__(self, live: Live, *, upcasters: Upcasters, open_cursors: Callable[[], SqliteCursors]) -> None:
        self.live: Final = live
        self._upcasters: Final = upcasters
        self._open_cursors: Final = open_cursors
        self._lock: Final = threading.Lock()
        self._cursors: SqliteCursors | None = None
        self._running: Final[dict[str, RunningProjection]] = {}
        self._subscriptions: Final[WeakSet[Subscription]] = WeakSet()
        """Those that somebody has, so that they end with the ledger. One that nobody has any more goes by itself."""

    @property
    def cursors(self) -> SqliteCursors:
        """Where places are kept; opened when first needed."""
        with self._lock:
            if self._cursors is None:
                self._cursors = self._open_cursors()
            return self._cursors

    def project(self, projection: Any) -> RunningProjection:
        """The handle of a projection; the same one for the same name. `ConflictError` for two of one name."""
        made, cursors = Projection.of(projection), self.cursors
        with self._lock:
            known = self._running.get(made.name)
            if known is None:
                known = self._running[made.name] = RunningProjection(
                    made, live=self.live, cursors=cursors, upcasters=self._upcasters
                )
        if known.projection.evolve != made.evolve:
            raise ConflictError(f"there is another projection named {made.name}: give one of them another name")
        return known

    def projections(self) -> list[Saved]:
        """What is kept of every projection that was ever begun over this ledger, by name.

        One that is of another history than the log is told of as failed, without its state.
        """
        return [
            one if self.live.stands(Place(one.cursor, one.after)) else one.lost() for one in self.cursors.projections()
        ]

    def subscribe(self, query: Query, *, cursor: int | None = None, name: str | None = None) -> Subscription:
        """A subscription; with a name it goes on where it acknowledged last, and `cursor` is where it begins."""
        subscription = Subscription(
            query,
            live=self.live,
            upcasters=self._upcasters,
            cursor=cursor,
            name=name,
            cursors=self.cursors if name is not None else None,
        )
        with self._lock:
            self._subscriptions.add(subscription)
        return subscription

    def close(self) -> None:
        """End all of them; places are kept."""
        with self._lock:
            running, subscriptions, cursors = [*self._running.values()], [*self._subscriptions], self._cursors
        for subscription in subscriptions:
            subscription.close()
        for projection in running:
            projection.stop()
        if cursors is not None:
            cursors.close()
