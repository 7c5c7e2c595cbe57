"""Selectors: which records count, as a signed manifest says it (SPEC 10.9). Grammar, canonical form and meaning.

Terms look like those of `tallystick query`, but are exact: times are instants, values are JSON scalars of one type, and
there is no free text. `Term.parse` takes only what `Term.render` writes, so that two readers cannot differ.
`tallystick.read.signed` makes selectors from queries.
"""

from __future__ import annotations

import operator as operators
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tallystick.core import timestamp
from tallystick.core.canonical import decode_canonical, encode
from tallystick.core.content import is_event_type
from tallystick.core.member import MemberPath
from tallystick.core.strict import parse_decimal
from tallystick.errors import RejectedError
from tallystick.limits import (
    DEPTH_MAX,
    INTEGER_MAX,
    SELECTOR_ALTERNATIVES_MAX,
    SELECTOR_CONDITIONS_MAX,
    SELECTOR_NAME_CHARACTERS_MAX,
    SELECTOR_NAMES_BYTES_MAX,
    SELECTOR_TERM_CHARACTERS_MAX,
    SELECTOR_TERMS_MAX,
    SELECTORS_MAX,
)

Scalar: TypeAlias = str | int | float | bool | None

KEYS: Final = ("actor", "correlation_id", "entity_id", "id", "label")
TIMES: Final = ("after", "before", "occurred_after", "occurred_before")
POSITIONS: Final = ("first", "end")
COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operators.eq,
    "!=": operators.eq,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}

_KEY: Final = re.compile(r"[^\x00-\x1f\x7f]+")
_NAMED: Final = re.compile(r"([a-z_]+)(!=|\^=|=)(.*)", re.DOTALL)
_PART: Final = r'(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*")'
_MEMBER: Final = re.compile(rf"(!?)((?:payload|context)(?:\.{_PART})+)(?:(!=|<=|>=|=|<|>)(.*))?", re.DOTALL)
_PARTS: Final = re.compile(_PART)
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_ALLOWED: Final = {"entity_id": ("=", "^="), "event_type": ("=", "!=")}


@dataclass(frozen=True, slots=True)
class Term:
    """One thing that is asked of a record: of a named field, or of a member of its payload or context."""

    subject: str | MemberPath
    operator: str
    """`=`, `!=`, `^=` (begins with), a comparison; or `has` and `lacks`, of a member."""
    value: Scalar = None

    @classmethod
    def parse(cls, text: str, *, place: str = "") -> Term:
        """Read exactly what `render` writes. Raises `RejectedError` with the place."""
        if len(text) > SELECTOR_TERM_CHARACTERS_MAX:
            problem = f"a term of {len(text)} characters; at most {SELECTOR_TERM_CHARACTERS_MAX} are allowed"
            raise RejectedError(problem, place=place)
        try:
            term = _parse_member(text) or _parse_named(text)
            if term is None or term.render() != text:
                raise RejectedError("it is not a term in its canonical form")
        except RejectedError as error:
            raise RejectedError(f"{text[:80]!a}: {error.problem}", place=place) from error
        return term

    def render(self) -> str:
        """Write the term in its one form."""
        if isinstance(self.subject, str):
            return f"{self.subject}{self.operator}{self.value}"
        path = ".".join(map(_render_part, self.subject.parts))
        if self.operator in COMPARE:
            return f"{path}{self.operator}{encode(self.value).decode()}"
        return f"{'!' if self.operator == 'lacks' else ''}{path}"


def _render_part(part: str) -> str:
    return part if _BARE.fullmatch(part) else encode(part).decode()


def _parse_member(text: str) -> Term | None:
    found = _MEMBER.fullmatch(text)
    if found is None:
        return None
    lacks, path_text, operator, value_text = found.groups()
    parts = [
        str(decode_canonical(part.encode())) if part.startswith('"') else part for part in _PARTS.findall(path_text)
    ]
    if len(parts) > DEPTH_MAX:
        raise RejectedError(f"a path of more than {DEPTH_MAX} members")
    path = MemberPath(tuple(parts))
    if operator is None:
        return Term(path, "lacks" if lacks else "has")
    value = decode_canonical(value_text.encode())
    is_ordered = type(value) is str or (isinstance(value, int | float) and type(value) is not bool)
    if lacks or isinstance(value, list | dict) or not (is_ordered or operator in ("=", "!=")):
        raise RejectedError("it compares with what has no order, or with no scalar")
    return Term(path, operator, value)


