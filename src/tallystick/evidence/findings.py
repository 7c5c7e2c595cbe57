"""Findings: what a verification says when something does not hold (SPEC 8).

A finding has a kind, which programs act on, a place, and two sentences for people: what was seen, and what
it means. A verification goes on past the first, so the list shows the extent of the damage.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The kinds of findings. The value is the name in reports and in SPEC 8."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    CHECKSUM = "checksum"
    NOT_CANONICAL = "not-canonical"
    MISPLACED = "misplaced"
    CHAIN = "chain"
    TIME = "time"
    CLOCK = "clock"
    SIGNATURE = "signature"
    ENTITY_VERSION = "entity-version"
    DUPLICATE_ID = "duplicate-id"
    UNPUBLISHED = "unpublished"
    GENESIS = "genesis"
    EPOCH = "epoch"
    COMMITMENT = "commitment"
    KEY_ROTATION = "key-rotation"
    LEAF = "leaf"
    TILE = "tile"
    ROOT = "root"
    CHECKPOINT = "checkpoint"
    HEAD = "head"
    ROLLBACK = "rollback"
    FORK = "fork"
    PRUNE = "prune"
    STORE = "store"
    BUNDLE = "bundle"
    MANIFEST = "manifest"
    EVENTS = "events"
    SEAL = "seal"
    WITNESS = "witness"
    REACH = "reach"
    SELECTION = "selection"
    BACKUP = "backup"
    INDEX = "index"
    QUEUE = "queue"


MEANING: Final = {
    Kind.MISSING: "A record is gone for which no prune speaks: it was removed, or the storage lost it.",
    Kind.UNREADABLE: "The storage cannot read this part back: it is damaged.",
    Kind.CHECKSUM: "The bytes are not those that were written: bit rot, or a change made behind the ledger's back.",
    Kind.NOT_CANONICAL: "No writer of this format makes such bytes: the record was altered or damaged.",
    Kind.MISPLACED: "The record does not belong at this place: records were moved, copied or brought from elsewhere.",
    Kind.CHAIN: "The record was not sealed after the one that now stands before it: one of them is not the original.",
    Kind.TIME: "Recorded times never run backwards: the time was altered.",
    Kind.CLOCK: "Times lie far ahead of this machine's clock: the writer's clock was wrong, or this one is. "
    "It is no sign of tampering.",
    Kind.SIGNATURE: "Whoever wrote these bytes did not have the epoch's key: the record is altered or forged.",
    Kind.ENTITY_VERSION: "Within a stream the versions count up by one: an event of it was removed, added or moved.",
    Kind.DUPLICATE_ID: "An event id stands once in a ledger: a repeat was sealed anew, or the id was altered.",
    Kind.UNPUBLISHED: "A record lies past the published size. Commits leave no such thing: it was put there.",
    Kind.GENESIS: "The ledger's own statement of who it is does not hold: this may be another ledger altogether.",
    Kind.EPOCH: "Epochs follow each other without gap or overlap: records were removed or added at an epoch's edge.",
    Kind.COMMITMENT: "The epoch did not commit to this key: the keys are not this ledger's, or the record is forged.",
    Kind.KEY_ROTATION: "The change of keys was not signed by both keys: it is forged.",
    Kind.LEAF: "The signed tree holds another record at this position: this one was changed after it was sealed.",
    Kind.TILE: "A stored hash tile is not what the records hash to: the tile is altered or lost, records may be whole.",
    Kind.ROOT: "The records do not hash to the signed root: some were changed, removed or added after signing.",
    Kind.CHECKPOINT: "The head's checkpoint was not signed by this ledger's key: it was altered or replaced.",
    Kind.HEAD: "The head points to the wrong places in the log: it was altered.",
    Kind.ROLLBACK: "The ledger is shorter than it was: records were cut off, or an old copy was put back.",
    Kind.FORK: "The ledger is not the one that the held checkpoint is of: history was rewritten, or split.",
    Kind.PRUNE: "What a prune or an order behind it says is not so: nothing vouches for what was removed in its name.",
    Kind.STORE: "The storage is not arranged as it was made: its protections may have been taken down.",
    Kind.BUNDLE: "A bundle is exactly three files. This is something else, or more, or less.",
    Kind.MANIFEST: "No exporter of this format writes such a manifest: it was altered or damaged.",
    Kind.EVENTS: "The file of records is not the one that the manifest was made for.",
    Kind.SEAL: "The manifest was not signed by this ledger's evidence key: it was altered, or made by someone else.",
    Kind.WITNESS: "Those who are trusted to have watched this ledger do not vouch for this checkpoint.",
    Kind.BACKUP: "The backup is not the one that was made: it was altered, cut short, or put together by someone else.",
    Kind.INDEX: "What is derived from the log does not say what the log says, so that queries may answer wrongly. "
    "The log is not touched by it: rebuild the index with `tallystick index rebuild`.",
    Kind.SELECTION: "The records that fit are not those that the manifest tells of: its selectors or counts are wrong.",
    Kind.QUEUE: "The queue is not as it was written: events that were acknowledged were altered or removed.",
    Kind.REACH: "The bundle cannot be held against the checkpoint that is known: have it exported with that one.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One failed check. `position` is None where it is not one record's; `end` closes a range of positions."""

    kind: Kind
    position: int | None
    seen: str
    end: int | None = None

    @property
    def meaning(self) -> str:
        """What a finding of this kind means, in words."""
        return MEANING[self.kind]

    @property
    def place(self) -> str:
        """Where, for people."""
        if self.position is None:
            return "ledger"
        if self.end is not None and self.end - self.position > 1:
            return f"positions {self.position} to {self.end - 1}"
        return f"position {self.position}"

    def to_json(self) -> dict[str, object]:
        """The finding as reports print it for machines."""
        return {
            "kind": str(self.kind),
            "position": self.position,
            "end": self.end,
            "seen": self.seen,
            "meaning": self.meaning,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LawfulPrune:
    """One prune, as its record in the ledger tells of it."""

    first: int
    """The first position that it removed."""
    end: int
    """It considered all positions below, as far as an earlier one had not."""
    count: int
    policy_position: int
    """The record of the policy that was in force."""
    position: int
    """The record of the prune itself."""
    finished: bool
    """False for one that was cut short: all that it names is still there."""

    @property
    def text(self) -> str:
        """For people."""
        records = f"{self.count:,} record{'s' if self.count != 1 else ''}"
        under = f"[{self.first}, {self.end}) lawfully pruned: {records} under the policy at position"
        cut = "" if self.finished else "; not finished, all of them are still there"
        return f"{under} {self.policy_position}{cut}"

    def to_json(self) -> dict[str, object]:
        """The prune as reports print it for machines."""
        return {
            "first": self.first,
            "end": self.end,
            "count": self.count,
            "policy_position": self.policy_position,
            "position": self.position,
            "finished": self.finished,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a verification did and found."""

    ledger: str
    origin: str
    size: int
    """Records published when the verification began."""
    first: int
    end: int
    """The positions that were checked, half-open."""
    findings: tuple[Finding, ...]
    signatures: int
    """Records whose signature was checked and holds; 0 without the keys."""
    unclosed: int
    """Of these, records of the epoch still open: right so far, but the epoch's count is not sealed yet."""
    keys: bool
    """Whether the keys were at hand. Without them signatures are not checked, everything else is."""
    proven: tuple[tuple[int, int], ...]
    """The ranges of positions, half-open, whose records, unless pruned, are proven to be under the signed root."""
    pruned: tuple[LawfulPrune, ...]
    """The prunes, oldest first; where only a part is verified, those that speak for what is absent there."""
    absent: int
    """Positions among those that were checked whose records are lawfully gone."""
    checkpoint: bytes
    """The signed checkpoint that was verified against."""
    index: int | None
    """Up to which position the index was compared with the log; None when it was not, or there is none."""
    since: int | None
    """The size of the held checkpoint that the ledger was held against, if one was given."""
    seconds: float
    mark: int | None = None
    """The size of the head mark that the ledger was held against; None without one, or without the keys."""
    notes: tuple[str, ...] = ()
    """What is worth knowing and is not a finding."""
    warnings: tuple[str, ...] = ()
    """What holds, and had better be looked at: times a little ahead of this machine's clock."""
    evidence_key: bytes | None = None
    """The evidence key in force at the end, by the records that were verified; None where nothing says it. It is proven
    where nothing was found."""

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_json(self) -> dict[str, object]:
        """The report as it is printed for machines."""
        return {
            "holds": self.holds,
            "ledger": self.ledger,
            "origin": self.origin,
            "size": self.size,
            "first": self.first,
            "end": self.end,
            "findings": [finding.to_json() for finding in self.findings],
            "signatures": self.signatures,
            "unclosed": self.unclosed,
            "keys": self.keys,
            "proven": [list(pair) for pair in self.proven],
            "pruned": [prune.to_json() for prune in self.pruned],
            "absent": self.absent,
            "checkpoint": self.checkpoint.decode("utf-8", "backslashreplace"),
            "index": self.index,
            "since": self.since,
            "mark": self.mark,
            "notes": [*self.notes],
            "warnings": [*self.warnings],
            "seconds": round(self.seconds, 3),
        }
