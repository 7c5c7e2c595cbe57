"""A ledger with a clock to turn, put together from its parts, and what retention needs of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tallystick.core import timestamp
from tallystick.core.custody import RETENTION_SET, OwnEvent, RetentionPolicy, RetentionSet
from tallystick.core.moment import DAY
from tallystick.core.record import Record
from tallystick.evidence.findings import Report
from tallystick.evidence.verify import verify_store
from tallystick.govern.orders import BeforePrune
from tallystick.govern.retention import Retention
from tallystick.ids import IdMaker
from tallystick.read.follower import Follower
from tallystick.read.search import Search
from tallystick.read.sqlite_index import SqliteIndexFile
from tallystick.store.contract import Store
from tallystick.store.memory import MemoryStore
from tallystick.write.accept import Acceptor
from tallystick.write.moment import Moments
from tallystick.write.request import Sealed
from tallystick.write.resume import create_ledger
from tallystick.write.sealer import Sealer
from tests.evidence.forge import GENESIS, KEYS, StaticKeys
from tests.sealing import sealing_index

ONE_EPOCH: Final = replace(GENESIS, epoch_seconds_max=100 * 366 * 86_400, epoch_records_max=1_000_000)
"""A ledger whose epochs change only when they are told to, so that positions are easy to count."""

BEGIN: Final = timestamp.parse("2026-01-01T00:00:00.000000Z")


class Scene:
    """One opening of a ledger. A second one on the same store has an index of its own, made anew."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        now: int = BEGIN,
        index_folder: Path | None = None,
        before_prune: BeforePrune | None = None,
    ) -> None:
        self.store: Final[Store] = store or MemoryStore()
        self.now = now
        ids = IdMaker()
        if self.store.head() is None:
            create_ledger(self.store, genesis=ONE_EPOCH, keys=KEYS, ids=ids, now=now)
        self.index: Final = SqliteIndexFile(index_folder, self.store)
        self._follower: Final = Follower(self.store, self.index)
        self._turn: Final = threading.Lock()
        self.sealer: Final = Sealer(
            self.store,
            genesis=ONE_EPOCH,
            load_keys=lambda: KEYS,
            known=sealing_index(self.store, KEYS),
            moments=Moments(self.clock),
            ids=ids,
            turn=self._turn,
        )
        self._acceptor: Final = Acceptor(ids)
        self.retention: Final = Retention(
            self.store,
            search=Search(self.store, self.index.questions),
            questions=self.index.questions,
            catch_up=self.catch_up,
            seal_own=self.sealer.seal_own,
            clock=self.clock,
            before_prune=before_prune,
        )

    def clock(self) -> int:
        return self.now

    def pass_days(self, days: float) -> None:
        self.now += int(days * DAY)

    def catch_up(self) -> int:
        with self._turn:
            size = self.size
            self._follower.catch_up(size)
            self._follower.flush()
        self._follower.wait(size)
        return size

    @property
    def size(self) -> int:
        head = self.store.head()
        assert head is not None
        return head.size

    def append(self, entity: str = "e", *, labels: Sequence[str] = (), count: int = 1, **more: Any) -> Sequence[Sealed]:
        event = {"event_type": "t.happened", "entity_id": entity, "labels": [*labels], **more}
        return self.sealer.seal([self._acceptor.accept({**event, "payload": {"n": n}}) for n in range(count)])

    def keep(self, period: str, **labels: str) -> None:
        self.retention.set(RetentionPolicy.of(period, labels))

    def keep_sealed(self, period: str) -> None:
        """Set a policy past `Retention`, as someone with the keys could."""
        self.sealer.seal_own([OwnEvent(RETENTION_SET, RetentionSet(RetentionPolicy.of(period)).payload())])

    def records(self) -> list[Record]:
        return [Record.parse(stored.line) for stored in self.store.read(0, self.size)]

    def positions(self) -> list[int]:
        return [stored.position for stored in self.store.read(0, self.size)]

    def ours(self) -> list[int]:
        """The positions of what callers appended."""
        return [record.position for record in self.records() if not record.event_type.startswith("tallystick.")]

    def verify(self, **options: Any) -> Report:
        options.setdefault("clock", self.clock)
        return verify_store(self.store, keystore=StaticKeys(KEYS), **options)  # type: ignore[arg-type]


def payload_at(store: Store, position: int) -> dict[str, Any]:
    ((_, line, _),) = store.read(position, position + 1)
    payload: dict[str, Any] = json.loads(line)["payload"]
    return payload
