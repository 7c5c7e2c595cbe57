"""The Go project's own implementation of notes and tiled logs verifies what our modules write.

`tlogcheck/main.go` verifies a directory; here it is given one log of 70,000 records and several sizes, and
then the same log with one thing wrong at a time, so that its approval means something.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.merkle import TILE_WIDTH, Tree, consistency_path, inclusion_path, leaf_hash
from tallystick.core.note import Signer
from tallystick.core.proof import Proof
from tallystick.core.strict import render_base64
from tallystick.core.tiles import TileNodes, TilePath, render_entries

pytestmark = pytest.mark.go

ORIGIN: Final = "audit.example/tenant/t1"
SIGNER: Final = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER: Final = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))

SIZES: Final = (1, 2, 255, 256, 257, 1_000, 65_535, 65_536, 70_000)
SIZE: Final = SIZES[-1]
RECORDS: Final = [f'{{"position":{position},"x":"é"}}'.encode() for position in range(SIZE)]
LEAVES: Final = [leaf_hash(record) for record in RECORDS]

# --------------------------------------------------------------------------------------------- the log


def put(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put_entries(folder: Path, records: Sequence[bytes]) -> None:
    for first in range(0, len(records), TILE_WIDTH):
        entries = records[first : first + TILE_WIDTH]
        path = TilePath(None, first // TILE_WIDTH, len(entries)).render()
        put(folder, path, render_entries(entries))


def put_edges(folder: Path, tree: Tree) -> None:
    for level, edge in enumerate(tree.edges):
        if edge:
            index = tree.size >> 8 * (level + 1)
            put(folder, TilePath(level, index, len(edge) // 32).render(), edge)


def signed(tree: Tree, *, signer: Signer = SIGNER) -> bytes:
    return sign_checkpoint(Checkpoint(ORIGIN, tree.size, tree.root), signer)


def put_log(folder: Path) -> None:
    """The log as it stands after each of SIZES was published in turn."""
    put(folder, "vkey", SIGNER.verifier_key.render().encode() + b"\n")
    tree = Tree.empty()
    for size in SIZES:
        tree, tiles = tree.extend(LEAVES[tree.size : size])
        for tile in tiles:
            put(folder, TilePath(tile.level, tile.index).render(), tile.hashes)
        put_edges(folder, tree)
        put(folder, "checkpoint", signed(tree))
        put(folder, f"checkpoint.{size}", signed(tree))
    put_entries(folder, RECORDS)
    put_proofs(folder)


def put_proofs(folder: Path) -> None:
    """An inclusion proof for some records, and a consistency proof from every earlier size to the last."""

    def read_tile(level: int, index: int, width: int) -> bytes:
        full = folder / TilePath(level, index).render()
        path = full if full.exists() else folder / TilePath(level, index, width).render()
        return path.read_bytes()[: width * 32]

    nodes = TileNodes(SIZE, read_tile)
    checkpoint = (folder / "checkpoint").read_bytes()
    for index in (0, 1, 255, 256, 40_000, 65_535, 65_536, SIZE - 1):
        path = tuple(inclusion_path(index, SIZE, node=nodes))
        put(folder, f"{index}.tlog-proof", Proof(index, path, checkpoint, b"context" * (index % 2)).render())
        put(folder, f"{index}.record", RECORDS[index])
    for size in SIZES:
        hashes = "".join(render_base64(node) + "\n" for node in consistency_path(size, SIZE, node=nodes))
        put(folder, f"{size}.add-checkpoint", f"old {size}\n{hashes}\n".encode() + checkpoint)


# ------------------------------------------------------------------------------------------- the checker


@pytest.fixture(scope="module")
def tlogcheck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("go") / "tlogcheck"
    source = Path(__file__).parent / "tlogcheck"
    subprocess.run(["go", "build", "-o", os.fspath(program), "."], cwd=source, check=True)
    return program


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    put_log(folder)
    return folder


def run(program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, folder], capture_output=True, text=True, check=False)


def test_go_verifies_our_checkpoints_tiles_entries_and_proofs(tlogcheck: Path, published: Path) -> None:
    result = run(tlogcheck, published)

    assert result.stderr == ""
    assert result.stdout == (
        "audit.example/tenant/t1: 70000 records, 560 tile files, 9 earlier checkpoints, "
        "8 inclusion proofs, 9 consistency proofs verified\n"
    )
    assert result.returncode == 0


def flip(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        middle = len(data) // 2
        (folder / name).write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])

    return change


def replace(name: str, old: bytes, new: bytes) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        assert data.count(old) == 1
        (folder / name).write_bytes(data.replace(old, new))

    return change


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1])


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


def rewrite(folder: Path) -> None:
    """The same log with one record rewritten, signed again by the rightful key."""
    forged, _ = Tree.empty().extend([*LEAVES[:9], leaf_hash(b"{}"), *LEAVES[10:]])
    (folder / "checkpoint").write_bytes(signed(forged))


WRONG: Final[dict[str, Callable[[Path], object]]] = {
    "a byte of a full tile": flip("tile/0/000"),
    "a byte of a partial tile": flip("tile/0/273.p/112"),
    "a byte of a tile of tiles": flip("tile/1/000"),
    "a byte of an entry": flip("tile/entries/100"),
    "a byte of a record": flip("40000.record"),
    "a tile cut short": cut("tile/0/001"),
    "entries cut short": cut("tile/entries/001"),
    "a tile missing": remove("tile/0/002"),
    "entries missing": remove("tile/entries/002"),
    "a misspelt tile path": rename("tile/0/003", "tile/0/0003"),
    "another index": replace("40000.tlog-proof", b"index 40000", b"index 40001"),
    "another old size": replace("1000.add-checkpoint", b"old 1000", b"old 257"),
    "a changed checkpoint": replace("checkpoint", b"\n70000\n", b"\n69999\n"),
    "a changed earlier checkpoint": replace("checkpoint.1000", b"\n1000\n", b"\n1001\n"),
    "another key": lambda folder: put(folder, "vkey", OTHER.verifier_key.render().encode() + b"\n"),
    "a rewritten record under a fresh signature": rewrite,
    "an earlier checkpoint of a fork": lambda folder: put(
        folder, "checkpoint.257", signed(Tree.empty().extend(LEAVES[1:258])[0])
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_go_refuses_our_log_when_one_thing_is_wrong(
    wrong: str, tlogcheck: Path, published: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    shutil.copytree(published, folder)
    WRONG[wrong](folder)

    result = run(tlogcheck, folder)

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("tlogcheck: ")
