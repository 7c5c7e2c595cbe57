"""`queue`: what was published and is not sealed yet: how it stands, sealing it, and mending it after damage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tallystick.cli import failures, screen
from tallystick.cli.options import Settings, ledger_options, sealing_options
from tallystick.errors import NotFoundError

if TYPE_CHECKING:
    from tallystick.write.segments import Damage


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
    _folder(settings)
    with settings.open(readonly=False) as ledger:
        ledger.queue.drain(seconds=seconds)
        stats = ledger.queue.stats()
    if settings.json:
        screen.say_json({"sealed": stats.sealed, "conflicts": stats.conflicts, "depth": stats.depth})
        return
    refused = f", {stats.conflicts:,} refused, as their tickets say" if stats.conflicts else ""
    screen.say(f"sealed {screen.counted(stats.sealed, 'event')}{refused}; nothing waits")


@queue.command("stats")
@ledger_options
def stats(settings: Settings) -> None:
    """Say what waits, while no other process has the queue.

    Nothing is sealed by this. Exits with 1 when the queue is damaged.

    JSON: depth, bytes, oldest_accepted_at, damage (segment, offset, first, end).
    """
    from tallystick.core import timestamp
    from tallystick.write.journal import look

    seen = look(_folder(settings))
    oldest = None if seen.oldest_at is None else timestamp.render(seen.oldest_at)
    if settings.json:
        facts = {"depth": seen.depth, "bytes": seen.bytes, "oldest_accepted_at": oldest}
        screen.say_json({**facts, "damage": _damage_json(seen.damage)})
    else:
        waiting = screen.counted(seen.depth, "event")
        screen.say_pairs([("waiting", waiting), ("bytes", f"{seen.bytes:,}"), ("oldest", oldest or "none")])
        _say_damage(seen.damage)
    if seen.damage:
        raise click.exceptions.Exit(failures.REFUSED)


@queue.command("repair")
@click.option("--yes", is_flag=True, help="Do it; without this only what would be lost is shown.")
@ledger_options
def repair(settings: Settings, *, yes: bool) -> None:
    """Show what was lost to damage, and with --yes go on without it.

    What is good stays, each at its place; whoever asks for a ticket that was lost is told so. The damaged files are
    kept beside. Exits with 1 when something is lost and --yes was not given.

    JSON: repaired, damage (segment, offset, first, end).
    """
    from tallystick.clock import wall_clock
    from tallystick.write.journal import look
    from tallystick.write.journal import repair as run

    folder = _folder(settings)
    damage = run(folder, now=wall_clock()) if yes else look(folder).damage
    if settings.json:
        screen.say_json({"repaired": yes, "damage": _damage_json(damage)})
    elif not damage:
        screen.say("the queue is not damaged")
    else:
        _say_damage(damage)
        done = "repaired: the rest is sealed with the next `tallystick queue drain`"
        screen.say(done if yes else "with --yes, the rest goes on without them")
    if damage and not yes:
        raise click.exceptions.Exit(failures.REFUSED)


def _folder(settings: Settings) -> Path:
    """Where the queue of the ledger is. Raises `NotFoundError` where nothing was ever published."""
    from tallystick.config import Location
    from tallystick.write.queue import FOLDER

    settings.check_ledger()
    ledger = Location.parse(settings.ledger).folder
    if ledger is None or not (ledger / FOLDER).is_dir():
        raise NotFoundError(f"nothing was ever published to {settings.ledger}")
    return ledger / FOLDER


def _say_damage(damage: tuple[Damage, ...]) -> None:
    for one in damage:
        lost = screen.counted(one.end - one.first, "event")
        place = f"at byte {one.offset} of {one.path.name}"
        screen.say(("DAMAGED", "red bold"), f"  {lost} from number {one.first} on, {place}")


def _damage_json(damage: tuple[Damage, ...]) -> list[dict[str, object]]:
    return [{"segment": one.path.name, "offset": one.offset, "first": one.first, "end": one.end} for one in damage]
