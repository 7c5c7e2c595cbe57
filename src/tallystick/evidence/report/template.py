"""Expressions in documents: Jinja2 with little of it, so that a document can ask the ledger and do nothing else.

Only expressions, `if`, `for` and `set` are read; only our own functions are called; names with an underscore, methods
of values and long texts are refused, and loops, calls and output are bounded. What an expression comes to leaves a
mark in the Markdown (`placeholders`), never its text.
"""

from __future__ import annotations

import operator as operators
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import SandboxedEnvironment

from tallystick.errors import RejectedError, TallystickError
from tallystick.evidence.controls.assessment import Assessment, Gap, Seen
from tallystick.evidence.controls.catalogue import Control, Selector
from tallystick.evidence.controls.period import Window
from tallystick.evidence.report.blocks import Counted
from tallystick.evidence.report.figures import block_of
from tallystick.evidence.report.placeholders import Placeholders
from tallystick.evidence.report.view import Assessed, Found, FoundSeries, FoundTurns

OUTPUT_CHARACTERS_MAX: Final = 1_000_000
"""Of the Markdown, in which figures are only marks: a report of some five hundred pages."""

STEPS_MAX: Final = 20_000
"""Turns of all loops of a document together."""

TEXT_CHARACTERS_MAX: Final = 10_000
"""A text or list that an expression puts together."""

_STATEMENTS: Final = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Assign)
_EXPRESSIONS: Final = (
    *(nodes.Name, nodes.Const, nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr),
    *(nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Getattr, nodes.Getitem, nodes.Call),
)
_FILTERS: Final = ("default", "first", "join", "last", "length", "list", "lower", "max", "min", "round", "sort", "sum",
                   "title", "unique", "upper")  # fmt: skip
_TESTS: Final = ("defined", "undefined", "none", "string", "number", "eq", "ne", "lt", "le", "gt", "ge", "in",
                 "greaterthan", "lessthan", "even", "odd")  # fmt: skip
_READABLE: Final = (
    Assessed,
    Assessment,
    Control,
    Found,
    FoundSeries,
    FoundTurns,
    Gap,
    LoopContext,
    Seen,
    Selector,
    Window,
)
"""Values whose members an expression may read. Those of mappings are read as well."""

_COUNTED: Final = "_counted"
"""The name of the function that counts the turns of loops; documents may write no name with an underscore first."""

_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operators.add,
    "*": operators.mul,
    "%": operators.mod,
    "/": operators.truediv,
    "//": operators.floordiv,
}
_NUMBER_MAX: Final = 1e15


def render(text: str, *, functions: Mapping[str, Callable[..., Any]], values: Mapping[str, Any], place: str) -> tuple[
    str, Placeholders
]:  # fmt: skip
    """The document's Markdown with marks, and what they stand for. Raises `RejectedError` with the line."""
    kept = Placeholders()
    steps = _Steps()

    @jinja2.pass_context  # else Jinja works constants out beforehand, without us
    def finalize(_: Any, value: Any) -> str:
        return _finalized(value, kept)

    environment = _Environment((*functions.values(), steps.count), finalize=finalize)
    try:
        tree = environment.parse(text)
        _check(tree, place)
        template = environment.from_string(tree, globals={**functions, _COUNTED: steps.count, **values})
        out, size = [], 0
        for part in template.generate():
            out.append(part)
            size += len(part)
            if size > OUTPUT_CHARACTERS_MAX:
                raise RejectedError(f"more than {OUTPUT_CHARACTERS_MAX:,} characters", cure="split the document")
        return "".join(out), kept
    except jinja2.TemplateSyntaxError as error:
        raise RejectedError(str(error.message), place=f"{place}, line {error.lineno}") from error
    except RejectedError as error:
        where = f"{_where(error, place)}{f', {error.place}' if error.place else ''}"
        raise RejectedError(error.problem, place=where, cure=error.cure) from error
    except TallystickError:
        raise
    except (SecurityError, jinja2.UndefinedError) as error:
        raise RejectedError(str(error.message), place=_where(error, place)) from error
    except (RecursionError, SyntaxError, MemoryError) as error:  # Python's own bounds on what Jinja made of it
        problem = "expressions or statements are nested too deep"
        raise RejectedError(problem, place=place, cure="make it flatter") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, jinja2.TemplateError) as error:
        told = f"{type(error).__name__}: {error}"[:300]
        raise RejectedError(f"an expression failed: {told}", place=_where(error, place)) from error


