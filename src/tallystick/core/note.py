"""Signed notes and their Ed25519 keys (C2SP signed-note): a text, and who stands by it.

    audit.example/tenant/t1                     the text, up to and with its last newline: what is signed
    2
    NagYmulXm3NkFnVxj8kmFS/5a7O6V2f7NmqIDDSV9Yw=
                                                an empty line, the last one in the note
    — audit.example/tenant/t1 VsgQzeamOI5Q...   signature lines: key name, base64 of key id and signature

A note has one byte form, kept exactly (I6). What the text says is none of this module's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import ClassVar, Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core.ed25519 import check_public_key, signature_holds
from tallystick.core.strict import parse_base64, render_base64
from tallystick.errors import RejectedError, TamperError
from tallystick.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX

KEY_ID_BYTES: Final = 4

_DASH: Final = "\N{EM DASH} "
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class NamedKey:
    """The public half of an Ed25519 key for one use: a name, without spaces or plus signs, and 32 bytes."""

    kind: ClassVar[bytes]
    """The use: one byte of C2SP signed-note, so that a key of one is never taken for one of another."""
    what: ClassVar[str]
    """The use, in the words of an error."""
    algorithm: ClassVar[str]

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        _check_name(self.name, place=self.what)
        check_public_key(self.public_key, place=self.what)

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of one name apart: a label, not a fingerprint; a match is easily made."""
        named = self.name.encode() + b"\n" + self.kind + self.public_key
        return sha256(named).digest()[:KEY_ID_BYTES]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<name>+<key id, 8 hex>+<base64 of the kind and the key>`; `RejectedError` for anything else."""
        name, *written = text.split("+", maxsplit=2)  # base64 has plus signs of its own
        if len(written) != 2 or len(text) > NOTE_BYTES_MAX:
            cure = f"a {cls.what} reads <name>+<8 hex digits>+<base64>"
            raise RejectedError(f"this is not a {cls.what}", place=cls.what, cure=cure)
        encoded = parse_base64(written[1], place=cls.what)
        if encoded[:1] != cls.kind:
            raise RejectedError(f"the key is not an {cls.algorithm} (type {cls.kind[0]})", place=cls.what)
        key = cls(name, encoded[1:])
        if key.key_id.hex() != written[0]:
            problem = f"the key id {written[0][:60]!a} does not belong to this name and key"
            raise RejectedError(problem, place=cls.what, cure="copy the whole line again")
        return key

    def render(self) -> str:
        """Write what `parse` reads."""
        return f"{self.name}+{self.key_id.hex()}+{render_base64(self.kind + self.public_key)}"


class VerifierKey(NamedKey):
    """The key that verifies what a ledger signs."""

    __slots__ = ()

    kind = b"\x01"
    what = "verifier key"
    algorithm = "Ed25519 key"

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `message`."""
        return signature_holds(self.public_key, signature, message)


@dataclass(frozen=True, slots=True, eq=False)
class Signer:
    """A private key and the name under which it signs."""

    name: str
    private_key: Ed25519PrivateKey = field(repr=False)
    verifier_key: VerifierKey = field(init=False)

    def __post_init__(self) -> None:
        public_key = self.private_key.public_key().public_bytes_raw()
        object.__setattr__(self, "verifier_key", VerifierKey(self.name, public_key))

    def sign(self, message: bytes) -> bytes:
        """Sign bytes; Ed25519 gives the same 64 bytes every time (RFC 8032)."""
        return self.private_key.sign(message)


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature under a note; we may know neither its key nor even its kind."""

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.key_id) != KEY_ID_BYTES or not self.signature:
            raise RejectedError(f"a signature is {KEY_ID_BYTES} bytes of key id and at least one more")

    @classmethod
    def parse(cls, line: str) -> SignatureLine:
        """Read one line, without its newline; `RejectedError` for anything but what `render` writes."""
        parts = line.removeprefix(_DASH).split(" ")
        if not line.startswith(_DASH) or len(parts) != 2:
            cure = "a signature line reads: em dash, space, key name, space, base64"
            raise RejectedError("this is not a signature line", cure=cure)
        data = parse_base64(parts[1], place="")
        return cls(parts[0], data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])

    def render(self) -> str:
        """Write the line, without its newline."""
        return f"{_DASH}{self.name} {render_base64(self.key_id + self.signature)}"


@dataclass(frozen=True, slots=True)
class Note:
    """A text with at least one signature. Nothing is verified yet: see `open_note`.

    The text ends in a newline and has no other control characters.
    """

    text: str
    signatures: tuple[SignatureLine, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n"):
            raise RejectedError("the text of a note ends in a newline")
        if not 1 <= len(self.signatures) <= NOTE_SIGNATURES_MAX:
            problem = f"a note has 1 to {NOTE_SIGNATURES_MAX} signatures, not {len(self.signatures)}"
            raise RejectedError(problem)
        if (control := _CONTROL.search(self.text)) is not None:
            place = f"line {self.text.count(chr(10), 0, control.start()) + 1}"
            raise RejectedError(f"the control character {control[0]!a} is not allowed", place=place)
        _check_bytes(len(self.render()))

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """Read a note, byte for byte as `render` writes it; `RejectedError` for anything else."""
        _check_bytes(len(data))
        try:
            whole = data.decode()
        except UnicodeDecodeError as error:
            place = f"line {data.count(10, 0, error.start) + 1}"
            raise RejectedError("the note is not valid UTF-8", place=place) from None
        # The text may have empty lines of its own, the signatures cannot: the last one divides the two.
        above, divider, below = whole.rpartition("\n\n")
        if not divider or not below.endswith("\n"):
            cure = "a note is a text, an empty line, and signature lines, each ending in a newline"
            raise RejectedError("this is not a signed note", cure=cure)
        text, lines = above + "\n", below.removesuffix("\n").split("\n")
        signatures = []
        for number, line in enumerate(lines, start=text.count("\n") + 2):
            try:
                signatures.append(SignatureLine.parse(line))
            except RejectedError as error:
                raise RejectedError(error.problem, place=f"line {number}", cure=error.cure) from None
        return cls(text, tuple(signatures))

    def render(self) -> bytes:
        """Write the note."""
        lines = [signature.render() + "\n" for signature in self.signatures]
        return _utf8("".join([self.text, "\n", *lines]))


@dataclass(frozen=True, slots=True)
class OpenedNote:
    """The text of a verified note, and the known keys that signed it, each once, in the note's order."""

    text: str
    signers: tuple[VerifierKey, ...]


def sign_note(text: str, signer: Signer) -> Note:
    """Put one signature under a text."""
    key = signer.verifier_key
    return Note(text, (SignatureLine(key.name, key.key_id, signer.sign(_utf8(text))),))


def open_note(data: bytes, keys: Iterable[VerifierKey]) -> OpenedNote:
    """Read and verify a note (C2SP signed-note, "Signatures").

    (1) A line whose name and key id together are unknown is ignored. (2) Every other one must verify, also
    when a key's line is repeated: one failure refuses the whole note. (3) At least one must have verified.
    Raises `RejectedError` for bytes that are no note and for two keys that cannot be told apart,
    `TamperError` for signatures that do not hold.
    """
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.key_id), key) != key:
            raise RejectedError(f"two keys share the name {key.name} and the key id {key.key_id.hex()}")
    note = Note.parse(data)
    signed = note.text.encode()
    signers: dict[VerifierKey, None] = {}
    for line in note.signatures:
        signer = known.get((line.name, line.key_id))
        if signer is None:  # (1)
            continue
        if not signer.verify(signed, line.signature):  # (2)
            raise TamperError(f"The signature by {line.name} ({line.key_id.hex()}) does not fit the note's text.")
        signers[signer] = None
    if not signers:  # (3)
        raise TamperError("The note has no signature by a known key.")
    return OpenedNote(note.text, tuple(signers))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise RejectedError("a lone surrogate cannot be written in UTF-8") from None


def _check_name(name: str, *, place: str = "") -> None:
    if not name or "+" in name or any(character.isspace() or character < " " for character in name):
        problem = f"{name[:60]!a} is not a key name"
        raise RejectedError(problem, place=place, cure="a key name is not empty and has no space and no plus sign")
    _utf8(name)


def _check_bytes(count: int) -> None:
    if count > NOTE_BYTES_MAX:
        raise RejectedError(f"a note has at most {NOTE_BYTES_MAX} bytes, not {count}")
