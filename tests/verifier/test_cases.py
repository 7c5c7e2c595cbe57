"""The verifier finds in each made bundle and in each golden vector exactly what it must."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest
import tallystick_verify
from tallystick_verify import Finding

from tests.verifier import cases, maker
from tests.verifier.cases import Case

VECTORS: Final = Path(__file__).parents[2] / "vectors"


def found_in(findings: list[Finding]) -> set[tuple[str, int | None]]:
    return {(finding.kind, finding.line) for finding in findings}


def judged(
    first: Path, second: Path | None, *, trust: bytes, known: bytes | None, now: datetime
) -> set[tuple[str, int | None]]:
    if second is None:
        return found_in(tallystick_verify.verify_bundle(first, trust=trust, known=known, now=now).findings)
    one, two, forks = tallystick_verify.verify_pair((first, second), trust=trust, known=known, now=now)
    return found_in([*one.findings, *two.findings, *forks])


@pytest.mark.parametrize("case", cases.EVERY, ids=lambda case: case.name)
def test_each_made_bundle_shows_what_is_wrong_with_it(case: Case, tmp_path: Path) -> None:
    first = maker.write(tmp_path / "first", case.files)
    second = None if case.second is None else maker.write(tmp_path / "second", case.second)
    now = datetime.fromisoformat(case.now)

    assert judged(first, second, trust=case.trust, known=case.known, now=now) == case.expected


@pytest.mark.parametrize("case", cases.EVERY, ids=lambda case: case.name)
def test_a_zip_shows_the_same(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(maker.zipped(case.files))
    now = datetime.fromisoformat(case.now)

    in_zip = judged(path, None, trust=case.trust, known=case.known, now=now)

    assert in_zip == judged(
        maker.write(tmp_path / "first", case.files), None, trust=case.trust, known=case.known, now=now
    )


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in VECTORS.glob("*/*/case.json")), ids=lambda path: path.name
)
def test_each_golden_vector_is_judged_as_it_must_be(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_bytes())
    expected = {(finding["kind"], finding.get("line")) for finding in case["findings"]}

    def read(name: str) -> bytes:
        return (folder / name).read_bytes()

    trust = read("trust.policy") if (folder / "trust.policy").exists() else b""
    if case["kind"] == "bundle":
        bundle = folder / ("bundle" if (folder / "bundle").exists() else "bundle.zip")
        second = folder / "second" if (folder / "second").exists() else None
        known = read("known.checkpoint") if (folder / "known.checkpoint").exists() else None
        assert judged(bundle, second, trust=trust, known=known, now=datetime.fromisoformat(case["now"])) == expected
    elif case["kind"] == "record":
        assert found_in(tallystick_verify.judge_record(read("record"))) == expected
    elif case["kind"] == "checkpoint":
        assert found_in(tallystick_verify.judge_checkpoint(read("checkpoint"), trust)) == expected
    else:
        assert found_in(tallystick_verify.judge_proof(read("proof"), read("record"), trust)) == expected
