"""`append`: one event from options, or many from files and pipes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tallystick.cli import screen
from tallystick.cli.lines import STANDARD_INPUT, read_chunks, shown, split_lines, too_long
from tallystick.cli.options import Settings, batch_options, file_type, sealing_options
from tallystick.cli.sealing import Mode, seal_input
from tallystick.cli.tally import Item
from tallystick.errors import RejectedError


@click.command()
@click.argument("files", nargs=-1, type=file_type())
@click.option("--type", "event_type", metavar="TYPE", help="The event's type, such as user.created.")
@click.option("--entity", "entity_id", metavar="ID", help="What the event is about.")
@click.option("--actor", metavar="ID|JSON", help='Who did it: an id, or {"id":…,"type":…,"name":…}.')
@click.option("--payload", metavar="JSON", help="What happened, as a JSON object.")
@click.option(
    "-p",
    "members",
    metavar="KEY=TEXT",
    multiple=True,
    help="A member of the payload; KEY:=JSON for a value that is no text. Repeatable.",
)
@click.option("--context", metavar="JSON", help='Where and under what, such as {"ip":"10.0.1.42"}.')
@click.option("--label", "labels", metavar="LABEL", multiple=True, help="A label, such as phi. Repeatable.")
@click.option("--id", metavar="ID", help="The event's id: a second append with the same id adds nothing.")
@click.option("--event-version", type=int, metavar="N", help="The version of the event type's schema.")
@click.option("--occurred-at", metavar="TIME", help="When it happened, as RFC 3339 with a zone.")
@click.option("--expected-version", metavar="N|none|exists", help="Append only if the entity is at this version.")
@batch_options
@sealing_options
def append(settings: Settings, files: tuple[str, ...], atomic: bool, skip_bad: bool, **given: Any) -> None:
    """Seal events; on return they are durable.

    One event is given by options:

    \b
      tallystick append --type user.created --entity user-7 --actor jane -p role=viewer

    Many come as JSON lines, plain or gzip, from FILES or standard input:

    \b
      tallystick append events.jsonl
      journal | tallystick append

    A bad line stops the work: the events before it are sealed, and you are told from which line to go on.

    JSON, one event: position, id, entity_id, entity_version, recorded_at, hash, replayed, breach. Many: read,
    sealed, already, bad, breaches, first, last, through, size, seconds.
    """  # fmt: skip
    given = {name: value for name, value in given.items() if value not in (None, ())}
    if given:
        if files:
            raise click.UsageError("an event is given by options or by files, not by both")
        if missing := [option for option, name in (("--type", "event_type"), ("--entity", "entity_id"))
                       if name not in given]:  # fmt: skip
            raise click.UsageError(f"the event has no {' and no '.join(missing)}")
        _append_one(settings, _event_members(given))
        return
    if not files and sys.stdin.isatty():
        raise click.UsageError("there is no event: give --type and --entity, files, or JSON lines in a pipe")
    append_lines(settings, files or (STANDARD_INPUT,), Mode.of(atomic=atomic, skip_bad=skip_bad))


def append_lines(settings: Settings, files: tuple[str, ...], mode: Mode) -> None:
    """Seal the JSON lines of the files, one file after another."""
    items = (item for file in files for item in line_items(file))
    seal_input(settings, items, mode, total=total_bytes(files))


def line_items(file: str) -> Iterator[Item | None]:
    """The lines of a file as events."""
    name = shown(file)
    for line in split_lines(read_chunks(file)):
        if line is None:
            yield None
        elif line.data is None:
            yield Item(name, "line", line.number, 0, too_long("line"))
        else:
            yield Item(name, "line", line.number, len(line.data), line.data)


def total_bytes(files: tuple[str, ...]) -> int | None:
    """How many bytes of lines there are to come; None when a pipe or packed file does not tell."""
    if any(file == STANDARD_INPUT or file.endswith(".gz") or not Path(file).is_file() for file in files):
        return None
    return sum(Path(file).stat().st_size for file in files)


def _event_members(given: dict[str, Any]) -> dict[str, Any]:
    """The options as members of an event; what they hold is for the ledger to judge."""
    members = dict(given)
    members["payload"] = _payload(members.pop("payload", None), members.pop("members", ()))
    if "context" in members:
        members["context"] = _json(members["context"], place="--context")
    if members.get("actor", "").startswith("{"):
        members["actor"] = _json(members["actor"], place="--actor")
    if "labels" in members:
        members["labels"] = list(members["labels"])
    if members.get("expected_version", "").isdecimal():
        members["expected_version"] = _json(members["expected_version"], place="--expected-version")
    return members


def _payload(whole: str | None, members: tuple[str, ...]) -> Any:
    payload = {} if whole is None else _json(whole, place="--payload")
    for member in members:
        name, equals, value = member.partition("=")
        if not equals or not isinstance(payload, dict):
            raise RejectedError(f"{member[:60]!r} is not a member", place="-p", cure="give KEY=TEXT or KEY:=JSON")
        literal = name.endswith(":")
        name = name.removesuffix(":")
        if name in payload:
            raise RejectedError(f"the member {name[:60]!r} is given twice", place="-p", cure="give each once")
        payload[name] = _json(value, place=f"-p {name}") if literal else value
    return payload


def _json(text: str, *, place: str) -> Any:
    from tallystick.core.canonical import decode
    from tallystick.limits import INPUT_BYTES_MAX

    data = text.encode("utf-8", "surrogateescape")
    if len(data) > INPUT_BYTES_MAX:
        raise RejectedError(f"more than {INPUT_BYTES_MAX:,} bytes", place=place)
    try:
        return decode(data)
    except RejectedError as error:
        raise RejectedError(error.problem, place=f"{place} {error.place}".rstrip(), cure=error.cure) from error


def _append_one(settings: Settings, members: dict[str, Any]) -> None:
    with settings.open(readonly=False) as ledger:
        sealed = ledger.append(**members)
    if settings.json:
        screen.say_json({**sealed._asdict(), "hash": sealed.hash.hex()})
        return
    done = "was there already, at" if sealed.replayed else "sealed at"
    screen.say(f"{done} position ", (str(sealed.position), "bold"))
    screen.say_pairs(
        [
            ("entity", f"{sealed.entity_id}, version {sealed.entity_version}"),
            ("id", sealed.id),
            ("recorded at", sealed.recorded_at),
            ("hash", sealed.hash.hex()),
        ]
    )
    if sealed.breach:
        screen.say(("it breaks its schema, which only warns here: ", "yellow"), sealed.breach, err=True)
