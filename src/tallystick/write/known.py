"""The port `Known`: the two questions about the past that sealing has to ask.

The answers are derived from the log (I5), so whatever gives them may be lost and rebuilt at any time. They are sealed:
whoever gives them has proven them, also that there is no such entity and no such id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from tallystick.errors import ConflictError
from tallystick.store.verified_reads import VerifiedReads


class MadeRun(NamedTuple):
    """Neighbouring records whose made ids count up with their positions (`tallystick.ids`)."""

    prefix: str
    counter: int
    position: int
    length: int


class BehindError(ConflictError):
    """Another process has sealed more than was read: read the head, and plan, again."""


class Known(Protocol):
    """Answers for the records already sealed. Called by one thread at a time."""

    def catch_up(self, reads: VerifiedReads) -> None:
        """Read what the log has and is not known yet; the answers then cover at least what `reads` proves.

        `reads` goes on to stand for all that the sealer has committed. Raises `TamperError` where the log is not the
        one that was known.
        """

    def check_room(self) -> None:
        """Whether what is sealed next can be remembered. Raises `BusyError`."""

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
