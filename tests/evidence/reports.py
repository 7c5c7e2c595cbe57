"""What the tests of reports share: documents in few words, their pages, and HTML as a reader sees it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Final

from tallystick import Ledger
from tallystick.core import timestamp
from tallystick.evidence.controls.catalogue import load as load_controls
from tallystick.evidence.controls.period import Period
from tallystick.evidence.report import Page, make
from tallystick.evidence.report.documents import Document, parse

NOW: Final = timestamp.parse("2026-04-06T00:00:00.000000Z")
VOID: Final = ("meta", "br", "hr")


def document(body: str, head: str = "") -> Document:
    return parse("own", f"---\ntitle: Own\ndescription: A report.\n{head}---\n{body}\n".encode(), place="own.md")


def page(
    ledger: Ledger,
    body: str | Document,
    *,
    head: str = "",
    all_time: bool = True,
    period: Period | None = None,
    **given: str,
) -> Page:
    """The page of a document, by default over all records, by recorded time."""
    source = body if isinstance(body, Document) else document(body, head)
    now = timestamp.parse(ledger.get(ledger.size - 1).recorded_at) + 1
    period = period or Period.of(after="1970-01-01" if all_time else None, now=now)
    return make(ledger, source, period=period, catalogue=load_controls(), given=given).page


class Seen(HTMLParser):
    """What a reader of HTML makes of it: elements in order, attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {f"{tag}.{name}" for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> is not the last that was opened"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)
