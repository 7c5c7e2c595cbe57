"""`projection`: what follows a ledger with a state of its own: how far each is, what it knows, and running them.

Which projections there are, their files say; what is kept of them stands in `cursors.db` beside the ledger.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import click

from tallystick.cli import failures, screen
from tallystick.cli.options import Settings, ledger_options
from tallystick.errors import NotFoundError, RejectedError, StoreError, TamperError

if TYPE_CHECKING:
    from tallystick.ledger import Ledger
    from tallystick.read.projection import Projection, RunningProjection
    from tallystick.read.sqlite_cursors import Saved

_MODULE: Final = "tallystick_projections"
"""The name that the user's file has among Python's modules."""

_LOOK_SECONDS: Final = 0.2


@click.group()
def projection() -> None:
    """Projections: functions of yours from events to a state, kept abreast of the ledger."""


@projection.command("list")
@ledger_options
def list_(settings: Settings) -> None:
    """List all projections that were ever run over this ledger, and how far each is.

    JSON: projections (name, version, cursor, behind, status, problem), where status is current, behind, paused
    or failed.
    """
    with settings.open(readonly=False) as ledger:
        _say_list(settings, ledger.projections(), ledger.size)


@projection.command("show")
@click.argument("name")
@ledger_options
def show(settings: Settings, *, name: str) -> None:
    """Print the state of a projection, as it was last saved.

    JSON: {name, version, cursor, behind, status, problem, state}.
    """
    with settings.open(readonly=False) as ledger:
        saved = next((one for one in ledger.projections() if one.name == name), None)
        size = ledger.size
    if saved is None:
        raise NotFoundError(f"there is no projection {name!r}: it was never run over this ledger")
    if settings.json:
        screen.say_json({**saved.to_json(size), "state": saved.state})
        return
    screen.say_json(saved.state)
    told = f"{saved.name}, version {saved.version}, {saved.status(size)} at {saved.cursor:,} of {size:,}"
    screen.say((f"{told}: {saved.problem}" if saved.problem else told, "dim"), err=True)


@projection.command("pause")
@click.argument("name")
@ledger_options
def pause(settings: Settings, *, name: str) -> None:
    """Hold a projection where it is, for every process, until it is resumed.

    JSON: {name, done}.
    """
    with settings.open(readonly=False) as ledger:
        ledger.pause_projection(name)
    _say_done(settings, name, "paused", "nobody moves it until it is resumed")


@projection.command("resume")
@click.argument("name")
@ledger_options
def resume(settings: Settings, *, name: str) -> None:
    """Let a projection go on that was paused, or that failed: whoever runs it takes it up where it was.

    JSON: {name, done}.
    """
    with settings.open(readonly=False) as ledger:
        ledger.resume_projection(name)
    _say_done(settings, name, "resumed", "it goes on when it is next run")


@projection.command("reset")
@click.argument("name")
@ledger_options
def reset(settings: Settings, *, name: str) -> None:
    """Forget the state of a projection, and where it was. Tables of its own are left to its setup.

    JSON: {name, done}.
    """
    with settings.open(readonly=False) as ledger:
        ledger.reset_projection(name)
    _say_done(settings, name, "reset", "it begins anew, at the first record, when it is next run")


@projection.command("run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True))
@click.option("--follow", is_flag=True, help="Then go on with what comes, until interrupted.")
@ledger_options
def run(settings: Settings, *, file: str, follow: bool) -> None:
    """Run the projections of a Python FILE over what they have not seen yet, and list them.

    FILE runs as a program of yours does. Its projections are what `tallystick.projection` made, and its classes
    with `evolve`. Exits 1 when one failed; it then stands where it failed, and the others went on.

    JSON: projections (name, version, cursor, behind, status, problem).
    """
    made = load(file)
    with settings.open(readonly=False) as ledger:
        handles = [ledger.project(one) for one in made]
        for handle in handles:
            _catch_up(handle)
        _say_list(settings, _kept(handles), ledger.size)
        if follow:
            _follow(ledger, handles)
        problems = [handle.problem for handle in handles if handle.problem is not None]
    if problems:
        raise click.exceptions.Exit(failures.REFUSED)


# --------------------------------------------------------------------------------------- the user's own file


def load(file: str) -> list[Projection]:
    """The projections of a Python file, in their order there. Raises `RejectedError` with the file and line."""
    from tallystick.read.projection import Projection

    module = _run(file)
    found: dict[str, Projection] = {}
    for name, value in vars(module).items():
        own_class = isinstance(value, type) and value.__module__ == _MODULE and callable(getattr(value, "evolve", None))
        if not own_class and not isinstance(value, Projection):
            continue
        try:
            made = Projection.of(value)
        except Exception as error:
            raise RejectedError(f"{name} is no projection: {_told(error)}", place=shown(file)) from error
        known = found.setdefault(made.name, made)
        if known.evolve != made.evolve:
            raise RejectedError(f"two projections are named {made.name!r}", place=shown(file), cure="rename one")
    if not found:
        cure = "make one with @tallystick.projection(...) over evolve(state, record), or a class with evolve"
        raise RejectedError("there is no projection in it", place=shown(file), cure=cure)
    return [*found.values()]


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a file as it is now, and leaves nothing beside it."""

    def path_stats(self, path: Any) -> Any:
        raise OSError(f"no compiled form of {path} is wanted")


