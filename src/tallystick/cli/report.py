"""`report`: documents with queries inside, made into HTML or PDF from one state of the ledger."""

from __future__ import annotations

from pathlib import Path

import click

from tallystick.cli import screen
from tallystick.cli.controls import catalogue_option, period_options
from tallystick.cli.options import Settings, ledger_options
from tallystick.cli.progress import Bar
from tallystick.errors import RejectedError


@click.group()
def report() -> None:
    """Reports for people: what happened and what is missing, with the queries that the figures were made from.

    Every figure of a report is of one size of the ledger, and its checkpoint stands below it.
    """


@report.command("list")
@ledger_options
def list_(settings: Settings) -> None:
    """Print the reports that come with Tallystick.

    JSON: {reports: [{name, title, description, window_days, parameters: [{name, type, about, default}]}]}.
    """
    from tallystick.evidence.report import shipped

    documents = shipped()
    if settings.json:
        from tallystick.evidence.shapes import document_json

        screen.say_json({"reports": [*map(document_json, documents)]})
        return
    for document in documents:
        screen.say((document.name, "bold cyan"), "  ", document.description)
        pairs = []
        for parameter in document.parameters:
            default = "must be given" if parameter.default is None else f"default {parameter.default!r}"
            pairs.append((f"-p {parameter.name}=…", f"{parameter.about} ({default})"))
        screen.say_pairs(pairs, indent="    ")


@report.command("show")
@click.argument("name", metavar="NAME")
@ledger_options
def show(settings: Settings, *, name: str) -> None:
    """Print the document behind a report, to make one of your own of it.

    JSON: {name, title, source}.
    """
    from tallystick.evidence.report import load

    document = load(name)
    if settings.json:
        screen.say_json({"name": document.name, "title": document.title, "source": document.source})
        return
    for line in document.source.removesuffix("\n").split("\n"):
        screen.say(line)


@report.command("make")
@click.argument("name", metavar="NAME|FILE.md")
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to: FILE.html or FILE.pdf.")
@click.option("-p", "given", multiple=True, metavar="NAME=VALUE", help="What the report wants to be told.")
@period_options
@catalogue_option
@ledger_options
def make(
    settings: Settings,
    *,
    name: str,
    output: str,
    given: tuple[str, ...],
    first: str | None,
    last: str | None,
    occurred: bool,
    catalogue: tuple[str, ...],
) -> None:
    """Make a report: tallystick report make access-review -o review.html --from 2026-01-01 --to 2026-03-31.

    A file of the same name is replaced. PDF needs the extra `pdf`.

    JSON: {name, output, bytes, size, root, after, before, time}.
    """
    from tallystick.core import timestamp
    from tallystick.evidence.controls.catalogue import load as load_controls
    from tallystick.evidence.controls.period import Period
    from tallystick.evidence.report import load, write
    from tallystick.evidence.report import make as make_page
    from tallystick.evidence.report.write import check

    document, known = load(name), load_controls(catalogue)
    check(Path(output))
    values = parameters(given)
    document.values(values)  # what is wrong with them is said before the ledger is opened
    period = Period.between(first, last, occurred=occurred)
    with settings.open(readonly=False) as ledger, Bar("making the report", "steps") as bar:
        made = make_page(ledger, document, period=period, catalogue=known, given=values, progress=bar.update)
    count = write(made.page, output)
    window = period.window(document.window_days)
    if settings.json:
        screen.say_json(
            {
                "name": document.name,
                "output": output,
                "bytes": count,
                "size": made.size,
                "root": made.page.root,
                "after": timestamp.render(window.after),
                "before": timestamp.render(window.before),
                "time": window.time,
            }
        )
        return
    screen.say(f"wrote {output}, {count:,} bytes")
    screen.say_pairs(made.page.facts)


def parameters(given: tuple[str, ...]) -> dict[str, str]:
    """The values of `-p name=value`. Raises `RejectedError`."""
    values: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise RejectedError(f"{each[:40]!r} is not name=value", place="-p", cure="write such as -p entity=user-456")
        if name in values:
            raise RejectedError(f"{name[:40]} is given twice", place="-p", cure="give it once")
        values[name] = value
    return values
