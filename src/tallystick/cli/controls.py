"""`controls`: what frameworks ask for, which events show it, and whether the ledger has any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli import screen
from tallystick.cli.options import Settings, file_type, ledger_options
from tallystick.cli.progress import Bar
from tallystick.cli.state import occurred_option

if TYPE_CHECKING:
    from tallystick.evidence.controls.assessment import Assessment
    from tallystick.evidence.controls.catalogue import Control

Function = Callable[..., Any]

_FROM_HELP = "Begin at this date (UTC) or time. By default as far back as the control's usual window."
_TO_HELP = "End with this day, or before this time. By default now."


def catalogue_option(function: Function) -> Function:
    """For a command that knows controls; it is called with `catalogue`, the files of the user's own."""
    how = "Controls of your own, in the form of the shipped ones. May come again."
    return click.option("--catalogue", multiple=True, metavar="FILE", type=file_type(), help=how)(function)


def framework_option(function: Function) -> Function:
    """For a command that can be held to one framework."""
    return click.option("--framework", metavar="NAME", help="Only this one, such as SOC2.")(function)


def period_options(function: Function) -> Function:
    """For a command about a time; it is called with `first`, `last` and `occurred`."""
    function = occurred_option(function)
    function = click.option("--to", "last", metavar="TIME", help=_TO_HELP)(function)
    return click.option("--from", "first", metavar="TIME", help=_FROM_HELP)(function)


def chosen(
    ids: Sequence[str], *, framework: str | None, everything: bool, catalogue: Sequence[str]
) -> tuple[Control, ...]:
    """The controls that a command line names: by their ids, by a framework, or all."""
    from tallystick.evidence.controls.catalogue import load

    if sum((bool(ids), framework is not None, everything)) != 1:
        raise click.UsageError("name controls, or a framework with --framework, or all with --all")
    known = load(catalogue)
    if ids:
        return tuple({control.key: control for control in map(known.find, ids)}.values())
    return known.controls if framework is None else known.of(framework)


@click.group()
def controls() -> None:
    """What frameworks ask for, and which events show that it was done.

    The requirements are in our own words. That evidence was found says that events were recorded, and not that a
    control is met: that is for people to judge.
    """


@controls.command("list")
@framework_option
@catalogue_option
@ledger_options
def list_(settings: Settings, *, framework: str | None, catalogue: tuple[str, ...]) -> None:
    """Print the controls that are known.

    JSON: {frameworks: [{name, title}], controls: [{control, framework, id, title, window_days, cadence}]}.
    """
    from tallystick.evidence.controls.catalogue import load

    known = load(catalogue)
    found = known.controls if framework is None else known.of(framework)
    if settings.json:
        from tallystick.evidence.shapes import catalogue_json

        screen.say_json(catalogue_json(known, found))
        return
    screen.say_table(
        ("framework", "id", "window", "title"),
        ((control.framework, control.id, f"{control.window_days} d", control.title) for control in found),
    )


@controls.command("explain")
@click.argument("id_", metavar="ID")
@catalogue_option
@ledger_options
def explain(settings: Settings, *, id_: str, catalogue: tuple[str, ...]) -> None:
    """Print what a control asks for, which events show it, and what it means when there are none.

    JSON: {control, framework, id, title, requirement, selectors: [{name, shows, terms, in_words}], related, gap,
    window_days, cadence, asks}; related is as selectors, and closes no gap by itself.
    """
    from tallystick.evidence.controls.catalogue import load
    from tallystick.evidence.controls.wording import in_words

    control = load(catalogue).find(id_)
    if settings.json:
        from tallystick.evidence.shapes import control_json

        screen.say_json(control_json(control))
        return
    screen.say((control.key, "bold cyan"), "  ", (control.title, "bold"))
    screen.say(control.requirement)
    for selector in control.all_selectors:
        screen.say()
        often = f", at least every {control.cadence[selector.name]} days" if selector.name in control.cadence else ""
        beside = ", beside it: no evidence by itself" if selector in control.related else ""
        screen.say((selector.name, "bold"), (often + beside, "dim"))
        screen.say("  ", selector.shows)
        for query in selector.queries:
            screen.say(("  - events ", "dim"), in_words(query))
    screen.say()
    screen.say_pairs([("gap", control.gap), ("window", f"{control.window_days} days")], indent="")


