"""The port `Known`: the two questions about the past that sealing has to ask.

It is where the way in meets the way out. The front door hands the sealer something that answers; the
answers are derived from the log (I5), so whatever gives them may be lost and rebuilt at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class MadeRun(NamedTuple):
    """Neighbouring records whose made ids count up with their positions (`tallystick.ids`)."""

    prefix: str
    counter: int
    position: int
    length: int


class Known(Protocol):
    """Answers for the records already sealed. Called by one thread at a time."""

    def catch_up(self, size: int) -> None:
        """Read what the log has below `size`; the answers then cover at least those records."""

    def version(self, entity_id: str) -> int:
        """The entity's present version; 0 when it has no events."""

    def find_all(self, event_ids: Sequence[str]) -> dict[str, int]:
        """The positions of the records with these event ids; those that no record has are left out."""

    def learn(
        self,
        end: int,
        versions: Mapping[str, int],
        *,
        lines: Sequence[bytes],
        brought: Sequence[tuple[str, int]],
        made: Sequence[MadeRun],
    ) -> None:
        """The records up to `end` are committed, the last of them being `lines`: the new versions, the ids
        brought with their positions, and the ids made. What was learned is answered at once, and kept in its
        own time."""
