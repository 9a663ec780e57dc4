"""The verb describe: everything of one object, in sections that a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click

from controller.cli.client import Client, object_path
from controller.cli.context import client, complete_kind, complete_name, reading, to_kind
from controller.cli.doctor import print_findings
from controller.cli.events import print_events
from controller.cli.output import clean, print_details, print_table, print_value
from controller.cli.reads import table_of

Document = Mapping[str, Any]

_EVENTS = 10
_HEAD = ("kind", "name", "generation", "status")


@click.command(epilog="Examples: fleetswitch describe network web; fleetswitch describe host kvm01 -o json")
@click.argument("kind", callback=to_kind, shell_complete=complete_kind)
@click.argument("name", shell_complete=complete_name(None))
@reading
@click.pass_context
def describe(ctx: click.Context, kind: str, name: str, output: str) -> None:
    """Everything of an object: what is wanted, what was observed, what belongs to it, what happened to it."""
    found = _gather(client(ctx), kind, name)
    if output != "table":
        print_value(found, output)
        return
    document = found["object"]
    generation = f", generation {document['generation']}" if document.get("generation") else ", only observed"
    click.echo(f"{kind} {clean(name)}{generation}")
    _section("Wanted", {field: value for field, value in document.items() if field not in _HEAD})
    _section("Observed", document.get("status") or {})
    for title, kind_of, items in _related(kind, found):
        click.echo(f"\n{title}:")
        _print_objects(kind_of, items)
    if findings := found.get("findings"):
        click.echo(f"\nWhat is wrong ({len(findings)}):")
        print_findings(findings, "  ")
    click.echo(f"\nLast events ({len(found['events'])}):")
    print_events(found["events"])


def _gather(api: Client, kind: str, name: str) -> dict[str, Any]:
    document = api.get(object_path(kind, name))
    about = {"Host": "host", "Network": "network", "Port": "name"}.get(kind, "about")
    found: dict[str, Any] = {"object": document}
    match kind:
        case "Host" | "Network":
            found["ports"] = list(api.items("/ports", **{kind.lower(): name}))
            if kind == "Host":
                found["findings"] = [each for each in api.items("/doctor", host=name) if each["severity"] != "info"]
        case "Port":
            status = document.get("status") or {}
            vm = status.get("vm") or status.get("vm_uuid") or document.get("vm")
            found["ports"] = [port for port in api.items("/ports", vm=vm) if port["name"] != name] if vm else []
            network = status.get("network") or document.get("network")
            found["networks"] = list(api.items("/networks", name=network)) if network else []
            host = status.get("host")
            found["hosts"] = list(api.items("/hosts", name=host)) if host else []
        case "PortForward" | "FloatingIP":
            found["networks"] = list(api.items("/networks", name=document["network"]))
            host = (document.get("status") or {}).get("host")
            found["hosts"] = list(api.items("/hosts", name=host)) if host else []
    found["events"] = list(api.items("/events", **{about: name}, last=_EVENTS))
    return found


def _related(kind: str, found: Mapping[str, Any]) -> Sequence[tuple[str, str, Sequence[Document]]]:
    """Title, kind and objects of each section."""
    ports = found.get("ports", [])
    active = [port["status"] for port in ports if (port.get("status") or {}).get("state") == "active"]
    match kind:
        case "Host":
            networks = Counter(str(status.get("network")) for status in active)
            guests = len({status.get("vm_uuid") for status in (port.get("status") or {} for port in ports)})
            carried = ", ".join(f"{clean(name)} {count}" for name, count in sorted(networks.items())) or "none"
            return [(f"vNICs ({len(ports)} of {guests} guests; switched by network: {carried})", "Port", ports)]
        case "Network":
            hosts = Counter(str(status.get("host")) for status in active)
            spread = ", ".join(f"{clean(name)} {count}" for name, count in sorted(hosts.items())) or "none"
            return [(f"vNICs ({len(ports)}; switched by host: {spread})", "Port", ports)]
        case "PortForward" | "FloatingIP":
            return [
                ("Its network", "Network", found.get("networks", [])),
                ("Its target's host", "Host", found.get("hosts", [])),
            ]  # fmt: skip
        case "BgpPeer":
            return []
        case _:
            return [
                ("Its network", "Network", found.get("networks", [])), ("Its host", "Host", found.get("hosts", [])),
                (f"Other vNICs of its guest ({len(ports)})", "Port", ports),
            ]  # fmt: skip


def _section(title: str, fields: Mapping[str, Any]) -> None:
    click.echo(f"\n{title}:")
    if fields:
        print_details(fields, "  ")
    else:
        click.echo("  -")


def _print_objects(kind: str, items: Sequence[Document]) -> None:
    print_table(*table_of(kind, items), indent="  ")
