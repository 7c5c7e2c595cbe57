"""Which keys a ledger speaks under, proven: the only way to them for what leaves as evidence or is trusted.

The genesis names the first keys. Each rotation is signed by the key before it and by the new one, and stands in the
signed tree. What the head says (`checkpoint_key_at`) is only where to look: whoever can write the file can change it,
and the record there. Where the keys are at hand, they are compared as well: they lie where the file's writer is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from tallystick.core.keys import PublicKeys
from tallystick.core.merkle import Tree
from tallystick.core.note import VerifierKey
from tallystick.core.record import KEY_ROTATED, Record
from tallystick.core.system import Genesis, KeyRotated, Purpose
from tallystick.errors import NotFoundError, RejectedError, TamperError, for_operators
from tallystick.store.contract import Head, Store, StoredRecord
from tallystick.store.reading import checkpoint_key, evidence_key
from tallystick.store.verified_reads import VerifiedReads, verified_tree

_MARK: Final = b'"event_type":"%b"' % KEY_ROTATED.encode()
_KEYS_CURE: Final = "give the folder that holds this ledger's keys"
_LOOKS: Final = 2
"""A rotation renames its key file when the ledger has named the key: one look may be between the two names."""


class Trusted(NamedTuple):
    """A head that holds: the keys in force at it, and its tree."""

    checkpoint: VerifierKey
    evidence: bytes
    tree: Tree


class TrustedKeys:
    """The keys of one ledger. Safe for many threads.

    `at_hand` gives the public halves of the keys that are here. Where none are, or some cannot be read, the rotations
    alone prove a key. What was proven is kept, by the positions that the head names.
    """

    def __init__(self, store: Store, genesis: Genesis, at_hand: Callable[[], PublicKeys]) -> None:
        self._store: Final = store
        self._genesis: Final = genesis
        self._at_hand: Final = at_hand
        self._settled: tuple[tuple[int, int], VerifierKey, bytes] | None = None
        """The positions that a head named, and the keys that were proven to be named there."""
        self._newest: tuple[int, int] = (-1, 0)
        """Where the evidence key was named, and up to which position no record names another one."""

    def of(self, head: Head) -> Trusted:
        """The keys in force at a head that was just read. Raises `TamperError` for a head that does not hold.

        Raises `RejectedError` when the ledger has rotated a key, and the one at hand is an older one.
        """
        named, settled = (head.checkpoint_key_at, head.evidence_key_at), self._settled
        if settled is not None and settled[0] == named:
            _, key, evidence = settled
            return Trusted(key, evidence, verified_tree(self._store, head, key))
        key = VerifierKey(self._genesis.origin, self._claimed("checkpoint", head.checkpoint_key_at))
        evidence = self._claimed("evidence", head.evidence_key_at)
        tree = verified_tree(self._store, head, key)
        reads = VerifiedReads(self._store, tree)
        if self._prove(reads, head, {"checkpoint": key.public_key, "evidence": evidence}):
            self._settled = (named, key, evidence)
        return Trusted(key, evidence, tree)

    def evidence_at(self, head: Head) -> bytes:
        """The evidence key in force at a head. Without the keys at hand the log is read for a newer one."""
        trusted = self.of(head)
        if not self._at_hand().evidence:
            reads, at = VerifiedReads(self._store, trusted.tree), head.evidence_key_at
            seen = self._newest[1] if self._newest[0] == at else at + 1
            check_newest(reads, "evidence", at, first=seen)
            self._newest = (at, head.size)
        return trusted.evidence

    def _claimed(self, purpose: Purpose, named_at: int) -> bytes:
        """The key of a purpose by the store's own word."""
        read = checkpoint_key if purpose == "checkpoint" else evidence_key
        try:
            return read(self._store, named_at, genesis=self._genesis)
        except (NotFoundError, RejectedError) as error:
            raise _no_rotation(purpose, named_at) from error

    def _prove(self, reads: VerifiedReads, head: Head, keys: dict[Purpose, bytes]) -> bool:
        """Prove both keys. False where another process rotated one meanwhile: they hold, and are in force no more."""
        for look in range(_LOOKS):
            here, foreign = self._at_hand(), None
            if here.root is not None and here.root != self._genesis.root_key:
                raise TamperError(
                    "the genesis of the ledger names another root key than the one in the folder of the keys: the keys "
                    "are another ledger's, or the ledger was replaced"
                )
            for purpose, key in keys.items():
                known = here.of(purpose)
                prove_key(reads, self._genesis, purpose, _named_at(head, purpose), known=known)
                if known and key not in known:
                    foreign = purpose
            if foreign is None:
                return True
            newest = self._store.head()
            if newest is not None and any(_named_at(newest, one) != _named_at(head, one) for one in keys):
                return False
            if look == _LOOKS - 1:
                refuse_key(reads, foreign, _named_at(head, foreign))
        return False


