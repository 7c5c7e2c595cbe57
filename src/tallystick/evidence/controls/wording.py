"""Queries in words, for people who read what a control or a figure was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tallystick.core import timestamp
from tallystick.read.condition import Condition
from tallystick.read.query import Query

_OPERATORS: Final = {
    "=": "is",
    "!=": "is there and is not",
    "<": "is below",
    "<=": "is at most",
    ">": "is above",
    ">=": "is at least",
}


def in_words(query: Query) -> str:
    """What the query asks for, as the rest of a sentence that begins with the word events."""
    return ", ".join(_parts(query)) or "of any kind"


def in_prose(name: str) -> str:
    """A selector's name as a noun in a sentence: names are plurals with hyphens, such as `access-reviews`."""
    return name.replace("-", " ").replace("sign in", "sign-in")


def _parts(query: Query) -> Iterator[str]:
    if query.event_types:
        yield f"of type {_any(query.event_types)}"
    if query.entities:
        yield f"about {_any(query.entities)}"
    if query.actors:
        yield f"caused by {_any(query.actors)}"
    if query.labels:
        yield f"labelled {' and '.join(query.labels)}"
    if query.event_id is not None:
        yield f"with the id {query.event_id}"
    if query.correlation_id is not None:
        yield f"of the correlation {query.correlation_id}"
    yield from (_condition(condition) for condition in query.conditions)
    if query.text:
        yield f"with the words {query.text} in the payload"
    yield from _when(query)


def _when(query: Query) -> Iterator[str]:
    for name, words in (
        ("after", "recorded from {}"),
        ("before", "recorded before {}"),
        ("occurred_after", "that occurred from {}"),
        ("occurred_before", "that occurred before {}"),
    ):
        moment = getattr(query, name)
        if moment is not None:
            yield words.format(timestamp.render(moment))
    if query.first is not None:
        yield f"from position {query.first}"
    if query.end is not None:
        yield f"below position {query.end}"


def _condition(condition: Condition) -> str:
    path = condition.path.render()
    if condition.operator == "has":
        return f"that have {path}"
    if condition.operator == "lacks":
        return f"without {path}"
    return f"whose {path} {_OPERATORS[condition.operator]} {condition.value}"


def _any(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
