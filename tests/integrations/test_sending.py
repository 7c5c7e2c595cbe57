"""Events are sent on in order and once, nobody waits, and what there is no room for is told of."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tallystick
from tallystick.client.client import Client
from tallystick.errors import RejectedError
from tallystick.integrations.plain import cut, key, plain
from tallystick.integrations.sending import DROPPED, Sender
from tallystick.ledger import Ledger
from tests.client.wire import CUT_AFTER, CUT_BEFORE, between
from tests.integrations.conftest import sometimes_away
from tests.serve.conftest import Running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with tallystick.open(tmp_path / "ledger") as opened:
        yield opened


def event(entity: str, number: int) -> dict[str, Any]:
    return {"event_type": "work.done", "entity_id": entity, "payload": {"n": number}}


def numbers(source: Ledger | Client, entity: str) -> list[int]:
    return [record.payload["n"] for record in source.records(entity_id=entity)]


def test_what_is_put_is_sealed_in_order(ledger: Ledger) -> None:
    sender = Sender(ledger, name="test")

    assert all(sender.put(event("w", number)) for number in range(2_000))
    assert sender.flush(30)

    assert numbers(ledger, "w") == [*range(2_000)]
    assert (sender.sent, sender.waiting, sender.dropped, sender.refused) == (2_000, 0, 0, 0)
    assert sender.close()
    assert not sender.put(event("w", 0))
    assert sender.close()


def test_many_threads_put_each_in_its_order(ledger: Ledger) -> None:
    sender = Sender(ledger, name="test")

    def put(name: str) -> None:
        for number in range(300):
            sender.put(event(name, number))

    threads = [threading.Thread(target=put, args=(f"w-{one}",)) for one in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sender.close(30)

    for one in range(8):
        assert numbers(ledger, f"w-{one}") == [*range(300)]


def test_a_service_that_was_away_gets_all_of_it_once_it_is_back(it: Running) -> None:
    with sometimes_away(it) as away:
        sender = Sender(away.client, name="test")
        for number in range(1_200):
            assert sender.put(event("away", number))
        assert away.asked.wait(20)
        assert not sender.flush(0.05)
        assert "BusyError" in sender.problem or "UnfinishedError" in sender.problem or sender.problem == ""

        away.there.set()

        assert sender.flush(30)
        assert numbers(away.client, "away") == [*range(1_200)]
        assert sender.problem == ""
        sender.close()


def test_an_answer_that_was_lost_doubles_nothing(it: Running) -> None:
    with between(it.url) as proxy, Client(proxy.url, it.keys["acme/Admin"], seconds=0.05) as client:
        proxy.harm = [CUT_AFTER, CUT_BEFORE, CUT_AFTER, CUT_AFTER]
        sender = Sender(client, name="test")
        for number in range(10):
            sender.put(event("lost", number))

        assert sender.close(30)

    with Client(it.url, it.keys["acme/Admin"]) as direct:
        assert numbers(direct, "lost") == [*range(10)]


def test_what_there_is_no_room_for_is_counted_and_told_where_it_is_missing(it: Running) -> None:
    told: list[int] = []
    with sometimes_away(it) as away:
        sender = Sender(away.client, name="drops", events_max=10, on_drop=told.append)

        taken = [sender.put(event("room", number)) for number in range(25)]
        away.there.set()
        assert sender.flush(30)
        deadline = time.monotonic() + 20
        while sender.waiting and time.monotonic() < deadline:
            time.sleep(0.01)
        sender.put(event("room", 25))
        assert sender.close(30)

        assert taken == [True] * 10 + [False] * 15
        assert (sender.dropped, told[-1]) == (15, 15)
        kinds = [
            (record.event_type, record.payload.get("n", record.payload.get("count")))
            for record in away.client.records(
                first=away.client.query(entity_id="room", newest_first=False).records[0].position
            )
        ]
        assert kinds == [*(("work.done", n) for n in range(10)), (DROPPED, 15), ("work.done", 25)]
        assert next(away.client.records(event_type=DROPPED)).entity_id == "drops"


def test_the_bound_is_also_one_of_bytes(it: Running) -> None:
    with sometimes_away(it) as away:
        sender = Sender(away.client, name="bytes", bytes_max=10_500)

        taken = [
            sender.put({**event("bytes", n), "labels": ["x" * 90], "context": {"x": "y" * 3_000}}) for n in range(4)
        ]
        taken += [sender.put(event("bytes", 4)), sender.put(event("bytes", 5))]

        assert taken == [True] * 3 + [False, True, True]
        away.there.set()
        assert sender.close(30)
        first = away.client.query(entity_id="bytes", newest_first=False).records[0].position
        told = [record.payload for record in away.client.records(first=first)]
        assert told == [{"n": 0}, {"n": 1}, {"n": 2}, {"count": 1}, {"n": 4}, {"n": 5}]


def test_one_that_is_refused_holds_up_no_other(ledger: Ledger) -> None:
    sender = Sender(ledger, name="test")
    ledger.append({**event("taken", 0), "id": "taken"})

    for number in range(20):
        sender.put(event("refused", number))
        if number == 10:
            sender.put({"event_type": "not an event type", "entity_id": "refused"})
            sender.put({**event("taken", 1), "id": "taken"})
            sender.put({"event_type": "work.done", "entity_id": "refused", "payload": {"x": object()}})
    assert sender.close(30)

    assert numbers(ledger, "refused") == [*range(20)]
    told = [record.payload for record in ledger.records(event_type=DROPPED)]
    assert (sender.sent - len(told), sender.refused, sender.dropped) == (20, 3, 0)
    assert sum(one["refused"] for one in told) in (1, 2, 3), "what is refused last there is no event behind to tell of"


def test_that_what_is_told_is_refused_is_not_told(ledger: Ledger) -> None:
    ledger.schemas.register(DROPPED, 1, {"type": "object", "required": ["never"]})
    ledger.schemas.enforce("registered")
    sender = Sender(ledger, name="test")
    for _ in range(3):
        sender.put({"event_type": "no type", "entity_id": "x"})
        assert sender.flush(20)
    sender.put(event("after", 1))
    assert sender.close(20)
    assert numbers(ledger, "after") == [1]
    assert 4 <= sender.refused <= 6


def test_the_end_does_not_wait_for_ever(it: Running, caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []
    with sometimes_away(it) as away:
        sender = Sender(away.client, name="end", on_drop=told.append)
        for number in range(5):
            sender.put(event("end", number))
        began = time.monotonic()

        assert not sender.close(0.3)

        assert time.monotonic() - began < 10
        assert (sender.dropped, sender.waiting, told) == (5, 0, [5])
        assert "5 events of end were not sent" in caplog.text


def test_what_is_told_of_drops_may_fail(it: Running, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: int) -> None:
        raise ValueError("the application's own mistake")

    with sometimes_away(it) as away:
        sender = Sender(away.client, name="test", events_max=2, on_drop=fail)

        assert [sender.put(event("told", n)) for n in range(3)] == [True, True, False]

        assert "the application's own mistake" in caplog.text
        sender.close(0.01)


def test_there_has_to_be_room(ledger: Ledger) -> None:
    for bounds in ({"events_max": 1}, {"bytes_max": 0}):
        with pytest.raises(RejectedError):
            Sender(ledger, name="test", **bounds)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- forks


def in_child(work: Any) -> int:
    """The exit code of a child that works: 0 if it returned true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads is the point
