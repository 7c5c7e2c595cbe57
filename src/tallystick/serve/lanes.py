"""Between the event loop and the sealers: what comes in together is sealed together, and nobody waits for a slow disk.

A lane is the way into one ledger. It takes all that waits, has it sealed by one call, and hands each caller its
outcome; meanwhile the next ones gather. A small batch is sealed in the loop itself, as long as that is quick: two
threads that hand the interpreter's lock to each other at every step cost more than what they could do at the same
time. Where it would wait, for another writer or for a ledger that is not open, or lately took long, a thread does it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from tallystick.errors import BusyError, NotFoundError, StoreError, TallystickError
from tallystick.ledger import Ledger
from tallystick.limits import BATCH_EVENTS_MAX, COMMIT_BYTES_MAX, WAITING_BYTES_MAX, WAITING_EVENTS_MAX
from tallystick.write.request import NOTHING, Load, Submission

AT_HAND_EVENTS: Final = 256
AT_HAND_BYTES: Final = 262_144
AT_HAND_SECONDS: Final = 0.02
"""What is sealed in the loop: about five milliseconds' work. A ledger that took longer than that is left to threads."""

GATHER_TURNS: Final = 8
"""For how many turns of the loop a lane waits at most while each brings more."""

_THREAD_TURNS: Final = 200
"""For how many turns, before the loop tries again."""

_FAILING_SECONDS: Final = 60.0
_PACES_MAX: Final = 10_000
_AT_HAND: Final = Load(AT_HAND_EVENTS, AT_HAND_BYTES)
_AT_ONCE: Final = Load(BATCH_EVENTS_MAX, COMMIT_BYTES_MAX)
_WAITING_MAX: Final = Load(WAITING_EVENTS_MAX, WAITING_BYTES_MAX)
_log: Final = logging.getLogger("tallystick.serve")

Way: TypeAlias = Literal["append", "publish"]


class Lease(Protocol):
    """Opens a ledger by its name for as long as it is used; `at_once` only if it is open, else `BusyError`."""

    def __call__(self, name: str, *, at_once: bool = False) -> AbstractContextManager[Ledger]: ...


class _Waiting(NamedTuple):
    submissions: Sequence[Submission]
    load: Load
    answer: asyncio.Future[Any]


@dataclass(slots=True)
class _Lane:
    waiting: deque[_Waiting] = field(default_factory=deque)
    load: Load = NOTHING
    at_work: bool = False


