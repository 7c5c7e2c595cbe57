"""Indexes for one use, in memory or in a temporary folder: for those who may not write, and for what is evidence."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from tallystick.read.index import FindId
from tallystick.read.index_files import FILE_NAME, copy_index, delete_files
from tallystick.read.sqlite_index import SqliteIndexFile
from tallystick.store.contract import Store

SCRATCH_IN_MEMORY_RECORDS: Final = 50_000
"""Records up to which an index for one use is in memory, where it takes some ten megabytes."""


def open_private_index(folder: Path | None, store: Store, *, find: FindId | None = None) -> SqliteIndexFile:
    """An index that nobody else sees, in a temporary folder, begun with what the one in `folder` has."""
    scratch = tempfile.TemporaryDirectory(prefix="tallystick-index-")
    try:
        if folder is not None and (folder / FILE_NAME).exists():
            copy_index(folder / FILE_NAME, Path(scratch.name) / FILE_NAME)
        return SqliteIndexFile(Path(scratch.name), store, find=find, scratch=scratch)
    except BaseException:
        scratch.cleanup()
        raise


def open_scratch_index(store: Store, *, find: FindId | None = None) -> SqliteIndexFile:
    """An index made from nothing for one use: in memory, or for a large ledger in files that have no name any more, so
    that nobody can edit them."""
    head = store.head()
    if head is None or head.size <= SCRATCH_IN_MEMORY_RECORDS:
        return SqliteIndexFile(None, store, find=find)
    scratch = tempfile.TemporaryDirectory(prefix="tallystick-index-")
    try:
        index = SqliteIndexFile(Path(scratch.name), store, find=find, scratch=scratch)
        delete_files(Path(scratch.name))  # those who have them open go on
    except BaseException:
        scratch.cleanup()
        raise
    return index
