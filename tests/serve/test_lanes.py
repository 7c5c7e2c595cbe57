"""Lanes: small batches are sealed in the loop, which never waits: for no lock, no process, no ledger to open."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

from tallystick.deployment import Deployment
from tallystick.errors import BusyError
from tallystick.ledger import Ledger
from tallystick.serve import lanes as at_work
from tallystick.serve.lanes import Lanes
from tallystick.write.request import Submission

LEDGER: Final = "tenant/default"
EVENT: Final = {"event_type": "door.opened", "entity_id": "door-1", "actor": "jane"}


@pytest.fixture
def deployment(tmp_path: Path) -> Any:
    with Deployment(tmp_path) as opened:
        opened.begin()
        yield opened


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each call that sealed, whether it was in the loop."""
    seen: list[bool] = []
    append_each: Callable[..., Any] = Ledger.append_each

    def watched(ledger: Ledger, *given: Any, **how: Any) -> Any:
        done = append_each(ledger, *given, **how)
        seen.append(threading.current_thread() is threading.main_thread())
        return done

    monkeypatch.setattr(Ledger, "append_each", watched)
    return seen


def run(deployment: Deployment, work: Callable[[Lanes], Awaitable[Any]]) -> Any:
    async def all_of_it() -> Any:
        with ThreadPoolExecutor(4) as executor:
            return await work(Lanes(deployment.lease, executor))

    return asyncio.run(all_of_it())


def one() -> Submission:
    return Submission([EVENT])


def test_the_first_event_is_left_to_a_thread_and_the_next_ones_are_sealed_at_hand(
    deployment: Deployment, threads: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_work, "AT_HAND_SECONDS", 60.0)  # however busy the machine is

    async def work(lanes: Lanes) -> None:
        for _ in range(4):
            await lanes.submit(LEDGER, one())
        await lanes.submit(LEDGER, Submission([EVENT] * (at_work.AT_HAND_EVENTS + 1)))

    run(deployment, work)
    assert threads == [False, True, True, True, False]


def test_what_is_ready_together_is_one_commit(deployment: Deployment, threads: list[bool]) -> None:
    async def work(lanes: Lanes) -> list[int]:
        await lanes.submit(LEDGER, one())
        receipts = await asyncio.gather(*(lanes.submit(LEDGER, one()) for _ in range(50)))
        return [receipt[0].position for receipt in receipts]

    positions = run(deployment, work)
    assert positions == sorted(positions)
    assert len(set(positions)) == 50
    assert len(threads) == 2


def test_while_another_process_writes_the_loop_goes_on(deployment: Deployment, threads: list[bool]) -> None:
    async def work(lanes: Lanes) -> float:
        await lanes.submit(LEDGER, one())
        other = apsw.Connection(str(deployment.folder / "tenants/default/ledger.db"))
        other.execute("BEGIN IMMEDIATE")  # as a long prune of somebody else does
        waiting = asyncio.create_task(lanes.submit(LEDGER, one()))
        worst, began = 0.0, time.perf_counter()
        while time.perf_counter() - began < 0.5:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            worst = max(worst, time.perf_counter() - before)
        assert not waiting.done()
        other.execute("ROLLBACK")
        other.close()
        await waiting
        return worst

    assert run(deployment, work) < 0.25
    assert threads == [False, False]


def test_while_another_thread_seals_the_loop_goes_on(deployment: Deployment, threads: list[bool]) -> None:
    async def work(lanes: Lanes) -> None:
        await lanes.submit(LEDGER, one())
        with deployment.lease(LEDGER) as ledger, ledger._following:  # as a reader does for whom the index is written
            waiting = asyncio.create_task(lanes.submit(LEDGER, one()))
            await asyncio.sleep(0.1)
            assert not waiting.done()
        await waiting

    run(deployment, work)
    assert threads == [False, False]


def test_a_slow_disk_is_left_to_threads(
    deployment: Deployment, threads: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_work, "AT_HAND_SECONDS", -1.0)  # whatever it takes is too long
    monkeypatch.setattr(at_work, "_THREAD_TURNS", 3)

    async def work(lanes: Lanes) -> None:
        for _ in range(8):
            await lanes.submit(LEDGER, one())

    run(deployment, work)
    assert threads == [False] * 4 + [True] + [False] * 3


def test_a_ledger_that_was_closed_meanwhile_is_opened_by_a_thread(tmp_path: Path, threads: list[bool]) -> None:
    with Deployment(tmp_path, idle_seconds=0) as deployment:
        deployment.begin()

        async def work(lanes: Lanes) -> None:
            for _ in range(2):
                await lanes.submit(LEDGER, one())
            deployment.tidy()
            assert len(deployment.pool) == 0
            await lanes.submit(LEDGER, one())

        run(deployment, work)
    assert threads == [False, True, False]


def test_a_store_that_is_busy_for_everybody_says_so(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any, **__: Any) -> Any:
        raise BusyError("no room")

    async def work(lanes: Lanes) -> None:
        await lanes.submit(LEDGER, one())
        monkeypatch.setattr(Ledger, "append_each", busy)
        with pytest.raises(BusyError, match="no room"):
            await lanes.submit(LEDGER, one())

    run(deployment, work)
