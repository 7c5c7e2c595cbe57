"""Makes bundles from SPEC 3 to 10 alone, with keys that everybody knows, and nothing of tallystick.

A `Ledger` seals records one after the other and remembers all of them; `bundle` cuts a piece out of it. Whoever wants
a wrong bundle changes what is there, and may `seal` the manifest anew.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ORIGIN: Final = "audit.example/made"
NAME: Final = "made"
CREATED: Final = "2026-03-04T00:00:00.000000Z"
SYSTEM: Final = {"id": "tallystick", "type": "system"}
Files = dict[str, bytes]


def key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


ROOT, CHECKPOINT, EVIDENCE, SECOND, THIRD, STRANGER, WITNESS = map(key, range(1, 8))


def public(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def moment(at: int) -> str:
    return f"2026-03-03T{9 + at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}.000000Z"


def from_b64(text: str) -> bytes:
    return base64.b64decode(text)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def canonical(value: Any) -> bytes:
    return rfc8785.dumps(value)


def key_id(name: str, kind: int, private: Ed25519PrivateKey) -> bytes:
    return sha256(name.encode() + b"\n" + bytes([kind]) + public(private))[:4]


def vkey(name: str, kind: int, private: Ed25519PrivateKey) -> str:
    return f"{name}+{key_id(name, kind, private).hex()}+{b64(bytes([kind]) + public(private))}"


TRUST: Final = f"log {vkey(ORIGIN, 1, CHECKPOINT)}\nquorum none\n".encode()


def mac_key(epoch: int) -> bytes:
    return sha256(b"the key of epoch %d" % epoch)


def commitment(epoch: int) -> str:
    return hmac.digest(mac_key(epoch), b"tallystick/v1/epoch-key-commitment", "sha256").hex()


def signed(record: Mapping[str, Any], *, epoch: int | None = None, root: Ed25519PrivateKey = ROOT) -> bytes:
    """The line of a record, sealed anew."""
    part = canonical({name: value for name, value in record.items() if name != "signature"})
    if record["position"] == 0:
        tag = root.sign(b"tallystick/v1/genesis\0" + part)
    else:
        key_of = mac_key(record["epoch"] if epoch is None else epoch)
        tag = hmac.digest(key_of, b"tallystick/v1/event\0" + part, "sha256")
    return part[:-1] + b',"signature":"' + tag.hex().encode() + b'"}'


def changed(line: bytes, **members: Any) -> bytes:
    return signed({**json.loads(line), **members})


def tree(leaves: list[bytes]) -> bytes:
    """The recursive definition of RFC 9162 2.1.1, over leaf hashes."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"")
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + tree(leaves[:split]) + tree(leaves[split:]))


def path_of(index: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*path_of(index, leaves[:split]), tree(leaves[split:])]
    return [*path_of(index - split, leaves[split:]), tree(leaves[:split])]


def note(
    text: str, name: str = ORIGIN, private: Ed25519PrivateKey = CHECKPOINT, more: Iterable[str] = (), kind: int = 1
) -> bytes:
    line = f"— {name} {b64(key_id(name, kind, private) + private.sign(text.encode()))}\n"
    return f"{text}\n{line}{''.join(more)}".encode()


def cosignature(text: str, name: str, private: Ed25519PrivateKey, seconds: int = 1_770_000_000) -> str:
    tag = private.sign(f"cosignature/v1\ntime {seconds}\n{text}".encode())
    return f"— {name} {b64(key_id(name, 4, private) + struct.pack('>Q', seconds) + tag)}\n"


