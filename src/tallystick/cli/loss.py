"""`accept-loss`: go on with a ledger that was rolled back or forked, and have it say so."""

from __future__ import annotations

import click

from tallystick.cli import screen
from tallystick.cli.options import Settings, sealing_options


@click.command("accept-loss")
@click.argument("reason")
@click.option("--actor", metavar="ID", help="Who accepts the loss.")
@sealing_options
def accept_loss(settings: Settings, *, reason: str, actor: str | None) -> None:
    """Go on with a ledger that is not the newest, as what is missing is lost for good.

    A ledger that is shorter than its head mark says, or another one, takes no events: an older copy was put back, or
    there are two of it. Look for the newest copy first. With this command the ledger records the loss, REASON and the
    checkpoint that the mark held, goes on under MAC keys that nobody else can know, and the mark is written anew.
    Whoever has a checkpoint of what was lost will find a fork, and this record says why.

    JSON: position, size.
    """
    with settings.open(readonly=False) as ledger:
        ledger.accept_loss(reason, actor=None if actor is None else {"id": actor})
        size = ledger.size
    if settings.json:
        screen.say_json({"position": size - 1, "size": size})
    else:
        screen.say("the loss is recorded at position ", (str(size - 1), "bold"))
