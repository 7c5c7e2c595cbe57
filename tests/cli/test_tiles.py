"""`tiles` publishes the ledger as files: those of the standard, kept up to date, never of another history."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tallystick.core.tiles import parse_entries
from tests.cli.conftest import Run
from tests.cli.test_append import GOOD, logged
from tests.cli.test_log import damage


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_tree_has_the_files_that_its_size_calls_for(run: Run) -> None:
    run("init")
    run("append", input=GOOD * 298)

    out = json.loads(run("tiles", "out", "--json").stdout)

    assert out == {"folder": "out", "size": 300, "written": 5, "kept": 0}
    written = files(Path("out"))
    assert sorted(written) == [
        *("checkpoint", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"),
        *("tile/entries/000", "tile/entries/001.p/44"),
    ]
    assert written["checkpoint"] == run("checkpoint").stdout_bytes
    assert len(written["tile/0/000"]) == 8_192
    entries = [
        *parse_entries(written["tile/entries/000"], 256),
        *parse_entries(written["tile/entries/001.p/44"], 44),
    ]
    assert [json.loads(entry)["position"] for entry in entries] == [*range(300)]
    assert len(logged(run)) == 298


def test_a_second_run_adds_what_is_new_and_rewrites_no_full_tile(run: Run) -> None:
    run("init")
    run("append", input=GOOD * 298)
    run("tiles", "out")
    before = Path("out/tile/0/000").stat()

    run("append", input=GOOD * 300)
    out = json.loads(run("tiles", "out", "--json").stdout)

    assert (out["size"], out["kept"]) == (600, 2)
    assert Path("out/tile/0/000").stat().st_ino == before.st_ino
    shutil.rmtree("fresh", ignore_errors=True)
    run("tiles", "fresh")
    assert files(Path("fresh")).items() <= files(Path("out")).items()
    assert "already there" in run("tiles", "out").stdout


def test_a_tile_that_was_lost_is_written_again(run: Run) -> None:
    run("init")
    run("append", input=GOOD * 298)
    run("tiles", "out")
    whole = files(Path("out"))
    Path("out/tile/entries/000").unlink()

    run("tiles", "out")

    assert files(Path("out")) == whole


@pytest.mark.usefixtures("ledger")
def test_the_folder_of_another_ledger_is_left_alone(run: Run) -> None:
    run("init", "-l", "other")
    run("tiles", "out", "-l", "other")
    whole = files(Path("out"))

    result = run("tiles", "out", code=1)

    assert "holds the tiles of local/other, not of local/audit" in result.stderr
    assert files(Path("out")) == whole


@pytest.mark.usefixtures("ledger")
def test_a_rewritten_or_shortened_history_is_not_published(run: Run) -> None:
    shutil.copytree("audit", "old")
    run("append", "--type", "a.b", "--entity", "e")
    run("tiles", "out")

    shorter = run("tiles", "out", "-l", "old", code=1)
    run("append", "-l", "old", input=GOOD * 3)
    forked = run("tiles", "out", "-l", "old", code=1)

    assert "out was published with 8 records, and the ledger has 7" in shorter.stderr
    assert "does not begin with what was published in out" in forked.stderr


@pytest.mark.usefixtures("ledger")
def test_damage_is_not_published(run: Run) -> None:
    damage(b'"id":"raj"', b'"id":"jar"')

    assert run("tiles", "out", code=1).stderr.startswith("error: the record")
    assert not Path("out/checkpoint").exists()


@pytest.mark.parametrize("name", ["file", "file/below"])
@pytest.mark.usefixtures("ledger")
def test_a_folder_that_cannot_be_written_is_an_error(name: str, run: Run) -> None:
    Path("file").write_text("")

    assert run("tiles", name, code=2 if name == "file" else 3).stderr.startswith("error: ")


@pytest.mark.usefixtures("ledger")
def test_a_checkpoint_that_is_none_is_not_written_over(run: Run) -> None:
    Path("out").mkdir()
    Path("out/checkpoint").write_text("mine")

    assert "out/checkpoint: not a checkpoint" in run("tiles", "out", code=2).stderr
    assert Path("out/checkpoint").read_text() == "mine"
