"""Verifying an evidence bundle: every step of SPEC 11, going on past the first finding.

This is the library's own reading of SPEC. The verifier in `verifier/` and the page in it share no code with it, and are
judged by the same vectors. An auditor uses those; this one is for whoever exports, before handing over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final

from tallystick.clock import Clock, wall_clock
from tallystick.core.checkpoint import Checkpoint, open_checkpoint
from tallystick.core.fold import Fold, replaying
from tallystick.core.keys import commitment
from tallystick.core.manifest import Manifest
from tallystick.core.matcher import Match
from tallystick.core.note import Note, VerifierKey
from tallystick.core.policy import Policy
from tallystick.core.pruned import Absent, RecordsPruned
from tallystick.core.record import KEY_ROTATED, Record
from tallystick.core.sshsig import BUNDLE_NAMESPACE, open_signature
from tallystick.core.system import EpochClosed, Genesis, KeyRotated, Purpose
from tallystick.errors import RejectedError, TamperError
from tallystick.evidence.bundle.files import Bundle, open_bundle
from tallystick.evidence.bundle.lines import Lines
from tallystick.evidence.bundle.report import BundleFinding, BundleReport
from tallystick.evidence.findings import Kind
from tallystick.evidence.verification.clock import Edges, warning_of
from tallystick.read.index import Progress

FINDINGS_MAX: Final = 1_000
"""Findings that are kept one by one; further ones are counted."""

_EXCESS_BYTES: Final = 1 << 20
"""What is looked at past the length that the manifest says, so that findings are told at their lines."""

_PROGRESS_LINES: Final = 4_096


def verify_bundle(
    path: str | os.PathLike[str],
    *,
    trust: bytes,
    known: bytes | None = None,
    clock: Clock = wall_clock,
    progress: Progress | None = None,
) -> BundleReport:
    """Verify the bundle in a folder or a zip. Needs no ledger.

    `trust` is a trust file (C2SP tlog-policy) and `known` a checkpoint, both from elsewhere. Raises `NotFoundError`
    when there is nothing at the path, `RejectedError` for a trust file or a known checkpoint that is none.
    """
    policy = Policy.parse(trust)
    if known is not None:
        Checkpoint.of_note(known)
    check = _Check(policy, known=known, now=clock())
    try:
        with open_bundle(path) as bundle:
            check.run(bundle, progress)
    except RejectedError as error:
        check.forget()
        check.find(Kind.BUNDLE, str(error))
    return check.report()


class _Check:
    """One verification. Numbers are the steps of SPEC 11."""

    def __init__(self, policy: Policy, *, known: bytes | None, now: int) -> None:
        self._policy: Final = policy
        self._known: Final = known
        self._edges: Final = Edges.at(now)
        self._warnings: Final[list[str]] = []
        self._findings: Final[list[BundleFinding]] = []
        self._more = 0
        self._manifest: Manifest | None = None
        self._manifest_sha256: bytes | None = None
        self._pruned: list[str] = []
        self._cosigned: dict[str, int] = {}
        self._matches: tuple[Match, ...] = ()
        self._is_as_told = True
        self._keys: dict[Purpose, list[tuple[int, bytes]]] = {"checkpoint": [], "evidence": []}

    def find(self, kind: Kind, seen: str, line: int | None = None, position: int | None = None) -> None:
        """Take a finding."""
        self._is_as_told = self._is_as_told and kind is not Kind.EVENTS
        if len(self._findings) < FINDINGS_MAX:
            self._findings.append(BundleFinding(kind, seen, line, position))
        else:
            self._more += 1

    def forget(self) -> None:
        """Drop what was found: reading failed on the way, and nothing that it was about is a bundle (SPEC 11 (1))."""
        self._findings.clear()
        self._more, self._matches = 0, ()

    def report(self) -> BundleReport:
        return BundleReport(
            findings=tuple(self._findings),
            more=self._more,
            manifest=self._manifest,
            manifest_sha256=self._manifest_sha256,
            pruned=tuple(self._pruned),
            matches=self._matches,
            cosigned=self._cosigned,
            warnings=tuple(self._warnings),
        )

    def run(self, bundle: Bundle, progress: Progress | None) -> None:
        self._manifest_sha256 = sha256(bundle.manifest).digest()
        try:
            manifest = self._manifest = Manifest.parse(bundle.manifest)
        except RejectedError as error:
            self.find(Kind.MANIFEST, str(error))
            return
        genesis = self._check_genesis(manifest)
        known_size = None if self._known is None else Checkpoint.of_note(self._known).size
        hashes = iter(manifest.hashes)
        fold = Fold(
            cuts=manifest.cuts,
            node=replaying(hashes, lambda: TamperError("there are fewer hashes than the tree needs")),
            sizes=[size for size in (manifest.start_size, known_size) if size is not None],
        )
        lines = Lines(manifest, fold=fold, find=self.find)
        self._read(bundle, manifest, lines, progress)
        if manifest.created > self._edges.found:
            self.find(Kind.CLOCK, f"it was made at {manifest.created}, more than a day ahead of this machine's clock")
        elif manifest.created > self._edges.told:
            self._warnings.append(warning_of(manifest.created))
        self._warnings.extend(lines.times.told)
        self._check_epochs(manifest, lines)
        own = sorted(lines.own, key=lambda record: record.position)
        if genesis is not None:
            self._follow_keys(genesis, own)
        end = self._check_end(manifest) if genesis is not None else None
        folded = self._check_root(manifest, lines, end, hashes)
        if genesis is not None:
            self._check_seal(bundle, manifest)
        self._check_absent(manifest, own)
        self._check_start(manifest, fold, folded=folded)
        if self._known is not None:
            self._check_known(manifest, self._known, fold, folded=folded)
        self._check_witnesses(manifest)
        self._matches = lines.select(is_as_told=self._is_as_told)

    def _check_genesis(self, manifest: Manifest) -> Genesis | None:
        """(3)"""
        try:
            record = Record.parse(manifest.genesis)
            genesis = Genesis.of(record)
        except RejectedError as error:
            self.find(Kind.GENESIS, f"the genesis cannot be read: {error}")
            return None
        if not genesis.signature_holds(record):
            self.find(Kind.GENESIS, "the genesis is not signed by the root key that it names")
        if (genesis.ledger, genesis.origin, record.hash) != (manifest.ledger, manifest.origin, manifest.ledger_id):
            self.find(Kind.GENESIS, "the genesis is not that of the ledger in the manifest")
        self._keys = {"checkpoint": [(0, genesis.checkpoint_key)], "evidence": [(0, genesis.evidence_key)]}
        return genesis

    def _read(self, bundle: Bundle, manifest: Manifest, lines: Lines, progress: Progress | None) -> None:
        """(4) and, in `lines`, (5) to (10). Of a line that is too long only its beginning is judged."""
        hasher, count, size, last = sha256(), 0, 0, b"\n"
        for raw in bundle.lines(manifest.events_bytes + _EXCESS_BYTES):
            size += len(raw)
            hasher.update(raw)
            if last.endswith(b"\n"):
                count += 1
                if count <= manifest.count:
                    lines.take(raw, count)
            last = raw
            if progress and not count % _PROGRESS_LINES:
                progress(count, manifest.count)
        if (size, hasher.digest()) != (manifest.events_bytes, manifest.events_sha256):
            self.find(
                Kind.EVENTS, f"it has not the {manifest.events_bytes} bytes, and the hash, that the manifest says"
            )
        if count != manifest.count:
            self.find(Kind.EVENTS, f"it has not {manifest.count} lines")
        if not last.endswith(b"\n"):
            self.find(Kind.EVENTS, "the last line does not end in a newline")

    def _check_epochs(self, manifest: Manifest, lines: Lines) -> None:
        """(11)"""
        before: tuple[int, int, int] | None = None
        for number, (epoch, key) in enumerate(manifest.mac_keys):
            openings, closes = lines.epochs.opened.get(epoch, []), lines.epochs.closed.get(epoch, [])
            if any(committed != commitment(key) for _, committed in openings):
                self.find(Kind.COMMITMENT, f"the key of epoch {epoch} is not the one that its opening commits to")
            if manifest.is_complete and number and manifest.mac_keys[number - 1][0] + 1 != epoch:
                self.find(Kind.EPOCH, f"epoch {epoch} is not the one after epoch {manifest.mac_keys[number - 1][0]}")
            if len(openings) != 1 or len(closes) != 1:
                self.find(Kind.EPOCH, f"epoch {epoch} has {len(openings)} openings and {len(closes)} closes")
                continue
            (opened_at, _), (closed_at, close) = openings[0], closes[0]
            if close != EpochClosed(epoch, opened_at, closed_at).payload():
                self.find(Kind.EPOCH, f"the close of epoch {epoch} does not say from where to where it went")
            if before is not None and before[0] == number - 1:
                is_next, at = before[1] + 1 == epoch, before[2]
                if (at + 1 != opened_at) if is_next else (at >= opened_at):
                    self.find(Kind.EPOCH, f"epoch {epoch} at {opened_at} does not follow epoch {before[1]}, to {at}")
            before = (number, epoch, closed_at)

    def _follow_keys(self, genesis: Genesis, own: Iterable[Record]) -> None:
        """(12)"""
        for record in own:
            if record.event_type != KEY_ROTATED:
                continue
            try:
                rotated = KeyRotated.of(record)
            except RejectedError as error:
                self.find(Kind.KEY_ROTATION, str(error), position=record.position)
                continue
            keys = self._keys[rotated.purpose]
            if keys[-1][1] != rotated.old_key or not rotated.signatures_hold() or rotated.ledger != genesis.ledger:
                seen = f"the {rotated.purpose} key was changed without both keys' leave"
                self.find(Kind.KEY_ROTATION, seen, position=record.position)
            else:
                keys.append((record.position, rotated.new_key))

    def _key_at(self, purpose: Purpose, size: int) -> bytes | None:
        return next((key for since, key in reversed(self._keys[purpose]) if since < size or not since), None)

    def _open(self, note: bytes, origin: str) -> Checkpoint:
        """A checkpoint by the key in force at its size. Raises `RejectedError` or `TamperError`."""
        key = self._key_at("checkpoint", Checkpoint.of_note(note).size)
        keys = [VerifierKey(origin, key)] if key else []
        return open_checkpoint(note, keys, origin=origin)

    def _check_end(self, manifest: Manifest) -> Checkpoint | None:
        """(13)"""
        try:
            end = self._open(manifest.checkpoint, manifest.origin)
        except (RejectedError, TamperError) as error:
            self.find(Kind.CHECKPOINT, str(error))
            end = None
        trusted = self._policy.keys_of(manifest.origin)
        if not any(key in trusted for since, key in self._keys["checkpoint"] if since < manifest.size or not since):
            self.find(Kind.CHECKPOINT, f"the trust file has no key of {manifest.origin} that vouches for it")
        return end

    def _check_root(self, manifest: Manifest, lines: Lines, end: Checkpoint | None, hashes: Any) -> bool:
        """(14) Whether the fold came out right."""
        try:
            root = lines.finish()
        except TamperError as error:
            self.find(Kind.ROOT, str(error))
            return False
        if root is None:
            return False
        named = end or Checkpoint.of_note(manifest.checkpoint)
        if root != named.root or next(hashes, None) is not None:
            self.find(Kind.ROOT, "the records and hashes do not lead to the root of the checkpoint")
            return False
        return True

    def _check_seal(self, bundle: Bundle, manifest: Manifest) -> None:
        """(15)"""
        try:
            key = open_signature(bundle.seal, bundle.manifest, namespace=BUNDLE_NAMESPACE)
        except (RejectedError, TamperError) as error:
            self.find(Kind.SEAL, str(error))
            return
        if key != self._key_at("evidence", manifest.size):
            self.find(Kind.SEAL, "it is signed by another key than this ledger's evidence key in force")

    def _check_absent(self, manifest: Manifest, own: Iterable[Record]) -> None:
        """(16)"""
        if not manifest.absent:
            return
        absent = Absent.over(manifest.absent)
        for record in own:
            try:
                pruned = RecordsPruned.of(record)
            except RejectedError:
                continue  # another event; or one that says nothing that counts
            in_place = manifest.absent[-1][1] <= pruned.end and pruned.policy_position < record.position
            if pruned.absent == absent and in_place and self._is_vouched(pruned, record.position, manifest.origin):
                said = f"{absent.count:,} records below {pruned.end:,} were pruned, as {record.position:,} says"
                self._pruned.append(said)
                return
        self.find(Kind.PRUNE, "no prune in the bundle says that these positions are absent")

    def _is_vouched(self, pruned: RecordsPruned, position: int, origin: str) -> bool:
        """Whether this ledger signed the checkpoint of a prune, and before it. (Without a genesis nobody knows.)"""
        try:
            size = Checkpoint.of_note(pruned.checkpoint_at_prune).size
            if self._keys["checkpoint"]:
                self._open(pruned.checkpoint_at_prune, origin)
        except (RejectedError, TamperError):
            return False
        return pruned.end <= size <= position

    def _check_start(self, manifest: Manifest, fold: Fold, *, folded: bool) -> None:
        """(17)"""
        if manifest.start_checkpoint is not None:
            self._hold(manifest, manifest.start_checkpoint, fold, folded=folded)

    def _check_known(self, manifest: Manifest, known: bytes, fold: Fold, *, folded: bool) -> None:
        """(18)"""
        size = Checkpoint.of_note(known).size
        if size > manifest.size:
            self.find(Kind.ROLLBACK, f"a checkpoint of {size} records is known, and this one is of {manifest.size}")
            return
        self._hold(manifest, known, fold, folded=folded)
        if folded and not _passes(fold, size, manifest):
            self.find(Kind.REACH, f"the bundle does not tell the root of the first {size} records")

    def _hold(self, manifest: Manifest, note: bytes, fold: Fold, *, folded: bool) -> None:
        """Whether a checkpoint is this ledger's, if there are keys, and its root that of the fold where it is told."""
        held = Checkpoint.of_note(note)
        try:
            if self._keys["checkpoint"]:
                self._open(note, manifest.origin)
        except (RejectedError, TamperError) as error:
            self.find(Kind.FORK, f"the held checkpoint is not of this ledger: {error}")
        if folded and _passes(fold, held.size, manifest) and _root_at(fold, held.size, manifest) != held.root:
            self.find(Kind.FORK, f"the first {held.size} records are not the ones of the held checkpoint")

    def _check_witnesses(self, manifest: Manifest) -> None:
        """(19)"""
        try:
            self._cosigned = self._policy.cosigned(Note.parse(manifest.checkpoint))
        except TamperError as error:
            self.find(Kind.WITNESS, str(error))
            return
        if not self._policy.is_satisfied(self._cosigned):
            who = ", ".join(sorted(self._cosigned)) or "none"
            self.find(Kind.WITNESS, f"the quorum of the trust file is not met: {who} cosigned")


def _passes(fold: Fold, size: int, manifest: Manifest) -> bool:
    return size == manifest.size or size in fold.roots


def _root_at(fold: Fold, size: int, manifest: Manifest) -> bytes:
    if size == manifest.size:
        return Checkpoint.of_note(manifest.checkpoint).root
    return fold.roots[size]
