"""Paths to members of JSON documents, as people write them: `payload.user.name`, `payload."a.b"`.

A part is a bare word, or a JSON string where it has other characters. A path goes through arrays: it then
leads to several values, one for every element that has the rest of the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tallystick.core.canonical import SURROGATE
from tallystick.errors import RejectedError
from tallystick.limits import DEPTH_MAX

_PART: Final = re.compile(r'[^\s."\'=<>!,]+|"(?:[^"\\]|\\.)*+"')
_BARE: Final = re.compile(r'[^\s."\'=<>!,]+')


@dataclass(frozen=True, slots=True)
class MemberPath:
    """The names to follow, from the outermost in."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, *, place: str = "") -> MemberPath:
        """Read what `render` writes. Raises `RejectedError` with the place, and with an example."""
        path, end = cls.parse_start(text)
        if path is None or end != len(text):
            raise RejectedError(
                f"{text[:60]!r} is not the path of a member",
                place=place,
                cure='name members from the outside in, such as payload.user.name or payload."a.b"',
            )
        return path

    @classmethod
    def parse_start(cls, text: str) -> tuple[MemberPath | None, int]:
        """The path that a text begins with, and where it ends; None and 0 when it begins with none."""
        parts: list[str] = []
        end = 0
        while match := _PART.match(text, end):
            word = match[0]
            try:
                part = json.loads(word) if word.startswith('"') else word
            except ValueError:
                return None, 0
            if SURROGATE.search(part):  # no document has such a name, and no UTF-8 could write it
                return None, 0
            parts.append(part)
            end = match.end()
            if not text.startswith(".", end):
                break
            end += 1
        if not parts or len(parts) > DEPTH_MAX or text[end - 1] == ".":
            return None, 0
        return cls(tuple(parts)), end

    def render(self) -> str:
        """Write the path: parts that are not bare words as JSON strings."""
        return ".".join(part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False) for part in self.parts)

    def values(self, document: Any) -> Iterator[Any]:
        """Every value that the path leads to, arrays gone through element by element.

        An array at its end is its elements; one that is empty is none.
        """
        for index, part in enumerate(self.parts):  # most paths go through no array
            if type(document) is not dict:
                return _follow(document, self.parts[index:])
            if part not in document:
                return iter(())
            document = document[part]
        return _follow(document, ())

    def is_in(self, document: Any) -> bool:
        """Whether the path leads anywhere, be it to an empty array."""
        return _leads(document, self.parts)


def _follow(value: Any, parts: tuple[str, ...]) -> Iterator[Any]:
    if isinstance(value, list):
        for element in value:
            yield from _follow(element, parts)
    elif not parts:
        yield value
    elif isinstance(value, dict) and parts[0] in value:
        yield from _follow(value[parts[0]], parts[1:])


def _leads(value: Any, parts: tuple[str, ...]) -> bool:
    if not parts:
        return True
    if isinstance(value, list):
        return any(_leads(element, parts) for element in value)
    return isinstance(value, dict) and parts[0] in value and _leads(value[parts[0]], parts[1:])
