"""A bundle verified by the numbered steps of SPEC 11, in one pass over its records, which are never held together.

A step that fails does not end the others, but for the first two: without files or a manifest there is nothing to go on.
"""

import base64
import hmac
import struct
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from hashlib import blake2b, sha256
from heapq import merge
from pathlib import Path
from typing import Final, NamedTuple

from tallystick_verify import forms
from tallystick_verify.canonical import INTEGER_MAX, RefusedError, write
from tallystick_verify.forms import Record, from_base64
from tallystick_verify.manifest import Manifest
from tallystick_verify.notes import LOG, Checkpoint, Policy, is_seal, parse_checkpoint, parse_key, verifies
from tallystick_verify.package import EVENTS, MANIFEST, SEAL, NoBundleError, Package
from tallystick_verify.tree import Fold, leaf_hash

FINDINGS_MAX: Final = 1000
ENTITIES_MAX: Final = 1_000_000
SLACK_BYTES: Final = 2**20
_OPENED, _CLOSED = "tallystick.epoch.opened", "tallystick.epoch.closed"


class Finding(NamedTuple):
    """What is wrong: of a step, and of a line of `events.jsonl` and its record's position where it is theirs."""

    step: int
    kind: str
    seen: str
    line: int | None = None
    position: int | None = None


class Epoch(NamedTuple):
    """An epoch whose key is disclosed, and the first two records of each kind that say to be its ends."""

    key: bytes
    openings: list[Record]
    closes: list[Record]


