"""What the verification of a bundle did and found."""

from __future__ import annotations

from dataclasses import dataclass

from tallystick.core.manifest import Manifest
from tallystick.core.matcher import Match
from tallystick.evidence.findings import MEANING, Kind


@dataclass(frozen=True, slots=True)
class BundleFinding:
    """One failed check. `line` counts from 1 in `events.jsonl`; None where it is not one line's."""

    kind: Kind
    seen: str
    line: int | None = None
    position: int | None = None

    @property
    def place(self) -> str:
        """Where, for people."""
        parts = [f"line {self.line}" if self.line else "", "" if self.position is None else f"position {self.position}"]
        return ", ".join(filter(None, parts)) or "bundle"

    def to_json(self) -> dict[str, object]:
        """The finding as reports print it for machines."""
        return {
            "kind": str(self.kind),
            "line": self.line,
            "position": self.position,
            "seen": self.seen,
            "meaning": MEANING[self.kind],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """What the verification of a bundle did and found."""

    findings: tuple[BundleFinding, ...]
    more: int
    """Findings past those that are kept."""
    manifest: Manifest | None
    """What the bundle says of itself; nothing vouches for it when there are findings."""
    manifest_sha256: bytes | None
    pruned: tuple[str, ...]
    """The prune that speaks for what is absent, in words."""
    matches: tuple[Match, ...]
    """What each selector of the manifest takes of the records, computed here."""
    cosigned: dict[str, int]
    """The witnesses of the trust file whose cosignatures hold, with the POSIX seconds of each."""
    warnings: tuple[str, ...]
    """What holds, and had better be looked at: a time that is a little ahead of this machine's clock."""

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_json(self) -> dict[str, object]:
        """The report as it is printed for machines."""
        manifest, about = self.manifest, dict[str, object]()
        if manifest:
            about = {name: getattr(manifest, name) for name in ("ledger", "origin", "first", "end", "count", "size")}
            about |= {"ledger_id": manifest.ledger_id.hex(), "complete": manifest.is_complete}
            about |= {"selectors": [match.to_json() for match in self.matches], "timestamps": len(manifest.tokens)}
        return {
            "holds": self.holds,
            "findings": [finding.to_json() for finding in self.findings],
            "more_findings": self.more,
            "manifest_sha256": self.manifest_sha256.hex() if self.manifest_sha256 else None,
            **about,
            "pruned": list(self.pruned),
            "cosigned": self.cosigned,
            "warnings": [*self.warnings],
        }
