"""Walks of single frames that went wrong once, and what nobody in the fleet would send."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleets import FleetRows
from frames import STRANGERS, advertisement, arp, ip, ipv6, rarp, solicitation
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import BROADCAST, mac_of
from switch_model import Delivery, Frame, World, number

from apps import APPS
from controller.engine import Engine
from controller.model.port import Incoming
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.ports import uplink_port

PIPELINE = Pipeline(APPS)
ISOLATED_KEY = 1 << 23


def built(fleet: FleetRows) -> World:
    engine = Engine(PIPELINE)
    engine.update(fleet.rows())
    uplinks = {name: uplink_port(number) for name, number in fleet.uplink_numbers.taken.items()}
    world = World(fleet.hosts, uplinks)
    for host, table in engine.tables.items():
        world.switches[host].install(table)
    return world


def punted(world: World, frame: Frame) -> str:
    """The table by which the first host's switch sends its first guest's frame to the controller."""
    run = world.switches["kvm1"].run(1, frame)
    [step] = [run.steps[sent.step] for sent in run.sent]
    return PIPELINE.tables[step.table].name


def places(deliveries: list[Delivery]) -> list[object]:
    return sorted((d.place for d in deliveries), key=str)


def overlay() -> FleetRows:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2")
    fleet.network("web", portgroups={"quiet": {"isolation": "isolated"}})
    return fleet.port("a", "kvm1", "web", ofport=1).port("b", "kvm2", "web", ofport=2)


def test_a_flooded_copy_to_ipv6_does_not_go_to_the_ipv4_peer_before_it() -> None:
    fleet = overlay().host("kvm3", "fd00:1::3").port("c", "kvm3", "web", ofport=3)
    got = built(fleet).from_vnic("kvm1", 1, ip(mac_of(fleet.ports["a"]), BROADCAST))
    assert places(got) == [("kvm2", 2)]


def test_a_vepa_vnic_is_not_answered_by_the_switch() -> None:
    fleet = FleetRows().host("kvm1", None, "phys1").network(
        "lan", "bridge", physical_network="phys1", portgroups={"out": {"isolation": "vepa"}}
    )  # fmt: skip
    fleet.port("a", "kvm1", "lan", "out", ofport=1)
    fleet.port("b", "kvm1", "lan", ofport=2, addresses=("10.0.0.2", "fd00::2"))
    world, mac = built(fleet), mac_of(fleet.ports["a"])
    for question in (arp(mac, "10.0.0.1", "10.0.0.2"), solicitation(mac, "fd00::1", "fd00::2")):
        assert world.from_vnic("kvm1", 1, question) == [Delivery("phys1", question)]


def test_a_priority_tag_from_a_physical_network_is_untagged() -> None:
    fleet = FleetRows().host("kvm1", None, "phys1").network("lan", "bridge", physical_network="phys1")
    frame = ip(STRANGERS[0], BROADCAST, 0)
    got = built(fleet.port("a", "kvm1", "lan", ofport=1)).from_outside("phys1", frame)
    assert got == [Delivery(("kvm1", 1), Frame(frame.fields))]


def test_nobody_is_told_of_a_vnic_that_it_cannot_reach() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2").network("lab", span="host")
    fleet.port("a", "kvm1", "lab", ofport=1).port("b", "kvm2", "lab", ofport=2, addresses=("10.0.0.2", "fd00::2"))
    fleet.port("c", "kvm2", "lab", ofport=3)
    world = built(fleet)
    assert world.from_vnic("kvm1", 1, arp(mac_of(fleet.ports["a"]), "10.0.0.1", "10.0.0.2")) == []
    [answer] = world.from_vnic("kvm2", 3, arp(mac_of(fleet.ports["c"]), "10.0.0.3", "10.0.0.2"))
    assert (answer.place, answer.frame["arp_sha"]) == (("kvm2", 3), mac_of(fleet.ports["b"]))


def test_a_tunnel_lets_in_hosts_of_the_fleet_only() -> None:
    fleet = overlay()
    world, frame = built(fleet), ip(STRANGERS[0], BROADCAST)
    [segment] = fleet.segment_numbers.taken.values()
    assert places(world.from_underlay("kvm2", "geneve", "192.0.2.1", segment, frame)) == [("kvm2", 2)]
    for forged in ("192.0.2.99", "fd00:1::1"):
        assert world.from_underlay("kvm2", "geneve", forged, segment, frame) == []


@pytest.mark.parametrize("key", [0, 99, ISOLATED_KEY])
def test_a_tunnel_key_of_no_segment_leads_nowhere(key: int) -> None:
    world = built(overlay())
    assert world.from_underlay("kvm2", "geneve", "192.0.2.1", key, ip(STRANGERS[0], BROADCAST)) == []


def test_the_isolation_bit_of_a_tunnel_key_keeps_isolated_vnics_apart() -> None:
    fleet = overlay().port("q", "kvm2", "web", "quiet", ofport=7)
    world, frame = built(fleet), ip(STRANGERS[0], BROADCAST)
    [segment] = fleet.segment_numbers.taken.values()
    both = world.from_underlay("kvm2", "geneve", "192.0.2.1", segment, frame)
    assert places(both) == [("kvm2", 2), ("kvm2", 7)]
    assert places(world.from_underlay("kvm2", "geneve", "192.0.2.1", segment | ISOLATED_KEY, frame)) == [("kvm2", 2)]


def test_what_comes_from_a_tunnel_never_goes_into_one() -> None:
    fleet = overlay().host("kvm3", "192.0.2.3").port("c", "kvm3", "web", ofport=3)
    [segment] = fleet.segment_numbers.taken.values()
    for to in (BROADCAST, mac_of(fleet.ports["c"]), STRANGERS[1]):
        got = built(fleet).from_underlay("kvm2", "geneve", "192.0.2.1", segment, ip(STRANGERS[0], to))
        assert all(place in {("kvm2", 2)} for place in places(got))


def test_a_port_that_nobody_knows_reaches_nobody() -> None:
    world = built(overlay())
    assert world.from_vnic("kvm1", 40, ip(STRANGERS[0], BROADCAST)) == []


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        (None, False),
        (["no-arp-mac-spoofing"], False),
        (["clean-traffic"], False),
        ([], True),
        (["no-mac-spoofing"], True),
        (["no-mac-spoofing", "be-dhcp-server"], True),
    ],
)
def test_what_is_behind_a_second_tag_passes_where_nothing_inside_is_checked(
    filters: list[str] | None, passes: bool
) -> None:
    """Linux takes a frame with a tag of VLAN 0 for one without."""
    group = {"trunk": [10], "native": 10, "filters": filters}
    fleet = FleetRows().host("kvm1").network("web", portgroups={"all": group, "db": {"vlan": 10}})
    fleet.port("a", "kvm1", "web", "all", ofport=1).port("b", "kvm1", "web", "db", ofport=2)
    world, mac = built(fleet), mac_of(fleet.ports["a"])
    for outer in (0, 10):
        forged = arp(mac, "10.0.0.1", "10.0.0.2", outer, 0, claimed=STRANGERS[0])
        assert places(world.from_vnic("kvm1", 1, forged)) == ([("kvm1", 2)] if passes else [])


def test_a_vnic_that_has_arrived_is_announced() -> None:
    """QEMU sends a RARP request in the guest's name; it reaches the other hosts, and the uplink."""
    groups = {"strict": {"filters": ["clean-traffic", "no-mac-broadcast"]}}
    fleet = FleetRows().host("kvm1", None, "phys1").network(
        "lan", "bridge", physical_network="phys1", portgroups=groups
    )  # fmt: skip
    fleet.port("a", "kvm1", "lan", ofport=1).port("b", "kvm1", "lan", "strict", ofport=2, addresses=("10.0.0.2",))
    world = built(fleet)
    for name, other in (("a", 2), ("b", 1)):
        mac, ofport = mac_of(fleet.ports[name]), fleet.ports[name].ofport or 0
        assert places(world.from_vnic("kvm1", ofport, rarp(mac, mac))) == [("kvm1", other), "phys1"]


