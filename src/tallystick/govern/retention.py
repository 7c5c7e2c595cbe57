"""Retention, legal holds and the lawful prune of one ledger (SPEC 9): ordered here, told by events of its own.

A prune seals its record first and only then removes anything, both from the same selection; what a crash leaves
between the two, the next prune finishes. It removes what the policy says has expired, never a record that is
held, never one of the ledger's own. That the ledger is whole is for the verification; here its head must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from tallystick.clock import Clock
from tallystick.core.corrected import CLOCK_CORRECTED, Times
from tallystick.core.custody import (
    CUSTODY_TYPES,
    HOLD_PLACED,
    HOLD_RELEASED,
    RECORDS_PRUNED,
    RETENTION_SET,
    Hold,
    HoldPlaced,
    HoldReleased,
    InForce,
    OwnEvent,
    RetentionPolicy,
    RetentionSet,
)
from tallystick.core.event import RESERVED_PREFIX
from tallystick.core.pruned import Absent, RecordsPruned
from tallystick.core.record import Record
from tallystick.errors import ConflictError, NotFoundError, PruneTooLargeError, RejectedError, StoreError, TamperError
from tallystick.govern.head import check_head, checked_frontier, last_hash
from tallystick.govern.orders import (
    Actor,
    BeforePrune,
    OvertakenError,
    Receipt,
    SealOwn,
    actor_of,
    check_clock,
    check_not_held,
    in_force_by,
    nothing_ordered_since,
    read_prune,
    times_of,
)
from tallystick.govern.pruning import Pruned, PrunePlan
from tallystick.govern.selection import Selection, Terms, first_unexpired
from tallystick.read.index import Progress, Questions
from tallystick.read.query import Query
from tallystick.read.search import Search
from tallystick.store.contract import Head, Store
from tallystick.store.reading import absent_ranges, read_record

_ATTEMPTS_MAX: Final = 100
"""Orders by others that came first, in a row, before an order gives up."""


class Retention:
    """Orders retention for one ledger. `catch_up` has the index answer for all there is, and says how much."""

    def __init__(
        self,
        store: Store,
        *,
        search: Search,
        questions: Questions,
        catch_up: Callable[[], int],
        seal_own: SealOwn,
        clock: Clock,
        before_prune: BeforePrune | None = None,
        after_prune: Callable[[], object] | None = None,
        own_records: Callable[[], Iterable[Record]] | None = None,
        proven: Callable[[], Store] | None = None,
    ) -> None:
        """`proven` gives the store with every record proven that is read of it: what goes for good is looked at so.
        `own_records` gives all records of the ledger's own that bind it, proven to be all; without it the index
        is asked for them."""
        self._store: Final = store
        self._search: Final = search
        self._questions: Final = questions
        self._catch_up: Final = catch_up
        self._seal_own: Final = seal_own
        self._clock: Final = clock
        self._before_prune: Final = before_prune
        self._after_prune: Final = after_prune
        self._own: Final = own_records
        self._proven: Final = proven or (lambda: store)

    def policy(self) -> tuple[RetentionPolicy | None, int | None]:
        """The policy in force, and the position of the record that set it; both None when none ever was."""
        in_force = self._in_force(self._catch_up())
        return in_force.policy, in_force.policy_position

    def set(self, policy: RetentionPolicy, *, actor: Actor = None, reason: str | None = None) -> Receipt:
        """Put a policy in force. It removes nothing by itself."""
        if type(policy) is not RetentionPolicy:
            cure = 'make it with RetentionPolicy.of("90d", {"phi": "6y"})'
            raise RejectedError(f"{policy!r} is no policy", place="policy", cure=cure)
        return self._order(lambda _: OwnEvent(RETENTION_SET, RetentionSet(policy, reason).payload(), actor_of(actor)))

    def holds(self) -> list[Hold]:
        """The holds in force, in the order of their placing."""
        return [*self._in_force(self._catch_up()).holds.values()]

    def hold(
        self,
        name: str,
        *,
        reason: str,
        entity: str | None = None,
        label: str | None = None,
        first: int | None = None,
        end: int | None = None,
        actor: Actor = None,
    ) -> Receipt:
        """Hold what there is and will be of one entity, with one label, or at the positions [first, end).

        `ConflictError` when a hold of that name is in force, `RejectedError` for a scope that is none or several.
        """
        placed = HoldPlaced(name=name, reason=reason, entity=entity, label=label, first=first, end=end)

        def place(in_force: InForce) -> OwnEvent:
            if name in in_force.holds:
                raise ConflictError(f"the hold {name!r} is in force already: release it first, or choose another name")
            in_force.check_room()
            return OwnEvent(HOLD_PLACED, placed.payload(), actor_of(actor))

        return self._order(place)

    def release(self, name: str, *, reason: str, actor: Actor = None) -> Receipt:
        """Release a hold. `NotFoundError` when none of that name is in force."""
        released = HoldReleased(name, reason)

        def lift(in_force: InForce) -> OwnEvent:
            if name not in in_force.holds:
                raise NotFoundError(f"there is no hold {name!r} in force")
            return OwnEvent(HOLD_RELEASED, released.payload(), actor_of(actor))

        return self._order(lift)

    def plan(self, *, progress: Progress | None = None) -> PrunePlan:
        """What a prune would do now: each record that would go is looked at, and none is touched.

        `RejectedError` when no policy was ever set, `TamperError` when the ledger does not hold at its head.
        """
        return self._plan(self._clock(), progress=progress)

    def _plan(self, moment: int, *, most: int | None = None, progress: Progress | None = None) -> PrunePlan:
        """What a prune would do as of a moment, below the position `most` if it is given."""
        size = self._catch_up()
        in_force = self._in_force(size)
        if in_force.policy is None or in_force.policy_position is None:
            cure = "set how long records are kept first, such as 6y, or forever"
            raise RejectedError("no retention policy was ever set", cure=cure)
        check_head(self._store)
        last = self._last_prune(size)
        unfinished = last if last is not None and self._is_unfinished(last[1]) else None
        proven, times = self._proven(), self._times(size)
        due = first_unexpired(proven, in_force.policy.period_days, moment, end=size, times=times)
        end = max(due if most is None else min(due, most), last[1].end if last else 0)
        terms = Terms(end=end, moment=moment, policy=in_force.policy, holds=tuple(in_force.holds.values()), times=times)
        absent = self._absent(end, last, unfinished=unfinished is not None)
        selection = Selection(proven, self._questions, terms, absent)
        # All that is below the end is looked at in the log itself, and not only through the index.
        doomed = selection.doomed(proven, expired_from=last[1].end if last else 0, progress=progress)
        size_bytes = sum(len(record.line) for record in doomed)
        return PrunePlan(
            end=end,
            first=selection.first,
            count=selection.count,
            bytes=size_bytes,
            kept=selection.stay,
            kept_own=selection.own,
            kept_by_hold=selection.held,
            kept_by_label=selection.labelled,
            oldest_kept=self._time_of_oldest(selection, size),
            policy=in_force.policy.text,
            policy_position=in_force.policy_position,
            unfinished=unfinished[0] if unfinished else None,
            size=size,
            terms=terms,
            absent=selection.absent_after(),
        )

    def prune(
        self,
        plan: PrunePlan | None = None,
        *,
        actor: Actor = None,
        clock_is_right: bool = False,
        progress: Progress | None = None,
    ) -> Pruned:
        """Do what a plan says, by default one made now; first finish an earlier prune that was cut short.

        Nothing to prune is no error, and seals nothing. `ConflictError` when the policy, a hold or a prune came
        after the plan was made: plan again. `RejectedError` when the newest record is more than 31 days from the clock,
        unless `clock_is_right` says that somebody looked. After any other error it may be repeated.

        Where roll-ups come to more than one transaction should hold, it goes in parts, each a prune of its own.
        """
        finished = self._finish_last()
        plan = part = plan or self.plan(progress=progress)
        if plan.first is not None and not clock_is_right:
            check_clock(plan.terms.moment, read_record(self._proven(), plan.size - 1))
        done = Pruned(position=None, end=plan.end, count=0, bytes=0, finished=finished)
        ours: set[int] = set()
        while part.first is not None:
            try:
                position = self._prune(part, since=plan.size, ours=ours, actor=actor)
            except PruneTooLargeError as error:
                if error.position >= part.end:
                    raise
                part = self._plan(plan.terms.moment, most=error.position)
                if part.end > error.position:
                    raise
                continue
            ours.add(position)
            done = replace(done, position=position, count=done.count + part.count, bytes=done.bytes + part.bytes)
            if part.end >= plan.end:
                break
            part = self._plan(plan.terms.moment, most=plan.end)
        return done

    def _prune(self, plan: PrunePlan, *, since: int, ours: Container[int], actor: Actor) -> int:
        """Seal and remove what a plan says; the position of its record. Nothing but `ours` was ordered `since`."""
        size = self._catch_up()
        self._check_nothing_ordered(since, size, ours)
        head = check_head(self._store)
        pruned = self._record_of(plan, head)
        events = [OwnEvent(kind, payload) for kind, payload in self._say_before(plan)]
        receipts = self._seal_own([*events, pruned.event(actor_of(actor))], guard=nothing_ordered_since(size))
        # A crash here leaves a ledger that says what it is about to remove, with all of it still there.
        position = receipts[-1].position
        self._finish(position, RecordsPruned.of(read_record(self._store, position)))
        return position

    # ------------------------------------------------------------------------------ what is in force, orders

    def _in_force(self, size: int) -> InForce:
        return in_force_by(self._own_records((RETENTION_SET, HOLD_PLACED, HOLD_RELEASED), size))

    def _times(self, end: int) -> Times:
        """By what records count that are looked at from position `end`."""
        return times_of(self._own_records((CLOCK_CORRECTED,), end))

    def _own_records(self, types: tuple[str, ...], size: int, *, newest_first: bool = False) -> Iterator[Record]:
        if self._own is None:
            return self._search.scan(Query(event_types=types), end=size, newest_first=newest_first)
        records = [one for one in self._own() if one.event_type in types and one.position < size]
        return reversed(records) if newest_first else iter(records)

    def _order(self, make: Callable[[InForce], OwnEvent]) -> Receipt:
        """Seal one event that depends on what is in force; anew when another order came first."""
        for _ in range(_ATTEMPTS_MAX):
            size = self._catch_up()
            event = make(self._in_force(size))
            try:
                return self._seal_own([event], guard=nothing_ordered_since(size))[0]
            except OvertakenError:
                continue
        raise ConflictError(f"other orders were first {_ATTEMPTS_MAX} times: wait a moment, then repeat")

    def _check_nothing_ordered(self, first: int, end: int, ours: Container[int]) -> None:
        for record in self._own_records(CUSTODY_TYPES, end):
            if record.position >= first and record.position not in ours:
                raise OvertakenError(record.position)

    # ----------------------------------------------------------------------------------- planning a prune

    def _last_prune(self, size: int) -> tuple[int, RecordsPruned] | None:
        for record in self._own_records((RECORDS_PRUNED,), size, newest_first=True):
            return record.position, read_prune(record)
        return None

    def _is_unfinished(self, pruned: RecordsPruned) -> bool:
        # All that a prune removes goes in one transaction: its first record tells of all of them.
        return bool(self._store.fetch([pruned.first]))

    def _absent(
        self, end: int, last: tuple[int, RecordsPruned] | None, *, unfinished: bool
    ) -> Iterable[tuple[int, int]]:
        """The ranges below `end` without records, as they will be when the last prune is finished.

        They are what that prune names, or nothing: `TamperError` for a record that is missing, were it for a moment, as
        it would be sealed that it is gone.
        """
        if last is not None and unfinished:
            return self._selection_of(*last).absent_ranges()
        absent = [*absent_ranges(self._store, 0, min(end, self._store.pruned_below()))]
        if Absent.over(absent) != (last[1].absent if last is not None else Absent.over(())):
            raise TamperError("a record is missing that the last prune does not name: run a verification")
        return absent

    def _time_of_oldest(self, selection: Selection, size: int) -> str | None:
        position = selection.oldest_kept
        if position is not None:
            return read_record(self._store, position).recorded_at
        after = self._search.scan(Query(), first=selection.terms.end, end=size)
        return next((one.recorded_at for one in after if not one.event_type.startswith(RESERVED_PREFIX)), None)

    def _record_of(self, plan: PrunePlan, head: Head) -> RecordsPruned:
        """The record of a prune, under a head that holds."""
        assert plan.first is not None, "there is something to prune"
        proven = self._proven()
        return RecordsPruned(
            first=plan.first,
            end=plan.end,
            count=plan.count,
            first_hash=read_record(proven, plan.first).hash,
            last_hash=last_hash(proven, plan.end, head),
            frontier_at_end=checked_frontier(self._store, plan.end, head),
            checkpoint_at_prune=head.checkpoint,
            policy_position=plan.policy_position,
            holds_checked=tuple(sorted(hold.position for hold in plan.terms.holds)),
            absent=plan.absent,
            moment=plan.terms.moment,
        )

    def _say_before(self, plan: PrunePlan) -> Sequence[tuple[str, dict[str, Any]]]:
        if self._before_prune is None:
            return ()
        last = self._last_prune(self._catch_up())
        proven, absent = self._proven(), self._absent(plan.end, last, unfinished=False)
        selection = Selection(proven, self._questions, plan.terms, absent)
        counted = 0

        def doomed() -> Iterator[Record]:
            nonlocal counted
            for record in selection.doomed(proven):
                counted += 1
                yield record

        going = doomed()
        told = self._before_prune(plan.end, going)
        for _ in going:  # what was not asked for is counted as well
            pass
        if counted != plan.count:
            raise TamperError(f"{counted} records go where {plan.count} were planned to: run a verification")
        return told

    # ---------------------------------------------------------------------------------------- removing

    def _finish_last(self) -> int | None:
        """Finish the newest prune if it was cut short; the position of its record then."""
        last = self._last_prune(self._catch_up())
        if last is None or not self._is_unfinished(last[1]):
            return None
        self._finish(*last)
        return last[0]

    def _finish(self, position: int, pruned: RecordsPruned) -> None:
        """Remove what the record of a prune says, selected anew from what it names. The only way to remove."""
        if not self._is_unfinished(pruned):
            return  # another process did it
        selection = self._selection_of(position, pruned)
        holds = self._in_force(self._catch_up()).holds.values()
        unchecked = [hold for hold in holds if hold.position not in pruned.holds_checked]
        check_not_held(unchecked, selection.doomed(self._proven()), position=position)
        # A crash before this returns leaves all of the records, or none of them.
        removed = self._store.prune(pruned.end, selection.kept())
        if removed != pruned.count and (removed or self._is_unfinished(pruned)):  # else another process was first
            raise TamperError(
                f"the prune at position {position} removed {removed} records, and not the {pruned.count} that it "
                "names: find out who can write to the store, and run a verification"
            )
        # A crash here leaves an index that proposes what is gone; whoever opens it next has it forget that.
        if self._after_prune is not None:
            self._after_prune()

    def _selection_of(self, position: int, pruned: RecordsPruned) -> Selection:
        """What a prune selected, from its record. `StoreError` when that is not what it names."""
        try:
            proven = self._proven()
            policy = RetentionSet.of(read_record(proven, pruned.policy_position)).policy
            in_force = InForce()
            for hold in pruned.holds_checked:
                in_force.take(read_record(proven, hold))
        except RejectedError as error:
            raise TamperError(f"a prune names what is no policy, or no hold: {error}; run a verification") from error
        holds, times = tuple(in_force.holds.values()), self._times(position)
        terms = Terms(end=pruned.end, moment=pruned.moment, policy=policy, holds=holds, times=times)
        absent = absent_ranges(self._store, 0, min(pruned.end, self._store.pruned_below()))
        selection = Selection(proven, self._questions, terms, absent)
        if selection.absent_after() != pruned.absent:
            raise StoreError(
                f"the index does not select what the prune at position {position} names, and nothing was removed: "
                "delete index.db, which is then made anew, and prune again"
            )
        return selection
