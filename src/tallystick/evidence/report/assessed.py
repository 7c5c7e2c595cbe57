"""Assessments of controls as figures: an overview, what is missing, and each control with what was found for it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from tallystick.core import timestamp
from tallystick.evidence.controls.assessment import Assessment, Seen
from tallystick.evidence.controls.period import Window, day, shown
from tallystick.evidence.report.blocks import Cell, Heading, Node, Paragraph, Source, Table, Words, visible
from tallystick.evidence.report.view import Assessed
from tallystick.read.query import Query


def overview(found: Assessed) -> tuple[Node, ...]:
    """All controls, those with gaps first."""
    return (
        Table(
            title="",
            columns=("Control", "What it asks for", "Evidence", "Events", "Who", "First", "Last"),
            rows=tuple(map(_row, found.controls)),
            source=_source(found),
            numbers=(3, 4),
            unbroken=(0,),
            note="Evidence found means that events were recorded. Whether a control is met is for people to judge.",
        ),
    )


def gaps(found: Assessed) -> tuple[Node, ...]:
    """What is missing, a row for each."""
    rows = tuple(
        (
            Cell(each.control.key),
            Cell(each.control.title),
            Cell(f"{day(gap.after)} to {day(gap.before - 1)}"),
            Cell(visible(gap.sentence)),
        )
        for each in found.controls
        for gap in each.gaps
    )
    remarks = sorted({remark for each in found.controls for remark in each.remarks})
    table = Table(
        title="",
        columns=("Control", "What it asks for", "Time", "What is missing"),
        rows=rows,
        source=_source(found),
        unbroken=(0,),
        note="" if rows else "For none of these controls is anything missing.",
    )
    return (table, *([Paragraph((Words(visible(" ".join(remarks)), emphasis=True),))] if remarks else []))


def details(found: Assessed) -> tuple[Node, ...]:
    """A section for each control."""
    return tuple(node for each in found.controls for node in _section(each))


def _section(each: Assessment) -> Iterator[Node]:
    control = each.control
    yield Heading(3, (Words(f"{control.key}  {visible(control.title)}"),))
    yield Paragraph((Words(visible(control.requirement, characters_max=2_000)),))
    for gap in each.gaps:
        yield Paragraph((Words("Gap. ", strong=True), Words(visible(gap.sentence, characters_max=2_000))))
    if each.count:
        who = ", ".join(visible(actor, characters_max=120) for actor in each.actors)
        more = f" and {each.actor_count - len(each.actors):,} more" if each.actor_count > len(each.actors) else ""
        first, last = (shown(moment) for moment in (each.first or 0, each.last or 0))
        yield Paragraph(
            (
                Words(f"{each.count:,} {'event' if each.count == 1 else 'events'}", strong=True),
                Words(f", from {first} to {last}, caused by {who or 'nobody named'}{more}. To look at: records "),
                Words(", ".join(map(str, each.samples)), mono=True),
                Words("."),
            )
        )
    yield _selectors(each, each.seen, "Evidence")
    if each.related:
        yield _selectors(each, each.related, "Beside it, and no evidence by itself")


def _selectors(each: Assessment, seen: Sequence[Seen], title: str) -> Table:
    """What each selector found: first what was found, and what was looked for in vain is still said."""
    seen = sorted(seen, key=lambda seen: seen.count == 0)
    return Table(
        title=title,
        columns=("Selector", "What it shows", "Events", "Who", "Last"),
        rows=tuple(
            (
                Cell(seen.selector.name, None if seen.count else "quiet"),
                Cell(visible(seen.selector.shows), None if seen.count else "quiet"),
                Cell(f"{seen.count:,}", None if seen.count else "quiet"),
                Cell(f"{seen.actor_count:,}", None if seen.count else "quiet"),
                Cell("–" if seen.last is None else day(seen.last), None if seen.count else "quiet"),
            )
            for seen in seen
        ),
        source=Source(
            selectors=tuple(
                (seen.selector.name, tuple(tuple(terms) for terms in seen.selector.terms)) for seen in seen
            ),
            within=tuple(each.window.of(Query(), size=each.size).terms()),
        ),
        numbers=(2, 3),
    )


def _row(each: Assessment) -> tuple[Cell, ...]:
    first, last = ("–" if moment is None else day(moment) for moment in (each.first, each.last))
    status = Cell("gap", "gap") if each.gaps else Cell("found", "found")
    events, who = Cell(f"{each.count:,}"), Cell(f"{each.actor_count:,}")
    return (Cell(each.control.key), Cell(visible(each.control.title)), status, events, who, Cell(first), Cell(last))


def _source(found: Assessed) -> Source:
    """The commands that find the same, one for each window: the terms themselves stand with each control."""
    windows: dict[Window, list[str]] = {}
    for each in found.controls:
        windows.setdefault(each.window, []).append(each.control.key)
    commands = (
        shlex.join(["tallystick", "controls", "check", *keys, *_told(window)]) for window, keys in windows.items()
    )
    return Source(terms=(("; ".join(commands),),))


def _told(window: Window) -> list[str]:
    """A window as options of the command line."""
    times = ["--from", timestamp.render(window.after), "--to", timestamp.render(window.before)]
    return [*times, "--occurred"] if window.occurred else times
