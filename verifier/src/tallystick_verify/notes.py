"""Verifier keys, checkpoints and trust files: C2SP signed-note, tlog-checkpoint, tlog-cosignature and tlog-policy.

Names are octets, as they stand in the files. A parser takes what the standards print, or raises RefusedError.
"""

import base64
import re
import struct
from collections.abc import Set
from hashlib import sha256, sha512
from typing import Final, NamedTuple

from tallystick_verify.canonical import RefusedError, need
from tallystick_verify.ed25519 import is_public_key, verifies
from tallystick_verify.forms import from_base64
from tallystick_verify.report import Report, counted

NOTE_BYTES_MAX = TRUST_BYTES_MAX = 65_536
SIGNATURES_MAX, TRUST_LINES_MAX = 100, 256
SIZE_MAX: Final = 2**63 - 1
LOG, WITNESS = b"\x01", b"\x04"
_NOTE: Final = re.compile(  # origin, size, root; and under a blank line the signatures
    b"((.+)\n([0-9]+)\n([A-Za-z0-9+/]{43}=)\n)\n((?:\xe2\x80\x94 [^ \n]+ [A-Za-z0-9+/=]+\n)+)"
)


def decimal(digits: bytes) -> int:
    """A number from 0 to 2^63 - 1, without a sign or leading zeros."""
    is_one = bool(re.fullmatch(rb"0|[1-9][0-9]{0,18}", digits)) and int(digits) <= SIZE_MAX
    need(is_one, f"not a number: {digits[:40]!r}")
    return int(digits)


def is_key_name(name: bytes) -> bool:
    """UTF-8, without spaces and plus signs."""
    text = name.decode("utf-8", "replace")
    return bool(name) and name == text.encode() and "+" not in text and not any(map(str.isspace, text))


class Key(NamedTuple):
    """A verifier key: whose, its id, and the 32 bytes of Ed25519."""

    name: bytes
    id: bytes
    public: bytes


def key_of(name: bytes, key_type: bytes, public: bytes) -> Key:
    return Key(name, sha256(name + b"\n" + key_type + public).digest()[:4], public)


def parse_key(vkey: bytes, key_type: bytes) -> Key:
    """`<name>+<8 hex of the key id>+<base64 of type and key>`."""
    name, key_id, encoded = [*vkey.split(b"+", 2), b"", b""][:3]
    data = from_base64(encoded)
    key = key_of(name, key_type, data[1:])
    is_right = data[:1] == key_type and is_key_name(name) and key.id.hex().encode() == key_id
    need(is_right and is_public_key(key.public), f"not a verifier key of type {key_type[0]:#04x}: {vkey[:300]!r}")
    return key


class Checkpoint(NamedTuple):
    """SPEC 7.2: what was signed, what it says, and the lines under it as (name, key id, signature)."""

    text: bytes
    origin: bytes
    size: int
    root: bytes
    lines: list[tuple[bytes, bytes, bytes]]

    def signatures_by(self, key: Key) -> list[bytes]:
        return [signature for *by, signature in self.lines if by == [key.name, key.id]]

    def is_signed_by(self, public: bytes) -> bool:
        """Whether there are lines by this key under the name of the origin, and all are right."""
        signatures = self.signatures_by(key_of(self.origin, LOG, public))
        return bool(signatures) and all(verifies(public, signature, self.text) for signature in signatures)


def parse_checkpoint(note: bytes) -> Checkpoint:
    is_text = note.decode("utf-8", "replace").encode() == note and not re.search(rb"[\x00-\x09\x0b-\x1f]", note)
    match = _NOTE.fullmatch(note) if is_text and len(note) <= NOTE_BYTES_MAX else None
    if match is None:
        raise RefusedError("not a signed note of an origin, a size and a root, without other lines, or one too long")
    text, origin, size, root, under = match.groups()
    lines = [(name, from_base64(encoded)) for _, name, encoded in map(bytes.split, under.split(b"\n")[:-1])]
    need(len(lines) <= SIGNATURES_MAX, f"more than {SIGNATURES_MAX} signatures")
    need(len(from_base64(root)) == 32, "a root that is not 32 bytes in base64")
    need(all(is_key_name(name) and len(data) > 4 for name, data in lines), "a signature line of another form")
    return Checkpoint(text, origin, decimal(size), from_base64(root), [(name, it[:4], it[4:]) for name, it in lines])


