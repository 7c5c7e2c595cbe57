"""Names within a URL's path, written so that nothing on the way takes them for something else."""

from __future__ import annotations

from urllib.parse import quote

from tallystick.core.canonical import SURROGATE
from tallystick.errors import RejectedError


def quoted(name: str) -> str:
    """A name as one part of a path, slashes in it included. Raises `RejectedError` for one that no UTF-8 can hold.

    A name of dots only would be taken for a way up.
    """
    if SURROGATE.search(name):
        raise RejectedError("a lone surrogate, which no UTF-8 can hold", cure="send whole characters")
    text = quote(name, safe="")
    return text.replace(".", "%2E") if set(text.replace("%2F", "")) <= {"."} else text