def test_a_child_sends_its_own_events_and_not_its_parents(it: Running) -> None:
    with sometimes_away(it) as away:
        sender = Sender(away.client, name="test")
        for number in range(10):
            sender.put(event("parent", number))
        assert away.asked.wait(20)
        away.there.set()

        codes = [
            in_child(lambda: sender.put(event("child", 1)) and sender.close(20) and sender.sent == 1) for _ in (1, 2)
        ]

        assert codes == [0, 0]
        assert sender.close(30)
        assert numbers(away.client, "parent") == [*range(10)]
        assert numbers(away.client, "child") == [1, 1]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_ledger_is_not_used_behind_a_fork(ledger: Ledger) -> None:
    sender = Sender(ledger, name="test")
    sender.put(event("parent", 0))
    assert sender.flush(20)

    code = in_child(lambda: not sender.put(event("child", 1)) and sender.dropped == 1 and "fork" in sender.problem)

    assert code == 0
    sender.put(event("parent", 1))
    assert sender.close(20)
    assert numbers(ledger, "parent") == [0, 1]
    assert numbers(ledger, "child") == []


# -------------------------------------------------------------------------------------------------- plain JSON


class Odd:
    def __str__(self) -> str:
        raise ValueError("no")


def test_whatever_an_application_has_becomes_plain_json() -> None:
    endless: list[Any] = []
    endless.append(endless)
    value = {
        "fine": [1, 1.5, "x", True, None],
        "big": 10**20,
        "odd": float("nan"),
        5: {1},
        "object": Odd(),
        "surrogate": "a\ud800b",
        "long": "x" * 10_000,
        "endless": endless,
        "many": range(3),
    }

    found = plain(value)

    assert found["fine"] == [1, 1.5, "x", True, None]
    assert (found["big"], found["odd"], found["5"], found["surrogate"]) == ("1" + "0" * 20, "nan", [1], "a?b")
    assert found["object"] == "<Odd that cannot be shown>"
    assert len(found["long"].encode()) == 4_096
    assert found["many"] == "range(0, 3)"
    with tallystick.open("memory:") as ledger:
        ledger.append(event_type="a.b", entity_id="e", payload=found)


def test_texts_are_cut_between_characters() -> None:
    assert cut("äöü", 6) == "äöü"
    assert cut("äöü" * 10, 8) == "äö…"
    assert (key(""), key("a\nb"), len(key("x" * 600))) == ("-", "a?b", 510)
