"""The functions that a document may call: they ask the view, and make figures of its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from typing import Any, Final

from tallystick.errors import RejectedError
from tallystick.evidence.controls.assessment import Progress
from tallystick.evidence.controls.period import When
from tallystick.evidence.report.assessed import details, gaps, overview
from tallystick.evidence.report.blocks import Cell, Chart, Counted, Entry, Node, Table, Timeline, visible
from tallystick.evidence.report.folded import Member
from tallystick.evidence.report.telling import HEADS, column_reader, details_of, entry_of, texts_of
from tallystick.evidence.report.view import Assessed, Found, FoundSeries, FoundState, FoundTurns, View
from tallystick.read.bucketed import moment_of

CHART_GROUPS_MAX: Final = 6
"""Colours that can be told apart; what is beyond them counts as others."""

CHART_LABELS_MAX: Final = 400
CALLS_MAX: Final = 300
"""Questions of one report."""

_TOO_MUCH: Final = "Its state was more than a report takes: read its events."

Blocks = tuple[Node, ...]


class Functions:
    """What expressions of one document can call, over one view."""

    def __init__(self, view: View, *, progress: Progress | None = None) -> None:
        self._view: Final = view
        self._progress: Final = progress
        self._calls = 0

    def by_name(self) -> dict[str, Callable[..., Any]]:
        """The functions by the names that documents know them by."""
        names = ("query", "count", "series", "state", "history", "table", "chart", "ranking", "timeline", "controls")
        return {name: getattr(self, name) for name in (*names, "gaps", "details", "wanted")}

    # ------------------------------------------------------------------------------------------- questions

    def query(
        self,
        *terms: object,
        selector: str | None = None,
        after: When = None,
        before: When = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Found:
        """Records that fit, oldest first."""
        return self._ask().found(
            _terms(terms), selector=selector, after=after, before=before, limit=limit, newest_first=newest_first
        )

    def count(self, *terms: object, selector: str | None = None, after: When = None, before: When = None) -> Counted:
        """How many fit."""
        return self._ask().count(_terms(terms), selector=selector, after=after, before=before)

    def series(
        self,
        *terms: object,
        selector: str | None = None,
        after: When = None,
        before: When = None,
        width: str = "day",
        zone: str = "UTC",
        group: str | None = None,
        measure: str = "count",
    ) -> FoundSeries:
        """Counted by time, as `tallystick series` does."""
        return self._ask().series(
            _terms(terms), selector=selector, after=after, before=before, width=width, zone=zone, group=group,
            measure=measure,
        )  # fmt: skip

    def history(self, entity_id: str, *, as_of: When = None, limit: int = 100) -> FoundTurns:
        """What changed an entity, for a timeline."""
        return self._ask().turns(_text(entity_id, "entity"), as_of, limit=limit)

    def _ask(self) -> View:
        self._calls += 1
        if self._calls > CALLS_MAX:
            raise RejectedError(f"more than {CALLS_MAX} questions in one report", cure="split the document")
        if self._progress is not None:
            self._progress(self._calls, None)
        return self._view

    # --------------------------------------------------------------------------------------------- figures

    def state(self, entity_id: str, *, as_of: When = None, title: str = "") -> Blocks:
        """What an entity was, as a table of its members and of the records that made them so."""
        found = self._ask().state(_text(entity_id, "entity"), as_of)
        rows = self._rows(map(_member_row, found.members))
        note = _members_note(len(rows), found.total)
        return (
            Table(
                title=visible(title) if title else f"State of {visible(found.entity_id)} {found.described}",
                columns=("Member", "Value", "Since", "Made so by", "Record"),
                rows=rows,
                source=found.source,
                numbers=(4,),
                note=note,
            ),
        )

    def table(self, found: Found, *, columns: Sequence[str] = (), title: str = "", empty: str = "") -> Blocks:
        """Records as rows. A column is a name such as time, actor, event_type, payload.reason, or name=Heading."""
        _check(found, Found, "table")
        columns = [*columns] or ["time", "actor", "event_type", "entity_id", "details"]
        paths = [column.partition("=")[0] for column in columns]
        heads = [column.partition("=")[2] or HEADS.get(path, path.rpartition(".")[2]) for column, path in
                 zip(columns, paths, strict=True)]  # fmt: skip
        readers = [column_reader(path, found.time) for path in paths]
        rows = self._rows([reader(record) for reader in readers] for record in found.records)
        numbers = tuple(index for index, path in enumerate(paths) if path in ("position", "entity_version"))
        return (
            Table(
                title=visible(title),
                columns=tuple(visible(head) for head in heads),
                rows=rows,
                source=found.source,
                numbers=numbers,
                note=_cut_note(len(rows), found.total, empty),
            ),
        )

    def chart(self, found: FoundSeries, *, title: str = "", kind: str = "bars", unit: str = "records") -> Blocks:
        """A series as bars or lines over time."""
        _check(found, FoundSeries, "chart")
        if kind not in ("bars", "lines"):
            raise RejectedError(f"there is no chart {str(kind)[:20]!r}", cure="say bars or lines")
        labels, note = _axis(found)
        groups = _largest(found)
        values: dict[str, dict[str, float]] = {name: {} for name in dict.fromkeys(groups.values())}
        for point in found.points:
            if point.value is not None:
                cells = values[groups[point.group or ""]]
                cells[point.label] = cells.get(point.label, 0) + point.value
        absent = 0 if found.measure == "count" else None
        return (
            Chart(
                title=visible(title),
                kind="lines" if kind == "lines" else "bars",
                labels=tuple(map(_short_label, labels)),
                series=tuple(
                    (visible(name, characters_max=60), tuple(cells.get(label, absent) for label in labels))
                    for name, cells in values.items()
                ),
                source=found.source,
                unit=unit,
                note=note,
            ),
        )

    def ranking(
        self, *terms: object, by: str = "actor", selector: str | None = None, title: str = "", limit: int = 10
    ) -> Blocks:
        """Who, or what, comes most often."""
        asked = self._ask()
        found = asked.series(
            _terms(terms), selector=selector, after=None, before=None, width="year", zone="UTC", group=by,
            measure="count",
        )  # fmt: skip
        totals: dict[str, int] = {}
        for point in found.points:
            totals[point.group or "(none)"] = totals.get(point.group or "(none)", 0) + point.count
        first = sorted(totals.items(), key=lambda item: (-item[1], item[0]))[: max(1, min(limit, 50))]
        note = f"The first {len(first)} of {len(totals)}." if len(totals) > len(first) else ""
        return (
            Chart(
                title=visible(title),
                kind="ranking",
                labels=tuple(visible(name, characters_max=120) for name, _ in first),
                series=(("records", tuple(count for _, count in first)),),
                source=replace(found.source, how=f"counted by {by}, by {asked.window.time} time"),
                note=note or ("" if first else "No record fits."),
            ),
        )

    def timeline(self, found: Found | FoundTurns, *, title: str = "", empty: str = "") -> Blocks:
        """Records, or changes of an entity, one below the other."""
        _check(found, (Found, FoundTurns), "timeline")
        moment = moment_of(found.time)
        if isinstance(found, Found):
            told: Iterable[Entry] = (entry_of(record, details_of(record), moment) for record in found.records)
        else:
            told = reversed(found.turns)  # the last ones are those to keep
        entries = [*takewhile(lambda entry: self._view.allowance.take_row(texts_of(entry)), told)]
        if isinstance(found, FoundTurns):
            entries.reverse()
        note = _TOO_MUCH if found.total is None else _cut_note(len(entries), found.total, empty)
        return (Timeline(title=visible(title), entries=tuple(entries), source=found.source, note=note),)

    def _rows(self, rows: Iterable[Sequence[str]]) -> tuple[tuple[Cell, ...], ...]:
        """As many rows as there is room for in the report."""
        return tuple(tuple(map(Cell, row)) for row in takewhile(self._view.allowance.take_row, rows))

    # -------------------------------------------------------------------------------------------- controls

    def controls(self, *names: object) -> Assessed:
        """Assessments of controls by id, or of frameworks by name, gaps first."""
        return self._ask().assessed(_terms(names))

    def wanted(self, text: str) -> list[str]:
        """The ids in a text, which has spaces or commas between them."""
        return text.replace(",", " ").split()

    def gaps(self, found: Assessed) -> Blocks:
        """What is missing, control by control."""
        _check(found, Assessed, "gaps")
        return gaps(found)

    def details(self, found: Assessed) -> Blocks:
        """Each control with what it asks, what was found, and from which questions."""
        _check(found, Assessed, "details")
        return details(found)


def block_of(value: object) -> object:
    """What an expression prints: assessments as their overview, everything else as it is."""
    if isinstance(value, Assessed):
        return overview(value)
    if isinstance(value, Found | FoundSeries | FoundState | FoundTurns):
        raise RejectedError("records are printed with table(…) or timeline(…), and series with chart(…)")
    return value


def _terms(given: Iterable[object]) -> list[str]:
    """Terms as they are given: texts, or lists of them."""
    terms: list[str] = []
    for term in given:
        terms.extend(map(str, term) if isinstance(term, list | tuple) else [str(term)])
    return terms


def _text(value: object, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise RejectedError(f"{str(value)[:40]!r} names no entity", place=place, cure="give its id")
    return value


def _check(value: object, kind: type | tuple[type, ...], name: str) -> None:
    if not isinstance(value, kind):
        raise RejectedError(
            f"{name}(…) of a {type(value).__name__}", cure="see the how-to on reports for what it takes"
        )


def _largest(found: FoundSeries) -> dict[str, str]:
    """Group → the series that it counts in: its own, or `others` beyond the largest few."""
    totals: dict[str, int] = {}
    for point in found.points:
        totals[point.group or ""] = totals.get(point.group or "", 0) + point.count
    names = sorted(totals, key=lambda name: (-totals[name], name))
    if len(names) <= CHART_GROUPS_MAX or found.measure != "count":
        names, others = names[:CHART_GROUPS_MAX], names[CHART_GROUPS_MAX:]
    else:
        names, others = names[: CHART_GROUPS_MAX - 1], names[CHART_GROUPS_MAX - 1 :]
    kept = {name: name or ("(none)" if found.group else found.measure) for name in names}
    return {**kept, **dict.fromkeys(others, "others")}


def _axis(found: FoundSeries) -> tuple[list[str], str]:
    """The labels of a chart: every bucket from the first to the last, or only those with records, and a note."""
    labels = [*dict.fromkeys(point.label for point in found.points)]
    if not labels:
        return [], "No record fits."
    if len(labels) > CHART_LABELS_MAX:
        cure = "ask for a wider one, or for less time"
        raise RejectedError(f"{len(labels)} buckets in a chart; at most {CHART_LABELS_MAX}", place="width", cure=cure)
    buckets = found.calendar.range(found.points[0].start, found.points[-1].end)
    every = [found.calendar.label(start) for start, _ in islice(buckets, CHART_LABELS_MAX + 1)]
    if len(every) > CHART_LABELS_MAX:
        return labels, f"Only each {found.calendar.width} in which there is something."
    return every, ""


def _short_label(label: str) -> str:
    """`2026-03-15T10:00:00Z` as people read it on an axis."""
    date, _, rest = label.partition("T")
    return date if not rest or rest.startswith("00:00:00") else f"{date[5:]} {rest[:5]}"


def _cut_note(count: int, total: int, empty: str) -> str:
    if not total:
        return visible(empty) if empty else "No record fits."
    return f"{count:,} of {total:,} records." if total > count else ""


def _members_note(count: int, total: int | None) -> str:
    if total is None:
        return _TOO_MUCH
    if not total:
        return "Nothing was known of it then."
    return f"The first {count:,} of {total:,} members." if total > count else ""


def _member_row(member: Member) -> tuple[str, ...]:
    made = member.made
    told = ("", "", "") if made is None else (made.when, made.who, str(made.position))
    return member.name, member.value, *told
