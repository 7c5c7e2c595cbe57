"""Cosignatures of witnesses (C2SP tlog-cosignature, the Ed25519 kind): someone else saw the ledger grow.

    — witness.example/w1 jWbPPwAAAABkGFDL...   under a checkpoint: key id, POSIX seconds, signature

A witness says that at that time this was the largest consistent tree it knew of the ledger. Its keys are of type 4,
so that none passes for a ledger's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core.ed25519 import SIGNATURE_BYTES, signature_holds
from tallystick.core.note import NamedKey, Note, SignatureLine
from tallystick.errors import TamperError
from tallystick.limits import SIZE_MAX

_TIME_BYTES: Final = 8


class WitnessKey(NamedKey):
    """The key that verifies what a witness cosigns."""

    __slots__ = ()

    kind = b"\x04"
    what = "witness key"
    algorithm = "Ed25519 key for cosignatures"

    def verify(self, text: str, line: SignatureLine) -> int | None:
        """The POSIX seconds at which this witness cosigned the checkpoint of that text; None for another's line.

        Raises `TamperError` for a line that bears its name and key id, and does not hold.
        """
        if (line.name, line.key_id) != (self.name, self.key_id):
            return None
        seconds = int.from_bytes(line.signature[:_TIME_BYTES], "big")
        is_one = len(line.signature) == _TIME_BYTES + SIGNATURE_BYTES and seconds <= SIZE_MAX
        if not is_one or not signature_holds(self.public_key, line.signature[_TIME_BYTES:], _message(text, seconds)):
            raise TamperError(f"The cosignature by {self.name} does not fit the checkpoint.")
        return seconds


@dataclass(frozen=True, slots=True, eq=False)
class WitnessSigner:
    """A witness' private key, and its name."""

    name: str
    private_key: Ed25519PrivateKey = field(repr=False)
    witness_key: WitnessKey = field(init=False)

    def __post_init__(self) -> None:
        public_key = self.private_key.public_key().public_bytes_raw()
        object.__setattr__(self, "witness_key", WitnessKey(self.name, public_key))

    def cosign(self, text: str, *, seconds: int) -> SignatureLine:
        """State that at that POSIX time this was the largest consistent tree known. The caller made sure of it."""
        signature = seconds.to_bytes(_TIME_BYTES, "big") + self.private_key.sign(_message(text, seconds))
        return SignatureLine(self.name, self.witness_key.key_id, signature)


def with_cosignatures(checkpoint: bytes, lines: tuple[SignatureLine, ...]) -> bytes:
    """The checkpoint with more lines under it; a witness' older line gives way to its newer one."""
    note = Note.parse(checkpoint)
    new = {(line.name, line.key_id) for line in lines}
    kept = tuple(line for line in note.signatures if (line.name, line.key_id) not in new)
    return Note(note.text, (*kept, *lines)).render()


def _message(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()
