"""What Open vSwitch says that it would do (ofproto/trace) is what real frames do; what it has is what was wanted."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Any

import pytest
import yaml
from e2e_fleet import Document, Fleet, installed, pings
from e2e_frames import ARP, EXPERIMENT, Build, Place, arp_request, counts, ears, heard, inside, is_arp, marked
from e2e_packets import IPV4, IPV6, UDP, Speaker, arp, framed, ipv4, solicitation, udp
from labkit import Frame, LightGuest, Nic, send

from apps import APPS
from controller.engine import Engine
from controller.model.host import HostSpec
from controller.model.network import NetworkSpec
from controller.model.port import PortSpec, PortStatus
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.ports import TUNNEL_PORTS, uplink_port
from controller.rows import Rows, segment_name

pytestmark = pytest.mark.lab
HOSTS, LIBVIRT = 3, False

NETWORKS = """
kind: Network
name: cloud
mode: isolated
portgroups: {quiet: {isolation: isolated}}
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
portgroups:
  ten: {vlan: 10}
  twenty: {vlan: 20}
  trunk: {trunk: [10, 20]}
"""
GUESTS = {
    "c1": ("h1", "cloud", None), "c1b": ("h1", "cloud", None), "c2": ("h2", "cloud", None),
    "q1": ("h1", "cloud", "quiet"), "q1b": ("h1", "cloud", "quiet"), "q3": ("h3", "cloud", "quiet"),
    "ten1": ("h1", "lan", "ten"), "ten1b": ("h1", "lan", "ten"), "twenty1": ("h1", "lan", "twenty"),
    "trunk1": ("h1", "lan", "trunk"), "ten2": ("h2", "lan", "ten"),
}  # fmt: skip
MAC = {name: f"52:54:00:7a:00:{n:02x}" for n, name in enumerate(GUESTS, start=1)}
ADDRESS = {name: f"10.7.0.{n}" for n, name in enumerate(GUESTS, start=1)}


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    fleet.apply(NETWORKS)
    return fleet.lights({
        name: (host, [Nic(network, group, MAC[name], (f"{ADDRESS[name]}/24",))])
        for name, (host, network, group) in GUESTS.items()
    })  # fmt: skip


@pytest.fixture
def places(fleet: Fleet, guests: dict[str, LightGuest]) -> dict[str, Place]:
    """The vNICs of h1, and the wires that leave it."""
    host = fleet.hosts["h1"]
    found = {name: inside(guest) for name, guest in guests.items() if guest.host is host}
    return {**found, "trunk": Place(host.netns, "eth2", True), "underlay": Place(host.netns, "eth1", True)}


def traced(
    fleet: Fleet, guests: dict[str, LightGuest], sender: str, headers: str, tag: int | None = None
) -> dict[str, int]:
    """Where ofproto/trace says that a frame comes out of h1: name of the place → how many copies."""
    return traced_from(fleet, guests, guests[sender].ports()[0], headers, tag)


def traced_from(
    fleet: Fleet, guests: dict[str, LightGuest], interface: str, headers: str, tag: int | None = None
) -> dict[str, int]:
    """The same of what comes in by any interface of h1's integration bridge."""
    host = fleet.hosts["h1"]
    flow = f"in_port={host.vsctl('get', 'Interface', interface, 'ofport')},{headers}"
    if tag is not None:
        flow += f",dl_vlan={tag}"
    said = host.appctl("ofproto/trace", "br-int", flow)
    actions = said.rpartition("Datapath actions: ")[2].splitlines()[0]
    if actions == "drop":
        return {}
    ports = {guest.ports()[0]: name for name, guest in guests.items() if guest.host is host} | {"eth2": "trunk"}
    numbers = {
        int(number): ports[port]
        for port, number in re.findall(r"^\s+(\S+) \d+/(\d+):", host.appctl("dpif/show"), re.MULTILINE)
        if port in ports
    }
    found = {"underlay": actions.count("tnl_push(")} if "tnl_push(" in actions else {}
    actions = re.sub(r"tnl_push\(.*?out_port\(\d+\)\),\d+", "", actions)  # up to the wire that it leaves by
    for word in re.sub(r"push_vlan\([^()]*\)|clone\(|\)", "", actions).split(","):
        if word.isdecimal() and (name := numbers.get(int(word))) is not None:
            found[name] = found.get(name, 0) + 1
    return found


