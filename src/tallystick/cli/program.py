"""The root command: which commands there are, and how a run of any of them ends.

A command's module is loaded when it is asked for, so that the program starts fast. Every error that a user
can cause ends as one line and an exit code (`tallystick.cli.failures`), never as a traceback.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

import click

from tallystick.cli import failures, screen
from tallystick.cli.options import root_options
from tallystick.errors import TallystickError

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "init": ("tallystick.cli.init", "init"),
    "append": ("tallystick.cli.append", "append"),
    "queue": ("tallystick.cli.queue", "queue"),
    "import": ("tallystick.cli.imports", "import_"),
    "log": ("tallystick.cli.log", "log"),
    "show": ("tallystick.cli.show", "show"),
    "query": ("tallystick.cli.query", "query"),
    "state": ("tallystick.cli.state", "state"),
    "history": ("tallystick.cli.state", "history"),
    "diff": ("tallystick.cli.state", "diff"),
    "series": ("tallystick.cli.series", "series"),
    "stats": ("tallystick.cli.index", "stats"),
    "index": ("tallystick.cli.index", "index"),
    "verify": ("tallystick.cli.verify", "verify"),
    "checkpoint": ("tallystick.cli.proofs", "checkpoint"),
    "prove": ("tallystick.cli.proofs", "prove"),
    "check-proof": ("tallystick.cli.proofs", "check_proof"),
    "tiles": ("tallystick.cli.proofs", "tiles"),
    "export": ("tallystick.cli.export", "export"),
    "check-bundle": ("tallystick.cli.export", "check_bundle"),
    "timestamp": ("tallystick.cli.outside", "timestamp"),
    "witness": ("tallystick.cli.outside", "witness"),
    "projection": ("tallystick.cli.projection", "projection"),
    "schema": ("tallystick.cli.schema", "schema"),
    "retention": ("tallystick.cli.custody", "retention"),
    "hold": ("tallystick.cli.custody", "hold"),
    "prune": ("tallystick.cli.custody", "prune"),
    "evidence": ("tallystick.cli.evidence", "evidence"),
    "report": ("tallystick.cli.report", "report"),
    "controls": ("tallystick.cli.controls", "controls"),
    "keys": ("tallystick.cli.keys", "keys"),
    "backup": ("tallystick.cli.backup", "backup"),
    "restore": ("tallystick.cli.backup", "restore"),
    "accept-loss": ("tallystick.cli.loss", "accept_loss"),
    "correct-clock": ("tallystick.cli.clock", "correct_clock"),
    "serve": ("tallystick.cli.serve", "serve"),
    "operator-key": ("tallystick.cli.serve", "operator_key"),
    "config": ("tallystick.cli.serve", "config"),
}
"""Command → the module and the name in it, in the order of a ledger's life."""


class Program(click.Group):
    """The root command."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit with one of the codes in `failures`."""
        arguments = list(sys.argv[1:] if args is None else args)

        def run() -> Any:
            return click.Group.main(self, arguments, prog_name, complete_var, standalone_mode=False, **extra)

        if not standalone_mode:
            return run()
        screen.prepare()
        sys.exit(_finish(run, as_json="--json" in arguments))


def _finish(run: Callable[[], Any], *, as_json: bool) -> int:
    """Run the command and say how it ended, as an exit code."""
    try:
        code = run()
        sys.stdout.flush()
    except click.Abort:
        return failures.INTERRUPTED
    except (BrokenPipeError, SystemExit):  # click and rich exit by themselves when the reader has gone
        screen.abandon()
        return failures.PIPE_CLOSED
    except (click.ClickException, TallystickError, OSError) as error:
        return failures.report(error, as_json=as_json)
    except Exception:  # noqa: BLE001 - the outermost place: a defect of ours must not pass for a finding
        traceback.print_exc()
        click.echo("error: this is a defect in tallystick itself; please report what is above", err=True)
        return failures.DEFECT
    return code if isinstance(code, int) else 0


@click.command(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=failures.EXIT_CODES_HELP,
)
@root_options
def program() -> None:
    """Tallystick: an event-sourced, tamper-evident audit log.

    Begin with `tallystick init`, record with `tallystick append`, look with `tallystick log`, and check that
    nothing was changed with `tallystick verify`. Every command takes --json.
    """
