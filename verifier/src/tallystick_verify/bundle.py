"""A bundle verified by the numbered steps of SPEC 11, in one pass over its records, which are never held together.

A step that fails does not end the others, but for the first two: without files or a manifest there is nothing to go on.
"""

import hmac
from base64 import b64encode
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import blake2b, sha256
from heapq import merge
from itertools import pairwise
from pathlib import Path
from typing import Final

from tallystick_verify import forms, notes
from tallystick_verify.canonical import INTEGER_MAX, RefusedError, need, write
from tallystick_verify.ed25519 import verifies
from tallystick_verify.forms import Record, from_base64
from tallystick_verify.manifest import Manifest
from tallystick_verify.package import EVENTS, MANIFEST, SEAL, Package
from tallystick_verify.report import NOWHERE, Match, Report, counted
from tallystick_verify.times import Times
from tallystick_verify.tree import Fold, leaf_hash

ENTITIES_MAX: Final = 1_000_000
SLACK_BYTES: Final = 2**20
OPENED, CLOSED = "tallystick.epoch.opened", "tallystick.epoch.closed"
ENDS: Final = {OPENED: forms.is_opening, CLOSED: forms.is_close}


class Verification(Report):
    """One bundle on its way through the steps: `open` takes the first two, `run` the others."""

    def __init__(self, path: Path, policy: notes.Policy, known: bytes | None, now: datetime) -> None:
        super().__init__()
        self.path, self.policy, self.known_note, self.now = path, policy, known, now
        self.known: notes.Checkpoint | None = None
        self.keys: dict[str, list[tuple[int, bytes]]] = {}  # by purpose: from which position on, and which
        self.ends = defaultdict[tuple[str, int], list[tuple[int, Record]]](list)  # of epochs: position and payload
        self.strays = set[int]()  # the epochs of openings that commit to another key
        self.versions, self.proven, self.prune = dict[bytes, int](), False, ""
        self.times = ("", "")  # of the first line and the last
        self.before: Record | None = None  # the line before, if nothing is wrong with it

    @property
    def is_placed(self) -> bool:
        """Whether all was read so far, and nothing found by 5 or 6: else nobody knows what stands where."""
        return self.failed.isdisjoint((1, 5, 6))

    def open(self) -> bool:
        """SPEC 11 (1, 2): whether there is a manifest to go on with."""
        with self.step(1, "bundle"):
            self.package = Package(self.path)
            self.raw, self.seal = self.package.read(MANIFEST), self.package.read(SEAL)
            with self.step(2, "manifest"):
                self.manifest = it = Manifest(self.raw)
                self.told[2] = f"{'complete' if it.complete else 'filtered'}, [{it.first:,}, {it.stop:,})"
        return not self.total

    def run(self, watched: Iterable[int] = ()) -> None:
        """SPEC 11 (3 to 21). `watched` are more sizes at which the root is wanted."""
        it = self.manifest
        if self.known_note is not None:
            with self.step(18, "fork"):
                self.known = notes.parse_checkpoint(self.known_note)
        starts, known = ([checkpoint.size] if checkpoint else [] for checkpoint in (it.start, self.known))
        self.fold = Fold(it.hashes, cuts=[it.first, it.stop, *starts], watched=[*starts, *known, *watched])
        self.lines = Times(it.records)
        self.mac_keys = {said["epoch"]: bytes.fromhex(said["key"]) for said in it.said["mac_keys"]}
        self.genesis = it.said["genesis"].encode()
        self.beside = {0: (self.genesis, {"event_type": ""}), **it.records}
        self.waiting = sorted(self.beside, reverse=True)  # the positions of those not yet among the lines
        with self.step(3, "genesis"):
            self._genesis()
        self._beside()
        self.digest, self.next = it.said["range"]["prev_hash"], it.present(it.first)
        with self.step(1, "bundle"):
            for number, line in enumerate(self._lines(), 1):
                self._line(number, line)
        self.at = NOWHERE
        if 1 in self.failed:
            return
        self._events()
        self._epochs()
        self._whole()
        self._history()
        self._selection()
        gone = counted(it.absent_below(it.stop) - it.absent_below(it.first), "record")
        pruned = f", but for {gone} that were pruned, as {self.prune} says" * bool(self.prune)
        self.proves = f"complete. Every record of [{it.first:,}, {it.stop:,}) is there, as it was sealed{pruned}."
        if it.selectors.every:
            self.proves += " Every matching record of the range is among them."
        if not it.complete:
            self.proves = (
                "filtered. Each record is in the ledger as it was sealed. Of what is not here, this says nothing."
            )
        if it.said["timestamps"]:
            self.told[21] = f"{counted(len(it.said['timestamps']), 'timestamp')}: README says how openssl checks them"
            self.proves += " Timestamps are listed, not verified."

    def placed(self) -> Iterator[tuple[int, bytes]]:
        """Position and leaf hash of every record of the bundle, read once more; none if they cannot be placed."""
        if self.is_placed:
            lines = ((forms.record(line)["position"], line) for line in self._lines())
            beside = ((position, line) for position, (line, _) in sorted(self.beside.items()))
            for position, line in merge(lines, beside):
                yield position, leaf_hash(line)

    def _genesis(self) -> None:
        """SPEC 11 (3). One that does not fit itself cannot be read, and then there are no keys."""
        name, origin, digest = self.manifest.name, self.manifest.origin, sha256(self.genesis).hexdigest()
        self.check(3, "genesis", digest == self.manifest.said["ledger"]["id"], f"`ledger.id` is not its hash, {digest}")
        record = forms.record(self.genesis)
        said, payload = [record[name] for name in ("event_type", "position", "epoch", "prev_hash")], record["payload"]
        need(said == ["tallystick.ledger.created", 0, 0, "0" * 64], f"it is not one: {said}")
        need(forms.is_own(record), "it is not by the ledger itself")
        forms.is_genesis.require(payload)
        key = notes.parse_key(payload["checkpoint_key"].encode(), notes.LOG)
        own, of = payload["ledger"], payload["origin"].encode()
        need(record["ledger"] == own and key.name == of and of.endswith(f"/{own}".encode()), "its names do not fit")
        self.keys = {"checkpoint": [(0, key.public)], "evidence": [(0, from_base64(payload["evidence_key"]))]}
        is_ours = (own, of) == (name, origin)
        self.check(3, "genesis", is_ours, f"it is of {payload['origin']}, and the manifest of {origin.decode()}")
        signed = b"tallystick/v1/genesis\0" + forms.signed_part(self.genesis, record)
        root_key, signature = from_base64(payload["root_key"]), bytes.fromhex(record["signature"])
        need(verifies(root_key, signature, signed), "its root key did not sign it")

    def _lines(self) -> Iterator[bytes]:
        """The lines without their newlines, as many as the manifest counts, and then `read` (SPEC 11 (4))."""
        said, count = self.manifest.said["events"], self.manifest.count
        digest, size, found, rest, most = sha256(), 0, 0, b"", said["bytes"] + SLACK_BYTES
        for chunk in self.package.chunks(EVENTS, most):  # as if it ended there
            size += len(chunk)
            digest.update(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines[: max(0, count - found)]
            found += len(lines)
            rest = rest[: forms.RECORD_BYTES_MAX + 1]  # a line so long is refused, however it goes on
        if rest and found < count:
            yield rest
        self.read = size, digest.hexdigest(), found + bool(rest), not rest

    def _beside(self) -> None:
        """What SPEC 11 (9, 11) ask of `records`."""
        for position, (line, record) in self.manifest.records.items():
            self._epoch_end(position, record)
            is_right = record["epoch"] not in self.mac_keys or self._is_signed(record, line)
            self.check(9, "signature", is_right, f"{position} in `records` is not signed by the key of its epoch")

    def _events(self) -> None:
        """SPEC 11 (4, 6, 8), once all lines were read."""
        it, said = self.manifest, self.manifest.said["events"]
        self.told |= dict.fromkeys(range(4, 12), "")
        size, digest, count, ends = self.read
        self.told[4] = counted(count, "record")
        is_read = self.read == (said["bytes"], said["sha256"], it.count, True)
        seen = f"{counted(count, 'line')} of {counted(size, 'byte')}, SHA-256 {digest}"
        self.check(4, "events", is_read, seen + ", no newline at the end" * (not ends))
        if it.complete:
            self.check(6, "missing", self.next >= it.stop, f"the records end before position {self.next}")
        self._records_below(it.end.size)
        if self.lines.is_late(it.created) and self.lines.last:
            self.at, time = self.lines.last
            self.found(8, "time", f"{time} is after {it.created} of the bundle")
            self.at = NOWHERE
        self.told[8] = f"made {it.created}{self.lines.told()}"
        if self._is_past(it.created, timedelta(minutes=5)):
            self.told[8] += ", ahead of this machine's clock: see whether it is right"
        seen = f"it was made at {it.created}, more than a day ahead of this machine's clock"
        self.check(8, "clock", not self._is_past(it.created, timedelta(days=1)), seen)

    def _is_past(self, time: str, more: timedelta) -> bool:
        """Whether a time is later than now and so much more."""
        return time[:-1] > (self.now + more).astimezone(UTC).isoformat(timespec="microseconds")[:26]

    def _line(self, number: int, line: bytes) -> None:
        """One line, by SPEC 11 (5 to 10)."""
        found, before, before_digest = self.faults, self.before, self.digest
        self.at, self.before, self.digest = (number, None), None, sha256(line).hexdigest()
        try:
            record = forms.record(line)
        except RefusedError as error:  # (5)
            self.found(5, "not-canonical", str(error))
            self.next = self.manifest.present(self.next + 1)
            return
        position, prev_hash, time = record["position"], record["prev_hash"], record["recorded_at"]
        self.at = (number, position)
        self.lines.last = (self.at, time)
        is_placed = self._place(position, record, line)
        follows = number == 1 or (before is not None and position == before["position"] + 1)
        if follows and prev_hash != before_digest:  # (7)
            self.found(7, "chain", f"prev_hash is {prev_hash}, and the record before has {before_digest}")
        wrong = self.lines.judge(record, before, is_placed=is_placed)  # (8)
        self.check(8, "time", not wrong, wrong)
        self._sealed(position, record, line)
        if self.is_placed:
            self._version(position, record)
        self.before = record if self.faults == found else None
        if self.is_placed:
            self.times = (self.times[0] or time, time)
            if not (self.manifest.selectors.take(record) or self.manifest.complete):
                self.found(20, "selection", "it fits no selector, and a filtered bundle has only what fits")

    def _place(self, position: int, record: Record, line: bytes) -> bool:
        """SPEC 11 (6). What is in place counts for the steps below."""
        it, total = self.manifest, self.faults
        in_place = self.next <= position < it.stop and it.present(position) == position and position not in it.records
        if record["ledger"] != it.name or not in_place:
            self.found(6, "misplaced", f"position {position} of {record['ledger']} does not belong here")
        if in_place and it.complete and position != self.next:
            self.found(6, "missing", f"the positions [{self.next}, {position})")
        if in_place:
            self.next = it.present(position + 1)
        if self.faults > total:
            return False
        self._records_below(position)
        if position == 0:  # the line itself is the leaf, and has to be the genesis (9)
            del self.beside[self.waiting.pop()]
        self._epoch_end(position, record)
        self._in_order(position, record, line)
        return True

    def _records_below(self, end: int) -> None:
        """What of `records` stands below a position, in its order among the lines."""
        while self.waiting and self.waiting[-1] < end:
            position = self.waiting.pop()
            line, record = self.beside[position]
            self._in_order(position, record, line)

    def _in_order(self, position: int, record: Record, line: bytes) -> None:
        """The records of the bundle as they come by position: leaves of 14, keys of 12, and the prune of 16."""
        self.fold.place(position, line)
        if record["event_type"] == "tallystick.key.rotated" and self.keys:
            at, self.at = self.at, (None, position)
            with self.step(12, "key-rotation"):
                need(forms.is_own(record), "it is not by the ledger itself")
                self._rotate(position, record["payload"])
            self.at = at
        if record["event_type"] == "tallystick.records.pruned" and self._prunes(position, record):
            self.prune = f"position {position:,}"

    def _rotate(self, position: int, payload: Record) -> None:
        """SPEC 11 (12). Raises RefusedError, and then nothing is changed."""
        forms.is_rotation.require(payload)
        said = {name: payload[name] for name in ("new_key", "old_key", "purpose")} | {"ledger": self.manifest.name}
        signed, keys = b"tallystick/v1/key-rotated\0" + write(said).encode(), self.keys[payload["purpose"]]
        old, new = from_base64(payload["old_key"]), from_base64(payload["new_key"])
        need(old == keys[-1][1], "the old key is not the one in force")
        need(verifies(old, from_base64(payload["old_signature"]), signed), "the old key did not sign it")
        need(verifies(new, from_base64(payload["new_signature"]), signed), "the new key did not sign it")
        keys.append((position, new))

    def _prunes(self, position: int, record: Record) -> bool:
        """SPEC 11 (16): whether a prune, whose checkpoint this ledger signed before it, says what is absent."""
        if self.manifest.is_said_by(record):
            with suppress(RefusedError):
                checkpoint = notes.parse_checkpoint(record["payload"]["checkpoint_at_prune"].encode())
                is_between = record["payload"]["end"] <= checkpoint.size <= position
                return is_between and (not self.keys or self._is_vouched(checkpoint))
        return False

    def _epoch_end(self, position: int, record: Record) -> None:
        """SPEC 5.2: an opening or a close counts for the epoch that it says and is of. The first two count."""
        kind, number, payload = record["event_type"], record["epoch"], record["payload"]
        is_end = kind in ENDS and number in self.mac_keys and forms.is_own(record)
        if is_end and ENDS[kind](payload) and payload["epoch"] == number:
            commitment = hmac.digest(self.mac_keys[number], b"tallystick/v1/epoch-key-commitment", "sha256").hex()
            if payload.get("key_commitment", commitment) != commitment:
                self.strays.add(number)
            insort(self.ends[kind, number], (position, payload))
            del self.ends[kind, number][2:]

    def _is_signed(self, record: Record, line: bytes) -> bool:
        """SPEC 3.3."""
        signed = b"tallystick/v1/event\0" + forms.signed_part(line, record)
        return bool(hmac.digest(self.mac_keys[record["epoch"]], signed, "sha256").hex() == record["signature"])

    def _sealed(self, position: int, record: Record, line: bytes) -> None:
        """SPEC 11 (9)."""
        if position == 0:
            return self.check(9, "genesis", line == self.genesis, "it is not the genesis of the manifest")
        number = record["epoch"]
        if number not in self.mac_keys:
            return self.found(9, "signature", f"there is no key of its epoch {number}")
        if not self._is_signed(record, line):
            self.found(9, "signature", f"it is not signed by the key of its epoch {number}")
        opened, closed = self.ends[OPENED, number], self.ends[CLOSED, number]
        if not opened or position < opened[0][0] or (closed and closed[0][0] < position):
            self.found(9, "epoch", f"it does not lie between the opening and the close of epoch {number}")
        return None

    def _version(self, position: int, record: Record) -> None:
        """SPEC 11 (10). Kept is, by entity, the last version, and how many positions up to it are unseen.

        Both in one integer and entities by a digest, so that a million of them take little memory.
        """
        it, version = self.manifest, record["entity_version"]
        entity = blake2b(record["entity_id"].encode(), digest_size=16).digest()
        is_first = it.complete and it.first == 0 and len(self.versions) < ENTITIES_MAX
        last = self.versions.get(entity, 0 if is_first else None)
        if last is not None:
            unseen, before = divmod(last, INTEGER_MAX + 1)
            if not 0 <= version - before - 1 <= it.unseen_below(position) - unseen:
                self.found(10, "entity-version", f"version {version} of {record['entity_id']!r} comes after {before}")
        if entity in self.versions or len(self.versions) < ENTITIES_MAX:
            self.versions[entity] = it.unseen_below(position + 1) * (INTEGER_MAX + 1) + version

    def _epochs(self) -> None:
        """SPEC 11 (11)."""
        spans: dict[int, tuple[int, int] | None] = {}
        for number in self.mac_keys:
            openings, closes = self.ends[OPENED, number], self.ends[CLOSED, number]
            self.check(
                11, "commitment", number not in self.strays, f"an opening of epoch {number} commits to another key"
            )
            is_whole = len(openings) == len(closes) == 1
            first, last = (openings[0][0], closes[0][0]) if is_whole else (0, -1)
            said = {"count": last - first + 1, "epoch": number, "first_position": first, "last_position": last}
            is_told = is_whole and closes[0][1] == said
            self.check(11, "epoch", is_told, f"epoch {number} has not one opening, and one close that tells of both")
            spans[number] = (first, last) if is_whole else None
        for (before, one), (number, two) in pairwise(spans.items()):
            is_next = number == before + 1
            fits = not one or not two or (two[0] == one[1] + 1 if is_next else two[0] > one[1])
            fits = fits and (is_next or not self.manifest.complete)
            self.check(11, "epoch", fits, f"epoch {number} at {two} does not follow on epoch {before} at {one}")

    def _whole(self) -> None:
        """SPEC 11 (12 to 16, 19): what is asked of the bundle as a whole. Without a genesis there are no keys."""
        it = self.manifest
        if self.keys:
            keys, evidence = ([key for _, key in self.keys[purpose]] for purpose in ("checkpoint", "evidence"))
            self.told.setdefault(12, "")
            is_trusted = any(log.name == it.origin and log.public in keys for log in self.policy.logs)
            self.check(13, "checkpoint", is_trusted, "the trust file has no key of this origin that vouches for it")
            is_ours, is_sealed = self._is_vouched(it.end), notes.is_seal(self.seal, self.raw, evidence[-1])
            self.check(13, "checkpoint", is_ours, "it is not by the key in force, or of another origin")
            self.told[13] = f"size {it.end.size:,}, root {b64encode(it.end.root).decode()}"
            self.check(15, "seal", is_sealed, "it is not of its form, or not of this manifest by the key in force")
        if self.is_placed:
            with self.step(14, "root"):
                root = self.fold.finish(it.end.size)
                need(root == it.end.root, f"the records lead to the root {b64encode(root).decode()}, not to the signed")
                self.proven = True
        if it.absent:
            self.check(16, "prune", bool(self.prune), "no prune in the bundle says that these positions are absent")
            self.told[16] = self.prune
        self.policy.judge(it.end, self)

    def _history(self) -> None:
        """SPEC 11 (17, 18). What roots say is asked only where the fold gave the signed one."""
        end = self.manifest.end.size
        for step, checkpoint in ((17, self.manifest.start), (18, self.known)):
            if checkpoint is None:
                continue
            size, root = checkpoint.size, self.fold.roots.get(checkpoint.size)
            self.check(step, "rollback", size <= end, f"size {size:,} is known, and the bundle ends at {end:,}")
            if size <= end and self.keys:
                is_ours = self._is_vouched(checkpoint)
                self.check(step, "fork", is_ours, "it is not by the key in force at its size, or of another origin")
            if size <= end and self.proven:
                self.check(step, "reach", root is not None, f"the bundle does not tell the root at size {size:,}")
                is_same = root in (None, checkpoint.root)
                self.check(step, "fork", is_same, f"at size {size:,} this history has another root")

    def _selection(self) -> None:
        """SPEC 11 (20). What the manifest says is asked only where the lines are those that it is of."""
        it, every = self.manifest, self.manifest.selectors.every
        self.complete = it.complete
        said = it.said["selectors"]
        for one, terms in zip(every, said, strict=True):
            self.matches.append(Match(one.name, one.count, one.positions, terms["within"], terms["any_of"]))
        for one in every if self.failed.isdisjoint((4, 5, 6)) else ():
            seen = f"{one.name!r}: {counted(one.count, 'record')} fit, and the manifest says {one.said_count:,}"
            self.check(20, "selection", one.count == one.said_count, seen)
            times = ("~", "") if self.lines.corrected else self.times
            reaches = not it.complete or one.is_covered(it.first, it.stop, times, it.end.size)
            self.check(20, "selection", reaches, f"{one.name!r}: records outside of the range may fit")
            self.told[20] = counted(len(every), "selector")

    def _is_vouched(self, checkpoint: notes.Checkpoint) -> bool:
        """Whether a checkpoint is of this origin, by the key in force at its size (SPEC 5.4)."""
        in_force = [key for position, key in self.keys["checkpoint"] if position < max(1, checkpoint.size)][-1]
        return checkpoint.origin == self.manifest.origin and checkpoint.is_signed_by(in_force)
