"""Placeholders: the marks that stand in a document's Markdown for what an expression came to.

The value itself stays here until the Markdown has been read, so that no text of an event is ever parsed. A mark is
made of two characters of Unicode's private use area, which a document may not contain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from tallystick.errors import RejectedError
from tallystick.evidence.report.blocks import Counted, Node, visible

FIGURES_MAX: Final = 2_000
"""Values of one report."""

_OPEN: Final = "\ue000"
_CLOSE: Final = "\ue001"
_MARK: Final = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


def check(text: str, *, place: str) -> None:
    """Whether a document is free of what marks are made of. Raises `RejectedError`."""
    if _OPEN in text or _CLOSE in text:
        raise RejectedError("a character of the private use area", place=place, cure="leave U+E000 and U+E001 out")


class Placeholders:
    """The values of one report, by number."""

    def __init__(self) -> None:
        self._values: Final[list[Any]] = []

    def mark(self, value: Any) -> str:
        """Keep a value and give its mark."""
        if len(self._values) >= FIGURES_MAX:
            raise RejectedError(f"more than {FIGURES_MAX} values in one report", cure="split the document")
        self._values.append(value)
        return f"{_OPEN}{len(self._values) - 1}{_CLOSE}"

    def split(self, text: str) -> Iterator[str | Counted | tuple[Node, ...]]:
        """A text of the Markdown in its parts: words, numbers, and blocks of nodes."""
        end = 0
        for match in _MARK.finditer(text):
            if match.start() > end:
                yield text[end : match.start()]
            value = self._values[int(match[1])]
            yield value if isinstance(value, Counted | tuple) else visible(value)
            end = match.end()
        if end < len(text):
            yield text[end:]

    def plain(self, text: str, *, place: str) -> str:
        """A text that can hold no figure, its marks replaced. Raises `RejectedError` where one stands."""
        out = []
        for part in self.split(text):
            if isinstance(part, tuple):
                raise RejectedError("a figure inside a line", place=place, cure="give it a paragraph of its own")
            out.append(str(int(part)) if isinstance(part, Counted) else part)
        return "".join(out)
