"""The catalogue of controls: what a framework asks for, in our words, and which events show that it was done.

Frameworks lie in `frameworks/*.yaml`, the selectors that they share in `frameworks/selectors.yaml`; files of the
reader's own have the same form and add to them. A file is read strictly: an unknown member, a name that is taken,
or a term that is none is an error with its place. A control tells apart what is evidence by itself (`selectors`)
and what only goes with it (`related`). Whether there was any such event says `assessment`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from tallystick.core.record import EPOCH_CLOSED, EPOCH_OPENED, LEDGER_CREATED
from tallystick.core.rollup import ROLLUP_DEFINED, ROLLUP_SEALED
from tallystick.errors import NotFoundError, RejectedError
from tallystick.evidence.bundle.export import EXPORTED
from tallystick.evidence.controls.plain_yaml import YAML_BYTES_MAX, Members, as_days, as_text, parse_yaml
from tallystick.limits import QUERY_VALUES_MAX
from tallystick.read.query import Query, parse_terms

TERM_LISTS_MAX: Final = 32
"""Questions of one selector: each is asked of the index."""

SELECTORS_MAX: Final = 16
"""Selectors of one control: more than anyone reads."""

HOUSEKEEPING: Final = (
    LEDGER_CREATED,
    EPOCH_OPENED,
    EPOCH_CLOSED,
    ROLLUP_DEFINED,
    ROLLUP_SEALED,
    EXPORTED,
)
"""What the ledger records by itself, or whenever anyone asks it for evidence: never evidence of a control."""

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,59}", re.ASCII)
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9().:_-]{0,59}", re.ASCII)
_WHEN: Final = ("after", "before", "occurred_after", "occurred_before", "first", "end")


@dataclass(frozen=True, slots=True)
class Selector:
    """Events that show one thing: those that fit any of the queries."""

    name: str
    shows: str
    """A sentence saying what such an event shows."""
    queries: tuple[Query, ...]

    @property
    def terms(self) -> list[list[str]]:
        """The queries as terms."""
        return [query.terms() for query in self.queries]

    @property
    def joined(self) -> tuple[Query, ...]:
        """The same in fewer queries: those that ask for event types alone become one, which the index counts."""
        plain = [query for query in self.queries if query.event_types and query == Query(event_types=query.event_types)]
        types = tuple(dict.fromkeys(name for query in plain for name in query.event_types))
        if len(plain) < 2 or len(types) > QUERY_VALUES_MAX:
            return self.queries
        return (Query(event_types=types), *(query for query in self.queries if query not in plain))

    @property
    def housekeeping(self) -> Iterator[str]:
        """The types of the ledger's housekeeping that it asks for, which show nothing that anyone did for a control."""
        for query in self.queries:
            for asked in query.event_types:
                prefix = asked[:-1] if asked.endswith(".*") else None
                yield from (type_ for type_ in HOUSEKEEPING if type_ == asked or (prefix and type_.startswith(prefix)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What one requirement asks for, in our words, and what shows that it is met."""

    framework: str
    id: str
    title: str
    requirement: str
    selectors: tuple[Selector, ...]
    """What is evidence by itself: a record that fits one of these closes the gap."""
    related: tuple[Selector, ...] = ()
    """What goes with it and is shown beside it, and closes no gap: the act itself, or the ledger's own housekeeping."""
    gap: str
    """What it may mean when no evidence is found."""
    window_days: int
    """How far back one usually looks."""
    cadence: Mapping[str, int]
    """Selector → days: such an event must be seen at least that often."""
    asks: tuple[str, ...]
    """Questions that people ask, for the search."""

    @property
    def key(self) -> str:
        """What names it among all frameworks: `SOC2/CC7.2`."""
        return f"{self.framework}/{self.id}"

    @property
    def all_selectors(self) -> tuple[Selector, ...]:
        """Those that are evidence, and after them those that only go with it."""
        return (*self.selectors, *self.related)


@dataclass(frozen=True, slots=True)
class Framework:
    """A standard or law: its short name, and what it is."""

    name: str
    title: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Frameworks, and their controls in order."""

    frameworks: tuple[Framework, ...]
    controls: tuple[Control, ...]

    def of(self, framework: str) -> tuple[Control, ...]:
        """The controls of a framework, named in any spelling of case, dots and spaces. Raises `NotFoundError`."""
        name = self.framework(framework).name
        return tuple(control for control in self.controls if control.framework == name)

    def framework(self, name: str) -> Framework:
        """The framework of this name. Raises `NotFoundError` with those there are."""
        for framework in self.frameworks:
            if _folded(framework.name) == _folded(name):
                return framework
        known = ", ".join(framework.name for framework in self.frameworks)
        raise NotFoundError(f"there is no framework {name[:40]!r}: use one of {known}")

    def find(self, name: str) -> Control:
        """The control of this id, or of `FRAMEWORK/ID`. Raises `NotFoundError` with what comes near it."""
        wanted = _folded(name)
        found = [control for control in self.controls if wanted in (_folded(control.id), _folded(control.key))]
        if len(found) == 1 and wanted:
            return found[0]
        if found and wanted:
            keys = ", ".join(control.key for control in found)
            raise NotFoundError(f"{name[:60]!r} names several controls: say which, one of {keys}")
        near = self._near(wanted)
        hint = f"did you mean {', '.join(near)}?" if near else "see: tallystick controls list"
        raise NotFoundError(f"there is no control {name[:60]!r}: {hint}")

    def _near(self, wanted: str) -> list[str]:
        folded = {_folded(control.id): control.id for control in self.controls}
        within = [name for key, name in folded.items() if wanted and (wanted in key or key in wanted)]
        close = [folded[key] for key in difflib.get_close_matches(wanted, folded, n=6, cutoff=0.5)]
        return [*dict.fromkeys([*within, *close])][:6]


def load(own: Iterable[str | os.PathLike[str]] = ()) -> Catalogue:
    """The shipped catalogue, and after it the controls of one's own files. Raises `RejectedError` with the place."""
    shipped, selectors = _shipped()
    reading = _Reading(selectors, shipped)
    for path in own:
        reading.add(_read(Path(path)), place=str(path))
    return reading.catalogue()


@cache
def _shipped() -> tuple[Catalogue, Mapping[str, Selector]]:
    folder = files("tallystick.evidence.controls") / "frameworks"
    reading = _Reading({}, Catalogue((), ()))
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    for name in sorted(names, key=lambda name: name != "selectors.yaml"):
        reading.add((folder / name).read_bytes(), place=name)
    return reading.catalogue(), reading.selectors


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(YAML_BYTES_MAX + 1)
    except OSError as error:
        raise RejectedError(f"cannot be read: {error.strerror or error}", place=str(path)) from error


class _Reading:
    """Catalogue files as they come, each checked against those before."""

    def __init__(self, selectors: Mapping[str, Selector], start: Catalogue) -> None:
        self.selectors: Final = dict(selectors)
        self._frameworks: Final = {framework.name: framework for framework in start.frameworks}
        self._controls: Final = {_folded(control.key): control for control in start.controls}

    def catalogue(self) -> Catalogue:
        return Catalogue(tuple(self._frameworks.values()), tuple(self._controls.values()))

    def add(self, data: bytes, *, place: str) -> None:
        members = Members(parse_yaml(data, place=place), place)
        for name, at, value in members.pairs("selectors"):
            if name in self.selectors:
                cure = "give it another name"
                raise RejectedError(f"there is a selector {name[:60]!r} already", place=at, cure=cure)
            self.selectors[name] = _selector(name, value, at)
        name = members.text("framework", characters_max=40, default="")
        title = members.text("title", characters_max=200, default="")
        controls = [*members.items("controls", items_max=500, optional=True)]
        members.done()
        if controls and not name:
            raise RejectedError("framework is missing", place=place, cure="say whose controls these are")
        if name:
            self._take_framework(name, title, place)
        for at, value in controls:
            control = self._control(name, value, at)
            if _folded(control.key) in self._controls:
                cure = "nothing is overridden: give yours an id or a framework of its own"
                raise RejectedError(f"there is a control {control.key!r} already", place=at, cure=cure)
            self._controls[_folded(control.key)] = control

    def _take_framework(self, name: str, title: str, place: str) -> None:
        if not _ID.fullmatch(name):
            raise RejectedError(f"{name!r} is no name of a framework", place=place, cure="use letters and digits")
        known = next((known for known in self._frameworks if _folded(known) == _folded(name)), None)
        if known not in (None, name):
            raise RejectedError(f"the framework is written {known!r} elsewhere", place=place, cure="write it so too")
        if known is None and not title:
            raise RejectedError("title is missing", place=place, cure="say what the framework is")
        if known is not None and title not in ("", self._frameworks[known].title):
            problem = f"the framework {name!r} has another title elsewhere"
            raise RejectedError(problem, place=place, cure="leave the title out")
        self._frameworks.setdefault(name, Framework(name, title))

    def _control(self, framework: str, value: object, place: str) -> Control:
        members = Members(value, place)
        id_ = members.text("id", characters_max=60)
        place = members.place = f"{place} ({id_})"
        if not _ID.fullmatch(id_):
            raise RejectedError(f"{id_!r} is no id", place=place, cure="use letters, digits, dots and parentheses")
        names, related = self._names(members)
        cadence = {key: as_days(days, at) for key, at, days in members.pairs("cadence")}
        for name in cadence:
            if name not in names:
                raise RejectedError(f"cadence of {name[:60]!r}, which is none of its selectors", place=place)
        control = Control(
            framework=framework,
            id=id_,
            title=members.text("title", characters_max=200),
            requirement=members.text("requirement"),
            selectors=tuple(self.selectors[name] for name in names),
            related=tuple(self.selectors[name] for name in related),
            gap=members.text("gap"),
            window_days=as_days(members.take("window"), members.at("window")),
            cadence=cadence,
            asks=members.texts("asks", optional=True),
        )
        members.done()
        return control

    def _names(self, members: Members) -> tuple[list[str], list[str]]:
        """The names of the selectors that are evidence, and of those that are related."""
        names = [*dict.fromkeys(members.texts("selectors", items_max=SELECTORS_MAX))]
        related = [*dict.fromkeys(members.texts("related", items_max=SELECTORS_MAX, optional=True))]
        place = members.place
        for name in (*names, *related):
            if name not in self.selectors:
                near = ", ".join(difflib.get_close_matches(name, self.selectors, n=3, cutoff=0.4)) or "one of yours"
                raise RejectedError(f"there is no selector {name[:60]!r}", place=place, cure=f"use {near}")
        for name in names:
            if name in related:
                cure = "let it be evidence, or beside it"
                raise RejectedError(f"{name[:60]!r} is in selectors and in related", place=place, cure=cure)
            taken = [*self.selectors[name].housekeeping]
            if taken:
                problem = f"{name[:60]!r} takes {taken[0]}, which the ledger records by itself or for any export"
                raise RejectedError(problem, place=place, cure="put the selector under related")
        return names, related


def _selector(name: str, value: object, place: str) -> Selector:
    if not _NAME.fullmatch(name):
        raise RejectedError(f"{name[:60]!r} is no name", place=place, cure="use small letters, digits and hyphens")
    members = Members(value, place)
    shows = members.text("shows")
    queries = tuple(_queries(members))
    members.done()
    return Selector(name, shows, queries)


def _queries(members: Members) -> Iterator[Query]:
    for at, terms in members.items("any_of", items_max=TERM_LISTS_MAX):
        if not isinstance(terms, list) or not terms:
            raise RejectedError("not a list of terms", place=at, cure="write it as [event_type=user.*, label=phi]")
        try:
            query = parse_terms([as_text(term, at) for term in terms])
        except RejectedError as error:
            raise RejectedError(error.problem, place=f"{at}, {error.place}", cure=error.cure) from error
        for name in _WHEN:
            if getattr(query, name) is not None:
                raise RejectedError(f"{name} is asked for", place=at, cure="say what counts; when, says who asks")
        yield query


def _folded(name: str) -> str:
    """The name without case, dots and spaces, so that people may write it as they know it."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
