"""The ledger as a tree of static files that any web server can publish (C2SP tlog-tiles).

    checkpoint                    the signed tree head, written last
    tile/<L>/<N>[.p/<W>]          hash tiles
    tile/entries/<N>[.p/<W>]      the records below the tiles of level 0

A folder is brought up to date: what its own checkpoint covers is there already and is not written again,
after it was checked that the ledger still begins with it. Partial tiles of earlier checkpoints stay, for
their readers. Entries of which a record was pruned are not written any more; those published stay, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tallystick.core.checkpoint import Checkpoint
from tallystick.core.merkle import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Tree,
    consistency_path,
    leaf_hash,
    split_hashes,
    verify_consistency,
)
from tallystick.core.tiles import TileNodes, TilePath, render_entries, tile_width
from tallystick.durable import replace
from tallystick.errors import ConflictError, RejectedError, StoreError, TamperError
from tallystick.ledger import Ledger
from tallystick.read.index import Progress

CHECKPOINT: Final = "checkpoint"


@dataclass(frozen=True, slots=True)
class Counts:
    """What was done: tile files written, full ones found there and kept, and the size published."""

    written: int
    kept: int
    size: int


def write_tile_tree(ledger: Ledger, folder: Path, *, progress: Progress | None = None) -> Counts:
    """Bring the files in `folder` up to the ledger's newest checkpoint, making the folder if need be.

    Raises `ConflictError` for a folder that is another ledger's, `TamperError` when the ledger does not begin
    with what was published before or does not hash to its own checkpoint, `StoreError` when writing fails.
    """
    signed = ledger.checkpoint()
    head = _parse(signed, place="the ledger's checkpoint")
    try:
        published = _published(ledger, folder, head)
        written = kept = 0
        for path, data in _files(ledger, head, published, folder):
            if data is None:
                kept += 1
            else:
                _write(folder / path.render(), data)
                written += 1
            if progress is not None and path.level is None:
                progress(path.index * TILE_WIDTH + path.width, head.size)
        # What was written must be on the disk before a checkpoint says that it is there. A crash before
        # this leaves files that the old checkpoint does not cover; they are written once more.
        os.sync()
        _write(folder / CHECKPOINT, signed)
    except OSError as error:
        raise StoreError(f"could not write the tiles in {folder}: {error}") from error
    return Counts(written, kept, head.size)


def _files(ledger: Ledger, head: Checkpoint, published: int, folder: Path) -> Iterator[tuple[TilePath, bytes | None]]:
    """Every file that a tree of this size has, with its bytes, or None where it is published already."""
    edges = []
    level = 0
    while hashes := head.size >> TILE_HEIGHT * level:
        full_before = (published >> TILE_HEIGHT * level) // TILE_WIDTH
        edge = b""
        for index in range(-(-hashes // TILE_WIDTH)):
            width = tile_width(level, index, size=head.size)
            paths = [TilePath(level, index, width)]
            if level == 0:
                paths.append(TilePath(None, index, width))
            if index < full_before and all((folder / path.render()).exists() for path in paths):
                yield from ((path, None) for path in paths)
                continue
            tile = ledger.tile(level, index, width)
            yield paths[0], tile
            entries = _entries(ledger, index, width, tile=tile) if level == 0 else None
            if entries is not None:
                yield paths[1], entries
            edge = tile if width < TILE_WIDTH else b""
        edges.append(edge)
        level += 1
    if Tree.from_edges(head.size, edges).root != head.root:
        raise TamperError("the ledger's tiles do not hash to its signed root: run a verification")


def _entries(ledger: Ledger, index: int, width: int, *, tile: bytes) -> bytes | None:
    """The records below a tile; None when some were pruned, as entries cannot leave any out."""
    first = index * TILE_WIDTH
    records = [*ledger.read(first, first + width)]
    leaves = split_hashes(tile)
    if any(leaf_hash(record.line) != leaves[record.position - first] for record in records):
        raise TamperError(
            f"the records at positions {first} to {first + width - 1} are not those of the tree: run a verification"
        )
    return render_entries([record.line for record in records]) if len(records) == width else None


def _published(ledger: Ledger, folder: Path, head: Checkpoint) -> int:
    """The size that the folder's own checkpoint covers; 0 for a new folder."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    old = _parse(path.read_bytes(), place=str(path))
    if old.origin != head.origin:
        raise ConflictError(f"{folder} holds the tiles of {old.origin}, not of {head.origin}: name another folder")
    if old.size > head.size:
        raise TamperError(
            f"{folder} was published with {old.size} records, and the ledger has {head.size}: "
            "records were cut off, or an old copy was put back; run a verification"
        )
    if old.size:
        proof = consistency_path(old.size, head.size, node=TileNodes(head.size, ledger.tile))
        if not verify_consistency(old.size, head.size, path=proof, old_root=old.root, root=head.root):
            raise TamperError(f"the ledger does not begin with what was published in {folder}: run a verification")
    return old.size


def _parse(signed: bytes, *, place: str) -> Checkpoint:
    try:
        return Checkpoint.of_note(signed)
    except RejectedError as error:
        raise RejectedError(f"not a checkpoint: {error}", place=place, cure="name another folder") from error


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, data, synced=path.name == CHECKPOINT, published=True)
