"""The options that all commands share, before the command's name and after it, and the ledger they name.

What stands after the command's name wins over what stands before it, and that over the environment.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from tallystick.cli.progress import Bar
from tallystick.errors import NotFoundError

if TYPE_CHECKING:
    from tallystick.ledger import Ledger
    from tallystick.read.index import Progress

Function = Callable[..., Any]

DEFAULT_LEDGER: Final = "./audit"
LEDGER_VARIABLE: Final = "TALLYSTICK_LEDGER"
KEYS_VARIABLE: Final = "TALLYSTICK_KEYS"
MARKS_VARIABLE: Final = "TALLYSTICK_MARKS"

_LEDGER_HELP: Final = "The ledger: a folder, or sqlite:///path/to/folder."
_KEYS_HELP: Final = "The folder of the signing keys; by default `keys` in the ledger's own."
_MARKS_HELP: Final = "The folder of the head marks; by default `heads` in that of the keys."
_JSON_HELP: Final = "Print JSON, also for errors."


@dataclass(slots=True)
class Settings:
    """What the shared options say."""

    ledger: str = DEFAULT_LEDGER
    keys: str | None = None
    marks: str | None = None
    json: bool = False

    def open(self, *, readonly: bool = True) -> Ledger:
        """Open the ledger, which must exist: a misspelt path makes no new one."""
        import tallystick

        bar = Bar("making the index", "records")
        try:
            return tallystick.open(
                self.ledger,
                create=False,
                readonly=readonly,
                keys=self.keys,
                marks=self.marks,
                progress=bar.update,
            )
        except NotFoundError as error:
            raise self._missing() from error

    def rebuild_index(self, progress: Progress) -> int:
        """Make the index anew; for how many records it then answers."""
        import tallystick

        self.check_ledger()
        return tallystick.rebuild_index(self.ledger, progress=progress)

    def check_ledger(self) -> None:
        """Whether there is a ledger, for work that opens it by itself. Raises `NotFoundError`."""
        from tallystick.config import Location

        store = Location.parse(self.ledger).open_store(readonly=True)
        try:
            if store.head() is None:
                raise self._missing()
        finally:
            store.close()

    def _missing(self) -> NotFoundError:
        make = f"tallystick init -l {shlex.quote(self.ledger)}"
        return NotFoundError(f"there is no ledger at {self.ledger}: make one with: {make}, or name another with -l")


def root_options(function: Function) -> Function:
    """For the root command: the defaults, from the environment where it says something."""
    for option in (
        click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
                     help="Print the version and exit."),
        click.option("--no-color", envvar="NO_COLOR", is_flag=False, flag_value="1", hidden=True,
                     expose_value=False, callback=_no_colour),
        _shared("--json", is_flag=True, help=_JSON_HELP),
        _shared("--marks", metavar="DIR", envvar=MARKS_VARIABLE, show_envvar=True, help=_MARKS_HELP),
        _shared("--keys", metavar="DIR", envvar=KEYS_VARIABLE, show_envvar=True, help=_KEYS_HELP),
        _shared("-l", "--ledger", metavar="PATH", envvar=LEDGER_VARIABLE, show_envvar=True,
                default=DEFAULT_LEDGER, show_default=True, help=_LEDGER_HELP),
    ):  # fmt: skip
        function = option(function)
    return function


def ledger_options(function: Function) -> Function:
    """For a command that reads a ledger; it is called with the `Settings`."""
    function = _shared("--json", is_flag=True, help=_JSON_HELP)(click.pass_obj(function))
    return _shared("-l", "--ledger", metavar="PATH", help=_LEDGER_HELP)(function)


def sealing_options(function: Function) -> Function:
    """For a command that also needs the keys."""
    function = _shared("--marks", metavar="DIR", help=_MARKS_HELP)(function)
    return ledger_options(_shared("--keys", metavar="DIR", help=_KEYS_HELP)(function))


def batch_options(function: Function) -> Function:
    """For a command that takes many events."""
    skip_bad = "Go on past events that cannot be taken, and report each."
    function = click.option("--skip-bad", is_flag=True, help=skip_bad)(function)
    return click.option("--atomic", is_flag=True, help="Seal all events, or none if one is bad.")(function)


def _shared(*names: str, **how: Any) -> Callable[[Function], Function]:
    return click.option(*names, expose_value=False, callback=_keep, **how)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    settings = context.ensure_object(Settings)
    if value is not None and value is not False and parameter.name is not None:
        setattr(settings, parameter.name, value)


def _no_colour(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.find_root().meta["colour"] = not value


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"tallystick {version('tallystick')}")
    except PackageNotFoundError:
        click.echo("tallystick, run from its source")
    context.exit()


@functools.cache
def file_type(*, write: bool = False) -> click.Path:
    """A file to read, which must be there, or one to write; `-` for the standard stream."""
    return click.Path(exists=not write, dir_okay=False, allow_dash=True, readable=not write)
