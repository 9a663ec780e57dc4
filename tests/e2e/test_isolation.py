"""Isolation: who does not meet although the segment is the same. Every pair, by broadcast and by the very MAC."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_fleet import Fleet, eventually
from e2e_frames import Fence, Place, counts, heard, inside, marked
from labkit import LightGuest, Nic

pytestmark = pytest.mark.lab
LIBVIRT, PHYSNETS = False, 2

NETWORKS = """
kind: Network
name: lan
mode: bridge
physical_network: physnet1
vlan: 10
portgroups:
  isolated: {isolation: isolated}
  private: {isolation: private}
  vepa: {isolation: vepa}
---
kind: Network
name: cloud
mode: isolated
portgroups: {isolated: {isolation: isolated}}
---
kind: Network
name: local
mode: isolated
span: host
---
kind: Network
name: whole
mode: bridge
physical_network: physnet2
portgroups: {own: {isolation: passthrough}}
"""
# name: network, portgroup, host; the name begins with the kind
GUESTS = {
    "plain1": ("lan", None, "h1"), "plain1b": ("lan", None, "h1"), "plain2": ("lan", None, "h2"),
    "isolated1": ("lan", "isolated", "h1"), "isolated1b": ("lan", "isolated", "h1"),
    "isolated2": ("lan", "isolated", "h2"),
    "private1": ("lan", "private", "h1"), "private1b": ("lan", "private", "h1"), "private2": ("lan", "private", "h2"),
    "vepa1": ("lan", "vepa", "h1"), "vepa1b": ("lan", "vepa", "h1"), "vepa2": ("lan", "vepa", "h2"),
    "cplain1": ("cloud", None, "h1"), "cplain2": ("cloud", None, "h2"),
    "cisolated1": ("cloud", "isolated", "h1"), "cisolated1b": ("cloud", "isolated", "h1"),
    "cisolated2": ("cloud", "isolated", "h2"),
    "local1": ("local", None, "h1"), "local1b": ("local", None, "h1"), "local2": ("local", None, "h2"),
    "whole1": ("whole", "own", "h1"),
}  # fmt: skip
MAC = {name: f"52:54:00:1a:00:{n:02x}" for n, name in enumerate(GUESTS, start=1)}
LAN = [name for name, (network, *_) in GUESTS.items() if network == "lan"]
CLOUD = [name for name, (network, *_) in GUESTS.items() if network == "cloud"]


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> dict[str, LightGuest]:
    fleet.apply(NETWORKS)
    return fleet.lights({
        name: (host, [Nic(network, group, MAC[name])]) for name, (network, group, host) in GUESTS.items()
    })  # fmt: skip


@pytest.fixture(scope="module")
def places(fleet: Fleet, guests: dict[str, LightGuest]) -> dict[str, Place]:
    return {
        **{name: inside(guest) for name, guest in guests.items()},
        "out": Place(fleet.lab.outside, "eth0"),
        "out10": Place(fleet.lab.outside_vlan(10), "vlan10"),
        "other": Place(fleet.lab.outside, "eth1"),
    }


def kind(name: str) -> str:
    return name.rstrip("b12")


def meet(sender: str, target: str) -> bool:
    """Whether a vNIC of the LAN hears another, where the physical switch sends nothing back.

    A private one is heard by no vNIC, and hears those of other hosts as it hears anybody on the uplink.
    """
    same_host = GUESTS[sender][2] == GUESTS[target][2]
    if kind(sender) == "private" or (kind(sender) == kind(target) == "isolated"):
        return False
    return not (same_host and {kind(sender), kind(target)} & {"private", "vepa"})


def fences(places: dict[str, Place], sender: str) -> list[Fence]:
    """The sender is heard outside after that, and then the outside by all: nothing is on its way any more."""
    outward = (places[sender], marked(MAC[sender]), ["out10"])
    return [outward, (places["out10"], marked("52:54:00:00:fe:03"), LAN)]


@pytest.mark.parametrize("sender", LAN)
def test_a_broadcast_on_a_physical_network_reaches_whom_it_may(places: dict[str, Place], sender: str) -> None:
    expected = {name for name in LAN if name != sender and meet(sender, name)} | {"out", "out10"}
    found = heard(places, places[sender], marked(MAC[sender]), expected=expected, fences=fences(places, sender))
    assert counts(found) == dict.fromkeys(expected, 1)


@pytest.mark.parametrize("sender", LAN)
def test_a_frame_to_a_vnic_on_a_physical_network_reaches_it_if_it_may(places: dict[str, Place], sender: str) -> None:
    wrong = {}
    for target in LAN:
        if target == sender:
            continue
        expected = {target: 1} if meet(sender, target) else {}
        found = heard(
            {name: places[name] for name in (*LAN, "out10")}, places[sender], marked(MAC[sender], MAC[target]),
            expected=expected, fences=fences(places, sender),
        )  # fmt: skip
        got = {name: number for name, number in counts(found).items() if name != "out10"}
        if got != expected:
            wrong[target] = got
    assert wrong == {}


def test_everybody_on_a_physical_network_hears_the_outside(places: dict[str, Place]) -> None:
    src = "52:54:00:00:fe:04"
    assert counts(heard(places, places["out10"], marked(src), expected=[*LAN, "out"])) == dict.fromkeys(
        [*LAN, "out"], 1
    )
    for target in LAN:
        found = heard(
            {name: places[name] for name in LAN}, places["out10"], marked(src, MAC[target]), expected=[target]
        )
        assert counts(found) == {target: 1}


@pytest.fixture
def reflecting(fleet: Fleet) -> Iterator[None]:
    """The physical switch sends the vepa vNICs' frames back on the port that they came from (IEEE 802.1Qbg, 6.9)."""
    segment = fleet.lab.segment
    match = [f"priority=100,in_port={host}p1,dl_src={MAC[name]}" for name, (_, _, host) in GUESTS.items()
             if kind(name) == "vepa"]  # fmt: skip
    for each in match:
        segment.ofctl("add-flow", "seg", f"{each},actions=NORMAL,in_port")
    segment.appctl("revalidator/wait")  # its datapath may remember senders from before
    yield
    for each in match:
        segment.ofctl("del-flows", "seg", each.replace("priority=100,", ""))
    segment.appctl("revalidator/wait")