def test_the_switch_answers_no_question_that_may_not_be_asked() -> None:
    fleet = FleetRows().host("kvm1").network("web")
    fleet.port("a", "kvm1", "web", ofport=1, addresses=("10.0.0.1",))
    fleet.port("b", "kvm1", "web", ofport=2, addresses=("10.0.0.2",))
    world, mac = built(fleet), mac_of(fleet.ports["a"])
    assert places(world.from_vnic("kvm1", 1, arp(mac, "10.0.0.1", "10.0.0.2"))) == [("kvm1", 1)]
    assert world.from_vnic("kvm1", 1, arp(mac, "10.0.0.9", "10.0.0.2")) == []


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(576, 1450), st.integers(576, 9000), st.integers(60, 9000))
def test_a_routed_packet_gets_where_it_fits(mtu: int, wire: int, size: int) -> None:
    """Into a network of ``mtu`` bytes and to a wire of ``wire``, from a guest and from outside; ``size`` is its own."""
    gateway = "02:f5:00:00:00:01"
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1").host("kvm2", "192.0.2.2")
    fleet.outside("kvm1", "phys1", "203.0.113.11", mac="02:f5:00:00:01:00", mtu=wire)
    fleet.network("web", "route", subnets=["10.1.0.0/24"], gateway_mac=gateway)
    fleet.network("api", "route", subnets=["10.2.0.0/24"], mtu=mtu)
    fleet.port("a", "kvm1", "web", ofport=1, addresses=("10.1.0.5",))
    fleet.port("b", "kvm2", "api", ofport=2, addresses=("10.2.0.5",))
    world, own = built(fleet), mac_of(fleet.ports["a"])

    def sent(to: str) -> Frame:
        return replace(ip(own, number("eth_dst", gateway), sender="10.1.0.5", to=to, nw_ttl=64), size=size + 14)

    assert places(world.from_vnic("kvm1", 1, sent("10.2.0.5"))) == ([("kvm2", 2)] if size <= mtu else [])
    host = number("eth_dst", "02:f5:00:00:01:00")
    inwards = replace(ip(STRANGERS[0], host, sender="198.51.100.7", to="10.2.0.5", nw_ttl=64), size=size + 14)
    assert places(world.from_outside("phys1", inwards)) == ([("kvm2", 2)] if size <= mtu else [])
    assert punted(world, sent("198.51.100.7")) == ("next_hop_known" if size <= wire else "oversized")


