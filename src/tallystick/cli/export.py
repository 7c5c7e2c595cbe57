"""`export` and `check-bundle`: evidence for someone who does not trust us, and a look at it before it goes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tallystick.cli import failures, screen
from tallystick.cli.options import Function, Settings, file_type, ledger_options, sealing_options
from tallystick.cli.progress import Bar
from tallystick.cli.query import TERMS_HELP
from tallystick.cli.texts import read_policy, read_text

if TYPE_CHECKING:
    from tallystick.evidence.bundle.export import Exported
    from tallystick.evidence.bundle.pair import PairReport
    from tallystick.evidence.bundle.report import BundleFinding, BundleReport
    from tallystick.evidence.others.vouching import Vouchers

LISTED_MAX = 50


def voucher_options(function: Function) -> Function:
    """For a command that exports: who is asked to vouch for it. `vouchers_of` takes them from what the command is
    given."""
    for option in (
        click.option("--timestamp-roots", type=file_type(), metavar="PEM", help="Hold the authorities to these roots."),
        click.option("--timestamp", "authorities", multiple=True, metavar="URL", help="Ask this RFC 3161 authority."),
        click.option("--witnesses", type=file_type(), metavar="POLICY", help="Ask the witnesses of this trust file."),
    ):
        function = option(function)
    return function


def vouchers_of(given: dict[str, Any]) -> Vouchers | None:
    """Take what `voucher_options` brought out of a command's arguments; None when nobody is to be asked."""
    witnesses, authorities, roots = (given.pop(name) for name in ("witnesses", "authorities", "timestamp_roots"))
    if witnesses is None and not authorities:
        return None
    from tallystick.evidence.others.authority import Authority, load_roots
    from tallystick.evidence.others.vouching import Vouchers

    pem = b"" if roots is None else read_text(roots)
    if pem:
        load_roots(pem)  # a wrong file is told before anybody is asked
    return Vouchers(
        policy=None if witnesses is None else read_policy(witnesses),
        authorities=tuple(Authority(url, pem) for url in authorities),
    )


def say_warnings(exported: Exported) -> None:
    """Who did not vouch for it, and why, on stderr."""
    for warning in exported.warnings:
        screen.say(("warning:", "yellow bold"), f" {warning}", err=True)


@click.command(epilog=TERMS_HELP)
@click.argument("terms", nargs=-1, metavar="[TERM]...")
@click.option("-o", "--output", required=True, metavar="DIR|FILE.zip", help="Where to put it; it must not be there.")
@click.option("--first", type=click.IntRange(min=0), metavar="POSITION", help="Begin here; by default at 0.")
@click.option("--end", type=click.IntRange(min=0), metavar="POSITION", help="End before this; by default all.")
@click.option("--from", "after", metavar="TIME", help="Begin with what was recorded at this time.")
@click.option("--to", "before", metavar="TIME", help="End before what was recorded at this time.")
@click.option("--since", type=file_type(), metavar="CHECKPOINT_FILE", help="What came after a kept checkpoint.")
@click.option("--actor", metavar="WHO", help="Who asks for it; the ledger records it.")
@click.option("--view", "views", multiple=True, type=click.Choice(["csv", "html"]), help="Beside it, for people.")
@voucher_options
@sealing_options
def export(settings: Settings, *, terms: tuple[str, ...], output: str, views: tuple[str, ...], **given: Any) -> None:
    """Make an evidence bundle: three files that an auditor verifies without us.

    Without terms it is complete: every record of the range is there, and provably none is left out. With terms, as for
    `query`, it has the records that fit, and proves that these are in the ledger, and nothing of others. The terms are
    part of the signed manifest. Free text has no exact form, and cannot be one of them.

    The present epoch is closed, so that its signatures can be checked, and the export itself is recorded. Witnesses and
    timestamp authorities that do not answer are warned of, and hold nothing up; exits 1 when one of them knows another
    history of this ledger, or signed what is not so. The bundle is made all the same.

    JSON: path, views, manifest_sha256, events_sha256, count, first, end, size, complete, position,
    selectors (name, count), warnings.
    """
    from tallystick.core.moment import Moment
    from tallystick.read.query import parse_terms

    for name, option in (("after", "--from"), ("before", "--to")):
        if given[name] is not None:
            Moment.of(given[name], place=option)  # a wrong one is told as it was given
    vouchers = vouchers_of(given)
    since = given.pop("since")
    with settings.open(readonly=False) as ledger, Bar("exporting", "records") as bar:
        exported = ledger.export(
            output,
            (parse_terms(terms),) if terms else (),
            since=None if since is None else read_text(since),
            as_zip=output.endswith(".zip"),
            views=views,
            vouchers=vouchers,
            progress=bar.update,
            **given,
        )
        origin = ledger.origin
    say_warnings(exported)
    if settings.json:
        screen.say_json(facts_of(exported))
    else:
        _say_exported(exported, origin)
    if exported.is_contradicted:
        raise click.exceptions.Exit(failures.REFUSED)


