"""What one report may take: records, states and texts together. A page is for reading, and no page has all of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tallystick.errors import RejectedError
from tallystick.read.state import Held, held_anyhow

REPORT_BYTES_MAX: Final = 50_331_648
"""In memory, for all that a report is made of at once."""

CELLS_MAX: Final = 50_000
CHARACTERS_MAX: Final = 2_097_152
"""Texts of all tables and timelines of a report, and their length."""

PDF_CELLS_MAX: Final = 10_000
"""Texts of a PDF that the service makes: to lay each out takes a millisecond, and fourteen kilobytes, of which nobody
knows but Typst."""

_CELL_BYTES: Final = 200
_CHARACTER_BYTES: Final = 10
"""With what it becomes: a character is escaped, and there several times while the page is written."""


class Allowance:
    """What is left for one report."""

    def __init__(self, held: Held = held_anyhow, *, cells_max: int = CELLS_MAX) -> None:
        """`held` is told how many bytes are in memory, and may raise."""
        self._held: Final = held
        self._taken = 0
        self._cells = cells_max
        self._characters = CHARACTERS_MAX

    def take(self, weight: int) -> bool:
        """So many bytes more. False, and none are taken, where there is no room for them."""
        if self._taken + weight > REPORT_BYTES_MAX:
            return False
        self._taken += weight
        self._held(self._taken)
        return True

    def give_back(self, weight: int) -> None:
        """So many bytes less."""
        self._taken -= weight

    def take_row(self, texts: Iterable[str]) -> bool:
        """The texts of a row or an entry, which stay. False where there is no room for them."""
        lengths = [len(text) for text in texts]
        if len(lengths) > self._cells or sum(lengths) > self._characters:
            return False
        if not self.take(len(lengths) * _CELL_BYTES + sum(lengths) * _CHARACTER_BYTES):
            return False
        self._cells -= len(lengths)
        self._characters -= sum(lengths)
        return True

    def hold(self, beside: int) -> None:
        """So many bytes are in memory for the moment. Raises `RejectedError` where there is no room for them."""
        if self._taken + beside > REPORT_BYTES_MAX:
            problem = f"more than {REPORT_BYTES_MAX >> 20} MiB in one report"
            raise RejectedError(problem, cure="ask for less time, or for fewer figures")
        self._held(self._taken + beside)
