"""Plain YAML: the part of it that people mean, and nothing by which a small file can be more than it looks.

No aliases, anchors, tags, second documents or repeated keys; dates stay text; true, false, null and decimal numbers
are what they say, everything else is text. Bounded in bytes and depth before any value is made. `Members` then
takes a mapping apart, so that an unknown or missing member is named with its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from tallystick.errors import RejectedError

YAML_BYTES_MAX: Final = 262_144
"""A catalogue or the head of a document; the shipped ones have under 30,000 bytes each."""

DEPTH_MAX: Final = 12
"""Nesting of lists and mappings: catalogues need five, and the parser recurses."""

_BOOL: Final = re.compile(r"true|false")
_NULL: Final = re.compile(r"null|")
_INT: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,15})", re.ASCII)
_FLOAT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+", re.ASCII)

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _PlainLoader(_Loader):  # type: ignore[misc]  # which of two it is, is known when it runs
    """The safe loader, with fewer kinds of scalars, and without repeated keys."""

    yaml_implicit_resolvers: Final[dict[str, Any]] = {}


for _tag, _pattern, _first in (
    ("bool", re.compile(rf"(?:{_BOOL.pattern})\Z"), "tf"),
    ("int", re.compile(rf"(?:{_INT.pattern})\Z", re.ASCII), "-0123456789"),
    ("float", re.compile(rf"(?:{_FLOAT.pattern})\Z", re.ASCII), "-0123456789"),
    ("null", re.compile(rf"(?:{_NULL.pattern})\Z"), ["n", ""]),
):
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list(_first))


def _mapping(loader: Any, node: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        where = f"line {key_node.start_mark.line + 1}"
        if not isinstance(key, str):
            raise RejectedError(f"the key {str(key)[:40]!r} is not text", place=where, cure="put it in quotes")
        if key in out:
            raise RejectedError(f"the key {key[:40]!r} comes twice", place=where, cure="leave one of them out")
        out[key] = loader.construct_object(value_node, deep=True)
    return out


_PlainLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_yaml(data: bytes, *, place: str) -> Any:
    """Read one plain document. Raises `RejectedError` with the place, which is `place` and a line."""
    if len(data) > YAML_BYTES_MAX:
        cure = "is it the right file?"
        raise RejectedError(f"{len(data):,} bytes; at most {YAML_BYTES_MAX:,} are read", place=place, cure=cure)
    try:
        text = data.decode("utf-8")
        _check_events(text)
        return yaml.load(text, _PlainLoader)
    except UnicodeDecodeError as error:
        raise RejectedError("not UTF-8", place=place, cure="save it as UTF-8") from error
    except RejectedError as error:
        raise RejectedError(error.problem, place=f"{place}, {error.place}", cure=error.cure) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{place}, line {mark.line + 1}" if mark else place
        problem = getattr(error, "problem", None) or "not YAML"
        raise RejectedError(f"not YAML: {problem}", place=where, cure="mend it there, or above it") from error


def _check_events(text: str) -> None:
    """Whether the text stays within what is plain, looked at before any of it is built."""
    depth = 0
    documents = 0
    events: Iterator[Any] = yaml.parse(text, _Loader)
    for event in events:
        line = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise RejectedError("anchors and aliases are not read", place=line, cure="write it out")
        if getattr(event, "tag", None) is not None:
            raise RejectedError("tags are not read", place=line, cure="leave it out")
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise RejectedError("a second document begins", place=line, cure="keep one")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_MAX:
            raise RejectedError(f"nested more than {DEPTH_MAX} deep", place=line, cure="make it flatter")


class Members:
    """A mapping that is being read: every member is asked for by name, and `done` refuses those that nobody wanted."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise RejectedError("not a mapping of names to values", place=place)
        self.place = place
        """Where the mapping stands; whoever learns its name may add it."""
        self._rest: Final[dict[str, Any]] = dict(value)
        self._known: Final[list[str]] = []

    def at(self, name: str) -> str:
        """The place of a member."""
        return f"{self.place}, {name}"

    def take(self, name: str, *, optional: bool = False) -> Any:
        """A member's value, None for one that is not there and need not be."""
        self._known.append(name)
        value = self._rest.pop(name, None)
        if value is None and not optional:
            raise RejectedError(f"{name} is missing", place=self.place, cure="add it")
        return value

    def text(self, name: str, *, characters_max: int = 2_000, default: str | None = None) -> str:
        """A member that is text, its white space made single spaces."""
        value = self.take(name, optional=default is not None)
        return default or "" if value is None else as_text(value, self.at(name), characters_max=characters_max)

    def texts(self, name: str, *, items_max: int = 100, optional: bool = False) -> tuple[str, ...]:
        """A member that is a list of texts."""
        return tuple(as_text(item, at) for at, item in self.items(name, items_max=items_max, optional=optional))

    def items(self, name: str, *, items_max: int = 100, optional: bool = False) -> Iterator[tuple[str, Any]]:
        """The elements of a member that is a list, each with its place."""
        value = self.take(name, optional=optional)
        value = [] if value is None else value
        if not isinstance(value, list) or (not value and not optional):
            raise RejectedError("not a list with something in it", place=self.at(name), cure="write it as [a, b]")
        if len(value) > items_max:
            raise RejectedError(f"{len(value)} elements; at most {items_max}", place=self.at(name))
        return ((f"{self.at(name)} {number}", item) for number, item in enumerate(value, 1))

    def pairs(self, name: str, *, items_max: int = 1_000) -> Iterator[tuple[str, str, Any]]:
        """Key, place and value of the members of a member that is a mapping, which may be absent."""
        value = self.take(name, optional=True)
        if value is not None and (not isinstance(value, dict) or len(value) > items_max):
            raise RejectedError(f"not a mapping of at most {items_max} names", place=self.at(name))
        return ((key, f"{self.at(name)} {key[:60]}", item) for key, item in (value or {}).items())

    def done(self) -> None:
        """Refuse what is left."""
        for name in self._rest:
            cure = f"use {', '.join(self._known)}"
            raise RejectedError(f"there is no member {name[:40]!r}", place=self.place, cure=cure)


def as_text(value: object, place: str, *, characters_max: int = 2_000) -> str:
    """A text that is not empty, its white space made single spaces."""
    if not isinstance(value, str):
        raise RejectedError(f"{str(value)[:40]!r} is not text", place=place, cure="put it in quotes")
    text = " ".join(value.split())
    if not 0 < len(text) <= characters_max:
        raise RejectedError(f"a text of {len(text)} characters; 1 to {characters_max} are taken", place=place)
    return text


def as_days(value: object, place: str, *, days_max: int = 3_660) -> int:
    """A whole number of days from 1."""
    if type(value) is not int or not 1 <= value <= days_max:
        raise RejectedError(f"{str(value)[:40]!r} is no number of days from 1 to {days_max}", place=place)
    return value
