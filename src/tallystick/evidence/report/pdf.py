"""A report as PDF, laid out by Typst.

The layout is `page.typ`, a file of ours; the report goes to it as JSON, and its strings are laid out, never evaluated.
So no text of an event can be Typst, whatever it says. Typst comes with the extra `pdf`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Final

from tallystick.core.timestamp import SECOND
from tallystick.errors import RejectedError
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
    Rule,
    Source,
    Table,
    Timeline,
    Words,
)
from tallystick.evidence.report.charts import svg

_WORD_CHARACTERS: Final = 18
"""After so many characters a long word may be broken, so that a column of hashes fits."""

_BREAK: Final = "\u200b"


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
        sys_inputs={"page": json.dumps(_page(page), ensure_ascii=False)},
        timestamp=page.made_at // SECOND,
    )
    return compiled


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
        "facts": [[name, _breakable(value)] for name, value in page.facts],
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
        "rows": [[{"text": _breakable(cell.text), "tone": cell.tone} for cell in row] for row in node.rows],
        "numbers": [*node.numbers],
        "widths": _widths(node),
        **common,
    }


def _words(words: Iterable[Words]) -> list[dict[str, Any]]:
    return [
        {"text": word.text, "mono": word.mono, "strong": word.strong, "emphasis": word.emphasis, "href": word.href}
        for word in words
    ]


def _source(sources: Iterable[Source], page: Page) -> list[str]:
    told = "".join(_breakable(text) for source in dict.fromkeys(sources) for text, _ in source.told())
    return [f"{told}{page.checkpoint}"] if told else []


def _widths(table: Table) -> list[int]:
    """The share of each column: what its longest text wants, within reason."""
    texts: list[Sequence[str]] = [
        [name, *(row[index].text for row in table.rows)] for index, name in enumerate(table.columns)
    ]
    return [min(max(5, *map(len, column)) + 2, 44) for column in texts]


def _breakable(text: str) -> str:
    """The text with places to break in its long words. They are seen by nobody, and only in the PDF."""
    return " ".join(
        word
        if len(word) <= _WORD_CHARACTERS
        else _BREAK.join(word[start : start + _WORD_CHARACTERS] for start in range(0, len(word), _WORD_CHARACTERS))
        for word in text.split(" ")
    )
