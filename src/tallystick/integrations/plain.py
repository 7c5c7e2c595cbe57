"""What an application has at hand, as an event can hold it: plain JSON, bounded, and never an exception."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from tallystick.limits import ENTITY_ID_CHARACTERS_MAX, INTEGER_MAX

_DEPTH_MAX: Final = 6
_MEMBERS_MAX: Final = 100
_TEXT_BYTES_MAX: Final = 4_096
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON; what JSON does not have is told as text, and what is too much is cut."""
    if value is None or type(value) is bool:
        return value
    if type(value) is int and -INTEGER_MAX <= value <= INTEGER_MAX:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset) and depth < _DEPTH_MAX:
        return _container(value, depth + 1)
    return cut(_text(value))


def _container(value: Any, depth: int) -> Any:
    try:
        if isinstance(value, Mapping):
            members = islice(value.items(), _MEMBERS_MAX)
            return {cut(_text(name), 256): plain(member, depth) for name, member in members}
        return [plain(member, depth) for member in islice(value, _MEMBERS_MAX)]
    except Exception:  # noqa: BLE001 - a container of the application's own may do anything
        return f"<{type(value).__name__} that cannot be read>"


def cut(text: str, bytes_max: int = _TEXT_BYTES_MAX) -> str:
    """The text, of at most so many bytes in UTF-8, which it can be written in."""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= bytes_max else data[: bytes_max - 3].decode("utf-8", "ignore") + "…"


def key(text: str) -> str:
    """The text as an identifier may be: not empty, bounded, without control characters."""
    return _CONTROL.sub("?", cut(text, ENTITY_ID_CHARACTERS_MAX)) or "-"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - the application's own __str__ may do anything
        return f"<{type(value).__name__} that cannot be shown>"
