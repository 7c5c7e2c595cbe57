"""Subscriptions: in order, at least once, from where they were; and nobody waits for a slow one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tallystick
from tallystick.errors import RejectedError, TamperError
from tallystick.read.sqlite_cursors import Place


@pytest.fixture
def ledger() -> Iterator[tallystick.Ledger]:
    with tallystick.open("memory:") as ledger:
        yield ledger


def fill(ledger: tallystick.Ledger, count: int) -> list[int]:
    """Append events about two entities in turn; their positions."""
    events = [{"event_type": "t.done", "entity_id": f"e{n % 2}", "payload": {"n": n}} for n in range(count)]
    return [sealed.position for sealed in ledger.append_many(events)]


def taken(subscription: tallystick.Subscription, count: int) -> list[int]:
    found = []
    for _ in range(count):
        record = subscription.take(timeout=60)
        assert record is not None
        found.append(record.position)
    return found


def test_what_is_there_comes_first_and_then_what_arrives(ledger: tallystick.Ledger) -> None:
    first = fill(ledger, 10)
    with ledger.subscribe(entity_id="e1") as subscription:
        assert taken(subscription, 5) == first[1::2]
        assert subscription.take(timeout=0.02) is None

        for _ in range(5):
            positions = fill(ledger, 4)
            assert taken(subscription, 2) == positions[1::2]


def test_a_record_reaches_a_waiting_subscriber_at_once(ledger: tallystick.Ledger) -> None:
    with ledger.subscribe(cursor=ledger.size) as subscription:
        received: list[tuple[int, float]] = []

        def receive() -> None:
            for record in subscription:
                received.append((record.position, time.monotonic()))

        thread = threading.Thread(target=receive)
        thread.start()
        sent = []
        for _ in range(30):
            sent.append((ledger.append(event_type="t", entity_id="e").position, time.monotonic()))
            time.sleep(0.005)
        while len(received) < 30:
            time.sleep(0.001)
        subscription.close()
        thread.join()

    assert [position for position, _ in received] == [position for position, _ in sent]


@pytest.mark.parametrize(
    "query",
    [
        {"entity_id": "e0"},
        {"entity_id": ["e0", "none"], "event_type": "t.*"},
        {"event_type": "t.done", "where": "payload.n>=0", "entity_id": "e0"},
    ],
)
def test_catching_up_finds_all_that_fit(ledger: tallystick.Ledger, query: dict[str, Any]) -> None:
    positions = fill(ledger, 3_000)

    with ledger.subscribe(cursor=100, **query) as subscription:
        expected = [position for position in positions[::2] if position >= 100]
        assert taken(subscription, len(expected)) == expected


def test_what_was_not_acknowledged_is_delivered_again(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "l") as ledger:
        positions = fill(ledger, 10)
        with ledger.subscribe(name="siem", cursor=positions[0]) as subscription:
            assert taken(subscription, 4) == positions[:4]
            subscription.acknowledge(positions[1])
            assert taken(subscription, 1) == positions[4:5]
            subscription.rewind()
            assert taken(subscription, 2) == positions[2:4]

    with tallystick.open(tmp_path / "l") as ledger:
        with ledger.subscribe(name="siem", cursor=0) as subscription:
            assert subscription.acknowledged == positions[2]
            assert taken(subscription, 8) == positions[2:]
            subscription.acknowledge()
        with ledger.subscribe(name="siem") as subscription:
            assert subscription.take(timeout=0) is None
        with ledger.subscribe(name="other") as subscription:
            assert taken(subscription, 1) == [0]


def test_only_what_was_delivered_can_be_acknowledged(ledger: tallystick.Ledger) -> None:
    positions = fill(ledger, 4)
    with ledger.subscribe(cursor=positions[0]) as subscription:
        taken(subscription, 2)

        with pytest.raises(RejectedError, match="not delivered"):
            subscription.acknowledge(positions[3])
        subscription.acknowledge()
        subscription.acknowledge(positions[0])
        assert subscription.acknowledged == positions[2]


def test_a_slow_subscriber_holds_up_no_writer(ledger: tallystick.Ledger) -> None:
    fill(ledger, 100)
    with ledger.subscribe() as subscription:
        taken(subscription, 1)
        before = time.monotonic()
        for _ in range(50):
            fill(ledger, 100)
        assert time.monotonic() - before < 30

        assert taken(subscription, 5_000) == [*range(1, 5_001)]


def test_commits_of_another_process_are_seen(tmp_path: Path) -> None:
    with (
        tallystick.open(tmp_path / "l") as ledger,
        tallystick.open(tmp_path / "l") as other,
        ledger.subscribe(entity_id="e1") as subscription,
    ):
        positions = fill(other, 6)

        assert taken(subscription, 3) == positions[1::2]


def test_a_closed_ledger_ends_its_subscriptions() -> None:
    ledger = tallystick.open("memory:")
    subscription = ledger.subscribe(cursor=2)
    ended = threading.Event()

    def wait() -> None:
        for _ in subscription:
            raise AssertionError("nothing was appended")
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    ledger.close()

    thread.join(60)
    assert ended.is_set()


@pytest.mark.parametrize(
    "wrong", [{"cursor": -1}, {"cursor": 2.5}, {"cursor": True}, {"name": ""}, {"name": "a\nb"}, {"colour": "red"}]
)
def test_a_wrong_question_is_refused(ledger: tallystick.Ledger, wrong: dict[str, Any]) -> None:
    with pytest.raises(RejectedError):
        ledger.subscribe(**wrong)


def test_a_cursor_past_the_end_is_of_a_log_that_was_put_back_or_of_another(ledger: tallystick.Ledger) -> None:
    with pytest.raises(RejectedError, match="no position 50 yet"):
        ledger.subscribe(cursor=50)
    with ledger.subscribe(name="kept") as subscription:
        subscription.take()
        ledger._open_readers().cursors.acknowledge("kept", Place(50, ""))
    with pytest.raises(TamperError, match="has seen 50 records"):
        ledger.subscribe(name="kept")