CASES = [
    *((sender, target, None) for sender in ("c1", "q1") for target in ("c1b", "c2", "q1b", "q3", "ten1", "all")),
    *(("ten1", target, None) for target in ("ten1b", "twenty1", "trunk1", "ten2", "c1", "all", "nobody")),
    ("ten1", "ten1b", 10), ("ten1", "all", 20), ("ten1", "all", 10),
    *(("trunk1", target, tag) for target in ("ten1", "twenty1", "ten2", "all") for tag in (None, 10, 20, 30)),
]  # fmt: skip


def test_trace_agrees_with_what_frames_do(
    fleet: Fleet, guests: dict[str, LightGuest], places: dict[str, Place]
) -> None:
    assert pings(guests["c1"], ADDRESS["c2"])  # the hosts know each other's addresses on the underlay
    wrong, dropped, outer = {}, 0, {"all": "ff:ff:ff:ff:ff:ff", "nobody": "52:54:00:7a:ff:ff"}
    for sender, target, tag in CASES:
        dst = outer.get(target) or MAC[target]
        told = traced(fleet, guests, sender, f"dl_src={MAC[sender]},dl_dst={dst},dl_type={EXPERIMENT:#x}", tag)
        dropped += not told
        last = 10 if sender == "trunk1" else None
        near = {"c1": "c1b", "q1": "c1", "ten1": "ten1b", "trunk1": "ten1"}[sender]
        fence = (places[sender], marked(MAC[sender], MAC[near], () if last is None else (last,)), [near])
        found = heard(
            places, places[sender], marked(MAC[sender], dst, () if tag is None else (tag,)),
            expected=told, fences=[fence],
        )  # fmt: skip
        if counts(found) != told:
            wrong[sender, target, tag] = (told, counts(found))
    assert wrong == {}
    assert 10 <= dropped < len(CASES) - 10


# From another host: who sends, to whom.
BY_TUNNEL = [(sender, target) for sender in ("c2", "q3") for target in ("c1", "q1", "ten1", "all")]
# From the physical network: to whom, with which tag.
BY_UPLINK = [
    (target, tag) for target in ("ten1", "twenty1", "trunk1", "c1", "ten2", "all") for tag in (None, 10, 20, 30)
]
OUTSIDE = "52:54:00:7a:fe:01"


def outer_of(frame: Frame) -> tuple[str, int]:
    """Whose address a geneve packet comes from, and its key (RFC 8926, 3.4)."""
    return str(IPv4Address(frame.payload[12:16])), int.from_bytes(frame.payload[32:35])


def test_trace_agrees_with_what_comes_by_a_tunnel(
    fleet: Fleet, guests: dict[str, LightGuest], places: dict[str, Place]
) -> None:
    """The switch is asked about the very packet that came over the wire, with its key."""
    host, wrong, came = fleet.hosts["h1"], {}, 0
    everywhere = {**places, "from underlay": Place(host.netns, "eth1"), **{n: inside(guests[n]) for n in ("c2", "q3")}}
    for sender, target in BY_TUNNEL:
        assert pings(guests[sender], ADDRESS["c1"])
        dst = MAC.get(target, "ff:ff:ff:ff:ff:ff")
        fence = (everywhere[sender], marked(MAC[sender], MAC["c1"]), ["c1"])
        found = heard(everywhere, everywhere[sender], marked(MAC[sender], dst), expected=(), fences=[fence])
        real = {name: number for name, number in counts(found).items() if name in places}
        for packet in found.get("from underlay", ()):
            source, key = outer_of(packet)
            headers = f"tun_id={key},tun_src={source},tun_dst={host.tunnel_ip},dl_src={MAC[sender]},dl_dst={dst}"
            told = traced_from(fleet, guests, "fs-geneve", f"{headers},dl_type={EXPERIMENT:#x}")
            came += 1
            if told != real:
                wrong[sender, target] = (told, real)
        if "from underlay" not in found and real:
            wrong[sender, target] = ("it never came", real)
    assert wrong == {}
    assert came >= 4


