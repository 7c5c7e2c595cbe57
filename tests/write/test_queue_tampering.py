"""What an attacker does to the queue's files without the keys is found and named at open, by `queue stats` and by a
verification; or it is harmless, and shown to be."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import pytest
from click.testing import CliRunner, Result

import tallystick
from tallystick.cli.program import program
from tallystick.core.custody import RetentionPolicy
from tallystick.errors import ConflictError, RejectedError, TamperError
from tallystick.evidence.findings import Kind
from tallystick.write import queue, queue_chain, queue_check, queue_mac, queue_repair, segments
from tallystick.write.journal import Journal
from tallystick.write.queue import Queue
from tallystick.write.queue_check import check_queue, examine
from tallystick.write.queue_copy import copy_queue
from tallystick.write.queue_findings import QueueFinding
from tallystick.write.queue_mac import NO_LINK, Statement
from tallystick.write.queue_mark import MARK_BYTES
from tallystick.write.segments import Frame

EVENTS: Final = 24
SEALED: Final = 8
REFUSED: Final = 3
"""The event that is refused, as its stream has begun."""
SLOT: Final = MARK_BYTES // 2


class Case(NamedTuple):
    """A queue with sealed, refused and waiting events, and what an attacker may have kept from before."""

    ledger: Path
    queue: Path
    older: Path
    """The queue when 12 of its events were there, and none was sealed, and its mark."""
    other: Path
    """The queue of another ledger."""

    @property
    def mark(self) -> Path:
        return mark_of(self.ledger)

    @property
    def segments(self) -> list[Path]:
        return [path for _, path in segments.segments(self.queue)]

    @property
    def ids(self) -> list[str]:
        return [f"id-{number}" for number in range(EVENTS) if number != REFUSED]


def mark_of(ledger: Path) -> Path:
    """The mark of the queue of a ledger, beside its head mark."""
    (found,) = (ledger / "keys/heads").glob("*.queue")
    return found


@contextmanager
def held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tallystick.Ledger]:
    """A ledger of which the queue seals nothing by itself."""
    with monkeypatch.context() as patch:
        patch.setattr(segments, "SEGMENT_BYTES", 4_000)
        patch.setattr(queue, "BATCH_EVENTS", SEALED)
        patch.setattr(Queue, "_drain", lambda _: None)
        with tallystick.open(folder) as ledger:
            yield ledger
            ledger.queue._stopping = True


def publish(ledger: tallystick.Ledger, first: int, end: int) -> None:
    for number in range(first, end):
        version = "none" if number == REFUSED else "any"
        payload = {"number": number, "padding": "x" * 500}
        ledger.publish(event_type="a.b", entity_id="e", id=f"id-{number}", expected_version=version, payload=payload)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    it = Case(tmp_path / "audit", tmp_path / "audit/queue", tmp_path / "older", tmp_path / "other/queue")
    with held(it.ledger, monkeypatch) as ledger:
        ledger.append(event_type="a.b", entity_id="e")
        publish(ledger, 0, 12)
        shutil.copytree(it.queue, it.older)
        shutil.copy(it.mark, it.older / "mark")
        ledger.queue._seal_next()
        publish(ledger, 12, EVENTS)
    with held(tmp_path / "other", monkeypatch) as ledger:
        ledger.append(event_type="a.b", entity_id="e")
        publish(ledger, 0, EVENTS)
    shutil.copy(mark_of(tmp_path / "other"), it.other / "mark")
    assert len(it.segments) >= 4
    return it


def key_of(case: Case) -> bytes:
    with tallystick.open(case.ledger, readonly=True) as ledger:
        return ledger.queue_key()


def run(case: Case, *arguments: str) -> Result:
    return CliRunner().invoke(program, [*arguments, "-l", str(case.ledger)], prog_name="tallystick")


def files_of(case: Case) -> dict[Path, bytes]:
    paths = [*case.queue.rglob("*"), *case.ledger.glob("keys/heads/*.queue")]
    return {path: path.read_bytes() for path in paths if path.is_file() and path.name != "lock"}


def check(case: Case, ledger: tallystick.Ledger) -> tuple[QueueFinding, ...]:
    return check_queue(case.queue, ledger.queue_key(), mark=ledger.queue_mark)


def frames_of(path: Path) -> list[tuple[int, bytes]]:
    """The frames of a segment: where each begins, and its bytes."""
    return [(at, segments.render(frame)) for at, frame in segments.read(path) if frame is not None]


def change(path: Path, at: int, data: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)


def refit(data: bytes) -> bytes:
    """A frame whose body was changed, with a checksum that fits."""
    frame = segments.frame_at(data, 0)
    assert frame is not None
    return segments.render(frame._replace(body=frame.body.replace(b"xxxx", b"yyyy", 1)))


# ----------------------------------------------------------------------------------------------- what is found


def cut_100_bytes(case: Case) -> None:
    change_size(case.segments[-1], -100)


def change_size(path: Path, by: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:by])


def cut_at_the_end_of_a_frame(case: Case) -> None:
    path = case.segments[-1]
    path.write_bytes(path.read_bytes()[: frames_of(path)[-1][0]])


def cut_to_the_head(case: Case) -> None:
    path = case.segments[-1]
    path.write_bytes(path.read_bytes()[: segments.HEAD_BYTES])


def empty_a_segment(case: Case) -> None:
    case.segments[1].write_bytes(b"")


def delete_segment(number: int) -> Callable[[Case], None]:
    return lambda case: case.segments[number].unlink()


def delete_all_segments(case: Case) -> None:
    for path in case.segments:
        path.unlink()


def swap_two_segments(case: Case) -> None:
    one, two = case.segments[1:3]
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)


def rename_a_segment(case: Case) -> None:
    path = case.segments[-1]
    path.rename(segments.segment_path(case.queue, 23))


def put_an_older_segment_back(case: Case) -> None:
    """The segment that was the newest when 12 events were there, and has grown since."""
    _, older = segments.segments(case.older)[-1]
    shutil.copy(older, case.queue / older.name)


def flip_a_byte_and_refit_the_checksum(case: Case) -> None:
    at, data = frames_of(case.segments[1])[1]
    change(case.segments[1], at, refit(data))


def flip_a_byte_of_the_last_frame_and_refit(case: Case) -> None:
    at, data = frames_of(case.segments[-1])[-1]
    change(case.segments[-1], at, refit(data))


def flip_a_byte(case: Case) -> None:
    change(case.segments[1], frames_of(case.segments[1])[1][0] + 100, b"\0\0")


def forge_a_head(case: Case) -> None:
    path = case.segments[2]
    head = queue_mac.peek(queue_mac.Kind.SEGMENT, path.read_bytes()[: segments.HEAD_BYTES])
    change(path, 0, queue_mac.render(queue_mac.Kind.SEGMENT, head, key=b"guessed"))


def swap_two_frames(case: Case) -> None:
    path = case.segments[1]
    (at, one), (_, two), *_ = frames_of(path)
    change(path, at, two + one)


def repeat_a_frame(case: Case) -> None:
    path = case.segments[1]
    (_, one), (at, _), *_ = frames_of(path)
    data = path.read_bytes()
    path.write_bytes(data[:at] + one + data[at:])


def remove_a_frame(case: Case) -> None:
    path = case.segments[1]
    (at, one), *_ = frames_of(path)
    data = path.read_bytes()
    path.write_bytes(data[:at] + data[at + len(one) :])


def replace_a_frame_by_one_of_another_ledger(case: Case) -> None:
    path = case.segments[1]
    for at, data in frames_of(path):
        frame = segments.frame_at(data, 0)
        assert frame is not None
        for _, theirs in segments.segments(case.other):
            for _, other in segments.read(theirs):
                if other is not None and other.sequence == frame.sequence:
                    change(path, at, segments.render(other))
                    return


def cursor_by(sequence: int, *, key: bytes = b"guessed") -> Callable[[Case], None]:
    """A cursor that a forger makes, who knows all but the key."""

    def forge(case: Case) -> None:
        path = case.queue / "cursor"
        good = queue_mac.peek(queue_mac.Kind.CURSOR, path.read_bytes())
        path.write_bytes(queue_mac.render(queue_mac.Kind.CURSOR, good._replace(sequence=sequence), key=key))

    return forge


def raise_the_cursor_in_place(case: Case) -> None:
    """The number alone, with a checksum that fits."""
    path = case.queue / "cursor"
    data = path.read_bytes()
    good = queue_mac.peek(queue_mac.Kind.CURSOR, data)
    forged = queue_mac.render(queue_mac.Kind.CURSOR, good._replace(sequence=20), key=b"guessed")
    path.write_bytes(forged[: -queue_mac.MAC_BYTES] + data[-queue_mac.MAC_BYTES :])


def write_the_older_format_of_a_cursor(case: Case) -> None:
    (case.queue / "cursor").write_bytes(b"20\n")


def delete(name: str) -> Callable[[Case], None]:
    return lambda case: (case.queue / name).unlink()


def another_ledgers(*names: str) -> Callable[[Case], None]:
    def bring(case: Case) -> None:
        for name in names:
            shutil.copy(case.other / name, case.queue / name)

    return bring


def another_ledgers_queue(case: Case) -> None:
    shutil.rmtree(case.queue)
    shutil.copytree(case.other, case.queue)


def another_ledgers_queue_without_our_mark(case: Case) -> None:
    another_ledgers_queue(case)
    case.mark.unlink()


def put_the_older_mark_back(case: Case) -> None:
    shutil.copy(case.older / "mark", case.mark)


def delete_the_mark(case: Case) -> None:
    case.mark.unlink()


def change_a_byte_of_the_mark(case: Case) -> None:
    change(case.mark, 60, bytes([case.mark.read_bytes()[60] ^ 1]))


def replace_the_mark_by_another_ledgers(case: Case) -> None:
    shutil.copy(case.other / "mark", case.mark)


def put_the_older_queue_back(case: Case) -> None:
    """All of it, as an attacker does who can write the ledger's directory, and not that of the marks."""
    shutil.rmtree(case.queue)
    shutil.copytree(case.older, case.queue, ignore=shutil.ignore_patterns("mark"))


