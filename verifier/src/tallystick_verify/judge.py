"""What a verifier is asked: to judge a bundle, two bundles, a record, a checkpoint or a proof (SPEC 11)."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import merge
from pathlib import Path
from typing import Any, Final

from tallystick_verify import forms
from tallystick_verify.bundle import Verification
from tallystick_verify.canonical import RefusedError, need
from tallystick_verify.findings import Finding, Findings, counted
from tallystick_verify.notes import NOTE_BYTES_MAX, Policy, decimal, parse_checkpoint
from tallystick_verify.tree import leaf_hash, root_of_path

PROOF_BYTES_MAX: Final = 2 * NOTE_BYTES_MAX
_PROOF: Final = re.compile(rb"c2sp\.org/tlog-proof@v1\n(?:extra (.*)\n)?index (.+)\n((?:.{44}\n)*)\n([^\0]*)")
STEPS: Final = (
    "three files, and nothing else",
    "a manifest of exactly the form",
    "a genesis that is signed, and of this ledger",
    "the bytes that the manifest tells of",
    "each line a record, in its one spelling",
    "in their places, none missing",
    "each names the hash of the one before",
    "times never go back",
    "sealed by the keys of their epochs",
    "the versions of each entity in order",
    "epochs are whole, their keys committed to",
    "changes of keys, signed by both keys",
    "a checkpoint by a key that you trust",
    "the records lead to the signed root",
    "the manifest is sealed by the ledger",
    "what is absent was lawfully pruned",
    "goes on from the checkpoint it names",
    "goes on from the checkpoint you know",
    "as many witnesses as you ask for",
    "timestamps, told of and not judged",
)


class Report:
    """What came out for a bundle: `steps` as (number, what it asks, outcome, fact), `findings` in order, the verdict."""

    def __init__(self, it: Verification) -> None:
        self.findings, self.holds = sorted(it.findings, key=lambda finding: finding.step), not it.total
        self.dropped, self.verdict = it.total - len(self.findings), _verdict(it)
        self.steps = [(number, asks, *it.outcome(number)) for number, asks in enumerate(STEPS, 1)]

    def as_json(self) -> dict[str, Any]:
        steps = [dict(zip(("step", "asks", "outcome", "fact"), step, strict=True)) for step in self.steps]
        findings = [finding._asdict() for finding in self.findings]
        return {"dropped": self.dropped, "findings": findings, "holds": self.holds, "steps": steps}


def _verdict(it: Verification) -> str:
    if it.total:
        return f"FAIL: {counted(it.total, 'finding')}. What they touch cannot be relied upon."
    bundle = it.manifest
    pruned = f" but for {it.prune}" if it.prune else ""
    proves = "FILTERED. Each record here is in the ledger, as it was sealed; of what is not here, this says nothing."
    if bundle.complete:
        proves = f"COMPLETE. Every record of [{bundle.first:,}, {bundle.stop:,}) is there{pruned}, as it was sealed."
    return f"PASS, {proves}" + " Timestamps are told of, and not judged." * (20 in it.told)


def verify_bundle(path: Path | str, *, trust: bytes, known: bytes | None = None, now: datetime | None = None) -> Report:
    """SPEC 11. Raises RefusedError if the trust file is none; whatever the bundle is, it is judged."""
    verification = Verification(Path(path), Policy(trust), known, now or datetime.now(UTC))
    if verification.open():
        verification.run()
    return Report(verification)


def verify_pair(
    paths: tuple[Path, Path], *, trust: bytes, known: bytes | None = None, now: datetime | None = None
) -> tuple[Report, Report, list[Finding]]:
    """Two bundles, each by itself and then held together. Raises RefusedError also if they are of two origins."""
    one, two = (Verification(path, Policy(trust), known, now or datetime.now(UTC)) for path in paths)
    opened = [it for it in (one, two) if it.open()]
    origins = [it.manifest.origin for it in opened]
    need(len(set(origins)) < 2, f"bundles of two origins cannot be held together: {origins}")
    for it in opened:
        it.run(other.manifest.end.size for other in opened)
    forks = [Finding(0, "fork", seen) for seen in _forks(one, two)] if len(opened) == 2 else []
    return Report(one), Report(two), forks


def _forks(one: Verification, two: Verification) -> Iterator[str]:
    if one.manifest.said["ledger"]["id"] != two.manifest.said["ledger"]["id"]:
        yield "they are of one origin and two ledgers"
    ends = one.manifest.end, two.manifest.end
    if ends[0].size == ends[1].size and ends[0].root != ends[1].root:
        yield f"their checkpoints of size {ends[0].size:,} have two roots"
    for it, end in ((one, ends[1]), (two, ends[0])):
        if it.proven and end.size != it.manifest.end.size and it.fold.roots.get(end.size, end.root) != end.root:
            yield f"one passes size {end.size:,} with another root than the checkpoint of the other"
    position, digest, forks = -1, b"", 0
    for place, leaf in merge(one.placed(), two.placed()):
        forks += place == position and leaf != digest
        position, digest = place, leaf
    if forks:
        yield f"two different records at {counted(forks, 'position')}"


def judge_record(line: bytes) -> list[Finding]:
    """Whether bytes are a record: *not-canonical*."""
    it = Findings()
    with it.step(5, "not-canonical"):
        forms.record(line)
    return it.findings


def judge_checkpoint(note: bytes, trust: bytes) -> list[Finding]:
    """*checkpoint*: signed by the key of a `log` line that bears its origin. *witness*: as in 19."""
    it, policy = Findings(), Policy(trust)
    with it.step(13, "checkpoint"):
        checkpoint = parse_checkpoint(note)
        is_signed = any(log.name == checkpoint.origin and checkpoint.is_signed_by(log.public) for log in policy.logs)
        it.check(13, "checkpoint", is_signed, "it is not signed by a key that the trust file has for its origin")
        policy.judge(checkpoint, it)
    return it.findings


def judge_proof(proof: bytes, record: bytes, trust: bytes) -> list[Finding]:
    """A single proof: *not-canonical*, *checkpoint*, *witness*, *misplaced* and *root*, as the end of SPEC 11 says."""
    it, unusable, match = Findings(), judge_record(record), _PROOF.fullmatch(proof[: PROOF_BYTES_MAX + 1])
    extra, digits, rows, note = match.groups() if match else (b"", b"", b"", b"")
    with it.step(13, "checkpoint"):
        need(match is not None and len(proof) <= PROOF_BYTES_MAX, "it is not a proof, or one that is too long")
        need(not extra or forms.from_base64(extra) != b"", "its extra data is not base64")
        index, path = decimal(digits), [forms.from_base64(row) for row in rows.split()]
        need(all(len(sibling) == 32 for sibling in path), "its path has something else than hashes")
        checkpoint = parse_checkpoint(note)
        if not unusable:
            position, leaf = forms.record(record)["position"], leaf_hash(record)
            it.check(6, "misplaced", position == index, f"the record is of {position}, and the proof of {index}")
            with it.step(14, "root"):
                need(root_of_path(leaf, index, checkpoint.size, path) == checkpoint.root, "it leads to another root")
    return [*unusable, *judge_checkpoint(note, trust), *it.findings]
