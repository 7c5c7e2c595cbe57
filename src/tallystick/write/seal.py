"""Sealing: from drafts to the bytes of one commit, as a pure plan.

The plan gives every draft its position and entity version, chains it to the record before, signs it under
the epoch's key, extends the tree and signs the new checkpoint. It asks the port `Known` and writes
nothing: whoever planned may drop the plan and plan again. Committing it is `tallystick.write.sealer`'s work.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tallystick.core import timestamp
from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.corrected import ClockCorrected
from tallystick.core.keys import commitment, epoch_key, tagger
from tallystick.core.merkle import Tree, leaf_hash
from tallystick.core.note import Signer
from tallystick.core.record import (
    EPOCH_CLOSED,
    EPOCH_OPENED,
    Record,
    body_format,
    record_hash,
    signed_part,
    with_signature,
)
from tallystick.core.system import EpochClosed, EpochOpened, Genesis
from tallystick.ids import IdMaker
from tallystick.store.contract import Batch, Head
from tallystick.write.draft import BROUGHT, Draft, system_draft
from tallystick.write.known import Known, MadeRun
from tallystick.write.request import Place, Receipts, Request, Resolution, Sealed

Tag = Callable[[bytes], bytes]
"""From a record's signed part to its signature in hex (`tallystick.core.keys.tagger`)."""


@dataclass(frozen=True, slots=True)
class State:
    """All that sealing the next batch needs of the batches before it. A value: a new one a commit."""

    tree: Tree
    prev_hash: bytes
    """The last record's hash in hex: the next one's `prev_hash`."""
    recorded_at: int
    epoch: int
    """The present epoch; -1 between the genesis and the first opening."""
    epoch_opened_at: int
    epoch_at: int
    checkpoint_key_at: int
    evidence_key_at: int
    checkpoint: bytes
    """The signed one over all of it; nothing before the first commit."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One commit, ready to be made, and what is to be said when it is."""

    batch: Batch
    head: Head
    state: State
    receipts: list[tuple[Request, Sequence[Sealed]]]
    versions: dict[str, int]
    """The new version of every entity that the batch touches."""
    brought: list[tuple[str, int]]
    """The ids that callers brought, with their positions."""
    made: list[MadeRun]


class _Opening(NamedTuple):
    at: int
    """The index of the draft that opens the epoch."""
    epoch: int


