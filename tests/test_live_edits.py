"""Edits of a ledger's files while a process has them open, made at the worst moment, and put right at once.

Whoever can write the data folder can change a row between two reads of one answer. Each test is the attacker: it edits
by SQLite, from within a call of the process that it attacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

import tallystick
from tallystick.core.custody import RetentionPolicy
from tallystick.errors import ConflictError, DamagedError, StoreError, TamperError
from tests.tampering import edit, line_at, replace_record

DAY: Final = 86_400_000_000
NOW: Final = 1_780_000_000_000_000


class Scene:
    """A ledger in a folder, of two entities, whose clock the test moves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.days = 0.0
        self.ledger = self.opened()
        self.ledger.append_many(
            [{"event_type": "doc.read", "entity_id": f"user-{number % 2}", "actor": "jane"} for number in range(20)]
        )

    def opened(self) -> tallystick.Ledger:
        return tallystick.open(
            self.folder / "l", keys=self.folder / "keys", name="l", clock=lambda: NOW + int(self.days * DAY)
        )

    @property
    def log(self) -> Path:
        return self.folder / "l/ledger.db"

    def expire(self) -> None:
        self.ledger.retention.set(RetentionPolicy.of("1d"))
        self.days += 2
        self.ledger.append(event_type="doc.read", entity_id="user-9", actor="jane")

    def left(self) -> int:
        """How many records there are of the first twenty."""
        with closing(apsw.Connection(str(self.log))) as connection:
            rows: Any = connection.execute("SELECT bytes FROM record").fetchall()
        return sum(b'"event_type":"doc.read"' in line and b"user-9" not in line for (line,) in rows)

    def statement(self, *statements: str) -> None:
        with closing(apsw.Connection(str(self.log))) as connection:
            connection.set_busy_timeout(10_000)
            for statement in statements:
                connection.execute(statement).fetchall()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.ledger.close()


def before(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], object], *, times: int = 1
) -> None:
    """Have something done right before the next calls of a method."""
    original, left = getattr(owner, name), [times]

    def wrapped(*members: Any, **more: Any) -> Any:
        if left[0]:
            left[0] -= 1
            act()
        return original(*members, **more)

    monkeypatch.setattr(owner, name, wrapped)


# --------------------------------------------------------------------------------------------------------- prunes


def test_a_hold_whose_record_is_altered_while_a_prune_is_sealed_stops_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.expire()
    held: list[tuple[int, bytes]] = []

    def hold_and_hide() -> None:
        position = scene.ledger.retention.hold("court", reason="suit", entity="user-1").position
        line = line_at(scene.log, position)
        held.append((position, line))
        replace_record(scene.log, position, line.replace(b"tallystick.hold.placed", b"tallyst1ck.hold.placed"))

    before(monkeypatch, scene.ledger._open_sealer(), "seal_own", hold_and_hide)
    with pytest.raises((TamperError, ConflictError)):
        scene.ledger.retention.prune()
    monkeypatch.undo()

    assert scene.left() == 20
    replace_record(scene.log, *held[0])
    assert {str(one.kind) for one in scene.ledger.verify().findings} == {"store"}, "the triggers are gone, no more"
    assert scene.ledger.retention.prune().count == 10


def test_what_a_hold_covers_the_log_says_and_not_the_index(scene: Scene) -> None:
    scene.expire()
    prune = scene.ledger._store.prune
    scene.ledger._store.prune = _fails  # type: ignore[assignment,method-assign]
    with pytest.raises(StoreError, match="injected"):
        scene.ledger.retention.prune()
    scene.ledger._store.prune = prune  # type: ignore[method-assign]
    scene.ledger.retention.hold("court", reason="suit", entity="user-1")
    scene.ledger.close()
    edit(scene.folder / "l/index.db", "UPDATE entity SET name = 'user-x' WHERE name = 'user-1'")

    scene.ledger = scene.opened()
    with pytest.raises(ConflictError, match="covers 10 of its records"):
        scene.ledger.retention.prune()
    assert scene.left() == 20


def _fails(*_: Any) -> int:
    raise StoreError("killed here (injected)")


def test_a_removal_that_removes_nothing_is_an_error(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.expire()
    monkeypatch.setattr(scene.ledger._store, "prune", lambda *_: 0)

    with pytest.raises(TamperError, match="removed 0 records, and not the 20"):
        scene.ledger.retention.prune()


# ------------------------------------------------------------------------------------------------------- triggers

TRIGGER: Final = "CREATE TRIGGER evil AFTER UPDATE ON head BEGIN UPDATE head SET epoch_at = 0; END"


def test_a_trigger_that_is_put_into_the_open_log_never_runs_in_a_commit_of_ours(scene: Scene) -> None:
    size = scene.ledger.size
    scene.statement(TRIGGER)

    with pytest.raises(DamagedError, match="its schema was altered \\(evil\\)"):
        scene.ledger.append(event_type="doc.read", entity_id="user-1", actor="jane")
    assert scene.ledger.size == size

    scene.statement("DROP TRIGGER evil")
    scene.ledger.close()
    scene.ledger = scene.opened()
    assert scene.ledger.append(event_type="doc.read", entity_id="user-1", actor="jane").position == size
    assert scene.ledger.verify().holds


def test_nor_in_a_prune(scene: Scene) -> None:
    scene.expire()
    plan = scene.ledger.retention.plan()
    store, prune = scene.ledger._store, scene.ledger._store.prune

    def prune_late(*members: Any) -> int:
        scene.statement("CREATE TRIGGER evil BEFORE DELETE ON record BEGIN SELECT RAISE(IGNORE); END")
        return prune(*members)

    store.prune = prune_late  # type: ignore[assignment,method-assign]
    with pytest.raises(DamagedError, match="altered \\(evil\\)"):
        scene.ledger.retention.prune(plan)
    assert scene.left() == 20


def test_what_a_prune_does_to_the_schema_is_no_alarm_to_others(scene: Scene) -> None:
    with scene.opened() as other:
        other.append(event_type="doc.read", entity_id="user-9", actor="jane")
        scene.expire()
        assert scene.ledger.retention.prune().count == 21
        other.append(event_type="doc.read", entity_id="user-9", actor="jane")
        scene.ledger.append(event_type="doc.read", entity_id="user-9", actor="jane")
        assert other.verify().holds
