"""A report as PDF, laid out by Typst.

The layout is `page.typ`, a file of ours; the report goes to it as JSON, and its strings are laid out, never evaluated.
So no text of an event can be Typst, whatever it says. Typst comes with the extra `pdf`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any, Final

from tallystick.core.timestamp import SECOND
from tallystick.errors import RejectedError
from tallystick.evidence.report.blocks import (
    Cell,
    Chart,
    Code,
    Grid,
    Heading,
    Items,
    Node,
    Page,
    Paragraph,
    Quote,
    Rule,
    Source,
    Table,
    Timeline,
    Words,
    printable,
)
from tallystick.evidence.report.charts import svg

_WORD_CHARACTERS: Final = 18
"""After so many characters a long word may be broken, so that a column of hashes fits."""

_LINE_CHARACTERS: Final = 80
"""What fits on a line of the head: a hash is not broken there."""

_BREAK: Final = "\u200b"
_PIECE: Final = re.compile(r"[^:/,.=&_-]*[:/,.=&_-]?")


def check() -> None:
    """Whether PDF can be made at all. Raises `RejectedError` naming what to install."""
    _typst()


def render(page: Page) -> bytes:
    """The whole file. Raises `RejectedError` when Typst is not installed."""
    typst = _typst()
    layout = (files("tallystick.evidence.report") / "page.typ").read_bytes()
    compiled: bytes = typst.compile(
        layout,
        format="pdf",
        sys_inputs=inputs(page),
        timestamp=page.made_at // SECOND,
    )
    return compiled


def inputs(page: Page) -> dict[str, str]:
    """What `page.typ` is given: the report as JSON, in which no text has anything unprintable."""
    return {"page": json.dumps(_cleaned(_page(page)), ensure_ascii=False)}


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, but=f"\n{_BREAK}")
    if isinstance(value, dict):
        return {name: _cleaned(member) for name, member in value.items()}
    return [_cleaned(member) for member in value] if isinstance(value, list) else value


def _typst() -> Any:
    try:
        import typst  # noqa: PLC0415 - an extra, and only wanted here
    except ImportError as error:
        cure = "install it with: pip install 'tallystick[pdf]'"
        raise RejectedError("PDF needs Typst, which is not installed", cure=cure) from error
    return typst


def _page(page: Page) -> dict[str, Any]:
    return {
        "title": page.title,
        "description": page.description,
        "facts": [[name, _breakable(value, characters=_LINE_CHARACTERS)] for name, value in page.facts],
        "checkpoint": page.checkpoint,
        "nodes": [_node(node, page) for node in page.nodes],
    }


def _node(node: Node, page: Page) -> dict[str, Any]:
    out: dict[str, Any]
    match node:
        case Heading():
            out = {"kind": "heading", "level": max(node.level - 1, 1), "words": _words(node.words)}
        case Paragraph():
            out = {"kind": "paragraph", "words": _words(node.words), "source": _source(node.sources, page)}
        case Items():
            items = [[_node(inner, page) for inner in item] for item in node.items]
            out = {"kind": "items", "ordered": node.ordered, "items": items}
        case Quote():
            out = {"kind": "quote", "nodes": [_node(inner, page) for inner in node.nodes]}
        case Code():
            out = {"kind": "code", "text": node.text}
        case Rule():
            out = {"kind": "rule"}
        case Grid():
            rows = [[_words(cell) for cell in row] for row in node.rows]
            head = [_words(cell) for cell in node.head]
            out = {"kind": "grid", "head": head, "rows": rows, "source": _source(node.sources, page)}
        case _:
            out = _figure(node, page)
    return out


def _figure(node: Table | Chart | Timeline, page: Page) -> dict[str, Any]:
    common = {"title": node.title, "note": node.note, "source": _source((node.source,), page)}
    if isinstance(node, Chart):
        return {"kind": "chart", "svg": svg(node), **common}
    if isinstance(node, Timeline):
        entries = [
            {
                "when": entry.when,
                "what": _breakable(entry.what),
                "who": _breakable(entry.who),
                "details": "; ".join(f"{name}: {_breakable(text)}" for name, text in entry.details),
                "position": entry.position,
            }
            for entry in node.entries
        ]
        return {"kind": "timeline", "entries": entries, **common}
    return {
        "kind": "table",
        "columns": [*node.columns],
        "rows": [[*_cells(node, row)] for row in node.rows],
        "numbers": [*node.numbers],
        "unbroken": [*node.unbroken],
        "widths": _widths(node),
        **common,
    }


def _cells(table: Table, row: Iterable[Cell]) -> Iterator[dict[str, Any]]:
    for index, cell in enumerate(row):
        yield {"text": cell.text if index in table.unbroken else _breakable(cell.text), "tone": cell.tone}


def _words(words: Iterable[Words]) -> list[dict[str, Any]]:
    return [
        {"text": word.text, "mono": word.mono, "strong": word.strong, "emphasis": word.emphasis, "href": word.href}
        for word in words
    ]


def _source(sources: Iterable[Source], page: Page) -> list[str]:
    # Of terms and commands only what would not fit a line is broken, so that they can be copied.
    told = "".join(
        _breakable(text, characters=_LINE_CHARACTERS if is_terms else _WORD_CHARACTERS)
        for source in dict.fromkeys(sources)
        for text, is_terms in source.told()
    )
    return [f"{told}{page.checkpoint}"] if told else []


def _widths(table: Table) -> list[int]:
    """The share of each column: what its texts want on average, but room for a long word."""
    shares = []
    for index, name in enumerate(table.columns):
        texts = [name, *(row[index].text for row in table.rows)]
        word = max(len(word) for text in texts for word in text.split(" "))
        shares.append(round(min(max(sum(map(len, texts)) / len(texts), min(word, 18), 5), 70)) + 3)
    return shares


def _breakable(text: str, *, characters: int = _WORD_CHARACTERS) -> str:
    """The text with places to break in its long words. They are seen by nobody, and only in the PDF."""
    return " ".join(word if len(word) <= characters else _broken(word, characters) for word in text.split(" "))


def _broken(word: str, characters: int) -> str:
    """Breaks after punctuation where there is any, else after so many characters."""
    parts = (part for part in _PIECE.findall(word) if part)
    cut = (part[start : start + characters] for part in parts for start in range(0, len(part), characters))
    return _BREAK.join(cut)