@pytest.mark.parametrize(("size", "fits"), [(1300, True), (1301, False)])
def test_what_is_for_a_floating_address_fits_into_its_guests_network(size: int, fits: bool) -> None:
    gateway, mac = "02:f5:00:00:00:01", "02:f1:00:00:00:50"
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1").outside("kvm1", "phys1", "203.0.113.11")
    fleet.network("web", "nat", subnets=["10.1.0.0/24"], mtu=1300)
    fleet.network("api", "nat", subnets=["10.2.0.0/24"], gateway_mac=gateway)
    fleet.port("a", "kvm1", "api", ofport=1, addresses=("10.2.0.5",))
    fleet.port("b", "kvm1", "web", ofport=2, addresses=("10.1.0.5",))
    world = built(fleet.floating_ip("one", "web", "203.0.113.50", {"vnic": "b"}, mac=mac))

    def sent(own: int, to: str, by: str) -> Frame:
        frame = ip(own, number("eth_dst", to), sender=by, to="203.0.113.50", nw_ttl=64, ip_proto=17, ip_frag=0)
        return replace(frame, size=size + 14)

    inwards = sent(STRANGERS[0], mac, "198.51.100.7")
    assert places(world.from_outside("phys1", inwards)) == ([("kvm1", 2)] if fits else [])
    if not fits:
        run = world.switches["kvm1"].run(uplink_port(fleet.uplink_numbers.of("phys1")), inwards)
        assert [PIPELINE.tables[run.steps[each.step].table].name for each in run.sent] == ["oversized"]
        assert punted(world, sent(mac_of(fleet.ports["a"]), gateway, "10.2.0.5")) == "oversized"


