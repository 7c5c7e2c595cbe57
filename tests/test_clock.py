"""A clock that was ahead, and is corrected: appends, proofs, retention, time travel and series go on at true times."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tallystick
from tallystick.core import timestamp
from tallystick.core.corrected import CLOCK_CORRECTED, Correction, Times
from tallystick.core.custody import RetentionPolicy
from tallystick.core.note import VerifierKey
from tallystick.core.policy import Policy
from tallystick.errors import ConflictError, RejectedError, StoreError
from tallystick.evidence.bundle.check import verify_bundle
from tallystick.evidence.controls.assessment import Assessor
from tallystick.evidence.controls.period import Period
from tallystick.read.query import Query
from tallystick.write.moment import Moments

SECOND: Final = 1_000_000
HOUR: Final = 3_600 * SECOND
DAY: Final = 24 * HOUR
TEN_YEARS: Final = 3_653 * DAY
NOW: Final = 1_780_000_000 * SECOND - 1_780_000_000 * SECOND % DAY


class Scene:
    """A ledger in a folder, under a clock that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOW
        self.ledger = self.opened()

    def opened(self) -> tallystick.Ledger:
        return tallystick.open(self.folder / "l", keys=self.folder / "keys", name="l", clock=lambda: self.now)

    def append(self, count: int = 1, **more: Any) -> None:
        for _ in range(count):
            self.now += SECOND
            self.ledger.append(**{"event_type": "doc.read", "entity_id": "doc-1", "actor": "jane", **more})

    @property
    def trust(self) -> bytes:
        return Policy(logs=(VerifierKey(self.ledger.origin, self.ledger.verifier_key.public_key),)).render()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.ledger.close()


@pytest.fixture
def corrected(scene: Scene) -> Scene:
    """0 genesis, 1 opening, 2 and 3 events, 4 an event ten years ahead, with a change of epoch before it and after it,
    which that clock makes due; then the right clock again, and an hour later the correction, and an event."""
    scene.append(2)
    scene.now += TEN_YEARS
    scene.append()
    scene.now -= TEN_YEARS
    scene.now += HOUR
    scene.ledger.correct_clock("NTP was set to the wrong server", actor={"id": "ops-jane"})
    scene.append()
    return scene


def moment(text: str) -> int:
    return timestamp.parse(text)


# ---------------------------------------------------------------------------------------------------- the story


def test_without_a_correction_new_records_are_held_at_a_time_that_has_not_come(scene: Scene) -> None:
    scene.now += TEN_YEARS
    scene.append()
    scene.now -= TEN_YEARS
    scene.append()

    assert moment(scene.ledger.get(scene.ledger.size - 1).recorded_at) > NOW + TEN_YEARS
    assert {str(found.kind) for found in scene.ledger.verify().findings} == {"clock"}


def test_after_one_command_all_goes_on_at_the_true_time_and_the_story_is_in_the_ledger(corrected: Scene) -> None:
    ledger = corrected.ledger
    [story] = [record for record in ledger.read() if record.event_type == CLOCK_CORRECTED]
    report = ledger.verify()

    assert moment(ledger.get(ledger.size - 1).recorded_at) == corrected.now
    assert story.actor == {"id": "ops-jane"}
    assert story.payload["last_recorded_at"] == ledger.get(story.position - 1).recorded_at
    assert story.payload["corrected_at"] == story.recorded_at
    assert report.holds, report.findings
    assert any("the clock was corrected at position" in one for one in report.warnings), report.warnings
    assert tallystick.verify(
        corrected.folder / "l", keys=corrected.folder / "keys", processes=2, clock=ledger._clock
    ).holds


def test_what_was_recorded_ahead_is_found_at_the_time_of_the_correction(corrected: Scene) -> None:
    ledger, before = corrected.ledger, datetime.fromtimestamp((NOW + DAY) / SECOND, UTC)

    assert ledger.count(event_type=["doc.read"], before=before) == 4
    assert ledger.count(event_type=["doc.read"], after=before) == 0
    assert [record.position for record in ledger.records(event_type=["doc.read"], before=before)][-1] == ledger.size - 1
    assert ledger.count(event_type=["doc.read"], before=before, text="jane OR doc") == 0
    assert len(ledger.query(event_type=["doc.read"], before=before, occurred_before=before).records) == 4
    assert ledger.state("doc-1", before).version == 4
    at = datetime.fromtimestamp((NOW + 10 * SECOND) / SECOND, UTC)
    assert ledger.state("doc-1", at).version == 2, "what was sealed before an hour, and not what was sealed ahead"
    assert ledger.state("doc-1", before, clock="occurred").version == 4


