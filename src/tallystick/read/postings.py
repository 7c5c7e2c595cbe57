"""Expressions for the posting lists: which words every record that fits is sure to have.

An expression may let through too much, never too little: the record decides. So a word that the lists might
write differently than Python does is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from tallystick.core.canonical import encode
from tallystick.errors import RejectedError
from tallystick.read.query import Condition, Query, number_of
from tallystick.read.words import Search

Tokens = Callable[[str], list[str]]

CASED_ALIKE: Final = re.compile("[\\0-\u024f\u0300-\u036f\u0384-\u03f2\u0400-\u0527]")
"""Latin, Greek and Cyrillic letters that change case in FTS5, which knows Unicode 6.1, as they do in Python."""


def alternatives(tokens: Sequence[str]) -> str:
    """Any of the tokens."""
    return "(" + " OR ".join(_quoted(token) for token in tokens) + ")"


def conjunction(expressions: Sequence[str]) -> str | None:
    """All of the expressions; None when there is nothing to ask for."""
    return " AND ".join(expressions) or None


def text_expressions(query: Query, tokens: Tokens) -> list[str]:
    """What the words of a free-text search ask of the posting lists."""
    search = Search.parse(query.text)
    out = []
    for word in sorted(search.whole):
        if all(map(_is_safe, word)):
            out += [_quoted(token) for token in tokens(word)]
    for beginning in search.beginnings:
        found = [_quoted(token) for token in tokens(beginning)] if all(map(_is_safe, beginning)) else []
        if found:
            out += [*found[:-1], f"{found[-1]} *"]
    return out


def condition_expressions(query: Query, tokens: Tokens) -> list[str]:
    """What conditions on members ask of the posting lists: their names, and values that must be equal."""
    out = []
    if query.correlation_id is not None:
        out += [_quoted(token) for token in tokens(query.correlation_id)]
    for condition in query.conditions:
        if condition.operator != "lacks":
            out += [_quoted(token) for part in condition.path.parts[1:] for token in tokens(part)]
        if condition.operator == "=":
            out += _value_expression(condition, tokens)
    return out


def _value_expression(condition: Condition, tokens: Tokens) -> list[str]:
    text = conjunction([_quoted(token) for token in tokens(condition.text)])
    number = number_of(condition)
    if number is None:
        return [text] if text else []
    try:
        written = conjunction([_quoted(token) for token in tokens(encode(number).decode())])
    except (RejectedError, OverflowError):
        return []
    return [f"(({text}) OR ({written}))"] if text and written else []


def _is_safe(character: str) -> bool:
    return CASED_ALIKE.match(character) is not None or character.upper() == character == character.lower()


def _quoted(token: str) -> str:
    return '"' + token.replace('"', '""') + '"'
