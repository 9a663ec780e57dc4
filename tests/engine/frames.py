"""Frames in few words, and random ones."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from random import Random

from fleets import FleetRows
from oracle import BROADCAST, Oracle, address, mac_of
from senders import link_local
from switch_model import Frame, number

from controller.model.port import PortStatus

STRANGERS = [number("eth_src", f"02:00:00:00:0f:{n:02x}") for n in (1, 2, 3)]
GROUP = number("eth_dst", "01:00:5e:00:00:05")
NOBODYS = "10.9.9.9"
AWAY = ("10.0.0.240", "fd00::240")  # of a vNIC that is registered and does not run


def ip(source: int, target: int, *tags: int, sender: str = "0.0.0.1", to: str = "0.0.0.2", **more: int) -> Frame:
    """IPv4; ``more`` are fields of what it carries."""
    fields = {"eth_src": source, "eth_dst": target, "eth_type": 0x0800}
    return Frame(fields | {"ipv4_src": address(sender), "ipv4_dst": address(to), **more}, tags)


def ipv6(source: int, target: int, *tags: int, sender: str, to: str = "ff02::1", **more: int) -> Frame:
    """IPv6; ``more`` are fields of what it carries."""
    fields = {"eth_src": source, "eth_dst": target, "eth_type": 0x86DD}
    return Frame(fields | {"ipv6_src": address(sender), "ipv6_dst": address(to), **more}, tags)


def rarp(source: int, claimed: int, *tags: int, operation: int = 3) -> Frame:
    """With operation 3, as QEMU announces a guest that has arrived."""
    fields = {"eth_src": source, "eth_dst": BROADCAST, "eth_type": 0x8035, "arp_op": operation, "arp_spa": 0}
    return Frame(fields | {"arp_tpa": 0, "arp_sha": claimed, "arp_tha": claimed}, tags)


def experiment(source: int, target: int, *tags: int) -> Frame:
    """Neither IP nor ARP."""
    return Frame({"eth_src": source, "eth_dst": target, "eth_type": 0x88B5}, tags)


def arp(
    source: int,
    sender: str,
    target: str,
    *tags: int,
    to: int = BROADCAST,
    claimed: int | None = None,
    operation: int = 1,
) -> Frame:
    """A request: who has ``target``, tell ``sender``, who is at ``claimed``."""
    return Frame(
        {
            "eth_src": source, "eth_dst": to, "eth_type": 0x0806, "arp_op": operation, "arp_spa": address(sender),
            "arp_tpa": address(target), "arp_sha": source if claimed is None else claimed, "arp_tha": 0,
        },
        tags,
    )  # fmt: skip


def solicitation(source: int, sender: str, target: str, *tags: int, claimed: int | None = None) -> Frame:
    wanted = address(target)
    low = wanted & 0xFFFFFF
    return Frame(
        {
            "eth_src": source, "eth_dst": 0x3333FF000000 | low, "eth_type": 0x86DD, "ip_proto": 58,
            "icmpv6_type": 135, "icmpv6_code": 0, "ipv6_src": address(sender),
            "ipv6_dst": address("ff02::1:ff00:0") | low, "ipv6_nd_target": wanted, "nd_reserved": 0,
            "nd_options_type": 1, "ipv6_nd_sll": source if claimed is None else claimed,
        },
        tags,
    )  # fmt: skip


def advertisement(source: int, sender: str, target: str, *tags: int, claimed: int | None = None) -> Frame:
    """To all nodes, unsolicited: ``target`` is at ``claimed``."""
    nd = {"icmpv6_type": 136, "icmpv6_code": 0, "ipv6_nd_target": address(target), "nd_reserved": 0x20000000}
    option = {"nd_options_type": 2, "ipv6_nd_tll": source if claimed is None else claimed}
    return ipv6(source, 0x333300000001, *tags, sender=sender, ip_proto=58, **nd, **option)


@dataclass(frozen=True)
class Sent:
    """A frame and who sends it: the name of a vNIC, or of a physical network from whose outside it comes."""

    by: str
    frame: Frame


def sent(dice: Random, fleet: FleetRows, strange: float = 0.2) -> Sent:
    """A frame of one of the fleet's vNICs, or of a machine outside; more often than not it gets somewhere.

    ``strange``: how many go to somebody who is no vNIC.
    """
    oracle = Oracle(fleet)
    outside = sorted(name for name in fleet.uplink_numbers.taken)
    by = dice.choice(outside if dice.random() < 0.2 else sorted(fleet.ports))
    sender = fleet.ports.get(by)
    near = [port for port in fleet.ports.values() if sender is None or port.network == sender.network]
    known = [mac_of(port) for port in (near if dice.random() < 0.9 else fleet.ports.values())]
    vlans = sorted({vlan for network in fleet.networks.values() for vlan in network.vlans()} | {999})
    usual: list[int | None] = [None]
    if sender is not None and oracle.group(sender).trunk:
        usual += sorted(oracle.vlans(sender))
    if sender is None:
        usual += [vlan for network in fleet.networks.values() for vlan in network.vlans()
                  if network.physical_network == by]  # fmt: skip
    tag = dice.choice(usual if dice.random() < 0.85 else [0, *vlans])
    tags = () if tag is None else (tag,)
    source = dice.choice(STRANGERS) if sender is None else _source(dice, sender, oracle, known)
    addresses = [text for port in near for text in port.addresses]
    if any(spec.addresses == AWAY for spec in fleet.registered.values()):
        addresses += AWAY
    if dice.random() < 0.3:
        return Sent(by, _claim(dice, source, sender, addresses, known, tags))
    own = list(sender.addresses) if sender is not None else []
    if dice.random() < 0.6:
        to = [BROADCAST, GROUP, *known, *known] if dice.random() >= strange else STRANGERS
        ours = dice.choice([a for a in own if ":" not in a] * 5 + ["0.0.0.1"])
        return Sent(by, ip(source, dice.choice(to), *tags, sender=ours))
    wanted = dice.choice([NOBODYS, *addresses * 3])
    if ":" in wanted:
        ours = dice.choice([a for a in own if ":" in a] * 5 + ["fd00::77", "fd00::77", "::"])
        return Sent(by, solicitation(source, ours, wanted, *tags))
    to = [BROADCAST, BROADCAST, BROADCAST, *known[:1]]
    ours = dice.choice([a for a in own if ":" not in a] * 5 + ["10.0.0.77", "0.0.0.0"])
    return Sent(by, arp(source, ours, wanted, *tags, to=dice.choice(to)))


def _source(dice: Random, sender: PortStatus, oracle: Oracle, known: list[int]) -> int:
    """Its own MAC, or another. One who is isolated must not speak for others behind it, and would be kept from it."""
    guarded = not oracle.is_open(sender)
    if oracle.group(sender).learning and dice.random() < 0.1:
        return dice.choice(known)
    if guarded and dice.random() < 0.1:
        return dice.choice([*STRANGERS, *known])
    if not guarded and oracle.isolation(sender) == "none" and dice.random() < 0.3:
        return dice.choice(STRANGERS)
    return mac_of(sender)


def _claim(
    dice: Random, source: int, sender: PortStatus | None, addresses: list[str], known: list[int], tags: tuple[int, ...]
) -> Frame:
    """Something that a vNIC may say in its own name, and may not in another's; half of it is honest."""
    mac = source if dice.random() < 0.6 else dice.choice([*STRANGERS, *known, 0])
    own = list(sender.addresses) if sender is not None else []
    mine = str(IPv6Address(link_local(mac_of(sender) if sender is not None else source)))
    old = dice.choice([a for a in own if ":" not in a] * 4 + [a for a in addresses if ":" not in a] + ["0.0.0.0"] * 2)
    new = dice.choice(
        [mine, mine, *[a for a in own if ":" in a] * 4, *[a for a in addresses if ":" in a], "::", "fe80::1"]
    )
    about = dice.choice([new, new, mine, "fe80::1", "::"])
    to = dice.choice([BROADCAST, *known])
    udp = dice.choice([(67, 68), (1067, 68), (68, 67), (547, 546), (9, 546), (546, 547), (5000, 53), (5000, 0)])
    ports = {"ip_proto": 17, "udp_src": udp[0], "udp_dst": udp[1]}
    group = dice.choice([("224.0.0.5", "ff02::5"), ("10.0.0.9", "fd00::9")])
    return dice.choice([
        arp(source, old, dice.choice([old, NOBODYS]), *tags, to=to, claimed=mac, operation=dice.choice([1, 2])),
        rarp(source, mac, *tags, operation=dice.choice([3, 3, 4])),
        experiment(source, to, *tags),
        ip(source, to, *tags, sender=old, to=group[0], **ports),
        ip(source, to, *tags, sender=old, ip_proto=1, icmpv4_type=dice.choice([5, 8, 9])),
        ip(source, to, *tags, sender=old, ip_proto=dice.choice([0, 6, 50])),
        ipv6(source, to, *tags, sender=new, to=group[1], **ports),
        ipv6(source, to, *tags, sender=new, to=group[1], ip_proto=dice.choice([0, 6, 50])),
        ipv6(source, to, *tags, sender=new, to=group[1], ip_proto=58,
             icmpv6_type=dice.choice([0, 128, 131, 133, 134, 137, 143])),
        solicitation(source, new, about, *tags, claimed=mac),
        advertisement(source, new, about, *tags, claimed=mac),
    ])  # fmt: skip
