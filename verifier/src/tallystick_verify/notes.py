"""Verifier keys, checkpoints and trust files: C2SP signed-note, tlog-checkpoint, tlog-cosignature and tlog-policy.

Names are octets, as they stand in the files. A parser takes what the standards print, or raises RefusedError.
"""

import base64
import re
import struct
from collections.abc import Iterator, Set
from hashlib import sha256, sha512
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tallystick_verify.canonical import RefusedError
from tallystick_verify.forms import from_base64

NOTE_BYTES_MAX: Final = 65_536
SIGNATURES_MAX: Final = 100
TRUST_BYTES_MAX: Final = 65_536
TRUST_LINES_MAX: Final = 256
SIZE_MAX: Final = 2**63 - 1
LOG, WITNESS = b"\x01", b"\x04"
_DECIMAL: Final = re.compile(rb"0|[1-9][0-9]{0,18}")


def verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature (RFC 8032) is right."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def decimal(digits: bytes) -> int:
    """A number from 0 to 2^63 - 1, without a sign or leading zeros."""
    if not _DECIMAL.fullmatch(digits) or int(digits) > SIZE_MAX:
        raise RefusedError("not a number")
    return int(digits)


def is_key_name(name: bytes) -> bool:
    return bool(name) and b"+" not in name and not any(map(str.isspace, name.decode("utf-8", "replace")))


class Key(NamedTuple):
    """A verifier key: whose, of which type, and the 32 bytes of Ed25519."""

    name: bytes
    type: bytes
    public: bytes

    @property
    def id(self) -> bytes:
        return sha256(self.name + b"\n" + self.type + self.public).digest()[:4]


def parse_key(vkey: bytes, key_type: bytes) -> Key:
    """`<name>+<8 hex of the key id>+<base64 of type and key>`."""
    name, _, rest = vkey.partition(b"+")
    key_id, _, encoded = rest.partition(b"+")
    data = from_base64(encoded)
    key = Key(name, key_type, data[1:])
    if len(data) != 33 or data[:1] != key_type or not is_key_name(name) or key.id.hex().encode() != key_id:
        raise RefusedError(f"not a verifier key of type {key_type[0]:#04x}")
    return key


class Checkpoint(NamedTuple):
    """SPEC 7.2: what was signed, what it says, and the lines under it as (name, key id, signature)."""

    text: bytes
    origin: bytes
    size: int
    root: bytes
    lines: list[tuple[bytes, bytes, bytes]]

    def signatures(self, key: Key) -> list[bytes]:
        return [line[2] for line in self.lines if line[:2] == (key.name, key.id)]

    def is_signed_by(self, public: bytes) -> bool:
        """Whether there are lines by this key under the name of the origin, and all are right."""
        signatures = self.signatures(Key(self.origin, LOG, public))
        return bool(signatures) and all(verifies(public, signature, self.text) for signature in signatures)


def parse_checkpoint(note: bytes) -> Checkpoint:
    text, blank, under = note.rpartition(b"\n\n")
    rows, signatures = text.split(b"\n"), under.split(b"\n")
    try:
        note.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError("a note that is not UTF-8") from None
    if len(note) > NOTE_BYTES_MAX or re.search(rb"[\x00-\x09\x0b-\x1f]", note) or not blank or signatures.pop() != b"":
        raise RefusedError("not a signed note, or one that is too long")
    root = from_base64(rows[2]) if len(rows) == 3 else b""
    if len(root) != 32 or not rows[0] or not 0 < len(signatures) <= SIGNATURES_MAX:
        raise RefusedError("a checkpoint is an origin, a size and a root, without other lines, and signatures")
    return Checkpoint(text + b"\n", rows[0], decimal(rows[1]), root, list(map(_signature_line, signatures)))


def _signature_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    dash, name, encoded, *more = [*line.split(b" "), b"", b""]
    signature = from_base64(encoded)
    if dash != "\u2014".encode() or not is_key_name(name) or len(signature) < 5 or len(more) != 2:
        raise RefusedError("a signature line of another form")
    return name, signature[:4], signature[4:]


