"""`show`: one record, all of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli import screen
from tallystick.cli.options import Settings, ledger_options
from tallystick.cli.records import find_position, json_line

if TYPE_CHECKING:
    from tallystick.core.record import Record


@click.command()
@click.argument("key", metavar="POSITION|ID")
@click.option("--id", "is_id", is_flag=True, help="Take a number for an event id.")
@click.option("--raw", is_flag=True, help="Print the record's exact bytes and a newline.")
@ledger_options
def show(settings: Settings, key: str, is_id: bool, raw: bool) -> None:
    """Print one record, by its position or its event id.

    JSON: its sixteen members as they were sealed, and hash.
    """
    with settings.open() as ledger:
        record = ledger.get_checked(find_position(ledger, key, is_id=is_id))
    if raw:
        _show_raw(record)
    elif settings.json:
        screen.say_json_text(json_line(record))
    else:
        _show_text(record)


def _show_raw(record: Record) -> None:
    text = record.line.decode()
    if screen.on_terminal() and not text.isprintable():
        screen.say("some characters are shown as escapes; in a file or pipe the bytes are exact", err=True)
        screen.say(text)
    else:
        screen.say_bytes(record.line + b"\n")


def _show_text(record: Record) -> None:
    members = record.members
    screen.say("record ", (str(record.position), "bold"), f" of {members['ledger']}")
    screen.say_pairs(
        [
            ("event type", f"{record.event_type}, version {members['event_version']}"),
            ("entity", f"{record.entity_id}, version {record.entity_version}"),
            ("actor", _actor(record)),
            ("recorded at", record.recorded_at),
            ("occurred at", record.occurred_at or "-"),
            ("id", record.id),
            ("labels", ", ".join(record.labels) or "-"),
        ]
    )
    _show_object("payload", record.payload)
    _show_object("context", record.context)
    screen.say_pairs(
        [
            ("epoch      ", str(members["epoch"])),
            ("hash", record.hash.hex()),
            ("prev hash", members["prev_hash"]),
            ("signature", members["signature"]),
        ]
    )


def _actor(record: Record) -> str:
    if record.actor is None:
        return "-"
    names = ("name", "type", "identity_provider")
    rest = ", ".join(record.actor[name] for name in names if name in record.actor)
    return f"{record.actor['id']} ({rest})" if rest else record.actor["id"]


def _show_object(name: str, value: dict[str, Any]) -> None:
    screen.say("  ", (name, "dim"), "" if value else "      {}")
    if value:
        for line in json.dumps(value, ensure_ascii=False, indent=2).split("\n")[1:-1]:
            screen.say("  ", line)