def test_series_and_roll_ups_count_it_there(corrected: Scene) -> None:
    ledger = corrected.ledger
    ledger.downsample("reads", width="hour", event_type=["doc.read"])
    corrected.append(2)
    for width, counts in (("hour", [2, 4]), ("day", [6])):
        series = ledger.series(width=width, event_type=["doc.read"])
        assert [point.count for point in series.buckets] == counts, (width, series)


def test_roll_ups_that_counted_it_elsewhere_count_anew(scene: Scene) -> None:
    scene.ledger.downsample("reads", width="hour", group="actor", event_type=["doc.read"])
    scene.append(2)
    scene.now += TEN_YEARS
    scene.append()
    assert len(scene.ledger.series(width="hour", group="actor", event_type=["doc.read"]).buckets) == 2
    scene.now -= TEN_YEARS
    scene.now += HOUR
    scene.ledger.correct_clock("it was ahead")

    found = scene.ledger.series(width="hour", group="actor", event_type=["doc.read"])
    assert [(point.start, point.count) for point in found.buckets] == [(NOW, 2), (NOW + HOUR, 1)]
    assert scene.ledger.verify().holds


def test_it_expires_by_the_time_of_the_correction(corrected: Scene) -> None:
    ledger = corrected.ledger
    ledger.retention.set(RetentionPolicy.of("30d"))
    corrected.now += 32 * DAY
    plan = ledger.retention.plan()
    assert plan.count == 4
    with pytest.raises(RejectedError, match="32 days before what the clock says"):
        ledger.retention.prune(plan)
    corrected.append()
    assert ledger.retention.prune().count == 4

    corrected.append()
    assert ledger.verify().holds


def test_a_prune_by_a_clock_that_is_ahead_removes_nothing_unless_somebody_looked(scene: Scene) -> None:
    scene.append(3)
    scene.ledger.retention.set(RetentionPolicy.of("1y"))
    scene.now += TEN_YEARS
    with pytest.raises(RejectedError, match="see whether the clock is right"):
        scene.ledger.retention.prune()
    assert scene.ledger.count(event_type=["doc.read"]) == 3
    assert scene.ledger.retention.prune(clock_is_right=True).count == 3