class Policy:
    """A trust file (C2SP tlog-policy): logs, and which witnesses are enough."""

    def __init__(self, data: bytes) -> None:
        self.logs: list[Key] = []
        self.witnesses: dict[bytes, Key] = {}
        self.groups: dict[bytes, tuple[int, list[bytes]]] = {}
        self.quorum: bytes | None = None
        if len(data) > TRUST_BYTES_MAX or re.search(rb"[^\t\n\x20-\x7e\x80-\xff]", data) or data[-1:] != b"\n":
            raise RefusedError("a trust file with control characters, that is too long, or does not end in a newline")
        lines = [(number, line.split()) for number, line in enumerate(data.split(b"\n"), 1)]
        said = [(number, items) for number, items in lines if items and not items[0].startswith(b"#")]
        for number, (word, *rest) in said[: TRUST_LINES_MAX + 1]:
            if not self._take(word, rest):
                raise RefusedError(f"line {number} of the trust file has no place in it (C2SP tlog-policy)")
        if len(said) > TRUST_LINES_MAX or self.quorum is None:
            raise RefusedError("a trust file without a quorum line, or of too many lines")

    def _take(self, word: bytes, rest: list[bytes]) -> bool:
        """One line; False if it does not fit."""
        defined = self.witnesses.keys() | self.groups.keys()
        name, is_new = rest[0] if rest else b"", len(rest) > 1 and rest[0] not in defined | {b"none"}
        if word == b"log" and len(rest) in (1, 2):
            self.logs.append(parse_key(name, LOG))
            return len({log.public for log in self.logs}) == len(self.logs)
        if word == b"witness" and len(rest) in (2, 3) and is_new:
            self.witnesses[name] = parse_key(rest[1], WITNESS)
            return len({witness.public for witness in self.witnesses.values()}) == len(self.witnesses)
        if word == b"group" and is_new:
            count, *named = rest[1:]
            words = {b"any": 1, b"all": len(named)}
            threshold = words[count] if count in words else decimal(count)
            self.groups[name] = threshold, named
            grouped = [member for _, others in self.groups.values() for member in others]
            return defined >= set(named) and len(set(grouped)) == len(grouped) and 1 <= threshold <= len(named)
        fits = word == b"quorum" and len(rest) == 1 and self.quorum is None and name in defined | {b"none"}
        self.quorum = name
        return fits

    def is_met(self, name: bytes, cosigned: Set[bytes]) -> bool:
        """Whether a witness, or enough of a group, is among those that cosigned."""
        threshold, named = self.groups.get(name, (1, []))
        enough = sum(self.is_met(member, cosigned) for member in named) >= threshold
        return name == b"none" or name in cosigned or enough

    def faults(self, checkpoint: Checkpoint) -> Iterator[str]:
        """SPEC 11 (19): what is wrong with the cosignatures of a checkpoint."""
        cosigned = set()
        for name, witness in self.witnesses.items():
            lines = checkpoint.signatures(witness)
            if not all(_cosigns(witness.public, line, checkpoint.text) for line in lines):
                yield f"a cosignature of {name.decode('utf-8', 'replace')} does not hold"
            elif lines:
                cosigned.add(name)
        if self.quorum is not None and not self.is_met(self.quorum, cosigned):
            yield f"the quorum is not met by the {len(cosigned)} of {len(self.witnesses)} witnesses that cosigned"


def _cosigns(public: bytes, line: bytes, text: bytes) -> bool:
    seconds = int.from_bytes(line[:8], "big")
    return seconds <= SIZE_MAX and verifies(public, line[8:], b"cosignature/v1\ntime %d\n" % seconds + text)


def is_seal(armored: bytes, manifest: bytes, public: bytes) -> bool:
    """SPEC 10.6: the one form in which a signature may stand."""

    def lengthy(*parts: bytes) -> bytes:
        return b"".join(struct.pack(">I", len(part)) + part for part in parts)

    kind, signature = b"ssh-ed25519", from_base64(b"".join(armored.split(b"\n")[1:-2]))[-64:]
    names = lengthy(b"tallystick-bundle@v1", b"", b"sha512")
    parts = b"SSHSIG\0\0\0\1", lengthy(lengthy(kind, public)), names, lengthy(lengthy(kind, signature))
    rows = re.findall(b".{1,70}", base64.b64encode(b"".join(parts)))
    form = b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *rows, b"-----END SSH SIGNATURE-----", b""])
    return armored == form and verifies(public, signature, b"SSHSIG" + names + lengthy(sha512(manifest).digest()))
