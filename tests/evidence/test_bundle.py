"""Bundles at rest: exactly three regular files, read within bounds, whatever else somebody put there."""

from __future__ import annotations

import io
import os
import stat
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallystick
from tallystick.core.manifest import EVENTS_FILE, MANIFEST_FILE, SEAL_FILE
from tallystick.core.policy import Policy
from tallystick.core.timestamp import parse_rfc3339
from tallystick.errors import NotFoundError, RejectedError
from tallystick.evidence.bundle.check import verify_bundle
from tallystick.evidence.bundle.pair import verify_pair
from tallystick.evidence.bundle.report import BundleReport
from tallystick.limits import MANIFEST_BYTES_MAX, SEAL_BYTES_MAX
from vectors.scene import NOW, TRUST, bundle, ledger, signed_anew

LINES = ledger().lines
FILES = bundle(LINES, first=2, end=8).files()


def clock() -> int:
    return parse_rfc3339(NOW)


def check(path: Path) -> BundleReport:
    return verify_bundle(path, trust=TRUST, clock=clock)


def kinds(path: Path) -> list[str]:
    return [str(one.kind) for one in check(path).findings]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bundle"
    made.mkdir()
    for name, data in FILES.items():
        (made / name).write_bytes(data)
    assert check(made).holds
    return made


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_stored_and_a_deflated_zip_are_taken(tmp_path: Path, compression: int) -> None:
    (tmp_path / "b.zip").write_bytes(zipped(FILES, compression))

    assert kinds(tmp_path / "b.zip") == []


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_pack_are_not_taken(tmp_path: Path, compression: int) -> None:
    (tmp_path / "b.zip").write_bytes(zipped(FILES, compression))

    assert kinds(tmp_path / "b.zip") == ["bundle"]


def _fifo(folder: Path) -> None:
    (folder / EVENTS_FILE).unlink()
    os.mkfifo(folder / EVENTS_FILE)


def _link(folder: Path) -> None:
    (folder / MANIFEST_FILE).rename(folder.parent / "elsewhere")
    (folder / MANIFEST_FILE).symlink_to("../elsewhere")


def _directory(folder: Path) -> None:
    (folder / SEAL_FILE).unlink()
    (folder / SEAL_FILE).mkdir()


def _more(folder: Path) -> None:
    (folder / ".hidden").write_text("x")


def _large_seal(folder: Path) -> None:
    (folder / SEAL_FILE).write_bytes(b"x" * (SEAL_BYTES_MAX + 1))


def _large_manifest(folder: Path) -> None:
    with (folder / MANIFEST_FILE).open("wb") as file:
        file.truncate(MANIFEST_BYTES_MAX + 1)


def _many(folder: Path) -> None:
    for number in range(5_000):
        (folder / f"n{number}").touch()


@pytest.mark.parametrize("change", [_fifo, _link, _directory, _more, _large_seal, _large_manifest, _many])
def test_what_is_not_three_regular_files_is_found_and_not_read(folder: Path, change: Callable[[Path], None]) -> None:
    change(folder)

    assert kinds(folder) == ["bundle"]


def test_a_link_to_the_bundle_as_a_whole_is_the_callers_business(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)

    assert check(tmp_path / "link").holds


def test_where_there_is_nothing_there_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no bundle"):
        check(tmp_path / "nowhere")
    for wrong in (b"", b"quorum", b"\xff" * 10):
        with pytest.raises(RejectedError):
            verify_bundle(tmp_path, trust=wrong)
    with pytest.raises(RejectedError):
        verify_bundle(tmp_path, trust=TRUST, known=b"no checkpoint")


def test_a_zip_that_unpacks_to_much_is_read_no_further_than_its_manifest_says(tmp_path: Path) -> None:
    """64 MB of one letter in 64 KB: the manifest says some 3,000 bytes."""
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST_FILE, FILES[MANIFEST_FILE])
        archive.writestr(SEAL_FILE, FILES[SEAL_FILE])
        with archive.open(EVENTS_FILE, "w", force_zip64=True) as entry:
            for _ in range(64):
                entry.write(b"x" * (1 << 20))

    found = kinds(tmp_path / "b.zip")

    assert "events" in found
    assert "not-canonical" in found


