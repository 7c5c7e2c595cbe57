"""The guarding half of the front door: what keeps one ledger the only one, and the newest.

Here are its keys and their rotation, its head mark (`store.head_mark`), by which a rollback is noticed, and the record
of a loss that was accepted.
"""

from __future__ import annotations

import hmac
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from tallystick.clock import Clock
from tallystick.config import RESTORED_FILE, Location
from tallystick.core import timestamp
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.custody import OwnEvent, check_reason
from tallystick.core.keys import LedgerKeys, PublicKeys, commitment, epoch_key
from tallystick.core.note import VerifierKey
from tallystick.core.record import EPOCH_OPENED, Record
from tallystick.core.restored import LEDGER_RESTORED, LedgerRestored, epochs_to_pass
from tallystick.core.system import EpochOpened, Genesis, Purpose
from tallystick.errors import (
    ConflictError,
    DeniedError,
    NotFoundError,
    RejectedError,
    StoreError,
    TamperError,
    for_operators,
)
from tallystick.keystore import Keystore
from tallystick.store.contract import Head, Store
from tallystick.store.contradiction import MarkProblem
from tallystick.store.head_mark import HeadMark
from tallystick.store.proven_store import ProvenStore
from tallystick.store.reading import read_record, read_records
from tallystick.store.trusted_keys import Trusted, TrustedKeys
from tallystick.store.verified_reads import VerifiedReads
from tallystick.write.sealer import Sealer

_RECORDS_OF_A_CHANGE: Final = 2
"""The close of an epoch, and the opening of the next."""

_log: Final = logging.getLogger("tallystick.ledger")


