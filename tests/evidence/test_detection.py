"""Every tampering of SPEC 8 that concerns records, epochs, tree and tiles: found, and at the right position."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tallystick
from tallystick.core import timestamp
from tallystick.core.canonical import decode, encode
from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.keys import epoch_key
from tallystick.core.merkle import Tree, leaf_hash
from tallystick.core.note import Note, Signer, sign_note
from tallystick.core.record import KEY_ROTATED, record_hash
from tallystick.core.system import KeyRotated, system_members
from tallystick.evidence.findings import Kind, Report
from tests.evidence.forge import (
    KEYS,
    NOON,
    ORIGIN,
    Insider,
    edited,
    fixed_key,
    kinds,
    rechained,
    reseal,
    verify,
)

Rows = dict[int, bytes]
"""Records by position, as an outsider finds them in the file."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real ledger of 700 records: two full tiles and a ragged end, three epochs, one change of keys."""
    folder = tmp_path_factory.mktemp("original") / "shop"
    with tallystick.open(folder) as ledger:
        for start in range(0, 690, 115):
            ledger.append_many([_event(number) for number in range(start, start + 115)])
            if start == 115:
                ledger.change_epoch()
            if start == 230:
                ledger.rotate_key("checkpoint")
            if start == 345:
                ledger.change_epoch()
        while ledger.size < 700:
            ledger.append(_event(ledger.size))
        assert ledger.verify().holds
    return folder


def _event(number: int) -> dict[str, Any]:
    payload = {"amount": number, "note": "Apfel Äpfel / A", "done": True, "rate": 0.5}
    return {"event_type": "shop.sold", "entity_id": f"till-{number % 9}", "actor": "jane", "payload": payload}


