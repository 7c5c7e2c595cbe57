"""The port `Rules`: what events are held to on the way in, beside their form.

The front door hands in something that knows the ledger's schemas. What an event is held to may change between its
acceptance and its turn; `generation` tells, and what was accepted under another one is judged again, so that a
record never breaks a rule that lies before it in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from tallystick.errors import TallystickError
from tallystick.store.verified_reads import VerifiedReads

Judge: TypeAlias = Callable[[str, int, Any, Callable[[], dict[str, Any]]], str]
"""Judges an event by its type, its version, its payload, and what gives the whole of it, as plain JSON values.

It gives the empty text, or what is wrong with an event that is taken all the same, or raises `RejectedError`."""


class RulesChangedError(TallystickError):
    """The drafts were judged by rules that are no longer in force: judge them again. Nothing was sealed."""


class Rules(Protocol):
    """The rules of one ledger. Safe for many threads."""

    @property
    def generation(self) -> int:
        """Counts up after every change of the rules."""

    @property
    def judge(self) -> Judge | None:
        """What judges by the rules in force; None while there are none."""

    def follow(self, reads: VerifiedReads) -> None:
        """Read what the log has: the rules are then those that stand there, proven, or newer ones."""

    def learn(self, first: int, lines: Sequence[bytes], *, own: bool) -> None:
        """The records from `first` on are committed; `own` tells whether any of them is the ledger's own."""
