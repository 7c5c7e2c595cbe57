"""`timestamp` and `witness`: what others vouch for, asked for and checked; and a witness of our own for others."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tallystick.cli import failures, screen
from tallystick.cli.options import Settings, file_type, ledger_options
from tallystick.cli.texts import read_policy, read_text, write_out
from tallystick.errors import RejectedError

if TYPE_CHECKING:
    from tallystick.evidence.others.witness import Refused, Watched

_HOST = "127.0.0.1"
_PORT = 7790


@click.group()
def timestamp() -> None:
    """Have an RFC 3161 authority state when it saw a checkpoint."""


@timestamp.command("request")
@click.option("--url", required=True, help="The authority.")
@click.option("--roots", type=file_type(), metavar="PEM", help="Its root certificates, which it is held to.")
@click.option("-o", "--output", required=True, type=file_type(write=True), metavar="FILE", help="The token, in DER.")
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=10.0, show_default=True, help="How long to wait.")
@ledger_options
def request(settings: Settings, *, url: str, roots: str | None, output: str, seconds: float) -> None:
    """Have the newest checkpoint timestamped.

    The checkpoint that it is over is written to FILE.checkpoint. Keep both: `openssl ts -verify` checks them without
    us.

    JSON: token, checkpoint, at, by.
    """
    from tallystick.evidence.others.authority import Authority, request_timestamp

    authority = Authority(url, b"" if roots is None else read_text(roots))
    with settings.open() as ledger:
        checkpoint = ledger.checkpoint()
    stamped = request_timestamp(authority, checkpoint, seconds=seconds)
    beside = f"{output}.checkpoint"
    write_out(output, stamped.token)
    write_out(beside, checkpoint)
    if settings.json:
        screen.say_json({"token": output, "checkpoint": beside, "at": stamped.at, "by": stamped.by})
        return
    held = "" if roots else "; without --roots nobody vouches for whose it is"
    screen.say(("TIMESTAMPED", "green bold"), f"  at {stamped.at}{held}")
    screen.say_pairs([("by", stamped.by), ("token", output), ("over", beside)])


@timestamp.command("check")
@click.argument("path", metavar="BUNDLE|TOKEN")
@click.option("--checkpoint", type=file_type(), metavar="FILE", help="What a token is over; a bundle has its own.")
@click.option("--roots", required=True, type=file_type(), metavar="PEM", help="Root certificates from elsewhere.")
@ledger_options
def check(settings: Settings, *, path: str, checkpoint: str | None, roots: str) -> None:
    """Check the timestamps of a bundle, or one token.

    Exits 0 when all hold and 1 when one does not, or there is none.

    JSON: timestamps (at, by).
    """
    from tallystick.evidence.others.authority import check_timestamp

    tokens, over = _tokens(path, checkpoint)
    if not tokens:
        screen.say("there are no timestamps in it", err=True)
        raise click.exceptions.Exit(failures.REFUSED)
    found = [check_timestamp(token, over, roots=read_text(roots)) for token in tokens]
    if settings.json:
        screen.say_json({"timestamps": [{"at": one.at, "by": one.by} for one in found]})
        return
    for one in found:
        screen.say(("HOLDS", "green bold"), f"  the checkpoint was there at {one.at}")
        screen.say_pairs([("by", one.by)])


def _tokens(path: str, checkpoint: str | None) -> tuple[tuple[bytes, ...], bytes]:
    from tallystick.core.manifest import Manifest
    from tallystick.evidence.bundle.files import open_bundle

    if checkpoint is not None:
        return (read_text(path),), read_text(checkpoint)
    if not Path(path).is_dir() and not path.endswith(".zip"):
        raise RejectedError("it is no bundle", place=path, cure="of a token, give what it is over with --checkpoint")
    with open_bundle(path) as bundle:
        manifest = Manifest.parse(bundle.manifest)
    return manifest.tokens, manifest.checkpoint


@click.group()
def witness() -> None:
    """Let witnesses see the ledger grow, or be a witness of someone else's."""