def test_trace_agrees_with_what_comes_by_the_uplink(
    fleet: Fleet, guests: dict[str, LightGuest], places: dict[str, Place]
) -> None:
    outside, wrong, heard_some = Place(fleet.lab.outside, "eth0"), {}, 0
    for target, tag in BY_UPLINK:
        dst, tags = MAC.get(target, "ff:ff:ff:ff:ff:ff"), () if tag is None else (tag,)
        headers = f"dl_src={OUTSIDE},dl_dst={dst},dl_type={EXPERIMENT:#x}"
        told = traced_from(fleet, guests, "fs-int1", headers, tag)
        fence = (outside, marked(OUTSIDE, "ff:ff:ff:ff:ff:ff", (10,)), ["ten1", "ten1b", "trunk1"])
        real = counts(heard(places, outside, marked(OUTSIDE, dst, tags), expected=told, fences=[fence]))
        heard_some += bool(real)
        if real != told:
            wrong[target, tag] = (told, real)
    assert wrong == {}
    assert heard_some >= 6


def asked(target: str, address6: str) -> list[tuple[str, Build]]:
    """What c1 asks to find this guest, by ARP and by ND, for the switch and as a frame."""
    me, link_local = MAC["c1"], Speaker(MAC["c1"], ADDRESS["c1"], "fd07::1").link_local
    group, group_mac = "ff02::1:ff00:" + address6.rpartition(":")[2], "33:33:ff:00:00:" + MAC[target][-2:]
    nd = f"icmp6,dl_src={me},dl_dst={group_mac},ipv6_src={link_local},ipv6_dst={group},nw_ttl=255,icmpv6_type=135"
    return [
        (f"arp,dl_src={me},dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,arp_sha={me},arp_spa={ADDRESS['c1']},"
         f"arp_tpa={ADDRESS[target]}", framed(me, ARP, arp(1, me, ADDRESS["c1"], ADDRESS[target]))),
        (f"{nd},icmpv6_code=0,nd_target={address6},nd_sll={me}",
         framed(me, IPV6, solicitation(link_local, address6, me, group), dst=group_mac)),
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["c2", "c1b"])
def test_trace_agrees_with_what_becomes_of_a_question(
    fleet: Fleet, guests: dict[str, LightGuest], places: dict[str, Place], target: str
) -> None:
    """c2's addresses are registered: the switch answers itself, to the asker alone. The other's are not."""
    address6 = f"fd07::{MAC[target][-2:]}"
    register(fleet, "c2", ADDRESS["c2"], f"fd07::{MAC['c2'][-2:]}")
    fence = (places["c1"], marked(MAC["c1"]), ["c1b", "q1", "q1b"])
    for flow, question in asked(target, address6):
        told = traced(fleet, guests, "c1", flow)
        real = counts(heard(places, places["c1"], question, expected=told, fences=[fence]))
        assert (flow, told) == (flow, real)
        assert (told == {"c1": 1}) == (target == "c2")


def register(fleet: Fleet, name: str, *addresses: str) -> None:
    """Give a guest's vNIC addresses."""
    row = next(port for port in fleet.list("Port") if port["status"]["mac"] == MAC[name])
    spec = {key: row[key] for key in ("kind", "name", *PortSpec.model_fields) if key in row}
    fleet.apply(yaml.safe_dump({**spec, "addresses": list(addresses)}))


OTHERS = {"from_address": "10.7.0.250"}, {"from_mac": "52:54:00:7a:00:fe"}, {"to_mac": "ff:ff:ff:ff:ff:ff"}
PACKETS: list[tuple[str, str, dict[str, Any]]] = [
    *((sender, target, {}) for sender in ("c1", "q1") for target in ("c1b", "c2", "q1b", "q3", "ten1")),
    *(("c1", "c2", more) for more in ({"port": 68}, *OTHERS)),
    *(("ten1", target, {}) for target in ("ten1b", "twenty1", "trunk1", "ten2", "c1")),
    *(("ten1", "ten2", more) for more in ({"vlan": 10}, *OTHERS)),
    *(("trunk1", target, {"vlan": vlan}) for target in ("ten1", "twenty1", "ten2") for vlan in (10, 20, 30)),
]
# Who gets a frame of the sender for certain, on another host: what had not come by then is not coming.
FENCES: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "c1": ("c1", "c2", ()), "q1": ("q1", "c2", ()), "ten1": ("ten1", "ten2", ()), "trunk1": ("trunk1", "ten2", (10,)),
}  # fmt: skip


