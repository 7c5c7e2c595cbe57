"""`report`: what there is, what is behind it, and making it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import CLOUDTRAIL, ROOT, Run

SPRING = ("--from", "2026-02-23", "--to", "2026-04-05", "--occurred")


@pytest.fixture
def clinic(run: Run, tmp_path: Path) -> Path:
    """The ledger of the examples at ./audit."""
    run("init")
    run("append", str(ROOT / "examples" / "events.jsonl"))
    return tmp_path / "audit"


def test_the_list_says_what_each_report_wants_to_be_told(run: Run) -> None:
    found = {each["name"]: each for each in json.loads(run("report", "list", "--json").stdout)["reports"]}

    assert len(found) == 5
    assert found["entity-dossier"]["parameters"][0]["name"] == "entity"
    assert "-p entity=…" in run("report", "list").stdout


@pytest.mark.usefixtures("clinic")
def test_what_is_shown_is_a_document_that_can_be_made(run: Run) -> None:
    Path("mine.md").write_text(run("report", "show", "access-review").stdout)

    run("report", "make", "mine.md", "-o", "mine.html", *SPRING)

    assert "Rights that changed" in Path("mine.html").read_text("utf-8")
    assert json.loads(run("report", "show", "mine.md", "--json").stdout)["title"] == "Access review"


@pytest.mark.usefixtures("clinic")
def test_a_report_is_made_as_html_and_as_pdf(run: Run) -> None:
    told = run("report", "make", "entity-dossier", "-o", "d.html", "-p", "entity=user-456", *SPRING).stdout
    found = json.loads(
        run("report", "make", "entity-dossier", "-o", "d.pdf", "-p", "entity=user-456", *SPRING, "--json").stdout
    )

    assert "wrote d.html" in told
    assert "2026-02-23 through 2026-04-05 (UTC), by occurred time" in told
    assert (found["size"], found["bytes"]) == (415, Path("d.pdf").stat().st_size)
    assert found["before"] == "2026-04-06T00:00:00.000000Z"


@pytest.mark.usefixtures("clinic")
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["entity-dossier", "-o", "x.html"], "entity: entity-dossier has to be told; give entity=…"),
        (["entity-dossier", "-o", "x.html", "-p", "entity=nobody"], "there is no event about 'nobody' in this ledger"),
        (["incident-timeline", "-o", "x.html", "-p", "entity=nobody"], "there is no event about 'nobody'"),
        (["access-review", "-o", "x.docx"], "a report is HTML or PDF"),
        (["access-review", "-o", "none/x.html"], "there is no folder none"),
        (["access-review", "-o", "x.html", "-p", "rows"], "is not name=value"),
        (["access-review", "-o", "x.html", "-p", "rows=1", "-p", "rows=2"], "rows is given twice"),
        (["access-review", "-o", "x.html", "-p", "colour=red"], "colour: access-review has no such parameter"),
        (["acces-review", "-o", "x.html"], "there is no report 'acces-review': use one of access-review"),
        (["none.md", "-o", "x.html"], "none.md: cannot be read"),
        (["access-review", "-o", "x.html", "--from", "soon"], "--from: "),
    ],
)
def test_what_is_wrong_is_one_error_and_nothing_is_written(run: Run, arguments: list[str], problem: str) -> None:
    assert problem in run("report", "make", *arguments, code=2).stderr
    assert not Path("x.html").exists()


@pytest.mark.usefixtures("clinic")
def test_pdf_without_typst_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)

    result = run("report", "make", "access-review", "-o", "x.pdf", code=2)

    assert "install it with: pip install 'tallystick[pdf]'" in result.stderr


@pytest.mark.cloudtrail
def test_every_report_can_be_made_of_real_cloudtrail_records(run: Run) -> None:
    run("init")
    run("import", "cloudtrail", str(CLOUDTRAIL))

    day = ("--from", "2023-07-10", "--to", "2023-07-10", "--occurred")
    for name in ("access-review", "change-review", "incident-timeline", "evidence-pack"):
        run("report", "make", name, "-o", f"{name}.html", *day)
        run("report", "make", name, "-o", f"{name}.pdf", *day)
    who = "entity=arn:aws:iam::123837392027:user/benjamin"
    run("report", "make", "entity-dossier", "-o", "dossier.html", "-p", who, *day)

    review = Path("access-review.html").read_text("utf-8")
    assert "aws.iam.AttachRolePolicy" in review
    assert "No review of access is recorded in this time." in review
    assert "name it as the one who acted: 105." in Path("dossier.html").read_text("utf-8")