def floating(isolation: str = "none") -> FleetRows:
    """A guest with a floating address, and one of the wire outside, both on one host."""
    fleet = FleetRows().host("kvm1", "192.0.2.1", "phys1")
    ipv6 = {"address6": "2001:db8::11/64", "gateway6": "fe80::1"}
    fleet.outside("kvm1", "phys1", "203.0.113.11", mac="02:f5:00:00:01:00", **ipv6)
    fleet.network("web", "nat", subnets=["10.1.0.0/24", "fd01::/64"])
    fleet.network("lan", "bridge", physical_network="phys1", portgroups={"out": {"isolation": isolation}})
    fleet.port("a", "kvm1", "web", ofport=1, addresses=("10.1.0.5", "fd01::5"))
    fleet.port("pc", "kvm1", "lan", "out", ofport=2)
    fleet.floating_ip("two", "web", "2001:db8::50", {"vnic": "a"}, mac="02:f1:00:00:06:50")
    return fleet.floating_ip("one", "web", "203.0.113.50", {"vnic": "a"}, mac="02:f1:00:00:00:50")


def test_a_host_that_a_guest_left_does_not_answer_its_floating_addresss_announcement_from_the_next_one() -> None:
    """The physical switch would learn from the answer that the address is still here."""
    world, mac = built(floating()), number("eth_src", "02:f1:00:00:00:50")
    assert world.from_outside("phys1", arp(mac, "203.0.113.50", "203.0.113.50")) == []
    # Somebody else who says that the address is its own is told whose it is.
    [answer] = world.from_outside("phys1", arp(STRANGERS[0], "203.0.113.50", "203.0.113.50"))
    assert (answer.place, answer.frame["arp_sha"]) == ("phys1", mac)


def test_only_what_announces_a_guest_to_all_goes_outside_from_its_floating_macs() -> None:
    """A guest may send RARP itself, while it is copied too."""
    fleet = floating().host("kvm2", "192.0.2.2", "phys1")
    ipv6 = {"address6": "2001:db8::12/64", "gateway6": "fe80::1"}
    fleet.outside("kvm2", "phys1", "203.0.113.12", mac="02:f5:00:00:02:00", **ipv6)
    moving = fleet.ports["a"].model_copy(update={"incoming": Incoming(host="kvm2", tap="vnet9", ofport=50)})
    fleet.put("Port", "a", moving)
    mac = mac_of(fleet.ports["a"])

    def senders(frame: Frame) -> set[int]:
        return {d.frame["eth_src"] for d in built(fleet).from_vnic("kvm2", 50, frame) if d.place == "phys1"}

    macs = {number("eth_src", each) for each in ("02:f1:00:00:00:50", "02:f1:00:00:06:50")}
    assert senders(rarp(mac, mac)) == macs
    assert senders(rarp(mac, mac).changed(eth_dst=STRANGERS[0])) == set()


def test_a_floating_address_of_ipv6_is_found_and_reached() -> None:
    fleet = floating()
    world, mac, target = built(fleet), number("eth_src", "02:f1:00:00:06:50"), "2001:db8::50"
    asked = solicitation(STRANGERS[0], "2001:db8::7", target).changed(nw_ttl=255)
    [answer] = world.from_outside("phys1", asked)
    told = {"eth_src": mac, "eth_dst": STRANGERS[0], "icmpv6_type": 136, "ipv6_nd_tll": mac, "nd_reserved": 0x60000000}
    assert {name: answer.frame[name] for name in told} == told
    assert (answer.place, answer.frame["ipv6_src"]) == ("phys1", number("ipv6_src", target))
    # Neither one who is about to take it is answered, nor one from behind a router; nor is the former heard by guests.
    assert world.from_outside("phys1", solicitation(STRANGERS[0], "::", target).changed(nw_ttl=255)) == []
    assert [d.place for d in world.from_outside("phys1", asked.changed(nw_ttl=64))] == [("kvm1", 2)]

    def sent(by: str, kind: int, ttl: int = 64) -> Frame:
        return ipv6(STRANGERS[0], mac, sender=by, to=target, nw_ttl=ttl, ip_proto=58, icmpv6_type=kind, ip_frag=0)

    [there] = world.from_outside("phys1", sent("2001:db8:ffff::7", 128))
    assert (there.place, there.frame["ipv6_dst"]) == (("kvm1", 1), number("ipv6_dst", "fd01::5"))
    assert (there.frame["eth_src"], there.frame["eth_dst"]) == (mac, mac_of(fleet.ports["a"]))
    [advertised] = world.from_outside("phys1", sent("2001:db8::7", 134, 255))
    assert advertised.frame["nw_ttl"] == 254, "no guest takes it for a neighbour's (RFC 4861, 6.1.2)"
    for nobody in ("fe80::7", "::1", "fd01::9", "ff02::1"):
        assert world.from_outside("phys1", sent(nobody, 128)) == []
    assert world.from_outside("phys1", ip(STRANGERS[0], mac, sender="198.51.100.7", to="203.0.113.50")) == []
    run = world.switches["kvm1"].run(uplink_port(fleet.uplink_numbers.of("phys1")), sent("2001:db8::7", 2))
    assert [PIPELINE.tables[run.steps[each.step].table].name for each in run.sent] == ["error_in"]


