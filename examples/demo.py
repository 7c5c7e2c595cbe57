"""The product in a minute: record events, ask about them, change one byte, and see it found.

Run by `make demo`. It types the same commands that you would, in a temporary folder, and says which.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

EXAMPLES: Final = Path(__file__).resolve().parent
SOURCE: Final = EXAMPLES.parent / "src"
EVENTS: Final = EXAMPLES / "events.jsonl"


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="tallystick-demo-") as folder:
        os.chdir(folder)
        try:
            return tell()
        finally:
            os.chdir(EXAMPLES)  # a system may refuse to remove the folder that one stands in


def tell() -> int:
    say("Tallystick keeps events so that nobody can change them unnoticed. Here is a ledger, and its keys:")
    tallystick("init --name northwind -l audit")

    say("A clinic's events of six weeks go in. Each is durable, chained, signed, and in a Merkle tree:")
    tallystick(f"append {shlex.quote(os.fspath(EVENTS))}")

    say("Who changed the permissions of user-456, and why?")
    tallystick("log --entity user-456 --oldest-first")

    say("What could user-456 do on March 15th? The state on that day, and the events that made it:")
    tallystick("state user-456 --as-of 2026-03-15 --occurred")

    say("As an administrator, for five days too many, user-456 took something along one night:")
    tallystick("query actor=user-456 event_type=data.exported 'payload.rows>1000'")

    say("What else went on that night? Events by the hour:")
    tallystick("series occurred_after=2026-03-16T22:00:00Z occurred_before=2026-03-17T08:00:00Z --per hour --occurred")

    say("Does everything hold? This checks every byte, link and signature, and the tree:")
    tallystick("verify")

    say("A checkpoint is one signed line about all records. Keep it where nobody here can reach it:")
    tallystick("checkpoint -o kept.checkpoint")

    position, old, new = tamper(Path("audit/ledger.db"))
    say("Now someone with access to the disk rewrites history, past the ledger, with one byte in its file:")
    shown(f"record {position} of audit/ledger.db:  {old}  becomes  {new}")

    say("The same check, held against the checkpoint that was kept:")
    code, report = verify()
    caught = code == 1 and any(found["position"] == position for found in report["findings"])
    if not caught:
        say("The change was NOT found. That must never be: please report it.")
        return 1
    say(f"Found, at position {position}. All other records are still proven to be the ones that were signed.")
    say_next()
    return 0


def tallystick(arguments: str, *, expect: int = 0) -> None:
    """Run a command as a person would, its line first."""
    shown(f"$ tallystick {arguments}")
    result = subprocess.run(command(arguments), env=environment(), check=False)
    if result.returncode != expect:
        raise SystemExit(f"this was to exit with {expect}, not {result.returncode}")


def verify() -> tuple[int, dict[str, list[dict[str, object]]]]:
    """Run the verification for people to see, and once more for this script to judge."""
    tallystick("verify --since kept.checkpoint", expect=1)
    result = subprocess.run(
        command("verify --since kept.checkpoint --json"),
        env=environment(),
        stdout=subprocess.PIPE,
        check=False,
    )
    return result.returncode, json.loads(result.stdout)


def tamper(file: Path) -> tuple[int, str, str]:
    """Change one digit in the payload of one record, in the file itself: its position, before, after."""
    result = subprocess.run(
        command("log --type data.exported --entity export/patients-all.csv --json"),
        env=environment(), stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    record = json.loads(result.stdout.split(b"\n")[0])
    old, new = '"rows":3912', '"rows":1912'
    data = bytearray(file.read_bytes())
    at = data.index(f'"payload":{{"format":"csv",{old}}}'.encode())
    at = data.index(old.encode(), at)
    data[at : at + len(old)] = new.encode()
    file.write_bytes(data)
    return record["position"], old, new


def command(arguments: str) -> list[str]:
    return [sys.executable, "-m", "tallystick", *shlex.split(arguments)]


def environment() -> dict[str, str]:
    """Ours, with the source at hand where it is not installed, and without settings for another ledger."""
    path = os.pathsep.join(filter(None, (os.fspath(SOURCE), os.environ.get("PYTHONPATH"))))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")}
    return {**kept, "PYTHONPATH": path}


def say(sentence: str) -> None:
    print(f"\n# {sentence}", flush=True)


def shown(line: str) -> None:
    print(line, flush=True)


def say_next() -> None:
    say("Try next, in a folder of your own:")
    for line in (
        "source .venv/bin/activate                  # in the folder of the Makefile: puts tallystick on your path",
        "tallystick init",
        f"tallystick append {shlex.quote(os.fspath(EVENTS))}",
        "tallystick log --follow                    # and append from another window",
        "tallystick show northwind-00159            # one record, all of it",
        "tallystick prove northwind-00159           # that it is in the ledger, for anyone to check",
        "tallystick --help",
    ):
        shown(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
