"""The assessment: whether, and what, evidence for a control is in the ledger, in a period of time.

It says `evidenced` or `gap`, and never more: that events were found shows that they were recorded, not that the
control is met. Where nothing was found in the window that is evidence by itself, that is a gap, whatever else was
recorded; so is a stretch without what should be seen more often. All that is counted lies below one size of the
ledger, which the assessment names.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias

from tallystick.clock import Clock, wall_clock
from tallystick.core import timestamp
from tallystick.core.custody import RECORDS_PRUNED
from tallystick.core.moment import DAY
from tallystick.evidence.controls.catalogue import HOUSEKEEPING, Control, Selector
from tallystick.evidence.controls.period import Period, When, Window, day
from tallystick.evidence.controls.wording import in_prose
from tallystick.ledger import Ledger
from tallystick.read.bucketed import moment_of
from tallystick.read.query import Query

SAMPLES: Final = 5
ACTORS_SHOWN: Final = 20

Status: TypeAlias = Literal["evidenced", "gap"]
Progress: TypeAlias = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Gap:
    """A time for which something is missing, and what."""

    after: int
    before: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one selector found. Times are microseconds, None where nothing was found."""

    selector: Selector
    count: int
    actor_count: int
    first: int | None
    last: int | None

    def to_json(self) -> dict[str, Any]:
        """The same for machines, times in RFC 3339."""
        return {
            "name": self.selector.name,
            "shows": self.selector.shows,
            "terms": self.selector.terms,
            "count": self.count,
            "actor_count": self.actor_count,
            "first": _rendered(self.first),
            "last": _rendered(self.last),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What was found for one control. A record that fits several selectors counts once.

    Counts, actors, times and samples are of what is evidence by itself; what only goes with it is in `related`.
    """

    control: Control
    window: Window
    size: int
    """The size of the ledger that it speaks for."""
    count: int
    actor_count: int
    actors: tuple[str, ...]
    """Who caused the events, in order of name; the first twenty."""
    first: int | None
    last: int | None
    samples: tuple[int, ...]
    """Positions of some of the records, from first to last."""
    seen: tuple[Seen, ...]
    """Each selector that is evidence by itself, in the control's order."""
    related: tuple[Seen, ...]
    """Each selector that only goes with it."""
    gaps: tuple[Gap, ...]
    remarks: tuple[str, ...]

    @property
    def status(self) -> Status:
        """`gap` when anything is missing, else `evidenced`; neither says that the control is met."""
        return "gap" if self.gaps else "evidenced"

    def to_json(self) -> dict[str, Any]:
        """The assessment for machines, times in RFC 3339."""
        return {
            "control": self.control.key,
            "title": self.control.title,
            "status": self.status,
            "after": timestamp.render(self.window.after),
            "before": timestamp.render(self.window.before),
            "time": self.window.time,
            "size": self.size,
            "count": self.count,
            "actor_count": self.actor_count,
            "actors": [*self.actors],
            "first": _rendered(self.first),
            "last": _rendered(self.last),
            "samples": [*self.samples],
            "selectors": [seen.to_json() for seen in self.seen],
            "related": [seen.to_json() for seen in self.related],
            "gaps": [
                {"after": _rendered(gap.after), "before": _rendered(gap.before), "sentence": gap.sentence}
                for gap in self.gaps
            ],
            "remarks": [*self.remarks],
        }


def assess(
    ledger: Ledger,
    control: Control,
    *,
    after: When = None,
    before: When = None,
    occurred: bool = False,
    size: int | None = None,
    clock: Clock = wall_clock,
) -> Assessment:
    """What the ledger has for a control, by default in the control's usual window up to now.

    `after` is inclusive, `before` exclusive. Raises `RejectedError` for a period that is none.
    """
    period = Period.of(after=after, before=before, occurred=occurred, now=clock())
    return Assessor(ledger, period, size=size).assess(control)


class Assessor:
    """Assesses controls over one ledger, one size of it and one period; what they share is looked for once."""

    def __init__(self, ledger: Ledger, period: Period, *, size: int | None = None) -> None:
        self._ledger: Final = ledger
        self.period: Final = period
        self.size: Final = ledger.size if size is None else size
        self._found: Final[dict[tuple[str, Window], _Found]] = {}
        self._prunes: int | None = None

    def assess_all(self, controls: Sequence[Control], *, progress: Progress | None = None) -> list[Assessment]:
        """The assessments, in the order of the controls."""
        out = []
        for number, control in enumerate(controls, 1):
            out.append(self.assess(control))
            if progress is not None:
                progress(number, len(controls))
        return out

    def assess(self, control: Control) -> Assessment:
        """The assessment of one control."""
        window = self.period.window(control.window_days)
        found = [(selector, self._look(selector, window)) for selector in control.selectors]
        positions = sorted(set[int]().union(*(each.positions for _, each in found)))
        seen = tuple(_seen(selector, each) for selector, each in found)
        related = tuple(_seen(selector, self._look(selector, window)) for selector in control.related)
        actors = sorted(set[str]().union(*(each.actors for _, each in found)))
        return Assessment(
            control=control,
            window=window,
            size=self.size,
            count=len(positions),
            actor_count=len(actors),
            actors=tuple(actors[:ACTORS_SHOWN]),
            first=min((each.first for each in seen if each.first is not None), default=None),
            last=max((each.last for each in seen if each.last is not None), default=None),
            samples=_samples(positions),
            seen=seen,
            related=related,
            gaps=tuple(self._gaps(control, window, dict(found)) if positions else [_nothing(control, window, related)]),
            remarks=tuple(self._remarks(control, window)),
        )

    def _look(self, selector: Selector, window: Window) -> _Found:
        key = (selector.name, window)
        if key not in self._found:
            moment = moment_of(window.time)
            moments, actors = dict[int, int](), set[str]()
            # Housekeeping counts only where it is asked for by name: for actor=jane, an export by her is no act.
            passed_over = () if any(selector.housekeeping) else HOUSEKEEPING
            for query in selector.joined:
                for record in self._ledger.records(window.of(query, size=self.size)):
                    members = record.members
                    if members["event_type"] in passed_over:
                        continue
                    moments[members["position"]] = moment(members)
                    if members["actor"] is not None:
                        actors.add(members["actor"]["id"])
            positions = array("q", sorted(moments))
            self._found[key] = _Found(positions, array("q", map(moments.__getitem__, positions)), actors)
        return self._found[key]

    def _gaps(self, control: Control, window: Window, found: dict[Selector, _Found]) -> Iterator[Gap]:
        end = min(window.before, self.period.now)  # nobody can have seen to it later
        for selector, each in found.items():
            days, told = control.cadence.get(selector.name), in_prose(selector.name)
            if days is None or end <= window.after:
                continue
            if not each.moments and end - window.after >= days * DAY:
                sentence = f"No {told} at all; they are looked for at least every {days} days."
                yield Gap(window.after, end, sentence)
                continue
            for start, stop in pairwise([window.after, *sorted(each.moments), end]):
                if stop - start > days * DAY:
                    without = f"{(stop - start) / DAY:.1f} days ({day(start)} to {day(stop)})"
                    looked = f"they are looked for at least every {days} days."
                    yield Gap(start, stop, f"No {told} for {without}; {looked}")

    def _remarks(self, control: Control, window: Window) -> Iterator[str]:
        for name, days in control.cadence.items():
            if window.days < days:
                told = in_prose(name)
                looked = f"{told[:1].upper()}{told[1:]} are looked for every {days} days"
                yield f"{looked}; the window is shorter, so their absence says little."
        if window.before > self.period.now:
            yield f"The window ends after now, {day(self.period.now)}: what is still to come cannot be seen."
        if self._prunes is None:
            self._prunes = self._ledger.count(Query(event_types=(RECORDS_PRUNED,), end=self.size))
        if self._prunes:
            yield "Records were removed under the retention policy; what was removed is not counted."


@dataclass(frozen=True, slots=True)
class _Found:
    """Records by position, ascending, with their moments, and who caused them."""

    positions: array[int]
    moments: array[int]
    actors: set[str]


def _nothing(control: Control, window: Window, related: Sequence[Seen]) -> Gap:
    """That nothing is evidence; what was recorded beside it is told, lest it be taken for evidence or overlooked."""
    beside = ", ".join(f"{in_prose(seen.selector.name)} ({seen.count:,})" for seen in related if seen.count)
    told = f" Recorded beside it, and no evidence by itself: {beside}." if beside else ""
    return Gap(window.after, window.before, f"{control.gap}{told}")


def _seen(selector: Selector, found: _Found) -> Seen:
    return Seen(
        selector=selector,
        count=len(found.positions),
        actor_count=len(found.actors),
        first=min(found.moments, default=None),
        last=max(found.moments, default=None),
    )


def _samples(positions: Sequence[int]) -> tuple[int, ...]:
    """Some of them, evenly, the first and the last among them."""
    if len(positions) <= SAMPLES:
        return tuple(positions)
    step = (len(positions) - 1) / (SAMPLES - 1)
    return tuple(positions[round(number * step)] for number in range(SAMPLES))


def _rendered(moment: int | None) -> str | None:
    return None if moment is None else timestamp.render(moment)
