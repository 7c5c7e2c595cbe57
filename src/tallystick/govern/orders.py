"""What orders of retention are made of: who orders, how an order is sealed, and what stands in the way of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import orjson

from tallystick.core import timestamp
from tallystick.core.corrected import Correction, Times
from tallystick.core.custody import CUSTODY_TYPES, Hold, InForce, OwnEvent
from tallystick.core.moment import DAY
from tallystick.core.pruned import RecordsPruned
from tallystick.core.record import Record
from tallystick.errors import ConflictError, RejectedError, TamperError
from tallystick.limits import CLOCK_PRUNE_MAX_MICROSECONDS
from tallystick.store.verified_reads import VerifiedReads


class Receipt(Protocol):
    """What says where an event was sealed."""

    @property
    def position(self) -> int: ...


Guard = Callable[[VerifiedReads], None]


class SealOwn(Protocol):
    """Seals events of the ledger's own as one, durable on return. `guard` is asked right before, with what reads the
    ledger as it is then, proven; what it raises is raised, and nothing is sealed."""

    def __call__(self, events: Sequence[OwnEvent], *, guard: Guard | None = None) -> Sequence[Receipt]: ...


BeforePrune = Callable[[int, Iterator[Record]], Sequence[tuple[str, dict[str, Any]]]]
"""Asked with the end of a prune and the records that it is about to remove, in order; gives types and payloads of
events of the ledger's own, which are sealed together with the record of the prune, right before it."""

Actor = str | Mapping[str, str] | None


class OvertakenError(ConflictError):
    """Something was ordered in between."""

    def __init__(self, position: int) -> None:
        super().__init__(
            f"the policy, a hold or a prune was ordered at position {position}, after this was planned: plan again"
        )


def read_prune(record: Record) -> RecordsPruned:
    """What the record of a prune says. `TamperError` when no prune can have said it."""
    try:
        pruned = RecordsPruned.of(record)
    except RejectedError as error:
        raise TamperError(f"the prune at position {record.position} was altered: {error}; verify") from error
    if pruned.end > record.position:
        raise TamperError(f"the prune at position {record.position} ends past itself: run a verification")
    return pruned


def nothing_ordered_since(seen: int) -> Guard:
    """A guard: that nothing was ordered since the ledger had `seen` records."""

    def guard(reads: VerifiedReads) -> None:
        for stored in reads.read(seen, reads.size):
            if b'"tallystick.' in stored.line and orjson.loads(stored.line)["event_type"] in CUSTODY_TYPES:
                raise OvertakenError(stored.position)

    return guard


def in_force_by(orders: Iterable[Record]) -> InForce:
    """The policy and the holds in force, by the ledger's own records of them."""
    in_force = InForce()
    for record in orders:
        try:
            in_force.take(record)
        except RejectedError as error:
            raise TamperError(f"the record at position {record.position} cannot be: {error}; verify") from error
    return in_force


def check_not_held(holds: Sequence[Hold], going: Iterable[Record], *, position: int) -> None:
    """Raises `ConflictError` when a hold that the prune at `position` did not look at covers a record that goes; as the
    log itself has both."""
    covered = [0] * len(holds)
    for record in going if holds else ():
        for number, hold in enumerate(holds):
            covered[number] += hold.placed.covers(record.members)
    for hold, count in zip(holds, covered, strict=True):
        if count:
            raise ConflictError(
                f"the hold {hold.name!r} was placed before the prune at position {position} was finished, and covers "
                f"{count} of its records: they stay until the hold is released"
            )


def times_of(corrections: Iterable[Record]) -> Times:
    """By what records count, by the corrections of the clock among the ledger's own records."""
    try:
        return Times(map(Correction.of, corrections))
    except RejectedError as error:
        raise TamperError(f"a correction of the clock cannot be: {error}; run a verification") from error


def check_clock(moment: int, newest: Record) -> None:
    """Whether a prune may go by a clock that says `moment`. Raises `RejectedError` if the newest record is far from it:
    by a clock that is ten years ahead everything has expired."""
    apart = moment - timestamp.parse(newest.recorded_at)
    if abs(apart) > CLOCK_PRUNE_MAX_MICROSECONDS:
        side = "before" if apart > 0 else "after"
        raise RejectedError(
            f"the newest record is of {newest.recorded_at}, {abs(apart) // DAY} days {side} what the clock says, "
            f"{timestamp.render(moment)}",
            place="clock",
            cure="see whether the clock is right, and confirm that it is, or append something first",
        )


def actor_of(actor: Actor) -> Mapping[str, str] | None:
    """Who orders, as an event has it."""
    return {"id": actor} if isinstance(actor, str) else actor