def _run(file: str) -> ModuleType:
    path = Path(file).resolve()
    loader = _Loader(_MODULE, str(path))
    spec = importlib.util.spec_from_loader(_MODULE, loader)
    assert spec is not None, "a loader was given"
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    sys.path.insert(0, str(path.parent))  # as Python does, so that it can import what lies beside it
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = _line(error, path)
        place = f"{shown(file)}, line {line}" if line else shown(file)
        raise RejectedError(_told(error), place=place, cure="run it with python to see more") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _line(error: BaseException, path: Path) -> int | None:
    """The line of the file at which it ended."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None


def _told(error: BaseException) -> str:
    told = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {told[:500]}" if told else type(error).__name__


def shown(file: str) -> str:
    """The file's name as an error says it."""
    return file if len(file) <= 200 else f"…{file[-200:]}"


# --------------------------------------------------------------------------------------------------- running


def _catch_up(handle: RunningProjection) -> None:
    """Fold what there is. What its own function raises is kept as its problem, and stands in the list."""
    try:
        handle.run()
    except (StoreError, TamperError):
        raise
    except Exception:  # the user's function may raise anything; it is kept, and the others go on
        if handle.problem is None:
            raise


def _follow(ledger: Ledger, handles: list[RunningProjection]) -> None:
    """Keep all that can go on going, until interrupted or until none can."""
    following = [handle for handle in handles if handle.problem is None]
    held: set[str] = set()
    for handle in following:
        if handle.status == "paused":
            held.add(handle.projection.name)
        else:
            handle.start()
    told = f"following {ledger.name}; interrupt to end" if following else "none of them can go on"
    screen.say((told, "dim"), err=True)
    while following:
        time.sleep(_LOOK_SECONDS)
        for handle in [*following]:
            name, status = handle.projection.name, handle.status
            if status == "paused":
                held.add(name)
            elif status == "stopped" and name in held:
                held.discard(name)
                handle.start()
            elif status in ("failed", "stopped"):
                following.remove(handle)
                screen.say(("failed: ", "red bold"), f"{name}: {handle.problem or 'it stopped'}", err=True)


# -------------------------------------------------------------------------------------------------- the list


def _kept(handles: list[RunningProjection]) -> list[Saved]:
    return [saved for handle in handles if (saved := handle.saved) is not None]


def _say_list(settings: Settings, kept: list[Saved], size: int) -> None:
    if settings.json:
        screen.say_json({"projections": [saved.to_json(size) for saved in kept]})
        return
    if not kept:
        screen.say("no projection was ever run over this ledger", err=True)
        return
    rows = [
        (saved.name, str(saved.version), f"{saved.cursor:,}", f"{saved.behind(size):,}", saved.status(size),
         saved.problem or "-")
        for saved in kept
    ]  # fmt: skip
    screen.say_table(("projection", "version", "cursor", "behind", "status", "problem"), rows)


def _say_done(settings: Settings, name: str, done: str, what: str) -> None:
    if settings.json:
        screen.say_json({"name": name, "done": done})
        return
    screen.say((name, "bold"), f" is {done}: {what}")
