"""`export` and `check-bundle`: evidence by one command, looked at before it is handed over."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallystick.core.policy import Policy
from tallystick.evidence.others.witness import Witness
from tests import outside
from tests.cli.conftest import Run


@pytest.fixture
def trust(ledger: Path, run: Run) -> str:  # noqa: ARG001 - it must be there
    Path("trust.policy").write_bytes(run("keys", "export", "--trust-file").stdout_bytes)
    return "trust.policy"


def test_all_records_are_one_command_and_hold(trust: str, run: Run) -> None:
    said = run("export", "-o", "evidence", "--actor", "auditor-ann").stdout
    checked = run("check-bundle", "evidence", "--trust", trust).stdout

    assert said.startswith("EXPORTED  8 records of local/audit\n")
    assert "all records at [0, 8), but for lawfully pruned ones" in said
    assert checked.startswith("PASS  the bundle holds\n")
    assert sorted(path.name for path in Path("evidence").iterdir()) == [
        "events.jsonl",
        "manifest.json",
        "manifest.json.sig",
    ]


def test_what_an_export_says_for_machines_is_what_it_did(trust: str, run: Run) -> None:
    facts = json.loads(run("export", "event_type=doc.*", "-o", "docs.zip", "--json").stdout)

    assert (facts["complete"], facts["selectors"]) == (False, [{"name": "event_type=doc.*", "count": 2}])
    assert (facts["count"], facts["path"], facts["views"], facts["warnings"]) == (2, "docs.zip", None, [])
    record = json.loads(run("show", str(facts["position"]), "--json").stdout)
    assert record["payload"]["manifest_sha256"] == facts["manifest_sha256"]
    with zipfile.ZipFile("docs.zip") as archive:
        assert len(archive.namelist()) == 3
    report = json.loads(run("check-bundle", "docs.zip", "--trust", trust, "--json").stdout)
    assert (report["holds"], report["complete"], report["count"]) == (True, False, 2)


def test_a_filtered_bundle_says_that_it_says_nothing_of_others(trust: str, run: Run) -> None:
    said = run("export", "actor=jane", "-o", "jane").stdout
    checked = run("check-bundle", "jane", "--trust", trust).stdout

    assert "it says nothing of those that are not in it" in said
    assert "it says nothing of records that are not in it" in checked


def test_views_lie_beside_the_bundle(trust: str, run: Run) -> None:
    said = run("export", "-o", "evidence", "--view", "csv", "--view", "html").stdout

    assert "they prove nothing" in said
    assert sorted(path.name for path in Path("evidence.views").iterdir()) == [
        "events.csv",
        "events.html",
        "manifest.json",
        "manifest.json.sig",
    ]
    run("check-bundle", "evidence", "--trust", trust)


def test_a_changed_byte_is_told_with_its_line_and_exits_with_1(trust: str, run: Run) -> None:
    run("export", "-o", "evidence")
    events = Path("evidence/events.jsonl")
    events.write_bytes(events.read_bytes().replace(b'"new_value":"editor"', b'"new_value":"admin!"'))

    said = run("check-bundle", "evidence", "--trust", trust, code=1).stdout
    report = json.loads(run("check-bundle", "evidence", "--trust", trust, "--json", code=1).stdout)

    assert said.startswith("FAIL  3 findings\n")
    assert "line 4, position 3" in said
    found = {(one["kind"], one["line"], one["position"]) for one in report["findings"]}
    assert found == {("signature", 4, 3), ("events", None, None), ("root", None, None)}


def test_what_is_since_a_kept_checkpoint_is_held_against_it(trust: str, run: Run) -> None:
    run("checkpoint", "-o", "kept")
    run("append", "--type", "a.b", "--entity", "e")

    said = run("export", "--since", "kept", "-o", "new").stdout
    run("check-bundle", "new", "--trust", trust, "--known-checkpoint", "kept")

    assert "EXPORTED  2 records" in said


def test_two_bundles_are_held_together(trust: str, run: Run) -> None:
    run("export", "-o", "one")
    run("export", "--first", "2", "--end", "5", "-o", "two")

    said = run("check-bundle", "one", "two", "--trust", trust).stdout
    facts = json.loads(run("check-bundle", "one", "two", "--trust", trust, "--json").stdout)

    assert said.startswith("PASS  both bundles hold\n")
    assert [*facts] == ["holds", "first", "second", "between"]

    run("checkpoint", "-o", "newer")
    found = run("check-bundle", "one", "two", "--trust", trust, "--known-checkpoint", "newer", "--json", code=1).stdout
    assert [finding["kind"] for finding in json.loads(found)["first"]["findings"]] == ["rollback"]


def test_times_and_positions_name_a_range(trust: str, run: Run) -> None:
    del trust
    said = run("export", "--from", "2020-01-01", "--to", "2120-01-01", "-o", "times", "--json").stdout

    assert json.loads(said)["first"] == 0
    error = run("export", "--first", "1", "--from", "2020-01-01", "-o", "no", code=2).stderr
    assert "both by times and by positions" in error
    assert not Path("no").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["export"], 2, "--output"),
        (["export", "-o", "evidence", "actor=nobody"], 2, "nothing fits"),
        (["export", "-o", "evidence", "nonsense"], 2, "there is no 'nonsense' to ask for"),
        (["export", "-o", "evidence", "--first", "9", "--end", "3"], 2, "begins at 9 and ends at 3; swap the two"),
        (["export", "-o", "evidence", "--first", "9", "--end", "999"], 2, "no positions 9 to 999"),
        (["export", "-o", "evidence", "--from", "2020-01-01", "--to", "2020-02-01"], 2, "nothing was recorded in that"),
        (["export", "-o", "evidence", "--to", "2020-02-01"], 2, "nothing was recorded in that time"),
        (["export", "-o", "evidence", "--from", "2199-01-01"], 2, "nothing was recorded in that time"),
        (["export", "-o", "evidence", "--from", "2020-02-01", "--to", "2020-01-01"], 2, "swap the two times"),
        (["export", "-o", "trust.policy"], 1, "never replaced"),
        (["export", "-o", "evidence", "--from", "foo"], 2, "--from: 'foo' is not a time"),
        (["export", "-o", "evidence", "--timestamp", "localhost"], 2, "'localhost' is not a URL to ask"),
        (["export", "-o", "evidence", "--witnesses", "trust.nowhere"], 2, "trust.nowhere"),
        (["export", "-o", "evidence", "--timestamp", "http://x", "--timestamp-roots", "trust.policy"], 2, "PEM"),
        (["check-bundle", "nowhere", "--trust", "trust.policy"], 2, "there is no bundle at nowhere"),
        (["check-bundle", "a", "b", "c", "--trust", "trust.policy"], 2, "one bundle, or two"),
        (["check-bundle", "a", "--trust", "audit/ledger.db"], 2, "audit/ledger.db, line 1: the control character"),
        (["check-bundle", "audit", "--trust", "trust.policy"], 1, "a bundle is manifest.json, events.jsonl"),
        (["keys", "export", "--trust-file", "--allowed-signers"], 2, "two files"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_clear_error(trust: str, run: Run, arguments: list[str], code: int, problem: str) -> None:
    del trust
    result = run(*arguments, code=code)

    assert problem in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    assert not Path("evidence").exists()


@pytest.mark.openssl
def test_timestamps_are_asked_for_carried_along_and_checked(trust: str, run: Run, tmp_path: Path) -> None:
    with outside.authority(tmp_path / "tsa") as tsa:
        root = str(tsa.root)
        asked = run("timestamp", "request", "--url", tsa.url, "--roots", root, "-o", "t.tst").stdout
        warned = run(
            *("export", "-o", "evidence", "--timestamp", tsa.url, "--timestamp", "http://127.0.0.1:9"),
            *("--timestamp-roots", root),
        ).stderr
    token = run("timestamp", "check", "t.tst", "--checkpoint", "t.tst.checkpoint", "--roots", root).stdout
    facts = json.loads(run("timestamp", "check", "evidence", "--roots", root, "--json").stdout)
    checked = run("check-bundle", "evidence", "--trust", trust).stdout

    assert asked.startswith("TIMESTAMPED  at 20")
    assert "warning: timestamp authority http://127.0.0.1:9 did not answer" in warned
    assert token.startswith("HOLDS")
    assert [one["by"] for one in facts["timestamps"]] == ["CN=tsa"]
    assert "not judged here: tallystick timestamp check" in checked
    run("timestamp", "check", "t.tst", "--checkpoint", trust, "--roots", root, code=1)
    run("export", "-o", "bare", "--end", "3")
    assert "no timestamps" in run("timestamp", "check", "bare", "--roots", root, code=1).stderr
    assert "no bundle" in run("timestamp", "check", "t.tst", "--roots", root, code=2).stderr


def witness_of(run: Run, folder: str, name: str) -> str:
    made: dict[str, Any] = json.loads(run("witness", "make", folder, "--name", name, "--json").stdout)
    return str(made["witness_key"])


def answers_of(witness: Witness) -> Callable[[str, bytes], outside.Answer]:
    def answer(_: str, body: bytes) -> outside.Answer:
        reply = witness.add_checkpoint(body)
        return reply.status, reply.content_type, reply.body

    return answer


def test_a_witness_is_made_asked_and_shown(trust: str, run: Run, tmp_path: Path) -> None:
    key = witness_of(run, "w", "witness.example/w1")
    witness = Witness(tmp_path / "w", policy=Policy.parse(Path(trust).read_bytes()))

    with outside.serving(answers_of(witness)) as url:
        down = f"witness w2 {witness_of(run, 'w2', 'x.example/w2')} http://127.0.0.1:9"
        Path("policy").write_text(f"witness w1 {key} {url}\n{down}\nquorum w1\n")
        said = run("witness", "ask", "--trust", "policy", "-o", "cosigned").stdout
        facts = json.loads(run("witness", "ask", "--trust", "policy", "--json").stdout)
        Path("strict").write_text(Path("policy").read_text().replace("quorum w1", "group both all w1 w2\nquorum both"))
        unmet = run("witness", "ask", "--trust", "strict", code=1).stdout
    witness.close()

    assert "the quorum is MET for 7 records" in said
    assert "w2       did not" in said
    assert ([one["name"] for one in facts["cosigned"]], facts["quorum"]) == (["w1"], True)
    assert Path("cosigned").read_bytes().startswith(b"local/audit\n7\n")
    assert "NOT MET" in unmet
    assert "local/audit" in run("witness", "show", "w").stdout
    assert json.loads(run("witness", "show", "w", "--json").stdout)["refused"] == []
    assert "named witness.example/w1" in run("witness", "make", "w", "--name", "other/name", code=2).stderr
    assert "there is no witness" in run("witness", "show", "nowhere", code=2).stderr


def test_a_witness_that_knows_another_history_makes_an_export_end_with_1(trust: str, run: Run, tmp_path: Path) -> None:
    shutil.copytree("audit", "other")
    event = {"event_type": "doc.viewed", "entity_id": "doc-7", "actor": "raj"}
    run("append", "-l", "audit", input=json.dumps({**event, "id": "here"}))
    run("append", "-l", "other", input=json.dumps({**event, "id": "there"}))
    key = witness_of(run, "w", "witness.example/w1")
    witness = Witness(tmp_path / "w", policy=Policy.parse(Path(trust).read_bytes()))

    with outside.serving(answers_of(witness)) as url:
        Path("policy").write_text(f"witness w1 {key} {url}\nquorum w1\n")
        run("export", "-l", "audit", "-o", "first", "--witnesses", "policy")
        said = run("export", "-l", "other", "-o", "second", "--witnesses", "policy", code=1)
    witness.close()

    assert "one of the two was rewritten" in said.stderr
    assert len([*Path("second").iterdir()]) == 3
