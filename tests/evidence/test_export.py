"""Exports: from a real ledger to three files that hold, whatever was asked for; or nothing at all."""

from __future__ import annotations

import csv
import io
import itertools
import json
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallystick
from tallystick.core import timestamp
from tallystick.core.custody import RetentionPolicy
from tallystick.core.manifest import BUNDLE_FILES, EVENTS_FILE, MANIFEST_FILE, Manifest
from tallystick.core.note import VerifierKey
from tallystick.core.policy import Policy
from tallystick.core.selector import Selector
from tallystick.core.sshsig import VIEWS_NAMESPACE, open_signature
from tallystick.errors import ConflictError, NotFoundError, RejectedError, StoreError, TamperError
from tallystick.evidence.bundle.check import verify_bundle
from tallystick.evidence.bundle.delivery import Delivery
from tallystick.evidence.bundle.report import BundleReport
from tallystick.ledger import Ledger
from tallystick.read.query import Query, parse_terms
from tests.tampering import edit, line_at, replace_record

START = timestamp.parse("2026-03-01T00:00:00.000000Z")
DAY = 86_400 * timestamp.SECOND


SIZE = 140
"""Fewer than there are in `ledger` from the first."""
QUERIES = [parse_terms([term]) for term in ("actor=jane", "event_type=door.*", "entity_id=door-1")]
NUMBERS = itertools.count()


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    """Ten days of events by three people, in ten epochs, with both keys changed on the way."""
    with tallystick.open(tmp_path / "ledger", clock=clock) as opened:
        for day in range(10):
            clock.now = START + day * DAY + 60 * timestamp.SECOND
            opened.append_many([event(day, number) for number in range(12)])
            if day in (3, 6):
                opened.rotate_key("checkpoint" if day == 3 else "evidence")
        yield opened


def event(day: int, number: int) -> dict[str, Any]:
    return {
        "event_type": "door.opened" if number % 3 else "door.locked",
        "entity_id": f"door-{number % 4}",
        "actor": ("jane", "raj", "mia")[number % 3],
        "labels": ["night"] if number == 7 else [],
        "payload": {"day": day, "n": number, "note": "=1+1" if number == 5 else "<b>&\u202e"},
    }


def trust_of(ledger: Ledger) -> bytes:
    return Policy(logs=(ledger.verifier_key,)).render()


def check(ledger: Ledger, path: Path, clock: Clock, **more: Any) -> BundleReport:
    return verify_bundle(path, trust=trust_of(ledger), clock=clock, **more)


def manifest_of(path: Path) -> Manifest:
    return Manifest.parse((path / MANIFEST_FILE).read_bytes())


def lines_of(path: Path) -> list[bytes]:
    return (path / EVENTS_FILE).read_bytes().split(b"\n")[:-1]