class Planner:
    """Takes requests one by one, refusing those that conflict, and then makes the plan of the rest.

    `read` gives the sealed record of a position; `event_mac` is the key from which epoch keys come
    (SPEC 5.1); `now` is the server's time in microseconds.
    """

    def __init__(
        self,
        state: State,
        *,
        genesis: Genesis,
        known: Known,
        read: Callable[[int], Record],
        event_mac: bytes,
        ids: IdMaker,
        now: int,
    ) -> None:
        self._state: Final = state
        self._genesis: Final = genesis
        self._known: Final = known
        self._read: Final = read
        self._event_mac: Final = event_mac
        self._ids: Final = ids
        self._now: Final = now
        # The server's clock alone counts, and never runs backwards, unless the ledger says so (SPEC 3.2).
        self._moment = max(now, state.recorded_at)
        self._recorded_at = timestamp.render(self._moment)
        self._drafts: list[Draft] = []
        self._numbers: list[int] = []  # the entity versions of the drafts
        self._versions: dict[str, int] = {}
        self._brought: dict[str, int] = {}
        self._sealed_before: Mapping[str, int] = {}
        self._asked: list[tuple[Request, Sequence[Place]]] = []
        self._opening: _Opening | None = None
        self._key_named_at: dict[str, int] = {}

    @property
    def count(self) -> int:
        """How many records the plan adds so far."""
        return len(self._drafts)

    def epoch_is_due(self) -> bool:
        """Whether the present epoch has lasted as long, or holds as many records, as one may."""
        state, policy = self._state, self._genesis
        age = self._moment - state.epoch_opened_at
        full = state.tree.size - state.epoch_at >= policy.epoch_records_max
        return full or age >= policy.epoch_seconds_max * timestamp.SECOND

    def correct_clock(self, reason: str) -> ClockCorrected:
        """Have the plan's records sealed at the clock's time, be it before the newest record's. What the first of them
        has to say of it (SPEC 5.9)."""
        self._moment = self._now
        self._recorded_at = timestamp.render(self._moment)
        return ClockCorrected(timestamp.render(self._state.recorded_at), self._recorded_at, reason)

    def look_up(self, requests: Sequence[Request]) -> None:
        """Ask once for the ids that any of these brought, before they are added one by one."""
        ids = [draft.brought_id for one in requests for draft in one.drafts if draft.made == BROUGHT]
        self._sealed_before = self._known.find_all(ids) if ids else {}

    def add(self, request: Request) -> None:
        """Take a request that was looked up. Raises `ConflictError`, and then nothing of it is in the plan."""
        if not request.conditional:
            start = len(self._drafts)
            self._asked.append((request, range(start, start + len(request.drafts))))
            self._append(request.drafts)
            return
        resolution = Resolution(
            self._drafts,
            brought=self._brought,
            version=self._version,
            known_at=self._sealed_before,
            read=self._read,
        )
        for draft in request.drafts:
            resolution.take(draft)
        self._brought.update(resolution.brought)
        self._asked.append((request, resolution.places))
        self._append(resolution.fresh)

    def open_epoch(self) -> None:
        """Close the present epoch, if one is open, and open the next, in this order (SPEC 5.2).

        At most once a plan. What is added later belongs to the new epoch.
        """
        state = self._state
        if state.epoch >= 0:
            first, last = state.epoch_at, self._position(len(self._drafts))
            self._append([system_draft(EPOCH_CLOSED, EpochClosed(state.epoch, first, last).payload(), self._ids)])
        self._opening = _Opening(len(self._drafts), state.epoch + 1)
        key = epoch_key(self._event_mac, self._opening.epoch)
        opened = EpochOpened(self._opening.epoch, commitment(key))
        self._append([system_draft(EPOCH_OPENED, opened.payload(), self._ids)])

    def name_key(self, purpose: str, draft: Draft) -> None:
        """Add the record that names a new `checkpoint` or `evidence` key. If it is the checkpoint key, the
        new one signs this plan's checkpoint already (SPEC 5.4)."""
        self._key_named_at[purpose] = self._position(len(self._drafts))
        self._append([draft])

    def finish(self, signer: Signer, *, tag: Tag) -> Plan:
        """Seal all that was added: `tag` signs the records of the present epoch, `signer` the checkpoint."""
        state, first = self._state, self._state.tree.size
        hashes: list[bytes] = []
        lines = self._seal(tag, hashes=hashes)
        tree, tiles = state.tree.extend([leaf_hash(line) for line in lines])
        checkpoint = sign_checkpoint(Checkpoint(signer.name, tree.size, tree.root), signer)
        after = State(
            tree=tree,
            checkpoint=checkpoint,
            prev_hash=hexlify(hashes[-1]),
            recorded_at=self._moment,
            epoch=self._opening.epoch if self._opening else state.epoch,
            epoch_opened_at=self._moment if self._opening else min(self._moment, state.epoch_opened_at),
            epoch_at=self._position(self._opening.at) if self._opening else state.epoch_at,
            checkpoint_key_at=self._key_named_at.get("checkpoint", state.checkpoint_key_at),
            evidence_key_at=self._key_named_at.get("evidence", state.evidence_key_at),
        )
        return Plan(
            batch=Batch(first, lines, tiles),
            head=Head(tree.size, checkpoint, after.epoch_at, after.checkpoint_key_at, after.evidence_key_at),
            state=after,
            receipts=self._receipts(hashes),
            versions=self._versions,
            brought=[(event_id, first + index) for event_id, index in self._brought.items()],
            made=self._made_runs(),
        )

    def repeats(self) -> list[tuple[Request, Sequence[Sealed]]]:
        """The receipts when nothing is new: every draft repeats one that was sealed before."""
        assert not self._drafts, "there is something to commit first"
        return self._receipts([])

    def _position(self, index: int) -> int:
        return self._state.tree.size + index

    def _version(self, entity_id: str) -> int:
        version = self._versions.get(entity_id)
        return self._known.version(entity_id) if version is None else version

    def _append(self, drafts: Sequence[Draft]) -> None:
        versions, append, known = self._versions, self._numbers.append, self._known.version
        for draft in drafts:
            entity_id = draft.entity_id
            version = versions.get(entity_id)
            if version is None:
                version = known(entity_id)
            versions[entity_id] = version = version + 1
            append(version)
        self._drafts += drafts

    def _seal(self, tag: Tag, *, hashes: list[bytes]) -> list[bytes]:
        """The records' bytes, chained and signed; their hashes are appended to `hashes`."""
        end, opening = len(self._drafts), self._opening
        if opening is None:
            return self._seal_run(0, end, epoch=self._state.epoch, tag=tag, hashes=hashes)
        # The closing record is the last of the old epoch, the opening one the first of the new.
        old = self._seal_run(0, opening.at, epoch=self._state.epoch, tag=tag, hashes=hashes)
        new_tag = tagger(epoch_key(self._event_mac, opening.epoch))
        return old + self._seal_run(opening.at, end, epoch=opening.epoch, tag=new_tag, hashes=hashes)

    def _seal_run(self, start: int, end: int, *, epoch: int, tag: Tag, hashes: list[bytes]) -> list[bytes]:
        # The hot loop: what it does to a record is all that cannot be done before its place is known.
        form = body_format(ledger=self._genesis.ledger, epoch=epoch, recorded_at=self._recorded_at)
        position = self._position(start)
        prev_hash = hexlify(hashes[-1]) if hashes else self._state.prev_hash
        lines: list[bytes] = []
        for draft, version in zip(self._drafts[start:end], self._numbers[start:end], strict=True):
            body = form % (draft.before, version, draft.middle, draft.after, position, prev_hash)
            line = with_signature(body, tag(signed_part(body)))
            digest = record_hash(line)
            prev_hash = hexlify(digest)
            lines.append(line)
            hashes.append(digest)
            position += 1
        return lines

    def _receipts(self, hashes: list[bytes]) -> list[tuple[Request, Sequence[Sealed]]]:
        every = Receipts(
            self._drafts,
            first=self._state.tree.size,
            versions=self._numbers,
            recorded_at=self._recorded_at,
            hashes=hashes,
        )
        return [(request, _collect(places, every)) for request, places in self._asked]

    def _made_runs(self) -> list[MadeRun]:
        runs: list[MadeRun] = []
        start, expected, prefix = 0, BROUGHT, self._ids.prefix
        first = self._state.tree.size
        for index, draft in enumerate(self._drafts):
            made = draft.made
            if made != expected:
                if expected != BROUGHT:
                    runs.append(MadeRun(prefix, expected - (index - start), first + start, index - start))
                start = index
            expected = made + 1 if made != BROUGHT else BROUGHT
        if expected != BROUGHT:
            count = len(self._drafts) - start
            runs.append(MadeRun(prefix, expected - count, first + start, count))
        return runs


def _collect(places: Sequence[Place], every: Receipts) -> Sequence[Sealed]:
    if isinstance(places, range):
        return every.part(places)
    return [_receipt(place, every) for place in places]


def _receipt(place: Place, every: Receipts) -> Sealed:
    if isinstance(place, Sealed):
        return place
    return every[place] if place >= 0 else every[~place]._replace(replayed=True)
