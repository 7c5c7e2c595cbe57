"""`state`, `history` and `diff`: what something was, how it came to be so, and what became of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli import screen
from tallystick.cli.log import compared_text
from tallystick.cli.options import Settings, ledger_options
from tallystick.cli.records import actor_text, time_text, value_text
from tallystick.errors import RejectedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tallystick.core.record import Record
    from tallystick.read.as_of import AsOf
    from tallystick.read.state import Change

_POINT_HELP = "A time (RFC 3339), a date (all of that day, UTC), a version such as v3, or a position such as @120."


def occurred_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """For a question about time: by which of a record's two times."""
    what = "By the time at which events say they happened, instead of when they were recorded."
    return click.option("--occurred", is_flag=True, help=what)(function)


@click.command()
@click.argument("entity", metavar="ENTITY")
@click.option("--as-of", metavar="POINT", help=_POINT_HELP)
@occurred_option
@ledger_options
def state(settings: Settings, *, entity: str, as_of: str | None, occurred: bool) -> None:
    """Print what an entity was, now or at a point in time, and which events made it so.

    JSON: {entity_id, as_of, state, version, position, made_by, pruned, events, size, index_verified}.
    """
    with settings.open(readonly=False) as ledger:
        found = ledger.state(entity, point(as_of, place="--as-of", occurred=occurred))
    if settings.json:
        from tallystick.read.shapes import state_json

        screen.say_json(state_json(found))
        return
    screen.say((found.entity_id, "bold"), f" {found.moment.described}")
    if not found.folded:
        screen.say("  nothing was known of it then")
        if as_of is not None and not occurred:
            hint = (
                "recorded time is when the ledger sealed an event; --occurred asks by when it is said to have happened"
            )
            screen.say((hint, "dim"), err=True)
    makers = {record.position: record for record in found.events}
    rows = [
        (name, value_text(value), *_maker(makers.get(found.made_by.get(name, -1))))
        for name, value in found.value.items()
    ]
    if rows:
        screen.say_table(("member", "value", "since", "by", "event", "position"), rows)
    if found.pruned:
        screen.say(f"  {screen.counted(found.pruned, 'event')} of it were pruned, and are not in this state")
    screen.say(
        (f"version {found.version}, from {screen.counted(found.folded, 'event')}; of a ledger of "
         f"{screen.counted(found.size, 'record')}; {compared_text(found.index_verified)}", "dim"), err=True,
    )  # fmt: skip


@click.command()
@click.argument("entity", metavar="ENTITY")
@click.option("--member", metavar="NAME", help="Only what changed this member of its state.")
@click.option("--as-of", metavar="POINT", help="Up to where. " + _POINT_HELP)
@occurred_option
@ledger_options
def history(settings: Settings, *, entity: str, member: str | None, as_of: str | None, occurred: bool) -> None:
    """Print what changed an entity, event by event, the oldest first.

    JSON, a line an event: {position, recorded_at, occurred_at, event_type, actor, id, changes}.
    """
    from tallystick.read.shapes import turn_json

    with settings.open(readonly=False) as ledger:
        for turn in ledger.timeline(entity, member, as_of=point(as_of, place="--as-of", occurred=occurred)):
            record = turn.record
            if settings.json:
                screen.say_json_text(json.dumps(turn_json(turn), ensure_ascii=False))
                continue
            screen.say(
                (str(record.position).ljust(6), "yellow"), f"{time_text(record.occurred_at or record.recorded_at)}  ",
                (record.event_type, "bold"), "  ", (f"by {actor_text(record)}", "cyan"),
            )  # fmt: skip
            for change in turn.changes:
                screen.say(" " * 6, _change_text(change))


@click.command()
@click.argument("entity", metavar="ENTITY")
@click.argument("earlier", metavar="FROM")
@click.argument("later", metavar="[TO]", required=False)
@occurred_option
@ledger_options
def diff(settings: Settings, *, entity: str, earlier: str, later: str | None, occurred: bool) -> None:
    """Print what became of an entity from one point to another, by default until now.

    A point is a time (RFC 3339), a date (the end of that day, UTC), a version such as v3, or a position such as
    @120.

    JSON: {entity_id, from, to, changes, records, size}.
    """
    with settings.open(readonly=False) as ledger:
        found = ledger.diff(
            entity,
            earlier=point(earlier, place="FROM", occurred=occurred),
            later=point(later, place="TO", occurred=occurred),
        )
    if settings.json:
        from tallystick.read.shapes import difference_json

        screen.say_json(difference_json(found))
        return
    screen.say((found.entity_id, "bold"), f" {found.earlier.described} → {found.later.described}")
    rows = []
    for change in found.changes:
        record = change.record
        rows.append((change.member, _old(change), _new(change), *_maker(record)))
    if rows:
        screen.say_table(("member", "was", "is", "since", "by", "event", "position"), rows)
    else:
        screen.say("  nothing changed")
    between = screen.counted(len(found.records), "event")
    screen.say((f"{between} between; of a ledger of {screen.counted(found.size, 'record')}", "dim"), err=True)


def point(text: str | None, *, place: str, occurred: bool) -> AsOf:
    """A point in an entity's history as it is typed. Raises `RejectedError` with the place."""
    from tallystick.read.as_of import AsOf

    if text is None:
        return AsOf()
    try:
        return AsOf.of(text, clock="occurred" if occurred else "recorded")
    except RejectedError as error:
        raise RejectedError(error.problem, place=place, cure=error.cure) from error


def _maker(record: Record | None) -> tuple[str, str, str, str]:
    """When, by whom, by which event, and where a member came to be so."""
    if record is None:
        return ("-", "-", "-", "-")
    moment = time_text(record.occurred_at or record.recorded_at)
    return (moment, actor_text(record), record.event_type, str(record.position))


def _old(change: Change) -> str:
    return "-" if change.kind == "added" else value_text(change.old)


def _new(change: Change) -> str:
    return "-" if change.kind == "removed" else value_text(change.new)


def _change_text(change: Change) -> str:
    if change.kind == "added":
        return f"{change.member}: {value_text(change.new)}"
    return f"{change.member}: {value_text(change.old)} → {_new(change)}"
