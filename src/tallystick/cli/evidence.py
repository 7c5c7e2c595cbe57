"""`evidence`: a pack for an auditor: records as a bundle, complete unless asked otherwise, and a report on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tallystick.cli import screen
from tallystick.cli.controls import catalogue_option, chosen, framework_option, period_options, say_assessments
from tallystick.cli.export import say_warnings, voucher_options, vouchers_of
from tallystick.cli.failures import REFUSED
from tallystick.cli.options import Settings, sealing_options
from tallystick.cli.progress import Bar

if TYPE_CHECKING:
    from tallystick.evidence.pack import Pack, Plan


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@framework_option
@click.option("--all", "everything", is_flag=True, help="All controls that are known.")
@period_options
@click.option("-o", "--output", metavar="DIR", help="Where to: a folder that is new or empty.")
@click.option("--filtered", is_flag=True, help="Only the records that match; that none is left out is then not proven.")
@click.option("--dry-run", is_flag=True, help="Print what the pack would disclose, and write nothing.")
@click.option("--pdf", "as_pdf", is_flag=True, help="The report as PDF too, beside HTML. Needs the extra `pdf`.")
@click.option("--actor", metavar="ID", help="Who takes the evidence out; it is recorded.")
@click.option("--fail-on-gap", is_flag=True, help="Exit with 1 when there is a gap.")
@catalogue_option
@voucher_options
@sealing_options
def evidence(
    settings: Settings,
    *,
    ids: tuple[str, ...],
    framework: str | None,
    everything: bool,
    first: str | None,
    last: str | None,
    occurred: bool,
    output: str | None,
    filtered: bool,
    dry_run: bool,
    as_pdf: bool,
    actor: str | None,
    fail_on_gap: bool,
    catalogue: tuple[str, ...],
    **asked: Any,
) -> int:
    """Make an evidence pack: tallystick evidence CC7.2 --from 2026-01-01 --to 2026-03-31 -o pack.

    The folder receives `bundle`, `report.html`, and `assessment.json`. The bundle is complete: it has every record of
    the period, so the auditor's verifier computes which of them match, and none can be left out. It therefore discloses
    records that are unrelated to the controls. Their number is printed before anything is written, and by --dry-run.
    With --filtered the bundle has only the records that match, and does not prove that there are no others.

    A gap is reported and is no error: the exit code is 0, unless --fail-on-gap is given.

    JSON: {pack, says, discloses: {records, fitting, unrelated}, folder, bundle: {folder, records, manifest_sha256,
    events_sha256, size, export_position}, files, range, scope, size, evidenced, gaps, controls}; pack is complete or
    filtered, bundle is null when a filtered pack has no record. With --dry-run without folder, bundle and files.
    """
    from tallystick.evidence.controls.catalogue import load
    from tallystick.evidence.controls.period import Period
    from tallystick.evidence.pack import make_pack, plan_pack

    if output is None and not dry_run:
        raise click.UsageError("say where to, with -o, or ask with --dry-run")
    vouchers = vouchers_of(asked)
    wanted = chosen(ids, framework=framework, everything=everything, catalogue=catalogue)
    period = Period.between(first, last, occurred=occurred)
    pack: Pack | None = None
    with settings.open(readonly=False) as ledger, Bar("reading", "records") as bar:
        if output is None or dry_run:
            plan = plan_pack(ledger, wanted, period=period, filtered=filtered, progress=bar.update)
        else:
            pack = make_pack(
                ledger,
                output,
                wanted,
                period=period,
                catalogue=load(catalogue),
                filtered=filtered,
                actor=actor,
                as_pdf=as_pdf,
                vouchers=vouchers,
                announce=_say_plan_aside if settings.json else _say_plan,
                progress=bar.update,
            )
            plan = pack.plan
    exported = None if pack is None else pack.exported
    if exported is not None:
        say_warnings(exported)
    is_contradicted = exported is not None and exported.is_contradicted
    has_gap = any(each.gaps for each in plan.assessments)
    code = REFUSED if is_contradicted or (fail_on_gap and has_gap) else 0
    if settings.json:
        screen.say_json((pack or plan).to_json())
        return code
    if pack is None:
        _say_plan(plan)
    screen.say()
    say_assessments(plan.assessments)
    screen.say()
    if pack is None:
        screen.say("nothing was written: this was a dry run")
    else:
        _say_written(pack)
    return code


def _say_plan(plan: Plan) -> None:
    """The first line, and how to disclose less."""
    screen.say((plan.kind.upper(), "green bold" if plan.kind == "complete" else "yellow bold"), plan.sentence[8:])
    if plan.unrelated:
        screen.say(("To disclose only what matches, and prove less: --filtered", "dim"))


def _say_plan_aside(plan: Plan) -> None:
    """The same before anything is written, apart from the JSON."""
    click.echo(plan.sentence, err=True)


def _say_written(pack: Pack) -> None:
    if pack.exported is None:
        screen.say(("no bundle was made", "yellow"), ": no record fits any of these controls in that time")
    else:
        records = screen.counted(pack.exported.count, "record")
        screen.say(f"{records} in {pack.exported.path}; tallystick-verify lists for each selector those that match")
        screen.say_pairs([("manifest SHA-256", pack.exported.manifest_sha256)])
    screen.say(f"wrote {', '.join(pack.files)} to {pack.folder}")
