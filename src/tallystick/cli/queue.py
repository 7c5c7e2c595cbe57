"""`queue`: what was published and is not sealed yet: how it stands, sealing it, and repairing it after damage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from tallystick.cli import failures, screen
from tallystick.cli.options import Settings, sealing_options
from tallystick.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tallystick.ledger import Ledger
    from tallystick.write.queue_findings import QueueFinding


@click.group()
def queue() -> None:
    """Look after what was published and is not sealed yet."""


@queue.command("drain")
@click.option("--seconds", type=click.FloatRange(0.1), default=60.0, show_default=True, help="How long to wait.")
@sealing_options
def drain(settings: Settings, *, seconds: float) -> None:
    """Seal what an earlier process left.

    JSON: sealed, conflicts, depth.
    """
    with settings.open(readonly=False) as ledger:
        _folder(settings, ledger)
        ledger.queue.drain(seconds=seconds)
        stats = ledger.queue.stats()
    if settings.json:
        screen.say_json({"sealed": stats.sealed, "conflicts": stats.conflicts, "depth": stats.depth})
        return
    refused = f", {stats.conflicts:,} refused, as their tickets say" if stats.conflicts else ""
    screen.say(f"sealed {screen.counted(stats.sealed, 'event')}{refused}; nothing waits")


@queue.command("stats")
@sealing_options
def stats(settings: Settings) -> None:
    """Say what waits, while no other process has the queue.

    Every file of the queue is authenticated with the keys, and nothing is sealed. Exits with 1 when the queue is
    damaged, and with 2 when the keys are not here: then nothing is known of it.

    JSON: depth, bytes, oldest_accepted_at, findings (kind, file, sequence, end, seen).
    """
    from tallystick.core import timestamp
    from tallystick.write.queue_repair import look

    place = _place(settings)
    seen = look(place.folder, place.key, mark=place.mark)
    oldest = None if seen.oldest_at is None else timestamp.render(seen.oldest_at)
    if settings.json:
        facts = {"depth": seen.depth, "bytes": seen.bytes, "oldest_accepted_at": oldest}
        screen.say_json({**facts, "findings": [one.to_json() for one in seen.findings]})
    else:
        waiting = screen.counted(seen.depth, "event")
        screen.say_pairs([("waiting", waiting), ("bytes", f"{seen.bytes:,}"), ("oldest", oldest or "none")])
        _say_findings(seen.findings)
    if seen.findings:
        raise click.exceptions.Exit(failures.REFUSED)


@queue.command("repair")
@click.option("--yes", is_flag=True, help="Do it; without this only what would be lost is shown.")
@sealing_options
def repair(settings: Settings, *, yes: bool) -> None:
    """Show what was lost to damage, and with --yes go on without it.

    What is good stays, each at its place; a ticket of an event that was lost says so. The damaged files are kept in a
    folder `damaged-…` in that of the queue, and no prune runs until it is moved away or deleted: they may have events
    that are to be pruned. Exits with 1 when something is damaged and --yes was not given.

    JSON: repaired, findings (kind, file, sequence, end, seen).
    """
    from tallystick.clock import wall_clock
    from tallystick.write.queue_repair import look
    from tallystick.write.queue_repair import repair as run

    place = _place(settings)
    if yes:
        findings = run(place.folder, place.key, now=wall_clock(), mark=place.mark)
    else:
        findings = look(place.folder, place.key, mark=place.mark).findings
    if settings.json:
        screen.say_json({"repaired": yes, "findings": [one.to_json() for one in findings]})
    elif not findings:
        screen.say("the queue is not damaged")
    else:
        _say_findings(findings)
        done = "repaired: the rest is sealed with the next `tallystick queue drain`"
        screen.say(done if yes else "with --yes, the rest goes on without what was lost")
    if findings and not yes:
        raise click.exceptions.Exit(failures.REFUSED)


class _Place(NamedTuple):
    """Where a queue is, and what authenticates it."""

    folder: Path
    mark: Path | None
    key: bytes


def _place(settings: Settings) -> _Place:
    """The queue of the ledger. Raises `NotFoundError` where nothing was ever published, and without the keys,
    `RejectedError` for those of another ledger."""
    with settings.open() as ledger:
        folder = _folder(settings, ledger)
        try:
            return _Place(folder, ledger.queue_mark, ledger.queue_key())
        except NotFoundError as error:
            raise NotFoundError(f"the queue could not be authenticated, and nothing is known of it: {error}") from error


def _folder(settings: Settings, ledger: Ledger) -> Path:
    """The folder of the queue. Raises `NotFoundError` where nothing was ever published."""
    from tallystick.config import Location
    from tallystick.write.queue import FOLDER

    folder, mark = Location.parse(settings.ledger).folder, ledger.queue_mark
    # Where the folder was deleted, the mark still says that there was one.
    if folder is None or not ((folder / FOLDER).is_dir() or (mark is not None and mark.exists())):
        raise NotFoundError(f"nothing was ever published to {settings.ledger}")
    return folder / FOLDER


def _say_findings(findings: Sequence[QueueFinding]) -> None:
    for one in findings:
        screen.say(("DAMAGED", "red bold"), f"  {one.text}")
