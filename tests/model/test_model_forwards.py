"""Port forwards: what one refuses by itself, and what does not hold between it and the fleet."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller.errors import Problem
from controller.model.forward import PortForwardSpec
from controller.model.host import HostSpec
from controller.model.kinds import Fleet
from controller.model.network import NetworkSpec


def forward(listen: dict[str, Any] | None = None, target: dict[str, Any] | None = None, **fields: Any) -> Any:
    document = {"network": "web", "listen": listen or {"port": 8080}, "target": target or {"vm": "web1"}, **fields}
    return PortForwardSpec.model_validate(document)


@pytest.mark.parametrize(
    ("listen", "target", "said"),
    [
        ({"port": 0}, None, "0 is no port and no range of ports; write 8080, or 8000-8010"),
        ({"port": 65536}, None, "65536 is no port"),
        ({"port": "80-70"}, None, "'80-70' is no port"),
        ({"port": "http"}, None, "'http' is no port"),
        ({"port": True}, None, "True is no port"),
        ({"port": 80, "protocol": "icmp"}, None, "protocol"),
        ({"port": 80, "host": "kvm1", "address": "203.0.113.11"}, None, "has both host and address"),
        ({"port": 80}, {"port": 80}, "names nobody; name one of vm, vnic and address"),
        ({"port": 80}, {"vm": "web1", "address": "10.0.0.5"}, "names vm and address; name one"),
        ({"port": 80, "family": "ipv4"}, {"address": "fd00::5"}, "is of ipv4 and has the target.address fd00::5"),
        ({"port": 80, "address": "203.0.113.11"}, {"address": "fd00::5"}, "is of ipv4 and has the target.address"),
        ({"port": 80, "address": "2001:db8::11"}, {"address": "10.0.0.5"}, "is of ipv6 and has the target.address"),
        ({"port": 80, "address": "2001:db8::11", "family": "ipv4"}, None, "is of ipv4 and has the listen.address"),
        ({"port": "80-89"}, {"vm": "web1", "port": "90-98"}, "listens on 80-89 and leads to 90-98"),
        ({"port": "80-89"}, {"vm": "web1", "port": 90}, "not equally many ports"),
        ({"port": "1-2000"}, {"vm": "web1", "port": "2001-4000"}, "more than 1024"),
    ],
)
def test_forwards_that_are_refused(listen: dict[str, Any], target: dict[str, Any] | None, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        forward(listen, target)
    assert said in str(caught.value)


def test_ports_are_numbers_or_ranges() -> None:
    assert forward({"port": "8080"}).listen.port == 8080
    assert forward({"port": "80 - 80"}).listen.port == 80
    shifted = forward({"port": "8000-8009"}, {"vm": "web1", "port": "80-89"})
    assert (shifted.ports, shifted.target_ports) == ((8000, 8009), (80, 89))
    assert forward({"port": "1-65535"}).target_ports == (1, 65535)


def fleet(**forwards: PortForwardSpec) -> Fleet:
    """Two hosts with an address outside, the first one of IPv6 too, one without, and three networks."""
    hosts = {"kvm0": HostSpec(ovsdb="unix:/kvm0")}
    for number in (1, 2):
        outside = {"uplink": "phys1", "address": f"203.0.113.1{number}/24", "gateway": "203.0.113.1"}
        outside |= {"address6": "2001:db8::11/64", "gateway6": "fe80::1"} if number == 1 else {}
        document = {"ovsdb": f"unix:/kvm{number}", "uplinks": {"phys1": {"interface": "eth1"}}, "external": outside}
        hosts[f"kvm{number}"] = HostSpec.model_validate(document)
    networks = {
        "web": NetworkSpec(mode="nat", subnets=("10.0.0.0/24", "fd00::/64")),
        "shop": NetworkSpec(mode="nat", subnets=("10.1.0.0/24",)),
        "lab": NetworkSpec(mode="isolated"),
    }
    return Fleet(hosts, networks, {}, forwards)


def said(*problems: Problem) -> list[str]:
    return [f"{each.where}: {each.what}; {each.remedy}" for each in problems]


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (forward(network="no"), "network: there is no Network 'no'; name one with mode nat; there are: shop, web"),
        (forward(network="lab"), "network: Network lab has mode isolated; name one with mode nat; there are: shop, "
         "web"),
        (forward({"port": 80, "host": "kvm9"}), "listen.host: there is no Host 'kvm9'; those with external are: "
         "kvm1, kvm2"),
        (forward({"port": 80, "host": "kvm0"}), "listen.host: Host kvm0 has no external address; give it external, or "
         "choose one of: kvm1, kvm2"),
        (forward({"port": 80, "address": "203.0.113.13"}), "listen.address: 203.0.113.13 is no host's external "
         "address; those are: 203.0.113.11, 203.0.113.12"),
        (forward(target={"address": "10.1.0.5"}), "target.address: 10.1.0.5 is not in Network web; use an address of "
         "10.0.0.0/24"),
        (forward(target={"address": "10.0.0.1"}), "target.address: 10.0.0.1 is the gateway's; name a guest's address"),
        (forward({"port": 80, "host": "kvm2", "family": "ipv6"}), "listen.host: Host kvm2 has no IPv6 address outside; "
         "give it external.address6, or choose one of: kvm1"),
        (forward({"port": 80, "host": "kvm9", "family": "ipv6"}), "listen.host: there is no Host 'kvm9'; those with "
         "external.address6 are: kvm1"),
        (forward({"port": 80, "address": "2001:db8::13"}), "listen.address: 2001:db8::13 is no host's external "
         "address; those are: 2001:db8::11"),
        (forward(target={"address": "fd01::5"}), "target.address: fd01::5 is not in Network web; use an address of "
         "fd00::/64"),
        (forward(target={"address": "fd00::1"}), "target.address: fd00::1 is the gateway's; name a guest's address"),
        (forward({"port": 80, "family": "ipv6"}, network="shop"), "network: Network shop has no subnet of IPv6; "
         "give it one, or take the other family"),
    ],
)  # fmt: skip
def test_what_a_forward_names_must_be_there(wrong: PortForwardSpec, what: str) -> None:
    assert said(*fleet(one=wrong).problems()) == [f"PortForward one: {what}"]


def test_sctp_needs_a_datapath_that_knows_its_ports() -> None:
    found = fleet(one=forward({"port": 80, "protocol": "sctp"}), two=forward({"port": 81, "protocol": "tcp"}))
    assert found.problems() == []
    found.hosts["kvm2"] = found.hosts["kvm2"].model_copy(update={"datapath_type": "netdev"})
    assert said(*found.problems()) == [
        "PortForward one: listen.protocol: Host kvm2 has datapath_type netdev, which does not know the ports of sctp; "
        "choose a host with datapath_type system, or another protocol"
    ]


def test_one_port_leads_to_one_place() -> None:
    every, first = forward({"port": "8000-8080"}), forward({"port": 8080, "host": "kvm1"})
    by_address = forward({"port": "8080-8081", "address": "203.0.113.12"})
    assert said(*fleet(one=every, two=first, three=by_address).problems()) == [
        "PortForward three: listen: tcp port 8080 of Host kvm2 is PortForward one's already; choose another port, or "
        "another host",
        "PortForward two: listen: tcp port 8080 of Host kvm1 is PortForward one's already; choose another port, or "
        "another host",
    ]


def test_the_family_is_said_or_that_of_an_address() -> None:
    hosts = fleet().hosts
    for listen, target, family, there in (
        ({"port": 80}, None, "ipv4", {"kvm1", "kvm2"}),
        ({"port": 80, "family": "ipv6"}, None, "ipv6", {"kvm1"}),
        ({"port": 80, "address": "2001:db8:0::11"}, None, "ipv6", {"kvm1"}),
        ({"port": 80}, {"address": "fd00::5"}, "ipv6", {"kvm1"}),
    ):
        spec = forward(listen, target)
        assert (spec.family, spec.listens_on(hosts)) == (family, there)
    same = forward({"port": 80, "family": "ipv6"}), forward({"port": 80, "address": "2001:db8::11"})
    assert [each.where for each in fleet(a=same[0], b=same[1]).problems()] == ["PortForward b: listen"]


def test_one_inside_a_long_range_is_found_behind_a_short_one() -> None:
    spans = {"a": "1-100", "b": "50-60", "c": "90-95"}
    found = fleet(**{name: forward({"port": span}) for name, span in spans.items()}).problems()
    assert [each.where for each in found] == ["PortForward b: listen", "PortForward c: listen"]


@pytest.mark.parametrize(
    "other",
    [
        forward({"port": 8080, "protocol": "udp"}),
        forward({"port": 8081}),
        forward({"port": 8079}),
        forward({"port": 8080, "host": "kvm2"}, network="shop"),
        forward({"port": 8080, "family": "ipv6"}),
    ],
)
def test_neighbours_do_not_disturb(other: PortForwardSpec) -> None:
    assert fleet(one=forward({"port": 8080, "address": "203.0.113.11"}), two=other).problems() == []
