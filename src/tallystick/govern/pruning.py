"""What a prune would do, and what it did: values, for whoever decides and whoever is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tallystick.core.pruned import Absent
from tallystick.govern.selection import Terms

_PLANNED: Final = (
    *("end", "first", "count", "bytes", "kept", "kept_own", "kept_by_hold", "kept_by_label"),
    *("oldest_kept", "policy", "policy_position", "unfinished", "size"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What a prune would do now. Nothing was done."""

    end: int
    """All positions below were considered; `first` is the first of those whose records go."""
    first: int | None
    count: int
    bytes: int
    """Of the records that go."""
    kept: int
    """Records below `end` that stay, of whatever reason."""
    kept_own: int
    kept_by_hold: Mapping[str, int]
    kept_by_label: Mapping[str, int]
    """By name; a record that several keep is counted for each."""
    oldest_kept: str | None
    """The recorded time of the oldest record that stays and is not one of the ledger's own."""
    policy: str
    """The policy in force, for people."""
    policy_position: int
    unfinished: int | None
    """The position of an earlier prune that was cut short; it is finished first, and not counted here."""
    size: int
    """The size of the ledger that was looked at."""
    terms: Terms
    absent: Absent

    def to_json(self) -> dict[str, Any]:
        """As it is told of, without what only the prune needs."""
        told = {name: getattr(self, name) for name in _PLANNED}
        return {**told, "kept_by_hold": dict(self.kept_by_hold), "kept_by_label": dict(self.kept_by_label)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune did. `position` is that of its record; None when there was nothing to prune."""

    position: int | None
    end: int
    count: int
    bytes: int
    finished: int | None
    """The position of an earlier prune that had been cut short, and was finished first."""

    def to_json(self) -> dict[str, Any]:
        """As it is told of."""
        return {name: getattr(self, name) for name in ("position", "end", "count", "bytes", "finished")}
