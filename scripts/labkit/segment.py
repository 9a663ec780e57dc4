"""The cables: management network, tunnels' underlay, physical segments, and the outside machine on them.

Everything hangs in the namespace PREFIX-net: two Linux bridges, and one OVS bridge a physical network (the kernel may
lack VLAN filtering). Only one interface is in the root namespace: PREFIXctl, through which the controller reaches the
hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import netns as ns
from .ovs import Ovs
from .state import LabState, StateFile


def net_namespace(prefix: str) -> str:
    return f"{prefix}-net"


def control_interface(prefix: str) -> str:
    return f"{prefix}ctl"


def outside_namespaces(state: LabState) -> list[str]:
    """The outside machine itself (trunk), then one namespace an access VLAN: the same subnet may be in several."""
    return [f"{state.prefix}-out", *(f"{state.prefix}-out{vlan}" for vlan in state.vlans)]


def all_namespaces(state: LabState) -> list[str]:
    return [net_namespace(state.prefix), *(h.netns for h in state.hosts.values()), *outside_namespaces(state)]


def segment_bridge(physnet: int) -> str:
    """The bridge that plays the physical network physnet1, physnet2, ..."""
    return "seg" if physnet == 1 else f"seg{physnet}"


def _quiet(netns: str) -> None:
    """No IPv6 autoconfiguration here: neither switches nor hosts should chatter on the guests' wires."""

    def work() -> None:
        for which in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")

    ns.call_in(netns, work)


def _cables(state: LabState) -> Iterator[str]:
    """ip(8) lines, run in the root namespace, that make every veth pair where its two ends belong."""
    net = net_namespace(state.prefix)
    yield f"link add {control_interface(state.prefix)} type veth peer name ctl netns {net}"
    for host in state.hosts.values():
        ends = {"m": "eth0", "u": "eth1"} | {f"p{n}": f"eth{n + 1}" for n in range(1, state.physnets + 1)}
        for suffix, inside in ends.items():
            yield f"link add {host.name}{suffix} netns {net} type veth peer name {inside} netns {host.netns}"
    for n in range(state.physnets):
        yield f"link add out{n} netns {net} type veth peer name eth{n} netns {state.prefix}-out"
    for vlan in state.vlans:
        yield f"link add vlan{vlan} netns {net} type veth peer name vlan{vlan} netns {state.prefix}-out{vlan}"


def lay(state: LabState) -> None:
    """Make the namespaces and the cables. The namespaces are recorded in the state before."""
    net = net_namespace(state.prefix)
    ns.ip_batch(f"netns add {name}" for name in all_namespaces(state))
    _quiet(net)
    for host in state.hosts.values():
        _quiet(host.netns)
    ns.ip_batch(_cables(state))
    for name in all_namespaces(state):
        ns.offloads_off(name)
    ns.offloads_off(None, [control_interface(state.prefix)])

    lines = ["link set lo up"]
    for bridge in ("mgmt", "underlay"):
        lines += [f"link add {bridge} type bridge forward_delay 0", f"link set {bridge} up"]
    lines += ["link set ctl master mgmt", "link set ctl up"]
    for host in state.hosts.values():
        lines += [f"link set {host.name}m master mgmt up", f"link set {host.name}u mtu {state.underlay_mtu}"]
        lines += [f"link set {host.name}u master underlay up"]
        lines += [f"link set {host.name}p{n} up" for n in range(1, state.physnets + 1)]
    lines += [f"link set out{n} up" for n in range(state.physnets)]
    lines += [f"link set vlan{vlan} up" for vlan in state.vlans]
    ns.ip_batch(lines, net)

    for host in state.hosts.values():
        lines = ["link set lo up", f"addr add {host.mgmt}/24 dev eth0", f"link set eth1 mtu {state.underlay_mtu}"]
        lines += [f"link set eth{n} up" for n in range(state.physnets + 2)]
        ns.ip_batch(lines, host.netns)
    ns.ip_batch(["link set lo up", *(f"link set eth{n} up" for n in range(state.physnets))], f"{state.prefix}-out")
    for vlan in state.vlans:
        device = f"vlan{vlan}"
        lines = ["link set lo up", f"addr add 10.0.10.254/24 dev {device}", f"link set {device} up"]
        ns.ip_batch(lines, f"{state.prefix}-out{vlan}")
    control = control_interface(state.prefix)
    ns.ip_batch([f"addr add {state.mgmt_net}.254/24 dev {control}", f"link set {control} up"])


def switch(state_file: StateFile) -> Ovs:
    """The Open vSwitch that plays the physical switches."""
    prefix = state_file.now.prefix
    return Ovs("net", state_file.dir / "net", net_namespace(prefix), state_file)


def start_switch(state_file: StateFile) -> None:
    """Start it: hosts and the outside machine on trunk ports, the outside's access ports on physnet1."""
    ovs, state = switch(state_file), state_file.now
    ovs.create()
    args: list[str] = []
    for n in range(1, state.physnets + 1):
        bridge = segment_bridge(n)
        ovs.add_bridge(bridge, fail_mode="standalone")
        for port in [*(f"{host}p{n}" for host in state.hosts), f"out{n - 1}"]:
            args += ["--", "add-port", bridge, port]
    for vlan in state.vlans:
        args += ["--", "add-port", "seg", f"vlan{vlan}", f"tag={vlan}"]
    ovs.vsctl(*args)
