"""Where things are: the only reader of the environment, and the only module that names an adapter.

Adapters are imported when they are asked for, so a plain install needs no driver that it does not use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from tallystick.errors import RejectedError
from tallystick.keystore import Keystore
from tallystick.made_file import Made
from tallystick.read.index import FindId, IndexFile
from tallystick.store.contract import Store
from tallystick.time_source import TimeSource
from tallystick.write.run_set import RunFile

if TYPE_CHECKING:
    from tallystick.read.sqlite_check import IndexCheck
    from tallystick.read.sqlite_cursors import SqliteCursors

KEYS_VARIABLE: Final = "TALLYSTICK_KEYS"
"""The folder of the signing keys; by default `keys` in the ledger's own folder."""

KEYS_GROUP_READABLE_VARIABLE: Final = "TALLYSTICK_KEYS_GROUP_READABLE"
"""Whether key files are accepted that their group may read: `true` or `false`, which is the default."""

MARKS_VARIABLE: Final = "TALLYSTICK_MARKS"
"""The folder of the head marks; by default `heads` in the folder of the keys."""

MARKS_FOLDER: Final = "heads"

CLOCK_SOURCE_VARIABLE: Final = "TALLYSTICK_CLOCK_SOURCE"
"""The URL of a server by whose `Date` the machine's clock is checked before the first batch is sealed; by default
none."""

DEPLOYMENT_VARIABLE: Final = "TALLYSTICK_DEPLOYMENT"
"""The deployment's name, the first part of a new ledger's origin; by default `local`."""


LEDGER_FILE: Final = "ledger.db"
CURSORS_FILE: Final = "cursors.db"
RESTORED_FILE: Final = "restored.json"
"""What rests in a ledger's folder and cannot be made anew from something else, as the adapters for folders name it."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where one ledger rests: a folder, or None for a ledger in memory."""

    folder: Path | None
    scratch: bool = False
    """Whether the index is made from nothing, for this opening alone, where nobody finds it: for answers that serve as
    evidence. Neither the index nor the cursors that lie here are looked at."""
    still: bool = False
    """Whether nobody writes to it, and nothing may be left beside it by reading: a copy that is looked at."""

    @classmethod
    def parse(cls, url: str | os.PathLike[str]) -> Location:
        """A path, `sqlite:///path/to/folder`, or `memory:`. Raises `RejectedError` for another scheme."""
        text = os.fsdecode(url)
        if "\0" in text:
            raise RejectedError("the ledger's path has a NUL character", cure="give a folder")
        if not isinstance(url, str):
            return cls(Path(text))
        try:
            parts = urlsplit(text)
        except ValueError as error:
            raise RejectedError(f"{text!r} is not a URL: {error}", cure="give a folder") from error
        if text == "memory:":
            return cls(None)
        plain = not (parts.netloc or parts.query or parts.fragment)
        if parts.scheme == "sqlite" and plain and parts.path not in ("", "/"):
            return cls(Path(unquote(parts.path)))
        # One letter before the colon is a Windows drive, not a scheme.
        if "://" in text or (len(parts.scheme) > 1 and parts.scheme in _KNOWN_SCHEMES):
            raise RejectedError(
                f"there is no store for {text!r}",
                cure="give a folder, sqlite:///path/to/folder, or memory:",
            )
        if not text:
            raise RejectedError("the ledger's path is empty", cure="give a folder")
        return cls(Path(text))

    @property
    def name(self) -> str:
        """The name that a ledger made here gets when none is given."""
        return self.folder.resolve().name if self.folder else "memory"

    @property
    def keys_folder(self) -> Path | None:
        """Where the keys are: what the environment says, else `keys` beside the ledger."""
        chosen = os.environ.get(KEYS_VARIABLE)
        if chosen:
            return Path(chosen)
        return self.folder / "keys" if self.folder else None

    def has_traces(self) -> bool:
        """Whether an index lies here, which is made only beside a ledger."""
        if self.folder is None:
            return False
        from tallystick.read.index_files import FILE_NAME

        return (self.folder / FILE_NAME).exists()

    def open_store(self, *, readonly: bool = False) -> Store:
        """The store of this location. Touches nothing until it is used."""
        if self.folder is None:
            from tallystick.store.memory import MemoryStore

            return MemoryStore()
        from tallystick.store.sqlite import SqliteStore

        return SqliteStore(self.folder, readonly=readonly or self.still, still=self.still)

    def open_index(self, store: Store, *, private: bool = False, find: FindId | None = None) -> IndexFile:
        """The index file of this location. A private one is a copy in a temporary folder, for who may not write.

        `find` gives the position of an event id, which the index does not know.
        """
        from tallystick.read.index_scratch import open_private_index, open_scratch_index
        from tallystick.read.sqlite_index import SqliteIndexFile

        if self.scratch:
            return open_scratch_index(store, find=find)
        private = private or not self.is_writable()
        if private:
            return open_private_index(self.folder, store, find=find)
        return SqliteIndexFile(self.folder, store, find=find)

    def check_index(self, store: Store) -> IndexCheck | None:
        """A comparison of this location's index with its log; None where there is no index in a file."""
        if self.folder is None:
            return None
        from tallystick.read.index_files import FILE_NAME
        from tallystick.read.sqlite_check import IndexCheck
        from tallystick.read.sqlite_index import LAYOUT

        path = self.folder / FILE_NAME
        return IndexCheck(path, store, layout=LAYOUT) if path.exists() else None

    def open_runs_readonly(self) -> RunFile | None:
        """The same for who only looks; None where there is no such file."""
        if self.folder is None:
            return None
        from tallystick.store.sqlite_sealing import FILE_NAME, SqliteRunFile

        return SqliteRunFile(self.folder, readonly=True) if (self.folder / FILE_NAME).exists() else None

    def open_runs(self) -> RunFile:
        """Where the sealer keeps what it has to know of the past of this location's ledger."""
        if self.folder is None:
            from tallystick.store.memory_sealing import MemoryRunFile

            return MemoryRunFile()
        from tallystick.store.sqlite_sealing import SqliteRunFile

        return SqliteRunFile(self.folder)

    def delete_index(self) -> None:
        """Remove the index file. Nothing is lost that the log does not say."""
        if self.folder is not None:
            from tallystick.read.index_files import delete_files

            delete_files(self.folder)

    @property
    def is_restored_copy(self) -> bool:
        """Whether the ledger was restored from a backup, and nobody said that it replaces its original."""
        return self.folder is not None and (self.folder / RESTORED_FILE).exists()

    def open_cursors(self, ledger_id: bytes, *, key: bytes | None, private: bool = False) -> SqliteCursors:
        """Where projections and subscriptions of this location's ledger keep their place; private: in memory."""
        from tallystick.read.sqlite_cursors import SqliteCursors

        private = private or self.scratch or not self.is_writable()
        return SqliteCursors(None if private else self.folder, ledger_id, key=key)

    def copy_cursors(self, folder: Path) -> Made | None:
        """Copy what projections and subscriptions have reached into another folder; None where there is nothing.

        Durable on return, but for the name. Whoever uses it meanwhile is not held up.
        """
        if self.folder is not None and (self.folder / CURSORS_FILE).exists():
            from tallystick.read.sqlite_cursors import copy_cursors

            return copy_cursors(self.folder, folder)
        return None

    def is_writable(self) -> bool:
        """Whether this process may write beside the ledger."""
        return self.folder is None or os.access(self.folder, os.W_OK)


