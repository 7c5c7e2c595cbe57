"""A small file system that is really there, and really full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_CHUNK_BYTES: Final = 1 << 20


@contextmanager
def small(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system in memory, mounted at a new directory. Needs the right to mount (`test_crash.may_mount`)."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(file: Path, *, leaving: int = 0) -> None:
    """Take what room there is, but for so many bytes."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        while True:
            found = os.fstatvfs(descriptor)
            free = found.f_bavail * found.f_frsize - leaving
            if free <= 0:
                return
            os.write(descriptor, b"x" * min(free, _CHUNK_BYTES))
    finally:
        os.close(descriptor)