class Outsider:
    """Someone who can write the ledger's file, and takes the triggers down first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._db = apsw.Connection(str(folder / "ledger.db"))
        self._triggers = self.sql("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        for name, _ in self._triggers:
            self._db.execute(f"DROP TRIGGER {name}")

    def line(self, position: int) -> bytes:
        ((line,),) = self.sql("SELECT bytes FROM record WHERE position = ?", position)
        return bytes(line)

    def lines(self) -> list[bytes]:
        return [bytes(line) for (line,) in self.sql("SELECT bytes FROM record ORDER BY position")]

    def put(self, position: int, line: bytes, *, crc: int | None = None) -> None:
        values = (position, line, crc32(line) if crc is None else crc)
        self._db.execute("INSERT OR REPLACE INTO record VALUES (?,?,?)", values)

    def replace_text(self, position: int, old: bytes, new: bytes) -> None:
        line = self.line(position)
        assert line.count(old) >= 1, (old, line)
        self.put(position, line.replace(old, new, 1))

    def sql(self, statement: str, *values: Any) -> list[Any]:
        return self._db.execute(statement, values).fetchall()

    def rebuild_tiles(self) -> None:
        """Make the tiles fit the records again."""
        _, tiles = Tree.empty().extend([leaf_hash(line) for line in self.lines()])
        for tile in tiles:
            number = (tile.level << 48) + tile.index
            self.sql("INSERT OR REPLACE INTO tile VALUES (?,?,?)", number, tile.hashes, tile.root)

    def leave(self) -> Report:
        """Put the triggers back, and have the ledger verified."""
        for _, sql in self._triggers:
            self.sql(sql)
        self._db.close()
        return tallystick.verify(self.folder, processes=1)


@pytest.fixture
def outsider(original: Path, tmp_path: Path) -> Outsider:
    folder = tmp_path / "shop"
    shutil.copytree(original, folder)
    return Outsider(folder)


def test_an_untouched_ledger_passes_and_every_record_is_proven(outsider: Outsider) -> None:
    report = outsider.leave()
    assert report.holds
    assert report.proven == ((0, 700),)
    assert report.signatures == 699


# The bytes of records.


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b'"payload":', b'"paylobd":', id="in a key"),
        pytest.param(b"Apfel", b"Bpfel", id="in a value"),
        pytest.param(b'"rate":0.5', b'"rate":0.6', id="in a digit"),
        pytest.param(b"}", b"]", id="in a brace"),
    ],
)
@pytest.mark.parametrize("position", [300, 699])
def test_a_flipped_byte_is_found_whether_or_not_the_checksum_was_mended(
    original: Path, tmp_path: Path, old: bytes, new: bytes, position: int
) -> None:
    for mended in (True, False):
        folder = tmp_path / str(mended)
        shutil.copytree(original, folder)
        outsider = Outsider(folder)
        line = outsider.line(position)
        if old not in line:
            old, new = b'"amount":', b'"amounu":'
        altered = line.replace(old, new, 1)
        outsider.put(position, altered, crc=crc32(altered) if mended else crc32(line))
        found = kinds(outsider.leave())
        assert found[0][1] == position
        assert (Kind.CHECKSUM, position) in found or mended
        assert not {at for _, at in found} - {position, None}


NOT_CANONICAL: dict[str, Callable[[bytes], bytes]] = {
    "a duplicate key": lambda line: line.replace(b'"amount":', b'"amount":0,"amount":', 1),
    "reordered keys": lambda line: line.replace(b'"done":true,"note"', b'"note":"","done":true,"x"', 1),
    "white space": lambda line: line.replace(b'"labels":[]', b'"labels": []', 1),
    "a carriage return at the end": lambda line: line + b"\r",
    "a newline at the end": lambda line: line + b"\n",
    "nothing at all": lambda _: b"",
    "a blank line": lambda _: b"\n",
    "a byte order mark": lambda line: b"\xef\xbb\xbf" + line,
    "an escaped letter": lambda line: line.replace(b"Apfel", b"\\u0041pfel", 1),
    "an escaped slash": lambda line: line.replace(b" / ", b" \\/ ", 1),
    "a whole number with a fraction": lambda line: line.replace(b'"event_version":1,', b'"event_version":1.0,', 1),
    "a whole number with an exponent": lambda line: line.replace(b'"event_version":1,', b'"event_version":1e0,', 1),
    "minus zero": lambda line: line.replace(b'"rate":0.5', b'"rate":-0', 1),
    "a leading zero": lambda line: line.replace(b'"event_version":1,', b'"event_version":01,', 1),
    "two to the 53": lambda line: line.replace(b'"rate":0.5', b'"rate":9007199254740992', 1),
    "a lone surrogate": lambda line: line.replace(b"Apfel", b"\\ud800", 1),
    "an overlong character": lambda line: line.replace(b"Apfel", b"\xc1\x81pfel", 1),
    "an encoded surrogate": lambda line: line.replace(b"Apfel", b"\xed\xa0\x80", 1),
    "a raw NUL": lambda line: line.replace(b"Apfel", b"\x00pfel", 1),
    "NaN": lambda line: line.replace(b'"rate":0.5', b'"rate":NaN', 1),
    "a member too many": lambda line: line[:-1] + b',"zzz":1}',
    "a member too few": lambda line: line.replace(b'"labels":[],', b"", 1),
    "a member of the wrong type": lambda line: line.replace(b'"labels":[]', b'"labels":{}', 1),
    "a truncated signature": lambda line: line[:-4] + b'"}',
    "an upper-case signature": lambda line: line[:-66] + line[-66:-2].upper() + b'"}',
    "200,000 brackets": lambda _: b"[" * 200_000,
    "65,536 bytes": lambda line: line.replace(b"Apfel", b"A" * (65_536 - len(line) + 5), 1),
    "half a record": lambda line: line[: len(line) // 2],
}


@pytest.mark.parametrize("name", NOT_CANONICAL)
def test_bytes_that_no_writer_makes_are_found_where_they_are(outsider: Outsider, name: str) -> None:
    altered = NOT_CANONICAL[name](outsider.line(300))
    assert altered != outsider.line(300)
    outsider.put(300, altered)
    report = outsider.leave()
    assert kinds(report) == [(Kind.NOT_CANONICAL, 300), (Kind.LEAF, 300)]
    assert report.proven == ((0, 300), (301, 700))


def test_a_composed_letter_made_of_two_is_another_record(outsider: Outsider) -> None:
    outsider.replace_text(300, "Ä".encode(), "A\u0308".encode())
    assert kinds(outsider.leave()) == [(Kind.SIGNATURE, 300), (Kind.LEAF, 300)]


def test_a_line_separator_inside_a_value_passes(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "shop") as ledger:
        ledger.append(event_type="t", entity_id="e", payload={"text": "a\u2028b\u2029c\u0085d"})
        assert ledger.get(2).payload == {"text": "a\u2028b\u2029c\u0085d"}
        assert ledger.verify().holds


def test_a_record_of_65_535_bytes_passes_and_one_more_is_found() -> None:
    for size, holds in ((65_535, True), (65_536, False)):
        insider = Insider()
        insider.event(change=lambda members: members["payload"].update(text=""))
        filler = size - len(insider.lines.pop())
        position = insider.event(change=lambda members, n=filler: members["payload"].update(text="x" * n))
        # The stream's version went up with the first try, which was taken back.
        insider.lines[position] = reseal(
            {**decode(insider.lines[position]), "entity_version": 1}, mac_key=epoch_key(KEYS.event_mac, 0)
        )
        assert len(insider.lines[position]) == size
        assert (kinds(insider.verify()) == []) is holds


# Records: places, chain, members


@pytest.mark.parametrize("position", [2, 300, 699])
def test_a_deleted_record_is_missing_and_the_others_are_still_proven(outsider: Outsider, position: int) -> None:
    outsider.sql("DELETE FROM record WHERE position = ?", position)
    report = outsider.leave()
    assert (Kind.MISSING, position) in kinds(report)
    assert not {at for _, at in kinds(report)} - {position, None}
    if position < 512:
        assert report.proven == ((0, position), (position + 1, 700))


def test_the_genesis_deleted_leaves_a_ledger_that_cannot_say_who_it_is(outsider: Outsider) -> None:
    outsider.sql("DELETE FROM record WHERE position = 0")
    found = kinds(outsider.leave())
    assert {(Kind.MISSING, 0), (Kind.GENESIS, 0)} <= set(found)


def test_a_deleted_record_with_the_rest_moved_up_is_found_at_the_cut(outsider: Outsider) -> None:
    outsider.sql("DELETE FROM record WHERE position = 300")
    outsider.sql("UPDATE record SET position = -position WHERE position > 300")
    outsider.sql("UPDATE record SET position = -position - 1 WHERE position < 0")
    found = kinds(outsider.leave())
    assert {(Kind.MISPLACED, 300), (Kind.CHAIN, 300), (Kind.MISSING, 699), (Kind.LEAF, 300)} <= set(found)
    assert min(at for _, at in found if at is not None) == 300


def test_a_duplicated_record_is_found_at_its_second_place(outsider: Outsider) -> None:
    outsider.put(301, outsider.line(300))
    found = kinds(outsider.leave())
    assert {(Kind.MISPLACED, 301), (Kind.CHAIN, 301), (Kind.LEAF, 301)} <= set(found)
    assert {at for _, at in found} == {301}


def test_two_swapped_records_are_both_found(outsider: Outsider) -> None:
    one, other = outsider.line(300), outsider.line(400)
    outsider.put(300, other)
    outsider.put(400, one)
    found = kinds(outsider.leave())
    assert {(Kind.MISPLACED, 300), (Kind.MISPLACED, 400), (Kind.LEAF, 300), (Kind.LEAF, 400)} <= set(found)
    assert {at for _, at in found} == {300, 400}


def test_a_forged_record_with_the_right_prev_hash_lacks_the_key_and_the_tree(outsider: Outsider) -> None:
    outsider.put(300, edited(outsider.line(300), payload={"amount": 1_000_000}))
    assert kinds(outsider.leave()) == [(Kind.SIGNATURE, 300), (Kind.LEAF, 300)]


def test_a_forged_record_at_the_end_was_never_published(outsider: Outsider) -> None:
    last = outsider.line(699)
    outsider.put(700, edited(last, position=700, prev_hash=record_hash(last).hex()))
    assert kinds(outsider.leave()) == [(Kind.UNPUBLISHED, 700)]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("position", 301, Kind.MISPLACED),
        ("recorded_at", "2026-01-01T00:00:00.000000Z", Kind.TIME),
        ("epoch", 0, Kind.SIGNATURE),
        ("epoch", 7, Kind.SIGNATURE),
        ("ledger", "another", Kind.MISPLACED),
        ("prev_hash", "0" * 64, Kind.CHAIN),
        ("signature", "0" * 64, Kind.SIGNATURE),
        ("entity_version", 4_000, Kind.ENTITY_VERSION),
        ("id", "another", Kind.SIGNATURE),
    ],
)
def test_a_member_changed_singly_is_found_there(outsider: Outsider, name: str, value: Any, kind: Kind) -> None:
    outsider.put(300, edited(outsider.line(300), **{name: value}))
    report = outsider.leave()
    assert (kind, 300) in kinds(report)
    assert (Kind.LEAF, 300) in kinds(report)
    assert report.proven == ((0, 300), (301, 700))


def test_a_signature_under_another_epochs_key_is_found() -> None:
    insider = Insider()
    insider.event()
    insider.close()
    insider.open(1)
    position = insider.event(mac_epoch=0)
    assert kinds(insider.verify()) == [(Kind.SIGNATURE, position)]


@pytest.mark.parametrize("with_keys", [False, True], ids=["without the MAC key", "with the MAC key"])
@pytest.mark.parametrize("with_tiles", [False, True], ids=["old tiles", "new tiles"])
def test_history_rewritten_and_chained_anew_does_not_lead_to_the_signed_root(with_keys: bool, with_tiles: bool) -> None:
    insider = Insider()
    for number in range(600):
        insider.event(number)
    store = insider.store()
    lines = list(insider.lines)
    lines[300] = edited(lines[300], payload={"n": 1_000_000})
    key = (lambda epoch: epoch_key(KEYS.event_mac, epoch)) if with_keys else None
    if key:
        lines[300] = reseal(decode(lines[300]), mac_key=key(0))
    lines = rechained(lines, 301, key)
    store._records = [
        record._replace(line=line, crc32=crc32(line)) for record, line in zip(store._records, lines, strict=True)
    ]
    store._sealed = lines
    if with_tiles:
        store._tiles = {(t.level, t.index): t for t in Tree.empty().extend([leaf_hash(line) for line in lines])[1]}
    report = verify(store)
    found = set(kinds(report))
    assert (Kind.ROOT, None) in found
    assert ((Kind.SIGNATURE, 300) in found) is not with_keys
    assert ((Kind.LEAF, 300) in found) is not with_tiles
    assert report.proven == ()


def test_a_time_before_the_predecessors_is_found() -> None:
    insider = Insider()
    insider.event()
    position = insider.event(change=lambda members: members.update(recorded_at=timestamp.render(NOON - 1)))
    insider.event()
    assert kinds(insider.verify()) == [(Kind.TIME, position)]


def test_times_more_than_a_day_ahead_are_one_finding_that_is_no_tampering() -> None:
    insider = Insider()
    late = timestamp.render(NOON + 2 * 86_400 * timestamp.SECOND)
    positions = [insider.event(change=lambda members: members.update(recorded_at=late)) for _ in range(300)]
    [finding] = insider.verify().findings
    assert (finding.kind, finding.position, finding.end) == (Kind.CLOCK, positions[0], positions[-1] + 1)
    assert "no sign of tampering" in finding.meaning


@pytest.mark.parametrize(("seconds", "is_told"), [(7_200, True), (86_300, True), (200, False)])
def test_times_up_to_a_day_ahead_hold_and_are_told_of(seconds: int, is_told: bool) -> None:
    insider = Insider()
    late = timestamp.render(NOON + seconds * timestamp.SECOND)
    for _ in range(3):
        insider.event(change=lambda members: members.update(recorded_at=late))
    report = insider.verify()
    assert report.holds
    assert [late in warning for warning in report.warnings] == [True] * is_told


def test_a_stream_with_a_version_left_out_is_found() -> None:
    insider = Insider()
    insider.event()
    insider.versions["till-1"] = 5
    position = insider.event()
    assert kinds(insider.verify()) == [(Kind.ENTITY_VERSION, position)]


@pytest.mark.parametrize("event_id", ["brought", "0680c832-e7bd-83d3-9a09-000000000005"], ids=["brought", "made"])
def test_an_id_that_stands_twice_is_found_at_its_second_place(event_id: str) -> None:
    insider = Insider()
    for number in range(300):
        insider.event(number, change=lambda members, n=number: members.update(id=f"{event_id[:-3]}{n:03x}"))
    position = insider.event(change=lambda members: members.update(id=f"{event_id[:-3]}007"))
    insider.event()
    assert kinds(insider.verify()) == [(Kind.DUPLICATE_ID, position)]


# Epochs


def test_an_epoch_left_out_is_found_at_the_opening_that_skips_it() -> None:
    insider = Insider()
    insider.close()
    position = insider.open(2)
    assert kinds(insider.verify()) == [(Kind.EPOCH, position)]


def test_an_epoch_repeated_is_found() -> None:
    insider = Insider()
    insider.close()
    position = insider.open(0)
    assert set(kinds(insider.verify())) == {(Kind.EPOCH, position)}


def test_an_epoch_that_goes_back_is_found() -> None:
    insider = Insider()
    insider.close()
    insider.open(1)
    insider.close()
    position = insider.open(0)
    assert kinds(insider.verify()) == [(Kind.EPOCH, position)]


def test_a_record_that_goes_back_to_an_earlier_epoch_without_an_opening_is_found() -> None:
    insider = Insider()
    insider.close()
    insider.open(1)
    insider.event()
    insider.epoch = 0
    position = insider.event()
    assert (Kind.EPOCH, position) in kinds(insider.verify())


def test_an_event_after_the_close_is_found() -> None:
    insider = Insider()
    insider.close()
    position = insider.event()
    assert (Kind.EPOCH, position) in kinds(insider.verify())


def test_a_missing_close_is_found_at_the_next_opening() -> None:
    insider = Insider()
    insider.event()
    position = insider.open(1)
    assert kinds(insider.verify()) == [(Kind.EPOCH, position)]


def test_a_wrong_commitment_is_found_at_the_opening() -> None:
    insider = Insider()
    insider.close()
    position = insider.open(1, key=bytes(32))
    assert kinds(insider.verify()) == [(Kind.COMMITMENT, position)]


@pytest.mark.parametrize("wrong", [{"first_position": 2}, {"last_position": 99}, {"epoch": 3}])
def test_a_close_that_miscounts_is_found(wrong: dict[str, int]) -> None:
    insider = Insider()
    insider.event()
    position = insider.close(**wrong)
    insider.open(1)
    assert {kind for kind, at in kinds(insider.verify()) if at == position} == {Kind.EPOCH}


def test_an_old_event_signed_anew_under_a_newer_key_is_found() -> None:
    insider = Insider()
    position = insider.event(mac_epoch=1)
    insider.close()
    insider.open(1)
    assert kinds(insider.verify()) == [(Kind.SIGNATURE, position)]


def test_an_epoch_truncated_and_then_continued_is_found_even_when_chained_and_signed_anew() -> None:
    insider = Insider()
    insider.event()
    insider.event()
    insider.close()
    closing = insider.lines.pop()
    insider.lines.pop()  # the last event of the epoch
    position = len(insider.lines)
    moved = {**decode(closing), "id": "moved", "position": position, "prev_hash": record_hash(insider.lines[-1]).hex()}
    insider.lines.append(reseal(moved, mac_key=epoch_key(KEYS.event_mac, 0)))  # its close stays, and miscounts
    insider.open(1)
    assert kinds(insider.verify()) == [(Kind.EPOCH, position)]


def test_an_opening_that_is_not_the_ledgers_own_event_is_found() -> None:
    insider = Insider()
    insider.close()
    content = system_members("tallystick.epoch.opened", insider.opening(1), event_id="forged")
    insider.epoch = 1
    position = insider.put({**content, "entity_id": "mallory", "actor": None})
    assert (Kind.EPOCH, position) in kinds(insider.verify())


def test_an_empty_epoch_passes() -> None:
    insider = Insider()
    insider.close()
    insider.open(1)
    insider.close()
    insider.open(2)
    assert kinds(insider.verify()) == []


# Keys


def test_a_key_rotated_without_the_old_keys_leave_is_found() -> None:
    insider = Insider()
    payload = KeyRotated.sign("checkpoint", ledger="shop", old=fixed_key(8), new=fixed_key(9)).payload()
    position = insider.own(KEY_ROTATED, payload)
    assert (Kind.KEY_ROTATION, position) in kinds(insider.verify())


def test_a_checkpoint_by_the_key_of_an_earlier_period_is_refused() -> None:
    insider = Insider()
    payload = KeyRotated.sign("checkpoint", ledger="shop", old=KEYS.checkpoint, new=fixed_key(9)).payload()
    position = insider.own(KEY_ROTATED, payload)
    store = insider.store(head=lambda head: replace(head, checkpoint_key_at=position))
    assert kinds(verify(store)) == [(Kind.CHECKPOINT, None)]


# Head and checkpoint


def _note(size: int, root: bytes, *, key: Any = KEYS.checkpoint, name: str = ORIGIN) -> bytes:
    return sign_checkpoint(Checkpoint(name, size, root), Signer(name, key))


def _text(text: str) -> bytes:
    return sign_note(text, Signer(ORIGIN, KEYS.checkpoint)).render()


def _with_key_id(note: bytes, key_id: bytes) -> bytes:
    opened = Note.parse(note)
    return Note(opened.text, (replace(opened.signatures[0], key_id=key_id),)).render()


def _other_root(size: int) -> bytes:
    other = Insider()
    while len(other.lines) < size:
        other.event(len(other.lines) + 1_000)
    return Tree.empty().extend([leaf_hash(line) for line in other.lines])[0].root


def _unpadded(note: bytes) -> bytes:
    return _text(note.split(b"\n\n")[0].decode().rstrip("=") + "\n")


HEADS: dict[str, tuple[Callable[[bytes, int, bytes], bytes], Kind]] = {
    "one record more": (lambda _, size, root: _note(size + 1, root), Kind.HEAD),
    "one record less": (lambda _, size, root: _note(size - 1, root), Kind.HEAD),
    "another root": (lambda _, size, __: _note(size, bytes(32)), Kind.ROOT),
    "another key": (lambda _, size, root: _note(size, root, key=fixed_key(9)), Kind.CHECKPOINT),
    "another ledger": (lambda _, size, root: _note(size, root, name="forge/bank"), Kind.CHECKPOINT),
    "the right name with a wrong key id": (lambda note, *_: _with_key_id(note, b"\x01\x02\x03\x04"), Kind.CHECKPOINT),
    "another ledger's root": (lambda _, size, __: _note(size, _other_root(size)), Kind.ROOT),
    "a bad signature beside the good one": (
        lambda note, *_: note + note.split(b"\n\n")[1].replace(b"=", b"A", 1).replace(b"A", b"B", 1),
        Kind.CHECKPOINT,
    ),
    "an extension line": (
        lambda note, *_: _text(note.split(b"\n\n")[0].decode() + "\nmore\n"),
        Kind.CHECKPOINT,
    ),
    "a leading zero": (
        lambda n, size, _: _text(n.split(b"\n\n")[0].decode().replace(f"\n{size}", f"\n0{size}") + "\n"),
        Kind.CHECKPOINT,
    ),
    "a sign": (
        lambda n, size, _: _text(n.split(b"\n\n")[0].decode().replace(f"\n{size}", f"\n+{size}") + "\n"),
        Kind.CHECKPOINT,
    ),
    "unpadded base64": (lambda note, *_: _unpadded(note), Kind.CHECKPOINT),
    "no signature": (lambda note, *_: note.split(b"\n\n")[0] + b"\n", Kind.CHECKPOINT),
    "nothing": (lambda *_: b"", Kind.CHECKPOINT),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_is_not_the_signed_one_is_found(name: str) -> None:
    change, kind = HEADS[name]
    insider = Insider()
    for number in range(10):
        insider.event(number)
    root = Tree.empty().extend([leaf_hash(line) for line in insider.lines])[0].root
    store = insider.store(head=lambda head: replace(head, checkpoint=change(head.checkpoint, head.size, root)))
    assert (kind, None) in kinds(verify(store))


@pytest.mark.parametrize("column", ["epoch_at", "checkpoint_key_at", "evidence_key_at"])
def test_a_head_that_points_elsewhere_is_found(outsider: Outsider, column: str) -> None:
    outsider.sql(f"UPDATE head SET {column} = {column} + 1")
    assert kinds(outsider.leave()) == [(Kind.HEAD, None)]


def test_another_ledgers_genesis_is_found(original: Path, tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "other", name="shop", keys=original / "keys", marks=tmp_path / "marks") as other:
        foreign = other.get(0).line
    shutil.copytree(original, tmp_path / "shop")
    outsider = Outsider(tmp_path / "shop")
    outsider.put(0, foreign)
    report = outsider.leave()
    assert {(Kind.LEAF, 0), (Kind.CHAIN, 1)} <= set(kinds(report))
    # The foreign genesis names another first key, so the one change of keys does not fit it, either.
    assert {at for kind, at in kinds(report) if kind != Kind.KEY_ROTATION} <= {0, 1, None}


# Tiles


@pytest.mark.parametrize("column", ["hashes", "root"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_tile_byte_is_found_and_the_records_stay_proven(outsider: Outsider, column: str, index: int) -> None:
    ((value,),) = outsider.sql(f"SELECT {column} FROM tile WHERE number = ?", index)
    altered = bytes(value[:7]) + bytes([value[7] ^ 1]) + bytes(value[8:])
    outsider.sql(f"UPDATE tile SET {column} = ? WHERE number = ?", altered, index)
    report = outsider.leave()
    assert kinds(report) == [(Kind.TILE, index * 256)]
    assert report.proven == ((0, 700),)


def test_a_missing_tile_is_found_and_the_records_stay_proven(outsider: Outsider) -> None:
    outsider.sql("DELETE FROM tile WHERE number = 1")
    report = outsider.leave()
    assert kinds(report) == [(Kind.TILE, 256)]
    assert report.proven == ((0, 700),)


@pytest.mark.parametrize(
    "change", ["substr(hashes, 1, 8160)", "CAST(hashes || zeroblob(32) AS BLOB)"], ids=["narrow", "wide"]
)
def test_a_tile_of_another_width_is_found(outsider: Outsider, change: str) -> None:
    outsider.sql("PRAGMA ignore_check_constraints = ON")
    outsider.sql(f"UPDATE tile SET hashes = {change} WHERE number = 1")
    report = outsider.leave()
    assert kinds(report) == [(Kind.TILE, 256)]
    assert report.proven == ((0, 700),)


def test_a_tile_where_none_should_be_yet_is_found(outsider: Outsider) -> None:
    outsider.sql("INSERT INTO tile SELECT 2, hashes, root FROM tile WHERE number = 1")
    assert (Kind.TILE, 512) in kinds(outsider.leave())


def test_a_record_and_a_tile_altered_elsewhere_are_told_apart(outsider: Outsider) -> None:
    outsider.replace_text(10, b"Apfel", b"Bpfel")
    outsider.sql("UPDATE tile SET root = zeroblob(32) WHERE number = 1")
    report = outsider.leave()
    assert kinds(report) == [(Kind.SIGNATURE, 10), (Kind.LEAF, 10), (Kind.TILE, 256)]
    assert report.proven == ((0, 10), (11, 700))


def test_a_trigger_taken_down_is_reported(outsider: Outsider) -> None:
    outsider._triggers.pop()
    assert [kind for kind, _ in kinds(outsider.leave())] == [Kind.STORE]


# A checkpoint kept from before


def test_a_ledger_that_grew_extends_every_checkpoint_kept(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "shop") as ledger:
        kept = []
        for number in range(0, 600, 60):
            kept.append(ledger.checkpoint())
            ledger.append_many([_event(n) for n in range(number, number + 60)])
        ledger.rotate_key("checkpoint")
        for note in kept:
            assert ledger.verify(since=note).holds


def test_a_ledger_cut_short_is_a_rollback_against_a_kept_checkpoint(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "older")
    shutil.copytree(original, tmp_path / "newer")
    with tallystick.open(tmp_path / "newer") as ledger:
        ledger.append(_event(1))
        kept = ledger.checkpoint()
    report = tallystick.verify(tmp_path / "older", since=kept)
    assert kinds(report) == [(Kind.ROLLBACK, None)]


def test_a_ledger_rewritten_by_its_own_operator_is_a_fork_against_a_kept_checkpoint(
    original: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        shutil.copytree(original, tmp_path / name)
        with tallystick.open(tmp_path / name) as ledger:
            ledger.append(_event(1 if name == "one" else 2))
            kept = ledger.checkpoint()
            ledger.append(_event(3))
    assert tallystick.verify(tmp_path / "two", since=kept).holds
    assert kinds(tallystick.verify(tmp_path / "one", since=kept)) == [(Kind.FORK, None)]


def test_a_kept_checkpoint_by_a_key_that_was_retired_before_its_size_is_no_evidence() -> None:
    insider = Insider()
    payload = KeyRotated.sign("checkpoint", ledger="shop", old=KEYS.checkpoint, new=fixed_key(9)).payload()
    position = insider.own(KEY_ROTATED, payload)
    insider.event()
    root = Tree.empty().extend([leaf_hash(line) for line in insider.lines])[0].root
    size = len(insider.lines)
    store = insider.store(
        head=lambda head: replace(head, checkpoint_key_at=position, checkpoint=_note(size, root, key=fixed_key(9)))
    )

    assert kinds(verify(store, since=_note(size, root, key=fixed_key(9)))) == []
    assert kinds(verify(store, since=_note(size, root, key=KEYS.checkpoint))) == [(Kind.FORK, None)]


def test_a_kept_checkpoint_is_not_held_against_a_part_of_the_ledger(original: Path) -> None:
    with tallystick.open(original, readonly=True) as ledger:
        kept = ledger.checkpoint()
    with pytest.raises(tallystick.RejectedError, match="whole ledger"):
        tallystick.verify(original, first=300, since=kept)


def test_without_the_keys_a_change_among_the_newest_records_is_found_at_it_or_right_after(outsider: Outsider) -> None:
    outsider.replace_text(600, b"Apfel", b"Bpfel")
    outsider.leave()
    shutil.rmtree(outsider.folder / "keys")
    # The index, which was left as it was, says which of the two is the altered one.
    assert kinds(tallystick.verify(outsider.folder)) == [(Kind.INDEX, 600), (Kind.CHAIN, 601), (Kind.ROOT, None)]
    assert kinds(tallystick.verify(outsider.folder, index=False)) == [(Kind.CHAIN, 601), (Kind.ROOT, None)]


def test_a_kept_checkpoint_of_another_ledger_is_no_evidence(original: Path, tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "bank") as other:
        kept = other.checkpoint()
    assert kinds(tallystick.verify(original, since=kept)) == [(Kind.FORK, None)]


def test_a_kept_checkpoint_that_is_none_is_refused_as_input(original: Path) -> None:
    with pytest.raises(tallystick.RejectedError):
        tallystick.verify(original, since=b"hello")


# Any byte


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), in_tile=st.booleans(), mended=st.booleans())
def test_any_one_byte_changed_in_a_record_or_a_tile_is_found(
    original: Path, seed: int, in_tile: bool, mended: bool
) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "shop"
        shutil.copytree(original, folder)
        outsider = Outsider(folder)
        if in_tile:
            number = chance.randrange(2)
            ((hashes, root),) = outsider.sql("SELECT hashes, root FROM tile WHERE number = ?", number)
            data = _flip(bytes(hashes) + bytes(root), chance)
            outsider.sql("UPDATE tile SET hashes = ?, root = ? WHERE number = ?", data[:8192], data[8192:], number)
            wanted = number * 256
        else:
            wanted = chance.randrange(700)
            line = outsider.line(wanted)
            altered = _flip(line, chance)
            outsider.put(wanted, altered, crc=crc32(altered if mended else line))
        found = kinds(outsider.leave())
    assert wanted in {at for _, at in found}
    # Whether it is the genesis that was altered, the record after it cannot tell.
    assert not {at for kind, at in found if (kind, at) != ("chain", 1) or wanted} - {wanted, None}


def _flip(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :]


def test_the_canonical_form_used_here_is_the_ledgers() -> None:
    line = Insider().lines[0]
    assert encode(decode(line)) == line
