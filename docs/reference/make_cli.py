"""Writes docs/reference/cli.md from the commands themselves: run it after changing one.

`render` gives the page; tests/cli/test_reference.py holds it against the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from tallystick.cli.program import program

PAGE: Final = Path(__file__).with_name("cli.md")

HEAD: Final = """\
# The command line

Made by `docs/reference/make_cli.py` from the commands themselves. What a command prints for people may change
from one version to the next; what it prints with `--json` and its exit codes may not.

The options `-l`, `--keys` and `--json` may stand before or after a command's name.
"""


def render() -> str:
    """The page."""
    root = click.Context(program, info_name="tallystick", terminal_width=90, max_content_width=90)
    return HEAD + "".join(sections(program, root))


def sections(command: click.Command, context: click.Context) -> Iterator[str]:
    """A section for the command and, where it is a group, for each command in it."""
    yield f"\n## `{context.command_path}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                below = click.Context(
                    inner, info_name=name, parent=context, terminal_width=90, max_content_width=90
                )
                yield from sections(inner, below)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
