"""Large ledgers for the measurements of the read side: made once, stated in one place, used again.

A ledger has `n` records of 400 to 500 bytes: 20 event types, 50 actors, an entity for every 100 records, one
label on every twentieth, and recorded times spread over 30 days by a clock of its own. Number `n` alone decides
what the records say, so a ledger that is there is the same as one made anew.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tallystick

DAYS = 30
BEGIN = 1_772_323_200_000_000  # 2026-03-01T00:00:00Z
TYPES = tuple(
    f"{thing}.{what}"
    for thing in ("user", "file", "order", "session", "key")
    for what in ("created", "read", "changed", "removed")
)
RECORDS_OF_ENTITY = 100
BATCH = 1_000


def event(number: int, count: int) -> bytes:
    """Event `number` of a ledger of `count`, as it would arrive."""
    entities = max(1, count // RECORDS_OF_ENTITY)
    members = {
        "event_type": TYPES[number * 31 % 20 if number % 3 else number % 7],
        "entity_id": f"user-{number * 7919 % entities}",
        "actor": f"admin-{number * 13 % 50}",
        "payload": {
            "field": "role",
            "new_value": ("viewer", "editor", "admin", "auditor")[number // 7 % 4],
            "ip": f"10.{number % 4}.{number * 31 % 200}.{number * 17 % 250}",
            "rows": number * 104_729 % 10_000,
        },
    }
    if number % 20 == 0:
        members["labels"] = ["phi"]
    return json.dumps(members, separators=(",", ":")).encode()


def batches(count: int) -> Iterator[list[bytes]]:
    """All events of a ledger, in batches."""
    for first in range(0, count, BATCH):
        yield [event(number, count) for number in range(first, min(first + BATCH, count))]


def make(folder: Path, count: int, *, tell: Callable[[str], None]) -> Path:
    """The ledger of `count` events in `folder`, made if it is not there; its folder."""
    ready = folder / f"{count}.ready"
    ledger_folder = folder / f"ledger-{count}"
    if ready.exists():
        return ledger_folder
    shutil.rmtree(ledger_folder, ignore_errors=True)
    done, began = 0, time.monotonic()
    moment = [BEGIN]
    with tallystick.open(ledger_folder, clock=lambda: moment[0]) as ledger:
        for batch in batches(count):
            moment[0] = BEGIN + DAYS * 86_400_000_000 * done // count
            ledger.append_many(batch)
            done += len(batch)
            if done % 200_000 == 0:
                tell(f"making a ledger of {count:,}: {done / count:.0%}, {done / (time.monotonic() - began):,.0f}/s")
        ledger.catch_up()
    ready.touch()
    return ledger_folder
