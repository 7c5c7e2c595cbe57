"""Group commit: threads share commits, nobody is forgotten, and every failure reaches those it concerns."""

from __future__ import annotations

import itertools
import linecache
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from tallystick.errors import BusyError, ConflictError, StoreError
from tallystick.ids import IdMaker
from tallystick.write import group as group_module
from tallystick.write.accept import Acceptor
from tallystick.write.group import GroupCommit
from tallystick.write.request import Load, Request, Sealed
from tests.threads import PATIENCE_SECONDS, in_threads

ACCEPT = Acceptor(IdMaker()).accept


def request_of(count: int = 1) -> Request:
    return Request([ACCEPT({"event_type": "t", "entity_id": "e"}) for _ in range(count)])


class Settler:
    """A commit that gives out positions, remembers its calls, and checks that they never overlap."""

    def __init__(self, before: Callable[[list[Request]], None] | None = None) -> None:
        self.calls: list[list[Request]] = []
        self._before = before
        self._at_work = threading.Lock()
        self._position = 0

    def __call__(self, requests: list[Request]) -> None:
        assert self._at_work.acquire(blocking=False), "two commits at once"
        try:
            self.calls.append(requests)
            if self._before:
                self._before(requests)
            for request in requests:
                request.sealed = [self._seal(draft) for draft in request.drafts]
        finally:
            self._at_work.release()

    def _seal(self, draft: Any) -> Sealed:
        self._position += 1
        return Sealed(self._position, draft.id, draft.entity_id, 1, "", b"")

    @property
    def sizes(self) -> list[int]:
        return [sum(len(request.drafts) for request in call) for call in self.calls]


def group(
    settle: Callable[[list[Request]], None],
    *,
    events_max: int = 1_000,
    waiting_max: int = 10_000,
    bytes_max: int = 1 << 30,
    waiting_bytes_max: int = 1 << 30,
) -> GroupCommit:
    return GroupCommit(settle, most=Load(events_max, bytes_max), waiting_max=Load(waiting_max, waiting_bytes_max))


