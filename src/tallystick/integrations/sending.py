"""Sending from an application that must not wait: events rest in memory, bounded, and a thread sends them on in order.

Nothing is lost up to the bound, however long the destination is away: it is asked again with the same event ids, so
that nothing is sealed twice. Past the bound events are dropped, counted, and told of by an event of its own, in the
place where they are missing, as soon as there is room. What the process had in memory when it dies is gone: whoever
cannot bear that appends or publishes by themselves.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol

import orjson

from tallystick.client.tries import Backoff
from tallystick.clock import Clock, wall_clock
from tallystick.core import timestamp
from tallystick.core.canonical import to_json
from tallystick.errors import ConflictError, RejectedError
from tallystick.ids import IdMaker, spell
from tallystick.limits import SENDING_BYTES_MAX, SENDING_EVENTS_MAX

DROPPED: Final = "log.dropped"
"""The type of the event that says how many others there was no room for, and how many were refused."""

SECONDS: Final = 5.0
"""How long the end of an application waits for what is still to be sent."""

_BATCH_EVENTS: Final = 500
_STRANDED: Final = "a ledger that was opened before a fork cannot be used behind it: open it in the child"
_log: Final = logging.getLogger("tallystick.integrations")
_here: Final = threading.local()
_senders: Final[weakref.WeakSet[Sender]] = weakref.WeakSet()


class Destination(Protocol):
    """Where events go: a `Ledger`, or a `Client`."""

    def append(self, event: Any, /) -> Any: ...

    def append_many(self, events: Any, /) -> Sequence[Any]: ...


class Sender:
    """Sends events on. Safe for many threads; no call waits but `flush` and `close`, and none raises.

    In a child of the process it begins anew, with nothing waiting, if the destination `survives_fork`, as a `Client`
    does. A ledger does not: there everything is dropped, and the diagnostics say so once.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        name: str,
        events_max: int = SENDING_EVENTS_MAX,
        bytes_max: int = SENDING_BYTES_MAX,
        on_drop: Callable[[int], None] | None = None,
        clock: Clock = wall_clock,
    ) -> None:
        """`name` is the entity of the events that tell of drops; `on_drop` is told how many were dropped in all."""
        if type(events_max) is not int or events_max < 2 or type(bytes_max) is not int or bytes_max < 1:
            raise RejectedError("there is no room for events", place="events_max", cure="give room for 2 or more")
        self._destination: Final = destination
        self._name: Final = name
        self._events_max: Final = events_max
        self._bytes_max: Final = bytes_max
        self._on_drop: Final = on_drop
        self._clock: Final = clock
        self._stranded = False
        self._begin()
        if not _senders:
            _watch_forks()
        _senders.add(self)

    def _begin(self) -> None:
        """As it is at first, and in a child of the process."""
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._taken = self._done = 0
        self._untold = self._untold_refused = 0
        self._ids = IdMaker()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._stop = threading.Event()
        self.sent = 0
        """Events that are sealed."""
        self.refused = 0
        """Events that the destination refuses, or that are none: they can never be sealed."""
        self.dropped = 0
        """Events that there was no room for, or no time in the end."""
        self.problem = ""
        """Why nothing is sent at the moment, or why the last event was refused."""

    @property
    def _has_untold(self) -> bool:
        return bool(self._untold or self._untold_refused)

    @property
    def waiting(self) -> int:
        """Events that are not sealed yet."""
        return len(self._waiting)

    def put(self, event: Mapping[str, Any]) -> bool:
        """Take an event, as members of `Event`; whether there was room. Never waits, and never raises."""
        try:
            data = to_json({"id": spell(self._ids.prefix, self._ids.next_counter()), **event})
        except RejectedError as error:
            with self._changed:
                self.refused, self.problem = self.refused + 1, str(error)
                self._untold_refused += 1
            _log.warning("an event of %s is none, and was not sent: %s", self._name, error)
            return False
        with self._changed:
            taken = not (self._closing or self._stranded) and self._has_room(len(data), 1 + self._has_untold)
            if taken:
                self._tell_dropped()
                self._push(data)
                taken = self._has_thread()
            if not taken:
                self.dropped += 1
                self._untold += 1
            dropped = self.dropped
        if not taken:
            if self._stranded and dropped == 1:
                _log.error("no event of %s is sent from process %d: %s", self._name, os.getpid(), _STRANDED)
            self._say_dropped(dropped)
        return taken

    def flush(self, seconds: float = SECONDS) -> bool:
        """Wait until all that was taken is sealed, or refused; whether it is, within the time."""
        if is_sending():
            return False
        deadline = time.monotonic() + seconds
        with self._changed:
            upto = self._taken
            while self._done < upto:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def close(self, seconds: float = SECONDS) -> bool:
        """Take nothing more, and wait as `flush` does; what is left then is dropped. Whether nothing was."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        everything = self.flush(seconds)
        if thread is not None and thread is not threading.current_thread():
            if everything:
                thread.join(seconds)
            self._stop.set()
        with self._changed:
            left = len(self._waiting)
            self._waiting.clear()
            self.dropped, self._done = self.dropped + left, self._taken
            dropped = self.dropped
        if left:
            _log.warning("%d events of %s were not sent: %s", left, self._name, self.problem or "there was no time")
            self._say_dropped(dropped)
        return not left

    # ------------------------------------------------------------------------------------------- what is waiting

    def _has_room(self, size: int, events: int = 1) -> bool:
        return len(self._waiting) + events <= self._events_max and self._bytes + size <= self._bytes_max

    def _push(self, data: bytes) -> None:
        self._waiting.append(data)
        self._bytes += len(data)
        self._taken += 1
        self._changed.notify_all()

    def _tell_dropped(self) -> None:
        """Put the event that says how many are missing here, if any are and there is room."""
        if not self._has_untold or len(self._waiting) >= self._events_max:
            return
        event = {
            "id": spell(self._ids.prefix, self._ids.next_counter()),
            "event_type": DROPPED,
            "entity_id": self._name,
            "payload": {
                "count": self._untold,
                **({"refused": self._untold_refused} if self._untold_refused else {}),
            },
            "occurred_at": timestamp.render(self._clock()),
        }
        self._untold = self._untold_refused = 0
        self._push(to_json(event))

    def _say_dropped(self, count: int) -> None:
        if self._on_drop is None:
            return
        try:
            self._on_drop(count)
        except Exception:  # noqa: BLE001 - it is the application's, which must not be disturbed
            _log.exception("what is told of dropped events failed")

    # ------------------------------------------------------------------------------------------------ the thread

    def _has_thread(self) -> bool:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"tallystick-sender-{self._name}", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:  # the interpreter is about to end
                self._thread = None
                self.problem = str(error)
                self._waiting.clear()
                self._bytes, self._done = 0, self._taken
                return False
        return True

    def _run(self) -> None:
        _here.sending = True
        while batch := self._next():
            self._send(batch)

    def _next(self) -> list[bytes]:
        """What is to be sent next, waited for; nothing at the end."""
        with self._changed:
            while True:
                self._tell_dropped()
                if self._waiting or self._closing:
                    return [] if self._stop.is_set() else [*islice(self._waiting, _BATCH_EVENTS)]
                self._changed.wait()

    def _send(self, batch: list[bytes]) -> None:
        """Have a batch sealed; where one of it is refused, each by itself, so that the others are."""
        try:
            self._seal(batch)
        except (RejectedError, ConflictError) as error:  # of the events, and of nothing that the operators can mend
            if len(batch) == 1:
                self._finish(batch, refusal=error)
            else:
                for data in batch:
                    self._send([data])

    def _seal(self, batch: list[bytes]) -> None:
        """Ask for as long as it takes, or until there is no time any more. Raises only what is for good."""
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                self._destination.append_many(batch) if len(batch) > 1 else self._destination.append(batch[0])
            except Exception as error:  # whatever it is, what waits is kept, and asked for again
                if isinstance(error, RejectedError | ConflictError) and not error.for_operators:
                    raise
                if not self.problem:
                    _log.warning("events of %s wait to be sent: %s", self._name, error)
                self.problem = f"{type(error).__name__}: {error}"
                self._stop.wait(backoff.next())
            else:
                self._finish(batch)
                return

    def _finish(self, batch: list[bytes], *, refusal: Exception | None = None) -> None:
        with self._changed:
            if self._stop.is_set():
                return  # they were counted as dropped, although they may be sealed
            for _ in batch:
                self._bytes -= len(self._waiting.popleft())
            self._done += len(batch)
            if refusal is None:
                self.sent, self.problem = self.sent + len(batch), ""
            else:
                self.refused, self.problem = self.refused + 1, str(refusal)
                # That this very event was refused is not told by another one: it would be refused, too, for ever.
                self._untold_refused += orjson.loads(batch[0])["event_type"] != DROPPED
            self._changed.notify_all()
        if refusal is not None:
            _log.warning("an event of %s was refused: %s", self._name, refusal)

    # --------------------------------------------------------------------------------------------------- forks

    def begin_in_child(self) -> None:
        """The process has become another one, in which no thread of this runs: what waits is the parent's to send."""
        self._begin()
        self._stranded = not getattr(self._destination, "survives_fork", False)
        if self._stranded:
            self.problem = _STRANDED


def is_sending() -> bool:
    """Whether the present thread is a sender's: what is logged there would be sent by itself, for ever."""
    return getattr(_here, "sending", False)


def _watch_forks() -> None:
    if hasattr(os, "register_at_fork") and not getattr(_watch_forks, "done", False):
        os.register_at_fork(after_in_child=_begin_all_in_child)
        _watch_forks.done = True  # type: ignore[attr-defined]  # once, whatever comes and goes


def _begin_all_in_child() -> None:
    _here.sending = False
    for sender in list(_senders):
        sender.begin_in_child()