def put_the_older_queue_back_with_a_mark(case: Case) -> None:
    """The same, with a mark of that time, as a backup has it."""
    shutil.rmtree(case.queue)
    shutil.copytree(case.older, case.queue)


def delete_the_queue(case: Case) -> None:
    shutil.rmtree(case.queue)


def copy_a_slot_of_the_mark_over_the_other(case: Case) -> None:
    data = case.mark.read_bytes()
    case.mark.write_bytes(data[:SLOT] + data[:SLOT])


def zero_the_newest_slot(case: Case) -> None:
    """As a power cut while it is written may leave it; the event that it was about is there."""
    data = case.mark.read_bytes()
    slots = [queue_mac.peek(queue_mac.Kind.MARK, data[at : at + queue_mac.STATEMENT_BYTES]) for at in (0, SLOT)]
    change(case.mark, 0 if slots[0].number > slots[1].number else SLOT, bytes(SLOT))


def zero_the_newest_slot_and_cut(case: Case) -> None:
    zero_the_newest_slot(case)
    cut_at_the_end_of_a_frame(case)


def shorten_the_mark(case: Case) -> None:
    change_size(case.mark, -1)


def forge_the_mark(case: Case) -> None:
    """A mark that says less, so that events can be cut off."""
    path = case.mark
    good = queue_mac.peek(queue_mac.Kind.MARK, path.read_bytes()[: queue_mac.STATEMENT_BYTES])
    forged = queue_mac.render(queue_mac.Kind.MARK, good._replace(sequence=9, number=100), key=b"guessed")
    change(path, 0, forged)
    delete_segment(-1)(case)