def told_by_us(fleet: Fleet, guests: dict[str, LightGuest], sender: str, target: str, more: dict[str, Any]) -> Document:
    """The product's own trace of a UDP packet; ``h1`` counts its copies there, by the name of the place."""
    query = {"port": 53, "from_port": 9, **more, "from": MAC[sender], "to": MAC[target], "protocol": "udp"}
    answer = dict(fleet.client.get("/trace", **query))
    near = {guest.ports()[0]: name for name, guest in guests.items() if guest.host is fleet.hosts["h1"]}
    counted: dict[str, int] = {}
    for sent in answer["hops"][0]["sent"]:
        tap = re.search(r"\((\S+)\)", sent)
        name = near[tap[1]] if tap else "trunk" if sent.startswith("to physnet1") else "underlay"
        counted[name] = counted.get(name, 0) + 1
    return {**answer, "h1": counted}


def test_our_trace_agrees_with_open_vswitch_and_with_real_packets(
    fleet: Fleet, guests: dict[str, LightGuest], places: dict[str, Place]
) -> None:
    assert pings(guests["c1"], ADDRESS["c2"])
    everywhere = {**places, **{name: inside(guest) for name, guest in guests.items()}}
    wrong, outcomes = {}, []
    for sender, target, more in PACKETS:
        told = told_by_us(fleet, guests, sender, target, more)
        outcomes.append(told["outcome"])
        source = more.get("from_mac", MAC[sender])
        dst = more.get("to_mac", MAC[target])
        tags = (more["vlan"],) if "vlan" in more else ()
        packet = ipv4(more.get("from_address", ADDRESS[sender]), ADDRESS[target], UDP, udp(9, more.get("port", 53)))
        by, far, fence_tags = FENCES[sender]
        fence = (everywhere[by], marked(MAC[by], MAC[far], fence_tags), [far])
        reached = {*told["h1"], *([target] if told["outcome"] == "delivered" else ())}
        found = counts(heard(everywhere, everywhere[sender], framed(source, IPV4, packet, tags, dst),
                             expected=reached, fences=[fence]))  # fmt: skip
        real = {name: number for name, number in found.items() if name in places}
        flow = f"udp,dl_src={source},dl_dst={dst},nw_src={more.get('from_address', ADDRESS[sender])}"
        flow += f",nw_dst={ADDRESS[target]},nw_ttl=64,udp_src=9,udp_dst={more.get('port', 53)}"
        switch = traced(fleet, guests, sender, flow, *tags)
        if (told["h1"], told["outcome"] == "delivered") != (real, target in found) or switch != real:
            wrong[sender, target, str(more)] = (told["verdict"], told["h1"], found, switch)
    assert wrong == {}
    assert 8 <= outcomes.count("delivered") < len(PACKETS) - 8
    assert set(outcomes) == {"delivered", "dropped"}


@pytest.mark.parametrize("target", ["c1b", "c2", "q3"])
def test_our_trace_knows_who_answers_arp(fleet: Fleet, guests: dict[str, LightGuest], target: str) -> None:
    """The switch at once for c2, whose address is registered; the others themselves, who hear the question then."""
    register(fleet, "c2", ADDRESS["c2"])
    told = fleet.client.get("/trace", **{"from": MAC["c1"], "to": MAC[target], "protocol": "arp"})
    asker, asked = inside(guests["c1"]), inside(guests[target])
    question = arp_request(MAC["c1"], ADDRESS["c1"], ADDRESS[target])
    fence = marked(MAC["c1"], MAC[target])(b"behind the question")

    def counts_here(frame: Frame) -> bool:
        return is_arp(frame, 1, ADDRESS[target]) or is_arp(frame, 2, None, ADDRESS[target]) or b"behind" in frame.data

    with ears({"asker": asker, "asked": asked}, counts_here) as heard_at:
        send(asker.netns, asker.interface, question)
        heard_at["asker"].wait(lambda frame: is_arp(frame, 2, None, ADDRESS[target]))
        send(asker.netns, asker.interface, fence)
        heard_at["asked"].wait(lambda frame: b"behind" in frame.data)
    reached = any(is_arp(frame, 1, ADDRESS[target]) for frame in heard_at["asked"].frames)
    assert (told["outcome"], reached) in {("delivered", True), ("answered", False)}
    assert (told["outcome"] == "answered") == (target == "c2")


