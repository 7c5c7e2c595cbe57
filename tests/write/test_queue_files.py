"""The files of a queue as bytes: they are read as they were written, and any other bytes are refused with one error."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tallystick.core.keys import QUEUE_MAC, ledger_key, purpose_key
from tallystick.errors import StoreError, TamperError
from tallystick.write import journal, queue_mac, segments
from tallystick.write.journal import Journal
from tallystick.write.queue_check import check_queue
from tallystick.write.queue_mac import NO_LINK, STATEMENT_BYTES, Fault, FaultError, Kind, Statement
from tallystick.write.queue_mark import MARK_BYTES, peek_mark, read_mark, render_mark
from tallystick.write.queue_refusals import read_refusals, render_refusals
from tallystick.write.queue_repair import look, repair
from tallystick.write.segments import Frame, Place

KEY: Final = b"k" * 32
QUEUE: Final = b"q" * 16
U64: Final = st.integers(0, 2**64 - 1)
MAC: Final = st.binary(min_size=16, max_size=16)
STATEMENTS: Final = st.builds(Statement, MAC, U64, MAC, U64, MAC)


@given(kind=st.sampled_from(Kind), statement=STATEMENTS)
def test_a_statement_is_read_as_it_was_written_and_passes_for_no_other_kind_key_or_bytes(
    kind: Kind, statement: Statement
) -> None:
    data = queue_mac.render(kind, statement, key=KEY)

    assert len(data) == STATEMENT_BYTES
    assert queue_mac.parse(kind, data, key=KEY) == queue_mac.peek(kind, data) == statement
    with pytest.raises(FaultError) as caught:
        queue_mac.parse(kind, data, key=b"another")
    assert caught.value.fault is Fault.ALTERED
    for other in Kind:
        if other is not kind:
            with pytest.raises(FaultError):
                queue_mac.parse(other, data, key=KEY)


def test_a_kind_that_is_written_over_a_statement_does_not_make_it_one() -> None:
    """The domain separation string, and not only the word in the file, tells the kinds apart."""
    mark = queue_mac.render(Kind.MARK, Statement(QUEUE, 5, NO_LINK), key=KEY)
    cursor = queue_mac.render(Kind.CURSOR, Statement(QUEUE, 5, NO_LINK), key=KEY)

    with pytest.raises(FaultError, match="not written with this ledger's keys"):
        queue_mac.parse(Kind.CURSOR, cursor[:27] + mark[27:], key=KEY)


@given(kind=st.sampled_from(Kind), data=st.binary(max_size=2 * STATEMENT_BYTES))
def test_any_bytes_are_a_statement_or_the_one_error(kind: Kind, data: bytes) -> None:
    with pytest.raises(FaultError):
        queue_mac.parse(kind, data, key=KEY)


@given(statement=STATEMENTS, at=st.integers(0, STATEMENT_BYTES - 1), flip=st.integers(1, 255))
def test_a_statement_with_one_byte_changed_is_none(statement: Statement, at: int, flip: int) -> None:
    data = bytearray(queue_mac.render(Kind.MARK, statement, key=KEY))
    data[at] ^= flip

    with pytest.raises(FaultError):
        queue_mac.parse(Kind.MARK, bytes(data), key=KEY)


@given(sequence=U64, acknowledged=U64, accepted_at=U64, body=st.binary(max_size=200), link=MAC)
def test_a_frame_is_read_as_it_was_written(
    sequence: int, acknowledged: int, accepted_at: int, body: bytes, link: bytes
) -> None:
    tag = segments.tagger(KEY, QUEUE)
    frame = segments.authenticate(Frame(sequence, acknowledged, accepted_at, body, link, NO_LINK), tag)
    data = segments.render(frame)

    assert segments.frame_at(data, 0) == frame
    assert len(data) == segments.frame_bytes(frame)
    assert segments.is_authentic(frame, tag)
    assert not segments.is_authentic(frame, segments.tagger(KEY, b"r" * 16))
    assert not segments.is_authentic(frame, segments.tagger(b"another", QUEUE))
    assert segments.frame_at(data[:-1], 0) is None
    made = segments.render_chain(
        [body], tag, sequence=sequence, acknowledged=acknowledged, accepted_at=accepted_at, link=link
    )
    assert made == (data, frame.mac)


def test_the_tag_of_a_frame_is_plain_hmac_under_the_key_of_the_ledger() -> None:
    """So that it can be checked by hand; and each ledger has a key of its own."""
    key = purpose_key(ledger_key(b"m" * 32, "one"), QUEUE_MAC)

    tag = segments.tagger(key, QUEUE)(b"data")

    assert tag == queue_mac.mac(key, "frame", QUEUE + b"data")
    assert tag != segments.tagger(purpose_key(ledger_key(b"m" * 32, "two"), QUEUE_MAC), QUEUE)(b"data")


@given(data=st.binary(max_size=3_000), prefix=st.booleans())
def test_any_bytes_in_a_segment_are_read_or_told(data: bytes, prefix: bool) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        Journal(folder, key=KEY).close()
        path = segments.segment_path(folder, 0)
        path.write_bytes(path.read_bytes() + data if prefix else data)
        try:
            made = Journal(folder, key=KEY)
        except TamperError:
            assert look(folder, KEY).findings
            return
        made.sync(made.append([b"y"], now=1) + 1)
        assert [frame.body for frame in made.next(10)] == [b"y"]
        made.close()


@given(name=st.sampled_from(["cursor", "mark", "refused.jsonl"]), data=st.binary(max_size=MARK_BYTES + 10))
def test_any_bytes_in_another_file_are_found(name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = Journal(folder, key=KEY)
        made.sync(made.append([b"x", b"y", b"z"], now=1) + 3)
        made.done(made.next(2), {1: "no"})
        made.close()
        (folder / name).write_bytes(data)

        findings = check_queue(folder, KEY)

        assert {one.file for one in findings} == {name}
        with pytest.raises(TamperError, match="the queue is damaged"):
            Journal(folder, key=KEY)
        assert repair(folder, KEY, now=7) == findings
        reopened = Journal(folder, key=KEY)
        assert [frame.body for frame in reopened.next(10)][-1] == b"z"
        reopened.close()


def test_a_segment_full_of_what_looks_like_frames_is_given_up_after_a_bounded_search(tmp_path: Path) -> None:
    Journal(tmp_path, key=KEY).close()
    path = segments.segment_path(tmp_path, 0)
    head = path.read_bytes()
    # Each begin of a frame says that the greatest body follows, of which the checksum would have to be computed.
    hostile = (b"\xf5tq2" + b"\0" * 4 + segments.FRAME_BYTES_MAX.to_bytes(4, "big")) * 30_000
    path.write_bytes(head + hostile + b"\0" * segments.FRAME_BYTES_MAX)

    found = [*segments.read(path)]

    assert found == [(segments.HEAD_BYTES, None)]


@given(st.binary(max_size=MARK_BYTES + 10))
def test_any_bytes_are_a_mark_or_said_to_be_none(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "mark"
        path.write_bytes(data)

        read = read_mark(path, key=KEY)

        assert (read.newest, read.is_there, bool(read.faults)) == (None, True, True)
        assert peek_mark(data) is None


def test_a_mark_has_two_slots_and_the_newer_one_counts(tmp_path: Path) -> None:
    statement = Statement(QUEUE, 7, b"l" * 16, 5)
    data = render_mark(statement, key=KEY)
    (tmp_path / "mark").write_bytes(data)

    assert len(data) == MARK_BYTES
    assert peek_mark(data) == statement
    assert read_mark(tmp_path / "mark", key=KEY).newest == statement


TEXTS: Final = st.text(max_size=30)


@given(refused=st.dictionaries(st.integers(0, 2**40), TEXTS, min_size=1, max_size=6), data=st.data())
def test_refusals_are_read_as_they_were_written_and_no_line_can_be_changed(
    refused: dict[int, str], data: st.DataObject
) -> None:
    lines, link = render_refusals(refused, key=KEY, queue=QUEUE, link=NO_LINK)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "refused.jsonl"

        def read(changed: bytes) -> object:
            path.write_bytes(changed)
            found = read_refusals(path, key=KEY, queue=QUEUE, count=len(refused), link=link)
            return found.fault or found.reasons

        assert read(lines) == read(lines + b'{"torn') == refused
        at, flip = data.draw(st.integers(0, len(lines) - 1)), data.draw(st.integers(1, 255))
        changed = bytearray(lines)
        changed[at] ^= flip
        assert isinstance(read(bytes(changed)), FaultError)
        split = lines.split(b"\n")[:-1]
        assert isinstance(read(b"".join(line + b"\n" for line in split[1:])), FaultError)
        if len(split) > 1:
            assert isinstance(read(b"".join(line + b"\n" for line in reversed(split))), FaultError)


def test_a_line_of_refusals_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "refused.jsonl").write_bytes(b"[" * 200_000)

    found = read_refusals(tmp_path / "refused.jsonl", key=KEY, queue=QUEUE, count=1, link=NO_LINK)

    assert found.fault is not None
    assert found.fault.fault is Fault.REFUSED


def test_frames_are_taken_only_in_their_order_from_a_place(tmp_path: Path) -> None:
    made = Journal(tmp_path, key=KEY)
    made.sync(made.append([b"a", b"b", b"c"], now=1) + 3)
    queue = made._queue
    made.close()
    path = segments.segment_path(tmp_path, 0)
    start = Place(path, segments.HEAD_BYTES, 0, NO_LINK)

    found, after = segments.take(tmp_path, start, 2, key=KEY, queue=queue)

    assert [frame.body for frame in found] == [b"a", b"b"]
    assert segments.take(tmp_path, after, 9, key=KEY, queue=queue)[0][0].body == b"c"
    for wrong in (start._replace(sequence=1), start._replace(link=b"l" * 16), start._replace(offset=start.offset + 1)):
        assert segments.take(tmp_path, wrong, 9, key=KEY, queue=queue)[0] == []
    assert segments.take(tmp_path, start, 9, key=KEY, queue=b"r" * 16)[0] == []


def test_frames_are_taken_up_to_a_number_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (segments, journal):
        monkeypatch.setattr(module, "COMMIT_BYTES_MAX", 250)
    bodies = [bytes([65 + number]) * 100 for number in range(8)]
    made = Journal(tmp_path, key=KEY)
    made.sync(made.append(bodies, now=1) + 8)

    taken = []
    while made.cursor < 8:
        frames = made.next(1_000)
        taken.append([frame.body for frame in frames])
        made.done(frames, {})
    made.close()

    assert taken == [bodies[:3], bodies[3:6], bodies[6:]]


class Life(RuleBasedStateMachine):
    """A queue against a list: in any order of steps it has what was acknowledged, in its order, and a check
    finds nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.journal = Journal(self.folder, key=KEY)
        self.bodies: list[bytes] = []
        self.acknowledged = 0
        self.sealed = 0
        self.refusals: dict[int, str] = {}

    @rule(bodies=st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4))
    def append(self, bodies: list[bytes]) -> None:
        assert self.journal.append(bodies, now=1) == len(self.bodies)
        self.bodies += bodies

    @rule()
    def sync(self) -> None:
        self.journal.sync(len(self.bodies))
        self.acknowledged = len(self.bodies)

    @precondition(lambda self: self.sealed < self.acknowledged)
    @rule(count=st.integers(1, 5), refuse=st.booleans())
    def seal(self, count: int, refuse: bool) -> None:
        frames = self.journal.next(count)
        assert [frame.body for frame in frames] == self.bodies[self.sealed : self.acknowledged][:count]
        refused = {frames[0].sequence: "no"} if refuse else {}
        self.journal.done(frames, refused)
        self.refusals |= refused
        self.sealed += len(frames)

    @rule()
    def clear(self) -> None:
        self.journal.clear()

    @rule()
    def begin_another_segment(self) -> None:
        with self.journal._writing:
            if self.journal._file.tell() > segments.HEAD_BYTES:
                self.journal._roll()

    @rule(torn=st.integers(0, 30))
    def crash(self, torn: int) -> None:
        """What was not synced may be there as a whole, or in part."""
        self.journal.close()
        newest = segments.segments(self.folder)[-1][1]
        kept = len(self.bodies)
        if torn and self.acknowledged < kept:
            ends = [at + segments.frame_bytes(one) for at, one in segments.read(newest) if one is not None]
            last = [one.sequence for _, one in segments.read(newest) if one is not None]
            if last and last[-1] >= self.acknowledged:
                newest.write_bytes(newest.read_bytes()[: ends[-1] - torn])
        self.journal = Journal(self.folder, key=KEY)
        self.bodies = self.bodies[: self.journal.end]
        assert self.journal.end >= self.acknowledged
        self.acknowledged = self.journal.end

    @invariant()
    def holds(self) -> None:
        assert check_queue(self.folder, KEY) == ()
        assert (self.journal.end, self.journal.cursor) == (len(self.bodies), self.sealed)
        assert self.journal.durable == self.acknowledged
        assert self.journal.refusals == self.refusals

    def teardown(self) -> None:
        self.journal.close()
        self.place.cleanup()


TestLife = Life.TestCase


def test_files_that_cannot_be_read_are_a_store_error(tmp_path: Path) -> None:
    Journal(tmp_path, key=KEY).close()
    (tmp_path / "cursor").unlink()
    (tmp_path / "cursor").mkdir()

    with pytest.raises(StoreError, match="cursor is a folder"):
        check_queue(tmp_path, KEY)
