"""Group commit: of many threads that wait, one does the work for all.

The thread that finds nobody at work leads: it takes whatever waits, up to a bound, and commits it as one.
Before it answers, it hands the lead to the first that came too late, so nobody leads twice while others
wait. A lone caller commits in its own thread, with no hand-over at all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from tallystick.errors import BusyError, StoreError
from tallystick.write.request import NOTHING, Load, Request, Sealed

Commit = Callable[[list[Request]], None]
"""Settles every request it is given, by setting `sealed` or `error`; it may raise only for our own mistakes."""


class _Waiter:
    __slots__ = ("finished", "request", "wake")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.finished = False
        self.wake = threading.Lock()
        self.wake.acquire()

    @property
    def settled(self) -> bool:
        return self.request.sealed is not None or self.request.error is not None

    def nudge(self) -> None:
        """Have the caller look around. Once too often does no harm."""
        if self.wake.locked():
            self.wake.release()


class GroupCommit:
    """Runs `commit` for the requests of many threads, one call at a time.

    A call gets at most as much as `most`, unless one request alone has more. No more than `waiting_max` may wait.
    `turn` is held during each call; hold it for work that must not run beside one.
    """

    def __init__(self, commit: Commit, *, most: Load, waiting_max: Load, turn: threading.Lock | None = None) -> None:
        self._commit: Final = commit
        self._most: Final = most
        self._waiting_max: Final = waiting_max
        self._turn: Final = turn or threading.Lock()
        self._lock: Final = threading.Lock()
        self._waiting: deque[_Waiter] = deque()
        self._taken: list[_Waiter] = []
        self._leader: _Waiter | None = None
        self._running: Final = threading.local()

    def run(self, request: Request) -> Sequence[Sealed]:
        """Have the request settled; gives its receipts or raises its error. `BusyError` when too many wait."""
        outer = getattr(self._running, "waiter", None)
        if outer is not None and not outer.finished:
            raise BusyError("an append within an append, by a signal handler or the like: hand it to another thread")
        waiter = self._running.waiter = _Waiter(request)
        try:
            self._join(waiter)
            while self._leader is not waiter and not waiter.settled:
                self._wait(waiter)
            if self._leader is waiter:
                self._lead(waiter)
            waiter.finished = True
        except BaseException as error:
            # Ctrl-C, at whatever step: the others must neither wait for ever nor be left without a leader.
            self._leave(waiter, error)
            waiter.finished = True
            raise
        if request.error is not None:
            raise request.error
        assert request.sealed is not None, "commit settles every request"
        return request.sealed

    def _join(self, waiter: _Waiter) -> None:
        with self._lock:
            if self._waiting:
                self._check_room(waiter.request)
            self._waiting.append(waiter)
            if self._leader is None:
                self._leader = waiter

    def _check_room(self, request: Request) -> None:
        waiting = sum((other.request.load for other in self._waiting), NOTHING)
        if not (waiting + request.load).fits(self._waiting_max):
            raise BusyError(f"{waiting.events} events wait to be sealed already: wait a moment, then repeat")

    def _wait(self, waiter: _Waiter) -> None:
        waiter.wake.acquire()

    def _lead(self, waiter: _Waiter) -> None:
        with self._lock:
            self._take()
        with self._turn:
            self._commit([taken.request for taken in self._taken])
        self._end_lead(waiter, None)

    def _take(self) -> None:
        """Move what waits to what is taken, up to the bound. No waiter is ever in neither of the two."""
        load = NOTHING
        while self._waiting:
            first = self._waiting[0]
            if self._taken or len(self._waiting) > 1:  # a lone one is taken whatever its load
                load += first.request.load
                if self._taken and not load.fits(self._most):
                    break
            self._taken.append(first)
            self._waiting.popleft()

    def _end_lead(self, waiter: _Waiter, error: BaseException | None) -> None:
        """Wake those whose requests are settled, and hand the lead to the first that waits.

        Every step may be repeated, and the lead passes on by one assignment, so that an interrupt within
        is mended by doing all of it again.
        """
        with self._lock:
            if self._taken and self._waiting and self._waiting[0] is self._taken[-1]:
                self._waiting.popleft()  # an interrupt came between the two halves of its move
            for taken in self._taken:
                if not taken.settled:
                    taken.request.error = StoreError("sealing was interrupted; the outcome is unknown: repeat")
                    taken.request.error.__cause__ = error
                if taken is not waiter:
                    taken.nudge()
            following = self._waiting[0] if self._waiting else None
            self._taken = []
            self._leader = following
            if following is not None:
                following.nudge()

    def _leave(self, waiter: _Waiter, error: BaseException) -> None:
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if self._leader is waiter:
            self._end_lead(waiter, error)
        with self._lock:
            if self._leader is not None:
                self._leader.nudge()  # the interrupt may have come between its promotion and its waking
