"""The tree against its recursive definition (RFC 9162 2.1), its known answers, and forged proofs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from itertools import combinations
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.merkle import (
    EMPTY_ROOT,
    TILE_BYTES,
    TILE_WIDTH,
    Tile,
    Tree,
    consistency_path,
    extend_frontier,
    inclusion_path,
    leaf_hash,
    node_hash,
    root_from_frontier,
    split_hashes,
    tile_roots,
    verify_consistency,
    verify_inclusion,
)
from tallystick.errors import RejectedError
from tallystick.limits import SIZE_MAX

# ------------------------------------------------------------------------------------- the naive twin

LEAVES: Final = [sha256(b"\0%d" % number).digest() for number in range(66_200)]


def split(count: int) -> int:
    """The largest power of two smaller than `count`."""
    half = 1
    while half * 2 < count:
        half *= 2
    return half


@cache
def mth(first: int, end: int) -> bytes:
    """MTH(D[first:end]) of RFC 9162 2.1.1, over the leaf hashes LEAVES."""
    if end - first == 0:
        return sha256(b"").digest()
    if end - first == 1:
        return LEAVES[first]
    k = split(end - first)
    return sha256(b"\x01" + mth(first, first + k) + mth(first + k, end)).digest()


def path(m: int, first: int, end: int) -> list[bytes]:
    """PATH(m, D[first:end]) of RFC 9162 2.1.3.1."""
    if end - first == 1:
        return []
    k = split(end - first)
    if m < k:
        return [*path(m, first, first + k), mth(first + k, end)]
    return [*path(m - k, first + k, end), mth(first, first + k)]


def subproof(m: int, first: int, end: int, *, complete: bool) -> list[bytes]:
    """SUBPROOF(m, D[first:end], b) of RFC 9162 2.1.4.1."""
    if m == end - first:
        return [] if complete else [mth(first, end)]
    k = split(end - first)
    if m <= k:
        return [*subproof(m, first, first + k, complete=complete), mth(first + k, end)]
    return [*subproof(m - k, first + k, end, complete=False), mth(first, first + k)]


def node(level: int, index: int) -> bytes:
    return mth(index << level, (index + 1) << level)


def frontier_of(size: int) -> tuple[bytes, ...]:
    roots = []
    first = 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            roots.append(mth(first, first + (1 << level)))
            first += 1 << level
    return tuple(roots)


def edges_of(size: int) -> tuple[bytes, ...]:
    edges = []
    level = 0
    while size >> 8 * level:
        hashes = size >> 8 * level
        start = hashes - hashes % 256
        edges.append(b"".join(node(8 * level, index) for index in range(start, hashes)))
        level += 1
    return tuple(edges)


def tiles_of(size: int) -> set[Tile]:
    return {
        Tile(
            level,
            index,
            b"".join(node(8 * level, 256 * index + i) for i in range(256)),
            node(8 * level + 8, index),
        )
        for level in range(8)
        for index in range(size >> 8 * level + 8)
    }


# ------------------------------------------------------------------------------------- known answers

KNOWN_LEAVES: Final = (
    *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
    "606162636465666768696a6b6c6d6e6f",
)
KNOWN_ROOTS: Final = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


@pytest.mark.parametrize("size", range(1, 9))
def test_the_published_roots_are_met(size: int) -> None:
    leaves = [leaf_hash(bytes.fromhex(data)) for data in KNOWN_LEAVES[:size]]

    tree, _ = Tree.empty().extend(leaves)

    assert tree.root.hex() == KNOWN_ROOTS[size - 1]


def test_leaves_and_nodes_are_hashed_apart() -> None:
    leaf = leaf_hash(b"L123456").hex()
    parent = node_hash(b"N123", b"N456").hex()

    assert leaf == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert parent == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


def test_the_empty_tree_has_the_hash_of_nothing_as_root() -> None:
    root = Tree.empty().root

    assert root.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert root == EMPTY_ROOT


# ------------------------------------------------------------------------------------------- growing


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 300])
def test_every_size_to_300_is_what_the_definition_says(batch: int) -> None:
    tree = Tree.empty()
    for first in range(0, 300, batch):
        tree, _ = tree.extend(LEAVES[first : min(300, first + batch)])

        assert tree == Tree(tree.size, frontier_of(tree.size), edges_of(tree.size))
        assert tree.root == mth(0, tree.size)

    assert tree.size == 300


@given(st.lists(st.integers(0, 700), max_size=6))
def test_growing_in_any_pieces_gives_the_same_tree_and_each_tile_once(counts: list[int]) -> None:
    tree, tiles = Tree.empty(), []
    for count in counts:
        tree, completed = tree.extend(LEAVES[tree.size : tree.size + count])
        tiles += completed

    assert tree == Tree(sum(counts), frontier_of(sum(counts)), edges_of(sum(counts)))
    assert len(tiles) == len(set(tiles))
    assert set(tiles) == tiles_of(sum(counts))


@pytest.mark.parametrize("first", [0, 1, 255, 256, 65_279, 65_535])
def test_a_tile_of_tiles_is_completed(first: int) -> None:
    before, early = Tree.empty().extend(LEAVES[:first])
    tree, late = before.extend(LEAVES[first:])

    assert tree == Tree(66_200, frontier_of(66_200), edges_of(66_200))
    assert tree.root == mth(0, 66_200)
    assert set(early + late) == tiles_of(66_200)
    assert [tile.index for tile in late if tile.level == 1] == [0]
    assert [(tile.level, tile.index) for tile in late] == sorted((tile.level, tile.index) for tile in late)


def test_extending_by_nothing_changes_nothing() -> None:
    tree, _ = Tree.empty().extend(LEAVES[:300])

    assert tree.extend([]) == (tree, [])


@given(st.integers(0, 3000))
def test_a_tree_is_rebuilt_from_its_edges_alone(size: int) -> None:
    tree = Tree.from_edges(size, edges_of(size))

    assert tree == Tree(size, frontier_of(size), edges_of(size))


def test_a_flipped_bit_in_an_edge_changes_the_root_of_the_rebuilt_tree() -> None:
    level_0, level_1 = edges_of(700)
    flipped = bytes([level_1[0] ^ 1]) + level_1[1:]

    assert Tree.from_edges(700, [level_0, level_1]).root == mth(0, 700)
    assert Tree.from_edges(700, [level_0, flipped]).root != mth(0, 700)


def unfit_parts() -> Iterator[tuple[int, tuple[bytes, ...], tuple[bytes, ...]]]:
    frontier, edges = frontier_of(300), edges_of(300)
    yield 300, frontier[1:], edges
    yield 300, (*frontier, LEAVES[0]), edges
    yield 300, (*frontier[:-1], frontier[-1][:-1]), edges
    yield 300, frontier, edges[:1]
    yield 300, frontier, (*edges, b"")
    yield 300, frontier, (edges[0][:-32], edges[1])
    yield 300, frontier, (edges[0][:-1], edges[1])
    yield 300, frontier, (edges[0], b"")
    yield 301, frontier, edges
    yield -1, (), ()
    yield SIZE_MAX + 1, (LEAVES[0],), (b"",) * 7 + (LEAVES[0] * 128,)


@pytest.mark.parametrize(("size", "frontier", "edges"), [*unfit_parts()])
def test_a_tree_of_parts_that_do_not_fit_is_refused(
    size: int, frontier: tuple[bytes, ...], edges: tuple[bytes, ...]
) -> None:
    with pytest.raises(RejectedError):
        Tree(size, frontier, edges)


# ------------------------------------------------------------------------- growing, the verifier's way


@given(st.integers(0, 600), st.integers(0, 600))
def test_a_frontier_grows_by_leaves(size: int, count: int) -> None:
    frontier = extend_frontier(size, frontier_of(size), LEAVES[size : size + count])

    assert frontier == frontier_of(size + count)
    assert root_from_frontier(frontier) == mth(0, size + count)


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_frontier_grows_by_whole_tiles(before: int, count: int) -> None:
    first, end = before * TILE_WIDTH, (before + count) * TILE_WIDTH

    roots = tile_roots(LEAVES[first:end])

    assert roots == [mth(at, at + TILE_WIDTH) for at in range(first, end, TILE_WIDTH)]
    assert extend_frontier(first, frontier_of(first), roots, height=8) == frontier_of(end)


def test_subtrees_are_joined_only_where_they_are_aligned() -> None:
    with pytest.raises(RejectedError, match="cannot follow 300 leaves"):
        extend_frontier(300, frontier_of(300), [LEAVES[0]], height=8)


@pytest.mark.parametrize("frontier", [frontier_of(5)[1:], (*frontier_of(5), LEAVES[0]), (b"", b"")])
def test_a_frontier_that_does_not_fit_its_size_is_refused(frontier: tuple[bytes, ...]) -> None:
    with pytest.raises(RejectedError):
        extend_frontier(5, frontier, LEAVES[5:6])


def test_hashes_are_cut_apart_whole() -> None:
    assert split_hashes(LEAVES[0] + LEAVES[1]) == LEAVES[:2]
    with pytest.raises(RejectedError, match="63 bytes"):
        split_hashes((LEAVES[0] + LEAVES[1])[:-1])


def test_a_tile_has_8192_bytes() -> None:
    _, [tile] = Tree.empty().extend(LEAVES[:256])

    assert len(tile.hashes) == TILE_BYTES == 8192


# -------------------------------------------------------------------------------------------- proofs


def test_every_inclusion_path_to_size_300_is_the_definitions_and_holds() -> None:
    for index, size in combinations(range(301), 2):
        proof = inclusion_path(index, size, node=node)

        assert proof == path(index, 0, size)
        assert verify_inclusion(LEAVES[index], index, size=size, path=proof, root=mth(0, size))


def test_every_consistency_path_to_size_300_is_the_definitions_and_holds() -> None:
    for old_size, size in combinations(range(1, 301), 2):
        proof = consistency_path(old_size, size, node=node)

        assert proof == subproof(old_size, 0, size, complete=True)
        assert verify_consistency(old_size, size, path=proof, old_root=mth(0, old_size), root=mth(0, size))


def spoiled(proof: list[bytes]) -> Iterator[list[bytes]]:
    """Every bit-flipped, lengthened, shortened or reordered form of a path."""
    yield [*proof, LEAVES[-1]]
    yield [LEAVES[-1], *proof]
    yield [*proof, b""]
    for at in range(len(proof)):
        flipped = bytes([proof[at][0] ^ 0x80]) + proof[at][1:]
        yield [*proof[:at], flipped, *proof[at + 1 :]]
        yield [*proof[:at], proof[at][:-1], *proof[at + 1 :]]
        yield [*proof[:at], LEAVES[-1], *proof[at:]]
        yield [*proof[:at], proof[at], *proof[at:]]
        yield [*proof[:at], *proof[at + 1 :]]
        yield proof[:at]
    if len(proof) > 1:
        yield proof[::-1]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 13, 16, 33, 255, 256, 257, 300])
def test_no_forged_inclusion_holds(size: int) -> None:
    root = mth(0, size)
    for index in {0, 1, size // 3, size // 2, size - 2, size - 1} & set(range(size)):
        leaf, proof = LEAVES[index], path(index, 0, size)

        assert not verify_inclusion(LEAVES[-1], index, size=size, path=proof, root=root)
        assert not verify_inclusion(leaf, index, size=size, path=proof, root=mth(0, size + 1))
        assert not verify_inclusion(leaf, index, size=size, path=proof, root=EMPTY_ROOT)
        for wrong in (index - 1, index + 1, -1, size, index - size, index + size):
            assert not verify_inclusion(leaf, wrong, size=size, path=proof, root=root)
        for wrong in (0, -size, size * 2, size // 2, index):
            assert not verify_inclusion(leaf, index, size=wrong, path=proof, root=root)
        for forged in spoiled(proof):
            assert not verify_inclusion(leaf, index, size=size, path=forged, root=root)


def test_a_path_hash_cannot_lend_bytes_to_its_neighbour() -> None:
    left, right = LEAVES[0], LEAVES[1]
    longer = left[-1:] + right

    assert node_hash(left[:-1], longer) == mth(0, 2)
    assert not verify_inclusion(left[:-1], 0, size=2, path=[longer], root=mth(0, 2))


@pytest.mark.parametrize(
    ("old_size", "size"),
    [
        (1, 2),
        (1, 3),
        (2, 3),
        (3, 4),
        (4, 7),
        (4, 8),
        (6, 8),
        (7, 8),
        (5, 13),
        (128, 256),
        (255, 300),
        (256, 300),
    ],
)
def test_no_forged_consistency_holds(old_size: int, size: int) -> None:
    old_root, root = mth(0, old_size), mth(0, size)
    proof = subproof(old_size, 0, size, complete=True)

    assert not verify_consistency(old_size, size, path=proof, old_root=root, root=old_root)
    assert not verify_consistency(old_size, size, path=proof, old_root=root, root=root)
    assert not verify_consistency(old_size, size, path=proof, old_root=old_root, root=old_root)
    assert not verify_consistency(old_size, size, path=proof, old_root=EMPTY_ROOT, root=root)
    for wrong in (0, -1, -old_size, old_size - 1, old_size + 1, old_size * 2, old_size // 2, size):
        assert not verify_consistency(wrong, size, path=proof, old_root=old_root, root=root)
    for wrong in (0, -1, -size, size * 2, size // 2, old_size - 1, old_size):
        assert not verify_consistency(old_size, wrong, path=proof, old_root=old_root, root=root)
    for forged in spoiled(proof):
        assert not verify_consistency(old_size, size, path=forged, old_root=old_root, root=root)


def test_a_rewritten_tree_is_not_consistent_with_the_one_before() -> None:
    rewritten, _ = Tree.empty().extend([*LEAVES[:9], LEAVES[-1], *LEAVES[10:20]])

    for old_size in (10, 15, 16):
        proof = subproof(old_size, 0, 20, complete=True)
        assert not verify_consistency(old_size, 20, path=proof, old_root=mth(0, old_size), root=rewritten.root)


def test_every_tree_is_consistent_with_the_empty_one_and_needs_no_path() -> None:
    assert consistency_path(0, 9, node=node) == []
    assert verify_consistency(0, 9, path=[], old_root=EMPTY_ROOT, root=mth(0, 9))
    assert verify_consistency(0, 0, path=[], old_root=EMPTY_ROOT, root=EMPTY_ROOT)

    assert not verify_consistency(0, 9, path=[LEAVES[0]], old_root=EMPTY_ROOT, root=mth(0, 9))
    assert not verify_consistency(0, 9, path=[], old_root=LEAVES[0], root=mth(0, 9))
    assert not verify_consistency(0, 0, path=[], old_root=LEAVES[0], root=LEAVES[0])


def test_trees_of_one_size_are_consistent_when_their_roots_are_equal() -> None:
    assert consistency_path(9, 9, node=node) == []
    assert verify_consistency(9, 9, path=[], old_root=mth(0, 9), root=mth(0, 9))

    assert not verify_consistency(9, 9, path=[], old_root=mth(0, 9), root=mth(0, 8))
    assert not verify_consistency(9, 9, path=[LEAVES[0]], old_root=mth(0, 9), root=mth(0, 9))


def test_a_smaller_tree_never_follows_a_larger_one() -> None:
    assert not verify_consistency(9, 8, path=[], old_root=mth(0, 9), root=mth(0, 8))
    with pytest.raises(RejectedError, match="cannot have grown"):
        consistency_path(9, 8, node=node)


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0)])
def test_there_is_no_path_for_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(RejectedError, match="there is no leaf"):
        inclusion_path(index, size, node=node)


@given(st.integers(1, 66_200), st.randoms(use_true_random=False))
def test_proofs_in_large_trees_hold(size: int, chance: random.Random) -> None:
    index, old_size = chance.randrange(size), chance.randint(0, size)
    root, old_root = mth(0, size), mth(0, old_size)

    included = inclusion_path(index, size, node=node)
    grown = consistency_path(old_size, size, node=node)

    assert included == path(index, 0, size)
    assert verify_inclusion(LEAVES[index], index, size=size, path=included, root=root)
    assert verify_consistency(old_size, size, path=grown, old_root=old_root, root=root)
