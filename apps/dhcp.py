"""DHCP: what a vNIC asks the DHCP server of its network goes to the controller, and nowhere else.

Each vNIC has a meter of its own: one that asks without end keeps nobody else from being answered.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.openflow.actions import Controller
from controller.openflow.match import Value
from controller.pipeline.actions import match
from controller.pipeline.app import App
from controller.pipeline.tables import GATEWAY, Flow, Priority
from controller.reader import Reader
from controller.views import PortView

_IPV4, _UDP, _CLIENT, _SERVER = 0x0800, 17, 68, 67
_IPV6, _CLIENT_V6, _SERVER_V6 = 0x86DD, 546, 547  # RFC 8415, 7.2


class Dhcp(App):
    tables = (GATEWAY,)

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is None or network.gateway is None or port.arriving:
            return
        if network.gateway.dhcp:
            yield _asks(port, eth_type=_IPV4, ip_proto=_UDP, udp_src=_CLIENT, udp_dst=_SERVER)
        if network.gateway.dhcp6:
            yield _asks(port, eth_type=_IPV6, ip_proto=_UDP, udp_src=_CLIENT_V6, udp_dst=_SERVER_V6)


def _asks(port: PortView, **terms: Value) -> Flow:
    return GATEWAY.flow(
        Priority.EXCEPTION,
        match(in_port=port.ofport, **terms),
        Controller(meter_id=port.ofport),
        why="asks for an address; the controller answers",
    )
