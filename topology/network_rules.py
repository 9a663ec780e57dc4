"""Every element and attribute of libvirt's network XML, and what becomes of it here: one table.

Source: libvirt's formatnetwork page, and the schemas network.rng and networkcommon.rng of libvirt 9.0.0. Paths are
below ``<network>``: ``forward/nat/port@start`` is the attribute ``start`` of ``<forward><nat><port>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["taken", "ignored", "refused"]

DNSMASQ = "http://libvirt.org/schemas/network/dnsmasq/1.0"


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of an element or attribute.

    ``about`` says what it is here when it is taken, and the reason when not. ``neutral`` are values that say only what
    holds anyway: no word is lost about them. For an element these are the attributes that it may have all of.
    """

    verdict: Verdict
    about: str
    remedy: str = ""
    neutral: tuple[str, ...] = ()
    default: Mapping[str, str] = field(default_factory=dict)
    many: bool = False
    """Whether an element may stand there several times."""


def _taken(about: str = "", *neutral: str, many: bool = False) -> Rule:
    return Rule("taken", about, neutral=neutral, many=many)


def _ignored(about: str, *neutral: str) -> Rule:
    return Rule("ignored", about, neutral=neutral)


def _refused(about: str, remedy: str, *neutral: str, many: bool = False) -> Rule:
    return Rule("refused", about, remedy, neutral, many=many)


DEFAULT_PORTS: Mapping[str, str] = {"start": "1024", "end": "65535"}
"""Of ``<nat><port/></nat>``: what libvirt itself writes where nothing was said."""

_NO_RATES = "rates are not limited here yet"
_NO_POOL = "frames of macvtap and SR-IOV never meet Open vSwitch"
_SET_BY_US = "fleetswitch itself sets it, to NETWORK:PORTGROUP"
_OTHER_SWITCH = "belongs to another kind of switch than Open vSwitch"
_LEAVE_OUT = "leave it out"


def _virtualport() -> Iterator[tuple[str, Rule]]:
    yield "virtualport", _taken("a port of Open vSwitch, which every vNIC here has")
    yield "virtualport@type", _taken("`openvswitch`; 802.1Qbg, 802.1Qbh and midonet are refused", "openvswitch")
    yield "virtualport/parameters", _taken()
    yield "virtualport/parameters@profileid", _ignored(_SET_BY_US)
    yield (
        "virtualport/parameters@interfaceid",
        _refused("would be shared by all vNICs", "leave it out, or give it to one guest's interface"),
    )
    for name in ("managerid", "typeid", "typeidversion", "instanceid"):
        yield f"virtualport/parameters@{name}", _refused(_OTHER_SWITCH, _LEAVE_OUT)


def _vlan(what: str) -> Iterator[tuple[str, Rule]]:
    yield "vlan", _taken(what)
    yield "vlan/tag", _taken(many=True)
    yield "vlan/tag@id", _taken("1 to 4094")


def _trunk() -> Iterator[tuple[str, Rule]]:
    yield "vlan@trunk", _taken("`trunk`", "yes")
    yield "vlan/tag@nativeMode", _taken("`native` and `native_mode`; of a trunk only")


def _bandwidth() -> Iterator[tuple[str, Rule]]:
    yield "bandwidth", _refused(_NO_RATES, _LEAVE_OUT)
    yield "bandwidth@classID", _refused(_NO_RATES, _LEAVE_OUT)
    for way in ("inbound", "outbound"):
        yield f"bandwidth/{way}", _refused(_NO_RATES, _LEAVE_OUT)
        for name in ("average", "peak", "burst", "floor"):
            yield f"bandwidth/{way}@{name}", _refused(_NO_RATES, _LEAVE_OUT)


