"""The fold: whatever leaves there are, they and the hashes between them give the root, and nothing else does."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.fold import Fold, cover, recording, replaying
from tallystick.core.merkle import NodeSource, leaf_hash, node_hash
from tests.naive import root as root_of

LEAVES = [leaf_hash(str(number).encode()) for number in range(300)]


def node(level: int, index: int) -> bytes:
    if level == 0:
        return LEAVES[index]
    return node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))


def fold_of(
    positions: list[int], size: int, source: NodeSource, *, cuts: list[int], sizes: list[int] | None = None
) -> tuple[bytes, dict[int, bytes]]:
    fold = Fold(cuts=cuts, node=source, sizes=sizes or ())
    for position in positions:
        fold.add(position, LEAVES[position])
    return fold.root(size), fold.roots


@pytest.mark.parametrize("size", range(1, 70))
def test_a_range_is_covered_by_the_largest_subtrees_without_gap_or_overlap(size: int) -> None:
    for first in range(size):
        pieces = [(index << level, (index + 1) << level) for level, index in cover(first, size)]

        assert [first, *(end for _, end in pieces)] == [*(start for start, _ in pieces), size]
        for one, other in pairwise(pieces):  # no two of them would make one larger subtree
            width = one[1] - one[0]
            assert width != other[1] - other[0] or one[0] % (2 * width)


@given(st.data())
def test_any_leaves_give_the_root_of_the_whole_tree(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    positions = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    cuts = data.draw(st.lists(st.integers(0, size), max_size=4))
    asked: list[bytes] = []

    root, _ = fold_of(positions, size, recording(node, asked), cuts=cuts)
    again, _ = fold_of(positions, size, replaying(iter(asked), AssertionError), cuts=cuts)

    assert root == again == root_of(LEAVES[:size])


@given(st.data())
def test_the_root_is_known_at_every_size_that_the_fold_passes(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    positions = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    cut = data.draw(st.integers(0, size))

    _, roots = fold_of(positions, size, node, cuts=[cut], sizes=[*range(size + 1)])

    assert cut in roots
    assert {at + 1 for at in positions} <= roots.keys()
    assert all(found == root_of(LEAVES[:at]) for at, found in roots.items())


@given(st.data())
def test_another_hash_gives_another_root(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, len(LEAVES)))
    positions = sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=size - 1)))
    asked: list[bytes] = []
    root, _ = fold_of(positions, size, recording(node, asked), cuts=[])

    at = data.draw(st.integers(0, len(asked) - 1))
    asked[at] = bytes(32)

    assert fold_of(positions, size, replaying(iter(asked), AssertionError), cuts=[])[0] != root


def test_hashes_that_run_out_are_told() -> None:
    with pytest.raises(ValueError, match="no more"):
        fold_of([5], 9, replaying(iter([LEAVES[0]]), lambda: ValueError("no more")), cuts=[])


def test_long_runs_of_leaves_are_hashed_in_parts() -> None:
    many = [leaf_hash(str(number).encode()) for number in range(9_000)]
    fold = Fold(cuts=(), node=node)
    for position, leaf in enumerate(many):
        fold.add(position, leaf)

    assert fold.root(len(many)) == root_of(many)
