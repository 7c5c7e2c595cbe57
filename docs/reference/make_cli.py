"""Writes docs/reference/cli.md from the commands themselves: run it after changing one.

`render` gives the page; tests/cli/test_reference.py holds it against the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from tallystick.cli.program import program

WIDTH: Final = 90
PAGE: Final = Path(__file__).with_name("cli.md")

HEAD: Final = """\
# The command line

Made by `docs/reference/make_cli.py` from the commands themselves. What a command prints for people may change
from one version to the next; what it prints with `--json` and its exit codes may not.

The options `-l`, `--keys` and `--json` may stand before or after a command's name.
"""


def render() -> str:
    """The page."""
    return HEAD + "".join(sections(program, context_of(program, "tallystick", parent=None)))


def sections(command: click.Command, context: click.Context) -> Iterator[str]:
    """A section for the command and, where it is a group, for each command in it."""
    yield f"\n## `{context.command_path}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from sections(inner, context_of(inner, name, parent=context))


def context_of(command: click.Command, name: str, *, parent: click.Context | None) -> click.Context:
    """Where help is printed, at a width that does not depend on the terminal."""
    return click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=program.context_settings["help_option_names"],
    )


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
