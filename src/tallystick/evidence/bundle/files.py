"""An evidence bundle at rest: three files in a folder, or in one zip; opened with suspicion (SPEC 10.1).

Nothing is unpacked, no link is followed, and no more is read than the limits allow. What the files say is for
`tallystick.evidence.bundle.check`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tallystick.core.manifest import BUNDLE_FILES, EVENTS_FILE, MANIFEST_FILE, SEAL_FILE
from tallystick.errors import NotFoundError, RejectedError
from tallystick.evidence.bundle.zips import read_entries
from tallystick.limits import BUNDLE_EVENTS_BYTES_MAX, MANIFEST_BYTES_MAX, RECORD_BYTES_MAX, SEAL_BYTES_MAX

_BYTES_MAX: Final = {
    MANIFEST_FILE: MANIFEST_BYTES_MAX,
    SEAL_FILE: SEAL_BYTES_MAX,
    EVENTS_FILE: BUNDLE_EVENTS_BYTES_MAX,
}
_ENTRIES_MAX: Final = 16
"""Names of strangers that are looked at; one is enough for a finding."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The manifest and its signature, read; and the records, to be read once, line by line."""

    manifest: bytes
    seal: bytes
    events: IO[bytes]

    def lines(self, bytes_max: int) -> Iterator[bytes]:
        """The lines with their newlines, up to so many bytes; one that is longer than any record comes in parts."""
        while bytes_max > 0:
            raw = self.events.readline(min(RECORD_BYTES_MAX + 2, bytes_max))
            if not raw:
                return
            bytes_max -= len(raw)
            yield raw


@contextmanager
def open_bundle(path: str | os.PathLike[str]) -> Iterator[Bundle]:
    """Open a folder or a zip. Raises `NotFoundError`, or `RejectedError` for what is no bundle (SPEC 11, step 1)."""
    place = Path(path)
    if not place.exists():
        raise NotFoundError(f"there is no bundle at {place}")
    if place.is_dir():
        with _open_folder(place) as bundle:
            yield bundle
        return
    with _regular(place).open("rb") as file:
        entries = read_entries(file, BUNDLE_FILES)
        for name, entry in entries.items():
            _check_size(name, entry.size)
        small = {}
        for name in (MANIFEST_FILE, SEAL_FILE):
            with entries[name].open(file) as stream:
                small[name] = stream.read()
        with entries[EVENTS_FILE].open(file) as events:
            yield Bundle(small[MANIFEST_FILE], small[SEAL_FILE], events)


@contextmanager
def _open_folder(folder: Path) -> Iterator[Bundle]:
    with os.scandir(folder) as entries:
        names = [entry.name for _, entry in zip(range(_ENTRIES_MAX), entries, strict=False)]
    _check_names(names)
    read = {name: _regular(folder / name).read_bytes() for name in (MANIFEST_FILE, SEAL_FILE)}
    with _regular(folder / EVENTS_FILE).open("rb") as events:
        yield Bundle(read[MANIFEST_FILE], read[SEAL_FILE], events)


def _regular(file: Path) -> Path:
    """The file, if it is one: no link, no pipe, no folder, and not too large."""
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise RejectedError("it is not a regular file", place=file.name, cure="take the files as they were exported")
    _check_size(file.name, found.st_size)
    return file


def _check_names(names: list[str]) -> None:
    if sorted(names) != sorted(BUNDLE_FILES):
        strange = (
            sorted({*names} - {*BUNDLE_FILES}) or sorted({*BUNDLE_FILES} - {*names}) or ["a name that comes twice"]
        )
        problem = f"a bundle is {', '.join(BUNDLE_FILES)} and nothing else"
        raise RejectedError(problem, place=ascii(strange[0])[:80])


def _check_size(name: str, size: int) -> None:
    most = _BYTES_MAX.get(name, BUNDLE_EVENTS_BYTES_MAX)
    if size > most:
        raise RejectedError(f"{size} bytes; at most {most} are allowed", place=name)
