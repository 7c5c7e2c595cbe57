"""A bundle verified by the numbered steps of SPEC 11, in one pass over its records, which are never held together.

A step that fails does not end the others, but for the first two: without files or a manifest there is nothing to go on.
"""

import hmac
import struct
from base64 import b64encode
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
STEPS: Final = (
    *("bundle", "manifest", "genesis", "events", "not-canonical", "misplaced, missing", "chain", "time"),
    *("signature, epoch", "entity-version", "epoch, commitment", "key-rotation", "checkpoint", "root", "seal"),
    *("prune", "fork", "rollback, fork, reach", "witness", "timestamps"),
)
_AGES: Final = ("old", "new")
_OPENED, _CLOSED = "tallystick.epoch.opened", "tallystick.epoch.closed"
_GENESIS: Final = {"event_type": "tallystick.ledger.created", "position": 0, "epoch": 0, "prev_hash": "0" * 64}


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


class Report:
    """One bundle on its way through the steps, and what came of it: `open` takes the first two, `run` the others."""

    def __init__(self, path: Path, policy: Policy, known: bytes | None, now: datetime) -> None:
        self.path, self.policy, self._known_note, self._now = path, policy, known, now
        self.findings, self.total, self._failed, self.facts = list[Finding](), 0, set[int](), dict[int, str]()
        self._at: tuple[int | None, int | None] = (None, None)
        self._keys: dict[str, list[tuple[int, bytes]]] = {}
        self._versions: dict[bytes, int] = {}
        self.proven, self._unplaced, self._fold_fault, self.prune = False, False, "", ""
        self.tokens: list[bytes] = []

    @property
    def holds(self) -> bool:
        return not self.total

    @property
    def dropped(self) -> int:
        """How many findings there are beyond those that are kept."""
        return self.total - len(self.findings)

    @property
    def steps(self) -> list[tuple[int, str, str, str]]:
        """Number, what it asks, outcome, and a fact."""
        outcomes = [("not taken", "ok")[step in self.facts] for step in range(1, 21)]
        outcomes = ["FINDING" if step in self._failed else outcome for step, outcome in enumerate(outcomes, 1)]
        return [(step, STEPS[step - 1], outcomes[step - 1], self.facts.get(step, "")) for step in range(1, 21)]

    def _found(self, step: int, kind: str, seen: str) -> None:
        self.total += 1
        self._failed.add(step)
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(step, kind, seen, *self._at))

    def open(self) -> bool:
        """SPEC 11 (1, 2): whether there is a manifest to go on with."""
        try:
            self.package = Package(self.path)
            self.facts[1] = ", ".join(f"{name} of {size:,} bytes" for name, size in sorted(self.package.sizes.items()))
            self._raw, self._sealed = self.package.read(MANIFEST), self.package.read(SEAL)
            self.manifest = it = Manifest(self._raw)
            self.tokens = [from_base64(timestamp["token"]) for timestamp in it.said["timestamps"]]
            self.facts[2] = f"{'complete' if it.complete else 'filtered'}, [{it.first:,}, {it.stop:,})"
        except NoBundleError as error:
            self._found(1, "bundle", str(error))
        except RefusedError as error:
            self._found(2, "manifest", str(error))
        return self.holds

    def run(self, watched: Iterable[int] = ()) -> None:
        """SPEC 11 (3 to 20). `watched` are more sizes at which the root is wanted."""
        it, known = self.manifest, None
        try:
            known = None if self._known_note is None else parse_checkpoint(self._known_note)
        except RefusedError as error:
            self._found(18, "fork", f"the known checkpoint is {error}")
        kept = [(step, checkpoint) for step, checkpoint in ((17, it.start), (18, known)) if checkpoint]
        cuts = [it.first, it.stop, *([it.start.size] if it.start else [])]
        self.fold = Fold(it.hashes, cuts=cuts, watched=[*watched, *(checkpoint.size for _, checkpoint in kept)])
        self._epochs = {key["epoch"]: Epoch(bytes.fromhex(key["key"]), [], []) for key in it.said["mac_keys"]}
        ranges = b"".join(struct.pack(">QQ", *pair) for pair in it.absent)
        self._absence = {"count": it.absent_below(2**63), "digest": sha256(ranges).hexdigest()}
        genesis = it.said["genesis"].encode()
        self._beside = {0: (genesis, {"event_type": "", "payload": {}}), **it.records}
        self._waiting = sorted(self._beside, reverse=True)
        self._judge_genesis(genesis)
        for position, (line, record) in it.records.items():
            self._note_end_of_epoch(record)
            if record["epoch"] in self._epochs and not self._is_signed(record, line):
                self._found(9, "signature", f"the record at {position} in `records` is not signed")
        try:
            self._judge_events()
        except NoBundleError as error:  # without a bundle there is nothing to go on with
            self.findings, self.total, self._failed, self.facts = [], 0, set(), {}
            self._at, self._unplaced = (None, None), True
            return self._found(1, "bundle", str(error))
        self._judge_epochs()
        self._judge_checkpoint()
        self._judge_root()
        self._judge_history(kept)
        return self._judge_vouchers()

    def placed(self) -> Iterator[tuple[int, bytes]]:
        """Position and leaf hash of every record of the bundle, read once more; none if they cannot be placed."""
        if not self._unplaced:
            lines = ((forms.record(line)["position"], line) for line in self._lines())
            beside = ((position, line) for position, (line, _) in self._beside.items())
            yield from ((position, leaf_hash(line)) for position, line in merge(lines, beside))

    def _judge_genesis(self, line: bytes) -> None:
        """SPEC 11 (3)."""
        ledger = self.manifest.said["ledger"]
        self.facts[3] = f"{ledger['name']}, {ledger['id']}"
        if sha256(line).hexdigest() != ledger["id"]:
            self._found(3, "genesis", "its SHA-256 is not the id of the ledger")
        try:
            record = forms.record(line)
            payload = record["payload"]
            if record | _GENESIS != record or not forms.is_genesis(payload):
                raise RefusedError("it has not the form of a genesis")
            key = parse_key(payload["checkpoint_key"].encode(), LOG)
        except RefusedError as error:
            return self._found(3, "genesis", str(error))
        self._keys = {"checkpoint": [(0, key.public)], "evidence": [(0, from_base64(payload["evidence_key"]))]}
        names, origins = {record["ledger"], payload["ledger"]}, {payload["origin"].encode(), key.name}
        fits = (names, origins) == ({ledger["name"]}, {self.manifest.origin})
        if not fits or not ledger["origin"].endswith("/" + ledger["name"]):
            self._found(3, "genesis", "it is of another name or origin than the manifest says")
        signed = b"tallystick/v1/genesis\0" + forms.signed_part(line, record)
        if not verifies(from_base64(payload["root_key"]), bytes.fromhex(record["signature"]), signed):
            self._found(3, "genesis", "its root key did not sign it")
        return None

    def _lines(self) -> Iterator[bytes]:
        """SPEC 11 (4): the lines without their newlines, as many as the manifest counts."""
        digest, size, found, rest = sha256(), 0, 0, b""
        count, most = self.manifest.count, self.manifest.said["events"]["bytes"] + SLACK_BYTES
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
        self._read = found + bool(rest), size, digest.hexdigest(), not rest

    def _judge_events(self) -> None:
        """SPEC 11 (4 to 10), and the leaves of 14."""
        it, before, total = self.manifest, None, 0
        digest, self._next = it.said["range"]["prev_hash"], it.present(it.first)
        for number, line in enumerate(self._lines(), 1):
            self._at, total = (number, None), self.total
            try:
                record = forms.record(line)
            except RefusedError as error:  # (5)
                self._found(5, "not-canonical", str(error))
                before, self._unplaced, self._next = None, True, it.present(self._next + 1)
                continue
            self._at = (number, record["position"])
            self._place(record, line)
            follows = before is not None and record["position"] == before["position"] + 1
            if (number == 1 or follows) and record["prev_hash"] != digest:  # (7)
                self._found(7, "chain", f"prev_hash is {record['prev_hash']}, and the record before has {digest}")
            if not (before["recorded_at"] if before else "") <= record["recorded_at"] <= it.created:  # (8)
                self._found(8, "time", f"{record['recorded_at']} is before the record before, or after the bundle")
            self._judge_signature(record, line)
            if not self._unplaced:
                self._judge_version(record)
            before, digest = record if self.total == total else None, sha256(line).hexdigest()
        self._at = (None, None)
        told, said = "{:,} records, {:,} bytes, SHA-256 {}", it.said["events"]
        self.facts |= dict.fromkeys((5, 6, 7, 9, 10), f"{self._read[0]:,} lines")
        self.facts |= {4: told.format(*self._read), 8: f"made {it.created}"}
        if self._read != (it.count, said["bytes"], said["sha256"], True):
            ending = "; no newline at the end" * (not self._read[3])
            self._found(
                4, "events", f"the manifest says {told.format(it.count, said['bytes'], said['sha256'])}{ending}"
            )
        if it.complete and self._next < it.stop:
            self._found(6, "missing", f"the records end before position {self._next}")
            self._unplaced = True
        self._take_beside(it.end.size)
        if datetime.fromisoformat(it.created) > self._now + timedelta(minutes=5):
            self._found(8, "time", f"the bundle says that it was made at {it.created}")

    def _place(self, record: Record, line: bytes) -> None:
        """SPEC 11 (6). What is in place counts for the steps below."""
        it, position, total = self.manifest, record["position"], self.total
        in_place = self._next <= position < it.stop and it.present(position) == position and position not in it.records
        if record["ledger"] != it.name or not in_place:
            self._found(6, "misplaced", f"position {position} of {record['ledger']} does not belong here")
        if in_place and it.complete and position != self._next:
            self._found(6, "missing", f"the positions [{self._next}, {position})")
        if in_place:
            self._next = it.present(position + 1)
        if self.total > total:
            self._unplaced = True
            return
        self._take_beside(position)
        if position == 0:
            self._waiting.pop()  # the line itself is the leaf, and has to be the genesis (9)
        self._note_end_of_epoch(record)
        self._take(position, record, line)

    def _take_beside(self, end: int) -> None:
        """What of `records` stands below a position, in its order among the lines."""
        while self._waiting and self._waiting[-1] < end:
            line, record = self._beside[position := self._waiting.pop()]
            self._take(position, record, line)

    def _take(self, position: int, record: Record, line: bytes) -> None:
        """The records of the bundle as they come by position: leaves of 14, keys of 12, and the prune of 16."""
        try:
            if not self._unplaced and not self._fold_fault:
                self.fold.place(position, line)
        except RefusedError as error:
            self._fold_fault = str(error)
        payload = record["payload"]
        if record["event_type"] == "tallystick.key.rotated" and self._keys:
            self._judge_rotation(position, payload)
        if record["event_type"] == "tallystick.records.pruned" and forms.is_prune(payload):
            fits = forms.is_time(record["occurred_at"]) and record["entity_id"] == "tallystick.ledger"
            if fits and payload["absent"] == self._absence and self.manifest.absent[-1][1] <= payload["end"]:
                self.prune = f"[{payload['first']}, {payload['end']}) lawfully pruned"

    def _judge_rotation(self, position: int, payload: Record) -> None:
        """SPEC 11 (12)."""
        if forms.is_rotation(payload):
            said = {name: payload[name] for name in ("new_key", "old_key", "purpose")} | {"ledger": self.manifest.name}
            signed, kept = b"tallystick/v1/key-rotated\0" + write(said).encode(), self._keys[payload["purpose"]]
            old, new, *tags = (from_base64(payload[f"{age}_{what}"]) for what in ("key", "signature") for age in _AGES)
            if old == kept[-1][1] and verifies(old, tags[0], signed) and verifies(new, tags[1], signed):
                return kept.append((position, new))
        at, self._at = self._at, (None, position)
        self._found(12, "key-rotation", "it has not the form, both signatures, and the key in force as the old one")
        self._at = at
        return None

    def _note_end_of_epoch(self, record: Record) -> None:
        """SPEC 5.2: an opening or a close counts for the epoch that it says and is of."""
        epoch, kind = self._epochs.get(record["epoch"]), record["event_type"]
        if epoch and kind in (_OPENED, _CLOSED) and record["payload"].get("epoch") == record["epoch"]:
            ends, form = (epoch.openings, forms.is_opening) if kind == _OPENED else (epoch.closes, forms.is_close)
            ends.extend([record] * form(record["payload"]))
            ends.sort(key=lambda end: int(end["position"]))
            del ends[2:]

    def _is_signed(self, record: Record, line: bytes) -> bool:
        """SPEC 3.3."""
        signed = b"tallystick/v1/event\0" + forms.signed_part(line, record)
        return hmac.digest(self._epochs[record["epoch"]].key, signed, "sha256").hex() == str(record["signature"])

    def _judge_signature(self, record: Record, line: bytes) -> None:
        """SPEC 11 (9)."""
        position, epoch = record["position"], self._epochs.get(record["epoch"])
        if position == 0:
            if line.decode() != self.manifest.said["genesis"]:
                self._found(9, "genesis", "it is not the genesis of the manifest")
            return
        if epoch is None or not self._is_signed(record, line):
            self._found(9, "signature", f"it is not signed by a disclosed key of epoch {record['epoch']}")
        opened = epoch is None or (epoch.openings and epoch.openings[0]["position"] <= position)
        if not opened or (epoch and epoch.closes and epoch.closes[0]["position"] < position):
            self._found(9, "epoch", f"it does not lie between the opening and the close of epoch {record['epoch']}")

    def _judge_version(self, record: Record) -> None:
        """SPEC 11 (10). Kept is, by entity, the last version and how many positions below it may have had others."""
        it, version, position = self.manifest, record["entity_version"], record["position"]
        entity = blake2b(record["entity_id"].encode(), digest_size=16).digest()
        room = (it.absent_below(position) if it.absent else 0) if it.complete else position
        begins = it.complete and it.first == 0 and len(self._versions) < ENTITIES_MAX
        last = self._versions.get(entity, 0 if begins else None)
        left_out = 0 if last is None else version - (last & INTEGER_MAX) - 1
        if last is not None and not 0 <= left_out <= room - (last >> 53) - (not it.complete):
            self._found(10, "entity-version", f"version {version} of {record['entity_id']!r} leaves out {left_out}")
        if entity in self._versions or len(self._versions) < ENTITIES_MAX:
            self._versions[entity] = room << 53 | version

    def _judge_epochs(self) -> None:
        """SPEC 11 (11)."""
        before, end = -1, -1
        for number, (key, openings, closes) in self._epochs.items():
            commitment = hmac.digest(key, b"tallystick/v1/epoch-key-commitment", "sha256").hex()
            if any(opening["payload"]["key_commitment"] != commitment for opening in openings):
                self._found(11, "commitment", f"the opening of epoch {number} commits to another key")
            whole = len(openings) == len(closes) == 1
            first, last = (openings[0]["position"], closes[0]["position"]) if whole else (-1, -1)
            said = {"count": last - first + 1, "epoch": number, "first_position": first, "last_position": last}
            if not whole or closes[0]["payload"] != said:
                self._found(11, "epoch", f"epoch {number} has not one opening, and one close that tells where both are")
            follows, known = number == before + 1, whole and end >= 0
            apart = before >= 0 and not follows and self.manifest.complete
            if apart or (known and (first != end + 1 if follows else first <= end)):
                self._found(11, "epoch", f"epoch {number} does not follow on epoch {before}")
            before, end = number, last
        self.facts[11] = f"{len(self._epochs):,} epochs"

    def _is_of_ledger(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint is of this origin, by the key in force at its size (SPEC 5.4)."""
        kept = [key for position, key in self._keys["checkpoint"] if position < max(1, checkpoint.size)]
        return checkpoint.origin == self.manifest.origin and checkpoint.is_signed_by(kept[-1])

    def _judge_checkpoint(self) -> None:
        """SPEC 11 (13)."""
        if self._keys:
            end, keys = self.manifest.end, [key for _, key in self._keys["checkpoint"]]
            self.facts[12] = f"{len(keys) + len(self._keys['evidence']) - 2} changes of keys"
            self.facts[13] = f"size {end.size:,}, root {b64encode(end.root).decode()}"
            if not self._is_of_ledger(end):
                self._found(13, "checkpoint", "it is not of this origin, signed by the key in force at its size")
            if not any(log.name == self.manifest.origin and log.public in keys for log in self.policy.logs):
                self._found(13, "checkpoint", "the trust file has no key of this origin that vouches for it")

    def _judge_root(self) -> None:
        """SPEC 11 (14)."""
        if self._unplaced:
            return
        try:
            if self._fold_fault:
                raise RefusedError(self._fold_fault)
            root, signed = self.fold.finish(self.manifest.end.size), self.manifest.end.root
            self.facts[14], self.proven = b64encode(root).decode(), root == signed
            if not self.proven:
                raise RefusedError(f"the records lead to {self.facts[14]}, and {b64encode(signed).decode()} is signed")
        except RefusedError as error:
            self._found(14, "root", str(error))

    def _judge_history(self, kept: Iterable[tuple[int, Checkpoint]]) -> None:
        """SPEC 11 (17, 18). What roots say is asked only where the fold gave the signed one."""
        for step, checkpoint in kept:
            size, root = checkpoint.size, self.fold.roots.get(checkpoint.size)
            self.facts[step] = f"size {size:,}"
            if size > self.manifest.end.size:
                self._found(step, "rollback", f"size {size:,} is known, and this bundle ends before it")
                continue
            if self._keys and not self._is_of_ledger(checkpoint):
                self._found(
                    step, "fork", "the checkpoint is not of this origin, signed by the key in force at its size"
                )
            if self.proven and root is None:
                self._found(step, "reach", f"this bundle does not tell the root at size {size:,}")
            elif self.proven and root != checkpoint.root:
                self._found(step, "fork", f"at size {size:,} this history has another root")

    def _judge_vouchers(self) -> None:
        """SPEC 11 (15, 16, 19, 20)."""
        if self._keys:
            public = self._keys["evidence"][-1][1]
            self.facts[15] = f"by the evidence key {b64encode(public).decode()}"
            if not is_seal(self._sealed, self._raw, public):
                self._found(15, "seal", "it is not of the form, this manifest and the evidence key in force")
        if self.manifest.absent:
            self.facts[16] = self.prune
            if not self.prune:
                self._found(16, "prune", "no prune in the bundle says that these positions are absent")
        for fault in self.policy.faults(self.manifest.end):
            self._found(19, "witness", fault)
        self.facts[19] = f"quorum {(self.policy.quorum or b'').decode('utf-8', 'replace')}"
        self.facts[20] = f"{len(self.tokens)} told of, not judged"
