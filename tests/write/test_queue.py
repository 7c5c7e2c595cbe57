"""The queue: what it took is durable, sealed once and in order, whatever dies; what it cannot take, it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallystick
from tallystick import durable
from tallystick.clock import wall_clock
from tallystick.errors import (
    BusyError,
    ConflictError,
    NotFoundError,
    RejectedError,
    StoreError,
    TamperError,
)
from tallystick.ids import IdMaker
from tallystick.write import journal, queue_mac, queue_repair, segments
from tallystick.write.accept import Acceptor
from tallystick.write.draft import Draft
from tallystick.write.journal import Journal
from tallystick.write.queue import Queue
from tallystick.write.queue_mac import Kind
from tallystick.write.queue_repair import look, repair
from tallystick.write.request import Sealed


class Ledger:
    """A ledger that remembers what was sealed, once an id, and fails when it is told so."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.calls = 0
        self.fail: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()

    def seal(self, drafts: Sequence[Draft]) -> list[Sealed | ConflictError]:
        self.gate.wait(10)
        self.calls += 1
        if self.fail:
            raise self.fail.pop(0)
        for draft in drafts:
            if draft.id not in self.ids and draft.expected_version == "any":
                self.ids.append(draft.id)
        return [
            Sealed(self.ids.index(draft.id), draft.id, draft.entity_id, 1, "", b"")
            if draft.expected_version == "any"
            else ConflictError("it was to be the first")
            for draft in drafts
        ]

    def find(self, event_id: str) -> int | None:
        return self.ids.index(event_id) if event_id in self.ids else None


ACCEPTOR = Acceptor(IdMaker())


def draft(number: int = 0, **more: object) -> Draft:
    return ACCEPTOR.accept({"event_type": "a.b", "entity_id": f"e{number % 3}", "payload": {"n": number}, **more})


KEY = b"k" * 32


def opened(folder: Path, ledger: Ledger, **bounds: Any) -> Queue:
    return Queue(folder, key=KEY, seal=ledger.seal, find=ledger.find, clock=wall_clock, **bounds)


def bodies(folder: Path) -> list[bytes]:
    frames = [frame for _, path in segments.segments(folder) for _, frame in segments.read(path)]
    return [frame.body for frame in frames if frame is not None]


def test_what_is_accepted_is_sealed_in_order_and_its_ticket_says_so(tmp_path: Path) -> None:
    ledger = Ledger()
    queue = opened(tmp_path, ledger)
    drafts = [draft(number) for number in range(50)]

    tickets = [queue.accept([one])[0] for one in drafts]
    outcomes = [queue.wait(ticket, seconds=5) for ticket in tickets]

    assert ledger.ids == [one.id for one in drafts]
    assert [(outcome.state, outcome.position) for outcome in outcomes] == [("sealed", n) for n in range(50)]
    assert [ticket.sequence for ticket in tickets] == [*range(50)]
    queue.close()


