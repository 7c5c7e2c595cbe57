"""From Markdown to the nodes of a report: CommonMark with tables, and no HTML.

The parser sees the document's own words, with marks where expressions stood (`placeholders`); here the marks become
words and figures. Images are their text; links lead to the web or by mail, and never to what an expression says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from tallystick.errors import RejectedError
from tallystick.evidence.report.blocks import (
    Code,
    Counted,
    Grid,
    Heading,
    Items,
    Node,
    Paragraph,
    Quote,
    Rule,
    Source,
    Words,
)
from tallystick.evidence.report.placeholders import Placeholders

_HREF: Final = re.compile(r"(?:https?://|mailto:)[!-~]{1,2000}")
_MARKDOWN: Final = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable("table")


def nodes_of(markdown: str, values: Placeholders, *, place: str, first_line: int = 1) -> tuple[Node, ...]:
    """The nodes of a document. Raises `RejectedError` with the line for a figure where none can stand."""
    tree = SyntaxTreeNode(_MARKDOWN.parse(markdown))
    return tuple(_Reading(values, place, first_line).blocks(tree.children))


class _Reading:
    """One document while it is read."""

    def __init__(self, values: Placeholders, place: str, first_line: int) -> None:
        self._values: Final = values
        self._place: Final = place
        self._first_line: Final = first_line

    def blocks(self, children: Iterable[SyntaxTreeNode]) -> Iterator[Node]:
        for node in children:
            match node.type:
                case "heading":
                    words, sources = self._words(node)
                    yield Heading(int(node.tag[1]), words)
                    if sources:
                        yield Paragraph((), sources)
                case "paragraph":
                    yield from self._paragraph(node)
                case "bullet_list" | "ordered_list":
                    items = tuple(tuple(self.blocks(item.children)) for item in node.children)
                    yield Items(node.type == "ordered_list", items)
                case "blockquote":
                    yield Quote(tuple(self.blocks(node.children)))
                case "fence" | "code_block":
                    text = node.content.removesuffix("\n")
                    yield Code(self._values.plain(text, place=self._where(node)))
                case "hr":
                    yield Rule()
                case "table":
                    yield self._grid(node)
                case other:
                    raise RejectedError(f"{other} is not read", place=self._where(node))

    def _paragraph(self, node: SyntaxTreeNode) -> Iterator[Node]:
        """A paragraph, or the figures that stand in it one below the other."""
        inline = node.children[0]
        plain = all(child.type in ("text", "softbreak", "hardbreak") for child in inline.children)
        parts = [
            part for child in inline.children if child.type == "text" for part in self._values.split(child.content)
        ]
        if plain and any(isinstance(part, tuple) for part in parts):
            rest = [part for part in parts if not isinstance(part, tuple)]
            if all(isinstance(part, str) and not part.strip() for part in rest):
                for part in parts:
                    if isinstance(part, tuple):
                        yield from part
                return
        words, sources = self._words(node)
        if words:
            yield Paragraph(words, sources)

    def _grid(self, node: SyntaxTreeNode) -> Grid:
        rows = [row for part in node.children for row in part.children]
        cells = [[self._words(cell) for cell in row.children] for row in rows]
        sources = tuple(source for row in cells for _, found in row for source in found)
        texts = [tuple(words for words, _ in row) for row in cells]
        return Grid(texts[0], tuple(texts[1:]), sources)

    def _words(self, node: SyntaxTreeNode) -> tuple[tuple[Words, ...], tuple[Source, ...]]:
        """The words in a node, and the sources of the numbers among them."""
        sources: list[Source] = []
        inline = node.children[0] if node.children else None
        words = tuple(self._inline(inline, Words(""), sources)) if inline is not None else ()
        return words, tuple(sources)

    def _inline(self, node: SyntaxTreeNode, style: Words, sources: list[Source]) -> Iterator[Words]:
        for child in node.children:
            match child.type:
                case "text" | "code_inline":
                    inner = replace(style, mono=child.type == "code_inline")
                    yield from self._text(child.content, inner, sources, self._where(node))
                case "softbreak" | "hardbreak":
                    yield replace(style, text=" ")
                case "strong":
                    yield from self._inline(child, replace(style, strong=True), sources)
                case "em":
                    yield from self._inline(child, replace(style, emphasis=True), sources)
                case "link":
                    href = str(child.attrs.get("href", ""))
                    if not _HREF.fullmatch(href) or "%EE%80%80" in href:
                        cure = "write an address of the web out; what an expression says cannot be one"
                        raise RejectedError(f"a link to {href[:60]!r}", place=self._where(node), cure=cure)
                    yield from self._inline(child, replace(style, href=href), sources)
                case "image":
                    yield replace(style, text=self._values.plain(child.content, place=self._where(node)))
                case other:
                    raise RejectedError(f"{other} is not read", place=self._where(node))

    def _text(self, text: str, style: Words, sources: list[Source], where: str) -> Iterator[Words]:
        for part in self._values.split(text):
            if isinstance(part, tuple):
                raise RejectedError("a figure inside a line", place=where, cure="give it a paragraph of its own")
            if isinstance(part, Counted):
                sources.append(part.source)
            if part != "":
                yield replace(style, text=f"{part:,}" if isinstance(part, Counted) else part)

    def _where(self, node: SyntaxTreeNode) -> str:
        try:
            line = node.map[0] if node.map else None
        except AttributeError:
            line = None
        return self._place if line is None else f"{self._place}, near line {line + self._first_line}"