def forge_a_refusal(case: Case) -> None:
    """An event that waits, said to be refused; and the cursor cannot be made to fit."""
    path = case.queue / "refused.jsonl"
    line = json.dumps({"sequence": 5, "why": "no", "mac": "00" * 16}, separators=(",", ":"))
    path.write_bytes(line.encode() + b"\n" + path.read_bytes())


def alter_a_refusal(case: Case) -> None:
    """The refusal of one event, turned into that of a sealed one."""
    path = case.queue / "refused.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"sequence":3', b'"sequence":5'))


def forge_a_repair(case: Case) -> None:
    folder = case.queue / "repaired-7"
    folder.mkdir()
    for name in ("cursor", "mark", "refused.jsonl"):
        shutil.copy(case.older / name, folder / name)
    shutil.copy(segments.segment_path(case.older, 0), folder / segments.segment_path(case.older, 0).name)


def forge_a_repair_with_an_order(case: Case) -> None:
    forge_a_repair(case)
    order = queue_mac.render(queue_mac.Kind.REPAIR, Statement(b"q" * 16, 0, NO_LINK, 7), key=b"guessed")
    (case.queue / "repaired-7/order").write_bytes(order)


def forge_a_repaired_segment_of_the_older_format(case: Case) -> None:
    (case.queue / "repaired-8-7").write_bytes(b"tallystick-queue/1\n")