def _network() -> Iterator[tuple[str, Rule]]:
    yield "@connections", _ignored("counts vNICs at the moment when libvirt wrote it", "0")
    yield "@ipv6", _ignored("guests of one network always exchange IPv6", "yes")
    yield (
        "@trustGuestRxFilters",
        _refused("a network as a whole does not trust its guests", "write it at the portgroups that may", "no"),
    )
    yield "name", _taken("the Network's name")
    yield "uuid", _taken("`uuid`")
    yield "title", _ignored("is kept nowhere")
    yield "description", _ignored("is kept nowhere")
    yield "metadata", _taken("that of fleetswitch's own namespace; others' is ignored")
    yield "bridge", _taken()
    yield "bridge@name", _ignored("a network here has no bridge of its own on a host")
    yield (
        "bridge@stp",
        _ignored("hosts speak no spanning tree: what comes from a tunnel goes into none, which makes no loop", "off"),
    )
    yield "bridge@delay", _ignored("ports forward at once", "0")
    yield (
        "bridge@zone",
        _refused("firewalld does not see frames that Open vSwitch carries", "leave it out, or use filters"),
    )
    yield (
        "bridge@macTableManager",
        _ignored("fleetswitch always knows the MACs of its vNICs, as `libvirt` means it", "libvirt", "kernel"),
    )
    yield "mtu", _taken()
    yield "mtu@size", _taken("`mtu`")
    yield "mac", _taken()
    yield "mac@address", _taken("`gateway_mac`; ignored without `<ip>`")
    yield "domain", _taken()
    yield "domain@name", _taken("`dhcp.domain`, or `dns.domain` where no `<dhcp>` is; ignored without a subnet")
    yield "domain@localOnly", _taken("`dns.local_only`", "no")
    yield "port", _taken()
    yield "port@isolated", _taken("`isolation: isolated` of every portgroup", "no")
    yield from _vlan("`vlan`; of one VLAN")
    for path in ("vlan@trunk", "vlan/tag@nativeMode"):
        yield path, _refused("a network as a whole is no trunk", "write the trunk in its portgroups")
    yield from _virtualport()
    yield from _bandwidth()
    yield "portgroup", _taken("`portgroups`", many=True)
    yield "portgroup@name", _taken("the portgroup's name")
    yield "portgroup@default", _taken("vNICs that name no portgroup are as this one: its copy is `default`", "no")
    yield "portgroup@trustGuestRxFilters", _taken("`learning: true`", "no")
    for part in (_vlan("`vlan`, or `trunk` of several VLANs"), _trunk(), _virtualport(), _bandwidth()):
        for path, rule in part:
            yield f"portgroup/{path}", rule
    route, instead = "routes are not read from XML yet", "write the Network's `routes` in YAML"
    yield "route", _refused(route, instead, many=True)
    for name in ("family", "address", "netmask", "prefix", "gateway", "metric"):
        yield f"route@{name}", _refused(route, instead)
    yield "dnsmasq:options", _taken()
    yield "dnsmasq:options/dnsmasq:option", _taken(many=True)
    yield (
        "dnsmasq:options/dnsmasq:option@value",
        _taken(
            "`dhcp-option=` of IPv4 by name or number: 6 is `dhcp.dns`, 3 `dhcp.router`, 121 and 249 `dhcp.routes`, "
            "others `dhcp.options`; of IPv6 `option6:dns-server`; `dhcp-boot=` is `dhcp.boot`. Tags, and what else "
            "dnsmasq knows, are refused by name: no dnsmasq runs here"
        ),
    )


def _forward() -> Iterator[tuple[str, Rule]]:
    yield "forward", _taken("`mode`; `isolated` when it is absent")
    yield "forward@mode", _taken("`nat` (also when absent) or `bridge`; the others are refused")
    yield (
        "forward@dev",
        _taken("of `bridge`: `physical_network`, by its name; of `nat` refused: Host `external` says it"),
    )
    yield "forward@managed", _refused(_NO_POOL, _LEAVE_OUT, "no")
    own = "use mode bridge, and name the physical network"
    for element, names in (
        ("interface", ("dev", "connections")),
        ("address", ("type", "domain", "bus", "slot", "function", "multifunction", "connections")),
        ("pf", ("dev",)),
        ("driver", ("name",)),
    ):
        yield f"forward/{element}", _refused(_NO_POOL, own, many=True)
        for name in names:
            yield f"forward/{element}@{name}", _refused(_NO_POOL, own)
    yield "forward/nat", _taken()
    yield "forward/nat@ipv6", _ignored("IPv6 is translated on every host whose `external` has `address6`", "yes")
    yield "forward/nat/address", _taken("`nat.addresses`: of this pool each host gets an address for itself")
    yield "forward/nat/port", Rule("taken", "`nat.ports`", default=DEFAULT_PORTS)
    for part in ("address", "port"):
        yield f"forward/nat/{part}@start", _taken()
        yield f"forward/nat/{part}@end", _taken()


_DNS_FIELDS = {"forwarder": "forwarders", "txt": "txt", "srv": "srv", "host": "hosts"}


def _dns() -> Iterator[tuple[str, Rule]]:
    yield "dns", _taken("`dns`; the gateway answers also where it does not stand")
    yield "dns@enable", _taken("`dns.enable`", "yes")
    yield "dns@forwardPlainNames", _taken("`dns.forward_plain_names`", "yes")
    for element, names in (
        ("forwarder", ("addr", "domain")),
        ("txt", ("name", "value")),
        ("srv", ("service", "protocol", "domain", "target", "port", "priority", "weight")),
        ("host", ("ip",)),
    ):
        yield f"dns/{element}", _taken(f"one of `dns.{_DNS_FIELDS[element]}`", many=True)
        for name in names:
            yield f"dns/{element}@{name}", _taken()
    yield "dns/host/hostname", _taken("one of `names`", many=True)


