"""What a report is made of: prose and figures as values, before they are HTML or PDF.

Text of events enters a report here and only here, as plain strings with everything unprintable made visible. No
string is ever read as Markdown, as a template or as Typst after that; each renderer escapes it for what it writes.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

CELL_CHARACTERS_MAX: Final = 600
"""Of one cell: a page is for reading, the record itself is in the bundle."""

_COMMAND_CHARACTERS_MAX: Final = 320
"""Of a command in the small print: what is longer stands at the end, once."""

Tone: TypeAlias = Literal["gap", "found", "quiet"]


def visible(value: object, *, characters_max: int = CELL_CHARACTERS_MAX) -> str:
    """A value as text on one line: strings as they are, else JSON; what is not printable as a JSON escape.

    So nothing can turn the direction of writing, break a line, or hide. A text that is cut says so with an ellipsis.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > characters_max:
        text = f"{text[: characters_max - 1]}…"
    return printable(text)


def printable(text: str, *, but: str = "") -> str:
    """The text with everything unprintable as a JSON escape, but for these characters."""
    return text if text.isprintable() else "".join(_shown(each) if each not in but else each for each in text)


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    escaped = json.dumps(character)[1:-1]
    return escaped if escaped.startswith("\\") else f"\\u{ord(character):04x}"


# ------------------------------------------------------------------------------------------------- figures


Terms: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a figure was made from: queries as their terms, or selectors of the catalogue by name, any of which counts.

    The checkpoint is that of the whole report. The terms of selectors stand once, at its end.
    """

    terms: tuple[Terms, ...] = ()
    selectors: tuple[tuple[str, tuple[Terms, ...]], ...] = ()
    """Name → the terms of its queries."""
    within: Terms = ()
    """Terms that each of the selectors' queries had besides."""
    how: str = ""

    def told(self) -> list[tuple[str, bool]]:
        """The small print, in parts: a text, and whether it is terms."""
        parts: list[tuple[str, bool]] = [("Made from ", False)]
        for number, terms in enumerate(self.terms):
            parts += [("; or ", False)] * (number > 0) + [(shown_terms(terms), True)]
        command = self._query()
        if command:
            return [
                *parts,
                (command, True),
                (f" (selector {self.selectors[0][0]}{self.how and ', '}{self.how}). ", False),
            ]
        if self.selectors:
            parts.append(("selectors " if len(self.selectors) > 1 else "selector ", False))
        for number, (name, _) in enumerate(self.selectors):
            parts += [(", ", False)] * (number > 0) + [(name, True)]
        if self.within:
            parts += [(" with ", False), (shown_terms(self.within), True)]
        where = "their terms are" if len(self.selectors) > 1 else "its terms are"
        parts += [(f"; {where} under Sources at the end", False)] * bool(self.selectors)
        return [*parts, (f" ({self.how}). " if self.how else ". ", False)]

    def _query(self) -> str:
        """The command that asks the same again, empty where it takes several or is long."""
        queries = [terms for _, queries in self.selectors for terms in queries]
        if len(queries) != 1 or self.terms:
            return ""
        command = shlex.join(["tallystick", "query", *queries[0], *self.within])
        return visible(command) if len(command) <= _COMMAND_CHARACTERS_MAX else ""


def shown_terms(terms: Terms) -> str:
    """The terms of one query on one line, visible."""
    return visible("  ".join(terms) or "all records", characters_max=4_000)


@dataclass(frozen=True, slots=True)
class Cell:
    """A text in a table; a tone says how it is meant."""

    text: str
    tone: Tone | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under columns. Numbers stand to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    source: Source
    numbers: tuple[int, ...] = ()
    """The columns that hold numbers."""
    unbroken: tuple[int, ...] = ()
    """The columns whose texts are ids, which stay on one line."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Values by label, in one or several series. `ranking` has a bar a label, one below the other."""

    title: str
    kind: Literal["bars", "lines", "ranking"]
    labels: tuple[str, ...]
    series: tuple[tuple[str, tuple[float | None, ...]], ...]
    source: Source
    unit: str = "records"
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One moment of a timeline."""

    when: str
    what: str
    who: str
    details: tuple[tuple[str, str], ...]
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What happened, one after another."""

    title: str
    entries: tuple[Entry, ...]
    source: Source
    note: str = ""


Figure: TypeAlias = Table | Chart | Timeline


class Counted(int):
    """A number in the text, which knows what it counts."""

    source: Source

    @classmethod
    def of(cls, value: int, source: Source) -> Counted:
        number = cls(value)
        number.source = source
        return number


# --------------------------------------------------------------------------------------------------- prose


@dataclass(frozen=True, slots=True)
class Words:
    text: str
    strong: bool = False
    emphasis: bool = False
    mono: bool = False
    href: str = ""
    """Where it leads, for words of the document itself; never from an event."""


@dataclass(frozen=True, slots=True)
class Heading:
    level: int
    words: tuple[Words, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    words: tuple[Words, ...]
    sources: tuple[Source, ...] = ()
    """Of the numbers in it."""


@dataclass(frozen=True, slots=True)
class Items:
    """A list, each item of nodes."""

    ordered: bool
    items: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Quote:
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Code:
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of the document's own."""

    head: tuple[tuple[Words, ...], ...]
    rows: tuple[tuple[tuple[Words, ...], ...], ...]
    sources: tuple[Source, ...] = ()


Node: TypeAlias = Heading | Paragraph | Items | Quote | Code | Rule | Grid | Table | Chart | Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole report."""

    title: str
    description: str
    nodes: tuple[Node, ...]
    facts: tuple[tuple[str, str], ...]
    """What stands at the head: the ledger, the time, the checkpoint."""
    checkpoint: str
    """In short, for the small print: origin, size, beginning of the root."""
    root: str
    made_at: int
    """When it was made, in microseconds."""
