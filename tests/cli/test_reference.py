"""The reference of the command line is made from the commands, and is the one that stands in the docs."""

from __future__ import annotations

import runpy

from tests.cli.conftest import ROOT

REFERENCE = ROOT / "docs/reference"


def test_the_reference_page_is_up_to_date() -> None:
    page: str = runpy.run_path(str(REFERENCE / "make_cli.py"))["render"]()

    assert (REFERENCE / "cli.md").read_text(encoding="utf-8") == page, "run: python docs/reference/make_cli.py"


def test_every_command_that_prints_json_says_which_keys() -> None:
    sections = (REFERENCE / "cli.md").read_text(encoding="utf-8").split("\n## ")[2:]

    assert [section for section in sections if "  --json " in section and "  JSON" not in section] == []
