"""The verb up: runs the controller in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from controller.errors import InvalidInput
from controller.options import DEFAULT_API_SOCKET, DEFAULT_API_TCP, DEFAULT_LISTEN, DEFAULT_STATE_DIR, Options, Tls

_PEM = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog="Example: fleetswitch up --listen tcp:192.0.2.5:6653")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_STATE_DIR,
    show_default=True,
    help="Where state is kept.",
)
@click.option(
    "--listen",
    multiple=True,
    default=DEFAULT_LISTEN,
    show_default=True,
    metavar="tcp|ssl:ADDRESS:PORT",
    help="Where switches are awaited, and what hosts are told to connect to; may be repeated.",
)
@click.option(
    "--advertise",
    multiple=True,
    metavar="tcp|ssl:ADDRESS:PORT",
    help="What hosts are told to connect to, where that is not what --listen says (0.0.0.0, NAT).",
)
@click.option(
    "--api-socket",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_API_SOCKET,
    show_default=True,
    help="The API's unix socket.",
)
@click.option(
    "--api-tcp",
    default=DEFAULT_API_TCP,
    show_default=True,
    metavar="ADDRESS:PORT",
    help="The API's loopback address, or none.",
)
@click.option("--tls-key", type=_PEM, help="Private key (PEM) towards hosts, for ssl: addresses.")
@click.option("--tls-cert", type=_PEM, help="Certificate of that key.")
@click.option("--tls-ca", type=_PEM, help="Who must have signed the hosts' certificates.")
@click.option("--store", metavar="tcp:A:6641,...", help="A clustered store; a private one in the state folder else.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is logged, to stderr.",
)
@click.pass_context
def up(
    ctx: click.Context, state_dir: Path, listen: tuple[str, ...], advertise: tuple[str, ...], api_socket: Path,
    api_tcp: str, tls_key: Path | None, tls_cert: Path | None, tls_ca: Path | None, store: str | None, log_level: str,
) -> None:  # fmt: skip
    """Run the controller in the foreground."""
    files = [path for path in (tls_key, tls_cert, tls_ca) if path is not None]
    if len(files) not in {0, 3}:
        raise click.UsageError("--tls-key, --tls-cert and --tls-ca belong together; give all three or none")
    try:
        options = Options(
            state_dir=state_dir, listen=listen, store=store, api_socket=api_socket,
            api_tcp=None if api_tcp == "none" else api_tcp, log_level=log_level, advertise=advertise,
            tls=Tls(*files) if files else None,
        )  # fmt: skip
    except InvalidInput as error:
        raise click.UsageError(str(error)) from None
    from controller.daemon import run  # the command line starts fast without it

    ctx.exit(run(options))
