"""Spoof guard: not one frame in somebody else's name gets anywhere, and every frame in its own does."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from e2e_fleet import Fleet, eventually, wait_ping
from e2e_frames import ARP, Build, Place, counts, heard, inside, marked
from e2e_packets import (
    ALL_NODES,
    DESTINATION_OPTIONS,
    FRAGMENT,
    ICMPV6,
    IPV4,
    IPV6,
    RARP,
    UDP,
    Speaker,
    advertisement,
    arp,
    fragment,
    framed,
    icmpv6,
    ipv4,
    ipv6,
    options,
    router_advertisement,
    solicitation,
    udp,
)
from labkit import LightGuest, Nic

from controller.cli import main

pytestmark = pytest.mark.lab
LAB, LIBVIRT = "sg", False

GROUPS = """
portgroups:
  open: {filters: []}
  dhcp: {filters: [no-mac-spoofing, no-arp-spoofing, be-dhcp-server]}
  dhcpv6: {filters: [be-dhcpv6-server]}
  router: {filters: [be-router]}
  clean: {filters: [clean-traffic]}
"""
NETWORKS = f"""
kind: Network
name: cloud
mode: isolated
{GROUPS}
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
vlan: 10
{GROUPS}
"""
# name → host, portgroup, whether its addresses are registered
ROLES = {
    "thief": ("h1", None, True), "near": ("h1", None, True), "far": ("h2", None, True), "new": ("h1", None, False),
    "open": ("h1", "open", True), "dhcp": ("h1", "dhcp", True), "dhcpv6": ("h1", "dhcpv6", True),
    "router": ("h1", "router", True), "clean": ("h1", "clean", True),
}  # fmt: skip
NETS = ("cloud", "lan")
WHO = {
    f"{network}-{role}": Speaker(f"52:54:00:{byte:02x}:01:{n:02x}", f"10.{byte}.0.{n}", f"fd{byte:02x}::{n:x}")
    for byte, network in ((31, "cloud"), (32, "lan"))
    for n, role in enumerate((*ROLES, "away"), start=1)
}
STRANGER = "52:54:00:00:fe:31"
ROUTER = "fe80::1"
FIRST = 0x2000  # more fragments follow


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    fleet.apply(NETWORKS)
    wanted = {}
    for name, who in WHO.items():
        network, role = name.split("-")
        if role not in ROLES:
            continue
        host, group, _ = ROLES[role]
        wanted[name] = (host, [Nic(network, group, who.mac, (f"{who.ipv4}/24", f"{who.ipv6}/64"))])
    guests = fleet.lights(wanted)
    known = [name for name in wanted if ROLES[name.split("-")[1]][2]]
    fleet.apply("".join(
        guests[name].ports_yaml().rstrip() + f"\naddresses: ['{WHO[name].ipv4}', '{WHO[name].ipv6}']\n"
        for name in known
    ))  # fmt: skip
    for name in known:
        eventually(
            f"the addresses of {name}",
            lambda name=name: WHO[name].ipv6 in fleet.get("Port", f"{name}-0")["status"].get("addresses", ()),
        )
    fleet.settle()
    for network in NETS:  # the first frame into a tunnel waits for ARP between the hosts, and may be lost
        wait_ping(guests[f"{network}-thief"], WHO[f"{network}-far"].ipv4)
    return guests


@pytest.fixture(scope="module")
def places(fleet: Fleet, guests: dict[str, LightGuest]) -> dict[str, Place]:
    """Every place where a frame could come out."""
    return {
        **{name: inside(guest) for name, guest in guests.items()},
        "lan-out": Place(fleet.lab.outside, "eth0"),
        "lan-out10": Place(fleet.lab.outside_vlan(10), "vlan10"),
    }


@pytest.fixture(scope="module", autouse=True)
def _away(fleet: Fleet, guests: dict[str, LightGuest]) -> None:
    """One in each network is registered and does not run."""
    for network in NETS:
        who = WHO[f"{network}-away"]
        fleet.apply(f"kind: Port\nname: {network}-away\nvm: away\nmac: '{who.mac}'\nnetwork: {network}\n"
                    f"addresses: ['{who.ipv4}', '{who.ipv6}']\n")  # fmt: skip


def others(places: dict[str, Place], sender: str) -> dict[str, int]:
    """Who hears a broadcast, once each."""
    network = sender.split("-")[0]
    return {name: 1 for name in places if name.startswith(f"{network}-") and name != sender}


def passes(places: dict[str, Place], sender: str, build: Build) -> None:
    wanted = others(places, sender)
    assert counts(heard(places, places[sender], build, expected=wanted)) == wanted


def is_dropped(places: dict[str, Place], sender: str, build: Build) -> None:
    """Not one copy of it anywhere, when an honest frame that was sent after it has come out everywhere."""
    honest = framed(WHO[sender].mac, ARP, arp(1, WHO[sender].mac, WHO[sender].ipv4, WHO[sender].ipv4))
    fence = (places[sender], honest, others(places, sender))
    assert counts(heard(places, places[sender], build, expected=(), fences=[fence])) == {}


def serving(me: Speaker) -> dict[str, Build]:
    """What no vNIC may serve unasked, said from its own addresses."""
    lone = me.link_local
    advertises = router_advertisement(lone)
    bootp = b"\2\1\6\0" + bytes(236)
    return {
        "dhcp-offer": framed(me.mac, IPV4, ipv4(me.ipv4, "255.255.255.255", UDP, udp(67, 68, bootp))),
        "dhcp-offer-from-another-port": framed(me.mac, IPV4, ipv4(me.ipv4, "255.255.255.255", UDP, udp(99, 68, bootp))),
        "dhcp-offer-in-a-first-fragment": framed(
            me.mac, IPV4, ipv4(me.ipv4, "255.255.255.255", UDP, udp(67, 68, bootp), FIRST)
        ),
        "dhcp-offer-of-no-length": framed(
            me.mac, IPV4, ipv4(me.ipv4, "255.255.255.255", UDP, udp(67, 68, bootp), length=0)
        ),
        "dhcpv6-advertise": framed(me.mac, IPV6, ipv6(lone, ALL_NODES, UDP, udp(547, 546, b"\2abc"))),
        "dhcpv6-advertise-from-another-port": framed(me.mac, IPV6, ipv6(lone, ALL_NODES, UDP, udp(99, 546, b"\2abc"))),
        "router-advertisement": framed(me.mac, IPV6, ipv6(lone, ALL_NODES, ICMPV6, advertises)),
        "router-advertisement-behind-options": framed(
            me.mac, IPV6, ipv6(lone, ALL_NODES, DESTINATION_OPTIONS, options(ICMPV6) + advertises)
        ),
        "router-advertisement-in-a-first-fragment": framed(
            me.mac, IPV6, ipv6(lone, ALL_NODES, FRAGMENT, fragment(ICMPV6, 0, True) + advertises)
        ),
        "redirect": framed(me.mac, IPV6, ipv6(lone, ALL_NODES, ICMPV6, icmpv6(lone, ALL_NODES, 137, bytes(36)))),
        "icmp-redirect": framed(me.mac, IPV4, ipv4(me.ipv4, "255.255.255.255", 1, b"\5\1\0\0" + bytes(32))),
    }


def hidden(me: Speaker) -> dict[str, bytes]:
    """What would be a router advertisement or DHCPv6 when its fragments are put together (RFC 7112)."""
    lone = me.link_local
    first = fragment(DESTINATION_OPTIONS, 0, True)
    return {
        "headers-without-end": ipv6(lone, ALL_NODES, FRAGMENT, first + bytes([ICMPV6, 20, 1, 4]) + bytes(20)),
        "icmpv6-in-a-later-fragment": ipv6(lone, ALL_NODES, FRAGMENT, first + options(ICMPV6)),
        "udp-in-a-later-fragment": ipv6(lone, ALL_NODES, FRAGMENT, first + options(UDP)),
    }


def forged(me: Speaker, victim: Speaker) -> dict[str, Build]:
    """In the victim's name, or the router's."""
    doubled = solicitation(me.ipv6, "fd00::99", me.mac)
    doubled = doubled[:4] + (len(doubled) - 32).to_bytes(2, "big") + doubled[6:] + doubled[-8:]
    return {
        "mac": marked(victim.mac),
        "mac-of-nobody": marked(STRANGER),
        "mac-in-ipv4": framed(victim.mac, IPV4, ipv4(me.ipv4, "255.255.255.255", UDP, udp(5000, 5001))),
        "arp-sha": framed(me.mac, ARP, arp(2, victim.mac, me.ipv4, me.ipv4)),
        "arp-spa-in-a-reply": framed(me.mac, ARP, arp(2, me.mac, victim.ipv4, victim.ipv4)),
        "arp-spa-in-a-request": framed(me.mac, ARP, arp(1, me.mac, victim.ipv4, "10.99.0.1")),
        "arp-spa-gratuitous": framed(me.mac, ARP, arp(1, me.mac, victim.ipv4, victim.ipv4)),
        "arp-reply-of-nobody": framed(me.mac, ARP, arp(2, me.mac, "0.0.0.0", victim.ipv4)),
        "arp-with-both": framed(victim.mac, ARP, arp(2, victim.mac, victim.ipv4, victim.ipv4)),
        "arp-behind-two-tags-of-no-vlan": framed(me.mac, ARP, arp(2, me.mac, victim.ipv4, victim.ipv4), (0, 0)),
        "ipv4": framed(me.mac, IPV4, ipv4(victim.ipv4, "255.255.255.255", UDP, udp(5000, 5001))),
        "ipv4-unspecified": framed(me.mac, IPV4, ipv4("0.0.0.0", "255.255.255.255", UDP, udp(5000, 5001))),
        "ipv6": framed(me.mac, IPV6, ipv6(victim.ipv6, ALL_NODES, UDP, udp(5000, 5001))),
        "ipv6-link-local": framed(me.mac, IPV6, ipv6(victim.link_local, ALL_NODES, UDP, udp(5000, 5001))),
        "ipv6-unspecified": framed(me.mac, IPV6, ipv6("::", ALL_NODES, UDP, udp(5000, 5001))),
        "na-target": framed(me.mac, IPV6, advertisement(me.ipv6, victim.ipv6, me.mac)),
        "na-target-of-the-router": framed(me.mac, IPV6, advertisement(me.link_local, ROUTER, me.mac)),
        "na-source": framed(me.mac, IPV6, advertisement(victim.ipv6, me.ipv6, me.mac)),
        "na-mac": framed(me.mac, IPV6, advertisement(me.ipv6, me.ipv6, victim.mac)),
        "ns-source": framed(me.mac, IPV6, solicitation(victim.ipv6, "fd00::99", me.mac)),
        "ns-mac": framed(me.mac, IPV6, solicitation(me.ipv6, "fd00::99", victim.mac)),
        "ns-with-two-macs": framed(me.mac, IPV6, doubled),
        "ns-of-somebody-elses-address": framed(me.mac, IPV6, solicitation("::", victim.ipv6, None)),
    }


def honest(me: Speaker) -> dict[str, Build]:
    everybody = "255.255.255.255"
    report = icmpv6("::", "ff02::16", 143, bytes(4))
    return {
        "mac": marked(me.mac),
        "arp-gratuitous": framed(me.mac, ARP, arp(1, me.mac, me.ipv4, me.ipv4)),
        "arp-reply": framed(me.mac, ARP, arp(2, me.mac, me.ipv4, "10.99.0.1")),
        "arp-probe": framed(me.mac, ARP, arp(1, me.mac, "0.0.0.0", "10.99.0.1")),
        "rarp-of-a-guest-that-arrived": framed(me.mac, RARP, arp(3, me.mac, "0.0.0.0", "0.0.0.0", me.mac)),
        "ipv4": framed(me.mac, IPV4, ipv4(me.ipv4, everybody, UDP, udp(5000, 5001))),
        "ipv4-first-fragment": framed(me.mac, IPV4, ipv4(me.ipv4, everybody, UDP, udp(5000, 5001), FIRST)),
        "ipv4-later-fragment": framed(me.mac, IPV4, ipv4(me.ipv4, everybody, UDP, bytes(8), 2)),
        "dhcp-discover": framed(me.mac, IPV4, ipv4("0.0.0.0", everybody, UDP, udp(68, 67, b"\1\1\6\0" + bytes(236)))),
        "ipv6": framed(me.mac, IPV6, ipv6(me.ipv6, ALL_NODES, UDP, udp(5000, 5001))),
        "ipv6-behind-options": framed(
            me.mac, IPV6, ipv6(me.ipv6, ALL_NODES, DESTINATION_OPTIONS, options(UDP) + udp(5000, 5001))
        ),
        "ipv6-first-fragment": framed(
            me.mac, IPV6, ipv6(me.ipv6, ALL_NODES, FRAGMENT, fragment(UDP, 0, True) + udp(5000, 5001))
        ),
        "icmpv6-first-fragment": framed(
            me.mac, IPV6, ipv6(me.ipv6, ALL_NODES, FRAGMENT, fragment(ICMPV6, 0, True) + b"\x80" + bytes(15))
        ),
        "ipv6-later-fragment": framed(
            me.mac, IPV6, ipv6(me.ipv6, ALL_NODES, FRAGMENT, fragment(UDP, 2, False) + bytes(8))
        ),
        "dhcpv6-solicit": framed(me.mac, IPV6, ipv6(me.link_local, "ff02::1:2", UDP, udp(546, 547, b"\1abc"))),
        "na": framed(me.mac, IPV6, advertisement(me.ipv6, me.ipv6, me.mac)),
        "na-link-local": framed(me.mac, IPV6, advertisement(me.link_local, me.link_local, me.mac)),
        "ns": framed(me.mac, IPV6, solicitation(me.ipv6, "fd00::99", me.mac)),
        "ns-of-its-own-address": framed(me.mac, IPV6, solicitation("::", me.ipv6, None)),
        "mld-report": framed(me.mac, IPV6, ipv6("::", "ff02::16", ICMPV6, report)),
    }


ANYBODY = Speaker("52:54:00:00:00:01", "10.0.0.1", "fd00::1")
FORGED, HONEST = sorted(forged(ANYBODY, ANYBODY)), sorted(honest(ANYBODY))
SERVING, HIDDEN = sorted(serving(ANYBODY)), sorted(hidden(ANYBODY))


@pytest.mark.parametrize("network", NETS)
@pytest.mark.parametrize("what", FORGED)
def test_forged(places: dict[str, Place], network: str, what: str) -> None:
    sender = f"{network}-thief"
    for victim in ("near", "far"):
        is_dropped(places, sender, forged(WHO[sender], WHO[f"{network}-{victim}"])[what])


@pytest.mark.parametrize("network", NETS)
@pytest.mark.parametrize("what", SERVING)
def test_nobody_serves_unasked(places: dict[str, Place], network: str, what: str) -> None:
    for role in ("thief", "new", "open"):
        is_dropped(places, f"{network}-{role}", serving(WHO[f"{network}-{role}"])[what])


@pytest.mark.parametrize("network", NETS)
@pytest.mark.parametrize("what", HIDDEN)
def test_nothing_serves_from_behind_its_headers(places: dict[str, Place], network: str, what: str) -> None:
    for role in ("thief", "new", "open", "router"):
        me = WHO[f"{network}-{role}"]
        is_dropped(places, f"{network}-{role}", framed(me.mac, IPV6, hidden(me)[what]))


@pytest.mark.parametrize("network", NETS)
def test_a_switch_that_was_told_to_look_into_no_fragment_takes_no_offer(
    fleet: Fleet, places: dict[str, Place], network: str
) -> None:
    sender = f"{network}-thief"
    for host in fleet.hosts.values():
        host.ofctl("set-frags", "br-int", "normal")
    try:
        is_dropped(places, sender, serving(WHO[sender])["dhcp-offer-in-a-first-fragment"])
        passes(places, sender, honest(WHO[sender])["ipv4-later-fragment"])
    finally:
        for host in fleet.hosts.values():
            host.ofctl("set-frags", "br-int", "nx-match")


@pytest.mark.parametrize("network", NETS)
@pytest.mark.parametrize("what", HONEST)
def test_honest(places: dict[str, Place], network: str, what: str) -> None:
    for role in ("thief", "new", "open"):
        passes(places, f"{network}-{role}", honest(WHO[f"{network}-{role}"])[what])


@pytest.mark.parametrize("network", NETS)
def test_guests_still_talk(guests: dict[str, LightGuest], network: str) -> None:
    for sender, target in (("thief", "far"), ("near", "thief"), ("new", "far"), ("far", "new")):
        wait_ping(guests[f"{network}-{sender}"], WHO[f"{network}-{target}"].ipv4)
        wait_ping(guests[f"{network}-{sender}"], WHO[f"{network}-{target}"].ipv6)


@pytest.mark.parametrize("network", NETS)
def test_an_empty_list_of_filters_lets_others_behind_the_vnic_speak(places: dict[str, Place], network: str) -> None:
    sender = f"{network}-open"
    passes(places, sender, marked(STRANGER))
    for what in ("arp-spa-in-a-reply", "arp-sha", "ipv4", "ipv6", "na-target", "arp-behind-two-tags-of-no-vlan"):
        passes(places, sender, forged(WHO[sender], Speaker(STRANGER, "10.99.0.9", "fd99::9"))[what])


@pytest.mark.parametrize("network", NETS)
@pytest.mark.parametrize(("role", "said"), [("dhcp", "dhcp-"), ("dhcpv6", "dhcpv6-"), ("router", "r")])
def test_who_is_allowed_to_serves_that_and_no_more(
    places: dict[str, Place], network: str, role: str, said: str
) -> None:
    sender = f"{network}-{role}"
    also = "icmp-redirect" if role == "router" else said
    said_well = [what for what in SERVING if not what.endswith("-of-no-length")]
    allowed = [what for what in said_well if what.startswith((said, also))]
    assert allowed
    for what in SERVING:
        (passes if what in allowed else is_dropped)(places, sender, serving(WHO[sender])[what])


@pytest.mark.parametrize("network", NETS)
def test_clean_traffic_is_ipv4_and_arp(places: dict[str, Place], network: str) -> None:
    sender = f"{network}-clean"
    me = WHO[sender]
    for what in ("arp-gratuitous", "arp-probe", "ipv4", "dhcp-discover", "rarp-of-a-guest-that-arrived"):
        passes(places, sender, honest(me)[what])
    for what in ("ipv6", "na", "mac"):  # the last one is neither IP nor ARP
        is_dropped(places, sender, honest(me)[what])
    is_dropped(places, sender, framed(me.mac, RARP, arp(3, STRANGER, "0.0.0.0", "0.0.0.0", STRANGER)))


def test_a_guest_without_registered_addresses_speaks_from_its_own_mac_alone(places: dict[str, Place]) -> None:
    me, victim = WHO["cloud-new"], WHO["cloud-far"]
    for what in ("mac", "arp-sha", "arp-with-both", "na-mac", "ns-mac", "arp-behind-two-tags-of-no-vlan"):
        is_dropped(places, "cloud-new", forged(me, victim)[what])


REGISTERED = sorted({"arp-spa-in-a-reply", "arp-spa-in-a-request", "arp-spa-gratuitous", "ipv4", "ipv6",
                     "ipv6-link-local", "na-target", "na-source"})  # fmt: skip


@pytest.mark.parametrize("network", NETS)
@pytest.mark.parametrize("what", REGISTERED)
def test_what_is_registered_to_another_is_refused_from_guests_of_whom_nothing_is_known(
    places: dict[str, Place], network: str, what: str
) -> None:
    """Also where the portgroup's filters compare no address; where they are off, that is off."""
    for role in ("new", "router", "dhcpv6"):
        me = WHO[f"{network}-{role}"]
        for victim in ("near", "far", "away"):
            is_dropped(places, f"{network}-{role}", forged(me, WHO[f"{network}-{victim}"])[what])
    if what != "arp-spa-gratuitous":  # a question about the victim's address, which the switch answers
        passes(places, f"{network}-open", forged(WHO[f"{network}-open"], WHO[f"{network}-far"])[what])


