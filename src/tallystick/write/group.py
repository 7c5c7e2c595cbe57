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
from tallystick.write.request import Request, Sealed

Commit = Callable[[list[Request]], None]
"""Settles every request it is given, by setting `sealed` or `error`; it may raise only for our own mistakes."""


class _Waiter:
    __slots__ = ("leads", "request", "wake")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.leads = False
        self.wake = threading.Lock()
        self.wake.acquire()


class GroupCommit:
    """Runs `commit` for the requests of many threads, one call at a time.

    A call gets at most `events_max` drafts, unless one request alone has more. No more than `waiting_max`
    drafts may wait. `turn` is held during each call; hold it for work that must not run beside one.
    """

    def __init__(
        self, commit: Commit, *, events_max: int, waiting_max: int, turn: threading.Lock | None = None
    ) -> None:
        self._commit: Final = commit
        self._events_max: Final = events_max
        self._waiting_max: Final = waiting_max
        self._turn: Final = turn or threading.Lock()
        self._lock: Final = threading.Lock()
        self._waiting: deque[_Waiter] = deque()
        self._waiting_events = 0
        self._led = False

    def run(self, request: Request) -> Sequence[Sealed]:
        """Have the request settled; gives its receipts or raises its error. `BusyError` when too many wait."""
        waiter = _Waiter(request)
        with self._lock:
            if self._waiting_events + len(request.drafts) > self._waiting_max:
                raise BusyError(f"{self._waiting_events} events wait to be sealed already: wait a moment, then repeat")
            self._waiting.append(waiter)
            self._waiting_events += len(request.drafts)
            if not self._led:
                self._led = waiter.leads = True
        if not waiter.leads:
            self._wait(waiter)
        if waiter.leads:
            self._lead()
        if request.error is not None:
            raise request.error
        assert request.sealed is not None, "commit settles every request"
        return request.sealed

    def _wait(self, waiter: _Waiter) -> None:
        try:
            waiter.wake.acquire()
        except BaseException:
            # Interrupted while waiting: leave the line, or pass on a lead that was given meanwhile.
            with self._lock:
                if waiter in self._waiting and not waiter.leads:
                    self._waiting.remove(waiter)
                    self._waiting_events -= len(waiter.request.drafts)
            if waiter.leads:
                self._lead()
            raise

    def _lead(self) -> None:
        with self._lock:
            taken = self._take()
        try:
            with self._turn:
                self._commit([waiter.request for waiter in taken])
        except BaseException as error:
            # Ctrl-C in the leading thread, or our own mistake: the others must not wait for ever.
            for waiter in taken:
                if waiter.request.sealed is None and waiter.request.error is None:
                    waiter.request.error = StoreError("sealing was interrupted; the outcome is unknown: repeat")
                    waiter.request.error.__cause__ = error
            raise
        finally:
            self._hand_over()
            for waiter in taken:
                if not waiter.leads:
                    waiter.wake.release()

    def _take(self) -> list[_Waiter]:
        taken: list[_Waiter] = []
        count = 0
        while self._waiting:
            more = len(self._waiting[0].request.drafts)
            if taken and count + more > self._events_max:
                break
            taken.append(self._waiting.popleft())
            count += more
        self._waiting_events -= count
        return taken

    def _hand_over(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].wake.release()
            else:
                self._led = False
