"""Making a report: a document is filled in by one view of a ledger, and becomes a page that can be written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tallystick.core.checkpoint import Checkpoint
from tallystick.errors import RejectedError
from tallystick.evidence.controls.assessment import Assessor, Progress
from tallystick.evidence.controls.catalogue import Catalogue
from tallystick.evidence.controls.period import Period, shown
from tallystick.evidence.report.allowance import CELLS_MAX, Allowance
from tallystick.evidence.report.blocks import (
    Chart,
    Code,
    Grid,
    Heading,
    Items,
    Node,
    Page,
    Paragraph,
    Quote,
    Source,
    Table,
    Timeline,
    Words,
    shown_terms,
    visible,
)
from tallystick.evidence.report.documents import Document
from tallystick.evidence.report.figures import Functions
from tallystick.evidence.report.prose import nodes_of
from tallystick.evidence.report.template import render
from tallystick.evidence.report.view import View
from tallystick.ledger import Ledger
from tallystick.read.state import Held, held_anyhow

_PRUNED: Final = "Records were removed under the retention policy; what was removed is in no figure."
_OURS: Final = ("period", "ledger", "clock")


@dataclass(frozen=True, slots=True)
class Made:
    """A report: the page, and the ledger size that all of it speaks for."""

    page: Page
    size: int


def make(
    ledger: Ledger,
    document: Document,
    *,
    period: Period,
    catalogue: Catalogue,
    given: Mapping[str, str] | None = None,
    checkpoint: Checkpoint | None = None,
    assessor: Assessor | None = None,
    lead: str = "",
    progress: Progress | None = None,
    held: Held = held_anyhow,
    cells_max: int = CELLS_MAX,
) -> Made:
    """Fill in a document from the ledger as it is now, or as it was at a checkpoint of it.

    An `assessor` of the same period and size is asked for controls, so that what it found is not looked for again.
    `given` are the document's parameters as on a command line. `lead` is the first line of the page, in place of the
    document's description. `progress` is told how many questions were asked, and `held` how many bytes are in memory.
    Raises `RejectedError` with the document's line, `NotFoundError` for an entity of which there is no event.
    """
    # What a report says serves as evidence: it is read from proven records, and not by an index that anybody can edit.
    with ledger.proven() as proven:
        return _make(
            View(
                proven,
                period,
                catalogue,
                window_days=document.window_days,
                checkpoint=checkpoint,
                assessor=assessor,
                allowance=Allowance(held, cells_max=cells_max),
            ),
            ledger,
            document,
            period=period,
            given=given or {},
            lead=lead,
            progress=progress,
        )


def _make(
    view: View,
    ledger: Ledger,
    document: Document,
    *,
    period: Period,
    given: Mapping[str, str],
    lead: str,
    progress: Progress | None,
) -> Made:
    values = document.values(given)
    for parameter in document.parameters:
        if parameter.type == "entity" and values[parameter.name]:
            view.check_known(values[parameter.name])
    functions = Functions(view, progress=progress).by_name()
    for name in values:
        if name in _OURS or name in functions:
            raise RejectedError(f"the parameter {name!r} is ours", place=document.name, cure="call it something else")
    facts = {
        "period": view.window.described,
        "clock": view.window.time,
        "ledger": {"origin": ledger.origin, "size": view.size, "name": ledger.name},
    }
    markdown, kept = render(document.body, functions=functions, values={**facts, **values}, place=document.name)
    nodes = nodes_of(markdown, kept, place=document.name)
    nodes = (*nodes, *_appendix(nodes))
    root = view.checkpoint.root.hex()
    page = Page(
        title=document.title,
        description=visible(lead, characters_max=2_000) if lead else document.description,
        nodes=nodes,
        facts=(
            ("Ledger", visible(ledger.origin)),
            ("Period", f"{view.window.described}, by {view.window.time} time"),
            *((name.replace("_", " ").capitalize(), visible(value)) for name, value in _shown_values(document, given)),
            ("Made", shown(period.now)),
            ("Checkpoint", f"{view.size:,} records, root {root}"),
            *([("Pruned", _PRUNED)] if view.is_pruned else []),
        ),
        checkpoint=f"{visible(ledger.origin)}, {view.size:,} records, root {root[:12]}…",
        root=root,
        made_at=period.now,
    )
    return Made(page, view.size)


def _shown_values(document: Document, given: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        (parameter.name, given[parameter.name])
        for parameter in document.parameters
        if parameter.in_head and given.get(parameter.name)
    ]


def _appendix(nodes: Iterable[Node]) -> Iterator[Node]:
    """The terms of all selectors that figures were made from, each once."""
    named = {name: terms for source in _sources(nodes) for name, terms in source.selectors}
    if not named:
        return
    yield Heading(2, (Words("Sources"),))
    yield Paragraph((Words("The selectors that figures were made from. A record counts that fits one line of terms."),))
    for name, terms in sorted(named.items()):
        yield Paragraph((Words(name, strong=True),))
        yield Code("\n".join(map(shown_terms, terms)))


def _sources(nodes: Iterable[Node]) -> Iterator[Source]:
    for node in nodes:
        match node:
            case Table() | Chart() | Timeline():
                yield node.source
            case Paragraph() | Grid():
                yield from node.sources
            case Items():
                yield from (source for item in node.items for source in _sources(item))
            case Quote():
                yield from _sources(node.nodes)