class Lanes:
    """The lanes of a service. To be used from its event loop only."""

    def __init__(self, lease: Lease, executor: Executor) -> None:
        """`lease` opens a ledger by its name for as long as it is used; the executor's threads do the work."""
        self._lease: Final = lease
        self._executor: Final = executor
        self._lanes: Final[dict[tuple[str, Way], _Lane]] = {}
        self._slow: Final[dict[str, int]] = {}
        """Ledger → how many more turns are left to threads."""
        self._failing: Final[dict[str, float]] = {}
        """Ledgers that could not be written for what the operators have set up, and when that was last tried."""

    @property
    def waiting(self) -> int:
        """How many events wait, in all lanes."""
        return sum(lane.load.events for lane in self._lanes.values())

    @property
    def failing(self) -> frozenset[str]:
        """Ledgers that lately could not be written for what the operators set up. It is forgotten after a minute, as
        whoever sends nothing here for that would never see it mended."""
        after = time.monotonic() - _FAILING_SECONDS
        return frozenset(name for name, at in [*self._failing.items()] if at > after)

    async def submit(self, ledger: str, submission: Submission, *, way: Way = "append") -> Sequence[Any]:
        """Have events sealed, or taken into the queue: their receipts or tickets. Raises as `Ledger.append` does."""
        [outcome] = await self.submit_each(ledger, [submission], way=way)
        try:
            if isinstance(outcome, TallystickError):
                raise outcome
            done: Sequence[Any] = outcome
            return done
        finally:
            del outcome  # else it leads to this frame, and this frame to it and to the events

    async def submit_each(
        self, ledger: str, submissions: Sequence[Submission], *, way: Way = "append"
    ) -> Sequence[Any]:
        """The same of several, each by itself: for each its receipts or tickets, or its error. Raises `BusyError`."""
        lane = self._lanes.setdefault((ledger, way), _Lane())
        load = Load(sum(len(one.events) for one in submissions), sum(_bytes(one) for one in submissions))
        if not (lane.load + load).fits(_WAITING_MAX):
            raise BusyError(f"{lane.load.events} events wait already: wait a moment, then repeat")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        lane.waiting.append(_Waiting(submissions, load, answer))
        lane.load += load
        if not lane.at_work:
            lane.at_work = True
            asyncio.get_running_loop().call_soon(self._gather, ledger, way, lane)
        outcomes: Sequence[Any] = await answer  # a caller who leaves takes nothing back
        return outcomes

    def _gather(self, ledger: str, way: Way, lane: _Lane, *, turns: int = GATHER_TURNS, before: int = 0) -> None:
        """Begin once a turn of the loop brings nobody new: each commit costs as much as a dozen events.

        What is too much to be done here begins at once, so that a thread is at work while more arrives.
        """
        now = len(lane.waiting)
        if turns and now > before and lane.load.fits(_AT_HAND):
            later = partial(self._gather, ledger, way, lane, turns=turns - 1, before=now)
            asyncio.get_running_loop().call_soon(later)
        else:
            self._begin(ledger, way, lane)

    def _begin(self, ledger: str, way: Way, lane: _Lane) -> None:
        """Have done what waits, up to a bound: here and now if that is quick, else by a thread."""
        taken = [lane.waiting.popleft()]
        load = taken[0].load
        while lane.waiting and (load + lane.waiting[0].load).fits(_AT_ONCE):
            taken.append(lane.waiting.popleft())
            load += taken[-1].load
        loop = asyncio.get_running_loop()
        submissions = [submission for one in taken for submission in one.submissions]

        def work() -> None:
            outcomes = self._outcomes(ledger, way, submissions)
            loop.call_soon_threadsafe(finish, outcomes)

        def finish(outcomes: Sequence[Any]) -> None:
            lane.load -= load
            left = iter(outcomes)
            for one in taken:
                its_own = [*islice(left, len(one.submissions))]
                if not one.answer.done():
                    one.answer.set_result(its_own)
            if lane.waiting:
                loop.call_soon(self._gather, ledger, way, lane)
            else:
                lane.at_work = False
                self._lanes.pop((ledger, way), None)

        outcomes = self._at_hand(ledger, way, submissions) if load.fits(_AT_HAND) else None
        if outcomes is not None:
            finish(outcomes)
            return
        try:
            self._executor.submit(work)
        except RuntimeError:  # it was shut down
            finish([BusyError("the service stops: send the same again")] * len(submissions))

    def _at_hand(self, ledger: str, way: Way, submissions: Sequence[Submission]) -> Sequence[Any] | None:
        """Do it without a thread; None when it would have to wait, or did so lately."""
        turns = self._slow.get(ledger, 0)
        if turns:
            self._slow[ledger] = turns - 1
            return None
        began = time.perf_counter()
        outcomes = self._outcomes(ledger, way, submissions, patient=False)
        if time.perf_counter() - began > AT_HAND_SECONDS:
            if len(self._slow) >= _PACES_MAX:
                self._slow.clear()
            self._slow[ledger] = _THREAD_TURNS
        return None if any(type(outcome) is BusyError for outcome in outcomes) else outcomes

    def _outcomes(
        self, ledger: str, way: Way, submissions: Sequence[Submission], *, patient: bool = True
    ) -> Sequence[Any]:
        """For each its receipts or its error. Nothing escapes: somebody waits."""
        try:
            with self._lease(ledger, at_once=not patient) as opened:
                each = opened.append_each if way == "append" else opened.publish_each
                outcomes = each(submissions, patient=patient)
                self._failing.pop(ledger, None)
                return outcomes
        except TallystickError as error:
            # Nothing of this is about one event: of those that cannot be taken each has its error.
            error.for_operators |= isinstance(error, NotFoundError)  # the ledger, or its keys
            if error.for_operators:
                self._failing[ledger] = time.monotonic()
                _log.error("%s cannot be written: %s", ledger, error)
            return [error] * len(submissions)
        except Exception as error:  # noqa: BLE001 - a mistake of ours, and its traceback goes with it
            failed = StoreError(f"an unexpected {type(error).__name__}: the outcome is unknown")
            failed.__cause__ = error
            return [failed] * len(submissions)


def _bytes(submission: Submission) -> int:
    """Bytes of the events as they came; of the few that the service makes itself nothing."""
    return sum(len(event) for event in submission.events if isinstance(event, bytes))
