"""Kinds: what each refuses by itself, and what does not hold between them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from controller.model.fields import parse_mac
from controller.model.host import HostSpec
from controller.model.kinds import Fleet, overlay_mtu
from controller.model.network import NetworkSpec, PortGroup, network_uuid
from controller.model.port import PortSpec
from controller.model.remotes import parse_remotes

MAC = "52:54:00:00:00:01"
UUID = "6d3a9f52-9f6f-4a3c-8c5e-0d9f3a1b2c4d"


def refused(kind: type[Any], **fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vlan": 5, "trunk": [6]}, "has both vlan and trunk"),
        ({"native": 5}, "has native 5 without trunk"),
        ({"trunk": [5], "native_mode": "tagged"}, "native_mode tagged without native"),
        ({"trunk": [5, 5]}, "lists a VLAN twice"),
        ({"isolation": "passthrough", "vlan": 5}, "is passthrough and has a VLAN"),
        ({"max_macs": 5}, "has max_macs without learning"),
        ({"learning": True, "isolation": "isolated"}, "is learning and isolated"),
        ({"learning": True, "filters": ["no-ip-multicast", "clean-traffic"]}, "has the filter clean-traffic"),
        ({"isolation": "passthrough", "filters": ["no-mac-spoofing"]}, "is passthrough and has filters"),
        ({"filters": ["no-such-filter"]}, "no-mac-spoofing"),
        ({"filters": "clean-traffic"}, "filters"),
        ({"vlan": 0}, "0 is no VLAN"),
        ({"vlan": 4095}, "4095 is no VLAN"),
        ({"vlan": "5"}, "valid integer"),
        ({"vlan": True}, "valid integer"),
        ({"isolation": "total"}, "isolation"),
    ],
)
def test_portgroups_that_are_refused(fields: dict[str, Any], said: str) -> None:
    assert said in refused(PortGroup, **fields)


def test_vlans_of_a_portgroup() -> None:
    assert PortGroup().vlans(0) == {0}
    assert PortGroup().vlans(7) == {7}
    assert PortGroup(vlan=5).vlans(7) == {5}
    assert PortGroup(trunk=(1, 2)).vlans(7) == {1, 2}
    assert PortGroup(trunk=(1, 2), native=3).vlans(7) == {1, 2, 3}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mode": "bridge"}, "without physical_network"),
        ({"mode": "bridge", "physical_network": "p", "span": "host"}, "mode bridge and span host"),
        ({"mode": "isolated", "physical_network": "p"}, "use mode bridge"),
        (
            {"mode": "isolated", "portgroups": {"x": {"isolation": "vepa"}}},
            "x is vepa, which needs an uplink",
        ),
        ({"mode": "isolated", "portgroups": {"a b": {}}}, "is no usable name"),
        ({"mode": "isolated", "uuid": "not"}, "is no UUID"),
        ({"mode": "isolated", "mtu": 100}, "mtu"),
        ({"mode": "nat"}, "mode nat without a subnet"),
        ({"mode": "route", "subnets": ["fd00::/64"], "mtu": 1200}, "mtu 1200 and an IPv6 subnet"),
        ({"mode": "open"}, "mode open without a subnet"),
    ],
)
def test_networks_that_are_refused(fields: dict[str, Any], said: str) -> None:
    assert said in refused(NetworkSpec, **fields)


def test_the_default_portgroup_always_exists() -> None:
    network = NetworkSpec.model_validate({"mode": "isolated", "vlan": 7, "portgroups": {"b": {"vlan": 5}, "a": {}}})
    assert network.portgroup("default") == PortGroup()
    assert network.portgroup("c") is None
    assert network.portgroup_names() == ("default", "a", "b")
    assert network.vlans() == {5, 7}
    assert NetworkSpec(mode="isolated", portgroups={"default": PortGroup(vlan=9)}).vlans() == {9}


def test_passthrough_needs_no_vlan() -> None:
    group = PortGroup(isolation="passthrough")
    network = NetworkSpec(mode="bridge", physical_network="p", vlan=7, portgroups={"default": group})
    assert network.vlans() == frozenset()


def test_a_networks_uuid_comes_from_its_name() -> None:
    spec = NetworkSpec(mode="isolated")
    assert network_uuid("web", spec) == network_uuid("web", NetworkSpec(mode="isolated", vlan=3))
    assert network_uuid("web", spec) != network_uuid("lan", spec)
    assert network_uuid("web", NetworkSpec(mode="isolated", uuid=UUID.upper())) == UUID


@pytest.mark.parametrize("remote", ["tcp:192.0.2.1:6640", "ssl:[fd00::1]:6640", "unix:/run/db.sock"])
def test_ovsdb_remotes(remote: str) -> None:
    assert HostSpec(ovsdb=remote).ovsdb == remote


@pytest.mark.parametrize(
    "remote",
    [
        "tcp:kvm01:6640", "tcp:192.0.2.1", "tcp:192.0.2.1:0", "tcp:192.0.2.1:65536", "unix:db.sock", "ptcp:6640", "",
        "unix:/run/a,b", "unix:/run/a\0b", "tcp:192.0.2.1:\u0666\u0666\u0664\u0660", "tcp:192.0.2.1:66\u00b2",
        "tcp:[[fd00::1]]:6640", "tcp:fe80::1%a,b:6640", "tcp:192.0.2.1:6640,tcp:192.0.2.2:6640",
    ],
)  # fmt: skip
def test_ovsdb_remotes_that_are_refused(remote: str) -> None:
    assert f"{remote!r} is no OVSDB remote; write tcp:ADDRESS:6640" in refused(HostSpec, ovsdb=remote)


@given(st.sampled_from(["tcp:", "ssl:", "unix:/"]), st.text("[]:%,0123456789afz./ \u0661\n"))
def test_an_ovsdb_remote_is_one_address(scheme: str, rest: str) -> None:
    """What a Host may name, the OVSDB client can connect to."""
    try:
        remote = HostSpec(ovsdb=scheme + rest).ovsdb
    except ValidationError:
        return
    [address] = parse_remotes(remote)
    assert address.method == "unix" or address.is_numeric


@pytest.mark.parametrize("uri", ["qemu+tls://kvm01/system", "qemu+unix:///system?socket=/run/x", "test:///default"])
def test_libvirt_uris(uri: str) -> None:
    assert HostSpec(ovsdb="unix:/db", libvirt=uri).libvirt == uri


@pytest.mark.parametrize("uri", ["qemu:///system", "qemu+ssh://root@kvm01/system", "xen:///", "qemu+tls://a b/system"])
def test_libvirt_uris_that_are_refused(uri: str) -> None:
    assert "is no libvirt URI" in refused(HostSpec, ovsdb="unix:/db", libvirt=uri)


@pytest.mark.parametrize(
    "address",
    [
        "224.0.0.1",
        "0.0.0.0",
        "127.0.0.1",
        "::",
        "ff02::1",
        "::1",
        "kvm01",
        "10.0.0.1/8",
        "fe80::1%eth0",
        "fd00::1%0",
    ],
)
def test_tunnel_addresses_that_are_refused(address: str) -> None:
    assert "tunnel_ip" in refused(HostSpec, ovsdb="unix:/db", tunnel_ip=address)


@pytest.mark.parametrize("address", ["fe80::5%eth0", "fd00::5%1"])
def test_a_vnics_address_names_no_interface(address: str) -> None:
    problem = refused(PortSpec, vm="web1", mac="52:54:00:00:00:01", network="web", addresses=[address])
    assert "names an interface; write the address alone" in problem


def test_addresses_are_canonical() -> None:
    assert HostSpec(ovsdb="unix:/db", tunnel_ip="FD00:0::1").tunnel_ip == "fd00::1"


def test_one_interface_is_one_uplink() -> None:
    both = {"p1": {"interface": "ens1"}, "p2": {"interface": "ens1"}}
    assert "p1 and p2 both use ens1" in refused(HostSpec, ovsdb="unix:/db", uplinks=both)
    assert "is no interface name" in refused(HostSpec, ovsdb="unix:/db", uplinks={"p1": {"interface": "x" * 16}})


@pytest.mark.parametrize(
    ("tunnel", "ip", "mtu"),
    [
        ("geneve", "192.0.2.1", 1450),
        ("vxlan", "192.0.2.1", 1450),
        ("gre", "192.0.2.1", 1458),
        ("geneve", "fd00::1", 1430),
    ],
)
def test_what_fits_through_a_tunnel(tunnel: Any, ip: str, mtu: int) -> None:
    host = HostSpec(ovsdb="unix:/db", tunnel=tunnel, tunnel_ip=ip)
    assert host.overlay_mtu() == mtu
    assert overlay_mtu([host, HostSpec(ovsdb="unix:/2", underlay_mtu=576)]) == mtu
    assert overlay_mtu([]) is None


@pytest.mark.parametrize("text", ["52:54:00:00:00:01", "52-54-00-00-00-01"])
def test_macs(text: str) -> None:
    assert parse_mac(text) == MAC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "52:54:00:00:00",
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "52:54:00:00:00:0g",
    ],
)
def test_macs_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is"):
        parse_mac(text)


def fleet(*objects: tuple[str, Any]) -> list[str]:
    made = Fleet()
    for name, spec in objects:
        made.put(name, spec)
    return [str(problem) for problem in made.problems()]


def host(**fields: Any) -> HostSpec:
    return HostSpec.model_validate({"ovsdb": "unix:/db", **fields})


def port(number: int, **fields: Any) -> PortSpec:
    return PortSpec.model_validate(
        {"vm": f"vm{number}", "mac": f"52:54:00:00:00:{number:02x}", "network": "web", **fields}
    )


WEB = (
    "web",
    NetworkSpec.model_validate({"mode": "isolated", "portgroups": {"db": {"vlan": 20}, "all": {"trunk": [10, 20]}}}),
)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "Host b: ovsdb: unix:/db is Host a's already"),
        ({"tunnel_ip": "192.0.2.1", "ovsdb": "unix:/2"}, "Host b: tunnel_ip: 192.0.2.1 is Host a's already"),
        ({"libvirt": "test:///a", "ovsdb": "unix:/2"}, "Host b: libvirt: test:///a is Host a's already"),
    ],
)
def test_hosts_share_nothing(fields: dict[str, Any], said: str) -> None:
    [problem] = fleet(("a", host(tunnel_ip="192.0.2.1", libvirt="test:///a")), ("b", host(**fields)))
    assert problem.startswith(said)


def test_networks_share_no_vlan_of_a_physical_network() -> None:
    def bridge(**fields: Any) -> NetworkSpec:
        return NetworkSpec.model_validate({"mode": "bridge", "physical_network": "p1", **fields})

    [problem] = fleet(("a", bridge(vlan=5)), ("b", bridge(portgroups={"x": {"vlan": 5}})))
    assert problem.startswith("Network b: vlan: 5 on p1 is Network a's already")
    [problem] = fleet(("a", bridge()), ("b", bridge()))
    assert "untagged on p1" in problem
    assert fleet(("a", bridge(vlan=5)), ("b", bridge(vlan=6)), ("c", bridge(physical_network="p2", vlan=5))) == []
    [problem] = fleet(("a", bridge(vlan=5, uuid=UUID)), ("b", bridge(vlan=6, uuid=UUID)))
    assert problem.startswith("Network b: uuid: is Network a's already")


def test_an_mtu_must_fit_through_the_tunnels() -> None:
    tunnel = ("kvm1", host(tunnel_ip="192.0.2.1"))
    [problem] = fleet(tunnel, ("web", NetworkSpec(mode="isolated", mtu=1451)))
    assert "does not fit through the fleet's tunnels, which carry 1450" in problem
    assert fleet(tunnel, ("web", NetworkSpec(mode="isolated", mtu=1450))) == []
    assert fleet(tunnel, ("web", NetworkSpec(mode="isolated", mtu=9000, span="host"))) == []


def test_tunnels_must_carry_what_ipv6_needs() -> None:
    """RFC 8200, 5; nobody believes a router that says that less would fit (RFC 8201, 4)."""

    def web(*subnets: str, **fields: Any) -> tuple[str, NetworkSpec]:
        return "web", NetworkSpec.model_validate({"mode": "isolated", "subnets": subnets, **fields})

    narrow, wide = (("kvm1", host(tunnel_ip="192.0.2.1", underlay_mtu=mtu)) for mtu in (1329, 1330))
    [problem] = fleet(narrow, web("fd00::/64"))
    assert problem.startswith("Network web: subnets: IPv6 needs 1280 bytes, and the fleet's tunnels carry 1279")
    assert fleet(wide, web("fd00::/64")) == []
    assert fleet(narrow, web("10.0.0.0/24")) == fleet(narrow, web("fd00::/64", span="host")) == []


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        ([port(1, network="wbe")], "Port p0: network: there is no Network 'wbe'"),
        (
            [port(1, portgroup="dbb")],
            "Port p0: portgroup: Network web has no portgroup 'dbb' (it has: default, all, db)",
        ),
        ([port(1), port(1)], "Port p1: mac: 52:54:00:00:00:01 of vm1 is registered as Port p0 already"),
        ([port(1), port(1, vm="vm2")], "Port p1: mac: 52:54:00:00:00:01 is Port p0's on Network web already"),
        (
            [port(1, addresses=["10.0.0.1"]), port(2, addresses=["10.0.0.1"])],
            "p1: addresses: 10.0.0.1 is Port p0's",
        ),
        (
            [port(1, portgroup="all", addresses=["10.0.0.1"]), port(2, portgroup="db", addresses=["10.0.0.1"])],
            "p1: addresses: 10.0.0.1 is Port p0's",
        ),
    ],
)
def test_ports_that_do_not_hold(ports: list[PortSpec], said: str) -> None:
    [problem] = fleet(WEB, *((f"p{number}", each) for number, each in enumerate(ports)))
    assert said in problem


def test_one_address_may_be_used_again_in_another_vlan() -> None:
    assert (
        fleet(WEB, ("a", port(1, addresses=["10.0.0.1"])), ("b", port(2, portgroup="db", addresses=["10.0.0.1"]))) == []
    )