def test_a_bundle_of_all_is_complete_and_holds(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    before = ledger.size

    exported = ledger.export(tmp_path / "all", actor="auditor-ann")

    assert (names_in(tmp_path / "all")) == sorted(BUNDLE_FILES)
    assert (exported.first, exported.end, exported.complete, exported.matches) == (0, before + 1, True, ())
    assert [record.line for record in ledger.read(0, exported.end)] == lines_of(tmp_path / "all")
    assert check(ledger, tmp_path / "all", clock).findings == ()


@pytest.mark.parametrize("end", [None, 1, 2])
def test_a_ledger_without_events_is_a_bundle_too(tmp_path: Path, end: int | None) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        exported = ledger.export(tmp_path / "out", end=end)

        assert exported.count == (end or 3)
        assert verify_bundle(tmp_path / "out", trust=trust_of(ledger)).findings == ()
        assert ledger.verify().holds


def test_the_ledger_records_who_exported_what(ledger: Ledger, tmp_path: Path) -> None:
    exported = ledger.export(tmp_path / "out", [parse_terms(["actor=jane"])], first=5, end=50, actor="auditor-ann")

    record = ledger.get(exported.position)
    assert record.event_type == "tallystick.evidence.exported"
    assert record.actor == {"id": "auditor-ann"}
    assert record.payload == {
        "complete": False,
        "count": exported.count,
        "events_sha256": sha256((tmp_path / "out" / EVENTS_FILE).read_bytes()).hexdigest(),
        "ledger_size": exported.size,
        "manifest_sha256": sha256((tmp_path / "out" / MANIFEST_FILE).read_bytes()).hexdigest(),
        "range": {"first": 5, "end": 50},
        "selectors": ["actor=jane"],
    }
    assert ledger.verify().findings == ()


def test_bundles_that_follow_each_other_cover_everything_once(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    first = ledger.export(tmp_path / "first")
    ledger.append_many([event(11, number) for number in range(5)])
    second = ledger.export(tmp_path / "second", first=first.end)

    assert manifest_of(tmp_path / "second").prev_hash == sha256(lines_of(tmp_path / "first")[-1]).digest()
    assert first.end == second.first
    assert check(ledger, tmp_path / "second", clock).holds


def test_a_bundle_since_a_kept_checkpoint_is_held_against_it(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    kept = ledger.checkpoint()
    ledger.append_many([event(11, number) for number in range(5)])

    exported = ledger.export(tmp_path / "new", since=kept)

    assert exported.first == ledger_size(kept)
    assert check(ledger, tmp_path / "new", clock, known=kept).findings == ()
    other = Policy.parse(trust_of(ledger))
    assert verify_bundle(tmp_path / "new", trust=other.render(), known=kept, clock=clock).holds


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ledger_size(note: bytes) -> int:
    return int(note.split(b"\n")[1])


def test_a_range_of_time_is_complete_too(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    exported = ledger.export(tmp_path / "days", after="2026-03-03", before="2026-03-05T00:00:00Z")

    days = {json.loads(line)["recorded_at"][:10] for line in lines_of(tmp_path / "days")}
    inside = [r for r in ledger.read(0, exported.size) if r.recorded_at[:10] in ("2026-03-03", "2026-03-04")]
    assert days == {"2026-03-03", "2026-03-04"}
    assert exported.count == len(inside)
    assert check(ledger, tmp_path / "days", clock).findings == ()


@pytest.mark.parametrize(("edited", "moved"), [("2026-03-03", "2026-03-02"), ("2026-03-04", "2026-03-05")])
def test_a_range_of_time_is_not_thinned_by_records_outside_it_whose_time_was_edited(
    tmp_path: Path, clock: Clock, edited: str, moved: str
) -> None:
    """What is edited lies beyond the edges that it moves, so that nothing else would read it."""
    with tallystick.open(tmp_path / "ledger", clock=clock) as ledger:
        for day in range(6):
            clock.now = START + day * DAY
            ledger.append_many([event(day, number) for number in range(400)])
        whole = ledger.export(tmp_path / "whole", after="2026-03-03", before="2026-03-05")
        days = [(record.position, record.line) for record in ledger.read() if record.recorded_at[:10] == edited]
    assert whole.count > 2 * len(days) - 10
    assert len(days) >= 400
    for position, line in days:
        old, new = (b'"recorded_at":"%b' % day.encode() for day in (edited, moved))
        replace_record(tmp_path / "ledger" / "ledger.db", position, line.replace(old, new))

    with tallystick.open(tmp_path / "ledger", clock=clock) as ledger, pytest.raises(TamperError, match="position"):
        ledger.export(tmp_path / "thinned", after="2026-03-03", before="2026-03-05")
    assert not (tmp_path / "thinned").exists()


def test_a_filtered_bundle_has_what_fits_any_query_once_and_in_order(
    ledger: Ledger, tmp_path: Path, clock: Clock
) -> None:
    queries = [parse_terms(["actor=jane"]), parse_terms(["label=night"]), parse_terms(["payload.n>=10"])]

    exported = ledger.export(tmp_path / "some", queries)

    fitting = [r.line for r in ledger.read(0, exported.size) if any(query.takes(r) for query in queries)]
    assert lines_of(tmp_path / "some") == fitting
    counts = [sum(query.takes(record) for record in ledger.read(0, exported.size)) for query in queries]
    assert [(match.name, match.count) for match in exported.matches] == [
        ("actor=jane", counts[0]),
        ("label=night", counts[1]),
        ("payload.n>=10", counts[2]),
    ]
    assert not exported.complete
    assert check(ledger, tmp_path / "some", clock).findings == ()


def test_selectors_of_a_complete_bundle_are_counted_in_its_manifest(
    ledger: Ledger, tmp_path: Path, clock: Clock
) -> None:
    selectors = [
        Selector.of("nights", [["label=night"]], ["first=3", "end=40"]),
        Selector.of("jane or doors", [["actor=jane"], ["event_type=door.*"]], ["end=40", "first=5"]),
        Selector.of("nothing", [["entity_id^=nobody"]], ["end=40", "first=3"]),
    ]

    exported = ledger.export(tmp_path / "all", selectors=selectors, first=3, end=40)

    assert exported.complete
    assert exported.count == 37
    nights = sum("night" in record.labels for record in ledger.read(3, 40))
    assert (exported.matches[0].count, exported.matches[2].count) == (nights, 0)
    report = check(ledger, tmp_path / "all", clock)
    assert report.findings == ()
    assert [match.count for match in report.matches] == [match.count for match in exported.matches]
    assert [*report.matches[0].positions] == [
        record.position for record in ledger.read(3, 40) if "night" in record.labels
    ]


def test_a_complete_bundle_must_reach_as_far_as_its_selectors(ledger: Ledger, tmp_path: Path) -> None:
    for within, first, end in ((["end=40"], 3, 40), (["first=3"], 3, 40), ([], 0, None)):
        with pytest.raises(RejectedError, match="outside of the range"):
            ledger.export(tmp_path / "all", selectors=[Selector.of("all", [[]], within)], first=first, end=end)
    assert not (tmp_path / "all").exists()


def test_free_text_selects_no_evidence(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="free text has no exact form"):
        ledger.export(tmp_path / "some", [parse_terms(["text=door"])])


def test_a_zip_has_the_same_three_files(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    ledger.export(tmp_path / "all.zip", as_zip=True, first=0, end=40)
    ledger.export(tmp_path / "all", first=0, end=40)

    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist() == list(BUNDLE_FILES)
        assert archive.read(EVENTS_FILE) == (tmp_path / "all" / EVENTS_FILE).read_bytes()
    assert check(ledger, tmp_path / "all.zip", clock).findings == ()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_exported_holds_and_has_what_was_asked_for(
    data: st.DataObject, ledger: Ledger, tmp_path: Path, clock: Clock
) -> None:
    first = data.draw(st.integers(0, SIZE - 1))
    end = data.draw(st.integers(first + 1, SIZE))
    queries: list[Query] = data.draw(st.lists(st.sampled_from(QUERIES), max_size=2))
    target = tmp_path / f"out-{next(NUMBERS)}"

    try:
        exported = ledger.export(target, queries, first=first, end=end)
    except NotFoundError:
        assert queries
        assert not any(query.takes(record) for record in ledger.read(first, end) for query in queries)
        return

    expected = [r.line for r in ledger.read(first, end) if not queries or any(query.takes(r) for query in queries)]
    assert lines_of(target) == expected
    assert exported.count == len(expected)
    assert check(ledger, target, clock).findings == ()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_one_byte_changed_in_any_of_the_three_files_is_always_refused(
    data: st.DataObject, ledger: Ledger, tmp_path: Path, clock: Clock
) -> None:
    target = tmp_path / "tampered"
    if not target.exists():
        ledger.export(target, first=3, end=30)
        assert check(ledger, target, clock).holds
    path = target / data.draw(st.sampled_from(BUNDLE_FILES))
    good = path.read_bytes()
    at, flip = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    how = data.draw(st.sampled_from(["change", "remove", "insert"]))

    middle = {"change": bytes([good[at] ^ flip]), "remove": b"", "insert": good[at : at + 1] + bytes([flip])}[how]
    path.write_bytes(good[:at] + middle + good[at + 1 :])
    report = check(ledger, target, clock)
    path.write_bytes(good)

    assert not report.holds


# -------------------------------------------------------------------------------------------------- prunes


def pruned(ledger: Ledger, clock: Clock) -> None:
    """All but the night's doors of the first days are lawfully gone."""
    ledger.retention.set(RetentionPolicy.of("5d", {"night": "1y"}))
    clock.now = START + 10 * DAY
    ledger.retention.prune()


def test_a_range_with_pruned_records_is_complete_and_says_what_is_absent(
    ledger: Ledger, tmp_path: Path, clock: Clock
) -> None:
    pruned(ledger, clock)

    exported = ledger.export(tmp_path / "rest")

    report = check(ledger, tmp_path / "rest", clock)
    assert report.findings == ()
    assert report.pruned
    assert "were pruned, as " in report.pruned[0]
    assert exported.count < exported.end


def test_a_part_of_a_pruned_range_brings_the_prune_along(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    pruned(ledger, clock)

    ledger.export(tmp_path / "part", first=10, end=30)

    assert check(ledger, tmp_path / "part", clock).findings == ()
    kinds = {json.loads(line)["event_type"] for line in manifest_of(tmp_path / "part").records}
    assert "tallystick.records.pruned" in kinds


def test_bundles_from_before_a_prune_hold_after_it(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    ledger.export(tmp_path / "before")

    pruned(ledger, clock)

    assert check(ledger, tmp_path / "before", clock).findings == ()


# ---------------------------------------------------------------------------------------------- what is refused


def test_evidence_is_never_replaced(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("keep me")
    (tmp_path / "file.zip").write_text("keep me")
    size = ledger.size

    for target in ("there", "file.zip"):
        with pytest.raises(ConflictError, match="never replaced"):
            ledger.export(tmp_path / target)

    assert ledger.size == size
    assert (tmp_path / "there" / "mine").read_text() == "keep me"


def test_a_range_that_is_none_is_refused_and_changes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    size = ledger.size

    for first, end in ((5, 5), (9, 3), (0, size + 1), (size + 5, None)):
        with pytest.raises(RejectedError):
            ledger.export(tmp_path / "no", first=first, end=end)
    with pytest.raises(RejectedError, match="both by times and by positions"):
        ledger.export(tmp_path / "no", first=3, after="2026-03-01")
    with pytest.raises(RejectedError, match="no view"):
        ledger.export(tmp_path / "no", views=["pdf"])
    with pytest.raises(RejectedError):
        ledger.export(tmp_path / "no", since=b"no checkpoint")
    with pytest.raises(NotFoundError, match="nothing fits"):
        ledger.export(tmp_path / "no", [parse_terms(["actor=nobody"])])

    assert ledger.size == size
    assert names_in(tmp_path) == ["ledger"]


def test_nothing_new_is_no_bundle(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing new"):
        ledger.export(tmp_path / "no", since=ledger.checkpoint())


def test_a_ledger_that_does_not_hold_makes_no_bundle(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        ledger.append_many([event(0, number) for number in range(12)])
        ledger.change_epoch()
    log = tmp_path / "ledger" / "ledger.db"
    replace_record(log, 5, line_at(log, 5).replace(b'"n":3', b'"n":9'))

    with (
        tallystick.open(tmp_path / "ledger") as ledger,
        pytest.raises(TamperError, match=r"nothing is exported|not of these records"),
    ):
        ledger.export(tmp_path / "out")

    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------------------------------- views


def test_views_are_beside_the_bundle_and_signed_for_it(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    exported = ledger.export(tmp_path / "out", views=["csv", "html"])

    assert exported.views == tmp_path / "out.views"
    manifest = (exported.views / MANIFEST_FILE).read_bytes()
    said = json.loads(manifest)
    assert said["bundle_sha256"] == exported.manifest_sha256
    for one in said["files"]:
        data = (exported.views / one["file"]).read_bytes()
        assert (one["bytes"], one["sha256"]) == (len(data), sha256(data).hexdigest())
    seal = (exported.views / "manifest.json.sig").read_bytes()
    assert open_signature(seal, manifest, namespace=VIEWS_NAMESPACE) == ledger.evidence_key
    assert check(ledger, tmp_path / "out", clock).holds


def test_what_events_say_is_no_formula_in_a_spreadsheet_and_no_markup_in_a_page(tmp_path: Path, clock: Clock) -> None:
    with tallystick.open(tmp_path / "ledger", clock=clock) as ledger:
        ledger.append(
            event_type="x.y",
            entity_id="=HYPERLINK(1)",
            actor="@SUM(1)",
            payload={"html": "<script>alert(1)</script>", "hidden": "\u202e"},
        )
        ledger.export(tmp_path / "out", views=["csv", "html"])

    rows = list(csv.reader(io.StringIO((tmp_path / "out.views/events.csv").read_text("utf-8"))))
    page = (tmp_path / "out.views/events.html").read_text("utf-8")
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page


# ------------------------------------------------------------------------------------------ crash, disk, others


KILLED = """
import os, signal, sys
import tallystick
from tallystick.evidence.bundle import delivery
step = sys.argv[2]
def die(*a, **k):
    os.kill(os.getpid(), signal.SIGKILL)
if step == "writing":
    delivery.Delivery.view = die
elif step == "sealed":
    delivery.Delivery.hand_over = die
elif step == "manifest":
    delivery.Delivery.finish = die
with tallystick.open(sys.argv[1] + "/ledger") as ledger:
    ledger.export(sys.argv[1] + "/out", views=["csv"])
"""


@pytest.mark.parametrize(("step", "recorded"), [("writing", False), ("manifest", False), ("sealed", True)])
def test_a_kill_leaves_no_half_bundle_and_never_one_that_is_not_recorded(
    tmp_path: Path, step: str, recorded: bool
) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        ledger.append_many([event(0, number) for number in range(12)])

    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), step]
    killed = subprocess.run(command, capture_output=True, check=False, timeout=60)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "out").exists()
    with tallystick.open(tmp_path / "ledger") as ledger:
        assert ledger.count(event_type="tallystick.evidence.exported") == recorded
        ledger.export(tmp_path / "out")  # what was left behind is in nobody's way
        assert ledger.verify().holds
        assert verify_bundle(tmp_path / "out", trust=trust_of(ledger)).holds


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    script = """
        import resource, signal, sys
        import tallystick
        from tallystick.errors import StoreError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with tallystick.open(sys.argv[1] + "/ledger") as ledger:
            size = ledger.size
            ledger.change_epoch()
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            try:
                ledger.export(sys.argv[1] + "/out", first=0, end=size)
            except StoreError as error:
                print(error)
        """
    with tallystick.open(tmp_path / "ledger") as ledger:
        ledger.append_many([event(day, number) for day in range(100) for number in range(12)])

    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert "could not write" in done.stdout, done.stderr
    assert names_in(tmp_path) == ["ledger"]


def test_two_exports_and_a_writer_at_once_all_hold(tmp_path: Path) -> None:
    writer = """
        import sys, tallystick
        with tallystick.open(sys.argv[1]) as ledger:
            for n in range(150):
                ledger.append(event_type="a.b", entity_id=f"e{n % 5}", payload={"n": n})
        """
    exporter = """
        import sys, tallystick
        with tallystick.open(sys.argv[1]) as ledger:
            for n in range(8):
                ledger.export(f"{sys.argv[2]}-{n}")
        """
    folder = str(tmp_path / "ledger")
    with tallystick.open(folder) as ledger:
        ledger.append_many([event(0, number) for number in range(12)])

    programs = [(writer, folder), (exporter, folder, f"{tmp_path}/a"), (exporter, folder, f"{tmp_path}/b")]
    running = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *args]) for code, *args in programs]
    assert [one.wait(timeout=120) for one in running] == [0, 0, 0]

    with tallystick.open(folder) as ledger:
        trust = trust_of(ledger)
        assert ledger.verify().findings == ()
        assert ledger.count(event_type="tallystick.evidence.exported") == 16
    for name in "ab":
        for number in range(8):
            assert verify_bundle(tmp_path / f"{name}-{number}", trust=trust).findings == ()


def test_a_folder_that_cannot_be_written_is_one_error(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreError, match="could not write"):
        ledger.export(tmp_path / "file" / "out")


@pytest.mark.parametrize("hidden", ["tallystick.key.rotated", "tallystick.epoch.opened", "tallystick.epoch.closed"])
def test_what_stands_beside_does_not_depend_on_an_index(tmp_path: Path, hidden: str) -> None:
    with tallystick.open(tmp_path / "l", keys=tmp_path / "keys") as ledger:
        ledger.append_many({"event_type": "t.t", "entity_id": "e"} for _ in range(5))
        ledger.rotate_key("checkpoint")
        ledger.change_epoch()
        ledger.append_many({"event_type": "t.t", "entity_id": "e"} for _ in range(5))
        trust = Policy(logs=(VerifierKey(ledger.origin, ledger.genesis.checkpoint_key),)).render()
    edit(tmp_path / "l" / "index.db", f"UPDATE term SET name = 't.hidden' WHERE name = '{hidden}'")

    with tallystick.open(tmp_path / "l", keys=tmp_path / "keys") as ledger:
        last = ledger.size - 1
        ledger.export(tmp_path / "part", first=last - 2, end=last)
        ledger.export(tmp_path / "filtered", [Query.of(event_type="t.t")])
    for name in ("part", "filtered"):
        assert not verify_bundle(tmp_path / name, trust=trust).findings


def test_a_zip_is_of_the_records_that_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Delivery.finish

    def altered(self: Delivery, *given: Any, **named: Any) -> None:
        (self._scratch / "bundle" / "events.jsonl").write_bytes(b"{}\n")
        finish(self, *given, **named)

    with tallystick.open(tmp_path / "l") as ledger:
        ledger.append(event_type="t.t", entity_id="e")
        whole = ledger.export(tmp_path / "whole.zip", as_zip=True)
        data = (tmp_path / "whole.zip").read_bytes()
        assert (whole.zip_sha256, whole.zip_bytes) == (sha256(data).hexdigest(), len(data))
        monkeypatch.setattr(Delivery, "finish", altered)
        ledger.append(event_type="t.t", entity_id="e")
        with pytest.raises(TamperError, match="altered while it was in use"):
            ledger.export(tmp_path / "other.zip", as_zip=True)
    assert not (tmp_path / "other.zip").exists()
