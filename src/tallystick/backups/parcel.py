"""Where a backup is put together: in a hidden folder beside its target, whose name it gets at the end.

A target `….tar` gets one file, into which each ledger goes as soon as it is copied, so that it needs no room twice; any
other a folder. All reaches the disk before the name is given, the manifest last. What a crash leaves is the hidden
folder, which nothing looks at, and in which no manifest is. No file that was there before is ever replaced.

Whoever can write where backups go can write that folder, too. So a parcel has the files that were made for it, which
are named one by one, as they were written; what else lies in the folder, or was put in the place of one, is not taken.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from tallystick.backups.layout import MANIFEST_FILE, SEAL_FILE
from tallystick.backups.manifest import KeptFile
from tallystick.backups.tar import END, padding, render_header
from tallystick.durable import sync, sync_folder
from tallystick.errors import ConflictError, StoreError, TamperError
from tallystick.made_file import Made, make_file
from tallystick.plain_file import check_folder
from tallystick.private_file import create, make_folder


class Parcel:
    """One backup on its way. A context manager: what was not handed over when it is left is removed."""

    def __init__(self, target: Path) -> None:
        self.target: Final = target
        self.files: Final[list[KeptFile]] = []
        """What was taken, in that order."""
        self._as_tar: Final = target.suffix == ".tar"
        self._tar: IO[bytes] | None = None

    def __enter__(self) -> Parcel:
        self._scratch: Path = make_scratch(self.target, is_folder=not self._as_tar)
        with told(self.target):
            make_folder(self.room)
            if self._as_tar:
                self._tar = create(self._scratch / "backup.tar")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tar is not None:
            self._tar.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def room(self) -> Path:
        """The folder in which whoever makes a backup puts its files, under the names that they have there."""
        return self._scratch / "backup"

    def folder(self, name: str) -> Path:
        """A folder in the room, made if it is not there."""
        with told(self.target):
            path = check_folder(self.room / name, below=self._scratch)
            make_folder(path)
        return path

    def write(self, name: str, data: bytes) -> None:
        """Put a small file there, and take it."""
        path = self.folder(str(Path(name).parent)) / Path(name).name
        with told(self.target):
            made = make_file(path, data)
        self.take([made])

    def take(self, files: Iterable[Made]) -> None:
        """Take files that were made in the room. Raises `TamperError` for one that is not as it was written."""
        for made in sorted(files, key=lambda made: made.path):
            self._take(made)

    def hand_over(self, manifest: bytes, seal: bytes | None) -> None:
        """Add the manifest, and give it all its name. Raises `ConflictError` when that was taken meanwhile."""
        with told(self.target):
            if seal is not None:
                self.write(SEAL_FILE, seal)
            if not self._as_tar:
                sync_folders(self.room)  # so that nothing that the manifest names can be missing beside it
            self.write(MANIFEST_FILE, manifest)
            if self._tar is not None:
                self._tar.write(END)
                sync(self._tar)
                give_name(self._scratch / "backup.tar", self.target)
                if not os.path.samestat(os.fstat(self._tar.fileno()), self.target.lstat()):
                    raise TamperError(f"{self.target} is not what was written: find out who can write there")
            else:
                sync_folder(self.room)
                give_name(self.room, self.target)

    def _take(self, made: Made) -> None:
        name = made.path.relative_to(self.room).as_posix()
        with told(self.target):
            if self._tar is None:
                made.check_name()
            else:
                self._tar.write(render_header(name, made.size))
                for chunk in made.chunks():
                    self._tar.write(chunk)
                self._tar.write(padding(made.size))
                made.path.unlink()
        self.files.append(KeptFile(name, made.size, made.sha256))


def make_scratch(target: Path, *, is_folder: bool = True) -> Path:
    """A hidden folder beside a target, which must be free. Raises `ConflictError` and `StoreError`."""
    check_free(target, is_folder=is_folder)
    with told(target):
        make_folder(target.parent)
        return Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))


def check_free(target: Path, *, is_folder: bool = True) -> None:
    """Raises `ConflictError` for a target that is there, unless it is an empty folder where a folder is to be."""
    with told(target):
        if not (target.exists() or target.is_symlink()):
            return
        if is_folder and target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
            return
    raise ConflictError(f"{target} is there already, and nothing is ever replaced: name another place")


def give_name(made: Path, target: Path) -> None:
    """Give what was made, and is on the disk, its name: at one stroke, and never that of something that is there."""
    check_free(target, is_folder=made.is_dir())
    try:
        if made.is_dir() or not _linked(made, target):
            made.rename(target)  # of a folder it fails where there is one with something in it
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        raise ConflictError(f"{target} is there already, and nothing is ever replaced: name another place") from error
    sync_folder(target.parent)


def _linked(made: Path, target: Path) -> bool:
    """Give a file a second name, which unlike a rename replaces nothing; False where files have only one, as on FAT."""
    try:
        os.link(made, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


def sync_folders(folder: Path) -> None:
    """Have the names in a folder, and in all below it, reach the disk."""
    for path, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(path))


@contextmanager
def told(target: Path) -> Iterator[None]:
    """A failing disk as our own error."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"could not write {target}: {error.strerror or error}") from error
