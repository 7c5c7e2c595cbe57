"""Beginning and going on: the first commit of a ledger, and the sealer's state read back from its store.

The head says where to look; everything it says is held against the log before a byte is added. A head
that does not hold is a `TamperError`: going on would seal over the evidence.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core import timestamp
from tallystick.core.keys import LedgerKeys, commitment, epoch_key
from tallystick.core.merkle import Tree, leaf_hash
from tallystick.core.note import Signer, VerifierKey
from tallystick.core.record import Record, record_hash
from tallystick.core.system import SYSTEM_ENTITY, EpochOpened, Genesis, Purpose
from tallystick.errors import NotFoundError, RejectedError, StoreError, TamperError, for_operators
from tallystick.ids import IdMaker, spell
from tallystick.store.contract import Batch, Store
from tallystick.store.reading import checkpoint_key, evidence_key, read_record
from tallystick.store.trusted_keys import prove_key, refuse_key
from tallystick.store.verified_reads import VerifiedReads, verified_tree
from tallystick.write.known import MadeRun
from tallystick.write.seal import Planner, State

_KEYS_CURE: Final = "give the folder that holds this ledger's keys"


def create_ledger(store: Store, *, genesis: Genesis, keys: LedgerKeys, ids: IdMaker, now: int) -> None:
    """Commit the genesis and the opening of epoch 0, together. `ConflictError` if the ledger exists."""
    line = genesis.seal(keys.root, event_id=spell(ids.prefix, ids.next_counter()), recorded_at=timestamp.render(now))
    tree, _ = Tree.empty().extend([leaf_hash(line)])
    state = State(
        tree=tree,
        prev_hash=hexlify(record_hash(line)),
        recorded_at=now,
        epoch=-1,
        epoch_opened_at=now,
        epoch_at=1,
        checkpoint_key_at=0,
        evidence_key_at=0,
        checkpoint=b"",
    )
    planner = Planner(
        state,
        genesis=genesis,
        known=_GenesisAlone(),
        read=lambda position: read_record(store, position),
        event_mac=keys.event_mac,
        ids=ids,
        now=now,
    )
    planner.open_epoch()
    plan = planner.finish(Signer(genesis.origin, keys.checkpoint), tag=lambda _: b"")
    store.create(Batch(0, [line, *plan.batch.lines], plan.batch.tiles), plan.head)


class _GenesisAlone:
    """`Known` of a ledger that has only its genesis."""

    def catch_up(self, reads: VerifiedReads) -> None: ...

    def check_room(self) -> None: ...

    def version(self, entity_id: str) -> int:
        return int(entity_id == SYSTEM_ENTITY)

    def find_all(self, event_ids: Sequence[str]) -> dict[str, int]:
        del event_ids
        return {}

    def learn(
        self,
        end: int,
        versions: Mapping[str, int],
        *,
        lines: Sequence[bytes],
        brought: Sequence[tuple[str, int]],
        made: Sequence[MadeRun],
    ) -> None: ...


def load_state(store: Store, *, genesis: Genesis) -> State:
    """The state after the newest commit. `TamperError` when the head and the log do not agree."""
    head = store.head()
    if head is None:
        raise StoreError("the store holds no ledger")
    try:
        key = VerifierKey(genesis.origin, checkpoint_key(store, head.checkpoint_key_at, genesis=genesis))
        tree = verified_tree(store, head, key)
        # What is sealed next is built on these two. The checkpoint is signed, and what the head points to is not.
        reads = VerifiedReads(store, tree)
        last, opened_record = _proven_record(reads, head.size - 1), _proven_record(reads, head.epoch_at)
        opened = EpochOpened.of(opened_record)
    except (NotFoundError, RejectedError) as error:
        raise TamperError(f"the head does not hold: {error}; run a verification") from error
    if opened.epoch != last.members["epoch"]:
        raise TamperError("the head names the wrong epoch: run a verification")
    recorded_at = timestamp.parse(last.recorded_at)
    return State(
        tree=tree,
        prev_hash=hexlify(last.hash),
        recorded_at=recorded_at,
        epoch=opened.epoch,
        # Later only where the clock was corrected since; then the epoch is not older than that.
        epoch_opened_at=min(recorded_at, timestamp.parse(opened_record.recorded_at)),
        epoch_at=head.epoch_at,
        checkpoint_key_at=head.checkpoint_key_at,
        evidence_key_at=head.evidence_key_at,
        checkpoint=head.checkpoint,
    )


def _proven_record(reads: VerifiedReads, position: int) -> Record:
    for stored in reads.fetch([position]) if position < reads.size else ():
        return Record.parse(stored.line)
    raise TamperError(f"the record at position {position} is missing, and the head names it: run a verification")


def check_keys(keys: LedgerKeys, store: Store, *, state: State, genesis: Genesis) -> None:
    """Whether these are the keys of this ledger. `RejectedError` before anything is sealed under others.

    `TamperError` when the keys are right, and the head names others that the ledger does not lead to.
    """
    check_master_key(keys, store, epoch_at=state.epoch_at)
    if keys.root.public_key().public_bytes_raw() != genesis.root_key:
        with for_operators():
            raise RejectedError("the root key is not the one that signed this ledger's genesis", cure=_KEYS_CURE)
    named: tuple[tuple[Purpose, int, bytes, Ed25519PrivateKey], ...] = (
        ("checkpoint", at := state.checkpoint_key_at, checkpoint_key(store, at, genesis=genesis), keys.checkpoint),
        ("evidence", at := state.evidence_key_at, evidence_key(store, at, genesis=genesis), keys.evidence),
    )
    for purpose, named_at, in_force, at_hand in named:
        if at_hand.public_key().public_bytes_raw() != in_force:
            reads = VerifiedReads(store, state.tree)
            prove_key(reads, genesis, purpose, named_at)
            refuse_key(reads, purpose, named_at)


def check_master_key(keys: LedgerKeys, store: Store, *, epoch_at: int) -> None:
    """Whether the MAC keys are this ledger's, as the epoch opened at a position says. Raises `RejectedError`."""
    opened = EpochOpened.of(read_record(store, epoch_at))
    if commitment(epoch_key(keys.event_mac, opened.epoch)) != opened.key_commitment:
        with for_operators():
            raise RejectedError("the master key is not the one that this ledger was sealed under", cure=_KEYS_CURE)
