"""Files of a queue that are replaced while it is repaired, or opened, by whoever can write the data and has no keys."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tallystick.errors import DamagedError, TamperError
from tallystick.write import journal as journals
from tallystick.write import queue_order, queue_repair, segments
from tallystick.write.journal import Journal
from tallystick.write.queue_check import check_queue
from tallystick.write.queue_mac import NO_LINK, Statement
from tallystick.write.queue_mark import make_mark, mark_bytes, read_mark, render_mark, take_mark
from tallystick.write.queue_repair import repair
from tests.test_live_edits import before

KEY: Final = b"k" * 32


class Scene:
    """A queue of thirty events with its mark elsewhere, of which one is damaged; and an older copy with its mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "queue"
        self.mark = folder / "marks/l.queue"
        self.older = folder / "older"
        made = Journal(self.folder, key=KEY, mark=self.mark)
        self.publish(made, 0, 10)
        shutil.copytree(self.folder, self.older)
        shutil.copy(self.mark, self.older / "mark")
        self.publish(made, 10, 30)
        made.close()
        (_, self.segment), *_ = segments.segments(self.folder)
        self.alter(b"pay alice     3", b"pay alice     ?")

    def publish(self, journal: Journal, first: int, end: int) -> None:
        journal.sync(journal.append([b"pay alice %5d" % number for number in range(first, end)], now=1) + end - first)

    def alter(self, old: bytes, new: bytes) -> None:
        data = self.segment.read_bytes()
        assert old in data
        self.segment.write_bytes(data.replace(old, new))

    def forge(self) -> None:
        """Write another event in the place of one that is good; its checksum fits."""
        for at, frame in segments.read(self.segment):
            if frame is not None and frame.sequence == 20:
                forged = segments.render(frame._replace(body=frame.body.replace(b"alice", b"mallo")))
                with self.segment.open("r+b") as file:
                    file.seek(at)
                    file.write(forged)
                return
        raise AssertionError("it is there")

    def repair(self) -> Any:
        return repair(self.folder, KEY, now=7, mark=self.mark)

    def bodies(self) -> list[bytes]:
        opened = Journal(self.folder, key=KEY, mark=self.mark)
        found = [frame.body for frame in opened.next(100)]
        opened.close()
        return found

    @property
    def expected(self) -> list[bytes]:
        return [segments.LOST if number == 3 else b"pay alice %5d" % number for number in range(30)]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_frame_that_is_altered_between_two_looks_gets_no_mac_of_ours(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = scene.mark.read_bytes()
    before(monkeypatch, queue_repair, "NewFile", scene.forge)
    with pytest.raises(TamperError, match="event 20 was altered, or taken away, while the queue was repaired"):
        scene.repair()
    assert scene.mark.read_bytes() == mark
    assert not [*scene.folder.glob("repaired-*")]

    assert [one.sequence for one in scene.repair()] == [3, 20], "it is damage now, as any other"
    assert scene.bodies() == [segments.LOST if number == 20 else body for number, body in enumerate(scene.expected)]


def test_a_segment_that_is_gone_between_two_looks_is_an_error(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    before(monkeypatch, queue_repair, "NewFile", scene.segment.unlink)
    with pytest.raises(TamperError, match="was altered, or taken away, while the queue was repaired"):
        scene.repair()


def test_what_is_taken_away_after_it_was_told_what_is_lost_is_not_lost_in_silence(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    before(monkeypatch, queue_repair, "_good_frames", scene.forge)
    with pytest.raises(TamperError, match="event 20 was altered, or taken away, while the queue was repaired"):
        scene.repair()


def put_older(scene: Scene, folder: Path) -> None:
    """All of an older queue in the place of the repaired one."""
    for path in scene.older.iterdir():
        if path.name != "lock":
            shutil.copy(path, folder / path.name)


def put_one(name: str) -> Callable[[Scene, Path], None]:
    def put(scene: Scene, folder: Path) -> None:
        [path] = folder.glob(name)
        path.write_bytes((scene.older / path.name).read_bytes() or b"mine")

    return put


def put_pipe(_: Scene, folder: Path) -> None:
    (folder / "cursor").unlink()
    os.mkfifo(folder / "cursor")


def put_link(scene: Scene, folder: Path) -> None:
    (folder / "cursor").unlink()
    (folder / "cursor").symlink_to(scene.mark)


def take_away(_: Scene, folder: Path) -> None:
    for path in folder.glob("segment-*"):
        path.unlink()


@pytest.mark.parametrize("when", ["before it has its name", "while it is put in place", "after it was put in place"])
@pytest.mark.parametrize(
    "put", [put_older, put_one("segment-*"), put_one("cursor"), put_one("refused.jsonl"), put_pipe, put_link, take_away]
)
def test_nothing_is_put_in_force_but_what_the_repair_wrote(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, put: Callable[[Scene, Path], None], when: str
) -> None:
    mark = scene.mark.read_bytes()
    if when == "before it has its name":
        render = queue_order.Order.render

        def rendered(self: queue_order.Order, key: bytes) -> bytes:
            put(scene, scene.folder / ".repairing")
            return render(self, key)

        monkeypatch.setattr(queue_order.Order, "render", rendered)
    elif when == "while it is put in place":
        place = queue_repair._put_in_place

        def in_place(folder: Path, repaired: Path, order: queue_order.Order) -> Path:
            put(scene, repaired)
            return place(folder, repaired, order)

        monkeypatch.setattr(queue_repair, "_put_in_place", in_place)
    else:
        renames = Path.rename

        def renamed(self: Path, target: Path) -> Path:
            result = renames(self, target)
            if self.name == "cursor" and self.parent.name.startswith("repaired"):
                put(scene, scene.folder)
            return result

        monkeypatch.setattr(Path, "rename", renamed)

    with pytest.raises(TamperError, match=r"the queue is not repaired: .* of the repair repaired-7"):
        scene.repair()
    monkeypatch.undo()
    assert scene.mark.read_bytes() == mark, "what was acknowledged is known still"
    with pytest.raises((TamperError, DamagedError)):
        Journal(scene.folder, key=KEY, mark=scene.mark)


@pytest.mark.parametrize("alter", [lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:-1] + b"x"])
def test_an_order_is_whole_or_none(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, alter: Callable[[bytes], bytes]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(queue_repair, "finish_repair", lambda *_, **__: None)
        scene.repair()
    order = scene.folder / "repaired-7/order"
    data = order.read_bytes()
    order.write_bytes(alter(data))

    with pytest.raises(TamperError, match="it does not name the files that were written with it"):
        Journal(scene.folder, key=KEY, mark=scene.mark)

    order.write_bytes(data)
    assert scene.bodies() == scene.expected


def test_a_repair_by_a_mark_that_a_backup_brought_writes_its_own_where_marks_are(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.mark.rename(scene.folder / "mark")
    make = make_mark

    def then_put_back(path: Path, data: bytes) -> None:
        make(path, data)
        shutil.copy(scene.older / "mark", scene.folder / "mark")

    monkeypatch.setattr(queue_repair, "make_mark", then_put_back)
    scene.repair()

    assert not (scene.folder / "mark").exists()
    newest = read_mark(scene.mark, key=KEY).newest
    assert newest is not None
    assert newest.sequence == 30
    assert scene.bodies() == scene.expected


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_mark_that_a_backup_brought_is_taken_as_it_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    made = Journal(tmp_path / "queue", key=KEY)
    for number in range(writes + 1):
        made.sync(made.append([b"%d" % number], now=1) + 1)
    made.close()
    brought = read_mark(tmp_path / "queue/mark", key=KEY).newest
    assert brought is not None
    older = render_mark(Statement(brought.queue, 1, NO_LINK, 1), key=KEY)
    take = take_mark

    def altered(*given: Any, **more: Any) -> Path:
        (tmp_path / "queue/mark").write_bytes(older)
        return take(*given, **more)

    monkeypatch.setattr(journals, "take_mark", altered)
    Journal(tmp_path / "queue", key=KEY, mark=tmp_path / "marks/l.queue").close()

    newest = read_mark(tmp_path / "marks/l.queue", key=KEY).newest
    assert newest is not None
    assert (newest.sequence, newest.link) == (brought.sequence, brought.link)
    assert mark_bytes(tmp_path / "queue/mark") is None
    again = Journal(tmp_path / "queue", key=KEY, mark=tmp_path / "marks/l.queue")
    again.sync(again.append([b"more"], now=1) + 1)
    again.close()
    assert check_queue(tmp_path / "queue", KEY, mark=tmp_path / "marks/l.queue") == ()
