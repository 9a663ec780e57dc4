"""The verb host hook: the script with which a host's libvirt reports its vNICs."""

from __future__ import annotations

import click

from controller.cli.client import object_path
from controller.cli.context import client, complete_name
from controller.model.host import HostSpec
from topology.hook import hook_script


@click.command("hook", epilog="Example: fleetswitch host hook kvm01 | ssh root@kvm01 'cat >/root/fleetswitch-hook'")
@click.argument("name", metavar="HOST", shell_complete=complete_name("Host"))
@click.option("--refuse", is_flag=True,
              help="Turn away a vNIC that names a network or portgroup which the fleet does not have.")  # fmt: skip
@click.pass_context
def host_hook(ctx: click.Context, name: str, refuse: bool) -> None:
    """A hook for the host's libvirt, for hosts that name no libvirt: it reports vNICs.

    It prints a shell script, whose first lines say how to install it. It writes to the host's own OVSDB and to nobody
    else, waits 0.15 s at most for that, and lets every guest start; with --refuse all but those it turns away, and
    those too while the controller is not connected.
    """
    document = client(ctx).get(object_path("Host", name))
    click.echo(hook_script(document.get("bridge", HostSpec.model_fields["bridge"].default), refuse), nl=False)
