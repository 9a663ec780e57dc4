"""Light guests: a namespace and a veth a vNIC, on the host's bridge with the external_ids that libvirt writes.

For density: two hundred on a host in seconds, where a real guest takes two seconds each.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from . import netns as ns
from . import procs
from .host import Host
from .nic import Nic
from .run import run
from .state import GuestState, StateFile, check_name

_LEAVING = 4242  # interface group of what is deleted together


class LightGuest:
    """A guest that is a namespace. Its vNICs are eth0, eth1, ... inside."""

    def __init__(self, facts: GuestState, host: Host, state: StateFile) -> None:
        self.facts = facts
        self.name = facts.name
        self.host = host
        self.netns = facts.netns or ""
        self.vm_id = facts.vm_id
        self.nics = [Nic.from_json(nic) for nic in facts.vnics]
        self._state = state

    def run(self, argv: Sequence[str] | str, timeout: float = 30.0) -> tuple[int, str]:
        """Run a program (a list) or a shell line (a text) in the guest: (exit code, standard output and error)."""
        argv = ["sh", "-c", argv] if isinstance(argv, str) else argv
        done = run(ns.argv_in(self.netns, argv), check=False, timeout=timeout)
        return done.returncode, done.stdout + done.stderr

    def ports(self) -> list[str]:
        """The interfaces' names on the host's bridge, one a vNIC."""
        return [port for _, port, _ in self.cables()]

    def cables(self) -> list[tuple[Nic, str, str]]:
        """For each vNIC, the interface's name on the host and in the guest."""
        return [(nic, port_name(self.facts, index), f"eth{index}") for index, nic in enumerate(self.nics)]

    def ports_yaml(self) -> str:
        """Port documents that register its vNICs: no libvirt vouches for a light guest, so the operator has to."""
        documents = [
            f"---\nkind: Port\nname: {self.name}-{index}\nvm: {self.vm_id}\nmac: '{nic.mac}'\nnetwork: {nic.network}\n"
            "libvirt: false\n" + (f"portgroup: {nic.portgroup}\n" if nic.portgroup else "")
            for index, nic in enumerate(self.nics)
        ]
        return "".join(documents)

    def stop(self) -> None:
        """Take the ports off the bridge and the namespace away."""
        stop([self], self._state)


def port_name(facts: GuestState, index: int) -> str:
    """The host's end of a vNIC: from the guest's name when that fits in an interface's name, else from its id."""
    name = f"l-{facts.name}-{index}"
    return name if len(name) <= 15 else f"l-{facts.vm_id[:8]}-{index}"


def start(host: Host, wanted: Sequence[tuple[str, Sequence[Nic]]], state: StateFile, bridge: str) -> list[LightGuest]:
    """Start several light guests on one host at once; `wanted` is (name, vNICs) a guest.

    Raises LabError when a name is taken or the bridge does not exist.
    """
    host.vsctl("br-exists", bridge)
    guests = [LightGuest(facts, host, state) for facts in _record(host, wanted, state)]
    try:
        _wire(guests, host, bridge)
    except BaseException:
        stop(guests, state)
        raise
    return guests


def _record(host: Host, wanted: Sequence[tuple[str, Sequence[Nic]]], state: StateFile) -> list[GuestState]:
    """Write the guests down before anything of them is made."""
    recorded = []
    with state.edit() as lab:
        for name, nics in wanted:
            check_name(lab, name)
            space = f"{lab.prefix}-{name}"
            facts = GuestState(name, host.name, "light", str(uuid.uuid4()), space, [nic.to_json() for nic in nics])
            lab.guests[name] = facts
            lab.namespaces.append(space)
            recorded.append(facts)
    return recorded


def _wire(guests: Sequence[LightGuest], host: Host, bridge: str) -> None:
    """Namespaces and cables, then addresses, then all ports in one transaction: a port appears with its guest ready."""
    lines, columns = [f"netns add {guest.netns}" for guest in guests], []
    for guest in guests:
        for nic, port, device in guest.cables():
            mtu = f"mtu {nic.mtu}" if nic.mtu else ""
            peer = f"peer name {device} netns {guest.netns} address {nic.mac} {mtu}"
            lines.append(f"link add {port} {mtu} netns {host.netns} type veth {peer}")
            columns += ["--", "add-port", bridge, port, "--", "set", "Interface", port]
            columns += [f"external_ids:{key}={value}" for key, value in external_ids(guest, nic, port).items()]
    ns.ip_batch(lines)
    ports = [port for guest in guests for port in guest.ports()]
    ns.ip_batch((f"link set {port} up" for port in ports), host.netns)
    ns.offloads_off(host.netns, ports)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_configure, guests))
    if columns:
        host.vsctl(*columns, timeout=60.0)


def external_ids(guest: LightGuest, nic: Nic, port: str) -> dict[str, str]:
    """What libvirt writes on an OVS port's Interface row (libvirt's virNetDevOpenvswitchAddPort)."""
    ids = {
        "attached-mac": f'"{nic.mac}"',
        "iface-id": nic.iface_id or str(uuid.uuid4()),
        "vm-id": guest.vm_id,
        "iface-status": "active",
    }
    if profile := nic.profile:
        ids |= {"port-profile": f'"{profile}"', "ifname": port}
    return ids


def _configure(guest: LightGuest) -> None:
    """Addresses and links inside one guest."""
    ns.offloads_off(guest.netns)
    lines = ["link set lo up"]
    for nic, _, device in guest.cables():
        lines.append(f"link set {device} up")
        lines += [f"addr add {address} dev {device}{' nodad' if ':' in address else ''}" for address in nic.addresses]
        lines += [f"route add default via {gateway} dev {device}" for gateway in nic.gateways]
    ns.ip_batch(lines, guest.netns)


def stop(guests: Iterable[LightGuest], state: StateFile) -> None:
    """Stop several light guests, half made ones too: one transaction a host."""
    guests = list(guests)
    for host in {guest.host.name: guest.host for guest in guests}.values():
        ports = [port for guest in guests if guest.host is host for port in guest.ports()]
        if not ports:
            continue
        host.vsctl(*(word for port in ports for word in ("--", "--if-exists", "del-port", port)))
        # one by one, each would wait for the kernel's grace period: 200 in 7.5 s; as a group, once for all
        lines = [f"link set {port} group {_LEAVING}" for port in ports]
        ns.ip_batch_forced([*lines, f"link del group {_LEAVING}"], host.netns)
    spaces = [guest.netns for guest in guests]
    procs.end(procs.inside(ns.path(space) for space in spaces), grace=0.5)
    ns.ip_batch_forced(f"netns del {space}" for space in spaces if ns.exists(space))
    with state.edit() as lab:
        for guest in guests:
            lab.guests.pop(guest.name, None)
            lab.namespaces.remove(guest.netns)
