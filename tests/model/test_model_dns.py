"""DNS of a network: what is taken, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller.model.network import NetworkSpec


def network(dns: Any = None, **fields: Any) -> NetworkSpec:
    return NetworkSpec.model_validate({"mode": "isolated", "subnets": ["10.0.0.0/24"], "dns": dns, **fields})


def test_it_answers_wherever_there_is_a_gateway_to_ask_unless_it_is_told_not_to() -> None:
    assert network().answers_dns
    assert not network({"enable": False}).answers_dns
    assert not network(subnets=["fd00::/64"]).answers_dns
    assert not NetworkSpec(mode="isolated").answers_dns


def test_names_are_one_in_whatever_letters_they_are_written() -> None:
    spec = network({"domain": "Example.ORG.", "hosts": [{"ip": "10.0.0.5", "names": ["DB.Example.org."]}]})
    assert spec.dns is not None
    assert (spec.dns_domain, spec.dns.hosts[0].names) == ("example.org", ("db.example.org",))


def test_a_network_has_one_domain_whether_dhcp_or_dns_says_it() -> None:
    assert network(dhcp={"domain": "Example.org"}).dns_domain == "example.org"
    assert network({"domain": "example.org"}, dhcp={}).dns_domain == "example.org"
    assert network({"domain": "example.org"}, dhcp={"domain": "Example.org"}).dns_domain == "example.org"
    with pytest.raises(ValidationError, match=r"example.net and example.org, in dhcp and in dns"):
        network({"domain": "example.org"}, dhcp={"domain": "example.net"})


def test_a_forwarder_may_be_on_the_controllers_machine() -> None:
    spec = network({"forwarders": [{"addr": "127.0.0.53"}, {"domain": "example.com"}]})
    assert spec.dns is not None
    assert [each.addr for each in spec.dns.forwarders or ()] == ["127.0.0.53", None]


LDAP = {"service": "ldap", "protocol": "tcp"}


@pytest.mark.parametrize(
    ("dns", "said"),
    [
        ({"hosts": [{"ip": "10.0.0.5", "names": ["my host"]}]}, "'my host' is no name of a machine"),
        ({"hosts": [{"ip": "10.0.0.5", "names": ["a..b"]}]}, "'a..b' is no name of a machine"),
        ({"hosts": [{"ip": "10.0.0.5", "names": ["x" * 64]}]}, "is no name of a machine"),
        ({"hosts": [{"ip": "10.0.0.5", "names": []}]}, "at least 1 item"),
        ({"txt": [{"name": "a b", "value": "x"}]}, "'a b' is no DNS name"),
        ({"txt": [{"name": "a", "value": "a\nb"}]}, "printable"),
        ({"txt": [{"name": "a", "value": "\u00e4" * 501}]}, "has 1002 bytes"),
        ({"srv": [{**LDAP, "target": "db"}]}, "target db without port"),
        ({"srv": [{**LDAP, "port": 389}]}, "without target"),
        ({"srv": [{**LDAP, "service": "_ldap", "target": "db", "port": 389}]}, "service"),
        ({"forwarders": [{}]}, "neither addr nor domain"),
        ({"forwarders": [{"addr": "ns.example.org"}]}, "'ns.example.org' is no IP address"),
        ({"forwarders": [{"addr": "0.0.0.0"}]}, "not the address of one name server"),
        ({"enable": False, "hosts": [{"ip": "10.0.0.5", "names": ["a"]}]}, "has hosts and enable false"),
        ({"local_only": True}, "local_only in dns without a domain"),
    ],
)
def test_what_makes_no_sense_is_refused(dns: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        network(dns)


@pytest.mark.parametrize("subnets", [[], ["fd00::/64"]])
def test_without_a_gateway_to_ask_it_is_refused(subnets: list[str]) -> None:
    with pytest.raises(ValidationError, match="dns without an IPv4 subnet"):
        network({}, subnets=subnets)