class _Environment(SandboxedEnvironment):
    """The sandbox, narrower."""

    intercepted_binops = frozenset(_OPERATORS)

    def __init__(self, callables: Iterable[Callable[..., Any]], *, finalize: Callable[[Any, Any], str]) -> None:
        super().__init__(undefined=jinja2.StrictUndefined, autoescape=False, finalize=finalize)
        self._callables: Final = frozenset(callables)
        self.globals.clear()
        self.filters = {name: self.filters[name] for name in _FILTERS}
        self.tests = {name: self.tests[name] for name in (*_TESTS, "==", "!=", "<", "<=", ">", ">=")}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return isinstance(obj, _READABLE) and not attr.startswith("_") and not callable(value)

    def is_safe_callable(self, obj: Any) -> bool:
        try:
            return obj in self._callables
        except TypeError:
            return False

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002 - Jinja's signature
        numbers = all(isinstance(side, int | float) and abs(side) <= _NUMBER_MAX for side in (left, right))
        if operator == "+" and type(left) is type(right) and isinstance(left, str | list | tuple):
            if len(left) + len(right) > TEXT_CHARACTERS_MAX:
                raise SecurityError(f"longer than {TEXT_CHARACTERS_MAX}")
        elif not numbers:
            raise SecurityError(f"{type(left).__name__} {operator} {type(right).__name__} is not worked out")
        return _OPERATORS[operator](left, right)


class _Steps:
    """Counts the turns of loops."""

    def __init__(self) -> None:
        self._left = STEPS_MAX

    def count(self, values: Iterable[Any]) -> Iterator[Any]:
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise RejectedError(f"a loop over a {type(values).__name__}", cure="loop over a list")
        for value in values:
            self._left -= 1
            if self._left < 0:
                raise RejectedError(f"more than {STEPS_MAX:,} turns of loops", cure="ask for less")
            yield value


def _finalized(value: Any, kept: Placeholders) -> str:
    """The mark of a value; nothing for none."""
    if isinstance(value, Undefined):
        str(value)  # raises, and names it
    value = block_of(value)
    if value is None:
        return ""
    if not isinstance(value, Counted | tuple):
        value = str(value)
        if len(value) > TEXT_CHARACTERS_MAX:
            raise RejectedError(f"a text of {len(value)} characters", cure=f"print at most {TEXT_CHARACTERS_MAX}")
    return kept.mark(value)


def _check(tree: nodes.Template, place: str) -> None:
    """Whether the document uses only what is read, and its loops counted."""
    for node in [*tree.find_all(nodes.Node)]:  # a list, as counters are put in on the way
        if isinstance(node, nodes.EvalContextModifier | nodes.Helper | nodes.Stmt | nodes.Expr) and not isinstance(
            node, (*_STATEMENTS, *_EXPRESSIONS)
        ):
            name = type(node).__name__
            raise RejectedError(f"{name} is not read", place=f"{place}, line {node.lineno}", cure="use if, for and set")
        if isinstance(node, nodes.Name) and node.name.startswith("_"):
            raise RejectedError(f"the name {node.name[:40]}", place=f"{place}, line {node.lineno}")
        if isinstance(node, nodes.Assign) and not isinstance(node.target, nodes.Name):
            raise RejectedError("set names one value", place=f"{place}, line {node.lineno}")
        if isinstance(node, nodes.For):
            if node.recursive:
                raise RejectedError("a loop cannot call itself", place=f"{place}, line {node.lineno}")
            counter = nodes.Name(_COUNTED, "load", lineno=node.lineno)
            node.iter = nodes.Call(counter, [node.iter], [], None, None, lineno=node.lineno)


def _where(error: BaseException, place: str) -> str:
    """The place, with the line of the template at which the error came up."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return place if line is None else f"{place}, line {line}"