class Ledger:
    """A ledger in the making."""

    def __init__(self, name: str = NAME, origin: str = ORIGIN, *, nonce: str = "00" * 32) -> None:
        self.lines: list[bytes] = []
        self.versions: dict[str, int] = {}
        self.name, self.origin, self.epoch, self.opened_at = name, origin, 0, 0
        self.checkpoint_keys = [(0, CHECKPOINT)]
        self.evidence_keys = [(0, EVIDENCE)]
        self.add(
            "tallystick.ledger.created",
            {
                "algorithms": {
                    "chain": "SHA-256",
                    "checkpoint": "Ed25519",
                    "encoding": "RFC 8785",
                    "event": "HMAC-SHA256",
                    "tree": "RFC 6962 SHA-256",
                },
                "checkpoint_key": vkey(origin, 1, CHECKPOINT),
                "epoch": {"records_max": 100, "seconds_max": 86_400},
                "evidence_key": b64(public(EVIDENCE)),
                "ledger": name,
                "nonce": nonce,
                "origin": origin,
                "retention": None,
                "root_key": b64(public(ROOT)),
            },
        )

    def add(self, event_type: str, payload: Any, entity: str = "tallystick.ledger", **members: Any) -> bytes:
        self.versions[entity] = self.versions.get(entity, 0) + 1
        line = signed(
            {
                "actor": SYSTEM,
                "context": {},
                "entity_id": entity,
                "entity_version": self.versions[entity],
                "epoch": self.epoch,
                "event_type": event_type,
                "event_version": 1,
                "id": f"00000000-0000-8000-8000-{len(self.lines):012d}",
                "labels": [],
                "ledger": self.name,
                "occurred_at": None,
                "payload": payload,
                "position": len(self.lines),
                "prev_hash": sha256(self.lines[-1]).hex() if self.lines else "0" * 64,
                "recorded_at": moment(len(self.lines)),
                **members,
            }
        )
        self.lines.append(line)
        return line

    def open(self, **payload: Any) -> None:
        self.opened_at = len(self.lines)
        self.add("tallystick.epoch.opened", {"epoch": self.epoch, "key_commitment": commitment(self.epoch), **payload})

    def close(self, **payload: Any) -> None:
        first, last = self.opened_at, len(self.lines)
        said = {"count": last - first + 1, "epoch": self.epoch, "first_position": first, "last_position": last}
        self.add("tallystick.epoch.closed", {**said, **payload})
        self.epoch += 1

    def events(self, count: int, entities: int = 2) -> None:
        for _ in range(count):
            at = len(self.lines)
            self.add("user.changed", {"n": at}, f"user-{at % entities}", actor={"id": "jane"})

    def rotate(self, purpose: str, new: Ed25519PrivateKey, /, **payload: Any) -> None:
        kept = self.checkpoint_keys if purpose == "checkpoint" else self.evidence_keys
        old = kept[-1][1]
        said = {"new_key": b64(public(new)), "old_key": b64(public(old)), "purpose": purpose}
        over = b"tallystick/v1/key-rotated\0" + canonical({**said, "ledger": self.name})
        tags = {"new_signature": b64(new.sign(over)), "old_signature": b64(old.sign(over))}
        kept.append((len(self.lines), new))
        self.add("tallystick.key.rotated", {**said, **tags, **payload})

    def leaves(self, size: int | None = None) -> list[bytes]:
        return [sha256(b"\x00" + line) for line in self.lines[:size]]

    def text(self, size: int | None = None) -> str:
        size = len(self.lines) if size is None else size
        return f"{self.origin}\n{size}\n{b64(tree(self.leaves(size)))}\n"

    def checkpoint(self, size: int | None = None, more: Iterable[str] = ()) -> bytes:
        size = len(self.lines) if size is None else size
        private = [one for at, one in self.checkpoint_keys if at < size][-1]
        return note(self.text(size), self.origin, private, more)

    def proof(self, index: int, size: int | None = None, more: Iterable[str] = ()) -> bytes:
        path = "".join(f"{b64(one)}\n" for one in path_of(index, self.leaves(size)))
        return f"c2sp.org/tlog-proof@v1\nindex {index}\n{path}\n".encode() + self.checkpoint(size, more)

    def subtrees(self, there: Iterable[int], cuts: Iterable[int], size: int) -> list[str]:
        """SPEC 10.3, piece by piece."""
        leaves, hashes, have = self.leaves(size), list[str](), sorted({*there, size})
        at = 0
        for stop in have:
            while at < stop:
                edge = min(cut for cut in [*cuts, stop] if cut > at and cut <= stop)
                width = 1
                while at % (2 * width) == 0 and at + 2 * width <= edge:
                    width *= 2
                hashes.append(b64(tree(leaves[at : at + width])))
                at += width
            at = stop + 1
        return hashes

    def bundle(
        self,
        first: int,
        end: int,
        *,
        size: int | None = None,
        keep: Callable[[int], bool] | None = None,
        absent: list[list[int]] | None = None,
        start: int | None = None,
        beside: Iterable[int] = (),
        cosigned: Iterable[str] = (),
        timestamps: Iterable[bytes] = (),
    ) -> Bundle:
        size = len(self.lines) if size is None else size
        gone = {at for a, b in absent or [] for at in range(a, b)}
        there = [at for at in range(first, end) if at not in gone and (keep is None or keep(at))]
        records = {at: json.loads(line) for at, line in enumerate(self.lines[:size])}
        epochs = sorted({records[at]["epoch"] for at in there if at})
        more = set(beside)
        for at, record in records.items():
            ends = record["event_type"] in ("tallystick.epoch.opened", "tallystick.epoch.closed")
            if record["event_type"] == "tallystick.key.rotated" or (ends and record["epoch"] in epochs):
                more.add(at)
        more -= set(there)
        cuts = [first, end, *([start] if start is not None else [])]
        manifest = {
            "format": "tallystick-bundle/1",
            "ledger": {"id": sha256(self.lines[0]).hex(), "name": self.name, "origin": self.origin},
            "range": {"first": first, "end": end, "count": len(there), "prev_hash": records[there[0]]["prev_hash"]},
            "complete": keep is None,
            "selectors": [] if keep is None else [{"any_of": [[]], "count": 0, "name": "all", "within": []}],
            "absent": absent or [],
            "start": {"checkpoint": None if start is None else self.checkpoint(start).decode()},
            "end": {"checkpoint": self.checkpoint(size, cosigned).decode()},
            "genesis": self.lines[0].decode(),
            "records": [self.lines[at].decode() for at in sorted(more)],
            "hashes": self.subtrees({0, *there, *more}, cuts, size),
            "mac_keys": [{"epoch": epoch, "key": mac_key(epoch).hex()} for epoch in epochs],
            "timestamps": [{"over": "end.checkpoint", "token": b64(one), "type": "rfc3161"} for one in timestamps],
            "events": {"file": "events.jsonl", "bytes": 0, "sha256": ""},
            "created": CREATED,
            "tool": "a test",
        }
        evidence = [one for at, one in self.evidence_keys if at < size][-1]
        return Bundle(manifest, [self.lines[at] for at in there], evidence)


