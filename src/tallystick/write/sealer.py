"""The sealer of one ledger: plans a batch, commits it, and answers when it is durable.

What the sealer keeps in memory can all be read back from the store, and after any failure it is: a commit
that lost the race, or whose outcome is unknown, drops the state, reads the head and goes on from there.
So recovery is the normal path (SPEC 6; ARCHITECTURE has the table of what a crash leaves).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core.corrected import CLOCK_CORRECTED
from tallystick.core.custody import OwnEvent
from tallystick.core.keys import LedgerKeys, epoch_key, tagger
from tallystick.core.note import Signer
from tallystick.core.record import KEY_ROTATED, Record
from tallystick.core.system import SYSTEM_ENTITY, Genesis, KeyRotated, Purpose
from tallystick.errors import (
    BusyError,
    ConflictError,
    NotFoundError,
    StoreError,
    TallystickError,
    as_outcome,
)
from tallystick.ids import IdMaker
from tallystick.limits import BATCH_EVENTS_MAX, COMMIT_BYTES_MAX, WAITING_BYTES_MAX, WAITING_EVENTS_MAX
from tallystick.store.contract import Store
from tallystick.store.lineage import Lineage
from tallystick.store.verified_reads import VerifiedReads
from tallystick.write.draft import Draft, own_draft, system_draft
from tallystick.write.group import GroupCommit
from tallystick.write.known import BehindError, Known
from tallystick.write.moment import Moments
from tallystick.write.request import Load, Request, Sealed
from tallystick.write.resume import check_keys, load_state
from tallystick.write.rules import Rules, RulesChangedError
from tallystick.write.seal import Plan, Planner, State, Tag

_ATTEMPTS_MAX: Final = 100
"""Lost races in a row before a batch gives up; another writer made progress at each of them."""

_FREE_ATTEMPTS: Final = 5
"""Lost races after which others are held up. Whoever was first has all in memory, and is the faster one next time, too:
a third process lost more than a thousand times in a row to two that appended in a loop."""

_OTHERS_FIRST: Final = f"other writers were first {_ATTEMPTS_MAX} times: wait a moment, then repeat"

LoadKeys = Callable[[], LedgerKeys]
"""Reads the keys in force; asked again when the ledger says that they were rotated."""

CheckHead = Callable[[bytes | None], None]
"""Raises `TamperError` when nothing may be added: the ledger was rolled back or forked. Called before every plan, and
with the checkpoint, proven, when the state was read back from the store."""

T = TypeVar("T")


class Sealer:
    """Seals drafts for one ledger that exists. Safe for many threads, and beside other processes.

    `turn` is held while the sealer works; hold it to use `known` from elsewhere. `told` is called with each
    plan that was committed.
    """

    def __init__(
        self,
        store: Store,
        *,
        genesis: Genesis,
        load_keys: LoadKeys,
        known: Known,
        moments: Moments,
        ids: IdMaker,
        turn: threading.Lock | None = None,
        told: Callable[[Plan], None] | None = None,
        check_head: CheckHead | None = None,
    ) -> None:
        self._rules: Rules | None = None
        self._told: Final = told
        self._check_head: Final = check_head
        self._store: Final = store
        self._genesis: Final = genesis
        self._load_keys: Final = load_keys
        self._keys_at: tuple[int, int] | None = None
        self._keys = load_keys()
        self._known: Final = known
        self._moments: Final = moments
        self._ids: Final = ids
        self._turn: Final = turn or threading.Lock()
        self._group: Final = GroupCommit(
            self._settle,
            most=Load(BATCH_EVENTS_MAX, COMMIT_BYTES_MAX),
            waiting_max=Load(WAITING_EVENTS_MAX, WAITING_BYTES_MAX),
            turn=self._turn,
        )
        self._state: State | None = None
        self._lineage: Final = Lineage(store)
        self._reads: VerifiedReads | None = None
        """The log as the state in memory proves it."""
        self._tag: tuple[int, Tag] | None = None
        self._checkpoint_signer: Signer | None = None

    def seal(self, drafts: Sequence[Draft], *, generation: int | None = None) -> Sequence[Sealed]:
        """Seal drafts as one: all of them, durable on return, or none.

        `generation` is that of the rules by which they were judged, if they are to be judged by those in force when
        they are sealed: `RulesChangedError` when these are others. Raises `ConflictError`, `BusyError`, or
        `StoreError` when the outcome may be unknown.
        """
        return self._group.run(Request(drafts, generation))

    def seal_each(self, drafts: Sequence[Draft]) -> list[Sealed | ConflictError]:
        """Seal drafts in their order, each by itself, as `seal_all` does: its receipt, or its conflict."""
        outcomes = self.seal_all([[draft] for draft in drafts])
        return [outcome if isinstance(outcome, ConflictError) else outcome[0] for outcome in outcomes]

    def seal_all(
        self, batches: Sequence[Sequence[Draft]], *, generation: int | None = None, patient: bool = True
    ) -> list[Sequence[Sealed] | ConflictError]:
        """Seal batches in their order with as few commits as can be, each wholly or not: receipts, or a conflict.

        `generation` is as for `seal`; with `RulesChangedError` none was sealed. Raises `BusyError`, also where it
        would have to wait for another thread or process and is not `patient`, or `StoreError` when the outcome may be
        unknown; then all may be repeated.
        """
        requests = [Request(drafts, generation) for drafts in batches]
        if not self._turn.acquire(blocking=patient):
            raise BusyError("another thread seals just now")
        try:
            self._commit_until_won(requests, prepare=_open_due_epoch, patient=patient)
        finally:
            self._turn.release()
        return [request.outcome() for request in requests]

    def seal_own(
        self, events: Sequence[OwnEvent], *, guard: Callable[[VerifiedReads], None] | None = None
    ) -> Sequence[Sealed]:
        """Seal events of the ledger's own, together, as `seal` does.

        `guard` is asked right before, with what reads the ledger as it is then, and again after every lost race;
        what it raises is raised, and nothing is sealed.
        """
        request = Request([own_draft(event, self._ids) for event in events])

        def prepare(planner: Planner) -> None:
            if guard is not None:
                assert self._reads is not None, "planned from a state"
                guard(self._reads)
            _open_due_epoch(planner)

        with self._turn:
            self._commit_until_won([request], prepare=prepare)
        assert request.sealed is not None, "drafts without conditions are never refused"
        return request.sealed

    def correct_clock(self, reason: str, *, actor: Mapping[str, str] | None) -> Sealed:
        """Record that the clock is right, at the time that it says, and that times count from there (SPEC 5.9).

        Raises `ConflictError` when nothing contradicts it.
        """
        requests: list[Request] = []

        def prepare(planner: Planner) -> None:
            corrected = OwnEvent(CLOCK_CORRECTED, planner.correct_clock(reason).payload(), actor)
            requests[:] = [Request([own_draft(corrected, self._ids)])]

        with self._turn, self._moments.insisting():
            self._commit_until_won(requests, prepare=prepare)
        [sealed] = requests[0].sealed or ()
        return sealed

    def find(self, event_id: str) -> int | None:
        """The position of the record with an event id, if there is one, also of those that others have sealed."""
        return self._ask(lambda _: self._known.find_all([event_id]).get(event_id))

    def prove(self, ask: Callable[[VerifiedReads, int], T]) -> T:
        """Ask something of the log as it is now: what reads it, proven, and how many records are the ledger's own."""
        return self._ask(lambda reads: ask(reads, self._known.version(SYSTEM_ENTITY)))

    def _ask(self, ask: Callable[[VerifiedReads], T]) -> T:
        """Ask the log as it is now; once more where another process has sealed more meanwhile."""
        with self._turn:
            for _ in range(_ATTEMPTS_MAX):
                self._is_current()
                try:
                    self._current_state()
                    assert self._reads is not None, "there is a state"
                    return ask(self._reads)
                except BehindError:
                    self._state = None
        raise BusyError(_OTHERS_FIRST)

    def hold_to(self, rules: Rules) -> None:
        """Hold events to these rules from now on; they have read what was there when they were last asked."""
        with self._turn:
            self._rules = rules

    def forget(self) -> None:
        """Read everything back from the store at the next commit."""
        with self._turn:
            self._state = None

    def change_epoch(self) -> None:
        """Close the present epoch and open the next (SPEC 5.2)."""
        with self._turn:
            self._commit_until_won([], prepare=Planner.open_epoch)

    def rotate_key(self, purpose: Purpose, new: Ed25519PrivateKey) -> None:
        """Name a new checkpoint or evidence key in the ledger, signed by old and new (SPEC 5.4).

        From this commit on the new checkpoint key signs. The caller keeps keys where keys are kept.
        """
        with self._turn:

            def name_key(planner: Planner) -> None:
                # Each time anew: another process may have changed the old key since the last attempt.
                old = self._keys.checkpoint if purpose == "checkpoint" else self._keys.evidence
                rotated = KeyRotated.sign(purpose, ledger=self._genesis.ledger, old=old, new=new)
                planner.name_key(purpose, system_draft(KEY_ROTATED, rotated.payload(), self._ids))

            signing = new if purpose == "checkpoint" else None
            self._commit_until_won([], prepare=name_key, signing=signing)
            self._state = None  # the keys are read again with it

    def _settle(self, requests: list[Request]) -> None:
        try:
            self._commit_until_won(requests, prepare=_open_due_epoch)
        except TallystickError as error:
            for request in requests:
                request.error = error

    def _commit_until_won(
        self,
        requests: list[Request],
        *,
        prepare: Callable[[Planner], None],
        signing: Ed25519PrivateKey | None = None,
        patient: bool = True,
    ) -> None:
        """Plan and commit; when another process was first, read what it wrote and plan again.

        `signing` signs the checkpoint in place of the key in force.
        """
        for attempt in range(_ATTEMPTS_MAX):
            with nullcontext() if attempt < _FREE_ATTEMPTS else self._store.turn(patient=patient):
                if self._commit_once(requests, prepare, signing, patient):
                    return
        raise BusyError(_OTHERS_FIRST)

    def _commit_once(
        self,
        requests: list[Request],
        prepare: Callable[[Planner], None],
        signing: Ed25519PrivateKey | None,
        patient: bool,
    ) -> bool:
        """Plan and commit. False when another process was first; then nothing is known of the log any more."""
        try:
            planner = self._planner()
            prepare(planner)
            refused = self._add_all(planner, requests)
        except BehindError:
            self._state = None
            return False
        if refused and not self._is_current():
            return False  # what it conflicts with may be what others have written meanwhile
        if planner.count:
            plan = planner.finish(self._signer(signing), tag=self._tag_of_epoch())
            if not self._commit(plan, patient=patient):
                return False
            receipts = plan.receipts
        else:
            receipts = planner.repeats()
        for request, sealed in receipts:
            request.sealed = sealed
        for request, error in refused:
            request.error = error
        return True

    def _planner(self) -> Planner:
        state = self._current_state()
        if self._check_head is not None:
            self._check_head(None)
        self._known.check_room()
        return Planner(
            state,
            genesis=self._genesis,
            known=self._known,
            read=self._read,
            event_mac=self._keys.event_mac,
            ids=self._ids,
            now=self._moments.now(state.recorded_at),
        )

    def _current_state(self) -> State:
        """The state in memory, else read back from the store, with the index caught up to it."""
        if self._state is None:
            state = load_state(self._store, genesis=self._genesis)
            named = (state.checkpoint_key_at, state.evidence_key_at)
            if named != self._keys_at:
                keys = self._load_keys()
                check_keys(keys, self._store, state=state, genesis=self._genesis)
                self._keys, self._keys_at = keys, named  # only now: the next attempt must not pass unchecked
            if self._check_head is not None:
                self._check_head(state.checkpoint)
            # What is known from before was learnt of the tree before: all of it counts only if this one extends that.
            self._lineage.follow(state.tree)
            self._reads = VerifiedReads(self._store, state.tree)
            self._known.catch_up(self._reads)
            if self._rules is not None:
                self._rules.follow(self._reads)
            self._state = state
        return self._state

    def _commit(self, plan: Plan, *, patient: bool) -> bool:
        """Make the plan's commit. False when another process was first; raises when it failed."""
        state, self._state = self._state, None  # until we know better, we know nothing
        assert state is not None, "planned from a state"
        try:
            self._store.commit(state.tree.size, plan.batch, plan.head, after=state.checkpoint, patient=patient)
        except ConflictError:
            return False
        except StoreError:
            # Failed, or failed after it was done? The head tells. If it does not answer, the caller has to
            # ask again; our signature of a checkpoint that was not committed has left no trace outside.
            head = self._store.head()
            if head is None or head.checkpoint != plan.head.checkpoint:
                raise
        assert self._reads is not None, "there is a state"
        self._reads.advance(plan.state.tree)
        self._lineage.advance(plan.state.tree)
        self._known.learn(plan.head.size, plan.versions, lines=plan.batch.lines, brought=plan.brought, made=plan.made)
        if self._told is not None:
            self._told(plan)
        if self._rules is not None:
            self._rules.learn(state.tree.size, plan.batch.lines, own=SYSTEM_ENTITY in plan.versions)
        self._state = plan.state
        return True

    def _read(self, position: int) -> Record:
        """A record that was sealed before; a repeat is answered with what it says."""
        assert self._reads is not None, "there is a state"
        for stored in self._reads.fetch([position]):
            return Record.parse(stored.line)
        raise NotFoundError(f"the record at position {position} was pruned: its time to be kept was over")

    def _add_all(self, planner: Planner, requests: list[Request]) -> list[tuple[Request, TallystickError]]:
        """Add what can be added; give the others with what is against them."""
        refused: list[tuple[Request, TallystickError]] = []
        generation = None if self._rules is None else self._rules.generation
        planner.look_up(requests)
        for request in requests:
            if request.generation is not None and request.generation != generation:
                refused.append((request, RulesChangedError("schemas changed while the events were on their way")))
                continue
            try:
                planner.add(request)
            except BehindError:
                raise
            except ConflictError as error:
                refused.append((request, as_outcome(error)))
        return refused

    def _is_current(self) -> bool:
        head = self._store.head()
        state = self._state
        if state and head and (head.size, head.checkpoint) == (state.tree.size, state.checkpoint):
            return True
        self._state = None
        return False

    def _tag_of_epoch(self) -> Tag:
        """The MAC of the present epoch. Only this one key is kept; those of earlier epochs are not."""
        assert self._state is not None, "planned from a state"
        epoch = self._state.epoch
        if self._tag is None or self._tag[0] != epoch:
            self._tag = (epoch, tagger(epoch_key(self._keys.event_mac, epoch)))
        return self._tag[1]

    def _signer(self, signing: Ed25519PrivateKey | None) -> Signer:
        key = signing or self._keys.checkpoint
        if self._checkpoint_signer is None or self._checkpoint_signer.private_key is not key:
            self._checkpoint_signer = Signer(self._genesis.origin, key)
        return self._checkpoint_signer


def _open_due_epoch(planner: Planner) -> None:
    if planner.epoch_is_due():
        planner.open_epoch()