@controls.command("search")
@click.argument("question", nargs=-1, required=True, metavar="QUESTION")
@click.option("-n", "--number", type=click.IntRange(1, 100), default=10, show_default=True, help="At most so many.")
@catalogue_option
@ledger_options
def search(settings: Settings, *, question: tuple[str, ...], number: int, catalogue: tuple[str, ...]) -> None:
    """Find the controls that a question is about: tallystick controls search who approved production changes.

    JSON: {question, controls: [{control, framework, id, title, score}]}, the best first.
    """
    from tallystick.evidence.controls.catalogue import load
    from tallystick.evidence.controls.search import search as search_for

    asked = " ".join(question)
    found = search_for(load(catalogue), asked, limit=number)
    if settings.json:
        from tallystick.evidence.shapes import matches_json

        screen.say_json(matches_json(asked, found))
        return
    if not found:
        screen.say("no control is about that; see: tallystick controls list", err=True)
        return
    rows = ((match.control.framework, match.control.id, match.control.title, f"{match.score:.1f}") for match in found)
    screen.say_table(("framework", "id", "title", "fit"), rows)


@controls.command("check")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@framework_option
@click.option("--all", "everything", is_flag=True, help="All that are known.")
@period_options
@catalogue_option
@ledger_options
def check(
    settings: Settings,
    *,
    ids: tuple[str, ...],
    framework: str | None,
    everything: bool,
    first: str | None,
    last: str | None,
    occurred: bool,
    catalogue: tuple[str, ...],
) -> None:
    """Look for evidence of controls in the ledger: tallystick controls check CC7.2 --from 2026-01-01.

    Exits 0 whether there are gaps or not: what is found is for people to judge.

    JSON: {size, time, evidenced, gaps, controls: [{control, title, status, after, before, time, size, count,
    actor_count, actors, first, last, samples, selectors, related, gaps, remarks}]}.
    """
    from tallystick.evidence.controls.assessment import Assessor
    from tallystick.evidence.controls.period import Period

    wanted = chosen(ids, framework=framework, everything=everything, catalogue=catalogue)
    period = Period.between(first, last, occurred=occurred)
    with settings.open(readonly=False) as ledger, Bar("looking for evidence", "records") as bar:
        assessor = Assessor(ledger, period)
        found = assessor.assess_all(wanted, progress=bar.update)
    if settings.json:
        from tallystick.evidence.shapes import assessments_json

        screen.say_json({"size": assessor.size, **assessments_json(found)})
        return
    say_assessments(found)
    clock = "occurred" if occurred else "recorded"
    screen.say((f"by {clock} time; of a ledger of {screen.counted(assessor.size, 'record')}", "dim"), err=True)


def say_assessments(found: Sequence[Assessment]) -> None:
    """Print assessments as a table, and what is missing below it."""
    screen.say_table(("control", "evidence", "events", "who", "first", "last", "title"), map(_row, found))
    gaps = [each for each in found if each.gaps]
    if gaps:
        screen.say()
    for each in gaps:
        for gap in each.gaps:
            screen.say((each.control.key, "bold yellow"), f"  {gap.sentence}")
    for remark in dict.fromkeys(remark for each in found for remark in each.remarks):
        screen.say((remark, "dim"), err=True)
    told = f"evidence was found for {len(found) - len(gaps)} of {screen.counted(len(found), 'control')}"
    screen.say((f"{told}; that events were recorded does not say that a control is met", "dim"), err=True)


def _row(each: Assessment) -> tuple[str, ...]:
    from tallystick.evidence.controls.period import day

    first, last = ("-" if moment is None else day(moment) for moment in (each.first, each.last))
    status = "GAP" if each.gaps else "found"
    return (each.control.key, status, f"{each.count:,}", f"{each.actor_count:,}", first, last, each.control.title)
