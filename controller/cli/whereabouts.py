"""The verbs fdb, leases and top: who is where, and how busy."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from controller.cli.client import Client, object_path
from controller.cli.context import client, complete_name, reading
from controller.cli.output import note, print_table, print_value

Json = Mapping[str, Any]

_COUNTED = ("sent_packets", "sent_bytes", "received_packets", "received_bytes", "sent_dropped", "received_dropped")
_BY = {"bytes": ("sent_bytes", "received_bytes"), "packets": ("sent_packets", "received_packets"),
       "drops": ("sent_dropped", "received_dropped")}  # fmt: skip
_NAMED = 5


@click.command(epilog="Example: fleetswitch fdb web")
@click.argument("network", shell_complete=complete_name("Network"))
@reading
@click.pass_context
def fdb(ctx: click.Context, network: str, output: str) -> None:
    """Who is where in a network: its vNICs, and the MACs that switches have learned behind uplinks and vNICs."""
    found = client(ctx).get(f"{object_path('Network', network)}/fdb")
    if output != "table":
        print_value(found, output)
        return
    columns = ("vlan", "mac", "kind", "host", "port", "ofport", "vm", "addresses", "state", "age")
    rows = [[_age(entry[name]) if name == "age" else entry[name] for name in columns] for entry in found["entries"]]
    print_table([name.upper() for name in columns], rows)
    _note_unread(found["unread"])
    if found["left_out"]:
        note(f"{found['left_out']} entries more are left out")


@click.command(epilog="Example: fleetswitch leases web")
@click.argument("network", shell_complete=complete_name("Network"))
@reading
@click.pass_context
def leases(ctx: click.Context, network: str, output: str) -> None:
    """Who has which address by DHCP in a network, and until when."""
    found = list(client(ctx).items(f"{object_path('Network', network)}/leases"))
    if output != "table":
        print_value(found, output)
        return
    columns = ("address", "mac", "name", "vm", "host", "state", "expires")
    print_table([name.upper() for name in columns], [[lease[name] for name in columns] for lease in found])


@click.command(epilog="Examples: fleetswitch top; fleetswitch top --once --hosts -o json")
@click.option("--host", help="Of this host alone.", shell_complete=complete_name("Host"))
@click.option("--hosts", is_flag=True, help="Hosts instead of vNICs: what all their guests send and receive.")
@click.option("--by", type=click.Choice(list(_BY)), default="bytes", show_default=True, help="The busiest by this.")
@click.option("-n", "--lines", type=click.IntRange(1, 5000), default=20, show_default=True, help="So many of them.")
@click.option("--every", type=click.FloatRange(0.5, 60), default=2.0, show_default=True, metavar="SECONDS",
              help="Between two looks, from which the rates are.")  # fmt: skip
@click.option("--once", is_flag=True, help="One table, then end.")
@reading
@click.pass_context
def top(
    ctx: click.Context, host: str | None, hosts: bool, by: str, lines: int, every: float, once: bool, output: str
) -> None:
    """The busiest vNICs or hosts, by what the switches count; sent is what guests send. Until Ctrl-C."""
    api = client(ctx)
    before = _look(api, host)
    while True:
        time.sleep(every)
        now = _look(api, host)
        rates = _rates(before, now)
        found = _busiest(_of_hosts(rates) if hosts else rates, by, lines)
        if output != "table":
            print_value(found, output)
        else:
            if not once:
                click.clear()
            _print_rates(found, hosts)
            _note_unread(now["unread"])
        if once:
            return
        before = now


def _look(api: Client, host: str | None) -> Json:
    found: Json = api.get("/counters", host=host)
    return found


def _rates(before: Json, now: Json) -> list[dict[str, Any]]:
    """Per second, of each vNIC that both looks have and that was not plugged in anew between them."""
    seconds = max(now["time"] - before["time"], 1e-3)
    old = {_key(port): port for port in before["ports"]}
    found = []
    for port in now["ports"]:
        was = old.get(_key(port))
        if port["kind"] != "vnic" or was is None or any(port[name] < was[name] for name in _COUNTED):
            continue
        about = {name: port[name] for name in ("vm", "host", "interface", "network", "mac", "name")}
        found.append(about | {name: round((port[name] - was[name]) / seconds, 1) for name in _COUNTED})
    return found


def _key(port: Json) -> tuple[Any, ...]:
    return port["host"], port["ofport"], port["name"]


def _of_hosts(rates: Iterable[Json]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for rate in rates:
        own = found.setdefault(rate["host"], {"host": rate["host"], "vnics": 0, **dict.fromkeys(_COUNTED, 0.0)})
        own["vnics"] += 1
        for name in _COUNTED:
            own[name] = round(own[name] + rate[name], 1)
    return list(found.values())


def _busiest(rates: Iterable[dict[str, Any]], by: str, lines: int) -> list[dict[str, Any]]:
    return sorted(rates, key=lambda rate: -sum(rate[name] for name in _BY[by]))[:lines]


def _print_rates(found: Sequence[Json], hosts: bool) -> None:
    about = ("host", "vnics") if hosts else ("vm", "host", "interface", "network")
    counted = ["SENT_PPS", "SENT_BPS", "RECEIVED_PPS", "RECEIVED_BPS", "DROPS"]
    print_table([*(name.upper() for name in about), *counted],
                [[*(rate[name] for name in about), _short(rate["sent_packets"]), _short(rate["sent_bytes"] * 8),
                  _short(rate["received_packets"]), _short(rate["received_bytes"] * 8),
                  _short(rate["sent_dropped"] + rate["received_dropped"])] for rate in found])  # fmt: skip


def _short(number: float) -> str:
    """A rate in four places: 950, 1.2k, 3.4M."""
    for unit in ("", "k", "M", "G"):
        if number < 1000 or unit == "G":
            break
        number /= 1000
    return f"{number:.0f}{unit}" if number >= 100 or not unit else f"{number:.1f}{unit}"


def _age(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.0f}s"


def _note_unread(unread: Sequence[Json]) -> None:
    for one in unread[:_NAMED]:
        note(f"Host {one['host']} is not among them: {one['reason']}")
    if len(unread) > _NAMED:
        note(f"and {len(unread) - _NAMED} hosts more")
