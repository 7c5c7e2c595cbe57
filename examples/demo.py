"""The product in a minute: record events, ask about them, hand over evidence, change one byte, and see it found.

Run by `make demo`. It types the same commands that you would, in a temporary folder, and says which.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Final

EXAMPLES: Final = Path(__file__).resolve().parent
SOURCE: Final = EXAMPLES.parent / "src"
VERIFIER: Final = EXAMPLES.parent / "verifier" / "src"
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
    shown("(The byte is put back.)")
    restore(Path("audit/ledger.db"), old=old, new=new)
    return hand_over()


def hand_over() -> int:
    """Evidence for an auditor, and what happens to whoever changes it on the way."""
    say("An auditor asks for evidence, and need not believe us. She knows the ledger's key from elsewhere:")
    tallystick("keys export --trust-file", into=Path("trust.policy"))

    say("Which control asks who changed what in production?")
    tallystick('controls search "who approved production changes" -n 3')

    say("Three files with all records, and all that checks them:")
    tallystick("export -o evidence --actor auditor-ann")

    say("She checks them with a verifier that shares no code with what made them:")
    verifier("evidence --trust trust.policy")

    events = Path("evidence/events.jsonl")
    old, new = '"rows":3912', '"rows":1912'
    events.write_bytes(events.read_bytes().replace(old.encode(), new.encode(), 1))
    say("Someone changes one byte of it on the way:")
    shown(f"a line of evidence/events.jsonl:  {old}  becomes  {new}")
    verifier("evidence --trust trust.policy", expect=1)
    say("Found, with its line. Whoever holds a bundle can find out, and needs nobody's word for it.")
    say_next()
    return 0


def tallystick(arguments: str, *, expect: int = 0, into: Path | None = None) -> None:
    """Run a command as a person would, its line first; into a file, if one is named."""
    shown(f"$ tallystick {arguments}{f' > {into}' if into else ''}")
    with into.open("wb") if into else nullcontext() as file:
        result = subprocess.run(command(arguments), env=environment(), stdout=file, check=False)
    ended(result.returncode, expect)


def verifier(arguments: str, *, expect: int = 0) -> None:
    """Run the independent verifier as an auditor would."""
    shown(f"$ tallystick-verify {arguments}")
    command = [sys.executable, "-m", "tallystick_verify.cli", *shlex.split(arguments)]
    environment = {**os.environ, "PYTHONPATH": os.fspath(VERIFIER)}
    ended(subprocess.run(command, env=environment, check=False).returncode, expect)


def ended(code: int, expect: int) -> None:
    if code != expect:
        raise SystemExit(f"this was to exit with {expect}, not {code}")


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


def restore(file: Path, *, old: str, new: str) -> None:
    """Undo what `tamper` did."""
    data = file.read_bytes()
    file.write_bytes(
        data.replace(f'"payload":{{"format":"csv",{new}}}'.encode(), f'"payload":{{"format":"csv",{old}}}'.encode())
    )


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
        "tallystick evidence --all --occurred --from 2026-02-01 --to 2026-04-15 -o pack    # for every control",
        "tallystick --help",
    ):
        shown(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