@pytest.mark.parametrize("address", ["2001:db8::50", "2001:db8::11"])
@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("group", [{"filters": []}, {"learning": True}, {"learn_addresses": 2}])
def test_nor_does_it_for_one_of_ipv6(group: dict[str, object], address: str, learned: bool) -> None:
    fleet = floating().network("lan", "bridge", physical_network="phys1", portgroups={"out": group})
    had = (address,) if learned else ()
    fleet.port("pc", "kvm1", "lan", "out", ofport=2, addresses=had, learned=had)
    world, mac = built(fleet), mac_of(fleet.ports["pc"])
    for frame in (
        advertisement(mac, address, address),
        solicitation(mac, "::", address),
        solicitation(mac, address, "2001:db8::60"),
        ipv6(mac, number("eth_dst", "02:00:00:00:0f:01"), sender=address, to="2001:db8::60", ip_proto=17),
    ):
        assert world.switches["kvm1"].run(2, frame).sent == []


@pytest.mark.parametrize(
    ("to", "to6", "at"),
    [("203.0.113.50", "2001:db8::50", "02:f1:00:00:00:50"), ("203.0.113.11", "2001:db8::11", "02:f5:00:00:01:00")],
)
def test_what_a_vepa_vnic_sends_to_an_address_outside_of_its_own_host_leaves_by_the_uplink(
    to: str, to6: str, at: str
) -> None:
    fleet = floating("vepa")
    world, mac = built(fleet), mac_of(fleet.ports["pc"])
    for frame in (
        arp(mac, "203.0.113.60", to),
        ip(mac, number("eth_dst", at), sender="203.0.113.60", to=to, nw_ttl=64, ip_proto=17, ip_frag=0),
        ip(mac, number("eth_dst", at), sender="203.0.113.60", to=to, nw_ttl=64, ip_proto=1, icmpv4_type=8, ip_frag=0),
        solicitation(mac, "2001:db8::60", to6).changed(nw_ttl=255),
        ipv6(mac, number("eth_dst", at), sender="2001:db8::60", to=to6, nw_ttl=64, ip_proto=17, ip_frag=0),
    ):
        assert world.from_vnic("kvm1", 2, frame) == [Delivery("phys1", frame)]


@pytest.mark.parametrize("address", ["203.0.113.50", "203.0.113.11"])
@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("group", [{"filters": []}, {"learning": True}, {"learn_addresses": 2}])
def test_who_may_speak_for_anybody_speaks_for_no_address_that_the_fleet_answers_for(
    group: dict[str, object], address: str, learned: bool
) -> None:
    """Nor is it heard when it claims one."""
    fleet = floating().network("lan", "bridge", physical_network="phys1", portgroups={"out": group})
    had = (address,) if learned else ()
    fleet.port("pc", "kvm1", "lan", "out", ofport=2, addresses=had, learned=had)
    world, mac = built(fleet), mac_of(fleet.ports["pc"])
    to = number("eth_dst", "02:00:00:00:0f:01")
    for frame in (arp(mac, address, "203.0.113.60"), ip(mac, to, sender=address, to="203.0.113.60", ip_proto=17)):
        assert world.switches["kvm1"].run(2, frame).sent == []


