"""The errors of Tallystick, in families named by what the caller must do next.

Everything that the package raises on purpose is a `TallystickError`. A driver's own error is
translated where it happens, with the cause kept. Messages are whole sentences for people: what was
wrong, where, and what to do (I8). HTTP statuses and exit codes are chosen at the borders, not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, TypeVar

_E = TypeVar("_E", bound=Exception)


class TallystickError(Exception):
    """The root of all errors that Tallystick raises on purpose."""

    for_operators = False
    """Whether no input is wrong, but what the operators have set up, such as the keys: the same may be taken later."""


@contextmanager
def for_operators() -> Iterator[None]:
    """Mark what is raised within as something for the operators to mend."""
    try:
        yield
    except TallystickError as error:
        error.for_operators = True
        raise


class RejectedError(TallystickError):
    """The input cannot be taken as it is: mend it, then try again. Nothing was changed.

    `problem` says what is wrong, `place` where (a JSON pointer, a line, a path; empty for the whole
    input) and `cure` what to send instead.
    """

    def __init__(self, problem: str, *, place: str = "", cure: str = "") -> None:
        self.problem = problem
        self.place = place
        self.cure = cure
        where = f"{place}: " if place else ""
        then = f"; {cure}" if cure else ""
        super().__init__(f"{where}{problem}{then}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_rejected, (self.problem, self.place, self.cure)


class ConflictError(TallystickError):
    """Someone else was first, or the same id came with other content: read again, then decide."""


class PruneTooLargeError(ConflictError):
    """What a prune removes comes to more cells of roll-ups than it may seal: those below `position` do not."""

    def __init__(self, position: int) -> None:
        self.position = position
        super().__init__(
            f"the roll-ups count too finely what a prune removes up to position {position}: define one of them anew, "
            "with a wider width or without groups"
        )


class BusyError(TallystickError):
    """There is no room just now: wait, then try the same call again."""


class NotFoundError(TallystickError):
    """What was asked for is not here."""


class DeniedError(TallystickError):
    """The caller may not do this."""


class StoreError(TallystickError):
    """The store failed. The outcome may be unknown: repeat the call with the same event ids."""


class DamagedError(StoreError):
    """The store's files are damaged, or were replaced while they were open. Repeating the call does not help."""


class DamagedIndexError(DamagedError):
    """The index was damaged or replaced while it was open, and is deleted. Opening the ledger again rebuilds it."""


class ReplacedError(DamagedError):
    """The store's files were damaged or replaced while they were open. They were opened again, and verify."""


class TamperError(TallystickError):
    """The evidence does not hold. Stop, keep everything as it is, and raise the alarm."""


FAMILIES: Final[Mapping[str, type[TallystickError]]] = MappingProxyType(
    {
        "rejected": RejectedError,
        "conflict": ConflictError,
        "busy": BusyError,
        "not-found": NotFoundError,
        "denied": DeniedError,
        "damaged": DamagedError,
        "store": StoreError,
        "tamper": TamperError,
    }
)
"""The families by the words that stand for them outside."""


def family_of(error: TallystickError) -> str:
    """The word for an error's family. Raises `StopIteration` for the root itself, which nothing raises."""
    return next(word for word, kind in FAMILIES.items() if isinstance(error, kind))


def as_outcome(error: _E) -> _E:
    """An error that is kept as a value beside others, and no longer raised.

    Its traceback is dropped, as the frames in it keep all that was in hand when it was raised: of a batch of refused
    events each would keep its event as a tree of objects, and frames that know the error keep it until cycles are
    looked for.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _rebuild_rejected(problem: str, place: str, cure: str) -> RejectedError:
    return RejectedError(problem, place=place, cure=cure)
