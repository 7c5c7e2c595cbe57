"""What a verifier is asked: to judge a bundle, two bundles, a record, a checkpoint or a proof (SPEC 11)."""

from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import merge
from pathlib import Path
from typing import Final

from tallystick_verify import forms
from tallystick_verify.bundle import Finding, Report
from tallystick_verify.canonical import RefusedError
from tallystick_verify.notes import NOTE_BYTES_MAX, Policy, decimal, parse_checkpoint
from tallystick_verify.tree import leaf_hash, root_of_path

PROOF_BYTES_MAX: Final = 2 * NOTE_BYTES_MAX
_UNTRUSTED: Final = Finding(13, "checkpoint", "it is not signed by a key that the trust file has for its origin")


class TwoOriginsError(ValueError):
    """Bundles of two origins cannot be held together."""


def verify_bundle(path: Path | str, *, trust: bytes, known: bytes | None = None, now: datetime | None = None) -> Report:
    """SPEC 11. Raises RefusedError if the trust file is none; whatever the bundle is, it is judged."""
    report = Report(Path(path), Policy(trust), known, now or datetime.now(UTC))
    if report.open():
        report.run()
    return report


def verify_pair(
    paths: tuple[Path, Path], *, trust: bytes, known: bytes | None = None, now: datetime | None = None
) -> tuple[Report, Report, list[Finding]]:
    """Two bundles, each by itself and then held together. Raises RefusedError as above, and TwoOriginsError."""
    one, two = (Report(path, Policy(trust), known, now or datetime.now(UTC)) for path in paths)
    opened = [report for report in (one, two) if report.open()]
    if len(opened) == 2 and one.manifest.origin != two.manifest.origin:
        raise TwoOriginsError(f"{one.manifest.origin.decode()} and {two.manifest.origin.decode()} are two origins")
    for report in opened:
        report.run([other.manifest.end.size for other in opened])
    return one, two, [Finding(0, "fork", seen) for seen in _forks(one, two)] if len(opened) == 2 else []


def _forks(one: Report, two: Report) -> Iterator[str]:
    if one.manifest.said["ledger"]["id"] != two.manifest.said["ledger"]["id"]:
        yield "they are of one origin and two ledgers"
    ends = one.manifest.end, two.manifest.end
    if ends[0].size == ends[1].size and ends[0].root != ends[1].root:
        yield f"their checkpoints of size {ends[0].size:,} have two roots"
    for report, end in ((one, ends[1]), (two, ends[0])):
        if ends[0].size != ends[1].size and report.proven and report.fold.roots.get(end.size, end.root) != end.root:
            yield f"one passes size {end.size:,} with another root than the checkpoint of the other"
    position, digest, forks = -1, b"", 0
    for place, leaf in merge(one.placed(), two.placed()):
        forks += place == position and leaf != digest
        position, digest = place, leaf
    if forks:
        yield f"{forks:,} positions have two different records"


def judge_record(line: bytes) -> list[Finding]:
    """Whether bytes are a record: *not-canonical*."""
    try:
        forms.record(line)
    except RefusedError as error:
        return [Finding(5, "not-canonical", str(error))]
    return []


def judge_checkpoint(note: bytes, trust: bytes) -> list[Finding]:
    """*checkpoint*: signed by the key of a `log` line that bears its origin. *witness*: as in 19."""
    policy = Policy(trust)
    try:
        checkpoint = parse_checkpoint(note)
    except RefusedError as error:
        return [Finding(13, "checkpoint", str(error))]
    trusted = any(log.name == checkpoint.origin and checkpoint.is_signed_by(log.public) for log in policy.logs)
    return [_UNTRUSTED] * (not trusted) + [Finding(19, "witness", fault) for fault in policy.faults(checkpoint)]


def judge_proof(proof: bytes, record: bytes, trust: bytes) -> list[Finding]:
    """A single proof: *not-canonical*, *checkpoint*, *witness*, *misplaced* and *root*, as the end of SPEC 11 says."""
    head, _, note = proof.partition(b"\n\n")
    title, *rows = [*head.split(b"\n"), b""]
    if rows[0] == b"extra " or (rows[0].startswith(b"extra ") and forms.from_base64(rows[0][6:])):
        rows = rows[1:]
    not_canonical = judge_record(record)
    findings = not_canonical + judge_checkpoint(note, trust)
    try:
        path = [forms.from_base64(row) for row in rows[1:-1]]
        if len(proof) > PROOF_BYTES_MAX or title != b"c2sp.org/tlog-proof@v1" or rows[0][:6] != b"index ":
            raise RefusedError("it is not a proof, or one that is too long")
        index, checkpoint = decimal(rows[0][6:]), parse_checkpoint(note)
        if any(len(sibling) != 32 for sibling in path):
            raise RefusedError("its path has something else than hashes")
    except RefusedError as error:
        return [*findings, Finding(13, "checkpoint", str(error))]
    if not_canonical:
        return findings
    position = forms.record(record)["position"]
    if position != index:
        findings.append(Finding(6, "misplaced", f"the record is of position {position}, and the proof of {index}"))
    try:
        if root_of_path(leaf_hash(record), index, checkpoint.size, path) != checkpoint.root:
            raise RefusedError("the path leads to another root")
    except RefusedError as error:
        findings.append(Finding(14, "root", str(error)))
    return findings
