"""Projections: every record counts exactly once, whatever fails, is killed or goes on at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

import tallystick
from tallystick.core.record import Record
from tallystick.errors import ConflictError, RejectedError, StoreError, TamperError
from tallystick.read import projection as module
from tallystick.read.projection import Projection, projection
from tallystick.read.query import Query
from tallystick.read.sqlite_cursors import Place, SqliteCursors
from tests.tampering import edit


@pytest.fixture
def ledger() -> Iterator[tallystick.Ledger]:
    with tallystick.open("memory:") as ledger:
        yield ledger


def fill(ledger: tallystick.Ledger, count: int) -> int:
    """Append events by three actors in turn; the last position."""
    events = [
        {"event_type": "t.done" if n % 2 else "t.begun", "entity_id": "e", "actor": f"a{n % 3}", "payload": {"n": n}}
        for n in range(count)
    ]
    return ledger.append_many(events)[-1].position


@projection("by actor", event_type="t.*")
def by_actor(state: dict[str, int] | None, record: Record) -> dict[str, int]:
    state = state or {}
    actor = record.actor["id"] if record.actor else "-"
    state[actor] = state.get(actor, 0) + 1
    return state


def counted(ledger: tallystick.Ledger) -> dict[str, int]:
    """What the projection says, by a scan."""
    state: dict[str, int] = {}
    for record in ledger.read():
        if record.event_type.startswith("t.") and record.actor:
            state[record.actor["id"]] = state.get(record.actor["id"], 0) + 1
    return state


def test_a_projection_is_the_fold_of_what_it_takes_and_goes_on_where_it_was(ledger: tallystick.Ledger) -> None:
    running = ledger.project(by_actor)
    assert (running.status, running.state, running.cursor) == ("new", None, 0)

    for count in (10, 2_500, 1):
        fill(ledger, count)
        assert running.run() == ledger.size
        assert running.state == counted(ledger)
        assert (running.cursor, running.status) == (ledger.size, "stopped")


def test_a_projection_that_was_started_follows_what_is_appended(ledger: tallystick.Ledger) -> None:
    running = ledger.project(by_actor)
    running.start()

    for _ in range(20):
        last = fill(ledger, 7)
        assert running.wait(last, timeout=60)
        assert running.state == counted(ledger)

    statuses = [running.status]
    running.stop()
    assert [*statuses, running.status] == ["running", "stopped"]


def test_a_class_with_evolve_is_a_projection_too(ledger: tallystick.Ledger) -> None:
    class Newest:
        query: Final = {"event_type": "t.done"}
        initial: Final = {"n": None}

        def evolve(self, state: dict[str, Any], record: Record) -> dict[str, Any]:
            return {"n": record.payload["n"], "before": state["n"]}

    fill(ledger, 8)
    running = ledger.project(Newest())
    running.run()

    assert running.projection.name == "Newest"
    assert running.state == {"n": 7, "before": 5}


def test_one_that_fails_stops_at_its_cursor_says_why_and_goes_on_when_it_is_mended(ledger: tallystick.Ledger) -> None:
    broken = True

    def evolve(state: list[int], record: Record) -> list[int]:
        state.append(record.payload["n"])  # a change in place must not survive a failure either
        if broken and record.payload["n"] == 5:
            raise ValueError("five is right out")
        return state

    running = ledger.project(Projection(name="fails", evolve=evolve, initial=[], query=tallystick.Query.of(actor="a2")))
    fill(ledger, 12)

    with pytest.raises(ValueError, match="five"):
        running.run()
    position = next(record.position for record in ledger.read() if record.payload.get("n") == 5)
    assert (running.cursor, running.state, running.status) == (position, [2], "failed")
    assert running.problem == f"at position {position}: ValueError('five is right out')"
    with pytest.raises(ConflictError, match="failed at"):
        running.wait(ledger.size - 1)

    broken = False
    running.start()
    assert running.wait(ledger.size - 1, timeout=60)
    after = running.saved
    assert after is not None
    assert (after.state, after.problem) == ([2, 5, 8, 11], None)


def test_a_thread_that_fails_leaves_the_ledger_and_others_alone(ledger: tallystick.Ledger) -> None:
    def fail(_: Any, record: Record) -> Any:
        raise RuntimeError(record.position)

    failing = ledger.project(Projection(name="failing", evolve=fail))
    well = ledger.project(by_actor)
    failing.start()
    well.start()

    last = fill(ledger, 30)

    assert well.wait(last, timeout=60)
    while failing.status != "failed":
        time.sleep(0.001)
    assert (failing.cursor, failing.problem) == (0, "at position 0: RuntimeError(0)")


def test_a_paused_projection_stands_still_for_everybody_until_it_is_started(ledger: tallystick.Ledger) -> None:
    running = ledger.project(by_actor)
    fill(ledger, 5)
    running.run()
    before = running.cursor

    running.pause()
    fill(ledger, 5)
    running.run()
    assert (running.cursor, running.status) == (before, "paused")

    running.start()
    assert running.wait(ledger.size - 1, timeout=60)
    assert running.state == counted(ledger)


def test_a_projection_is_built_anew_from_any_position(ledger: tallystick.Ledger) -> None:
    running = ledger.project(by_actor)
    first = fill(ledger, 10) + 1
    fill(ledger, 6)
    running.run()

    running.rebuild(first)
    assert (running.cursor, running.state) == (first, None)
    running.run()
    assert sum(running.state.values()) == 6

    running.reset()
    running.run()
    assert running.state == counted(ledger)


def test_another_version_of_a_projection_begins_anew(ledger: tallystick.Ledger) -> None:
    fill(ledger, 6)
    ledger.project(by_actor).run()

    newer = Projection(name="by actor", evolve=lambda state, _: state + 1, initial=0, version=2)
    with pytest.raises(ConflictError, match="another projection"):
        ledger.project(newer)

    ledger._open_readers()._running.clear()
    running = ledger.project(newer)
    running.run()
    assert running.state == ledger.size


def test_tables_of_a_projection_change_with_its_cursor_or_not_at_all(
    ledger: tallystick.Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_RECORDS", 4)
    broken = True

    class Table:
        name = "table"
        query: Final = {"event_type": "t.*"}

        def setup(self, tables: Any) -> None:
            tables.execute("CREATE TABLE IF NOT EXISTS done (n INTEGER PRIMARY KEY, actor TEXT)")
            tables.execute("DELETE FROM done")

        def evolve(self, tables: Any, record: Record) -> None:
            tables.execute("INSERT INTO done VALUES (?,?)", (record.payload["n"], record.actor and record.actor["id"]))
            if broken and record.payload["n"] == 10:
                raise ValueError("ten")

    fill(ledger, 20)
    running = ledger.project(Table())
    cursors = ledger._open_readers().cursors

    with pytest.raises(ValueError, match="ten"):
        running.run()
    assert cursors._rows("SELECT n FROM done") == [(n,) for n in range(10)]

    broken = False
    running.start()
    assert running.wait(ledger.size - 1, timeout=60)
    assert cursors._rows("SELECT n FROM done") == [(n,) for n in range(20)]

    running.reset()
    running.stop()
    running.run()
    assert cursors._rows("SELECT count(*), count(DISTINCT actor) FROM done") == [(20, 3)]


@pytest.mark.parametrize("state", [object(), {1, 2}, {"a": b"bytes"}, {"x": float("nan")}, [None, float("inf")]])
def test_a_state_that_is_no_json_is_refused_and_nothing_moves(ledger: tallystick.Ledger, state: Any) -> None:
    running = ledger.project(Projection(name="odd", evolve=lambda _, __: state))

    with pytest.raises(RejectedError, match="no JSON document"):
        running.run()

    assert (running.state, running.cursor, running.status) == (None, 0, "failed")
    assert "no JSON document" in str(running.problem)


@pytest.mark.parametrize("given", [None, 7, object(), "evolve"])
def test_what_has_no_evolve_is_no_projection(ledger: tallystick.Ledger, given: Any) -> None:
    with pytest.raises(RejectedError, match="has no evolve"):
        ledger.project(given)


def test_two_processes_with_one_projection_count_every_record_once(tmp_path: Path) -> None:
    # Given a process that projects and is killed again and again, while another appends and projects as well.
    folder = tmp_path / "l"
    with tallystick.open(folder) as ledger:
        running = ledger.project(by_actor)
        for turn in range(8):
            process = subprocess.Popen(
                [sys.executable, "-c", PROJECTING, folder],
                env={"PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(Path.cwd())]))},
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None
            process.stdout.readline()
            for _ in range(3):
                fill(ledger, 40)
            if turn % 2:
                running.start()
            time.sleep(0.01 * turn)
            process.send_signal(signal.SIGKILL)
            process.communicate()

        running.start()
        assert running.wait(ledger.size - 1, timeout=60)

        assert running.state == counted(ledger)
        assert [saved.name for saved in ledger.projections()] == ["by actor"]


PROJECTING: Final = """
import sys, time
import tallystick
from tests.read.test_projection import by_actor
ledger = tallystick.open(sys.argv[1])
running = ledger.project(by_actor)
running.start()
print("begun", flush=True)
time.sleep(60)
"""


def test_what_was_projected_of_a_log_that_was_put_back_is_not_believed(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "l") as ledger:
        fill(ledger, 10)
        ledger.project(by_actor).run()
    with tallystick.open(tmp_path / "other") as ledger:
        fill(ledger, 2)
    (tmp_path / "l" / "cursors.db").rename(tmp_path / "other" / "cursors.db")

    with tallystick.open(tmp_path / "other") as ledger, pytest.raises(StoreError, match="another ledger"):
        ledger.project(by_actor)


def test_a_projection_ahead_of_the_ledger_says_so(ledger: tallystick.Ledger) -> None:
    fill(ledger, 3)
    running = ledger.project(by_actor)
    wrong: Any
    for wrong in (1_000, -1, "3", None, True):
        with pytest.raises(RejectedError, match="is not a position"):
            running.rebuild(wrong)
    running.run()
    ledger._open_readers().cursors.begin("by actor", version=1, cursor=1_000, after="", state=None)

    with pytest.raises(TamperError, match="has seen 1000 records"):
        running.run()


# ------------------------------------------------------------------------------------------ someone with the disk


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tallystick_projection SET cursor = cursor - 1",
        "UPDATE tallystick_projection SET cursor = 2, state = '0'",
        "UPDATE tallystick_projection SET state = '7'",
        "UPDATE tallystick_projection SET paused = 1",
        "UPDATE tallystick_projection SET problem = 'forged'",
        "UPDATE tallystick_projection SET mac = NULL",
        "UPDATE tallystick_projection SET mac = (SELECT mac FROM tallystick_projection WHERE name = 'other')",
        "INSERT OR REPLACE INTO tallystick_projection SELECT 'count', version, cursor, '9', 0, NULL, after, mac FROM"
        " tallystick_projection WHERE name = 'other'",
    ],
)
def test_a_projection_whose_row_was_edited_begins_again(tmp_path: Path, statement: str) -> None:
    counted = Projection(name="count", evolve=lambda state, _: state + 1, query=Query.of(event_type="t.*"), initial=0)
    with tallystick.open(tmp_path / "l") as ledger:
        ledger.append_many({"event_type": "t.t", "entity_id": "e"} for _ in range(5))
        ledger.project(replace(counted, name="other")).run()
        ledger.project(counted).run()
        assert ledger.project(counted).state == 5
    edit(tmp_path / "l" / "cursors.db", statement)

    with tallystick.open(tmp_path / "l") as ledger:
        told = {one.name: (one.state, one.problem) for one in ledger.projections()}
        assert told.get("count", (None, "altered"))[0] is None
        running = ledger.project(counted)
        assert (running.status, running.state) == ("new", 0)
        running.run()
        assert (running.status, running.state) == ("stopped", 5)
        assert [one.problem for one in ledger.projections() if one.name == "count"] == [None]


def test_a_subscription_whose_cursor_was_moved_on_skips_nothing(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "l") as ledger:
        for number in range(6):
            ledger.append(event_type="t.t", entity_id=f"e-{number}")
        with ledger.subscribe(name="siem", event_type="t.*") as subscription:
            first = next(iter(subscription))
            subscription.acknowledge(first.position)
    edit(tmp_path / "l" / "cursors.db", "UPDATE tallystick_subscription SET cursor = 7")

    with tallystick.open(tmp_path / "l") as ledger, ledger.subscribe(name="siem", event_type="t.*") as subscription:
        assert next(iter(subscription)).position == first.position, "from the beginning, as at least once allows"


def test_who_has_no_keys_keeps_a_place_that_nobody_with_keys_believes(tmp_path: Path) -> None:
    cursors = SqliteCursors(tmp_path, b"id")
    cursors.acknowledge("siem", Place(4, "ab"))
    assert cursors.subscription("siem") == Place(4, "ab")
    cursors.close()
    with_keys = SqliteCursors(tmp_path, b"id", key=b"k" * 32)
    assert with_keys.subscription("siem") is None
    with_keys.acknowledge("siem", Place(2, ""))
    assert with_keys.subscription("siem") == Place(2, "")
    with_keys.close()
