"""Random changes of a fleet's rows, for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from controller.fabric import NAT_ADDRESS
from controller.model.dns import Dns
from controller.model.floating import FloatingIPSpec
from controller.model.forward import PortForwardSpec
from controller.model.host import External, HostSpec, Uplink
from controller.model.nat import Nat
from controller.model.network import NetworkSpec, PortGroup
from controller.model.port import Incoming, PortSpec, PortStatus
from controller.model.subnet import Dhcp, Route
from controller.model.target import GuestTarget
from controller.rows import nat_name

Change = tuple[str, str, Any]

HOSTS = [f"kvm{n}" for n in range(4)]
NETWORKS = [f"net{n}" for n in range(4)]
PORTS = [f"port{n}" for n in range(9)]
FORWARDS = [f"forward{n}" for n in range(4)]
FLOATING = [f"floating{n}" for n in range(3)]
GROUPS = {
    "trunk": PortGroup(trunk=(10, 20), native=10),
    "tagged": PortGroup(trunk=(20, 30), native=30, native_mode="tagged"),
    "db": PortGroup(vlan=20, filters=("clean-traffic", "be-dhcp-server")),
    "default": PortGroup(filters=()),
    "nested": PortGroup(learning=True, max_macs=3),
    "quiet": PortGroup(isolation="isolated"),
    "taught": PortGroup(learn_addresses=2),
    "quiet-trunk": PortGroup(trunk=(10, 20), isolation="isolated"),
}
UPLINK_GROUPS = GROUPS | {
    "private": PortGroup(isolation="private"),
    "vepa": PortGroup(isolation="vepa", vlan=20),
    "raw": PortGroup(isolation="passthrough"),
}
POOLS = [None, Nat(addresses=("203.0.113.70-203.0.113.72",)), Nat(addresses=("203.0.113.71",), ports="20000-30000")]
ADDRESSES: list[tuple[str, ...]] = [(), ("10.0.0.5",), ("10.0.0.6", "fd00::6"), ("fd00::7",), ("10.0.0.7",)]


def hosts(number: int) -> st.SearchStrategy[HostSpec]:
    def build(ip: str | None, tunnel: Any, uplinks: tuple[str, ...], vlan: int | None) -> HostSpec:
        named = {name: Uplink(interface=f"e{number}") for number, name in enumerate(uplinks)}
        external = None
        if uplinks and vlan is not None:
            address = f"203.0.113.{number + 11}/24"
            external = External(uplink=uplinks[-1], vlan=vlan or None, address=address, gateway="203.0.113.1")
            if vlan == 20:
                ipv6 = {"address6": f"2001:db8::{number + 11}/64", "gateway6": "2001:db8::1", "mtu": 1400}
                external = external.model_copy(update=ipv6)
        return HostSpec(ovsdb="unix:/db", tunnel_ip=ip, tunnel=tunnel, uplinks=named, external=external)

    own = [f"192.0.2.{number + 1}", f"192.0.2.{number + 101}", f"fd00:1::{number + 1}"]
    ips = st.sampled_from([None, *own, "192.0.2.200"])  # the last one also of other hosts
    uplinks = st.sampled_from([(), ("phys1",), ("phys1", "phys2")])
    outside = st.sampled_from([None, 0, 20, 99])  # a VLAN that a network may have, or that none has
    return st.builds(build, ips, st.sampled_from(["geneve", "vxlan", "gre"]), uplinks, outside)


def routed() -> st.SearchStrategy[NetworkSpec]:
    """Networks with a gateway, most of them with NAT."""

    def with_pool(spec: NetworkSpec) -> st.SearchStrategy[NetworkSpec]:
        """Of those that may have one."""
        nats = st.sampled_from(POOLS if spec.mode == "nat" else [None])
        return nats.map(lambda nat: spec.model_copy(update={"nat": nat}))

    return st.builds(
        NetworkSpec, mode=st.sampled_from(["nat", "nat", "route", "open", "isolated"]),
        span=st.sampled_from(["fleet", "fleet", "host"]),
        portgroups=st.sampled_from([{}, GROUPS]),
        subnets=st.sampled_from([("10.0.0.0/24",), ("10.0.0.1/24", "fd00::/64")]),
        dhcp=st.sampled_from([None, Dhcp(range=(("10.0.0.9", "10.0.0.20"),))]),
        dns=st.sampled_from([None, None, Dns(enable=False)]),
    ).flatmap(with_pool)  # fmt: skip


def networks() -> st.SearchStrategy[NetworkSpec]:
    """Also ones that share VLANs of a physical network, which the store refuses and the engine must outlive."""
    vlans = st.sampled_from([None, None, 10, 20, 100])
    reserved = st.sampled_from([(), ("10.0.0.5", "fd00::fe")])
    isolated = st.builds(
        NetworkSpec, mode=st.just("isolated"), span=st.sampled_from(["fleet", "fleet", "host"]), vlan=vlans,
        portgroups=st.sampled_from([{}, GROUPS, GROUPS]), reserved_addresses=reserved,
    )  # fmt: skip
    ipv6 = st.builds(
        NetworkSpec, mode=st.just("isolated"), span=st.sampled_from(["fleet", "fleet", "host"]),
        portgroups=st.sampled_from([{}, GROUPS]), subnets=st.just(("fd00::1/64",)),
        dhcp=st.sampled_from([None, Dhcp(), Dhcp(range6=(("fd00::9", "fd00::20"),))]),
    )  # fmt: skip
    behind = st.builds(
        NetworkSpec, mode=st.sampled_from(["route", "open"]), subnets=st.just(("10.0.0.1/24", "fd00::1/64")),
        routes=st.sampled_from([
            (), (Route(to="10.50.0.0/16", via="10.0.0.5"), Route(to="10.50.7.0/24", via="10.0.0.7")),
            (Route(to="fd50::/48", via="fd00::7"),),
        ]),
    )  # fmt: skip
    bridged = st.builds(
        NetworkSpec, mode=st.just("bridge"), physical_network=st.sampled_from(["phys1", "phys2"]), vlan=vlans,
        portgroups=st.sampled_from([{}, UPLINK_GROUPS, UPLINK_GROUPS]), reserved_addresses=reserved,
    )  # fmt: skip
    return st.one_of(isolated, bridged, routed(), ipv6, behind)


def ports(number: int) -> st.SearchStrategy[PortStatus]:
    return st.builds(
        PortStatus,
        vm_uuid=st.just(f"00000000-0000-0000-0000-{number:012}"),
        mac=st.sampled_from([f"52:54:00:00:00:{number:02x}", "52:54:00:00:00:aa"]),
        host=st.sampled_from(HOSTS),
        ofport=st.sampled_from([number + 1, number + 1, number + 2, None]),
        network=st.sampled_from(NETWORKS),
        portgroup=st.sampled_from(["default", *UPLINK_GROUPS]),
        addresses=st.sampled_from(ADDRESSES),
        learned=st.sampled_from([(), (), ("10.0.0.7",)]),
        incoming=st.one_of(
            st.none(),
            st.none(),
            st.builds(
                Incoming, host=st.sampled_from(HOSTS), tap=st.just("vnet9"), ofport=st.sampled_from([50 + number, 60])
            ),
        ),
        state=st.sampled_from(["active", "active", "active", "active", "down", "quarantined"]),
    )


def registrations(number: int) -> st.SearchStrategy[PortSpec]:
    """Also of a portgroup that is not there, and two of one MAC or one address."""
    return st.builds(
        PortSpec,
        vm=st.just("guest"),
        mac=st.sampled_from([f"52:54:00:00:00:{number:02x}", "52:54:00:00:00:aa"]),
        network=st.sampled_from(NETWORKS),
        portgroup=st.sampled_from(["default", *UPLINK_GROUPS]),
        addresses=st.sampled_from(ADDRESSES),
    )


def forwards() -> st.SearchStrategy[PortForwardSpec]:
    """Also two of one port, which the store refuses, and ones that lead to nobody."""
    listens: list[Any] = [{"port": 80}, {"port": "8000-8009", "protocol": "udp"}, {"port": "81-83", "host": HOSTS[1]}]
    targets: list[Any] = [
        {"vnic": PORTS[0]}, {"vm": "00000000-0000-0000-0000-000000000001"}, {"address": "10.0.0.5"},
        {"address": "10.0.0.6"}, {"address": "10.0.0.7"},
    ]  # fmt: skip
    ipv6: list[Any] = [{"port": 80, "family": "ipv6"}, {"port": "81-83", "host": HOSTS[1], "family": "ipv6"}]
    targets6 = [*targets[:2], {"address": "fd00::6"}, {"address": "fd00::7"}]
    return st.one_of(
        st.builds(PortForwardSpec, network=st.sampled_from(NETWORKS), listen=st.sampled_from(some),
                  target=st.sampled_from(whom))
        for some, whom in ((listens, targets), (ipv6, targets6))
    )  # fmt: skip


def floating_ips() -> st.SearchStrategy[FloatingIPSpec]:
    """Also two of one address or guest, which the store refuses, ones of no host's subnet, and ones of nobody."""
    targets: list[Any] = [
        {"vnic": PORTS[0]}, {"vnic": PORTS[1]}, {"vm": "00000000-0000-0000-0000-000000000001"},
    ]  # fmt: skip
    ipv4 = ["203.0.113.50", "203.0.113.51", "203.0.113.11", "198.51.100.5"], [*targets, {"address": "10.0.0.7"}]
    ipv6 = ["2001:db8::50", "2001:db8::51", "2001:db8:1::5"], [*targets, {"address": "fd00::7"}]
    return st.one_of(
        st.builds(FloatingIPSpec, network=st.sampled_from(NETWORKS), address=st.sampled_from(addresses),
                  target=st.sampled_from(whom).map(GuestTarget.model_validate))
        for addresses, whom in (ipv4, ipv6)
    )  # fmt: skip


