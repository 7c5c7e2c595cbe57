"""Assessments count what a scan counts, and what is not there is a gap, never anything better."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import tallystick
from tallystick import Ledger
from tallystick.core import timestamp
from tallystick.core.moment import DAY
from tallystick.core.record import Record
from tallystick.errors import RejectedError
from tallystick.evidence.controls.assessment import Assessment, Assessor, assess
from tallystick.evidence.controls.catalogue import Control, load
from tallystick.evidence.controls.period import Period, Window
from tallystick.read.bucketed import moment_of

ROOT: Final = Path(__file__).parents[2]
NOW: Final = timestamp.parse("2026-04-06T00:00:00.000000Z")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with tallystick.open(tmp_path / "audit") as ledger:
        yield ledger


def own(folder: Path, *, cadence: int | None = None, terms: str = "[event_type=door.*]") -> Control:
    """A control over doors with a window of thirty days."""
    often = "" if cadence is None else f"    cadence: {{doors: {cadence}}}\n"
    (folder / "own.yaml").write_text(
        "framework: HOUSE\ntitle: House\nselectors:\n  doors:\n    shows: A door was opened.\n"
        f"    any_of: [{terms}]\ncontrols:\n  - id: H-1\n    title: Doors\n    requirement: Doors are recorded.\n"
        f"    selectors: [doors]\n{often}    gap: No door was opened.\n    window: 30\n"
    )
    return load([folder / "own.yaml"]).find("H-1")


def scanned(ledger: Ledger, control: Control, window: Window, size: int) -> dict[str, Any]:
    """The naive twin: every record looked at, one after another."""
    moment = moment_of(window.time)
    queries = [query for selector in control.selectors for query in selector.queries]
    found: list[Record] = [
        record
        for record in ledger.read(0, size)
        if window.after <= moment(record.members) < window.before and any(query.takes(record) for query in queries)
    ]
    actors = {record.actor["id"] for record in found if record.actor}
    moments = [moment(record.members) for record in found]
    return {
        "count": len(found),
        "actor_count": len(actors),
        "first": min(moments, default=None),
        "last": max(moments, default=None),
        "by_selector": [
            sum(any(query.takes(record) for query in selector.queries) for record in found)
            for selector in control.selectors
        ],
        "by_related": [
            sum(
                window.after <= moment(record.members) < window.before
                and any(query.takes(record) for query in selector.queries)
                for record in ledger.read(0, size)
            )
            for selector in control.related
        ],
    }


def told(found: Assessment) -> dict[str, Any]:
    names = ("count", "actor_count", "first", "last")
    told = {name: getattr(found, name) for name in names} | {"by_selector": [seen.count for seen in found.seen]}
    return told | {"by_related": [seen.count for seen in found.related]}


@pytest.mark.parametrize(
    ("first", "last", "occurred"),
    [(None, None, False), ("2026-02-23", "2026-04-05", True), ("2026-03-17T02:12:27Z", "2026-03-17", True)],
)
def test_every_control_counts_what_a_scan_counts(
    clinic: Ledger, first: str | None, last: str | None, occurred: bool
) -> None:
    now = NOW if occurred else timestamp.parse(clinic.get(clinic.size - 1).recorded_at) + 1
    assessor = Assessor(clinic, Period.between(first, last, occurred=occurred, now=now))

    for found in assessor.assess_all(load().controls):
        assert told(found) == scanned(clinic, found.control, found.window, clinic.size), found.control.key
        assert (found.status == "gap") >= (found.count == 0)


def test_samples_are_records_that_fit_from_the_first_to_the_last(clinic: Ledger) -> None:
    found = assess(clinic, load().find("CC6.1"), after="2026-02-23", before="2026-04-06", occurred=True)

    queries = [query for selector in found.control.selectors for query in selector.queries]
    assert len(found.samples) == 5
    assert [*found.samples] == sorted(found.samples)
    assert all(any(query.takes(clinic.get(position)) for query in queries) for position in found.samples)


def test_a_control_without_a_single_event_is_a_gap_that_says_what_it_means(clinic: Ledger) -> None:
    found = assess(clinic, load().find("CC9.2"), after="2026-02-23", before="2026-04-06", occurred=True)

    assert (found.status, found.count, found.samples) == ("gap", 0, ())
    assert [gap.sentence for gap in found.gaps] == [found.control.gap]


def test_no_control_is_evidenced_by_a_window_in_which_nothing_happened(clinic: Ledger) -> None:
    assessor = Assessor(clinic, Period.of(after="2025-01-01", before="2025-12-31", occurred=True, now=NOW))

    assert {found.status for found in assessor.assess_all(load().controls)} == {"gap"}


def found_in(ledger: Ledger) -> dict[str, int]:
    """The controls that are evidenced in their usual windows, with how many records say so."""
    assessed = Assessor(ledger, Period.of()).assess_all(load().controls)
    return {found.control.key: found.count for found in assessed if found.status == "evidenced"}


def test_a_new_ledger_is_evidence_for_nothing_and_exports_do_not_change_that(ledger: Ledger, tmp_path: Path) -> None:
    assert found_in(ledger) == {}

    ledger.export(tmp_path / "one", actor="grace")
    ledger.export(tmp_path / "two", actor="grace")

    assert found_in(ledger) == {}
    beside = {seen.selector.name: seen.count for seen in assess(ledger, load().find("CC7.2")).related}
    assert beside["evidence-drawn"] == 2


def test_an_export_is_no_evidence_for_a_selector_that_names_only_its_actor(ledger: Ledger, tmp_path: Path) -> None:
    control = own(tmp_path, terms="[actor=grace]")
    ledger.export(tmp_path / "out", actor="grace")

    assert assess(ledger, control).status == "gap"
    ledger.append(event_type="door.opened", entity_id="door-7", actor="grace")
    assert assess(ledger, control).count == 1


@pytest.mark.parametrize(
    ("event_type", "ids"),
    [
        ("user.deleted", "CC7.4"),
        ("user.reinstated", "CC7.4"),
        ("aws.cloudtrail.StopLogging", "AU-2 AU-5 AU-9 AU-12 10.2 10.3 10.7 A.8.15 CC7.1"),
        ("logging.stopped", "AU-2 AU-5 AU-9 AU-12 10.2 10.3 10.7 A.8.15 CC7.1"),
        ("aws.cloudtrail.DeleteTrail", "AU-5 AU-9 10.3 10.7 A.8.15"),
        ("aws.lambda.AddPermission20150331v2", "CC9.2"),
        ("aws.rolesanywhere.CreateTrustAnchor", "CC9.2"),
        ("aws.ec2.RunInstances", "CC6.8 CC7.1 CC8.1 CM-3 404-change A.8.4"),
        ("aws.monitoring.DescribeAlarms", "CC7.2 CC7.3 A.8.16 SI-4 AU-6 10.4"),
        ("aws.guardduty.DeleteDetector", "CC7.2 CC7.3 AU-5 10.7 A.8.16 SI-4"),
        ("aws.cloudtrail.LookupEvents", "AU-6 10.4 CC7.2 164.308(a)(1)(ii)(D)"),
        ("aws.iam.DeactivateMFADevice", "A.8.5 164.312(d) CC6.6"),
        ("aws.ec2.AuthorizeSecurityGroupIngress", "CC6.6 CC7.1 CC8.1"),
        ("access_review.completed", "AU-6 10.4 CC7.2"),
        ("config.changed", "CC7.1 CC8.1 CM-3 CM-5 404-change"),
    ],
)
def test_an_act_that_a_control_is_to_answer_closes_no_gap_by_itself(ledger: Ledger, event_type: str, ids: str) -> None:
    ledger.append(event_type=event_type, entity_id="it", actor="mallory", labels=["write"])

    found = [assess(ledger, load().find(id_)) for id_ in ids.split()]
    assert {each.control.id: each.status for each in found if each.status != "gap"} == {}


def test_what_was_recorded_beside_a_gap_is_told_with_it(ledger: Ledger) -> None:
    ledger.append(event_type="aws.cloudtrail.StopLogging", entity_id="trail", actor="mallory")
    found = assess(ledger, load().find("AU-5"))

    assert (found.count, [seen.count for seen in found.related]) == (0, [1])
    assert found.gaps[0].sentence.endswith("Recorded beside it, and no evidence by itself: logging stops (1).")
    assert found.to_json()["related"][0]["name"] == "logging-stops"


def test_every_control_can_be_evidenced_by_events_of_an_application(ledger: Ledger) -> None:
    controls = load().controls
    asked = {
        name.replace(".*", ".done")
        for control in controls
        for selector in control.selectors
        for query in selector.queries
        for name in query.event_types
        if not name.startswith(("aws.", "tallystick."))
    }
    ledger.append_many([{"event_type": name, "entity_id": "it", "actor": "jane"} for name in sorted(asked)])

    counts = {each.control.key: each.count for each in Assessor(ledger, Period.of()).assess_all(controls)}
    assert [key for key, count in counts.items() if count == 0] == []


def test_setting_retention_is_an_act_and_so_evidence_that_logs_are_kept(ledger: Ledger) -> None:
    ledger.retention.hold("case", label="phi", reason="a case", actor="grace")

    assert {*found_in(ledger)} == {
        *("ISO27001/A.8.15", "NIST800-53/AU-4", "NIST800-53/AU-9", "NIST800-53/AU-11"),
        *("PCI-DSS/10.3", "PCI-DSS/10.5"),
    }


def test_a_stretch_longer_than_the_cadence_is_a_gap_with_its_dates(ledger: Ledger, tmp_path: Path) -> None:
    for day in ("05", "09", "25"):
        ledger.append(event_type="door.opened", entity_id="door-7", occurred_at=f"2026-03-{day}T12:00:00Z")

    period = Period.between("2026-03-01", "2026-03-31", occurred=True, now=NOW)
    found = Assessor(ledger, period).assess(own(tmp_path, cadence=7))

    assert found.status == "gap"
    assert [gap.sentence for gap in found.gaps] == [
        "No doors for 16.0 days (2026-03-09 to 2026-03-25); they are looked for at least every 7 days."
    ]
    assert Assessor(ledger, period).assess(own(tmp_path, cadence=16)).status == "evidenced"


def test_the_ends_of_the_window_count_for_the_cadence_but_not_what_is_still_to_come(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.append(event_type="door.opened", entity_id="door-7", occurred_at="2026-04-04T12:00:00Z")
    control = own(tmp_path, cadence=7)

    period = Period.between("2026-03-01", "2026-06-30", occurred=True, now=NOW)
    found = Assessor(ledger, period).assess(control)

    assert [(gap.before - gap.after) / DAY for gap in found.gaps] == [34.5]
    assert found.remarks == ("The window ends after now, 2026-04-06: what is still to come cannot be seen.",)


def test_what_is_wanted_as_often_as_the_window_is_long_must_be_there_once(ledger: Ledger, tmp_path: Path) -> None:
    control = own(tmp_path, cadence=30, terms="[event_type=door.*], [event_type=window.*]")
    ledger.append(event_type="window.opened", entity_id="w", occurred_at="2026-03-20T12:00:00Z")
    period = Period.between("2026-03-01", "2026-03-30", occurred=True, now=NOW)

    assert Assessor(ledger, period).assess(control).status == "evidenced"
    short = Assessor(ledger, Period.between("2026-03-18", "2026-03-30", occurred=True, now=NOW)).assess(control)
    assert short.status == "evidenced"
    assert "the window is shorter, so their absence says little" in short.remarks[0]


def test_records_after_the_size_do_not_count(ledger: Ledger, tmp_path: Path) -> None:
    control = own(tmp_path)
    ledger.append(event_type="door.opened", entity_id="door-7")
    size = ledger.size
    ledger.append(event_type="door.opened", entity_id="door-7")

    assert (assess(ledger, control, size=size).count, assess(ledger, control).count) == (1, 2)


def test_a_record_that_fits_several_questions_counts_once(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append(event_type="door.opened", entity_id="door-7", labels=["phi"], actor="jane")

    assert assess(ledger, own(tmp_path, terms="[event_type=door.*], [label=phi], [actor=jane]")).count == 1


def test_a_date_at_the_end_is_all_of_that_day_where_people_say_through() -> None:
    through = Period.between("2026-01-01", "2026-03-31", now=NOW).window(90)
    until = Period.of(after="2026-01-01", before="2026-03-31", now=NOW).window(90)

    assert through.described == "2026-01-01 through 2026-03-31 (UTC)"
    assert until.described == "2026-01-01 through 2026-03-30 (UTC)"


@pytest.mark.parametrize(
    ("first", "last", "place"),
    [("2026-03-02", "2026-03-01", "--to"), ("2027-01-01", None, "--from"), ("soon", None, "--from")],
)
def test_a_period_that_is_none_is_refused_by_the_name_of_what_was_given(
    first: str | None, last: str | None, place: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        Period.between(first, last, now=NOW)

    assert caught.value.place == place
