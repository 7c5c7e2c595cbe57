"""`evidence`: a pack for an auditor: the matching records as a bundle, and a report on what they show."""

from __future__ import annotations

from typing import Any

import click

from tallystick.cli import screen
from tallystick.cli.controls import catalogue_option, chosen, framework_option, period_options, say_assessments
from tallystick.cli.export import say_warnings, voucher_options, vouchers_of
from tallystick.cli.failures import REFUSED
from tallystick.cli.options import Settings, sealing_options
from tallystick.cli.progress import Bar


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@framework_option
@click.option("--all", "everything", is_flag=True, help="All controls that are known.")
@period_options
@click.option("-o", "--output", required=True, metavar="DIR", help="Where to: a folder that is new or empty.")
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
    output: str,
    as_pdf: bool,
    actor: str | None,
    fail_on_gap: bool,
    catalogue: tuple[str, ...],
    **asked: Any,
) -> int:
    """Make an evidence pack: tallystick evidence CC7.2 --from 2026-01-01 --to 2026-03-31 -o pack.

    Into the folder go `bundle`, the matching records with their proofs, `report.html`, and `assessment.json`. The
    bundle proves that its records were in the ledger, unchanged; not that there are no others. That something is
    missing is content, and told; the exit code is 0 then too, but with --fail-on-gap.

    JSON: {folder, size, bundle: {folder, records, manifest_sha256, events_sha256, export_position, proves}, files,
    evidenced, gaps, controls}; bundle is null when no event fits.
    """
    from tallystick.evidence.controls.catalogue import load
    from tallystick.evidence.controls.period import Period
    from tallystick.evidence.pack import make_pack

    vouchers = vouchers_of(asked)
    wanted = chosen(ids, framework=framework, everything=everything, catalogue=catalogue)
    period = Period.between(first, last, occurred=occurred)
    with settings.open(readonly=False) as ledger, Bar("exporting", "records") as bar:
        pack = make_pack(
            ledger,
            output,
            wanted,
            period=period,
            catalogue=load(catalogue),
            actor=actor,
            as_pdf=as_pdf,
            vouchers=vouchers,
            progress=bar.update,
        )
    if pack.exported is not None:
        say_warnings(pack.exported)
    code = REFUSED if fail_on_gap and pack.gaps else 0
    if settings.json:
        screen.say_json(pack.to_json())
        return code
    say_assessments(pack.assessments)
    screen.say()
    if pack.exported is None:
        screen.say(("no bundle was made", "yellow"), ": no event fits any of these controls in that time")
    else:
        records = screen.counted(pack.exported.count, "record")
        screen.say(f"{records} in {pack.exported.path}: each is proven to have been in the ledger, unchanged;")
        screen.say("that there are no others is not, as it is a selection")
        screen.say_pairs([("manifest SHA-256", pack.exported.manifest_sha256)])
    screen.say(f"wrote {', '.join(pack.files)} to {output}")
    return code
