"""Between the event loop and the sealers: what comes in together is sealed together, and the loop never waits.

A lane is the way into one ledger. One thread at a time works for it: it takes all that waits, has it sealed by one
call, and hands each caller's outcome back to the loop. While it is at work, the next ones gather.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from tallystick.errors import BusyError, StoreError, TallystickError
from tallystick.ledger import Ledger
from tallystick.limits import BATCH_EVENTS_MAX, WAITING_EVENTS_MAX
from tallystick.write.request import Submission

Way: TypeAlias = Literal["append", "publish"]
Lease: TypeAlias = Callable[[str], AbstractContextManager[Ledger]]


class _Waiting(NamedTuple):
    submission: Submission
    answer: asyncio.Future[Any]


@dataclass(slots=True)
class _Lane:
    waiting: deque[_Waiting] = field(default_factory=deque)
    events: int = 0
    at_work: bool = False


class Lanes:
    """The lanes of a service. To be used from its event loop only."""

    def __init__(self, lease: Lease, executor: Executor) -> None:
        """`lease` opens a ledger by its name for as long as it is used; the executor's threads do the work."""
        self._lease: Final = lease
        self._executor: Final = executor
        self._lanes: Final[dict[tuple[str, Way], _Lane]] = {}

    @property
    def waiting(self) -> int:
        """How many events wait, in all lanes."""
        return sum(lane.events for lane in self._lanes.values())

    async def submit(self, ledger: str, submission: Submission, *, way: Way = "append") -> Sequence[Any]:
        """Have events sealed, or taken into the queue: their receipts or tickets. Raises as `Ledger.append` does."""
        lane = self._lanes.setdefault((ledger, way), _Lane())
        if lane.events + len(submission.events) > WAITING_EVENTS_MAX:
            raise BusyError(f"{lane.events} events wait already: wait a moment, then repeat")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        lane.waiting.append(_Waiting(submission, answer))
        lane.events += len(submission.events)
        if not lane.at_work:
            lane.at_work = True
            # Not at once: whoever else is ready in this turn of the loop comes along.
            asyncio.get_running_loop().call_soon(self._begin, ledger, way, lane)
        outcome = await answer  # a caller who leaves takes nothing back
        if isinstance(outcome, TallystickError):
            raise outcome
        done: Sequence[Any] = outcome
        return done

    def _begin(self, ledger: str, way: Way, lane: _Lane) -> None:
        """Have a thread do all that waits, up to a bound."""
        taken, count = [lane.waiting.popleft()], 0
        count += len(taken[0].submission.events)
        while lane.waiting and count + len(lane.waiting[0].submission.events) <= BATCH_EVENTS_MAX:
            taken.append(lane.waiting.popleft())
            count += len(taken[-1].submission.events)
        loop = asyncio.get_running_loop()

        def work() -> None:
            outcomes = self._outcomes(ledger, way, [one.submission for one in taken])
            loop.call_soon_threadsafe(finish, outcomes)

        def finish(outcomes: Sequence[Any]) -> None:
            lane.events -= count
            for one, outcome in zip(taken, outcomes, strict=True):
                if not one.answer.done():
                    one.answer.set_result(outcome)
            if lane.waiting:
                self._begin(ledger, way, lane)
            else:
                lane.at_work = False
                self._lanes.pop((ledger, way), None)

        self._executor.submit(work)

    def _outcomes(self, ledger: str, way: Way, submissions: Sequence[Submission]) -> Sequence[Any]:
        """For each its receipts or its error. Nothing escapes: somebody waits."""
        try:
            with self._lease(ledger) as opened:
                return opened.append_each(submissions) if way == "append" else opened.publish_each(submissions)
        except TallystickError as error:
            return [error] * len(submissions)
        except Exception as error:  # noqa: BLE001 - a mistake of ours, and its traceback goes with it
            failed = StoreError(f"an unexpected {type(error).__name__}: the outcome is unknown")
            failed.__cause__ = error
            return [failed] * len(submissions)
