"""The golden vectors: the library judges them as SPEC says, and making them anew changes nothing.

The verifier and its page are judged by the same files in tests/verifier.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tallystick.core.checked_proof import check_proof
from tallystick.core.checkpoint import Checkpoint, open_checkpoint
from tallystick.core.note import Note
from tallystick.core.policy import Policy
from tallystick.core.record import Record
from tallystick.core.timestamp import parse_rfc3339
from tallystick.errors import RejectedError, TamperError
from tallystick.evidence.bundle.check import verify_bundle
from tallystick.evidence.bundle.pair import verify_pair
from vectors.make import contents

FOLDER: Final = Path(__file__).parent.parent.parent / "vectors"
CASES: Final = sorted(path.parent for path in FOLDER.glob("*/*/case.json"))
SPEC: Final = (FOLDER.parent / "SPEC.md").read_text("utf-8")


def case_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "case.json").read_bytes())
    return found


def of_kind(kind: str) -> list[Any]:
    folders = (folder for folder in CASES if folder.name.startswith(f"{kind}-"))
    return [pytest.param(folder, id=f"{folder.parent.name}-{folder.name}") for folder in folders]


@pytest.mark.parametrize("folder", of_kind("bundle"))
def test_a_bundle_is_judged_as_its_vector_says(folder: Path) -> None:
    case = case_of(folder)
    path = folder / "bundle.zip" if (folder / "bundle.zip").exists() else folder / "bundle"
    known = folder / "known.checkpoint"
    trust = (folder / "trust.policy").read_bytes()

    def clock() -> int:
        return parse_rfc3339(case["now"])

    report = verify_bundle(path, trust=trust, known=known.read_bytes() if known.exists() else None, clock=clock)
    findings = [*report.findings]
    if (folder / "second").exists():
        findings += verify_pair(path, folder / "second", trust=trust, clock=clock).findings

    assert {(str(one.kind), one.line) for one in findings} == {(one["kind"], one["line"]) for one in case["findings"]}
    assert bool(findings) == (folder.parent.name == "refuse")


@pytest.mark.parametrize("folder", of_kind("record"))
def test_a_record_is_judged_as_its_vector_says(folder: Path) -> None:
    expected = [one["kind"] for one in case_of(folder)["findings"]]

    try:
        Record.parse((folder / "record").read_bytes())
        found = []
    except RejectedError:
        found = ["not-canonical"]

    assert found == expected


@pytest.mark.parametrize("folder", of_kind("checkpoint"))
def test_a_checkpoint_is_judged_as_its_vector_says(folder: Path) -> None:
    expected = [one["kind"] for one in case_of(folder)["findings"]]
    keys = Policy.parse((folder / "trust.policy").read_bytes()).logs
    note = (folder / "checkpoint").read_bytes()

    try:
        open_checkpoint(note, keys, origin=Checkpoint.parse(Note.parse(note).text).origin)
        found = []
    except (RejectedError, TamperError):
        found = ["checkpoint"]

    assert found == expected


@pytest.mark.parametrize("folder", of_kind("trust"))
def test_a_trust_file_is_judged_as_its_vector_says(folder: Path) -> None:
    expected = [one["kind"] for one in case_of(folder)["findings"]]

    try:
        Policy.parse((folder / "trust.policy").read_bytes())
        found = []
    except RejectedError:
        found = ["trust"]

    assert found == expected


@pytest.mark.parametrize("folder", of_kind("proof"))
def test_a_proof_is_judged_as_its_vector_says(folder: Path) -> None:
    expected = [one["kind"] for one in case_of(folder)["findings"]]
    proof, record, trust = ((folder / name).read_bytes() for name in ("proof", "record", "trust.policy"))

    found = sorted(finding.kind for finding in check_proof(proof, record, trust).findings)

    assert found == sorted(expected)


def test_making_the_vectors_anew_changes_nothing() -> None:
    made = contents()

    there = {
        path.relative_to(FOLDER).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for verdict in ("accept", "refuse")
        for path in (FOLDER / verdict).rglob("*")
        if path.is_symlink() or path.is_file()
    }
    assert there.keys() == made.keys()
    assert [path for path, data in made.items() if there[path] != data] == []


def test_every_vector_names_a_section_of_the_specification() -> None:
    for folder in CASES:
        section = case_of(folder)["spec"].split(" ")[0]
        assert f"\n{section}. " in SPEC or f"\n## {section}. " in SPEC, folder.name


def test_every_kind_of_finding_of_a_bundle_has_a_vector() -> None:
    kinds = {one["kind"] for folder in CASES for one in case_of(folder)["findings"]}

    assert kinds == {
        *("bundle", "manifest", "genesis", "events", "not-canonical", "misplaced", "missing", "chain", "time", "clock"),
        *("signature", "epoch", "entity-version", "commitment", "key-rotation", "checkpoint", "root", "seal"),
        *("prune", "fork", "rollback", "reach", "selection", "witness", "trust"),
    }
