"""Any bytes are accepted or refused: never a traceback, never a hang, never much memory."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tallystick_verify import RefusedError, judge_checkpoint, judge_proof, judge_record, verify_bundle, verify_pair
from tallystick_verify.notes import Policy
from tallystick_verify.package import READ_BYTES, Package
from tallystick_verify.report import FINDINGS_MAX

from tests.verifier import cases, maker

NOW: Final = datetime(2026, 3, 4, 0, 1, tzinfo=UTC)
MADE: Final = cases.ledger()
WITNESSED: Final = maker.cosignature(MADE.text(), "w.example/1", maker.WITNESS)
FILES: Final = MADE.bundle(2, 14, start=16, timestamps=[b"\x30\x00"]).files()
PRUNED_LEDGER, ABSENT = cases.pruned()
PRUNED: Final = PRUNED_LEDGER.bundle(0, 8, absent=ABSENT, beside=[9]).files()
FILTERED: Final = cases.ledger(rotated=True).bundle(1, 13, keep=lambda at: at % 3 == 0).files()
BUNDLES: Final = (FILES, PRUNED, FILTERED)
COSIGNED: Final = MADE.checkpoint(more=[WITNESSED])
TRUST: Final = (
    maker.TRUST[: -len(b"quorum none\n")]
    + f"witness w {maker.vkey('w.example/1', 4, maker.WITNESS)}\ngroup g any w\nquorum g\n".encode()
)


def kinds(path: Path, trust: bytes = maker.TRUST, known: bytes | None = None) -> set[str]:
    return {finding.kind for finding in verify_bundle(path, trust=trust, known=known, now=NOW).findings}


@st.composite
def altered(draw: st.DrawFn, data: bytes) -> bytes:
    """One byte changed, removed or inserted, anywhere."""
    at, byte = draw(st.integers(0, len(data) - 1)), draw(st.binary(min_size=1, max_size=1))
    how = draw(st.sampled_from(["change", "remove", "insert"]))
    if how == "change":
        return data[:at] + bytes([data[at] ^ (byte[0] or 1)]) + data[at + 1 :]
    return data[:at] + data[at + 1 :] if how == "remove" else data[:at] + byte + data[at:]


@given(data=st.data(), files=st.sampled_from(BUNDLES), name=st.sampled_from(sorted(FILES)))
@settings(max_examples=400)
def test_one_byte_changed_removed_or_inserted_is_always_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, files: maker.Files, name: str
) -> None:
    changed = data.draw(altered(files[name]))
    folder = maker.write(tmp_path_factory.mktemp("bundle"), {**files, name: changed})

    assert kinds(folder)


@given(data=st.data(), source=st.sampled_from([maker.zipped(FILES), maker.zipped(FILES, zipfile.ZIP_STORED)]))
@settings(max_examples=300)
def test_a_damaged_zip_is_refused_or_holds_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, source: bytes
) -> None:
    path = tmp_path_factory.mktemp("zip") / "bundle.zip"
    path.write_bytes(data.draw(altered(source)))

    report = verify_bundle(path, trust=maker.TRUST, now=NOW)

    if report.holds:
        with zipfile.ZipFile(path) as archive:
            assert {name: archive.read(name) for name in FILES} == FILES


ANY: Final = st.one_of(
    st.binary(max_size=300),
    altered(COSIGNED),
    altered(TRUST),
    altered(MADE.proof(4)),
    altered(MADE.lines[4]),
    altered(MADE.lines[0]),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
)


@given(note=ANY, proof=ANY, record=ANY, trust=ANY | st.just(TRUST))
@settings(max_examples=300)
def test_any_bytes_are_accepted_or_refused(note: bytes, proof: bytes, record: bytes, trust: bytes) -> None:
    judge_record(record)
    try:
        judge_checkpoint(note, trust)
        judge_proof(proof, record, trust)
    except RefusedError:
        with pytest.raises(RefusedError):
            Policy(trust)


@given(data=ANY, name=st.sampled_from(sorted(FILES)), known=st.none() | ANY)
@settings(max_examples=200)
def test_any_bytes_in_place_of_a_file_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str, known: bytes | None
) -> None:
    folder = maker.write(tmp_path_factory.mktemp("bundle"), {**FILES, name: data})

    assert kinds(folder, known=known)


@given(data=st.data())
@settings(max_examples=300)
def test_any_member_of_a_manifest_may_be_anything(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    bundle = PRUNED_LEDGER.bundle(0, 8, absent=ABSENT, beside=[9])
    values: st.SearchStrategy[object] = st.sampled_from([None, True, -1, 0, 1, 7, 20, "", [], [[1, 2]], [["x"]], {}])
    path = data.draw(
        st.lists(st.sampled_from(["range", "absent", "records", "end", "first", "checkpoint", 0]), max_size=2)
    )
    inner = bundle.manifest
    for step in map(str, path):
        if isinstance(inner.get(step), dict):
            inner = inner[step]
    inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(values)
    folder = maker.write(tmp_path_factory.mktemp("bundle"), bundle.files())

    kinds(folder)


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_is_not_there_is_a_finding(tmp_path: Path, name: str) -> None:
    maker.write(tmp_path, {other: data for other, data in FILES.items() if other != name})

    assert kinds(tmp_path) == {"bundle"}


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("what", ["link", "link to nothing", "pipe", "folder"])
def test_what_is_not_a_regular_file_is_a_finding_and_nobody_waits_for_it(tmp_path: Path, name: str, what: str) -> None:
    folder = maker.write(tmp_path / "bundle", FILES)
    (folder / name).rename(tmp_path / "elsewhere")
    if what == "pipe":
        os.mkfifo(folder / name)
    elif what == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to(tmp_path / ("elsewhere" if what == "link" else "nowhere"))

    assert kinds(folder) == {"bundle"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_becomes_a_pipe_after_it_was_seen_is_not_waited_for(tmp_path: Path, name: str) -> None:
    package = Package(maker.write(tmp_path, FILES))
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)

    with pytest.raises(RefusedError, match="not a regular file"):
        b"".join(package.chunks(name, 1))
    with pytest.raises(RefusedError, match="not a regular file"):  # and seen as one, nothing of it is opened
        Package(tmp_path)


@contextmanager
def forbidden(folder: Path) -> Iterator[None]:
    """Whoever runs the tests may not look into a folder, also if that is root."""
    user = os.geteuid()
    folder.chmod(0)
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


def test_what_may_not_be_read_is_no_finding(tmp_path: Path) -> None:
    folder = maker.write(tmp_path / "bundle", FILES)
    package = Package(folder)
    with forbidden(folder):
        with pytest.raises(PermissionError):
            verify_bundle(folder, trust=maker.TRUST)
        with pytest.raises(PermissionError):
            package.read("manifest.json")


def test_no_more_is_read_than_was_asked_for_and_never_much_at_once(tmp_path: Path) -> None:
    package = Package(maker.write(tmp_path, {**FILES, "events.jsonl": b"x" * (4 * READ_BYTES)}))
    assert [len(chunk) for chunk in package.chunks("events.jsonl", READ_BYTES + 3)] == [READ_BYTES, 3]


def test_the_time_is_the_present_one_if_none_is_given(tmp_path: Path) -> None:
    assert verify_bundle(maker.write(tmp_path, FILES), trust=maker.TRUST).holds


def test_a_fourth_file_a_pipe_and_nothing_at_all_are_no_bundles(tmp_path: Path) -> None:
    folder = maker.write(tmp_path / "bundle", {**FILES, "README": b""})
    os.mkfifo(tmp_path / "pipe")

    assert kinds(folder) == {"bundle"}
    assert kinds(tmp_path / "pipe") == {"bundle"}
    assert kinds(tmp_path / "nothing") == {"bundle"}


def test_files_over_their_bounds_are_a_finding(tmp_path: Path) -> None:
    for name, size in (("manifest.json", 64 * 2**20 + 1), ("events.jsonl", 2**40 + 1), ("manifest.json.sig", 4097)):
        folder = maker.write(tmp_path / name, FILES)
        with (folder / name).open("r+b") as file:
            file.truncate(size)
        assert kinds(folder) == {"bundle"}, name


def test_a_file_at_its_bound_is_read(tmp_path: Path) -> None:
    assert kinds(maker.write(tmp_path, {**FILES, "manifest.json.sig": b"x" * 4096})) == {"seal"}


def test_a_link_to_a_bundle_is_followed_since_it_was_asked_for(tmp_path: Path) -> None:
    maker.write(tmp_path / "bundle", FILES)
    (tmp_path / "link").symlink_to(tmp_path / "bundle")
    (tmp_path / "bundle.zip").write_bytes(maker.zipped(FILES))
    (tmp_path / "zip-link").symlink_to(tmp_path / "bundle.zip")

    assert kinds(tmp_path / "link") == kinds(tmp_path / "zip-link") == set()


def archive(*entries: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in entries:
            made.writestr(name, data)
    return buffer.getvalue()


def entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


GOOD: Final = tuple(FILES.items())
WITHOUT_EVENTS: Final = tuple(item for item in GOOD if item[0] != "events.jsonl")
EVENTS: Final = FILES["events.jsonl"]


@pytest.mark.parametrize(
    "data",
    [
        archive(*GOOD, ("../x", b"")),
        archive(*GOOD, ("a/", b"")),
        archive(*GOOD, GOOD[0]),
        archive(*WITHOUT_EVENTS),
        archive(*WITHOUT_EVENTS, ("../events.jsonl", EVENTS)),
        archive(*WITHOUT_EVENTS, ("events.jsonl-txt", EVENTS)).replace(b"l-txt", b"l\x00txt"),
        archive(*WITHOUT_EVENTS, (entry("events.jsonl", 0o120777), b"/etc/passwd")),
        archive(*WITHOUT_EVENTS, (entry("events.jsonl", 0o010644), EVENTS)),
        archive(*GOOD, method=zipfile.ZIP_BZIP2),
        archive(*GOOD, method=zipfile.ZIP_LZMA),
        archive(),
        b"PK\x05\x06" + bytes(18),
        maker.zipped(FILES)[:-30],
        maker.zipped(FILES).replace(b"events.jsonl", b"events.jsonk", 1),
        archive(*[(f"{n}", b"") for n in range(20_000)]),
        *(
            maker.zipped(FILES).replace(b"PK\x01\x02\x14\x03\x14\x00" + flags, b"PK\x01\x02\x14\x03\x14\x00" + new, 1)
            for flags, new in ((b"\x00\x00", b"\x01\x00"), (b"\x00\x00", b"\x40\x00"))
        ),
    ],
)
def test_a_zip_that_is_more_or_less_than_a_bundle_is_a_finding(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(data)

    assert kinds(path) == {"bundle"}


@pytest.mark.parametrize("flags", [b"\x01\x00", b"\x40\x00"])
def test_an_encrypted_entry_is_refused_before_any_is_read(tmp_path: Path, flags: bytes) -> None:
    last = b"PK\x01\x02\x14\x03\x14\x00"
    before, after = maker.zipped(FILES).rsplit(last + b"\0\0", 1)
    path = tmp_path / "bundle.zip"
    path.write_bytes(before + last + flags + after)

    with pytest.raises(RefusedError, match="encrypted"):
        Package(path)


def test_a_zip_whose_directory_claims_to_be_huge_is_not_believed(tmp_path: Path) -> None:
    data = bytearray(maker.zipped(FILES))
    struct.pack_into("<I", data, len(data) - 22 + 12, 2**31)
    path = tmp_path / "bundle.zip"
    with path.open("wb") as file:
        file.truncate(2**31)
        file.seek(2**31)
        file.write(data)

    tracemalloc.start()
    found = kinds(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found == {"bundle"}
    assert peak < 2**25


@pytest.mark.parametrize("name", ["events.jsonl", "manifest.json.sig", "manifest.json"])
def test_a_zip_bomb_is_left_alone_after_what_was_announced(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bundle.zip"
    bomb = b"[" * 2**28 if name == "events.jsonl" else b"[" * (2**26 + 1)
    path.write_bytes(archive(*((other, bomb if other == name else data) for other, data in GOOD)))

    tracemalloc.start()
    began = time.monotonic()
    report = verify_bundle(path, trust=maker.TRUST, now=NOW)
    took = time.monotonic() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert not report.holds
    assert took < 10
    assert peak < 2**26


def test_a_zip_entry_that_is_longer_or_shorter_than_it_says_is_a_finding(tmp_path: Path) -> None:
    data = maker.zipped(FILES, zipfile.ZIP_STORED)
    size = struct.pack("<I", len(EVENTS))
    for other in (len(EVENTS) - 1, len(EVENTS) + 1):
        path = tmp_path / f"{other}.zip"
        path.write_bytes(data.replace(size, struct.pack("<I", other)))
        assert "bundle" in kinds(path)


# ------------------------------------------------------------------------------------------ bounds


def test_findings_are_bounded_and_then_counted(tmp_path: Path) -> None:
    made = maker.Ledger()
    made.open()
    for _ in range(1200):
        made.add("user.changed", {}, "user-1", recorded_at=maker.moment(1))
    bundle = made.bundle(2, 1202)
    for epoch in bundle.manifest["mac_keys"]:
        epoch["key"] = "00" * 32
    folder = maker.write(tmp_path, bundle.files())

    report = verify_bundle(folder, trust=maker.TRUST, now=NOW)

    assert len(report.findings) == FINDINGS_MAX
    assert report.dropped > 200
    assert not report.holds


def test_a_million_short_lines_are_read_no_further_than_the_manifest_counts(tmp_path: Path) -> None:
    folder = maker.write(tmp_path, {**FILES, "events.jsonl": b"\n" * 1_000_000})

    report = verify_bundle(folder, trust=maker.TRUST, now=NOW)

    assert max(finding.line or 0 for finding in report.findings) == 12


def test_lines_without_end_are_never_held(tmp_path: Path) -> None:
    bundle = MADE.bundle(2, 14)
    bundle.manifest["events"]["bytes"] = 2**28
    del bundle.lines[5:]
    folder = maker.write(tmp_path, bundle.files())
    with (folder / "events.jsonl").open("r+b") as file:
        file.truncate(2**28)

    tracemalloc.start()
    found = kinds(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert {"events", "not-canonical"} <= found
    assert peak < 2**24


@pytest.mark.parametrize(
    "record",
    [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'["\\"[' * 10_000,
        b'"' + b"\\" * 60_000,
        b"1" * 60_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_a_record_that_goes_deep_or_long_is_no_record(record: bytes) -> None:
    assert [finding.kind for finding in judge_record(record)] == ["not-canonical"]


def test_two_bundles_of_which_one_is_none_are_each_judged(tmp_path: Path) -> None:
    good, bad = maker.write(tmp_path / "good", FILES), maker.write(tmp_path / "bad", {})

    one, two, forks = verify_pair((good, bad), trust=maker.TRUST, now=NOW)

    assert (one.holds, two.holds, forks) == (True, False, [])
