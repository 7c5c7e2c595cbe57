"""Where an export goes: a folder of its own, or one zip, and beside it views for people; all of it, or nothing.

Everything is written into a hidden folder beside the target, reaches the disk, and takes the target's name at the
end. What a crash leaves is that hidden folder, which nothing looks at. No file that was there before is ever
replaced. What is signed, or packed, is what was written: others may be able to write beside the target, too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Final, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core.canonical import encode
from tallystick.core.manifest import BUNDLE_FILES, EVENTS_FILE, MANIFEST_FILE, SEAL_FILE
from tallystick.core.sshsig import VIEWS_NAMESPACE, sign_file
from tallystick.durable import sync_folder
from tallystick.errors import ConflictError, RejectedError, StoreError, TamperError
from tallystick.evidence.bundle.views import VIEWS, View
from tallystick.made_file import Made, NewFile, make_file
from tallystick.private_file import FILE_MODE, make_folder

VIEWS_FORMAT: Final = "tallystick-views/1"
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the same records make the same zip


class Delivery:
    """One export on its way. A context manager: what was not handed over when it is left is removed."""

    def __init__(self, target: str | os.PathLike[str], *, as_zip: bool = False, views: Sequence[str] = ()) -> None:
        self.target: Final = Path(target)
        self.views_target: Final = self.target.with_name(f"{self.target.name}.views") if views else None
        self._as_zip: Final = as_zip
        for name in views:
            if name not in VIEWS:
                raise RejectedError(f"there is no view {name!r}", place="views", cure=f"use {', '.join(VIEWS)}")
        self._small: Final[dict[str, bytes]] = {}
        """The small files, by name, as they were written."""
        self.zip_sha256 = ""
        self.zip_bytes = 0
        """Of the zip as it was written, in hex; whoever can write beside the target could change it under its name."""
        self._wanted: Final = tuple(dict.fromkeys(views))
        self._views: list[View] = []
        self._events: Made | None = None

    def __enter__(self) -> Delivery:
        self._check_free()
        try:
            make_folder(self.target.parent)
            prefix = f".{self.target.name}-"
            self._scratch: Path = Path(tempfile.mkdtemp(prefix=prefix, dir=self.target.parent))
            make_folder(self._scratch / "bundle")
            make_folder(self._scratch / "views")
            self._views = [VIEWS[name](self._scratch / "views" / f"events.{name}") for name in self._wanted]
        except OSError as error:
            raise StoreError(f"could not write beside {self.target}: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for view in self._views:
                view.close()
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @contextmanager
    def open_events(self) -> Iterator[NewFile]:
        """The file of records, to be written once."""
        with _told(self.target), NewFile(self._scratch / "bundle" / EVENTS_FILE) as file:
            yield file
            self._events = file.finish()

    def view(self, lines: Sequence[bytes]) -> None:
        """The next records, for the views."""
        for view in self._views:
            view.add(lines)

    def write(self, name: str, data: bytes) -> None:
        """One of the small files."""
        self._small[name] = data
        self._write(self._scratch / "bundle" / name, data)

    def finish(self, manifest: bytes, key: Ed25519PrivateKey, *, events_sha256: bytes) -> None:
        """All was written: make ready what will be handed over, so that only names are left to give.

        `events_sha256` is that of the records as they were written. Raises `TamperError` for others in their place.
        """
        if self._views:
            self._finish_views(manifest, key)
        if self._as_zip:
            with _told(self.target):
                self._zip(events_sha256)

    def hand_over(self) -> None:
        """Give everything its name. The bundle comes last: when it is there, all of it is."""
        with _told(self.target):
            self._check_free()
            if self.views_target is not None:
                (self._scratch / "views").rename(self.views_target)
            (self._scratch / ("bundle.zip" if self._as_zip else "bundle")).rename(self.target)
            sync_folder(self.target.parent)

    def _check_free(self) -> None:
        """Raises `ConflictError` for a file that is there, or a folder with something in it."""
        for target, is_folder in ((self.target, not self._as_zip), (self.views_target, True)):
            if target is None or not (target.exists() or target.is_symlink()):
                continue
            if not (is_folder and target.is_dir() and not target.is_symlink() and not any(target.iterdir())):
                raise ConflictError(f"{target} is there already, and evidence is never replaced: name another place")

    def _finish_views(self, manifest: bytes, key: Ed25519PrivateKey) -> None:
        """Sign a manifest of the views' own that names the bundle (SPEC 10.7)."""
        files = []
        with _told(self.target):
            for view in self._views:
                made = view.finish()
                made.check_name()  # else what is handed over would not be what is signed
                files.append({"bytes": made.size, "file": made.path.name, "sha256": made.sha256.hex()})
        document = {"bundle_sha256": sha256(manifest).hexdigest(), "files": files, "format": VIEWS_FORMAT}
        data = encode(document)
        self._write(self._scratch / "views" / MANIFEST_FILE, data)
        self._write(self._scratch / "views" / SEAL_FILE, sign_file(data, key, namespace=VIEWS_NAMESPACE))

    def _zip(self, events_sha256: bytes) -> None:
        with NewFile(self._scratch / "bundle.zip") as file:
            with zipfile.ZipFile(cast(IO[bytes], file), "w", zipfile.ZIP_DEFLATED) as archive:
                for name in BUNDLE_FILES:
                    info = zipfile.ZipInfo(name, _ZIP_TIME)
                    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, FILE_MODE << 16
                    with archive.open(info, "w", force_zip64=True) as entry:
                        if name in self._small:
                            entry.write(self._small[name])
                        else:
                            self._copy_events(entry, events_sha256)
            made = file.finish()
        self.zip_sha256, self.zip_bytes = made.sha256.hex(), made.size

    def _copy_events(self, entry: IO[bytes], events_sha256: bytes) -> None:
        """Copy the records. Raises `TamperError` where they are not those that were written."""
        assert self._events is not None, "they were written"
        if self._events.sha256 != events_sha256:
            raise TamperError(f"{EVENTS_FILE} beside {self.target} is not what the manifest was made for")
        for chunk in self._events.chunks():
            entry.write(chunk)

    def _write(self, path: Path, data: bytes) -> None:
        with _told(self.target):
            make_file(path, data)


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """A failing disk as our own error."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"could not write {target}: {error.strerror or error}") from error
