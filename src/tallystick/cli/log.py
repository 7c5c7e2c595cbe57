"""`log`: the records of a ledger, the newest first, and as they come."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from tallystick.cli import screen
from tallystick.cli.options import Settings, ledger_options
from tallystick.cli.records import (
    Wanted,
    actor_text,
    is_system,
    json_line,
    newest_first,
    time_text,
    what_text,
)
from tallystick.core import timestamp
from tallystick.core.corrected import NEVER_CORRECTED
from tallystick.errors import TamperError

if TYPE_CHECKING:
    from tallystick.core.record import Record
    from tallystick.ledger import Ledger
    from tallystick.read.compared import Compared

_POLL_SECONDS: Final = 0.2
_ALIGNED_RECORDS: Final = 200
"""Records that are looked at together to align their columns."""

_COLUMN_MAX: Final = 40


@click.command()
@click.option(
    "-n",
    "--number",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="How many records at most.",
)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--entity", metavar="ID", help="Only what this entity's stream holds.")
@click.option("--type", "event_type", metavar="TYPE", help="Only this event type; user.* for all that begin so.")
@click.option("--actor", metavar="ID", help="Only what this actor did.")
@click.option("--since", metavar="TIME", help="Only what was recorded at this time (RFC 3339) or later.")
@click.option("--until", metavar="TIME", help="Only what was recorded before this time.")
@click.option("--oldest-first", "--reverse", "oldest_first", is_flag=True, help="Begin with the oldest.")
@click.option("-f", "--follow", is_flag=True, help="Then print new records as they come, until Ctrl-C.")
@click.option("--no-system", is_flag=True, help="Leave out the ledger's own records.")
@ledger_options
def log(
    settings: Settings,
    *,
    number: int,
    everything: bool,
    oldest_first: bool,
    follow: bool,
    no_system: bool,
    **filters: Any,
) -> None:
    """Print records, the newest first.

    JSON, a line a record: its sixteen members as they were sealed, and hash.
    """
    wanted = Wanted.of(system=not no_system, **filters)
    with settings.open() as ledger:
        size = ledger.size
        found = _found(ledger, size, wanted, oldest_first=oldest_first and not follow)
        found = found if everything else itertools.islice(found, number)
        if follow:
            found = itertools.chain(reversed(list(found)), _coming(ledger, size, wanted))
        if not show_records(found, as_json=settings.json, at_once=follow) and not settings.json:
            screen.say("no record fits", err=True)


def show_records(records: Iterable[Record], *, as_json: bool, at_once: bool = False) -> int:
    """Print records as they come; how many there were. `at_once` waits for no others to align them."""
    return (_show_json if as_json else _show_text)(records, at_once=at_once)


def _found(ledger: Ledger, size: int, wanted: Wanted, *, oldest_first: bool) -> Iterator[Record]:
    if oldest_first:
        is_timed = wanted.since is not None or wanted.until is not None
        times = ledger.times(size) if is_timed else NEVER_CORRECTED
        for record in ledger.read(0, size):
            counts = times.of(record.position, timestamp.parse(record.recorded_at)) if times else None
            if wanted.takes(record, None if counts is None else timestamp.render(counts)):
                yield record
        return
    time = ""
    for record in newest_first(ledger, size):
        # What stands before a correction of the clock counts as no later than what stands after it.
        time = min(time or record.recorded_at, record.recorded_at)
        if wanted.since is not None and time < wanted.since:
            return
        if wanted.takes(record, time):
            yield record


def _coming(ledger: Ledger, seen: int, wanted: Wanted) -> Iterator[Record]:
    while True:
        size = ledger.size
        yield from filter(wanted.takes, ledger.read(seen, size))
        seen = size
        sys.stdout.flush()
        time.sleep(_POLL_SECONDS)


def _show_json(records: Iterable[Record], *, at_once: bool) -> int:  # noqa: ARG001 - every line is flushed
    count = 0
    for record in records:
        screen.say_json_text(json_line(record))
        count += 1
    return count


def _show_text(records: Iterable[Record], *, at_once: bool) -> int:
    """Print records below each other: on a terminal in two lines each, else in one that grep likes."""
    widths = [4, 19, 0, 0, 0]
    count = 0
    for block in _blocks(iter(records), 1 if at_once else _ALIGNED_RECORDS):
        rows = [_columns(record) for record in block]
        for row in rows:
            widths = [max(width, min(len(cell), _COLUMN_MAX)) for width, cell in zip(widths, row, strict=True)]
        for record, row in zip(block, rows, strict=True):
            _show_one(record, row, widths)
        count += len(block)
    return count


def _blocks(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """Records in blocks. What came before a damaged one is given before that one's error."""
    block: list[Record] = []
    try:
        for record in records:
            block.append(record)
            if len(block) == size:
                yield block
                block = []
    except TamperError:
        yield block
        raise
    if block:
        yield block


def _columns(record: Record) -> tuple[str, ...]:
    moment = time_text(record.recorded_at) if screen.on_terminal() else record.recorded_at
    cells = (str(record.position), moment, record.event_type, record.entity_id, actor_text(record))
    return tuple(map(screen.clean, cells))


def _show_one(record: Record, row: tuple[str, ...], widths: list[int]) -> None:
    position, moment, event_type, entity, actor = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    payload = screen.clean(what_text(record))
    if not screen.on_terminal():
        screen.say("  ".join((position, moment, event_type, entity, actor, payload)).rstrip())
        return
    indent = " " * (widths[0] + 2)
    if is_system(record):
        head = f"{position}  {moment}  {event_type}  {payload}"
        screen.say((screen.shortened(head, screen.width()), "dim"))
        return
    screen.say((position, "yellow"), f"  {moment}  ", (event_type, "bold"), f"  {entity}  ",
               (f"by {actor}".rstrip() if record.actor else "", "cyan"))  # fmt: skip
    if payload:
        screen.say((indent + screen.shortened(payload, screen.width() - len(indent)), "dim"))


def compared_text(compared: Compared | None) -> str:
    """When the index that answered was last compared with the log, and up to where; in few words."""
    if compared is None:
        return "index not verified yet"
    return f"index verified up to {compared.position:,} at {compared.at[:19]}Z"