def write_a_segment_of_the_older_format(case: Case) -> None:
    case.segments[-1].write_bytes(b"tallystick-queue/1\n")


MARK: Final = "the mark's name"
"""What stands for the name of the file in a finding."""

FOUND: Final[dict[str, tuple[Callable[[Case], None], str, str]]] = {
    "100 bytes cut off": (cut_100_bytes, "checksum", "segment-"),
    "cut at the end of a frame": (cut_at_the_end_of_a_frame, "missing", "segment-"),
    "cut to the head": (cut_to_the_head, "missing", "segment-"),
    "a segment emptied": (empty_a_segment, "checksum", "segment-"),
    "the first segment deleted": (delete_segment(0), "missing", "segment-"),
    "a segment in the middle deleted": (delete_segment(2), "missing", "segment-"),
    "the last segment deleted": (delete_segment(-1), "missing", "segment-"),
    "all segments deleted": (delete_all_segments, "missing", "segments"),
    "two segments swapped": (swap_two_segments, "altered", "segment-"),
    "a segment renamed": (rename_a_segment, "altered", "segment-"),
    "an older copy of a segment put back": (put_an_older_segment_back, "missing", "segment-"),
    "a byte changed, the checksum fitted": (flip_a_byte_and_refit_the_checksum, "altered", "segment-"),
    "the same in the last frame": (flip_a_byte_of_the_last_frame_and_refit, "altered", "segment-"),
    "a byte changed": (flip_a_byte, "checksum", "segment-"),
    "a head forged": (forge_a_head, "altered", "segment-"),
    "two frames swapped": (swap_two_frames, "missing", "segment-"),
    "a frame repeated": (repeat_a_frame, "missing", "segment-"),
    "a frame removed": (remove_a_frame, "missing", "segment-"),
    "a frame of another ledger": (replace_a_frame_by_one_of_another_ledger, "altered", "segment-"),
    "a higher cursor": (cursor_by(20), "cursor", "cursor"),
    "a cursor past the end": (cursor_by(1_000), "cursor", "cursor"),
    "a lower cursor, forged": (cursor_by(0), "cursor", "cursor"),
    "a cursor of which the number was raised": (raise_the_cursor_in_place, "cursor", "cursor"),
    "a cursor of the older format": (write_the_older_format_of_a_cursor, "old-format", "cursor"),
    "the cursor deleted": (delete("cursor"), "cursor", "cursor"),
    "another ledger's cursor": (another_ledgers("cursor"), "cursor", "cursor"),
    "the mark deleted": (delete_the_mark, "mark", MARK),
    "a byte of the mark changed": (change_a_byte_of_the_mark, "mark", MARK),
    "another ledger's mark": (replace_the_mark_by_another_ledgers, "mark", MARK),
    "another ledger's queue": (another_ledgers_queue, "cursor", "cursor"),
    "another ledger's queue, our mark deleted": (another_ledgers_queue_without_our_mark, "mark", "mark"),
    "an older mark put back": (put_the_older_mark_back, "mark", MARK),
    "a slot of the mark copied": (copy_a_slot_of_the_mark_over_the_other, "mark", MARK),
    "the newest slot zeroed and its event cut off": (zero_the_newest_slot_and_cut, "mark", MARK),
    "the mark shortened": (shorten_the_mark, "mark", MARK),
    "the mark forged and events cut off": (forge_the_mark, "mark", MARK),
    "the whole queue put back as it was": (put_the_older_queue_back, "missing", "segment-"),
    "the whole queue put back with an older mark in it": (put_the_older_queue_back_with_a_mark, "missing", "segment-"),
    "the whole queue deleted": (delete_the_queue, "missing", "segments"),
    "a refusal added": (forge_a_refusal, "refused", "refused.jsonl"),
    "a refusal altered": (alter_a_refusal, "refused", "refused.jsonl"),
    "the refusals deleted": (delete("refused.jsonl"), "refused", "refused.jsonl"),
    "a repair forged": (forge_a_repair, "repair", "repaired-7"),
    "a repair forged, with an order": (forge_a_repair_with_an_order, "repair", "repaired-7"),
    "a repair of the older format": (forge_a_repaired_segment_of_the_older_format, "repair", "repaired-8-7"),
    "a segment of the older format": (write_a_segment_of_the_older_format, "old-format", "segment-"),
}


