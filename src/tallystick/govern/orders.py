"""What orders of retention are made of: who orders, how an order is sealed, and what stands in the way of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from tallystick.core.custody import OwnEvent
from tallystick.core.pruned import RecordsPruned
from tallystick.core.record import Record
from tallystick.errors import ConflictError, RejectedError, TamperError
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


def actor_of(actor: Actor) -> Mapping[str, str] | None:
    """Who orders, as an event has it."""
    return {"id": actor} if isinstance(actor, str) else actor
