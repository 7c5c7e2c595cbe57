"""`correct-clock`: have a ledger say that the machine's clock is right now."""

from __future__ import annotations

import click

from tallystick.cli import screen
from tallystick.cli.options import Settings, sealing_options


@click.command("correct-clock")
@click.argument("reason")
@click.option("--actor", metavar="ID", help="Who says that the clock is right.")
@sealing_options
def correct_clock(settings: Settings, *, reason: str, actor: str | None) -> None:
    """Have recorded times count on from what the machine's clock says now.

    Look at the clock first. After a clock that was ahead, new records are held at the last time that it gave, and a
    verification finds times that have not come. With this command the ledger records the last time, the time now, and
    REASON: times count on from now, and what was recorded before counts as no later than this. A ledger that takes no
    events because the clock seems to have jumped takes them again.

    JSON: position, recorded_at, last_recorded_at.
    """
    with settings.open(readonly=False) as ledger:
        record = ledger.get(ledger.correct_clock(reason, actor=None if actor is None else {"id": actor}))
    last, now = record.payload["last_recorded_at"], record.recorded_at
    if settings.json:
        screen.say_json({"position": record.position, "recorded_at": now, "last_recorded_at": last})
    else:
        screen.say("times count on from ", (now, "bold"), ", and not from ", (last, "bold"))
        screen.say_pairs([("recorded", f"at position {record.position:,}")])