class Guarding(ABC):
    """What keeps a ledger's identity. Safe for many threads."""

    _store: Store
    _location: Location
    _keystore: Keystore
    _clock: Clock
    _mark: HeadMark | None
    _trusted: TrustedKeys
    genesis: Genesis
    id: bytes
    _held: Head | None = None
    """The head that was held against what is known, and proven, last."""
    _handed_out: bytes = b""
    """The checkpoint that was proven last, and may go out."""

    @abstractmethod
    def _head(self) -> Head:
        """The newest commit."""

    @abstractmethod
    def _proven_store(self) -> ProvenStore:
        """The store as it is now, of which every record that is read is proven."""

    @abstractmethod
    def _open_sealer(self) -> Sealer:
        """What seals."""

    @abstractmethod
    def _step_readers_back(self, size: int) -> None:
        """Have readers that have seen what is not in the log any more go on from a size, or begin again."""

    @property
    @abstractmethod
    def has_keys(self) -> bool:
        """Whether the keys are at hand, and may be used."""

    @property
    def verifier_key(self) -> VerifierKey:
        """The key by which the present checkpoints verify, proven. `TamperError` when nothing vouches for it."""
        return self._trust(self._head()).checkpoint

    @property
    def evidence_key(self) -> bytes:
        """The public key, 32 bytes, that signs evidence at present, proven. `TamperError` when nothing vouches for it.

        Without the keys at hand this reads the log from the record that named it, for a newer one.
        """
        return self._trusted.evidence_at(self._head())

    def key_named_at(self, purpose: Purpose) -> int:
        """The position of the record that named the `checkpoint` or `evidence` key in force; 0 is the genesis."""
        head = self._head()
        self._trust(head)
        return head.checkpoint_key_at if purpose == "checkpoint" else head.evidence_key_at

    @property
    def is_restored_copy(self) -> bool:
        """Whether it was restored from a backup, and nobody said that it replaces the original."""
        return self._location.is_restored_copy

    def rotate_key(self, purpose: Purpose, *, replaces_original: bool = False) -> None:
        """Replace the `checkpoint` or the `evidence` key; the ledger records it, signed by both (SPEC 5.4).

        Raises `ConflictError` for a ledger that was restored from a backup: by the key that its original has in force
        nothing could be added to that any more. With `replaces_original` the caller says that this is the one in use.
        """
        if self.is_restored_copy and not replaces_original:
            raise ConflictError(
                "this ledger was restored from a backup, and a rotation would replace the key of the original: say "
                "that it replaces the original (keys rotate --replaces-original), or rotate there"
            )
        sealer = self._open_sealer()
        # A crash between any two of these leaves two key files, and the ledger says which is in force.
        sealer.rotate_key(purpose, self._keystore.begin_rotation(purpose))
        self._finish_rotations()
        if self._restored_file is not None:
            self._restored_file.unlink(missing_ok=True)

    @property
    def _restored_file(self) -> Path | None:
        folder = self._location.folder
        return None if folder is None else folder / RESTORED_FILE

    # ------------------------------------------------------------------------------------------- the head mark

    @property
    def mark_problem(self) -> MarkProblem | None:
        """How the ledger contradicts its head mark, if it was found to: then nothing is added to it any more."""
        return None if self._mark is None else self._mark.problem

    @property
    def mark_failing(self) -> str | None:
        """Why the head mark cannot be written, if the last attempt failed."""
        return None if self._mark is None else self._mark.failing

    @property
    def mark_failures(self) -> int:
        """How many writes of the head mark failed since the ledger was opened."""
        return 0 if self._mark is None else self._mark.failures

    def inspect_mark(self) -> None:
        """Compare the ledger with its head mark. What is found is in `mark_problem`, and every append raises it."""
        if self._mark is None or not self._keystore.exists():
            return
        root = None if self._mark.path.exists() else self._public_keys().root
        if root is not None and root != self.genesis.root_key:
            _log.warning("the keys in %s are not those of this ledger, so it has no head mark", self._keystore.folder)
            return
        try:
            self._mark.inspect()
        except (DeniedError, NotFoundError, RejectedError):
            return  # the keys cannot be used, which the first append says
        except TamperError as error:
            self._mark.halt(MarkProblem("unreadable", f"the ledger cannot be compared with its head mark: {error}"))

    def _held_head(self) -> Head:
        """The newest commit for an answer that others are going to rely on: proven, and held against the head mark and
        against what this process knew of the log. It is read once; what belongs to one answer is read as of it.

        Raises `TamperError` for a ledger that does not hold, or contradicts them.
        """
        mark = self._mark
        if mark is not None and self._keystore.exists() and mark.is_changed():
            self.inspect_mark()
        head, extended = (self._head(), frozenset[bytes]()) if mark is None else mark.hold()
        if head != self._held:
            self._trust(head)
            self._held = head
        if mark is not None:
            mark.give(head, extended)
        return head

    @property
    def proven_size(self) -> int:
        """How many records there are, as evidence has to say it: as `size`, but proven, and held against the head mark.

        Raises `TamperError` for a ledger that does not hold, or contradicts its mark.
        """
        return self._held_head().size

    def halt(self, problem: MarkProblem) -> None:
        """Add nothing to the ledger any more, as others have seen a newer state of it, or another one."""
        if self._mark is not None:
            self._mark.halt(problem)

    def correct_clock(self, reason: str, *, actor: Mapping[str, str] | None = None) -> int:
        """Record that the machine's clock is right now, as ordered by `actor`; the position of that record.

        For a ledger whose newest record is of a time that has not come: times count from now on, and those recorded
        before count as no later than this. And for one that takes no events because the clock seems too far ahead.
        Raises `ConflictError` when nothing contradicts the clock.
        """
        check_reason(reason)
        if not self.has_keys:
            raise RejectedError(
                "a corrected clock is recorded in the ledger, which needs its keys", cure="name their folder"
            )
        return self._open_sealer().correct_clock(reason, actor=actor).position

    def accept_loss(self, reason: str, *, actor: Mapping[str, str] | None = None) -> None:
        """Go on with a ledger that was rolled back or forked, or whose head mark is not authentic.

        The ledger records it, with the checkpoint of the mark, as ordered by `actor`, and the mark is overwritten. What
        was lost stays lost, and everyone who has a checkpoint of it will find a fork. Raises `ConflictError` when
        nothing is lost.
        """
        check_reason(reason)
        if self._mark is None or not self.has_keys:
            raise RejectedError("a loss is recorded in the ledger, which needs its keys", cure="name their folder")
        self._mark.inspect()
        if self._mark.problem is None:
            raise ConflictError("the ledger does not contradict its head mark: there is no loss to accept")
        with self._mark.accepting() as problem:
            assert problem is not None, "it was there"
            size, event, epochs = self._loss(problem, reason, actor)
            # Before it is recorded: then a crash leaves readers who see some records again, and none who miss some.
            self._step_readers_back(event.payload["size"] if problem.kind == "rollback" else 0)
            self._record_restore(event, epochs, size=size)

    def has_accepted_loss_of(self, checkpoint: bytes) -> bool:
        """Whether the ledger records, proven, that what this checkpoint is of was lost."""
        size, head = Checkpoint.of_note(checkpoint).size, self._head()
        proven = ProvenStore(self._store, head, self._trust(head).tree)  # not held against it: that asks this here
        for record in read_records(proven, 0, (proven.last_position() or 0) + 1):
            if record.event_type == LEDGER_RESTORED:
                loss = LedgerRestored.of(record)
                held = None if loss.held_checkpoint is None else Checkpoint.of_note(loss.held_checkpoint).size
                if loss.size < size <= (record.position if held is None else held):
                    return True
        return False

    def record_restore(self, event: OwnEvent, *, epochs: int) -> None:
        """Record that the ledger was restored from a backup, after so many epochs, whose keys may be known to others,
        were closed and the next ones opened. A crash within leaves fewer of them, and no such record."""
        if self._mark is not None and self._mark.problem is not None:
            with self._mark.accepting():  # that it contradicts its mark is what is recorded
                self._record_restore(event, epochs)
        else:
            self._record_restore(event, epochs)

    def _record_restore(self, event: OwnEvent, epochs: int, *, size: int | None = None) -> None:
        """Seal the record, which was made of a ledger of `size` records."""
        sealer = self._open_sealer()
        for _ in range(epochs):
            sealer.change_epoch()

        def guard(reads: VerifiedReads) -> None:
            if size is not None and reads.size != size + epochs * _RECORDS_OF_A_CHANGE:
                raise ConflictError("the ledger changed while its loss was about to be recorded: verify, then repeat")

        sealer.seal_own([event], guard=guard)

    def _loss(self, problem: MarkProblem, reason: str, actor: Mapping[str, str] | None) -> tuple[int, OwnEvent, int]:
        """The size of the ledger, the event of its accepted loss, and how many epochs can have been closed in that."""
        head, lost = self._head(), None
        self._trust(head)
        size = head.size
        if problem.held is not None:
            held = Checkpoint.of_note(problem.held).size
            lost = max(held - size, 0) or None
            size = min(size, held - 1)  # in a fork it is not known where it begins, only that it does before this
        restored = LedgerRestored(
            size=size,
            created=timestamp.render(self._clock()),
            backup_sha256=sha256(head.checkpoint).digest(),
            held_checkpoint=problem.held,
            reason=reason,
        )
        return head.size, OwnEvent(LEDGER_RESTORED, restored.payload(), actor), epochs_to_pass(lost)

    def authenticate(self, what: str, data: bytes) -> bytes:
        """A MAC, 32 bytes, over data that is kept in a file and obeyed, under this ledger's key of its head mark.

        `what` names the kind of file: one of another kind has another MAC. Needs the keys.
        """
        message = b"".join((f"tallystick/v1/{what}".encode(), b"\0", self.id, data))
        return hmac.digest(self._mark_key(), message, "sha256")

    def _open_mark(self, marks: Path | None) -> HeadMark | None:
        """The mark of this ledger, unless it is in memory."""
        if marks is None:
            return None
        return HeadMark(
            marks, store=self._store, ledger_id=self.id, key=self._mark_key, is_accepted=self.has_accepted_loss_of
        )

    def _mark_key(self) -> bytes:
        """The key of the mark. Raises `RejectedError` for keys of another ledger: by them every mark seems forged."""
        keys = self._keystore.ledger_keys(self.genesis.ledger)
        head = self._head()
        if not self._fits_epoch(keys, head.epoch_at):
            # The record may have been altered, so that the mark is not asked. If it is proven, the key is wrong.
            for stored in VerifiedReads(self._store, self._trust(head).tree).fetch([head.epoch_at]):
                if Record.parse(stored.line).event_type != EPOCH_OPENED:
                    raise TamperError(f"the head names position {head.epoch_at}, where no epoch begins: verify")
            cure = "give the folder that holds this ledger's keys"
            with for_operators():
                raise RejectedError("the master key is not the one that this ledger was sealed under", cure=cure)
        return keys.head_mac

    def _fits_epoch(self, keys: LedgerKeys, position: int) -> bool:
        """Whether the MAC key is the one to which an epoch's opening commits; by the store's own word."""
        try:
            opened = EpochOpened.of(read_record(self._store, position))
        except (NotFoundError, RejectedError):
            return False
        return commitment(epoch_key(keys.event_mac, opened.epoch)) == opened.key_commitment

    def _trust(self, head: Head) -> Trusted:
        """The keys in force at a head whose checkpoint is signed by the right one, and its tree.

        `TamperError` for another head, also when the keys at hand are another ledger's.
        """
        return self._trusted.of(head)

    def _public_keys(self) -> PublicKeys:
        """Of the keys at hand, whether or not they may be used to write."""
        return self._keystore.public_keys() if self._keystore.exists() else PublicKeys()

    def _hand_out(self, head: Head) -> Head:
        """A head whose checkpoint goes out: the mark is on the disk first, so that nobody can know of more than it.

        It is proven before that. One that somebody made up would make the good ledger look as if it were rolled back.
        """
        is_new = head.checkpoint != self._handed_out
        if is_new:
            self._trust(head)
        if self._mark is not None and self._keystore.exists():
            if is_new and not self._can_use_keys():
                return head
            try:
                if is_new:
                    self._mark_key()  # by the keys of another ledger no mark is written
                self._mark.keep(head.checkpoint)
            except StoreError as error:
                if self.has_keys:
                    raise
                _log.warning("the head mark was not written, as it may only be read here: %s", error)
        self._handed_out = head.checkpoint
        return head

    def _can_use_keys(self) -> bool:
        """Whether what is here can be read. Who cannot use the keys only reads, and keeps no mark."""
        try:
            self._keystore.ledger_keys(self.genesis.ledger)
        except (DeniedError, NotFoundError, RejectedError) as error:
            _log.warning("the head mark was not written, as the keys cannot be used: %s", error)
            return False
        return True

    def _load_keys(self) -> LedgerKeys:
        self._finish_rotations()
        return self._keystore.ledger_keys(self.genesis.ledger)

    def _finish_rotations(self) -> None:
        if self._keystore.is_rotating("checkpoint"):
            self._keystore.finish_rotation("checkpoint", in_force=self.verifier_key.public_key)
        if self._keystore.is_rotating("evidence"):
            self._keystore.finish_rotation("evidence", in_force=self.evidence_key)
