"""What the other connections cost: OVSDB and libvirt of every host from one controller, beside a bare OVSDB client."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import tempfile
import time
from pathlib import Path

from labkit.run import LabError, say

from . import population
from .controller import Controller, running
from .figures import Figure, Goal, p99
from .jsonrpc import Peer
from .machines import Machine, Machines, each, lift_limit, sizes
from .processes import cpu

ABOUT = "connect time and CPU of 400 OVSDB and libvirt connections, their CPU at rest, and one host in 400 that hangs"
_CHANGES = 40  # ports that get another number one by one, once before and once while a host hangs
_PATIENCE = 30.0
_NOTICED = 2.0  # times as long as before, which is noise
_OVSDB = "bare asyncio JSON-RPC"
_COLUMNS = {
    "Open_vSwitch": ("bridges", "ovs_version", "external_ids"),
    "Bridge": ("name", "ports", "controller", "fail_mode", "datapath_id", "other_config", "external_ids"),
    "Port": ("name", "interfaces", "tag", "trunks", "vlan_mode", "qos", "other_config", "external_ids"),
    "Interface": ("name", "type", "ofport", "ofport_request", "options", "external_ids", "error", "link_state", "mtu"),
    "Controller": ("target", "connection_mode", "inactivity_probe", "max_backoff", "external_ids"),
}
"""What we copy of a host's database, nearly."""


def options(parser: argparse.ArgumentParser) -> None:
    sizes(parser)
    parser.add_argument("--rest", type=float, default=10.0, metavar="SECONDS", help="how long it is at rest (10)")


def measure(args: argparse.Namespace) -> list[Figure]:
    lift_limit()
    with tempfile.TemporaryDirectory(prefix="fleetswitch-bench-") as name:
        folder = Path(name)
        say(f"{args.hosts} databases, {args.guests} guests of libvirt's test driver, {args.networks} networks in each")
        with Machines(folder, population.tenants(args.hosts, args.guests, args.networks)) as machines:
            bare = _bare(machines)
            with running(folder) as controller:
                return _ours(controller, machines, args, bare)


def _bare(machines: Machines) -> tuple[float, float]:
    """Seconds, and seconds of CPU, in which a client that does nothing else has copied every database."""

    async def copy(machine: Machine) -> Peer:
        peer = await Peer.open(machine.socket)
        await peer.ask("get_schema", ["Open_vSwitch"])
        await peer.monitor(_COLUMNS)
        return peer

    async def all_of_them() -> None:
        await asyncio.gather(*(peer.close() for peer in await each(list(machines), copy)))

    begun, used = time.monotonic(), time.process_time()
    machines.loop.run(all_of_them())
    return time.monotonic() - begun, time.process_time() - used


def _ours(
    controller: Controller, machines: Machines, args: argparse.Namespace, bare: tuple[float, float]
) -> list[Figure]:
    pids, size = [controller.process.pid], {"hosts": len(machines)}
    machines.play()
    begun, used = time.monotonic(), cpu(pids)
    controller.api.ask("POST", "/apply", population.real_hosts(machines))
    population.connected(controller, len(machines), ("ovsdb", "libvirt"))
    connected = time.monotonic() - begun, cpu(pids) - used
    begun, used = time.monotonic(), cpu(pids)
    told = json.loads(controller.api.ask("POST", "/apply", population.tenant_networks(args.networks)))
    population.confirmed(controller, told["sequence"], "libvirt")
    made = time.monotonic() - begun, cpu(pids) - used
    machines.plug()
    population.active(controller, args.guests)
    used = cpu(pids)
    time.sleep(args.rest)
    resting = (cpu(pids) - used) / args.rest
    before = _changes(controller, machines, 101)
    hung = machines[0].name
    machines.servers[hung].send_signal(signal.SIGSTOP)
    while_hung = _changes(controller, machines, 102)
    told = Goal(_NOTICED, of="ratio")
    return [
        Figure("fleet", "all connected", connected[0], "s", size, bare[0], _OVSDB),
        Figure("fleet", "CPU until all are connected", connected[1], "s", size, bare[1], _OVSDB),
        Figure("fleet", "networks made in every libvirt", made[0], "s", {**size, "networks": args.networks}),
        Figure("fleet", "CPU of it", made[1], "s", {**size, "networks": args.networks}),
        Figure("fleet", "CPU of a second at rest", resting, "s", {**size, "guests": args.guests}),
        Figure("fleet", "a port's change is known", statistics.median(before), "s", size),
        Figure("fleet", "the same, one OVSDB hangs", statistics.median(while_hung), "s", size,
               statistics.median(before), "none hangs", told),
        Figure("fleet", "the same: p99", p99(while_hung), "s", size, p99(before), "none hangs"),
    ]  # fmt: skip


def _changes(controller: Controller, machines: Machines, ofport: int) -> list[float]:
    """Seconds from another OpenFlow port in a host's OVSDB until the API shows it, one host after the other."""
    taken = []
    for index in range(1, min(_CHANGES + 1, len(machines))):
        vnic = machines[index].vnics[0]
        path = f"/ports/{vnic.uuid}.{vnic.mac.replace(':', '')}"
        machines.renumber(index, vnic.tap, ofport)
        begun = time.monotonic()
        while json.loads(controller.api.ask("GET", path))["status"]["ofport"] != ofport:
            if time.monotonic() - begun > _PATIENCE:
                raise LabError(f"{path}: its new OpenFlow port is not seen in {_PATIENCE:.0f} s")
        taken.append(time.monotonic() - begun)
    return taken
