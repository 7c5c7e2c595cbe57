"""Edits of a ledger's files while a process has them open, made at the worst moment, and put right at once.

Whoever can write the data folder can change a row between two reads of one answer. Each test is the attacker: it edits
by SQLite, from within a call of the process that it attacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

import tallystick
from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.custody import RetentionPolicy
from tallystick.core.merkle import Tree, leaf_hash
from tallystick.core.note import Signer
from tallystick.deployment import Deployment
from tallystick.errors import ConflictError, DamagedError, DeniedError, StoreError, TamperError
from tallystick.evidence.controls.assessment import Assessor
from tallystick.evidence.controls.period import Period
from tallystick.read.query import Query
from tallystick.read.signed import selector_of
from tallystick.store.contract import Head
from tallystick.store.sqlite import SqliteStore
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


def test_nor_when_the_version_of_the_schema_is_put_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.ledger.append(event_type="doc.read", entity_id="user-1", actor="jane")
    store, size = scene.ledger._store, scene.ledger.size
    assert isinstance(store, SqliteStore)
    look = store._intact.look

    def look_late(writer: apsw.Connection) -> None:
        [[version]] = writer.execute("PRAGMA schema_version").fetchall()
        scene.statement(TRIGGER)
        writer.execute("SELECT * FROM head").fetchall()  # now the connection knows the trigger
        scene.statement(f"PRAGMA schema_version = {version}")
        look(writer)

    monkeypatch.setattr(store._intact, "look", look_late)
    with pytest.raises(DamagedError, match="its schema was altered \\(evil\\)"):
        scene.ledger.append(event_type="doc.read", entity_id="user-1", actor="jane")
    assert scene.ledger.size == size


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


# --------------------------------------------------------------------------------------- an older head, for a moment

READS: Final = Query(event_types=("doc.read",))
SELECTED: Final = (selector_of("reads", [READS]),)


def older_head(scene: Scene, size: int) -> Head:
    """The head of fewer records as the ledger itself had it: its checkpoint is authentic."""
    with closing(apsw.Connection(str(scene.log))) as connection:
        rows: Any = connection.execute("SELECT bytes FROM record ORDER BY position LIMIT ?", (size,)).fetchall()
    tree, _ = Tree.empty().extend([leaf_hash(line) for (line,) in rows])
    signer = Signer(scene.ledger.origin, scene.ledger._load_keys().checkpoint)
    newest = scene.ledger._store.head()
    assert newest is not None
    return replace(newest, size=size, checkpoint=sign_checkpoint(Checkpoint(signer.name, size, tree.root), signer))


def size_of(note: bytes) -> int:
    return Checkpoint.of_note(note).size


def proven_reads(ledger: tallystick.Ledger) -> int:
    with ledger.proven() as proven:
        return proven.count(READS)


ANSWERS: Final[dict[str, tuple[int, Callable[[tallystick.Ledger, Path], int]]]] = {
    "checkpoint": (22, lambda ledger, _: size_of(ledger.checkpoint())),
    "proven size": (22, lambda ledger, _: ledger.proven_size),
    "checked record": (21, lambda ledger, _: ledger.get_checked(21).position),
    "proven record": (22, lambda ledger, _: size_of(ledger.get_proven(15)[1].checkpoint)),
    "proof": (22, lambda ledger, _: size_of(ledger.prove(15).checkpoint)),
    "root": (32, lambda ledger, _: len(ledger.root_at(20))),
    "tile": (640, lambda ledger, _: len(ledger.tile(0, 0, 20))),
    "matches": (20, lambda ledger, _: sum(bool(found) for _, found in ledger.matching(SELECTED))),
    "span": (22, lambda ledger, _: ledger.span(after=NOW - DAY, before=NOW + DAY, size=22)[1]),
    "report": (20, lambda ledger, _: proven_reads(ledger)),
    "assessment": (
        22,
        lambda ledger, _: Assessor(ledger, Period(after=None, before=None, occurred=True, now=NOW)).size,
    ),
    "export": (22, lambda ledger, to: ledger.export(to).end),
    "filtered export": (20, lambda ledger, to: ledger.export(to, [READS]).count),
    "export of a time": (22, lambda ledger, to: ledger.export(to, after="2020-01-01", before="2090-01-01").end),
}
"""What leaves as evidence: how many records, or bytes, it has to be of at least, and how it is asked for."""


@pytest.mark.parametrize("name", ANSWERS)
def test_nothing_is_made_of_an_older_head_that_is_shown_for_a_moment(name: str, scene: Scene, tmp_path: Path) -> None:
    least, ask = ANSWERS[name]
    old, noticed = older_head(scene, 12), 0
    for number in range(1, 30):
        scene.ledger.close()
        scene.ledger = scene.opened()
        store, reads = scene.ledger._store, 0

        def shown(head: Callable[[], Head | None] = store.head, number: int = number) -> Head | None:
            nonlocal reads
            reads += 1
            return old if reads == number else head()

        store.head = shown  # type: ignore[method-assign]
        try:
            assert ask(scene.ledger, tmp_path / f"e-{number}") >= least, f"at read {number}"
        except TamperError:
            noticed += 1
        if reads < number:
            break
    assert noticed, "it was never shown"


def test_a_named_subscription_passes_over_nothing(scene: Scene) -> None:
    """The end of what is read comes from one head, and the proof from an older one."""
    scene.ledger.append_many([{"event_type": "fraud.seen", "entity_id": "x", "actor": "jane"}] * 3)
    old = older_head(scene, 22)
    live = scene.ledger._open_readers().live
    end = scene.ledger.size
    scene.ledger.close()
    scene.ledger = scene.opened()
    live = scene.ledger._open_readers().live
    store = scene.ledger._store
    store.head = lambda: old  # type: ignore[method-assign]

    with pytest.raises(TamperError):
        _ = [*live.records(Query(event_types=("fraud.seen",)), 22, end)]


def test_an_endless_view_in_the_place_of_a_table_ends(scene: Scene) -> None:
    with scene.opened() as reader:
        assert reader.size == 22
        scene.statement(
            "ALTER TABLE head RENAME TO old_head",
            "CREATE VIEW head AS WITH RECURSIVE more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more)"
            " SELECT n AS id, n AS size, x'00' AS checkpoint, 0 AS epoch_at, 0 AS checkpoint_key_at,"
            " 0 AS evidence_key_at FROM more",
        )
        with pytest.raises(DamagedError):
            _ = reader.size


# ------------------------------------------------------------------------------------------------------- the mark


def put_back(scene: Scene, statements: Callable[[apsw.Connection], None]) -> None:
    with closing(apsw.Connection(str(scene.log))) as connection:
        for (name,) in [*connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")]:
            connection.execute(f"DROP TRIGGER {name}")
        statements(connection)


def test_a_log_put_back_to_what_a_process_knows_takes_nothing_from_it(scene: Scene) -> None:
    with scene.opened() as behind:
        behind.append(event_type="doc.read", entity_id="user-1", actor="jane")
        old = behind._store.head()
        assert old is not None
        scene.ledger.append_many([{"event_type": "doc.read", "entity_id": "user-1", "actor": "jane"}] * 5)
        scene.ledger.close()  # which writes the mark

        def cut(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM record WHERE position >= ?", (old.size,))
            connection.execute("UPDATE head SET size = ?, checkpoint = ?", (old.size, old.checkpoint))

        put_back(scene, cut)
        with pytest.raises(TamperError, match="28 records"):
            behind.append(event_type="doc.read", entity_id="user-1", actor="jane")
        assert behind.size == 23


def test_who_is_behind_never_sets_the_mark_back(scene: Scene) -> None:
    with scene.opened() as behind:
        behind.append(event_type="doc.read", entity_id="user-1", actor="jane")
        scene.ledger.append_many([{"event_type": "doc.read", "entity_id": "user-1", "actor": "jane"}] * 5)
        scene.ledger.close()
        store, old = behind._store, older_head_of(scene, behind, 12)
        head, mark = store.head, behind._mark
        assert mark is not None
        kept = mark.path.read_bytes()
        store.head = lambda: old  # type: ignore[method-assign]
        with pytest.raises(TamperError):
            behind.append(event_type="doc.read", entity_id="user-1", actor="jane")
        store.head = head  # type: ignore[method-assign]
    assert mark.path.read_bytes() == kept


def older_head_of(scene: Scene, ledger: tallystick.Ledger, size: int) -> Head:
    scene.ledger = ledger
    return older_head(scene, size)


# ------------------------------------------------------------------------------------------------- what is obeyed


def test_a_key_that_another_process_revoked_is_not_obeyed_for_an_older_head(tmp_path: Path) -> None:
    place, keys = tmp_path / "d", tmp_path / "keys"
    with Deployment(place, keys=keys) as one, Deployment(place, keys=keys) as other:
        one.begin()
        key, text = one.create_key("default", role="Admin", name="k", actor={"id": "jane"})
        assert other.authenticate(text).id == key.id
        system = other._system.current()
        old = system._store.head()
        one.revoke_key(key.id, actor={"id": "jane"})
        one._system.current().checkpoint()  # which has the mark written, as a second or two would
        system._store.head = lambda: old  # type: ignore[method-assign]
        other._asked_at = float("-inf")

        with pytest.raises((TamperError, DamagedError, DeniedError)):
            other.authenticate(text)


def test_an_order_that_a_trigger_would_hide_is_an_error(tmp_path: Path) -> None:
    with Deployment(tmp_path / "d", keys=tmp_path / "keys") as deployment:
        deployment.begin()
        key, text = deployment.create_key("default", role="Admin", name="k", actor={"id": "jane"})
        with closing(apsw.Connection(str(tmp_path / "d/system/ledger.db"))) as connection:
            connection.execute(
                "CREATE TRIGGER hide AFTER UPDATE ON head WHEN new.size > old.size"
                " BEGIN UPDATE head SET size = old.size, checkpoint = old.checkpoint; END"
            )
        with pytest.raises(DamagedError, match="altered \\(hide\\)"):
            deployment.revoke_key(key.id, actor={"id": "jane"})
        deployment._asked_at = float("-inf")
        with pytest.raises(TamperError, match="hide does not belong in the schema"):
            deployment.authenticate(text)


def test_an_accepted_loss_is_of_the_size_at_which_it_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    scene.ledger.append_many([{"event_type": "doc.read", "entity_id": "user-1", "actor": "jane"}] * 8)
    scene.ledger.close()
    old = older_head_of(scene, scene.opened(), 12)
    scene.ledger.close()

    def cut(connection: apsw.Connection) -> None:
        connection.execute("DELETE FROM record WHERE position >= 22")
        twenty_two = older_head_of(scene, scene.opened(), 22)
        scene.ledger.close()
        connection.execute("UPDATE head SET size = 22, checkpoint = ?", (twenty_two.checkpoint,))

    put_back(scene, cut)
    for name in ("index.db", "sealing.db"):
        (scene.folder / "l" / name).unlink()
    scene.ledger = scene.opened()
    head = scene.ledger._head
    monkeypatch.setattr(scene.ledger, "_head", lambda: old)
    with pytest.raises((ConflictError, TamperError, DamagedError)):
        scene.ledger.accept_loss("it is gone")
    monkeypatch.setattr(scene.ledger, "_head", head)
    assert not any(one.event_type == "tallystick.ledger.restored" for one in scene.ledger.read())
    scene.ledger.close()
