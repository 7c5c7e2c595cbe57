"""How the copy of a ledger stands: who it is, its newest checkpoint, and whether keys are the ones in force in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.backups.layout import SYSTEM, TENANTS
from tallystick.backups.manifest import KeptLedger
from tallystick.config import Location
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.keys import PublicKeys
from tallystick.core.note import VerifierKey
from tallystick.core.record import Record
from tallystick.core.system import Genesis, Purpose
from tallystick.errors import NotFoundError, RejectedError, StoreError, TallystickError, TamperError
from tallystick.govern.directory import Directory
from tallystick.keystore import Keystore
from tallystick.store.contract import Store
from tallystick.store.contradiction import HaltedError, compare
from tallystick.store.reading import checkpoint_key, evidence_key, read_record
from tallystick.store.trusted_keys import TrustedKeys
from tallystick.store.verified_reads import VerifiedReads, tree_under
from tallystick.write.resume import check_keys, load_state


@dataclass(frozen=True, slots=True)
class Standing:
    """A ledger that was looked at once."""

    kept: KeptLedger
    evidence: bytes
    """The evidence key that its head names."""
    signer: VerifierKey | None = None
    """The key that signed the checkpoint, where that is proven."""
    named: tuple[str, ...] = ()
    """Of a system ledger the folders of all ledgers that it says there may be, where it is proven."""

    @classmethod
    def of(cls, folder: Path, *, name: str) -> Standing:
        """Look at the ledger in a folder that has that name in a backup. Raises `TamperError` when it is damaged.

        What it says is not proven.
        """
        store = Location(folder, still=True).open_store()
        try:
            head = store.head()
            if head is None:
                raise StoreError(f"the copy of {name or 'the ledger'} has no head: repeat the backup")
            record = read_record(store, 0)
            genesis = Genesis.of(record)
            kept = _kept(name, genesis, record, head.checkpoint)
            return cls(kept, evidence_key(store, head.evidence_key_at, genesis=genesis))
        except (RejectedError, TamperError, NotFoundError) as error:
            raise TamperError(f"{name or 'the ledger'} is damaged, run a verification: {error}") from error
        finally:
            store.close()

    @classmethod
    def proven(cls, store: Store, *, name: str, keystore: Keystore | None, held: bytes | None) -> Standing:
        """The same of a ledger by one look at its head: by the key that may sign it, as rotations lead to that from the
        genesis, and extending `held`, a checkpoint of it that was known before anything of this was read.

        Raises `TamperError` when it does not hold, or the root key at hand is not the one in the genesis. Keys that
        were rotated since are no finding. Raises `HaltedError` when it contradicts what was known.
        """
        try:
            head, record = store.head(), read_record(store, 0)
            genesis = Genesis.of(record)
            if head is None or not genesis.signature_holds(record):
                raise TamperError("the genesis is not signed by the root key that it names")
            root = None if keystore is None else keystore.public_keys().root
            trusted = TrustedKeys(store, genesis, lambda: PublicKeys(root)).of(head)
            problem = None if held is None else compare(store, held, head)
            if problem is not None:
                raise HaltedError(problem)
            reads = VerifiedReads(store, trusted.tree)
            if Record.parse(reads.fetch([0])[0].line).hash != record.hash:
                raise TamperError("its genesis is not the one in the signed tree")
            named = _named(reads) if name == SYSTEM else ()
            kept = _kept(name, genesis, record, head.checkpoint)
            return cls(kept, trusted.evidence, trusted.checkpoint, named)
        except HaltedError:
            raise
        except (NotFoundError, RejectedError, TamperError) as error:
            raise TamperError(
                f"{name or 'the ledger'} does not hold, and no signed backup is made of it: {error}. To keep the files "
                "as they are, make a backup that is not signed (--unsigned)"
            ) from error

    def evidence_key(self, keystore: Keystore) -> Ed25519PrivateKey:
        """The evidence key in force, out of the folder of the keys. Raises `RejectedError` when it is not there."""
        return _in_force(keystore, "evidence", self.evidence)


def _kept(name: str, genesis: Genesis, record: Record, checkpoint: bytes) -> KeptLedger:
    size = Checkpoint.of_note(checkpoint).size
    return KeptLedger(
        folder=name, name=genesis.ledger, origin=genesis.origin, id=record.hash, size=size, checkpoint=checkpoint
    )


def proven_under(store: Store, checkpoint: bytes) -> VerifiedReads:
    """The records of a ledger under a checkpoint whose signature was checked. Raises `TamperError` for others."""
    under = Checkpoint.of_note(checkpoint)
    return VerifiedReads(store, tree_under(store, under, size=under.size))


def named_under(store: Store, checkpoint: bytes) -> tuple[str, ...]:
    """The folders of all ledgers that a system ledger says there may be, under a checkpoint that was checked."""
    return _named(proven_under(store, checkpoint))


def _named(reads: VerifiedReads) -> tuple[str, ...]:
    directory = Directory()
    directory.follow(Record.parse(stored.line) for stored in reads.read(0, reads.size))
    return tuple(sorted(f"{kind}/{tenant}" for kind in TENANTS for tenant in directory.tenants))


def can_seal(folder: Path, keystore: Keystore) -> bool:
    """Whether these are the keys with which the ledger in a folder can go on."""
    store = Location(folder, still=True).open_store()
    try:
        genesis = Genesis.of(read_record(store, 0))
        state = load_state(store, genesis=genesis)
        keys = replace(
            keystore.ledger_keys(genesis.ledger),
            checkpoint=_in_force(
                keystore, "checkpoint", checkpoint_key(store, state.checkpoint_key_at, genesis=genesis)
            ),
            evidence=_in_force(keystore, "evidence", evidence_key(store, state.evidence_key_at, genesis=genesis)),
        )
        check_keys(keys, store, state=state, genesis=genesis)
    except TallystickError:
        return False
    finally:
        store.close()
    return True


def _in_force(keystore: Keystore, purpose: Purpose, public_key: bytes) -> Ed25519PrivateKey:
    """The key of a purpose that is in force, also where a crash kept a rotation from being finished."""
    for name in (purpose, f"{purpose}.next-{public_key.hex()[:16]}"):
        try:
            key = keystore.signing_key(name)
        except NotFoundError:
            continue
        if key.public_key().public_bytes_raw() == public_key:
            return key
    cure = "name the folder that holds this ledger's keys"
    raise RejectedError(f"the {purpose} key in force is not here", place=str(keystore.folder), cure=cure)
