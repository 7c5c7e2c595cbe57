"""A report as one HTML file: no script, nothing from outside, and a policy that forbids both.

Every text is escaped where it is written. What was written is then read again by nh3, an HTML sanitiser with a short
list of what may be there, as a second lock; charts are drawn by `charts` alone and need none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape as escape_html
from importlib.resources import files
from typing import Final

import nh3

from tallystick.evidence.report.blocks import (
    Cell,
    Chart,
    Code,
    Entry,
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

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

_TAGS: Final = {
    *("a", "b", "blockquote", "br", "code", "dd", "div", "dl", "dt", "em", "figcaption", "figure", "h1", "h2", "h3"),
    *("h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr"),
    *("ul", "header", "footer"),
}
_ATTRIBUTES: Final = {"*": {"class"}, "a": {"href"}, "th": {"scope"}}

_SHORT: Final = 24
"""Characters of a cell that is not broken over lines."""


def escape(text: str) -> str:
    """Any text, as HTML that shows it: the one way in which text gets into the file."""
    return escape_html(printable(text))


def render(page: Page) -> str:
    """The whole file."""
    style = (files("tallystick.evidence.report") / "style.css").read_text("utf-8")
    body = "".join(_sanitised(part, drawn=drawn) for part, drawn in _parts(page))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n"
        "</html>\n"
    )


def _sanitised(part: str, *, drawn: bool) -> str:
    if drawn:
        return part
    return nh3.clean(
        part,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noreferrer noopener",
    )


def _parts(page: Page) -> Iterator[tuple[str, bool]]:
    """The body in parts, each whole by itself, and whether it was drawn by us."""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.facts)
    yield (
        f'<header><p class="maker">Tallystick evidence</p><h1>{escape(page.title)}</h1>'
        f'<p class="about">{escape(page.description)}</p><dl>{facts}</dl></header>\n',
        False,
    )
    for node in page.nodes:
        if isinstance(node, Chart):
            yield from _chart(node, page)
        else:
            yield f"{''.join(_node(node, page))}\n", False
    yield (
        f"<footer><p>Made from the ledger {escape(page.checkpoint)} All figures are of the records below that size. "
        f"Root of the hash tree: <code>{escape(page.root)}</code>. Compare it with a checkpoint that you hold.</p>"
        "</footer>\n",
        False,
    )


def _chart(chart: Chart, page: Page) -> Iterator[tuple[str, bool]]:
    yield _title(chart.title), False
    yield svg(chart), True
    yield f'<div class="figure-end">{_note(chart.note)}{_source((chart.source,), page)}</div>\n', False


def _node(node: Node, page: Page) -> Iterator[str]:
    match node:
        case Heading():
            level = max(node.level, 2)  # the page's own title is the first
            yield f"<h{level}>{_words(node.words)}</h{level}>"
        case Paragraph():
            if node.words:
                yield f"<p>{_words(node.words)}</p>"
            yield _source(node.sources, page)
        case Items():
            tag = "ol" if node.ordered else "ul"
            items = ("".join(part for inner in item for part in _node(inner, page)) for item in node.items)
            yield f"<{tag}>{''.join(f'<li>{item}</li>' for item in items)}</{tag}>"
        case Quote():
            yield f"<blockquote>{''.join(part for inner in node.nodes for part in _node(inner, page))}</blockquote>"
        case Code():
            lines = "\n".join(map(escape, node.text.split("\n")))
            yield f"<pre><code>{lines}</code></pre>"
        case Rule():
            yield "<hr>"
        case Grid():
            yield _grid(node, page)
        case Table():
            yield _table(node, page)
        case Timeline():
            yield _timeline(node, page)
        case Chart():
            yield "".join(part for part, _ in _chart(node, page))


def _words(words: Iterable[Words]) -> str:
    return "".join(map(_word, words))


def _word(word: Words) -> str:
    text = escape(word.text)
    for tag, wanted in (("code", word.mono), ("em", word.emphasis), ("strong", word.strong)):
        text = f"<{tag}>{text}</{tag}>" if wanted else text
    return f'<a href="{escape(word.href)}">{text}</a>' if word.href else text


def _grid(grid: Grid, page: Page) -> str:
    head = "".join(f'<th scope="col">{_words(words)}</th>' for words in grid.head)
    rows = "".join(f"<tr>{''.join(f'<td>{_words(words)}</td>' for words in row)}</tr>" for row in grid.rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<figure>{table}{_source(grid.sources, page)}</figure>"


def _table(table: Table, page: Page) -> str:
    if not table.rows:
        return f"<figure>{_title(table.title)}{_note(table.note)}{_source((table.source,), page)}</figure>"
    short = [all(len(row[index].text) <= _SHORT for row in table.rows) for index in range(len(table.columns))]
    classes = [
        "number" if index in table.numbers else "short" if short[index] or index in table.unbroken else ""
        for index in range(len(short))
    ]
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(name)}</th>' for name, kind in zip(table.columns, classes, strict=True)
    )
    rows = "".join(
        f"<tr>{''.join(_cell(cell, kind) for cell, kind in zip(row, classes, strict=True))}</tr>" for row in table.rows
    )
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<figure>{_title(table.title)}{body}{_note(table.note)}{_source((table.source,), page)}</figure>"


def _cell(cell: Cell, kind: str) -> str:
    return f'<td class="{" ".join(filter(None, (kind, cell.tone)))}">{escape(cell.text)}</td>'


def _timeline(timeline: Timeline, page: Page) -> str:
    entries = "".join(map(_entry, timeline.entries))
    body = f'<ol class="timeline">{entries}</ol>' if entries else ""
    return f"<figure>{_title(timeline.title)}{body}{_note(timeline.note)}{_source((timeline.source,), page)}</figure>"


def _entry(entry: Entry) -> str:
    more = "; ".join(f"<b>{escape(name)}</b> {escape(text)}" for name, text in entry.details)
    return (
        f'<li><div class="when">{escape(entry.when)} · record {entry.position}</div>'
        f'<div class="what">{escape(entry.what)}</div><div>{escape(entry.who)}</div>'
        f'{f"""<div class="more">{more}</div>""" if more else ""}</li>'
    )


def _title(title: str) -> str:
    return f"<h4>{escape(title)}</h4>" if title else ""


def _note(note: str) -> str:
    return f'<p class="note">{escape(note)}</p>' if note else ""


def _source(sources: Iterable[Source], page: Page) -> str:
    """The small print: the terms, how they were used, and the checkpoint."""
    told = "".join(
        f"<code>{escape(text)}</code>" if terms else escape(text)
        for source in dict.fromkeys(sources)
        for text, terms in source.told()
    )
    return f'<p class="source">{told}{escape(page.checkpoint)}</p>' if told else ""