class Verification:
    """One bundle on its way through the steps: `open` takes the first two, `run` the others."""

    def __init__(self, path: Path, policy: Policy, known: bytes | None, now: datetime) -> None:
        self.path, self.policy, self.known_note, self.now = path, policy, known, now
        self.findings, self.total, self.failed, self.facts = list[Finding](), 0, set[int](), dict[int, str]()
        self.at: tuple[int | None, int | None] = (None, None)
        self.keys: dict[str, list[tuple[int, bytes]]] = {}
        self.versions: dict[bytes, int] = {}
        self.proven, self.unplaced, self.fold_fault, self.prune = False, False, "", ""
        self.known: Checkpoint | None = None

    def found(self, step: int, kind: str, seen: str) -> None:
        self.total += 1
        self.failed.add(step)
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(step, kind, seen, *self.at))

    def open(self) -> bool:
        """SPEC 11 (1, 2): whether there is a manifest to go on with."""
        try:
            self.package = Package(self.path)
            self.facts[1] = ", ".join(f"{name} of {size:,} bytes" for name, size in sorted(self.package.sizes.items()))
            self.raw, self.seal = self.package.read(MANIFEST), self.package.read(SEAL)
            self.manifest = it = Manifest(self.raw)
            self.facts[2] = (
                f"{it.said['format']}, {'complete' if it.complete else 'filtered'}, [{it.first:,}, {it.stop:,})"
            )
        except NoBundleError as error:
            self.found(1, "bundle", str(error))
        except RefusedError as error:
            self.found(2, "manifest", str(error))
        return not self.total

    def run(self, watched: Iterable[int] = ()) -> None:
        """SPEC 11 (3 to 20). `watched` are more sizes at which the root is wanted."""
        it = self.manifest
        try:
            self.known = None if self.known_note is None else parse_checkpoint(self.known_note)
        except RefusedError as error:
            self.found(18, "fork", f"the known checkpoint is {error}")
        cuts = [it.first, it.stop, *([it.start.size] if it.start else [])]
        self.fold = Fold(it.hashes, cuts=cuts, watched=[*cuts, *([self.known.size] if self.known else []), *watched])
        self.epochs = {key["epoch"]: Epoch(bytes.fromhex(key["key"]), [], []) for key in it.said["mac_keys"]}
        ranges = b"".join(struct.pack(">QQ", *pair) for pair in it.absent)
        self.absence = {"count": it.absent_below(2**63), "digest": sha256(ranges).hexdigest()}
        genesis = it.said["genesis"].encode()
        self.beside = {0: (genesis, {"event_type": "", "payload": {}}), **it.records}  # and not yet among the lines:
        self.waiting = sorted(self.beside, reverse=True)
        self._genesis(genesis)
        for line, record in it.records.values():
            self._epoch_end(record)
            if record["epoch"] in self.epochs and not self._is_signed(record, line):
                self.found(
                    9, "signature", f"the record at {record['position']} in `records` is not signed by its epoch"
                )
        try:
            self._events()
        except NoBundleError as error:  # without a bundle there is nothing to go on with
            self.total, self.failed, self.facts, self.at, self.unplaced = 0, set(), {}, (None, None), True
            self.findings.clear()
            return self.found(1, "bundle", str(error))
        self._epochs()
        self._checkpoint()
        self._history()
        return self._seal()

    def placed(self) -> Iterator[tuple[int, bytes]]:
        """Position and leaf hash of every record of the bundle, read once more; none if they cannot be placed."""
        if not self.unplaced:
            lines = ((forms.record(line)["position"], line) for line in self._lines())
            beside = ((position, line) for position, (line, _) in self.manifest.records.items())
            for position, line in merge(lines, beside, [(0, self.beside[0][0])]):
                yield position, leaf_hash(line)

    def _genesis(self, line: bytes) -> None:
        """SPEC 11 (3)."""
        name, origin, digest = self.manifest.name, self.manifest.origin.decode(), sha256(line).hexdigest()
        self.facts[3] = f"{name}, {digest}"
        if digest != self.manifest.said["ledger"]["id"]:
            self.found(3, "genesis", "its SHA-256 is not the id of the ledger")
        try:
            record = forms.record(line)
            said = record["event_type"], record["position"], record["epoch"], record["prev_hash"]
            payload = record["payload"]
            if said != ("tallystick.ledger.created", 0, 0, "0" * 64) or not forms.is_genesis(payload):
                raise RefusedError("it has not the form of a genesis")
            key = parse_key(payload["checkpoint_key"].encode(), LOG)
        except RefusedError as error:
            return self.found(3, "genesis", str(error))
        self.keys = {"checkpoint": [(0, key.public)], "evidence": [(0, from_base64(payload["evidence_key"]))]}
        names = (
            {record["ledger"], payload["ledger"], name},
            {payload["origin"], key.name.decode("utf-8", "replace"), origin},
        )
        if tuple(map(len, names)) != (1, 1) or not origin.endswith("/" + name):
            self.found(3, "genesis", "it is of another name or origin than the manifest says")
        signed = b"tallystick/v1/genesis\0" + forms.signed_part(line, record)
        if not verifies(from_base64(payload["root_key"]), bytes.fromhex(record["signature"]), signed):
            self.found(3, "genesis", "its root key did not sign it")
        return None

    def _lines(self) -> Iterator[bytes]:
        """SPEC 11 (4): the lines without their newlines, as many as the manifest counts."""
        digest, said, count = sha256(), self.manifest.said["events"], self.manifest.count
        size, found, rest, most = 0, 0, b"", said["bytes"] + SLACK_BYTES
        for read in self.package.chunks(EVENTS):
            chunk = read[: most - size]
            size += len(read)
            digest.update(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines[: max(0, count - found)]
            found += len(lines)
            rest = rest[: forms.RECORD_BYTES_MAX + 1]  # a line so long is refused, however it goes on
            if size > most:
                rest = b""
                break
        if rest and found < count:
            yield rest
        self.read = size, digest.hexdigest(), found + bool(rest), not rest

    def _events(self) -> None:
        """SPEC 11 (4 to 10), and the leaves of 14."""
        it = self.manifest
        before: Record | None = None
        digest, self.next = it.said["range"]["prev_hash"], it.present(it.first)
        for number, line in enumerate(self._lines(), 1):
            self.at, total = (number, None), self.total
            try:
                record = forms.record(line)
            except RefusedError as error:  # (5)
                self.found(5, "not-canonical", str(error))
                before, self.unplaced, self.next = None, True, it.present(self.next + 1)
                continue
            self.at = (number, record["position"])
            self._place(record, line)
            follows = before is not None and record["position"] == before["position"] + 1
            if (number == 1 or follows) and record["prev_hash"] != digest:  # (7)
                self.found(7, "chain", f"prev_hash is {record['prev_hash']}, and the record before has {digest}")
            if (before is not None and record["recorded_at"] < before["recorded_at"]) or record[
                "recorded_at"
            ] > it.created:
                self.found(8, "time", f"{record['recorded_at']} is before the record before, or after the bundle")
            self._sealed(record, line)
            if not self.unplaced:
                self._version(record)
            before, digest = record if self.total == total else None, sha256(line).hexdigest()
        self.at = (None, None)
        self.facts[4] = f"{self.read[2]:,} records, {self.read[0]:,} bytes, SHA-256 {self.read[1]}"
        if self.read != (it.said["events"]["bytes"], it.said["events"]["sha256"], it.count, True):
            said = f"{it.count:,} records, {it.said['events']['bytes']:,} bytes, SHA-256 {it.said['events']['sha256']}"
            self.found(4, "events", f"the manifest says {said}{'; no newline at the end' * (not self.read[3])}")
        if it.complete and self.next < it.stop:
            self.found(6, "missing", f"the records end before position {self.next}")
            self.unplaced = True
        self._records_below(it.end.size)
        made = datetime.fromisoformat(it.created)
        if made > self.now + timedelta(minutes=5):
            self.found(8, "time", f"the bundle says that it was made at {it.created}")
        self.facts |= dict.fromkeys((5, 6, 7, 9, 10), f"{self.read[2]:,} lines") | {8: f"made {it.created}"}

    def _place(self, record: Record, line: bytes) -> None:
        """SPEC 11 (6). What is in place counts for the steps below."""
        it, position, total = self.manifest, record["position"], self.total
        in_place = self.next <= position < it.stop and it.present(position) == position and position not in it.records
        if record["ledger"] != it.name or not in_place:
            self.found(6, "misplaced", f"position {position} of {record['ledger']} does not belong here")
        if in_place and it.complete and position != self.next:
            self.found(6, "missing", f"the positions [{self.next}, {position})")
        if in_place:
            self.next = it.present(position + 1)
        if self.total > total:
            self.unplaced = True
            return
        self._records_below(position)
        if position == 0:
            self.waiting.pop()  # the line itself is the leaf, and has to be the genesis (9)
        self._epoch_end(record)
        self._in_order(position, record, line)

    def _records_below(self, end: int) -> None:
        """What of `records` stands below a position, in its order among the lines."""
        while self.waiting and self.waiting[-1] < end:
            position = self.waiting.pop()
            line, record = self.beside[position]
            self._in_order(position, record, line)

    def _in_order(self, position: int, record: Record, line: bytes) -> None:
        """The records of the bundle as they come by position: leaves of 14, keys of 12, and the prune of 16."""
        if not self.unplaced and not self.fold_fault:
            try:
                self.fold.place(position, line)
            except RefusedError as error:
                self.fold_fault = str(error)
        payload = record["payload"]
        if record["event_type"] == "tallystick.key.rotated" and self.keys:
            self._rotation(position, payload)
        if record["event_type"] == "tallystick.records.pruned" and forms.is_prune(payload):
            moment, entity = record["occurred_at"], record["entity_id"]
            reaches = payload["absent"] == self.absence and self.manifest.absent[-1][1] <= payload["end"]
            if reaches and forms.is_time(moment) and entity == "tallystick.ledger":
                self.prune = f"[{payload['first']}, {payload['end']}) lawfully pruned"

    def _rotation(self, position: int, payload: Record) -> None:
        """SPEC 11 (12)."""
        fits, at, self.at = forms.is_rotation(payload), self.at, (None, position)
        if fits:
            said = {name: payload[name] for name in ("new_key", "old_key", "purpose")} | {"ledger": self.manifest.name}
            signed, kept = b"tallystick/v1/key-rotated\0" + write(said).encode(), self.keys[payload["purpose"]]
            old, new = from_base64(payload["old_key"]), from_base64(payload["new_key"])
            fits = old == kept[-1][1] and verifies(old, from_base64(payload["old_signature"]), signed)
            fits = fits and verifies(new, from_base64(payload["new_signature"]), signed)
        if fits:
            kept.append((position, new))
        else:
            self.found(12, "key-rotation", "it has not the form, both signatures, and the key in force as the old one")
        self.at = at

    def _epoch_end(self, record: Record) -> None:
        """SPEC 5.2: an opening or a close counts for the epoch that it says and is of."""
        epoch, kind = self.epochs.get(record["epoch"]), record["event_type"]
        if epoch and kind in (_OPENED, _CLOSED) and record["payload"].get("epoch") == record["epoch"]:
            ends, form = (epoch.openings, forms.is_opening) if kind == _OPENED else (epoch.closes, forms.is_close)
            ends.extend([record] * form(record["payload"]))
            ends.sort(key=lambda end: int(end["position"]))
            del ends[2:]

    def _is_signed(self, record: Record, line: bytes) -> bool:
        """SPEC 3.3."""
        tag = hmac.digest(
            self.epochs[record["epoch"]].key, b"tallystick/v1/event\0" + forms.signed_part(line, record), "sha256"
        )
        return hmac.compare_digest(tag.hex(), record["signature"])

    def _sealed(self, record: Record, line: bytes) -> None:
        """SPEC 11 (9)."""
        position, epoch = record["position"], self.epochs.get(record["epoch"])
        if position == 0:
            if line.decode() != self.manifest.said["genesis"]:
                self.found(9, "genesis", "it is not the genesis of the manifest")
        elif epoch is None or not self._is_signed(record, line):
            self.found(9, "signature", f"it is not signed by a disclosed key of epoch {record['epoch']}")
        if position and epoch:
            opened = epoch.openings and epoch.openings[0]["position"] <= position
            if not opened or (epoch.closes and epoch.closes[0]["position"] < position):
                self.found(9, "epoch", f"it does not lie between the opening and the close of epoch {record['epoch']}")

    def _version(self, record: Record) -> None:
        """SPEC 11 (10). Kept is, by entity, the last version and how many positions below it may have had others."""
        it, version, position = self.manifest, record["entity_version"], record["position"]
        entity = blake2b(record["entity_id"].encode(), digest_size=16).digest()
        room = (it.absent_below(position) if it.absent else 0) if it.complete else position
        last = self.versions.get(entity, 0 if it.complete and it.first == 0 else None)
        if last is not None:
            left_out = version - (last & INTEGER_MAX) - 1
            if not 0 <= left_out <= room - (last >> 53) - (not it.complete):
                self.found(10, "entity-version", f"version {version} of {record['entity_id']!r} leaves out {left_out}")
        if entity in self.versions or len(self.versions) < ENTITIES_MAX:
            self.versions[entity] = room << 53 | version

    def _epochs(self) -> None:
        """SPEC 11 (11)."""
        previous: int | None = None
        end: int | None = None
        for number, epoch in self.epochs.items():
            openings, closes = epoch.openings, epoch.closes
            commitment = hmac.digest(epoch.key, b"tallystick/v1/epoch-key-commitment", "sha256").hex()
            if any(opening["payload"]["key_commitment"] != commitment for opening in openings):
                self.found(11, "commitment", f"the opening of epoch {number} commits to another key")
            whole = len(openings) == len(closes) == 1
            first, last = (openings[0]["position"], closes[0]["position"]) if whole else (0, -1)
            said = {"count": last - first + 1, "epoch": number, "first_position": first, "last_position": last}
            if not whole or closes[0]["payload"] != said:
                self.found(11, "epoch", f"epoch {number} has not one opening, and one close that tells where both are")
            follows = previous is not None and number == previous + 1
            if previous is not None and self.manifest.complete and not follows:
                self.found(11, "epoch", f"epoch {number} comes after epoch {previous}")
            elif whole and end is not None and (first != end + 1 if follows else first <= end):
                self.found(11, "epoch", f"epoch {number} opens at {first}, and epoch {previous} closes at {end}")
            previous, end = number, last if whole else None
        self.facts[11] = f"{len(self.epochs):,} epochs"

    def _is_of_ledger(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint is of this origin, by the key in force at its size (SPEC 5.4)."""
        kept = [key for position, key in self.keys["checkpoint"] if position < max(1, checkpoint.size)]
        return checkpoint.origin == self.manifest.origin and checkpoint.is_signed_by(kept[-1])

    def _checkpoint(self) -> None:
        """SPEC 11 (12, 13, 14)."""
        end, keys = self.manifest.end, [key for _, key in self.keys.get("checkpoint", [])]
        self.facts |= {12: f"{len(keys) - 1 + len(self.keys['evidence']) - 1} changes of keys"} if keys else {}
        if keys:
            self.facts[13] = f"size {end.size:,}, root {base64.b64encode(end.root).decode()}"
            if not self._is_of_ledger(end):
                self.found(13, "checkpoint", "it is not of this origin, signed by the key in force at its size")
            if not any(log.name == self.manifest.origin and log.public in keys for log in self.policy.logs):
                self.found(13, "checkpoint", "the trust file has no key of this origin that vouches for it")
        if self.unplaced:
            return
        try:
            if self.fold_fault:
                raise RefusedError(self.fold_fault)
            root = self.fold.finish(end.size)
            self.proven = root == end.root
            self.facts[14] = (
                f"{base64.b64encode(root).decode()}, from the records and {len(self.manifest.hashes):,} hashes"
            )
            if not self.proven:
                self.found(14, "root", f"the records lead to {base64.b64encode(root).decode()}, which is not signed")
        except RefusedError as error:
            self.found(14, "root", str(error))

    def _history(self) -> None:
        """SPEC 11 (17, 18). What roots say is asked only where the fold gave the signed one."""
        end = self.manifest.end
        for step, checkpoint in ((17, self.manifest.start), (18, self.known)):
            if checkpoint is None:
                continue
            self.facts[step] = f"size {checkpoint.size:,}"
            if step == 18 and checkpoint.size > end.size:
                self.found(18, "rollback", f"size {checkpoint.size:,} is known, and this bundle ends at {end.size:,}")
            if self.keys and checkpoint.size <= end.size and not self._is_of_ledger(checkpoint):
                self.found(step, "fork", "the checkpoint is not of this origin, signed by the key in force at its size")
            root = self.fold.roots.get(checkpoint.size)
            if self.proven and root is not None and root != checkpoint.root:
                self.found(step, "fork", f"at size {checkpoint.size:,} this history has another root")
            if self.proven and root is None and checkpoint.size <= end.size:
                self.found(step, "reach", f"this bundle does not tell the root at size {checkpoint.size:,}")

    def _seal(self) -> None:
        """SPEC 11 (15, 16, 19, 20)."""
        if self.keys:
            public = self.keys["evidence"][-1][1]
            self.facts[15] = f"by the evidence key {base64.b64encode(public).decode()}"
            if not is_seal(self.seal, self.raw, public):
                self.found(15, "seal", "the signature is not of this form, this manifest and the evidence key in force")
        if self.manifest.absent:
            self.facts[16] = self.prune
            if not self.prune:
                self.found(16, "prune", "no prune in the bundle says that these positions are absent")
        for fault in self.policy.faults(self.manifest.end):
            self.found(19, "witness", fault)
        self.facts[19] = f"quorum {(self.policy.quorum or b'').decode('utf-8', 'replace')}"
        self.facts[20] = f"{len(self.manifest.said['timestamps'])} told of, not judged"
