"""The evidence pack: a bundle of the records that fit a set of controls, and beside it a report on what they show.

Assessment, bundle and report are of one size of the ledger, fixed at the start. What is written where:
`bundle/` holds the bundle and nothing else, `report.html` and `report.pdf` the report, `assessment.json` what the
report says, for machines. Where no event fits there is no bundle to make, and the report says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tallystick.errors import RejectedError
from tallystick.evidence.bundle.export import Exported
from tallystick.evidence.controls.assessment import Assessment, Assessor
from tallystick.evidence.controls.catalogue import Catalogue, Control
from tallystick.evidence.controls.period import Period
from tallystick.evidence.others.vouching import Vouchers
from tallystick.evidence.report import load, make, pdf, write
from tallystick.evidence.report.view import checkpoint_of
from tallystick.ledger import Ledger
from tallystick.read.query import Query

BUNDLE: Final = "bundle"
DOCUMENT: Final = "evidence-pack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """What was written, and what was found."""

    folder: Path
    assessments: tuple[Assessment, ...]
    exported: Exported | None
    """None when no event fits, and so no bundle was made."""
    size: int
    files: tuple[str, ...]

    @property
    def gaps(self) -> int:
        return sum(each.status == "gap" for each in self.assessments)

    def to_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        exported = self.exported
        bundle = exported and {
            "folder": BUNDLE,
            "records": exported.count,
            "manifest_sha256": exported.manifest_sha256,
            "events_sha256": exported.events_sha256,
            "size": exported.size,
            "export_position": exported.position,
            "proves": "that each record in it was in the ledger, unchanged; not that the selection is complete",
        }
        return {
            "folder": str(self.folder),
            "size": self.size,
            "bundle": bundle,
            "files": [*self.files],
            "evidenced": len(self.assessments) - self.gaps,
            "gaps": self.gaps,
            "controls": [each.to_json() for each in self.assessments],
        }


def make_pack(
    ledger: Ledger,
    folder: str | os.PathLike[str],
    controls: Sequence[Control],
    *,
    period: Period,
    catalogue: Catalogue,
    actor: str | Mapping[str, str] | None = None,
    as_pdf: bool = False,
    vouchers: Vouchers | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Pack:
    """Write the pack into a folder that is new or empty, and say what is in it. The export is recorded as by `actor`.

    Raises `RejectedError` when something is in the folder already, or PDF is wanted and cannot be made; nothing was
    written then.
    """
    place = Path(folder)
    _check_folder(place)
    document = load(DOCUMENT)
    if as_pdf:
        pdf.check()
    checkpoint = checkpoint_of(ledger)
    assessor = Assessor(ledger, period, size=checkpoint.size)
    found = assessor.assess_all(controls)
    queries = _queries(found, assessor.size)
    place.mkdir(parents=True, exist_ok=True)
    exported: Exported | None = None
    # A crash from here on leaves a folder that is not empty, which the next run refuses; each file in it is whole.
    if queries:
        exported = ledger.export(
            place / BUNDLE, queries, end=assessor.size, actor=actor, vouchers=vouchers, progress=progress
        )
    made = make(
        ledger,
        document,
        period=period,
        catalogue=catalogue,
        given=_told(controls, catalogue, exported),
        checkpoint=checkpoint,
        assessor=assessor,
    )
    names = ["report.html", *(["report.pdf"] if as_pdf else [])]
    for name in names:
        write(made.page, place / name)
    files = (*([BUNDLE] if exported else []), *names, "assessment.json")
    pack = Pack(folder=place, assessments=tuple(found), exported=exported, size=assessor.size, files=files)
    text = json.dumps(pack.to_json(), ensure_ascii=False, indent=2)
    (place / "assessment.json").write_text(f"{text}\n", "utf-8")
    return pack


def _check_folder(folder: Path) -> None:
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise RejectedError(f"cannot be read: {error.strerror or error}", place=str(folder)) from error
    if taken:
        raise RejectedError("something is there already", place=str(folder), cure="name a folder that is new or empty")


def _queries(found: Sequence[Assessment], size: int) -> list[Query]:
    """The questions that found something, evidence or related to it, each held to its window, and each once."""
    queries = {
        each.window.of(query, size=size): None
        for each in found
        for seen in (*each.seen, *each.related)
        if seen.count
        for query in seen.selector.joined
    }
    return [*queries]


def _told(controls: Sequence[Control], catalogue: Catalogue, exported: Exported | None) -> dict[str, str]:
    """What the report is told: which controls, if not all, and what the bundle is."""
    keys = [control.key for control in controls]
    every = keys == [control.key for control in catalogue.controls]
    given = {"controls_wanted": "" if every else " ".join(keys)}
    if exported is not None:
        given |= {
            "bundle": BUNDLE,
            "bundle_records": str(exported.count),
            "manifest_sha256": exported.manifest_sha256,
            "events_sha256": exported.events_sha256,
            "bundle_size": str(exported.size),
            "export_position": str(exported.position),
        }
    return given
