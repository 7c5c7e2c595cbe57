"""How a command fails: one line on stderr and an exit code, both stable.

An error says what is wrong, where, and what to do. With `--json` the line is a JSON document:
{"error": {"family", "problem", "place", "cure"}}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import click

from tallystick.cli import screen
from tallystick.errors import (
    BusyError,
    ConflictError,
    DeniedError,
    NotFoundError,
    RejectedError,
    StoreError,
    TamperError,
)

REFUSED: Final = 1
WRONG_INPUT: Final = 2
STORE_FAILED: Final = 3
DEFECT: Final = 70
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141
"""Not 0: what was to be written, perhaps a verdict, did not arrive."""

EXIT_CODES_HELP: Final = """\b
Exit codes:
  0    done; what was checked holds
  1    a finding (something does not hold), or the ledger refused (a conflict)
  2    wrong input or usage, nothing found there, or not allowed
  3    the store failed or was busy: try again
  130  interrupted; 141 the reader of the output has gone; 70 a defect of ours"""

_FAMILIES: Final[tuple[tuple[type[Exception], str, int], ...]] = (
    (RejectedError, "rejected", WRONG_INPUT),
    (NotFoundError, "not-found", WRONG_INPUT),
    (DeniedError, "denied", WRONG_INPUT),
    (ConflictError, "conflict", REFUSED),
    (TamperError, "tamper", REFUSED),
    (BusyError, "busy", STORE_FAILED),
    (StoreError, "store", STORE_FAILED),
    (click.ClickException, "usage", WRONG_INPUT),
    (OSError, "system", STORE_FAILED),
)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """What is imported in here comes with an extra of the package. Raises `RejectedError` if it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "tallystick":
            raise
        cure = f"install it with: pip install 'tallystick[{name}]'"
        raise RejectedError(f"this needs {error.name}, which is not installed", cure=cure) from error


class Failure(NamedTuple):
    """An error as it is printed, and the exit code that it leads to."""

    family: str
    problem: str
    place: str
    cure: str
    code: int


def describe(error: Exception) -> Failure:
    """Take an error apart for printing."""
    family, code = next(
        ((family, code) for kind, family, code in _FAMILIES if isinstance(error, kind)),
        ("other", STORE_FAILED),
    )
    if isinstance(error, RejectedError):
        return Failure(family, error.problem, error.place, error.cure, code)
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        cure = f"see {context.command_path} --help" if context else ""
        return Failure(family, error.format_message().rstrip("."), "", cure, code)
    if isinstance(error, OSError):
        place = "" if error.filename is None else str(error.filename)
        return Failure(family, error.strerror or str(error), place, "", code)
    return Failure(family, str(error), "", "", code)


def report(error: Exception, *, as_json: bool) -> int:
    """Print an error on stderr. Gives the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return WRONG_INPUT
    failure = describe(error)
    if as_json:
        members = {name: getattr(failure, name) for name in ("family", "problem", "place", "cure")}
        screen.say(json.dumps({"error": members}, ensure_ascii=False), err=True)
    else:
        place = f"{failure.place}: " if failure.place else ""
        cure = f"; {failure.cure}" if failure.cure else ""
        screen.say(("error:", "red bold"), f" {place}{failure.problem}{cure}", err=True)
    return failure.code
