"""Checkpoints (C2SP tlog-checkpoint): the signed statement of one ledger's size and root.

The text is three lines, origin, size and root; its signed note is what everyone outside compares. The
origin is the name of the key that signs it, so a checkpoint says of itself whose it is. That one size has
one root for ever (I3) is kept by the writer; nothing here remembers an earlier checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tallystick.core.merkle import HASH_BYTES
from tallystick.core.note import Note, Signer, VerifierKey, open_note, sign_note
from tallystick.core.strict import parse_base64, parse_decimal, render_base64
from tallystick.errors import RejectedError, TamperError
from tallystick.limits import SIZE_MAX


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tree head of the ledger named `origin`: its number of records and its root hash."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or any(character < " " for character in self.origin):
            raise RejectedError("the origin is not one non-empty line", place="line 1")
        if not 0 <= self.size <= SIZE_MAX:
            raise RejectedError(f"a tree cannot have {self.size} leaves", place="line 2")
        if len(self.root) != HASH_BYTES:
            problem = f"the root is a hash of {HASH_BYTES} bytes, not {len(self.root)}"
            raise RejectedError(problem, place="line 3")

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the three lines; extension lines and anything else raise `RejectedError`."""
        lines = text.split("\n", maxsplit=4)
        if len(lines) != 4 or lines[3]:
            cure = "the three lines are origin, size and root; extension lines are not taken"
            raise RejectedError("a checkpoint has three lines, each ending in a newline", cure=cure)
        size = parse_decimal(lines[1], maximum=SIZE_MAX, place="line 2")
        return cls(lines[0], size, parse_base64(lines[2], place="line 3"))

    @classmethod
    def of_note(cls, signed: bytes) -> Checkpoint:
        """What a signed note states, whoever signed it: to be believed only if it is opened, too. `RejectedError`."""
        return cls.parse(Note.parse(signed).text)

    def render(self) -> str:
        """Write what `parse` reads."""
        return f"{self.origin}\n{self.size}\n{render_base64(self.root)}\n"


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """Sign a checkpoint by the key that bears its origin as name; the bytes are a signed note.

    The caller must have made sure that no checkpoint inconsistent with this one was ever signed.
    """
    if signer.name != checkpoint.origin:
        raise RejectedError(f"the key {signer.name} may not sign for the ledger {checkpoint.origin}")
    return sign_note(checkpoint.render(), signer).render()


def open_checkpoint(data: bytes, keys: Iterable[VerifierKey], *, origin: str) -> Checkpoint:
    """Read and verify the checkpoint of the ledger named `origin`.

    Raises `RejectedError` for bytes that are no checkpoint, `TamperError` when a signature does not hold,
    when none is by a known key of that name (a witness alone does not make a checkpoint), or when the
    checkpoint is another ledger's.
    """
    note = open_note(data, keys)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != origin:
        raise TamperError(f"The checkpoint is of the ledger {checkpoint.origin}, not of {origin}.")
    if all(signer.name != origin for signer in note.signers):
        raise TamperError(f"The checkpoint is not signed by a known key of {origin}.")
    return checkpoint