def facts_of(exported: Exported) -> dict[str, Any]:
    """An export as it is printed for machines."""
    from tallystick.evidence.shapes import exported_json

    views = None if exported.views is None else str(exported.views)
    return {"path": str(exported.path), "views": views, **exported_json(exported)}


@click.command("check-bundle")
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE [SECOND]")
@click.option("--trust", required=True, type=file_type(), metavar="FILE", help="The trust file (C2SP tlog-policy).")
@click.option("--known-checkpoint", type=file_type(), metavar="FILE", help="A checkpoint known from elsewhere.")
@ledger_options
def check_bundle(settings: Settings, *, bundles: tuple[str, ...], trust: str, known_checkpoint: str | None) -> None:
    """Check a bundle, or two of one ledger against each other, before handing them over.

    Whoever receives a bundle uses `tallystick-verify` or its page instead, which share no code with what made it.
    Exits 0 when it holds and 1 when anything was found.

    JSON: holds, findings (kind, line, position, seen, meaning), and what the bundle says of itself; of two bundles,
    first, second, and between.
    """
    from tallystick.evidence.bundle.check import verify_bundle
    from tallystick.evidence.bundle.pair import verify_pair

    if len(bundles) > 2:
        raise click.UsageError("give one bundle, or two to be held together")
    policy = read_policy(trust).render()
    known = None if known_checkpoint is None else read_text(known_checkpoint)
    reports: tuple[BundleReport, ...]
    if len(bundles) == 2:
        pair = verify_pair(bundles[0], bundles[1], trust=policy, known=known)
        reports, found, facts = (pair.first, pair.second), pair.findings, _pair_json(pair)
    else:
        with Bar("checking", "records") as bar:
            report = verify_bundle(bundles[0], trust=policy, known=known, progress=bar.update)
        reports, found, facts = (report,), report.findings, report.to_json()
    if settings.json:
        screen.say_json(facts)
    else:
        _say_reports(reports, found)
    if found:
        raise click.exceptions.Exit(failures.REFUSED)


def _pair_json(pair: PairReport) -> dict[str, object]:
    between = [finding.to_json() for finding in pair.between]
    return {
        "holds": pair.holds,
        "first": pair.first.to_json(),
        "second": pair.second.to_json(),
        "between": between,
    }


def _say_exported(exported: Exported, origin: str) -> None:
    screen.say(("EXPORTED", "green bold"), f"  {screen.counted(exported.count, 'record')} of {origin}")
    if exported.complete:
        proves = f"that these are all records at [{exported.first:,}, {exported.end:,}), but for lawfully pruned ones"
    else:
        proves = "that these records are in the ledger; it says nothing of those that are not in it"
    pairs = [
        ("bundle", str(exported.path)),
        ("manifest", f"SHA-256 {exported.manifest_sha256}"),
        ("made under", f"the checkpoint of {screen.counted(exported.size, 'record')}"),
        ("proves", proves),
        ("recorded", f"at position {exported.position:,}"),
    ]
    if exported.views is not None:
        pairs.insert(1, ("views", f"{exported.views} (they prove nothing)"))
    screen.say_pairs(pairs)


def _say_reports(reports: tuple[BundleReport, ...], found: tuple[BundleFinding, ...]) -> None:
    if not found:
        screen.say(("PASS", "green bold"), f"  {'the bundle holds' if len(reports) == 1 else 'both bundles hold'}")
    else:
        screen.say(("FAIL", "red bold"), f"  {screen.counted(len(found), 'finding')}")
        screen.say()
        screen.say_table(
            ("place", "kind", "what was seen"), [(one.place, str(one.kind), one.seen) for one in found[:LISTED_MAX]]
        )
        screen.say()
    for report in reports:
        if report.manifest is not None:
            screen.say_pairs(_facts(report))


def _facts(report: BundleReport) -> list[tuple[str, str]]:
    manifest = report.manifest
    assert manifest is not None, "asked of a bundle that has a manifest"
    kind = "complete" if manifest.is_complete else "filtered: it says nothing of records that are not in it"
    facts = [
        ("ledger", f"{manifest.origin}, id {manifest.ledger_id.hex()}"),
        ("records", f"{manifest.count:,} at [{manifest.first:,}, {manifest.end:,}), {kind}"),
        ("checkpoint", screen.counted(manifest.size, "record")),
        ("made", manifest.created),
    ]
    facts += [("pruned", text) for text in report.pruned]
    if report.cosigned:
        facts.append(("witnessed by", ", ".join(sorted(report.cosigned))))
    facts += [("warning", warning) for warning in report.warnings]
    if manifest.tokens:
        facts.append(("timestamps", f"{len(manifest.tokens)}, not judged here: tallystick timestamp check"))
    return facts
