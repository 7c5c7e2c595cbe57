"""An evidence pack is a bundle and a report on it, of one size of the ledger, and never overwrites anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import tallystick
from tallystick import Ledger
from tallystick.core import timestamp
from tallystick.core.policy import Policy
from tallystick.errors import RejectedError
from tallystick.evidence.controls.catalogue import load
from tallystick.evidence.controls.period import Period
from tallystick.evidence.pack import Pack, make_pack
from tests.evidence.reports import Seen

ROOT: Final = Path(__file__).parents[2]
NOW: Final = timestamp.parse("2026-04-06T00:00:00.000000Z")
SPRING: Final = Period.between("2026-02-23", "2026-04-05", occurred=True, now=NOW)


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Ledger]:
    with tallystick.open(tmp_path / "audit") as ledger:
        ledger.append_many([line for line in (ROOT / "examples/events.jsonl").read_bytes().split(b"\n") if line])
        yield ledger


def packed(ledger: Ledger, folder: Path, *ids: str, period: Period = SPRING, **how: Any) -> Pack:
    catalogue = load()
    return make_pack(ledger, folder, [catalogue.find(id_) for id_ in ids], period=period, catalogue=catalogue, **how)


def test_a_pack_has_the_matching_records_and_a_report_that_names_them(clinic: Ledger, tmp_path: Path) -> None:
    size = clinic.size

    pack = packed(clinic, tmp_path / "pack", "CC7.2", "CC9.2", actor="grace", as_pdf=True)

    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == [
        *("assessment.json", "bundle", "report.html", "report.pdf")
    ]
    assert pack.exported is not None
    assert (pack.exported.count, pack.assessments[0].count) == (57, 3)  # with the refusals beside the incidents
    assert (pack.size, pack.gaps) == (size, 1)
    text = Seen((tmp_path / "pack/report.html").read_text("utf-8")).text
    for told in (pack.exported.manifest_sha256, "SOC2/CC9.2", f"{size} records", "does not prove that the selection"):
        assert told in " ".join(text.split()), told
    trust = Policy(logs=(clinic.verifier_key,)).render()
    assert tallystick.verify_bundle(tmp_path / "pack/bundle", trust=trust).findings == ()
    assert (clinic.get(pack.exported.position).actor or {})["id"] == "grace"
    found = json.loads((tmp_path / "pack/assessment.json").read_text("utf-8"))
    assert found == json.loads(json.dumps(pack.to_json()))
    assert found["bundle"]["records"] == 57
    assert [each["status"] for each in found["controls"]] == ["evidenced", "gap"]


def test_only_records_of_the_time_and_of_the_controls_are_exported(clinic: Ledger, tmp_path: Path) -> None:
    march = Period.between("2026-03-17", "2026-03-17", occurred=True, now=NOW)

    packed(clinic, tmp_path / "pack", "CC7.3", period=march)

    lines = (tmp_path / "pack/bundle/events.jsonl").read_bytes().split(b"\n")[:-1]
    assert [json.loads(line)["event_type"] for line in lines] == ["incident.opened"]


def test_when_nothing_fits_there_is_no_bundle_and_the_report_says_so(clinic: Ledger, tmp_path: Path) -> None:
    size = clinic.size

    pack = packed(clinic, tmp_path / "pack", "CC9.2")

    assert (pack.exported, clinic.size) == (None, size)
    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == ["assessment.json", "report.html"]
    assert "No bundle of records was made" in Seen((tmp_path / "pack/report.html").read_text("utf-8")).text
    assert json.loads((tmp_path / "pack/assessment.json").read_text("utf-8"))["bundle"] is None


def test_a_folder_that_is_not_empty_is_left_as_it_is(clinic: Ledger, tmp_path: Path) -> None:
    size = clinic.size
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/kept.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")

    for name in ("pack", "file"):
        with pytest.raises(RejectedError, match="something is there already"):
            packed(clinic, tmp_path / name, "CC7.2")

    assert [path.name for path in (tmp_path / "pack").iterdir()] == ["kept.txt"]
    assert clinic.size == size


def test_an_empty_folder_will_do_and_so_will_one_whose_parents_are_missing(clinic: Ledger, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert packed(clinic, tmp_path / "empty", "CC7.2").exported
    assert packed(clinic, tmp_path / "a/b/c", "CC7.2").exported


def test_controls_of_ones_own_are_packed_like_the_shipped_ones(clinic: Ledger, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "framework: HOUSE\ntitle: House\nselectors:\n  exports: {shows: Out., any_of: [[event_type=data.exported]]}\n"
        "controls:\n  - {id: H-1, title: T, requirement: R., selectors: [exports], gap: G., window: 90}\n"
    )
    catalogue = load([tmp_path / "own.yaml"])

    pack = make_pack(clinic, tmp_path / "pack", catalogue.of("HOUSE"), period=SPRING, catalogue=catalogue)

    assert pack.assessments[0].count == 7
    assert [path.name for path in (tmp_path / "pack/bundle").iterdir() if path.suffix == ".html"] == []
    assert "HOUSE/H-1" in (tmp_path / "pack/report.html").read_text("utf-8")


def test_as_many_controls_as_a_catalogue_can_have_are_packed(clinic: Ledger, tmp_path: Path) -> None:
    controls = "".join(
        f"  - {{id: H-{number:050d}, title: T, requirement: R., selectors: [incidents], gap: G., window: 9}}\n"
        for number in range(500)
    )
    (tmp_path / "own.yaml").write_text(f"framework: HOUSE\ntitle: House\ncontrols:\n{controls}")
    catalogue = load([tmp_path / "own.yaml"])

    pack = make_pack(clinic, tmp_path / "pack", catalogue.of("HOUSE"), period=SPRING, catalogue=catalogue)

    assert len(pack.assessments) == 500
    assert pack.exported is not None
    assert pack.exported.count == 3
