"""What the index file is made of, and the statements that fill it: `index.sql` and `index_save.sql`, read once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from tallystick.sqlite_file import named_statements


@cache
def schema() -> str:
    """The script that makes an index in an empty database."""
    return _sql("index.sql").replace("␁", "\x01")


@cache
def save_statements() -> dict[str, str]:
    """The statements of `index_save.sql` by name."""
    return named_statements(_sql("index_save.sql"))


def _sql(name: str) -> str:
    return files("tallystick.read").joinpath(name).read_text("utf-8")
