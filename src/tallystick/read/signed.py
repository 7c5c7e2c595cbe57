"""From queries, as people ask them, to selectors, as evidence is signed with them (SPEC 10.9).

A value without quotes means a number to a number, and a text to a text; the signed form says which, and so one
condition may become two alternatives. What cannot be said exactly is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import product
from typing import Final

from tallystick.core import timestamp
from tallystick.core.selector import COMPARE, POSITIONS, TIMES, Selector, Term
from tallystick.errors import RejectedError
from tallystick.limits import INTEGER_MAX, SELECTOR_ALTERNATIVES_MAX, SELECTOR_NAME_CHARACTERS_MAX
from tallystick.read.condition import Condition, number_of
from tallystick.read.query import Query

_LITERALS: Final = {"true": True, "false": False, "null": None}
_MANY: Final = {"entity_id": "entities", "event_type": "event_types", "actor": "actors", "label": "labels"}
_ONE: Final = {"id": "event_id", "correlation_id": "correlation_id"}
_EXPONENT_FROM: Final = 1e21
"""Between the largest integer and this, canonical JSON has no number (SPEC 2)."""


def selector_of(name: str, queries: Sequence[Query], *, within: Iterable[str] = ()) -> Selector:
    """The selector of what fits any of the queries, and the terms `within`.

    Raises `RejectedError` for free text, for a number that JSON does not hold exactly, and for too many alternatives.
    """
    any_of = [terms for query in queries for terms in alternatives(query)]
    if len(any_of) > SELECTOR_ALTERNATIVES_MAX:
        cure = 'write values that are texts in double quotes, such as payload.code="10", or ask less at once'
        raise RejectedError(f"{len(any_of)} alternatives; at most {SELECTOR_ALTERNATIVES_MAX}", place=name, cure=cure)
    return Selector.of(name, any_of, within)


def selectors_of(queries: Sequence[Query], *, within: Sequence[str] = ()) -> tuple[Selector, ...]:
    """A selector for each query, named by its terms as far as they are short; and all of them `within` these terms."""
    named = (" ".join(query.terms()) or "everything" for query in queries)
    return tuple(
        selector_of(name if len(name) <= SELECTOR_NAME_CHARACTERS_MAX else f"query {number}", [query], within=within)
        for number, (name, query) in enumerate(zip(named, queries, strict=True), 1)
    )


def alternatives(query: Query) -> list[list[str]]:
    """Lists of signed terms, of which a record fits one exactly if the query takes it. Raises `RejectedError`."""
    if query.text:
        cure = "ask by type, entity, actor, label or a member of the payload, or hand over the whole range"
        raise RejectedError("free text has no exact form, and evidence is not selected by it", place="text", cure=cure)
    plain = [f"{name}={value}" for name, member in _MANY.items() for value in getattr(query, member)]
    plain += [f"{name}={timestamp.render(getattr(query, name))}" for name in TIMES if getattr(query, name) is not None]
    for name in POSITIONS:
        position = getattr(query, name)
        if position is not None and not (name == "end" and position > INTEGER_MAX):  # which none is past
            plain.append(f"{name}={min(position, INTEGER_MAX)}")
    plain += [f"{name}={getattr(query, member)}" for name, member in _ONE.items() if getattr(query, member) is not None]
    choices = [_choices(condition) for condition in query.conditions]
    count = 1
    for lists in choices:
        count *= len(lists)
        if count > SELECTOR_ALTERNATIVES_MAX:
            cure = 'write values that are texts in double quotes, such as payload.code="10"'
            raise RejectedError("too many values that may be numbers or texts", place="conditions", cure=cure)
    return [[*plain, *(term for terms in chosen for term in terms)] for chosen in product(*choices)]


def _choices(condition: Condition) -> list[list[str]]:
    """The condition as alternatives, each a list of terms."""
    path, operator = condition.path, condition.operator
    if operator not in COMPARE:
        return [[Term(path, operator).render()]]
    terms = [Term(path, operator, condition.text)]
    if condition.is_number:
        terms.append(Term(path, operator, _exact(condition)))
    if operator in ("=", "!=") and condition.value in _LITERALS:
        terms.append(Term(path, operator, _LITERALS[condition.value]))
    rendered = [term.render() for term in terms]
    return [rendered] if operator == "!=" else [[term] for term in rendered]


def _exact(condition: Condition) -> int | float:
    """The number of a condition, if JSON holds just that. Raises `RejectedError` where it would be another."""
    number = number_of(condition)
    if number is not None and abs(number) <= INTEGER_MAX:
        if not float(number).is_integer() or Decimal(condition.value) == Decimal(number):
            return number
    elif type(number) is not int and number is not None and abs(number) >= _EXPONENT_FROM:
        return number
    cure = "compare with a number that JSON holds exactly, such as 10 or 0.5"
    raise RejectedError(f"{condition.value[:40]} is not held exactly", place=condition.render()[:80], cure=cure)
