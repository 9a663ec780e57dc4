"""The command line as a whole: global options, verbs, errors and exit codes.

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 not confirmed in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import click
from click.shell_completion import get_completion_class

from controller.cli.changes import apply, delete, wait
from controller.cli.client import DEFAULT_API, Address
from controller.cli.context import to_address
from controller.cli.describe import describe
from controller.cli.doctor import doctor
from controller.cli.events import events
from controller.cli.flows import explain, flows
from controller.cli.hook import host_hook
from controller.cli.hosts import host_add, host_remove
from controller.cli.net import net
from controller.cli.output import print_error
from controller.cli.reads import get, host, port
from controller.cli.topology import topology
from controller.cli.trace import trace
from controller.cli.up import up
from controller.cli.whereabouts import fdb, leases, top
from controller.errors import FleetError, NotConfirmed

REFUSED = 1
NOT_CONFIRMED = 3


class _Root(click.Group):
    """Turns errors into lines on stderr and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FleetError as error:
            print_error(error)
            ctx.exit(NOT_CONFIRMED if isinstance(error, NotConfirmed) else REFUSED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a newcomer needs them."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In sections."""
        width = max(map(len, self.commands))
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                rows = [((verb.name or "").ljust(width), verb.get_short_help_str(100)) for verb in verbs]
                formatter.write_dl(rows)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    try:
        version = metadata.version("fleetswitch")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    click.echo(f"fleetswitch {version}")
    ctx.exit()


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
             epilog="Example: fleetswitch apply -f fleet.yaml && fleetswitch port list")  # fmt: skip
@click.option("--api", callback=to_address, envvar="FLEETSWITCH_API", default=DEFAULT_API, show_default=True,
              show_envvar=True, help="Where the controller answers: unix:/PATH or http://127.0.0.1:8640.")  # fmt: skip
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Show the version and exit.")  # fmt: skip
def main(api: Address) -> None:
    """One virtual switch over a fleet of KVM hosts."""


@click.command(epilog='Example: eval "$(fleetswitch completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """A script that completes fleetswitch's words in a shell."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(kind(main, {}, "fleetswitch", "_FLEETSWITCH_COMPLETE").source())


SECTIONS: Mapping[str, Sequence[click.Command]] = {
    "Begin": (up, host, apply, net),
    "See what there is": (get, describe, port, fdb, leases, topology),
    "See whether it is right": (doctor, events, top),
    "See why": (trace, flows, explain),
    "Change": (delete, wait),
    "Other": (completion,),
}

for _verb in (host_add, host_remove, host_hook):
    host.add_command(_verb)
for _verbs in SECTIONS.values():
    for _verb in _verbs:
        main.add_command(_verb)