def prove_key(
    reads: VerifiedReads, genesis: Genesis, purpose: Purpose, named_at: int, *, known: frozenset[bytes] = frozenset()
) -> None:
    """Whether rotations lead from the key of the genesis to the one named at a position, each signed by both keys.

    `known` are keys that are trusted anyway, as they are in the folder of the keys: what leads to one of them is
    enough. Raises `TamperError` for what does not.
    """
    if not named_at:
        return
    rotated = _rotation(reads, genesis, purpose, named_at)
    first = genesis.checkpoint_key if purpose == "checkpoint" else genesis.evidence_key
    at, trusted = named_at, known | {first}
    while rotated.new_key not in known and rotated.old_key not in trusted:
        for stored in reads.backwards(_MARK, 1, at):
            before = _parsed(stored)
            if before is not None and before.purpose == purpose:
                break
        else:
            raise TamperError(
                f"the {purpose} key that the record at position {named_at} names does not come from the one in the "
                f"genesis: nothing before position {at} names the key that signed it. Verify the ledger"
            )
        before = _rotation(reads, genesis, purpose, stored.position)
        if before.new_key != rotated.old_key:
            raise _no_rotation(purpose, at)
        at, rotated = stored.position, before


def check_newest(reads: VerifiedReads, purpose: Purpose, named_at: int, *, first: int) -> None:
    """Raises `TamperError` when a record from position `first` on names another key than the one at `named_at`."""
    for stored in reads.read(max(first, named_at + 1), reads.size):
        rotated = _parsed(stored) if _MARK in stored.line else None
        if rotated is not None and rotated.purpose == purpose:
            raise TamperError(
                f"the head names the {purpose} key of position {named_at}, and it was replaced at position "
                f"{stored.position}: verify the ledger"
            )


def refuse_key(reads: VerifiedReads, purpose: Purpose, named_at: int) -> NoReturn:
    """Say why a proven key is not the one at hand: `TamperError` when it is not in force any more, else the one at
    hand is not, which is `RejectedError`, for the operators."""
    check_newest(reads, purpose, named_at, first=0)
    with for_operators():
        raise RejectedError(f"the {purpose} key is not the one in force in this ledger", cure=_KEYS_CURE)


def _named_at(head: Head, purpose: Purpose) -> int:
    return head.checkpoint_key_at if purpose == "checkpoint" else head.evidence_key_at


def _rotation(reads: VerifiedReads, genesis: Genesis, purpose: Purpose, position: int) -> KeyRotated:
    """The rotation at a position, proven to be in the tree, and signed by both its keys."""
    for stored in reads.fetch([position]) if position < reads.size else ():
        rotated = _parsed(stored)
        named = None if rotated is None else (rotated.purpose, rotated.ledger)
        if rotated is not None and named == (purpose, genesis.ledger) and rotated.signatures_hold():
            return rotated
    raise _no_rotation(purpose, position)


def _parsed(stored: StoredRecord) -> KeyRotated | None:
    try:
        return KeyRotated.of(Record.parse(stored.line))
    except RejectedError:
        return None


def _no_rotation(purpose: Purpose, position: int) -> TamperError:
    return TamperError(
        f"the record at position {position}, which the {purpose} key rests on, is no rotation of it that is signed by "
        "the key before it: verify the ledger"
    )