@witness.command("ask")
@click.option("--trust", required=True, type=file_type(), metavar="FILE", help="A trust file with witnesses' URLs.")
@click.option("-o", "--output", type=file_type(write=True), metavar="FILE", help="Write the cosigned checkpoint.")
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=10.0, show_default=True, help="How long to wait.")
@ledger_options
def ask(settings: Settings, *, trust: str, output: str | None, seconds: float) -> None:
    """Have the newest checkpoint cosigned.

    What the witnesses gave is kept beside the ledger. Exits 0 when the trust file's quorum is met, and 1 when it is
    not, or when a witness knows another history of this ledger.

    JSON: size, cosigned (name, at), problems (name, problem), quorum, checkpoint.
    """
    from tallystick.core.note import Note
    from tallystick.errors import TamperError

    policy = read_policy(trust)
    with settings.open() as ledger:
        size = ledger.size
        asked = ledger.cosign(policy, seconds=seconds)
    if output is not None:
        write_out(output, asked.checkpoint)
    cosigned = policy.cosigned(Note.parse(asked.checkpoint))
    met = policy.is_satisfied(cosigned)
    forked = any(isinstance(error, TamperError) for error in asked.problems.values())
    if settings.json:
        screen.say_json(
            {
                "size": size,
                "cosigned": [{"name": name, "at": _when(at)} for name, at in cosigned.items()],
                "problems": [{"name": name, "problem": str(error)} for name, error in asked.problems.items()],
                "quorum": met,
                "checkpoint": asked.checkpoint.decode(),
            }
        )
    else:
        rows = [(name, "cosigned", _when(at)) for name, at in cosigned.items()]
        rows += [(name, "did not", str(error)) for name, error in asked.problems.items()]
        screen.say_table(("witness", "", "when, or why"), rows)
        verdict = ("MET", "green bold") if met else ("NOT MET", "red bold")
        screen.say("the quorum is ", verdict, f" for {screen.counted(size, 'record')}")
    if forked or not met:
        raise click.exceptions.Exit(failures.REFUSED)


@witness.command("make")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--name", required=True, help="The witness' name, such as witness.example/w1.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, also for errors.")
def make(folder: str, *, name: str, as_json: bool) -> None:
    """Make a witness' key and memory.

    Give the witness key to those who are to trust it. Never restore the folder from a copy, nor run it twice from two
    copies: a witness that forgets may cosign two histories.

    JSON: folder, witness_key.
    """
    from tallystick.evidence.others.witness import make_witness

    key = make_witness(Path(folder), name=name).witness_key.render()
    if as_json:
        screen.say_json({"folder": folder, "witness_key": key})
        return
    screen.say(("Made", "green bold"), f" the witness {name} in {folder}.")
    screen.say_pairs([("witness key", key)])


@witness.command("serve")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--trust", required=True, type=file_type(), metavar="FILE", help="Its `log` lines are watched.")
@click.option("--host", default=_HOST, show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(1, 65_535), default=_PORT, show_default=True, help="The port.")
def serve(folder: str, *, trust: str, host: str, port: int) -> None:
    """Be a witness (C2SP tlog-witness), until told to stop.

    Put it behind a proxy that speaks TLS. Who asks needs no key: a checkpoint vouches for itself.
    """
    from tallystick.evidence.others.witness import Witness

    policy = read_policy(trust)
    try:
        with failures.extra("serve"):
            from tallystick.serve.witness import serve_witness
    except ModuleNotFoundError as error:
        cure = "install it: pip install 'tallystick[serve]'"
        raise RejectedError(f"the HTTP server is not installed ({error.name})", cure=cure) from error
    found = Witness(Path(folder), policy=policy)
    watches = f"the witness {found.signer.name} watches {screen.counted(len(policy.logs), 'ledger')}"
    try:
        serve_witness(
            found, host=host, port=port, ready=lambda: screen.say(f"{watches} at http://{host}:{port}", err=True)
        )
    finally:
        found.close()


@witness.command("show")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, also for errors.")
def show(folder: str, *, as_json: bool) -> None:
    """Show what a witness cosigned last, and what it refused although it was rightly signed.

    The latter may be proof of a rewritten history. Exits 1 when there is any.

    JSON: watched (origin, size, root, at, checkpoint), refused (origin, why, at, request).
    """
    from tallystick.core.policy import Policy
    from tallystick.evidence.others.witness import Witness

    found = Witness(Path(folder), policy=Policy(logs=()))
    try:
        watched, refused = found.watched(), found.refused()
    finally:
        found.close()
    if as_json:
        screen.say_json({"watched": [*map(_watched_json, watched)], "refused": [*map(_refused_json, refused)]})
    else:
        rows = [(one.checkpoint.origin, f"{one.checkpoint.size:,}", _when(one.at // 1_000_000)) for one in watched]
        screen.say_table(("ledger", "records", "cosigned"), rows)
        for one in refused:
            screen.say(("REFUSED", "red bold"), f"  {one.origin}, {_when(one.at // 1_000_000)}: {one.why}")
    if refused:
        raise click.exceptions.Exit(failures.REFUSED)


def _watched_json(one: Watched) -> dict[str, object]:
    return {
        "origin": one.checkpoint.origin,
        "size": one.checkpoint.size,
        "root": one.checkpoint.root.hex(),
        "at": _when(one.at // 1_000_000),
        "checkpoint": one.note.decode(),
    }


def _refused_json(one: Refused) -> dict[str, object]:
    at = _when(one.at // 1_000_000)
    return {"origin": one.origin, "why": one.why, "at": at, "request": one.request.decode()}


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
