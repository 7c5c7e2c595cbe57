"""What a verifier is asked: to judge a bundle, two bundles, a record, a checkpoint or a proof (SPEC 11)."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from heapq import merge
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Final

from tallystick_verify import forms, notes
from tallystick_verify.bundle import Verification
from tallystick_verify.canonical import need
from tallystick_verify.report import Finding, Report, counted
from tallystick_verify.tree import leaf_hash, root_of_path

PROOF_BYTES_MAX: Final = 2 * notes.NOTE_BYTES_MAX
HASHES_MAX: Final = 63
_PROOF: Final = re.compile(rb"c2sp\.org/tlog-proof@v1\n(?:extra (.*)\n)?index (.+)\n((?:.{44}\n)*)\n([^\0]*)")


def verify_bundle(path: Path | str, *, trust: bytes, known: bytes | None = None, now: datetime | None = None) -> Report:
    """SPEC 11. Raises RefusedError if the trust file is none; whatever the bundle is, it is judged."""
    return verify_bundles([Path(path)], trust, known, now)[0][0]


def verify_pair(
    paths: tuple[Path, Path], *, trust: bytes, known: bytes | None = None, now: datetime | None = None
) -> tuple[Report, Report, list[Finding]]:
    """Two bundles, each by itself and then held together. Raises RefusedError also if they are of two origins."""
    (one, two), forks = verify_bundles(paths, trust, known, now)
    return one, two, forks


def verify_bundles(
    paths: Sequence[Path], trust: bytes, known: bytes | None, now: datetime | None
) -> tuple[list[Report], list[Finding]]:
    """One bundle, or two that are then held together."""
    every = [Verification(path, notes.Policy(trust), known, now or datetime.now(UTC)) for path in paths]
    opened = [it for it in every if it.open()]
    origins = {it.manifest.origin for it in opened}
    need(len(origins) < 2, f"bundles of two origins cannot be held together: {b' and '.join(sorted(origins)).decode()}")
    for it in opened:
        it.run(other.manifest.end.size for other in opened)
    return [*every], list(dict.fromkeys(fork for one, two in pairwise(opened) for fork in _forks(one, two)))


def _forks(one: Verification, two: Verification) -> Iterator[Finding]:
    if one.manifest.said["ledger"]["id"] != two.manifest.said["ledger"]["id"]:
        yield Finding(0, "fork", "they are of one origin and two ledgers")
    for it, end in ((one, two.manifest.end), (two, one.manifest.end)):
        passed = (it.fold.roots if it.proven else {}) | {it.manifest.end.size: it.manifest.end.root}
        if passed.get(end.size, end.root) != end.root:
            yield Finding(0, "fork", f"at size {end.size:,} one has another root than the checkpoint of the other")
    position, digest, forks = -1, b"", 0
    for place, leaf in merge(one.placed(), two.placed(), key=itemgetter(0)):
        if place == position and leaf != digest:
            forks += 1
            if forks == 1:
                seen = f"two different records, with the leaf hashes {digest.hex()} and {leaf.hex()}"
                yield Finding(0, "fork", seen, position=place)
        position, digest = place, leaf
    if forks > 1:
        yield Finding(0, "fork", f"two different records at {counted(forks, 'position')}")


def judge_record(line: bytes) -> list[Finding]:
    """Whether bytes are a record: *not-canonical*."""
    it = Report()
    with it.step(5, "not-canonical"):
        forms.record(line)
    return it.findings


def judge_checkpoint(note: bytes, trust: bytes) -> list[Finding]:
    """*checkpoint*: signed by the key of a `log` line that bears its origin. *witness*: as in 19."""
    it, policy = Report(), notes.Policy(trust)
    with it.step(13, "checkpoint"):
        _signers(notes.parse_checkpoint(note), policy, it)
    return it.findings


def _signers(checkpoint: notes.Checkpoint, policy: notes.Policy, it: Report) -> None:
    ours = [log.public for log in policy.logs if log.name == checkpoint.origin and checkpoint.signatures_by(log)]
    is_signed = bool(ours) and all(map(checkpoint.is_signed_by, ours))
    it.check(13, "checkpoint", is_signed, "it is not signed by a key that the trust file has for its origin")
    policy.judge(checkpoint, it)


def judge_proof(proof: bytes, record: bytes, trust: bytes) -> list[Finding]:
    """A single proof: *not-canonical*, *checkpoint*, *witness*, *misplaced* and *root*, as the end of SPEC 11 says."""
    it, unusable, policy = Report(), judge_record(record), notes.Policy(trust)
    match = _PROOF.fullmatch(proof) if len(proof) <= PROOF_BYTES_MAX else None
    with it.step(13, "checkpoint"):
        extra, digits, rows, note = match.groups() if match else (None, b"", b"", b"")
        need(match is not None, "it is not a proof, or one that is too long")
        need(extra is None or forms.from_base64(extra) != b"", "its extra data is not base64, or none")
        index, path = notes.decimal(digits), [forms.from_base64(row) for row in rows.split()]
        need(index < notes.SIZE_MAX and len(path) <= HASHES_MAX, "no tree has such a path")
        need(all(len(sibling) == 32 for sibling in path), "its path has something else than hashes")
        checkpoint = notes.parse_checkpoint(note)
        _signers(checkpoint, policy, it)
        if not unusable:
            position, leaf = forms.record(record)["position"], leaf_hash(record)
            it.check(6, "misplaced", position == index, f"the record is of {position}, and the proof of {index}")
            with it.step(14, "root"):
                need(root_of_path(leaf, index, checkpoint.size, path) == checkpoint.root, "it leads to another root")
    return [*unusable, *it.findings]
