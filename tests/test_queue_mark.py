"""The mark of a queue, beside the head mark: a whole queue put back, and copies of it under the same keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import tallystick
from tallystick.backups.restore import Restored
from tallystick.cli.program import program
from tallystick.deployment import Deployment
from tallystick.errors import NotFoundError, StoreError, TamperError
from tallystick.evidence.findings import Kind
from tallystick.write import queue_check, queue_copy, queue_mark
from tallystick.write.queue import Queue
from tallystick.write.queue_findings import QueueFinding

ACTOR = {"id": "tests"}


class Scene:
    """A ledger with keys and marks elsewhere, of which the queue seals nothing by itself."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "ledger"
        self.keys = folder / "keys"
        self.marks = folder / "marks"
        self.older = folder / "older"
        self._monkeypatch = monkeypatch

    def open(self, folder: Path | None = None, **given: Any) -> tallystick.Ledger:
        return tallystick.open(folder or self.folder, **{"keys": self.keys, "marks": self.marks} | given)

    @contextmanager
    def held(self) -> Iterator[tallystick.Ledger]:
        with self._monkeypatch.context() as patch:
            patch.setattr(Queue, "_drain", lambda _: None)
            with self.open() as ledger:
                yield ledger
                ledger.queue._stopping = True

    def publish(self, first: int, end: int) -> None:
        """Acknowledge events that are not sealed."""
        with self.held() as ledger:
            for number in range(first, end):
                ledger.publish(event_type="a.b", entity_id="e", id=f"id-{number}")

    def backup(self, **given: Any) -> Path:
        return tallystick.backup(
            self.folder, self.folder.parent / "made", **{"keys": self.keys, "marks": self.marks} | given
        ).path

    def restore(self, **given: Any) -> Restored:
        given = {"keys": self.keys, "marks": self.marks} | given
        return tallystick.restore(self.folder.parent / "made", self.folder.parent / "back", **given)

    @property
    def back(self) -> Path:
        return self.folder.parent / "back"

    @property
    def mark(self) -> Path:
        (found,) = self.marks.glob("*.queue")
        return found

    def run(self, *arguments: str, folder: Path | None = None) -> Result:
        where = ("-l", str(folder or self.folder), "--keys", str(self.keys), "--marks", str(self.marks))
        return CliRunner().invoke(program, [*arguments, *where], prog_name="tallystick")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Three events wait."""
    made = Scene(tmp_path, monkeypatch)
    made.publish(0, 3)
    return made


def findings(ledger: tallystick.Ledger, folder: Path) -> tuple[QueueFinding, ...]:
    return queue_check.check_queue(folder / "queue", ledger.queue_key(), mark=ledger.queue_mark)


def drained(ledger: tallystick.Ledger) -> list[str]:
    """Seal what waits; the ids of all events."""
    ledger.queue.drain(seconds=20)
    return [record.id for record in ledger.read() if record.id.startswith("id-")]


def test_the_mark_lies_beside_the_head_mark_and_nothing_of_it_in_the_queue(scene: Scene) -> None:
    with scene.open() as ledger:
        assert drained(ledger) == ["id-0", "id-1", "id-2"]

    assert scene.mark.name == f"{ledger.id.hex()}.queue"
    assert scene.mark.with_suffix(".head").exists()
    assert not (scene.folder / "queue/mark").exists()


def test_a_whole_queue_put_back_is_found_wherever_one_looks_and_the_repair_says_what_is_lost(scene: Scene) -> None:
    shutil.copytree(scene.folder / "queue", scene.older)
    scene.publish(3, 5)
    shutil.rmtree(scene.folder / "queue")
    shutil.copytree(scene.older, scene.folder / "queue")

    with scene.open() as ledger, pytest.raises(TamperError, match="events 3 to 4, which were acknowledged"):
        ledger.publish(event_type="a.b", entity_id="e")
    verified = scene.run("verify", "--json")
    assert verified.exit_code == 1
    (found,) = json.loads(verified.stdout)["findings"]
    assert (found["kind"], "events 3 to 4" in found["seen"]) == ("queue", True)
    assert scene.run("queue", "stats").exit_code == 1
    assert scene.run("queue", "drain").exit_code == 1

    assert scene.run("queue", "repair", "--yes").exit_code == 0
    with scene.open() as ledger:
        assert drained(ledger) == ["id-0", "id-1", "id-2"]
        assert ledger.queue.progress("3.id-3").state == "refused"
        assert ledger.verify().holds


def test_a_queue_that_was_deleted_is_found_and_looking_makes_no_folder(scene: Scene) -> None:
    shutil.rmtree(scene.folder / "queue")

    stats = scene.run("queue", "stats")
    assert stats.exit_code == 1
    assert "nothing says what is sealed" in " ".join(stats.output.split())
    assert scene.run("verify").exit_code == 1
    assert scene.run("queue", "repair").exit_code == 1
    assert not (scene.folder / "queue").exists()

    assert scene.run("queue", "repair", "--yes").exit_code == 0
    with scene.open() as ledger:
        assert ledger.publish(event_type="a.b", entity_id="e", id="id-3").sequence == 3
        assert drained(ledger) == ["id-3"]


def test_a_mark_of_which_no_event_speaks_yet_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path, monkeypatch)
    with scene.held() as ledger:
        assert ledger.queue.stats().depth == 0
    shutil.rmtree(scene.folder / "queue")

    assert scene.run("verify").exit_code == 0
    scene.publish(0, 1)


def test_marks_that_were_left_behind_are_missed_and_found_again(scene: Scene, tmp_path: Path) -> None:
    scene.marks.rename(tmp_path / "elsewhere")

    with scene.open() as ledger:
        (found,) = findings(ledger, scene.folder)
        assert "if the directory of the marks was moved" in found.text
        with pytest.raises(TamperError, match="it is not there, and a queue was"):
            ledger.publish(event_type="a.b", entity_id="e")

    with scene.open(marks=tmp_path / "elsewhere") as ledger:
        assert drained(ledger) == ["id-0", "id-1", "id-2"]


def test_a_place_where_no_mark_can_be_is_one_clear_error(scene: Scene) -> None:
    scene.mark.unlink()
    with scene.open() as ledger:
        (scene.marks / f"{ledger.id.hex()}.queue").mkdir()
        with pytest.raises(StoreError, match=r"\.queue is a folder, so it is not used"):
            ledger.publish(event_type="a.b", entity_id="e")
        assert [one.kind for one in ledger.verify().findings] == [Kind.UNREADABLE]
    with pytest.raises(StoreError, match="is a folder, so it is not used"):
        scene.backup()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_no_ticket_is_given_once_the_mark_of_a_running_queue_is_gone(scene: Scene, how: str) -> None:
    with scene.held() as ledger:
        ledger.publish(event_type="a.b", entity_id="e", id="id-3")
        data = scene.mark.read_bytes()
        scene.mark.unlink()
        if how == "replaced":
            (scene.marks / "new").write_bytes(data)
            (scene.marks / "new").rename(scene.marks / f"{ledger.id.hex()}.queue")

        with pytest.raises(StoreError, match="removed or replaced"):
            ledger.publish(event_type="a.b", entity_id="e", id="id-4")

        (scene.marks / f"{ledger.id.hex()}.queue").write_bytes(data)
    with scene.open() as ledger:
        assert drained(ledger) == [f"id-{number}" for number in range(5)]  # an event without a ticket may be there


# ------------------------------------------------------------------------------------------------ as a backup brings it


def test_a_mark_in_the_queue_counts_where_there_is_no_other_and_is_moved(scene: Scene) -> None:
    scene.mark.rename(scene.folder / "queue/mark")

    assert scene.run("verify").exit_code == 0
    assert not [*scene.marks.glob("*.queue")]
    with scene.open() as ledger:
        assert drained(ledger) == ["id-0", "id-1", "id-2"]

    assert scene.mark.exists()
    assert not (scene.folder / "queue/mark").exists()


def test_a_mark_in_the_queue_does_not_count_beside_the_other(scene: Scene) -> None:
    """As a crash leaves it that came between putting it there and removing it here; or as an attacker puts it there."""
    (scene.folder / "queue/mark").write_bytes(b"x")

    assert scene.run("verify").exit_code == 0
    with scene.open() as ledger:
        assert drained(ledger) == ["id-0", "id-1", "id-2"]
    assert not (scene.folder / "queue/mark").exists()


def test_a_mark_that_is_moved_while_it_is_looked_for_is_found(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    place, brought = scene.mark, scene.folder / "queue/mark"
    place.rename(brought)
    find = queue_mark.find_mark

    def then_moved(folder: Path, mark: Path | None) -> Path:
        found = find(folder, mark)
        brought.rename(place)
        return found

    monkeypatch.setattr(queue_check, "find_mark", then_moved)

    with scene.open() as ledger:
        assert findings(ledger, scene.folder) == ()


def test_a_queue_is_repaired_with_the_mark_that_a_backup_brought(scene: Scene) -> None:
    scene.mark.rename(scene.folder / "queue/mark")
    (scene.folder / "queue/cursor").unlink()

    assert scene.run("queue", "repair", "--yes").exit_code == 0

    assert scene.mark.exists()
    assert not (scene.folder / "queue/mark").exists()
    with scene.open() as ledger:
        assert drained(ledger) == ["id-0", "id-1", "id-2"]


# --------------------------------------------------------------------------------------------------- backup and restore


def test_what_waits_is_restored_and_the_copy_goes_on_with_the_mark_of_its_original(scene: Scene) -> None:
    made = scene.backup()
    assert tallystick.check_backup(made, keys=scene.keys).holds

    assert scene.restore().findings == ()

    assert scene.run("verify", folder=scene.back).exit_code == 0
    with scene.open(scene.back) as ledger:
        assert drained(ledger) == ["id-0", "id-1", "id-2"]
        assert ledger.publish(event_type="a.b", entity_id="e", id="id-3").sequence == 3
        assert "id-3" in drained(ledger)
        assert ledger.verify().holds


def test_what_waits_is_restored_on_another_machine(scene: Scene, tmp_path: Path) -> None:
    scene.backup()

    assert scene.restore(marks=tmp_path / "new").findings == ()

    with scene.open(scene.back, marks=tmp_path / "new") as ledger:
        assert ledger.verify().holds
        assert drained(ledger) == ["id-0", "id-1", "id-2"]
        assert ledger.queue_mark is not None
        assert ledger.queue_mark.parent == tmp_path / "new"
        assert ledger.queue_mark.exists()


def test_a_restore_does_not_forget_what_was_acknowledged_after_the_backup(scene: Scene) -> None:
    made = scene.backup()
    scene.publish(3, 5)
    before = scene.mark.read_bytes()

    refused = scene.restore()

    assert [one.kind for one in refused.findings] == [Kind.QUEUE]
    assert "events 3 to 4, which were acknowledged" in refused.findings[0].seen
    assert not scene.back.exists()
    assert tallystick.check_backup(made, keys=scene.keys).holds  # it is good, and older
    assert scene.mark.read_bytes() == before
    # A copy that was restored without the keys says so when it is opened.
    assert scene.restore(keys=None, marks=None).findings == ()
    with scene.open(scene.back) as ledger, pytest.raises(TamperError, match="events 3 to 4"):
        ledger.publish(event_type="a.b", entity_id="e")
    assert scene.mark.read_bytes() == before


def test_a_loss_of_what_waited_is_accepted_with_the_restore_and_the_original_says_so(scene: Scene) -> None:
    scene.backup()
    scene.publish(3, 5)

    assert scene.restore(accept_loss="the disk died", actor=ACTOR).findings == ()

    with scene.open(scene.back) as ledger:
        assert drained(ledger) == ["id-0", "id-1", "id-2"]
        assert ledger.verify().holds
    with scene.open() as ledger:
        assert findings(ledger, scene.folder) != ()


def test_a_backup_of_before_the_first_event_takes_the_place_of_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path, monkeypatch)
    with scene.open() as ledger:
        ledger.append(event_type="a.b", entity_id="e")
    made = scene.backup()
    assert not (made / "queue").exists()
    scene.publish(0, 2)

    assert {one.kind for one in scene.restore().findings} == {Kind.QUEUE}
    assert scene.restore(accept_loss="the disk died").findings == ()

    assert not [*scene.marks.glob("*.queue")]
    with scene.open(scene.back) as ledger:
        assert ledger.publish(event_type="a.b", entity_id="e", id="id-0").sequence == 0
        assert drained(ledger) == ["id-0"]


def test_a_queue_that_was_deleted_is_missed_in_its_backup_too(scene: Scene, tmp_path: Path) -> None:
    shutil.rmtree(scene.folder / "queue")
    made = scene.backup()

    assert {one.kind for one in tallystick.check_backup(made, keys=scene.keys).findings} == {Kind.QUEUE}
    assert {one.kind for one in scene.restore(marks=tmp_path / "new").findings} == {Kind.QUEUE}


@pytest.mark.parametrize("given", [{}, {"signed": False, "with_keys": True}], ids=["signed", "with keys"])
def test_nobody_vouches_for_a_queue_without_its_mark(scene: Scene, tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(NotFoundError, match="the mark of queue is not in the directory of the marks"):
        scene.backup(marks=tmp_path / "elsewhere", **given)
    assert not (tmp_path / "made").exists()


def test_a_backup_by_one_who_may_not_read_the_marks_is_restored_and_repaired(scene: Scene, tmp_path: Path) -> None:
    made = scene.backup(keys=tmp_path / "none", marks=None, signed=False)
    assert not (made / "queue/mark").exists()
    assert tallystick.check_backup(made, signed=False, keys=scene.keys).holds

    assert scene.restore(signed=False, marks=tmp_path / "new").findings == ()

    shutil.move(scene.marks, tmp_path / "moved")
    assert "nothing says what was acknowledged" in " ".join(
        scene.run("queue", "drain", folder=scene.back).output.split()
    )
    assert scene.run("queue", "repair", "--yes", folder=scene.back).exit_code == 0
    with scene.open(scene.back) as ledger:
        assert drained(ledger) == ["id-0", "id-1", "id-2"]


def test_a_mark_that_may_not_be_read_is_left_out_of_an_unsigned_backup(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes | None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(queue_copy, "mark_bytes", refuse)

    with pytest.raises(NotFoundError, match="may not be read"):
        scene.backup()
    assert not (scene.backup(signed=False) / "queue/mark").exists()


def test_the_queues_of_a_deployment_have_their_marks_in_one_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    with monkeypatch.context() as patch:
        patch.setattr(Queue, "_drain", lambda _: None)
        with Deployment(tmp_path / "data", marks=marks) as deployment:
            deployment.begin()
            for tenant in ("one", "queue"):
                deployment.create_tenant(tenant, actor=ACTOR)
                with deployment.ledger(tenant) as ledger:
                    ledger.publish(event_type="a.b", entity_id="e", id=f"id-{tenant}")
                    ledger.queue._stopping = True
    assert len([*marks.glob("*.queue")]) == 2

    tallystick.backup(tmp_path / "data", tmp_path / "made.tar", marks=marks)
    with pytest.raises(NotFoundError, match="tenants/one/queue"):
        tallystick.backup(tmp_path / "data", tmp_path / "other.tar")
    restored = tallystick.restore(tmp_path / "made.tar", tmp_path / "back", keys=tmp_path / "data/keys", marks=marks)

    assert restored.findings == ()
    shutil.copytree(tmp_path / "data/keys", tmp_path / "back/keys")
    with Deployment(tmp_path / "back", marks=marks) as deployment:
        deployment.begin()
        for tenant in ("one", "queue"):
            with deployment.ledger(tenant) as ledger:
                assert drained(ledger) == [f"id-{tenant}"]