@pytest.mark.parametrize("what", FOUND)
def test_tampering_is_found_and_named_wherever_one_looks_and_nothing_is_sealed(case: Case, what: str) -> None:
    tamper, kind, file = FOUND[what]
    mark = case.mark.name
    tamper(case)
    file = mark if file == MARK else file
    before = files_of(case)
    with tallystick.open(case.ledger, readonly=True) as ledger:
        size, findings = ledger.size, check(case, ledger)

    assert any(one.kind == kind and one.file.startswith(file) for one in findings), findings
    told = next(one for one in findings if one.kind == kind)
    shown = "".join(f"DAMAGED  {told.file}: {told.seen}".split())

    with tallystick.open(case.ledger) as ledger, pytest.raises(TamperError, match=told.file):
        ledger.publish(event_type="a.b", entity_id="e")
    stats = run(case, "queue", "stats")
    assert stats.exit_code == 1
    assert shown in "".join(stats.output.split())
    listed = json.loads(run(case, "queue", "stats", "--json").output)["findings"]
    assert listed == [one.to_json() for one in findings]
    verified = run(case, "verify", "--json")
    assert verified.exit_code == 1
    assert {one["kind"] for one in json.loads(verified.output)["findings"]} == {Kind.QUEUE}
    drained = run(case, "queue", "drain")
    assert (drained.exit_code, "Traceback" in drained.output) == (1, False)
    with tallystick.open(case.ledger, readonly=True) as ledger:
        assert ledger.size == size
    assert files_of(case) == before


# --------------------------------------------------------------------------------------------- what is harmless


def put_the_older_cursor_back(case: Case) -> None:
    """With what it points to, as a power cut may leave it."""
    shutil.copy(case.older / "cursor", case.queue / "cursor")
    for path in case.older.glob("segment-*.q"):
        if path.name < case.segments[0].name:
            shutil.copy(path, case.queue / path.name)


def put_a_sealed_segment_back(case: Case) -> None:
    first = segments.segment_path(case.older, 0)
    shutil.copy(first, case.queue / first.name)


def add_a_line_to_the_refusals(case: Case) -> None:
    with (case.queue / "refused.jsonl").open("ab") as file:
        file.write(b'{"sequence":9,"why":"no","mac":"' + b"00" * 16 + b'"}\n')


def add_a_torn_frame(case: Case) -> None:
    with case.segments[-1].open("ab") as file:
        file.write(segments.render(Frame(EVENTS, EVENTS, 0, b"forged", NO_LINK, NO_LINK)))


def alter_what_is_sealed(case: Case) -> None:
    """In the segment in which the cursor is, an event before it."""
    for path in case.segments:
        for at, frame in segments.read(path):
            if frame is not None and frame.sequence < SEALED:
                change(path, at + 100, b"!")
                return
    raise AssertionError("there is none")


def leave_other_files(case: Case) -> None:
    (case.queue / "notes.txt").write_text("x")
    (case.queue / "segment-7.q").write_text("x")
    (case.queue / "damaged-7").mkdir()


