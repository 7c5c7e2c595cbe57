"""The assessment: whether, and what, evidence for a control is in the ledger, in a period of time.

It says `evidenced` or `gap`, and never more: that events were found shows that they were recorded, not that the
control is met. Where nothing was found in the window that is evidence by itself, that is a gap, whatever else was
recorded; so is a stretch without what should be seen more often. All that is counted lies below one size of the
ledger, which the assessment names. It is read from the log, in one pass for all selectors, and from no index.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias

from tallystick.clock import Clock, wall_clock
from tallystick.core import timestamp
from tallystick.core.matcher import occurred, recorded
from tallystick.core.moment import DAY
from tallystick.core.selector import Selector as Signed
from tallystick.evidence.controls.catalogue import HOUSEKEEPING, Control, Selector
from tallystick.evidence.controls.period import Period, When, Window, day
from tallystick.evidence.controls.wording import in_prose
from tallystick.ledger import Ledger
from tallystick.read.signed import selector_of

SAMPLES: Final = 5
_PROGRESS_RECORDS: Final = 4_096
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
    signed: Signed
    """The same with its time, as a bundle is signed with it."""
    count: int
    actor_count: int
    first: int | None
    last: int | None

    def to_json(self) -> dict[str, Any]:
        """The same for machines, times in RFC 3339."""
        return {
            "name": self.selector.name,
            "signed": self.signed.name,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One pass over the log: which positions it took in, how many records those are, and how many fit any selector."""

    first: int
    end: int
    records: int
    fitting: int
    signed: tuple[Signed, ...]
    """All selectors that were asked, with their times."""


class Assessor:
    """Assesses controls over one ledger, one size of it and one period; what they share is looked for once.

    `scope` are signed terms to which everything is held besides, as for a caller who may not see all.
    """

    def __init__(self, ledger: Ledger, period: Period, *, size: int | None = None, scope: Sequence[str] = ()) -> None:
        self._ledger: Final = ledger
        self.period: Final = period
        self.size: Final = ledger.proven_size if size is None else size
        self._scope: Final = tuple(scope)
        self._times: Final = ledger.proven_times()
        self._found: Final[dict[tuple[str, Window], _Found]] = {}

    def assess_all(self, controls: Sequence[Control], *, progress: Progress | None = None) -> list[Assessment]:
        """The assessments, in the order of the controls. `progress` receives how many records were read."""
        self.read(controls, progress=progress)
        return [self._assess(control) for control in controls]

    def assess(self, control: Control) -> Assessment:
        """The assessment of one control."""
        return self.assess_all([control])[0]

    def read(self, controls: Sequence[Control], *, progress: Progress | None = None) -> Reading | None:
        """Read the log for all selectors of the controls that were not looked for yet; None when there is none.

        Raises `TamperError` when the records are not those that the ledger signed; nothing was found then.
        """
        wanted = {
            (selector.name, window): self._signed(selector, window)
            for control in controls
            for window in [self.period.window(control.window_days)]
            for selector in control.all_selectors
            if (selector.name, window) not in self._found
        }
        if not wanted:
            return None
        first, end = self._range([window for _, window in wanted])
        found = [_Found(signed) for signed in wanted.values()]
        moment = self._moment
        records = fitting = 0
        for members, indexes in self._ledger.matching([*wanted.values()], first=first, end=end):
            records += 1
            fitting += bool(indexes)
            for index in indexes:
                found[index].take(members, moment(members))
            if progress is not None and not records % _PROGRESS_RECORDS:
                progress(records, end - first)
        self._found.update(zip(wanted, found, strict=True))  # only now that the root was reached
        return Reading(first=first, end=end, records=records, fitting=fitting, signed=tuple(wanted.values()))

    def _range(self, windows: Sequence[Window]) -> tuple[int, int]:
        """The positions of all records of these times. An event may claim any time, so then it is the whole ledger."""
        if self.period.occurred:
            return 0, self.size
        after, before = min(window.after for window in windows), max(window.before for window in windows)
        return self._ledger.span(after=after, before=before, size=self.size)

    def _signed(self, selector: Selector, window: Window) -> Signed:
        """A selector of the catalogue with its time, below the size, and in the scope."""
        # Housekeeping counts only where it is asked for by name: for actor=jane, an export by her is no act.
        is_open = any(not query.event_types for query in selector.queries) and not any(selector.housekeeping)
        without = [f"event_type!={name}" for name in HOUSEKEEPING] if is_open else []
        name = selector.name if self.period.after is not None else f"{selector.name}/{window.days:.0f}d"
        within = [*self._terms(window), *self._scope, *without]
        return selector_of(name, selector.joined, within=within)

    def _terms(self, window: Window) -> list[str]:
        """The time, below the size, as signed terms: these compare times as they were sealed (SPEC 10.9), so where a
        clock was corrected the records of a time are told by their positions."""
        if window.occurred or not self._times:
            return [*window.terms(), f"end={self.size}"]
        first, end = self._ledger.positions_of(after=window.after, before=window.before, size=self.size)
        return [f"first={first}", f"end={end}"]

    def _moment(self, members: dict[str, Any]) -> int:
        if self.period.occurred:
            return occurred(members)
        return self._times.of(members["position"], recorded(members))

    def _assess(self, control: Control) -> Assessment:
        window = self.period.window(control.window_days)
        found = [(selector, self._found[selector.name, window]) for selector in control.selectors]
        positions = sorted(set[int]().union(*(each.positions for _, each in found)))
        seen = tuple(_seen(selector, each) for selector, each in found)
        related = tuple(_seen(selector, self._found[selector.name, window]) for selector in control.related)
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
        if self._ledger.is_pruned:
            yield "Records were removed under the retention policy; what was removed is not counted."


@dataclass(slots=True)
class _Found:
    """Records by position, ascending, with their moments, and who caused them."""

    signed: Signed
    positions: array[int] = field(default_factory=lambda: array("q"))
    moments: array[int] = field(default_factory=lambda: array("q"))
    actors: set[str] = field(default_factory=set)

    def take(self, members: dict[str, Any], moment: int) -> None:
        """The next record."""
        self.positions.append(members["position"])
        self.moments.append(moment)
        if members["actor"] is not None:
            self.actors.add(members["actor"]["id"])


def _nothing(control: Control, window: Window, related: Sequence[Seen]) -> Gap:
    """That nothing is evidence; what was recorded beside it is told, lest it be taken for evidence or overlooked."""
    beside = ", ".join(f"{in_prose(seen.selector.name)} ({seen.count:,})" for seen in related if seen.count)
    told = f" Recorded beside it, and no evidence by itself: {beside}." if beside else ""
    return Gap(window.after, window.before, f"{control.gap}{told}")


def _seen(selector: Selector, found: _Found) -> Seen:
    return Seen(
        selector=selector,
        signed=found.signed,
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