@pytest.mark.parametrize(
    ("sender", "passes"),
    [("198.51.100.7", True), ("2001:db8:1::7", True), ("240.0.0.1", True), ("::2", True)]
    + [(each, False) for each in ("0.0.0.7", "127.0.0.1", "224.0.0.1", "255.255.255.255")]
    + [(each, False) for each in ("::", "::1", "fe80::1", "febf::1", "ff02::1")],
)  # fmt: skip
def test_whose_address_means_nobody_elsewhere_gets_nowhere_by_a_router(sender: str, passes: bool) -> None:
    """From outside, and from a guest of an open network that may send from any address (RFC 1812, 5.3.7; RFC 4291)."""
    gateway, host = "02:f5:00:00:00:01", "02:f5:00:00:01:00"
    fleet = FleetRows().host("kvm1", None, "phys1")
    fleet.outside("kvm1", "phys1", "203.0.113.11", mac=host, address6="2001:db8::11/64", gateway6="fe80::1")
    subnets, free = ["10.1.0.0/24", "fd01::/64"], {"default": {"filters": []}}
    fleet.network("api", "open", subnets=subnets, gateway_mac=gateway, portgroups=free)
    fleet.network("web", "route", subnets=["10.2.0.0/24", "fd02::/64"])
    fleet.port("a", "kvm1", "api", ofport=1).port("b", "kvm1", "web", ofport=2, addresses=("10.2.0.5", "fd02::5"))
    world = built(fleet)

    def sent(own: int, to: str) -> Frame:
        if ":" in sender:
            return ipv6(own, number("eth_dst", to), sender=sender, to="fd02::5", nw_ttl=64, ip_proto=6)
        return ip(own, number("eth_dst", to), sender=sender, to="10.2.0.5", nw_ttl=64, ip_proto=6)

    there = [("kvm1", 2)] if passes else []
    assert places(world.from_outside("phys1", sent(STRANGERS[0], host))) == there
    assert places(world.from_vnic("kvm1", 1, sent(mac_of(fleet.ports["a"]), gateway))) == there


def test_ipv6_goes_to_the_router_outside_once_that_has_said_where_it_is() -> None:
    gateway, host, router = "02:f5:00:00:00:01", "02:f5:00:00:01:00", STRANGERS[0]
    fleet = FleetRows().host("kvm1", None, "phys1").network("api", "route", subnets=["fd01::/64"], gateway_mac=gateway)
    fleet.outside("kvm1", "phys1", "203.0.113.11", mac=host, address6="2001:db8::11/64", gateway6="fe80::1")
    fleet.port("a", "kvm1", "api", ofport=1, addresses=("fd01::5",))
    world, own = built(fleet), mac_of(fleet.ports["a"])
    going = ipv6(own, number("eth_dst", gateway), sender="fd01::5", to="2001:db8:ffff::7", nw_ttl=64)
    assert world.from_vnic("kvm1", 1, going) == []
    said = advertisement(router, "fe80::1", "fe80::1").changed(
        eth_dst=number("eth_dst", host), ipv6_dst=number("ipv6_dst", "2001:db8::11"), nw_ttl=255
    )
    assert world.from_outside("phys1", said.changed(nw_ttl=64)) == []
    assert world.from_outside("phys1", said.changed(ipv6_nd_tll=0)) == []
    assert world.from_vnic("kvm1", 1, going) == []
    assert world.from_outside("phys1", said) == []
    [left] = world.from_vnic("kvm1", 1, going)
    assert left == Delivery("phys1", going.changed(eth_src=number("eth_src", host), eth_dst=router, nw_ttl=63))
    asked = solicitation(router, "2001:db8::1", "2001:db8::11").changed(nw_ttl=255)
    answers = [each.frame for each in world.from_outside("phys1", asked)]
    assert [(each["icmpv6_type"], each["ipv6_nd_tll"]) for each in answers] == [(136, number("eth_src", host))]


