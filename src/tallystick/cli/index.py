"""`index` and `stats`: what is derived from the log, and what there is in all."""

from __future__ import annotations

import time
from typing import Any

import click

from tallystick.cli import screen
from tallystick.cli.options import Settings, ledger_options
from tallystick.cli.progress import Bar


@click.group()
def index() -> None:
    """The index that answers questions: derived from the log, and made anew whenever it is lost."""


@index.command("rebuild")
@ledger_options
def rebuild(settings: Settings) -> None:
    """Make the index anew from the log. Best done while nobody uses the ledger.

    JSON: {size, seconds}.
    """
    began = time.monotonic()
    with Bar("making the index", "records") as bar:
        size = settings.rebuild_index(bar.update)
    seconds = time.monotonic() - began
    if settings.json:
        screen.say_json({"size": size, "seconds": round(seconds, 3)})
        return
    rate = f"{size / max(seconds, 0.001):,.0f} a second"
    screen.say(f"the index answers for {screen.counted(size, 'record')} ({seconds:.2f} s, {rate})")


@click.command()
@click.option("-n", "--number", type=click.IntRange(1, 100), default=10, show_default=True, help="Names of each kind.")
@ledger_options
def stats(settings: Settings, *, number: int) -> None:
    """Print how much there is: records, entities, actors, the commonest event types, sizes.

    JSON: {ledger, origin, size, records, first_recorded_at, last_recorded_at, entities, actors, label_count, labels,
    type_count, types, log_bytes}, of labels and types the first thousand.
    """
    with settings.open(readonly=False) as ledger:
        found = {"ledger": ledger.name, "origin": ledger.origin, **ledger.stats()}
    if settings.json:
        screen.say_json(found)
        return
    screen.say((str(found["ledger"]), "bold"), f", {found['origin']}")
    screen.say_pairs(_pairs(found))
    types = sorted(found["types"].items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [(name, f"{count:,}") for name, count in types[:number]]
    screen.say_table(("event type", "records"), rows)
    if found["type_count"] > number:
        screen.say((f"and {found['type_count'] - number:,} more event types", "dim"), err=True)


def _labels(labels: list[str], count: int) -> str:
    told = ", ".join(labels) or "-"
    return f"{told} and {count - len(labels):,} more" if count > len(labels) else told


def _pairs(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("records", f"{found['records']:,}" + ("" if found["records"] == found["size"] else f" of {found['size']:,}")),
        ("from", found["first_recorded_at"] or "-"),
        ("to", found["last_recorded_at"] or "-"),
        ("entities", f"{found['entities']:,}"),
        ("actors", f"{found['actors']:,}"),
        ("labels", _labels(found["labels"], found["label_count"])),
        ("log", f"{found['log_bytes'] / 1e6:,.1f} MB"),
    ]
