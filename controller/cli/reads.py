"""Verbs that read: get, host list, port list and show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, get_args

import click

from controller.cli.client import object_path
from controller.cli.context import client, complete_kind, complete_name, reading, to_kind
from controller.cli.output import note, print_details, print_table, print_value, text_of
from controller.model.kinds import KINDS
from controller.model.port import PortState

Document = Mapping[str, Any]
Column = tuple[str, Callable[[Document], Any]]

_LINKS = ("openflow", "ovsdb", "libvirt")


@click.command(epilog="Examples: fleetswitch get networks; fleetswitch get host kvm01 -o yaml")
@click.argument("kind", callback=to_kind, shell_complete=complete_kind)
@click.argument("name", required=False, shell_complete=complete_name(None))
@reading
@click.pass_context
def get(ctx: click.Context, kind: str, name: str | None, output: str) -> None:
    """Objects of a kind, or one of them."""
    if name is not None:
        show(ctx, kind, name, output)
    else:
        show_list(ctx, kind, output)


@click.group()
def host() -> None:
    """Hosts of the fleet."""


@host.command("list", epilog="Example: fleetswitch host list")
@reading
@click.pass_context
def host_list(ctx: click.Context, output: str) -> None:
    """All hosts: which of their connections are up, and what they carry."""
    show_list(ctx, "Host", output)
    if output == "table":
        found = [one for one in client(ctx).items("/unknown-switches") if one["datapath_id"] is not None]
        if found:
            note(f"{len(found)} switch{'es' if len(found) > 1 else ''} turned away; see: fleetswitch host unknown")


@host.command("unknown", epilog="Example: fleetswitch host unknown")
@reading
@click.pass_context
def host_unknown(ctx: click.Context, output: str) -> None:
    """Switches that connected and were turned away: why, and what to type."""
    found = list(client(ctx).items("/unknown-switches"))
    if output == "table":
        print_table([name for name, _ in _UNKNOWN], [[read(item) for _, read in _UNKNOWN] for item in found])
    else:
        print_value(found, output)


@click.group()
def port() -> None:
    """Ports: the vNICs of guests."""


@port.command("list", epilog="Example: fleetswitch port list --host kvm01 --state quarantined")
@click.option("--vm", help="Of this guest: its name or UUID.")
@click.option("--host", help="On this host.", shell_complete=complete_name("Host"))
@click.option("--network", help="On this network.", shell_complete=complete_name("Network"))
@click.option("--state", type=click.Choice(get_args(PortState)), help="In this state.")
@reading
@click.pass_context
def port_list(
    ctx: click.Context, vm: str | None, host: str | None, network: str | None, state: str | None, output: str
) -> None:
    """vNICs: guest, host, interface, OpenFlow port, addresses, network."""
    show_list(ctx, "Port", output, vm=vm, host=host, network=network, state=state)


@port.command("show", epilog="Example: fleetswitch port show web1")
@click.argument("name", shell_complete=complete_name("Port"))
@reading
@click.pass_context
def port_show(ctx: click.Context, name: str, output: str) -> None:
    """Everything that is known of one vNIC."""
    show(ctx, "Port", name, output)


def show(ctx: click.Context, kind: str, name: str, output: str) -> None:
    """One object in the form that is wanted."""
    document = client(ctx).get(object_path(kind, name))
    if output == "table":
        print_details(document)
    else:
        print_value(document, output)


def show_list(ctx: click.Context, kind: str, output: str, **filters: str | None) -> None:
    """Objects of a kind in the form that is wanted."""
    documents = list(client(ctx).items(f"/{kind.lower()}s", **filters))
    if output == "table":
        print_table(*table_of(kind, documents))
    else:
        print_value(documents, output)


def table_of(kind: str, documents: Sequence[Document]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the table of these objects."""
    columns = _COLUMNS.get(kind) or _generic(kind)
    if kind == "Port":  # names of Ports begin with UUIDs: people look for guests
        documents = sorted(documents, key=lambda document: [text_of(read(document)) for _, read in columns[:3]])
    return [name for name, _ in columns], [[read(item) for _, read in columns] for item in documents]


def _known(name: str) -> Callable[[Document], Any]:
    """A field as it was observed, or else as it was written."""

    def read(document: Document) -> Any:
        observed = (document.get("status") or {}).get(name)
        return observed if observed not in (None, [], "") else document.get(name)

    return read


def _link(name: str) -> Callable[[Document], Any]:
    return lambda document: ((document.get("status") or {}).get(name) or {}).get("state")


def _hook(document: Document) -> str:
    hook = (document.get("status") or {}).get("hook") or {}
    return "refuses" if hook.get("refuses") else "reports" if hook.get("version") else "?" if hook else ""


