"""Tile paths, entries and the nodes within tiles, against the tree that made the tiles."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.merkle import (
    TILE_WIDTH,
    Tile,
    Tree,
    consistency_path,
    inclusion_path,
    verify_consistency,
    verify_inclusion,
)
from tallystick.core.tiles import TileNodes, TilePath, parse_entries, render_entries, tile_width
from tallystick.errors import RejectedError
from tallystick.limits import RECORD_BYTES_MAX, SIZE_MAX

LEAVES: Final = [sha256(b"\0%d" % number).digest() for number in range(66_200)]

# ----------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/000", TilePath(0, 0)),
        ("tile/0/x001/x234/067", TilePath(0, 1_234_067)),
        ("tile/1/000.p/17", TilePath(1, 0, 17)),
        ("tile/63/999", TilePath(63, 999)),
        ("tile/7/x001/000.p/255", TilePath(7, 1000, 255)),
        ("tile/entries/273.p/1", TilePath(None, 273, 1)),
        ("tile/entries/x001/000", TilePath(None, 1000)),
        ("tile/0/x036/x028/x797/x018/x963/967", TilePath(0, 2**55 - 1)),
    ],
)
def test_a_tile_path_is_read_and_written(path: str, tile: TilePath) -> None:
    assert TilePath.parse(path) == tile
    assert tile.render() == path


@given(st.none() | st.integers(0, 63), st.integers(0, 2**55 - 1), st.integers(1, 256))
def test_any_tile_path_is_read_as_it_is_written(level: int | None, index: int, width: int) -> None:
    tile = TilePath(level, index, width)

    assert TilePath.parse(tile.render()) == tile


@pytest.mark.parametrize(
    "path",
    [
        *("", "tile", "tile/", "tile/0", "tile/0/", "/tile/0/000", "tile/0/000/", "tile//000", "TILE/0/000"),
        *("tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/1234", "tile/0/x000", "tile/0/x000/000"),
        *("tile/0/x001", "tile/0/001/000", "tile/0/x001/x000", "tile/0/X001/000", "tile/0/x01/000"),
        *("tile/00/000", "tile/01/000", "tile/64/000", "tile/100/000", "tile/-1/000", "tile/+1/000"),
        *("tile/data/000", "tile/entries", "tile/entries/", "tile/Entries/000", "tile/8/0/000"),
        *("tile/0/000.p", "tile/0/000.p/", "tile/0/000.p/0", "tile/0/000.p/00", "tile/0/000.p/01"),
        *("tile/0/000.p/256", "tile/0/000.p/257", "tile/0/000.p/-1", "tile/0/000.p/1/", "tile/0/000p/1"),
        *("tile/0/000.p/1 ", " tile/0/000", "tile/0/000\n", "tile/0/0\N{ARABIC-INDIC DIGIT ONE}0"),
        *("tile/0/../000", "tile/0/x001/../000", "tile/0/x036/x028/x797/x018/x963/968"),
        *("tile/0/x000/x036/x028/x797/x018/x963/967", "tile/0/" + "x001/" * 10_000 + "000"),
    ],
)
def test_no_other_spelling_of_a_tile_path_is_read(path: str) -> None:
    with pytest.raises(RejectedError, match="tile path: "):
        TilePath.parse(path)


@given(st.text(max_size=12), st.integers(0, 24), st.integers(0, 24))
def test_any_text_is_a_tile_path_in_its_one_form_or_rejected(text: str, first: int, end: int) -> None:
    path = "tile/0/x001/x234/067.p/9"
    for hostile in (text, path[:first] + text + path[end:]):
        try:
            tile = TilePath.parse(hostile)
        except RejectedError:
            continue
        assert tile.render() == hostile


@pytest.mark.parametrize(
    ("level", "index", "width"), [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 2**55, 1), (0, 0, 0), (0, 0, 257)]
)
def test_a_tile_that_no_tree_has_is_refused(level: int, index: int, width: int) -> None:
    with pytest.raises(RejectedError):
        TilePath(level, index, width)


def test_the_tiles_of_a_tree_follow_from_its_size() -> None:
    """The example of C2SP tlog-tiles: 70,000 leaves."""
    widths = [[tile_width(level, index, size=70_000) for index in range(275)] for level in range(4)]

    assert widths[0] == [256] * 273 + [112] + [0]
    assert widths[1] == [256, 17] + [0] * 273
    assert widths[2] == [1] + [0] * 274
    assert widths[3] == [0] * 275
    assert [tile_width(level, 0, size=256) for level in range(3)] == [256, 1, 0]


# --------------------------------------------------------------------------------------------- entries

RECORDS: Final = [b'{"seq":0,"type":"t","x":""}', '{"seq":1,"type":"t","x":"é"}'.encode()]
ENTRIES: Final = bytes.fromhex("001b") + RECORDS[0] + bytes.fromhex("001d") + RECORDS[1]


def test_the_known_entries_are_read_and_written() -> None:
    assert render_entries(RECORDS) == ENTRIES
    assert parse_entries(ENTRIES, 2) == RECORDS


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_any_entries_are_read_as_they_are_written(records: list[bytes]) -> None:
    assert parse_entries(render_entries(records), len(records)) == records


@pytest.mark.parametrize(
    ("data", "width"),
    [
        (ENTRIES, 1),
        (ENTRIES, 3),
        (ENTRIES + b"\0", 2),
        (ENTRIES + b"\0\0", 2),
        (b"", 1),
        (b"\0", 1),
        (b"\0\1", 1),
        (ENTRIES + b"\0", 3),
        (ENTRIES, 0),
        (ENTRIES, -1),
        (b"\0\0" * 257, 257),
        *((ENTRIES[:end], 2) for end in range(len(ENTRIES))),
    ],
)
def test_entries_with_bytes_missing_or_left_over_are_refused(data: bytes, width: int) -> None:
    with pytest.raises(RejectedError):
        parse_entries(data, width)


def test_a_refusal_of_entries_says_what_is_missing_or_left_over() -> None:
    with pytest.raises(RejectedError, match="byte 29: the bytes end within entry 1 of 2"):
        parse_entries(ENTRIES[:-1], 2)
    with pytest.raises(RejectedError, match="byte 29: 31 bytes follow the last entry"):
        parse_entries(ENTRIES, 1)


@given(st.binary(max_size=80), st.integers(1, 20))
def test_any_bytes_are_entries_in_their_one_form_or_rejected(data: bytes, width: int) -> None:
    try:
        records = parse_entries(data, width)
    except RejectedError:
        return
    assert render_entries(records) == data
    assert len(records) == width


def test_the_longest_record_fits_and_a_longer_one_is_refused() -> None:
    longest = b"x" * RECORD_BYTES_MAX

    assert parse_entries(render_entries([longest] * 2), 2) == [longest] * 2
    with pytest.raises(RejectedError, match="at most 65535 bytes"):
        render_entries([longest + b"x"])


@pytest.mark.parametrize("count", [0, 257])
def test_entries_are_one_tile_wide_at_most(count: int) -> None:
    with pytest.raises(RejectedError, match="1 to 256 wide"):
        render_entries([b""] * count)


# ----------------------------------------------------------------------------------------------- nodes


class Shelf:
    """The tiles of one tree, as a store would answer for them; counts what is read."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.tree, full = Tree.empty().extend(leaves)
        self.full: dict[tuple[int, int], Tile] = {(tile.level, tile.index): tile for tile in full}
        self.read: list[tuple[int, int, int]] = []

    def __call__(self, level: int, index: int, width: int) -> bytes:
        self.read.append((level, index, width))
        tile = self.full.get((level, index))
        return (tile.hashes if tile else self.tree.edges[level])[: width * 32]