@pytest.mark.usefixtures("reflecting")
@pytest.mark.parametrize("sender", ["vepa1", "vepa2"])
def test_vepa_vnics_meet_by_the_physical_switch(places: dict[str, Place], sender: str) -> None:
    own = GUESTS[sender][2]
    expected = {name for name in LAN if name != sender and kind(name) != "private"} | {"out", "out10"}
    found = heard(places, places[sender], marked(MAC[sender]), expected=expected, fences=fences(places, sender))
    assert {n: c for n, c in counts(found).items() if kind(n) != "private"} == dict.fromkeys(expected, 1)
    near = [name for name in expected if name in LAN and GUESTS[name][2] == own]
    for target in near:
        found = heard(
            {name: places[name] for name in LAN}, places[sender], marked(MAC[sender], MAC[target]), expected=[target]
        )
        assert counts(found) == {target: 1}


@pytest.mark.parametrize("sender", CLOUD)
def test_isolated_vnics_do_not_meet_across_the_overlay(places: dict[str, Place], sender: str) -> None:
    isolated = kind(sender) == "cisolated"
    expected = {name for name in CLOUD if name != sender and not (isolated and kind(name) == "cisolated")}
    at = [name for name in ("cplain1", "cplain2") if name != sender]
    fence: list[Fence] = [(places[sender], marked(MAC[sender]), at)]
    found = heard(places, places[sender], marked(MAC[sender]), expected=expected, fences=fence)
    assert counts(found) == dict.fromkeys(expected, 1)
    for target in CLOUD:
        if target != sender:
            reached = {target: 1} if target in expected else {}
            found = heard(places, places[sender], marked(MAC[sender], MAC[target]), expected=reached, fences=fence)
            assert counts(found) == reached, target


def test_a_network_of_span_host_ends_at_its_host(fleet: Fleet, places: dict[str, Place]) -> None:
    wires = {name: Place(host.netns, "eth1", outgoing=True) for name, host in fleet.hosts.items()}
    for sender, target in (("local1", "local1b"), ("local1b", "local1")):
        for dst in ("ff:ff:ff:ff:ff:ff", MAC[target]):
            found = heard({**places, **wires}, places[sender], marked(MAC[sender], dst), expected=[target])
            assert counts(found) == {target: 1}
    fence: list[Fence] = [(places["local1"], marked(MAC["local1"]), ["local1b"])]
    for dst in ("ff:ff:ff:ff:ff:ff", MAC["local1"]):
        found = heard({**places, **wires}, places["local2"], marked(MAC["local2"], dst), expected=(), fences=fence)
        assert counts(found) == {}


@pytest.mark.parametrize("tags", [(), (7,), (7, 8), (4094,)])
def test_a_passthrough_vnic_has_the_uplink_as_it_is(places: dict[str, Place], tags: tuple[int, ...]) -> None:
    for dst in ("ff:ff:ff:ff:ff:ff", "52:54:00:00:fe:05", "01:80:c2:00:00:42"):
        out = heard(places, places["whole1"], marked(MAC["whole1"], dst, tags), expected=["other"])
        assert counts(out) == {"other": 1}
        assert out["other"][0].vlans == tags
    for dst in ("ff:ff:ff:ff:ff:ff", MAC["whole1"], "52:54:00:00:fe:06"):
        back = heard(places, places["other"], marked("52:54:00:00:fe:05", dst, tags), expected=["whole1"])
        assert counts(back) == {"whole1": 1}
        assert back["whole1"][0].vlans == tags


def test_a_second_vnic_beside_a_passthrough_one_is_kept_out_and_told_why(
    fleet: Fleet, places: dict[str, Place]
) -> None:
    second = fleet.lab.start_light("h1", "second", [Nic("whole", "own", "52:54:00:1a:00:f0")])
    fleet.apply(second.ports_yaml())
    eventually("a verdict", lambda: fleet.get("Port", "second-0")["status"].get("state") == "quarantined")
    assert fleet.get("Port", "second-0")["status"]["reason"]
    everywhere = {**places, "second": inside(second)}
    found = heard(everywhere, places["other"], marked("52:54:00:00:fe:05"), expected=["whole1"])
    assert counts(found) == {"whole1": 1}
    fence: list[Fence] = [(places["whole1"], marked(MAC["whole1"]), ["other"])]
    assert heard(everywhere, inside(second), marked("52:54:00:1a:00:f0"), expected=(), fences=fence) == {}
    fleet.stop([second])
