"""The verb topology: the fleet as a graph, and what can be asked of it."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from controller.cli.client import DEFAULT_API, Client, parse_address
from controller.cli.context import client, complete_name, reading
from controller.cli.output import note, print_error, print_table, print_value
from controller.cli.png import to_png
from controller.errors import FleetError, NotFound

Json = Mapping[str, Any]

_PATH = "/topology"
_NOT_FOUND = 1
_FORMS = ("table", "json", "yaml", "graphml", "gexf", "dot", "svg", "png")


def _complete_node(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Completes what people name: hosts, networks, guests. Silent when nobody answers."""
    address = ctx.find_root().params.get("api") or parse_address(DEFAULT_API)
    try:
        nodes = Client(address, connect_seconds=1).get(_PATH)["nodes"]
    except FleetError:
        return []
    names = {item["label"] for item in nodes if item["kind"] in {"host", "network", "guest", "physical", "uplink"}}
    return sorted(name for name in names if name.startswith(incomplete))


@click.group(
    invoke_without_command=True,
    epilog="Examples: fleetswitch topology -o svg > fleet.svg; fleetswitch topology path web1 db1",
)
@click.option("-o", "--output", type=click.Choice(_FORMS), default="table",
              show_default=True, help="The form of the output.")  # fmt: skip
@click.option("--network", help="Only what concerns this Network.", shell_complete=complete_name("Network"))
@click.option("--host", help="Only what concerns this Host.", shell_complete=complete_name("Host"))
@click.pass_context
def topology(ctx: click.Context, output: str, network: str | None, host: str | None) -> None:
    """The fleet as a graph: hosts, uplinks, tunnels, guests, vNICs, networks.

    NODE is a host, guest, network or physical network by its name; a vNIC by its MAC, address, HOST/INTERFACE or
    GUEST/NETWORK; an uplink as HOST/INTERFACE; or any node by the id that -o json shows.
    """
    if ctx.invoked_subcommand is not None:
        if output != "table" or network is not None or host is not None:
            raise click.UsageError(f"options go behind {ctx.invoked_subcommand}", ctx)
        return
    if output == "table":
        _print_fleet(client(ctx).get(_PATH, network=network, host=host))
    elif output == "yaml":
        print_value(client(ctx).get(_PATH, network=network, host=host), output)
    elif output == "png":
        if sys.stdout.isatty():
            raise click.UsageError("a terminal shows no PNG: write it to a file, as in: -o png > fleet.png", ctx)
        click.echo(to_png(client(ctx).text(_PATH, format="svg", network=network, host=host)), nl=False)
    else:
        click.echo(client(ctx).text(_PATH, format=output, network=network, host=host), nl=False)


@topology.command(epilog="Example: fleetswitch topology neighbours kvm01/br-int")
@click.argument("node", shell_complete=_complete_node)
@reading
@click.pass_context
def neighbours(ctx: click.Context, node: str, output: str) -> None:
    """What a node is connected with."""
    answer = client(ctx).get(f"{_PATH}/neighbours/{quote(node, safe='')}")
    if output != "table":
        print_value(answer, output)
        return
    found = [[each["relation"], *_place(each["place"]), each["port"]] for each in answer["neighbours"]]
    print_table(["RELATION", *_PLACE, "PORT"], found)
    _note_moment(answer)


@topology.command(epilog="Example: fleetswitch topology path web1 db1")
@click.argument("start", metavar="FROM", shell_complete=_complete_node)
@click.argument("end", metavar="TO", shell_complete=_complete_node)
@reading
@click.pass_context
def path(ctx: click.Context, start: str, end: str, output: str) -> None:
    """The way between two nodes; from guests and vNICs the way that their frames take."""
    answer = client(ctx).get(f"{_PATH}/path", **{"from": start, "to": end})
    if output != "table":
        print_value(answer, output)
    elif answer["found"]:
        print_table(["BY", *_PLACE], [[hop["by"], *_place(hop["place"])] for hop in answer["hops"]])
        if answer["network"] is not None:
            note(f"in {answer['network']}, {_vlan(answer['vlan'])}")
        if answer["remark"]:
            note(f"but {answer['remark']}")
        _note_moment(answer)
    else:
        print_error(NotFound(answer["reason"], where="path",
                             remedy=f"see where it leads: fleetswitch topology neighbours {start}"))  # fmt: skip
    if not answer["found"]:
        ctx.exit(_NOT_FOUND)


@topology.command(epilog="Example: fleetswitch topology shares web1")
@click.argument("node", shell_complete=_complete_node)
@reading
@click.pass_context
def shares(ctx: click.Context, node: str, output: str) -> None:
    """Who is in a segment (one VLAN of one network) with the vNICs of a node."""
    answer = client(ctx).get(f"{_PATH}/shares/{quote(node, safe='')}")
    if output != "table":
        print_value(answer, output)
        return
    print_table(
        ["NETWORK", "VLAN", "GUEST", "HOST", "MAC", "ISOLATION", "ADDRESSES"],
        [[s["network"], _vlan(s["vlan"]), m["guest"], m["host"], m["mac"], m["isolation"], m["addresses"]]
         for s in answer["segments"] for m in s["members"]],
    )  # fmt: skip
    for reason in answer["kept_out"]:
        note(f"in no segment: {reason}")
    _note_moment(answer)


