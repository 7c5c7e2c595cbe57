"""What a verifier is asked: to judge a bundle, two bundles, a record, a checkpoint or a proof (SPEC 11)."""

from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import merge
from pathlib import Path
from typing import Any, Final

from tallystick_verify import forms
from tallystick_verify.bundle import Finding, Verification
from tallystick_verify.canonical import RefusedError
from tallystick_verify.notes import NOTE_BYTES_MAX, Policy, decimal, parse_checkpoint
from tallystick_verify.tree import leaf_hash, root_of_path

PROOF_BYTES_MAX: Final = 2 * NOTE_BYTES_MAX
STEPS: Final = (
    *("bundle", "manifest", "genesis", "events", "not-canonical", "misplaced, missing", "chain", "time"),
    *("signature, epoch", "entity-version", "epoch, commitment", "key-rotation", "checkpoint", "root", "seal"),
    *("prune", "fork", "rollback, fork, reach", "witness", "timestamps"),
)


class TwoOriginsError(ValueError):
    """Bundles of two origins cannot be held together."""


class Report:
    """What came out: `steps` as (number, what it asks, outcome, fact), `findings` in their order, `holds`."""

    def __init__(self, verification: Verification) -> None:
        self.verification, self.findings = verification, sorted(verification.findings, key=lambda found: found.step)
        self.dropped, self.holds = verification.total - len(self.findings), not verification.total
        self.steps = [(n, name, *self._outcome(n)) for n, name in enumerate(STEPS, 1)]

    def _outcome(self, step: int) -> tuple[str, str]:
        fact = self.verification.facts.get(step)
        return "FINDING" if step in self.verification.failed else "not taken" if fact is None else "ok", fact or ""

    def as_json(self) -> dict[str, Any]:
        steps = [dict(zip(("step", "asks", "outcome", "fact"), step, strict=True)) for step in self.steps]
        findings = [finding._asdict() for finding in self.findings]
        return {"dropped": self.dropped, "findings": findings, "holds": self.holds, "steps": steps}

    def verdict(self) -> str:
        """What it proves that the bundle holds."""
        it, pruned = self.verification.manifest, f" but for {self.verification.prune}" * bool(self.verification.prune)
        whole = f"COMPLETE: every record of [{it.first}, {it.stop}) is there{pruned}, as it was sealed."
        part = "FILTERED: each record here is in the ledger, as it was sealed. Of what is not here, this says nothing."
        return f"HOLDS, {whole if it.complete else part} Timestamps are told of, and not judged."

    def timestamps(self) -> tuple[bytes, list[bytes]]:
        """The bytes of the checkpoint, and the tokens over them."""
        if not hasattr(self.verification, "manifest"):
            return b"", []
        said = self.verification.manifest.said
        return said["end"]["checkpoint"].encode(), [forms.from_base64(one["token"]) for one in said["timestamps"]]


def verify_bundle(path: Path | str, *, trust: bytes, known: bytes | None = None, now: datetime | None = None) -> Report:
    """SPEC 11. Raises RefusedError if the trust file is none; whatever the bundle is, it is judged."""
    verification = Verification(Path(path), Policy(trust), known, now or datetime.now(UTC))
    if verification.open():
        verification.run()
    return Report(verification)


def verify_pair(
    paths: tuple[Path, Path], *, trust: bytes, known: bytes | None = None, now: datetime | None = None
) -> tuple[Report, Report, list[Finding]]:
    """Two bundles, each by itself and then held together. Raises RefusedError as above, and TwoOriginsError."""
    one, two = (Verification(path, Policy(trust), known, now or datetime.now(UTC)) for path in paths)
    both = [verification.open() for verification in (one, two)]
    if all(both) and one.manifest.origin != two.manifest.origin:
        raise TwoOriginsError(f"{one.manifest.origin.decode()} and {two.manifest.origin.decode()} are two origins")
    for verification, other, goes_on in ((one, two, both[0]), (two, one, both[1])):
        if goes_on:
            verification.run([other.manifest.end.size] if all(both) else [])
    findings = [Finding(0, "fork", seen) for seen in _forks(one, two)] if all(both) else []
    return Report(one), Report(two), findings


def _forks(one: Verification, two: Verification) -> Iterator[str]:
    if one.manifest.said["ledger"]["id"] != two.manifest.said["ledger"]["id"]:
        yield "they are of one origin and two ledgers"
    ends = one.manifest.end, two.manifest.end
    if ends[0].size == ends[1].size and ends[0].root != ends[1].root:
        yield f"their checkpoints of size {ends[0].size:,} have two roots"
    for fold, proven, end in ((one.fold, one.proven, ends[1]), (two.fold, two.proven, ends[0])):
        if proven and ends[0].size != ends[1].size and fold.roots.get(end.size, end.root) != end.root:
            yield f"one passes size {end.size:,} with another root than the checkpoint of the other"
    position, digest, forks = -1, b"", 0
    for place, leaf in merge(_placed(one), _placed(two)):
        forks += place == position and leaf != digest
        position, digest = place, leaf
    if forks:
        yield f"{forks:,} positions have two different records"


def _placed(verification: Verification) -> Iterator[tuple[int, bytes]]:
    """Position and leaf hash of each record of a bundle that is in its place, read once more."""
    yield from verification.placed()


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
    findings = [Finding(19, "witness", fault) for fault in policy.faults(checkpoint)]
    if not any(log.name == checkpoint.origin and checkpoint.is_signed_by(log.public) for log in policy.logs):
        findings.insert(
            0, Finding(13, "checkpoint", "it is not signed by a key that the trust file has for its origin")
        )
    return findings


def judge_proof(proof: bytes, record: bytes, trust: bytes) -> list[Finding]:
    """A single proof: *not-canonical*, *checkpoint*, *witness*, *misplaced* and *root*, as the end of SPEC 11 says."""
    head, _, note = proof.partition(b"\n\n")
    title, *rows = head.split(b"\n")
    if rows and rows[0].startswith(b"extra ") and (forms.from_base64(rows[0][6:]) or rows[0] == b"extra "):
        rows = rows[1:]
    findings = judge_record(record) + judge_checkpoint(note, trust)
    try:
        if len(proof) > PROOF_BYTES_MAX or title != b"c2sp.org/tlog-proof@v1" or rows[0][:6] != b"index ":
            raise RefusedError("it is not a proof, or one that is too long")
        index, path = decimal(rows[0][6:]), [forms.from_base64(row) for row in rows[1:]]
        checkpoint = parse_checkpoint(note)
        if any(len(sibling) != 32 for sibling in path):
            raise RefusedError("its path has something else than hashes")
    except (RefusedError, IndexError) as error:
        return [*findings, Finding(13, "checkpoint", str(error))]
    if judge_record(record):
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
