"""The state of an entity as a report folds it: what it takes is known, and no record is kept for it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Final, NamedTuple

from tallystick.core.record import Record
from tallystick.core.upcast import ABSENT
from tallystick.evidence.controls.period import shown
from tallystick.evidence.report.allowance import Allowance
from tallystick.evidence.report.blocks import visible
from tallystick.evidence.report.telling import actor_of
from tallystick.read.fold import Changed, Folding, Folds
from tallystick.read.weight import weight_of

_MEMBER_BYTES: Final = 250
"""Of a member beside its value: its name, and who made it so."""


class Maker(NamedTuple):
    """The record that made members so."""

    when: str
    who: str
    position: int


class Member(NamedTuple):
    """One member of a state, in texts."""

    name: str
    value: str
    made: Maker | None


class FoldedState:
    """One run over the events of an entity, under the allowance of a report. A context manager, in which it is held."""

    def __init__(self, folds: Folds, allowance: Allowance, moment: Callable[[dict[str, Any]], int]) -> None:
        self._folding: Final = Folding(folds)
        self._allowance: Final = allowance
        self._moment: Final = moment
        self._makers: Final[dict[str, tuple[Maker, int]]] = {}
        """By member: who made it so, and what it takes."""
        self._weight = 0

    def add(self, record: Record) -> list[Changed] | None:
        """Take in the next event. What it changed; None when there is no room for it, and nothing goes on then."""
        changes = self._folding.add(record)
        if not changes:
            return changes
        made = f"{actor_of(record)}, {record.event_type}"
        maker = Maker(shown(self._moment(record.members)), made, record.position)
        each = weight_of(record.line) // len(changes) + _MEMBER_BYTES
        more = 0
        for change in changes:
            before = self._makers.pop(change.member, None)
            more -= 0 if before is None else before[1]
            if change.new is not ABSENT:
                self._makers[change.member] = (maker, each)
                more += each
        if more > 0 and not self._allowance.take(more):
            return None
        if more < 0:
            self._allowance.give_back(-more)
        self._weight += more
        return changes

    def __len__(self) -> int:
        return len(self._folding.state)

    def first(self, count: int) -> tuple[Member, ...]:
        """The first members by their names."""
        state = self._folding.state
        return tuple(
            Member(visible(name), visible(state[name]), self._makers[name][0] if name in self._makers else None)
            for name in islice(sorted(state), count)
        )

    def __enter__(self) -> FoldedState:
        return self

    def __exit__(self, *_: object) -> None:
        self._allowance.give_back(self._weight)
        self._weight = 0
