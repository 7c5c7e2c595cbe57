"""`serve` and `config`: the ledgers of a deployment over HTTP, and the settings that a service would have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli import screen
from tallystick.cli.failures import extra
from tallystick.cli.options import KEYS_VARIABLE, LEDGER_VARIABLE, Settings, file_type, ledger_options

if TYPE_CHECKING:
    from tallystick.serve.settings import Given

Function = Callable[..., Any]

_FILE_HELP = "A file of settings (TOML); the environment and what is given here come before it."


def serve_options(function: Function) -> Function:
    """For a command that is told the settings of a service: an option for each, None where it was not given."""
    from tallystick.serve.settings import OPTIONS

    for option in reversed(OPTIONS):
        default = option.default
        told = f" Default: {default:g}." if isinstance(default, float) else f" Default: {default}."
        about = option.about if default in (None, False, "") else option.about + told
        how: dict[str, Any] = {"metavar": option.metavar, "multiple": option.kind == "texts"}
        if option.kind == "flag":
            how = {"is_flag": True, "default": None}
        function = click.option(option.flag, option.field, help=about, **how)(function)
    return click.option("--config", "file", type=file_type(), metavar="FILE", help=_FILE_HELP)(function)


def given_of(file: str | None, options: dict[str, Any]) -> Given:
    """What command line, environment and file say."""
    from tallystick.config import environment
    from tallystick.serve.settings import Given

    return Given.of(command=options, environment=environment(), file=file)


@click.command()
@serve_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, also for errors.")
@click.pass_obj
def serve(settings: Settings, /, *, file: str | None, as_json: bool, **options: Any) -> None:
    """Serve the ledgers of a deployment, one for each tenant, over HTTP.

    In a new folder it makes the tenant `default` and prints the operators' first key, this once. Stops on SIGTERM and
    Ctrl-C, after it has answered what is under way. Each option may stand in a file (`tallystick config check` shows
    the names), or in the environment: --tls-cert is TALLYSTICK_TLS_CERT.

    JSON: address, data, first_key.
    """
    settings.json = settings.json or as_json
    chosen = given_of(file, options).settings()
    from tallystick.deployment import Deployment

    with extra("serve"):
        from tallystick.serve import diagnostics
        from tallystick.serve.server import ledgers_within, raise_handles, serve

    diagnostics.begin(form=chosen.log_format, level=chosen.log_level)
    os.umask(0o077)  # what it keeps is for nobody else on the machine
    most = ledgers_within(raise_handles())

    def begin() -> Deployment:
        return Deployment(
            chosen.data,
            name=chosen.deployment,
            keys=chosen.keys,
            keys_group_readable=chosen.keys_group_readable,
            marks=chosen.marks,
            open_max=most,
        )

    def ready(address: str, first_key: str | None) -> None:
        if settings.json:
            screen.say_json({"address": address, "data": chosen.data, "first_key": first_key})
            return
        screen.say(("SERVING", "green bold"), f"  {address}/api/v1, described at {address}/docs")
        if first_key is not None:
            screen.say("  the operators' first key, of the tenant default; it is shown this once:")
            screen.say(f"  {first_key}")

    serve(chosen, begin=begin, ready=ready)


@click.command("operator-key")
@click.option("--data", default="./tallystick-data", show_default=True, metavar="DIR", help="As of `serve`.")
@click.option("--keys", metavar="DIR", help="As of `serve`.")
@click.option("--marks", metavar="DIR", help="As of `serve`.")
@click.option("--deployment", metavar="NAME", help="As of `serve`; for a folder that is new.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, also for errors.")
@click.pass_obj
def operator_key(
    settings: Settings,
    /,
    *,
    data: str,
    keys: str | None,
    marks: str | None,
    deployment: str | None,
    as_json: bool,
) -> None:
    """Make another operators' key of a deployment, and print it, this once.

    For whoever may write the folder: before the first start, so that the key is in no journal, or when the last one
    was lost. It is recorded as made on the machine. The service may be running.

    JSON: key.
    """
    settings.json = settings.json or as_json
    from tallystick.deployment import Deployment

    os.umask(0o077)
    with Deployment(data, name=deployment, keys=keys, marks=marks) as opened:
        text = opened.operators_key()
    if settings.json:
        screen.say_json({"key": text})
    else:
        screen.say(text)


@click.group("config")
def config() -> None:
    """The settings of a service: what they would be, and where each is from."""


@config.command("check")
@click.argument("file", required=False, type=file_type(), metavar="[FILE]")
@ledger_options
def check(settings: Settings, *, file: str | None) -> None:
    """Check a file of settings, and the environment, and print what a service would run with.

    Exits 2 when it would not start: a name that is not known, a value that cannot be, a certificate that cannot be
    used, a folder that cannot be written. Nothing is started or changed.

    JSON: {settings: [{name, value, from}], unknown_variables}.
    """
    from tallystick.config import environment
    from tallystick.serve.settings import unknown_variables

    with extra("serve"):
        from tallystick.serve.server import Listening, check_listening

    given = given_of(file, {})
    chosen = given.settings()
    check_listening(Listening.of(chosen), Path(chosen.data))
    unknown = unknown_variables(environment(), others=(KEYS_VARIABLE, LEDGER_VARIABLE))
    table = list(given.table())
    if settings.json:
        rows = [{"name": name, "value": value, "from": origin} for name, value, origin in table]
        screen.say_json({"settings": rows, "unknown_variables": unknown})
        return
    shown = [(name, "-" if value is None or value == "" else _text(value), origin) for name, value, origin in table]
    screen.say_table(("setting", "value", "from"), shown)
    for name in unknown:
        screen.say(("no setting: ", "yellow"), f"{name} in the environment is not read by anything", err=True)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
