"""A record and its proof, checked together: all that SPEC 11 asks of a single proof, in one place.

A path alone shows that some bytes are a leaf of a tree. That they are a record, that the record says that it stands
where the path leads from, and that somebody who is trusted signed the tree, has to be asked with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, NamedTuple, TypeAlias

from tallystick.core.checkpoint import Checkpoint, open_checkpoint
from tallystick.core.merkle import leaf_hash, verify_inclusion
from tallystick.core.note import Note
from tallystick.core.policy import Policy
from tallystick.core.proof import Proof
from tallystick.core.record import Record
from tallystick.errors import RejectedError, TamperError

FaultKind: TypeAlias = Literal["not-canonical", "checkpoint", "witness", "misplaced", "root"]


class ProofFault(NamedTuple):
    """One thing that does not hold."""

    kind: FaultKind
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedProof:
    """What became of a record and its proof. What could not be read is None."""

    findings: tuple[ProofFault, ...]
    record: Record | None
    record_sha256: str
    """In hex, of the bytes that were given."""
    proof: Proof | None
    checkpoint: Checkpoint | None
    """The one in the proof, whoever signed it."""
    cosigned: tuple[str, ...]
    """The witnesses of the trust file whose cosignatures hold."""

    @property
    def holds(self) -> bool:
        """Whether the record is in the ledger, under a checkpoint by a key that is trusted."""
        return not self.findings


def check_proof(proof: bytes, record: bytes, trust: Policy | bytes) -> CheckedProof:
    """Check a proof file (C2SP tlog-proof), the record's bytes, and under a trust file who signed (SPEC 11).

    Raises `RejectedError` only for a trust file that is none; whatever proof and record are, they are judged.
    """
    check = _Check(Policy.parse(trust) if isinstance(trust, bytes) else trust)
    check.read(proof, record)
    check.judge_checkpoint()
    check.judge_place()
    return CheckedProof(
        findings=tuple(check.findings),
        record=check.record,
        record_sha256=sha256(record).hexdigest(),
        proof=check.proof,
        checkpoint=check.checkpoint,
        cosigned=tuple(check.cosigned),
    )


class _Check:
    """One check on its way."""

    def __init__(self, trust: Policy) -> None:
        self._trust: Final = trust
        self.findings: Final[list[ProofFault]] = []
        self.record: Record | None = None
        self.proof: Proof | None = None
        self.checkpoint: Checkpoint | None = None
        self.cosigned: dict[str, int] = {}

    def read(self, proof: bytes, record: bytes) -> None:
        try:
            self.record = Record.parse(record)
        except RejectedError as error:
            self._find("not-canonical", str(error))
        try:
            self.proof = Proof.parse(proof)
            self.checkpoint = Checkpoint.of_note(self.proof.checkpoint)
        except RejectedError as error:
            self._find("checkpoint", str(error))

    def judge_checkpoint(self) -> None:
        """Who signed it, and who saw it."""
        if self.proof is None or self.checkpoint is None:
            return
        origin, note = self.checkpoint.origin, self.proof.checkpoint
        try:
            open_checkpoint(note, [key for key in self._trust.logs if key.name == origin], origin=origin)
        except (RejectedError, TamperError) as error:
            self._find("checkpoint", str(error))
        try:
            self.cosigned = self._trust.cosigned(Note.parse(note))
        except TamperError as error:
            self._find("witness", str(error))
            return
        if not self._trust.is_satisfied(self.cosigned):
            self._find("witness", f"the quorum is not met: {len(self.cosigned)} of its witnesses cosigned")

    def judge_place(self) -> None:
        """Whether the record stands where the proof says, and leads to the root."""
        if self.record is None or self.proof is None or self.checkpoint is None:
            return
        index, size, root = self.proof.index, self.checkpoint.size, self.checkpoint.root
        if self.record.position != index:
            self._find("misplaced", f"the record is of position {self.record.position}, and the proof of {index}")
        if not verify_inclusion(leaf_hash(self.record.line), index, size=size, path=self.proof.path, root=root):
            self._find("root", f"the path does not lead from the record to the root of {size} records")

    def _find(self, kind: FaultKind, seen: str) -> None:
        self.findings.append(ProofFault(kind, seen))
