"""OpenFlow port numbers that are the same on every host, so that flows can be the same too.

Open vSwitch hands out numbers from 1 upwards and OpenFlow 1.0's range ends at 0xff00 (ovs-vswitchd.conf.db(5),
``ofport_request``); these stand near the end, where no vNIC comes.
"""

from __future__ import annotations

from collections.abc import Mapping

TUNNEL_PORTS: Mapping[str, int] = {"geneve": 65001, "vxlan": 65002, "gre": 65003}

TUNNELS = 65000  # no port: it stands for the tunnel to the peer that goes with it

UPLINK_FIRST = 64001  # the patch port to the uplink bridge of the physical network with number 1
MAX_UPLINK = 900

OUTSIDE_ERRORS = 65100  # no port: the meter of what machines outside are told
NEIGHBOURS = 65101  # no port: the meter of what neighbours on all uplinks say of themselves
FLOATING_ERRORS = 65102  # no port: the meter of ICMP errors for floating addresses
ROUTERS = 65103  # no port: the meter of what routers outside say of themselves
FORWARDED = 0x10000  # no port: the meter of connections that machines outside begin by port forwards


def connections_meter(ofport: int) -> int:
    """The meter of new connections of the vNIC at that OpenFlow port; ports have 16 bits."""
    return FORWARDED + ofport


def uplink_port(number: int) -> int:
    """OpenFlow port of the patch port towards the physical network with that fleet-wide number (from 1)."""
    return UPLINK_FIRST + number - 1