@pytest.mark.parametrize("network", NETS)
@pytest.mark.parametrize("what", HONEST)
def test_what_is_registered_to_it_is_its_own_where_no_filter_compares(
    places: dict[str, Place], network: str, what: str
) -> None:
    passes(places, f"{network}-router", honest(WHO[f"{network}-router"])[what])


def dropped(fleet: Fleet, table: str, why: str) -> int:
    """Packets that the flows with this reason have dropped on h1, as ``fleetswitch flows`` counts them."""
    words = ["--api", fleet.controller.api, "flows", "h1", "--table", table, "-o", "json"]
    done = CliRunner().invoke(main, words, prog_name="fleetswitch")
    assert done.exit_code == 0, done.output
    flows = [flow for flow in json.loads(done.output) if why in json.dumps(flow)]
    assert flows
    return sum(flow["packets"] for flow in flows)


@pytest.mark.parametrize(
    ("table", "why", "what"),
    [
        ("spoof_guard", "nothing else in this table wanted it", "mac-of-nobody"),
        ("spoof_guard", "a tag inside the first one", "arp-behind-two-tags-of-no-vlan"),
        ("server_guard", "DHCP to a client", "dhcp-offer"),
        ("server_guard", "router advertisement", "router-advertisement"),
        ("neighbour_guard", "ARP in somebody else's name", "arp-spa-in-a-reply"),
        ("neighbour_guard", "ND in somebody else's name", "na-target"),
        ("address_guard", "from somebody else's IPv4 address", "ipv4"),
        ("address_guard", "from somebody else's IPv6 address", "ipv6"),
        ("neighbour_owner", "that of another vNIC", "arp-spa-in-a-reply"),
        ("address_owner", "that of another vNIC", "ipv4"),
    ],
)
def test_what_was_dropped_is_counted(fleet: Fleet, places: dict[str, Place], table: str, why: str, what: str) -> None:
    sender = "cloud-new" if table.endswith("_owner") else "cloud-thief"
    me = WHO[sender]
    build = {**forged(me, WHO["cloud-far"]), **serving(me)}[what]
    before = dropped(fleet, table, why)
    is_dropped(places, sender, build)
    # Open vSwitch's revalidators add up what the datapath has counted, about twice a second.
    eventually("it is counted", lambda: dropped(fleet, table, why) > before)