def _parse_named(text: str) -> Term | None:
    found = _NAMED.fullmatch(text)
    if found is None:
        return None
    name, operator, value = found.groups()
    is_known = operator in _ALLOWED.get(name, ("=",)) and (
        (name in KEYS and _KEY.fullmatch(value) is not None)
        or (name == "event_type" and is_event_type(value.removesuffix(".*")))
        or (name in TIMES and timestamp.render(timestamp.parse(value)) == value)
        or (name in POSITIONS and parse_decimal(value, maximum=INTEGER_MAX, place=name) >= 0)
    )
    return Term(name, operator, int(value) if name in POSITIONS else value) if is_known else None


@dataclass(frozen=True, slots=True)
class Selector:
    """A name, and which records it takes: those that fit all terms `within`, and all of any list in `any_of`."""

    name: str
    any_of: tuple[tuple[Term, ...], ...]
    within: tuple[Term, ...] = ()

    @classmethod
    def of(cls, name: str, any_of: Iterable[Iterable[str]], within: Iterable[str] = ()) -> Selector:
        """From terms in their canonical form. Raises `RejectedError`."""
        lists = tuple(tuple(Term.parse(term, place=name) for term in terms) for terms in any_of)
        return cls(name, lists, tuple(Term.parse(term, place=name) for term in within))

    def to_json(self) -> dict[str, Any]:
        """The selector as the manifest has it, but for its count."""
        any_of = [[term.render() for term in terms] for terms in self.any_of]
        return {"any_of": any_of, "name": self.name, "within": [term.render() for term in self.within]}

    def is_covered(self, *, first: int, end: int, times: tuple[str, str] | None, size: int) -> bool:
        """Whether no record outside of [first, end) can fit, as `within` says.

        `times` are the recorded ones of the first and the last record of the range; None where a clock was corrected,
        as they say something of what is outside only if they never go back.
        """
        began, ended = times or (_NEVER, "")
        least = max((term.value for term in self.within if term.subject == "first"), default=0)  # type: ignore[type-var]
        most = min((term.value for term in self.within if term.subject == "end"), default=size)  # type: ignore[type-var]
        reaches_back = first <= int(least or 0) or any(
            began < str(term.value) for term in self.within if term.subject == "after"
        )
        reaches_on = min(int(most or 0), size) <= end or any(
            str(term.value) <= ended for term in self.within if term.subject == "before"
        )
        return reaches_back and reaches_on


_NEVER: Final = "~"
"""After every time."""


def check_bounds(selectors: Sequence[Selector]) -> None:
    """What SPEC 12 allows of them, before they are asked of any record. Raises `RejectedError`."""
    lists = [terms for selector in selectors for terms in (selector.within, *selector.any_of)]
    terms = sum(map(len, lists))
    conditions = sum(not isinstance(term.subject, str) for terms in lists for term in terms)
    names = [selector.name for selector in selectors]
    for count, most, what in (
        (len(selectors), SELECTORS_MAX, "selectors"),
        (max((len(selector.any_of) for selector in selectors), default=0), SELECTOR_ALTERNATIVES_MAX, "alternatives"),
        (terms, SELECTOR_TERMS_MAX, "terms of all selectors"),
        (conditions, SELECTOR_CONDITIONS_MAX, "conditions on members in all selectors"),
        (max(map(len, names), default=0), SELECTOR_NAME_CHARACTERS_MAX, "characters of a selector's name"),
        (sum(len(name.encode()) for name in names), SELECTOR_NAMES_BYTES_MAX, "bytes of selectors' names"),
    ):
        if count > most:
            cure = "select less at once"
            raise RejectedError(f"{count:,} {what}; at most {most:,} are allowed", place="/selectors", cure=cure)
    for selector in selectors:
        if not selector.any_of:
            raise RejectedError("a selector of no alternative, which nothing fits", place="/selectors")
        if not _KEY.fullmatch(selector.name):
            raise RejectedError("a selector's name is empty, or has a control character", place="/selectors")
