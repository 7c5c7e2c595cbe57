"""`backup` and `restore`: copies of ledgers that are in use, and putting back what verifies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli import failures, screen
from tallystick.cli.options import Settings, file_type, sealing_options
from tallystick.cli.progress import Bar
from tallystick.cli.texts import read_text
from tallystick.cli.verify import LISTED_MAX

if TYPE_CHECKING:
    from tallystick.backups.make import BackedUp
    from tallystick.backups.restore import Restored


@click.command()
@click.argument("source", metavar="SOURCE")
@click.option("-o", "--output", required=True, metavar="DIR|FILE.tar", help="Where to put it; it must not be there.")
@click.option("--with-keys", is_flag=True, help="Put the keys into it: whoever has it can then forge.")
@click.option("--unsigned", is_flag=True, help="Do not sign it: where the keys cannot be read.")
@sealing_options
def backup(settings: Settings, *, source: str, output: str, with_keys: bool, unsigned: bool) -> None:
    """Copy a ledger, or all of a deployment, while they are in use.

    SOURCE is a ledger's folder, or what `tallystick serve --data` names. Each ledger is copied at one commit, with what
    waits in its queue, the cursors of its readers and its cosigned checkpoint; all that was answered before is in it.
    Indexes are made anew, and bundles of jobs are not in it. It is signed with the evidence key, and has the keys
    themselves only with --with-keys: without them it can be read and verified, but not added to. Only an unsigned one
    is made without the marks of queues, which are with the head marks, and of a ledger that was rolled back or whose
    checkpoint is not by its key.

    JSON: path, extent, created, ledgers (folder, name, origin, id, size, checkpoint), files, bytes, keys, signed,
    manifest_sha256, seconds.
    """
    from tallystick.backups.make import backup as run

    with Bar("copying", "bytes") as bar:
        made = run(
            source,
            output,
            keys=settings.keys,
            marks=settings.marks,
            with_keys=with_keys,
            signed=not unsigned,
            progress=bar.update,
        )
    if settings.json:
        screen.say_json(made.to_json())
    else:
        _say_made(made)


@click.command()
@click.argument("place", metavar="BACKUP")
@click.option("-o", "--output", metavar="DIR", help="Where to restore it; it must not be there.")
@click.option("--check", is_flag=True, help="Only check and verify it, and leave nothing behind.")
@click.option(
    "--since",
    "checkpoints",
    type=file_type(),
    multiple=True,
    metavar="CHECKPOINT_FILE",
    help="The newest checkpoint of a ledger that others hold: nothing may be lost of what it covers.",
)
@click.option("--accept-loss", metavar="WHY", help="Restore it although records are lost; the ledgers record it.")
@click.option("--actor", metavar="ID", help="Who accepts the loss.")
@click.option("--unsigned", is_flag=True, help="Take one that nobody signed.")
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="How many verify; by default one a core.")
@sealing_options
def restore(
    settings: Settings, *, place: str, output: str | None, check: bool, checkpoints: tuple[str, ...], **given: Any
) -> None:
    """Restore a backup, if all of it holds.

    Every file is held against the manifest, and every ledger is verified wholly, before anything has its name. Exits 1,
    and makes nothing, when anything was found. What was recorded after the backup was made is lost: hold it against the
    newest checkpoints that others hold with --since. Where it is shorter, it is restored only with --accept-loss, and
    each ledger then records the loss, and goes on under keys that nobody else can know.

    JSON: holds, path, extent, created, signed, keys, ledgers (folder, ledger, origin, size, holds, signatures,
    can_seal, lost), findings (place, kind, seen, meaning), seconds.
    """
    why, actor = given.pop("accept_loss"), given.pop("actor")
    if check == (output is not None) or (check and why is not None):
        raise click.UsageError("say where to restore it with -o, or --check alone")
    from tallystick.backups.restore import check_backup
    from tallystick.backups.restore import restore as run

    given |= {"since": [*map(read_text, checkpoints)], "keys": settings.keys, "signed": not given.pop("unsigned")}
    with Bar("restoring" if output is not None else "checking", "bytes") as bar:
        if output is None:
            restored = check_backup(place, progress=bar.update, **given)
        else:
            who = None if actor is None else {"id": actor}
            restored = run(
                place, output, marks=settings.marks, accept_loss=why, actor=who, progress=bar.update, **given
            )
    if settings.json:
        screen.say_json(restored.to_json())
    else:
        _say_restored(restored, accepted=why is not None)
    if not restored.holds:
        raise click.exceptions.Exit(failures.REFUSED)


def _say_made(made: BackedUp) -> None:
    records = screen.counted(sum(ledger.size for ledger in made.ledgers), "record")
    screen.say(("BACKED UP", "green bold"), f"  {screen.counted(len(made.ledgers), 'ledger')} with {records}")
    keys = "in it: keep it as you keep the keys" if made.keys else "not in it: keep them, too, and elsewhere"
    screen.say_pairs(
        [
            ("backup", str(made.path)),
            ("files", f"{made.files:,}, {made.bytes:,} bytes"),
            ("manifest", f"SHA-256 {made.manifest_sha256}"),
            ("signed", "by the evidence key" if made.signed else "by nobody: restore it with --unsigned"),
            ("keys", keys),
            ("time", f"{made.seconds:.2f} s"),
        ]
    )


def _say_restored(restored: Restored, *, accepted: bool) -> None:
    if restored.holds:
        said = "the backup holds" if restored.path is None else f"{restored.path}"
        screen.say(("PASS" if restored.path is None else "RESTORED", "green bold"), f"  {said}")
    else:
        screen.say(
            ("FAIL", "red bold"), f"  {screen.counted(len(restored.findings), 'finding')}, and nothing is restored"
        )
        screen.say()
        listed = restored.findings[:LISTED_MAX]
        screen.say_table(("place", "kind", "what was seen"), [(one.place, str(one.kind), one.seen) for one in listed])
        if len(restored.findings) > len(listed):
            screen.say(f"and {len(restored.findings) - len(listed):,} more; --json lists them all")
        screen.say()
        screen.say(("What it means:", "bold"))
        screen.say_pairs({str(one.kind): one.meaning for one in listed}.items())
    screen.say()
    screen.say_pairs(_facts(restored, accepted=accepted))


def _facts(restored: Restored, *, accepted: bool) -> Iterator[tuple[str, str]]:
    manifest, ledgers = restored.manifest, restored.ledgers
    if manifest is None:
        return
    signer = "signed by the evidence key" if restored.holds else "and who signed it is not proven"
    yield "made", f"{manifest.created}, {'signed by nobody' if manifest.signer is None else signer}"
    verified = f"{len(ledgers):,} of {len(manifest.ledgers):,}"
    yield "verified", f"{verified}, {screen.counted(sum(one.kept.size for one in ledgers), 'record')}"
    yield "keys", _keys(restored)
    held = [one for one in ledgers if one.held is not None]
    if held:
        yield "held against", f"checkpoints of {screen.counted(len(held), 'ledger')}"
    else:
        yield (
            "held against",
            "no checkpoint that others hold: what was recorded later is lost (--since says if anything)",
        )
    for one in held:
        if one.lost and accepted:
            yield "lost", f"{screen.counted(one.lost, 'record')} of {one.kept.place}, as it records itself"
        elif one.lost:
            yield (
                "lost",
                f"{screen.counted(one.lost, 'record')} of {one.kept.place}: --accept-loss WHY restores the rest",
            )
    yield "time", f"{restored.seconds:.2f} s"


def _keys(restored: Restored) -> str:
    fit = [one.can_seal for one in restored.ledgers]
    if None in fit or not fit:
        return "not here: signatures are not checked, and nothing can be added without them"
    if all(fit):
        return "those of the ledgers: these can go on, in place of their originals and not beside them"
    others = ", ".join(one.kept.place for one in restored.ledgers if not one.can_seal)
    return f"not those in force in {others[:200]}: nothing can be added there"
