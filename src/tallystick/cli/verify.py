"""`verify`: check the ledger, and say what was checked and what does not hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import click

from tallystick.cli import failures, screen
from tallystick.cli.options import Settings, file_type, sealing_options
from tallystick.cli.progress import Bar
from tallystick.cli.texts import parse_vkey, read_text
from tallystick.errors import RejectedError

if TYPE_CHECKING:
    from tallystick.evidence.findings import Report

LISTED_MAX: Final = 50


@click.command()
@click.option("--first", type=click.IntRange(min=0), default=0, metavar="POSITION", help="Begin here.")
@click.option("--end", type=click.IntRange(min=0), metavar="POSITION", help="End before this position.")
@click.option(
    "--since",
    type=file_type(),
    metavar="CHECKPOINT_FILE",
    help="A checkpoint that you kept: the ledger must still contain all that it covers.",
)
@click.option(
    "--trust",
    metavar="VKEY",
    help="The verifier key that you were given, or @FILE. Else the ledger's own word is taken.",
)
@click.option("--no-index", is_flag=True, help="Leave out whether the index says what the log says.")
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="How many; by default one a core.")
@sealing_options
def verify(
    settings: Settings,
    *,
    first: int,
    end: int | None,
    since: str | None,
    trust: str | None,
    no_index: bool,
    processes: int | None,
) -> None:
    """Check that nothing was changed, and where it was.

    Every record's bytes, chain, signature, epoch and stream are checked, and the signed tree over all; then the queue,
    and whether the index, from which queries are answered, says what the records say. The ledger is not changed.
    Signatures and the queue are checked where the keys are at hand; all else is checked without them.
    Exits 0 when the ledger holds and 1 when anything was found.

    JSON: holds, ledger, origin, size, first, end, findings (kind, position, end, seen, meaning), signatures,
    unclosed, keys, proven, pruned (first, end, count, policy_position, position, finished), absent, checkpoint,
    index (up to which position it was compared with the log), since, mark, notes, warnings, seconds.
    """
    held = None if since is None else read_text(since)
    trusted = None if trust is None else parse_vkey(trust)
    from tallystick.evidence.verify import verify as run

    settings.check_ledger()
    with Bar("verifying", "records") as bar:
        report = run(
            settings.ledger,
            keys=settings.keys,
            marks=settings.marks,
            first=first,
            end=end,
            since=held,
            trust=trusted,
            processes=processes,
            index=not no_index,
            progress=bar.update,
        )
    if settings.json:
        screen.say_json(report.to_json())
    else:
        _say(report)
    if not report.holds:
        raise click.exceptions.Exit(failures.REFUSED)


def _say(report: Report) -> None:
    if report.holds:
        screen.say(("PASS", "green bold"), f"  the ledger {report.ledger} holds")
    else:
        found = screen.counted(len(report.findings), "finding")
        screen.say(("FAIL", "red bold"), f"  {found} in the ledger {report.ledger}")
        screen.say()
        _say_findings(report)
        screen.say()
    screen.say_pairs(_facts(report))


def _say_findings(report: Report) -> None:
    listed = report.findings[:LISTED_MAX]
    screen.say_table(
        ("place", "kind", "what was seen"), [(found.place, str(found.kind), found.seen) for found in listed]
    )
    if len(report.findings) > len(listed):
        screen.say(f"and {len(report.findings) - len(listed):,} more; --json lists them all")
    screen.say()
    screen.say(("What it means:", "bold"))
    screen.say_pairs({str(found.kind): found.meaning for found in report.findings}.items())


def _facts(report: Report) -> Iterable[tuple[str, str]]:
    every = "all" if (report.first, report.end) == (0, report.size) else "only"
    checked = f"{every} {report.end - report.first:,} of {report.size:,}"
    gone = f"; {report.absent:,} of them lawfully pruned" if report.absent else ""
    yield "records", f"{checked}, positions {_range(report.first, report.end)}{gone}"
    yield from _prunes(report)
    yield "signatures", _signatures(report)
    yield from _tree(report)
    if not report.holds:
        yield "proven", "; ".join(_range(*pair) for pair in report.proven) or "nothing"
    yield "index", _index(report)
    yield "held against", _held_against(report)
    yield "head mark", _mark(report)
    for warning in report.warnings:
        yield "warning", warning
    yield "time", f"{report.seconds:.2f} s"


def _prunes(report: Report) -> Iterable[tuple[str, str]]:
    listed = report.pruned[-LISTED_MAX:]
    if len(report.pruned) > len(listed):
        yield "pruned", f"{len(report.pruned) - len(listed):,} earlier times; --json lists them all"
    for prune in listed:
        yield "pruned", prune.text


def _index(report: Report) -> str:
    if report.index is None:
        return "not compared (none is there, or only a part was verified)"
    return f"compared with the first {screen.counted(report.index, 'record')}"


def _held_against(report: Report) -> str:
    if report.since is None:
        return "no earlier checkpoint (keep one elsewhere, and give it with --since)"
    return f"your checkpoint of {screen.counted(report.since, 'record')}"


def _mark(report: Report) -> str:
    if report.mark is not None:
        return f"that of {screen.counted(report.mark, 'record')}"
    return "; ".join(report.notes) or "not compared (the keys are not here)"


def _signatures(report: Report) -> str:
    if not report.keys:
        return "not checked, nor is the queue: the keys are not here (all else is checked without them)"
    unclosed = f"; {report.unclosed:,} in the epoch still open" if report.unclosed else ""
    genesis = "" if report.first else "; the genesis by the root key"
    return f"{report.signatures:,} hold{unclosed}{genesis}"


def _tree(report: Report) -> Iterable[tuple[str, str]]:
    from tallystick.core.checkpoint import Checkpoint

    try:
        checkpoint = Checkpoint.of_note(report.checkpoint)
    except RejectedError as error:
        yield "checkpoint", f"cannot be read: {error}"
        return
    yield "checkpoint", f"{checkpoint.origin}, {screen.counted(checkpoint.size, 'record')}"
    yield "root", checkpoint.root.hex()


def _range(first: int, end: int) -> str:
    return f"{first} to {end - 1}" if end > first else "none"
