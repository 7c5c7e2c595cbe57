"""What reaches the screen: clean text, aligned columns, and one JSON document.

Everything that events hold is hostile here. Whatever is not printable, terminal escapes and marks that turn
the direction of writing included, is shown as a JSON escape, in text as in JSON; markup is never read from
data. Styles appear on a terminal only, and not where NO_COLOR is set.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

Part = str | tuple[str, str]
"""A text, or a text and its style: colours and the words `bold` and `dim`."""

_GAP: Final = "  "


def prepare() -> None:
    """Let no encoding of the terminal's stop the program: what it cannot show is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def abandon() -> None:
    """Send what is still to be written nowhere: the reader has gone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def clean(text: str) -> str:
    """The text with everything unprintable as a JSON escape, such as `\\u001b`."""
    return text if text.isprintable() else "".join(map(_visible, text))


def say(*parts: Part, err: bool = False) -> None:
    """Print one line. A newline inside it is escaped like any other control character."""
    out = []
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        out.append(_styled(clean(text), style) if style and _colour() else clean(text))
    click.echo("".join(out), err=err)


def say_json(value: object) -> None:
    """Print one JSON document: indented on a terminal, one line otherwise."""
    say_json_text(json.dumps(value, ensure_ascii=False, indent=2 if on_terminal() else None))


def say_json_text(text: str) -> None:
    """Print JSON that is already text. What is unprintable is inside its strings, and is escaped there."""
    click.echo("\n".join(map(clean, text.split("\n"))))


def say_bytes(data: bytes) -> None:
    """Write bytes as they are. For those that are safe to see, or that nobody sees."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def say_pairs(pairs: Iterable[tuple[str, str]], *, indent: str = _GAP, err: bool = False) -> None:
    """Print names and values, a pair a line, the values below each other."""
    pairs = list(pairs)
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        say(indent, (name.ljust(width), "dim"), f"{_GAP}{value}", err=err)


def say_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their columns: wrapped to the terminal, or each on one line."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if on_terminal():
        _rich_table(columns, cells)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in (columns, *cells):
        click.echo(_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def on_terminal(*, err: bool = False) -> bool:
    """Whether someone is looking at stdout (or stderr)."""
    return bool((sys.stderr if err else sys.stdout).isatty())


def width() -> int:
    """The terminal's columns."""
    return shutil.get_terminal_size().columns


def shortened(text: str, columns: int) -> str:
    """The text cut to so many characters, the cut shown."""
    return text if len(text) <= columns else f"{text[: max(columns - 1, 0)]}…"


def counted(count: int, noun: str) -> str:
    """`1 record`, `2,900 records`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, overflow="fold", no_wrap=index == 0)
    for row in cells:
        table.add_row(*map(Text, row))  # a Text is shown as it is; a bare string would be read as markup
    Console(highlight=False, markup=False, emoji=False).print(table)


def _colour() -> bool:
    context = click.get_current_context(silent=True)
    return context is None or context.find_root().meta.get("colour", True)


def _styled(text: str, style: str) -> str:
    attributes: dict[str, Any] = {}
    for word in style.split():
        attributes["fg" if word not in ("bold", "dim") else word] = word if word not in ("bold", "dim") else True
    return click.style(text, **attributes)


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    escaped = json.dumps(character)[1:-1]
    return escaped if escaped.startswith("\\") else f"\\u{ord(character):04x}"