def wanted(fleet: Fleet) -> Engine:
    """What each host should have, computed from the API's documents alone."""
    documents = {kind: {d["name"]: d for d in fleet.list(kind)} for kind in ("Host", "Network", "Port")}
    made = {
        kind: {
            name: model(**{k: v for k, v in d.items() if k in model.model_fields})
            for name, d in documents[kind].items()
        }
        for kind, model in (("Host", HostSpec), ("Network", NetworkSpec))
    }
    segments = {(n, int(vlan)): number for n, d in documents["Network"].items()
                for vlan, number in d["status"]["segments"].items()}  # fmt: skip
    engine = Engine(Pipeline(APPS))
    engine.update(Rows(
        hosts=made["Host"],
        networks=made["Network"],
        ports={name: PortStatus(**d["status"]) for name, d in documents["Port"].items() if d["status"].get("mac")},
        host_numbers={n: int(d["status"]["datapath_id"], 16) & 0xFFFF for n, d in documents["Host"].items()},
        segment_numbers={segment_name(*place): number for place, number in segments.items()},
        uplink_numbers={"physnet1": uplink_port(1)},
        registered={name: _registered(d) for name, d in documents["Port"].items() if d.get("vm")},
    ))  # fmt: skip
    return engine


def _registered(document: dict[str, Any]) -> PortSpec:
    return PortSpec(**{key: value for key, value in document.items() if key in PortSpec.model_fields})


def texts(engine: Engine, host: str) -> dict[str, str]:
    """The flows that a host should have, by cookie, as they are written for people."""
    return {
        f"{entry.cookie:#x}": engine.pipeline.text(flow)
        for block, content in engine.blocks.items()
        if host in content.hosts
        for flow, entry in zip(engine.flows(block), content.entries, strict=True)
    }


def test_after_churn_every_switch_has_what_a_fresh_computation_says(
    fleet: Fleet, guests: dict[str, LightGuest]
) -> None:
    for n, tunnel in enumerate(("vxlan", "gre", "geneve")):
        new = fleet.lights({
            f"churn{n}-{host}": (host, [Nic("cloud"), Nic("lan", "trunk")]) for host in fleet.hosts
        })  # fmt: skip
        fleet.change_hosts(tunnel=tunnel)
        fleet.apply(yaml.safe_dump({"kind": "Network", "name": f"extra{n}", "mode": "isolated"}))
        fleet.stop(list(new.values())[n:])
    fleet.settle()
    engine = wanted(fleet)
    for name, host in fleet.hosts.items():
        expected = {entry.identity for entry in engine.tables[name]}
        assert set(installed(host)) == expected, name
        assert len(expected) > 40
        told = texts(engine, name)
        ports = {port["status"]["tap"]: port["status"]["ofport"] for port in fleet.list("Port")}
        numbers = {**ports, "physnet1": uplink_port(1), **{f"fs-{kind}": n for kind, n in TUNNEL_PORTS.items()}}
        found = {f["cookie"]: f for f in fleet.flows(name) if f["owner"] == "fleetswitch" and f["source"]}
        assert found.keys() == told.keys()
        for cookie, flow in found.items():
            head = f"table={flow['table']}, priority={flow['priority']}" + (
                f",{flow['match']}" if flow["match"] else ""
            )
            text = f"{head} actions={flow['actions']}"
            assert plain(text, numbers) == plain(told[cookie], numbers)


def plain(text: str, numbers: dict[str, int]) -> str:
    """A flow with its ports by number."""
    names = "|".join(map(re.escape, numbers))
    return re.sub(rf"(?<![\w-])(?:{names})(?!\w|-\w)", lambda found: str(numbers[found[0]]), text)
