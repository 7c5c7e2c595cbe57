"""An evidence pack is a bundle and a report on it, of one size of the ledger, and never overwrites anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import apsw
import pytest
from tallystick_verify import verify_bundle as verify_by_the_verifier

import tallystick
from tallystick import Ledger
from tallystick.core import timestamp
from tallystick.core.custody import RetentionPolicy
from tallystick.core.moment import DAY
from tallystick.core.policy import Policy
from tallystick.errors import RejectedError, TamperError
from tallystick.evidence.controls.catalogue import load
from tallystick.evidence.controls.period import Period
from tallystick.evidence.pack import Pack, Plan, make_pack, plan_pack
from tests.evidence.reports import Seen
from tests.tampering import line_at, replace_record

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


def told(pack: Pack) -> str:
    """The text of the report, each run of white space as one space."""
    return " ".join(Seen((pack.folder / "report.html").read_text("utf-8")).text.split())


def first_line(pack: Pack) -> str:
    """What stands below the title of the report."""
    found = re.search(r'<p class="about">(.*?)</p>', (pack.folder / "report.html").read_text("utf-8"))
    assert found
    return found[1]


def lines_of(pack: Pack) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (pack.folder / "bundle/events.jsonl").read_bytes().split(b"\n")[:-1]]


def trust_of(ledger: Ledger) -> bytes:
    return Policy(logs=(ledger.verifier_key,)).render()


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


def figures(pack: Pack) -> dict[str, int]:
    """What the report says of each selector."""
    return {seen.signed.name: seen.count for each in pack.assessments for seen in (*each.seen, *each.related)}


def test_a_pack_is_complete_and_its_matches_are_what_the_verifier_computes(clinic: Ledger, tmp_path: Path) -> None:
    size = clinic.size

    pack = packed(clinic, tmp_path / "pack", "CC7.2", "CC9.2", actor="grace", as_pdf=True)

    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == [
        *("assessment.json", "bundle", "report.html", "report.pdf")
    ]
    assert pack.exported is not None
    assert (pack.exported.count, pack.exported.complete, pack.assessments[0].count) == (size, True, 3)
    assert (pack.size, pack.gaps) == (size, 1)
    for words in (pack.exported.manifest_sha256, "SOC2/CC9.2", f"{size} records", "no matching record can be left out"):
        assert words in told(pack), words
    trust = trust_of(clinic)
    assert tallystick.verify_bundle(tmp_path / "pack/bundle", trust=trust).findings == ()
    report = verify_by_the_verifier(tmp_path / "pack/bundle", trust=trust)
    assert report.holds
    assert {match.name: match.count for match in report.matches} == figures(pack)
    incidents = next(match.positions for match in report.matches if match.name == "incidents")
    assert [*incidents] == [*pack.assessments[0].samples]
    assert (clinic.get(pack.exported.position).actor or {})["id"] == "grace"


def test_a_pack_says_first_what_it_is_and_how_much_it_discloses(clinic: Ledger, tmp_path: Path) -> None:
    plans: list[Plan] = []
    whole = packed(clinic, tmp_path / "whole", "CC7.2", announce=plans.append)
    some = packed(clinic, tmp_path / "some", "CC7.2", announce=plans.append, filtered=True)

    assert [plan.kind for plan in plans] == ["complete", "filtered"]
    assert first_line(whole).startswith(
        "Complete: every record at positions [0, 415). It discloses 415 records: 57 matching"
    )
    assert "358 unrelated to them" in first_line(whole)
    assert first_line(some).startswith("Filtered: it discloses 57 records matching the controls, and no other.")
    for pack, kind, counts in ((whole, "complete", (415, 57, 358)), (some, "filtered", (57, 57, 0))):
        found = json.loads((pack.folder / "assessment.json").read_text("utf-8"))
        assert found == json.loads(json.dumps(pack.to_json()))
        assert next(iter(found.items())) == ("pack", kind)
        assert tuple(found["discloses"].values()) == counts
        assert found["bundle"]["records"] == counts[0]


def test_whoever_is_told_may_stop_before_anything_is_written(clinic: Ledger, tmp_path: Path) -> None:
    size = clinic.size

    def stop(plan: Plan) -> None:
        raise RejectedError(f"{plan.unrelated} unrelated records are too many")

    with pytest.raises(RejectedError, match="358 unrelated"):
        packed(clinic, tmp_path / "pack", "CC7.2", announce=stop)

    assert not (tmp_path / "pack").exists()
    assert clinic.size == size


def test_a_plan_writes_nothing(clinic: Ledger) -> None:
    size = clinic.size

    plan = plan_pack(clinic, [load().find("CC7.2")], period=SPRING)

    assert (plan.disclosed, plan.unrelated, clinic.size) == (415, 358, size)
    assert [*plan.to_json()][:3] == ["pack", "says", "discloses"]


def test_a_filtered_pack_has_only_records_of_the_time_and_of_the_controls(clinic: Ledger, tmp_path: Path) -> None:
    march = Period.between("2026-03-17", "2026-03-17", occurred=True, now=NOW)

    pack = packed(clinic, tmp_path / "pack", "CC7.3", period=march, filtered=True)

    assert [record["event_type"] for record in lines_of(pack)] == ["incident.opened"]
    assert tallystick.verify_bundle(tmp_path / "pack/bundle", trust=trust_of(clinic)).holds


def test_a_scope_makes_a_filtered_pack_that_says_so(clinic: Ledger, tmp_path: Path) -> None:
    scope = ["event_type=incident.*", "entity_id^=inc"]

    pack = packed(clinic, tmp_path / "pack", "CC7.2", scope=scope)

    assert (pack.plan.kind, pack.to_json()["scope"]) == ("filtered", scope)
    assert first_line(pack).startswith("Filtered, as the key is scoped to event_type=incident.* entity_id^=inc:")
    assert {record["event_type"].partition(".")[0] for record in lines_of(pack)} == {"incident"}
    assert tallystick.verify_bundle(tmp_path / "pack/bundle", trust=trust_of(clinic)).holds


def test_a_complete_pack_shows_that_nothing_fits(clinic: Ledger, tmp_path: Path) -> None:
    pack = packed(clinic, tmp_path / "pack", "CC9.2")

    assert pack.exported is not None
    assert {match.count for match in pack.exported.matches} == {0}
    assert verify_by_the_verifier(tmp_path / "pack/bundle", trust=trust_of(clinic)).holds


def test_a_filtered_pack_of_nothing_has_no_bundle_and_the_report_says_so(clinic: Ledger, tmp_path: Path) -> None:
    size = clinic.size

    pack = packed(clinic, tmp_path / "pack", "CC9.2", filtered=True)

    assert (pack.exported, clinic.size) == (None, size)
    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == ["assessment.json", "report.html"]
    assert "No bundle of records was made" in told(pack)
    assert json.loads((tmp_path / "pack/assessment.json").read_text("utf-8"))["bundle"] is None


def test_an_index_that_was_edited_hides_nothing(clinic: Ledger, tmp_path: Path) -> None:
    honest = figures(packed(clinic, tmp_path / "honest", "CC6.3"))
    assert honest["permission-changes"] > 0
    with apsw.Connection(str(tmp_path / "audit/index.db")) as index:
        index.execute("UPDATE term SET name = 'x.hidden' WHERE name = 'user.permission_changed'")
        assert index.changes() == 1

    for number, how in enumerate((False, True)):
        pack = packed(clinic, tmp_path / f"pack-{number}", "CC6.3", filtered=how)

        assert figures(pack) == honest
        assert sum(record["event_type"] == "user.permission_changed" for record in lines_of(pack)) == 6
        assert tallystick.verify_bundle(pack.folder / "bundle", trust=trust_of(clinic)).holds


@pytest.mark.parametrize("how", [{}, {"filtered": True}])
def test_a_record_that_is_left_out_is_found(clinic: Ledger, tmp_path: Path, how: dict[str, Any]) -> None:
    pack = packed(clinic, tmp_path / "pack", "CC6.3", **how)
    path = tmp_path / "pack/bundle/events.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if b'"user.permission_changed"' not in line))

    found = {
        str(finding.kind)
        for finding in tallystick.verify_bundle(pack.folder / "bundle", trust=trust_of(clinic)).findings
    }
    assert found == {
        finding.kind for finding in verify_by_the_verifier(pack.folder / "bundle", trust=trust_of(clinic)).findings
    }
    assert {"events"} < found


def test_a_log_that_was_edited_makes_no_pack(clinic: Ledger, tmp_path: Path) -> None:
    log = tmp_path / "audit" / "ledger.db"
    replace_record(log, 256, line_at(log, 256).replace(b"user.permission_changed", b"user.permission_changeX"))

    for how in (False, True):
        with pytest.raises(TamperError, match="signed root"):
            packed(clinic, tmp_path / "pack", "CC6.3", filtered=how)
    assert not (tmp_path / "pack").exists()


def test_a_pack_over_pruned_records_says_what_is_absent(tmp_path: Path) -> None:
    clock = [timestamp.parse("2026-01-01T00:00:00.000000Z")]
    with tallystick.open(tmp_path / "days", clock=lambda: clock[0]) as ledger:
        for number in range(20):
            clock[0] += DAY
            ledger.append({"event_type": "user.permission_changed", "entity_id": f"user-{number}", "payload": {}})
        ledger.retention.set(RetentionPolicy.of("9d"))
        clock[0] += DAY
        ledger.retention.prune()
        period = Period.between("2026-01-06", None, now=clock[0])

        pack = packed(ledger, tmp_path / "pack", "CC6.3", period=period)

        assert 0 < figures(pack)["permission-changes"] < 15
        report = verify_by_the_verifier(
            pack.folder / "bundle", trust=trust_of(ledger), now=datetime(2030, 1, 1, tzinfo=UTC)
        )
        assert report.holds
        assert "pruned" in report.proves
        assert any("removed under the retention policy" in remark for remark in pack.assessments[0].remarks)


def test_a_pack_by_recorded_time_has_the_time_and_a_record_on_either_side(tmp_path: Path) -> None:
    clock = [timestamp.parse("2026-01-01T00:00:00.000000Z")]
    with tallystick.open(tmp_path / "days", clock=lambda: clock[0]) as ledger:
        for number in range(20):
            clock[0] += DAY
            ledger.append({"event_type": "user.permission_changed", "entity_id": f"user-{number}", "payload": {}})
        period = Period.between("2026-01-06", "2026-01-09", now=clock[0])
        pack = packed(ledger, tmp_path / "pack", "CC6.3", period=period)
        rest = packed(ledger, tmp_path / "rest", "CC6.3", period=Period.between("2026-01-18", None, now=clock[0]))

        days = [record["recorded_at"][:10] for record in lines_of(pack)]
        assert (days[0], days[-1]) == ("2026-01-05", "2026-01-10")
        assert (figures(pack)["permission-changes"], pack.plan.unrelated) == (4, len(days) - 4)
        assert figures(rest)["permission-changes"] == 3  # up to now, which the last is not before
        for each in (pack, rest):
            assert verify_by_the_verifier(
                each.folder / "bundle", trust=trust_of(ledger), now=datetime(2030, 1, 1, tzinfo=UTC)
            ).holds


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
    assert figures(pack) == {"incidents": 3}
