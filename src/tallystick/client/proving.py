"""The proving half of the client: what the service hands out so that nobody has to believe it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tallystick.client.answers import told
from tallystick.client.calls import TEXT, Calls, Request
from tallystick.client.jobs import Progress, check_free, fetch, report_of, run
from tallystick.core.canonical import to_json
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.merkle import HASH_BYTES
from tallystick.core.moment import Moment
from tallystick.core.proof import Proof
from tallystick.core.tiles import TilePath
from tallystick.errors import NotFoundError, StoreError
from tallystick.evidence.bundle.export import Exported
from tallystick.evidence.findings import Report
from tallystick.read.query import Query


class Proving:
    """What a ledger hands out. Safe for many threads."""

    _calls: Calls

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint (C2SP tlog-checkpoint): give it to others to keep."""
        note = self._calls.call(Request(path="/api/v1/checkpoint", accept=TEXT)).body
        told(lambda: Checkpoint.of_note(note))
        return note

    def prove(self, position: int) -> Proof:
        """The proof that a record is in the tree of the newest checkpoint (C2SP tlog-proof)."""
        if type(position) is not int or position < 0:
            raise NotFoundError(f"there is no position {position!r}")
        body = self._calls.call(Request(path=f"/api/v1/proofs/{position}", accept=TEXT)).body
        proof = told(lambda: Proof.parse(body))
        if proof.index != position:
            raise StoreError(f"the proof is that of position {proof.index}, and {position} was asked for")
        return proof

    def tile(self, level: int, index: int, width: int) -> bytes:
        """The first `width` hashes of a hash tile (C2SP tlog-tiles)."""
        path = TilePath(level, index, width).render()
        hashes = self._calls.call(Request(path=f"/api/v1/{path}", accept="application/octet-stream")).body
        if len(hashes) != width * HASH_BYTES:
            raise StoreError(f"the tile has {len(hashes)} bytes, and {width} hashes were asked for")
        return hashes

    def verify(
        self,
        *,
        first: int = 0,
        end: int | None = None,
        since: bytes | None = None,
        seconds: float | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Have the service check every record at [first, end), and the tree over all, and wait for its report.

        It is the service that says so: whoever does not trust it verifies an export, or keeps checkpoints and gives
        one as `since`. Waits as long as it takes, or raises `BusyError` after `seconds`.
        """
        asked: dict[str, Any] = {"first": first}
        asked |= {} if end is None else {"end": end}
        asked |= {} if since is None else {"since": _note_text(since)}
        request = Request(method="POST", path="/api/v1/verify", body=to_json(asked))
        return report_of(run(self._calls, request, seconds=seconds, progress=progress))

    def export(
        self,
        folder: str | os.PathLike[str],
        queries: Sequence[Query] = (),
        /,
        *,
        first: int | None = None,
        end: int | None = None,
        after: datetime | str | None = None,
        before: datetime | str | None = None,
        since: bytes | None = None,
        as_zip: bool = False,
        seconds: float | None = None,
        progress: Progress | None = None,
    ) -> Exported:
        """Have the service make an evidence bundle, and fetch it into a folder of its own, or as a `.zip`.

        As `Ledger.export`. What arrives is held against the hashes that the ledger
        recorded. The order is sent once: when its answer is lost, the export may have been made and recorded all the
        same. Waits as long as it takes, or raises `BusyError` after `seconds`.
        """
        target = Path(folder)
        check_free(target, as_zip=as_zip)
        asked: dict[str, Any] = {"queries": [query.terms() for query in queries]}
        asked |= {name: value for name, value in (("first", first), ("end", end)) if value is not None}
        for name, moment in (("after", after), ("before", before)):
            if moment is not None:
                asked[name] = Moment.of(moment, place=name).text
        if since is not None:
            asked["since"] = _note_text(since)
        request = Request(method="POST", path="/api/v1/exports", body=to_json(asked), changes=True, repeatable=False)
        job = run(self._calls, request, seconds=seconds, progress=progress)
        return fetch(self._calls, job, target, as_zip=as_zip)


def _note_text(note: bytes) -> str:
    """A checkpoint as it stands in JSON. Raises `RejectedError` for what is none."""
    Checkpoint.of_note(note)
    return note.decode()