HARMLESS: Final = {
    "an older cursor put back": put_the_older_cursor_back,
    "a sealed segment put back": put_a_sealed_segment_back,
    "a refusal added behind the cursor's": add_a_line_to_the_refusals,
    "a forged frame at the end": add_a_torn_frame,
    "what is sealed altered": alter_what_is_sealed,
    "the newest slot of the mark zeroed": zero_the_newest_slot,
    "other files": leave_other_files,
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_not_found_changes_nothing(case: Case, what: str) -> None:
    HARMLESS[what](case)

    with tallystick.open(case.ledger, readonly=True) as ledger:
        assert check(case, ledger) == ()
    assert run(case, "queue", "stats").exit_code == 0
    with tallystick.open(case.ledger) as ledger:
        ledger.queue.drain(seconds=20)
        ids = [record.id for record in ledger.read() if record.id.startswith("id-")]
        assert ids == case.ids
        assert ledger.queue.progress(f"{REFUSED}.id-{REFUSED}").state == "refused"
        assert [ledger.queue.progress(f"{n}.id-{n}").state for n in (0, 5, 9, 23)] == ["sealed"] * 4
        assert ledger.verify().findings == ()


# ------------------------------------------------------------------------------------------- a mark that lies elsewhere


def test_a_whole_queue_put_back_is_found_by_a_mark_that_lies_elsewhere(tmp_path: Path) -> None:
    folder, mark, key = tmp_path / "queue", tmp_path / "marks/one.mark", b"k" * 32

    def fill(count: int) -> None:
        journal = Journal(folder, key=key, mark=mark)
        for _ in range(count):
            journal.sync(journal.append([b"x" * 50], now=1) + 1)
        journal.close()

    fill(3)
    shutil.copytree(folder, tmp_path / "older")
    fill(1)
    assert not (folder / "mark").exists()
    assert check_queue(folder, key, mark=mark) == ()

    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "older", folder)
    assert [(one.kind, one.sequence, one.end) for one in check_queue(folder, key, mark=mark)] == [("missing", 3, 4)]
    with pytest.raises(TamperError, match="acknowledged"):
        Journal(folder, key=key, mark=mark)

    shutil.rmtree(folder)
    assert {one.kind for one in check_queue(folder, key, mark=mark)} == {"cursor", "missing"}
    with pytest.raises(TamperError):
        Journal(folder, key=key, mark=mark)

    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "older", folder)
    mark.unlink()
    assert [(one.kind, one.file) for one in check_queue(folder, key, mark=mark)] == [("mark", mark.name)]


def test_the_files_of_a_queue_that_was_deleted_and_begun_again_are_of_another_queue(tmp_path: Path) -> None:
    key = b"k" * 32
    for name in ("one", "two"):
        journal = Journal(tmp_path / name, key=key)
        journal.sync(journal.append([b"x" * 50] * 3, now=1) + 3)
        journal.close()

    for name in ("cursor", "mark", "segment-00000000000000000000.q"):
        shutil.copytree(tmp_path / "two", tmp_path / f"with {name}")
        shutil.copy(tmp_path / "one" / name, tmp_path / f"with {name}" / name)
        assert check_queue(tmp_path / f"with {name}", key), name


# ------------------------------------------------------------------------------------------------------- while it runs


def test_a_frame_that_is_altered_while_the_queue_runs_is_never_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path / "audit", monkeypatch) as ledger:
        publish(ledger, 4, 8)
        (_, path), *_ = segments.segments(tmp_path / "audit/queue")
        at, data = frames_of(path)[2]
        change(path, at, refit(data))

        with pytest.raises(TamperError, match="event 2 of the queue was acknowledged"):
            ledger.queue._seal_next()
        assert [record for record in ledger.read() if record.id.startswith("id-")] == []


def test_a_queue_that_is_checked_while_it_runs_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "audit") as ledger:
        key = ledger.queue_key()
        for number in range(40):
            ledger.publish_many([{"event_type": "a.b", "entity_id": "e", "payload": {"n": n}} for n in range(50)])
            if number % 3 == 0:
                ledger.queue.clear()
            assert check_queue(tmp_path / "audit/queue", key, mark=ledger.queue_mark) == ()
        ledger.queue.drain(seconds=30)
        assert ledger.verify().findings == ()


def test_checks_and_copies_beside_publishers_and_the_sealing_find_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "CLEAR_SECONDS", 0)  # so that segments come and go all the time
    events = [{"event_type": "a.b", "entity_id": "e", "payload": {"padding": "x" * 300}}] * 20
    with tallystick.open(tmp_path / "audit") as ledger:
        key, acknowledged = ledger.queue_key(), [ledger.publish(event_type="a.b", entity_id="e").sequence]

        def work() -> None:
            for _ in range(60):
                acknowledged.append(ledger.publish_many(events)[-1].sequence)

        with ThreadPoolExecutor(max_workers=3) as pool:
            publishers = [pool.submit(work) for _ in range(3)]
            copies = 0
            while not copies or not all(one.done() for one in publishers):
                least = max(acknowledged)
                copy_queue(tmp_path / "audit/queue", tmp_path / f"copy-{copies}", mark=ledger.queue_mark)
                assert check_queue(tmp_path / f"copy-{copies}", key) == ()
                assert examine(tmp_path / f"copy-{copies}", key).end > least
                assert check_queue(tmp_path / "audit/queue", key, mark=ledger.queue_mark) == ()
                copies += 1
            for one in publishers:
                one.result()