def test_a_ticket_tells_that_it_waits_and_one_that_was_never_given_is_none(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.gate.clear()
    queue = opened(tmp_path, ledger)
    (ticket,) = queue.accept([draft()])

    assert queue.progress(ticket.id).state == "queued"
    with pytest.raises(BusyError, match="still queued"):
        queue.wait(ticket, seconds=0.05)
    with pytest.raises(BusyError, match="1 events are still queued"):
        queue.drain(seconds=0.05)
    with pytest.raises(NotFoundError):
        queue.progress("7.nobody")
    for wrong in ("", "7", "x.y", "-1.a", "²." + ticket.event_id, "9" * 40 + ".a"):
        with pytest.raises(RejectedError, match="not a ticket"):
            queue.progress(wrong)
    ledger.gate.set()
    queue.close()
    assert ledger.ids == [ticket.event_id]


def test_what_conflicts_when_its_turn_comes_is_refused_and_holds_up_nothing(tmp_path: Path) -> None:
    ledger = Ledger()
    queue = opened(tmp_path, ledger)

    tickets = queue.accept([draft(0), draft(1, expected_version="none"), draft(2)])
    outcomes = [queue.wait(ticket, seconds=5) for ticket in tickets]

    assert [outcome.state for outcome in outcomes] == ["sealed", "refused", "sealed"]
    assert outcomes[1].why == "it was to be the first"
    assert (queue.stats().sealed, queue.stats().conflicts) == (2, 1)
    queue.close()
    again = opened(tmp_path, ledger)
    assert again.progress(tickets[1].id).state == "refused"
    again.close()


def test_a_full_queue_refuses_and_drops_nothing(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.gate.clear()
    queue = opened(tmp_path, ledger, events_max=3)
    queue.accept([draft(0), draft(1)])

    with pytest.raises(BusyError, match="2 events wait"):
        queue.accept([draft(2), draft(3)])
    queue.accept([draft(4)])

    assert (queue.stats().depth, queue.stats().refused, queue.stats().accepted) == (3, 2, 3)
    assert queue.stats().oldest_seconds >= 0
    ledger.gate.set()
    queue.drain(seconds=5)
    assert len(ledger.ids) == 3
    queue.close()


def test_a_queue_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.gate.clear()
    queue = opened(tmp_path, ledger, bytes_max=1_000)

    with pytest.raises(BusyError):
        queue.accept([draft(number) for number in range(10)])

    assert queue.stats().depth == 0
    ledger.gate.set()
    queue.close()


def test_a_store_that_fails_is_tried_again_until_it_works(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.fail = [StoreError("the disk"), BusyError("the lock"), StoreError("again")]
    queue = opened(tmp_path, ledger)

    (ticket,) = queue.accept([draft()])

    assert queue.wait(ticket, seconds=10).state == "sealed"
    assert ledger.calls == 4
    assert queue.stats().problem is None
    queue.close()


def test_a_ledger_that_does_not_hold_stops_the_sealing_and_says_why(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.fail = [TamperError("the head was altered")]
    queue = opened(tmp_path, ledger)

    queue.accept([draft()])

    with pytest.raises(BusyError, match="the head was altered"):
        queue.drain(seconds=5)
    assert queue.stats().problem == "the head was altered"
    queue.close(seconds=1)
    assert ledger.ids == []
    again = opened(tmp_path, ledger)
    again.drain(seconds=5)
    assert len(ledger.ids) == 1
    again.close()


def test_an_older_cursor_seals_again_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "clear", lambda _: None)  # so that what it points to is still there
    ledger = Ledger()
    queue = opened(tmp_path, ledger)
    older = (tmp_path / "cursor").read_bytes()
    queue.accept([draft(number) for number in range(10)])
    queue.close()
    ids, calls = [*ledger.ids], ledger.calls

    (tmp_path / "cursor").write_bytes(older)
    again = opened(tmp_path, ledger)
    again.drain(seconds=5)

    assert ledger.ids == ids
    assert ledger.calls > calls
    again.close()


def test_one_process_has_the_queue_at_a_time(tmp_path: Path) -> None:
    queue = opened(tmp_path, Ledger())

    with pytest.raises(BusyError, match="another process has the queue"):
        opened(tmp_path, Ledger())

    queue.close()
    opened(tmp_path, Ledger()).close()


def test_many_threads_are_each_in_order_and_nothing_is_lost(tmp_path: Path) -> None:
    ledger = Ledger()
    queue = opened(tmp_path, ledger)

    def publish(thread: int) -> list[str]:
        return [queue.accept([draft(thread)])[0].event_id for _ in range(40)]

    with ThreadPoolExecutor(max_workers=8) as pool:
        published = [*pool.map(publish, range(8))]
    queue.drain(seconds=20)

    assert sorted(ledger.ids) == sorted(one for each in published for one in each)
    for each in published:
        assert [one for one in ledger.ids if one in {*each}] == each
    queue.close()


def test_segments_go_when_all_in_them_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 2_000)
    ledger = Ledger()
    queue = opened(tmp_path, ledger)

    for number in range(60):
        queue.accept([draft(number)])
    queue.drain(seconds=5)

    assert len(ledger.ids) == 60
    assert len(segments.segments(tmp_path)) <= 2
    queue.close()
    again = opened(tmp_path, ledger)
    again.accept([draft(99)])
    again.close()
    assert len(ledger.ids) == 61


def test_a_segment_goes_only_when_the_cursor_past_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may bring back an older cursor: what that points to has to be there."""
    written, on_disk, gone = 0, 0, []

    def replaced(path: Path, data: bytes) -> None:
        nonlocal written
        durable.replace(path, data)
        if path.name == "cursor":
            written = queue_mac.peek(Kind.CURSOR, data).sequence

    def synced_folder(folder: Path) -> None:
        nonlocal on_disk
        durable.sync_folder(folder)
        on_disk = written

    erase = segments.erase

    def erased(paths: list[Path]) -> None:
        for path in paths:
            last = max(frame.sequence for _, frame in segments.read(path) if frame is not None)
            gone.append(last < on_disk)
        erase(paths)

    monkeypatch.setattr(segments, "SEGMENT_BYTES", 2_000)
    monkeypatch.setattr(journal, "replace", replaced)
    monkeypatch.setattr(journal, "sync_folder", synced_folder)
    monkeypatch.setattr(segments, "erase", erased)
    queue = opened(tmp_path, Ledger())
    for number in range(60):
        queue.accept([draft(number)])
    queue.drain(seconds=5)
    queue.close()

    assert gone
    assert all(gone)


# --------------------------------------------------------------------------------------- torn, and damaged


def filled(folder: Path, groups: Sequence[int] = (3, 2, 4), *, unmarked: int = 0) -> list[bytes]:
    """A journal of some groups, each acknowledged before the next, then frames that are not; nothing is sealed. All
    frames."""
    made = Journal(folder, key=KEY)
    for group in groups:
        first = made.append([b"x" * (40 + made.end % 7) for _ in range(group)], now=5)
        made.sync(first + group)
    if unmarked:
        made.append([b"y" * (40 + number % 7) for number in range(unmarked)], now=5)
    made.close()
    (_, path), *_ = segments.segments(folder)
    return [segments.render(frame) for _, frame in segments.read(path) if frame is not None]


@pytest.mark.parametrize("cut", range(1, 437, 3))
def test_a_torn_tail_that_was_not_acknowledged_is_cut_back_to_the_last_whole_frame(tmp_path: Path, cut: int) -> None:
    rendered = filled(tmp_path, (3, 2), unmarked=4)
    (_, path), *_ = segments.segments(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])

    reopened = Journal(tmp_path, key=KEY)

    kept, size = 0, len(whole) - cut - segments.HEAD_BYTES
    while size >= len(rendered[kept]):
        size -= len(rendered[kept])
        kept += 1
    assert reopened.end == kept >= 5
    first = reopened.append([b"next"], now=9)
    reopened.sync(first + 1)
    reopened.close()
    assert first == kept
    assert bodies(tmp_path)[-1] == b"next"
    assert look(tmp_path, KEY).findings == ()


@pytest.mark.parametrize("cut", [1, 5, 100, 130, 300, 10_000])
def test_a_tail_that_was_acknowledged_is_never_cut_off(tmp_path: Path, cut: int) -> None:
    filled(tmp_path, (3, 2))
    (_, path), *_ = segments.segments(tmp_path)
    data = path.read_bytes()[: max(-cut, segments.HEAD_BYTES - path.stat().st_size) or None]
    path.write_bytes(data)

    with pytest.raises(TamperError, match="acknowledged"):
        Journal(tmp_path, key=KEY)

    assert path.read_bytes() == data


def test_what_was_never_acknowledged_is_torn_though_a_later_frame_is_whole(tmp_path: Path) -> None:
    rendered = filled(tmp_path, (3,), unmarked=3)
    (_, path), *_ = segments.segments(tmp_path)
    good = path.read_bytes()[: -sum(map(len, rendered[3:]))]
    path.write_bytes(good + b"\0" * len(rendered[3]) + rendered[4] + rendered[5])

    reopened = Journal(tmp_path, key=KEY)

    assert reopened.end == 3
    reopened.close()
    assert path.read_bytes() == good


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_byte_changed_in_what_is_acknowledged_stops_the_queue(at: int, flip: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        filled(folder, (3, 2, 4))
        (_, path), *_ = segments.segments(folder)
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= flip
        path.write_bytes(data)

        with pytest.raises(TamperError, match="the queue is damaged"):
            Journal(folder, key=KEY)
        assert path.read_bytes() == data


def test_a_repair_says_what_it_loses_and_keeps_the_rest_in_its_place(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.gate.clear()
    queue = opened(tmp_path, ledger)
    tickets = [queue.accept([draft(number)])[0] for number in range(6)]
    queue._stopping = True  # as a kill would leave it
    ledger.fail = [TamperError("stopped")] * 2
    ledger.gate.set()
    queue.close(seconds=0.1)
    ledger.fail = []
    (_, path), *_ = segments.segments(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(tickets[2].event_id.encode())] ^= 1
    path.write_bytes(data)

    with pytest.raises(TamperError, match="event 2 was acknowledged"):
        opened(tmp_path, ledger)
    assert [(one.sequence, one.end) for one in look(tmp_path, KEY).findings] == [(2, 3)]
    assert [(one.sequence, one.end) for one in repair(tmp_path, KEY, now=7)] == [(2, 3)]
    assert repair(tmp_path, KEY, now=8) == ()

    again = opened(tmp_path, ledger)
    again.drain(seconds=5)
    assert ledger.ids == [ticket.event_id for number, ticket in enumerate(tickets) if number != 2]
    assert again.progress(tickets[2].id).why == "it was lost when the queue was damaged: send it again"
    assert again.progress(tickets[3].id).state == "sealed"
    again.close()
    assert (tmp_path / "damaged-7" / path.name).read_bytes() == data


def test_a_repair_that_was_cut_short_is_finished_or_was_never_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    (_, path), *_ = segments.segments(tmp_path)
    data = bytearray(path.read_bytes())
    data[segments.HEAD_BYTES + 40] ^= 1
    path.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(queue_repair, "finish_repair", lambda *_, **__: None)
        repair(tmp_path, KEY, now=7)
    assert path.read_bytes() == data

    reopened = Journal(tmp_path, key=KEY)  # which finishes it
    assert reopened.end == 9
    reopened.close()
    assert bodies(tmp_path)[0] == segments.LOST


# ------------------------------------------------------------------------------------------ kill -9, disk


PUBLISHER = """
import os, sys
import tallystick
with tallystick.open(sys.argv[1]) as ledger:
    queue = ledger.queue
    for number in range(100000):
        ticket = ledger.publish(event_type="a.b", entity_id="e", id=f"{sys.argv[2]}-{number}", payload={"n": number})
        os.write(1, f"{ticket.id}\\n".encode())
"""


@pytest.mark.parametrize("run", range(6))
def test_whoever_had_a_ticket_has_a_record_after_kills(tmp_path: Path, run: int) -> None:
    told: list[str] = []
    for attempt in range(3):
        command = [sys.executable, "-c", PUBLISHER, str(tmp_path / "ledger"), f"run{run}.{attempt}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(30 + 37 * run + 11 * attempt):
                told.append(process.stdout.readline().decode().strip())
            os.kill(process.pid, signal.SIGKILL)
            rest = process.stdout.read().decode().split("\n")
            told += [line for line in rest[:-1] if line]

    with tallystick.open(tmp_path / "ledger") as ledger:
        ledger.queue.drain(seconds=30)
        positions = [ledger.queue.progress(ticket).position for ticket in told]
        assert None not in positions
        assert positions == sorted({*positions}, key=lambda at: at or 0)  # each once, and in the order of the tickets
        assert ledger.verify().findings == ()


def test_a_full_disk_refuses_and_keeps_what_was_taken(tmp_path: Path) -> None:
    script = """
        import resource, signal, sys
        from pathlib import Path
        from tallystick.errors import StoreError
        from tallystick.write.journal import Journal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        made = Journal(Path(sys.argv[1]), key=b"k" * 32)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        taken = 0
        for _ in range(200):
            try:
                first = made.append([b"x" * 500], now=1)
                made.sync(first + 1)
                taken += 1
            except StoreError:
                pass
        print(taken, made.end)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, check=True
    )

    taken, end = map(int, done.stdout.split())
    assert 0 < taken == end < 200
    assert bodies(tmp_path) == [b"x" * 500] * taken


def test_an_fsync_that_fails_is_never_papered_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Journal(tmp_path, key=KEY)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        first = made.append([b"x"], now=1)
        with pytest.raises(StoreError, match="could not be made durable"):
            made.sync(first + 1)
    with pytest.raises(StoreError, match="its disk failed"):
        made.append([b"y"], now=1)
    assert made.durable == 0
    made.close()


# ----------------------------------------------------------------------------------------------- the ledger's


def test_a_ledger_publishes_and_seals_in_order(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        tickets = ledger.publish_many({"event_type": "a.b", "entity_id": "e", "payload": {"n": n}} for n in range(5))
        last = ledger.publish(event_type="a.b", entity_id="e", id="mine")

        assert ledger.queue.wait(last, seconds=5).position == 7
        assert [ledger.queue.progress(ticket.id).position for ticket in tickets] == [2, 3, 4, 5, 6]
        again = ledger.publish(event_type="a.b", entity_id="e", id="mine")
        other = ledger.publish(event_type="a.b", entity_id="e", id="mine", payload={"x": 1})
        assert ledger.queue.wait(again, seconds=5).position == 7
        assert ledger.queue.wait(other, seconds=5).state == "refused"
        with pytest.raises(RejectedError):
            ledger.publish(event_type="a b", entity_id="e")
        assert ledger.verify().holds


def test_of_events_published_together_all_are_taken_or_none(tmp_path: Path) -> None:
    good = {"event_type": "a.b", "entity_id": "e"}
    with tallystick.open(tmp_path / "ledger") as ledger:
        with pytest.raises(RejectedError) as caught:
            ledger.publish_many([good, good, {"event_type": "a b", "entity_id": "e"}])
        assert caught.value.place == "event 2 /event_type"
        with pytest.raises(RejectedError, match="more than 10,000 events"):
            ledger.publish_many([good] * 10_001)
        assert ledger.publish_many([]) == []
        assert ledger.queue.stats().accepted == 0


def test_what_was_sealed_long_ago_hides_nothing_from_the_next_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than is read at once stands before the cursor, in the same segment."""
    monkeypatch.setattr(Journal, "clear", lambda _: None)
    with tallystick.open(tmp_path / "ledger") as ledger:
        for _ in range(6):
            ledger.publish_many([{"event_type": "a.b", "entity_id": "e", "payload": {"n": "x" * 300}}] * 1_000)
        ledger.queue.drain(seconds=60)
    assert sum(path.stat().st_size for path in (tmp_path / "ledger/queue").iterdir()) > 2 * 2**20

    for number in range(2):
        with tallystick.open(tmp_path / "ledger") as ledger:
            ticket = ledger.publish(event_type="a.b", entity_id="e", id=f"after-{number}")
            assert ledger.queue.wait(ticket, seconds=20).state == "sealed"
            assert ledger.queue.stats().problem is None


def test_closing_a_ledger_seals_what_waits(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        ledger.publish_many({"event_type": "a.b", "entity_id": "e", "payload": {"n": n}} for n in range(2_000))

    with tallystick.open(tmp_path / "ledger") as ledger:
        assert ledger.count(event_type="a.b") == 2_000


def test_a_ledger_in_memory_has_no_queue() -> None:
    with tallystick.open("memory:") as ledger, pytest.raises(RejectedError, match="no queue"):
        ledger.publish(event_type="a.b", entity_id="e")