def _ip() -> Iterator[tuple[str, Rule]]:
    yield "ip", _taken("one of `subnets`, with the gateway's address", many=True)
    yield "ip@address", _taken("the gateway's address, on every host")
    yield "ip@netmask", _taken("the subnet's size")
    yield "ip@prefix", _taken("the subnet's size; by the address's class when both are absent, 64 for IPv6")
    yield "ip@family", _taken("as the address is", "ipv4", "ipv6")
    yield "ip@localPtr", _ignored("nobody else is asked about the addresses of a network here", "yes")
    tftp = "serve TFTP from a guest or machine of yours, and name it in `<bootp server=…/>`"
    yield "ip/tftp", _refused("no files are served here", tftp)
    yield "ip/tftp@root", _refused("no files are served here", tftp)
    yield "ip/dhcp", _taken("`dhcp`")
    yield "ip/dhcp/range", _taken("`dhcp.range`, of IPv6 `dhcp.range6`", many=True)
    yield "ip/dhcp/range@start", _taken()
    yield "ip/dhcp/range@end", _taken()
    yield "ip/dhcp/host", _taken("`dhcp.hosts`", many=True)
    yield "ip/dhcp/host@mac", _taken("`mac`; needed of IPv4")
    yield "ip/dhcp/host@id", _taken("`id`, of IPv6")
    yield "ip/dhcp/host@name", _taken("`name`")
    yield "ip/dhcp/host@ip", _taken("`ip`")
    for of in ("range", "host"):
        yield f"ip/dhcp/{of}/lease", _taken("`dhcp.lease`: the same for all")
        yield f"ip/dhcp/{of}/lease@expiry", _taken("2 minutes or more; 0, without end, is refused")
        yield f"ip/dhcp/{of}/lease@unit", _taken("seconds, minutes (when absent) or hours")
    yield "ip/dhcp/bootp", _taken("`dhcp.boot`: the same for all")
    yield "ip/dhcp/bootp@file", _taken("`file`")
    yield (
        "ip/dhcp/bootp@server",
        _taken("`server`, an address; needed unless `file` is a URL"),
    )


RULES: Mapping[str, Rule] = {
    path: rule for part in (_network(), _forward(), _dns(), _ip()) for path, rule in part
}  # fmt: skip

MODES: Mapping[str, Rule] = {
    "nat": _taken("`mode: nat`"),
    "bridge": _taken("`mode: bridge`; `dev`, or `--physical-network`, names the physical network"),
    "route": _taken("`mode: route`"),
    "open": _taken("`mode: open`"),
    "private": _refused(_NO_POOL, "use mode bridge, and YAML's isolation: private of a portgroup"),
    "vepa": _refused(_NO_POOL, "use mode bridge, and YAML's isolation: vepa of a portgroup"),
    "passthrough": _refused(_NO_POOL, "use mode bridge, and YAML's isolation: passthrough of a portgroup"),
    "hostdev": _refused(_NO_POOL, "leave such guests on a libvirt network of their host"),
}
"""Of ``forward@mode``."""


_HEAD = """\
# libvirt's network XML, element by element

Generated by `python -m topology.network_rules`; [features/network-xml.md](features/network-xml.md) tells how it is
used. Paths are below `<network>`: `forward/nat/port@start` is the attribute `start` of `<forward><nat><port>`. What
stands below a refused element is refused with it. Of what is ignored a warning tells, unless it says only what
holds anyway.

| element or attribute | is | as what, or why not | instead |
|---|---|---|---|
"""


def page() -> str:
    """docs/network-xml-reference.md."""
    named = [*RULES.items(), *((f"forward@mode={mode}", rule) for mode, rule in MODES.items())]
    shown = [(path, rule) for path, rule in named if rule.about and not _is_below_a_refused_one(path)]
    lines = [
        f"| `{path}` | {rule.verdict} | {rule.about} | {rule.remedy.replace('<', '&lt;')} |"
        for path, rule in sorted(shown, key=lambda row: row[0].replace("@", " "))  # an attribute after its element
    ]
    return _HEAD + "\n".join(lines) + "\n"


def _is_below_a_refused_one(path: str) -> bool:
    steps, _, attribute = path.partition("@")
    parts = steps.split("/") if steps else []
    above = ["/".join(parts[:length]) for length in range(1, len(parts) + bool(attribute))]
    return any(rule.verdict == "refused" for one in above if (rule := RULES.get(one)) is not None)


if __name__ == "__main__":
    print(page(), end="")
