"""The evidence pack: a bundle of records, and a report on what they show of a set of controls.

A pack is complete by default: the bundle has every record of the period, and a verifier computes from the signed
selectors which of them match, so that no matching record can be left out. Assessment, bundle and report are of one size
of the ledger, fixed at the start, and read from its log. `bundle/` has the bundle and nothing else, `report.html` and
`report.pdf` the report, `assessment.json` the same for machines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tallystick.errors import ConflictError, RejectedError
from tallystick.evidence.bundle.export import Exported
from tallystick.evidence.controls.assessment import Assessment, Assessor, Reading
from tallystick.evidence.controls.catalogue import Catalogue, Control
from tallystick.evidence.controls.period import Period
from tallystick.evidence.others.vouching import Vouchers
from tallystick.evidence.report import load, make, pdf, write
from tallystick.evidence.report.view import checkpoint_of
from tallystick.ledger import Ledger
from tallystick.private_file import make_folder, write_new

BUNDLE: Final = "bundle"
DOCUMENT: Final = "evidence-pack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a pack would hand over, before anything is written."""

    assessments: tuple[Assessment, ...]
    reading: Reading
    """What was read of the log: the range, how many records it has, and how many of them fit a selector."""
    size: int
    filtered: bool
    scope: tuple[str, ...] = ()
    """The signed terms that hold the caller's key to a part of the ledger."""

    @property
    def kind(self) -> str:
        """`complete` or `filtered`."""
        return "filtered" if self.filtered else "complete"

    @property
    def disclosed(self) -> int:
        """How many records the bundle has."""
        return self.reading.fitting if self.filtered else self.reading.records

    @property
    def unrelated(self) -> int:
        """How many of them fit none of the controls, and are there to show that nothing was left out."""
        return self.disclosed - self.reading.fitting

    @property
    def sentence(self) -> str:
        """Which of the two it is, and what it discloses; the first line of all that is said of the pack."""
        reading = self.reading
        if not self.filtered:
            return (
                f"Complete: every record at positions [{reading.first:,}, {reading.end:,}). It discloses "
                f"{_counted(self.disclosed)}: {reading.fitting:,} matching the controls, {self.unrelated:,} unrelated "
                "to them. No matching record can be left out: a verifier computes the matches."
            )
        why = f", as the key is scoped to {' '.join(self.scope)}" if self.scope else ""
        return (
            f"Filtered{why}: it discloses {_counted(reading.fitting)} matching the controls, and no other. Each is "
            "proven to be in the ledger; that no matching record was left out is not proven."
        )

    def to_json(self) -> dict[str, Any]:
        """The plan for machines."""
        reading = self.reading
        return {
            "pack": self.kind,
            "says": self.sentence,
            "discloses": {"records": self.disclosed, "fitting": reading.fitting, "unrelated": self.unrelated},
            "range": {"first": reading.first, "end": reading.end},
            "scope": [*self.scope],
            "size": self.size,
            "evidenced": sum(each.status != "gap" for each in self.assessments),
            "gaps": sum(each.status == "gap" for each in self.assessments),
            "controls": [each.to_json() for each in self.assessments],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """What was written, and what was found."""

    folder: Path
    plan: Plan
    exported: Exported | None
    """None for a filtered pack when no record fits, and so no bundle was made."""
    files: tuple[str, ...]

    @property
    def assessments(self) -> tuple[Assessment, ...]:
        return self.plan.assessments

    @property
    def size(self) -> int:
        return self.plan.size

    @property
    def gaps(self) -> int:
        return sum(each.status == "gap" for each in self.assessments)

    def to_json(self) -> dict[str, Any]:
        """All of it, for machines; first which kind of pack it is."""
        exported = self.exported
        bundle = exported and {
            "folder": BUNDLE,
            "records": exported.count,
            "manifest_sha256": exported.manifest_sha256,
            "events_sha256": exported.events_sha256,
            "size": exported.size,
            "export_position": exported.position,
        }
        plan = self.plan.to_json()
        first = {name: plan.pop(name) for name in ("pack", "says", "discloses")}
        return {**first, "folder": str(self.folder), "bundle": bundle, "files": [*self.files], **plan}


def plan_pack(
    ledger: Ledger,
    controls: Sequence[Control],
    *,
    period: Period,
    filtered: bool = False,
    scope: Sequence[str] = (),
    progress: Callable[[int, int | None], None] | None = None,
) -> Plan:
    """What a pack would hand over: found out in one pass over the log, and nothing is written.

    A `scope`, in signed terms (SPEC 10.9), is that of a caller who may not see all: the pack is then a filtered one.
    """
    return _planned(Assessor(ledger, period, scope=scope), controls, filtered=filtered, scope=scope, progress=progress)


def _planned(
    assessor: Assessor,
    controls: Sequence[Control],
    *,
    filtered: bool,
    scope: Sequence[str],
    progress: Callable[[int, int | None], None] | None,
) -> Plan:
    reading = assessor.read(controls, progress=progress)
    if reading is None:
        raise RejectedError("no control is named", cure="name at least one")
    return Plan(
        assessments=tuple(assessor.assess_all(controls)),
        reading=reading,
        size=assessor.size,
        filtered=filtered or bool(scope),
        scope=tuple(scope),
    )


def make_pack(
    ledger: Ledger,
    folder: str | os.PathLike[str],
    controls: Sequence[Control],
    *,
    period: Period,
    catalogue: Catalogue,
    filtered: bool = False,
    scope: Sequence[str] = (),
    actor: str | Mapping[str, str] | None = None,
    as_pdf: bool = False,
    vouchers: Vouchers | None = None,
    announce: Callable[[Plan], None] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Pack:
    """Write the pack into a folder that is new or empty, and say what is in it. The export is recorded as by `actor`.

    It is complete: every record of the period is handed over, unrelated ones too, so that a verifier can compute which
    of them match. With `filtered`, or with a `scope` (see `plan_pack`), only matching records are. `announce` is called
    with the plan before anything is written, and may raise to stop it.

    Raises `RejectedError` when something is in the folder already, or PDF is wanted and cannot be made; nothing was
    written then. Raises `ConflictError` when records were pruned meanwhile.
    """
    place = Path(folder)
    _check_folder(place)
    document = load(DOCUMENT)
    if as_pdf:
        pdf.check()
    checkpoint = checkpoint_of(ledger)
    assessor = Assessor(ledger, period, size=checkpoint.size, scope=scope)
    plan = _planned(assessor, controls, filtered=filtered, scope=scope, progress=progress)
    if announce is not None:
        announce(plan)
    make_folder(place)
    # A crash from here on leaves a folder that is not empty, which the next run refuses; each file in it is whole.
    exported = _exported(ledger, place / BUNDLE, plan, actor=actor, vouchers=vouchers, progress=progress)
    made = make(
        ledger,
        document,
        period=period,
        catalogue=catalogue,
        given=_told(controls, catalogue, plan, exported),
        checkpoint=checkpoint,
        assessor=assessor,
        lead=plan.sentence,
    )
    names = ["report.html", *(["report.pdf"] if as_pdf else [])]
    for name in names:
        write(made.page, place / name)
    pack = Pack(
        folder=place,
        plan=plan,
        exported=exported,
        files=(*([BUNDLE] if exported else []), *names, "assessment.json"),
    )
    text = json.dumps(pack.to_json(), ensure_ascii=False, indent=2)
    write_new(place / "assessment.json", f"{text}\n".encode())
    return pack


def _exported(
    ledger: Ledger,
    target: Path,
    plan: Plan,
    *,
    actor: str | Mapping[str, str] | None,
    vouchers: Vouchers | None,
    progress: Callable[[int, int | None], None] | None,
) -> Exported | None:
    if not plan.disclosed:
        return None
    reading = plan.reading
    exported = ledger.export(
        target,
        selectors=reading.signed,
        filtered=plan.filtered,
        first=reading.first,
        end=reading.end,
        actor=actor,
        vouchers=vouchers,
        progress=progress,
    )
    # Both were counted from records under a signed root, so only a prune in between can make them differ.
    found = {seen.signed.name: seen.count for each in plan.assessments for seen in (*each.seen, *each.related)}
    counted = {match.name: match.count for match in exported.matches}
    if exported.count != plan.disclosed or found != counted:
        raise ConflictError("records were pruned while the pack was made: remove the folder, and make it again")
    return exported


def _check_folder(folder: Path) -> None:
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise RejectedError(f"cannot be read: {error.strerror or error}", place=str(folder)) from error
    if taken:
        raise RejectedError("something is there already", place=str(folder), cure="name a folder that is new or empty")


def _counted(number: int) -> str:
    return f"{number:,} {'record' if number == 1 else 'records'}"


def _told(controls: Sequence[Control], catalogue: Catalogue, plan: Plan, exported: Exported | None) -> dict[str, str]:
    """What the report is told: which controls, if not all, and what the bundle is."""
    keys = [control.key for control in controls]
    every = keys == [control.key for control in catalogue.controls]
    given = {"controls_wanted": "" if every else " ".join(keys)}
    if exported is not None:
        given |= {
            "bundle": BUNDLE,
            "bundle_kind": plan.kind,
            "bundle_records": str(exported.count),
            "bundle_fitting": str(plan.reading.fitting),
            "bundle_unrelated": str(plan.unrelated),
            "bundle_first": str(exported.first),
            "bundle_end": str(exported.end),
            "manifest_sha256": exported.manifest_sha256,
            "events_sha256": exported.events_sha256,
            "bundle_size": str(exported.size),
            "export_position": str(exported.position),
        }
    return given