def test_a_prune_that_was_cut_short_is_finished_as_it_was_meant_after_a_correction(
    corrected: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had expired by the times that counted when it was sealed, an hour before another correction."""
    ledger = corrected.ledger
    ledger.retention.set(RetentionPolicy.of("1d"))
    corrected.now += 3 * DAY
    corrected.append(2)
    corrected.now += 2 * DAY
    with monkeypatch.context() as patch:
        patch.setattr(ledger._store, "prune", fails)
        with pytest.raises(StoreError, match="injected"):
            ledger.retention.prune()
    corrected.now -= 4 * DAY
    ledger.correct_clock("it was four days ahead")
    assert ledger.retention.prune().finished is not None
    report = ledger.verify()
    assert report.holds, report.findings


def fails(*_: Any) -> int:
    raise StoreError("killed here (injected)")


def test_epochs_go_on(corrected: Scene) -> None:
    opened = [one for one in corrected.ledger.read() if one.event_type == "tallystick.epoch.opened"]
    corrected.now += 25 * HOUR
    corrected.append()
    again = [one for one in corrected.ledger.read() if one.event_type == "tallystick.epoch.opened"]
    assert len(again) == len(opened) + 1


@pytest.mark.parametrize("fresh", [False, True])
def test_the_index_says_the_same_when_it_is_made_anew(corrected: Scene, fresh: bool) -> None:
    if fresh:
        corrected.ledger.close()
        (corrected.folder / "l/index.db").unlink()
        corrected.ledger = corrected.opened()
    corrected.ledger.catch_up()
    corrected.ledger.close()
    report = tallystick.verify(corrected.folder / "l", keys=corrected.folder / "keys", clock=lambda: corrected.now)
    corrected.ledger = corrected.opened()
    assert report.holds, report.findings
    assert report.index == corrected.ledger.size
    assert corrected.ledger.count(before=datetime.fromtimestamp((NOW + DAY) / SECOND, UTC)) == corrected.ledger.size


@pytest.mark.parametrize("filtered", [False, True])
def test_bundles_hold_whatever_part_they_are_of(corrected: Scene, filtered: bool, tmp_path: Path) -> None:
    ledger, size = corrected.ledger, corrected.ledger.size
    for number, (first, end) in enumerate(((0, size), (2, 5), (size - 1, size), (3, size - 1))):
        made = ledger.export(
            tmp_path / f"e{number}", [Query(event_types=("doc.read",))] if filtered else [], first=first, end=end
        )
        report = verify_bundle(made.path, trust=corrected.trust, clock=lambda: corrected.now)
        assert report.holds, (first, end, report.findings)
        assert any("the clock was corrected" in one for one in report.warnings)


def test_evidence_of_a_time_has_what_was_recorded_ahead(corrected: Scene, tmp_path: Path) -> None:
    made = corrected.ledger.export(tmp_path / "e", after=timestamp.render(NOW), before=timestamp.render(NOW + DAY))
    assert made.count >= 9
    assert verify_bundle(made.path, trust=corrected.trust, clock=lambda: corrected.now).holds
    first, end = corrected.ledger.positions_of(after=NOW + 5 * SECOND, before=NOW + DAY, size=corrected.ledger.size)
    assert 4 in range(first, end)


def test_a_backup_of_it_can_be_restored(corrected: Scene, tmp_path: Path) -> None:
    tallystick.backup(
        corrected.folder / "l", tmp_path / "b", keys=corrected.folder / "keys", clock=lambda: corrected.now
    )
    tallystick.restore(tmp_path / "b", tmp_path / "again", keys=corrected.folder / "keys", clock=lambda: corrected.now)
    with tallystick.open(tmp_path / "again", keys=corrected.folder / "keys", clock=lambda: corrected.now) as again:
        assert again.verify().holds


def test_nothing_is_recorded_where_nothing_contradicts_the_clock(scene: Scene) -> None:
    scene.append()
    for later in (0, -60 * SECOND, 3 * HOUR, 40 * DAY):
        scene.now = NOW + later
        with pytest.raises(ConflictError, match="nothing to correct"):
            scene.ledger.correct_clock("to be sure")


def test_a_correction_needs_a_reason(scene: Scene) -> None:
    with pytest.raises(RejectedError, match="reason"):
        scene.ledger.correct_clock("")


# ---------------------------------------------------------------------------------------------- against a naive twin

STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3 * 24)),
        st.tuples(st.just("ahead"), st.integers(1, 4_000)),
        st.tuples(st.just("right"), st.integers(1, 30)),
    ),
    min_size=1,
    max_size=14,
)


@given(STEPS)
@settings(max_examples=60)
def test_times_are_what_a_naive_reading_says(steps: list[tuple[str, int]]) -> None:
    true, offset = NOW, 0

    with tallystick.open("memory:", clock=lambda: true + offset) as ledger:
        for kind, value in steps:
            if kind == "append":
                true += value * HOUR
                ledger.append(event_type="t.t", entity_id=f"e-{value % 3}", payload={"n": value})
            elif kind == "ahead":
                offset += value * HOUR
            else:
                true, offset = true + value * HOUR, 0
                try:
                    ledger.correct_clock("twin")
                except ConflictError:
                    continue
        records = [*ledger.read()]
        sealed = [moment(record.recorded_at) for record in records]
        # The naive reading: a record was sealed before all that follow it.
        effective = [min(sealed[at:]) for at in range(len(sealed))]
        corrections = [Correction.of(one) for one in records if one.event_type == CLOCK_CORRECTED]
        times = Times(corrections)

        assert [times.of(at, one) for at, one in enumerate(sealed)] == effective == sorted(effective)
        assert ledger.times().corrections == tuple(corrections) == ledger.proven_times().corrections
        wanted = [one.event_type == "t.t" for one in records]
        for edge in sorted({*effective, *sealed, NOW + DAY}):
            at = datetime.fromtimestamp(edge / SECOND, UTC)
            right = sum(is_ours and one < edge for is_ours, one in zip(wanted, effective, strict=True))
            assert ledger.count(event_type=["t.t"], before=at) == right
            assert ledger.count(event_type=["t.t"], occurred_before=at) == right
            assert ledger.count(before=at) == sum(one < edge for one in effective)
            assert ledger.positions_of(after=edge, before=edge + 1, size=len(records))[0] == next(
                (place for place, one in enumerate(effective) if one >= edge), len(records)
            )
        days: dict[int, int] = {}
        for is_ours, one in zip(wanted, effective, strict=True):
            if is_ours:
                days[one - one % DAY] = days.get(one - one % DAY, 0) + 1
        for text in (None, "n"):
            asked = Query(event_types=("t.t",), text=text or "")
            series = ledger.series(asked, width="day")
            assert {point.start: point.count for point in series.buckets} == days
        true, offset = max(true, *effective), 0
        assert ledger.verify().holds


# ------------------------------------------------------------------------------------------- jumps that are refused


class Clocks:
    """The machine's clock, and the one that nobody sets."""

    def __init__(self) -> None:
        self.wall, self.running = NOW, 50 * HOUR
        self.told: int | None = None

    def pass_by(self, length: int) -> None:
        self.wall += length
        self.running += length

    def moments(self, *, with_source: bool = False) -> Moments:
        return Moments(
            lambda: self.wall, running=lambda: self.running, source=(lambda: self.told) if with_source else None
        )


def test_a_jump_ahead_while_running_is_refused_until_the_clock_is_right_again() -> None:
    clocks = Clocks()
    moments = clocks.moments()
    assert moments.now(NOW) == NOW
    clocks.pass_by(300 * DAY)  # a ledger may rest
    assert moments.now(NOW) == clocks.wall
    clocks.wall += 20 * HOUR
    assert moments.now(NOW) == clocks.wall
    clocks.wall += 5 * HOUR
    with pytest.raises(RejectedError, match="correct-clock") as caught:
        moments.now(NOW)
    assert caught.value.for_operators
    clocks.wall -= 25 * HOUR
    assert moments.now(NOW) == clocks.wall


def test_small_steps_ahead_do_not_add_up() -> None:
    clocks = Clocks()
    moments = clocks.moments()
    moments.now(NOW)
    for _ in range(2):
        clocks.wall += 10 * HOUR
        moments.now(NOW)
    clocks.wall += 10 * HOUR
    with pytest.raises(RejectedError):
        moments.now(NOW)


def test_to_jump_back_to_where_it_was_is_a_jump() -> None:
    clocks = Clocks()
    clocks.wall += TEN_YEARS
    moments = clocks.moments()
    assert moments.now(clocks.wall) == clocks.wall  # as the newest record says
    clocks.wall -= TEN_YEARS
    moments.now(NOW)
    clocks.wall += TEN_YEARS
    with pytest.raises(RejectedError):
        moments.now(NOW)


def test_at_the_start_ten_years_of_rest_are_not_believed() -> None:
    clocks = Clocks()
    clocks.wall += 360 * DAY
    assert clocks.moments().now(NOW) == clocks.wall
    clocks.wall += 30 * DAY
    with pytest.raises(RejectedError, match="more than a year before"):
        clocks.moments().now(NOW)


def test_a_time_source_is_believed_more() -> None:
    clocks = Clocks()
    clocks.wall += 5 * 366 * DAY
    clocks.told = clocks.wall - HOUR
    assert clocks.moments(with_source=True).now(NOW) == clocks.wall
    clocks.told = NOW
    with pytest.raises(RejectedError, match="the time source says"):
        clocks.moments(with_source=True).now(NOW)
    clocks.told, clocks.wall = None, NOW + DAY
    assert clocks.moments(with_source=True).now(NOW) == clocks.wall


def test_what_another_process_recorded_as_right_is_right() -> None:
    clocks = Clocks()
    moments = clocks.moments()
    moments.now(NOW)
    clocks.wall += TEN_YEARS
    assert moments.now(clocks.wall - SECOND) == clocks.wall
    clocks.pass_by(HOUR)
    assert moments.now(NOW) == clocks.wall, "it is what later moments are held against"


def test_who_insists_is_believed_and_later_moments_go_on_from_there(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    moments = clocks.moments()
    moments.now(NOW)
    clocks.wall += TEN_YEARS
    with caplog.at_level(logging.WARNING), moments.insisting():
        assert moments.now(NOW) == clocks.wall
    clocks.pass_by(HOUR)
    assert moments.now(NOW) == clocks.wall
    with pytest.raises(ConflictError), moments.insisting():
        moments.now(clocks.wall)


def test_a_ledger_by_the_machines_clock_refuses_a_jump_and_takes_it_once_it_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tallystick.open(tmp_path / "l") as ledger:
        ledger.append(event_type="a.b", entity_id="c")
        now = ledger._clock
        ahead = TEN_YEARS
        monkeypatch.setattr(ledger._moments, "_clock", lambda: now() + ahead)
        with pytest.raises(RejectedError, match="correct-clock"):
            ledger.append(event_type="a.b", entity_id="c")
        size = ledger.size
        ledger.correct_clock("it is 2036 indeed", actor={"id": "ops"})
        assert ledger.append(event_type="a.b", entity_id="c").position > size
        ahead = 0
        ledger.correct_clock("it was not")
        ledger.append(event_type="a.b", entity_id="c")
        assert ledger.verify().holds
        assert len([one for one in ledger.read() if one.event_type == CLOCK_CORRECTED]) == 2


def test_an_assessment_of_a_time_counts_what_was_recorded_ahead(corrected: Scene) -> None:
    period = Period(after=NOW, before=NOW + DAY, occurred=False, now=corrected.now)
    assessor = Assessor(corrected.ledger, period)
    assert assessor._terms(period.window(1)) == ["first=0", f"end={corrected.ledger.size}"]
