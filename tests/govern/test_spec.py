"""SPEC 9's example is what the code makes, byte for byte: the worked example's ledger, with its event pruned."""

from __future__ import annotations

from tallystick.core.custody import RetentionPolicy
from tallystick.core.moment import DAY
from tallystick.core.system import Genesis
from tallystick.evidence.verify import verify_store
from tallystick.govern.retention import Retention
from tallystick.ids import IdMaker
from tallystick.read.follower import Follower
from tallystick.read.search import Search
from tallystick.read.sqlite_index import SqliteIndexFile
from tallystick.store.memory import MemoryStore
from tallystick.store.reading import read_record
from tallystick.write.moment import Moments
from tallystick.write.sealer import Sealer
from tests.sealing import sealing_index
from tests.test_spec import MOMENT, SPEC, example_keys, worked_example


def pruned_example() -> MemoryStore:
    """A policy of ninety days is set at once, and a prune ordered a day after they are over."""
    keys = example_keys()
    store, ids, now = worked_example(), IdMaker(random=bytes), [MOMENT]
    for _ in range(3):
        ids.next_counter()  # those of the worked example
    index = SqliteIndexFile(None, store)
    follower = Follower(store, index)
    genesis = Genesis.of(read_record(store, 0))
    sealer = Sealer(
        store,
        genesis=genesis,
        load_keys=lambda: keys,
        known=sealing_index(store, keys),
        moments=Moments(lambda: now[0]),
        ids=ids,
    )

    def catch_up() -> int:
        head = store.head()
        assert head is not None
        follower.catch_up(head.size)
        follower.flush()
        follower.wait(head.size)
        return head.size

    retention = Retention(
        store,
        search=Search(store, index.questions),
        questions=index.questions,
        catch_up=catch_up,
        seal_own=sealer.seal_own,
        clock=lambda: now[0],
    )
    retention.set(RetentionPolicy.of("90d"), actor="admin-jane", reason="privacy rule 7")
    now[0] += 91 * DAY
    retention.prune(actor="admin-jane", clock_is_right=True)
    return store


def test_the_example_of_a_prune_is_what_the_code_makes() -> None:
    spec, store = SPEC.read_text("utf-8"), pruned_example()

    records = [read_record(store, position) for position in (3, 6)]

    assert [record.event_type for record in records] == ["tallystick.retention.set", "tallystick.records.pruned"]
    for record in records:
        assert f"\n{record.line.decode()}\n" in spec, record.line.decode()
    assert [stored.position for stored in store.read(0, 100)] == [0, 1, 3, 4, 5, 6]
    assert verify_store(store, clock=lambda: MOMENT + 100 * DAY).holds