class Bundle:
    """A manifest and lines, to be changed and then written."""

    def __init__(self, manifest: dict[str, Any], lines: list[bytes], evidence: Ed25519PrivateKey) -> None:
        self.manifest, self.lines, self.evidence = manifest, lines, evidence
        self.ending = b"\n"
        self.tell_events()

    def tell_events(self) -> Bundle:
        """Makes the manifest say what the lines are now."""
        events = self.events()
        self.manifest["events"] |= {"bytes": len(events), "sha256": sha256(events).hex()}
        for selector in self.manifest["selectors"]:
            selector["count"] = len(self.lines)
        return self

    def events(self) -> bytes:
        return b"\n".join(self.lines) + self.ending if self.lines else b""

    def files(self, *, tell: bool = False) -> Files:
        if tell:
            self.tell_events()
        manifest = canonical(self.manifest)
        return {
            "manifest.json": manifest,
            "events.jsonl": self.events(),
            "manifest.json.sig": seal(manifest, self.evidence),
        }


def _lengthy(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def seal(manifest: bytes, private: Ed25519PrivateKey, namespace: bytes = b"tallystick-bundle@v1") -> bytes:
    """SPEC 10.6."""
    names = _lengthy(namespace) + _lengthy(b"") + _lengthy(b"sha512")
    tag = private.sign(b"SSHSIG" + names + _lengthy(hashlib.sha512(manifest).digest()))
    kind = _lengthy(b"ssh-ed25519")
    text = b64(
        b"SSHSIG"
        + struct.pack(">I", 1)
        + _lengthy(kind + _lengthy(public(private)))
        + names
        + _lengthy(kind + _lengthy(tag))
    )
    rows = "".join(f"{text[at : at + 70]}\n" for at in range(0, len(text), 70))
    return f"-----BEGIN SSH SIGNATURE-----\n{rows}-----END SSH SIGNATURE-----\n".encode()


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()
