"""Opening a ledger, and beginning one where there is none.

What is opened is a `Ledger`; where it rests, `config` says. A ledger is made at one stroke: either its genesis
is committed, or there is none.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tallystick.clock import Clock, wall_clock
from tallystick.config import Location, deployment_name, marks_folder, open_keystore
from tallystick.core.keys import KEY_BYTES
from tallystick.core.record import check_ledger_name
from tallystick.core.system import Genesis
from tallystick.errors import ConflictError, NotFoundError, TallystickError, TamperError
from tallystick.ids import IdMaker, random_bytes
from tallystick.keystore import Keystore
from tallystick.ledger import Ledger
from tallystick.limits import EPOCH_RECORDS_MAX, EPOCH_SECONDS_MAX
from tallystick.read.index import Progress
from tallystick.store.contract import Store
from tallystick.store.mark_file import find_mark
from tallystick.write.resume import create_ledger

_log: Final = logging.getLogger("tallystick.ledger")


class _OtherLedgerError(ConflictError):
    """A ledger is there, and has another name than the one that was asked for."""


def open_ledger(
    url: str | os.PathLike[str],
    *,
    create: bool = True,
    readonly: bool = False,
    name: str | None = None,
    deployment: str | None = None,
    keys: str | os.PathLike[str] | None = None,
    keys_group_readable: bool | None = None,
    marks: str | os.PathLike[str] | None = None,
    principal: str | None = None,
    clock: Clock = wall_clock,
    progress: Progress | None = None,
) -> Ledger:
    """Open the ledger at a folder, `sqlite:///folder` or `memory:`; make it if it is not there.

    `name` and `deployment` name a new ledger; by default the folder's name and `local`. `keys` is the folder
    of the keys, by default `keys` in the ledger's own; keep it elsewhere where others can reach the ledger.
    `keys_group_readable` accepts key files that their group may read, as secrets in containers are mounted; by default
    the environment decides (`TALLYSTICK_KEYS_GROUP_READABLE`), and says no.
    `marks` is the folder of the head marks, by which a rollback is noticed; by default `heads` in that of the keys.
    `principal` stands behind events that name no actor. `progress` is told of long work, such as the
    rebuilding of an index.

    Raises `NotFoundError` when there is no ledger and `create` is false, `ConflictError` when `name` is
    given and the ledger there has another.
    """
    location = Location.parse(url)
    kept = Path(keys) if keys is not None else location.keys_folder
    keystore = open_keystore(kept, group_readable=keys_group_readable)
    had_traces = location.has_traces()  # before the head: another process may be making both just now
    store = location.open_store(readonly=readonly)
    try:
        is_new = store.head() is None
        if is_new:
            if not create or readonly:
                raise NotFoundError(f"there is no ledger at {os.fspath(url)}")
            if had_traces:
                raise TamperError(
                    f"there is an index of a ledger in {os.fspath(url)}, and no ledger: it was removed. Put it back, "
                    "or delete index.db to begin another one"
                )
            folder = marks_folder(marks, keystore.folder) if location.folder is not None else None
            _create(store, keystore, name=name or location.name, deployment=deployment, clock=clock, marks=folder)
        ledger = Ledger(
            store,
            location=location,
            keystore=keystore,
            clock=clock,
            principal=principal,
            progress=progress,
            readonly=readonly,
            marks=marks_folder(marks, keystore.folder),
        )
        if name is not None and name != ledger.name:
            raise _OtherLedgerError(f"the ledger at {os.fspath(url)} is named {ledger.name}, not {name}")
        if is_new:  # before anybody adds to it: who opens it then, and finds no mark, would be told that it is missing
            with suppress(TallystickError):  # what is wrong with keys or marks the first append says
                ledger.checkpoint()
        ledger.inspect_mark()
    except BaseException:
        store.close()
        raise
    return ledger


def open_own_ledger(
    url: str | os.PathLike[str], *, name: str, keys: str | os.PathLike[str], clock: Clock, **given: Any
) -> Ledger:
    """As `open_ledger`, where each ledger has a folder of its own: `TamperError` when another's is in it.

    Whose it is, and where it lies, is for the diagnostics: the error goes to whoever the folder belongs to.
    """
    try:
        return open_ledger(url, name=name, keys=keys, clock=clock, **given)
    except _OtherLedgerError as error:
        _log.error("what lies in the folder of %s is not its ledger: %s", name, error)
        raise TamperError(f"another ledger lies in the place of {name}: its folder was moved or replaced") from None


def rebuild_index(url: str | os.PathLike[str], *, progress: Progress | None = None) -> int:
    """Rebuild what is derived from the log of a ledger; for how many records it then answers.

    Best done while nobody uses the ledger: who has it open goes on with the old index until it is opened again.
    Raises `NotFoundError` when there is no ledger, `TamperError` when the index is the trace of a log put back.
    """
    with open_ledger(url, create=False) as ledger:
        if not ledger.has_keys:
            ledger.catch_up(0)  # opens the index, the only trace there is, which is checked against the log
    Location.parse(url).delete_index()
    with open_ledger(url, create=False, progress=progress) as ledger:
        ledger.rebuild_sealing_index()  # which is checked against the log first, and proves what it says
        return ledger.catch_up()


def _create(
    store: Store, keystore: Keystore, *, name: str, deployment: str | None, clock: Clock, marks: Path | None
) -> None:
    deployment = deployment or deployment_name()
    check_ledger_name(name)
    check_ledger_name(deployment)
    keystore.make()
    keys = keystore.ledger_keys(name)
    found = None if marks is None else find_mark(marks, key=keys.head_mac)
    # A mark is written after the commit: if it is another process's that is making the ledger now, the head is there.
    if found is not None and store.head() is None:
        mark, checkpoint = found
        raise TamperError(
            f"a ledger {name} of {checkpoint.size} records was made with these keys, as its head mark says, and it is "
            "not here: it was removed, or is elsewhere. Put it back, restore it from a backup, or give the new one "
            f"another name or other keys. If it was removed on purpose, remove {mark.name} from the head marks"
        )
    genesis = Genesis(
        ledger=name,
        origin=f"{deployment}/{name}",
        nonce=random_bytes(KEY_BYTES),
        root_key=keys.root.public_key().public_bytes_raw(),
        checkpoint_key=keys.checkpoint.public_key().public_bytes_raw(),
        evidence_key=keys.evidence.public_key().public_bytes_raw(),
        epoch_records_max=EPOCH_RECORDS_MAX,
        epoch_seconds_max=EPOCH_SECONDS_MAX,
    )
    with suppress(ConflictError):  # another process was first, and its ledger is the one to open
        create_ledger(store, genesis=genesis, keys=keys, ids=IdMaker(), now=clock())