def test_a_zip_whose_directory_is_large_is_not_read(tmp_path: Path) -> None:
    many = zipped({**FILES, **{f"n{number}": b"" for number in range(3_000)}})
    (tmp_path / "b.zip").write_bytes(many)
    assert kinds(tmp_path / "b.zip") == ["bundle"]

    at = many.rfind(b"PK\x05\x06")
    lying = bytearray(many)
    lying[at + 8 : at + 12] = (3).to_bytes(2, "little") * 2  # it says three; its directory has all of them
    (tmp_path / "b.zip").write_bytes(lying)
    assert kinds(tmp_path / "b.zip") == ["bundle"]


def test_a_zip_of_odd_entries_is_one_finding(tmp_path: Path) -> None:
    good = zipped(FILES)
    events, directory = EVENTS_FILE.encode(), good.rfind(b"PK\x05\x06") + 16
    for name, data in (
        ("a name that ends early", good.replace(events, events[:-1] + b"\0")),
        ("a directory elsewhere", good[:directory] + b"\xff" * 3 + good[directory + 3 :]),
    ):
        (tmp_path / "b.zip").write_bytes(data)
        assert kinds(tmp_path / "b.zip") == ["bundle"], name
    for mode in (stat.S_IFIFO, stat.S_IFDIR, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            for file, data in FILES.items():
                entry = zipfile.ZipInfo(file)
                entry.external_attr = (mode | 0o644) << 16
                archive.writestr(entry, data)
        assert kinds(tmp_path / "b.zip") == ["bundle"]


GOOD = zipped(FILES)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_zip_with_any_byte_changed_holds_the_same_files_or_is_refused(at: int, flip: int) -> None:
    changed = bytearray(GOOD)
    changed[at] ^= flip
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "b.zip"
        path.write_bytes(changed)
        report = check(path)
        if report.holds:  # a date, or another thing that is none of the three files
            with zipfile.ZipFile(path) as archive:
                assert {name: archive.read(name) for name in archive.namelist()} == FILES


@given(st.binary(max_size=500))
def test_any_bytes_as_a_zip_are_one_finding(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "b.zip"
        path.write_bytes(data)
        assert kinds(path) == ["bundle"]


def test_two_bundles_of_two_ledgers_cannot_be_held_together(folder: Path, tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "other") as other:
        other.export(tmp_path / "b2")
        both = Policy(logs=(*Policy.parse(TRUST).logs, other.verifier_key)).render()

    with pytest.raises(RejectedError, match="bundles of forge/shop and of local/other"):
        verify_pair(folder, tmp_path / "b2", trust=both)


def test_a_ledger_made_anew_under_its_name_is_a_fork(tmp_path: Path) -> None:
    logs = []
    for number in (1, 2):
        with tallystick.open(tmp_path / f"l{number}", name="same") as made:
            made.export(tmp_path / f"b{number}")
            logs.append(made.verifier_key)

    report = verify_pair(tmp_path / "b1", tmp_path / "b2", trust=Policy(logs=tuple(logs)).render())

    assert [str(one.kind) for one in report.findings] == ["fork"]
    assert "made anew" in report.findings[0].seen


def test_entities_past_the_bound_are_not_followed_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystick.evidence.bundle.lines.STREAMS_MAX", 2)
    made = bundle(LINES, end=16)
    for name, data in made.files().items():
        (tmp_path / name).write_bytes(data)
    assert kinds(tmp_path) == []

    for at in (6, 8, 9):  # of two tills that come past the bound, and between them of the ledger, which comes first
        made.lines[at] = signed_anew(made.lines[at], entity_version=9)
    for name, data in made.stated().files().items():
        (tmp_path / name).write_bytes(data)
    found = check(tmp_path).findings
    assert [finding.line for finding in found if finding.kind == "entity-version"] == [9, 14]
