"""How the copy of a ledger stands: who it is, its newest checkpoint, and whether keys are the ones in force in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.backups.manifest import KeptLedger
from tallystick.config import Location
from tallystick.core.keys import PublicKeys
from tallystick.core.note import VerifierKey
from tallystick.core.system import Genesis, Purpose
from tallystick.errors import NotFoundError, RejectedError, StoreError, TallystickError, TamperError
from tallystick.keystore import Keystore
from tallystick.store.reading import checkpoint_key, evidence_key, read_record
from tallystick.store.trusted_keys import TrustedKeys
from tallystick.write.resume import check_keys, load_state


@dataclass(frozen=True, slots=True)
class Standing:
    """A ledger that nobody writes to, looked at once."""

    kept: KeptLedger
    evidence: bytes
    """The evidence key in force."""

    @classmethod
    def of(cls, folder: Path, *, name: str) -> Standing:
        """Look at the ledger in a folder that has that name in a backup. Raises `TamperError` when it is damaged."""
        store = Location(folder, still=True).open_store()
        try:
            head = store.head()
            if head is None:
                raise StoreError(f"the copy of {name or 'the ledger'} has no head: repeat the backup")
            record = read_record(store, 0)
            genesis = Genesis.of(record)
            kept = KeptLedger(
                folder=name,
                name=genesis.ledger,
                origin=genesis.origin,
                id=record.hash,
                size=head.size,
                checkpoint=head.checkpoint,
            )
            return cls(kept, evidence_key(store, head.evidence_key_at, genesis=genesis))
        except (RejectedError, TamperError, NotFoundError) as error:
            raise TamperError(f"{name or 'the ledger'} is damaged, run a verification: {error}") from error
        finally:
            store.close()

    def evidence_key(self, keystore: Keystore) -> Ed25519PrivateKey:
        """The evidence key in force, out of the folder of the keys. Raises `RejectedError` when it is not there."""
        return _in_force(keystore, "evidence", self.evidence)


def check_signer(folder: Path, keystore: Keystore, *, name: str) -> VerifierKey:
    """The key that signed the checkpoint of the ledger in a folder, and may: rotations lead to it from the genesis.

    Raises `TamperError` when none do, when the checkpoint is not of these records, or when the root key at hand is not
    the one in the genesis. Keys that were rotated since the ledger was copied are no finding.
    """
    store = Location(folder, still=True).open_store()
    try:
        head, record = store.head(), read_record(store, 0)
        genesis = Genesis.of(record)
        if head is None or not genesis.signature_holds(record):
            raise TamperError("the genesis is not signed by the root key that it names")
        root = keystore.public_keys().root
        return TrustedKeys(store, genesis, lambda: PublicKeys(root)).of(head).checkpoint
    except (NotFoundError, RejectedError, TamperError) as error:
        raise TamperError(
            f"{name or 'the ledger'} does not hold, and no signed backup is made of it: {error}. To keep the files as "
            "they are, make a backup that is not signed (--unsigned)"
        ) from error
    finally:
        store.close()


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
