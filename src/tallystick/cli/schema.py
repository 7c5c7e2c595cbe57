"""`schema`: what the events of a type have to look like, who said so and when, and what becomes of those that do not.

What is in force is read from the ledger's own records, without keys; what is registered is sealed with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

import click

from tallystick.cli import failures, screen
from tallystick.cli.append import line_items
from tallystick.cli.lines import STANDARD_INPUT, shown
from tallystick.cli.options import Settings, file_type, ledger_options, sealing_options
from tallystick.cli.records import time_text
from tallystick.cli.sealing import BATCH_EVENTS
from tallystick.errors import RejectedError

if TYPE_CHECKING:
    from tallystick.core.schema import Compatibility, Enforcement, Target
    from tallystick.govern.registered import RegisteredSchema
    from tallystick.govern.schemas import Schemas, Verdict

_TARGETS: Final = ("payload", "event")
_COMPATIBILITIES: Final = ("none", "backward", "forward", "full")
_ENFORCEMENTS: Final = ("strict", "registered", "warn")

_AS_OF_HELP: Final = "As it was at a time with a zone, or at the end of a date (UTC)."


def _order_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option("--reason", metavar="TEXT", help="Why; it is recorded.")(function)
    return click.option("--actor", metavar="ID", help="Who orders it.")(function)


@click.group()
def schema() -> None:
    """Schemas: what the events of a type have to look like. An event that does not is refused when it arrives."""


@schema.command("register")
@click.argument("name")
@click.argument("file", type=file_type())
@click.option("--version", type=click.IntRange(min=1), metavar="N", help="By default the next.")
@click.option("--target", type=click.Choice(_TARGETS), default="payload", show_default=True, help="What it describes.")
@click.option(
    "--compatibility",
    type=click.Choice(_COMPATIBILITIES),
    help="What it owes to the version before: backward, that it takes all that took. By default what that one owed.",
)
@click.option("--dry-run", is_flag=True, help="Only say what it would break.")
@_order_options
@sealing_options
def register(
    settings: Settings,
    *,
    name: str,
    file: str,
    version: int | None,
    target: str,
    compatibility: str | None,
    dry_run: bool,
    actor: str | None,
    reason: str | None,
) -> None:
    """Register a version of the schema of the event type NAME, from a JSON Schema (2020-12) in FILE.

    It describes the payload; with `--target event` the whole event, whose members it can then require. The same
    again changes nothing, and no version is ever changed. Events of older versions are held to those.

    JSON: {name, version, target, compatibility, position}; with --dry-run {name, breaks} (place, change), and the
    exit code is 1 if there are any.
    """
    document = _read(file)
    with settings.open(readonly=False) as ledger:
        if dry_run:
            _say_breaks(settings, ledger.schemas, name, document, compatibility)
            return
        done = ledger.schemas.register(
            name,
            version,
            document,
            target=cast("Target", target),
            compatibility=cast("Compatibility | None", compatibility),
            actor=actor,
            reason=reason,
        )
    if settings.json:
        screen.say_json(_short_json(done))
        return
    screen.say((name, "bold"), f" version {done.version} is registered, as recorded at position {done.position}")
    told = f"events of that version are held to it; compatibility {done.compatibility}"
    screen.say((told, "dim"), err=True)


def _say_breaks(settings: Settings, schemas: Schemas, name: str, document: bytes, compatibility: str | None) -> None:
    found = schemas.breaks(name, document, cast("Compatibility | None", compatibility))
    if settings.json:
        screen.say_json({"name": name, "breaks": [one._asdict() for one in found]})
    elif not found:
        screen.say("it breaks nothing")
    else:
        for one in found:
            screen.say((one.place or "/", "bold"), f"  {one.change}")
    if found:
        raise click.exceptions.Exit(failures.REFUSED)


@schema.command("enforce")
@click.argument("enforcement", type=click.Choice(_ENFORCEMENTS))
@_order_options
@sealing_options
def enforce(settings: Settings, *, enforcement: str, actor: str | None, reason: str | None) -> None:
    """Say what becomes of events: strict refuses types without a schema too, registered only events that break one.

    With warn all are taken, and whoever sends one that breaks its schema is told. The ledger records the change.

    JSON: {enforcement, position}.
    """
    with settings.open(readonly=False) as ledger:
        done = ledger.schemas.enforce(cast("Enforcement", enforcement), actor=actor, reason=reason)
    if settings.json:
        screen.say_json({"enforcement": done.enforcement, "position": done.position})
        return
    screen.say("schemas are enforced: ", (done.enforcement, "bold"), f", as recorded at position {done.position}")


@schema.command("list")
@click.option("--as-of", metavar="TIME", help=_AS_OF_HELP)
@ledger_options
def list_(settings: Settings, *, as_of: str | None) -> None:
    """List the newest version of every schema, and how schemas are enforced.

    JSON: enforcement, schemas (name, version, target, compatibility, position, recorded_at, actor, reason).
    """
    with settings.open(readonly=False) as ledger:
        found, enforcement = ledger.schemas.list(as_of), ledger.schemas.enforcement(as_of)
    if settings.json:
        screen.say_json({"enforcement": enforcement, "schemas": [one.to_json() for one in found]})
        return
    if found:
        screen.say_table(_COLUMNS, map(_row, found))
    else:
        screen.say("no schema is registered", err=True)
    screen.say((f"enforced: {enforcement}", "dim"), err=True)


@schema.command("history")
@click.argument("name")
@ledger_options
def history(settings: Settings, *, name: str) -> None:
    """List all versions of a schema: when each was registered, by whom, and why.

    JSON: {name, versions}, with the members of `schema list`.
    """
    with settings.open(readonly=False) as ledger:
        found = ledger.schemas.history(name)
    if settings.json:
        screen.say_json({"name": name, "versions": [one.to_json() for one in found]})
        return
    screen.say_table(_COLUMNS, map(_row, found))


@schema.command("show")
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), metavar="N", help="By default the newest.")
@click.option("--as-of", metavar="TIME", help=_AS_OF_HELP)
@ledger_options
def show(settings: Settings, *, name: str, version: int | None, as_of: str | None) -> None:
    """Print a schema as it was registered, and who did so.

    JSON: the members of `schema list`, personal and schema, the document; personal are the places marked x-personal.
    """
    with settings.open(readonly=False) as ledger:
        found = ledger.schemas.get(name, version, as_of=as_of)
    if settings.json:
        screen.say_json({**found.to_json(), "personal": [*found.personal], "schema": found.schema})
        return
    screen.say_json(found.schema)
    who = (found.actor or {}).get("id", "-")
    told = f"version {found.version} of {found.name}, of the {found.target}, compatibility {found.compatibility}"
    screen.say((f"{told}; by {who}, {time_text(found.recorded_at)}, position {found.position}", "dim"), err=True)


@schema.command("validate")
@click.argument("files", nargs=-1, type=file_type())
@ledger_options
def validate(settings: Settings, *, files: tuple[str, ...]) -> None:
    """Say what would become of the events in FILES, JSON lines, plain or gzip, if they came now. Nothing is sealed.

    Each is looked at by itself: whether an id was used before is not. The exit code is 2 if any would be refused.

    JSON: {read, refused, breaches, verdicts}; of those that would be refused, or taken although they break a schema:
    (file, line, taken, place, problem, cure).
    """
    counts = {"read": 0, "refused": 0, "breaches": 0}
    told: list[dict[str, Any]] = []
    with settings.open(readonly=False) as ledger:
        for file in files or (STANDARD_INPUT,):
            for number, verdict in _verdicts(ledger.schemas, file):
                counts["read"] += 1
                counts["refused"] += not verdict.taken
                counts["breaches"] += verdict.taken and bool(verdict.problem)
                if verdict.problem and settings.json:
                    told.append(_verdict_json(shown(file), number, verdict))
                elif verdict.problem:
                    _say_verdict(shown(file), number, verdict)
    if settings.json:
        screen.say_json({**counts, "verdicts": told})
    else:
        breaches = f", {counts['breaches']:,} of those breaking their schema" if counts["breaches"] else ""
        taken = counts["read"] - counts["refused"]
        screen.say(f"{counts['read']:,} read, {taken:,} would be taken{breaches}, {counts['refused']:,} refused")
    if counts["refused"]:
        raise click.exceptions.Exit(failures.WRONG_INPUT)


def _verdicts(schemas: Schemas, file: str) -> Iterator[tuple[int, Verdict]]:
    from tallystick.govern.schemas import Verdict

    items = (item for item in line_items(file) if item is not None)
    while chunk := [*islice(items, BATCH_EVENTS)]:
        judged = schemas.validate(item.event for item in chunk if not isinstance(item.event, RejectedError))
        for item in chunk:
            if isinstance(item.event, RejectedError):
                yield item.number, Verdict(index=0, taken=False, problem=item.event.problem, cure=item.event.cure)
            else:
                yield item.number, next(judged)


def _say_verdict(file: str, number: int, verdict: Verdict) -> None:
    word = ("taken, but", "yellow") if verdict.taken else ("refused", "red")
    place = f"{verdict.place}: " if verdict.place else ""
    screen.say(f"{file}, line {number}: ", word, f" {place}{verdict.problem}")


def _verdict_json(file: str, number: int, verdict: Verdict) -> dict[str, Any]:
    return {
        "file": file,
        "line": number,
        "taken": verdict.taken,
        "place": verdict.place,
        "problem": verdict.problem,
        "cure": verdict.cure,
    }


@schema.command("infer")
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), metavar="N", help="Only from events of this version.")
@click.option("--enums", is_flag=True, help="List the texts of members that always have one of a few.")
@ledger_options
def infer(settings: Settings, *, name: str, version: int | None, enums: bool) -> None:
    """Print a schema that all recorded events of a type fit: a draft to mend, and then to register.

    JSON: {name, events, schema}.
    """
    with settings.open(readonly=False) as ledger:
        found, count = ledger.schemas.infer(name, version=version, enums=enums)
    if settings.json:
        screen.say_json({"name": name, "events": count, "schema": found})
        return
    screen.say_json(found)
    screen.say((f"from {screen.counted(count, 'event')}", "dim"), err=True)


# --------------------------------------------------------------------------------------------------- together

_COLUMNS: Final = ("schema", "version", "of the", "compatibility", "since", "by", "position", "reason")


def _row(one: RegisteredSchema) -> tuple[str, ...]:
    who = (one.actor or {}).get("id", "-")
    since = time_text(one.recorded_at)
    return (one.name, str(one.version), one.target, one.compatibility, since, who, str(one.position), one.reason or "-")


def _short_json(one: RegisteredSchema) -> dict[str, Any]:
    said = one.to_json()
    return {name: said[name] for name in ("name", "version", "target", "compatibility", "position")}


def _read(file: str) -> bytes:
    from tallystick.limits import INPUT_BYTES_MAX

    with click.open_file(file, "rb") as stream:
        data: bytes = stream.read(INPUT_BYTES_MAX + 1)
    return data