def allotments(networks: list[str]) -> st.SearchStrategy[Change]:
    """An address of a pool becomes a host's, or ceases to be; also of networks and hosts that are not there, and of no
    pool."""
    return st.builds(
        lambda network, host, address, there: (NAT_ADDRESS, nat_name(network, host, address), there or None),
        st.sampled_from(networks), st.sampled_from(HOSTS), st.sampled_from(["203.0.113.70", "203.0.113.71"]),
        st.sampled_from([True, True, False]),
    )  # fmt: skip


def named(kind: str, name: str, values: st.SearchStrategy[Any], gone: int) -> st.SearchStrategy[Change]:
    """The object becomes one of these values; once in ``gone`` times and one it vanishes."""
    value = st.integers(0, gone).flatmap(lambda n: values if n else st.none())
    return value.map(lambda found: (kind, name, found))


def forwarded_changes() -> st.SearchStrategy[Change]:
    """Changes that port forwards and floating addresses into the first network feel."""

    def there(value: Any) -> Any:
        return value.model_copy(update={"network": NETWORKS[0]})

    def port(number: int) -> st.SearchStrategy[PortStatus]:
        default = {"portgroup": "default", "ofport": number + 1}
        return ports(number).map(lambda value: there(value).model_copy(update=default))

    return st.one_of(
        st.sampled_from(FORWARDS).flatmap(lambda name: named("PortForward", name, forwards().map(there), 4)),
        st.sampled_from(FLOATING).flatmap(lambda name: named("FloatingIP", name, floating_ips().map(there), 4)),
        st.integers(0, 2).flatmap(lambda n: named("Port", PORTS[n], port(n), 7)),
        st.integers(0, len(HOSTS) - 1).flatmap(lambda n: named("Host", HOSTS[n], hosts(n), 7)),
        named("Network", NETWORKS[0], routed(), 4),
        allotments(NETWORKS[:1]),
    )


def changes() -> st.SearchStrategy[Change]:
    """One object appears, becomes another, or vanishes."""
    return st.one_of(
        st.integers(0, len(HOSTS) - 1).flatmap(lambda n: named("Host", HOSTS[n], hosts(n), 4)),
        st.sampled_from(NETWORKS).flatmap(lambda name: named("Network", name, networks(), 4)),
        st.integers(0, len(PORTS) - 1).flatmap(lambda n: named("Port", PORTS[n], ports(n), 5)),
        st.integers(0, len(PORTS) - 1).flatmap(lambda n: named("Port", PORTS[n], ports(n), 5)),
        st.integers(0, len(PORTS) - 1).flatmap(lambda n: named("Port", PORTS[n], registrations(n), 5)),
        st.sampled_from(FORWARDS).flatmap(lambda name: named("PortForward", name, forwards(), 4)),
        st.sampled_from(FLOATING).flatmap(lambda name: named("FloatingIP", name, floating_ips(), 4)),
        allotments(NETWORKS),
    )
