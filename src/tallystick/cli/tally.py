"""What becomes of the events of an input: where each stood, and how many were sealed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tallystick.cli import screen
from tallystick.errors import RejectedError

if TYPE_CHECKING:
    from tallystick import Sealed


class Item(NamedTuple):
    """One event of the input: where it stood, its bytes, and itself, or why it cannot be taken."""

    file: str
    unit: str
    number: int
    size: int
    event: bytes | dict[str, Any] | RejectedError

    @property
    def place(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


@dataclass(slots=True)
class Tally:
    """What has become of the input so far."""

    taken: int = 0
    """Items fetched, of which the last may not be decided yet."""
    sealed: int = 0
    already: int = 0
    bad: int = 0
    breaches: int = 0
    """Of those sealed, how many break their schema."""
    bytes: int = 0
    first: int | None = None
    last: int | None = None
    through: Item | None = None
    """The last item that is in the ledger."""
    began: float = field(default_factory=time.monotonic)

    @property
    def read(self) -> int:
        """Items of which it is known what became of them."""
        return self.sealed + self.already + self.bad

    def count(self, items: Sequence[Item], receipts: Sequence[Sealed]) -> None:
        for receipt in receipts:
            if receipt.replayed:
                self.already += 1
            else:
                self.sealed += 1
                self.first = receipt.position if self.first is None else self.first
                self.last = receipt.position
                self.breaches += bool(receipt.breach)
        self.through = items[-1]

    def to_json(self, size: int) -> dict[str, object]:
        through = self.through
        return {
            "read": self.read,
            "sealed": self.sealed,
            "already": self.already,
            "bad": self.bad,
            "breaches": self.breaches,
            "first": self.first,
            "last": self.last,
            "through": through and {"file": through.file, through.unit: through.number},
            "size": size,
            "seconds": round(time.monotonic() - self.began, 3),
        }


def say_tally(tally: Tally, size: int, *, as_json: bool) -> None:
    """Print what became of the input, and the ledger's size now."""
    if as_json:
        screen.say_json(tally.to_json(size))
        return
    bad = f", {tally.bad:,} bad" if tally.bad else ""
    bad += f", {tally.breaches:,} of the new breaking their schema" if tally.breaches else ""
    screen.say(f"{tally.read:,} read, {tally.sealed:,} new, {tally.already:,} already there{bad}")
    if tally.through is None:
        return
    seconds = max(time.monotonic() - tally.began, 0.001)
    if tally.sealed:
        pairs = [("positions", f"{tally.first} to {tally.last}")]
        pairs.append(("rate", f"{tally.sealed / seconds:,.0f} events a second ({seconds:.2f} s)"))
        screen.say_pairs(pairs)
    screen.say_pairs([("up to    ", tally.through.place), ("ledger   ", screen.counted(size, "record"))])
