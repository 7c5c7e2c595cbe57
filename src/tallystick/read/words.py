"""The words of a text: what a free-text search compares.

A word is a maximal run of characters that are letters, digits, marks or for private use, in lower case
(`str.lower`); everything else separates words. A search names words that must all be there, in any order; one
that ends in `*` stands for every word that begins so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Final
from unicodedata import category

from tallystick.core.canonical import canonical

_ASCII_WORD: Final = re.compile(r"[A-Za-z0-9]+")
_ESCAPE: Final = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
PLAIN_BELOW: Final = "\u0370"
"""Latin, and marks: below this, every table of characters since Unicode 6.1 parts words as we do."""

_BEYOND: Final = re.compile("[\u0370-\U0010ffff]")
_NAMES: Final = {None: "null", True: "true", False: "false"}


def words(text: str) -> Iterator[str]:
    """The words of a text, in its order, as often as they are there."""
    if text.isascii():
        yield from _ASCII_WORD.findall(text.lower())
        return
    for is_word, run in groupby(text, _is_of_word):
        if is_word:
            yield "".join(run).lower()  # one by one, as the lower case of a letter may depend on those around it


def words_of(document: Any) -> set[str]:
    """The words of all member names and all scalar values of a JSON document.

    Numbers are their canonical JSON text, so that 1.5 is the words 1 and 5; true, false and null are their names.
    """
    found: set[str] = set()
    ahead = [document]
    while ahead:
        value = ahead.pop()
        kind = type(value)
        if kind is str:
            found.update(words(value))
        elif kind is dict:
            found.update(word for name in value for word in words(name))
            ahead += value.values()
        elif kind is list:
            ahead += value
        elif kind is int:
            found.add(str(abs(value)))
        else:
            found.update(words(_NAMES[value] if value is None or kind is bool else canonical(value).decode()))
    return found


def searchable(text: str) -> str:
    """Canonical JSON text with spaces for its escapes, and for all that parts words beyond `PLAIN_BELOW`.

    It has the words of what it stands for: canonical JSON escapes quotes, backslashes and control characters, of
    which none is part of a word. Whoever splits it by another table of characters now parts words at least here.
    """
    text = _ESCAPE.sub(" ", text)
    if not text.isascii():
        text = text.replace("\u0130", "i\u0307")  # the one letter whose lower case is two characters
    return text if text.isascii() else _BEYOND.sub(lambda found: found[0] if _is_of_word(found[0]) else " ", text)


@dataclass(frozen=True, slots=True)
class Search:
    """The words that a free-text search asks for."""

    whole: frozenset[str]
    beginnings: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Search:
        """Read a search: where what stands between white space ends in `*`, its last word is a beginning."""
        whole: set[str] = set()
        beginnings: dict[str, None] = {}
        for chunk in text.split():
            found = [*words(chunk)]
            if found and chunk.endswith("*"):
                beginnings[found.pop()] = None
            whole.update(found)
        return cls(frozenset(whole), tuple(beginnings))

    def __len__(self) -> int:
        return len(self.whole) + len(self.beginnings)

    def fits(self, document: Any) -> bool:
        """Whether the words are among those of a JSON document."""
        found = words_of(document)
        return self.whole <= found and all(
            any(word.startswith(beginning) for word in found) for beginning in self.beginnings
        )


@lru_cache(maxsize=4096)
def _is_of_word(character: str) -> bool:
    return character.isalnum() or category(character)[0] == "M" or category(character) == "Co"
