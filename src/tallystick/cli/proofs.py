"""`checkpoint`, `prove`, `check-proof` and `tiles`: what others need to check the ledger without us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tallystick.cli import failures, screen
from tallystick.cli.options import Settings, file_type, ledger_options
from tallystick.cli.progress import Bar
from tallystick.cli.records import find_position
from tallystick.cli.texts import parse_vkey, read_text, write_out


@click.command()
@click.option("-o", "--output", type=file_type(write=True), metavar="FILE", help="Write it to a file.")
@ledger_options
def checkpoint(settings: Settings, output: str | None) -> None:
    """Print the newest signed checkpoint (C2SP tlog-checkpoint).

    Keep it where nobody who can reach the ledger can change it. `verify --since` then holds the ledger to it.

    JSON: origin, size, root, checkpoint.
    """
    from tallystick.core.checkpoint import Checkpoint

    with settings.open() as ledger:
        signed = ledger.checkpoint()
    head = Checkpoint.of_note(signed)
    facts = {"origin": head.origin, "size": head.size, "root": head.root.hex(), "checkpoint": signed.decode()}
    if output is None and not settings.json:
        write_out(None, signed)
        return
    if output is not None:
        write_out(output, signed)
    if settings.json:
        screen.say_json(facts)
    elif output != "-":
        screen.say(f"wrote the checkpoint of {screen.counted(head.size, 'record')} to {output}")


@click.command()
@click.argument("key", metavar="POSITION|ID")
@click.option("--id", "is_id", is_flag=True, help="Take a number for an event id.")
@click.option("-o", "--output", type=file_type(write=True), metavar="FILE", help="Write the proof to a file.")
@click.option("--record", type=file_type(write=True), metavar="FILE", help="Write the record's bytes, too.")
@ledger_options
def prove(settings: Settings, key: str, is_id: bool, output: str | None, record: str | None) -> None:
    """Prove that a record is in the ledger (C2SP tlog-proof).

    Who has the proof, the record's bytes and the ledger's verifier key can check it anywhere, with
    check-proof or any other tool for such proofs.

    JSON: position, record, proof.
    """
    with settings.open() as ledger:
        found, made = ledger.get_proven(find_position(ledger, key, is_id=is_id))
        proof = made.render()
    if record is not None:
        write_out(record, found.line)
    if output is not None:
        write_out(output, proof)
    if settings.json:
        screen.say_json({"position": found.position, "record": found.line.decode(), "proof": proof.decode()})
    elif output is None:
        write_out(None, proof)
    elif output != "-":
        also = "" if record is None else f", and the record to {record}"
        screen.say(f"wrote the proof of record {found.position} to {output}{also}")


@click.command("check-proof")
@click.argument("file", metavar="PROOF", type=file_type())
@click.option("--record", type=file_type(), metavar="FILE", help="The record's bytes; else the ledger is read.")
@click.option("--trust", type=file_type(), metavar="FILE", help="A trust file: keys and witnesses (C2SP tlog-policy).")
@click.option("--vkey", metavar="VKEY", help="The ledger's verifier key, or @FILE; in place of a trust file.")
@ledger_options
def check_proof(settings: Settings, file: str, record: str | None, trust: str | None, vkey: str | None) -> int:
    """Check such a proof, anywhere and offline, as tallystick-verify does.

    Exits 0 when it holds and 1 when it does not.

    The trust file, or the verifier key, must have come to you by another way than the proof did: what vouches
    for itself proves nothing.

    JSON: holds, findings (kind, seen), origin, position, size, root, record_hash, cosigned.
    """
    from tallystick.core.checked_proof import check_proof as judged
    from tallystick.core.policy import Policy
    from tallystick.core.proof import Proof

    if (trust is None) == (vkey is None):
        raise click.UsageError("give --trust, or --vkey")
    policy = Policy.parse(read_text(trust)) if trust is not None else Policy(logs=(parse_vkey(vkey or ""),))
    data = read_text(file)
    if record is not None:
        line = read_text(record).removesuffix(b"\n")  # `show --raw` adds one, and no record ends in it
    else:
        position = Proof.parse(data).index
        with settings.open() as ledger:
            line = ledger.get(position).line
    checked = judged(data, line, policy)
    head = checked.checkpoint
    facts: dict[str, Any] = {
        "holds": checked.holds,
        "findings": [finding._asdict() for finding in checked.findings],
        "origin": head.origin if head else None,
        "position": checked.proof.index if checked.proof else None,
        "size": head.size if head else None,
        "root": head.root.hex() if head else None,
        "record_hash": checked.record_sha256,
        "cosigned": [*checked.cosigned],
    }
    if settings.json:
        screen.say_json(facts)
    elif checked.holds and head is not None:
        screen.say(("HOLDS", "green bold"), f"  this record is at position {facts['position']} of {head.origin}")
        cosigned = [("cosigned by", ", ".join(checked.cosigned))] if checked.cosigned else []
        tree = f"{screen.counted(head.size, 'record')}, root {head.root.hex()}"
        screen.say_pairs([("record", f"SHA-256 {checked.record_sha256}"), ("tree", tree), *cosigned])
    else:
        screen.say(("DOES NOT HOLD", "red bold"), "  do not rely on this record")
        screen.say_pairs([(finding.kind, finding.seen) for finding in checked.findings])
    return 0 if checked.holds else failures.REFUSED


@click.command()
@click.argument("folder", metavar="OUT_DIR", type=click.Path(file_okay=False))
@ledger_options
def tiles(settings: Settings, folder: str) -> None:
    """Write the ledger as static files to publish (C2SP tlog-tiles).

    Any web server can serve them. A second run adds what is new. The checkpoint is written last, so readers
    never see it without its tiles.

    JSON: folder, size, written, kept.
    """
    from tallystick.evidence.tiles import write_tile_tree

    with settings.open() as ledger, Bar("writing", "records") as bar:
        counts = write_tile_tree(ledger, Path(folder), progress=bar.update)
    if settings.json:
        screen.say_json({"folder": folder, "size": counts.size, "written": counts.written, "kept": counts.kept})
        return
    screen.say(f"{counts.written:,} tiles written to {folder}, {counts.kept:,} already there")
    screen.say_pairs([("checkpoint", screen.counted(counts.size, "record"))])
