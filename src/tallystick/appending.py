"""The writing half of the front door: how events get into one ledger, at once or by its queue.

Nothing is taken that was not accepted whole; what is answered is durable (I1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tallystick.core.event import Event
from tallystick.errors import BusyError, ConflictError, RejectedError, as_outcome
from tallystick.govern.registry import Registry
from tallystick.write.accept import Acceptor
from tallystick.write.draft import Draft
from tallystick.write.queue import Queue, Ticket
from tallystick.write.request import Sealed, Submission
from tallystick.write.rules import RulesChangedError
from tallystick.write.sealer import Sealer

EventLike = Event | Mapping[str, Any] | bytes
"""An `Event`, a mapping of its members, or one JSON document in UTF-8."""

_ATTEMPTS_MAX: Final = 100
"""Changes of schemas, in a row, between the acceptance of events and their turn."""
_CHANGED: Final = f"schemas changed {_ATTEMPTS_MAX} times meanwhile: wait a moment, then repeat"


class Appending(ABC):
    """What takes events in. Safe for many threads."""

    _registry: Registry
    _acceptor: Acceptor
    _queue_acceptor: Acceptor
    _sealer: Sealer | None
    _queue: Queue | None

    @abstractmethod
    def _open_sealer(self) -> Sealer:
        """What seals."""

    @property
    @abstractmethod
    def queue(self) -> Queue:
        """The queue of what was published and is not sealed yet."""

    def append(self, event: EventLike | None = None, /, **members: Any) -> Sealed:
        """Seal one event, given whole or as members of `Event`. On return it is durable.

        Raises `RejectedError`, `ConflictError` (the expected version, or the id used for other content),
        `BusyError`, or `StoreError`, after which the outcome may be unknown: repeat it with the same id.
        """
        generation = self._registry.generation
        drafts = [self._acceptor.accept(_one_event(event, members))]
        return self._seal(drafts, generation, numbered=False)[0]

    def append_many(self, events: Iterable[EventLike]) -> Sequence[Sealed]:
        """Seal up to 10,000 events in their order and as one commit: all of them, or none.

        Raises as `append` does; a `RejectedError` names the event by its index among `events`.
        """
        generation = self._registry.generation
        drafts = self._acceptor.accept_all(events)
        return self._seal(drafts, generation, numbered=True) if drafts else []

    def append_each(
        self, submissions: Sequence[Submission], *, patient: bool = True
    ) -> list[Sequence[Sealed] | RejectedError | ConflictError]:
        """Seal what many bring, each wholly or not at all, in their order and with as few commits as can be.

        Gives for each its receipts, or why it was refused. At most 10,000 events in all are worth one call. Raises
        `BusyError`, also where it would have to wait for other writers and is not `patient`, or `StoreError` when the
        outcome may be unknown; then all may be repeated.
        """
        if self._sealer is None and not patient:
            raise BusyError("nothing was sealed yet, and what that takes is not at hand")
        generation = self._registry.generation
        taken, outcomes = _accept_each(submissions, self._acceptor)
        for _ in range(_ATTEMPTS_MAX):
            if not taken:
                return [outcomes[place] for place in range(len(submissions))]
            try:
                sealed = self._open_sealer().seal_all([*taken.values()], generation=generation, patient=patient)
            except RulesChangedError:
                generation = self._registry.generation
                taken = self._judge_each_again(taken, outcomes)
                continue
            for (place, drafts), outcome in zip(taken.items(), sealed, strict=True):
                outcomes[place] = outcome
                if not isinstance(outcome, ConflictError):
                    self._registry.count_breaches(drafts)
            taken = {}
        raise BusyError(_CHANGED)

    def _judge_each_again(self, taken: dict[int, list[Draft]], outcomes: dict[int, Any]) -> dict[int, list[Draft]]:
        """What of it can still be taken; why the rest cannot goes to the outcomes."""
        still: dict[int, list[Draft]] = {}
        for place, drafts in taken.items():
            try:
                still[place] = self._acceptor.judge_again(drafts, numbered=len(drafts) > 1)
            except RejectedError as error:
                outcomes[place] = as_outcome(error)
        return still

    def publish_each(
        self, submissions: Sequence[Submission], *, patient: bool = True
    ) -> list[list[Ticket] | RejectedError]:
        """Take in what many bring, as `publish_many` does, with one wait for the disk: tickets, or a refusal, of each.

        Raises `BusyError` when they do not all fit, also where the queue is not open yet and nobody is `patient`, and
        `StoreError`.
        """
        if self._queue is None and not patient:
            raise BusyError("the queue is not open yet")
        queue = self._queue_by_rules()
        taken, refused = _accept_each(submissions, self._queue_acceptor)
        drafts = [draft for batch in taken.values() for draft in batch]
        tickets = iter(queue.accept(drafts) if drafts else ())
        self._registry.count_breaches(drafts)
        given = {place: [next(tickets) for _ in batch] for place, batch in taken.items()}
        return [given[place] if place in given else refused[place] for place in range(len(submissions))]

    def publish(self, event: EventLike | None = None, /, **members: Any) -> Ticket:
        """Take an event in, as `append` does, without waiting for its turn: durable on return, and sealed soon after.

        What has become of it, says `queue.progress`. Raises `RejectedError`, `BusyError` when the queue is full, or
        `StoreError`, after which the outcome may be unknown: repeat it with the same id.
        """
        queue = self._queue_by_rules()
        drafts = [self._queue_acceptor.accept(_one_event(event, members))]
        tickets = queue.accept(drafts)
        self._registry.count_breaches(drafts)
        return tickets[0]

    def publish_many(self, events: Iterable[EventLike]) -> list[Ticket]:
        """Take up to 10,000 events in, in their order and with one wait for the disk: all of them, or none.

        Raises as `publish` does; a `RejectedError` names the event by its index among `events`.
        """
        queue = self._queue_by_rules()
        drafts = self._queue_acceptor.accept_all(events)
        tickets = queue.accept(drafts) if drafts else []
        self._registry.count_breaches(drafts)
        return tickets

    def _seal(self, drafts: list[Draft], generation: int, *, numbered: bool) -> Sequence[Sealed]:
        """Seal drafts that were judged by the rules of a generation; judged anew when others are in force by then."""
        sealer = self._open_sealer()
        for _ in range(_ATTEMPTS_MAX):
            try:
                sealed = sealer.seal(drafts, generation=generation)
            except RulesChangedError:
                generation = self._registry.generation
                drafts = self._acceptor.judge_again(drafts, numbered=numbered)
            else:
                self._registry.count_breaches(drafts)
                return sealed
        raise BusyError(_CHANGED)

    def _queue_by_rules(self) -> Queue:
        """The queue, and the rules as they stand now: what it takes is not judged again when its turn comes."""
        queue = self.queue
        self._registry.look()
        return queue


def _one_event(event: EventLike | None, members: Mapping[str, Any]) -> EventLike:
    if event is None:
        return members
    if members:
        raise RejectedError("an event was given both whole and as members", cure="give one of them")
    return event


def _accept_each(
    submissions: Sequence[Submission], acceptor: Acceptor
) -> tuple[dict[int, list[Draft]], dict[int, Any]]:
    """By place the drafts of what can be taken, and why the others cannot."""
    taken: dict[int, list[Draft]] = {}
    refused: dict[int, Any] = {}
    for place, (events, principal) in enumerate(submissions):
        at_work = acceptor if principal is None else acceptor.acting_for(principal)
        try:
            taken[place] = [at_work.accept(events[0])] if len(events) == 1 else at_work.accept_all(events)
        except RejectedError as error:
            refused[place] = as_outcome(error)
    return taken, refused
