"""Projections: a user's function from events to state, kept abreast of the ledger.

State and cursor are saved together, so every record counts exactly once, whatever is killed. A projection that
fails stops at its cursor and says so; what came before is kept. All of it can be thrown away and built anew (I5).
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tallystick.core.record import Record
from tallystick.core.upcast import Upcasters
from tallystick.errors import BusyError, ConflictError, RejectedError, TamperError
from tallystick.limits import NAME_CHARACTERS_MAX
from tallystick.read.live import Live
from tallystick.read.query import Query
from tallystick.read.sqlite_cursors import Place, Saved, SqliteCursors

BATCH_RECORDS: Final = 1_000
"""Records that are folded before state and cursor are saved."""

Status = Literal["new", "running", "paused", "failed", "stopped"]

_log: Final = logging.getLogger("tallystick.projection")


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """What a projection is: a name, which records it takes, and `evolve(state, record) -> state`.

    A state is a JSON document; `initial` is what it begins with. With `setup`, the projection has tables of its
    own instead: `setup(tables)` makes them, and `evolve(tables, record)` changes them by `tables.execute`, in
    the transaction that moves the cursor. Raise `version` when `evolve` changes: it is then built anew.
    """

    name: str
    evolve: Callable[[Any, Record], Any]
    query: Query = field(default_factory=Query)
    initial: Any = None
    setup: Callable[[Any], None] | None = None
    version: int = 1

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= NAME_CHARACTERS_MAX or not self.name.isprintable():
            raise RejectedError(f"{self.name[:60]!r} is not the name of a projection", place="name")
        if type(self.version) is not int or self.version < 1:
            raise RejectedError(f"{self.version!r} is not an integer from 1", place="version")

    @classmethod
    def of(cls, given: Any) -> Projection:
        """A projection as it is, or one from an object with `evolve`, and if need be `name`, `query` and so on."""
        if isinstance(given, Projection):
            return given
        if not callable(getattr(given, "evolve", None)):
            raise RejectedError(f"a {type(given).__name__} has no evolve", cure="write evolve(state, record)")
        kind = given if isinstance(given, type) else type(given)
        given = given() if isinstance(given, type) else given
        members = {name: getattr(given, name) for name in _MEMBERS if hasattr(given, name)}
        query = members.pop("query", None) or Query()
        return cls(
            evolve=given.evolve,
            query=query if isinstance(query, Query) else Query.of(**query),
            **{"name": kind.__name__, **members},
        )


_MEMBERS: Final = ("name", "query", "initial", "setup", "version")


def projection(
    name: str | None = None, *, initial: Any = None, version: int = 1, **query: Any
) -> Callable[[Callable[[Any, Record], Any]], Projection]:
    """Make a function `evolve(state, record) -> state` a projection, over the records that fit a query.

    The members of the query are those of `Query.of`, such as `event_type="user.*"`.
    """

    def decorate(evolve: Callable[[Any, Record], Any]) -> Projection:
        made = name if name is not None else evolve.__name__
        return Projection(name=made, evolve=evolve, query=Query.of(**query), initial=initial, version=version)

    return decorate


class RunningProjection:
    """One projection over one ledger: the handle by which it is started, paused and asked. Safe for many threads."""

    def __init__(self, projection: Projection, *, live: Live, cursors: SqliteCursors, upcasters: Upcasters) -> None:
        self.projection: Final = projection
        self._live: Final = live
        self._cursors: Final = cursors
        self._upcasters: Final = upcasters
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._turn: Final = threading.Lock()
        """Held while records are folded."""

    @property
    def saved(self) -> Saved | None:
        """What is kept of it; None before it was ever run."""
        return self._cursors.projection(self.projection.name)

    @property
    def state(self) -> Any:
        """The state at the cursor, a copy."""
        saved = self._current()
        return copy.deepcopy(self.projection.initial) if saved is None else saved.state

    @property
    def cursor(self) -> int:
        """Every record below it is in the state."""
        saved = self._current()
        return saved.cursor if saved else 0

    @property
    def problem(self) -> str | None:
        """Why it stands still at its cursor, if it failed."""
        saved = self._current()
        return saved.problem if saved else None

    @property
    def status(self) -> Status:
        """`failed` has a `problem`; `stopped` is not followed by this process."""
        saved = self._current()
        if saved is None:
            return "new"
        if saved.paused:
            return "paused"
        if saved.problem is not None:
            return "failed"
        return "running" if self._thread is not None and self._thread.is_alive() else "stopped"

    def run(self) -> int:
        """Fold what there is, in the caller's thread, and give the cursor. Raises what `evolve` raises."""
        stop = threading.Event()
        size = self._live.wait(-1, stop=stop)
        with self._turn:
            while self._step(size, stop):
                pass
        return self.cursor

    def start(self) -> None:
        """Follow the ledger in a thread of its own, also after a pause or a failure."""
        if self._cursors.projection(self.projection.name) is not None:
            self._cursors.set_paused(self.projection.name, False)
        if self._thread is None or not self._thread.is_alive():
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._follow, args=(self._stop,), name=f"tallystick-{self.projection.name}", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End the thread; the cursor stays. Starting again goes on there."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def pause(self) -> None:
        """Hold it at its cursor, for every process, until it is started again."""
        self._begin()
        self._cursors.set_paused(self.projection.name, True)
        self.stop()

    def reset(self) -> None:
        """Forget state and cursor. Tables that it made are emptied by its `setup`, or by you."""
        self.rebuild(0)

    def rebuild(self, first: int = 0) -> None:
        """Begin anew at a position: what is below it does not count."""
        size = self._live.wait(-1, stop=threading.Event())
        if type(first) is not int or not 0 <= first <= size:
            raise RejectedError(f"{first!r} is not a position from 0 to {size}", place="first")
        running = self.status == "running"
        self.stop()
        with self._turn:
            self._begin_at(first)
        if running:
            self.start()

    def wait(self, position: int, *, timeout: float | None = None) -> bool:
        """Until the record at that position is in the state; False when the seconds were over before.

        Raises `ConflictError` when the projection stands still: it failed, is paused, or was not started.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.cursor <= position:
            status = self.status
            if status != "running" and not (status == "new" and self._thread and self._thread.is_alive()):
                said = f": {self.problem}" if self.problem else ""
                raise ConflictError(f"the projection {self.projection.name} is {status} at {self.cursor}{said}")
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        return True

    def _current(self) -> Saved | None:
        saved = self.saved
        if saved is None or saved.version != self.projection.version:
            return None
        if self._live.stands(Place(saved.cursor, saved.after)):
            return saved
        _log.warning(
            "the projection %s has seen another record than the log has at position %d: an older copy was put back, "
            "and went on. It begins again",
            saved.name,
            saved.cursor - 1,
        )
        return None

    def _begin(self) -> Saved:
        saved = self._current()
        return saved if saved is not None else self._begin_at(0)

    def _begin_at(self, first: int) -> Saved:
        after = self._live.place(first).after
        self._cursors.begin(
            self.projection.name,
            version=self.projection.version,
            cursor=first,
            after=after,
            state=self.projection.initial,
        )
        if self.projection.setup is not None:
            saved = self.saved
            assert saved is not None, "begun just now"
            if not saved.paused:
                with self._cursors.advance(saved) as step:
                    self.projection.setup(step.tables)
                    step.cursor, step.after, step.state = first, after, self.projection.initial
        saved = self.saved
        assert saved is not None, "begun just now"
        return saved

    def _follow(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                size = self._live.wait(self.cursor, stop=stop)
                with self._turn:
                    while not stop.is_set() and self._step(size, stop):
                        pass
                if self.status in ("paused", "failed"):
                    return
            except (BusyError, ConflictError):
                continue  # another process moved it; what it saved is where we go on
            except BaseException as error:  # noqa: BLE001  it is kept as its problem; nobody waits for this thread
                _log.warning("the projection %s stopped: %s", self.projection.name, error)
                return

    def _step(self, size: int, stop: threading.Event) -> bool:
        """Fold some records and save; whether there may be more. Raises what `evolve` raises, its place saved."""
        saved = self._begin()
        if saved.cursor > size:
            raise TamperError(
                f"the projection {saved.name} has seen {saved.cursor} records, and the ledger now has {size}: an older "
                "copy was put back. If you did that on purpose, reset the projection"
            )
        if saved.cursor == size or saved.paused:
            return False
        try:
            return self._fold(saved, size, stop) < size
        except _FoldError as failed:
            # Nothing of the batch was kept. What came before the record that failed is folded once more, from the
            # state as it was saved: the one in memory may have been changed in place.
            self._fold(self._begin(), failed.position, stop, problem=f"at position {failed.position}: {failed.error!r}")
            raise failed.error from None
        except RejectedError as error:
            with self._cursors.advance(self._begin()) as step:  # the state came to what cannot be kept
                step.cursor, step.after, step.state, step.problem = saved.cursor, saved.after, saved.state, str(error)
            raise

    def _fold(self, saved: Saved, end: int, stop: threading.Event, *, problem: str | None = None) -> int:
        """Fold up to a position, a batch at most unless a problem is to be noted there; the new cursor."""
        if self.projection.setup is not None:
            with self._cursors.advance(saved) as step:
                step.cursor, _ = self._evolved(step.tables, saved, end, stop, whole=problem is not None)
                step.after, step.problem = self._live.place(step.cursor).after, problem
                return step.cursor
        cursor, state = self._evolved(saved.state, saved, end, stop, whole=problem is not None)
        with self._cursors.advance(saved) as step:
            step.cursor, step.state, step.problem = cursor, state, problem
            step.after = self._live.place(cursor).after
        return cursor

    def _evolved(self, state: Any, saved: Saved, end: int, stop: threading.Event, *, whole: bool) -> tuple[int, Any]:
        evolve, tables = self.projection.evolve, self.projection.setup is not None
        for folded, record in enumerate(self._live.records(self.projection.query, saved.cursor, end)):
            if not whole and (folded >= BATCH_RECORDS or stop.is_set()):
                return record.position, state
            try:
                after = evolve(state, self._upcasters.upcast(record))
                state = state if tables else after
            except Exception as error:
                raise _FoldError(record.position, error) from error
        return end, state


class _FoldError(Exception):
    """A record that a projection could not fold."""

    def __init__(self, position: int, error: Exception) -> None:
        super().__init__(position)
        self.position: Final = position
        self.error: Final = error
