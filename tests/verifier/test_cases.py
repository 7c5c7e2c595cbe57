"""The verifier finds in each made bundle and in each golden vector exactly what it must."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest
from tallystick_verify import (
    Finding,
    RefusedError,
    judge_checkpoint,
    judge_proof,
    judge_record,
    verify_bundle,
    verify_pair,
)
from tallystick_verify.notes import Policy

from tests.verifier import cases, maker
from tests.verifier.cases import Case

NOW: Final = datetime.fromisoformat(cases.EVERY[0].now)
VECTORS: Final = Path(__file__).parents[2] / "vectors"


def found_in(findings: list[Finding]) -> set[tuple[str, int | None]]:
    return {(finding.kind, finding.line) for finding in findings}


def judged(
    first: Path, second: Path | None, *, trust: bytes, known: bytes | None, now: datetime
) -> set[tuple[str, int | None]]:
    if second is None:
        return found_in(verify_bundle(first, trust=trust, known=known, now=now).findings)
    one, two, forks = verify_pair((first, second), trust=trust, known=known, now=now)
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


def test_each_step_says_whether_it_was_taken_and_what_came_of_it(tmp_path: Path) -> None:
    good = verify_bundle(
        maker.write(tmp_path / "good", cases.ledger().bundle(0, 14).files()), trust=maker.TRUST, now=NOW
    )
    swapped = next(case for case in cases.EVERY if case.name == "filtered-out-of-order")
    bad = verify_bundle(maker.write(tmp_path / "bad", swapped.files), trust=maker.TRUST, now=NOW)

    outcomes = {number: outcome for number, _, outcome, _ in good.steps}
    assert {number for number, outcome in outcomes.items() if outcome == "not taken"} == {16, 17, 18, 20, 21}
    assert {number for number, outcome in outcomes.items() if outcome == "FINDING"} == set()
    facts = [fact for _, _, _, fact in good.steps]
    assert facts[1] == "complete, [0, 14)"
    assert facts[3] == "14 records"
    assert facts[12].startswith("size 18, root ")
    assert {number for number, _, outcome, _ in bad.steps if outcome == "FINDING"} == {6, 7}
    assert bad.steps[1][3] == "filtered, [2, 7)"
    assert bad.steps[13][2] == "not taken"


def forks(folder: Path, one: maker.Files, two: maker.Files) -> list[str]:
    paths = maker.write(folder / "one", one), maker.write(folder / "two", two)
    _, _, found = verify_pair(paths, trust=maker.TRUST, now=NOW)
    return [finding.seen.split(", with")[0] for finding in found]


def test_each_way_in_which_two_bundles_may_differ_is_told(tmp_path: Path) -> None:
    made, fork, nonce = cases.ledger(), cases.ledger(other=4), maker.Ledger(nonce="11" * 32)
    nonce.open()
    nonce.events(3)
    nonce.close()
    roots = "at size {} one has another root than the checkpoint of the other"
    ledgers = "they are of one origin and two ledgers"

    assert forks(tmp_path / "a", made.bundle(0, 3).files(), fork.bundle(9, 12).files()) == [roots.format(18)]
    assert forks(tmp_path / "b", made.bundle(0, 14).files(), fork.bundle(0, 3, size=9).files()) == [
        roots.format(9),
        "two different records",
    ]
    assert forks(tmp_path / "c", fork.bundle(0, 3, size=9).files(), made.bundle(0, 14).files()) == [
        roots.format(9),
        "two different records",
    ]
    assert forks(tmp_path / "d", made.bundle(9, 12).files(), nonce.bundle(3, 5).files()) == [
        ledgers,
        "two different records",
    ]
    assert forks(tmp_path / "e", made.bundle(0, 9).files(), made.bundle(5, 14, size=16).files()) == []


def test_what_cannot_be_placed_or_is_not_proven_says_nothing_of_another_bundle(tmp_path: Path) -> None:
    made = cases.ledger()
    misplaced, wrong, broken = made.bundle(0, 9), made.bundle(3, 7), made.bundle(0, 9)
    broken.lines[3] = b"{"
    misplaced.lines[3], misplaced.lines[4] = misplaced.lines[4], misplaced.lines[3]
    wrong.lines[1] = maker.changed(wrong.lines[1], labels=["x"])

    assert forks(tmp_path / "a", misplaced.files(tell=True), made.bundle(0, 14).files()) == []
    assert forks(tmp_path / "c", broken.files(tell=True), made.bundle(0, 14).files()) == []
    assert forks(tmp_path / "b", wrong.files(tell=True), made.bundle(9, 12, size=16).files()) == []


def test_two_bundles_are_held_against_the_time_that_is_given(tmp_path: Path) -> None:
    paths = tuple(maker.write(tmp_path / name, cases.ledger().bundle(0, 14).files()) for name in "ab")
    early = datetime.fromisoformat("2026-03-02T00:00:00Z")
    one, two, _ = verify_pair((paths[0], paths[1]), trust=maker.TRUST, now=early)
    assert found_in([*one.findings, *two.findings]) == {("clock", None)}


def test_entities_past_the_bound_are_not_followed_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystick_verify.bundle.ENTITIES_MAX", 2)
    bundle = cases.ledger().bundle(0, 14)
    assert verify_bundle(maker.write(tmp_path / "a", bundle.files()), trust=maker.TRUST, now=NOW).holds

    for number in (12, 13):  # of user-1, which comes third and is not followed, and of user-0, which is
        bundle.lines[number - 1] = maker.changed(bundle.lines[number - 1], entity_version=9)
    folder = maker.write(tmp_path / "b", bundle.files(tell=True))
    found = verify_bundle(folder, trust=maker.TRUST, now=NOW).findings
    assert [finding.line for finding in found if finding.kind == "entity-version"] == [13]


def is_policy(trust: bytes) -> bool:
    try:
        Policy(trust)
    except RefusedError:
        return False
    return True


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
        assert found_in(judge_record(read("record"))) == expected
    elif case["kind"] == "trust":
        assert {("trust", None) for _ in [0] if not is_policy(trust)} == expected
    elif case["kind"] == "checkpoint":
        assert found_in(judge_checkpoint(read("checkpoint"), trust)) == expected
    else:
        assert found_in(judge_proof(read("proof"), read("record"), trust)) == expected
