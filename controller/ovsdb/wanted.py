"""What a host's OVSDB should have of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.model.host import HostSpec
from controller.pipeline.ports import TUNNEL_PORTS, uplink_port

MARK = "fleetswitch"  # external_ids key on every row of ours; its value is the fleet's id
# What a host's hook for libvirt writes (topology/hook.sh): on the bridge, that it is there, and where each vNIC is
# plugged in; on a vNIC's interface, its guest's XML. And what it reads, on the bridge: networks and portgroups.
HOOK = "fleetswitch-hook"
HOOK_PORT = "fleetswitch-port-"
HOOK_XML = "fleetswitch-xml"
HOOK_NETWORKS = "fleetswitch-networks"
RELEASED = "fleetswitch-released"  # on a bridge that was let go of with guests in it: this fleet may take it back

# Integration bridges talk OpenFlow 1.5 to the controller; 1.0 lets a plain `ovs-ofctl dump-flows` look on.
PROTOCOLS = frozenset({"OpenFlow10", "OpenFlow15"})
ALL_VLANS = 4096
OWN_DATAPATHS = 0xF1EE << 48  # the first 16 bits of every datapath id that we give


@dataclass(frozen=True, slots=True)
class WantedInterface:
    """A port with one interface. ``ofport`` 0 leaves the number to Open vSwitch."""

    name: str
    type: str = ""
    ofport: int = 0
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WantedBridge:
    """A bridge of ours. ``controllers`` empty means that it forwards by itself (an uplink bridge). ``for_hook`` is what
    the host's hook is told, if it has one; ``opens`` has it pass on what bridges keep to themselves, LLDP among it."""

    name: str
    datapath_type: str
    fail_mode: str
    interfaces: tuple[WantedInterface, ...]
    datapath_id: str | None = None
    controllers: tuple[str, ...] = ()
    floods: bool = False
    opens: bool = False
    for_hook: str | None = None


def datapath_id(host_number: int) -> int:
    """The OpenFlow datapath id of a host's integration bridge, from its fleet-wide number."""
    return OWN_DATAPATHS | host_number


def uplink_bridge(number: int) -> str:
    """Name of the bridge that holds the physical interface of the physical network with that number."""
    return f"fs-up{number}"


def patch_pair(number: int) -> tuple[str, str]:
    """Names of the patch ports between the integration bridge and the uplink bridge with that number."""
    return f"fs-int{number}", f"fs-ext{number}"


def tunnel_port(kind: str) -> str:
    """Name of the port of the tunnels of an encapsulation."""
    return f"fs-{kind}"


def wanted_bridges(
    spec: HostSpec,
    host_number: int,
    uplink_numbers: Mapping[str, int],
    controllers: tuple[str, ...],
    for_hook: str | None = None,
    guarded: bool = False,
) -> tuple[WantedBridge, ...]:
    """The integration bridge first, then one bridge an uplink, joined to it by a pair of patch ports.

    ``uplink_numbers``: physical network → fleet-wide number. ``controllers``: targets such as ``tcp:10.0.0.1:6653``.
    ``guarded``: the integration bridge has its flows, and drops what uplinks may only let through to them.
    """
    inside: list[WantedInterface] = []
    bridges: list[WantedBridge] = []
    if spec.tunnel_ip is not None:
        local = {"remote_ip": "flow", "local_ip": spec.tunnel_ip, "key": "flow"}
        inside += [WantedInterface(tunnel_port(kind), kind, ofport, local) for kind, ofport in TUNNEL_PORTS.items()]
    for physical_network, uplink in sorted(spec.uplinks.items()):
        number = uplink_numbers[physical_network]
        inner, outer = patch_pair(number)
        inside.append(WantedInterface(inner, "patch", uplink_port(number), {"peer": outer}))
        ports = (WantedInterface(uplink.interface), WantedInterface(outer, "patch", 0, {"peer": inner}))
        bridges.append(
            WantedBridge(uplink_bridge(number), spec.datapath_type, "standalone", ports, floods=True, opens=guarded)
        )
    integration = WantedBridge(
        spec.bridge, spec.datapath_type, "secure", tuple(inside), f"{datapath_id(host_number):016x}", controllers,
        for_hook=for_hook,
    )  # fmt: skip
    return (integration, *bridges)
