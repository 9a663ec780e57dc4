"""What a vNIC may send, from its row and its portgroup's filters alone; nothing here knows a flow."""

from __future__ import annotations

from collections.abc import Iterable

from switch_model import Frame, number

from controller.model.port import PortStatus

ARP, RARP, IPV4, IPV6 = 0x0806, 0x8035, 0x0800, 0x86DD
BROADCAST = number("eth_dst", "ff:ff:ff:ff:ff:ff")
SOLICITATIONS, SOLICITATION, ADVERTISEMENT, MLD = 133, 135, 136, {131, 132, 143}
_PARTS = {
    "no-arp-spoofing": {"no-arp-mac-spoofing", "no-arp-ip-spoofing"},
    "no-ipv6-spoofing": {"no-ipv6-spoofing", "no-nd-mac-spoofing"},
    "clean-traffic": {
        "no-mac-spoofing", "no-arp-mac-spoofing", "no-arp-ip-spoofing", "no-ip-spoofing", "no-other-l2-traffic",
        "no-ipv6",
    },
}  # fmt: skip


def in_force(filters: Iterable[str] | None, addresses: Iterable[str], learns: bool = False) -> set[str]:
    """Names of what is forbidden and allowed, the collective ones taken apart. ``learns``: it learns its addresses."""
    if filters is not None:
        return {part for name in filters for part in _PARTS.get(name, {name})}
    found = {"no-mac-spoofing", "no-arp-mac-spoofing", "no-nd-mac-spoofing"}
    if learns or list(addresses):
        found |= {"no-ip-spoofing", "no-arp-ip-spoofing", "no-ipv6-spoofing"}
    return found


def link_local(mac: int) -> int:
    """RFC 4291, appendix A: the address that a MAC makes."""
    return (0xFE80 << 112) | ((mac >> 24 ^ 0x020000) << 40) | 0xFFFE << 24 | (mac & 0xFFFFFF)


def may_send(port: PortStatus, filters: Iterable[str] | None, learns: bool, frame: Frame) -> bool:
    """Whether the frame, its own tag taken off, passes. What would be learned from it is said again."""
    names, mac = in_force(filters, port.addresses, learns), number("eth_src", port.mac)
    if "no-mac-spoofing" in names and frame["eth_src"] != mac:
        return False
    insides = {n for n in names if not n.startswith("be-")} - {"no-mac-spoofing"}
    if frame.tags:  # one more tag inside; nobody looks behind it
        return not insides
    ipv4 = {number("ipv4_src", a) for a in port.addresses if ":" not in a}
    ipv6 = {number("ipv6_src", a) for a in port.addresses if ":" in a} | {link_local(mac)}
    match frame["eth_type"]:
        case 0x0806:
            return _arp(names, mac, ipv4, frame)
        case 0x0800:
            return _serves(names, frame, _casts_ipv4(names, frame)) and _ipv4(names, ipv4, frame)
        case 0x86DD if "no-ipv6" in names:
            return False
        case 0x86DD:
            passed = _serves(names, frame, _casts_ipv6(names, frame))
            return passed and _neighbour(names, mac, ipv6, frame) and _ipv6(names, ipv6, frame)
        case 0x8035:
            if frame["arp_sha"] == mac and frame["arp_op"] == 3:  # QEMU announces it
                return "qemu-announce-self" in names or "no-other-rarp-traffic" not in names
            return not names & {"no-other-l2-traffic", "no-other-rarp-traffic", "qemu-announce-self"}
        case _:
            return "no-other-l2-traffic" not in names


def _arp(names: set[str], mac: int, ipv4: set[int], frame: Frame) -> bool:
    if "no-arp-mac-spoofing" in names and frame["arp_sha"] != mac:
        return False
    probe = frame["arp_spa"] == 0 and frame["arp_op"] == 1
    return "no-arp-ip-spoofing" not in names or probe or frame["arp_spa"] in ipv4


def _serves(names: set[str], frame: Frame, otherwise: bool) -> bool:
    """What a server or a router says needs permission, and then no other; of the rest only what can be read passes."""
    get, v6 = frame.fields.get, frame["eth_type"] == IPV6
    if get("ip_proto") == 0 or (v6 and 0 in (get("udp_dst"), get("icmpv6_type"))):
        return False
    if get("icmpv6_type") in {SOLICITATION, ADVERTISEMENT} and frame["ipv6_nd_target"] == 0:
        return False
    if not v6 and get("udp_dst") == 68:
        return "be-dhcp-server" in names
    if v6 and get("udp_dst") == 546:
        return "be-dhcpv6-server" in names
    if get("icmpv6_type") in {134, 137} or get("icmpv4_type") in {5, 9}:
        return "be-router" in names
    return otherwise


def _asks_dhcp(frame: Frame) -> bool:
    return (frame.fields.get("udp_src"), frame.fields.get("udp_dst")) == (68, 67)


def _casts_ipv4(names: set[str], frame: Frame) -> bool:
    if "no-mac-broadcast" in names and frame["eth_dst"] == BROADCAST:
        # The way is free for what a DHCP client broadcasts, whatever its IP destination.
        return _asks_dhcp(frame)
    return "no-ip-multicast" not in names or frame["ipv4_dst"] >> 28 != 0xE


def _casts_ipv6(names: set[str], frame: Frame) -> bool:
    if "no-ipv6-multicast" not in names or frame["ipv6_dst"] >> 120 != 0xFF:
        return True
    asks = (frame.fields.get("udp_src"), frame.fields.get("udp_dst")) == (546, 547)
    return asks or frame.fields.get("icmpv6_type") in {SOLICITATIONS, SOLICITATION, ADVERTISEMENT, *MLD}


def _neighbour(names: set[str], mac: int, ipv6: set[int], frame: Frame) -> bool:
    kind = frame.fields.get("icmpv6_type")
    if kind not in {SOLICITATION, ADVERTISEMENT}:
        return True
    said = frame["ipv6_nd_sll" if kind == SOLICITATION else "ipv6_nd_tll"]  # 0: the option is not there
    if "no-nd-mac-spoofing" in names and said not in {mac, 0}:
        return False
    return kind == SOLICITATION or "no-ipv6-spoofing" not in names or frame["ipv6_nd_target"] in ipv6


def _ipv4(names: set[str], ipv4: set[int], frame: Frame) -> bool:
    asks = frame["ipv4_src"] == 0 and _asks_dhcp(frame)
    return "no-ip-spoofing" not in names or asks or frame["ipv4_src"] in ipv4


def _ipv6(names: set[str], ipv6: set[int], frame: Frame) -> bool:
    if "no-ipv6-spoofing" not in names or frame["ipv6_src"] in ipv6:
        return True
    kind = frame.fields.get("icmpv6_type")
    takes_own = kind == SOLICITATION and frame["ipv6_nd_target"] in ipv6
    return frame["ipv6_src"] == 0 and (takes_own or kind in {SOLICITATIONS, *MLD})
