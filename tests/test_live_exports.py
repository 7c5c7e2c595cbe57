"""Files that are replaced beside the target of an export while it is made, by whoever can write there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

import tallystick
from tallystick.core.sshsig import VIEWS_NAMESPACE, open_signature
from tallystick.errors import ConflictError, TamperError
from tallystick.evidence.bundle.delivery import Delivery
from tests.test_live_edits import before

MINE = b"mallory did nothing"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[tallystick.Ledger]:
    with tallystick.open(tmp_path / "l", keys=tmp_path / "keys") as ledger:
        ledger.append_many([{"event_type": "t.happened", "entity_id": "mallory"} for _ in range(20)])
        yield ledger


def scratch(folder: Path) -> Path:
    [found] = folder.glob(".out*")
    return found


def a_file_of_his_own(path: Path) -> None:
    path.write_bytes(MINE)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_a_key(path: Path) -> None:
    path.symlink_to(path.parent.parent.parent / "keys/master.key")


def nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize("view", ["csv", "html"])
@pytest.mark.parametrize("put", [a_file_of_his_own, a_pipe, a_link_to_a_key, nothing])
def test_what_is_put_in_the_place_of_a_view_is_not_signed(
    ledger: tallystick.Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    view: str,
    put: Callable[[Path], None],
) -> None:
    def replace() -> None:
        path = scratch(tmp_path) / f"views/events.{view}"
        path.unlink()
        put(path)

    before(monkeypatch, Delivery, "finish", replace)
    with pytest.raises(TamperError, match="while it was in use"):
        ledger.export(tmp_path / "out", views=[view])
    assert not (tmp_path / "out.views").exists()


@pytest.mark.parametrize("view", ["csv", "html"])
def test_what_is_written_into_a_view_is_not_signed_either(
    ledger: tallystick.Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    """As long as it was: so it is found by the manifest of the views, as any later change is."""

    def write() -> None:
        [path] = (scratch(tmp_path) / "views").glob("events.*")
        with path.open("r+b") as file:
            file.write(MINE)

    before(monkeypatch, Delivery, "hand_over", write)
    ledger.export(tmp_path / "out", views=[view])
    monkeypatch.undo()

    views = tmp_path / "out.views"
    data = (views / "manifest.json").read_bytes()
    assert open_signature((views / "manifest.json.sig").read_bytes(), data, namespace=VIEWS_NAMESPACE)
    [told] = json.loads(data)["files"]
    assert MINE in (views / told["file"]).read_bytes()
    assert told["sha256"] != sha256((views / told["file"]).read_bytes()).hexdigest()


def test_a_pipe_in_the_place_of_the_records_holds_nobody_up(
    ledger: tallystick.Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        path = scratch(tmp_path) / "bundle/events.jsonl"
        path.unlink()
        os.mkfifo(path)

    before(monkeypatch, Delivery, "finish", replace)
    with pytest.raises(TamperError, match="was replaced while it was in use"):
        ledger.export(tmp_path / "out.zip", as_zip=True)
    assert not (tmp_path / "out.zip").exists()


def test_a_file_that_is_there_already_is_not_written_into(
    ledger: tallystick.Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put() -> None:
        (scratch(tmp_path) / "bundle.zip").symlink_to(tmp_path / "keys/master.key")

    key = (tmp_path / "keys/master.key").read_bytes()
    before(monkeypatch, Delivery, "finish", put)
    with pytest.raises((tallystick.StoreError, ConflictError)):
        ledger.export(tmp_path / "out.zip", as_zip=True)
    assert (tmp_path / "keys/master.key").read_bytes() == key