@topology.command(epilog="Examples: fleetswitch topology fails kvm01/ens224; fleetswitch topology fails physnet1")
@click.argument("node", shell_complete=_complete_node)
@reading
@click.pass_context
def fails(ctx: click.Context, node: str, output: str) -> None:
    """What fails when a host, bridge, uplink, tunnel end, physical network or guest does."""
    answer = client(ctx).get(f"{_PATH}/fails/{quote(node, safe='')}")
    if output != "table":
        print_value(answer, output)
        return
    segments = answer["segments"]
    print_table(
        ["NETWORK", "VLAN", "VNICS", "STOP", "CUT_OFF"],
        [[s["network"], _vlan(s["vlan"]), s["members"], s["stopped"], len(s["cut"])] for s in segments],
    )
    cut = [(segment, each, each["member"]) for segment in segments for each in segment["cut"]]
    if cut:
        click.echo()
        print_table(
            ["CUT_OFF", "HOST", "MAC", "NETWORK", "VLAN", "STILL_REACHES", "LOSES_OUTSIDE"],
            [[m["guest"], m["host"], m["mac"], s["network"], _vlan(s["vlan"]), f"{c['left']} of {c['peers']}",
              c["outside"]] for s, c, m in cut],
        )  # fmt: skip
    if answer["guests"]:
        note(f"stops: {', '.join(guest['label'] for guest in answer['guests'])}")
    _note_moment(answer)


_PLACE = ("KIND", "NAME", "STATE", "ID")


def _place(place: Json) -> list[Any]:
    return [place["kind"], place["label"], place["state"], place["id"]]


def _vlan(vlan: int | None) -> str:
    return "passthrough" if vlan is None else f"VLAN {vlan}" if vlan else "untagged"


def _note_moment(answer: Json) -> None:
    note(f"as of change {answer['sequence']}")


def _print_fleet(answer: Json) -> None:
    """Hosts, networks, and the vNICs that are not switched."""
    nodes: dict[str, list[Json]] = defaultdict(list)
    for node in answer["nodes"]:
        nodes[node["kind"]].append(node)
    vnics = nodes["vnic"]
    uplinks: dict[str, list[str]] = defaultdict(list)
    for uplink in nodes["uplink"]:
        uplinks[uplink["host"]].append(f"{uplink['physical_network']}={uplink['interface']}{_unless_up(uplink)}")
    tunnels = {t["host"]: f"{t['type']} {t['address']}{_unless_up(t)}" for t in nodes["tunnel"]}
    guests = Counter(host for guest in nodes["guest"] for host in guest["hosts"])
    print_table(
        ["HOST", "STATE", "UPLINKS", "TUNNEL", "GUESTS", "VNICS", "NETWORKS", "REASON"],
        [[host["name"], host["state"], uplinks[host["name"]], tunnels.get(host["name"]), guests[host["name"]],
          *_carried(host["name"], vnics), host["reason"]] for host in nodes["host"]],
    )  # fmt: skip
    if nodes["network"]:
        click.echo()
        print_table(
            ["NETWORK", "STATE", "MODE", "OVER", "VLANS", "MTU", "VNICS", "HOSTS", "MISSING_ON"],
            [[net["name"], net["state"], net["mode"], _over(net), net["vlans"], net["mtu"],
              *_members(net["name"], vnics), net["missing_on"]] for net in nodes["network"]],
        )  # fmt: skip
    if wrong := [bridge for bridge in nodes["bridge"] if _unless_up(bridge)]:
        click.echo()
        print_table(["BRIDGE", "STATE"], [[bridge["label"], bridge["state"]] for bridge in wrong])
    out = [vnic for vnic in vnics if vnic["state"] != "active"]
    if out:
        click.echo()
        columns = ("guest", "mac", "host", "network", "state", "reason")
        print_table(
            ["NOT_SWITCHED", *(name.upper() for name in columns[1:])], [[v[name] for name in columns] for v in out]
        )
    _note_moment(answer["graph"])


def _unless_up(node: Json) -> str:
    return "" if node["state"] in {"up", "unknown"} else f" ({node['state']})"


def _carried(host: str, vnics: Sequence[Json]) -> tuple[int, dict[str, int]]:
    own = [vnic for vnic in vnics if vnic["host"] == host]
    counts = Counter(vnic["network"] for vnic in own if vnic["state"] == "active" and vnic["network"] is not None)
    return len(own), {name: counts[name] for name in sorted(counts)}


def _members(network: str, vnics: Sequence[Json]) -> tuple[int, int]:
    own = [vnic for vnic in vnics if vnic["network"] == network and vnic["state"] == "active"]
    return len(own), len({vnic["host"] for vnic in own})


def _over(network: Json) -> str:
    if network["physical_network"] is not None:
        return str(network["physical_network"])
    return "tunnels" if network["span"] == "fleet" else "nothing"
