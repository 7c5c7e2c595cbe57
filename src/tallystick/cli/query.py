"""`query`: who did what, when, from the index: a page, all, or how many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tallystick.cli import screen
from tallystick.cli.log import compared_text, show_records
from tallystick.cli.options import Settings, ledger_options
from tallystick.cli.records import json_line

if TYPE_CHECKING:
    from tallystick.read.search import Page

TERMS_HELP = """\b
Terms are
  entity_id=user-456          event_type=user.created or user.*
  actor=admin-jane            label=phi
  after=2026-03-01            before=2026-03-16T00:00:00Z   (recorded)
  occurred_after=…            occurred_before=…             (claimed)
  first=100   end=200         positions
  id=…        correlation_id=…
  payload.ip=10.0.1.42        payload.rows>=1000    payload.a.b!=x
  payload.errorCode           !payload.errorCode    (there, not there)
  text="export pay*"          words of the payload
A name that comes again adds: any of several entities, types and actors, all of several labels."""


@click.command(epilog=TERMS_HELP)
@click.argument("terms", nargs=-1, metavar="[TERM]...")
@click.option("-n", "--number", type=click.IntRange(1, 1_000), default=20, show_default=True, help="Records of a page.")
@click.option("--all", "everything", is_flag=True, help="All of them, a line each.")
@click.option("--count", is_flag=True, help="Only how many there are.")
@click.option("--oldest-first", is_flag=True, help="Begin with the oldest.")
@click.option("--cursor", metavar="CURSOR", help="Go on after a page, with the cursor that it gave.")
@ledger_options
def query(
    settings: Settings,
    *,
    terms: tuple[str, ...],
    number: int,
    everything: bool,
    count: bool,
    oldest_first: bool,
    cursor: str | None,
) -> None:
    """Find records by what is said of them: tallystick query entity_id=user-456 'payload.rows>1000'.

    JSON: {size, cursor, assumptions, index_verified, records}, where index_verified {position, at} or null says when
    the index was last compared with the log, and up to where; with --all a line a record; with --count {count, size}.
    """
    from tallystick.read.query import parse_terms

    asked = parse_terms(terms)
    with settings.open(readonly=False) as ledger:
        if count:
            found = ledger.count(asked)
            screen.say_json({"count": found}) if settings.json else screen.say(screen.counted(found, "record"))
            return
        if everything:
            show_records(ledger.records(asked, newest_first=not oldest_first), as_json=settings.json)
            return
        page = ledger.query(asked, newest_first=not oldest_first, limit=number, cursor=cursor)
    if settings.json:
        screen.say_json_text(_page_json(page))
        return
    if not show_records(page.records, as_json=False):
        screen.say("no record fits", err=True)
    for sentence in page.assumptions:
        screen.say((sentence, "dim"), err=True)
    more = f"; more with --cursor={page.cursor}" if page.cursor else ""
    verified = compared_text(page.index_verified)
    screen.say((f"of a ledger of {screen.counted(page.size, 'record')}; {verified}{more}", "dim"), err=True)


def _page_json(page: Page) -> str:
    import json

    from tallystick.read.shapes import compared_json

    head = {
        "size": page.size,
        "cursor": page.cursor,
        "assumptions": list(page.assumptions),
        "index_verified": compared_json(page.index_verified),
    }
    records = ",".join(map(json_line, page.records))
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "records": [{records}]}}'