class Gate:
    """Holds up the first commit until the test opens it, so that what comes meanwhile must wait."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, requests: list[Request]) -> None:
        del requests
        if not self.reached.is_set():
            self.reached.set()
            assert self.open.wait(PATIENCE_SECONDS)


class Call(threading.Thread):
    """One call of `run` in a thread of its own, and how it ended."""

    def __init__(self, group: GroupCommit, request: Request) -> None:
        super().__init__(daemon=True)
        self.group = group
        self.request = request
        self.answer: list[Sealed] | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = [*self.group.run(self.request)]
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def done(self) -> None:
        self.join(PATIENCE_SECONDS)
        assert not self.is_alive(), "a caller waits for ever"


def wait_until(condition: Callable[[], bool]) -> None:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < PATIENCE_SECONDS
        time.sleep(0.001)


def held_up(groups: GroupCommit, gate: Gate, requests: list[Request]) -> list[Call]:
    """A caller inside a held-up commit, and one caller for each request waiting behind it, in their order."""
    calls = [Call(groups, request_of())]
    assert gate.reached.wait(PATIENCE_SECONDS)
    for request in requests:
        count = len(groups._waiting)
        calls.append(Call(groups, request))
        wait_until(lambda count=count: len(groups._waiting) > count)  # type: ignore[misc]
    return calls


def test_a_lone_caller_commits_at_once_in_its_own_thread() -> None:
    threads: list[int] = []
    settle = Settler(lambda _: threads.append(threading.get_ident()))
    groups = group(settle)

    answers = [groups.run(request_of(count)) for count in (1, 3)]

    assert [len(answer) for answer in answers] == [1, 3]
    assert threads == [threading.get_ident()] * 2


def test_those_who_wait_share_the_next_commit_in_their_order() -> None:
    gate = Gate()
    settle = Settler(gate)
    groups = group(settle)
    requests = [request_of(count) for count in (1, 2, 3, 4)]

    calls = held_up(groups, gate, requests)
    gate.open.set()
    for call in calls:
        call.done()

    assert settle.calls[1:] == [requests]
    positions = [sealed.position for call in calls for sealed in call.answer or ()]
    assert positions == [*range(1, 12)]


SIZE = request_of().load.bytes
IN_BOTH = pytest.mark.parametrize("by", ["events", "bytes"])


@IN_BOTH
def test_a_commit_takes_no_more_than_its_bound_unless_one_request_alone_is_larger(by: str) -> None:
    gate = Gate()
    settle = Settler(gate)
    groups = group(settle, events_max=5) if by == "events" else group(settle, bytes_max=5 * SIZE)

    calls = held_up(groups, gate, [request_of(count) for count in (2, 3, 1, 9, 4, 1, 1)])
    gate.open.set()
    for call in calls:
        call.done()

    assert settle.sizes == [1, 5, 1, 9, 5, 1]


@IN_BOTH
def test_one_request_past_the_bound_is_refused_as_busy_and_the_others_go_through(by: str) -> None:
    gate = Gate()
    settle = Settler(gate)
    groups = group(settle, waiting_max=10) if by == "events" else group(settle, waiting_bytes_max=10 * SIZE)
    calls = held_up(groups, gate, [request_of(4), request_of(6)])

    refused = request_of(1)
    with pytest.raises(BusyError, match="10 events wait"):
        groups.run(refused)
    gate.open.set()
    for call in calls:
        call.done()

    assert refused.sealed is None
    assert all(refused not in call for call in settle.calls)
    assert all(call.answer for call in calls)
    assert len(groups.run(request_of(10))) == 10  # and there is room again


def test_there_is_room_for_as_many_as_may_wait_beside_those_at_work() -> None:
    gate = Gate()
    groups = group(Settler(gate), waiting_max=3)

    calls = held_up(groups, gate, [request_of(3)])
    with pytest.raises(BusyError):
        groups.run(request_of(1))
    gate.open.set()
    for call in calls:
        call.done()


def test_an_error_that_commit_sets_reaches_only_its_request() -> None:
    gate = Gate()

    def before(requests: list[Request]) -> None:
        gate(requests)
        if len(requests) > 1:
            requests[1].error = ConflictError("this one")

    settle = Settler(before)
    groups = group(settle)
    calls = held_up(groups, gate, [request_of(), request_of(), request_of()])
    gate.open.set()
    for call in calls:
        call.done()

    assert [type(call.error) for call in calls] == [type(None), type(None), ConflictError, type(None)]
    assert [bool(call.answer) for call in calls] == [True, True, False, True]


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), KeyboardInterrupt(), SystemExit()])
def test_an_exception_in_a_commit_reaches_all_who_were_in_it_and_those_after_go_on(
    error: BaseException,
) -> None:
    gate = Gate()

    def before(requests: list[Request]) -> None:
        gate(requests)
        if len(requests) == 3:
            raise error

    settle = Settler(before)
    groups = group(settle, events_max=3)
    calls = held_up(groups, gate, [request_of() for _ in range(5)])
    gate.open.set()
    for call in calls:
        call.done()

    leader, *others = calls[1:4]
    assert leader.error is error
    for call in others:
        assert isinstance(call.error, StoreError)
        assert "unknown" in str(call.error)
        assert call.error.__cause__ is error
    assert all(call.answer for call in [calls[0], *calls[4:]])
    assert groups.run(request_of())


class Interrupting:
    """A lock whose `acquire` is interrupted once, before or after it waits: Ctrl-C in a waiting thread."""

    def __init__(self, lock: Any, *, after: threading.Event | None = None) -> None:
        self._lock = lock
        self._after = after

    def acquire(self) -> bool:
        if self._after is not None:
            self._after.wait(PATIENCE_SECONDS)
        raise KeyboardInterrupt

    def release(self) -> None:
        self._lock.release()

    def locked(self) -> bool:
        return bool(self._lock.locked())


def interrupt_next_waiter(monkeypatch: pytest.MonkeyPatch, *, after: threading.Event | None) -> None:
    """The wait of the next caller ends in KeyboardInterrupt, at once or after an event."""
    wait = GroupCommit._wait

    def interrupted(self: GroupCommit, waiter: Any) -> None:
        monkeypatch.setattr(GroupCommit, "_wait", wait)
        waiter.wake = Interrupting(waiter.wake, after=after)
        wait(self, waiter)

    monkeypatch.setattr(GroupCommit, "_wait", interrupted)


def test_a_waiter_that_is_interrupted_leaves_the_line_and_is_not_sealed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    settle = Settler(gate)
    groups = group(settle, waiting_max=4)
    calls = held_up(groups, gate, [request_of()])

    interrupt_next_waiter(monkeypatch, after=None)
    interrupted = Call(groups, request_of(3))
    interrupted.done()
    calls.append(Call(groups, request_of(3)))  # its room is free again
    wait_until(lambda: len(groups._waiting) == 2)
    gate.open.set()
    for call in calls:
        call.done()

    assert isinstance(interrupted.error, KeyboardInterrupt)
    assert interrupted.request.sealed is None
    assert all(interrupted.request not in call for call in settle.calls)
    assert all(call.answer for call in calls)


def test_a_waiter_that_is_interrupted_when_it_was_given_the_lead_passes_it_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    settle = Settler(gate)
    groups = group(settle, events_max=2)
    given = threading.Event()
    hand_over = GroupCommit._end_lead

    def handing_over(self: GroupCommit, *arguments: Any) -> None:
        hand_over(self, *arguments)
        given.set()

    monkeypatch.setattr(GroupCommit, "_end_lead", handing_over)
    first = Call(groups, request_of())
    assert gate.reached.wait(PATIENCE_SECONDS)
    interrupt_next_waiter(monkeypatch, after=given)
    interrupted = Call(groups, request_of())
    wait_until(lambda: len(groups._waiting) == 1)
    others = []
    for count in range(2, 5):
        others.append(Call(groups, request_of()))
        wait_until(lambda count=count: len(groups._waiting) == count)  # type: ignore[misc]

    gate.open.set()
    for call in [first, interrupted, *others]:
        call.done()

    assert isinstance(interrupted.error, KeyboardInterrupt)
    assert all(call.answer for call in [first, *others])
    assert groups.run(request_of())


def test_nothing_else_runs_while_a_commit_is_excluded() -> None:
    settle = Settler()
    turn = threading.Lock()
    groups = GroupCommit(settle, most=Load(100, 1 << 30), waiting_max=Load(100, 1 << 30), turn=turn)

    with turn:
        call = Call(groups, request_of())
        time.sleep(0.05)
        during = len(settle.calls)
    call.done()

    assert during == 0
    assert call.answer


def test_no_wake_up_is_lost_among_many_threads() -> None:
    settle = Settler()
    groups = group(settle, events_max=7)
    threads, each = 16, 2_000
    answers: list[list[int]] = [[] for _ in range(threads)]

    def work(number: int) -> None:
        for _ in range(each):
            request = request_of()
            (sealed,) = groups.run(request)
            assert sealed.id == request.drafts[0].id
            answers[number].append(sealed.position)

    in_threads(threads, work)

    assert sorted(position for mine in answers for position in mine) == [*range(1, threads * each + 1)]
    assert all(mine == sorted(mine) for mine in answers)
    assert len(settle.calls) < threads * each, "no two requests ever shared a commit"
    assert (len(groups._waiting), len(groups._taken), groups._leader) == (0, 0, None)


def test_requests_of_many_sizes_and_failures_leave_no_one_waiting() -> None:
    def before(requests: list[Request]) -> None:
        if len(settle.calls) % 11 == 0:
            raise OSError("a mistake")
        if len(settle.calls) % 5 == 0:
            requests[0].error = ConflictError("one of them")

    settle = Settler(before)
    groups = group(settle, events_max=20, waiting_max=60)
    counts = [0] * 3

    def work(number: int) -> None:
        for turn in range(300):
            try:
                groups.run(request_of(1 + (number + turn) % 9))
                counts[0] += 1
            except (ConflictError, StoreError, OSError):
                counts[1] += 1
            except BusyError:
                counts[2] += 1

    in_threads(12, work)

    assert counts[0] > counts[1] > 0
    assert (len(groups._waiting), len(groups._taken), groups._leader) == (0, 0, None)


@pytest.mark.parametrize("beside", [0, 3], ids=["alone", "with others waiting"])
def test_an_interrupt_at_any_line_leaves_nobody_waiting_for_ever(beside: int) -> None:
    for line_number in itertools.count():
        settle = Settler()
        groups = group(settle, events_max=2)
        reached = _run_interrupted(groups, line_number, beside)
        after = Call(groups, request_of())
        after.done()
        assert after.answer, f"interrupted at step {line_number}"
        if not reached:
            break
    assert line_number > 20, "the interrupts missed the code"


def _run_interrupted(groups: GroupCommit, line_number: int, beside: int) -> bool:
    """Make calls, the first of them with a KeyboardInterrupt at the given step of it in group.py."""
    seen = 0
    entered: set[tuple[FrameType, int]] = set()

    def leaves_a_with(frame: FrameType) -> bool:
        """Whether a `with` is being left: there Python itself takes no interrupt, or no lock were safe."""
        here = (frame, frame.f_lineno)
        leaves = here in entered
        if linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
            entered.add(here)
        return leaves

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename != group_module.__file__:
            return None
        if event == "line" and not leaves_a_with(frame):
            seen += 1
            if seen == line_number + 1:
                raise KeyboardInterrupt
        return trace

    def interrupted() -> None:
        sys.settrace(trace)
        try:
            with suppress(KeyboardInterrupt):
                groups.run(request_of())
        finally:
            sys.settrace(None)

    hurt = threading.Thread(target=interrupted, daemon=True)
    others = [Call(groups, request_of()) for _ in range(beside)]
    hurt.start()
    hurt.join(PATIENCE_SECONDS)
    assert not hurt.is_alive()
    for call in others:
        call.done()
    return seen > line_number


def test_an_append_within_an_append_is_refused_instead_of_waiting_for_itself() -> None:
    refused: list[BaseException] = []

    def within(_: list[Request]) -> None:
        try:
            groups.run(request_of())
        except BusyError as error:
            refused.append(error)

    groups = group(Settler(within))
    call = Call(groups, request_of())
    call.done()

    assert call.answer
    assert "within an append" in str(refused[0])
    assert groups.run(request_of())