def _host_reasons(document: Document) -> str:
    status = document.get("status") or {}
    reasons = [(name, (status.get(name) or {}).get("reason")) for name in _LINKS]
    reasons.append(("hook", (status.get("hook") or {}).get("reason")))
    reasons.append(("no guest's", ", ".join(status.get("strays") or ())))
    reasons.append(("not understood", ", ".join(status.get("not_understood") or ())))
    told = [f"{name}: {reason}" for name, reason in reasons if reason]
    return "; ".join(["being deleted", *told] if status.get("deleting") else told)


def _listens(document: Document) -> str:
    listen = document.get("listen") or {}
    place = listen.get("host") or listen.get("address") or "every host"
    inside = (document.get("target") or {}).get("address") or ""
    ipv6 = listen.get("family") == "ipv6" or ":" in inside
    return f"{listen.get('protocol', 'tcp')} {listen.get('port')} of {place}{' (IPv6)' if ipv6 else ''}"


def _target(document: Document) -> str:
    target = document.get("target") or {}
    name = next((f"{what} {target[what]}" for what in ("vm", "vnic", "address") if what in target), "")
    return f"{name}, port {target['port']}" if "port" in target else name


def _generic(kind: str) -> Sequence[Column]:
    return [("NAME", _known("name")), *((name.upper(), _known(name)) for name in KINDS[kind].model_fields)]


_UNKNOWN: Sequence[Column] = [
    ("DATAPATH", itemgetter("datapath_id")),
    ("ADDRESS", itemgetter("address")),
    ("HOST", itemgetter("host")),
    ("SINCE", itemgetter("since")),
    ("LAST", itemgetter("last")),
    ("ATTEMPTS", itemgetter("attempts")),
    ("REASON", itemgetter("reason")),
    ("REMEDY", itemgetter("remedy")),
]

_COLUMNS: Mapping[str, Sequence[Column]] = {
    "Host": [
        ("NAME", _known("name")),
        *((name.upper(), _link(name)) for name in _LINKS),
        ("HOOK", _hook),
        ("TUNNEL_IP", _known("tunnel_ip")),
        ("DATAPATH", _known("datapath_id")),
        ("OVS", _known("ovs_version")),
        ("FLOWS", _known("flows")),
        ("PORTS", _known("ports")),
        ("REASON", _host_reasons),
    ],
    "Network": [
        ("NAME", _known("name")),
        ("MODE", _known("mode")),
        ("PHYSICAL", _known("physical_network")),
        ("VLAN", _known("vlan")),
        ("MTU", _known("mtu")),
        ("SEGMENTS", _known("segments")),
        ("PORTGROUPS", lambda document: sorted(document.get("portgroups") or ())),
        ("HOSTS", _known("hosts")),
        ("PORTS", _known("ports")),
    ],
    "Port": [
        ("VM", lambda document: _known("vm")(document) or _known("vm_uuid")(document)),
        ("MAC", _known("mac")),
        ("NETWORK", _known("network")),
        ("PORTGROUP", _known("portgroup")),
        ("HOST", _known("host")),
        ("INTERFACE", _known("tap")),
        ("OFPORT", _known("ofport")),
        ("ADDRESSES", _known("addresses")),
        ("STATE", _known("state")),
        ("NAME", _known("name")),
        ("REASON", _known("reason")),
    ],
    "PortForward": [
        ("NAME", _known("name")),
        ("NETWORK", _known("network")),
        ("LISTEN", _listens),
        ("TARGET", _target),
        ("LEADS_TO", lambda document: (document.get("status") or {}).get("target")),
        ("HOST", lambda document: (document.get("status") or {}).get("host")),
        ("ADDRESSES", _known("addresses")),
        ("REASON", _known("reason")),
    ],
    "BgpPeer": [
        ("NAME", _known("name")),
        ("ADDRESS", _known("address")),
        ("REMOTE_AS", _known("remote_as")),
        ("LOCAL_AS", _known("local_as")),
        ("STATE", _known("state")),
        ("SINCE", _known("since")),
        ("ANNOUNCED", _known("announced")),
        ("RECEIVED", _known("received")),
        ("REASON", _known("reason")),
    ],
    "FloatingIP": [
        ("NAME", _known("name")),
        ("ADDRESS", _known("address")),
        ("NETWORK", _known("network")),
        ("TARGET", _target),
        ("LEADS_TO", lambda document: (document.get("status") or {}).get("target")),
        ("HOST", lambda document: (document.get("status") or {}).get("host")),
        ("MAC", lambda document: (document.get("status") or {}).get("mac")),
        ("REASON", _known("reason")),
    ],
}