@pytest.mark.parametrize("router", ["fe80::1", "2001:db8::1"])
def test_routers_outside_are_found_however_many_machines_somebody_there_pretends_to_be(
    monkeypatch: pytest.MonkeyPatch, router: str
) -> None:
    monkeypatch.setattr("apps.external.MAX_HOPS", 8)
    gateway, host, here = "02:f5:00:00:00:01", "02:f5:00:00:01:00", number("ipv6_dst", "2001:db8::11")
    fleet = FleetRows().host("kvm1", None, "phys1")
    fleet.network("api", "route", subnets=["10.1.0.0/24", "fd01::/64"], gateway_mac=gateway)
    fleet.outside("kvm1", "phys1", "203.0.113.11", mac=host, address6="2001:db8::11/64", gateway6=router)
    fleet.port("a", "kvm1", "api", ofport=1, addresses=("10.1.0.5", "fd01::5"))
    world, own, to = built(fleet), mac_of(fleet.ports["a"]), number("eth_dst", gateway)
    for each in range(2, 12):
        world.from_outside(
            "phys1", solicitation(STRANGERS[1], f"2001:db8::a:{each}", "2001:db8::11").changed(nw_ttl=255)
        )
        said = advertisement(STRANGERS[1], "2001:db8::b", f"2001:db8::b:{each}")
        world.from_outside("phys1", said.changed(eth_dst=number("eth_dst", host), ipv6_dst=here, nw_ttl=255))
    going6 = ipv6(own, to, sender="fd01::5", to="2001:db8:ffff::7", nw_ttl=64)
    going4 = ip(own, to, sender="10.1.0.5", to="198.51.100.7", nw_ttl=64)
    assert world.from_vnic("kvm1", 1, going6) == world.from_vnic("kvm1", 1, going4) == []
    world.from_outside("phys1", solicitation(STRANGERS[0], router, "2001:db8::11").changed(nw_ttl=255))
    world.from_outside("phys1", arp(STRANGERS[0], "203.0.113.1", "203.0.113.11"))
    for going in (going6, going4):
        assert [each.frame["eth_dst"] for each in world.from_vnic("kvm1", 1, going)] == [STRANGERS[0]]
    moved = advertisement(STRANGERS[1], router, router).changed(
        eth_dst=number("eth_dst", host), ipv6_dst=here, nw_ttl=255
    )
    world.from_outside("phys1", moved)
    assert [each.frame["eth_dst"] for each in world.from_vnic("kvm1", 1, going6)] == [STRANGERS[1]]
    nobody = solicitation(STRANGERS[0], router, "2001:db8::11").changed(nw_ttl=255, ipv6_nd_sll=0)
    world.from_outside("phys1", nobody)
    assert [each.frame["eth_dst"] for each in world.from_vnic("kvm1", 1, going6)] == [STRANGERS[1]]


def test_nobody_is_the_gateway_whatever_its_filters() -> None:
    fleet = FleetRows().host("kvm1", "192.0.2.1").host("kvm2", "192.0.2.2")
    groups = {"off": {"filters": []}, "nested": {"learning": True}, "some": {"filters": ["no-arp-mac-spoofing"]}}
    fleet.network("web", "nat", subnets=["10.0.0.0/24"], gateway_mac="02:f5:00:00:00:01", portgroups=groups)
    for ofport, group in enumerate(groups, 1):
        fleet.port(group, "kvm1", "web", group, ofport=ofport)
    fleet.port("b", "kvm2", "web", "off", ofport=9)
    world, gateway = built(fleet), number("eth_src", "02:f5:00:00:00:01")
    for group in groups:
        port = fleet.ports[group]
        assert places(world.from_vnic("kvm1", port.ofport or 0, ip(mac_of(port), BROADCAST))), "it does speak"
        for forged in (ip(gateway, BROADCAST), arp(mac_of(port), "10.0.0.1", "10.0.0.77")):
            assert world.from_vnic("kvm1", port.ofport or 0, forged) == [], group