_FLAGS: Final = {"": False, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_KNOWN_SCHEMES: Final = frozenset(("sqlite", "memory", "postgres", "postgresql", "s3", "dynamodb", "http", "https"))


def deployment_name() -> str:
    """The deployment's name, for the origin of a new ledger."""
    return os.environ.get(DEPLOYMENT_VARIABLE) or "local"


def open_keystore(folder: Path | None, *, group_readable: bool | None = None) -> Keystore:
    """The keys in a folder. Their group may read them if so given, else if the environment says so.

    Raises `RejectedError` for an environment that says neither yes nor no.
    """
    if group_readable is None:
        text = os.environ.get(KEYS_GROUP_READABLE_VARIABLE, "")
        if text.lower() not in _FLAGS:
            problem = f"{text[:60]!r} is neither true nor false"
            raise RejectedError(problem, place=KEYS_GROUP_READABLE_VARIABLE, cure="use true or false")
        group_readable = _FLAGS[text.lower()]
    return Keystore(folder, group_readable=group_readable)


def marks_folder(given: str | os.PathLike[str] | None, keys: Path | None) -> Path | None:
    """Where the head marks of ledgers are: as given, else what the environment says, else in the folder of the keys.

    None when there is no such folder, as for a ledger in memory.
    """
    chosen = given or os.environ.get(MARKS_VARIABLE)
    if chosen:
        return Path(chosen)
    return None if keys is None else keys / MARKS_FOLDER


def environment() -> dict[str, str]:
    """The variables of the environment that are meant for Tallystick, by their names."""
    return {name: value for name, value in os.environ.items() if name.startswith("TALLYSTICK_")}


@cache
def _source_at(url: str) -> TimeSource:
    """One for the process, which keeps what it was told."""
    return TimeSource(url)


def time_source() -> Callable[[], int | None] | None:
    """What tells the time as another machine has it; None where the environment names nobody."""
    url = os.environ.get(CLOCK_SOURCE_VARIABLE)
    return _source_at(url).now if url else None
