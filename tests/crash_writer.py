"""The process that the crash test kills: it appends from several threads, and says what was acknowledged.

    python crash_writer.py <ledger folder>

It imports everything once and then, for each `<run> <file>` on its standard input, forks a writer and says
its process id. The writer appends one line of JSON to the file after each call returned, never before.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any, Final

import tallystick
import tallystick.read.follower
import tallystick.read.sqlite_index
import tallystick.store.sqlite

THREADS: Final = 4


def write(folder: Path, run: int, file: Path) -> None:
    """Append until killed."""
    tallystick.read.follower.FLUSH_RECORDS = 60  # type: ignore[misc]  # so that it is killed while it saves
    output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ledger = tallystick.open(folder)

    def say(**told: Any) -> None:
        os.write(output, json.dumps(told).encode() + b"\n")

    def work(thread: int) -> None:
        chance = random.Random(run * THREADS + thread)
        number = 0
        while True:
            number += 1
            name = f"{run}-{thread}-{number}"
            events = [
                {
                    "event_type": "crash.tested",
                    "entity_id": f"entity-{chance.randrange(9)}",
                    "payload": {"name": f"{name}-{index}", "padding": "x" * chance.randrange(400)},
                }
                for index in range(chance.choice([1, 1, 1, 2, 30]))
            ]
            if chance.random() < 0.5:
                for index, event in enumerate(events):
                    event["id"] = f"brought-{name}-{index}"
            sealed = ledger.append_many(events) if len(events) > 1 else [ledger.append(events[0])]
            say(sealed=[[one.position, one.id, one.entity_version, one.hash.hex()] for one in sealed])
            if thread == 0 and number % 9 == 0:
                say(checkpoint=ledger.checkpoint().decode())
            if thread == 1 and number % 23 == 0:
                ledger.change_epoch()
            if thread == 2 and number % 31 == 0:
                ledger.rotate_key(chance.choice(["checkpoint", "evidence"]))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(1)  # a thread that ends has failed


def main() -> None:
    folder = Path(sys.argv[1])
    for order in sys.stdin:
        run, file = order.rstrip("\n").split(" ", 1)
        child = os.fork()
        if not child:
            try:
                write(folder, int(run), Path(file))
            finally:
                os._exit(1)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        os.waitpid(child, 0)
        sys.stdout.write("gone\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