class Policy:
    """A trust file (C2SP tlog-policy): logs, and which witnesses are enough. Raises RefusedError if it is none."""

    def __init__(self, data: bytes) -> None:
        self.logs, self.witnesses, self.quorum = list[Key](), dict[bytes, Key](), b""
        self.groups: dict[bytes, tuple[int, list[bytes]]] = {b"none": (0, [])}
        need(len(data) <= TRUST_BYTES_MAX and data[-1:] == b"\n", "a trust file too long, or that ends in no newline")
        need(not re.search(rb"[^\t\n\x20-\x7e\x80-\xff]", data), "a trust file with control characters")
        lines = [(number, line.split()) for number, line in enumerate(data.split(b"\n"), 1)]
        said = [(number, words) for number, words in lines if words and not words[0].startswith(b"#")]
        need(len(said) <= TRUST_LINES_MAX, f"a trust file of more than {TRUST_LINES_MAX} lines that say something")
        for number, words in said:
            need(self._take(words), f"line {number} of the trust file has no place in it (C2SP tlog-policy)")
        need(bool(self.quorum), "a trust file without a quorum line")

    def _take(self, words: list[bytes]) -> bool:
        """One line, a log or witness maybe with a URL at its end; False if it does not fit what stands before it."""
        defined = self.witnesses.keys() | self.groups.keys()
        match words:
            case [b"log", vkey] | [b"log", vkey, _]:
                self.logs.append(parse_key(vkey, LOG))
                return len({log.public for log in self.logs}) == len(self.logs)
            case [b"witness", name, vkey] | [b"witness", name, vkey, _] if name not in defined:
                self.witnesses[name] = parse_key(vkey, WITNESS)
                return len({witness.public for witness in self.witnesses.values()}) == len(self.witnesses)
            case [b"group", name, enough, *members] if name not in defined:
                grouped = [member for _, others in self.groups.values() for member in others] + members
                threshold = {b"any": 1, b"all": len(members)}.get(enough) or decimal(enough)
                self.groups[name] = threshold, members
                is_known = defined - {b"none"} >= set(members) and len(set(grouped)) == len(grouped)
                return is_known and 1 <= threshold <= len(members)
            case [b"quorum", name] if not self.quorum:
                self.quorum = name
                return name in defined
        return False

    def is_met(self, name: bytes, cosigned: Set[bytes]) -> bool:
        """Whether a witness, or enough of a group, is among those that cosigned."""
        if name in self.witnesses:
            return name in cosigned
        threshold, members = self.groups[name]
        return sum(self.is_met(member, cosigned) for member in members) >= threshold

    def judge(self, checkpoint: Checkpoint, report: Report) -> None:
        """SPEC 11 (19)."""
        cosigned = set()
        for name, witness in self.witnesses.items():
            if signatures := checkpoint.signatures_by(witness):
                holds = all(_cosigns(witness.public, signature, checkpoint.text) for signature in signatures)
                report.check(19, "witness", holds, f"a cosignature of {name.decode('utf-8', 'replace')} does not hold")
                cosigned |= {name} if holds else set()
        told = f"{len(cosigned)} of {counted(len(self.witnesses), 'witness', 'witnesses')} cosigned"
        report.check(19, "witness", self.is_met(self.quorum, cosigned), f"the quorum is not met: {told}")
        report.told[19] = told if self.witnesses else ""


def _cosigns(public: bytes, cosignature: bytes, text: bytes) -> bool:
    seconds = int.from_bytes(cosignature[:8], "big")
    return seconds <= SIZE_MAX and verifies(public, cosignature[8:], b"cosignature/v1\ntime %d\n" % seconds + text)


def is_seal(armored: bytes, manifest: bytes, public: bytes) -> bool:
    """SPEC 10.6: the one form in which a signature may stand."""
    signature = from_base64(b"".join(armored.split(b"\n")[1:-2]))[-64:]
    names = _sized(b"tallystick-bundle@v1", b"", b"sha512")
    key, signed = _sized(b"ssh-ed25519", public), _sized(b"ssh-ed25519", signature)
    text = base64.b64encode(b"SSHSIG\0\0\0\1" + _sized(key) + names + _sized(signed))
    rows = [text[start : start + 70] for start in range(0, len(text), 70)]
    form = b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *rows, b"-----END SSH SIGNATURE-----", b""])
    return armored == form and verifies(public, signature, b"SSHSIG" + names + _sized(sha512(manifest).digest()))


def _sized(*parts: bytes) -> bytes:
    """Each behind its length, the S(x) of SPEC 10.6."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)
