"""`serve`: the ledgers of a deployment over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli import screen
from tallystick.cli.options import Settings, file_type

if TYPE_CHECKING:
    from tallystick.serve.oidc import OidcSettings

_PORT = 8080


@click.command()
@click.option("--data", default="./tallystick-data", show_default=True, metavar="DIR", help="Where everything is kept.")
@click.option("--keys", metavar="DIR", help="The folder of the signing keys; by default `keys` in DIR.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 for everywhere.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=_PORT, show_default=True, help="0 for any that is free."
)
@click.option("--tls-cert", type=file_type(), metavar="PEM", help="Answer over TLS, with this certificate.")
@click.option("--tls-key", type=file_type(), metavar="PEM", help="Its private key.")
@click.option("--trust-proxy", default="", metavar="ADDRESSES", help="Believe these proxies for whom they ask.")
@click.option("--deployment", metavar="NAME", help="The first part of the origins of new ledgers.")
@click.option("--record-reads", is_flag=True, help="Put reads into the access trails, too.")
@click.option("--oidc-issuer", metavar="URL", help="Believe the tokens of this OpenID Connect issuer, too.")
@click.option("--oidc-audience", metavar="NAME", help="For whom its tokens must be; with --oidc-issuer.")
@click.option(
    "--oidc-algorithm",
    multiple=True,
    metavar="NAME",
    help="One they may be signed with; by default RS256, ES256, PS256, EdDSA.",
)
@click.option("--oidc-role-claim", metavar="PATH", help="Their claim of the role; by default tallystick_role.")
@click.option(
    "--oidc-role", multiple=True, metavar="VALUE=ROLE", help="What a value of it stands for: a role, or `operator`."
)
@click.option("--oidc-tenant-claim", metavar="PATH", help="Their claim of the tenant; by default tallystick_tenant.")
@click.option("--oidc-tenant", metavar="NAME", help="One tenant for all of them instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, also for errors.")
@click.pass_obj
def serve(
    settings: Settings,
    /,
    *,
    data: str,
    keys: str | None,
    host: str,
    port: int,
    tls_cert: str | None,
    tls_key: str | None,
    trust_proxy: str,
    deployment: str | None,
    record_reads: bool,
    as_json: bool,
    **oidc: Any,
) -> None:
    """Serve the ledgers of a deployment, one for each tenant, over HTTP.

    In a new folder it makes the tenant `default` and prints the operators' first key, this once. Stops on SIGTERM and
    Ctrl-C, after it has answered what is under way.

    JSON: address, data, first_key.
    """
    from tallystick.deployment import Deployment
    from tallystick.serve.server import Listening, ledgers_within, raise_handles, serve
    from tallystick.serve.service import Settings as ServiceSettings

    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    settings.json = settings.json or as_json
    at = Listening(
        host=host,
        port=port,
        certificate=None if tls_cert is None else Path(tls_cert),
        private_key=None if tls_key is None else Path(tls_key),
        proxies=trust_proxy,
    )
    serving = ServiceSettings(record_reads=record_reads, oidc=_oidc(**oidc))
    with Deployment(data, name=deployment, keys=keys, open_max=ledgers_within(raise_handles())) as opened:
        first_key = opened.begin()

        def ready(address: str) -> None:
            if settings.json:
                screen.say_json({"address": address, "data": data, "first_key": first_key})
                return
            screen.say(("SERVING", "green bold"), f"  {address}/api/v1, described at {address}/docs")
            if first_key is not None:
                screen.say("  the operators' first key, of the tenant default; it is shown this once:")
                screen.say(f"  {first_key}")

        serve(opened, at, serving, ready=ready)


def _oidc(*, oidc_issuer: str | None, **options: Any) -> OidcSettings | None:
    from tallystick.serve.oidc import OidcSettings

    if oidc_issuer is None:
        given = next((name for name, value in options.items() if value), None)
        if given is not None:
            raise click.UsageError(f"--{given.replace('_', '-')} goes with --oidc-issuer")
        return None
    return OidcSettings.of(
        issuer=oidc_issuer,
        audience=options["oidc_audience"],
        algorithms=options["oidc_algorithm"],
        role_claim=options["oidc_role_claim"],
        roles=options["oidc_role"],
        tenant_claim=options["oidc_tenant_claim"],
        tenant=options["oidc_tenant"],
    )
