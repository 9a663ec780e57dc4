"""The verbs of networks as libvirt writes them, by the words of virsh."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from controller.cli.changes import report
from controller.cli.client import object_path
from controller.cli.context import changing, client, complete_name, reading
from controller.cli.output import note, print_table, text_of
from controller.cli.reads import show, show_list
from controller.errors import InvalidInput, Problem
from topology.network_update import COMMANDS, SECTIONS

View = TypeVar("View", bound=Callable[..., Any])

_MOST_BYTES = 4 << 20  # the API says what is too large; this keeps a device from being read without end
_SHOWN = 3  # values of one element


def _physical(view: View) -> View:
    return click.option("--physical-network", metavar="NAME",
                        help="Of a network of mode bridge: the hosts' uplink to use.")(view)  # fmt: skip


@click.group()
def net() -> None:
    """Networks as libvirt's XML, by the words of virsh."""


@net.command("define", epilog="Examples: fleetswitch net define packtnat.xml --dry-run; "
             "fleetswitch net define br0.xml --physical-network physnet1")  # fmt: skip
@click.argument("file", metavar="FILE")
@_physical
@changing()
@click.pass_context
def net_define(ctx: click.Context, file: str, physical_network: str | None, wait: float, dry_run: bool) -> None:
    """Make a network of a file that virsh net-define takes, - for standard input; it is then on every host.

    What was taken is listed, and what was ignored is a warning with the reason. What cannot be honoured is refused by
    its name, and nothing is changed then.
    """
    how = {"physical_network": physical_network, "wait": wait or None, "dry_run": dry_run}
    try:
        answer = client(ctx).post_xml("/define", _read(file), **how)
    except InvalidInput as error:
        places = [Problem(f"{file}: {each.where}", each.what, each.remedy) for each in error.problems]
        raise InvalidInput(places) from None
    _tell(answer, dry_run)


@net.command("import", epilog="Example: fleetswitch net import kvm01 default --name lab --dry-run")
@click.argument("host", metavar="HOST", shell_complete=complete_name("Host"))
@click.argument("network", metavar="NETWORK")
@click.option("--name", metavar="NAME", help="How it is called in the fleet; as on the host when absent.")
@_physical
@changing()
@click.pass_context
def net_import(ctx: click.Context, /, host: str, network: str, wait: float, dry_run: bool, **how: str | None) -> None:
    """Make a network of one that a host's libvirt has, as net define does.

    The host's own stays as it is: under the same name this one cannot be made there until that one is gone, which a
    warning says. Guests move to it by their <source network='NAME'/>.
    """
    path = f"{object_path('Host', host)}/networks/{quote(network, safe='')}/import"
    _tell(client(ctx).post(path, None, **how, wait=wait or None, dry_run=dry_run), dry_run)


@net.command("update", epilog="Example: fleetswitch net update lab add ip-dhcp-host "
             "\"<host mac='52:54:00:00:00:0a' ip='10.10.10.10' name='web1'/>\"")  # fmt: skip
@click.argument("network", metavar="NETWORK", shell_complete=complete_name("Network"))
@click.argument("command", metavar="COMMAND", type=click.Choice(COMMANDS))
@click.argument("section", metavar="SECTION", type=click.Choice(SECTIONS))
@click.argument("xml", metavar="XML")
@click.option("--live", is_flag=True, hidden=True)
@click.option("--config", is_flag=True, hidden=True)
@click.option("--current", is_flag=True, hidden=True)
@click.option("--parent-index", type=int, hidden=True)
@changing()
@click.pass_context
def net_update(
    ctx: click.Context, /, network: str, command: str, section: str, xml: str, wait: float, dry_run: bool, **_: object
) -> None:
    """Add, change or take away one element of a network, by the words of virsh net-update.

    COMMAND is add, add-first, add-last, delete or modify. SECTION is ip-dhcp-host, ip-dhcp-range, dns-host, dns-txt,
    dns-srv or portgroup; libvirt's others are refused with what to do instead. XML is the element itself, or a file
    that has it. A change is always both live and kept, and an address says itself of which subnet it is: --live,
    --config, --current and --parent-index are taken and change nothing.
    """
    data = xml.encode() if xml.lstrip().startswith("<") else _read(xml)
    how = {"command": command, "section": section, "wait": wait or None, "dry_run": dry_run}
    report(client(ctx).post_xml(f"{object_path('Network', network)}/update", data, **how), dry_run)


@net.command("undefine", epilog="Example: fleetswitch net undefine packtnat")
@click.argument("name", shell_complete=complete_name("Network"))
@click.option("--force", is_flag=True, help="Even while guests are plugged into it.")
@changing()
@click.pass_context
def net_undefine(ctx: click.Context, name: str, force: bool, wait: float, dry_run: bool) -> None:
    """Delete a network, on every host."""
    how = {"force": force, "wait": wait or None, "dry_run": dry_run}
    report(client(ctx).delete(object_path("Network", name), **how), dry_run)


@net.command("list", epilog="Example: fleetswitch net list")
@reading
@click.pass_context
def net_list(ctx: click.Context, output: str) -> None:
    """All networks."""
    show_list(ctx, "Network", output)


@net.command("info", epilog="Example: fleetswitch net info packtnat")
@click.argument("name", shell_complete=complete_name("Network"))
@reading
@click.pass_context
def net_info(ctx: click.Context, name: str, output: str) -> None:
    """Everything that is known of one network."""
    show(ctx, "Network", name, output)


@net.command("dumpxml", epilog="Example: fleetswitch net dumpxml packtnat > packtnat.xml")
@click.argument("name", shell_complete=complete_name("Network"))
@click.pass_context
def net_dumpxml(ctx: click.Context, name: str) -> None:
    """A network as libvirt's XML, which net define takes."""
    click.echo(client(ctx).text(f"{object_path('Network', name)}/xml"), nl=False)


def _read(file: str) -> bytes:
    """Raises InvalidInput for what cannot be read."""
    if file == "-":
        return sys.stdin.buffer.read(_MOST_BYTES)
    try:
        with Path(file).open("rb") as found:
            return found.read(_MOST_BYTES)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise InvalidInput([Problem(file, what, "name a file that may be read")]) from None


def _tell(answer: Mapping[str, Any], dry_run: bool) -> None:
    """What became of the elements, then of the network. Raises NotConfirmed."""
    print_table(["TAKEN", "VALUE"], [[each["where"], _values(each["values"])] for each in answer["taken"]])
    for each in answer["warnings"]:
        remedy = f" ({each['remedy']})" if each["remedy"] else ""
        note(f"warning: {each['where']}: {each['what']}{remedy}")
    if answer["unchecked"]:
        note(f"not checked against libvirt's schema: {answer['unchecked']}")
    report(answer, dry_run)


def _values(values: list[str]) -> str:
    rest = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return text_of(values[:_SHOWN]) + rest
