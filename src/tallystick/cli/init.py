"""`init`: a new ledger and its keys."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import click

from tallystick.cli import screen
from tallystick.cli.options import DEFAULT_LEDGER, KEYS_VARIABLE, Settings, sealing_options
from tallystick.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from tallystick.ledger import Ledger


@click.command()
@click.option("--name", help="The ledger's name; by default its folder's.")
@click.option("--deployment", help="The name before it in the origin; by default `local`.")
@sealing_options
def init(settings: Settings, name: str | None, deployment: str | None) -> None:
    """Make a ledger and its keys.

    Where the ledger is already, nothing is changed; that it has another name than you ask for is an error.

    JSON: created, ledger, name, origin, ledger_id, verifier_key, keys.
    """
    import tallystick

    created = False
    try:
        ledger = tallystick.open(settings.ledger, create=False, readonly=True, name=name, keys=settings.keys)
    except NotFoundError:
        created = True
        ledger = tallystick.open(
            settings.ledger, name=name, deployment=deployment, keys=settings.keys, marks=settings.marks
        )
    with ledger:
        if deployment is not None and ledger.origin != f"{deployment}/{ledger.name}":
            raise ConflictError(f"the ledger at {settings.ledger} has the origin {ledger.origin}, "
                                f"not {deployment}/{ledger.name}")  # fmt: skip
        _say(settings, ledger, created=created)


def _say(settings: Settings, ledger: Ledger, *, created: bool) -> None:
    folder = keys_folder(settings)
    facts = {
        "name": ledger.name,
        "origin": ledger.origin,
        "ledger_id": ledger.id.hex(),
        "verifier_key": ledger.verifier_key.render(),
        "keys": None if folder is None else str(folder),
    }
    if settings.json:
        screen.say_json({"created": created, "ledger": settings.ledger, **facts})
        return
    if not created:
        screen.say(f"The ledger {ledger.name} is already there, at {settings.ledger}; nothing was changed.")
    else:
        screen.say(("Made", "green bold"), f" the ledger {ledger.name} at {settings.ledger}.")
    screen.say_pairs([(name.replace("_", " "), value or "in memory only") for name, value in facts.items()])
    if created and folder is not None:
        _advise(settings, folder)


def _advise(settings: Settings, folder: Path) -> None:
    option = (
        ""
        if os.path.normpath(settings.ledger) == os.path.normpath(DEFAULT_LEDGER)
        else f" -l {shlex.quote(settings.ledger)}"
    )
    for line in (
        "",
        "Back up the keys now: without them nothing can be added to this ledger.",
        "Keep them away from the ledger, since whoever can change both can forge both:",
        f"  mv {shlex.quote(str(folder))} /a/safe/place/keys",
        f"  export {KEYS_VARIABLE}=/a/safe/place/keys",
        "Give the verifier key to those who are to check the ledger: by it they know its checkpoints.",
        "",
        f"Next: tallystick append{option} --type user.created --entity user-7 --actor jane -p role=viewer",
    ):
        screen.say(line)


def keys_folder(settings: Settings) -> Path | None:
    """Where this ledger's keys are."""
    from pathlib import Path

    from tallystick.config import Location

    return Path(settings.keys) if settings.keys else Location.parse(settings.ledger).keys_folder
