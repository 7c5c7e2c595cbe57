"""Conditions on members of a record's payload and context, as people write them: `payload.amount>=1000`.

Their meaning is decided here, on the record's own members; what an index makes of them is only a proposal.
"""

from __future__ import annotations

import json
import operator as operators
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from tallystick.core.canonical import SURROGATE, decode_number
from tallystick.core.member import MemberPath
from tallystick.errors import RejectedError
from tallystick.limits import QUERY_TERM_CHARACTERS_MAX

Test = Callable[[dict[str, Any]], bool]
"""A question about the members of a record."""

_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operators.eq,
    "!=": operators.eq,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}
OPERATORS: Final = (*_COMPARE, "has", "lacks")
_OPERATOR: Final = re.compile(r"!=|<=|>=|=|<|>")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LITERALS: Final = {"true": True, "false": False, "null": None}
_CONDITION_CURE: Final = 'ask such as payload.ip=10.0.1.42, payload."a b">=5, payload.errorCode or !payload.errorCode'


@dataclass(frozen=True, slots=True)
class Condition:
    """What is asked of a member of `payload` or `context`, through arrays of any of their elements.

    The record's value decides the comparison. A number is compared as a number, exactly, if the query's value
    is a JSON number; a string with the text, by code points; true, false and null equal their names; an object
    equals nothing. A value in double quotes is a JSON string, and fits strings only. `!=`: the member is there,
    and no value of it is equal. Raises `RejectedError` when it is built with something else.
    """

    path: MemberPath
    operator: str
    value: str = ""
    """As it was written."""
    fits: Test = field(init=False, repr=False, compare=False)
    """Whether the members of a record meet the condition."""

    def __post_init__(self) -> None:
        if len(self.path.parts) < 2 or self.path.parts[0] not in ("payload", "context"):
            raise RejectedError(f"{self.path.render()[:60]} is no member of payload or context", cure=_CONDITION_CURE)
        if self.operator not in OPERATORS or (self.value and self.operator not in _COMPARE):
            raise RejectedError(f"{self.operator[:20]!r} with a value is no condition", cure=_CONDITION_CURE)
        if self.operator in ("<", ">") and self.value.startswith("="):
            object.__setattr__(self, "value", json.dumps(self.value))  # else it would be written as another operator
        object.__setattr__(self, "fits", _condition_test(self))

    @classmethod
    def parse(cls, term: str, *, place: str = "") -> Condition:
        """Read what `render` writes. Raises `RejectedError`; its place is the term unless another is given."""
        place = place or shown(term)
        if len(term) > QUERY_TERM_CHARACTERS_MAX:
            cure = f"send at most {QUERY_TERM_CHARACTERS_MAX}"
            raise RejectedError(f"the condition has {len(term)} characters", place=place, cure=cure)
        lacks = term.startswith("!")
        path, at = MemberPath.parse_start(term[lacks:])
        rest = term[lacks + at :]
        found = _OPERATOR.match(rest)
        try:
            if path is None or (rest and (lacks or not found)):
                raise RejectedError("not a condition on a member", cure=_CONDITION_CURE)
            if not found:
                return cls(path, "lacks" if lacks else "has")
            return cls(path, found[0], rest[found.end() :])
        except RejectedError as error:
            raise RejectedError(error.problem, place=place, cure=error.cure) from error

    def render(self) -> str:
        """Write the condition as a term."""
        if self.operator in _COMPARE:
            return f"{self.path.render()}{self.operator}{self.value}"
        return ("!" if self.operator == "lacks" else "") + self.path.render()

    @property
    def is_number(self) -> bool:
        """Whether the value is a JSON number, and so is compared with numbers, too."""
        return _NUMBER.fullmatch(self.value) is not None

    @property
    def text(self) -> str:
        """What strings are compared with: the value, or what stands in its quotes."""
        text: Any = self.value
        if text.startswith('"'):
            try:
                text = json.loads(text)
            except ValueError:
                text = None
            if text is None or not self.value.endswith('"'):
                cure = r'write the value as a JSON string, such as "10" or "a \"b\""'
                raise RejectedError("the value begins with a quote and is no JSON string", cure=cure)
        if SURROGATE.search(text):
            raise RejectedError("the value has a lone surrogate, which no record can have", cure="leave it out")
        return str(text)


def number_of(condition: Condition) -> int | float | None:
    """The number that equals the condition's value, as a record would hold it; None if the value is no number."""
    match = _NUMBER.fullmatch(condition.value)
    if not match:
        return None
    if any(match.groups()):
        number = decode_number(condition.value)
        return None if abs(number) == float("inf") else number
    return int(condition.value)


def _condition_test(condition: Condition) -> Test:
    path = condition.path
    if condition.operator == "has":
        return path.is_in
    if condition.operator == "lacks":
        return lambda members: not path.is_in(members)
    values, test = path.values, _value_test(condition)
    if condition.operator == "!=":
        return lambda members: path.is_in(members) and not any(map(test, values(members)))
    return lambda members: any(map(test, values(members)))


def _value_test(condition: Condition) -> Callable[[Any], bool]:
    text, compare = condition.text, _COMPARE[condition.operator]
    numbers = condition.is_number
    exact, double = _number(condition.value) if numbers else (0, 0.0)
    named = compare is operators.eq and condition.value in _LITERALS
    literal = _LITERALS.get(condition.value)

    def test(value: Any) -> bool:
        kind = type(value)
        if kind is str:
            return compare(value, text)
        if kind is int:
            return numbers and compare(value, exact)
        if isinstance(value, float):  # of a kind of its own where its canonical text is unusual
            return numbers and compare(value, double)
        return named and value is literal

    return test


def _number(text: str) -> tuple[int | Decimal, float]:
    """A JSON number for comparing with integers, exactly, and with doubles, as a double."""
    try:
        exact = Decimal(text)
    except InvalidOperation as error:
        raise RejectedError("the exponent is beyond all numbers", cure="compare with a smaller number") from error
    return int(text) if text.lstrip("-").isdecimal() else exact, float(text)


def shown(term: object) -> str:
    """A term as the place of an error: its beginning."""
    text = SURROGATE.sub("\N{REPLACEMENT CHARACTER}", str(term))
    return text if len(text) <= 80 else f"{text[:77]}..."