SHELF: Final = Shelf(LEAVES)


def naive(level: int, index: int) -> bytes:
    row = LEAVES[index << level : (index + 1) << level]
    while len(row) > 1:
        row = [sha256(b"\1" + row[i] + row[i + 1]).digest() for i in range(0, len(row), 2)]
    return row[0]


@pytest.mark.parametrize("level", range(17))
def test_tiles_answer_for_every_perfect_subtree(level: int) -> None:
    nodes = TileNodes(66_200, SHELF)
    last = (66_200 >> level) - 1

    for index in {0, 1, last // 2, last - 1, last} & set(range(last + 1)):
        assert nodes(level, index) == naive(level, index)


@pytest.mark.parametrize(("level", "index"), [(0, 66_200), (3, 8_275), (8, 258), (17, 0), (0, -1), (-1, 0)])
def test_there_is_no_node_beyond_the_edge(level: int, index: int) -> None:
    with pytest.raises(RejectedError, match="no perfect subtree"):
        TileNodes(66_200, SHELF)(level, index)


@given(st.data())
def test_proofs_for_any_size_come_out_of_the_tiles_of_a_larger_tree(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 66_200))
    index, old_size = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    tree, _ = Tree.empty().extend(LEAVES[:size])
    old_tree, _ = Tree.empty().extend(LEAVES[:old_size])
    nodes = TileNodes(size, SHELF)

    included = inclusion_path(index, size, node=nodes)
    grown = consistency_path(old_size, size, node=nodes)

    assert verify_inclusion(LEAVES[index], index, size=size, path=included, root=tree.root)
    assert verify_consistency(old_size, size, path=grown, old_root=old_tree.root, root=tree.root)


def test_a_tile_is_asked_for_at_its_width_in_a_tree_of_that_size() -> None:
    shelf = Shelf(LEAVES[:1000])
    inclusion_path(0, 700, node=TileNodes(700, shelf))

    assert set(shelf.read) == {(0, 0, 256), (0, 2, 188), (1, 0, 2)}


def test_a_tile_is_read_once_while_it_is_in_use() -> None:
    shelf = Shelf(LEAVES[:1000])
    nodes = TileNodes(1000, shelf)
    for index in range(1000):
        inclusion_path(index, 1000, node=nodes)

    assert len(shelf.read) == len(set(shelf.read)) == 5


def test_few_tiles_are_held() -> None:
    nodes = TileNodes(66_200, SHELF)
    del SHELF.read[:]
    for _ in range(2):
        for index in range(100):
            nodes(0, index * TILE_WIDTH)

    assert len(SHELF.read) == 200


@pytest.mark.parametrize("length", [0, 32, 187 * 32, 188 * 32 - 1, 188 * 32 + 1, 189 * 32])
def test_a_tile_with_bytes_missing_or_left_over_is_refused(length: int) -> None:
    nodes = TileNodes(700, lambda _level, _index, _width: bytes(length))

    with pytest.raises(RejectedError):
        nodes(0, 699)


def test_a_changed_tile_gives_a_path_that_does_not_hold() -> None:
    tree, _ = Tree.empty().extend(LEAVES[:700])

    def read_changed(level: int, index: int, width: int) -> bytes:
        hashes = SHELF(level, index, width)
        return bytes([hashes[0] ^ 1]) + hashes[1:]

    path = inclusion_path(300, 700, node=TileNodes(700, read_changed))
    assert not verify_inclusion(LEAVES[300], 300, size=700, path=path, root=tree.root)


def test_the_largest_tree_has_tiles() -> None:
    assert tile_width(0, 2**55 - 1, size=SIZE_MAX) == 255
    assert tile_width(7, 0, size=SIZE_MAX) == 127
