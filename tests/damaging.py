"""What happens to the database files of a ledger that is in use, done by another process, as it would be.

In the process that has them open, to open and close a file would release SQLite's locks on it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

import apsw

LOG: Final = ("emptied", "kept", "removed")
_EDITS: Final = {
    "ledger.db": "UPDATE record SET bytes = CAST(replace(bytes, 'system', 'sistem') AS BLOB)",
    "index.db": "DELETE FROM event WHERE position = 5",
}


def damage(path: Path, *, main: str = "kept", log: str = "kept") -> None:
    """Damage a database and its write-ahead log."""
    subprocess.run([sys.executable, "-m", "tests.damaging", path, main, log], check=True)


def good_copy(path: Path) -> Path:
    """A copy of the database as it is, beside it."""
    subprocess.run([sys.executable, "-m", "tests.damaging", path, "copied", "kept"], check=True)
    return path.with_name("good.db")


def put_back(path: Path) -> None:
    """Replace a damaged database by the good copy."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.with_name("good.db").rename(path)


def _copy(path: Path, name: str) -> Path:
    target = path.with_name(name)
    with closing(apsw.Connection(str(path))) as source, closing(apsw.Connection(str(target))) as copy:
        with copy.backup("main", source, "main") as backup:
            backup.step()
        copy.pragma("journal_mode", "wal")
    return target


def _damage(path: Path, main: str) -> None:
    size = path.stat().st_size
    if main == "zeroed":
        path.write_bytes(b"")
        os.truncate(path, size)
    elif main == "emptied":
        os.truncate(path, 0)
    elif main == "halved":
        os.truncate(path, size // 2)
    elif main == "garbage":
        with path.open("r+b") as file:
            file.write(random.Random(7).randbytes(size))
    elif main == "replaced":
        edited = _copy(path, "edited.db")
        with closing(apsw.Connection(str(edited))) as connection:
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
                connection.execute(f'DROP TRIGGER "{name}"')
            connection.execute(_EDITS[path.name])
        edited.rename(path)
    elif main == "removed":
        path.unlink()
    elif main == "copied":
        _copy(path, "good.db")


def _main(path: Path, main: str, log: str) -> None:
    _damage(path, main)
    wal = Path(f"{path}-wal")
    if log == "emptied":
        os.truncate(wal, 0)
    elif log == "zeroed":
        size = wal.stat().st_size
        os.truncate(wal, 0)
        os.truncate(wal, size)
    elif log == "removed":
        wal.unlink()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
