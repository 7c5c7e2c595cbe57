"""`series`: how many records there were in every hour, day or month, or what their numbers come to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from tallystick.cli import screen
from tallystick.cli.log import compared_text
from tallystick.cli.options import Settings, sealing_options
from tallystick.cli.query import TERMS_HELP
from tallystick.cli.records import value_text
from tallystick.cli.state import occurred_option
from tallystick.errors import RejectedError

if TYPE_CHECKING:
    from tallystick.read.query import Query
    from tallystick.read.timeseries import Point, Series

_BLOCKS: Final = ("█", "▏▎▍▌▋▊▉", "░")
_ASCII: Final = ("#", "", "-")
"""A full cell of a bar, the parts of one in order, and a full cell for what is below zero."""

_BAR_COLUMNS_MIN: Final = 8
_GROUP_COLUMNS_MAX: Final = 40
_OPTION_OF: Final = {
    **{"width": "--per", "zone": "--zone", "measure": "--measure", "group": "--by", "name": "--save"},
    **{"after": "--after", "before": "--before", "time": "--occurred"},
}


@click.command(epilog=TERMS_HELP)
@click.argument("terms", nargs=-1, metavar="[TERM]...")
@click.option(
    "--per",
    default="day",
    show_default=True,
    metavar="WIDTH",
    help="minute, '5 minutes', '15 minutes', hour, day, week, month, quarter or year.",
)
@click.option("--zone", default="UTC", show_default=True, help="Whose days, such as Europe/Berlin.")
@click.option(
    "--measure",
    "measures",
    multiple=True,
    metavar="MEASURE",
    help="count, distinct:actor, distinct:entity, or sum, min, max or avg of a member: sum:payload.rows. "
    "By default count; several with --save.",
)
@click.option("--by", metavar="GROUP", help="A line for each type, actor, entity or label.")
@click.option("--after", metavar="TIME", help="Begin at this time (RFC 3339) or date.")
@click.option("--before", metavar="TIME", help="End before this time or date.")
@click.option("--fill", is_flag=True, help="Also the buckets in which there is nothing.")
@occurred_option
@click.option("--save", metavar="NAME", help="Have it stored from now on: it then outlives its records.")
@click.option("--actor", metavar="ID", help="With --save: who orders it.")
@sealing_options
def series(
    settings: Settings,
    *,
    terms: tuple[str, ...],
    per: str,
    zone: str,
    measures: tuple[str, ...],
    by: str | None,
    after: str | None,
    before: str | None,
    fill: bool,
    occurred: bool,
    save: str | None,
    actor: str | None,
) -> None:
    """Count records by time: tallystick series event_type=user.* --per hour --zone Europe/Berlin --by type.

    JSON: {buckets, width, zone, measure, group, time, size, source, pruned_below, assumptions, index_verified}, where a
    bucket is {start, end, label, group, value, count}, and index_verified {position, at} or null says when the index
    was last compared with the log; with --save {name, terms, width, zone, measures, group, time, size}.
    """
    from tallystick.read.query import parse_terms

    asked = parse_terms(terms)
    measures = measures or ("count",)
    group = None if by == "none" else by
    how: dict[str, Any] = {"width": per, "zone": zone, "group": group, "time": "occurred" if occurred else "recorded"}
    if save is not None:
        if after is not None or before is not None or fill:
            raise click.UsageError("--save stores all of time: it goes without --after, --before and --fill")
        _save(settings, save, asked, actor=actor, measures=measures, how=how)
        return
    if len(measures) > 1 or actor is not None:
        raise click.UsageError(f"{'several measures' if actor is None else '--actor'} can only be given with --save")
    with settings.open(readonly=False) as ledger, _places():
        found = ledger.series(asked, after=after, before=before, measure=measures[0], fill=fill, **how)
    if settings.json:
        from tallystick.read.shapes import series_json

        screen.say_json(series_json(found))
        return
    _say(found)


def _save(
    settings: Settings, name: str, query: Query, *, actor: str | None, measures: tuple[str, ...], how: dict[str, Any]
) -> None:
    with settings.open(readonly=False) as ledger, _places():
        ledger.downsample(name, query, measure=measures, actor=actor, **how)
        size = ledger.size
    if settings.json:
        screen.say_json({"name": name, "terms": query.terms(), **how, "measures": [*measures], "size": size})
        return
    groups = f", by {how['group']}" if how["group"] else ""
    screen.say("stored from now on: ", (name, "bold"), f", {', '.join(measures)} per {how['width']}{groups}")
    screen.say(("a series that asks the same is answered from it, also of records that are pruned", "dim"), err=True)


@contextmanager
def _places() -> Iterator[None]:
    """What is wrong is said of the option that it was given by."""
    try:
        yield
    except RejectedError as error:
        place = _OPTION_OF.get(error.place, error.place)
        raise RejectedError(error.problem, place=place, cure=error.cure) from error


# ------------------------------------------------------------------------------------------------- for people


def _say(found: Series) -> None:
    labels = [_label(point, found.zone) for point in found.buckets]
    groups = [_group(point) if found.group else "" for point in found.buckets]
    values = [_value(point.value) for point in found.buckets]
    columns = [max(map(len, texts), default=0) for texts in (labels, groups, values)]
    bars = Bars(
        [point.value for point in found.buckets], columns=screen.width() - sum(columns) - (7 if found.group else 5)
    )
    for point, label, group, value in zip(found.buckets, labels, groups, values, strict=True):
        middle = f"  {group.ljust(columns[1])}" if found.group else ""
        bar = bars.of(point.value)
        screen.say((label.ljust(columns[0]), "cyan"), middle, f"  {value.rjust(columns[2])}", f"  {bar}" if bar else "")
    if not found.buckets:
        screen.say("no record fits", err=True)
    for sentence in found.assumptions:
        screen.say((sentence, "dim"), err=True)
    pruned = f"; records below position {found.pruned_below:,} may have been pruned" if found.pruned_below else ""
    told = f"{found.measure} per {found.width} ({found.zone}), by {found.time} time"
    size, verified = screen.counted(found.size, "record"), compared_text(found.index_verified)
    of = f"from the {_source(found.source)}; of a ledger of {size}; {verified}"
    screen.say((f"{told}, {of}{pruned}", "dim"), err=True)


class Bars:
    """Bars of values, the largest as long as there is room. In plain ASCII where stdout cannot show blocks."""

    def __init__(self, values: list[int | float | None], *, columns: int) -> None:
        self._largest: Final = max((abs(value) for value in values if value is not None), default=0)
        self._columns: Final = max(columns, _BAR_COLUMNS_MIN)
        self._marks: Final = _BLOCKS if _can_show("".join(_BLOCKS)) else _ASCII

    def of(self, value: int | float | None) -> str:
        """The bar of one value: empty for none and for zero, else not."""
        if not value or not self._largest:
            return ""
        full, parts, below = self._marks
        steps = len(parts) + 1
        length = max(round(abs(value) / self._largest * self._columns * steps), 1)
        cells, rest = divmod(length, steps)
        if value < 0:
            return below * max(cells, 1)
        return full * cells + (parts[rest - 1] if rest else "")


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


def _label(point: Point, zone: str) -> str:
    """The bucket's label; of a day that begins at midnight only the date, as with anything wider."""
    date, _, rest = point.label.partition("T")
    midnight = rest.startswith("00:00:00") and (zone == "UTC" or not rest.endswith("Z"))
    whole_days = point.end - point.start >= _SHORTEST_DAY
    return date if midnight and whole_days else f"{date} {rest}"


_SHORTEST_DAY: Final = 20 * 3_600_000_000
"""Longer than an hour, and shorter than a day that the clocks cut short; in microseconds."""


def _group(point: Point) -> str:
    return "-" if point.group is None else screen.clean(screen.shortened(point.group, _GROUP_COLUMNS_MAX))


def _value(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if type(value) is int else value_text(value)


def _source(source: str) -> str:
    kind, _, name = source.partition(":")
    return f"stored roll-up {name}" if kind == "rollup" else kind
