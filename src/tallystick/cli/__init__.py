"""The command line. One module per group of commands; they ask the ledger and show what it says.

What a command prints for people may change; what it prints with `--json`, and its exit codes, may not.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line on this process's arguments, and exit."""
    from tallystick.cli.program import program

    program.main(prog_name="tallystick")
