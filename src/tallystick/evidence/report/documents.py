"""Documents: Markdown with a head in YAML that says what the report is called and what it wants to be told.

The shipped ones lie in `documents/`; anyone's own are files. A parameter is a text, an integer, a flag, a date, or
an entity, which the ledger has to know; one without a default must be given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from tallystick.core.moment import Moment
from tallystick.core.strict import parse_decimal
from tallystick.errors import NotFoundError, RejectedError
from tallystick.evidence.controls.plain_yaml import Members, as_days, parse_yaml
from tallystick.evidence.report import placeholders

DOCUMENT_BYTES_MAX: Final = 262_144
"""A document of one's own: longer than any book chapter."""

_TYPES: Final = ("text", "integer", "flag", "date", "entity")
_PARAMETER: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_VALUE_CHARACTERS_MAX: Final = 50_000
"""A parameter: the ids of every control of the largest catalogue fit."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a document wants to be told."""

    name: str
    type: str
    about: str
    default: str | int | bool | None
    """None when it must be given."""
    in_head: bool = True
    """Whether a value that is given stands at the head of the report."""

    def read(self, text: str) -> str | int | bool:
        """A value as it is given on a command line. Raises `RejectedError`."""
        if len(text) > _VALUE_CHARACTERS_MAX:
            raise RejectedError(f"a value of {len(text)} characters", place=self.name, cure="give a shorter one")
        if self.type == "integer":
            return parse_decimal(text, maximum=10**15, place=self.name)
        if self.type == "flag":
            if text not in ("true", "false"):
                raise RejectedError(f"{text[:40]!r} is no flag", place=self.name, cure="say true or false")
            return text == "true"
        if self.type == "date" and text:
            Moment.parse(text, place=self.name)
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document that was read, and not yet filled in."""

    name: str
    title: str
    description: str
    window_days: int
    parameters: tuple[Parameter, ...]
    body: str
    """The Markdown with its expressions, preceded by as many empty lines as the head had, so that lines count."""
    source: str

    def values(self, given: Mapping[str, str]) -> dict[str, Any]:
        """The parameters by name. Raises `RejectedError` for one that is not known, missing or of another type."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                cure = f"use {', '.join(known)}" if known else "it takes none"
                raise RejectedError(f"{self.name} has no such parameter", place=name[:40], cure=cure)
        out: dict[str, Any] = {}
        for name, parameter in known.items():
            value = parameter.read(given[name]) if name in given else parameter.default
            if value is None:
                cure = f"give {name}=…: {parameter.about}"
                raise RejectedError(f"{self.name} has to be told", place=name, cure=cure)
            out[name] = value
        return out


def shipped() -> list[Document]:
    """The documents that come with Tallystick, by name."""
    folder = files("tallystick.evidence.report") / "documents"
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".md"))
    return [parse(name.removesuffix(".md"), (folder / name).read_bytes(), place=name) for name in found]


def load(name: str) -> Document:
    """A shipped document by its name, or one's own by its file, which ends in `.md`.

    Raises `NotFoundError` with the names there are, and `RejectedError` for a file that is none.
    """
    if name.endswith(".md"):
        try:
            with Path(name).open("rb") as stream:
                data = stream.read(DOCUMENT_BYTES_MAX + 1)
        except OSError as error:
            raise RejectedError(f"cannot be read: {error.strerror or error}", place=name) from error
        return parse(Path(name).stem, data, place=name)
    documents = {document.name: document for document in shipped()}
    if name not in documents:
        raise NotFoundError(f"there is no report {name[:60]!r}: use one of {', '.join(documents)}, or a file FILE.md")
    return documents[name]


def parse(name: str, data: bytes, *, place: str) -> Document:
    """Read a document. Raises `RejectedError` with the place."""
    if len(data) > DOCUMENT_BYTES_MAX:
        raise RejectedError(f"more than {DOCUMENT_BYTES_MAX:,} bytes", place=place, cure="is it the right file?")
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise RejectedError("not UTF-8", place=place, cure="save it as UTF-8") from error
    placeholders.check(text, place=place)
    head, end, body = text.removeprefix("---\n").partition("\n---\n")
    if not text.startswith("---\n") or not end:
        cure = "begin with a head between two lines of ---, with title and description"
        raise RejectedError("no head", place=place, cure=cure)
    members = Members(parse_yaml(head.encode(), place=place), place)
    document = Document(
        name=name,
        title=members.text("title", characters_max=200),
        description=members.text("description"),
        window_days=as_days(members.take("window", optional=True) or 90, members.at("window")),
        parameters=tuple(_parameter(key, value, at) for key, at, value in members.pairs("parameters", items_max=50)),
        body="\n" * (head.count("\n") + 3) + body,
        source=text,
    )
    members.done()
    return document


def _parameter(name: str, value: object, place: str) -> Parameter:
    if not _PARAMETER.fullmatch(name):
        raise RejectedError(f"{name[:40]!r} is no name", place=place, cure="use small letters, digits and _")
    members = Members(value, place)
    kind = members.text("type", default="text")
    if kind not in _TYPES:
        raise RejectedError(f"there is no type {kind[:40]!r}", place=place, cure=f"use {', '.join(_TYPES)}")
    default: Any = members.take("default", optional=True)
    fits: Any = {"text": str, "date": str, "entity": str, "integer": int, "flag": bool}[kind]
    if default is not None and type(default) is not fits:
        raise RejectedError(f"the default {str(default)[:40]!r} is no {kind}", place=place)
    in_head = members.take("in_head", optional=True)
    if in_head not in (None, True, False):
        raise RejectedError("in_head is true or false", place=place)
    parameter = Parameter(name, kind, members.text("about", default=""), default, in_head is not False)
    members.done()
    return parameter
