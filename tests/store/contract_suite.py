"""The store's contract as tests: one class, one factory to override, the promises by their numbers.

What a store is given here are no real records: it must not care what the bytes say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest

from tallystick.core.merkle import Tile, Tree, leaf_hash
from tallystick.errors import ConflictError, StoreError
from tallystick.store.contract import Batch, Head, Store
from tests.threads import in_threads

Opener = Callable[[], Store]
"""Opens the same ledger anew, as another object."""


def lines_of(first: int, count: int, *, mark: str = "") -> list[bytes]:
    return [f'{{"position":{position},"é":"{mark}"}}'.encode() for position in range(first, first + count)]


def head_of(size: int, *, mark: str = "") -> Head:
    return Head(size, f"checkpoint of {size} {mark}".encode(), 1, 0, 0)


def batch_of(first: int, count: int, *, mark: str = "") -> Batch:
    return Batch(first, lines_of(first, count, mark=mark), [])


def stored(store: Store, first: int = 0, end: int = 1 << 40) -> list[bytes]:
    return [record.line for record in store.read(first, end)]


class StoreContract(ABC):
    """Derive, name the class `Test…`, and say how one ledger's store is opened."""

    @abstractmethod
    def opener(self, folder: Path) -> Opener:
        """How to open the ledger in `folder`, which is empty at first. Every call gives a store of its own
        where the adapter can have several on one ledger, else the same one."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Opener:
        return self.opener(tmp_path / "ledger")

    @pytest.fixture
    def store(self, open_store: Opener) -> Store:
        return open_store()

    @pytest.fixture
    def begun(self, store: Store) -> Store:
        """A store that holds two records."""
        store.create(batch_of(0, 2), head_of(2))
        return store

    # ------------------------------------------------------------------------------------ before create

    def test_a_new_store_has_no_head_and_no_records(self, store: Store) -> None:
        assert store.head() is None

    def test_nothing_can_be_committed_before_create(self, store: Store) -> None:
        with pytest.raises((StoreError, ConflictError)):
            store.commit(0, batch_of(0, 1), head_of(1))

        assert store.head() is None

    # ------------------------------------------------------------------------------ promise 1, and 2 (I4)

    def test_what_was_created_is_there_when_the_call_returns(self, begun: Store) -> None:
        assert begun.head() == head_of(2)
        assert stored(begun) == lines_of(0, 2)

    def test_what_was_committed_is_there_when_the_call_returns(self, begun: Store) -> None:
        begun.commit(2, batch_of(2, 3), Head(5, b"other", 4, 3, 2))

        assert begun.head() == Head(5, b"other", 4, 3, 2)
        assert stored(begun) == lines_of(0, 5)

    def test_every_other_opening_sees_the_same(self, begun: Store, open_store: Opener) -> None:
        begun.commit(2, batch_of(2, 3), head_of(5))

        other = open_store()

        assert other.head() == head_of(5)
        assert stored(other) == lines_of(0, 5)

    def test_a_record_rests_with_its_position_and_the_crc32_of_its_bytes(self, begun: Store) -> None:
        lines = lines_of(0, 2)

        assert [*begun.read(0, 2)] == [(0, lines[0], crc32(lines[0])), (1, lines[1], crc32(lines[1]))]

    def test_bytes_of_every_value_and_of_the_greatest_length_come_back(self, begun: Store) -> None:
        odd = [bytes(range(256)), b"\0", b"", b"'; DROP TABLE record; --", b"x" * 65_535]

        begun.commit(2, Batch(2, odd, []), head_of(7))

        assert stored(begun, 2) == odd

    # ---------------------------------------------------------------------------------------- promise 3

    def test_a_ledger_is_created_once(self, begun: Store, open_store: Opener) -> None:
        for store in (begun, open_store()):
            with pytest.raises(ConflictError):
                store.create(batch_of(0, 1, mark="second"), head_of(1, mark="second"))

        assert begun.head() == head_of(2)
        assert stored(begun) == lines_of(0, 2)

    @pytest.mark.parametrize("expected_size", [0, 1, 3, 1_000_000])
    def test_a_commit_at_another_size_is_refused_and_leaves_no_trace(self, begun: Store, expected_size: int) -> None:
        with pytest.raises(ConflictError):
            begun.commit(expected_size, batch_of(expected_size, 2, mark="loser"), head_of(expected_size + 2))

        assert begun.head() == head_of(2)
        assert stored(begun) == lines_of(0, 2)

    def test_a_commit_after_another_head_of_the_same_size_is_refused(self, begun: Store) -> None:
        with pytest.raises(ConflictError):
            begun.commit(2, batch_of(2, 1), head_of(3), after=b"another log's checkpoint")
        assert stored(begun) == lines_of(0, 2)

        begun.commit(2, batch_of(2, 1), head_of(3), after=head_of(2).checkpoint)
        assert begun.head() == head_of(3)

    def test_of_two_that_saw_the_same_head_one_wins(self, begun: Store, open_store: Opener) -> None:
        other = open_store()
        assert begun.head() == other.head()

        begun.commit(2, batch_of(2, 1, mark="winner"), head_of(3, mark="winner"))
        with pytest.raises(ConflictError):
            other.commit(2, batch_of(2, 2, mark="loser"), head_of(4, mark="loser"))

        assert other.head() == head_of(3, mark="winner")
        assert stored(other, 2) == lines_of(2, 1, mark="winner")

    def test_of_many_threads_at_one_size_exactly_one_wins(self, begun: Store, open_store: Opener) -> None:
        stores = [open_store() for _ in range(8)]
        rounds = 12
        for size in range(2, 2 + rounds):
            won: list[int] = []

            def contend(number: int, size: int = size, won: list[int] = won) -> None:
                mark = f"{number}"
                try:
                    stores[number].commit(size, batch_of(size, 1, mark=mark), head_of(size + 1, mark=mark))
                except ConflictError:
                    return
                won.append(number)

            in_threads(len(stores), contend)

            assert len(won) == 1
            assert begun.head() == head_of(size + 1, mark=f"{won[0]}")
            assert stored(begun, size) == lines_of(size, 1, mark=f"{won[0]}")
        assert [record.position for record in begun.read(0, 100)] == [*range(2 + rounds)]

    def test_a_batch_with_a_tile_twice_is_refused_whole(self, begun: Store) -> None:
        _, tiles = Tree.empty().extend([leaf_hash(line) for line in lines_of(0, 256)])

        with pytest.raises(Exception, match="tile"):
            begun.commit(2, Batch(2, lines_of(2, 254), [*tiles, *tiles]), head_of(256))

        assert len(begun.tiles(0, 0, 9)) <= 1

    def test_in_its_turn_a_writer_commits_from_the_newest_head(self, begun: Store, open_store: Opener) -> None:
        with begun.turn():
            head = begun.head()
            assert head is not None
            begun.commit(head.size, batch_of(2, 1), head_of(3), after=head.checkpoint)
            open_store().commit(3, batch_of(3, 1), head_of(4))  # the turn ended with the commit

        assert stored(begun) == lines_of(0, 4)

    def test_a_turn_without_a_commit_leaves_nothing_and_nobody_locked_out(
        self, begun: Store, open_store: Opener
    ) -> None:
        with begun.turn():
            pass
        with pytest.raises(ZeroDivisionError), begun.turn():
            raise ZeroDivisionError
        with pytest.raises(ConflictError), begun.turn():
            begun.commit(7, batch_of(7, 1), head_of(8))

        open_store().commit(2, batch_of(2, 1), head_of(3))
        begun.commit(3, batch_of(3, 1), head_of(4))
        assert stored(begun) == lines_of(0, 4)

    def test_nobody_who_takes_turns_loses(self, begun: Store, open_store: Opener) -> None:
        stores = [open_store() for _ in range(8)]

        def append(number: int) -> None:
            store = stores[number]
            with store.turn():
                head = store.head()
                assert head is not None
                store.commit(head.size, batch_of(head.size, 1), head_of(head.size + 1))

        in_threads(len(stores), append)

        assert stored(begun) == lines_of(0, 10)

    # ----------------------------------------------------------------------------------- promise 4 (I2)

    def test_what_the_caller_does_to_its_batch_afterwards_changes_nothing(self, begun: Store) -> None:
        lines = lines_of(2, 3)

        begun.commit(2, Batch(2, lines, []), head_of(5))
        lines[:] = [b"changed"]

        assert stored(begun) == lines_of(0, 5)

    # ---------------------------------------------------------------------------------------- promise 5

    def test_a_repeated_commit_conflicts_and_so_tells_that_it_was_done(self, begun: Store) -> None:
        begun.commit(2, batch_of(2, 1), head_of(3))

        with pytest.raises(ConflictError):
            begun.commit(2, batch_of(2, 1), head_of(3))

        assert begun.head() == head_of(3)
        assert stored(begun) == lines_of(0, 3)

    # ---------------------------------------------------------------------------------------- promise 6

    @pytest.mark.parametrize(("first", "end"), [(0, 9), (0, 0), (3, 3), (3, 4), (2, 7), (8, 9), (5, 2)])
    def test_a_range_is_half_open_and_in_order(self, begun: Store, first: int, end: int) -> None:
        begun.commit(2, batch_of(2, 7), head_of(9))

        assert [record.position for record in begun.read(first, end)] == [*range(first, end)]

    @pytest.mark.parametrize(("first", "end"), [(9, 20), (7, 1 << 50), (1 << 50, 1 << 51)])
    def test_what_is_not_there_is_left_out(self, begun: Store, first: int, end: int) -> None:
        begun.commit(2, batch_of(2, 7), head_of(9))

        assert [record.position for record in begun.read(first, end)] == [*range(first, 9)]

    def test_records_are_fetched_in_order_once_each_and_those_not_there_are_left_out(self, begun: Store) -> None:
        begun.commit(2, batch_of(2, 8), head_of(10))

        assert begun.fetch([]) == []
        assert begun.fetch([7, 3, 3, 9, 4_000_000]) == [*begun.read(3, 4), *begun.read(7, 8), *begun.read(9, 10)]
        assert begun.fetch(range(10)) == [*begun.read(0, 10)]

    def test_a_large_batch_is_one_commit_and_reads_back_in_order(self, begun: Store) -> None:
        for first, count in ((2, 10_001), (10_003, 1_999)):
            begun.commit(first, batch_of(first, count), head_of(first + count))

        assert stored(begun) == lines_of(0, 12_002)
        assert stored(begun, 999, 3_001) == lines_of(999, 2_002)

    def test_a_reading_that_was_begun_goes_on_while_others_commit(self, begun: Store, open_store: Opener) -> None:
        begun.commit(2, batch_of(2, 2_500), head_of(2_502))
        reading = open_store().read(0, 2_502)
        first = [next(reading) for _ in range(3)]

        begun.commit(2_502, batch_of(2_502, 10), head_of(2_512))
        rest = [*reading]

        assert [record.line for record in first + rest] == lines_of(0, 2_502)

    def test_tiles_come_back_by_level_and_range(self, begun: Store) -> None:
        count = 66_000
        leaves = [sha256(b"%d" % number).digest() for number in range(count)]
        _, tiles = Tree.empty().extend(leaves)
        below = [tile for tile in tiles if tile.level == 0]
        above = [tile for tile in tiles if tile.level == 1]
        assert (len(below), len(above)) == (257, 1)

        begun.commit(2, Batch(2, lines_of(2, 1), tiles), head_of(3))

        assert begun.tiles(0, 0, 300) == below
        assert begun.tiles(0, 17, 19) == below[17:19]
        assert begun.tiles(0, 256, 258) == below[256:]
        assert begun.tiles(1, 0, 300) == above
        assert begun.tiles(2, 0, 300) == []
        assert begun.tiles(0, 5, 5) == []

    # ----------------------------------------------------------------------------------- promise 7 (I9)

    def test_two_ledgers_never_see_each_other(self, begun: Store, tmp_path: Path) -> None:
        other = self.opener(tmp_path / "other")()
        assert other.head() is None

        tile = Tile(0, 0, bytes(8192), bytes(32))
        other.create(Batch(0, lines_of(0, 3, mark="other"), [tile]), head_of(3, mark="other"))

        assert begun.head() == head_of(2)
        assert stored(begun) == lines_of(0, 2)
        assert begun.tiles(0, 0, 9) == []
        assert stored(other) == lines_of(0, 3, mark="other")

    # ----------------------------------------------------------------------------------------- the prune

    def test_a_prune_removes_what_is_below_its_end_and_not_kept(self, begun: Store, open_store: Opener) -> None:
        begun.commit(2, batch_of(2, 8), head_of(10))

        removed = begun.prune(7, array("q", [0, 1, 4]))

        left = [0, 1, 4, 7, 8, 9]
        assert removed == 4
        for store in (begun, open_store()):
            assert [record.position for record in store.read(0, 100)] == left
            assert [record.position for record in store.fetch(range(10))] == left
            assert stored(store) == [line for at, line in enumerate(lines_of(0, 10)) if at in left]
            assert (store.pruned_below(), store.head(), store.last_position()) == (7, head_of(10), 9)

    def test_nothing_is_pruned_before_the_first_prune(self, begun: Store) -> None:
        assert begun.pruned_below() == 0
        assert begun.leaves(0, 100) == []

    def test_a_prune_may_be_repeated_and_then_removes_nothing(self, begun: Store) -> None:
        begun.commit(2, batch_of(2, 8), head_of(10))
        begun.prune(7, [0, 1, 4])
        before = (stored(begun), begun.leaves(0, 10))

        assert begun.prune(7, [0, 1, 4]) == 0

        assert (stored(begun), begun.leaves(0, 10)) == before

    def test_a_later_prune_may_remove_what_an_earlier_one_kept(self, begun: Store) -> None:
        begun.commit(2, batch_of(2, 8), head_of(10))
        begun.prune(7, [0, 1, 4])

        assert begun.prune(8, [0, 1]) == 2

        assert [record.position for record in begun.read(0, 10)] == [0, 1, 8, 9]
        assert begun.pruned_below() == 8

    def test_a_prune_that_ends_earlier_does_not_move_the_end_back(self, begun: Store) -> None:
        begun.commit(2, batch_of(2, 8), head_of(10))
        begun.prune(7, [0, 4])

        assert begun.prune(5, [0]) == 1

        assert begun.pruned_below() == 7

    def test_kept_positions_that_have_no_record_do_no_harm(self, begun: Store) -> None:
        begun.commit(2, batch_of(2, 8), head_of(10))

        assert begun.prune(5, [0, 1, 2, 3, 4, 8, 77]) == 0

        assert stored(begun) == lines_of(0, 10)

    def test_a_prune_past_the_head_is_refused_and_changes_nothing(self, begun: Store) -> None:
        with pytest.raises(StoreError, match="cannot prune"):
            begun.prune(3, [])

        assert stored(begun) == lines_of(0, 2)
        assert begun.pruned_below() == 0

    def test_tiles_stay_and_of_records_that_none_covers_the_leaf_hashes(self, begun: Store) -> None:
        lines = lines_of(0, 300)
        _, tiles = Tree.empty().extend([leaf_hash(line) for line in lines])
        begun.commit(2, Batch(2, lines[2:], tiles), head_of(300))

        assert begun.prune(270, [0, 100, 260]) == 267

        assert begun.tiles(0, 0, 9) == tiles
        wanted = [(at, leaf_hash(lines[at])) for at in range(256, 270) if at != 260]
        assert begun.leaves(0, 1_000) == wanted
        assert begun.leaves(258, 262) == [leaf for leaf in wanted if 258 <= leaf[0] < 262]

    def test_leaf_hashes_stay_over_prunes_until_a_tile_covers_them(self, begun: Store) -> None:
        lines = lines_of(0, 300)
        leaves = [leaf_hash(line) for line in lines]
        begun.commit(2, Batch(2, lines[2:250], []), head_of(250))
        begun.prune(10, [0])
        begun.prune(20, [0])
        assert begun.leaves(0, 300) == [*enumerate(leaves)][1:20]

        begun.commit(250, Batch(250, lines[250:], Tree.empty().extend(leaves)[1]), head_of(300))
        begun.prune(290, [0])

        assert begun.leaves(0, 300) == [*enumerate(leaves)][256:290]

    def test_appending_goes_on_after_a_prune(self, begun: Store, open_store: Opener) -> None:
        begun.commit(2, batch_of(2, 8), head_of(10))
        begun.prune(10, [0])

        open_store().commit(10, batch_of(10, 3), head_of(13))

        assert stored(begun) == [*lines_of(0, 1), *lines_of(10, 3)]

    def test_very_many_may_be_kept(self, begun: Store) -> None:
        begun.commit(2, Batch(2, [b"x"] * 250_000, []), head_of(250_002))

        assert begun.prune(250_000, array("q", range(0, 250_000, 2))) == 125_000

        positions = [record.position for record in begun.read(0, 1 << 40)]
        assert positions == [*range(0, 250_000, 2), 250_000, 250_001]

    def test_a_reading_that_was_begun_goes_on_past_what_was_pruned_meanwhile(
        self, begun: Store, open_store: Opener
    ) -> None:
        begun.commit(2, batch_of(2, 4_000), head_of(4_002))
        reading = open_store().read(0, 4_002)
        first = [next(reading) for _ in range(3)]

        begun.prune(3_900, [0, 1, 3_000])
        rest = [*reading]

        positions = [record.position for record in first + rest]
        assert positions == sorted({*positions})
        assert {0, 1, 2, 3_000, *range(3_900, 4_002)} <= {*positions}
        every = lines_of(0, 4_002)
        assert [record.line for record in first + rest] == [every[at] for at in positions]

    def test_a_pruned_store_finds_nothing_wrong_with_itself(self, begun: Store) -> None:
        begun.commit(2, batch_of(2, 8), head_of(10))

        begun.prune(7, [0, 1, 4])

        assert begun.inspect() == []

    # --------------------------------------------------------------------------------- and the small print

    def test_a_sound_store_finds_nothing_wrong_with_itself(self, begun: Store) -> None:
        assert begun.inspect() == []

    def test_the_bytes_used_are_at_least_those_of_the_records(self, begun: Store) -> None:
        before = begun.bytes_used()

        begun.commit(2, Batch(2, [b"x" * 50_000] * 10, []), head_of(12))

        assert begun.bytes_used() >= before + 500_000

    def test_closing_twice_is_harmless_and_a_closed_store_refuses_everything(self, begun: Store) -> None:
        begun.close()
        begun.close()

        calls: list[Callable[[], object]] = [
            begun.head,
            lambda: [*begun.read(0, 2)],
            lambda: begun.tiles(0, 0, 1),
            lambda: begun.commit(2, batch_of(2, 1), head_of(3)),
            lambda: begun.create(batch_of(0, 1), head_of(1)),
            lambda: begun.prune(1, []),
            begun.pruned_below,
            lambda: begun.leaves(0, 1),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="closed"):
                call()

    def test_many_threads_read_while_one_commits_and_see_only_whole_commits(self, begun: Store) -> None:
        sizes = [2 + 7 * commit for commit in range(60)]

        def work(number: int) -> None:
            if number == 0:
                for size in sizes[:-1]:
                    begun.commit(size, batch_of(size, 7), head_of(size + 7))
                return
            seen = 0
            while seen < sizes[-1]:
                head = begun.head()
                assert head is not None
                assert head.size in sizes
                assert head.size >= seen
                seen = head.size
                # All that the head covers is there, and what is there beyond it came in whole commits.
                positions = [record.position for record in begun.read(0, 1 << 40)]
                assert positions == [*range(len(positions))]
                assert len(positions) >= seen
                assert len(positions) in sizes

        in_threads(4, work)
