"""`keys`: which keys a ledger stands on, changing them, and what an auditor needs of them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from tallystick.cli import screen
from tallystick.cli.init import keys_folder
from tallystick.cli.options import Settings, ledger_options, sealing_options
from tallystick.cli.texts import write_out

if TYPE_CHECKING:
    from tallystick.ledger import Ledger


@click.group()
def keys() -> None:
    """Show, rotate and export the ledger's keys."""


class _Key(NamedTuple):
    purpose: str
    public: str
    since: int


@keys.command("list")
@sealing_options
def list_(settings: Settings) -> None:
    """List the keys in force.

    What each is for, its public half, its file, and since which position.

    JSON: keys (purpose, public, since, file, present).
    """
    folder = keys_folder(settings)
    with settings.open() as ledger:
        found = _in_force(ledger)
    files = {key.purpose: str(folder / f"{key.purpose}.key") if folder else None for key in found}
    here = {purpose: bool(file and folder and (folder / f"{purpose}.key").exists()) for purpose, file in files.items()}
    if settings.json:
        rows = [{**key._asdict(), "file": files[key.purpose], "present": here[key.purpose]} for key in found]
        screen.say_json({"keys": rows})
        return
    for key in found:
        screen.say((key.purpose, "bold"), f" key, in force since position {key.since}")
        absent = "" if here[key.purpose] else " (not here)"
        screen.say_pairs([("public", key.public), ("file", f"{files[key.purpose]}{absent}")])


@keys.command()
@click.argument("purpose", type=click.Choice(["checkpoint", "evidence", "epoch"]))
@click.option("--replaces-original", is_flag=True, help="Of a restored ledger: it is the one in use from now on.")
@sealing_options
def rotate(settings: Settings, *, purpose: Literal["checkpoint", "evidence", "epoch"], replaces_original: bool) -> None:
    """Replace a key; the ledger records it. What the old key signed stays good.

    `checkpoint` and `evidence` are signing keys; `epoch` closes the present epoch and opens the next under a
    new MAC key. In a ledger that was restored from a backup a rotation would replace the key of the original, and is
    refused without --replaces-original.

    JSON: purpose, position, public.
    """
    with settings.open(readonly=False) as ledger:
        if purpose == "epoch":
            ledger.change_epoch()
            public = None
        else:
            ledger.rotate_key(purpose, replaces_original=replaces_original)
            public = ledger.verifier_key.render() if purpose == "checkpoint" else _base64(ledger.evidence_key)
        position = ledger.size - 1
    if settings.json:
        screen.say_json({"purpose": purpose, "position": position, "public": public})
        return
    screen.say(f"rotated the {purpose} key, as recorded at position ", (str(position), "bold"))
    if public is not None:
        screen.say_pairs([("new key", public)])
        screen.say("Back up the keys again, and tell those who check this ledger: `tallystick keys export`.")


@keys.command()
@click.option("--trust-file", is_flag=True, help="Print a trust file (C2SP tlog-policy), and nothing else.")
@click.option("--allowed-signers", is_flag=True, help="Print a file for ssh-keygen, and nothing else.")
@ledger_options
def export(settings: Settings, *, trust_file: bool, allowed_signers: bool) -> None:
    """Print the public keys, for an auditor.

    That is the ledger's id and everything by which its evidence can be checked. Give it to the auditor by another
    way than the evidence.

    With --trust-file it is what `tallystick-verify --trust` takes, and with --allowed-signers what `ssh-keygen -Y
    verify` takes with -f.

    JSON: ledger_id, origin, verifier_key, root_key, evidence_key, allowed_signers.
    """
    from tallystick.core.policy import Policy
    from tallystick.core.sshsig import public_key_line

    if trust_file and allowed_signers:
        raise click.UsageError("--trust-file and --allowed-signers are two files")
    with settings.open() as ledger:
        if trust_file:
            write_out(None, Policy(logs=(ledger.verifier_key,)).render())
            return
        signer = f"{ledger.origin} {public_key_line(ledger.evidence_key)}"
        if allowed_signers:
            write_out(None, f"{signer}\n".encode())
            return
        facts = {
            "ledger_id": ledger.id.hex(),
            "origin": ledger.origin,
            "verifier_key": ledger.verifier_key.render(),
            "root_key": _base64(ledger.genesis.root_key),
            "evidence_key": _base64(ledger.evidence_key),
            "allowed_signers": signer,
        }
    if settings.json:
        screen.say_json(facts)
    else:
        screen.say_pairs([(name.replace("_", " "), value) for name, value in facts.items()], indent="")


def _in_force(ledger: Ledger) -> list[_Key]:
    return [
        _Key("root", _base64(ledger.genesis.root_key), 0),
        _Key("checkpoint", ledger.verifier_key.render(), ledger.key_named_at("checkpoint")),
        _Key("evidence", _base64(ledger.evidence_key), ledger.key_named_at("evidence")),
    ]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