def test_a_queue_that_grows_while_it_is_checked_is_not_said_to_be_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that were written after the mark was read say that more was acknowledged than it says."""
    key, follow = b"k" * 32, queue_chain.follow
    journal = Journal(tmp_path, key=key)

    def grown(*given: Any) -> None:
        for _ in range(3):
            journal.sync(journal.append([b"x" * 50], now=1) + 1)
        follow(*given)

    monkeypatch.setattr(queue_check, "follow", grown)

    assert check_queue(tmp_path, key) == ()
    journal.close()


def test_a_frame_that_is_written_while_its_segment_is_read_is_a_torn_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path, key=b"k" * 32)
    journal.append([b"a" * 50, b"b" * 50], now=1)
    journal.close()
    data = segments.segment_path(tmp_path, 0).read_bytes()[segments.HEAD_BYTES :]
    at = len(data) - 10

    class Growing(io.BytesIO):
        """A file that is at its end when it is read, and longer a moment later."""

        reads: ClassVar = [data[:at], b"", data[at:] + data]

        def read(self, _: int | None = -1, /) -> bytes:
            return self.reads.pop(0)

    found = [*segments._frames(Growing(), 0)]

    assert [None if frame is None else frame.sequence for _, frame in found] == [0, None]


# ----------------------------------------------------------------------------------------------------------- plaintext


def anywhere(folder: Path, data: bytes) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and data in path.read_bytes()]


def test_what_is_sealed_leaves_the_disk_with_what_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "CLEAR_SECONDS", 3_600)
    moment = [1_770_000_000_000_000]
    with tallystick.open(tmp_path / "audit", clock=lambda: moment[0]) as ledger:
        ledger.publish(event_type="a.b", entity_id="e", payload={"secret": "very-secret"})
        ledger.queue.drain(seconds=20)
        ledger.retention.set(RetentionPolicy.of("1d"), reason="test")
        moment[0] += 3 * 86_400_000_000
        assert anywhere(tmp_path / "audit/queue", b"very-secret")

        assert ledger.retention.prune().count == 1

        assert anywhere(tmp_path / "audit/queue", b"very-secret") == []
        assert check_queue(tmp_path / "audit/queue", ledger.queue_key(), mark=ledger.queue_mark) == ()


def test_what_is_sealed_leaves_the_disk_when_the_queue_is_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleared, clear = threading.Event(), Journal.clear

    def clear_and_say(journal: Journal) -> None:
        clear(journal)
        if journal.cursor == 1:
            cleared.set()

    monkeypatch.setattr(queue, "CLEAR_SECONDS", 0)
    monkeypatch.setattr(Journal, "clear", clear_and_say)
    with tallystick.open(tmp_path / "audit") as ledger:
        ledger.publish(event_type="a.b", entity_id="e", payload={"secret": "very-secret"})

        assert cleared.wait(20)
        assert anywhere(tmp_path / "audit/queue", b"very-secret") == []
        assert check_queue(tmp_path / "audit/queue", ledger.queue_key(), mark=ledger.queue_mark) == ()


def test_what_is_sealed_is_overwritten_before_it_is_removed(tmp_path: Path) -> None:
    """Another name of the same file shows what the disk keeps."""
    journal = Journal(tmp_path, key=b"k" * 32)
    journal.sync(journal.append([b"very-secret" * 9], now=1) + 1)
    (tmp_path / "other name").hardlink_to(segments.segment_path(tmp_path, 0))
    journal.done(journal.next(1), {})

    journal.clear()

    data = (tmp_path / "other name").read_bytes()
    assert data == bytes(len(data))
    assert not segments.segment_path(tmp_path, 0).exists()
    journal.close()


def test_what_is_sealed_leaves_the_disk_when_the_queue_is_closed(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "audit") as ledger:
        ledger.publish(event_type="a.b", entity_id="e", payload={"secret": "very-secret"})
        ledger.queue.drain(seconds=20)

    assert anywhere(tmp_path / "audit/queue", b"very-secret") == []


def test_a_prune_refuses_while_a_repair_keeps_damaged_files(case: Case) -> None:
    flip_a_byte(case)
    assert run(case, "queue", "repair", "--yes").exit_code == 0
    moment = [9_000_000_000_000_000]
    with tallystick.open(case.ledger, clock=lambda: moment[0]) as ledger:
        ledger.queue.drain(seconds=20)
        ledger.retention.set(RetentionPolicy.of("1d"), reason="test")
        moment[0] += 3 * 86_400_000_000
        size = ledger.size

        with pytest.raises(ConflictError, match="damaged-"):
            ledger.retention.prune()

        assert ledger.size == size
        shutil.rmtree(next(case.queue.glob("damaged-*")))
        assert ledger.retention.prune().count > 0


def test_a_backup_has_nothing_that_is_sealed_and_nothing_that_a_repair_kept(case: Case, tmp_path: Path) -> None:
    (case.queue / "damaged-7").mkdir()
    (case.queue / "damaged-7/segment-00000000000000000000.q").write_bytes(b"id-1")

    made = tallystick.backup(case.ledger, tmp_path / "made").path

    assert anywhere(made / "queue", b'"number":7') == []
    assert anywhere(made / "queue", b'"number":8') != []
    assert anywhere(made / "queue", b'"number":23') != []
    assert list(made.rglob("damaged-*")) == []
    assert check_queue(made / "queue", key_of(case)) == ()


# ---------------------------------------------------------------------------------------------------------------- keys


def test_without_the_keys_nothing_is_said_of_a_queue(case: Case, tmp_path: Path) -> None:
    (case.ledger / "keys").rename(tmp_path / "keys")

    for command in (("queue", "stats"), ("queue", "repair"), ("queue", "repair", "--yes")):
        result = run(case, *command)
        assert result.exit_code == 2
        assert "could not be authenticated" in result.output
    assert run(case, "queue", "stats", "--keys", str(tmp_path / "keys")).exit_code == 0


def test_keys_of_another_ledger_open_no_queue_and_make_none(case: Case, tmp_path: Path) -> None:
    keys = case.ledger / "keys"
    keys.rename(tmp_path / "keys")
    shutil.copytree(case.other.parent / "keys", keys)
    before = files_of(case)

    with tallystick.open(case.ledger) as ledger, pytest.raises(RejectedError, match="not the one"):
        ledger.publish(event_type="a.b", entity_id="e")

    assert run(case, "queue", "stats").exit_code == 2
    assert files_of(case) == before


# -------------------------------------------------------------------------------------------------------------- repair


@pytest.mark.parametrize("what", FOUND)
def test_a_repair_keeps_all_that_is_good_and_then_the_queue_goes_on(case: Case, what: str) -> None:
    tamper, kind, _ = FOUND[what]
    tamper(case)

    result = run(case, "queue", "repair", "--yes")

    if kind in ("repair", "old-format"):  # nothing of it is ours to put in force, or to throw away
        assert result.exit_code == 1
        return
    assert result.exit_code == 0, result.output
    with tallystick.open(case.ledger) as ledger:
        assert check(case, ledger) == ()
        ticket = ledger.publish(event_type="a.b", entity_id="e", id="id-after")
        ledger.queue.drain(seconds=20)
        ids = [record.id for record in ledger.read() if record.id.startswith("id-")]
        assert len({*ids}) == len(ids)
        assert ids == [one for one in [*case.ids, "id-after"] if one in ids]
        assert ledger.queue.progress(ticket.id).state == "sealed"
        assert ledger.verify().findings == ()
    assert len(ids) >= SEALED


def test_an_earlier_repair_cannot_be_put_in_force_again(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    flip_a_byte(case)
    with monkeypatch.context() as patch:
        patch.setattr(queue_repair, "finish_repair", lambda *_, **__: None)
        queue_repair.repair(case.queue, key_of(case), now=7, mark=case.mark)
    shutil.copytree(case.queue / "repaired-7", case.queue.parent / "kept")
    assert run(case, "queue", "drain").exit_code == 0
    assert not (case.queue / "repaired-7").exists()

    shutil.copytree(case.queue.parent / "kept", case.queue / "repaired-7")
    before = files_of(case)

    with tallystick.open(case.ledger) as ledger, pytest.raises(TamperError, match="older repair"):
        ledger.publish(event_type="a.b", entity_id="e")
    assert files_of(case) == before
